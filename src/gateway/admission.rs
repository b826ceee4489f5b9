//! Admitted requests: from the caller's credentials to the leased upstream credential.

use std::net::IpAddr;
use std::sync::Arc;

use super::Head;
use super::host;
use super::rejection::Rejection;
use super::route::{Route, UpgradeExpiry};
use super::rule::Decision;
use super::session::CookieCaller;
use super::upstream_clock::PeerTime;
use crate::clock::{Now, UnixMillis};
use crate::credential::Lookup;
use crate::credential::{
    Credential, FetchError, Lease, LeaseError, Leased, SignInProblem, SwapRequest,
};
use crate::gateway::reason::Reason;
use crate::header_fields::HeaderFields;
use crate::secret::SecretString;
use crate::session::SetCookie;
use crate::token::{
    self, Authenticated, BasicCredentials, BearerToken, Caller, PresentedToken, TokenError,
    TokenMemo, VerifiedToken,
};

/// An admitted request: its route, caller and leased credential.
#[derive(Debug)]
pub struct Admission {
    /// The matched route.
    pub route: Arc<Route>,
    /// The caller.
    pub caller: Caller,
    /// The result of token verification, `ok` or `cached`; `None` if no token was verified.
    pub verification: Option<&'static str>,
    /// The result of the credential lookup, if one took place.
    pub lookup: Option<Lookup>,
    /// The token, if the source exchanges it.
    pub(super) bearer: Option<BearerToken>,
    /// When the token was found in the cache; `None` if it was not cached.
    pub(super) cached_at: Option<Now>,
    /// The issuer that the token names, if it refused the token.
    pub(super) rejecting_issuer: Option<Arc<str>>,
    pub(super) decision: Option<Arc<Decision>>,
    pub(super) lease: Option<Lease>,
    /// When the credential ends that proved the caller of a request that is not signed.
    pub(super) proved_until: Option<UnixMillis>,
    pub(super) recovery_code: Option<SecretString>,
    /// The target to send, if it differs from the one received.
    pub(super) target: Option<String>,
    /// Milliseconds to add to the wall clock to get the upstream's.
    pub(super) clock_offset: i64,
    /// The time that this request was signed again with after a 401.
    pub(super) corrected_clock: Option<PeerTime>,
    pub(super) replaced_credential: bool,
    /// Set if the caller has presented the cookie of the route's session.
    pub(super) by_cookie: Option<Box<CookieCaller>>,
}

/// A refused request and what is known about it, for metrics and logs.
#[derive(Debug)]
pub struct AdmissionError {
    /// The refusal.
    pub rejection: Rejection,
    /// The route, if one matched.
    pub route: Option<Arc<Route>>,
    /// The caller, if authenticated.
    pub caller: Caller,
    /// The issuer, if known.
    pub issuer: Option<Arc<str>>,
    /// The result of verification, if one took place.
    pub verification: Option<&'static str>,
    /// The result of the credential lookup, if one took place.
    pub lookup: Option<Lookup>,
    /// The rule that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// Set if the caller has presented the cookie of the route's session.
    pub by_cookie: Option<Box<CookieCaller>>,
}

impl Caller {
    /// The configured name of the issuer that verified the token or will verify it.
    pub fn issuer(&self) -> Option<&Arc<str>> {
        match self {
            Self::Verified(token) => Some(token.issuer()),
            Self::Delegated { issuer, .. } => Some(issuer),
            Self::Client(_) | Self::Password { .. } | Self::Anonymous => None,
        }
    }

