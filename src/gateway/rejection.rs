//! The responses to refused requests.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::path::Ambiguity;
use super::reason::{Challenge, Reason, ResponseRow};
use crate::clock::UnixMillis;
use crate::label::Label;
use crate::secret::SecretString;
use crate::session::SetCookie;
use crate::token::{TokenError, Unauthenticated};

/// The response header that carries a new MFA recovery code, once.
pub const RECOVERY_CODE: &str = "x-hawkgate-recovery-code";

/// The challenge of a route that takes a username and password (RFC 7617 §2.1). Sent before the
/// `Bearer` challenge.
const BASIC: &str = "Basic realm=\"hawkgate\", charset=\"UTF-8\"";

/// The refusal of a request. Callers see no other kind of error.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// `Retry-After`, for 429, 502 and 503.
    pub retry_after: Option<Duration>,
    /// The scopes that the route requires, for `insufficient_scope`.
    pub required_scopes: Option<String>,
    /// Whether a 401 has a `Basic` challenge.
    pub basic_challenge: bool,
    /// The MFA recovery code that replaces the one used; it must reach the caller.
    pub recovery_code: Option<SecretString>,
    /// Where to sign in, for `sign_in_required`.
    pub sign_in: Option<Box<SignInRequired>>,
    /// The message in the response, if it says more than the reason's own. Says nothing about the
    /// configuration other than its `profile`.
    pub message: Option<Box<str>>,
    /// The cause, for the operator's log only.
    pub cause: Option<String>,
}

/// What a request without a session is told.
#[derive(Clone, Debug)]
pub struct SignInRequired {
    /// The login endpoint; a path of this site.
    pub login_url: String,
    /// Where a navigation is redirected: the login endpoint, with where to return to.
    pub location: Option<String>,
    /// Deletes a cookie that is not a session, or no longer one.
    pub removal: Option<SetCookie>,
}

/// The response to a refused request.
#[derive(Clone, Debug)]
pub struct ErrorResponse {
    /// The status.
    pub status: StatusCode,
    /// Headers by name, without `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// JSON in the format of Taskcluster's errors.
    pub body: String,
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        let retry_after = match reason.row().status {
            502 | 503 => Some(Duration::from_secs(5)),
            _ => None,
        };
        Self {
            reason,
            retry_after,
            required_scopes: None,
            basic_challenge: false,
            recovery_code: None,
            sign_in: None,
            message: None,
            cause: None,
        }
    }
}

impl From<Ambiguity> for Rejection {
    fn from(ambiguity: Ambiguity) -> Self {
        Self::from(Reason::BadRequest).with_cause(ambiguity.to_string())
    }
}

impl Rejection {
    /// Sets the cause for the operator's log.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The message in the response.
    pub fn message(&self) -> &str {
        let own = self.message.as_deref();
        own.unwrap_or_else(|| self.reason.message())
    }

    /// The response, without framing headers. `method` and `now` become part of `requestInfo`;
    /// the payload never does.
    pub fn to_response(&self, method: &http::Method, now: UnixMillis) -> ErrorResponse {
        let ResponseRow {
            code, challenge, ..
        } = self.reason.row();
        let message = self.message();
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("cache-control", "no-store".to_owned()),
            ("x-hawkgate-error", self.reason.label().to_owned()),
        ];
        if self.basic_challenge && self.reason.status() == StatusCode::UNAUTHORIZED {
            headers.push(("www-authenticate", BASIC.to_owned()));
        }
        match challenge {
            Challenge::None => {}
            // The request lacks authentication information, so no error code is sent
            // (RFC 6750 §3.1).
            Challenge::Error(_) if self.basic_challenge => {}
            Challenge::Plain => {
                headers.push(("www-authenticate", "Bearer realm=\"hawkgate\"".to_owned()));
            }
            Challenge::Error(error) => {
                let mut value = format!(
                    "Bearer realm=\"hawkgate\", error=\"{error}\", error_description=\"{}\"",
                    message.replace(['"', '\\'], "'")
                );
                if let Some(scope) = &self.required_scopes {
                    value.push_str(", scope=\"");
                    value.push_str(scope);
                    value.push('"');
                }
                headers.push(("www-authenticate", value));
            }
        }
        if let Some(after) = self.retry_after {
            headers.push(("retry-after", after.as_secs().max(1).to_string()));
        }
        if let Some(code) = &self.recovery_code {
            headers.push((RECOVERY_CODE, code.expose().to_owned()));
        }
        let mut body = json!({
            "code": code,
            "message": message,
            "requestInfo": { "method": method.as_str(), "params": {}, "payload": null, "time": now.to_rfc3339() },
        });
        let mut status = self.reason.status();
        if let Some(sign_in) = &self.sign_in {
            body["login_url"] = json!(sign_in.login_url);
            if let Some(removal) = &sign_in.removal {
                headers.push(("set-cookie", removal.as_str().to_owned()));
            }
            if let Some(location) = &sign_in.location {
                status = StatusCode::FOUND;
                headers.retain(|(name, _)| *name != "www-authenticate");
                headers.push(("location", location.clone()));
            }
        }
        ErrorResponse {
            status,
            headers,
            body: body.to_string(),
        }
    }
}

