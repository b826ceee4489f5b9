//! Who may use a route, and with whose credentials. Refused here is what would give upstream
//! credentials to unchecked callers, or could never work.

use url::Url;

use super::{Known, Route};
use crate::config::diagnostic::{Location, quoted};
use crate::config::reader::Reader;
use crate::config::references;
use crate::config::resolved::{IssuerKind, SourceKind};
use crate::config::source::template_claims;
use crate::config::value::Item;
use crate::remote::settings::Auth0Identity;

/// Indices of the issuers and of the source.
type Access = (Vec<usize>, Option<usize>);

/// A named issuer that could be read.
struct Named<'a> {
    at: &'a Location,
    kind: &'a IssuerKind,
}

impl<'a> Named<'a> {
    /// Its exact `iss`, if it has one.
    fn url(&self) -> Option<&'a str> {
        match self.kind {
            IssuerKind::Oidc(oidc) => Some(&oidc.url),
            IssuerKind::SharedSecret(secret) => Some(&secret.url),
            IssuerKind::Introspection(asked) => Some(&asked.issuer.url),
            IssuerKind::Delegated => None,
        }
    }

    /// For an issuer of opaque tokens: their prefix; empty for any token.
    fn takes_opaque(&self) -> Option<&'a str> {
        match self.kind {
            IssuerKind::Introspection(asked) => {
                Some(asked.issuer.token_prefix.as_deref().unwrap_or_default())
            }
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
        known: Known<'_>,
    ) -> Option<Access> {
        let source = self.find_source(reader, known);
        let issuers = self.issuers.value.as_ref()?;
        let items = &issuers.items;
        let found: Vec<_> = items
            .iter()
            .map(|item| references::find(reader, "issuer", known.issuers, item))
            .collect();
        let named: Vec<_> = items
            .iter()
            .zip(&found)
            .filter_map(|(item, index)| {
                let kind = known.issuers.get((*index)?)?.meaning.as_ref()?;
                Some(Named { at: &item.at, kind })
            })
            .collect();
        let kind = source
            .flatten()
            .and_then(|index| known.sources.get(index)?.meaning.as_ref())
            .map(|source| &source.kind);
        let anonymous = self.anonymous.value?;
        if let Some(SourceKind::Password(_)) = kind {
            self.check_password(reader, known);
        } else if anonymous {
            self.check_anonymous(reader, known, kind);
        } else if issuers.is_empty() {
            // For a source that could not be read, it is unknown whether it asks for passwords.
            if kind.is_some() || self.source.is_absent() {
                self.check_nobody(reader);
            }
        } else {
            refuse_same_issuer(reader, &named);
            refuse_same_opaque(reader, &named);
            self.check_delegated(reader, &named, kind);
            if let Some(SourceKind::Auth0Identity(source)) = kind {
                refuse_other_tenants(reader, &named, source);
            }
            self.check_workload_token(reader, known);
        }
        Some((found.into_iter().collect::<Option<_>>()?, source?))
    }

    /// `Some(None)` if none is named, `None` if the named one was not found.
    #[allow(clippy::option_option)]
    fn find_source(&self, reader: &mut Reader<'_>, known: Known<'_>) -> Option<Option<usize>> {
        let Some(name) = &self.source.value else {
            return self.source.is_absent().then_some(None);
        };
        let reference = Item {
            at: self.source.at.clone(),
            value: name.clone(),
        };
        references::find(reader, "source", known.sources, &reference).map(Some)
    }

    fn requires_scopes(&self) -> bool {
        self.require_scopes
            .value
            .as_ref()
            .is_some_and(|list| !list.is_empty())
    }

    fn check_anonymous(
        &self,
        reader: &mut Reader<'_>,
        known: Known<'_>,
        source: Option<&SourceKind>,
    ) {
        const REMEDY: &str = "remove it, or remove anonymous";
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
                "contradicts anonymous = true, which checks no token",
                REMEDY,
            );
        }
        if let Some(problem) = source.and_then(needs_caller) {
            let remedy = "name issuers, or a source of kind taskcluster-static";
            reader.error(&self.source.at, problem, remedy);
        }
        if known.only_local() {
            return;
        }
        let at = &self.anonymous.at;
        if self.source.given {
            let problem = "would give the source's credentials to other machines";
            let remedy = "name issuers, or make every listener loopback or a Unix socket, without trusted_proxies";
            reader.error(at, problem, remedy);
        } else {
            let problem = "lets other machines reach the upstream without a token";
            reader.warn(at, problem, "name issuers if this is not intended");
        }
    }

    /// Callers send a username and password; no token is checked.
    fn check_password(&self, reader: &mut Reader<'_>, known: Known<'_>) {
        let issuers = self.issuers.value.as_ref().is_some_and(|l| !l.is_empty());
        let contradictions = [
            (issuers, &self.issuers.at),
            (self.anonymous.value == Some(true), &self.anonymous.at),
            (self.requires_scopes(), &self.require_scopes.at),
            (self.workload_token.given, &self.workload_token.at),
        ];
        for (_, at) in contradictions.into_iter().filter(|(given, _)| *given) {
            let problem = "contradicts the source, which asks callers for a username and password";
            reader.error(at, problem, "remove it, or name another source");
        }
        if !known.only_local() {
            let problem = "accepts passwords, but other machines can connect to it";
            let remedy = "make every listener loopback or a Unix socket, without trusted_proxies, or name another source";
            reader.error(&self.source.at, problem, remedy);
        }
    }

    /// No issuers, and not anonymous.
    fn check_nobody(&self, reader: &mut Reader<'_>) {
        let at = &self.issuers.at;
        if let Some(source) = &self.source.value {
            let problem = format!(
                "missing: the credentials of source {} would be available to anyone who can connect",
                quoted(source)
            );
            let remedy = "name issuers, or write anonymous = true while every listener is loopback or a Unix socket";
            reader.error(at, problem, remedy);
        } else if self.source.is_absent() {
            let problem =
                "missing, and so is source: this route would check nothing and add nothing";
            let remedy = "name issuers and a source, or write anonymous = true to forward requests unchanged";
            reader.error(at, problem, remedy);
        }
        if self.requires_scopes() {
            reader.error(
                &self.require_scopes.at,
                "the route asks for no token",
                "name issuers",
            );
        }
        if self.workload_token.given {
            reader.error(
                &self.workload_token.at,
                "there is no issuer to verify it",
                "name its issuer",
            );
        }
    }

    fn check_delegated(
        &self,
        reader: &mut Reader<'_>,
        named: &[Named<'_>],
        source: Option<&SourceKind>,
    ) {
        let mut delegated = named.iter().filter(|issuer| issuer.is_delegated());
        let Some(first) = delegated.next() else {
            if let Some(SourceKind::TaskclusterOauth { .. }) = source
                && !named.is_empty()
            {
                let problem =
                    "Taskcluster's OAuth2 tokens are opaque: no issuer of kind oidc can verify one";
                reader.warn(
                    &self.issuers.at,
                    problem,
                    "name an issuer of kind delegated",
                );
            }
            return;
        };
        if let Some(second) = delegated.next() {
            let problem = "is a second delegated issuer, which would never be used";
            reader.error(second.at, problem, "name one");
        }
        if self.requires_scopes() {
            let problem = "a delegated issuer's tokens are opaque: their scopes cannot be checked";
            reader.error(
                &self.require_scopes.at,
                problem,
                "remove it, or use a route for each issuer",
            );
        }
        match source {
            None if self.source.is_absent() => {
                let problem = "is delegated: without a source, its tokens are not checked";
                reader.error(first.at, problem, "name a source of kind taskcluster-oauth");
            }
            Some(
                SourceKind::TaskclusterMint { .. }
                | SourceKind::TaskclusterStatic { .. }
                | SourceKind::ClientCredentials { .. },
            ) => {
                let problem = "is delegated, but this source checks no token: any token would get its credentials";
                reader.error(
                    first.at,
                    problem,
                    "name a source of kind taskcluster-oauth or token-exchange, or an issuer of kind oidc",
                );
            }
            Some(SourceKind::TaskclusterLogin { .. }) => {
                let problem = "is delegated: only the login endpoint checks its tokens";
                reader.warn(
                    first.at,
                    problem,
                    "they are JWTs: name an issuer of kind oidc to verify them here",
                );
            }
            _ => {}
        }
    }

    fn check_workload_token(&self, reader: &mut Reader<'_>, known: Known<'_>) {
        let Some(token) = &self.workload_token.value else {
            return;
        };
        if !known.only_local() {
            let problem = "would give this workload's identity to other machines";
            let remedy = "make every listener loopback or a Unix socket, without trusted_proxies, or remove it";
            reader.error(&self.workload_token.at, problem, remedy);
        }
        if reader.reads_files()
            && let Some(path) = &token.0.file.value
            && let Err(cause) = std::fs::metadata(path)
        {
            let problem = format!("{} cannot be read yet: {cause}", path.display());
            reader.warn(
                &token.0.file.at,
                problem,
                "requests without a token are refused until it is there",
            );
        }
    }
}

