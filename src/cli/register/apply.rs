//! Applies a plan at the issuer: writes an intent record, sends one request, and saves the
//! outcome before reporting success, so that a crash never loses track of a client.

use std::path::PathBuf;

use url::Url;

use hawkgate::clock::{SharedClock, UnixMillis};
use hawkgate::private_file::LockedFile;
use hawkgate::private_file::state::PersistentState as _;
use hawkgate::registration::{
    Action, AuthMethod, ClientMetadata, DeletionPlan, Registration, RegistrationPlan,
    RegistrationState, snippet,
};
use hawkgate::remote::http_client::HttpClient;
use hawkgate::remote::provider_metadata::ProviderMetadata;
use hawkgate::remote::registration::{RegistrationEndpoint, RegistrationError};
use hawkgate::secret::SecretString;

use crate::cli::exit::{CommandError, failed, print, status};

/// One run of `hawkgate register`: the locked state file and the issuer's endpoints.
pub(super) struct RegistrationRun<'a> {
    pub(super) locked: &'a LockedFile,
    pub(super) secret_file: PathBuf,
    pub(super) issuer: String,
    pub(super) url: Url,
    pub(super) client: HttpClient,
    pub(super) clock: SharedClock,
    /// The state as read from the file.
    pub(super) state: Option<RegistrationState>,
    /// Whether to drop an earlier intent record (`--forget`).
    pub(super) forget: bool,
}

/// One line describing what `plan` would do at `issuer`.
pub(super) fn describe(plan: &RegistrationPlan, issuer: &str) -> String {
    match plan {
        RegistrationPlan::Unchanged(registration) => format!(
            "nothing: client {} at {issuer} is up to date",
            registration.client_id
        ),
        RegistrationPlan::Register { replaces: None } => {
            format!("register a new client at {issuer}")
        }
        RegistrationPlan::Register {
            replaces: Some(old),
        } => format!(
            "register a new client at {issuer} and abandon {old}, which is not deleted at its issuer"
        ),
        RegistrationPlan::Update(registration) => format!(
            "update client {} at {issuer} to the given metadata (RFC 7592 PUT)",
            registration.client_id
        ),
    }
}

/// One line describing what `deletion` would do.
pub(super) fn describe_deletion(deletion: &DeletionPlan) -> String {
    match deletion {
        DeletionPlan::AtIssuer { registration, .. } => format!(
            "delete client {} at its issuer, then the state and secret files",
            registration.client_id
        ),
        DeletionPlan::FilesOnly => {
            "remove the state and secret files, without contacting the issuer".into()
        }
        DeletionPlan::NotRegistered => "nothing: the state file does not exist".into(),
    }
}

