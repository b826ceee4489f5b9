//! The decisions: which route, who calls, with what credential, and what to do about a
//! 401. Knows neither sockets nor pingora; [`crate::proxy`] asks it.

pub mod bewit;
pub mod client;
pub mod fields;
pub mod informational;
pub mod login;
mod observe;
pub mod outcome;
mod path;
pub mod rate;
mod recovery;
pub mod rejection;
pub mod route;
pub mod rule;
mod served;
mod shortcut;

pub use crate::token::OTP;
pub use observe::Observe;
pub use recovery::{Recovery, Replayable, UpstreamAnswer};
pub use served::{Facts, Served};

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::clock::SharedClock;
use crate::credential::{
    Credential, FetchError, Lease, LeaseError, Leased, SignInProblem, SwapRequest,
};
use crate::hawk::{self, HawkError, SignedRequest};
use crate::secret::SecretString;
use crate::token::{self, BasicCredentials, BearerToken, Caller, TokenError, VerifiedToken};
use client::ClientCertificate;
use outcome::Lookup;
use rejection::{Reason, Rejection};
use route::{NoRoute, Route, RouteTable};
use rule::{RequestFacts, Ruling};

/// Everything that one configuration means, ready to decide. Immutable but for caches;
/// swapped whole on reload.
#[derive(Debug)]
pub struct Gateway {
    /// Routes by host and longest prefix.
    pub routes: RouteTable,
    /// The endpoint that gives out credentials, if it is on.
    pub login: Option<login::Login>,
    /// The clock in use.
    pub clock: SharedClock,
    /// Every header that any rule sets: the caller's own copies go on every route, or an
    /// upstream that believes them could be lied to.
    pub rule_headers: Vec<HeaderName>,
    /// What is told of requests.
    pub observe: Observe,
}

/// What of a request's head decides.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// As sent.
    pub method: &'a Method,
    /// Host or :authority, lower case or not, with or without port.
    pub host: &'a str,
    /// Raw path and query.
    pub target: &'a str,
    /// For `Authorization`, beside a password `X-OTP`, and `User-Agent` where rules look at it.
    pub headers: &'a HeaderMap,
    /// The client's address; none on Unix sockets.
    pub peer: Option<IpAddr>,
    /// The client's verified certificate, if it presented one.
    pub certificate: Option<&'a ClientCertificate>,
}

impl<'a> Head<'a> {
    /// What rules can know of it; `host` is [`route::host_name`] of this head's.
    pub fn facts(&self, host: &'a str) -> RequestFacts<'a> {
        RequestFacts {
            method: self.method.as_str(),
            host,
            path: path::without_query(self.target),
            user_agent: rule::facts::user_agent(self.headers),
            address: self.peer,
            certificate: self.certificate,
        }
    }

    fn client(&self) -> rate::Client<'a> {
        rate::Client {
            address: self.peer,
            certificate: self.certificate,
        }
    }
}

/// Leave to go upstream: the route, who calls, and the credential on loan.
#[derive(Debug)]
pub struct Admission {
    /// The matched route.
    pub route: Arc<Route>,
    /// Who calls.
    pub caller: Caller,
    /// "ok", "cached" or nothing where no token was verified.
    pub verification: Option<&'static str>,
    /// How the credential was come by.
    pub lookup: Option<Lookup>,
    bearer: Option<BearerToken>,
    /// The issuer whose rules the token broke.
    suspect: Option<Arc<str>>,
    ruling: Option<Arc<Ruling>>,
    lease: Option<Lease>,
    recovery_code: Option<SecretString>,
    /// The target to send, where it is not the one that came.
    target: Option<String>,
    corrected_clock: bool,
    replaced_credential: bool,
}

/// A refusal together with how far the request had come, for metrics and logs.
#[derive(Debug)]
pub struct Refused {
    /// What the caller sees.
    pub rejection: Rejection,
    /// The route, if one had matched.
    pub route: Option<Arc<Route>>,
    /// Who called, as far as it was proved.
    pub caller: Caller,
    /// The issuer, if it was known.
    pub issuer: Option<Arc<str>>,
    /// The result of verification, if one took place.
    pub verification: Option<&'static str>,
    /// The result of the credential lookup, if one took place.
    pub lookup: Option<Lookup>,
    /// The rule that decided, if one did.
    pub rule: Option<Arc<str>>,
}

impl Caller {
    /// The configured name of the issuer that vouches, or will be asked to.
    pub fn issuer(&self) -> Option<&Arc<str>> {
        match self {
            Self::Verified(token) => Some(token.issuer()),
            Self::Delegated { issuer, .. } => Some(issuer),
            Self::Password { .. } | Self::Anonymous => None,
        }
    }

