//! Finds an issuer's JWK Set by its metadata: OpenID Connect Discovery §4, else RFC 8414 §3.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use url::Url;

use super::http_client::{HttpClient, is_loopback};
use super::jwks::{JwksUriFetcher, get_json};
use crate::token::{FetchedKeys, KeyFetchError, KeyFetcher};

/// A found `jwks_uri` is used so many times before the metadata is read again; with keys
/// that are fetched every ten minutes that is about once an hour.
const USES: u32 = 6;

/// An issuer's keys, wherever its metadata says that they are.
#[derive(Debug)]
pub struct DiscoveryFetcher {
    issuer: String,
    client: HttpClient,
    found: Mutex<Option<Found>>,
}

#[derive(Clone, Debug)]
struct Found {
    jwks_uri: Url,
    uses_left: u32,
}

/// What is read of the metadata. A member that is there twice is an error.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl DiscoveryFetcher {
    /// For the issuer with exactly this identifier, by `client` (see
    /// [`super::jwks::key_client`]).
    pub fn new(issuer: &str, client: HttpClient) -> Self {
        Self {
            issuer: issuer.to_owned(),
            client,
            found: Mutex::default(),
        }
    }

    async fn discover(&self) -> Result<Url, KeyFetchError> {
        let issuer = Url::parse(&self.issuer)
            .map_err(|_| KeyFetchError(format!("{} is no URL", self.issuer)))?;
        let oidc = get_json(&self.client, &oidc_location(&issuer)).await;
        let first = match oidc.and_then(|answer| self.jwks_uri(&issuer, &answer.body)) {
            Ok(jwks_uri) => return Ok(jwks_uri),
            Err(error) => error,
        };
        let oauth = get_json(&self.client, &oauth_location(&issuer)).await;
        oauth
            .and_then(|answer| self.jwks_uri(&issuer, &answer.body))
            .map_err(|second| KeyFetchError(format!("discovery failed: {first}; {second}")))
    }

    /// The `jwks_uri` of a metadata document, if that is the issuer's own (OpenID Connect
    /// Discovery §4.3, RFC 8414 §3.3) and the URL is one to go to: never from elsewhere
    /// to this machine.
    fn jwks_uri(&self, issuer: &Url, document: &[u8]) -> Result<Url, KeyFetchError> {
        let wrong = |what: &str| KeyFetchError(format!("the issuer's metadata {what}"));
        let metadata: Metadata = serde_json::from_slice(document)
            .map_err(|_| wrong("is no JSON object with one issuer and one jwks_uri"))?;
        if metadata.issuer != self.issuer {
            return Err(wrong(
                "is that of another issuer: check the configured url, to the slash",
            ));
        }
        let jwks_uri =
            Url::parse(&metadata.jwks_uri).map_err(|_| wrong("has a jwks_uri that is no URL"))?;
        let local = is_loopback(&jwks_uri);
        let acceptable = match jwks_uri.scheme() {
            "https" => !local || is_loopback(issuer),
            "http" => local && is_loopback(issuer),
            _ => false,
        };
        if acceptable {
            Ok(jwks_uri)
        } else {
            Err(wrong("has a jwks_uri that is not https, or is on loopback"))
        }
    }

    fn known(&self) -> Option<Url> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let known = found.as_mut()?;
        known.uses_left = known.uses_left.checked_sub(1)?;
        Some(known.jwks_uri.clone())
    }

    /// The last `jwks_uri`, past its time: better than nothing while the metadata cannot
    /// be had.
    fn outdated(&self) -> Option<Url> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        Some(found.as_ref()?.jwks_uri.clone())
    }

    fn remember(&self, jwks_uri: &Url) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(Found {
            jwks_uri: jwks_uri.clone(),
            uses_left: USES - 1,
        });
    }

    async fn fetch_from(&self, jwks_uri: Url) -> Result<FetchedKeys, KeyFetchError> {
        JwksUriFetcher::new(jwks_uri, self.client.clone())
            .fetch()
            .await
    }
}

#[async_trait]
impl KeyFetcher for DiscoveryFetcher {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        let known = self.known();
        if let Some(jwks_uri) = known.clone()
            && let Ok(keys) = self.fetch_from(jwks_uri).await
        {
            return Ok(keys);
        }
        match (self.discover().await, self.outdated()) {
            (Ok(jwks_uri), _) => {
                self.remember(&jwks_uri);
                self.fetch_from(jwks_uri).await
            }
            (Err(error), Some(jwks_uri)) if known.is_none() => {
                self.fetch_from(jwks_uri).await.map_err(|_| error)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Appended to the issuer, less a final slash (OpenID Connect Discovery §4.1).
pub(super) fn oidc_location(issuer: &Url) -> Url {
    let mut location = issuer.clone();
    let path = issuer.path().trim_end_matches('/');
    location.set_path(&format!("{path}/.well-known/openid-configuration"));
    location
}

/// Between host and path (RFC 8414 §3.1).
pub(super) fn oauth_location(issuer: &Url) -> Url {
    let mut location = issuer.clone();
    let path = issuer.path().trim_end_matches('/');
    location.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    location
}

#[cfg(test)]
mod tests;
