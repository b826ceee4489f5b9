//! Private keys with which hawkgate signs JWTs of its own (RFC 7523 client assertions).

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self as sig, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};

use crate::token::settings::Algorithm;

/// A private key and the algorithm that it signs with. `Debug` shows the algorithm only.
pub struct SigningKey {
    pair: Pair,
    algorithm: Algorithm,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// Why a key cannot be used. Says nothing of the key's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// Not PEM, or no private key in it.
    #[error(
        "holds no PEM private key (PKCS#8, PKCS#1 or SEC 1; keys under a passphrase are not read)"
    )]
    NoKey,
    /// A key of a kind or size that is not supported.
    #[error("is no RSA key of 2048 to 8192 bits, P-256, P-384 or Ed25519 key")]
    Unsupported,
    /// The key cannot sign by the algorithm asked for.
    #[error("is not of the kind that {} signs with", .0.name())]
    Mismatch(Algorithm),
    /// The system's randomness, or the signature itself, failed.
    #[error("could not sign")]
    Failed,
}

impl SigningKey {
    /// Reads one private key in PEM: PKCS#8, PKCS#1 (RSA) or SEC 1 (EC). It signs by
    /// `algorithm`, which defaults to RS256, ES256, ES384 or EdDSA by the key's kind.
    ///
    /// # Errors
    /// When there is no such key, or it does not suit `algorithm`.
    pub fn from_pem(pem: &str, algorithm: Option<Algorithm>) -> Result<Self, SigningKeyError> {
        let der =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| SigningKeyError::NoKey)?;
        let (pair, usual) = Pair::read(&der).ok_or(SigningKeyError::Unsupported)?;
        let algorithm = algorithm.unwrap_or(usual);
        if !pair.suits(algorithm, usual) {
            return Err(SigningKeyError::Mismatch(algorithm));
        }
        Ok(Self { pair, algorithm })
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// A compact JWS (RFC 7515 §7.1) of `claims`, with `typ: JWT` and, if given, `kid`.
    ///
    /// # Errors
    /// [`SigningKeyError::Failed`] only.
    pub fn sign(
        &self,
        key_id: Option<&str>,
        claims: &Map<String, Value>,
    ) -> Result<String, SigningKeyError> {
        let mut header = Map::new();
        header.insert("alg".into(), self.algorithm.name().into());
        header.insert("typ".into(), "JWT".into());
        if let Some(kid) = key_id {
            header.insert("kid".into(), kid.into());
        }
        let encode = |members: &Map<String, Value>| {
            serde_json::to_vec(members)
                .map(|json| URL_SAFE_NO_PAD.encode(json))
                .map_err(|_| SigningKeyError::Failed)
        };
        let input = format!("{}.{}", encode(&header)?, encode(claims)?);
        let signature = self
            .signature(input.as_bytes())
            .ok_or(SigningKeyError::Failed)?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, input: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding = rsa_padding(self.algorithm)?;
                pair.sign(padding, &random, input, &mut signature).ok()?;
                Some(signature)
            }
            Pair::Ec(pair) => Some(pair.sign(&random, input).ok()?.as_ref().to_vec()),
            Pair::Ed(pair) => Some(pair.sign(input).as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, [redacted])", self.algorithm.name())
    }
}

impl Pair {
    /// The pair, and the algorithm that goes with it.
    fn read(der: &PrivateKeyDer<'_>) -> Option<(Self, Algorithm)> {
        let bytes = der.secret_der();
        let rsa = match der {
            PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes),
            _ => RsaKeyPair::from_pkcs8(bytes),
        };
        if let Ok(pair) = rsa {
            return Some((Self::Rsa(Box::new(pair)), Algorithm::RS256));
        }
        let curves: [(&'static EcdsaSigningAlgorithm, Algorithm); 2] = [
            (&sig::ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256),
            (&sig::ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384),
        ];
        for (curve, algorithm) in curves {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, bytes) {
                return Some((Self::Ec(pair), algorithm));
            }
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).ok()?;
        Some((Self::Ed(pair), Algorithm::EdDSA))
    }

    /// `usual` is the only one for a key that is not RSA; EdDSA has two names (RFC 9864).
    fn suits(&self, algorithm: Algorithm, usual: Algorithm) -> bool {
        match self {
            Self::Rsa(_) => rsa_padding(algorithm).is_some(),
            Self::Ec(_) => algorithm == usual,
            Self::Ed(_) => matches!(algorithm, Algorithm::EdDSA | Algorithm::Ed25519),
        }
    }
}

