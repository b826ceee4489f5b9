//! Shared by the providers of sessions ([`super::oidc_provider`], [`super::taskcluster_provider`]):
//! whose fault a failure is.

use std::time::Duration;

use super::http_client::TransportError;
use super::oauth::{ErrorResponse, Failure};
use crate::circuit_breaker::LONGEST_RETRY_AFTER;
use crate::credential::FetchError;
use crate::session::ProviderError;

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
            return Self::Misconfigured(response.refusal());
        }
        let limited = response.status == http::StatusCode::TOO_MANY_REQUESTS;
        if limited || response.status.is_server_error() {
            return Self::Unavailable {
                cause,
                retry_after: response.retry_after.map(bounded),
            };
        }
        if response.concerns_our_client() {
            return Self::Misconfigured(response.refusal());
        }
        match response.code {
            Some(code) if USER_ERRORS.contains(&code) => Self::Refused(cause),
            _ => Self::Misconfigured(response.refusal()),
        }
    }
}

impl From<FetchError> for ProviderError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Refused(cause) => Self::Refused(cause),
            FetchError::Misconfigured { cause, .. } => Self::Misconfigured(cause),
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
