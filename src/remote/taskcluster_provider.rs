//! The provider of sessions of kind `taskcluster`: the OAuth2 login of a deployment's web-server
//! (`docs/design/taskcluster.md`, "OAuth2 login"). It is not an OpenID provider: there is no client
//! secret, no PKCE, no ID token and no refresh token, and the opaque token of ten minutes is good
//! for one thing, Taskcluster credentials.

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use url::Url;

use super::http_client::{HttpClient, HttpClientOptions, TransportError};
use super::oauth::Endpoint;
use super::settings::{ClientProof, OauthClient, TaskclusterProviderSettings};
use super::taskcluster_exchange::{self, MAX_RESPONSE_BYTES};
use super::taskcluster_oauth::endpoint;
use crate::clock::{Now, SharedClock};
use crate::credential::Lease;
use crate::network::Network;
use crate::secret::SecretString;
use crate::session::{
    IdentityProvider, LogoutToken, LogoutTokenError, ProviderEndpoints, ProviderError,
    ProviderGrant, SessionGrant,
};
use crate::signin::AuthorizationCode;
use crate::token::BearerToken;

/// A Taskcluster deployment.
#[derive(Debug)]
pub struct TaskclusterProvider {
    endpoints: ProviderEndpoints,
    token: Endpoint,
    credentials: Url,
    client: HttpClient,
    clock: SharedClock,
}

impl TaskclusterProvider {
    /// The deployment of `settings`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(
        settings: TaskclusterProviderSettings,
        network: &Network,
        clock: SharedClock,
    ) -> Result<Self, TransportError> {
        let client = HttpClient::new(&HttpClientOptions {
            timeout: settings.timeout,
            max_bytes: MAX_RESPONSE_BYTES,
            ca: settings.ca,
            network: network.clone(),
        })?;
        let own = OauthClient {
            id: settings.client_id,
            proof: ClientProof::Public,
        };
        let at = |path| endpoint(&settings.root_url, path);
        Ok(Self {
            endpoints: ProviderEndpoints {
                issuer: settings.root_url.origin().ascii_serialization(),
                authorization: at("/login/oauth/authorize"),
                end_session: None,
                iss_required: false,
            },
            token: Endpoint::new(
                at("/login/oauth/token"),
                own,
                client.clone(),
                Arc::clone(&clock),
            ),
            credentials: at("/login/oauth/credentials"),
            client,
            clock,
        })
    }
}

#[async_trait]
impl IdentityProvider for TaskclusterProvider {
    async fn endpoints(&self) -> Result<ProviderEndpoints, ProviderError> {
        Ok(self.endpoints.clone())
    }

    /// Exchanges the code for a token, and the token for credentials.
    async fn redeem(&self, code: &AuthorizationCode) -> Result<ProviderGrant, ProviderError> {
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code.code.expose()),
            ("redirect_uri", code.redirect_uri.as_str()),
        ];
        let response = self.token.grant(&parameters).await?;
        let token = BearerToken::new(response.access_token.expose()).map_err(|error| {
            ProviderError::InvalidToken(format!("the deployment's token cannot be used: {error}"))
        })?;
        let now = Now::read(&*self.clock);
        let (client, url) = (&self.client, &self.credentials);
        // Every failure has status 500 there; with `InputError` it means that the token was rejected.
        let refusal = StatusCode::INTERNAL_SERVER_ERROR;
        let issued = taskcluster_exchange::present(client, url, &token, refusal, now.wall).await?;
        let credential = taskcluster_exchange::credential(&issued.credentials)?;
        let lease = Lease::detached(credential, issued.expires_at, now);
        if !lease.is_usable(now) {
            let text = "the credentials that the deployment issued have already expired";
            return Err(ProviderError::InvalidToken(text.to_owned()));
        }
        Ok(ProviderGrant {
            subject: issued.credentials.client_id.clone(),
            grant: SessionGrant::Taskcluster {
                lease,
                credentials: issued.credentials,
                expires_at: issued.expires_at,
            },
            name: None,
            email: None,
            provider_session: None,
        })
    }

    /// Not possible: the user has to sign in again.
    async fn refresh(
        &self,
        _refresh_token: &SecretString,
        _subject: &str,
    ) -> Result<ProviderGrant, ProviderError> {
        let text = "a Taskcluster deployment issues no refresh tokens";
        Err(ProviderError::Refused(text.to_owned()))
    }

    /// There is nothing to revoke.
    async fn revoke(&self, _refresh_token: &SecretString) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn verify_logout_token(&self, _token: &str) -> Result<LogoutToken, LogoutTokenError> {
        let text = "a Taskcluster deployment sends no logout tokens";
        Err(LogoutTokenError::Invalid(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
