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
use crate::token::TokenError;

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

    /// The response, without framing headers. `method` and `now` become part of `requestInfo`;
    /// the payload never does.
    pub fn to_response(&self, method: &http::Method, now: UnixMillis) -> ErrorResponse {
        let ResponseRow {
            code,
            message,
            challenge,
            ..
        } = self.reason.row();
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
            E::TooLarge | E::Malformed | E::Encrypted | E::DuplicateMember | E::CriticalHeader => {
                Reason::TokenMalformed
            }
            E::UnacceptableAlgorithm => Reason::TokenAlgorithm,
            E::WrongType | E::IdToken => Reason::TokenType,
            E::UnknownIssuer => Reason::TokenIssuer,
            E::KeyIdMissing | E::UnknownKey | E::UnsuitableKey => Reason::TokenKey,
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
            E::ClientRefused { .. } => Reason::ClientRefused,
            E::Internal => Reason::Internal,
        };
        let mut rejection = Self::from(reason).with_cause(error.to_string());
        if let E::KeysUnavailable { retry_after }
        | E::IntrospectionUnavailable { retry_after }
        | E::ClientRefused { retry_after } = error
        {
            rejection.retry_after = Some(retry_after);
        }
        rejection
    }
}

#[cfg(test)]
mod tests;
