//! Access tokens (RFC 9068) and ID tokens (OpenID Connect Core §2), signed with an ES256 key that
//! is generated at startup.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Value, json};

use super::grants::Grant;
use crate::clock::SharedClock;
use crate::demo::random::random;
use crate::demo::{AUDIENCE, DemoError, SCOPE};

const KEY_ID: &str = "demo-key";
/// `typ` of access tokens (RFC 9068 §2.1) and of ID tokens.
const ACCESS_TOKEN: &str = "at+jwt";
const ID_TOKEN: &str = "JWT";
/// How long the tokens of a sign-in are valid: short, so that a page that stays open for a while
/// shows refreshes.
pub(super) const LIFETIME: Duration = Duration::from_mins(5);

/// When a token expires.
#[derive(Clone, Copy)]
pub(in crate::demo) enum Validity {
    /// It expires after this time.
    For(Duration),
    /// It expired this long ago.
    ExpiredFor(Duration),
}

/// Issues tokens.
pub(super) struct TokenSigner {
    key: EcdsaKeyPair,
    clock: SharedClock,
    issuer: String,
}

impl TokenSigner {
    pub(super) fn new(issuer: String, clock: SharedClock) -> Result<Self, DemoError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_| DemoError::Start("cannot generate a signing key".into()))?;
        Ok(Self { key, clock, issuer })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns the JWK Set.
    pub(super) fn keys(&self) -> Value {
        json!({ "keys": [jwk(self.key.public_key().as_ref())] })
    }

    /// Issues an access token to the tour, which signs nobody in: its subject is Alice.
    pub(super) fn tour_token(
        &self,
        audience: &str,
        validity: Validity,
    ) -> Result<String, DemoError> {
        let now = self.clock.now();
        let (issued, expires) = match validity {
            Validity::For(lifetime) => (now, now.plus(lifetime)),
            Validity::ExpiredFor(age) => (now.minus(age * 2), now.minus(age)),
        };
        self.sign(
            ACCESS_TOKEN,
            &json!({
                "iss": self.issuer, "sub": "alice", "aud": audience, "client_id": "demo-cli",
                "scope": format!("openid {SCOPE}"), "jti": random()?,
                "iat": issued.as_secs(), "exp": expires.as_secs(),
            }),
        )
    }

    /// Issues the access token of a sign-in.
    pub(super) fn access_token(&self, grant: &Grant) -> Result<String, DemoError> {
        let now = self.clock.now();
        self.sign(
            ACCESS_TOKEN,
            &json!({
                "iss": self.issuer, "sub": grant.user.sub, "aud": AUDIENCE,
                "client_id": grant.client_id, "scope": grant.scopes.join(" "), "jti": random()?,
                "sid": grant.sid, "iat": now.as_secs(), "exp": now.plus(LIFETIME).as_secs(),
            }),
        )
    }

    /// Issues the ID token that accompanies `access_token`. `nonce` is the one of the authorization
    /// request; a refresh has none (OpenID Connect Core §12.2).
    pub(super) fn id_token(
        &self,
        grant: &Grant,
        access_token: &str,
        nonce: Option<&str>,
    ) -> Result<String, DemoError> {
        let now = self.clock.now();
        let mut claims = json!({
            "iss": self.issuer, "sub": grant.user.sub, "aud": grant.client_id, "sid": grant.sid,
            "auth_time": grant.signed_in_at.as_secs(), "at_hash": at_hash(access_token),
            "iat": now.as_secs(), "exp": now.plus(LIFETIME).as_secs(),
        });
        if let Some(nonce) = nonce.filter(|nonce| !nonce.is_empty()) {
            claims["nonce"] = nonce.into();
        }
        if grant.has("profile") {
            claims["name"] = grant.user.name.into();
        }
        if grant.has("email") {
            claims["email"] = grant.user.email.into();
            claims["email_verified"] = true.into();
        }
        self.sign(ID_TOKEN, &claims)
    }

    /// Returns `sid` of one of this provider's ID tokens for `client_id`. An expired one will do: it
    /// only says which session to end (OpenID Connect RP-Initiated Logout 1.0 §4).
    pub(super) fn session_of_id_token(&self, token: &str, client_id: &str) -> Option<String> {
        let claims = verified_claims(self.key.public_key().as_ref(), ID_TOKEN, token)?;
        let ours = claims["iss"] == self.issuer.as_str() && claims["aud"] == client_id;
        ours.then(|| Some(claims["sid"].as_str()?.to_owned()))?
    }

    fn sign(&self, token_type: &str, claims: &Value) -> Result<String, DemoError> {
        let header = json!({ "alg": "ES256", "typ": token_type, "kid": KEY_ID });
        let signed = [&header, claims]
            .map(|part| BASE64URL.encode(part.to_string()))
            .join(".");
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| DemoError::Start("cannot sign a token".into()))?;
        Ok(format!("{signed}.{}", BASE64URL.encode(signature)))
    }

    /// Returns the verifier that the API uses for access tokens.
    pub(super) fn verifier(&self) -> Arc<TokenVerifier> {
        Arc::new(TokenVerifier {
            public_key: self.key.public_key().as_ref().to_vec(),
            issuer: self.issuer.clone(),
            clock: self.clock.clone(),
        })
    }
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

/// Returns the left half of the access token's SHA-256 (OpenID Connect Core §3.1.3.6).
fn at_hash(access_token: &str) -> String {
    let hash = digest(&SHA256, access_token.as_bytes());
    BASE64URL.encode(hash.as_ref().get(..16).unwrap_or_default())
}

/// Returns the claims of a token of this type, if its signature is valid.
fn verified_claims(public_key: &[u8], token_type: &str, token: &str) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = BASE64URL.decode(signature).ok()?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key)
        .verify(signed.as_bytes(), &signature)
        .ok()?;
    let (header, claims) = signed.split_once('.')?;
    let header: Value = serde_json::from_slice(&BASE64URL.decode(header).ok()?).ok()?;
    let claims = serde_json::from_slice(&BASE64URL.decode(claims).ok()?).ok()?;
    (header["typ"] == token_type).then_some(claims)
}

/// The API's own token verification, independent of hawkgate's.
pub(in crate::demo) struct TokenVerifier {
    public_key: Vec<u8>,
    issuer: String,
    clock: SharedClock,
}

/// What the API learns from a valid access token.
#[derive(Clone, Debug)]
pub(in crate::demo) struct AccessToken {
    pub(in crate::demo) subject: String,
    /// In milliseconds since the Unix epoch.
    pub(in crate::demo) expiry: i64,
    /// All claims.
    pub(in crate::demo) claims: Value,
}

impl TokenVerifier {
    /// Verifies an access token for the API.
    pub(in crate::demo) fn verify(&self, token: &str) -> Option<AccessToken> {
        let claims = verified_claims(&self.public_key, ACCESS_TOKEN, token)?;
        let expiry = claims["exp"].as_i64()?.checked_mul(1000)?;
        let valid = claims["iss"] == self.issuer.as_str()
            && claims["aud"] == AUDIENCE
            && expiry > self.clock.now().0;
        let subject = claims["sub"].as_str()?.to_owned();
        valid.then_some(AccessToken {
            subject,
            expiry,
            claims,
        })
    }
}
