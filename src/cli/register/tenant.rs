//! Preparing an Auth0 tenant: what there is is read first, differences are changed, and
//! registration, once opened, is shut again however it went.

use std::cell::Cell;
use std::path::PathBuf;

use clap::Args;
use url::Url;

use hawkgate::clock::SharedClock;
use hawkgate::config::{ClientProof, OauthClient};
use hawkgate::registration::{
    ClientGrant, RegistrationPlan, TenantChange, TenantRequirements, TenantState,
};
use hawkgate::remote::auth0_tenant::Auth0Tenant;
use hawkgate::remote::http_client::HttpClient;
use hawkgate::remote::provider_metadata::issuer_url;
use hawkgate::remote::signin::SignInClient;
use hawkgate::secret::{SecretRef, SecretString};

use crate::cli::exit::{CommandError, failed, status, usage};

#[derive(Args, Debug)]
#[command(next_help_heading = "Auth0 (its Management API)")]
pub(super) struct TenantArgs {
    /// Prepare the Auth0 tenant [default URL: the issuer]
    #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    auth0_tenant: Option<String>,
    /// A token for the Management API
    #[arg(
        long,
        value_name = "FILE",
        requires = "auth0_tenant",
        conflicts_with = "management_client_id"
    )]
    management_token_file: Option<PathBuf>,
    /// A client that may have such a token
    #[arg(long, value_name = "ID", requires = "management_client_secret_file")]
    management_client_id: Option<String>,
    /// Its secret
    #[arg(long, value_name = "FILE", requires = "management_client_id")]
    management_client_secret_file: Option<PathBuf>,
    /// A connection that registered clients may use; more than one may be given
    #[arg(long, value_name = "NAME", requires = "auth0_tenant")]
    domain_connection: Vec<String>,
    /// Scopes of an API that registered clients may ask users for: 'AUDIENCE=SCOPE SCOPE';
    /// more than one may be given
    #[arg(long, value_name = "GRANT", requires = "auth0_tenant")]
    third_party_grant: Vec<String>,
    /// Open registration to anybody on the internet if it is shut
    #[arg(long, requires = "auth0_tenant")]
    allow_open_registration: bool,
    /// Shut registration at the end, also when registering failed
    #[arg(long, requires = "auth0_tenant")]
    close_after: bool,
}

/// A tenant, what it has and what it lacks.
pub(super) struct TenantPreparation {
    tenant: Auth0Tenant,
    state: TenantState,
    changes: Vec<TenantChange>,
    allow_open: bool,
    close_after: bool,
    /// Opening was at least tried: it may be open.
    tried_to_open: Cell<bool>,
}

impl TenantArgs {
    /// Reads the tenant; `None` where there is none to prepare.
    pub(super) async fn prepare(
        &self,
        issuer: &Url,
        client: &HttpClient,
        clock: &SharedClock,
    ) -> Result<Option<TenantPreparation>, CommandError> {
        let url = match self.auth0_tenant.as_deref() {
            None => return Ok(None),
            Some("") => issuer.clone(),
            Some(text) => issuer_url(text)?,
        };
        let request = self.request()?;
        let token = self.token(&url, client, clock).await?;
        let tenant = Auth0Tenant::new(url, token, client.clone(), clock.clone());
        let state = tenant.state(&request).await?;
        Ok(Some(TenantPreparation {
            changes: request.differences(&state)?,
            tenant,
            state,
            allow_open: self.allow_open_registration,
            close_after: self.close_after,
            tried_to_open: Cell::new(false),
        }))
    }

    fn request(&self) -> Result<TenantRequirements, CommandError> {
        let grant = |text: &String| {
            ClientGrant::parse(text).ok_or_else(|| {
                CommandError::Usage(format!(
                    "--third-party-grant {text:?}: write AUDIENCE=SCOPE SCOPE"
                ))
            })
        };
        Ok(TenantRequirements {
            connections: self.domain_connection.clone(),
            grants: self
                .third_party_grant
                .iter()
                .map(grant)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The token given, or one of the management client's own for `TENANT/api/v2/`.
    async fn token(
        &self,
        tenant: &Url,
        client: &HttpClient,
        clock: &SharedClock,
    ) -> Result<SecretString, CommandError> {
        if let Some(path) = &self.management_token_file {
            return Ok(SecretRef::File(path.clone()).read()?);
        }
        let (Some(id), Some(secret)) = (
            &self.management_client_id,
            &self.management_client_secret_file,
        ) else {
            return usage(
                "--auth0-tenant needs --management-token-file, or --management-client-id with \
                 --management-client-secret-file",
            );
        };
        let own = OauthClient {
            id: id.clone(),
            proof: ClientProof::SecretPost(SecretRef::File(secret.clone())),
        };
        let sign_in = SignInClient::new(client.clone(), clock.clone(), own);
        let at = |path| tenant.join(path);
        let (endpoint, audience) = (at("/oauth/token")?, at("/api/v2/")?);
        let token = sign_in
            .client_credentials(&endpoint, audience.as_str())
            .await;
        token.map_err(|e| CommandError::Failed(format!("no management token: {e}")))
    }
}

impl TenantPreparation {
    /// What would be changed for `step`, and after it.
    pub(super) fn plan(&self, step: &RegistrationPlan) -> Result<Vec<String>, CommandError> {
        let mut lines: Vec<_> = self
            .changes(step)?
            .iter()
            .map(ToString::to_string)
            .collect();
        if self.closes(self.opens(step)) {
            lines.push(format!("at the end: {}", TenantChange::CloseRegistration));
        }
        Ok(lines)
    }

    /// Changes what `step` needs.
    pub(super) async fn apply(&self, step: &RegistrationPlan) -> Result<(), CommandError> {
        for change in self.changes(step)? {
            if change == TenantChange::OpenRegistration {
                self.tried_to_open.set(true);
            }
            self.tenant.apply(&change).await?;
            status(&format!("tenant: {change}: done"));
        }
        Ok(())
    }

    /// Shuts registration if that was asked for, and ends as `end` says: a tenant left
    /// open is worse than whatever else went wrong.
    pub(super) async fn close_after(
        &self,
        end: Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        if !self.closes(self.tried_to_open.get()) {
            return end;
        }
        let change = TenantChange::CloseRegistration;
        match (self.tenant.apply(&change).await, end) {
            (Ok(()), end) => {
                status(&format!("tenant: {change}: done"));
                end
            }
            (Err(error), end) => {
                let before = match end {
                    Err(CommandError::Failed(text) | CommandError::Usage(text)) => {
                        format!(" Before that: {text}")
                    }
                    Ok(()) => String::new(),
                };
                failed(format!(
                    "the tenant's registration could not be shut and is OPEN to anybody: {error}. \
                     Run the same again, or switch it off in the tenant's advanced settings.{before}"
                ))
            }
        }
    }

    fn changes(&self, step: &RegistrationPlan) -> Result<Vec<TenantChange>, CommandError> {
        let mut changes = self.changes.clone();
        if self.opens(step) {
            if !self.allow_open {
                return failed(
                    "the tenant does not let clients register by themselves. Opening it lets anybody on \
                     the internet register clients: give --allow-open-registration, and --close-after \
                     to shut it again",
                );
            }
            changes.push(TenantChange::OpenRegistration);
        }
        Ok(changes)
    }

    fn opens(&self, step: &RegistrationPlan) -> bool {
        matches!(step, RegistrationPlan::Register { .. }) && !self.state.open
    }

    fn closes(&self, opened: bool) -> bool {
        self.close_after && (opened || self.state.open)
    }
}
