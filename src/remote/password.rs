//! Source `password`: a token had with the caller's own username and password (seed 003,
//! identity.md §F). Discouraged (RFC 9700 §2.4), for callers that can do nothing else, and
//! only on listeners that nobody but this machine reaches: the configuration sees to that.

mod attempt_limiter;
mod grant;
mod login_store;
mod mfa;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use super::http_client::HttpClient;
use super::oauth::{Endpoint, Granted, Scopes};
use crate::clock::SharedClock;
use crate::config::{self, ClientProof};
use crate::credential::{
    Credential, CredentialSource, FetchError, IdentityHasher, IdentityKey, Issued, RandomnessError,
    SignInProblem, SwapRequest,
};
use crate::secret::SecretString;
use crate::token::{BasicCredentials, Caller};
use attempt_limiter::AttemptLimiter;
use grant::{PasswordSignIn, SignInError};
use login_store::{LoginKey, LoginStore};
use mfa::MfaApi;

/// A proved password is believed so long before the provider is asked again.
pub const MAX_TOKEN_LIFETIME: Duration = Duration::from_mins(5);

/// Signs users in at one token endpoint.
#[derive(Debug)]
pub struct PasswordSource {
    tokens: Endpoint,
    mfa: MfaApi,
    realm: Option<String>,
    audience: Option<String>,
    scopes: Vec<String>,
    forward_client_ip: bool,
    /// Random for each process: what it makes of a password is of no use to anybody else.
    key: IdentityKey,
    attempts: AttemptLimiter,
    logins: LoginStore,
    clock: SharedClock,
}

impl PasswordSource {
    /// `client` reads at least [`super::oauth::MAX_ANSWER_BYTES`].
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(
        settings: &config::PasswordGrant,
        client: HttpClient,
        clock: SharedClock,
    ) -> Result<Self, RandomnessError> {
        let own = settings.client.clone();
        // A provider believes a caller's address only from a client that has proved itself.
        let confidential = own.proof != ClientProof::Public;
        Ok(Self {
            mfa: MfaApi::new(&settings.mfa_url, &own, client.clone(), clock.clone()),
            tokens: Endpoint::new(settings.token_url.clone(), own, client, clock.clone()),
            realm: settings.realm.clone(),
            audience: settings.audience.clone(),
            scopes: settings.scopes.clone(),
            forward_client_ip: settings.forward_client_ip && confidential,
            key: IdentityKey::random()?,
            attempts: AttemptLimiter::new(clock.clone()),
            logins: LoginStore::new(clock.clone()),
            clock,
        })
    }

    /// What this login is known by here: a keyed hash of each part behind its length. What
    /// was granted for some scopes is of no use for others.
    fn login(&self, credentials: &BasicCredentials, request: &SwapRequest) -> LoginKey {
        let mut hasher = self.key.hasher();
        hasher.part(b"login");
        hasher.list(request.scopes.as_deref());
        hasher.part(credentials.username().as_bytes());
        hasher.part(credentials.password().expose().as_bytes());
        hasher.finish()
    }

    /// What the user is counted by.
    fn user(&self, credentials: &BasicCredentials) -> attempt_limiter::UserKey {
        let mut hasher = self.key.hasher();
        hasher.part(b"user");
        hasher.part(credentials.username().trim().to_lowercase().as_bytes());
        hasher.finish()
    }

    fn issued(&self, granted: Granted) -> Issued {
        let latest = self.clock.now().plus(MAX_TOKEN_LIFETIME);
        Issued {
            credential: Credential::Bearer(granted.access_token),
            expires_at: Some(granted.expires_at.map_or(latest, |at| at.min(latest))),
        }
    }
}

/// The configuration lets nobody else come this way.
fn caller(request: &SwapRequest) -> Result<(&BasicCredentials, Option<IpAddr>), FetchError> {
    match &request.caller {
        Caller::Password { credentials, peer } => Ok((credentials, *peer)),
        _ => Err(FetchError::NotEntitled(
            "this source wants a username and password".into(),
        )),
    }
}

#[async_trait]
impl CredentialSource for PasswordSource {
    /// Username and password are in the key already.
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        caller(request)?;
        key.optional(self.realm.as_deref().map(str::as_bytes));
        Ok(())
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let (credentials, peer) = caller(request)?;
        let scopes = Scopes::new(&self.scopes, request)?;
        let login = self.login(credentials, request);
        if let Some(granted) = self.refresh(login).await? {
            scopes.check(&granted)?;
            return Ok(self.issued(granted));
        }
        let attempt = self.attempts.begin(self.user(credentials), peer.into());
        let attempt = attempt.await.map_err(|left| FetchError::SignIn {
            problem: SignInProblem::TooManyAttempts,
            cause: "too many failed sign-ins of this user or from this address".into(),
            retry_after: Some(left),
        })?;
        let sign_in = PasswordSignIn {
            login,
            credentials,
            scope: scopes.parameter().unwrap_or_default(),
            headers: self.headers(peer),
        };
        match self.sign_in(&sign_in).await {
            Ok(mut granted) => {
                attempt.succeeded();
                if let Some(token) = granted.refresh_token.take() {
                    self.logins.insert_refresh_token(login, token);
                }
                if let Some(code) = granted.recovery_code.take() {
                    self.logins.insert_recovery_code(login, code);
                }
                scopes.check(&granted)?;
                Ok(self.issued(granted))
            }
            Err(SignInError::WrongCredentials(error)) => {
                attempt.failed();
                Err(error)
            }
            Err(SignInError::Other(error)) => Err(error),
        }
    }

    fn asks_password(&self) -> bool {
        true
    }

    fn recovery_code(&self, request: &SwapRequest) -> Option<SecretString> {
        let (credentials, _) = caller(request).ok()?;
        self.logins
            .take_recovery_code(self.login(credentials, request))
    }
}
