//! JWK Sets (RFC 7517): which of an issuer's keys verify which algorithms. Keys of an unknown kind,
//! for another use or too weak cannot verify anything; only their `kid` is stored, so that a token
//! that names one is refused with the right error.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self as sig, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::TokenError;
use super::settings::Algorithm;
use super::signature::Verifier;

/// Maximum size of a JWK Set, in bytes (`docs/design/tokens.md`, "Keys").
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// Maximum number of keys in a JWK Set; a larger set is refused as a whole.
const MAX_KEYS: usize = 100;

/// Maximum number of keys with the same `kid` that are tried; RFC 7517 §4.5 recommends distinct
/// `kid`s.
const MAX_SAME_KID: usize = 4;

/// Maximum length of a `kid`, in bytes.
pub(super) const MAX_KID_BYTES: usize = 512;

/// Accepted sizes of RSA moduli, in bits (RFC 7518 §3.3; the upper bound limits the cost of
/// verification).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// An issuer's keys.
#[derive(Debug, Default, PartialEq)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// Why a document cannot be used as a JWK Set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the JWK Set {0}")]
pub(super) struct KeySetError(&'static str);

/// Why no key was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeySelectionError {
    /// There is no key with this `kid` or, if there is no `kid`, no key for the algorithm.
    Missing,
    /// There is no `kid`, and there are several keys for the algorithm.
    Ambiguous,
    /// The key with this `kid` cannot be used with this algorithm, for this reason.
    Unsuitable(&'static str),
}

impl From<KeySelectionError> for TokenError {
    fn from(error: KeySelectionError) -> Self {
        match error {
            KeySelectionError::Missing => Self::UnknownKey,
            KeySelectionError::Ambiguous => Self::KeyIdMissing,
            KeySelectionError::Unsuitable(why) => Self::UnsuitableKey { why },
        }
    }
}

/// Checks that `document` is a JWK Set with at least one key for `algorithms`.
///
/// # Errors
/// If it is not, with the reason for each key. Quotes nothing but `kid`s.
pub fn check_key_set(document: &[u8], algorithms: &[Algorithm]) -> Result<(), String> {
    let set = KeySet::parse(document, algorithms).map_err(|error| error.to_string())?;
    if !set.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the JWK Set {}",
        no_usable_key(document, algorithms)
    ))
}

/// Why no key of a JWK Set without usable keys can be used, after "the JWK Set". Quotes nothing but
/// `kid`s.
pub(super) fn no_usable_key(document: &[u8], algorithms: &[Algorithm]) -> String {
    let reasons = unusable_keys(document, algorithms, Purpose::Any);
    match reasons.as_str() {
        "" => "has no keys".into(),
        reasons => format!("has no usable key: {reasons}"),
    }
}

/// Which of a JWK Set's keys cannot be used, and why; empty if there are none. Keys for encryption are
/// left out: nobody expects them to verify signatures.
pub(super) fn unusable_for_signatures(document: &[u8], algorithms: &[Algorithm]) -> String {
    unusable_keys(document, algorithms, Purpose::Signatures)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Any,
    Signatures,
}

fn unusable_keys(document: &[u8], algorithms: &[Algorithm], purpose: Purpose) -> String {
    let keys = KeySet::members(document).unwrap_or_default();
    let mut unusable = keys.iter().enumerate().filter_map(|(index, jwk)| {
        let is_expected = purpose == Purpose::Any || jwk.get("use").is_none_or(|u| u != "enc");
        let why = match jwk.as_object() {
            Some(jwk) => why_unusable(jwk, algorithms),
            None => Some("is not a JSON object"),
        };
        let why = why.filter(|_| is_expected)?;
        let name = match jwk.get("kid").and_then(Value::as_str) {
            Some(kid) => format!("{:?}", kid.chars().take(64).collect::<String>()),
            None => format!("number {}", index + 1),
        };
        Some(format!("key {name} {why}"))
    });
    let mut reasons: Vec<_> = unusable.by_ref().take(MAX_REASONS).collect();
    if unusable.next().is_some() {
        reasons.push("and so on".into());
    }
    reasons.join("; ")
}

/// Maximum number of keys for which a reason is given.
const MAX_REASONS: usize = 8;

/// Why a key cannot verify any of `algorithms`, after its name; `None` if it can.
fn why_unusable(jwk: &Map<String, Value>, algorithms: &[Algorithm]) -> Option<&'static str> {
    if let Err(why) = check_purpose(jwk) {
        return Some(why);
    }
    if key_id(jwk).is_err() {
        return Some("has a kid that is not a string of at most 512 bytes");
    }
    match Material::parse(jwk) {
        Material::Unusable => Some(match member(jwk, "kty") {
            Some(Value::String(kty)) if kty == "oct" => {
                "is symmetric: its secret is published, so it proves nothing"
            }
            _ => "has a kty, crv or parameters that are not supported, or is too weak",
        }),
        material if material.decoding_key().is_none() => Some("has invalid parameters"),
        material if !algorithms.iter().any(|a| material.suits(*a)) => {
            Some("is of a kind that none of the issuer's algorithms uses")
        }
        material => {
            let mut suiting = algorithms.iter().filter(|a| material.suits(**a));
            let fits = suiting.any(|a| is_for_algorithm(jwk, *a));
            (!fits).then_some("has an alg that is not among the issuer's algorithms")
        }
    }
}