/// Why a source cannot serve a caller without a token, if so.
fn needs_caller(source: &SourceKind) -> Option<&'static str> {
    match source {
        SourceKind::TaskclusterLogin { .. }
        | SourceKind::TaskclusterOauth { .. }
        | SourceKind::TokenExchange { .. } => {
            Some("exchanges the caller's token, and an anonymous route requires none")
        }
        SourceKind::TaskclusterMint { client_name, .. } => {
            let claims = template_claims(client_name).unwrap_or_default();
            (!claims.is_empty())
                .then_some("names callers by claims, and an anonymous route has none")
        }
        SourceKind::Auth0Identity(_) => {
            Some("needs the user of a verified token, and an anonymous route has none")
        }
        // Has its own checks, which exclude anonymous routes.
        SourceKind::Password(_)
        | SourceKind::TaskclusterStatic { .. }
        | SourceKind::ClientCredentials { .. } => None,
    }
}

/// The `sub` of another issuer may name a different user of the tenant, whose token the caller
/// would get.
fn refuse_other_tenants(reader: &mut Reader<'_>, named: &[Named<'_>], source: &Auth0Identity) {
    let domains = [Some(&source.tenant), source.custom_domain.as_ref()];
    for issuer in named {
        let url = match issuer.kind {
            IssuerKind::Oidc(oidc) => Url::parse(&oidc.url).ok(),
            _ => None,
        };
        let same = |domain: &&Url| url.as_ref().is_some_and(|url| url == *domain);
        if !domains.iter().flatten().any(same) {
            let problem = "is not the source's tenant: its `sub` may be another user there";
            let remedy = format!(
                "name an issuer of kind oidc whose url is {}, or write its url as the source's custom_domain",
                quoted(source.tenant.as_str())
            );
            reader.error(issuer.at, problem, remedy);
        }
    }
}

