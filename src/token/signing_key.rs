//! Private keys with which hawkgate signs client assertions (RFC 7523 §2.2).

use std::fmt;

use aws_lc_rs::signature::{
    self as sig, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};
use x509_parser::der_parser::asn1_rs::{FromDer, Integer, OctetString, Sequence};
use zeroize::Zeroizing;

use super::settings::Algorithm;
use super::signature::jsonwebtoken_algorithm;

/// A private key and the algorithm that it signs with. `Debug` shows only the algorithm.
///
/// `EncodingKey` wipes the key on drop, as well as the copies that `jsonwebtoken` makes while
/// signing. The key pairs that aws-lc parses from it are freed by aws-lc, beyond hawkgate's
/// control.
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
}

/// Why a key cannot be used. Messages do not quote the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// The text is not PEM, or contains no private key.
    #[error(
        "does not contain a PEM private key (PKCS#8, PKCS#1 or SEC 1; encrypted keys are not supported)"
    )]
    NoKey,
    /// The kind or size of the key is not supported.
    #[error("is not an RSA key of 2048 to 8192 bits or a P-256, P-384 or Ed25519 key")]
    Unsupported,
    /// The key cannot sign with the configured algorithm.
    #[error("cannot be used with {}", .0.name())]
    Mismatch(Algorithm),
    /// The system's random number generator, or the signature itself, failed.
    #[error("could not sign")]
    Failed,
}

impl SigningKey {
    /// Reads the first private key in `pem`: PKCS#8, PKCS#1 (RSA) or SEC 1 (EC). `algorithm`
    /// defaults to RS256, ES256, ES384 or EdDSA, depending on the key.
    ///
    /// # Errors
    /// If there is no such key, or it cannot be used with `algorithm`.
    pub fn from_pem(pem: &str, algorithm: Option<Algorithm>) -> Result<Self, SigningKeyError> {
        let der =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| SigningKeyError::NoKey)?;
        let der = Zeroizing::new(der);
        let (key, default) = encoding_key(&der).ok_or(SigningKeyError::Unsupported)?;
        let algorithm = algorithm.unwrap_or(default);
        if !suits(algorithm, default) {
            return Err(SigningKeyError::Mismatch(algorithm));
        }
        Ok(Self { key, algorithm })
    }

    /// The algorithm that the key signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// A compact JWS (RFC 7515 §7.1) of `claims`, with `typ: JWT` and, if given, `kid`.
    ///
    /// The header is serialized here rather than by `jsonwebtoken::encode`, whose `Header` cannot
    /// represent `alg: Ed25519` (RFC 9864 §2.2).
    ///
    /// # Errors
    /// Only [`SigningKeyError::Failed`].
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
        let signing_input = format!("{}.{}", encode(&header)?, encode(claims)?);
        let algorithm = jsonwebtoken_algorithm(self.algorithm);
        let signature = crypto::sign(signing_input.as_bytes(), &self.key, algorithm)
            .map_err(|_| SigningKeyError::Failed)?;
        Ok(format!("{signing_input}.{signature}"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, [redacted])", self.algorithm.name())
    }
}

/// The key, in the encoding that `jsonwebtoken` expects for its kind, and its default algorithm.
///
/// `EncodingKey` accepts any bytes and parses them for each signature. Parsing them here with
/// aws-lc ensures that an invalid key, or one of the wrong size, is refused when it is loaded.
fn encoding_key(der: &PrivateKeyDer<'_>) -> Option<(EncodingKey, Algorithm)> {
    let bytes = der.secret_der();
    if let Some(pkcs1) = pkcs1(der) {
        return Some((EncodingKey::from_rsa_der(&pkcs1), Algorithm::RS256));
    }
    let curves: [(&'static EcdsaSigningAlgorithm, Algorithm); 2] = [
        (&sig::ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256),
        (&sig::ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384),
    ];
    for (curve, algorithm) in curves {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, bytes) {
            // `jsonwebtoken` expects PKCS#8; this also converts SEC 1.
            let pkcs8 = pair.to_pkcs8v1().ok()?;
            return Some((EncodingKey::from_ec_der(pkcs8.as_ref()), algorithm));
        }
    }
    Ed25519KeyPair::from_pkcs8(bytes).ok()?;
    Some((EncodingKey::from_ed_der(bytes), Algorithm::EdDSA))
}

/// An RSA key in PKCS#1; `None` for other keys.
fn pkcs1(der: &PrivateKeyDer<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = der.secret_der();
    let pkcs1 = if let PrivateKeyDer::Pkcs1(_) = der {
        bytes.to_vec()
    } else {
        RsaKeyPair::from_pkcs8(bytes).ok()?;
        private_key_of_pkcs8(bytes)?
    };
    let pkcs1 = Zeroizing::new(pkcs1);
    RsaKeyPair::from_der(&pkcs1).ok().map(|_| pkcs1)
}