impl KeySet {
    fn members(document: &[u8]) -> Result<Vec<Value>, KeySetError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(KeySetError("is larger than 256 KiB"));
        }
        let Document { keys } = serde_json::from_slice(document)
            .map_err(|_| KeySetError("is not a JSON object with a list \"keys\""))?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError("has more than 100 keys"));
        }
        Ok(keys)
    }

    /// Parses a JWK Set and prepares its keys for `algorithms`.
    ///
    /// # Errors
    /// If the document is too large, is not a JWK Set or has too many keys; never because of a
    /// single key.
    pub(super) fn parse(document: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeySetError> {
        let keys = Self::members(document)?;
        let mut set = Self::default();
        for jwk in keys.iter().filter_map(Value::as_object) {
            if let Some(key) = Key::parse(jwk, algorithms)
                && !set.keys.contains(&key)
            {
                set.keys.push(key);
            }
        }
        set.keys
            .sort_by(|a, b| (&a.kid, &a.material).cmp(&(&b.kid, &b.material)));
        Ok(set)
    }

    /// Whether none of the keys can verify anything.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.iter().all(|key| key.verifiers.is_empty())
    }

    /// The key named `kid` or, if `kid` is `None`, the only key for `algorithm`. Returns more than
    /// one only if the issuer uses the same `kid` for several keys.
    pub(super) fn select(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Vec<Verifier>, KeySelectionError> {
        let named = self
            .keys
            .iter()
            .filter(|key| kid.is_none() || key.kid.as_deref() == kid);
        let Some(first) = named.clone().next() else {
            return Err(KeySelectionError::Missing);
        };
        let mut suitable: Vec<_> = named.filter_map(|key| key.verifier(algorithm)).collect();
        match (suitable.len(), kid) {
            (0, None) => Err(KeySelectionError::Missing),
            (0, Some(_)) => Err(KeySelectionError::Unsuitable(first.why_unsuitable())),
            (2.., None) => Err(KeySelectionError::Ambiguous),
            _ => {
                suitable.truncate(MAX_SAME_KID);
                Ok(suitable)
            }
        }
    }
}

/// The decoded public parameters of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256([u8; 65]),
    P384([u8; 97]),
    Ed25519([u8; 32]),
    Unusable,
}

struct Key {
    kid: Option<Box<str>>,
    material: Material,
    verifiers: Vec<Verifier>,
    /// Why there are no verifiers.
    unusable: Option<&'static str>,
}

/// Keys are equal if they verify the same signatures: they have the same `kid`, parameters and
/// algorithms.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let algorithms = |key: &'_ Self| {
            let verifiers = key.verifiers.iter();
            verifiers.map(Verifier::algorithm).collect::<Vec<_>>()
        };
        self.kid == other.kid
            && self.material == other.material
            && algorithms(self) == algorithms(other)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// `None` for a key that has no `kid` and cannot be used.
    fn parse(jwk: &Map<String, Value>, algorithms: &[Algorithm]) -> Option<Self> {
        let kid = key_id(jwk).ok()?;
        let material = if check_purpose(jwk).is_ok() {
            Material::parse(jwk)
        } else {
            Material::Unusable
        };
        let mut verifiers = Vec::new();
        if let Some(key) = material.decoding_key().map(Arc::new) {
            let suiting = algorithms.iter().copied().filter(|algorithm| {
                is_for_algorithm(jwk, *algorithm) && material.suits(*algorithm)
            });
            verifiers.extend(suiting.map(|algorithm| Verifier::new(algorithm, Arc::clone(&key))));
        }
        let unusable = if verifiers.is_empty() {
            why_unusable(jwk, algorithms)
        } else {
            None
        };
        (kid.is_some() || !verifiers.is_empty()).then_some(Self {
            kid,
            material,
            verifiers,
            unusable,
        })
    }

    /// Why the key cannot be used with an algorithm for which it has no verifier.
    fn why_unsuitable(&self) -> &'static str {
        self.unusable.unwrap_or("is for another algorithm")
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<Verifier> {
        let mut verifiers = self.verifiers.iter();
        verifiers.find(|v| v.algorithm() == algorithm).cloned()
    }
}

/// A member of a JWK. Some issuers write null where they mean that there is none.
fn member<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    jwk.get(name).filter(|value| !value.is_null())
}

/// The key's `kid`, if it has one.
fn key_id(jwk: &Map<String, Value>) -> Result<Option<Box<str>>, ()> {
    match member(jwk, "kid") {
        None => Ok(None),
        Some(Value::String(kid)) if kid.len() <= MAX_KID_BYTES => Ok(Some(kid.as_str().into())),
        Some(_) => Err(()),
    }
}

