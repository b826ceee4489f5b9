//! The steps: each writes down what it is about to do, asks the issuer once, and saves what
//! came of it before it says so.

use std::path::PathBuf;

use url::Url;

use hawkgate::clock::{SharedClock, UnixMillis};
use hawkgate::private_file::LockedFile;
use hawkgate::registration::{
    Action, AuthMethod, ClientMetadata, DeletionPlan, Registration, RegistrationPlan,
    RegistrationState, snippet,
};
use hawkgate::remote::http_client::HttpClient;
use hawkgate::remote::provider_metadata::ProviderMetadata;
use hawkgate::remote::registration::{RegistrationEndpoint, RegistrationError};
use hawkgate::secret::SecretString;

use crate::cli::exit::{CommandError, failed, print, status};

/// Where the work is done: the state, locked, and the way to the issuer.
pub(super) struct RegistrationRun<'a> {
    pub(super) locked: &'a LockedFile,
    pub(super) secret_file: PathBuf,
    pub(super) issuer: String,
    pub(super) url: Url,
    pub(super) client: HttpClient,
    pub(super) clock: SharedClock,
    /// As it was read.
    pub(super) state: Option<RegistrationState>,
    /// What was begun before is taken as dealt with.
    pub(super) forget: bool,
}

/// What `step` would do at `issuer`, as a line.
pub(super) fn plan(step: &RegistrationPlan, issuer: &str) -> String {
    match step {
        RegistrationPlan::Unchanged(registration) => format!(
            "nothing: client {} at {issuer} is as wanted",
            registration.client_id
        ),
        RegistrationPlan::Register { replaces: None } => {
            format!("register a new client at {issuer}")
        }
        RegistrationPlan::Register {
            replaces: Some(old),
        } => format!(
            "register a new client at {issuer} and give up {old}, which stays at its issuer"
        ),
        RegistrationPlan::Update(registration) => format!(
            "change client {} at {issuer} to the metadata given (RFC 7592 PUT)",
            registration.client_id
        ),
    }
}

/// What `deletion` would do, as a line.
pub(super) fn plan_deletion(deletion: &DeletionPlan) -> String {
    match deletion {
        DeletionPlan::AtIssuer { registration, .. } => format!(
            "delete client {} at its issuer, then its state and secret files",
            registration.client_id
        ),
        DeletionPlan::FilesOnly => {
            "remove the state and secret files; the issuer is not asked".into()
        }
        DeletionPlan::NotRegistered => "nothing: there is no such state".into(),
    }
}