    /// `sub`, where a token was verified.
    pub fn subject(&self) -> Option<&str> {
        self.token().map(|token| token.subject())
    }

    /// `client_id` or `azp`, where a token was verified and names one.
    pub fn client(&self) -> Option<&str> {
        self.token()?.client()
    }

    fn token(&self) -> Option<&Arc<VerifiedToken>> {
        match self {
            Self::Verified(token) => Some(token),
            Self::Delegated { .. } | Self::Password { .. } | Self::Anonymous => None,
        }
    }

    /// The name that came with a password. Proved only once a credential was had for it:
    /// until then it may be anything, even a password in the wrong place.
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Password { credentials, .. } => Some(credentials.username()),
            Self::Verified(_) | Self::Delegated { .. } | Self::Anonymous => None,
        }
    }
}

impl Gateway {
    /// Routes and authenticates a request and gets its credential.
    ///
    /// # Errors
    /// With the refusal to send, and what was known by then.
    pub async fn admit(&self, head: Head<'_>) -> Result<Admission, Box<Refused>> {
        let (route, long) = self.routed(head)?;
        let target = long.as_deref().unwrap_or(head.target);
        let mut admission = self.admit_to(route, Head { target, ..head }).await?;
        admission.target = long;
        Ok(admission)
    }

    /// As [`Gateway::admit`], but for the credential, which is not asked for: leave to go
    /// upstream unsigned.
    ///
    /// # Errors
    /// With the refusal to send, and what was known by then.
    pub async fn assess(&self, head: Head<'_>) -> Result<Admission, Box<Refused>> {
        let (route, long) = self.routed(head)?;
        let target = long.as_deref().unwrap_or(head.target);
        let mut admission = self.assess_to(route, Head { target, ..head }).await?;
        admission.target = long;
        Ok(admission)
    }

    fn routed(&self, head: Head<'_>) -> Result<(&Arc<Route>, Option<String>), Box<Refused>> {
        self.route(head)
            .map_err(|reason| Box::new(Refused::before_routing(reason.into())))
    }

    /// The route, and the target in its long form where it came in the short one. Such a
    /// request goes where it would go in its long form, so that no route can be walked
    /// around.
    fn route(&self, head: Head<'_>) -> Result<(&Arc<Route>, Option<String>), Reason> {
        let find = |target: &str| {
            let found = self.routes.find(head.host, target, head.method);
            found.map_err(|none| match none {
                NoRoute::Unmatched => Reason::NoRoute,
                NoRoute::Ambiguous => Reason::BadRequest,
            })
        };
        let route = find(head.target)?;
        if !route.compat.shortcut {
            return Ok((route, None));
        }
        match shortcut::lengthen(head.target) {
            Some(long) => Ok((find(&long)?, Some(long))),
            None => Ok((route, None)),
        }
    }

