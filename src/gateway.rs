//! The proxy's policy: which route matches a request, who the caller is, which credential the
//! request is sent with, and how to recover from an upstream 401. Independent of sockets and of
//! pingora; called by [`crate::proxy`].

mod admission;
pub mod bewit;
pub mod client_certificate;
pub mod compat;
pub mod cors;
pub mod credentials_endpoint;
pub mod forward_auth;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod header_edits;
pub mod host;
pub mod local_response;
pub mod login;
mod observability;
pub mod outcome;
mod path;
pub mod path_rewrite;
mod preflight;
pub mod rate_limit;
pub mod reason;
mod recovery;
pub mod rejection;
pub mod request_headers;
pub mod reserved_headers;
mod reserved_path;
pub mod resource_isolation;
pub mod route;
pub mod rule;
mod scopes_refusal;
pub mod session;
pub mod upstream_addresses;
mod upstream_clock;
pub mod upstream_retry;

pub use crate::token::OTP;
pub use admission::{Admission, AdmissionError};
pub use local_response::{LocalResponse, RequestDetails};
pub use observability::Observability;
pub use path::{Ambiguity, is_plain};
pub use preflight::Preflight;
pub use recovery::{Recovery, Replayable, UnauthorizedResponse};
pub use scopes_refusal::{LOOK_TIMEOUT, RefusalLog, ScopesVerdict, UnauthorizedBody};
pub use upstream_clock::UpstreamClock;

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use crate::clock::{Now, SharedClock};
use crate::credential::{Credential, Inject, Lease};
use crate::hawk::{self, HawkError, SignedRequest};
use crate::header_fields::HeaderFields;
use crate::session::SessionMemo;
use crate::token::TokenMemo;
use admission::{bearer, password};
use client_certificate::ClientCertificate;
use forward_auth::ForwardAuth;
use reason::Reason;
use rejection::Rejection;
use resource_isolation::{IsolationPolicy, Transport};
use route::{Isolation, NoRoute, Route, RouteTable};
use rule::RequestAttributes;
use session::{Session, SessionTable};

/// The policy of one configuration. Immutable except for caches; replaced as a whole on reload.
#[derive(Debug)]
pub struct Gateway {
    /// The routes, matched by host and longest path prefix.
    pub routes: RouteTable,
    /// Every `[[session]]` and its endpoints.
    pub sessions: SessionTable,
    /// The `[login]` endpoint, if configured.
    pub login: Option<login::Login>,
    /// `PUT /credentials` on callers' listeners, if a route has `credentials = true`.
    pub credentials: Option<credentials_endpoint::CredentialsEndpoint>,
    /// The clock.
    pub clock: SharedClock,
    /// `limits.token_bytes`: the longest token that callers may send, in bytes.
    pub max_token_bytes: usize,
    /// Every header that any rule sets. The caller's copies are removed on every route, because
    /// upstreams trust these headers.
    pub rule_headers: Vec<HeaderName>,
    /// Every `[[forward_auth]]`.
    pub forward_auth: Vec<Arc<ForwardAuth>>,
    /// Which requests without credentials may come from web pages.
    pub isolation: IsolationPolicy,
    /// The audit log and tracing.
    pub observability: Observability,
}

/// What the callers on a connection presented last. Tokens and cookies that are sent again cost a
/// comparison.
#[derive(Debug, Default)]
pub struct CallerMemo {
    token: TokenMemo,
    session: SessionMemo,
}

/// The parts of a request's head that policy depends on.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The request method.
    pub method: &'a Method,
    /// `Host` or the authority of the target as sent: in any case, with or without a port. Empty
    /// for a request of HTTP/1.0 that has neither.
    pub host: &'a str,
    /// The raw path and query.
    pub target: &'a str,
    /// The header fields; only `Authorization`, `X-OTP`, `Upgrade`, `User-Agent` and the fields of
    /// [`resource_isolation`] and [`cors`] are read.
    pub headers: &'a dyn HeaderFields,
    /// The client's address; `None` on Unix sockets.
    pub peer: Option<IpAddr>,
    /// How the request arrived.
    pub transport: Transport,
    /// Whether the client uses https: to hawkgate itself, or to a trusted proxy that says so.
    pub https: bool,
    /// The client's verified certificate, if it presented one.
    pub certificate: Option<&'a ClientCertificate>,
}