impl RegistrationRun<'_> {
    /// Nothing to do, but for a secret file that is not there any more.
    pub(super) fn confirm(&self, registration: &Registration) -> Result<(), CommandError> {
        let kept = self.keep(registration.clone())?;
        self.report(&kept, "nothing to do: the client is as wanted")
    }

    pub(super) async fn create(
        &self,
        wanted: &ClientMetadata,
        initial_access_token: Option<&SecretString>,
        replaces: Option<String>,
    ) -> Result<(), CommandError> {
        let provider = ProviderMetadata::discover(&self.client, &self.issuer).await?;
        let endpoint = provider.need(
            &provider.registration_endpoint,
            "registration_endpoint",
            "this issuer lets no clients register by themselves, or not now",
        )?;
        let secret = self.locked.sidecar(self.secret_file.clone())?;
        drop(secret);
        self.intend(Action::Register, wanted)?;
        let made = self
            .endpoint()
            .create(endpoint, wanted, initial_access_token)
            .await;
        let mut made = self.settle(
            made,
            "make sure that no such client is there before you register again",
        )?;
        made.token_endpoint.clone_from(&provider.token_endpoint);
        let kept = self.keep(made)?;
        if let Some(old) = replaces {
            status(&format!(
                "client {old} was given up and is still there: delete it at its issuer"
            ));
        }
        self.report(&kept, "registered")
    }

    pub(super) async fn update(
        &self,
        registration: &Registration,
        wanted: &ClientMetadata,
    ) -> Result<(), CommandError> {
        self.intend(Action::Update, wanted)?;
        let changed = self.endpoint().update(registration, wanted).await;
        if let Err(RegistrationError::Unauthorized(text)) = changed {
            self.undo()?;
            return failed(format!(
                "{text}. The registration token in the state opens nothing any more: an earlier answer \
                 with a new one may have been lost, or the client was deleted. Look at the issuer's own \
                 console; --replace registers a new client"
            ));
        }
        let changed = self.settle(changed, "run the same again")?;
        let kept = self.keep(changed)?;
        self.report(&kept, "changed")
    }

    pub(super) async fn delete(&self, deletion: &DeletionPlan) -> Result<(), CommandError> {
        let done = match deletion {
            DeletionPlan::NotRegistered => return print("nothing to do: there is no such state"),
            DeletionPlan::FilesOnly => "removed the files here; the issuer was not asked",
            DeletionPlan::AtIssuer {
                registration,
                maybe_deleted,
            } => {
                self.intend(Action::Delete, &registration.metadata)?;
                match self.endpoint().delete(registration).await {
                    Err(RegistrationError::Unauthorized(_)) if *maybe_deleted => {
                        "the client was gone already; removed the files here"
                    }
                    deleted => {
                        self.settle(deleted, "run the same again")?;
                        "deleted the client, and the files here"
                    }
                }
            }
        };
        self.locked.sidecar(self.secret_file.clone())?.remove()?;
        self.locked.remove()?;
        print(done)
    }

    fn endpoint(&self) -> RegistrationEndpoint {
        RegistrationEndpoint::new(self.client.clone(), self.clock.clone(), self.url.clone())
    }

    /// The state as it was, less what is taken as dealt with.
    fn before(&self) -> Option<RegistrationState> {
        let mut state = self.state.clone()?;
        if self.forget {
            state.intent = None;
        }
        Some(state)
    }

    fn intend(&self, action: Action, metadata: &ClientMetadata) -> Result<(), CommandError> {
        let state = self
            .before()
            .unwrap_or_else(|| RegistrationState::new(&self.issuer));
        let state = state.with_intent(action, &self.issuer, metadata, self.clock.now());
        Ok(state.save(self.locked)?)
    }

    /// Nothing was done after all.
    fn undo(&self) -> Result<(), CommandError> {
        match self.before() {
            Some(state) => Ok(state.save(self.locked)?),
            None => Ok(self.locked.remove()?),
        }
    }

    /// What came of it; the intent stays where that is not known.
    fn settle<T>(
        &self,
        end: Result<T, RegistrationError>,
        remedy: &str,
    ) -> Result<T, CommandError> {
        match end {
            Ok(done) => Ok(done),
            Err(error @ RegistrationError::OutcomeUnknown(_)) => {
                let state = self.locked.read()?.is_some();
                let noted = if state {
                    " What was begun is noted in the state"
                } else {
                    ""
                };
                failed(format!("{error}.{noted}: {remedy}"))
            }
            Err(error) => {
                self.undo()?;
                failed(error.to_string())
            }
        }
    }

    /// Saves a registration, the state first: it alone holds everything.
    fn keep(&self, mut registration: Registration) -> Result<Registration, CommandError> {
        let secret = registration.client_secret.clone();
        registration.secret_file = secret.as_ref().map(|_| self.secret_file.clone());
        let state = self
            .before()
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

    fn report(&self, registration: &Registration, done: &str) -> Result<(), CommandError> {
        let (id, issuer) = (&registration.client_id, &self.issuer);
        let mut lines = vec![format!("{done}: client_id {id} at {issuer}")];
        if let Some(file) = &registration.secret_file {
            lines.push(format!("its secret is in {} (mode 0600)", file.display()));
        } else if registration.auth_method == AuthMethod::None {
            lines.push("a public client: it has no secret".to_owned());
        }
        if registration.client_secret_expires_at != 0 {
            let seconds = i64::try_from(registration.client_secret_expires_at).unwrap_or(i64::MAX);
            let end = UnixMillis::from_secs(seconds).to_rfc3339();
            lines.push(format!("the secret ends at {end}; run the same again then"));
        }
        if registration.management().is_none() {
            let text = "the issuer gave no registration token: changes are made in its own console";
            lines.push(text.to_owned());
        }
        lines.push(snippet(registration, self.locked.path()));
        print(lines.join("\n").trim_end())
    }
}
