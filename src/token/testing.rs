//! Test support: keys, tokens, and issuers with a scripted key fetcher.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaSignatureEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{FetchedKeys, Issuer, KeyFetchError, KeyFetcher, RefreshObserver};
use crate::bounded_cache::CacheBounds;
use crate::clock::{ManualClock, UnixMillis};
use crate::token::settings::{Algorithm, KeyLocation, OidcIssuer, Profile};

/// The current time in tests, in seconds since the epoch.
pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) fn clock() -> Arc<ManualClock> {
    ManualClock::at(UnixMillis::from_secs(NOW))
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key and its `kid`.
pub(crate) struct TestKey {
    pub(crate) kid: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl TestKey {
    pub(crate) fn rsa(kid: &'static str) -> Self {
        let pair = Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        Self { kid, pair }
    }

    pub(crate) fn p256(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&sig::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let pair = Pair::P256(pair);
        Self { kid, pair }
    }

    pub(crate) fn p384(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&sig::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let pair = Pair::P384(pair);
        Self { kid, pair }
    }

    pub(crate) fn ed25519(kid: &'static str) -> Self {
        let pair = Pair::Ed25519(Ed25519KeyPair::generate().unwrap());
        Self { kid, pair }
    }

    /// The public key.
    pub(crate) fn jwk(&self) -> Value {
        let point = |crv: &str, bytes: &[u8]| {
            let (x, y) = bytes[1..].split_at(bytes.len() / 2);
            json!({"kty": "EC", "crv": crv, "kid": self.kid, "x": b64(x), "y": b64(y)})
        };
        match &self.pair {
            Pair::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let n = b64(n.big_endian_without_leading_zero());
                let e = b64(e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "kid": self.kid, "n": n, "e": e})
            }
            Pair::P256(pair) => point("P-256", pair.public_key().as_ref()),
            Pair::P384(pair) => point("P-384", pair.public_key().as_ref()),
            Pair::Ed25519(pair) => {
                let x = b64(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x})
            }
        }
    }

    /// The public key with some members changed; null removes one.
    pub(crate) fn jwk_with(&self, changes: &Value) -> Value {
        with(&self.jwk(), changes)
    }

    /// A signature with `alg`, or with the key's default algorithm if the key does not support
    /// `alg`.
    pub(crate) fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &RsaSignatureEncoding = match alg {
                    "RS384" => &sig::RSA_PKCS1_SHA384,
                    "RS512" => &sig::RSA_PKCS1_SHA512,
                    "PS256" => &sig::RSA_PSS_SHA256,
                    "PS384" => &sig::RSA_PSS_SHA384,
                    "PS512" => &sig::RSA_PSS_SHA512,
                    _ => &sig::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => {
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A compact JWS with arbitrary text as header and claims.
    pub(crate) fn token_of(&self, alg: &str, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = b64(self.sign(alg, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// A token with this header, to which `alg` and `kid` are added if missing.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let defaults = json!({"alg": self.default_algorithm(), "kid": self.kid});
        let header = with(&defaults, header);
        let alg = header["alg"].as_str().unwrap_or_default();
        self.token_of(alg, &header.to_string(), &claims.to_string())
    }

    fn default_algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
        }
    }
}

/// `object` with some members changed; null removes one.
pub(crate) fn with(object: &Value, changes: &Value) -> Value {
    let mut object = object.clone();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
    object
}

/// Shared, because generating RSA keys is slow.
pub(crate) static RSA: LazyLock<TestKey> = LazyLock::new(|| TestKey::rsa("rsa"));
pub(crate) static OTHER_RSA: LazyLock<TestKey> = LazyLock::new(|| TestKey::rsa("other-rsa"));
pub(crate) static P256: LazyLock<TestKey> = LazyLock::new(|| TestKey::p256("p256"));
pub(crate) static P384: LazyLock<TestKey> = LazyLock::new(|| TestKey::p384("p384"));
pub(crate) static ED25519: LazyLock<TestKey> = LazyLock::new(|| TestKey::ed25519("ed25519"));

pub(crate) fn jwks(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// Returns the response that was set last. If blocked, each fetch waits for a permit.
#[derive(Debug)]
pub(crate) struct ScriptedKeys {
    response: Mutex<Result<FetchedKeys, KeyFetchError>>,
    calls: AtomicUsize,
    permits: Option<Semaphore>,
    /// Has a permit for each fetch that has started.
    pub(crate) started: Semaphore,
}

impl ScriptedKeys {
    pub(crate) fn of(keys: &[Value]) -> Arc<Self> {
        Arc::new(Self::new(keys, None))
    }

    /// Each fetch waits for [`Self::release`].
    pub(crate) fn blocked(keys: &[Value]) -> Arc<Self> {
        Arc::new(Self::new(keys, Some(Semaphore::new(0))))
    }

    fn new(keys: &[Value], permits: Option<Semaphore>) -> Self {
        let (document, max_age) = (jwks(keys), None);
        Self {
            response: Mutex::new(Ok(FetchedKeys { document, max_age })),
            calls: AtomicUsize::new(0),
            permits,
            started: Semaphore::new(0),
        }
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        self.publish_for(keys, None);
    }

    pub(crate) fn publish_for(&self, keys: &[Value], max_age: Option<Duration>) {
        self.serve(jwks(keys), max_age);
    }

    pub(crate) fn serve(&self, document: Vec<u8>, max_age: Option<Duration>) {
        *self.response.lock().unwrap() = Ok(FetchedKeys { document, max_age });
    }

    pub(crate) fn go_down(&self) {
        *self.response.lock().unwrap() = Err(KeyFetchError("down".into()));
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn release(&self) {
        self.permits.as_ref().unwrap().add_permits(1);
    }
}

#[async_trait]
impl KeyFetcher for ScriptedKeys {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        // Read before waiting, like a server that has prepared its response.
        let response = self.response.lock().unwrap().clone();
        self.started.add_permits(1);
        if let Some(permits) = &self.permits {
            permits.acquire().await.unwrap().forget();
        }
        response
    }
}

pub(crate) const AUDIENCE: &str = "https://api.example.com/";

/// An issuer's settings, with default values.
pub(crate) fn configured(url: &str, profile: Profile) -> OidcIssuer {
    OidcIssuer {
        url: url.into(),
        keys: KeyLocation::Discovery,
        ca: None,
        audiences: vec!["another".into(), AUDIENCE.into()],
        algorithms: Algorithm::ALL.to_vec(),
        profile,
        format: profile.format(),
        leeway: Duration::from_secs(30),
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_mins(5),
    }
}

pub(crate) fn issuer(
    name: &str,
    config: &OidcIssuer,
    keys: &Arc<ScriptedKeys>,
    clock: &Arc<ManualClock>,
) -> Arc<Issuer> {
    let (keys, clock) = (Arc::clone(keys), Arc::clone(clock));
    let observer = RefreshObserver::default();
    Arc::new(Issuer::oidc(
        name.into(),
        config,
        keys,
        clock,
        CacheBounds::of_entries(100),
        observer,
    ))
}
