//! Fetches an issuer's JWK Set: from a URL or a file; [`super::discovery`] finds the URL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT, AGE, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::AsyncReadExt as _;
use url::Url;

use super::discovery::DiscoveryFetcher;
use super::http_client::{HttpClient, HttpClientOptions, HttpResponse, TransportError};
use crate::config::{KeyLocation, OidcIssuer};
use crate::token::{FetchedKeys, KeyFetchError, KeyFetcher, MAX_JWKS_BYTES};

/// For one request, connection included (identity.md §A).
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long the content of a file is taken as read.
const FILE_TTL: Duration = Duration::from_secs(5);

/// The way to the keys of `issuer`, as configured. Nothing is fetched yet.
///
/// # Errors
/// When the HTTP client cannot be set up.
pub fn key_fetcher(issuer: &OidcIssuer) -> Result<Arc<dyn KeyFetcher>, TransportError> {
    Ok(match &issuer.keys {
        KeyLocation::Discovery => {
            let client = key_client(issuer.ca.clone())?;
            Arc::new(DiscoveryFetcher::new(&issuer.url, client))
        }
        KeyLocation::Url(url) => {
            let client = key_client(issuer.ca.clone())?;
            Arc::new(JwksUriFetcher::new(url.clone(), client))
        }
        KeyLocation::File(path) => Arc::new(JwksFileFetcher::new(path.clone())),
    })
}

/// A client within the limits for keys: 3 s, 256 KiB, no redirects, https off loopback. `ca`
/// is a PEM file with the only CAs to trust.
///
/// # Errors
/// When `ca` cannot be read or TLS cannot be set up.
pub fn key_client(ca: Option<PathBuf>) -> Result<HttpClient, TransportError> {
    HttpClient::new(&HttpClientOptions {
        timeout: TIMEOUT,
        max_bytes: MAX_JWKS_BYTES,
        ca,
    })
}

/// A JWK Set at a URL. The content type is not looked at: `application/json`,
/// `application/jwk-set+json` and wrong ones are all in use, and the parser is strict.
#[derive(Debug)]
pub struct JwksUriFetcher {
    url: Url,
    client: HttpClient,
}

impl JwksUriFetcher {
    /// From `url`, by `client` (see [`key_client`]).
    pub fn new(url: Url, client: HttpClient) -> Self {
        Self { url, client }
    }
}

#[async_trait]
impl KeyFetcher for JwksUriFetcher {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        let answer = get_json(&self.client, &self.url).await?;
        Ok(FetchedKeys {
            max_age: max_age(&answer),
            document: answer.body.into(),
        })
    }
}

/// A 200 answer from `url`, whatever its content.
pub(super) async fn get_json(
    client: &HttpClient,
    url: &Url,
) -> Result<HttpResponse, KeyFetchError> {
    let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
    let answer = client
        .get(url, HeaderMap::from_iter([(ACCEPT, accept)]))
        .await
        .map_err(|error| KeyFetchError(error.to_string()))?;
    if answer.status == StatusCode::OK {
        return Ok(answer);
    }
    let host = url.host_str().unwrap_or_default();
    let (status, path) = (answer.status, url.path());
    Err(KeyFetchError(format!(
        "{host} answered {status} for {path}"
    )))
}

/// How long the answer is still fresh: `max-age` less `Age` (RFC 9111 §4.2), and not at
/// all with `no-cache` or `no-store`.
fn max_age(answer: &HttpResponse) -> Option<Duration> {
    let mut stated = None;
    for line in answer.headers.get_all(CACHE_CONTROL) {
        for directive in line.to_str().unwrap_or_default().split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" | "no-store" => return Some(Duration::ZERO),
                "max-age" => stated = stated.or(value.trim().trim_matches('"').parse().ok()),
                _ => {}
            }
        }
    }
    let age = answer.header(&AGE).and_then(|age| age.trim().parse().ok());
    Some(Duration::from_secs(stated?).saturating_sub(Duration::from_secs(age.unwrap_or(0))))
}

/// A JWK Set in a file, read again when it is older than a few seconds.
#[derive(Debug)]
pub struct JwksFileFetcher {
    path: PathBuf,
}

impl JwksFileFetcher {
    /// From `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    async fn read(&self) -> std::io::Result<Vec<u8>> {
        let file = tokio::fs::File::open(&self.path).await?;
        let mut document = Vec::new();
        // One byte more than allowed, so that the parser sees that it is too large.
        let limit = MAX_JWKS_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut document).await?;
        Ok(document)
    }
}

#[async_trait]
impl KeyFetcher for JwksFileFetcher {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        let path = self.path.display();
        match self.read().await {
            Ok(document) if document.len() > MAX_JWKS_BYTES => {
                Err(KeyFetchError(format!("{path} is larger than 256 KiB")))
            }
            Ok(document) => Ok(FetchedKeys {
                document,
                max_age: None,
            }),
            Err(error) => Err(KeyFetchError(format!("{path} cannot be read: {error}"))),
        }
    }

    fn fixed_ttl(&self) -> Option<Duration> {
        Some(FILE_TTL)
    }
}

#[cfg(test)]
pub(super) mod tests;
