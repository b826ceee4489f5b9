//! Source `client-credentials`: a token for hawkgate's own OAuth 2.0 client (RFC 6749 §4.4).

use async_trait::async_trait;

use super::oauth::{Endpoint, OnBehalfOf, RequestedScopes};
use crate::credential::{
    Credential, CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest,
};

/// The parameters of the token request.
#[derive(Clone, Debug, Default)]
pub struct ClientCredentialsSettings {
    /// The API that the token is for, as an `audience` parameter (Auth0 and others).
    pub audience: Option<String>,
    /// The API that the token is for, as a `resource` parameter (RFC 8707): an absolute URI.
    pub resource: Option<String>,
    /// The scopes requested; if empty, the server's default.
    pub scopes: Vec<String>,
    /// The Auth0 organization.
    pub organization: Option<String>,
}

/// Gives every caller the same token. Errors concern the operator's configuration or the
/// server, never the caller, so there is no [`FetchError::Refused`].
#[derive(Debug)]
pub struct ClientCredentialsSource {
    settings: ClientCredentialsSettings,
    endpoint: Endpoint,
}

impl ClientCredentialsSource {
    /// `endpoint` is the token endpoint, with hawkgate's own client authentication.
    pub fn new(settings: ClientCredentialsSettings, endpoint: Endpoint) -> Self {
        Self { settings, endpoint }
    }
}

#[async_trait]
impl CredentialSource for ClientCredentialsSource {
    /// Adds nothing: server, client, audience and organization are fixed for the source, and the
    /// scopes left by the rules are part of every key.
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    /// Constant: the cache key of a token never changes.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let scopes = RequestedScopes::new(&self.settings.scopes, request)?;
        let scope = scopes.parameter();
        let optional = [
            ("audience", &self.settings.audience),
            ("resource", &self.settings.resource),
            ("scope", &scope),
            ("organization", &self.settings.organization),
        ];
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(
            optional
                .iter()
                .filter_map(|(n, v)| Some((*n, v.as_deref()?))),
        );
        let response = self.endpoint.grant(&form).await;
        let response = response.map_err(|failure| failure.into_fetch_error(OnBehalfOf::Client))?;
        scopes.check(&response)?;
        Ok(Issued {
            credential: Credential::Bearer(response.access_token),
            expires_at: response.expires_at,
            original: None,
        })
    }

    fn takes_token(&self) -> bool {
        false
    }

    fn is_shared(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