impl<'a> Head<'a> {
    /// The attributes for rules; `host` is [`host::host_name`] of `self.host`.
    pub fn attributes(&self, host: &'a str) -> RequestAttributes<'a> {
        RequestAttributes {
            method: standard_method(self.method),
            host,
            path: path::without_query(self.target),
            user_agent: rule::attributes::user_agent(self.headers),
            address: self.peer,
            certificate: self.certificate,
        }
    }

    /// A GET from an unknown client, for tests.
    #[cfg(test)]
    pub(crate) fn for_test(target: &'a str, headers: &'a dyn HeaderFields) -> Self {
        Self {
            method: &Method::GET,
            host: "localhost",
            target,
            headers,
            peer: None,
            transport: Transport::Tcp,
            https: false,
            certificate: None,
        }
    }

    fn client(&self) -> rate_limit::Client<'a> {
        rate_limit::Client {
            address: self.peer,
            certificate: self.certificate,
        }
    }
}

/// The name of `method` as upstreams may read it: standard methods in any case are that method for
/// some servers, and no rule may be bypassed by that.
fn standard_method(method: &Method) -> &str {
    const STANDARD: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let name = method.as_str();
    let same = |standard: &&&str| name.eq_ignore_ascii_case(standard);
    STANDARD
        .iter()
        .find(same)
        .map_or(name, |standard| *standard)
}

/// The route that a request matches.
#[derive(Debug)]
pub struct RouteMatch<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// The expanded target, if the request used the short form of a path.
    expanded: Option<String>,
    /// The target to send, if the route rewrites paths. Everything before the upstream goes by the
    /// path that the caller sent.
    rewritten: Option<String>,
}

impl RouteMatch<'_> {
    /// The target to send, if it differs from the one received.
    fn into_target(self) -> Option<String> {
        self.rewritten.or(self.expanded)
    }
}

impl Gateway {
    /// Routes, authenticates and authorizes a request and acquires its credential.
    ///
    /// # Errors
    /// If the request is refused at any of these steps.
    pub async fn admit(&self, head: Head<'_>) -> Result<Admission, Box<AdmissionError>> {
        let now = Now::read(&*self.clock);
        self.admit_matched(self.match_route(head)?, head, now).await
    }

