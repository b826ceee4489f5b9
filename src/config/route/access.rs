//! Access to a route: its issuers and its source. Refuses combinations that would give upstream
//! credentials to unverified callers, and those that could never work.

use url::Url;

use super::{Context, Route};
use crate::config::diagnostic::{Location, quoted};
use crate::config::reader::Reader;
use crate::config::references::{self, Declaration};
use crate::config::resolved::{IssuerKind, SourceKind};
use crate::config::source::template_claims;
use crate::config::value::Item;
use crate::remote::settings::Auth0Identity;
use crate::token::WorkloadToken;

/// The indices of what a route names.
pub(super) struct Access {
    pub(super) issuers: Vec<usize>,
    pub(super) source: Option<usize>,
    pub(super) session: Option<usize>,
}

/// A valid issuer that a route lists.
struct ListedIssuer<'a> {
    at: &'a Location,
    kind: &'a IssuerKind,
}

impl<'a> ListedIssuer<'a> {
    /// Its exact `iss`, if it has one.
    fn url(&self) -> Option<&'a str> {
        match self.kind {
            IssuerKind::Oidc(oidc) => Some(&oidc.url),
            IssuerKind::SharedSecret(secret) => Some(&secret.url),
            IssuerKind::Introspection(introspection) => Some(&introspection.issuer.url),
            IssuerKind::Delegated => None,
        }
    }

    /// The prefix of the issuer's tokens if they are opaque; empty if any token could be one.
    fn opaque_prefix(&self) -> Option<&'a str> {
        match self.kind {
            IssuerKind::Introspection(introspection) => Some(
                introspection
                    .issuer
                    .token_prefix
                    .as_deref()
                    .unwrap_or_default(),
            ),
            IssuerKind::Delegated => Some(""),
            IssuerKind::Oidc(_) | IssuerKind::SharedSecret(_) => None,
        }
    }

    fn is_delegated(&self) -> bool {
        matches!(self.kind, IssuerKind::Delegated)
    }
}

impl Route {
    pub(super) fn resolve_access(
        &self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
    ) -> Option<Access> {
        let source = self.find_source(reader, context);
        let session = self.find_session(reader, context);
        let issuers = self.issuers.value.as_ref()?;
        let items = &issuers.items;
        let found: Vec<_> = items
            .iter()
            .map(|item| references::find(reader, "issuer", context.issuers, item))
            .collect();
        let named: Vec<_> = items
            .iter()
            .zip(&found)
            .filter_map(|(item, index)| {
                let kind = context.issuers.get((*index)?)?.value.as_ref()?;
                Some(ListedIssuer { at: &item.at, kind })
            })
            .collect();
        let kind = source
            .flatten()
            .and_then(|index| context.sources.get(index)?.value.as_ref())
            .map(|source| &source.kind);
        let anonymous = self.anonymous.value?;
        self.check_session(reader, context, session.flatten(), kind);
        if let Some(SourceKind::Password(_)) = kind {
            self.check_password(reader, context);
        } else if anonymous {
            self.check_anonymous(reader, context, kind);
        } else if issuers.is_empty() && self.session.given {
            self.check_workload_token(reader, context);
        } else if issuers.is_empty() {
            // An invalid source may be one of kind `password`, which needs no issuers.
            if kind.is_some() || self.source.is_absent() {
                self.check_without_issuers(reader);
            }
        } else {
            refuse_duplicate_urls(reader, &named);
            refuse_ambiguous_opaque(reader, &named);
            self.check_delegated(reader, &named, kind);
            if let Some(SourceKind::Auth0Identity(source)) = kind {
                refuse_other_tenants(reader, &named, source);
            }
            self.check_workload_token(reader, context);
        }
        Some(Access {
            issuers: found.into_iter().collect::<Option<_>>()?,
            source: source?,
            session: session?,
        })
    }

    /// Returns `Some(None)` if the route has no source, `None` if its source does not exist.
    #[allow(clippy::option_option)]
    fn find_source(&self, reader: &mut Reader<'_>, context: Context<'_>) -> Option<Option<usize>> {
        let Some(name) = &self.source.value else {
            return self.source.is_absent().then_some(None);
        };
        let reference = Item {
            at: self.source.at.clone(),
            value: name.clone(),
        };
        references::find(reader, "source", context.sources, &reference).map(Some)
    }

    /// Whether the route serves programs of this machine that present no token, or a password that a
    /// browser may have stored. An anonymous route without a source is public if other machines can
    /// connect.
    pub(super) fn needs_no_token(&self, context: Context<'_>) -> bool {
        let public = self.source.is_absent() && !context.is_confined();
        let source = self.source.value.as_deref().and_then(|name| {
            let named = |source: &&Declaration<_>| source.name.as_deref() == Some(name);
            context.sources.iter().find(named)?.value.as_ref()
        });
        let takes_password = source.is_some_and(|s| matches!(s.kind, SourceKind::Password(_)));
        let anonymous = self.anonymous.value == Some(true) && !public;
        anonymous || takes_password || self.workload_token.given
    }

