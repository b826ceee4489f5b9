//! Every refusal as it reaches the caller.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::reason::{Challenge, Reason, Row};
use crate::clock::UnixMillis;
use crate::label::Label;
use crate::secret::SecretString;
use crate::token::TokenError;

/// The header in which a new recovery code reaches its user, once.
pub const RECOVERY_CODE: &str = "x-hawkgate-recovery-code";

/// The challenge of a route that asks for a username and password (RFC 7617 §2.1). It goes
/// before that of RFC 6750.
const BASIC: &str = "Basic realm=\"hawkgate\", charset=\"UTF-8\"";

/// A refusal: the only error that a caller sees.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// From the closed set.
    pub reason: Reason,
    /// For 429, 502 and 503: when to try again.
    pub retry_after: Option<Duration>,
    /// For `insufficient_scope`: what the route requires.
    pub required_scopes: Option<String>,
    /// Whether the route asks for a username and password: then a 401 says so.
    pub basic: bool,
    /// The recovery code that takes the place of a used one, so that it is not lost.
    pub recovery_code: Option<SecretString>,
    /// For the operator's log only.
    pub cause: Option<String>,
}

/// A refusal as it goes on the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers by name, without `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// JSON in Taskcluster's error shape.
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
            basic: false,
            recovery_code: None,
            cause: None,
        }
    }
}

impl Rejection {
    /// With the cause for the operator's log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The answer, complete but for framing. `method` and `now` go into `requestInfo`;
    /// the payload never does.
    pub fn answer(&self, method: &http::Method, now: UnixMillis) -> Answer {
        let Row {
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
        if self.basic && self.reason.status() == StatusCode::UNAUTHORIZED {
            headers.push(("www-authenticate", BASIC.to_owned()));
        }
        match challenge {
            Challenge::None => {}
            // What is wrong is no bearer token (RFC 6750 §3.1).
            Challenge::Error(_) if self.basic => {}
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
        let body = json!({
            "code": code,
            "message": message,
            "requestInfo": { "method": method.as_str(), "params": {}, "payload": null, "time": now.to_rfc3339() },
        });
        Answer {
            status: self.reason.status(),
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
            E::NotYetValid | E::IssuedInFuture => Reason::TokenNotYetValid,
            E::ClientNotAllowed | E::SubjectNotAllowed => Reason::TokenNotAllowed,
            E::Bound => Reason::TokenBound,
            E::KeysUnavailable { .. } | E::IntrospectionUnavailable { .. } => {
                Reason::KeysUnavailable
            }
            E::Inactive => Reason::TokenInactive,
            E::Internal => Reason::Internal,
        };
        let mut rejection = Self::from(reason).because(error.to_string());
        if let E::KeysUnavailable { retry_after } | E::IntrospectionUnavailable { retry_after } =
            error
        {
            rejection.retry_after = Some(retry_after);
        }
        rejection
    }
}

#[cfg(test)]
mod tests;
