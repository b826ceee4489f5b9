//! The reasons for refusing requests, and one table of the responses.

use http::StatusCode;

use crate::label::labels;

labels! {
    /// The value of `X-Hawkgate-Error`; documented in `docs/errors.md`.
    Reason {
        /// No route matches the host, path and method.
        NoRoute = "no_route",
        /// The path begins with `/credentials` or `/bewit`, and no route is explicitly for it.
        ReservedPath = "reserved_path",
        /// The request is ambiguous or malformed.
        BadRequest = "bad_request",
        /// The listener's `allowed_networks`, `local_networks`, `allowed_users` or `trusted_proxies`
        /// exclude the peer, or it may not replace credentials.
        PeerNotAllowed = "peer_not_allowed",
        /// `Host` is not a name of this machine, on a route or listener that needs no token.
        HostNotAllowed = "host_not_allowed",
        /// A web page of another origin sent the request, to a route or listener that needs no
        /// token, or with the cookie of a session.
        CrossSite = "cross_site",
        /// Sessions need https, and the request came over http.
        InsecureOrigin = "insecure_origin",
        /// The method is TRACE or CONNECT, or one of hawkgate's own endpoints does not support it.
        MethodRefused = "method_refused",
        /// The head exceeds `limits.header_bytes`.
        HeaderTooLarge = "header_too_large",
        /// The target exceeds `limits.url_bytes`.
        UrlTooLong = "url_too_long",
        /// The head did not arrive within `limits.header_timeout`.
        HeaderTimeout = "header_timeout",
        /// The body stalled for longer than `limits.body_timeout`, or was slower than
        /// `limits.min_body_rate`.
        BodyTimeout = "body_timeout",
        /// The body exceeds `limits.body`.
        BodyTooLarge = "body_too_large",
        /// No session: the user has to sign in.
        SignInRequired = "sign_in_required",
        /// `[[session]]`: the sign-in could not be completed. The cause is only logged.
        SignInFailed = "sign_in_failed",
        /// The provider cannot be reached to renew the session, or the shared store to read it.
        SessionUnavailable = "session_unavailable",
        /// `[[session]]`: the logout token is not valid.
        LogoutTokenRefused = "logout_token_refused",
        /// No bearer token was sent.
        MissingToken = "missing_token",
        /// `Authorization` is malformed or was sent more than once.
        InvalidAuthorization = "invalid_authorization",
        /// The token is not a JWT, is too large, is not strict JSON or has `crit` headers.
        TokenMalformed = "token_malformed",
        /// `alg` is not one of the issuer's algorithms.
        TokenAlgorithm = "token_algorithm",
        /// `typ` is wrong for the issuer's profile, or the token is an ID token.
        TokenType = "token_type",
        /// `iss` is not one of the route's issuers.
        TokenIssuer = "token_issuer",
        /// The issuer has no suitable key for the token.
        TokenKey = "token_key",
        /// The signature is invalid.
        TokenSignature = "token_signature",
        /// The token is for another audience.
        TokenAudience = "token_audience",
        /// The token has expired.
        TokenExpired = "token_expired",
        /// `nbf` or `iat` is in the future.
        TokenNotYetValid = "token_not_yet_valid",
        /// A required claim is missing or of the wrong type.
        TokenClaims = "token_claims",
        /// The issuer's settings do not allow the client or subject.
        TokenNotAllowed = "token_not_allowed",
        /// The token is bound to a key (DPoP, mTLS) but was sent as a plain bearer token.
        TokenBound = "token_bound",
        /// The issuer reports the token as inactive (RFC 7662 §2.2).
        TokenInactive = "token_inactive",
        /// The exchange refused the token.
        TokenRefused = "token_refused",
        /// The route takes a username and password, and none was sent.
        MissingPassword = "missing_password",
        /// The username or password is wrong, or the account may not sign in.
        PasswordRefused = "password_refused",
        /// A second factor is required in addition to the password.
        MfaRequired = "mfa_required",
        /// The second factor is wrong or expired.
        MfaRefused = "mfa_refused",
        /// The user has not yet confirmed the sign-in on another device.
        MfaPending = "mfa_pending",
        /// A second factor is required, but the account has none that is supported.
        MfaUnavailable = "mfa_unavailable",
        /// Too many failed sign-ins by this user or from this address.
        TooManyAttempts = "too_many_attempts",
        /// The upstream rejects the credentials stored by the identity provider for this user.
        SignInAgain = "sign_in_again",
        /// The token lacks a scope that the route requires.
        InsufficientScope = "insufficient_scope",
        /// A rule denies the request, or no rule of the route matches.
        RuleDenied = "rule_denied",
        /// The source has no credentials for this caller.
        NotEntitled = "not_entitled",
        /// `[login]`: no credentials for this token. The cause is only logged.
        LoginRefused = "login_refused",
        /// `[login]`: no issuer has this name.
        LoginUnknownProvider = "login_unknown_provider",
        /// `/bewit`: the URL does not belong to an upstream with `bewit = true`.
        BewitRefused = "bewit_refused",
        /// `[[forward_auth]]`: the proxy does not say what it asks about, or what it reports is not valid.
        ForwardAuthRequest = "forward_auth_request",
        /// The issuer's keys have never been fetched, or introspection is unavailable.
        KeysUnavailable = "keys_unavailable",
        /// This machine's clock is not set, so the token cannot be checked.
        ClockNotSet = "clock_not_set",
        /// The workload token's file cannot be read.
        WorkloadTokenUnavailable = "workload_token_unavailable",
        /// The exchange is unreachable.
        ExchangeUnavailable = "exchange_unavailable",
        /// The identity provider refuses hawkgate's own client, or what the configuration makes it ask for.
        ClientRefused = "client_refused",
        /// The exchange returned something other than a credential.
        ExchangeFailed = "exchange_failed",
        /// A header signed with this credential would exceed Taskcluster's limit.
        CredentialTooLarge = "credential_too_large",
        /// The upstream's name does not resolve, or the connection is refused.
        UpstreamUnreachable = "upstream_unreachable",
        /// The upstream did not respond in time.
        UpstreamTimeout = "upstream_timeout",
        /// The upstream closed the connection early or sent invalid HTTP.
        UpstreamFailed = "upstream_failed",
        /// The client exceeds `limits.rate` or the route's `rate`.
        RateLimited = "rate_limited",
        /// A limit of connections or of requests in flight is reached, in all or for one address.
        Overloaded = "overloaded",
        /// A bug in hawkgate.
        Internal = "internal",
    }
}

