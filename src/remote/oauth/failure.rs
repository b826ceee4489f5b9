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
    html: bool,
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
            html: is_html(response),
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
            None if self.html => format!("status {status} with {HTML_PAGE}"),
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

    /// Says that the server refused hawkgate's client or request, and what to check, for operators.
    pub fn refusal(&self) -> String {
        let what = if self.concerns_our_client() {
            "hawkgate's client"
        } else {
            "hawkgate's request"
        };
        format!(
            "the identity provider refused {what}: {}; {}",
            self.cause(),
            remedy(self.code)
        )
    }

    /// Whether only a change of hawkgate's configuration, or of its client's registration, can help.
    fn is_misconfiguration(&self, on_behalf_of: OnBehalfOf) -> bool {
        let of_any_request = [
            "unsupported_grant_type",
            "use_dpop_nonce",
            "invalid_dpop_proof",
        ];
        let of_own_request = [
            "access_denied",
            "expired_token",
            "insufficient_scope",
            "invalid_grant",
            "invalid_request",
            "invalid_scope",
            "invalid_target",
            "invalid_token",
            "unsupported_token_type",
        ];
        let code = self.code.unwrap_or_default();
        of_any_request.contains(&code)
            || (on_behalf_of == OnBehalfOf::Client && of_own_request.contains(&code))
    }

    fn into_fetch_error(self, on_behalf_of: OnBehalfOf) -> FetchError {
        let status = self.status;
        let code = self.code.unwrap_or_default();
        let limited = status == StatusCode::TOO_MANY_REQUESTS;
        // Some servers send these with 400.
        let failing = ["server_error", "temporarily_unavailable"].contains(&code);
        if (limited || failing || status.is_server_error()) && code != "unsupported_grant_type" {
            return FetchError::Unavailable {
                cause: self.cause(),
                retry_after: self.retry_after.or(limited.then_some(DEFAULT_DELAY)),
            };
        }
        if self.concerns_our_client() {
            // Repeated at once, it would fail again, and some servers lock clients out.
            return FetchError::Misconfigured {
                cause: self.refusal(),
                retry_after: self.retry_after.or(Some(DEFAULT_DELAY)),
            };
        }
        if self.is_misconfiguration(on_behalf_of) {
            return FetchError::Misconfigured {
                cause: self.refusal(),
                retry_after: None,
            };
        }
        let cause = self.cause();
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

/// What to say of a response that should be JSON and is not.
pub fn not_json(response: &HttpResponse) -> String {
    if is_html(response) {
        format!("the response is {HTML_PAGE}; check the URL")
    } else {
        "the response is not JSON".to_owned()
    }
}

/// What an HTML page where JSON was expected usually is.
const HTML_PAGE: &str =
    "an HTML page, not JSON: a login page, or one of a firewall or proxy in between";

/// What the operator should check for an error code (RFC 6749 §5.2, RFC 7009 §2.2.1, RFC 8693 §2.2.2,
/// RFC 8707 §2, RFC 9449 §5).
fn remedy(code: Option<&str>) -> &'static str {
    match code {
        Some("invalid_client") | None => {
            "check client_id, client_secret or private_key, auth_method, and the endpoint's URL"
        }
        Some("unauthorized_client") => {
            "check client_id, and allow this client the grant type at the provider"
        }
        Some("access_denied" | "insufficient_scope") => {
            "check audience and scopes, and allow them to this client at the provider"
        }
        Some("invalid_scope") => {
            "check scopes: the provider has none of that name, or does not give it to this client"
        }
        Some("invalid_target") => {
            "check audience and resource: the provider issues no tokens to this client for them"
        }
        Some("unsupported_grant_type") => {
            "check the endpoint's URL, and whether the provider supports this grant type"
        }
        Some("invalid_dpop_proof" | "use_dpop_nonce") => {
            "the provider asks for DPoP, which hawkgate does not support: switch it off for this client"
        }
        _ => "check audience, resource, scopes and auth_method",
    }
}

/// Whether a response is a web page.
fn is_html(response: &HttpResponse) -> bool {
    let kind = response.headers.get(http::header::CONTENT_TYPE);
    let declared = kind.is_some_and(|kind| {
        let kind = kind.as_bytes().to_ascii_lowercase();
        kind.starts_with(b"text/html") || kind.starts_with(b"application/xhtml")
    });
    let begin = response.body.trim_ascii_start();
    let begin = begin.get(..5).unwrap_or_default().to_ascii_lowercase();
    declared || begin == b"<html" || begin == b"<!doc"
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
