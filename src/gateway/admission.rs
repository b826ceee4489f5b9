//! Leave to go upstream, and who got it: from a head's credentials to a credential on loan.

use std::sync::Arc;

use super::Head;
use super::rejection::Rejection;
use super::route::{self, Route};
use super::rule::Ruling;
use crate::clock::Now;
use crate::credential::Lookup;
use crate::credential::{
    Credential, FetchError, Lease, LeaseError, Leased, SignInProblem, SwapRequest,
};
use crate::gateway::reason::Reason;
use crate::header_fields::HeaderFields;
use crate::secret::SecretString;
use crate::token::{
    self, BasicCredentials, BearerToken, Caller, PresentedToken, TokenError, VerifiedToken,
};

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
    /// Kept where the source takes it.
    pub(super) bearer: Option<BearerToken>,
    /// When the token was found to be known, if it was: just now, as nothing was waited for.
    pub(super) cached_at: Option<Now>,
    /// The issuer whose rules the token broke.
    pub(super) suspect: Option<Arc<str>>,
    pub(super) ruling: Option<Arc<Ruling>>,
    pub(super) lease: Option<Lease>,
    pub(super) recovery_code: Option<SecretString>,
    /// The target to send, where it is not the one that came.
    pub(super) target: Option<String>,
    pub(super) corrected_clock: bool,
    pub(super) replaced_credential: bool,
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

/// The caller's token, or the workload's own where the route has one and the caller sent
/// no Authorization at all.
pub(super) fn bearer<'h>(
    route: &Route,
    headers: &'h dyn HeaderFields,
) -> Result<Brought<'h>, Rejection> {
    if let Some(workload) = &route.workload_token
        && headers.first(&http::header::AUTHORIZATION).is_none()
    {
        return workload.current().map(Brought::Workload).ok_or_else(|| {
            let file = workload.file().display();
            Rejection::from(Reason::WorkloadTokenUnavailable)
                .because(format!("{file} holds no token"))
        });
    }
    let presented = PresentedToken::from_headers(headers)?;
    presented
        .map(Brought::Sent)
        .ok_or_else(|| Reason::MissingToken.into())
}

/// A token, and who keeps it.
pub(super) enum Brought<'h> {
    /// It stands in the request's head.
    Sent(PresentedToken<'h>),
    /// The workload's own.
    Workload(BearerToken),
}

impl Brought<'_> {
    fn presented(&self) -> PresentedToken<'_> {
        match self {
            Self::Sent(token) => *token,
            Self::Workload(token) => token.into(),
        }
    }

    fn keep(self) -> BearerToken {
        match self {
            Self::Sent(token) => token.to_bearer(),
            Self::Workload(token) => token,
        }
    }
}

/// The caller's username and password, to be proved by the source.
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
    pub(super) fn to(route: Arc<Route>) -> Self {
        Self {
            route,
            caller: Caller::Anonymous,
            verification: None,
            lookup: None,
            bearer: None,
            cached_at: None,
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

    pub(super) async fn authenticate(
        &mut self,
        bearer: Brought<'_>,
        now: Now,
    ) -> Result<(), Rejection> {
        let (token, issuers) = (bearer.presented(), &self.route.issuers);
        let authenticated = match token::cached(token, issuers, now) {
            Some(known) => {
                self.cached_at = Some(now);
                Ok(known)
            }
            None => token::authenticate(token, issuers).await,
        };
        match authenticated {
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
        // What nobody will ask for is not copied.
        let source = self.route.source.as_ref();
        if source.is_some_and(|source| source.takes_token()) {
            self.bearer = Some(bearer.keep());
        }
        if let Caller::Verified(token) = &self.caller {
            require_scopes(&self.route.require_scopes, token)?;
        }
        Ok(())
    }

    /// Asks the route's rules, if there are any.
    pub(super) fn judge(&mut self, head: Head<'_>) -> Result<(), Rejection> {
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

    pub(super) async fn lease(&mut self) -> Result<(), Rejection> {
        let Some(source) = &self.route.source else {
            return Ok(());
        };
        let narrowed = self
            .ruling()
            .is_some_and(|ruling| ruling.scopes().is_some());
        if let Some(now) = self.cached_at.filter(|_| !narrowed)
            && let Some(leased) = source.memoized(&self.caller, now)
        {
            return self.hold(Ok(leased));
        }
        let source = Arc::clone(source);
        let leased = source.lease(&self.swap_request()).await;
        self.hold(leased)
    }

    pub(super) fn hold(&mut self, leased: Result<Leased, LeaseError>) -> Result<(), Rejection> {
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

    pub(super) fn swap_request(&self) -> SwapRequest {
        SwapRequest {
            caller: self.caller.clone(),
            bearer: self.bearer.clone(),
            scopes: self.ruling.as_ref().and_then(|r| r.scopes()).cloned(),
            clock_offset: self.route.upstream.clock_offset(),
        }
    }

    pub(super) fn refused(self, rejection: Rejection) -> Refused {
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
    pub(super) fn before_routing(rejection: Rejection) -> Self {
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
