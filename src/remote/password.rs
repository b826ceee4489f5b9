//! Source `password`: signs callers in with their username and password, and MFA if required
//! (resource owner password grant, RFC 6749 §4.3; `docs/design/tokens.md`, "Passwords and MFA").
//! RFC 9700 §2.4 discourages it: it is for clients that support nothing else, and the
//! configuration allows it only on listeners that are local to this machine.

mod attempt_limiter;
mod error;
mod grant;
mod login_store;
mod mfa;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use super::http_client::HttpClient;
use super::oauth::{Endpoint, RequestedScopes, TokenResponse};
use super::settings::{ClientProof, PasswordGrant};
use crate::clock::SharedClock;
use crate::credential::{
    Credential, CredentialSource, FetchError, IdentityHasher, IdentityKey, Issued, RandomnessError,
    SignInProblem, SwapRequest,
};
use crate::secret::SecretString;
use crate::shared_store::{Fleet, FleetKeyError};
use crate::token::{BasicCredentials, Caller};
use attempt_limiter::AttemptLimiter;
use error::SignInError;
use grant::PasswordSignIn;
use login_store::{LoginKey, LoginStore};
use mfa::MfaApi;

/// The longest that a token is used before the provider checks the password again.
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
    /// Random per process, so that password hashes are useless elsewhere.
    key: IdentityKey,
    attempts: AttemptLimiter,
    logins: LoginStore,
    clock: SharedClock,
}

impl PasswordSource {
    /// `client` must allow responses of [`super::oauth::MAX_RESPONSE_BYTES`].
    ///
    /// # Errors
    /// When the system's random number generator fails.
    pub fn new(
        settings: &PasswordGrant,
        client: HttpClient,
        clock: SharedClock,
    ) -> Result<Self, RandomnessError> {
        let oauth_client = settings.client.clone();
        // Auth0 trusts a forwarded address only from a confidential client.
        let confidential = oauth_client.proof != ClientProof::Public;
        Ok(Self {
            mfa: MfaApi::new(
                &settings.mfa_url,
                &oauth_client,
                client.clone(),
                clock.clone(),
            ),
            tokens: Endpoint::new(
                settings.token_url.clone(),
                oauth_client,
                client,
                clock.clone(),
            ),
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

    /// Counts failed sign-ins together with the other replicas. What else is kept between requests
    /// (`LoginStore`) is not shared: refresh tokens are used once each, and stand for a password.
    ///
    /// # Errors
    /// If the keys of the fleet cannot be used.
    pub fn sharing(self, fleet: &Fleet) -> Result<Self, FleetKeyError> {
        let accounts: [&[u8]; 3] = [
            self.tokens.url().as_str().as_bytes(),
            self.tokens.client_id().as_bytes(),
            self.realm.as_deref().unwrap_or_default().as_bytes(),
        ];
        Ok(Self {
            attempts: self.attempts.sharing(fleet, &accounts)?,
            ..self
        })
    }

    /// The key of this login: a keyed hash over length-prefixed parts. It includes the scopes,
    /// because a refresh token granted for one set of scopes is not valid for another.
    fn login_key(&self, credentials: &BasicCredentials, request: &SwapRequest) -> LoginKey {
        let mut hasher = self.key.hasher();
        hasher.part(b"login");
        hasher.list(request.scopes.as_deref());
        hasher.part(credentials.username().as_bytes());
        hasher.part(credentials.password().expose().as_bytes());
        hasher.finish()
    }

    /// The key that the user's attempts are counted under.
    fn user_key(&self, credentials: &BasicCredentials) -> attempt_limiter::UserKey {
        let name = credentials.username().trim().to_lowercase();
        self.attempts.fleet_user_key(&name).unwrap_or_else(|| {
            let mut hasher = self.key.hasher();
            hasher.part(b"user");
            hasher.part(name.as_bytes());
            hasher.finish()
        })
    }

    fn issued(&self, response: TokenResponse) -> Issued {
        let latest = self.clock.now().plus(MAX_TOKEN_LIFETIME);
        Issued {
            credential: Credential::Bearer(response.access_token),
            expires_at: Some(response.expires_at.map_or(latest, |at| at.min(latest))),
            original: None,
        }
    }
}

/// The caller's credentials and address. The configuration ensures that they are present.
fn caller(request: &SwapRequest) -> Result<(&BasicCredentials, Option<IpAddr>), FetchError> {
    match &request.caller {
        Caller::Password { credentials, peer } => Ok((credentials, *peer)),
        _ => Err(FetchError::NotEntitled(
            "this source needs a username and password".into(),
        )),
    }
}

#[async_trait]
impl CredentialSource for PasswordSource {
    /// Username and password are part of every key already.
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        caller(request)?;
        key.optional(self.realm.as_deref().map(str::as_bytes));
        Ok(())
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let (credentials, peer) = caller(request)?;
        let scopes = RequestedScopes::new(&self.scopes, request)?;
        let login = self.login_key(credentials, request);
        if let Some(response) = self.refresh(login).await? {
            scopes.check(&response)?;
            return Ok(self.issued(response));
        }
        let attempt = self
            .attempts
            .acquire(self.user_key(credentials), peer.into());
        let attempt = attempt.await.map_err(|retry_after| FetchError::SignIn {
            problem: SignInProblem::TooManyAttempts,
            cause: "too many failed sign-ins for this user or from this address".into(),
            retry_after: Some(retry_after),
        })?;
        let sign_in = PasswordSignIn {
            login,
            credentials,
            scope: scopes.parameter().unwrap_or_default(),
            headers: self.headers(peer),
        };
        match self.sign_in(&sign_in).await {
            Ok(mut response) => {
                attempt.succeeded().await;
                if let Some(token) = response.refresh_token.take() {
                    self.logins.insert_refresh_token(login, token);
                }
                if let Some(code) = response.recovery_code.take() {
                    self.logins.insert_recovery_code(login, code);
                }
                scopes.check(&response)?;
                Ok(self.issued(response))
            }
            Err(SignInError::WrongCredentials(error)) => {
                attempt.failed().await;
                Err(error)
            }
            Err(SignInError::Other(error)) => Err(error),
        }
    }

    /// The provider counts each attempt, and locks an account after a few.
    fn retries_are_safe(&self) -> bool {
        false
    }

    fn takes_password(&self) -> bool {
        true
    }

    fn recovery_code(&self, request: &SwapRequest) -> Option<SecretString> {
        let (credentials, _) = caller(request).ok()?;
        self.logins
            .take_recovery_code(self.login_key(credentials, request))
    }
}
