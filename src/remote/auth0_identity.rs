//! Source `auth0-identity`: the access token that an upstream identity provider issued to Auth0
//! for this user, from the Management API or Token Vault (`docs/design/tokens.md`, "Auth0
//! Management API").

mod management;
#[cfg(test)]
mod tests;
mod user;

use std::time::Duration;

use async_trait::async_trait;

use super::http_client::HttpClient;
use super::oauth::{Endpoint, ErrorResponse, Failure, OnBehalfOf};
use super::settings::{Auth0Identity, Via};
use crate::clock::SharedClock;
use crate::credential::{
    Credential, CredentialSource, FetchError, IdentityHasher, Issued, RandomnessError, SwapRequest,
};
use crate::token::{Caller, VerifiedToken};
use management::Management;

/// How long a token from `identities[]` is used; the `expires_in` given there is unreliable.
const IDENTITY_TOKEN_LIFETIME: Duration = Duration::from_mins(5);

const VAULT_GRANT: &str =
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const VAULT_TOKEN: &str = "http://auth0.com/oauth/token-type/federated-connection-access-token";

/// Fetches users' tokens for one connection of one tenant.
#[derive(Debug)]
pub struct IdentitySource {
    backend: Backend,
    connection: String,
    clock: SharedClock,
}

#[derive(Debug)]
enum Backend {
    /// `identities[]` of the user, from the Management API.
    Identities {
        provider: String,
        management: Box<Management>,
    },
    /// Token Vault, through a token exchange at the token endpoint.
    Vault(Box<Endpoint>),
}

impl IdentitySource {
    /// `client` must allow responses of [`super::oauth::MAX_RESPONSE_BYTES`]; `timeout` bounds one
    /// exchange.
    ///
    /// # Errors
    /// When the system's random number generator fails.
    pub fn new(
        settings: &Auth0Identity,
        client: HttpClient,
        timeout: Duration,
        clock: SharedClock,
    ) -> Result<Self, RandomnessError> {
        let mut token_url = settings.tenant.clone();
        token_url.set_path("/oauth/token");
        let oauth_client = settings.client.clone();
        let tokens = Endpoint::new(token_url, oauth_client, client.clone(), clock.clone());
        let backend = match &settings.via {
            Via::Vault => Backend::Vault(Box::new(tokens)),
            Via::Identities { provider } => {
                let tenant = &settings.tenant;
                let management = Management::new(tenant, tokens, client, timeout, clock.clone())?;
                Backend::Identities {
                    provider: provider.clone(),
                    management: Box::new(management),
                }
            }
        };
        Ok(Self {
            backend,
            connection: settings.connection.clone(),
            clock,
        })
    }

    async fn exchange(
        &self,
        tokens: &Endpoint,
        request: &SwapRequest,
    ) -> Result<Issued, FetchError> {
        let bearer = request.bearer.as_ref().ok_or_else(not_verified)?;
        let parameters = [
            ("grant_type", VAULT_GRANT),
            ("subject_token", bearer.expose()),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", VAULT_TOKEN),
            ("connection", self.connection.as_str()),
        ];
        let response = tokens.grant(&parameters).await;
        let response = response.map_err(|failure| match failure {
            Failure::ErrorResponse(error) if lacks_identity(&error) => {
                FetchError::NotEntitled(format!(
                    "{}: Token Vault has no token of this user for connection {:?}; the user must connect the account",
                    error.cause(),
                    self.connection
                ))
            }
            other => other.into_fetch_error(OnBehalfOf::Caller),
        })?;
        Ok(Issued {
            credential: Credential::Bearer(response.access_token),
            expires_at: response.expires_at,
            original: None,
        })
    }
}

/// Whether a 401 from Token Vault means that the user has no such identity or that its refresh
/// token has been used up, rather than that hawkgate's own client was rejected.
fn lacks_identity(error: &ErrorResponse) -> bool {
    let client_errors = ["invalid_client", "unauthorized_client", "access_denied"];
    error.status == http::StatusCode::UNAUTHORIZED
        && error.code.is_some()
        && !client_errors.iter().any(|code| error.is(code))
}

/// The caller's verified token. The configuration ensures that there is one; no other caller may
/// get a user's token.
fn verified(request: &SwapRequest) -> Result<&VerifiedToken, FetchError> {
    match &request.caller {
        Caller::Verified(token) => Ok(token),
        _ => Err(not_verified()),
    }
}

fn not_verified() -> FetchError {
    FetchError::NotEntitled("only for callers whose token hawkgate has verified".into())
}

#[async_trait]
impl CredentialSource for IdentitySource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        let token = verified(request)?;
        // Token Vault exchanges the token itself; a user's identities do not depend on it.
        if matches!(self.backend, Backend::Vault(_)) {
            key.token(token.digest(), request.bearer.as_ref());
        }
        Ok(())
    }

    /// Constant: the cache key of a token never changes.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        if request.scopes.is_some() {
            let text = "rules narrow the scopes, but another provider's token cannot be narrowed";
            return Err(FetchError::NotEntitled(text.into()));
        }
        let subject = verified(request)?.subject();
        match &self.backend {
            Backend::Vault(tokens) => self.exchange(tokens, request).await,
            Backend::Identities {
                provider,
                management,
            } => {
                let response = management.user(subject).await?;
                let token = user::identity_token(&response, provider, &self.connection)?;
                Ok(Issued {
                    credential: Credential::Bearer(token),
                    expires_at: Some(self.clock.now().plus(IDENTITY_TOKEN_LIFETIME)),
                    original: None,
                })
            }
        }
    }

    fn needs_sign_in(&self) -> bool {
        true
    }
}
