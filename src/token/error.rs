//! The reasons for refusing a token. Each has a fixed message and a stable metric label.

use std::sync::Arc;
use std::time::Duration;

/// Why a token was refused. No variant contains any part of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `Authorization` has a scheme that the route does not use; treated as if it were absent.
    #[error("the Authorization header does not use the scheme that this route requires")]
    OtherScheme,
    /// `Authorization` is repeated or malformed.
    #[error("the Authorization header is malformed or was sent more than once")]
    InvalidAuthorization,
    /// Longer than [`super::MAX_TOKEN_BYTES`].
    #[error("the token is longer than 8 KiB")]
    TooLarge,
    /// Not a compact JWS of two JSON objects (RFC 7515 §7.1).
    #[error("the token is not a well-formed JWT")]
    Malformed,
    /// Five segments: a JWE (RFC 7516 §7.1).
    #[error("the token is encrypted")]
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
    #[error("the token is an ID token")]
    IdToken,
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
    #[error("the issuer's key cannot be used with the token's algorithm")]
    UnsuitableKey,
    /// The signature does not verify.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// A required claim is missing, or a claim is malformed.
    #[error("the token's claim {name} is missing or malformed")]
    InvalidClaim {
        /// The claim's name; never taken from the token.
        name: &'static str,
    },
    /// `client_id` and `azp` name different clients.
    #[error("the token's client_id and azp differ")]
    ClientMismatch,
    /// `aud` contains no configured audience.
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

impl TokenError {
    /// The metric label, which equals the reason of the resulting rejection (`gateway::rejection`).
    pub const fn label(&self) -> &'static str {
        match self {
            Self::OtherScheme => "missing_token",
            Self::InvalidAuthorization => "invalid_authorization",
            Self::TooLarge
            | Self::Malformed
            | Self::Encrypted
            | Self::DuplicateMember
            | Self::CriticalHeader => "token_malformed",
            Self::UnacceptableAlgorithm => "token_algorithm",
            Self::WrongType | Self::IdToken => "token_type",
            Self::UnknownIssuer => "token_issuer",
            Self::KeyIdMissing | Self::UnknownKey | Self::UnsuitableKey => "token_key",
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

/// A refused token, and the issuer that refused it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Unauthenticated {
    /// The configured name of the issuer that the token names; `None` if it names none of the
    /// route's issuers.
    pub issuer: Option<Arc<str>>,
    /// Why it was refused.
    pub error: TokenError,
}
