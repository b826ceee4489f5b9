//! The reasons for refusing a token. Each has a fixed message and a stable metric label.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::shape::Provider;

/// Why a token was refused. No variant contains any part of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `Authorization` has a scheme that the route does not use; treated as if it were absent.
    #[error("the Authorization header does not use the scheme that this route requires")]
    OtherScheme,
    /// `Authorization` is repeated or malformed.
    #[error("the Authorization header is malformed or was sent more than once")]
    InvalidAuthorization,
    /// Longer than `limits.token_bytes`, or than [`super::MAX_TOKEN_BYTES`].
    #[error("the token is too large: it is longer than limits.token_bytes allows")]
    TooLarge,
    /// Not a JWT at all, but a reference to something that only its issuer knows.
    #[error(
        "this is an opaque token, not a JWT: ask the identity provider for an audience, or use introspection"
    )]
    Opaque,
    /// Not a compact JWS of two JSON objects (RFC 7515 §7.1).
    #[error("the token is not a well-formed JWT")]
    Malformed,
    /// Five segments: a JWE (RFC 7516 §7.1).
    #[error(
        "the token is encrypted (a JWE), which often means that no audience was requested: ask the identity provider for a signed JWT"
    )]
    Encrypted,
    /// A JSON member is duplicated (RFC 7515 §4, RFC 7519 §4).
    #[error("the token's header or claims have a duplicate member")]
    DuplicateMember,
    /// The header has `crit` (RFC 7515 §4.1.11); hawkgate implements no extension.
    #[error("the token's header names critical extensions")]
    CriticalHeader,
    /// `alg` is not on the issuer's list.
    #[error("the token's algorithm is not accepted")]
    UnacceptableAlgorithm,
    /// `typ` is wrong for the issuer's profile.
    #[error("the token's typ is not that of this issuer's access tokens")]
    WrongType,
    /// The token looks like an ID token.
    #[error("the token is an ID token: send the access token instead")]
    IdToken,
    /// The token is marked as a refresh token.
    #[error("the token is a refresh token: send the access token instead")]
    RefreshToken,
    /// The token is marked as a logout token (OpenID Connect Back-Channel Logout 1.0 §2.4).
    #[error("the token is a logout token, which authenticates nobody: send an access token")]
    LogoutToken,
    /// The token lacks what distinguishes its issuer's access tokens from ID tokens.
    #[error("the token cannot be told from an ID token: {why}")]
    NotAccessToken {
        /// What is missing.
        why: &'static str,
    },
    /// `iss` is not an issuer that the route accepts.
    #[error("the token's issuer is not accepted here")]
    UnknownIssuer,
    /// There is no `kid`, and more than one key can be used with the algorithm.
    #[error("the token has no kid, and several of the issuer's keys could have signed it")]
    KeyIdMissing,
    /// The issuer has no such key.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// The key exists but is not meant for this algorithm or use, or is too weak.
    #[error("the issuer's key cannot be used with the token's algorithm: it {why}")]
    UnsuitableKey {
        /// Why.
        why: &'static str,
    },
    /// The signature does not verify.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// A required claim is missing, or a claim is malformed.
    #[error("the token's claim {name} is missing or malformed")]
    InvalidClaim {
        /// What the claim is for.
        role: ClaimRole,
        /// The claim's name, fixed or configured; never taken from the token.
        name: Cow<'static, str>,
    },
    /// Two claims, such as `client_id` and `azp`, name different clients.
    #[error("the token's claims name different clients (client_id, azp and the like)")]
    ClientMismatch,
    /// The token's audiences do not include a configured one.
    #[error("the token is for another audience")]
    WrongAudience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// This machine's clock is not set, so no time in a token can be checked; not the caller's fault.
    #[error("this machine's clock is wrong, so the token cannot be checked: set it")]
    ClockNotSet,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` is in the future.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// The client is not on the issuer's list.
    #[error("the token's client is not on the issuer's list")]
    ClientNotAllowed,
    /// The subject is not on the issuer's list.
    #[error("the token's subject is not on the issuer's list")]
    SubjectNotAllowed,
    /// The token is bound to a key (`cnf`) but was sent as a bearer token (RFC 9449 §7.2).
    #[error("the token is bound to a key")]
    Bound,
    /// The issuer's keys are unavailable; not the caller's fault.
    #[error("the issuer's keys are not available")]
    KeysUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The issuer reports that the token is not active: unknown, revoked or expired (RFC 7662
    /// §2.2).
    #[error("the issuer reports that the token is not active")]
    Inactive,
    /// The issuer cannot be reached for introspection; not the caller's fault.
    #[error("the token's issuer is unavailable for introspection")]
    IntrospectionUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The issuer refuses hawkgate's own client at its introspection endpoint; not the caller's fault.
    #[error(
        "the token's issuer refuses hawkgate's own client: check its client_id, client_secret and auth_method"
    )]
    ClientRefused {
        /// When to try again.
        retry_after: Duration,
    },
    /// The system's random number generator failed.
    #[error("an internal error occurred")]
    Internal,
}

/// What a claim is for, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ClaimRole {
    Issuer,
    Time,
    Client,
    Audience,
    Subject,
    Scopes,
    /// A claim of ID or logout tokens.
    Other,
}

impl TokenError {
    /// The claim with this standard name is missing or malformed.
    pub fn claim(name: &'static str) -> Self {
        let role = match name {
            "iss" => ClaimRole::Issuer,
            "exp" | "nbf" | "iat" => ClaimRole::Time,
            "client_id" | "azp" => ClaimRole::Client,
            "aud" => ClaimRole::Audience,
            "sub" => ClaimRole::Subject,
            "scope" | "permissions" => ClaimRole::Scopes,
            _ => ClaimRole::Other,
        };
        let name = Cow::Borrowed(name);
        Self::InvalidClaim { role, name }
    }

    /// The metric label, which equals the reason of the resulting rejection (`gateway::rejection`).
    pub const fn label(&self) -> &'static str {
        match self {
            Self::OtherScheme => "missing_token",
            Self::InvalidAuthorization => "invalid_authorization",
            Self::TooLarge
            | Self::Opaque
            | Self::Malformed
            | Self::Encrypted
            | Self::DuplicateMember
            | Self::CriticalHeader => "token_malformed",
            Self::UnacceptableAlgorithm => "token_algorithm",
            Self::WrongType
            | Self::IdToken
            | Self::RefreshToken
            | Self::LogoutToken
            | Self::NotAccessToken { .. } => "token_type",
            Self::UnknownIssuer => "token_issuer",
            Self::KeyIdMissing | Self::UnknownKey | Self::UnsuitableKey { .. } => "token_key",
            Self::BadSignature => "token_signature",
            Self::InvalidClaim { .. } | Self::ClientMismatch => "token_claims",
            Self::WrongAudience => "token_audience",
            Self::Expired => "token_expired",
            Self::ClockNotSet => "clock_not_set",
            Self::NotYetValid | Self::IssuedInFuture => "token_not_yet_valid",
            Self::ClientNotAllowed | Self::SubjectNotAllowed => "token_not_allowed",
            Self::Bound => "token_bound",
            Self::KeysUnavailable { .. } | Self::IntrospectionUnavailable { .. } => {
                "keys_unavailable"
            }
            Self::Inactive => "token_inactive",
            Self::ClientRefused { .. } => "client_refused",
            Self::Internal => "internal",
        }
    }
}

/// What to do about a refused token, judging by its unverified content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The token has the shape of this provider's access tokens, which another profile accepts.
    Profile(Provider),
    /// It is an ID token.
    SendAccessToken,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(provider) => {
                let profile = provider.profile().unwrap_or_default();
                let token = provider.token();
                write!(
                    f,
                    "this looks like {token}; `profile = \"{profile}\"` takes it"
                )
            }
            Self::SendAccessToken => {
                f.write_str("this looks like an ID token; send the access token instead")
            }
        }
    }
}

/// A refused token, and the issuer that refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unauthenticated {
    /// The configured name of the issuer that the token names; `None` if it names none of the
    /// route's issuers.
    pub issuer: Option<Arc<str>>,
    /// Why it was refused.
    pub error: TokenError,
    /// What to do about it, if its content says more than the error.
    pub advice: Option<Advice>,
}

impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.error, self.advice) {
            // By the rules of another profile it is none.
            (TokenError::IdToken, Some(advice @ Advice::Profile(_))) => {
                write!(f, "the token has claims of an ID token: {advice}")
            }
            (error, Some(advice)) => write!(f, "{error}: {advice}"),
            (error, None) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unauthenticated {}
