//! Who calls: bearer tokens, the issuers they come from, and the proof that one is good.
//! Rules: `reference/identity.md` §A. No network client here: keys arrive through
//! [`KeyFetcher`].

mod bearer;
mod error;
mod issuer;
mod keys;
mod verified;

pub use bearer::{BearerToken, MAX_TOKEN_BYTES, TokenDigest};
pub use error::TokenError;
pub use issuer::{Issuer, IssuerStatus, authenticate};
pub use keys::{FetchedKeys, KeyFetchError, KeyFetcher, KeyRefresh};
pub use verified::{Caller, VerifiedToken};
