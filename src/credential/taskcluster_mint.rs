//! The source `taskcluster-mint`: named temporary credentials, minted locally from an issuing
//! client (`docs/design/taskcluster.md`, "Temporary credentials").

mod name_template;

use std::time::Duration;

use async_trait::async_trait;

pub use super::local::{SettingsError, UnusableCredentials};
use super::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest, local, scope};
use crate::clock::{SharedClock, UnixMillis};
use crate::hawk::Credentials;
use crate::hawk::certificate::{CertificateError, MAX_LIFETIME, Mint, is_client_id};
use crate::secret::SecretRef;
use crate::token::Caller;

pub use name_template::{MAX_NAME_CHARS, NameTemplate, TemplateError, TemplateProblem};

/// How far a certificate's start is backdated. The service allows 5 minutes of clock skew;
/// with these 10 more, a certificate tolerates the same 15 minutes as Hawk's own timestamp.
const BACKDATED: Duration = Duration::from_mins(10);

/// Clock offsets within one step share a certificate, in milliseconds: a small part of what
/// [`BACKDATED`] tolerates.
const CLOCK_STEP: i64 = 4 * 60 * 1000;

/// The settings of a `taskcluster-mint` source.
#[derive(Clone, Debug)]
pub struct MintSettings {
    /// The issuing client. It needs `auth:create-client:<name>` for every name that can be
    /// rendered, and every scope that it grants.
    pub client_id: String,
    /// Its accessToken, read again for each certificate.
    pub access_token: SecretRef,
    /// The template of the callers' clientIds.
    pub client_name: NameTemplate,
    /// The scopes that each certificate grants, unless a rule narrows them.
    pub scopes: Vec<String>,
    /// How long each certificate is valid, from now; at most 31 days. The expiry of the
    /// caller's token does not shorten it, because every request presents a token again.
    pub lifetime: Duration,
}

/// Mints one certificate for each caller.
#[derive(Debug)]
pub struct MintSource {
    settings: MintSettings,
    clock: SharedClock,
}

impl MintSettings {
    /// Mints credentials with the shortest possible name and signs with them once. Blocks.
    ///
    /// # Errors
    /// If no credentials could be minted, or no request could be signed with them.
    pub fn check(&self) -> Result<(), UnusableCredentials> {
        let issuer_token = local::read_access_token(&self.access_token)?;
        let mut name = self.client_name.shortest();
        if name == self.client_id {
            // Only this one name is not allowed.
            name.push('x');
        }
        let start = UnixMillis(0);
        let minted = Mint {
            issuer: &self.client_id,
            issuer_token: &issuer_token,
            client_id: &name,
            scopes: &self.scopes,
            start,
            expiry: start.plus(self.lifetime),
        }
        .sign()
        .map_err(|error| UnusableCredentials::new("client_name", error))?;
        local::check_signing("scopes", &minted)
    }
}

impl MintSource {
    /// # Errors
    /// If no certificate made from `settings` could be valid.
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

    /// Credentials for the login endpoint to hand out to `caller`. Unlike the result of
    /// [`CredentialSource::fetch`], which can only sign, these are readable, and their holder
    /// no longer needs hawkgate until `expiry`. `narrowed` is as in [`SwapRequest::scopes`].
    ///
    /// # Errors
    /// If no name can be rendered for the caller, the issuing client's accessToken cannot be
    /// read, or the resulting `Authorization` header would exceed Taskcluster's limit.
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
        // Unusable credentials are a configuration error; report it here, not at first use.
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

    /// The caller's clientId upstream.
    fn name(&self, caller: &Caller) -> Result<String, FetchError> {
        let template = &self.settings.client_name;
        let name = match caller {
            Caller::Verified(token) => template.render(token)?,
            // A route for such sessions has no source.
            Caller::Client(_) | Caller::Delegated { .. } | Caller::Anonymous => {
                template.render_without_claims()?
            }
            Caller::Password { .. } => {
                return Err(FetchError::NotEntitled(
                    "this source cannot verify passwords".into(),
                ));
            }
        };
        // The service rejects credentials that a client issues in its own name.
        if name == self.settings.client_id {
            return Err(FetchError::NotEntitled(
                "the rendered name is the issuing client's own".into(),
            ));
        }
        Ok(name)
    }

    /// The configured scopes, narrowed by the rules and never widened.
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
        // A certificate contains the upstream's time, so one for another time is of no use.
        key.part(&(request.clock_offset / CLOCK_STEP).to_le_bytes());
        Ok(())
    }

    /// Constant: the same token always has the same identity.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let name = self.name(&request.caller)?;
        let lifetime = self.settings.lifetime;
        let ours = self.clock.now();
        let theirs = ours.offset_by(request.clock_offset);
        // The limit of 31 days applies from start to expiry, backdating included.
        let backdated = BACKDATED.min(MAX_LIFETIME.saturating_sub(lifetime));
        let (start, expiry) = (theirs.minus(backdated), theirs.plus(lifetime));
        let scopes = self.scopes(request.scopes.as_deref());
        let credentials = self.mint(&name, &scopes, start, expiry).await?;
        Ok(Issued {
            credential: local::credential(&credentials)?,
            expires_at: Some(ours.plus(lifetime)),
            original: None,
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
