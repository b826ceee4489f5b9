//! Prepares an Auth0 tenant for dynamic client registration: reads its settings, changes only
//! what differs, and with `--close-after` closes registration again even after a failure.

use std::cell::Cell;
use std::path::PathBuf;

use clap::Args;
use url::Url;

use hawkgate::clock::SharedClock;
use hawkgate::registration::{
    ClientGrant, RegistrationPlan, TenantChange, TenantRequirements, TenantState,
};
use hawkgate::remote::auth0_tenant::Auth0Tenant;
use hawkgate::remote::http_client::HttpClient;
use hawkgate::remote::provider_metadata::issuer_url;
use hawkgate::remote::settings::{ClientProof, OauthClient};
use hawkgate::remote::signin::SignInClient;
use hawkgate::secret::{SecretRef, SecretString};

use crate::cli::exit::{CommandError, failed, status, usage};

#[derive(Args, Debug)]
#[command(next_help_heading = "Auth0 tenant (Management API)")]
pub(super) struct TenantArgs {
    /// Prepare this Auth0 tenant first [default URL: the issuer]
    #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    auth0_tenant: Option<String>,
    /// File with a Management API access token
    #[arg(
        long,
        value_name = "FILE",
        requires = "auth0_tenant",
        conflicts_with = "management_client_id"
    )]
    management_token_file: Option<PathBuf>,
    /// Client that may obtain a Management API access token
    #[arg(long, value_name = "ID", requires = "management_client_secret_file")]
    management_client_id: Option<String>,
    /// File with that client's secret
    #[arg(long, value_name = "FILE", requires = "management_client_id")]
    management_client_secret_file: Option<PathBuf>,
    /// Connection that dynamically registered clients may use; repeatable
    #[arg(long, value_name = "NAME", requires = "auth0_tenant")]
    domain_connection: Vec<String>,
    /// API scopes that third-party clients may request on behalf of users, as
    /// 'AUDIENCE=SCOPE SCOPE'; repeatable
    #[arg(long, value_name = "GRANT", requires = "auth0_tenant")]
    third_party_grant: Vec<String>,
    /// Enable dynamic client registration, which anyone on the internet can use, if it is
    /// disabled
    #[arg(long, requires = "auth0_tenant")]
    allow_open_registration: bool,
    /// Disable dynamic client registration at the end, even if registering failed
    #[arg(long, requires = "auth0_tenant")]
    close_after: bool,
}

/// An Auth0 tenant, its current state, and the changes that it needs.
pub(super) struct TenantPreparation {
    tenant: Auth0Tenant,
    state: TenantState,
    changes: Vec<TenantChange>,
    allow_open: bool,
    close_after: bool,
    /// Whether a request to enable registration was sent: it may be enabled now.
    tried_to_open: Cell<bool>,
}

impl TenantArgs {
    /// Reads the tenant's state; `None` without `--auth0-tenant`.
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
            changes: request.missing_changes(&state)?,
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
                    "--third-party-grant {text:?}: must be AUDIENCE=SCOPE SCOPE"
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

    /// The given access token, or one for `TENANT/api/v2/` obtained with the management client.
    async fn token(
        &self,
        tenant: &Url,
        client: &HttpClient,
        clock: &SharedClock,
    ) -> Result<SecretString, CommandError> {
        if let Some(path) = &self.management_token_file {
            return Ok(SecretString::read_once(path)?);
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
        let oauth_client = OauthClient {
            id: id.clone(),
            proof: ClientProof::SecretPost(SecretRef::File(secret.clone())),
        };
        let sign_in = SignInClient::new(client.clone(), clock.clone(), oauth_client);
        let at = |path| tenant.join(path);
        let (endpoint, audience) = (at("/oauth/token")?, at("/api/v2/")?);
        let token = sign_in
            .client_credentials(&endpoint, audience.as_str())
            .await;
        token.map_err(|e| CommandError::Failed(format!("no management token: {e}")))
    }
}

impl TenantPreparation {
    /// The changes that [`Self::apply`] and [`Self::close_after`] would make for `plan`.
    pub(super) fn planned_changes(
        &self,
        plan: &RegistrationPlan,
    ) -> Result<Vec<String>, CommandError> {
        let mut lines: Vec<_> = self
            .changes(plan)?
            .iter()
            .map(ToString::to_string)
            .collect();
        if self.closes(self.opens(plan)) {
            lines.push(format!("at the end: {}", TenantChange::CloseRegistration));
        }
        Ok(lines)
    }

    /// Makes the changes that `plan` needs.
    pub(super) async fn apply(&self, plan: &RegistrationPlan) -> Result<(), CommandError> {
        for change in self.changes(plan)? {
            if change == TenantChange::OpenRegistration {
                self.tried_to_open.set(true);
            }
            self.tenant.apply(&change).await?;
            status(&format!("tenant: {change}: done"));
        }
        Ok(())
    }

    /// Disables registration if requested, then returns `result`. Failing to disable it takes
    /// precedence over any earlier error, because it leaves the tenant open.
    pub(super) async fn close_after(
        &self,
        result: Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        if !self.closes(self.tried_to_open.get()) {
            return result;
        }
        let change = TenantChange::CloseRegistration;
        match (self.tenant.apply(&change).await, result) {
            (Ok(()), result) => {
                status(&format!("tenant: {change}: done"));
                result
            }
            (Err(error), result) => {
                let earlier = match result {
                    Err(CommandError::Failed(text) | CommandError::Usage(text)) => {
                        format!(" Earlier error: {text}")
                    }
                    Ok(()) => String::new(),
                };
                failed(format!(
                    "dynamic client registration could not be disabled and is still OPEN to anyone: \
                     {error}. Run the same command again, or disable it in the tenant's advanced \
                     settings.{earlier}"
                ))
            }
        }
    }

    fn changes(&self, plan: &RegistrationPlan) -> Result<Vec<TenantChange>, CommandError> {
        let mut changes = self.changes.clone();
        if self.opens(plan) {
            if !self.allow_open {
                return failed(
                    "dynamic client registration is disabled in this tenant. Enabling it lets anyone on \
                     the internet register clients: give --allow-open-registration, and --close-after \
                     to disable it again",
                );
            }
            changes.push(TenantChange::OpenRegistration);
        }
        Ok(changes)
    }

    fn opens(&self, plan: &RegistrationPlan) -> bool {
        matches!(plan, RegistrationPlan::Register { .. }) && !self.state.registration_open
    }

    fn closes(&self, opened: bool) -> bool {
        self.close_after && (opened || self.state.registration_open)
    }
}