    pub(super) fn requires_scopes(&self) -> bool {
        self.require_scopes
            .value
            .as_ref()
            .is_some_and(|list| !list.is_empty())
    }

    fn check_anonymous(
        &self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
        source: Option<&SourceKind>,
    ) {
        const REMEDY: &str = "remove one of the two";
        let contradictions = [
            (
                self.issuers.given && self.issuers.value.as_ref().is_some_and(|l| !l.is_empty()),
                &self.issuers.at,
            ),
            (self.requires_scopes(), &self.require_scopes.at),
            (self.workload_token.given, &self.workload_token.at),
        ];
        for (_, at) in contradictions.into_iter().filter(|(given, _)| *given) {
            reader.error(
                at,
                "conflicts with anonymous = true, which verifies no token",
                REMEDY,
            );
        }
        if let Some(problem) = source.and_then(requires_caller) {
            let remedy = "set issuers, or use a source of kind taskcluster-static";
            reader.error(&self.source.at, problem, remedy);
        }
        if context.is_confined() {
            return;
        }
        let at = &self.anonymous.at;
        if self.source.given {
            let problem = "would give the source's credentials to other machines";
            let remedy = "set issuers, or make every listener loopback or a Unix socket, without trusted_proxies";
            reader.error(at, problem, remedy);
        } else {
            let problem = "lets other machines reach the upstream without a token";
            reader.warn(at, problem, "set issuers if this is not intended");
        }
    }

    /// Checks a route whose callers send a username and password instead of a token.
    fn check_password(&self, reader: &mut Reader<'_>, context: Context<'_>) {
        let issuers = self.issuers.value.as_ref().is_some_and(|l| !l.is_empty());
        let contradictions = [
            (issuers, &self.issuers.at),
            (self.anonymous.value == Some(true), &self.anonymous.at),
            (self.requires_scopes(), &self.require_scopes.at),
            (self.workload_token.given, &self.workload_token.at),
        ];
        for (_, at) in contradictions.into_iter().filter(|(given, _)| *given) {
            let problem =
                "conflicts with the source, which asks callers for a username and password";
            reader.error(at, problem, "remove it, or use another source");
        }
        if !context.is_local_only() {
            let problem = "accepts passwords, but other machines can connect";
            let remedy = "make every listener loopback or a Unix socket, without trusted_proxies, or use another source";
            reader.error(&self.source.at, problem, remedy);
        }
    }

    /// Checks a route without issuers that is not anonymous.
    fn check_without_issuers(&self, reader: &mut Reader<'_>) {
        let at = &self.issuers.at;
        if let Some(source) = &self.source.value {
            let problem = format!(
                "missing: the credentials of source {} would be available to anyone who can connect",
                quoted(source)
            );
            let remedy = "set issuers, or set anonymous = true if every listener is loopback or a Unix socket";
            reader.error(at, problem, remedy);
        } else if self.source.is_absent() {
            let problem = "missing, and so is source: the route would neither verify tokens nor add credentials";
            let remedy =
                "set issuers and source, or set anonymous = true to forward requests unchanged";
            reader.error(at, problem, remedy);
        }
        if self.requires_scopes() {
            reader.error(
                &self.require_scopes.at,
                "has no effect without issuers: no token is verified",
                "set issuers",
            );
        }
        if self.workload_token.given {
            reader.error(
                &self.workload_token.at,
                "has no effect without issuers: the token could not be verified",
                "set issuers",
            );
        }
    }

