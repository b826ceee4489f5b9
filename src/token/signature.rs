//! Signatures of a JWS (RFC 7515 §5), made and checked by `jsonwebtoken`.
//!
//! Only the cryptography is its part. What a token's header and claims must be is checked by
//! [`super::rules`], because `jsonwebtoken::decode` is more lenient (ARCHITECTURE.md,
//! "Decisions worth knowing").

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{DecodingKey, crypto};

use super::settings::Algorithm;

/// A key and the one algorithm that it checks signatures of. Cheap to clone.
#[derive(Clone)]
pub(super) struct Verifier {
    algorithm: Algorithm,
    key: Arc<DecodingKey>,
}

impl Verifier {
    /// `key` has been checked when it was loaded: `jsonwebtoken` would only find out at the
    /// first signature that it cannot be used.
    pub(super) fn new(algorithm: Algorithm, key: Arc<DecodingKey>) -> Self {
        Self { algorithm, key }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` (base64url) is one of `signing_input` (RFC 7515 §2) by this key.
    /// HMACs are compared in constant time.
    pub(super) fn verify(&self, signing_input: &[u8], signature: &str) -> bool {
        crypto::verify(
            signature,
            signing_input,
            &self.key,
            jsonwebtoken_algorithm(self.algorithm),
        )
        .unwrap_or(false)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({}, [redacted])", self.algorithm.name())
    }
}

/// `jsonwebtoken` knows Ed25519 by its older name only (RFC 9864 §2.2).
pub(super) fn jsonwebtoken_algorithm(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDSA | Algorithm::Ed25519 => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::HS384 => jsonwebtoken::Algorithm::HS384,
        Algorithm::HS512 => jsonwebtoken::Algorithm::HS512,
    }
}

#[cfg(test)]
mod wycheproof;
