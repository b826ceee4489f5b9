//! Shared by the providers of sessions ([`super::oidc_provider`], [`super::taskcluster_provider`]):
//! whose fault a failure is, and the limits on requests to the provider.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use super::http_client::TransportError;
use super::oauth::{ErrorResponse, Failure};
use crate::circuit_breaker::{
    Attempt, CircuitBreaker, Jitter, LONGEST_RETRY_AFTER, Limits, Origin, Outcome,
};
use crate::clock::SharedClock;
use crate::credential::FetchError;
use crate::secret::SecretString;
use crate::session::ProviderError;

/// Requests to one provider that run at once; further ones wait.
const CONCURRENCY: usize = 128;
/// Requests that run or wait; further ones are refused.
const MAX_CALLS: usize = 1024;
/// Refresh tokens whose failures are remembered, in each half of an ageing map.
const KEYS: usize = 16 * 1024;

/// The error codes that mean that this user has to sign in again, and not that hawkgate is
/// misconfigured (RFC 6749 §5.2, OpenID Connect Core §3.1.2.6, RFC 9470 §3; `mfa_required` is
/// Auth0's).
const USER_ERRORS: [&str; 10] = [
    "access_denied",
    "account_selection_required",
    "consent_required",
    "expired_token",
    "insufficient_user_authentication",
    "interaction_required",
    "invalid_grant",
    "invalid_token",
    "login_required",
    "mfa_required",
];

/// The limits on requests to one provider: how many at once, and which fail without being sent
/// while it is down.
#[derive(Debug)]
pub(super) struct ProviderCalls {
    breaker: Arc<CircuitBreaker<u64>>,
    keys: RandomState,
}

impl ProviderCalls {
    /// The limits of the session `name`. `timeout` bounds the wait for a permit, and the call.
    pub(super) fn new(name: &Arc<str>, timeout: Duration, clock: SharedClock) -> Self {
        let limits = Limits {
            concurrency: CONCURRENCY,
            max_calls: MAX_CALLS,
            timeout,
            keys: KEYS,
        };
        let breaker =
            CircuitBreaker::new("session", Arc::clone(name), limits, clock, Jitter::Random);
        Self {
            breaker,
            keys: RandomState::new(),
        }
    }

    /// Sends a request of a session of `subject` that presents `secret`. It is never repeated: if
    /// its answer got lost, the provider may have replaced `secret`, and would take it for stolen.
    pub(super) async fn of_session<T, F>(
        &self,
        subject: &str,
        secret: &SecretString,
        send: impl Fn() -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        let subject = digest::digest(&digest::SHA256, subject.as_bytes());
        let subject = subject.as_ref().try_into().unwrap_or_default();
        self.run(Origin::Subject(subject), secret, send).await
    }

    /// Sends the request that completes a sign-in with `code`. All sign-ins together leave a
    /// quarter of the capacity to sessions.
    pub(super) async fn of_sign_in<T, F>(
        &self,
        code: &SecretString,
        send: impl Fn() -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        self.run(Origin::Local, code, send).await
    }

    async fn run<T, F>(
        &self,
        origin: Origin,
        secret: &SecretString,
        send: impl Fn() -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        let attempt = Attempt {
            key: self.keys.hash_one(secret.expose()),
            origin,
        };
        let rejected = |rejected: crate::circuit_breaker::Rejected| ProviderError::Unavailable {
            cause: rejected.to_string(),
            retry_after: Some(rejected.retry_after()),
        };
        let call = self.breaker.begin(attempt).map_err(rejected)?;
        let answered = call.run(false, |_| send(), outcome).await;
        answered.map_err(rejected)?
    }
}

fn outcome<T>(result: &Result<T, ProviderError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Accepted,
        Err(ProviderError::Unavailable { retry_after, .. }) => Outcome::Failed {
            retry_after: *retry_after,
        },
        Err(_) => Outcome::Responded,
    }
}

impl From<Failure> for ProviderError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Transport(error) => error.into(),
            Failure::Unauthenticated(cause) => Self::Misconfigured(cause),
            Failure::ErrorResponse(response) => response.into(),
            Failure::Unusable(error) => error.into(),
        }
    }
}

impl From<TransportError> for ProviderError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Connection { .. } | TransportError::Timeout { .. } => {
                Self::Unavailable {
                    cause: error.to_string(),
                    retry_after: None,
                }
            }
            other => Self::Misconfigured(other.to_string()),
        }
    }
}

impl From<ErrorResponse> for ProviderError {
    fn from(response: ErrorResponse) -> Self {
        let cause = response.cause();
        // Taskcluster's web-server sends this one with 501.
        if response.is("unsupported_grant_type") {
            return Self::Misconfigured(cause);
        }
        let limited = response.status == http::StatusCode::TOO_MANY_REQUESTS;
        if limited || response.status.is_server_error() {
            return Self::Unavailable {
                cause,
                retry_after: response.retry_after.map(bounded),
            };
        }
        if response.concerns_our_client() {
            return Self::Misconfigured(format!(
                "{cause}: the client was not accepted; check client_id, its secret or key, and its \
                 allowed grants"
            ));
        }
        match response.code {
            Some(code) if USER_ERRORS.contains(&code) => Self::Refused(cause),
            _ => Self::Misconfigured(cause),
        }
    }
}

impl From<FetchError> for ProviderError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Refused(cause) => Self::Refused(cause),
            FetchError::Unavailable { cause, retry_after } => Self::Unavailable {
                cause,
                retry_after: retry_after.map(bounded),
            },
            other => Self::Misconfigured(other.to_string()),
        }
    }
}

/// A provider's `Retry-After` is passed on to browsers, so it is not believed beyond this.
fn bounded(retry_after: Duration) -> Duration {
    retry_after.min(LONGEST_RETRY_AFTER)
}
