//! Source `auth0-identity`: the access token that an identity provider behind Auth0 gave it
//! for this user (seed 001, identity.md §C), out of the Management API or Token Vault.

mod management;
#[cfg(test)]
mod tests;
mod user;

use std::time::Duration;

use async_trait::async_trait;

use super::http_client::HttpClient;
use super::oauth::{About, Denied, Endpoint, Failure};
use crate::clock::SharedClock;
use crate::config::{self, Via};
use crate::credential::{
    Credential, CredentialSource, FetchError, IdentityHasher, Issued, RandomnessError, SwapRequest,
};
use crate::token::{Caller, VerifiedToken};
use management::Management;

/// A token out of `identities[]` is used so long: what is said there of its end cannot be
/// relied upon.
const IDENTITY_LIFE: Duration = Duration::from_mins(5);

const VAULT_GRANT: &str =
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const VAULT_TOKEN: &str = "http://auth0.com/oauth/token-type/federated-connection-access-token";

/// Asks one tenant for the tokens that one of its connections has of its users.
#[derive(Debug)]
pub struct IdentitySource {
    way: Way,
    connection: String,
    clock: SharedClock,
}

#[derive(Debug)]
enum Way {
    Identities {
        provider: String,
        management: Box<Management>,
    },
    Vault(Box<Endpoint>),
}

impl IdentitySource {
    /// `client` reads at least [`super::oauth::MAX_ANSWER_BYTES`]; `timeout` is for one
    /// exchange.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(
        settings: &config::Auth0Identity,
        client: HttpClient,
        timeout: Duration,
        clock: SharedClock,
    ) -> Result<Self, RandomnessError> {
        let mut token_url = settings.tenant.clone();
        token_url.set_path("/oauth/token");
        let own = settings.client.clone();
        let tokens = Endpoint::new(token_url, own, client.clone(), clock.clone());
        let way = match &settings.via {
            Via::Vault => Way::Vault(Box::new(tokens)),
            Via::Identities { provider } => {
                let tenant = &settings.tenant;
                let management = Management::new(tenant, tokens, client, timeout, clock.clone())?;
                Way::Identities {
                    provider: provider.clone(),
                    management: Box::new(management),
                }
            }
        };
        Ok(Self {
            way,
            connection: settings.connection.clone(),
            clock,
        })
    }

    async fn exchange(
        &self,
        tokens: &Endpoint,
        request: &SwapRequest,
    ) -> Result<Issued, FetchError> {
        let bearer = request.bearer.as_ref().ok_or_else(nobody)?;
        let parameters = [
            ("grant_type", VAULT_GRANT),
            ("subject_token", bearer.expose()),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", VAULT_TOKEN),
            ("connection", self.connection.as_str()),
        ];
        let granted = tokens.grant(&parameters).await;
        let granted = granted.map_err(|failure| match failure {
            Failure::Denied(denied) if lacks_identity(&denied) => {
                FetchError::NotEntitled(format!(
                    "{}: Token Vault has nothing of this user for connection {:?}; the user has to connect it",
                    denied.cause(),
                    self.connection
                ))
            }
            other => other.into_fetch_error(About::Caller),
        })?;
        Ok(Issued {
            credential: Credential::Bearer(granted.access_token),
            expires_at: granted.expires_at,
        })
    }
}

/// A 401 of Token Vault says that the user has no such identity, or that its refresh token
/// is spent; unless it is about hawkgate's own client.
fn lacks_identity(denied: &Denied) -> bool {
    let about_client = ["invalid_client", "unauthorized_client", "access_denied"];
    denied.status == http::StatusCode::UNAUTHORIZED
        && denied.code.is_some()
        && !about_client.iter().any(|code| denied.is(code))
}

/// The configuration sees to it that there is one; nobody else gets a user's token.
fn verified(request: &SwapRequest) -> Result<&VerifiedToken, FetchError> {
    match &request.caller {
        Caller::Verified(token) => Ok(token),
        _ => Err(nobody()),
    }
}

fn nobody() -> FetchError {
    FetchError::NotEntitled("only for callers whose token was verified here".into())
}

#[async_trait]
impl CredentialSource for IdentitySource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        let token = verified(request)?;
        // The exchange is about this very token; a user's identity is the same for all.
        if matches!(self.way, Way::Vault(_)) {
            key.part(&token.digest().0);
        }
        Ok(())
    }

    /// The same for the same token at all times.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        if request.scopes.is_some() {
            let text = "rules narrow the scopes, and another provider's token cannot be narrowed";
            return Err(FetchError::NotEntitled(text.into()));
        }
        let subject = verified(request)?.subject();
        match &self.way {
            Way::Vault(tokens) => self.exchange(tokens, request).await,
            Way::Identities {
                provider,
                management,
            } => {
                let answer = management.user(subject).await?;
                let token = user::identity_token(&answer, provider, &self.connection)?;
                Ok(Issued {
                    credential: Credential::Bearer(token),
                    expires_at: Some(self.clock.now().plus(IDENTITY_LIFE)),
                })
            }
        }
    }

    fn needs_sign_in(&self) -> bool {
        true
    }
}
