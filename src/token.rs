//! Who calls: bearer tokens, the issuers they come from, and the proof that one is good.
//! Rules: `reference/identity.md` §A. No network client here: keys arrive through
//! [`KeyFetcher`].
//!
//! A token's way: [`PresentedToken`] (one header, capped) → [`authenticate`] (known already,
//! or whose is it?) → `jws` (taken apart, strictly) → `rules` for its header → `keys` and
//! `jwk` (the key, fetched if need be) → its signature → `rules` for its claims →
//! [`VerifiedToken`].

mod basic;
mod bearer;
mod cache;
mod error;
mod extensions;
mod id_token;
mod introspection;
mod issuer;
mod jwk;
mod jws;
mod keys;
mod pattern;
mod rules;
pub mod settings;
mod shared_secret;
mod signature;
mod signing_key;
mod strict_json;
#[cfg(test)]
pub(crate) mod testing;
mod verified;
mod workload;

pub use basic::{BasicCredentials, OTP};
pub use bearer::{BearerToken, MAX_TOKEN_BYTES, PresentedToken, TokenDigest};
pub use error::{TokenError, Unauthenticated};
pub use extensions::{ExtensionKey, Extensions};
pub use id_token::{Expected, IdTokenError, IdTokenVerifier, MAX_ID_TOKEN_BYTES};
pub use introspection::{Introspected, IntrospectionError, IntrospectionObserver, Introspector};
pub use issuer::{Authenticated, Issuer, IssuerStatus, WarmUp, authenticate, cached};
pub use jwk::MAX_DOCUMENT_BYTES as MAX_JWKS_BYTES;
pub use jws::{Inspected, inspect};
pub use keys::{FetchedKeys, KeyFetchError, KeyFetcher, KeyRefresh, RefreshObserver};
pub use shared_secret::{SharedSecretError, decode_shared_secret};
pub use signing_key::{SigningKey, SigningKeyError};
pub use verified::{Caller, VerifiedToken};
pub use workload::{WorkloadToken, WorkloadTokenError};