    /// `sub` of the verified token, or the clientId that the user signed in as.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Client(client) => Some(client.client_id()),
            _ => self.token().map(|token| token.subject()),
        }
    }

    /// The client of the verified token, if it names one.
    pub fn client(&self) -> Option<&str> {
        self.token()?.client()
    }

    /// Whether nothing is left to check about who the caller is. Otherwise a credential must be
    /// acquired before anything is sent upstream, because the exchange is the check.
    pub fn is_proved(&self) -> bool {
        match self {
            Self::Verified(_) | Self::Client(_) | Self::Anonymous => true,
            Self::Delegated { .. } | Self::Password { .. } => false,
        }
    }

    fn token(&self) -> Option<&Arc<VerifiedToken>> {
        match self {
            Self::Verified(token) => Some(token),
            Self::Client(_) | Self::Delegated { .. } | Self::Password { .. } | Self::Anonymous => {
                None
            }
        }
    }

    /// The username sent with a password. It is unverified until a credential has been acquired, so
    /// it may be anything, even a password typed into the wrong field.
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Password { credentials, .. } => Some(credentials.username()),
            Self::Verified(_) | Self::Client(_) | Self::Delegated { .. } | Self::Anonymous => None,
        }
    }
}

/// The caller's token of at most `max_bytes`, or the route's workload token if the caller sent no
/// `Authorization`.
pub(super) fn bearer<'h>(
    route: &Route,
    headers: &'h dyn HeaderFields,
    max_bytes: usize,
) -> Result<IncomingToken<'h>, Rejection> {
    if let Some(workload) = &route.workload_token
        && headers.first(&http::header::AUTHORIZATION).is_none()
    {
        return workload
            .current()
            .map(IncomingToken::Workload)
            .ok_or_else(|| {
                let file = workload.file().display();
                Rejection::from(Reason::WorkloadTokenUnavailable)
                    .with_cause(format!("{file} contains no token"))
            });
    }
    let presented = PresentedToken::from_headers(headers, max_bytes)?;
    presented
        .map(IncomingToken::Request)
        .ok_or_else(|| Reason::MissingToken.into())
}

/// A bearer token and where it came from.
pub(super) enum IncomingToken<'h> {
    /// Borrowed from the request's head.
    Request(PresentedToken<'h>),
    /// The workload token.
    Workload(BearerToken),
}

impl IncomingToken<'_> {
    fn presented(&self) -> PresentedToken<'_> {
        match self {
            Self::Request(token) => *token,
            Self::Workload(token) => token.into(),
        }
    }

    fn into_bearer(self) -> BearerToken {
        match self {
            Self::Request(token) => token.to_bearer(),
            Self::Workload(token) => token,
        }
    }
}

