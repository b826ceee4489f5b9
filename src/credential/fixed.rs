//! Source `taskcluster-static`: one configured client for everybody.

use async_trait::async_trait;

pub use super::local::SettingsError;
use super::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest, local, scope};
use crate::hawk::certificate::is_client_id;
use crate::hawk::{Certificate, Credentials};
use crate::secret::SecretRef;

/// The keys of a `taskcluster-static` source.
#[derive(Clone, Debug)]
pub struct FixedSettings {
    /// The client.
    pub client_id: String,
    /// Its key, read anew at each fetch, so that a rotated file heals a 401.
    pub access_token: SecretRef,
    /// For temporary credentials: the certificate's JSON. Read with the key.
    pub certificate: Option<SecretRef>,
    /// Narrows every call; `Some([])` is no scopes.
    pub authorized_scopes: Option<Vec<String>>,
}

/// Gives everybody the same client, narrowed.
#[derive(Debug)]
pub struct FixedSource {
    settings: FixedSettings,
}

impl FixedSource {
    /// # Errors
    /// When no credential made with `settings` could be good.
    pub fn new(settings: FixedSettings) -> Result<Self, SettingsError> {
        if !is_client_id(&settings.client_id) {
            return Err(SettingsError::ClientId);
        }
        local::check_scopes(settings.authorized_scopes.as_deref().unwrap_or_default())?;
        Ok(Self { settings })
    }

    /// What both the file and the rules leave. Without a list of its own the source grants
    /// whatever the client holds, so the rules' list is the narrower one.
    fn authorized_scopes(&self, request: &SwapRequest) -> Option<Vec<String>> {
        match (&self.settings.authorized_scopes, &request.scopes) {
            (Some(own), Some(wanted)) => Some(scope::intersect(own, wanted)),
            (Some(own), None) => Some(own.clone()),
            (None, Some(wanted)) => Some(wanted.to_vec()),
            (None, None) => None,
        }
    }
}

#[async_trait]
impl CredentialSource for FixedSource {
    /// Nothing: what differs between callers is in the key already.
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let access_token = local::read(&self.settings.access_token).await?;
        let certificate = match &self.settings.certificate {
            Some(secret) => {
                let text = local::read(secret).await?;
                let parsed = Certificate::parse(text.expose());
                Some(parsed.map_err(|error| FetchError::BadAnswer(error.to_string()))?)
            }
            None => None,
        };
        let authorized_scopes = self.authorized_scopes(request);
        local::check_scopes(authorized_scopes.as_deref().unwrap_or_default())
            .map_err(|error| FetchError::BadAnswer(error.to_string()))?;
        // Stated in the service's clock.
        let expires_at = certificate
            .as_ref()
            .and_then(Certificate::expiry)
            .map(|expiry| expiry.offset_by(request.clock_offset.saturating_neg()));
        let credential = local::credential(&Credentials {
            client_id: self.settings.client_id.clone(),
            access_token,
            certificate,
            authorized_scopes,
        })?;
        Ok(Issued {
            credential,
            expires_at,
        })
    }
}

#[cfg(test)]
mod tests;
