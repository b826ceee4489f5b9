//! Failures at an OAuth2 endpoint, and whose fault they are.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use crate::clock::UnixMillis;
use crate::credential::FetchError;
use crate::peer_text;
use crate::remote::credential_source::unreachable;
use crate::remote::http_client::{HttpResponse, TransportError};
use crate::remote::retry::{DEFAULT_DELAY, retry_after};
use crate::secret::SecretString;

/// On whose behalf a request was sent. The error code alone does not show whose fault an error is:
/// `invalid_grant` concerns the caller's password in one grant and hawkgate's configuration in
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBehalfOf {
    /// The client's own: it carried only hawkgate's credentials, so the operator must fix any error.
    Client,
    /// The caller's: it also carried their token or password.
    Caller,
}

/// Why a request failed. Messages are meant for operators' logs and contain no secret.
#[derive(Clone, Debug)]
pub enum Failure {
    /// There was no response.
    Transport(TransportError),
    /// hawkgate cannot authenticate as a client: its secret or key is missing or unusable.
    Unauthenticated(String),
    /// The response was 4xx or 5xx.
    ErrorResponse(ErrorResponse),
    /// The response was unusable.
    Unusable(FetchError),
}

/// An error response (RFC 6749 §5.2). `Debug` omits its members, which may be secret
/// (`mfa_token`).
#[derive(Clone)]
pub struct ErrorResponse {
    /// The status, 400 to 599.
    pub status: StatusCode,
    /// `error`: a registered code, or [`peer_text::UNREGISTERED`] for anything else that has the
    /// shape of one.
    pub code: Option<&'static str>,
    /// How long to wait before the next request, if the server says so.
    pub retry_after: Option<Duration>,
    members: Map<String, Value>,
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl ErrorResponse {
    /// Parses a 4xx or 5xx response received at `now`.
    pub fn read(response: &HttpResponse, now: UnixMillis) -> Self {
        let members: Map<String, Value> =
            serde_json::from_slice(&response.body).unwrap_or_default();
        let code = members.get("error").and_then(Value::as_str);
        Self {
            status: response.status,
            code: code.and_then(peer_text::error_code),
            retry_after: retry_after(response, now),
            members,
        }
    }

    /// Whether the error code is `code`.
    pub fn is(&self, code: &str) -> bool {
        self.code == Some(code)
    }

    /// A member of the response, which may be secret.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        let text = self.members.get(name)?.as_str()?;
        Some(SecretString::from(text))
    }

    /// The status and error code, for operators.
    pub fn cause(&self) -> String {
        let status = self.status.as_u16();
        match self.code {
            Some(code) => format!("status {status} ({code})"),
            None => format!("status {status}"),
        }
    }

    /// Whether the server does not accept hawkgate as a client.
    pub fn concerns_our_client(&self) -> bool {
        match self.code {
            Some(code) => ["invalid_client", "unauthorized_client"].contains(&code),
            None => self.status == StatusCode::UNAUTHORIZED,
        }
    }

    fn into_fetch_error(self, on_behalf_of: OnBehalfOf) -> FetchError {
        let mut cause = self.cause();
        let status = self.status;
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let limited = status == StatusCode::TOO_MANY_REQUESTS;
            return FetchError::Unavailable {
                cause,
                retry_after: self.retry_after.or(limited.then_some(DEFAULT_DELAY)),
            };
        }
        let code = self.code.unwrap_or_default();
        if self.concerns_our_client() {
            cause.push_str(": hawkgate's client was not accepted; check client_id, its secret or key, and its allowed grants");
            // Repeated at once, it would fail again, and some servers lock clients out.
            return FetchError::Unavailable {
                cause,
                retry_after: self.retry_after.or(Some(DEFAULT_DELAY)),
            };
        }
        match (on_behalf_of, code) {
            (OnBehalfOf::Caller, "invalid_grant" | "invalid_token" | "expired_token") => {
                FetchError::Refused(cause)
            }
            (
                OnBehalfOf::Caller,
                "access_denied" | "invalid_scope" | "insufficient_scope" | "invalid_target",
            ) => FetchError::NotEntitled(cause),
            _ => FetchError::BadAnswer(cause),
        }
    }
}

impl fmt::Debug for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorResponse({})", self.cause())
    }
}

impl Failure {
    /// The error that the request fails with. A fault of the operator's never becomes a 401.
    pub fn into_fetch_error(self, on_behalf_of: OnBehalfOf) -> FetchError {
        match self {
            Self::Transport(error) => unreachable(error),
            Self::Unauthenticated(cause) => FetchError::Unavailable {
                cause,
                retry_after: None,
            },
            Self::ErrorResponse(error) => error.into_fetch_error(on_behalf_of),
            Self::Unusable(error) => error,
        }
    }
}
