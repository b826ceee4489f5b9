//! Who may use a route, and with whose credentials. What is refused here would lend the
//! upstream's credentials to callers that nobody has checked, or could never work.

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

    /// For an issuer of opaque tokens: what they begin with, the empty text for anything.
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
            // Of a source that cannot be read nobody knows whether it asks for passwords.
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

    /// `Some(None)` when none is named, `None` when the named one could not be found.
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
                "contradicts anonymous = true, which looks at no token",
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
            let problem = "would lend the source's credentials to other machines";
            let remedy = "name issuers, or let every listener be loopback or a Unix socket, without trusted_proxies";
            reader.error(at, problem, remedy);
        } else {
            let problem = "lets other machines reach the upstream without a token";
            reader.warn(at, problem, "name issuers, if that is not meant");
        }
    }

    /// Callers bring a username and password: no token is looked at.
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
            let problem = "asks for passwords, and other machines can connect";
            let remedy = "let every listener be loopback or a Unix socket, without trusted_proxies, or name another source";
            reader.error(&self.source.at, problem, remedy);
        }
    }

    /// No issuers, and not anonymous.
    fn check_nobody(&self, reader: &mut Reader<'_>) {
        let at = &self.issuers.at;
        if let Some(source) = &self.source.value {
            let problem = format!(
                "missing: the credentials of source {} would go to whoever can connect",
                quoted(source)
            );
            let remedy = "name issuers, or write anonymous = true while every listener is loopback or a Unix socket";
            reader.error(at, problem, remedy);
        } else if self.source.is_absent() {
            let problem = "missing, and so is source: this route checks nothing and adds nothing";
            let remedy = "name issuers and a source, or write anonymous = true to pass requests on as they are";
            reader.error(at, problem, remedy);
        }
        if self.requires_scopes() {
            reader.error(
                &self.require_scopes.at,
                "no issuer's token is asked for",
                "name issuers",
            );
        }
        if self.workload_token.given {
            reader.error(
                &self.workload_token.at,
                "no issuer would verify it",
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
            let problem = "is a second delegated issuer, which no token would ever be tried with";
            reader.error(second.at, problem, "name one");
        }
        if self.requires_scopes() {
            let problem = "a delegated issuer's tokens are opaque: their scopes cannot be checked";
            reader.error(
                &self.require_scopes.at,
                problem,
                "remove it, or make a route for each issuer",
            );
        }
        match source {
            None if self.source.is_absent() => {
                let problem = "is delegated, and without a source nobody checks its tokens";
                reader.error(first.at, problem, "name a source of kind taskcluster-oauth");
            }
            Some(
                SourceKind::TaskclusterMint { .. }
                | SourceKind::TaskclusterStatic { .. }
                | SourceKind::ClientCredentials { .. },
            ) => {
                let problem = "is delegated, but this source checks no token: any text would get its credentials";
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
            let problem = "would lend this workload's identity to other machines";
            let remedy = "let every listener be loopback or a Unix socket, without trusted_proxies, or remove it";
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

/// Why a source has nothing for a caller without a token, if so.
fn needs_caller(source: &SourceKind) -> Option<&'static str> {
    match source {
        SourceKind::TaskclusterLogin { .. }
        | SourceKind::TaskclusterOauth { .. }
        | SourceKind::TokenExchange { .. } => {
            Some("exchanges the caller's token, and an anonymous route asks for none")
        }
        SourceKind::TaskclusterMint { client_name, .. } => {
            let claims = template_claims(client_name).unwrap_or_default();
            (!claims.is_empty())
                .then_some("names callers by claims, and an anonymous route has none of anybody")
        }
        SourceKind::Auth0Identity(_) => {
            Some("is about the user of a verified token, and an anonymous route has none")
        }
        // Has its own checks, which leave nothing of an anonymous route.
        SourceKind::Password(_)
        | SourceKind::TaskclusterStatic { .. }
        | SourceKind::ClientCredentials { .. } => None,
    }
}

/// The `sub` of another issuer may be the name of somebody else in the tenant, whose token
/// its bearer would get.
fn refuse_other_tenants(reader: &mut Reader<'_>, named: &[Named<'_>], source: &Auth0Identity) {
    let domains = [Some(&source.tenant), source.custom_domain.as_ref()];
    for issuer in named {
        let url = match issuer.kind {
            IssuerKind::Oidc(oidc) => Url::parse(&oidc.url).ok(),
            _ => None,
        };
        let same = |domain: &&Url| url.as_ref().is_some_and(|url| url == *domain);
        if !domains.iter().flatten().any(same) {
            let problem = "is not the source's tenant: whom its tokens name there nobody knows";
            let remedy = format!(
                "name an issuer of kind oidc whose url is {}, or write its url as the source's custom_domain",
                quoted(source.tenant.as_str())
            );
            reader.error(issuer.at, problem, remedy);
        }
    }
}

/// A token is checked against the one issuer of the route that has its `iss`.
fn refuse_same_issuer(reader: &mut Reader<'_>, named: &[Named<'_>]) {
    let mut seen = Vec::new();
    for issuer in named {
        let Some(url) = issuer.url() else {
            continue;
        };
        if seen.contains(&url) {
            let problem =
                "has the same url as another issuer of this route: which one counts is undecided";
            reader.error(issuer.at, problem, "name one, or make a route for each");
        }
        seen.push(url);
    }
}

/// An opaque token does not say whose it is, and must not be shown to anybody but its own
/// issuer: so on one route only one issuer can have those of a given beginning.
fn refuse_same_opaque(reader: &mut Reader<'_>, named: &[Named<'_>]) {
    let mut seen = Vec::new();
    for issuer in named {
        let Some(prefix) = issuer.takes_opaque() else {
            continue;
        };
        // Two delegated ones have an error of their own.
        let both_delegated =
            issuer.is_delegated() && named.iter().filter(|n| n.is_delegated()).count() > 1;
        if seen.contains(&prefix) && !both_delegated {
            let problem = if prefix.is_empty() {
                "takes any opaque token, as another issuer of this route does: whose one is cannot be told".into()
            } else {
                format!(
                    "takes tokens that begin with {}, as another issuer of this route does",
                    quoted(prefix)
                )
            };
            let remedy = "make a route for each, or give all but one a token_prefix of its own";
            reader.error(issuer.at, problem, remedy);
        }
        seen.push(prefix);
    }
}
