//! Chooses how an issuer's keys are fetched: by discovery, from a URL, or from a file.

use std::sync::Arc;

use super::discovery::DiscoveryFetcher;
use super::http_client::TransportError;
use super::jwks::{JwksFileFetcher, JwksUriFetcher, key_client};
use crate::network::Network;
use crate::token::KeyFetcher;
use crate::token::settings::{KeyLocation, OidcIssuer};

/// The key fetcher that `issuer` is configured with. Fetches nothing yet.
///
/// # Errors
/// When the HTTP client cannot be built.
pub fn key_fetcher(
    issuer: &OidcIssuer,
    network: &Network,
) -> Result<Arc<dyn KeyFetcher>, TransportError> {
    let token = issuer.keys_token.clone();
    Ok(match &issuer.keys {
        KeyLocation::Discovery => {
            let client = key_client(issuer.ca.clone(), network)?;
            Arc::new(DiscoveryFetcher::new(&issuer.url, client).with_token(token))
        }
        KeyLocation::Url(url) => {
            let client = key_client(issuer.ca.clone(), network)?;
            Arc::new(JwksUriFetcher::new(url.clone(), client).with_token(token))
        }
        KeyLocation::File(path) => Arc::new(JwksFileFetcher::new(path.clone())),
    })
}