/// The caller's username and password, which the source verifies.
pub(super) fn password(head: Head<'_>) -> Result<Caller, Rejection> {
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
    pub(super) fn new(route: Arc<Route>, now: Now) -> Self {
        Self {
            clock_offset: route.upstream.clock.offset(now),
            route,
            caller: Caller::Anonymous,
            verification: None,
            lookup: None,
            bearer: None,
            cached_at: None,
            rejecting_issuer: None,
            decision: None,
            lease: None,
            proved_until: None,
            recovery_code: None,
            target: None,
            corrected_clock: None,
            replaced_credential: false,
            by_cookie: None,
        }
    }

    /// What is known of a caller who presented the cookie of the route's session.
    pub fn by_cookie(&self) -> Option<&CookieCaller> {
        self.by_cookie.as_deref()
    }

    /// The cookies that the answer sets, whatever it is. Returned once.
    pub fn take_cookies(&mut self) -> Vec<SetCookie> {
        let caller = self.by_cookie.as_mut();
        caller
            .map(|caller| caller.take_cookies())
            .unwrap_or_default()
    }

    /// The recovery code that replaces the one the caller used. Returned once; it must be sent
    /// to the caller.
    pub fn take_recovery_code(&mut self) -> Option<SecretString> {
        self.recovery_code.take()
    }

    /// The target to send, if it differs from the one received.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// When what admitted the caller is no longer valid: its token, or, if the exchange verified a
    /// token or password, the credential that it gave for it, which for an upgrade has at least a
    /// third of its life left. Not later than the end of the caller's session. `None` for anonymous
    /// callers.
    pub fn valid_until(&self) -> Option<UnixMillis> {
        let session = self.by_cookie().and_then(CookieCaller::expires_at);
        let caller = self.caller_valid_until();
        match (caller, session) {
            (Some(caller), Some(session)) => Some(caller.min(session)),
            (caller, _) => caller,
        }
    }

    fn caller_valid_until(&self) -> Option<UnixMillis> {
        match &self.caller {
            Caller::Verified(token) => Some(token.accepted_until()),
            Caller::Client(client) => Some(client.accepted_until()),
            Caller::Delegated { .. } | Caller::Password { .. } => {
                let lease = self.lease.as_ref().map(Lease::usable_until);
                lease.or(self.proved_until)
            }
            Caller::Anonymous => None,
        }
    }

    /// Whether an upgraded connection ends with the credential, which may have been in the cache for
    /// most of its life.
    fn ends_with_credential(&self) -> bool {
        self.route.upgrade_expiry == UpgradeExpiry::Token && !self.caller.is_proved()
    }

    /// The Taskcluster `clientId` that requests are signed with. Not a secret.
    pub fn client_id(&self) -> Option<&str> {
        match self.lease.as_ref()?.credential() {
            Credential::Taskcluster { client_id, .. } => Some(client_id),
            Credential::Bearer(_) => None,
        }
    }

    /// The bearer token sent upstream, which must not appear in any response.
    pub fn injected(&self) -> Option<&SecretString> {
        match self.lease.as_ref()?.credential() {
            Credential::Bearer(token) => Some(token),
            Credential::Taskcluster { .. } => None,
        }
    }

    /// The leased credential, if any. `Debug` reveals no secrets.
    pub fn credential(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Takes the caller from `memo`, if that has the request's token.
    pub(super) fn recall(
        &mut self,
        headers: &dyn HeaderFields,
        now: Now,
        memo: &TokenMemo,
    ) -> bool {
        let Some((authenticated, bearer)) = memo.recall(headers, &self.route.issuers, now) else {
            return false;
        };
        self.cached_at = Some(now);
        if self.passes_token() {
            self.bearer = Some(bearer.clone());
        }
        self.set_caller(authenticated);
        true
    }

    pub(super) async fn authenticate(
        &mut self,
        bearer: IncomingToken<'_>,
        peer: Option<IpAddr>,
        now: Now,
        memo: &mut TokenMemo,
    ) -> Result<(), Rejection> {
        let (token, issuers) = (bearer.presented(), &self.route.issuers);
        let mut none = TokenMemo::default();
        let memo = match bearer {
            IncomingToken::Request(_) => memo,
            // Not what the caller presented.
            IncomingToken::Workload(_) => &mut none,
        };
        let authenticated = match memo.look_up(token, issuers, now) {
            Some(known) => {
                self.cached_at = Some(now);
                Ok(known)
            }
            // Boxed, so that the future of a request whose token is known stays small.
            None => Box::pin(token::authenticate(token, issuers, peer)).await,
        };
        match authenticated {
            Ok(authenticated) => self.set_caller(authenticated),
            Err(unauthenticated) => {
                self.verification = Some(unauthenticated.error.label());
                self.rejecting_issuer.clone_from(&unauthenticated.issuer);
                return Err(unauthenticated.into());
            }
        }
        if self.passes_token() {
            self.bearer = Some(bearer.into_bearer());
        }
        Ok(())
    }

    pub(super) fn set_caller(&mut self, authenticated: Authenticated) {
        self.verification = authenticated.verification;
        self.caller = authenticated.caller;
    }

    /// Whether the source needs the token. Otherwise it is not copied.
    pub(super) fn passes_token(&self) -> bool {
        let source = self.route.source.as_ref();
        source.is_some_and(|source| source.takes_token())
    }

    /// Checks that the caller's token has the scopes that the route requires.
    pub(super) fn check_scopes(&self) -> Result<(), Rejection> {
        match &self.caller {
            Caller::Verified(token) => require_scopes(&self.route.require_scopes, token),
            Caller::Client(_)
            | Caller::Delegated { .. }
            | Caller::Password { .. }
            | Caller::Anonymous => Ok(()),
        }
    }

    /// Evaluates the route's rules, if any.
    pub(super) fn evaluate_rules(&mut self, head: Head<'_>) -> Result<(), Rejection> {
        let Some(rules) = &self.route.rules else {
            return Ok(());
        };
        let host = host::host_name(head.host);
        let decision = rules.decide(&self.caller, head.attributes(&host));
        self.decision.insert(decision).to_result()
    }

    /// The decision of the rules, if the route has any.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_deref()
    }

    /// Refuses a caller that only an exchange can prove, on a route whose source makes none. The
    /// configuration reader does so too; this also covers routes that were built in another way.
    pub(super) fn require_exchange(&self) -> Result<(), Rejection> {
        let source = self.route.source.as_ref();
        let proves = match &self.caller {
            Caller::Verified(_) | Caller::Client(_) | Caller::Anonymous => true,
            Caller::Delegated { .. } => source.is_some_and(|source| source.takes_token()),
            Caller::Password { .. } => source.is_some_and(|source| source.takes_password()),
        };
        if proves {
            return Ok(());
        }
        let cause = "the route's source does not check what the caller presented";
        Err(Rejection::from(Reason::Internal).with_cause(cause))
    }

    /// Acquires the credential. `upgrades` tells whether the request asks for a connection that
    /// may end only with the credential ([`Admission::valid_until`]).
    pub(super) async fn acquire_lease(
        &mut self,
        upgrades: bool,
        now: Now,
    ) -> Result<(), Rejection> {
        let Some(source) = &self.route.source else {
            self.lease = self.session_lease(now)?;
            return Ok(());
        };
        let narrowed = self
            .decision()
            .is_some_and(|decision| decision.scopes().is_some());
        if let Some(now) = self.cached_at.filter(|_| !narrowed)
            && let Some(leased) = source.memoized(&self.caller, now)
        {
            return self.record_lease(Ok(leased));
        }
        let source = Arc::clone(source);
        let request = self.swap_request();
        let leased = if upgrades && self.ends_with_credential() {
            Box::pin(source.lasting_lease(&request)).await
        } else {
            Box::pin(source.lease(&request)).await
        };
        self.record_lease(leased)
    }

    pub(super) fn record_lease(
        &mut self,
        leased: Result<Leased, LeaseError>,
    ) -> Result<(), Rejection> {
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
                Err(Rejection::from(cause).for_route(&self.route))
            }
        }
    }

    pub(super) fn swap_request(&self) -> SwapRequest {
        SwapRequest {
            caller: self.caller.clone(),
            bearer: self.bearer.clone(),
            scopes: self.decision.as_ref().and_then(|r| r.scopes()).cloned(),
            clock_offset: self.clock_offset,
        }
    }

    pub(super) fn refused(self, rejection: Rejection) -> AdmissionError {
        let rejection = rejection.for_route(&self.route);
        AdmissionError {
            issuer: self.caller.issuer().cloned().or(self.rejecting_issuer),
            route: Some(self.route),
            verification: self.verification,
            lookup: self.lookup,
            rule: self.decision.as_ref().and_then(|r| r.rule.clone()),
            caller: self.caller,
            by_cookie: self.by_cookie,
            rejection,
        }
    }
}

impl AdmissionError {
    pub(super) fn before_routing(rejection: Rejection) -> Self {
        Self {
            rejection,
            caller: Caller::Anonymous,
            route: None,
            issuer: None,
            verification: None,
            lookup: None,
            rule: None,
            by_cookie: None,
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
                ..sign_in_reason(problem).into()
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
        rejection.with_cause(cause)
    }
}

/// The reason for the rejection if a sign-in fails.
fn sign_in_reason(problem: SignInProblem) -> Reason {
    match problem {
        SignInProblem::Password => Reason::PasswordRefused,
        SignInProblem::CodeRequired => Reason::MfaRequired,
        SignInProblem::CodeRefused => Reason::MfaRefused,
        SignInProblem::Unconfirmed => Reason::MfaPending,
        SignInProblem::NoFactor => Reason::MfaUnavailable,
        SignInProblem::TooManyAttempts => Reason::TooManyAttempts,
    }
}