/// The `privateKey` of a PKCS#8 `PrivateKeyInfo` (RFC 5208 §5), which for RSA holds PKCS#1.
fn private_key_of_pkcs8(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let (_, info) = Sequence::from_der(pkcs8).ok()?;
    let (rest, _version) = Integer::from_der(&info.content).ok()?;
    let (rest, _algorithm) = Sequence::from_der(rest).ok()?;
    let (_, key) = OctetString::from_der(rest).ok()?;
    Some(key.as_ref().to_vec())
}

/// Whether a key with this default algorithm can sign with `algorithm`. RSA keys support all RSA
/// algorithms; Ed25519 has two names (RFC 9864 §2.2).
fn suits(algorithm: Algorithm, default: Algorithm) -> bool {
    let family = |algorithm| jsonwebtoken_algorithm(algorithm).family();
    match default {
        Algorithm::RS256 | Algorithm::EdDSA => family(algorithm) == family(default),
        _ => algorithm == default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
    use aws_lc_rs::signature::KeyPair as _;
    use jsonwebtoken::{Algorithm as Jwa, DecodingKey, Validation};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use serde_json::json;

    fn claims() -> Map<String, Value> {
        json!({ "sub": "me" }).as_object().unwrap().clone()
    }

    /// Whether `jsonwebtoken` verifies a signature made by `key`.
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
    fn each_kind_of_key_produces_verifiable_signatures() {
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

    fn pem(label: &str, der: &[u8]) -> String {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn an_rsa_key_in_pkcs8_or_pkcs1_signs_with_either_padding() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pkcs1 = private_key_of_pkcs8(pkcs8.as_ref()).unwrap();
        let numbers: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
        let public = DecodingKey::from_rsa_raw_components(&numbers.n, &numbers.e);
        for pem in [
            pem("PRIVATE KEY", pkcs8.as_ref()),
            pem("RSA PRIVATE KEY", &pkcs1),
        ] {
            for (configured, jwa) in [
                (None, Jwa::RS256),
                (Some(Algorithm::PS256), Jwa::PS256),
                (Some(Algorithm::PS384), Jwa::PS384),
                (Some(Algorithm::RS512), Jwa::RS512),
            ] {
                let key = SigningKey::from_pem(&pem, configured).unwrap();
                assert!(verified(&key, jwa, &public), "{jwa:?}");
            }
            for other in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256] {
                let mismatch = SigningKey::from_pem(&pem, Some(other));
                assert_eq!(mismatch.err(), Some(SigningKeyError::Mismatch(other)));
            }
        }
    }

    #[test]
    fn an_ec_key_in_sec1_signs() {
        for (curve, algorithm, jwa) in [
            (
                &sig::ECDSA_P256_SHA256_FIXED_SIGNING,
                Algorithm::ES256,
                Jwa::ES256,
            ),
            (
                &sig::ECDSA_P384_SHA384_FIXED_SIGNING,
                Algorithm::ES384,
                Jwa::ES384,
            ),
        ] {
            let pair = EcdsaKeyPair::generate(curve).unwrap();
            let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
            // As written by `openssl ecparam -genkey`.
            let parameters = pem("EC PARAMETERS", &[6, 1, 0]);
            let pem = parameters + &pem("EC PRIVATE KEY", sec1.as_ref());
            let key = SigningKey::from_pem(&pem, None).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let public = DecodingKey::from_ec_der(pair.public_key().as_ref());
            assert!(verified(&key, jwa, &public));
            for other in [Algorithm::RS256, Algorithm::EdDSA] {
                let mismatch = SigningKey::from_pem(&pem, Some(other));
                assert_eq!(mismatch.err(), Some(SigningKeyError::Mismatch(other)));
            }
        }
    }

    #[test]
    fn the_header_has_the_configured_name_of_ed25519() {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let public = DecodingKey::from_ed_pem(pair.public_key_pem().as_bytes()).unwrap();
        let key = SigningKey::from_pem(&pair.serialize_pem(), Some(Algorithm::Ed25519)).unwrap();
        let token = key.sign(None, &claims()).unwrap();
        let (signing_input, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signing_input.split_once('.').unwrap();
        let header: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        assert_eq!(header, json!({ "alg": "Ed25519", "typ": "JWT" }));
        let valid = crypto::verify(signature, signing_input.as_bytes(), &public, Jwa::EdDSA);
        assert!(valid.unwrap());
    }

    #[test]
    fn a_key_with_an_unsupported_curve_or_the_wrong_public_key_is_refused() {
        let p521 = EcdsaKeyPair::generate(&sig::ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        let p521 = p521.to_pkcs8v1().unwrap();
        let ed25519 = |pair: &Ed25519KeyPair| pair.to_pkcs8().unwrap().as_ref().to_vec();
        let mut swapped = ed25519(&Ed25519KeyPair::generate().unwrap());
        let other = ed25519(&Ed25519KeyPair::generate().unwrap());
        let public = swapped.len() - 32;
        swapped[public..].copy_from_slice(&other[public..]);
        for der in [p521.as_ref(), &swapped] {
            let refused = SigningKey::from_pem(&pem("PRIVATE KEY", der), None);
            assert_eq!(refused.err(), Some(SigningKeyError::Unsupported));
        }
    }

    #[test]
    fn text_without_a_private_key_is_refused_and_not_quoted() {
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
