//! Why requests are refused: a closed set, and one table of what callers see.

use http::StatusCode;

use crate::label::labels;

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

/// What RFC 6750 §3 wants in `WWW-Authenticate`.
pub(super) enum Challenge {
    None,
    Plain,
    Error(&'static str),
}

pub(super) struct Row {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: &'static str,
    pub(super) challenge: Challenge,
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
    pub(super) fn row(self) -> Row {
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
