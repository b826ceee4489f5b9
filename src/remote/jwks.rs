//! Fetches an issuer's JWK Set from a URL or a file. The module `discovery` finds the URL if
//! only the issuer is configured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{AGE, CACHE_CONTROL};
use url::Url;

use super::http_client::{HttpClient, HttpClientOptions, HttpResponse, TransportError};
use super::keys_token::KeysToken;
use super::well_known::get_json;
use crate::bounded_file;
use crate::network::Network;
use crate::secret::SecretRef;
use crate::token::{FetchedKeys, KeyFetchError, KeyFetcher, MAX_JWKS_BYTES};

/// The timeout of one request, including connecting (`docs/design/tokens.md`, "Keys").
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long the contents of a file are cached.
const FILE_TTL: Duration = Duration::from_secs(5);

/// An HTTP client with the limits for key documents: 3 s and 256 KiB. `ca` is a PEM file with
/// the only CAs trusted.
///
/// # Errors
/// When `ca` cannot be read or the HTTP client cannot be built.
pub fn key_client(ca: Option<PathBuf>, network: &Network) -> Result<HttpClient, TransportError> {
    HttpClient::new(&HttpClientOptions {
        timeout: TIMEOUT,
        max_bytes: MAX_JWKS_BYTES,
        ca,
        network: network.clone(),
    })
}

/// Fetches a JWK Set from a URL. Ignores the content type: `application/json`,
/// `application/jwk-set+json` and wrong ones are all in use, and the parser is strict.
#[derive(Debug)]
pub struct JwksUriFetcher {
    url: Url,
    /// What the URL is, if the issuer's metadata named it.
    named_by_peer: Option<&'static str>,
    client: HttpClient,
    token: Option<KeysToken>,
}

impl JwksUriFetcher {
    /// Fetches `url` with `client` (see [`key_client`]).
    pub fn new(url: Url, client: HttpClient) -> Self {
        Self {
            url,
            named_by_peer: None,
            client,
            token: None,
        }
    }

    /// Authenticates with the bearer token in `secret`, if any.
    #[must_use]
    pub fn with_token(mut self, secret: Option<SecretRef>) -> Self {
        self.token = secret.map(|secret| KeysToken::new(secret, &self.url));
        self
    }

    /// Like [`Self::new`], for a `url` from the issuer's metadata, with the token for the issuer.
    pub(super) fn discovered(url: Url, client: HttpClient, token: Option<KeysToken>) -> Self {
        Self {
            named_by_peer: Some("the metadata's jwks_uri"),
            token,
            ..Self::new(url, client)
        }
    }
}

#[async_trait]
impl KeyFetcher for JwksUriFetcher {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        let (url, token) = (&self.url, self.token.as_ref());
        let response = get_json(&self.client, url, self.named_by_peer, token).await?;
        Ok(FetchedKeys {
            max_age: max_age(&response),
            document: response.body.into(),
        })
    }
}

/// How long the response stays fresh: `max-age` less `Age` (RFC 9111 §4.2), or zero with
/// `no-cache` or `no-store`.
fn max_age(response: &HttpResponse) -> Option<Duration> {
    let mut max_age = None;
    for line in response.headers.get_all(CACHE_CONTROL) {
        for directive in line.to_str().unwrap_or_default().split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" | "no-store" => return Some(Duration::ZERO),
                "max-age" => max_age = max_age.or(value.trim().trim_matches('"').parse().ok()),
                _ => {}
            }
        }
    }
    let age = response
        .header(&AGE)
        .and_then(|age| age.trim().parse().ok());
    Some(Duration::from_secs(max_age?).saturating_sub(Duration::from_secs(age.unwrap_or(0))))
}

/// Reads a JWK Set from a file, again after 5 seconds.
#[derive(Debug)]
pub struct JwksFileFetcher {
    path: PathBuf,
}

impl JwksFileFetcher {
    /// Reads `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

/// Reads a JWK Set from a file. Blocks.
///
/// # Errors
/// If it cannot be read or is larger than 256 KiB.
pub fn read_key_file(path: &Path) -> Result<Vec<u8>, KeyFetchError> {
    let read = bounded_file::read(path, MAX_JWKS_BYTES as u64);
    let document = read.map_err(|e| KeyFetchError(format!("{} {e}", path.display())))?;
    Ok(document.to_vec())
}

#[async_trait]
impl KeyFetcher for JwksFileFetcher {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        let path = self.path.clone();
        let document = tokio::task::spawn_blocking(move || read_key_file(&path))
            .await
            .map_err(|_| KeyFetchError("reading the file was interrupted".into()))??;
        Ok(FetchedKeys {
            document,
            max_age: None,
        })
    }

    fn fixed_ttl(&self) -> Option<Duration> {
        Some(FILE_TTL)
    }
}

#[cfg(test)]
pub(super) mod tests;
