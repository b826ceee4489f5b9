//! Verification of JWS signatures (RFC 7515 §5.2) by `jsonwebtoken`.
//!
//! `jsonwebtoken` is used only for the cryptography. Headers and claims are validated by
//! [`super::rules`], because `jsonwebtoken::decode` is too lenient (ARCHITECTURE.md, "Tokens and
//! credentials").

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{DecodingKey, crypto};

use super::settings::Algorithm;

/// Verifies signatures of one algorithm with one key. Cheap to clone.
#[derive(Clone)]
pub(super) struct Verifier {
    algorithm: Algorithm,
    key: Arc<DecodingKey>,
}

impl Verifier {
    /// `key` must have been validated: `jsonwebtoken` does not detect a malformed key until the
    /// first verification.
    pub(super) fn new(algorithm: Algorithm, key: Arc<DecodingKey>) -> Self {
        Self { algorithm, key }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` (base64url) is valid for `signing_input` (RFC 7515 §2). HMACs are
    /// compared in constant time.
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

/// `jsonwebtoken` supports Ed25519 only under its older name, EdDSA (RFC 9864 §2.2).
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