fn rsa_padding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::RS256 => &sig::RSA_PKCS1_SHA256,
        Algorithm::RS384 => &sig::RSA_PKCS1_SHA384,
        Algorithm::RS512 => &sig::RSA_PKCS1_SHA512,
        Algorithm::PS256 => &sig::RSA_PSS_SHA256,
        Algorithm::PS384 => &sig::RSA_PSS_SHA384,
        Algorithm::PS512 => &sig::RSA_PSS_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{Algorithm as Jwa, DecodingKey, Validation};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use serde_json::json;

    fn claims() -> Map<String, Value> {
        json!({ "sub": "me" }).as_object().unwrap().clone()
    }

    /// Another implementation's judgement of what `key` signs.
    fn verified(key: &SigningKey, alg: Jwa, public: &DecodingKey) -> bool {
        let token = key.sign(Some("k1"), &claims()).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(
            (header.alg, header.kid.as_deref(), header.typ.as_deref()),
            (alg, Some("k1"), Some("JWT"))
        );
        let mut rules = Validation::new(alg);
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        let read = jsonwebtoken::decode::<Value>(&token, public, &rules);
        read.is_ok_and(|read| read.claims == json!({ "sub": "me" }))
    }

    #[test]
    fn each_kind_of_key_signs_what_others_verify() {
        for (kind, algorithm, jwa) in [
            (&PKCS_ECDSA_P256_SHA256, Algorithm::ES256, Jwa::ES256),
            (&PKCS_ECDSA_P384_SHA384, Algorithm::ES384, Jwa::ES384),
            (&PKCS_ED25519, Algorithm::EdDSA, Jwa::EdDSA),
        ] {
            let pair = KeyPair::generate_for(kind).unwrap();
            let key = SigningKey::from_pem(&pair.serialize_pem(), None).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let pem = pair.public_key_pem();
            let public = match jwa {
                Jwa::EdDSA => DecodingKey::from_ed_pem(pem.as_bytes()),
                _ => DecodingKey::from_ec_pem(pem.as_bytes()),
            };
            assert!(verified(&key, jwa, &public.unwrap()));
        }
    }

    #[test]
    fn an_rsa_key_signs_by_either_padding() {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
        use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
        use aws_lc_rs::signature::KeyPair as _;
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let numbers: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
        let public = DecodingKey::from_rsa_raw_components(&numbers.n, &numbers.e);
        for (wanted, jwa) in [
            (None, Jwa::RS256),
            (Some(Algorithm::PS256), Jwa::PS256),
            (Some(Algorithm::RS512), Jwa::RS512),
        ] {
            let key = SigningKey::from_pem(&pem, wanted).unwrap();
            assert!(verified(&key, jwa, &public), "{jwa:?}");
        }
        let wrong = SigningKey::from_pem(&pem, Some(Algorithm::ES256));
        assert_eq!(
            wrong.err(),
            Some(SigningKeyError::Mismatch(Algorithm::ES256))
        );
    }

    #[test]
    fn refuses_what_is_no_private_key_and_shows_nothing_of_it() {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let junk = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (pem, expected) in [
            ("hunter2", SigningKeyError::NoKey),
            (&*pair.public_key_pem(), SigningKeyError::NoKey),
            (junk, SigningKeyError::Unsupported),
        ] {
            assert_eq!(SigningKey::from_pem(pem, None).err(), Some(expected));
            assert!(!expected.to_string().contains("hunter2"));
        }
        let key = SigningKey::from_pem(&pair.serialize_pem(), None).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey(ES256, [redacted])");
    }
}
