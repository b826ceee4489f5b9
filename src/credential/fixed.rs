//! Source `taskcluster-static`: one configured client for everybody.

mod update;

use arc_swap::ArcSwap;
use async_trait::async_trait;

pub use super::local::SettingsError;
use super::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest, local, scope};
use crate::hawk::certificate::is_client_id;
use crate::hawk::{Certificate, Credentials};
use crate::secret::SecretRef;

pub use update::{MAX_UPDATE_BYTES, UpdateError};

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
    put: ArcSwap<Put>,
}

/// What was put in place of the configured credentials.
#[derive(Debug, Default)]
struct Put {
    /// How often that was done. Part of every caller's identity, so that the cache has
    /// nothing of before and a 401 to the old credentials is healed with the new ones.
    count: u64,
    /// Without scopes: those of the settings go on to narrow.
    credentials: Option<Credentials>,
}

impl FixedSource {
    /// # Errors
    /// When no credential made with `settings` could be good.
    pub fn new(settings: FixedSettings) -> Result<Self, SettingsError> {
        if !is_client_id(&settings.client_id) {
            return Err(SettingsError::ClientId);
        }
        local::check_scopes(settings.authorized_scopes.as_deref().unwrap_or_default())?;
        Ok(Self {
            settings,
            put: ArcSwap::default(),
        })
    }

    /// Puts the credentials in `body`, JSON as taskcluster-proxy takes it
    /// (`{"clientId", "accessToken", "certificate"}`), in place of the configured ones, for
    /// every request that begins from now on; those under way are not disturbed. Kept in
    /// memory only. Returns the new client's name.
    ///
    /// # Errors
    /// When they are no credentials, or none that could sign a request; the old ones stay.
    pub fn update(&self, body: &[u8]) -> Result<String, UpdateError> {
        let credentials = update::parse(body)?;
        update::check(&credentials, self.settings.authorized_scopes.as_deref())?;
        let name = credentials.client_id.clone();
        self.put.rcu(|put| Put {
            count: put.count + 1,
            credentials: Some(credentials.clone()),
        });
        Ok(name)
    }

    /// Those that were put, or else the configured ones, read now.
    async fn credentials(&self) -> Result<Credentials, FetchError> {
        if let Some(put) = &self.put.load().credentials {
            return Ok(put.clone());
        }
        let access_token = local::read(&self.settings.access_token).await?;
        let certificate = match &self.settings.certificate {
            Some(secret) => {
                let text = local::read(secret).await?;
                let parsed = Certificate::parse(text.expose());
                Some(parsed.map_err(|error| FetchError::BadAnswer(error.to_string()))?)
            }
            None => None,
        };
        Ok(Credentials {
            client_id: self.settings.client_id.clone(),
            access_token,
            certificate,
            authorized_scopes: None,
        })
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
    fn takes_token(&self) -> bool {
        false
    }

    /// Which credentials these are; what differs between callers is in the key already.
    fn identity(&self, _: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        key.part(&self.put.load().count.to_le_bytes());
        Ok(())
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.put.load().count)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let credentials = self.credentials().await?;
        let authorized_scopes = self.authorized_scopes(request);
        local::check_scopes(authorized_scopes.as_deref().unwrap_or_default())
            .map_err(|error| FetchError::BadAnswer(error.to_string()))?;
        // Stated in the service's clock.
        let expires_at = credentials
            .certificate
            .as_ref()
            .and_then(Certificate::expiry)
            .map(|expiry| expiry.offset_by(request.clock_offset.saturating_neg()));
        let credential = local::credential(&Credentials {
            authorized_scopes,
            ..credentials
        })?;
        Ok(Issued {
            credential,
            expires_at,
        })
    }
}

#[cfg(test)]
mod tests;