/// The `WWW-Authenticate` challenge (RFC 6750 §3).
pub(super) enum Challenge {
    /// No challenge.
    None,
    /// A challenge without an error code.
    Plain,
    /// A challenge with this `error`.
    Error(&'static str),
}

/// The parts of a response that depend on the reason.
pub(super) struct ResponseRow {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: &'static str,
    pub(super) challenge: Challenge,
}

const fn row(
    status: u16,
    code: &'static str,
    challenge: Challenge,
    message: &'static str,
) -> ResponseRow {
    ResponseRow {
        status,
        code,
        message,
        challenge,
    }
}

impl Reason {
    // One line per reason, so that it reads as a table.
    #[rustfmt::skip]
    pub(super) fn row(self) -> ResponseRow {
        use Challenge::{Error, None, Plain};
        const TOKEN: Challenge = Error("invalid_token");
        match self {
            Self::NoRoute => row(404, "NoRoute", None, "No route of this gateway matches this host, path and method."),
            Self::ReservedPath => row(404, "NoRoute", None, "Paths that begin with `/credentials` or `/bewit` are never forwarded, unless a route's `path` begins so."),
            Self::BadRequest => row(400, "InvalidRequest", None, "The request is ambiguous or not well-formed HTTP."),
            Self::PeerNotAllowed => row(403, "PeerNotAllowed", None, "This listener does not serve your address or user."),
            Self::HostNotAllowed => row(403, "HostNotAllowed", None, "This is served to programs on this machine, as localhost or a loopback address. Another name must be listed in `server.local_hosts`."),
            Self::CrossSite => row(403, "CrossSite", None, "A web page of another origin sent this request. Such requests are not accepted here."),
            Self::InsecureOrigin => row(403, "InsecureOrigin", None, "Sessions need https. Use the https address of this site; if a proxy in front of this gateway provides it, list the proxy in `trusted_proxies` and let it send X-Forwarded-Proto, or set `origin` of the session."),
            Self::SignInRequired => row(401, "AuthenticationFailed", Plain, "Sign in with a browser at the `login_url`."),
            Self::SignInFailed => row(400, "SignInFailed", None, "The sign-in could not be completed. Try again."),
            Self::SessionUnavailable => row(503, "ServiceUnavailable", None, "The session cannot be read or renewed at the moment. Try again later."),
            Self::LogoutTokenRefused => row(400, "InvalidRequest", None, "The logout token is not valid."),
            Self::MethodRefused => row(405, "MethodNotAllowed", None, "This method is not proxied."),
            Self::HeaderTooLarge => row(431, "HeaderTooLarge", None, "The request's header is larger than this gateway accepts."),
            Self::UrlTooLong => row(414, "UrlTooLong", None, "The request's URL is longer than this gateway accepts."),
            Self::HeaderTimeout => row(408, "RequestTimeout", None, "The request's header did not arrive in time."),
            Self::BodyTimeout => row(408, "RequestTimeout", None, "The request's body stalled, or arrived too slowly."),
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
            Self::MfaRequired => row(401, "AuthenticationFailed", Plain, "A second factor is required: send its code, or a recovery code, as `X-OTP` together with the password."),
            Self::MfaRefused => row(401, "AuthenticationFailed", Plain, "The second factor is wrong or has expired: sign in again with a new code as `X-OTP`."),
            Self::MfaPending => row(401, "AuthenticationFailed", Plain, "Confirm the sign-in on your other device, then send the request again with the same password."),
            Self::MfaUnavailable => row(403, "InsufficientScopes", None, "A second factor is required, but the account has none that is supported here: enrol one with the identity provider."),
            Self::TooManyAttempts => row(429, "TooManyRequests", None, "Too many failed sign-ins. Try again later."),
            Self::SignInAgain => row(401, "AuthenticationFailed", TOKEN, "The upstream no longer accepts the credentials that the identity provider holds for this user: sign in there again."),
            Self::InsufficientScope => row(403, "InsufficientScopes", Error("insufficient_scope"), "The token lacks a scope that is required here."),
            Self::RuleDenied => row(403, "InsufficientScopes", Error("insufficient_scope"), "The rules of this gateway do not allow this request."),
            Self::NotEntitled => row(403, "InsufficientScopes", Error("insufficient_scope"), "No upstream credentials are available for this token."),
            Self::LoginRefused => row(400, "InputError", None, "Could not generate credentials for this access token"),
            Self::LoginUnknownProvider => row(400, "InputError", None, "Unknown provider"),
            Self::BewitRefused => row(403, "BewitRefused", None, "This gateway does not sign this URL."),
            Self::ForwardAuthRequest => row(400, "InvalidRequest", None, "The proxy did not describe the original request as the `kind` of this [[forward_auth]] requires, each header exactly once, or reported a credential that is not known here: see docs/forward-auth.md."),
            Self::KeysUnavailable => row(503, "ServiceUnavailable", None, "The token's issuer cannot be reached to verify it. Try again later."),
            Self::ClockNotSet => row(503, "ServiceUnavailable", None, "This gateway's clock is wrong, so the token cannot be checked. Try again later."),
            Self::WorkloadTokenUnavailable => row(503, "ServiceUnavailable", None, "The workload's own token is not available. Try again later."),
            Self::ExchangeUnavailable => row(503, "ServiceUnavailable", None, "The credentials service cannot be reached. Try again later."),
            Self::ClientRefused => row(503, "ServiceUnavailable", None, "The identity provider refuses this gateway's own client, which is a mistake in the gateway's configuration. Tell the people who run it."),
            Self::ExchangeFailed => row(502, "BadGateway", None, "The credentials service did not return a usable response."),
            Self::CredentialTooLarge => row(502, "BadGateway", None, "The credentials have too many scopes to fit into a request header."),
            Self::UpstreamUnreachable => row(502, "BadGateway", None, "The upstream cannot be reached."),
            Self::UpstreamTimeout => row(504, "GatewayTimeout", None, "The upstream did not respond in time."),
            Self::UpstreamFailed => row(502, "BadGateway", None, "The upstream closed the connection early or sent invalid HTTP."),
            Self::RateLimited => row(429, "TooManyRequests", None, "Too many requests. Try again later."),
            Self::Overloaded => row(503, "ServiceUnavailable", None, "This gateway has reached a limit of connections or requests. Try again later."),
            Self::Internal => row(500, "InternalServerError", None, "An internal error occurred in this gateway."),
        }
    }

    /// The response status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The fixed message in the response.
    pub fn message(self) -> &'static str {
        self.row().message
    }
}
