//! The source `taskcluster-static`: one configured Taskcluster client for every caller.

pub(super) mod update;

use std::fmt::Display;

use arc_swap::ArcSwap;
use async_trait::async_trait;

pub use super::local::{SettingsError, UnusableCredentials};
use super::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest, local, scope};
use crate::clock::UnixMillis;
use crate::hawk::certificate::is_client_id;
use crate::hawk::{Certificate, Credentials};
use crate::secret::SecretRef;

pub use update::{MAX_UPDATE_BYTES, UpdateError};

/// The settings of a `taskcluster-static` source.
#[derive(Clone, Debug)]
pub struct StaticSettings {
    /// The clientId.
    pub client_id: String,
    /// The accessToken, read again for each fetch, so that a rotated file is picked up after a
    /// 401.
    pub access_token: SecretRef,
    /// The certificate of temporary credentials, as JSON. Read together with the accessToken.
    pub certificate: Option<SecretRef>,
    /// The scopes that every request is narrowed to; `Some([])` means none at all.
    pub authorized_scopes: Option<Vec<String>>,
}

/// Issues the same client's credentials to every caller, narrowed to the allowed scopes.
#[derive(Debug)]
pub struct StaticSource {
    settings: StaticSettings,
    replacement: ArcSwap<Replacement>,
}

/// Credentials that replace the configured ones.
#[derive(Debug, Default)]
struct Replacement {
    /// The number of replacements so far. It is part of every caller's identity, so the old
    /// credentials are no longer found in the cache, and a request that was rejected with them
    /// is retried with the new ones.
    count: u64,
    /// Without `authorized_scopes`: those in the settings still apply.
    credentials: Option<Credentials>,
}

impl StaticSettings {
    /// Reads the secrets and signs with them once, as each request does later. Blocks. Returns when
    /// the credentials expire, if they do.
    ///
    /// # Errors
    /// If no request could be signed.
    pub fn check(&self) -> Result<Option<UnixMillis>, UnusableCredentials> {
        let access_token = local::read_access_token(&self.access_token)?;
        let unusable = |error: &dyn Display| UnusableCredentials::new("certificate", error);
        let certificate = match &self.certificate {
            Some(secret) => {
                let text = secret.read().map_err(|e| unusable(&e))?;
                let certificate = Certificate::parse(text.expose()).map_err(|e| unusable(&e))?;
                certificate.check().map_err(|e| unusable(&e))?;
                Some(certificate)
            }
            None => None,
        };
        let expiry = certificate.as_ref().and_then(Certificate::expiry);
        let blamed = match certificate {
            Some(_) => "certificate",
            None => "authorized_scopes",
        };
        let credentials = Credentials {
            client_id: self.client_id.clone(),
            access_token,
            certificate,
            authorized_scopes: self.authorized_scopes.clone(),
        };
        local::check_signing(blamed, &credentials)?;
        Ok(expiry)
    }
}

impl StaticSource {
    /// # Errors
    /// If no credential made from `settings` could be valid.
    pub fn new(settings: StaticSettings) -> Result<Self, SettingsError> {
        if !is_client_id(&settings.client_id) {
            return Err(SettingsError::ClientId);
        }
        local::check_scopes(settings.authorized_scopes.as_deref().unwrap_or_default())?;
        Ok(Self {
            settings,
            replacement: ArcSwap::default(),
        })
    }

    /// Replaces the configured credentials with those in `body`, in the JSON that
    /// taskcluster-proxy accepts (`{"clientId", "accessToken", "certificate"}`). They apply to
    /// every request that starts from now on and are kept in memory only. Returns the new
    /// clientId.
    ///
    /// # Errors
    /// If `body` contains no credentials that could sign a request. The old ones then remain in
    /// effect.
    pub fn update(&self, body: &[u8]) -> Result<String, UpdateError> {
        let credentials = update::parse(body)?;
        update::check(&credentials, self.settings.authorized_scopes.as_deref())?;
        let name = credentials.client_id.clone();
        self.replacement.rcu(|replacement| Replacement {
            count: replacement.count + 1,
            credentials: Some(credentials.clone()),
        });
        Ok(name)
    }

    /// The replacement credentials if there are any, else the configured ones, read again from
    /// their files.
    async fn credentials(&self) -> Result<Credentials, FetchError> {
        if let Some(replacement) = &self.replacement.load().credentials {
            return Ok(replacement.clone());
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

    /// The scopes allowed by both the settings and the rules. Without a list in the settings
    /// the source grants whatever the client holds, so the rules' list is the narrower one.
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
impl CredentialSource for StaticSource {
    fn takes_token(&self) -> bool {
        false
    }

    /// Only the number of replacements: what distinguishes callers is already in the key.
    fn identity(&self, _: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        key.part(&self.replacement.load().count.to_le_bytes());
        Ok(())
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.replacement.load().count)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let credentials = self.credentials().await?;
        let authorized_scopes = self.authorized_scopes(request);
        local::check_scopes(authorized_scopes.as_deref().unwrap_or_default())
            .map_err(|error| FetchError::BadAnswer(error.to_string()))?;
        // A certificate states times by the service's clock.
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
            original: None,
        })
    }
}

#[cfg(test)]
mod tests;
