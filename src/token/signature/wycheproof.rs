//! The Wycheproof vectors for the primitives behind every algorithm, run through the code that
//! verifies tokens: keys are parsed as JWKs ([`KeySet`]) and signatures verified by [`Verifier`].

use std::ops::AddAssign;

use ::wycheproof::{
    EllipticCurve, HashFunction, TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::token::jwk::KeySet;

/// The results for the vectors of one set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    accepted: usize,
    refused: usize,
    /// Inconclusive vectors: "acceptable" ones, and invalid ones of a signature scheme other than
    /// the algorithm's.
    inconclusive: usize,
}

/// One signature or MAC to verify.
struct Vector<'a> {
    set: &'a dyn fmt::Debug,
    id: usize,
    message: &'a [u8],
    signature: &'a [u8],
    result: TestResult,
}

/// A vector of whichever set `$test` belongs to; the crate has a type of its own for each.
macro_rules! vector {
    ($set:expr, $test:ident, $signature:ident) => {
        Vector {
            set: &$set,
            id: $test.tc_id,
            message: &$test.msg,
            signature: &$test.$signature,
            result: $test.result,
        }
    };
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.inconclusive += other.inconclusive;
    }
}

impl Counts {
    /// Verifies the signature of one vector and compares the result with the expected one.
    /// `conforms` is whether the signature scheme is that of the JWS algorithm: a valid signature
    /// in another scheme must be refused.
    fn check(&mut self, verifier: Option<&Verifier>, vector: &Vector<'_>, conforms: bool) {
        let (set, id) = (vector.set, vector.id);
        let accepted = verifier
            .is_some_and(|verifier| verifier.verify(vector.message, &b64(vector.signature)));
        match (vector.result, conforms) {
            (TestResult::Valid, true) => {
                assert!(accepted, "{set:?} {id} was refused");
                self.accepted += 1;
            }
            (TestResult::Valid, false) | (TestResult::Invalid, true) => {
                assert!(!accepted, "{set:?} {id} was accepted");
                self.refused += 1;
            }
            (TestResult::Acceptable, _) | (TestResult::Invalid, false) => self.inconclusive += 1,
        }
    }

