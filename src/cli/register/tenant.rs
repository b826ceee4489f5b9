//! Preparing an Auth0 tenant: what there is is read first, differences are changed, and
//! registration, once opened, is shut again however it went.

use std::cell::Cell;
use std::path::PathBuf;

use clap::Args;
use url::Url;

use hawkgate::clock::SharedClock;
use hawkgate::registration::{Change, Grant, Step, TenantFacts, TenantRequest};
use hawkgate::remote::auth0_tenant::Tenant;
use hawkgate::remote::client::Client;
use hawkgate::remote::provider::issuer_url;
use hawkgate::remote::settings::{ClientProof, OauthClient};
use hawkgate::remote::signin::SignIn;
use hawkgate::secret::{SecretRef, SecretString};

use crate::cli::stop::{Stop, failed, tell, usage};

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
pub(super) struct Preparation {
    tenant: Tenant,
    facts: TenantFacts,
    changes: Vec<Change>,
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
        client: &Client,
        clock: &SharedClock,
    ) -> Result<Option<Preparation>, Stop> {
        let url = match self.auth0_tenant.as_deref() {
            None => return Ok(None),
            Some("") => issuer.clone(),
            Some(text) => issuer_url(text)?,
        };
        let request = self.request()?;
        let token = self.token(&url, client, clock).await?;
        let tenant = Tenant::new(url, token, client.clone(), clock.clone());
        let facts = tenant.facts(&request).await?;
        Ok(Some(Preparation {
            changes: request.differences(&facts)?,
            tenant,
            facts,
            allow_open: self.allow_open_registration,
            close_after: self.close_after,
            tried_to_open: Cell::new(false),
        }))
    }

    fn request(&self) -> Result<TenantRequest, Stop> {
        let grant = |text: &String| {
            Grant::parse(text).ok_or_else(|| {
                Stop::Usage(format!(
                    "--third-party-grant {text:?}: write AUDIENCE=SCOPE SCOPE"
                ))
            })
        };
        Ok(TenantRequest {
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
        client: &Client,
        clock: &SharedClock,
    ) -> Result<SecretString, Stop> {
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
        let sign_in = SignIn::new(client.clone(), clock.clone(), own);
        let at = |path| tenant.join(path);
        let (endpoint, audience) = (at("/oauth/token")?, at("/api/v2/")?);
        let token = sign_in.own_token(&endpoint, audience.as_str()).await;
        token.map_err(|e| Stop::Failed(format!("no management token: {e}")))
    }
}

impl Preparation {
    /// What would be changed for `step`, and after it.
    pub(super) fn plan(&self, step: &Step) -> Result<Vec<String>, Stop> {
        let mut lines: Vec<_> = self
            .changes(step)?
            .iter()
            .map(ToString::to_string)
            .collect();
        if self.closes(self.opens(step)) {
            lines.push(format!("at the end: {}", Change::CloseRegistration));
        }
        Ok(lines)
    }

    /// Changes what `step` needs.
    pub(super) async fn apply(&self, step: &Step) -> Result<(), Stop> {
        for change in self.changes(step)? {
            if change == Change::OpenRegistration {
                self.tried_to_open.set(true);
            }
            self.tenant.apply(&change).await?;
            tell(&format!("tenant: {change}: done"));
        }
        Ok(())
    }

    /// Shuts registration if that was asked for, and ends as `end` says: a tenant left
    /// open is worse than whatever else went wrong.
    pub(super) async fn close_after(&self, end: Result<(), Stop>) -> Result<(), Stop> {
        if !self.closes(self.tried_to_open.get()) {
            return end;
        }
        let change = Change::CloseRegistration;
        match (self.tenant.apply(&change).await, end) {
            (Ok(()), end) => {
                tell(&format!("tenant: {change}: done"));
                end
            }
            (Err(error), end) => {
                let before = match end {
                    Err(Stop::Failed(text) | Stop::Usage(text)) => format!(" Before that: {text}"),
                    Ok(()) => String::new(),
                };
                failed(format!(
                    "the tenant's registration could not be shut and is OPEN to anybody: {error}. \
                     Run the same again, or switch it off in the tenant's advanced settings.{before}"
                ))
            }
        }
    }

    fn changes(&self, step: &Step) -> Result<Vec<Change>, Stop> {
        let mut changes = self.changes.clone();
        if self.opens(step) {
            if !self.allow_open {
                return failed(
                    "the tenant does not let clients register by themselves. Opening it lets anybody on \
                     the internet register clients: give --allow-open-registration, and --close-after \
                     to shut it again",
                );
            }
            changes.push(Change::OpenRegistration);
        }
        Ok(changes)
    }

    fn opens(&self, step: &Step) -> bool {
        matches!(step, Step::Create { .. }) && !self.facts.open
    }

    fn closes(&self, opened: bool) -> bool {
        self.close_after && (opened || self.facts.open)
    }
}
