//! Source `taskcluster-login`: the `oidcCredentials` endpoint (`docs/design/taskcluster.md`,
//! "Login endpoint: oidcCredentials").

use async_trait::async_trait;
use http::StatusCode;
use url::Url;

use super::credential_source::bind_to_token;
use super::http_client::HttpClient;
use super::taskcluster_exchange;
use crate::clock::SharedClock;
use crate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};

/// Presents the caller's token to the endpoint. It responds to every bad token with a 400
/// `InputError`, and likewise if the provider is unknown or the identity provider is down. These
/// cases cannot be distinguished, so all are [`FetchError::Refused`].
#[derive(Debug)]
pub struct LoginSource {
    url: Url,
    client: HttpClient,
    clock: SharedClock,
}

impl LoginSource {
    /// `url` is the endpoint including the provider; `client` must allow responses of
    /// [`taskcluster_exchange::MAX_RESPONSE_BYTES`].
    pub fn new(url: Url, client: HttpClient, clock: SharedClock) -> Self {
        Self { url, client, clock }
    }
}

#[async_trait]
impl CredentialSource for LoginSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        bind_to_token(request, key)
    }

    /// Constant: the cache key of a token never changes.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let refusal = StatusCode::BAD_REQUEST;
        let now = self.clock.now();
        taskcluster_exchange::exchange(&self.client, &self.url, request, refusal, now).await
    }
}