    fn print(self, what: &str) {
        println!(
            "wycheproof {what}: {} accepted, {} refused, {} inconclusive",
            self.accepted, self.refused, self.inconclusive
        );
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `None` for a key that is refused when it is loaded.
fn verifier(jwk: &Value, algorithm: Algorithm) -> Option<Verifier> {
    let document = json!({ "keys": [jwk] }).to_string();
    let set = KeySet::parse(document.as_bytes(), Algorithm::ALL).unwrap();
    Some(set.select(algorithm, None).ok()?.remove(0))
}

#[test]
fn rsa_pkcs1_vectors() {
    use rsa_pkcs1_verify::TestName as Set;
    let mut total = Counts::default();
    for (set, algorithm) in [
        (Set::Rsa2048Sha256, Algorithm::RS256),
        (Set::Rsa2048Sha384, Algorithm::RS384),
        (Set::Rsa2048Sha512, Algorithm::RS512),
        (Set::Rsa3072Sha256, Algorithm::RS256),
        (Set::Rsa3072Sha384, Algorithm::RS384),
        (Set::Rsa3072Sha512, Algorithm::RS512),
        (Set::Rsa4096Sha256, Algorithm::RS256),
        (Set::Rsa4096Sha384, Algorithm::RS384),
        (Set::Rsa4096Sha512, Algorithm::RS512),
        (Set::Rsa8192Sha256, Algorithm::RS256),
        (Set::Rsa8192Sha384, Algorithm::RS384),
        (Set::Rsa8192Sha512, Algorithm::RS512),
        // A valid signature with another hash is not an RS256 signature.
        (Set::Rsa2048Sha3_256, Algorithm::RS256),
        (Set::Rsa2048Sha512_256, Algorithm::RS256),
    ] {
        let mut counts = Counts::default();
        for group in rsa_pkcs1_verify::TestSet::load(set).unwrap().test_groups {
            let conforms = Some(group.hash) == hash(algorithm);
            let jwk = json!({ "kty": "RSA", "n": b64(&group.key.n), "e": b64(&group.key.e) });
            let verifier = verifier(&jwk, algorithm);
            for test in group.tests {
                counts.check(verifier.as_ref(), &vector!(set, test, sig), conforms);
            }
        }
        counts.print(&format!("{set:?} as {}", algorithm.name()));
        total += counts;
    }
    total.print("RSASSA-PKCS1-v1_5 in all");
    assert_eq!((total.accepted, total.refused), (89, 3019));
}

/// RFC 7518 §3.5: MGF1 with the same hash, and a salt as long as the hash.
#[test]
fn rsa_pss_vectors() {
    use rsa_pss_verify::TestName as Set;
    let mut total = Counts::default();
    for (set, algorithm) in [
        (Set::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::PS256),
        (Set::RsaPss2048Sha384Mgf1SaltLen48, Algorithm::PS384),
        (Set::RsaPss3072Sha256Mgf1SaltLen32, Algorithm::PS256),
        (Set::RsaPss4096Sha256Mgf1SaltLen32, Algorithm::PS256),
        (Set::RsaPss4096Sha384Mgf1SaltLen48, Algorithm::PS384),
        (Set::RsaPss4096Sha512Mgf1SaltLen64, Algorithm::PS512),
        (Set::RsaPssmisc, Algorithm::PS256),
        (Set::RsaPssmisc, Algorithm::PS384),
        (Set::RsaPssmisc, Algorithm::PS512),
        // Valid signatures with other parameters do not conform to these algorithms.
        (Set::RsaPss2048Sha256Mgf1SaltLen0, Algorithm::PS256),
        (Set::RsaPss2048Sha256Mgf1Sha1_20, Algorithm::PS256),
        (Set::RsaPss4096Sha512Mgf1SaltLen32, Algorithm::PS512),
    ] {
        let mut counts = Counts::default();
        for group in rsa_pss_verify::TestSet::load(set).unwrap().test_groups {
            let wanted = hash(algorithm);
            let conforms = Some(group.hash) == wanted
                && group.mgf_hash == wanted
                && Some(group.salt_size) == hash_bytes(algorithm)
                && group.key.n.len() >= 256;
            let jwk = json!({ "kty": "RSA", "n": b64(&group.key.n), "e": b64(&group.key.e) });
            let verifier = verifier(&jwk, algorithm);
            for test in group.tests {
                counts.check(verifier.as_ref(), &vector!(set, test, sig), conforms);
            }
        }
        counts.print(&format!("{set:?} as {}", algorithm.name()));
        total += counts;
    }
    total.print("RSASSA-PSS in all");
    assert_eq!((total.accepted, total.refused), (514, 977));
}

#[test]
fn ecdsa_p1363_vectors() {
    use ecdsa::TestName as Set;
    let mut total = Counts::default();
    for (set, algorithm) in [
        (Set::EcdsaSecp256r1Sha256P1363, Algorithm::ES256),
        (Set::EcdsaSecp384r1Sha384P1363, Algorithm::ES384),
        // DER-encoded signatures and other hashes do not conform to these algorithms.
        (Set::EcdsaSecp256r1Sha256, Algorithm::ES256),
        (Set::EcdsaSecp384r1Sha384, Algorithm::ES384),
        (Set::EcdsaSecp256r1Sha512P1363, Algorithm::ES256),
        (Set::EcdsaSecp384r1Sha512P1363, Algorithm::ES384),
    ] {
        let mut counts = Counts::default();
        for group in ecdsa::TestSet::load(set).unwrap().test_groups {
            let conforms = group.test_type == ecdsa::TestGroupTypeId::EcdsaP1363
                && Some(group.hash) == hash(algorithm);
            let crv = match group.key.curve {
                EllipticCurve::Secp256r1 => "P-256",
                EllipticCurve::Secp384r1 => "P-384",
                other => panic!("{other:?}"),
            };
            let (x, y) = group.key.key[1..].split_at(group.key.key.len() / 2);
            let jwk = json!({ "kty": "EC", "crv": crv, "x": b64(x), "y": b64(y) });
            let verifier = verifier(&jwk, algorithm);
            for test in group.tests {
                counts.check(verifier.as_ref(), &vector!(set, test, sig), conforms);
            }
        }
        counts.print(&format!("{set:?} as {}", algorithm.name()));
        total += counts;
    }
    total.print("ECDSA in all");
    assert_eq!((total.accepted, total.refused), (366, 1016));
}

#[test]
fn ed25519_vectors() {
    let mut counts = Counts::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519)
        .unwrap()
        .test_groups
    {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(&group.key.pk) });
        for algorithm in [Algorithm::EdDSA, Algorithm::Ed25519] {
            let verifier = verifier(&jwk, algorithm);
            for test in &group.tests {
                counts.check(
                    verifier.as_ref(),
                    &vector!(eddsa::TestName::Ed25519, test, sig),
                    true,
                );
            }
        }
    }
    counts.print("Ed25519 as EdDSA and Ed25519");
    assert_eq!((counts.accepted, counts.refused), (176, 126));
}

/// RFC 7518 §3.2: a truncated MAC is not valid.
#[test]
fn hmac_vectors() {
    use mac::TestName as Set;
    let mut total = Counts::default();
    for (set, algorithm) in [
        (Set::HmacSha256, Algorithm::HS256),
        (Set::HmacSha384, Algorithm::HS384),
        (Set::HmacSha512, Algorithm::HS512),
        // A MAC with another hash of the same length is not an HS256 MAC.
        (Set::HmacSha3_256, Algorithm::HS256),
        (Set::HmacSha512_256, Algorithm::HS256),
    ] {
        let mut counts = Counts::default();
        let same_hash = !matches!(set, Set::HmacSha3_256 | Set::HmacSha512_256);
        for group in mac::TestSet::load(set).unwrap().test_groups {
            let conforms = same_hash && Some(group.tag_size / 8) == hash_bytes(algorithm);
            for test in group.tests {
                let key = Arc::new(DecodingKey::from_secret(&test.key));
                let verifier = Verifier::new(algorithm, key);
                counts.check(Some(&verifier), &vector!(set, test, tag), conforms);
            }
        }
        counts.print(&format!("{set:?} as {}", algorithm.name()));
        total += counts;
    }
    total.print("HMAC in all");
    assert_eq!((total.accepted, total.refused), (99, 393));
}

fn hash(algorithm: Algorithm) -> Option<HashFunction> {
    match hash_bytes(algorithm)? {
        32 => Some(HashFunction::Sha2_256),
        48 => Some(HashFunction::Sha2_384),
        _ => Some(HashFunction::Sha2_512),
    }
}

fn hash_bytes(algorithm: Algorithm) -> Option<usize> {
    let bits: usize = algorithm.name().get(2..)?.parse().ok()?;
    Some(bits / 8)
}
