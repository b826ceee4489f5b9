//! Source `taskcluster-oauth`: web-server's `/login/oauth/credentials` (taskcluster.md §0.3
//! and §2).

use async_trait::async_trait;
use http::StatusCode;
use url::Url;

use super::http_client::HttpClient;
use super::taskcluster_exchange;
use crate::clock::SharedClock;
use crate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};

/// Asks web-server with the caller's opaque token. All its failures are 500s; the one with
/// `InputError` means that the token is no good ([`FetchError::Refused`]).
#[derive(Debug)]
pub struct OauthSource {
    url: Url,
    client: HttpClient,
    clock: SharedClock,
}

impl OauthSource {
    /// `root_url` is the deployment's; its path, query and fragment are dropped. `client`
    /// reads at least [`taskcluster_exchange::MAX_ANSWER_BYTES`].
    pub fn new(root_url: &Url, client: HttpClient, clock: SharedClock) -> Self {
        let mut url = root_url.clone();
        url.set_path("/login/oauth/credentials");
        url.set_query(None);
        url.set_fragment(None);
        Self { url, client, clock }
    }
}

#[async_trait]
impl CredentialSource for OauthSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        taskcluster_exchange::bind_to_token(request, key)
    }

    /// The same for the same token at all times.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let refusal = StatusCode::INTERNAL_SERVER_ERROR;
        let now = self.clock.now();
        taskcluster_exchange::exchange(&self.client, &self.url, request, refusal, now).await
    }
}
