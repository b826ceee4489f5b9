//! Source `taskcluster-mint`: named temporary credentials made here from an issuing client,
//! without the network (taskcluster.md §3).

mod name;

use std::time::Duration;

use async_trait::async_trait;

pub use super::local::SettingsError;
use super::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest, local, scope};
use crate::clock::SharedClock;
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
    fn scopes(&self, request: &SwapRequest) -> Vec<String> {
        match &request.scopes {
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

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let name = self.name(&request.caller)?;
        let issuer_token = local::read(&self.settings.access_token).await?;
        let lifetime = self.settings.lifetime;
        let ours = self.clock.now();
        let theirs = ours.offset_by(request.clock_offset);
        // Both ends count towards the 31 days.
        let backdated = BACKDATED.min(MAX_LIFETIME.saturating_sub(lifetime));
        let credentials = Mint {
            issuer: &self.settings.client_id,
            issuer_token: &issuer_token,
            client_id: &name,
            scopes: &self.scopes(request),
            start: theirs.minus(backdated),
            expiry: theirs.plus(lifetime),
        }
        .sign()
        .map_err(|error| minting_failed(&error))?;
        Ok(Issued {
            credential: local::credential(&credentials)?,
            expires_at: Some(ours.plus(lifetime)),
        })
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
