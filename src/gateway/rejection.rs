//! Every refusal: what the caller sees, decided in one table.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::outcome::{Label, labels};
use super::route::Route;
use crate::clock::UnixMillis;
use crate::secret::SecretString;
use crate::token::TokenError;

labels! {
    /// The closed set behind `X-Hawkgate-Error`; documented in the README.
    Reason {
        /// No route takes this host, path and method.
        NoRoute = "no_route",
        /// The request is ambiguous or not well formed.
        BadRequest = "bad_request",
        /// The listener's `allowed_networks`, `allowed_users` or `trusted_proxies` keep this peer out.
        PeerNotAllowed = "peer_not_allowed",
        /// TRACE or CONNECT, or one that an endpoint of hawkgate's own does not take.
        MethodRefused = "method_refused",
        /// The head is over `limits.header_bytes`.
        HeaderTooLarge = "header_too_large",
        /// The target is over `limits.url_bytes`.
        UrlTooLong = "url_too_long",
        /// The head did not arrive within `limits.header_timeout`.
        HeaderTimeout = "header_timeout",
        /// The body stalled for longer than `limits.body_timeout`.
        BodyTimeout = "body_timeout",
        /// The body is over `limits.body`.
        BodyTooLarge = "body_too_large",
        /// No bearer token was sent.
        MissingToken = "missing_token",
        /// Two credentials, or a malformed Authorization header.
        InvalidAuthorization = "invalid_authorization",
        /// Not a JWT, too large, not strict JSON, or with unknown critical headers.
        TokenMalformed = "token_malformed",
        /// `alg` is not among the issuer's algorithms.
        TokenAlgorithm = "token_algorithm",
        /// `typ` is wrong for the issuer's profile, or it is an ID token.
        TokenType = "token_type",
        /// No issuer of this route issued it.
        TokenIssuer = "token_issuer",
        /// No key of the issuer fits it.
        TokenKey = "token_key",
        /// The signature is wrong.
        TokenSignature = "token_signature",
        /// It is for another audience.
        TokenAudience = "token_audience",
        /// It has expired.
        TokenExpired = "token_expired",
        /// Its `nbf` or `iat` is in the future.
        TokenNotYetValid = "token_not_yet_valid",
        /// A required claim is missing or of the wrong type.
        TokenClaims = "token_claims",
        /// Its client or subject is not on the issuer's list.
        TokenNotAllowed = "token_not_allowed",
        /// It is bound to a key (DPoP, mTLS) and was sent as a plain bearer.
        TokenBound = "token_bound",
        /// Its issuer says that it is not active.
        TokenInactive = "token_inactive",
        /// The exchange refused it.
        TokenRefused = "token_refused",
        /// No username and password were sent, where the route asks for them.
        MissingPassword = "missing_password",
        /// The username or password is wrong, or the account may not sign in.
        PasswordRefused = "password_refused",
        /// A second factor is needed beside the password.
        MfaRequired = "mfa_required",
        /// The second factor is wrong or came too late.
        MfaRefused = "mfa_refused",
        /// The sign-in was not yet confirmed on the user's other device.
        MfaPending = "mfa_pending",
        /// A second factor is needed, and the account has none that can be used here.
        MfaUnavailable = "mfa_unavailable",
        /// Too many failed sign-ins of this user or from this address.
        TooManyAttempts = "too_many_attempts",
        /// The upstream refuses what the identity provider has for this user.
        SignInAgain = "sign_in_again",
        /// It lacks a scope that the route requires.
        InsufficientScope = "insufficient_scope",
        /// A rule refuses it, or no rule of the route matches.
        RuleDenied = "rule_denied",
        /// The source has nothing for this caller.
        NotEntitled = "not_entitled",
        /// `[login]`: no credentials for this token; what is wrong with it is only logged.
        LoginRefused = "login_refused",
        /// `[login]`: no issuer of this name.
        LoginUnknownProvider = "login_unknown_provider",
        /// `/bewit`: the URL is of no upstream that bewits are made for.
        BewitRefused = "bewit_refused",
        /// The issuer's keys were never had, or it cannot be asked about a token.
        KeysUnavailable = "keys_unavailable",
        /// The workload token's file cannot be read.
        WorkloadTokenUnavailable = "workload_token_unavailable",
        /// The exchange cannot be reached.
        ExchangeUnavailable = "exchange_unavailable",
        /// The exchange answered with something else than a credential.
        ExchangeFailed = "exchange_failed",
        /// Signed with this credential, the header would be over Taskcluster's limit.
        CredentialTooLarge = "credential_too_large",
        /// The upstream's name does not resolve or nothing accepts the connection.
        UpstreamUnreachable = "upstream_unreachable",
        /// The upstream did not answer in time.
        UpstreamTimeout = "upstream_timeout",
        /// The upstream broke off or spoke no valid HTTP.
        UpstreamFailed = "upstream_failed",
        /// The client asks more often than `limits.rate` or the route's `rate` lets it.
        RateLimited = "rate_limited",
        /// `limits.connections` is reached.
        Overloaded = "overloaded",
        /// A fault of hawkgate's own.
        Internal = "internal",
    }
}

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