/// A token is verified by the one issuer of the route that has its `iss`.
fn refuse_same_issuer(reader: &mut Reader<'_>, named: &[Named<'_>]) {
    let mut seen = Vec::new();
    for issuer in named {
        let Some(url) = issuer.url() else {
            continue;
        };
        if seen.contains(&url) {
            let problem =
                "has the same url as another issuer of this route: which one applies is ambiguous";
            reader.error(issuer.at, problem, "name one, or use a route for each");
        }
        seen.push(url);
    }
}

/// An opaque token does not name its issuer and must not be sent to any other, so each prefix can
/// belong to only one issuer of a route.
fn refuse_same_opaque(reader: &mut Reader<'_>, named: &[Named<'_>]) {
    let mut seen = Vec::new();
    for issuer in named {
        let Some(prefix) = issuer.takes_opaque() else {
            continue;
        };
        // Two delegated issuers have their own error.
        let both_delegated =
            issuer.is_delegated() && named.iter().filter(|n| n.is_delegated()).count() > 1;
        if seen.contains(&prefix) && !both_delegated {
            let problem = if prefix.is_empty() {
                "accepts any opaque token, like another issuer of this route: a token's issuer would be ambiguous".into()
            } else {
                format!(
                    "accepts tokens that start with {}, like another issuer of this route",
                    quoted(prefix)
                )
            };
            let remedy = "use a route for each, or give all but one a different token_prefix";
            reader.error(issuer.at, problem, remedy);
        }
        seen.push(prefix);
    }
}
