//! Authentication of callers: bearer tokens, their issuers, and verification according to
//! `docs/design/tokens.md`. There is no network client here; keys are fetched through
//! [`KeyFetcher`].
//!
//! A token passes through [`TokenMemo`] (is it the one that the connection presented last?),
//! [`PresentedToken`] (one header field of limited length), [`authenticate`] (look it up in the cache,
//! or choose its issuer), `jws` (strict parsing), `rules` (header),
//! `keys` and `jwk` (find the key, fetching it if necessary), `signature`, and `rules` again
//! (claims). The result is a [`VerifiedToken`].

mod basic;
mod bearer;
mod cache;
mod error;
mod extensions;
#[cfg(fuzzing)]
pub mod fuzzing;
mod id_token;
mod introspection;
mod issuer;
mod jwk;
mod jws;
mod keys;
mod logout_token;
mod memo;
mod numeric_date;
mod rules;
pub mod settings;
mod shape;
mod shared_secret;
mod signature;
mod signing_key;
mod strict_json;
mod subject_pattern;
#[cfg(test)]
pub(crate) mod testing;
mod token_use;
mod verified;
mod workload;

pub use basic::{BasicCredentials, OTP};
pub use bearer::{BearerToken, DEFAULT_TOKEN_BYTES, MAX_TOKEN_BYTES, PresentedToken, TokenDigest};
pub use error::{Advice, ClaimRole, TokenError, Unauthenticated};
pub use extensions::{ExtensionKey, Extensions};
pub use id_token::{Expected, IdTokenClaims, IdTokenError, IdTokenVerifier, MAX_ID_TOKEN_BYTES};
pub use introspection::{
    IntrospectionError, IntrospectionFault, IntrospectionObserver, IntrospectionResult,
    Introspector,
};
pub use issuer::{Authenticated, Issuer, IssuerStatus, WarmUp, authenticate};
pub use jwk::{MAX_DOCUMENT_BYTES as MAX_JWKS_BYTES, check_key_set};
pub use jws::{UnverifiedToken, inspect, inspect_header, inspect_text};
pub use keys::{FetchedKeys, KeyFetchError, KeyFetcher, KeyRefresh, RefreshObserver};
pub use logout_token::{
    LogoutTokenClaims, LogoutTokenError, LogoutTokenVerifier, MAX_LOGOUT_TOKEN_BYTES,
};
pub use memo::TokenMemo;
pub use numeric_date::{Rounding, numeric_date};
pub use shape::{Provider, recognise};
pub use shared_secret::{SharedSecretError, decode_shared_secret};
pub use signing_key::{SigningKey, SigningKeyError};
pub use verified::{Caller, SignedInClient, VerifiedToken};
pub use workload::{WorkloadToken, WorkloadTokenError};
