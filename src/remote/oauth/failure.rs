//! Failures at an OAuth2 endpoint, and whose fault they are.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use serde_json::{Map, Value};

use crate::clock::UnixMillis;
use crate::credential::FetchError;
use crate::remote::credential_source::unreachable;
use crate::remote::http_client::{HttpResponse, TransportError};
use crate::secret::SecretString;

/// The longest error code that is logged, in characters.
const MAX_CODE_CHARS: usize = 48;

/// When an exhausted rate limit is reset, in epoch seconds (Auth0's endpoints).
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Whose credentials a request carried. Error codes alone do not tell: `invalid_grant` concerns
/// a caller's password in one grant and hawkgate's configuration in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Only those of hawkgate as a client, so that any error is for the operator to fix.
    Ourselves,
    /// The caller's token or password as well.
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
    Denied(Denied),
    /// The response was unusable.
    Unusable(FetchError),
}

/// An error response (RFC 6749 §5.2). `Debug` omits its members, which may be secret
/// (`mfa_token`).
#[derive(Clone)]
pub struct Denied {
    /// The status, 400 to 599.
    pub status: StatusCode,
    /// `error`, if it is at most 48 characters of `a-z` and `_`.
    pub code: Option<String>,
    /// How long to wait before the next request, if the server says so.
    pub retry_after: Option<Duration>,
    members: Map<String, Value>,
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl Denied {
    /// Parses a 4xx or 5xx response that was received at `now`.
    pub fn read(answer: &HttpResponse, now: UnixMillis) -> Self {
        let members: Map<String, Value> = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code = members.get("error").and_then(Value::as_str);
        Self {
            status: answer.status,
            code: code.filter(|code| is_plain(code)).map(str::to_owned),
            retry_after: answer.retry_after().or_else(|| limit_reset(answer, now)),
            members,
        }
    }

    /// Whether the error code is `code`.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// A member of the response, which may be secret.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        let text = self.members.get(name)?.as_str()?;
        Some(SecretString::from(text))
    }

    /// The status and error code, for operators.
    pub fn cause(&self) -> String {
        let status = self.status.as_u16();
        match &self.code {
            Some(code) => format!("status {status} ({code})"),
            None => format!("status {status}"),
        }
    }

    fn into_fetch_error(self, about: About) -> FetchError {
        let mut cause = self.cause();
        let status = self.status;
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return FetchError::Unavailable {
                cause,
                retry_after: self.retry_after,
            };
        }
        let code = self.code.as_deref().unwrap_or_default();
        let our_client = ["invalid_client", "unauthorized_client"].contains(&code)
            || (code.is_empty() && status == StatusCode::UNAUTHORIZED);
        if our_client {
            cause.push_str(": hawkgate's client was not accepted; check client_id, its secret or key, and its allowed grants");
            return FetchError::Unavailable {
                cause,
                retry_after: self.retry_after,
            };
        }
        match (about, code) {
            (About::Caller, "invalid_grant" | "invalid_token" | "expired_token") => {
                FetchError::Refused(cause)
            }
            (
                About::Caller,
                "access_denied" | "invalid_scope" | "insufficient_scope" | "invalid_target",
            ) => FetchError::NotEntitled(cause),
            _ => FetchError::BadAnswer(cause),
        }
    }
}

impl fmt::Debug for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Denied({})", self.cause())
    }
}

impl Failure {
    /// The error for the caller of a route. The operator's faults never result in a 401.
    pub fn into_fetch_error(self, about: About) -> FetchError {
        match self {
            Self::Transport(error) => unreachable(error),
            Self::Unauthenticated(cause) => FetchError::Unavailable {
                cause,
                retry_after: None,
            },
            Self::Denied(denied) => denied.into_fetch_error(about),
            Self::Unusable(error) => error,
        }
    }
}

/// Whether `code` looks like the error codes of RFC 6749 and its extensions. A token or password
/// that a server puts there by mistake hardly does.
fn is_plain(code: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b == b'_';
    (1..=MAX_CODE_CHARS).contains(&code.len()) && code.bytes().all(fits)
}

/// The time until a rate limit is reset, from `x-ratelimit-reset` of a 429 response. Measured by
/// the server's clock if the response has a `Date`.
pub fn limit_reset(answer: &HttpResponse, now: UnixMillis) -> Option<Duration> {
    if answer.status != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds = answer.header(&X_RATELIMIT_RESET)?.trim().parse().ok()?;
    Some(
        answer
            .date()
            .unwrap_or(now)
            .until(UnixMillis::from_secs(seconds)),
    )
}