impl From<TokenError> for Rejection {
    fn from(error: TokenError) -> Self {
        use TokenError as E;
        let reason = match error {
            E::OtherScheme => Reason::MissingToken,
            E::InvalidAuthorization => Reason::InvalidAuthorization,
            E::TooLarge
            | E::Opaque
            | E::Malformed
            | E::Encrypted
            | E::DuplicateMember
            | E::CriticalHeader => Reason::TokenMalformed,
            E::UnacceptableAlgorithm => Reason::TokenAlgorithm,
            E::WrongType
            | E::IdToken
            | E::RefreshToken
            | E::LogoutToken
            | E::NotAccessToken { .. } => Reason::TokenType,
            E::UnknownIssuer => Reason::TokenIssuer,
            E::KeyIdMissing | E::UnknownKey | E::UnsuitableKey { .. } => Reason::TokenKey,
            E::BadSignature => Reason::TokenSignature,
            E::InvalidClaim { .. } | E::ClientMismatch => Reason::TokenClaims,
            E::WrongAudience => Reason::TokenAudience,
            E::Expired => Reason::TokenExpired,
            E::ClockNotSet => Reason::ClockNotSet,
            E::NotYetValid | E::IssuedInFuture => Reason::TokenNotYetValid,
            E::ClientNotAllowed | E::SubjectNotAllowed => Reason::TokenNotAllowed,
            E::Bound => Reason::TokenBound,
            E::KeysUnavailable { .. } | E::IntrospectionUnavailable { .. } => {
                Reason::KeysUnavailable
            }
            E::Inactive => Reason::TokenInactive,
            E::Internal => Reason::Internal,
        };
        let mut rejection = Self::from(reason).with_cause(error.to_string());
        rejection.message = message(&error).map(Box::from);
        if let E::KeysUnavailable { retry_after } | E::IntrospectionUnavailable { retry_after } =
            error
        {
            rejection.retry_after = Some(retry_after);
        }
        rejection
    }
}

impl From<Unauthenticated> for Rejection {
    fn from(unauthenticated: Unauthenticated) -> Self {
        let cause = unauthenticated.to_string();
        let Unauthenticated { error, advice, .. } = unauthenticated;
        let mut rejection = Self::from(error).with_cause(cause);
        if let Some(advice) = advice {
            let message = rejection.reason.message().trim_end_matches('.');
            rejection.message = Some(format!("{message}: {advice}.").into());
        }
        rejection
    }
}

/// What a token is and what to send instead, where that helps the caller.
fn message(error: &TokenError) -> Option<&'static str> {
    use TokenError as E;
    Some(match error {
        E::TooLarge => {
            "The token is too large for this gateway: send one with fewer claims, or have `limits.token_bytes` raised."
        }
        E::Opaque => {
            "This is an opaque token, not a JWT: ask the identity provider for an audience, or use introspection."
        }
        E::Encrypted => {
            "The token is encrypted: ask the identity provider for a signed JWT, often by requesting an audience."
        }
        E::IdToken => "The token is an ID token: send the access token instead.",
        E::RefreshToken => "The token is a refresh token: send the access token instead.",
        E::LogoutToken => "The token is a logout token: send an access token instead.",
        E::NotAccessToken { .. } => {
            "The token cannot be told from an ID token: send an access token instead."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