impl RegistrationRun<'_> {
    /// Leaves the client unchanged, and restores a missing secret file.
    pub(super) fn keep(&self, registration: &Registration) -> Result<(), CommandError> {
        let saved = self.save(registration.clone())?;
        self.report(&saved, "nothing to do: the client is up to date")
    }

    pub(super) async fn register(
        &self,
        metadata: &ClientMetadata,
        initial_access_token: Option<&SecretString>,
        replaces: Option<String>,
    ) -> Result<(), CommandError> {
        let provider = ProviderMetadata::discover(&self.client, &self.issuer).await?;
        let endpoint = provider.require(
            &provider.registration_endpoint,
            "registration_endpoint",
            "this issuer does not support dynamic client registration, or has disabled it",
        )?;
        let secret = self.locked.sidecar(self.secret_file.clone())?;
        drop(secret);
        self.write_intent(Action::Register, metadata)?;
        let result = self
            .endpoint()
            .register(endpoint, metadata, initial_access_token)
            .await;
        let mut registration = self.resolve(
            result,
            "check at the issuer that no such client exists before you register again",
        )?;
        registration
            .token_endpoint
            .clone_from(&provider.token_endpoint);
        let saved = self.save(registration)?;
        if let Some(old) = replaces {
            status(&format!(
                "client {old} was replaced but still exists: delete it at its issuer"
            ));
        }
        self.report(&saved, "registered")
    }

    pub(super) async fn update(
        &self,
        registration: &Registration,
        metadata: &ClientMetadata,
    ) -> Result<(), CommandError> {
        self.write_intent(Action::Update, metadata)?;
        let result = self.endpoint().update(registration, metadata).await;
        if let Err(RegistrationError::Unauthorized(text)) = result {
            self.clear_intent()?;
            return failed(format!(
                "{text}. The registration access token in the state file is no longer accepted: a \
                 response with a rotated one may have been lost, or the client was deleted. Check \
                 the issuer's console; --replace registers a new client"
            ));
        }
        let registration = self.resolve(result, "run the same command again")?;
        let saved = self.save(registration)?;
        self.report(&saved, "updated")
    }

    pub(super) async fn delete(&self, deletion: &DeletionPlan) -> Result<(), CommandError> {
        let outcome = match deletion {
            DeletionPlan::NotRegistered => {
                return print("nothing to do: the state file does not exist");
            }
            DeletionPlan::FilesOnly => "removed the local files, without contacting the issuer",
            DeletionPlan::AtIssuer {
                registration,
                maybe_deleted,
            } => {
                self.write_intent(Action::Delete, &registration.metadata)?;
                match self.endpoint().delete(registration).await {
                    Err(RegistrationError::Unauthorized(_)) if *maybe_deleted => {
                        "the client was already deleted; removed the local files"
                    }
                    result => {
                        self.resolve(result, "run the same command again")?;
                        "deleted the client and the local files"
                    }
                }
            }
        };
        self.locked.sidecar(self.secret_file.clone())?.remove()?;
        self.locked.remove()?;
        print(outcome)
    }

    fn endpoint(&self) -> RegistrationEndpoint {
        RegistrationEndpoint::new(self.client.clone(), self.clock.clone(), self.url.clone())
    }

    /// The state as read, without an intent record that `--forget` drops.
    fn previous(&self) -> Option<RegistrationState> {
        let mut state = self.state.clone()?;
        if self.forget {
            state.intent = None;
        }
        Some(state)
    }

    fn write_intent(&self, action: Action, metadata: &ClientMetadata) -> Result<(), CommandError> {
        let state = self
            .previous()
            .unwrap_or_else(|| RegistrationState::new(&self.issuer));
        let state = state.with_intent(action, &self.issuer, metadata, self.clock.now());
        Ok(state.save(self.locked)?)
    }

    /// Removes the intent record after a request that changed nothing.
    fn clear_intent(&self) -> Result<(), CommandError> {
        match self.previous() {
            Some(state) => Ok(state.save(self.locked)?),
            None => Ok(self.locked.remove()?),
        }
    }

    /// Unwraps the result of a request. After a definite failure the intent record is removed;
    /// if the outcome is unknown, it stays.
    fn resolve<T>(
        &self,
        result: Result<T, RegistrationError>,
        remedy: &str,
    ) -> Result<T, CommandError> {
        match result {
            Ok(value) => Ok(value),
            Err(error @ RegistrationError::OutcomeUnknown(_)) => {
                let recorded = if self.locked.read()?.is_some() {
                    ". The attempt is recorded in the state file"
                } else {
                    ""
                };
                failed(format!("{error}{recorded}: {remedy}"))
            }
            Err(error) => {
                self.clear_intent()?;
                failed(error.to_string())
            }
        }
    }

    /// Saves a registration: the state file first, since only it contains everything.
    fn save(&self, mut registration: Registration) -> Result<Registration, CommandError> {
        let secret = registration.client_secret.clone();
        registration.secret_file = secret.as_ref().map(|_| self.secret_file.clone());
        let state = self
            .previous()
            .unwrap_or_else(|| RegistrationState::new(&self.issuer));
        let state = state.with_registration(&self.issuer, registration.clone());
        if self.state.as_ref() != Some(&state) {
            state.save(self.locked)?;
        }
        if let Some(secret) = secret {
            let file = self.locked.sidecar(self.secret_file.clone())?;
            file.replace_if_changed(secret.expose().as_bytes())?;
        }
        Ok(registration)
    }

    fn report(&self, registration: &Registration, outcome: &str) -> Result<(), CommandError> {
        let (id, issuer) = (&registration.client_id, &self.issuer);
        let mut lines = vec![format!("{outcome}: client_id {id} at {issuer}")];
        if let Some(file) = &registration.secret_file {
            lines.push(format!(
                "client secret saved to {} (mode 0600)",
                file.display()
            ));
        } else if registration.auth_method == AuthMethod::None {
            lines.push("a public client, without a secret".to_owned());
        }
        if registration.client_secret_expires_at != 0 {
            let seconds = i64::try_from(registration.client_secret_expires_at).unwrap_or(i64::MAX);
            let expiry = UnixMillis::from_secs(seconds).to_rfc3339();
            lines.push(format!(
                "the secret expires at {expiry}; run the same command again after that"
            ));
        }
        if registration.management().is_none() {
            let text = "the issuer gave no registration access token: make changes in its console";
            lines.push(text.to_owned());
        }
        lines.push(snippet(registration, self.locked.path()));
        print(lines.join("\n").trim_end())
    }
}
