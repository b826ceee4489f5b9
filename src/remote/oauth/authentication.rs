//! Client authentication (RFC 6749 §2.3.1, RFC 7523 §2.2).

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Map, Value};
use url::form_urlencoded::{self, byte_serialize};
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::clock::UnixMillis;
use crate::remote::settings::{AssertionKey, ClientProof, OauthClient};
use crate::secret::{SecretRef, SecretString};
use crate::token::SigningKey;

/// How long an assertion is good (identity.md §G: at most a minute).
const ASSERTION_LIFE: Duration = Duration::from_mins(1);

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A request in the making. What it holds is wiped from memory with it.
pub(super) struct Request {
    form: Zeroizing<String>,
    /// The `Authorization` header, where the client authenticates by it.
    pub(super) authorization: Option<HeaderValue>,
}

impl Request {
    pub(super) fn new(parameters: &[(&str, &str)]) -> Self {
        // Escaped, a byte takes three; room for all of it, so that growing leaves no copies.
        let room = |(name, value): &(&str, &str)| name.len() + 3 * value.len() + 2;
        let room = parameters.iter().map(room).sum::<usize>() + 8 * 1024;
        let mut request = Self {
            form: Zeroizing::new(String::with_capacity(room)),
            authorization: None,
        };
        for (name, value) in parameters {
            request.add(name, value);
        }
        request
    }

    fn add(&mut self, name: &str, value: &str) {
        if !self.form.is_empty() {
            self.form.push('&');
        }
        self.form.extend(byte_serialize(name.as_bytes()));
        self.form.push('=');
        self.form.extend(byte_serialize(value.as_bytes()));
    }

    /// The same as a JSON object of strings.
    pub(super) fn into_json(self) -> Self {
        let members: BTreeMap<_, _> = form_urlencoded::parse(self.form.as_bytes()).collect();
        // A map of strings can always be written.
        let text = serde_json::to_string(&members).unwrap_or_default();
        Self {
            form: Zeroizing::new(text),
            authorization: self.authorization,
        }
    }

    pub(super) fn into_body(self) -> Bytes {
        struct Wiped(Zeroizing<String>);
        impl AsRef<[u8]> for Wiped {
            fn as_ref(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }
        Bytes::from_owner(Wiped(self.form))
    }
}

/// Adds to `request` what proves that `own` sends it.
pub(super) async fn authenticate(
    own: &OauthClient,
    request: &mut Request,
    now: UnixMillis,
) -> Result<(), Failure> {
    match &own.proof {
        ClientProof::SecretBasic(secret) => {
            request.authorization = Some(basic(&own.id, &read(secret).await?)?);
        }
        ClientProof::SecretPost(secret) => {
            request.add("client_id", &own.id);
            request.add("client_secret", read(secret).await?.expose());
        }
        ClientProof::PrivateKeyJwt(key) => {
            let assertion = Zeroizing::new(assertion(&own.id, key, now).await?);
            request.add("client_id", &own.id);
            request.add("client_assertion_type", JWT_BEARER);
            request.add("client_assertion", &assertion);
        }
        ClientProof::Public => request.add("client_id", &own.id),
    }
    Ok(())
}

/// Both parts are form-encoded before they are joined, which many forget: a secret with a
/// `:`, `%` or `+` in it would arrive as another one.
fn basic(id: &str, secret: &SecretString) -> Result<HeaderValue, Failure> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let secret = Zeroizing::new(encoded(secret.expose()));
    let pair = Zeroizing::new(format!("{}:{}", encoded(id), *secret));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Failure::Unauthenticated("the client's secret is unusable".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn assertion(id: &str, key: &AssertionKey, now: UnixMillis) -> Result<String, Failure> {
    let unusable = |cause: String| Failure::Unauthenticated(format!("private_key {cause}"));
    let pem = read(&key.key).await?;
    let signing =
        SigningKey::from_pem(pem.expose(), key.algorithm).map_err(|e| unusable(e.to_string()))?;
    let mut unique = [0; 16];
    rand::fill(&mut unique).map_err(|_| unusable("could not be used: no randomness".into()))?;
    let mut claims: Map<String, Value> = Map::new();
    claims.insert("iss".into(), id.into());
    claims.insert("sub".into(), id.into());
    claims.insert("aud".into(), key.audience.as_str().into());
    claims.insert("jti".into(), URL_SAFE_NO_PAD.encode(unique).into());
    claims.insert("iat".into(), now.as_secs().into());
    claims.insert("exp".into(), now.plus(ASSERTION_LIFE).as_secs().into());
    signing
        .sign(key.key_id.as_deref(), &claims)
        .map_err(|e| unusable(e.to_string()))
}

/// Reads a secret without blocking the worker: it may be a file on a slow volume.
async fn read(secret: &SecretRef) -> Result<SecretString, Failure> {
    let secret = secret.clone();
    tokio::task::spawn_blocking(move || secret.read())
        .await
        .map_err(|_| Failure::Unauthenticated("reading a secret was cut short".into()))?
        .map_err(|error| Failure::Unauthenticated(error.to_string()))
}
