//! What the sources that need no network have in common.

use super::{Credential, FetchError};
use crate::hawk::{Credentials, HawkError, Signer};
use crate::secret::{SecretRef, SecretString};

/// Settings that can never yield a credential, found when the source is built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The client is not what Taskcluster takes as a clientId.
    #[error("client_id is not a valid clientId: letters, digits and !@/:.+|_- only")]
    ClientId,
    /// A scope that Taskcluster would not take.
    #[error("scope {0:?} is not valid: printable ASCII only, not ending in more than one `*`")]
    Scope(String),
    /// Certificates are valid for at most 31 days, and for more than nothing.
    #[error("lifetime must be more than 0 and at most 31 days")]
    Lifetime,
}

/// The first scope that Taskcluster would not take is an error.
pub(super) fn check_scopes(scopes: &[String]) -> Result<(), SettingsError> {
    match scopes.iter().find(|scope| !super::scope::is_valid(scope)) {
        Some(bad) => Err(SettingsError::Scope(bad.clone())),
        None => Ok(()),
    }
}

/// Reads a secret without blocking the worker: it may be a file on a slow volume.
pub(super) async fn read(secret: &SecretRef) -> Result<SecretString, FetchError> {
    let secret = secret.clone();
    let unavailable = |cause: String| FetchError::Unavailable {
        cause,
        retry_after: None,
    };
    tokio::task::spawn_blocking(move || secret.read())
        .await
        .map_err(|_| unavailable("reading a secret was cut short".into()))?
        .map_err(|error| unavailable(error.to_string()))
}

/// Prepares `credentials` for signing.
pub(super) fn credential(credentials: &Credentials) -> Result<Credential, FetchError> {
    let signer = Signer::new(credentials).map_err(|error| match error {
        HawkError::TooLong { .. } => FetchError::TooLarge(error.to_string()),
        _ => FetchError::BadAnswer(error.to_string()),
    })?;
    Ok(Credential::Taskcluster {
        client_id: credentials.client_id.clone(),
        signer: Box::new(signer),
    })
}
