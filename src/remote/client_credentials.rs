//! Source `client-credentials`: a token of hawkgate's own OAuth2 client (RFC 6749 §4.4;
//! identity.md §G, seed 004).

use async_trait::async_trait;

use super::oauth::{About, Endpoint, Scopes};
use crate::credential::{
    Credential, CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest,
};

/// What the token is asked for.
#[derive(Clone, Debug, Default)]
pub struct ClientCredentialsSettings {
    /// Whom it is for, as Auth0 and others call it.
    pub audience: Option<String>,
    /// Whom it is for by RFC 8707: an absolute URI.
    pub resource: Option<String>,
    /// Empty: what the server gives by itself.
    pub scopes: Vec<String>,
    /// Auth0's organization.
    pub organization: Option<String>,
}

/// Gives every caller the same token, which is asked for once. Whatever goes wrong is a
/// matter between the operator and the server: never [`FetchError::Refused`].
#[derive(Debug)]
pub struct ClientCredentialsSource {
    settings: ClientCredentialsSettings,
    endpoint: Endpoint,
}

impl ClientCredentialsSource {
    /// `endpoint` is the token endpoint, asked as hawkgate's own client.
    pub fn new(settings: ClientCredentialsSettings, endpoint: Endpoint) -> Self {
        Self { settings, endpoint }
    }
}

#[async_trait]
impl CredentialSource for ClientCredentialsSource {
    /// Nothing: server, client, audience and organization are the source's, and the scopes
    /// after rules are in the key already.
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    /// The same for the same token at all times.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let scopes = Scopes::new(&self.settings.scopes, request)?;
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
        let granted = self.endpoint.grant(&form).await;
        let granted = granted.map_err(|failure| failure.into_fetch_error(About::Ourselves))?;
        scopes.check(&granted)?;
        Ok(Issued {
            credential: Credential::Bearer(granted.access_token),
            expires_at: granted.expires_at,
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
