//! What can go wrong at an OAuth2 endpoint, and whose fault it is.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use serde_json::{Map, Value};

use crate::clock::UnixMillis;
use crate::credential::FetchError;
use crate::remote::credential_source::unreachable;
use crate::remote::http_client::{HttpResponse, TransportError};
use crate::secret::SecretString;

/// The longest error code that is repeated in logs, in characters.
const MAX_CODE_CHARS: usize = 48;

/// When an exhausted limit is filled again, in epoch seconds (Auth0's endpoints).
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Whom an error concerns. Error codes alone do not say: `invalid_grant` is about a caller's
/// password in one grant and about hawkgate's own settings in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Nothing of the caller was in the request: whatever is wrong, the operator must mend it.
    Ourselves,
    /// The caller's own token or password was.
    Caller,
}

/// Why an endpoint gave nothing. Texts are for operators' logs; none holds a secret.
#[derive(Clone, Debug)]
pub enum Failure {
    /// No answer.
    Transport(TransportError),
    /// hawkgate's own client cannot authenticate: its secret or key is missing or unusable.
    Unauthenticated(String),
    /// A 4xx or 5xx answer.
    Denied(Denied),
    /// An answer that is of no use.
    Unusable(FetchError),
}

/// An error answer (RFC 6749 §5.2). Its members may hold secrets (`mfa_token`): they are
/// not in `Debug`.
#[derive(Clone)]
pub struct Denied {
    /// Status, 400 to 599.
    pub status: StatusCode,
    /// `error`, if it is a plain word; at most 48 of `a-z` and `_`.
    pub code: Option<String>,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    members: Map<String, Value>,
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl Denied {
    /// From a 4xx or 5xx answer, read at `now`.
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

    /// Whether the error code is this one.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// A member of the answer that may be a secret.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        let text = self.members.get(name)?.as_str()?;
        Some(SecretString::from(text))
    }

    /// For operators: status and error code.
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
            cause.push_str(": hawkgate's own client was not accepted; look at client_id, its secret or key, and the grants it may use");
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
    /// What it means for the caller of a route: a fault of the operator's is never a 401.
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

/// A word of the kind that RFC 6749 and its extensions define. A token or a password that a
/// server put there by mistake hardly looks so.
fn is_plain(code: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b == b'_';
    (1..=MAX_CODE_CHARS).contains(&code.len()) && code.bytes().all(fits)
}

/// Until when an exhausted limit lasts, by `x-ratelimit-reset` of a 429 answer: told in the
/// server's own clock where it says what that is.
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
