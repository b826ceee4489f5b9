//! A small identity provider with one ES256 key generated at startup, OpenID Connect discovery,
//! a JWKS, and access tokens according to RFC 9068. It has no sign-in: the subject of every
//! token is Alice.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::server::{self, Request, Response, Server};
use super::{AUDIENCE, DemoError, SCOPE};
use crate::clock::SharedClock;

const KEY_ID: &str = "demo-key";

/// A running identity provider.
pub(super) struct IdentityProvider {
    pub(super) url: Url,
    key: EcdsaKeyPair,
    clock: SharedClock,
    _server: Server,
}

impl IdentityProvider {
    pub(super) async fn start(clock: SharedClock) -> Result<Self, DemoError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_| DemoError::Start("cannot generate a signing key".into()))?;
        let keys = json!({ "keys": [jwk(key.public_key().as_ref())] });
        let server = server::serve(|url| {
            let issuer = issuer(url);
            move |request: &Request| handle(request, &issuer, &keys)
        })
        .await?;
        Ok(Self {
            url: server.url.clone(),
            key,
            clock,
            _server: server,
        })
    }

    /// Issues a token for `audience`.
    pub(super) fn token(&self, audience: &str, validity: Validity) -> Result<String, DemoError> {
        let now = self.clock.now();
        let (issued, expires) = match validity {
            Validity::For(lifetime) => (now, now.plus(lifetime)),
            Validity::ExpiredFor(age) => (now.minus(age * 2), now.minus(age)),
        };
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": KEY_ID });
        let claims = json!({
            "iss": issuer(&self.url), "sub": "alice", "aud": audience, "client_id": "demo-cli",
            "scope": format!("openid {SCOPE}"), "jti": format!("demo-{}", now.0),
            "iat": issued.as_secs(), "exp": expires.as_secs(),
        });
        let signed = [header, claims]
            .map(|part| BASE64URL.encode(part.to_string()))
            .join(".");
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| DemoError::Start("cannot sign a token".into()))?;
        Ok(format!("{signed}.{}", BASE64URL.encode(signature)))
    }

    /// Returns the verifier that the API uses for tokens.
    pub(super) fn verifier(&self) -> Arc<TokenVerifier> {
        Arc::new(TokenVerifier {
            public_key: self.key.public_key().as_ref().to_vec(),
            issuer: issuer(&self.url),
            clock: self.clock.clone(),
        })
    }
}

/// When a token expires.
#[derive(Clone, Copy)]
pub(super) enum Validity {
    /// It expires after this time.
    For(Duration),
    /// It expired this long ago.
    ExpiredFor(Duration),
}

fn issuer(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Returns the JWK of an uncompressed point: one byte, then 32 bytes for each coordinate (SEC 1
/// §2.3.3).
fn jwk(point: &[u8]) -> Value {
    let coordinate = |at: usize| BASE64URL.encode(point.get(at..at + 32).unwrap_or_default());
    json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID,
        "x": coordinate(1), "y": coordinate(33),
    })
}

fn handle(request: &Request, issuer: &str, keys: &Value) -> Response {
    match request.path() {
        "/.well-known/openid-configuration" => {
            let metadata = json!({
                "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"),
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            server::json(StatusCode::OK, &metadata)
        }
        "/jwks" => server::json(StatusCode::OK, keys),
        _ => server::json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
    }
}

/// The API's own token verification, independent of hawkgate's.
pub(super) struct TokenVerifier {
    public_key: Vec<u8>,
    issuer: String,
    clock: SharedClock,
}

impl TokenVerifier {
    /// Returns the subject and expiry (in milliseconds since the Unix epoch) of a valid token.
    pub(super) fn verify(&self, token: &str) -> Option<(String, i64)> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = BASE64URL.decode(signature).ok()?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public_key)
            .verify(signed.as_bytes(), &signature)
            .ok()?;
        let claims = BASE64URL.decode(signed.split_once('.')?.1).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let expiry = claims["exp"].as_i64()?.checked_mul(1000)?;
        let valid = claims["iss"] == self.issuer.as_str()
            && claims["aud"] == AUDIENCE
            && expiry > self.clock.now().0;
        valid.then(|| Some((claims["sub"].as_str()?.to_owned(), expiry)))?
    }
}