    /// The first step of [`Gateway::admit`]: finds the route.
    ///
    /// # Errors
    /// If no route matches or the path is ambiguous.
    pub fn match_route(&self, head: Head<'_>) -> Result<RouteMatch<'_>, Box<AdmissionError>> {
        let before = |rejection| Box::new(AdmissionError::before_routing(rejection));
        let found = self.route(head.host, head.target, head.method);
        let (route, expanded) = found.map_err(|none| before(none.into()))?;
        let rewritten = match &route.rewrite {
            None => None,
            Some(rewrite) => {
                let rewritten = rewrite.apply(expanded.as_deref().unwrap_or(head.target));
                Some(rewritten.map_err(|ambiguity| before(ambiguity.into()))?)
            }
        };
        Ok(RouteMatch {
            route,
            expanded,
            rewritten,
        })
    }

    /// The remaining steps of [`Gateway::admit`], at `now`.
    ///
    /// # Errors
    /// If the request is refused.
    pub async fn admit_matched(
        &self,
        found: RouteMatch<'_>,
        head: Head<'_>,
        now: Now,
    ) -> Result<Admission, Box<AdmissionError>> {
        let mut memo = CallerMemo::default();
        self.admit_with_memo(found, head, now, &mut memo).await
    }

    /// Like [`Gateway::admit_matched`], with the memo of the connection that the request came on.
    ///
    /// # Errors
    /// If the request is refused.
    pub async fn admit_with_memo(
        &self,
        found: RouteMatch<'_>,
        head: Head<'_>,
        now: Now,
        memo: &mut CallerMemo,
    ) -> Result<Admission, Box<AdmissionError>> {
        let target = found.expanded.as_deref().unwrap_or(head.target);
        let head = Head { target, ..head };
        let mut admission = self.admit_on(found.route, head, now, memo).await?;
        admission.target = found.into_target();
        Ok(admission)
    }

    /// All steps of [`Gateway::admit`] except the last: does not acquire a credential.
    ///
    /// # Errors
    /// If the request is refused.
    pub async fn authorize(&self, head: Head<'_>) -> Result<Admission, Box<AdmissionError>> {
        let found = self.match_route(head)?;
        let target = found.expanded.as_deref().unwrap_or(head.target);
        let (now, mut memo) = (Now::read(&*self.clock), CallerMemo::default());
        let head = Head { target, ..head };
        let mut admission = self.authorize_on(found.route, head, now, &mut memo).await?;
        admission.target = found.into_target();
        Ok(admission)
    }

    /// The route, and the expanded target if the request used a short path: one that a route with
    /// `shortcut = true` covers, or none does whose long form such a route covers. Such a request
    /// is routed by its expanded target, so that a short path cannot bypass a route.
    ///
    /// # Errors
    /// If there is none.
    pub fn route(
        &self,
        host: &str,
        target: &str,
        method: &Method,
    ) -> Result<(&Arc<Route>, Option<String>), NoRoute> {
        let found = self.routes.find(host, target, method);
        let expands = match found {
            Ok(route) => route.compat.shortcut,
            Err(NoRoute::Unmatched) => true,
            Err(NoRoute::Reserved | NoRoute::Ambiguous(_)) => false,
        };
        let expanded = expands.then(|| compat::expand(target)).flatten();
        let expanded = expanded.filter(|expanded| {
            found.is_ok() || self.routes.is_behind_shortcut(host, expanded, method)
        });
        let found = match &expanded {
            Some(expanded) => self.routes.find(host, expanded, method),
            None => found,
        };
        Ok((found?, expanded))
    }

    /// Admits a request whose route is known and whose target is expanded.
    async fn admit_on(
        &self,
        route: &Arc<Route>,
        head: Head<'_>,
        now: Now,
        memo: &mut CallerMemo,
    ) -> Result<Admission, Box<AdmissionError>> {
        let mut admission = self.authorize_on(route, head, now, memo).await?;
        match Self::acquire_credential(&mut admission, head, now).await {
            Ok(()) => Ok(admission),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    async fn authorize_on(
        &self,
        route: &Arc<Route>,
        head: Head<'_>,
        now: Now,
        memo: &mut CallerMemo,
    ) -> Result<Admission, Box<AdmissionError>> {
        let mut admission = Admission::new(Arc::clone(route), now);
        if let Err(rejection) = self.check_isolation(route, head) {
            return Err(Box::new(admission.refused(rejection)));
        }
        match self.check_caller(&mut admission, head, now, memo).await {
            Ok(()) => Ok(admission),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    /// Refuses requests of web pages to a route that needs no credentials.
    fn check_isolation(&self, route: &Route, head: Head<'_>) -> Result<(), Rejection> {
        if route.isolation == Isolation::Off {
            return Ok(());
        }
        let (is_configured, cors) = (route.names_host(head.host), route.cors.as_ref());
        self.isolation
            .check_route(route.isolation, is_configured, cors, head)
    }

    /// Authenticates the caller and applies rate limits and rules.
    async fn check_caller(
        &self,
        admission: &mut Admission,
        head: Head<'_>,
        now: Now,
        memo: &mut CallerMemo,
    ) -> Result<(), Rejection> {
        let client = head.client();
        if let Some(wait) = admission.route.rates.check_address(client)? {
            wait.await?;
        }
        if admission.route.takes_password() {
            admission.caller = password(head)?;
        } else if !admission.route.anonymous {
            let mut authenticated = Ok(());
            let session = cookie_session(&admission.route, head).cloned();
            if let Some(session) = session {
                let by_cookie = admission.authenticate_by_cookie(&session, head, now, memo);
                authenticated = Box::pin(by_cookie).await;
            } else if !admission.recall(head.headers, now, &memo.token) {
                let bearer = bearer(&admission.route, head.headers, self.max_token_bytes)?;
                let memo = &mut memo.token;
                authenticated = admission.authenticate(bearer, head.peer, now, memo).await;
            }
            if let Err(rejection) = authenticated.and_then(|()| admission.check_scopes()) {
                if let Some(wait) = admission.route.rates.check_unverified(client)? {
                    wait.await?;
                }
                return Err(rejection);
            }
        }
        let rates = &admission.route.rates;
        if let Some(wait) = rates.check_identity(&admission.caller, client)? {
            wait.await?;
        }
        admission.evaluate_rules(head)
    }

    async fn acquire_credential(
        admission: &mut Admission,
        head: Head<'_>,
        now: Now,
    ) -> Result<(), Rejection> {
        // Taskcluster answers 401 to a request with both a bewit and an Authorization header
        // (`docs/design/taskcluster.md`), so a request with a bewit is not signed and needs no
        // credential, unless acquiring one is what proves who the caller is.
        let unsigned = !admission.route.takes_password() && hawk::bewit::has_bewit(head.target);
        if unsigned && admission.caller.is_proved() {
            return Ok(());
        }
        admission.require_exchange()?;
        let upgrades = head.headers.first(&http::header::UPGRADE).is_some();
        admission.acquire_lease(upgrades, now).await?;
        if unsigned {
            let proof = admission.lease.take();
            admission.proved_until = proof.as_ref().map(Lease::usable_until);
        }
        Ok(())
    }

    /// Leases the credential again, for an attempt long after the last: it may have been renewed or
    /// replaced. Not where the exchange is what proves the caller: then the request ends with the
    /// lease ([`Admission::valid_until`]).
    ///
    /// # Errors
    /// If no credential is available any more.
    pub async fn renew_lease(&self, admission: &mut Admission) -> Result<(), Rejection> {
        if admission.lease.is_none() || !admission.caller.is_proved() {
            return Ok(());
        }
        // What the memo knows is from the time of the admission.
        admission.cached_at = None;
        admission
            .acquire_lease(false, Now::read(&*self.clock))
            .await
    }

    /// The header that authenticates this attempt, if the request has a credential. Call once
    /// per attempt, with the method and target as sent upstream.
    ///
    /// # Errors
    /// If the header would exceed Taskcluster's limit or the credential is not valid in a
    /// header.
    pub fn sign(
        &self,
        admission: &Admission,
        method: &Method,
        target: &str,
    ) -> Result<Option<CredentialHeader>, Rejection> {
        let now = Now::read(&*self.clock);
        let Some(lease) = &admission.lease else {
            return Ok(None);
        };
        let unusable = || {
            Rejection::from(Reason::ExchangeFailed)
                .with_cause("the credential has characters that are not valid in a header")
        };
        let upstream = &admission.route.upstream;
        let (name, value, secret) = match lease.credential() {
            Credential::Taskcluster { signer, .. } => {
                let request = SignedRequest {
                    at: Self::time_at(upstream, admission, now),
                    nonce: &hawk::nonce(),
                    method: method.as_str(),
                    target,
                    host: &upstream.host,
                    port: upstream.signed_port,
                    payload_hash: None,
                };
                let value = signer
                    .authorization(&request)
                    .map_err(|e| Rejection::from(signing_failure(&e)).with_cause(e.to_string()))?;
                let mut value = HeaderValue::try_from(value).map_err(|_| unusable())?;
                value.set_sensitive(true);
                let secret = hawk::mac_in(value.as_bytes());
                (http::header::AUTHORIZATION, value, secret)
            }
            Credential::Bearer(token) => {
                // Sessions lease Taskcluster credentials only, so this one is from the source.
                let Some(source) = &admission.route.source else {
                    return Err(unusable());
                };
                let inject = source.inject();
                let value = inject.value(token.expose()).ok_or_else(unusable)?;
                let secret = inject.token_in(&value);
                (inject.header().clone(), value, secret)
            }
            Credential::Basic { encoded, .. } => {
                let inject = Inject::basic();
                let value = inject.value(encoded.expose()).ok_or_else(unusable)?;
                let secret = inject.token_in(&value);
                (inject.header().clone(), value, secret)
            }
        };
        Ok(Some(CredentialHeader {
            name,
            value,
            secret,
            lease: lease.clone(),
        }))
    }
}

impl From<NoRoute> for Rejection {
    fn from(none: NoRoute) -> Self {
        match none {
            NoRoute::Unmatched => Reason::NoRoute.into(),
            NoRoute::Reserved => Reason::ReservedPath.into(),
            NoRoute::Ambiguous(ambiguity) => ambiguity.into(),
        }
    }
}

/// The session whose cookie identifies the caller: that of the route, unless `Authorization` was sent.
fn cookie_session<'r>(route: &'r Route, head: Head<'_>) -> Option<&'r Arc<Session>> {
    let session = route.session.as_ref()?;
    let bearer = head.headers.first(&http::header::AUTHORIZATION);
    bearer.is_none().then_some(session)
}

/// The header that authenticates a request upstream. Its value is marked sensitive.
#[derive(Clone, Debug)]
pub struct CredentialHeader {
    /// `Authorization`, or the header of the source's `inject`.
    pub name: HeaderName,
    /// A Hawk signature, a bearer token, or a username and password.
    pub value: HeaderValue,
    /// Where in `value` the secret is that belongs to this attempt: the MAC, the token, or the
    /// encoded username and password.
    secret: Range<usize>,
    lease: Lease,
}

impl CredentialHeader {
    /// What must not appear in an answer. `id`, `ts` and `nonce` of a signature are not secret.
    pub fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        let own = self.value.as_bytes().get(self.secret.clone());
        let ext = match self.lease.credential() {
            Credential::Taskcluster { signer, .. } => signer.ext_secrets(),
            Credential::Basic { secret, .. } => std::slice::from_ref(secret),
            Credential::Bearer(_) => &[],
        };
        let ext = ext.iter().map(|secret| secret.expose().as_bytes());
        own.into_iter()
            .chain(ext)
            .filter(|secret| !secret.is_empty())
    }
}

#[cfg(test)]
impl CredentialHeader {
    /// A header with this value, of which `secret` is secret.
    pub(crate) fn for_test(value: &str, secret: Range<usize>) -> Self {
        let lease = Lease::for_test(Credential::Bearer("unused".into()));
        Self {
            name: http::header::AUTHORIZATION,
            value: value.parse().unwrap(),
            secret,
            lease,
        }
    }
}

/// The reason for the rejection if signing fails.
fn signing_failure(error: &HawkError) -> Reason {
    match error {
        HawkError::Unsignable(_) => Reason::BadRequest,
        HawkError::TooLong { .. } => Reason::CredentialTooLarge,
        _ => Reason::Internal,
    }
}

#[cfg(test)]
mod tests;
