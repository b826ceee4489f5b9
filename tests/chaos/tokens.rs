//! Access tokens, valid and forged, and the key set of their issuer.

use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The audience of valid tokens.
pub(crate) const AUDIENCE: &str = "chaos";

/// The subjects of forged tokens begin with this. If a peer ever sees one, a forged token was
/// accepted.
pub(crate) const HOSTILE: &str = "hostile-";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A signing key.
struct Key {
    number: usize,
    pair: EcdsaKeyPair,
}

impl Key {
    fn generate(number: usize) -> Arc<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Arc::new(Self { number, pair })
    }

    fn kid(&self) -> String {
        format!("key-{}", self.number)
    }

    fn jwk(&self) -> Value {
        // An uncompressed point: 4, then x and y.
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid(),
                "x": encode(x), "y": encode(y) })
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.kid() });
        let input = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = self
            .pair
            .sign(&SystemRandom::new(), input.as_bytes())
            .unwrap();
        format!("{input}.{}", encode(signature))
    }
}

/// How a token is forged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forgery {
    /// Signed with another key under the issuer's `kid`.
    OtherKey,
    Expired,
    OtherAudience,
    /// `alg: none`.
    Unsigned,
    /// A valid token whose claims were replaced.
    Spliced,
    /// Not a JWT.
    Opaque,
}

/// Every kind of forgery.
pub(crate) const FORGERIES: [Forgery; 6] = [
    Forgery::OtherKey,
    Forgery::Expired,
    Forgery::OtherAudience,
    Forgery::Unsigned,
    Forgery::Spliced,
    Forgery::Opaque,
];

/// Signs tokens as the identity provider would.
#[derive(Clone)]
pub(crate) struct Issuer {
    url: Arc<str>,
    keys: Arc<Mutex<Vec<Arc<Key>>>>,
    attacker: Arc<Key>,
}

impl Issuer {
    /// For the issuer at `url`, with one key.
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            keys: Arc::new(Mutex::new(vec![Key::generate(0)])),
            attacker: Key::generate(0),
        }
    }

    /// The key set to publish.
    pub(crate) fn jwks(&self) -> Value {
        let keys: Vec<_> = self
            .keys
            .lock()
            .unwrap()
            .iter()
            .map(|key| key.jwk())
            .collect();
        json!({ "keys": keys })
    }

    /// Adds a key that signs from now on, and removes those before the last two.
    pub(crate) fn rotate(&self) {
        let mut keys = self.keys.lock().unwrap();
        let number = keys[keys.len() - 1].number + 1;
        keys.push(Key::generate(number));
        let surplus = keys.len().saturating_sub(3);
        keys.drain(..surplus);
    }

    /// How often the key has changed.
    pub(crate) fn rotations(&self) -> usize {
        self.key().number
    }

    fn key(&self) -> Arc<Key> {
        let keys = self.keys.lock().unwrap();
        Arc::clone(&keys[keys.len() - 1])
    }

    /// Claims with a lifetime that spans every clock offset of the suite except decades.
    fn claims(&self, subject: &str) -> Value {
        let now = i64::try_from(unix_now().as_secs()).unwrap();
        json!({ "iss": &*self.url, "aud": AUDIENCE, "sub": subject, "client_id": "chaos",
                "scope": "openid", "jti": subject, "iat": now - 7200, "exp": now + 36_000 })
    }

    /// A valid token.
    pub(crate) fn token(&self, subject: &str) -> String {
        self.key().sign(&self.claims(subject))
    }

    /// A token that no issuer vouches for.
    pub(crate) fn forge(&self, forgery: Forgery, subject: &str) -> String {
        let mut claims = self.claims(subject);
        match forgery {
            Forgery::OtherKey => self.attacker.sign(&claims),
            Forgery::Expired => {
                claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 60);
                self.key().sign(&claims)
            }
            Forgery::OtherAudience => {
                claims["aud"] = json!("elsewhere");
                self.key().sign(&claims)
            }
            Forgery::Unsigned => {
                let header = json!({ "alg": "none", "typ": "at+jwt" });
                format!(
                    "{}.{}.",
                    encode(header.to_string()),
                    encode(claims.to_string())
                )
            }
            Forgery::Spliced => {
                let valid = self.token("somebody");
                let parts: Vec<&str> = valid.split('.').collect();
                format!("{}.{}.{}", parts[0], encode(claims.to_string()), parts[2])
            }
            Forgery::Opaque => format!("opaque-{subject}"),
        }
    }
}

/// The real time since the epoch.
pub(crate) fn unix_now() -> std::time::Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
}
