//! Tokens of every kind, including invalid ones, and an issuer whose key set can misbehave.

use std::sync::{Arc, LazyLock, Mutex};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use aws_lc_rs::{hmac, rsa::KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::upstream::{FakeUpstream, Latch, Reply};

/// base64url without padding.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

/// A key pair of an issuer.
pub(crate) struct Key {
    pub(crate) kid: String,
    pair: Pair,
}

impl Key {
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self {
            kid: kid.into(),
            pair: Pair::Rsa(pair),
        }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self {
            kid: kid.into(),
            pair: Pair::Ec(pair, "P-256"),
        }
    }

    pub(crate) fn p384(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self {
            kid: kid.into(),
            pair: Pair::Ec(pair, "P-384"),
        }
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        Self {
            kid: kid.into(),
            pair: Pair::Ed(pair),
        }
    }

    /// The public key as a JWK (RFC 7517), with `kid` and `use`.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
            }
            Pair::Ec(pair, curve) => {
                // An uncompressed point: 4, then x and y.
                let (x, y) = {
                    let point = &pair.public_key().as_ref()[1..];
                    point.split_at(point.len() / 2)
                };
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Pair::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()) })
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The public key in PEM, which an attacker would try as an HMAC secret.
    pub(crate) fn public_pem(&self) -> String {
        let der = match &self.pair {
            Pair::Rsa(pair) => {
                let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
                    pair.public_key().as_der().unwrap();
                der.as_ref().to_vec()
            }
            Pair::Ec(pair, _) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        };
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    /// Signs `input` with the JOSE algorithm `alg`, which must match the key.
    pub(crate) fn signature(&self, alg: &str, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, input, &mut out).unwrap();
                out
            }
            Pair::Ec(pair, _) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(input).as_ref().to_vec(),
        }
    }

    /// A token with exactly these strings as header and claims, signed with `alg`.
    pub(crate) fn sign_text(&self, alg: &str, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(alg, input.as_bytes());
        format!("{input}.{}", encode(signature))
    }

    /// A token with this header and these claims, signed with the header's `alg`.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let alg = header["alg"].as_str().unwrap_or("RS256");
        self.sign_text(alg, &header.to_string(), &claims.to_string())
    }

    /// A token with these claims and the header of RFC 9068.
    pub(crate) fn token(&self, alg: &str, claims: &Value) -> String {
        self.sign(&self.header(alg), claims)
    }

    /// The header of an RFC 9068 access token.
    pub(crate) fn header(&self, alg: &str) -> Value {
        json!({ "alg": alg, "typ": "at+jwt", "kid": self.kid })
    }
}

/// One key of each kind, generated once and shared by the tests.
pub(crate) static SHARED: LazyLock<[Key; 4]> = LazyLock::new(|| {
    [
        Key::rsa("rsa"),
        Key::p256("p256"),
        Key::p384("p384"),
        Key::ed25519("ed"),
    ]
});

/// A token with an HMAC-SHA256 signature under `secret`.
pub(crate) fn hmac_token(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let input = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{input}.{}", encode(hmac::sign(&key, input.as_bytes())))
}

/// A token without a signature.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    format!(
        "{}.{}.",
        encode(header.to_string()),
        encode(claims.to_string())
    )
}

/// Valid claims of an RFC 9068 access token at `now` (Unix seconds), for 10 minutes.
pub(crate) fn claims(issuer: &str, audience: &str, now: i64) -> Value {
    json!({
        "iss": issuer,
        "aud": audience,
        "sub": "user|1",
        "client_id": "app",
        "scope": "openid read",
        "jti": "c0ffee00-0001",
        "iat": now,
        "exp": now + 600,
    })
}

/// `claims` with `changes` applied; a null removes the member.
pub(crate) fn with(claims: &Value, changes: &Value) -> Value {
    let mut result = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        let members = result.as_object_mut().unwrap();
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    result
}

/// Modulus and exponent of a DER-encoded RSAPublicKey (RFC 8017 §A.1.1).
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn element<'a>(der: &mut &'a [u8]) -> &'a [u8] {
        let long = usize::from(der[1] & 0x7f);
        let (length, start) = if der[1] < 0x80 {
            (usize::from(der[1]), 2)
        } else {
            let bytes = &der[2..2 + long];
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, 2 + long)
        };
        let (content, rest) = (&der[start..start + length], &der[start + length..]);
        *der = rest;
        content
    }
    let mut whole = der;
    let mut sequence = element(&mut whole);
    let unsigned = |number: &[u8]| number[usize::from(number[0] == 0)..].to_vec();
    let n = unsigned(element(&mut sequence));
    (n, unsigned(element(&mut sequence)))
}

/// How an [`IssuerServer`] responds.
#[derive(Clone, Debug)]
pub(crate) enum JwksMode {
    Normal,
    Status(u16),
    /// 200 with this text.
    Text(String),
    /// Responds normally once the latch opens.
    Held(Latch),
    /// Valid JSON of more than 256 KiB.
    Huge,
    Redirect,
}