/// What RFC 6750 §3 wants in `WWW-Authenticate`.
enum Challenge {
    None,
    Plain,
    Error(&'static str),
}

struct Row {
    status: u16,
    code: &'static str,
    message: &'static str,
    challenge: Challenge,
}

const fn row(status: u16, code: &'static str, challenge: Challenge, message: &'static str) -> Row {
    Row {
        status,
        code,
        message,
        challenge,
    }
}

impl Reason {
    // One line a refusal: the table is the documentation.
    #[rustfmt::skip]
    fn row(self) -> Row {
        use Challenge::{Error, None, Plain};
        const TOKEN: Challenge = Error("invalid_token");
        match self {
            Self::NoRoute => row(404, "NoRoute", None, "No route of this gateway takes this host, path and method."),
            Self::BadRequest => row(400, "InvalidRequest", None, "The request is ambiguous or not well-formed HTTP."),
            Self::PeerNotAllowed => row(403, "PeerNotAllowed", None, "This listener does not serve your address or user."),
            Self::MethodRefused => row(405, "MethodNotAllowed", None, "This method is not proxied."),
            Self::HeaderTooLarge => row(431, "HeaderTooLarge", None, "The request's header is larger than this gateway accepts."),
            Self::UrlTooLong => row(414, "UrlTooLong", None, "The request's URL is longer than this gateway accepts."),
            Self::HeaderTimeout => row(408, "RequestTimeout", None, "The request's header did not arrive in time."),
            Self::BodyTimeout => row(408, "RequestTimeout", None, "The request's body stalled for too long."),
            Self::BodyTooLarge => row(413, "BodyTooLarge", None, "The request's body is larger than this gateway accepts."),
            Self::MissingToken => row(401, "AuthenticationFailed", Plain, "A bearer token is required: send `Authorization: Bearer <token>`."),
            Self::InvalidAuthorization => row(400, "InvalidRequest", Error("invalid_request"), "The Authorization header is malformed or was sent more than once."),
            Self::TokenMalformed => row(401, "AuthenticationFailed", TOKEN, "The token is not a well-formed JWT access token."),
            Self::TokenAlgorithm => row(401, "AuthenticationFailed", TOKEN, "The token's signature algorithm is not accepted."),
            Self::TokenType => row(401, "AuthenticationFailed", TOKEN, "The token is not an access token of the expected type."),
            Self::TokenIssuer => row(401, "AuthenticationFailed", TOKEN, "The token's issuer is not accepted here."),
            Self::TokenKey => row(401, "AuthenticationFailed", TOKEN, "The token was not signed with a current key of its issuer."),
            Self::TokenSignature => row(401, "AuthenticationFailed", TOKEN, "The token's signature is not valid."),
            Self::TokenAudience => row(401, "AuthenticationFailed", TOKEN, "The token is meant for another audience."),
            Self::TokenExpired => row(401, "AuthenticationFailed", TOKEN, "The token has expired."),
            Self::TokenNotYetValid => row(401, "AuthenticationFailed", TOKEN, "The token is not valid yet."),
            Self::TokenClaims => row(401, "AuthenticationFailed", TOKEN, "A required claim of the token is missing or malformed."),
            Self::TokenNotAllowed => row(401, "AuthenticationFailed", TOKEN, "The token's client or subject is not accepted here."),
            Self::TokenBound => row(401, "AuthenticationFailed", TOKEN, "The token is bound to a key and cannot be used as a plain bearer token."),
            Self::TokenInactive => row(401, "AuthenticationFailed", TOKEN, "The token is not active: it is unknown to its issuer, revoked or expired."),
            Self::TokenRefused => row(401, "AuthenticationFailed", TOKEN, "The credentials service refused the token."),
            Self::MissingPassword => row(401, "AuthenticationFailed", Plain, "A username and password are required: send `Authorization: Basic <base64>`."),
            Self::PasswordRefused => row(401, "AuthenticationFailed", Plain, "The username or password is wrong, or the account may not sign in here."),
            Self::MfaRequired => row(401, "AuthenticationFailed", Plain, "A second factor is required: send its code, or a recovery code, as `X-OTP` beside the password."),
            Self::MfaRefused => row(401, "AuthenticationFailed", Plain, "The second factor is wrong or came too late: sign in again with a new code as `X-OTP`."),
            Self::MfaPending => row(401, "AuthenticationFailed", Plain, "Confirm the sign-in on your other device, then send the request again with the same password."),
            Self::MfaUnavailable => row(403, "InsufficientScopes", None, "A second factor is required, and the account has none that can be used here: enrol one with the identity provider."),
            Self::TooManyAttempts => row(429, "TooManyRequests", None, "Too many failed sign-ins. Try again later."),
            Self::SignInAgain => row(401, "AuthenticationFailed", TOKEN, "The upstream does not accept what the identity provider holds for this user any more: sign in with it again."),
            Self::InsufficientScope => row(403, "InsufficientScopes", Error("insufficient_scope"), "The token lacks a scope that is required here."),
            Self::RuleDenied => row(403, "InsufficientScopes", Error("insufficient_scope"), "The rules of this gateway do not allow this request."),
            Self::NotEntitled => row(403, "InsufficientScopes", Error("insufficient_scope"), "No upstream credentials can be given for this token."),
            Self::LoginRefused => row(400, "InputError", None, "Could not generate credentials for this access token"),
            Self::LoginUnknownProvider => row(400, "InputError", None, "Unknown provider"),
            Self::BewitRefused => row(403, "BewitRefused", None, "This gateway does not sign this URL."),
            Self::KeysUnavailable => row(503, "ServiceUnavailable", None, "The token's issuer cannot be reached to verify it. Try again later."),
            Self::WorkloadTokenUnavailable => row(503, "ServiceUnavailable", None, "The workload's own token is not available. Try again later."),
            Self::ExchangeUnavailable => row(503, "ServiceUnavailable", None, "The credentials service cannot be reached. Try again later."),
            Self::ExchangeFailed => row(502, "BadGateway", None, "The credentials service gave no usable answer."),
            Self::CredentialTooLarge => row(502, "BadGateway", None, "The credentials carry too many scopes to fit into one request header."),
            Self::UpstreamUnreachable => row(502, "BadGateway", None, "The upstream cannot be reached."),
            Self::UpstreamTimeout => row(504, "GatewayTimeout", None, "The upstream did not answer in time."),
            Self::UpstreamFailed => row(502, "BadGateway", None, "The upstream broke off its answer or spoke no valid HTTP."),
            Self::RateLimited => row(429, "TooManyRequests", None, "Too many requests. Try again later."),
            Self::Overloaded => row(503, "ServiceUnavailable", None, "This gateway has reached its limit of connections. Try again later."),
            Self::Internal => row(500, "InternalServerError", None, "An internal error of this gateway."),
        }
    }

    /// The status that the caller gets.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The fixed text that the caller gets.
    pub fn message(self) -> &'static str {
        self.row().message
    }
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

    /// As `route` has to say it.
    #[must_use]
    pub fn at(mut self, route: &Route) -> Self {
        self.basic = route.takes_password();
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
