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

/// The lifetime of an assertion.
const ASSERTION_LIFE: Duration = Duration::from_mins(1);

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A request being built. Its content is wiped from memory on drop.
pub(super) struct Request {
    form: Zeroizing<String>,
    /// The `Authorization` field, if the client authenticates with it.
    pub(super) authorization: Option<HeaderValue>,
}

impl Request {
    pub(super) fn new(parameters: &[(&str, &str)]) -> Self {
        // An escaped byte takes three. Reserving everything up front means that no reallocation leaves
        // an unwiped copy behind.
        let escaped_len = |(name, value): &(&str, &str)| name.len() + 3 * value.len() + 2;
        let capacity = parameters.iter().map(escaped_len).sum::<usize>() + 8 * 1024;
        let mut request = Self {
            form: Zeroizing::new(String::with_capacity(capacity)),
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

    /// The same parameters as a JSON object of strings.
    pub(super) fn into_json(self) -> Self {
        let members: BTreeMap<_, _> = form_urlencoded::parse(self.form.as_bytes()).collect();
        // A map of strings can always be serialized.
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

/// Adds client authentication to `request`.
pub(super) async fn authenticate(
    config: &OauthClient,
    request: &mut Request,
    now: UnixMillis,
) -> Result<(), Failure> {
    match &config.proof {
        ClientProof::SecretBasic(secret) => {
            request.authorization = Some(basic(&config.id, &read(secret).await?)?);
        }
        ClientProof::SecretPost(secret) => {
            request.add("client_id", &config.id);
            request.add("client_secret", read(secret).await?.expose());
        }
        ClientProof::PrivateKeyJwt(key) => {
            let assertion = Zeroizing::new(assertion(&config.id, key, now).await?);
            request.add("client_id", &config.id);
            request.add("client_assertion_type", JWT_BEARER);
            request.add("client_assertion", &assertion);
        }
        ClientProof::Public => request.add("client_id", &config.id),
    }
    Ok(())
}

/// Both parts are form-encoded before they are joined (RFC 6749 §2.3.1). Otherwise a secret with
/// a `:`, `%` or `+` would be decoded to a different one.
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
    let signing_key =
        SigningKey::from_pem(pem.expose(), key.algorithm).map_err(|e| unusable(e.to_string()))?;
    let mut jti = [0; 16];
    rand::fill(&mut jti)
        .map_err(|_| unusable("could not be used: the random number generator failed".into()))?;
    let mut claims: Map<String, Value> = Map::new();
    claims.insert("iss".into(), id.into());
    claims.insert("sub".into(), id.into());
    claims.insert("aud".into(), key.audience.as_str().into());
    claims.insert("jti".into(), URL_SAFE_NO_PAD.encode(jti).into());
    claims.insert("iat".into(), now.as_secs().into());
    claims.insert("exp".into(), now.plus(ASSERTION_LIFE).as_secs().into());
    signing_key
        .sign(key.key_id.as_deref(), &claims)
        .map_err(|e| unusable(e.to_string()))
}

/// Reads a secret without blocking the runtime, since it may be a file on a slow volume.
async fn read(secret: &SecretRef) -> Result<SecretString, Failure> {
    let secret = secret.clone();
    tokio::task::spawn_blocking(move || secret.read())
        .await
        .map_err(|_| Failure::Unauthenticated("reading a secret was interrupted".into()))?
        .map_err(|error| Failure::Unauthenticated(error.to_string()))
}