/// Values of `use` of keys that verify the signatures of tokens: the registered one (RFC 7517 §4.2),
/// and that of SPIFFE's trust bundles (SPIFFE Trust Domain and Bundle §4.2.2).
const USES: [&str; 2] = ["sig", "jwt-svid"];

/// Whether `use` and `key_ops` (RFC 7517 §4.2, §4.3) allow verification and the key is public: a
/// signature by a published private key proves nothing. Otherwise why not, after its name.
fn check_purpose(jwk: &Map<String, Value>) -> Result<(), &'static str> {
    let verifies = |ops: &Value| {
        ops.as_array()
            .is_some_and(|ops| ops.iter().any(|op| op == "verify"))
    };
    if member(jwk, "d").is_some() {
        return Err("is a private key");
    }
    match member(jwk, "use").map(Value::as_str) {
        Some(used) if !used.is_some_and(|used| USES.contains(&used)) => {
            return Err("is not for verifying signatures, according to its use");
        }
        _ => {}
    }
    if member(jwk, "key_ops").is_some_and(|ops| !verifies(ops)) {
        return Err("is not for verifying signatures, according to its key_ops");
    }
    Ok(())
}

/// Whether the JWK's `alg` (RFC 7517 §4.4) allows `algorithm`. `EdDSA` and `Ed25519` are
/// treated as names of the same algorithm (RFC 9864 §2.2).
fn is_for_algorithm(jwk: &Map<String, Value>, algorithm: Algorithm) -> bool {
    let same = |name: &str| match algorithm {
        Algorithm::EdDSA | Algorithm::Ed25519 => name == "EdDSA" || name == "Ed25519",
        _ => name == algorithm.name(),
    };
    member(jwk, "alg").is_none_or(|v| v.as_str().is_some_and(same))
}

impl Material {
    fn parse(jwk: &Map<String, Value>) -> Self {
        let text = |name| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name| decode(text(name));
        let material = match (text("kty"), text("crv")) {
            ("RSA", _) => rsa(number("n"), number("e")),
            ("EC", "P-256") => point(&number("x"), &number("y")).map(Self::P256),
            ("EC", "P-384") => point(&number("x"), &number("y")).map(Self::P384),
            ("OKP", "Ed25519") => number("x").try_into().ok().map(Self::Ed25519),
            _ => None,
        };
        material.unwrap_or(Self::Unusable)
    }

    /// Whether `kty` and `crv` are those of `algorithm` (RFC 7518 §3.1, RFC 8037 §3.1).
    fn suits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, Ed25519, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa { .. } => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Self::P256(_) => algorithm == ES256,
            Self::P384(_) => algorithm == ES384,
            Self::Ed25519(_) => matches!(algorithm, EdDSA | Ed25519),
            Self::Unusable => false,
        }
    }

    /// The key in the form that `jsonwebtoken` expects; `None` if aws-lc rejects it, for example
    /// because a point is not on the curve. `jsonwebtoken` accepts any bytes and parses them at
    /// each verification, so such a key would otherwise appear usable.
    fn decoding_key(&self) -> Option<DecodingKey> {
        let (parsed, key) = match self {
            Self::Rsa { n, e } => (
                RsaPublicKeyComponents { n, e }
                    .to_parsed_public_key(&sig::RSA_PKCS1_2048_8192_SHA256),
                DecodingKey::from_rsa_raw_components(n, e),
            ),
            Self::P256(point) => (
                ParsedPublicKey::new(&sig::ECDSA_P256_SHA256_FIXED, point),
                DecodingKey::from_ec_der(point),
            ),
            Self::P384(point) => (
                ParsedPublicKey::new(&sig::ECDSA_P384_SHA384_FIXED, point),
                DecodingKey::from_ec_der(point),
            ),
            Self::Ed25519(x) => (
                ParsedPublicKey::new(&sig::ED25519, x),
                DecodingKey::from_ed_der(x),
            ),
            Self::Unusable => return None,
        };
        parsed.ok().map(|_| key)
    }
}

/// An RSA key with a modulus of acceptable size and an odd exponent of at least 3. With an
/// exponent of 1, any padded message would be its own signature.
fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Material> {
    let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    let odd = e.last()? % 2 == 1;
    (RSA_BITS.contains(&bits) && odd && e.len() <= 4 && e != [1]).then_some(Material::Rsa { n, e })
}

/// Some issuers prepend a sign byte to numbers, contrary to RFC 7518 §6.3.1.1.
fn without_leading_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.drain(..zeros);
    bytes
}

/// An uncompressed point (SEC 1 §2.3.3) whose coordinates have exactly the curve's field size (RFC
/// 7518 §6.2.1.2).
fn point<const N: usize>(x: &[u8], y: &[u8]) -> Option<[u8; N]> {
    let half = N / 2;
    (x.len() == half && y.len() == half)
        .then(|| [&[4], x, y].concat().try_into().ok())
        .flatten()
}

/// Decodes base64url with or without padding, which some issuers add. Returns an empty vector if
/// malformed.
fn decode(text: &str) -> Vec<u8> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    ENGINE.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