struct State {
    keys: Vec<Value>,
    mode: JwksMode,
    cache_control: Option<String>,
    /// `issuer` in the discovery document, instead of the real one.
    claimed: Option<String>,
}

/// An issuer with a discovery document (`/.well-known/openid-configuration`) and a key set (`/jwks`).
pub(crate) struct IssuerServer {
    pub(crate) server: FakeUpstream,
    state: Arc<Mutex<State>>,
}

impl IssuerServer {
    pub(crate) async fn start(keys: &[&Key]) -> Self {
        let state = Arc::new(Mutex::new(State {
            keys: keys.iter().map(|key| key.jwk()).collect(),
            mode: JwksMode::Normal,
            cache_control: None,
            claimed: None,
        }));
        let scripted = Arc::clone(&state);
        let server = FakeUpstream::http1(move |received| {
            let own = format!("http://{}", received.authority);
            scripted.lock().unwrap().reply(received.path(), &own)
        })
        .await;
        Self { server, state }
    }

    /// Its `iss`.
    pub(crate) fn issuer(&self) -> String {
        self.server.url()
    }

    pub(crate) fn jwks_url(&self) -> String {
        format!("{}/jwks", self.server.url())
    }

    pub(crate) fn keys(&self, keys: &[&Key]) {
        self.jwks(keys.iter().map(|key| key.jwk()).collect());
    }

    /// Serves any JSON values as keys.
    pub(crate) fn jwks(&self, keys: Vec<Value>) {
        self.state.lock().unwrap().keys = keys;
    }

    pub(crate) fn set_mode(&self, mode: JwksMode) {
        self.state.lock().unwrap().mode = mode;
    }

    pub(crate) fn cache_control(&self, value: &str) {
        self.state.lock().unwrap().cache_control = Some(value.to_owned());
    }

    pub(crate) fn set_discovery_issuer(&self, issuer: &str) {
        self.state.lock().unwrap().claimed = Some(issuer.to_owned());
    }

    /// Requests for the key set so far.
    pub(crate) fn fetches(&self) -> usize {
        self.server.attempts_at("/jwks").len()
    }
}

impl State {
    fn reply(&self, path: &str, own: &str) -> Reply {
        let document = match path {
            "/jwks" => json!({ "keys": self.keys }),
            "/.well-known/openid-configuration" => {
                let issuer = self.claimed.as_deref().unwrap_or(own);
                json!({ "issuer": issuer, "jwks_uri": format!("{own}/jwks") })
            }
            _ => return Reply::new(404, ""),
        };
        let normal =
            Reply::new(200, document.to_string()).header("content-type", "application/json");
        let normal = match &self.cache_control {
            Some(value) => normal.header("cache-control", value),
            None => normal,
        };
        match &self.mode {
            JwksMode::Normal => normal,
            JwksMode::Status(status) => Reply::new(*status, "error"),
            JwksMode::Text(text) => Reply::new(200, text.clone()),
            JwksMode::Held(latch) => normal.after(latch),
            JwksMode::Huge => {
                let mut document = document;
                document["padding"] = json!("x".repeat(300 * 1024));
                Reply::new(200, document.to_string())
            }
            JwksMode::Redirect => Reply::new(302, "").header("location", "/jwks?elsewhere"),
        }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    use super::*;

    /// An independent implementation accepts the tokens generated here.
    #[test]
    fn generated_tokens_verify_with_jsonwebtoken() {
        let [rsa, p256, p384, ed] = &*SHARED;
        let cases = [
            (rsa, Algorithm::RS256),
            (rsa, Algorithm::RS384),
            (rsa, Algorithm::RS512),
            (rsa, Algorithm::PS256),
            (rsa, Algorithm::PS384),
            (rsa, Algorithm::PS512),
            (p256, Algorithm::ES256),
            (p384, Algorithm::ES384),
            (ed, Algorithm::EdDSA),
        ];
        for (key, alg) in cases {
            let claims = claims("https://issuer", "api", 4_000_000_000);
            let token = key.token(&format!("{alg:?}"), &claims);
            let jwk = serde_json::from_value(key.jwk()).unwrap();
            let mut rules = Validation::new(alg);
            rules.set_audience(&["api"]);
            let verifying = DecodingKey::from_jwk(&jwk).unwrap();
            let read = jsonwebtoken::decode::<Value>(&token, &verifying, &rules).unwrap();
            assert_eq!(read.claims, claims, "{alg:?}");
            let other = key.token(&format!("{alg:?}"), &with(&claims, &json!({ "sub": "x" })));
            let (head, _) = token.rsplit_once('.').unwrap();
            let (_, foreign) = other.rsplit_once('.').unwrap();
            let mixed = format!("{head}.{foreign}");
            assert!(jsonwebtoken::decode::<Value>(&mixed, &verifying, &rules).is_err());
        }
    }
}