    /// What [`Gateway::admit`] does once the route is found.
    async fn admit_to(
        &self,
        route: &Arc<Route>,
        head: Head<'_>,
    ) -> Result<Admission, Box<Refused>> {
        let mut admission = self.assess_to(route, head).await?;
        match Self::lease(&mut admission, head).await {
            Ok(()) => Ok(admission),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    async fn assess_to(
        &self,
        route: &Arc<Route>,
        head: Head<'_>,
    ) -> Result<Admission, Box<Refused>> {
        let mut admission = Admission::to(Arc::clone(route));
        match Self::authorize(&mut admission, head).await {
            Ok(()) => Ok(admission),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    /// Who calls, and whether the rules let them.
    async fn authorize(admission: &mut Admission, head: Head<'_>) -> Result<(), Rejection> {
        let client = head.client();
        admission.route.rates.arrived(client)?;
        if admission.route.asks_password() {
            admission.caller = password(head)?;
        } else if !admission.route.anonymous {
            let bearer = bearer(&admission.route, head.headers)?;
            if let Err(rejection) = admission.authenticate(bearer).await {
                admission.route.rates.unidentified(client)?;
                return Err(rejection);
            }
        }
        admission
            .route
            .rates
            .identified(&admission.caller, client)?;
        admission.judge(head)
    }

    async fn lease(admission: &mut Admission, head: Head<'_>) -> Result<(), Rejection> {
        // Two schemes at once are a 401 upstream (taskcluster.md §4): what bears a bewit is
        // not signed, so it needs no credential either. A password is proved by getting one.
        if !admission.route.asks_password() && hawk::bewit::has_bewit(head.target) {
            return Ok(());
        }
        admission.lease().await
    }

    /// The header to put on this attempt, if the route has credentials. Call once per
    /// attempt, with method and target as they go out.
    ///
    /// # Errors
    /// When the header would pass Taskcluster's limit.
    pub fn sign(
        &self,
        admission: &Admission,
        method: &Method,
        target: &str,
    ) -> Result<Option<Proof>, Rejection> {
        let (Some(lease), Some(source)) = (&admission.lease, &admission.route.source) else {
            return Ok(None);
        };
        let unusable = || {
            Rejection::from(Reason::ExchangeFailed)
                .because("the credential has characters that cannot stand in a header")
        };
        let upstream = &admission.route.upstream;
        let (name, value) = match lease.credential() {
            Credential::Taskcluster { signer, .. } => {
                let request = SignedRequest {
                    at: self.clock.now().offset_by(upstream.clock_offset()),
                    nonce: &hawk::nonce(),
                    method: method.as_str(),
                    target,
                    host: &upstream.host,
                    port: upstream.signed_port,
                    payload_hash: None,
                };
                let value = signer
                    .authorization(&request)
                    .map_err(|e| Rejection::from(unsigned(&e)).because(e.to_string()))?;
                let mut value = HeaderValue::try_from(value).map_err(|_| unusable())?;
                value.set_sensitive(true);
                (http::header::AUTHORIZATION, value)
            }
            Credential::Bearer(token) => {
                let inject = source.inject();
                let value = inject.value(token.expose()).ok_or_else(unusable)?;
                (inject.header().clone(), value)
            }
        };
        Ok(Some(Proof { name, value }))
    }
}

/// What proves upstream who sends a request: a header, its value marked sensitive.
#[derive(Clone, Debug)]
pub struct Proof {
    /// `Authorization`, or what the source's `inject` says.
    pub name: HeaderName,
    /// A Hawk signature or a bearer token.
    pub value: HeaderValue,
}

/// Why a request could not be signed, as the caller is told it.
fn unsigned(error: &HawkError) -> Reason {
    match error {
        HawkError::Unsignable(_) => Reason::BadRequest,
        HawkError::TooLong { .. } => Reason::CredentialTooLarge,
        _ => Reason::Internal,
    }
}

/// The caller's token, or the workload's own where the route has one and the caller sent
/// no Authorization at all.
fn bearer(route: &Route, headers: &HeaderMap) -> Result<BearerToken, Rejection> {
    if let Some(workload) = &route.workload_token
        && !headers.contains_key(http::header::AUTHORIZATION)
    {
        return workload.current().ok_or_else(|| {
            let file = workload.file().display();
            Rejection::from(Reason::WorkloadTokenUnavailable)
                .because(format!("{file} holds no token"))
        });
    }
    BearerToken::from_headers(headers)?.ok_or_else(|| Reason::MissingToken.into())
}

/// The caller's username and password, to be proved by the source.
fn password(head: Head<'_>) -> Result<Caller, Rejection> {
    let credentials = match BasicCredentials::from_headers(head.headers) {
        Ok(Some(credentials)) => Arc::new(credentials),
        Ok(None) | Err(TokenError::OtherScheme) => return Err(Reason::MissingPassword.into()),
        Err(error) => return Err(error.into()),
    };
    Ok(Caller::Password {
        credentials,
        peer: head.peer,
    })
}

impl Admission {
    fn to(route: Arc<Route>) -> Self {
        Self {
            route,
            caller: Caller::Anonymous,
            verification: None,
            lookup: None,
            bearer: None,
            suspect: None,
            ruling: None,
            lease: None,
            recovery_code: None,
            target: None,
            corrected_clock: false,
            replaced_credential: false,
        }
    }

    /// A recovery code that the caller must be given in place of the one that was used;
    /// once.
    pub fn take_recovery_code(&mut self) -> Option<SecretString> {
        self.recovery_code.take()
    }

    /// The target to send, where it is another than the one that came.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// Who signs upstream, for the access log; not a secret.
    pub fn client_id(&self) -> Option<&str> {
        match self.lease.as_ref()?.credential() {
            Credential::Taskcluster { client_id, .. } => Some(client_id),
            Credential::Bearer(_) => None,
        }
    }

    /// The bearer token that goes upstream, which no answer may bring back.
    pub fn injected(&self) -> Option<&SecretString> {
        match self.lease.as_ref()?.credential() {
            Credential::Bearer(token) => Some(token),
            Credential::Taskcluster { .. } => None,
        }
    }

    /// The credential on loan, for telling what it is; nothing secret can be had from it.
    pub fn credential(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    async fn authenticate(&mut self, bearer: BearerToken) -> Result<(), Rejection> {
        match token::authenticate(&bearer, &self.route.issuers).await {
            Ok(authenticated) => {
                self.verification = authenticated.how;
                self.caller = authenticated.caller;
            }
            Err(unauthenticated) => {
                self.verification = Some(unauthenticated.error.label());
                self.suspect = unauthenticated.issuer;
                return Err(unauthenticated.error.into());
            }
        }
        self.bearer = Some(bearer);
        if let Caller::Verified(token) = &self.caller {
            require_scopes(&self.route.require_scopes, token)?;
        }
        Ok(())
    }

    /// Asks the route's rules, if there are any.
    fn judge(&mut self, head: Head<'_>) -> Result<(), Rejection> {
        let Some(rules) = &self.route.rules else {
            return Ok(());
        };
        let host = route::host_name(head.host);
        let ruling = rules.decide(&self.caller, head.facts(&host));
        self.ruling.insert(ruling).permits()
    }

    /// The rule that let this request pass, and what it sets upstream.
    pub fn ruling(&self) -> Option<&Ruling> {
        self.ruling.as_deref()
    }

    async fn lease(&mut self) -> Result<(), Rejection> {
        let Some(source) = self.route.source.clone() else {
            return Ok(());
        };
        let leased = source.lease(&self.swap_request()).await;
        self.hold(leased)
    }

    fn hold(&mut self, leased: Result<Leased, LeaseError>) -> Result<(), Rejection> {
        match leased {
            Ok(Leased { lease, lookup }) => {
                self.lease = Some(lease);
                self.lookup = Some(lookup);
                if matches!(lookup, Lookup::Fetched | Lookup::Joined)
                    && let Some(source) = &self.route.source
                {
                    let code = source.recovery_code(&self.swap_request());
                    self.recovery_code = code.or(self.recovery_code.take());
                }
                Ok(())
            }
            Err(LeaseError { cause, lookup }) => {
                self.lookup = Some(lookup);
                Err(Rejection::from(cause).at(&self.route))
            }
        }
    }

    fn swap_request(&self) -> SwapRequest {
        SwapRequest {
            caller: self.caller.clone(),
            bearer: self.bearer.clone(),
            scopes: self.ruling.as_ref().and_then(|r| r.scopes()).cloned(),
            clock_offset: self.route.upstream.clock_offset(),
        }
    }

    fn refused(self, rejection: Rejection) -> Refused {
        let rejection = rejection.at(&self.route);
        Refused {
            issuer: self.caller.issuer().cloned().or(self.suspect),
            route: Some(self.route),
            verification: self.verification,
            lookup: self.lookup,
            rule: self.ruling.as_ref().and_then(|r| r.rule.clone()),
            caller: self.caller,
            rejection,
        }
    }
}

impl Refused {
    fn before_routing(rejection: Rejection) -> Self {
        Self {
            rejection,
            caller: Caller::Anonymous,
            route: None,
            issuer: None,
            verification: None,
            lookup: None,
            rule: None,
        }
    }
}

fn require_scopes(required: &[String], token: &VerifiedToken) -> Result<(), Rejection> {
    if required.iter().all(|scope| token.scopes().contains(scope)) {
        return Ok(());
    }
    Err(Rejection {
        required_scopes: Some(required.join(" ")),
        ..Reason::InsufficientScope.into()
    })
}

impl From<FetchError> for Rejection {
    fn from(error: FetchError) -> Self {
        let cause = error.to_string();
        let rejection = match error {
            FetchError::Refused(_) => Reason::TokenRefused.into(),
            FetchError::NotEntitled(_) => Reason::NotEntitled.into(),
            FetchError::SignIn {
                problem,
                retry_after,
                ..
            } => Self {
                retry_after,
                ..told(problem).into()
            },
            FetchError::Unavailable { retry_after, .. } => {
                let rejection = Self::from(Reason::ExchangeUnavailable);
                Self {
                    retry_after: retry_after.or(rejection.retry_after),
                    ..rejection
                }
            }
            FetchError::BadAnswer(_) => Reason::ExchangeFailed.into(),
            FetchError::TooLarge(_) => Reason::CredentialTooLarge.into(),
        };
        rejection.because(cause)
    }
}

/// What the caller is told of a sign-in that came to nothing.
fn told(problem: SignInProblem) -> Reason {
    match problem {
        SignInProblem::Password => Reason::PasswordRefused,
        SignInProblem::CodeRequired => Reason::MfaRequired,
        SignInProblem::CodeRefused => Reason::MfaRefused,
        SignInProblem::Unconfirmed => Reason::MfaPending,
        SignInProblem::NoFactor => Reason::MfaUnavailable,
        SignInProblem::TooManyAttempts => Reason::TooManyAttempts,
    }
}

#[cfg(test)]
mod tests;
