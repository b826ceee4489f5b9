//! Why a token does not pass. Each variant has a fixed text and a stable label.

use std::sync::Arc;
use std::time::Duration;

/// Why a token was not accepted: one variant for each cause. None carries anything of
/// the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `Authorization` has another scheme than the one asked for: as good as nothing.
    #[error("the Authorization header has another scheme than this route asks for")]
    OtherScheme,
    /// A second `Authorization` header, or one that is not `Bearer <b64token>`.
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
    /// A JSON member was sent twice (RFC 7515 §4, RFC 7519 §4).
    #[error("a member of the token's header or claims is there twice")]
    DuplicateMember,
    /// The header has `crit` (RFC 7515 §4.1.11): no extension is understood here.
    #[error("the token's header names critical extensions")]
    CriticalHeader,
    /// `alg` is not one of the issuer's.
    #[error("the token's algorithm is not accepted")]
    UnacceptableAlgorithm,
    /// `typ` does not suit the issuer's profile.
    #[error("the token's typ is not that of an access token of this issuer")]
    WrongType,
    /// It looks like an ID token.
    #[error("the token is an ID token")]
    IdToken,
    /// `iss` is none of the issuers that the route names.
    #[error("the token's issuer is not accepted here")]
    UnknownIssuer,
    /// No `kid`, and not exactly one key fits.
    #[error("the token names no key, and several would fit")]
    KeyIdMissing,
    /// The issuer has no such key.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// The key is there but not for this algorithm or this use, or too weak.
    #[error("the issuer's key does not suit the token's algorithm")]
    UnsuitableKey,
    /// The signature does not verify.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// A required claim is missing, or a claim is not what it must be.
    #[error("the token's claim {name} is missing or malformed")]
    InvalidClaim {
        /// The claim's name, from our own list.
        name: &'static str,
    },
    /// `client_id` and `azp` name different clients.
    #[error("the token's client_id and azp differ")]
    ClientMismatch,
    /// No configured audience is among `aud`.
    #[error("the token is for another audience")]
    WrongAudience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` has not come yet.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// The client is not on the issuer's list.
    #[error("the token's client is not on the issuer's list")]
    ClientNotAllowed,
    /// The subject is not on the issuer's list.
    #[error("the token's subject is not on the issuer's list")]
    SubjectNotAllowed,
    /// `cnf` is there: bound to a key, yet sent as a plain bearer (RFC 9449 §7.2).
    #[error("the token is bound to a key")]
    Bound,
    /// There are no keys of the issuer to verify with: not the caller's fault.
    #[error("the issuer's keys are not available")]
    KeysUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// Its issuer says that it is not active (RFC 7662 §2.2): unknown, revoked or expired.
    #[error("the token's issuer says that it is not active")]
    Inactive,
    /// The issuer cannot be asked about it: not the caller's fault.
    #[error("the issuer cannot be asked about the token")]
    IntrospectionUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// No randomness to be had from the system.
    #[error("an internal error")]
    Internal,
}

impl TokenError {
    /// The label for metrics: that of the refusal that it becomes (`gateway::rejection`).
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
            Self::NotYetValid | Self::IssuedInFuture => "token_not_yet_valid",
            Self::ClientNotAllowed | Self::SubjectNotAllowed => "token_not_allowed",
            Self::Bound => "token_bound",
            Self::KeysUnavailable { .. } | Self::IntrospectionUnavailable { .. } => {
                "keys_unavailable"
            }
            Self::Inactive => "token_inactive",
            Self::Internal => "internal",
        }
    }
}

/// A token that was not accepted, and which issuer judged it if one did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Unauthenticated {
    /// The configured name of the issuer whose token it claims to be.
    pub issuer: Option<Arc<str>>,
    /// Why not.
    pub error: TokenError,
}
