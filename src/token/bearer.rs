//! The token as the caller sent it.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// The longest token accepted, in bytes (identity.md §A, "Shape").
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A keyed hash of a token: what caches are keyed by instead of the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub(crate) [u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

/// One bearer token, capped in length, header-safe, redacted in `Debug`. Cheap to clone.
#[derive(Clone)]
pub struct BearerToken {
    text: Arc<Zeroizing<String>>,
    digest: TokenDigest,
}

impl BearerToken {
    /// The token itself. Every use of this is a place to review.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Its keyed hash.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken([redacted])")
    }
}
