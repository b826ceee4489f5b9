//! Finds an issuer's JWK Set through its metadata: OpenID Connect Discovery §4, else RFC 8414
//! §3.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use url::Url;

use super::http_client::{HttpClient, HttpResponse};
use super::jwks::JwksUriFetcher;
use super::keys_token::KeysToken;
use super::well_known::{
    GetError, get_json, is_acceptable_url, oauth_authorization_server, openid_configuration,
};
use crate::secret::SecretRef;
use crate::token::{FetchedKeys, KeyFetchError, KeyFetcher};

/// How many times a `jwks_uri` is used before the metadata is read again. With keys fetched
/// every ten minutes, that is about once an hour.
const MAX_USES: u32 = 6;

/// Fetches an issuer's keys from the `jwks_uri` in its metadata.
#[derive(Debug)]
pub struct DiscoveryFetcher {
    issuer: String,
    client: HttpClient,
    token: Option<KeysToken>,
    cached: Mutex<Option<CachedUri>>,
}

#[derive(Clone, Debug)]
struct CachedUri {
    jwks_uri: Url,
    uses_left: u32,
}

/// The metadata members that are used. serde rejects repeated ones.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl DiscoveryFetcher {
    /// Creates a fetcher for the issuer with exactly this identifier. It uses `client` (see
    /// [`super::jwks::key_client`]).
    pub fn new(issuer: &str, client: HttpClient) -> Self {
        Self {
            issuer: issuer.to_owned(),
            client,
            token: None,
            cached: Mutex::default(),
        }
    }

    /// Authenticates with the bearer token in `secret`, if any, at the issuer's own origin.
    #[must_use]
    pub fn with_token(mut self, secret: Option<SecretRef>) -> Self {
        // The issuer is a URL, or every fetch fails.
        let issuer = Url::parse(&self.issuer).ok();
        let known = secret.zip(issuer);
        self.token = known.map(|(secret, url)| KeysToken::new(secret, &url));
        self
    }

    async fn discover(&self) -> Result<Url, KeyFetchError> {
        let issuer = Url::parse(&self.issuer)
            .map_err(|_| KeyFetchError(format!("{} is not a URL", self.issuer)))?;
        let read = |response: HttpResponse| self.jwks_uri(&issuer, &response.body);
        let first = match self.metadata(&openid_configuration(&issuer)).await {
            Err(error) if error.no_response => {
                return Err(KeyFetchError(format!("discovery failed: {error}")));
            }
            fetched => fetched.map_err(KeyFetchError::from).and_then(read),
        };
        let first = match first {
            Ok(jwks_uri) => return Ok(jwks_uri),
            Err(error) => error,
        };
        let oauth = self.metadata(&oauth_authorization_server(&issuer)).await;
        oauth
            .map_err(KeyFetchError::from)
            .and_then(read)
            .map_err(|second| discovery_failed(&first, &second))
    }

    async fn metadata(&self, url: &Url) -> Result<HttpResponse, GetError> {
        get_json(&self.client, url, None, self.token.as_ref()).await
    }

    /// The `jwks_uri` of a metadata document, provided that the document is the issuer's own
    /// (OpenID Connect Discovery §4.3, RFC 8414 §3.3) and the URL may be used.
    fn jwks_uri(&self, issuer: &Url, document: &[u8]) -> Result<Url, KeyFetchError> {
        let invalid = |what: &str| KeyFetchError(format!("the issuer's metadata {what}"));
        let metadata: Metadata = serde_json::from_slice(document)
            .map_err(|_| invalid("is not a JSON object with one issuer and one jwks_uri"))?;
        if metadata.issuer != self.issuer {
            return Err(invalid(
                "names another issuer: check the configured url, including any trailing slash",
            ));
        }
        let jwks_uri = Url::parse(&metadata.jwks_uri)
            .map_err(|_| invalid("has a jwks_uri that is not a URL"))?;
        if is_acceptable_url(&jwks_uri, issuer) {
            Ok(jwks_uri)
        } else {
            Err(invalid(
                "has a jwks_uri that is not https, or is on loopback",
            ))
        }
    }

    /// The cached `jwks_uri`, unless it has been used [`MAX_USES`] times.
    fn fresh(&self) -> Option<Url> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let uri = cached.as_mut()?;
        uri.uses_left = uri.uses_left.checked_sub(1)?;
        Some(uri.jwks_uri.clone())
    }

    /// The cached `jwks_uri` however often it was used, as a fallback while the metadata is
    /// unavailable.
    fn stale(&self) -> Option<Url> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        Some(cached.as_ref()?.jwks_uri.clone())
    }

    fn cache(&self, jwks_uri: &Url) {
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some(CachedUri {
            jwks_uri: jwks_uri.clone(),
            uses_left: MAX_USES - 1,
        });
    }

    async fn fetch_from(&self, jwks_uri: Url) -> Result<FetchedKeys, KeyFetchError> {
        JwksUriFetcher::discovered(jwks_uri, self.client.clone(), self.token.clone())
            .fetch()
            .await
    }
}

/// The error of a discovery for which neither document could be used. A cause that both share
/// is named once.
fn discovery_failed(oidc: &KeyFetchError, oauth: &KeyFetchError) -> KeyFetchError {
    KeyFetchError(if oidc.0 == oauth.0 {
        format!("discovery failed: {oidc}")
    } else {
        format!("discovery failed: {oidc}; as an OAuth authorization server: {oauth}")
    })
}

#[async_trait]
impl KeyFetcher for DiscoveryFetcher {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        let fresh = self.fresh();
        if let Some(jwks_uri) = fresh.clone()
            && let Ok(keys) = self.fetch_from(jwks_uri).await
        {
            return Ok(keys);
        }
        match (self.discover().await, self.stale()) {
            (Ok(jwks_uri), _) => {
                self.cache(&jwks_uri);
                self.fetch_from(jwks_uri).await
            }
            (Err(error), Some(jwks_uri)) if fresh.is_none() => {
                self.fetch_from(jwks_uri).await.map_err(|_| error)
            }
            (Err(error), _) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