    fn check_delegated(
        &self,
        reader: &mut Reader<'_>,
        named: &[ListedIssuer<'_>],
        source: Option<&SourceKind>,
    ) {
        let mut delegated = named.iter().filter(|issuer| issuer.is_delegated());
        let Some(first) = delegated.next() else {
            if let Some(SourceKind::TaskclusterOauth { .. }) = source
                && !named.is_empty()
            {
                let problem = "Taskcluster's OAuth2 tokens are opaque: an issuer of kind oidc cannot verify them";
                reader.warn(&self.issuers.at, problem, "use an issuer of kind delegated");
            }
            return;
        };
        if let Some(second) = delegated.next() {
            let problem = "is a second delegated issuer, which would never be used";
            reader.error(second.at, problem, "keep one of the two");
        }
        if self.requires_scopes() {
            let problem = "cannot be checked: a delegated issuer's tokens are opaque";
            reader.error(
                &self.require_scopes.at,
                problem,
                "remove it, or use a separate route for each issuer",
            );
        }
        match source {
            None if self.source.is_absent() => {
                let problem = "is a delegated issuer: without a source, nothing checks its tokens";
                reader.error(first.at, problem, "use a source of kind taskcluster-oauth");
            }
            Some(
                SourceKind::TaskclusterMint { .. }
                | SourceKind::TaskclusterStatic { .. }
                | SourceKind::ClientCredentials { .. }
                | SourceKind::Static(_),
            ) => {
                let problem = "is a delegated issuer, but the route's source checks no tokens: any token would obtain credentials";
                reader.error(
                    first.at,
                    problem,
                    "use a source of kind taskcluster-oauth or token-exchange, or an issuer of kind oidc",
                );
            }
            Some(SourceKind::TaskclusterLogin { .. }) => {
                let problem = "is a delegated issuer: only the login endpoint checks its tokens";
                reader.warn(
                    first.at,
                    problem,
                    "the tokens are JWTs: use an issuer of kind oidc to verify them in hawkgate",
                );
            }
            _ => {}
        }
    }

    fn check_workload_token(&self, reader: &mut Reader<'_>, context: Context<'_>) {
        let Some(token) = &self.workload_token.value else {
            return;
        };
        if !context.is_local_only() {
            let problem = "would give this workload's identity to other machines";
            let remedy = "make every listener loopback or a Unix socket, without trusted_proxies, or remove it";
            reader.error(&self.workload_token.at, problem, remedy);
        }
        if reader.reads_files()
            && let Some(path) = &token.0.file.value
            && let Err(problem) = WorkloadToken::new(path.clone()).refresh()
        {
            reader.warn(
                &token.0.file.at,
                problem.to_string(),
                "requests without a token are refused until it can be read",
            );
        }
    }
}

/// Returns the problem with using a source on an anonymous route, if there is one.
fn requires_caller(source: &SourceKind) -> Option<&'static str> {
    match source {
        SourceKind::TaskclusterLogin { .. }
        | SourceKind::TaskclusterOauth { .. }
        | SourceKind::TokenExchange { .. } => {
            Some("exchanges the caller's token, but an anonymous route requires none")
        }
        SourceKind::TaskclusterMint { client_name, .. } => {
            let claims = template_claims(client_name).unwrap_or_default();
            (!claims.is_empty())
                .then_some("derives the client's name from claims, but an anonymous route has none")
        }
        SourceKind::Auth0Identity(_) => {
            Some("needs the user of a verified token, but an anonymous route has none")
        }
        // `check_password` refuses anonymous routes.
        SourceKind::Password(_)
        | SourceKind::TaskclusterStatic { .. }
        | SourceKind::ClientCredentials { .. }
        | SourceKind::Static(_) => None,
    }
}

/// Refuses issuers other than the source's tenant: their `sub` may be that of a different user of
/// the tenant, whose token the caller would obtain.
fn refuse_other_tenants(
    reader: &mut Reader<'_>,
    named: &[ListedIssuer<'_>],
    source: &Auth0Identity,
) {
    for issuer in named {
        refuse_other_tenant(reader, issuer.at, issuer.kind, source);
    }
}

/// Like [`refuse_other_tenants`], for one issuer.
pub(super) fn refuse_other_tenant(
    reader: &mut Reader<'_>,
    at: &Location,
    issuer: &IssuerKind,
    source: &Auth0Identity,
) {
    let domains = [Some(&source.tenant), source.custom_domain.as_ref()];
    let url = match issuer {
        IssuerKind::Oidc(oidc) => Url::parse(&oidc.url).ok(),
        _ => None,
    };
    let same = |domain: &&Url| url.as_ref().is_some_and(|url| url == *domain);
    if !domains.iter().flatten().any(same) {
        let problem = "is not the source's tenant, where the same `sub` may be another user";
        let remedy = format!(
            "use an issuer of kind oidc whose url is {}, or set the source's custom_domain to its url",
            quoted(source.tenant.as_str())
        );
        reader.error(at, problem, remedy);
    }
}

/// Refuses issuers with the same `iss`, which determines the issuer that verifies a token.
fn refuse_duplicate_urls(reader: &mut Reader<'_>, named: &[ListedIssuer<'_>]) {
    let mut seen = Vec::new();
    for issuer in named {
        let Some(url) = issuer.url() else {
            continue;
        };
        if seen.contains(&url) {
            let problem = "has the same url as another issuer of this route: a token's issuer would be ambiguous";
            reader.error(
                issuer.at,
                problem,
                "keep one of the two, or use a separate route for each",
            );
        }
        seen.push(url);
    }
}

/// Refuses issuers of opaque tokens with the same prefix. An opaque token does not contain its
/// issuer, and must not be sent to any other.
fn refuse_ambiguous_opaque(reader: &mut Reader<'_>, named: &[ListedIssuer<'_>]) {
    let mut seen = Vec::new();
    for issuer in named {
        let Some(prefix) = issuer.opaque_prefix() else {
            continue;
        };
        // `check_delegated` reports two delegated issuers.
        let both_delegated =
            issuer.is_delegated() && named.iter().filter(|n| n.is_delegated()).count() > 1;
        if seen.contains(&prefix) && !both_delegated {
            let problem = if prefix.is_empty() {
                "accepts any opaque token, as does another issuer of this route: a token's issuer would be ambiguous".into()
            } else {
                format!(
                    "accepts tokens that start with {}, as does another issuer of this route",
                    quoted(prefix)
                )
            };
            let remedy =
                "use a separate route for each, or give all but one a different token_prefix";
            reader.error(issuer.at, problem, remedy);
        }
        seen.push(prefix);
    }
}
