//! Source `taskcluster-oauth`: web-server's `/login/oauth/credentials`
//! (`docs/design/taskcluster.md`, "OAuth2 login").

use async_trait::async_trait;
use http::StatusCode;
use url::Url;

use super::credential_source::bind_to_token;
use super::http_client::HttpClient;
use super::taskcluster_exchange;
use crate::clock::SharedClock;
use crate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};

/// Presents the caller's opaque token to web-server. All failures there have status 500; one
/// with `InputError` means that the token was rejected ([`FetchError::Refused`]).
#[derive(Debug)]
pub struct OauthSource {
    url: Url,
    client: HttpClient,
    clock: SharedClock,
}

impl OauthSource {
    /// `root_url` is the deployment's root URL; path, query and fragment are dropped. `client`
    /// must allow responses of [`taskcluster_exchange::MAX_RESPONSE_BYTES`].
    pub fn new(root_url: &Url, client: HttpClient, clock: SharedClock) -> Self {
        Self {
            url: endpoint(root_url, "/login/oauth/credentials"),
            client,
            clock,
        }
    }
}

/// The URL of a web-server endpoint at `path`.
pub(super) fn endpoint(root_url: &Url, path: &str) -> Url {
    let mut url = root_url.clone();
    url.set_path(path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

#[async_trait]
impl CredentialSource for OauthSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        bind_to_token(request, key)
    }

    /// Constant: the cache key of a token never changes.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let refusal = StatusCode::INTERNAL_SERVER_ERROR;
        let now = self.clock.now();
        taskcluster_exchange::exchange(&self.client, &self.url, request, refusal, now).await
    }
}
