//! Source `taskcluster-mint`: named temporary credentials made here from an issuing client,
//! without the network (taskcluster.md §3).

mod name;

use std::time::Duration;

use async_trait::async_trait;

pub use super::local::SettingsError;
use super::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest, local, scope};
use crate::clock::{SharedClock, UnixMillis};
use crate::hawk::Credentials;
use crate::hawk::certificate::{CertificateError, MAX_LIFETIME, Mint, is_client_id};
use crate::secret::SecretRef;
use crate::token::Caller;

pub use name::{MAX_NAME_CHARS, NameTemplate, TemplateError, TemplateProblem};

/// How far before now a certificate's validity begins. The service grants 5 minutes of
/// grace; with these 10 a certificate fails no sooner than the timestamp of Hawk itself,
/// which may be 15 minutes off.
const BACKDATED: Duration = Duration::from_mins(10);

/// The keys of a `taskcluster-mint` source.
#[derive(Clone, Debug)]
pub struct MintSettings {
    /// The issuing client. It needs `auth:create-client:<every name that can be rendered>`
    /// and every scope it grants.
    pub client_id: String,
    /// Its key, read anew for each certificate.
    pub access_token: SecretRef,
    /// What the caller is named upstream.
    pub client_name: NameTemplate,
    /// What each certificate grants, unless a rule narrows it.
    pub scopes: Vec<String>,
    /// How long each certificate is valid from now; at most 31 days. The caller's own token
    /// does not shorten it: every request proves its token anew.
    pub lifetime: Duration,
}

/// Mints a certificate per caller.
#[derive(Debug)]
pub struct MintSource {
    settings: MintSettings,
    clock: SharedClock,
}

impl MintSource {
    /// # Errors
    /// When no certificate made with `settings` could be good.
    pub fn new(settings: MintSettings, clock: SharedClock) -> Result<Self, SettingsError> {
        if !is_client_id(&settings.client_id) {
            return Err(SettingsError::ClientId);
        }
        local::check_scopes(&settings.scopes)?;
        if settings.lifetime < Duration::from_millis(1) || settings.lifetime > MAX_LIFETIME {
            return Err(SettingsError::Lifetime);
        }
        Ok(Self { settings, clock })
    }

    /// Credentials for `caller` that leave hawkgate whole, for the login endpoint. What
    /// [`CredentialSource::fetch`] gives can only sign; these can be read, and whoever holds
    /// them needs hawkgate no more until `expiry`. `narrowed` is as in [`SwapRequest::scopes`].
    ///
    /// # Errors
    /// When the caller cannot be named, the issuing client's key cannot be read, or no
    /// header made with them would fit (taskcluster.md §3).
    pub async fn issue(
        &self,
        caller: &Caller,
        narrowed: Option<&[String]>,
        start: UnixMillis,
        expiry: UnixMillis,
    ) -> Result<Credentials, FetchError> {
        let name = self.name(caller)?;
        let scopes = self.scopes(narrowed);
        let credentials = self.mint(&name, &scopes, start, expiry).await?;
        // Credentials that nobody can use are a fault of the settings, to be told here.
        local::credential(&credentials)?;
        Ok(credentials)
    }

    async fn mint(
        &self,
        name: &str,
        scopes: &[String],
        start: UnixMillis,
        expiry: UnixMillis,
    ) -> Result<Credentials, FetchError> {
        let issuer_token = local::read(&self.settings.access_token).await?;
        Mint {
            issuer: &self.settings.client_id,
            issuer_token: &issuer_token,
            client_id: name,
            scopes,
            start,
            expiry,
        }
        .sign()
        .map_err(|error| minting_failed(&error))
    }

    /// The caller's name upstream.
    fn name(&self, caller: &Caller) -> Result<String, FetchError> {
        let template = &self.settings.client_name;
        let name = match caller {
            Caller::Verified(token) => template.render(token)?,
            Caller::Delegated { .. } | Caller::Anonymous => template.render_without_claims()?,
            Caller::Password { .. } => {
                return Err(FetchError::NotEntitled(
                    "this source proves no password".into(),
                ));
            }
        };
        // The service refuses a client that issues credentials in its own name.
        if name == self.settings.client_id {
            return Err(FetchError::NotEntitled(
                "the rendered name is the issuing client's own".into(),
            ));
        }
        Ok(name)
    }

    /// The configured scopes, less what the rules take away. Never more.
    fn scopes(&self, narrowed: Option<&[String]>) -> Vec<String> {
        match narrowed {
            Some(wanted) => scope::intersect(&self.settings.scopes, wanted),
            None => self.settings.scopes.clone(),
        }
    }
}

#[async_trait]
impl CredentialSource for MintSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        key.part(self.name(&request.caller)?.as_bytes());
        Ok(())
    }

    /// The same for the same token at all times.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let name = self.name(&request.caller)?;
        let lifetime = self.settings.lifetime;
        let ours = self.clock.now();
        let theirs = ours.offset_by(request.clock_offset);
        // Both ends count towards the 31 days.
        let backdated = BACKDATED.min(MAX_LIFETIME.saturating_sub(lifetime));
        let (start, expiry) = (theirs.minus(backdated), theirs.plus(lifetime));
        let scopes = self.scopes(request.scopes.as_deref());
        let credentials = self.mint(&name, &scopes, start, expiry).await?;
        Ok(Issued {
            credential: local::credential(&credentials)?,
            expires_at: Some(ours.plus(lifetime)),
        })
    }

    fn takes_token(&self) -> bool {
        false
    }

    fn is_local(&self) -> bool {
        true
    }
}

fn minting_failed(error: &CertificateError) -> FetchError {
    match error {
        CertificateError::NoRandomness => FetchError::Unavailable {
            cause: error.to_string(),
            retry_after: None,
        },
        _ => FetchError::BadAnswer(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
