//! Source `taskcluster-login`: the `oidcCredentials` endpoint (taskcluster.md §1, seed 000).

use async_trait::async_trait;
use http::StatusCode;
use url::Url;

use super::http_client::HttpClient;
use super::taskcluster_exchange;
use crate::clock::SharedClock;
use crate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};

/// Asks the endpoint with the caller's token. Every bad token is a 400 `InputError` there,
/// as are an unknown provider and an identity provider that is down: the endpoint does not
/// tell them apart, so neither can we, and all are [`FetchError::Refused`].
#[derive(Debug)]
pub struct LoginSource {
    url: Url,
    client: HttpClient,
    clock: SharedClock,
}

impl LoginSource {
    /// `url` is the endpoint itself, provider included; `client` reads at least
    /// [`taskcluster_exchange::MAX_ANSWER_BYTES`].
    pub fn new(url: Url, client: HttpClient, clock: SharedClock) -> Self {
        Self { url, client, clock }
    }
}

#[async_trait]
impl CredentialSource for LoginSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        taskcluster_exchange::bind_to_token(request, key)
    }

    /// The same for the same token at all times.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let refusal = StatusCode::BAD_REQUEST;
        let now = self.clock.now();
        taskcluster_exchange::exchange(&self.client, &self.url, request, refusal, now).await
    }
}
