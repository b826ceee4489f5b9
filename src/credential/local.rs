//! Shared by the sources that need no network: reading secrets, checking scopes, and
//! preparing Hawk signers.

use super::{Credential, FetchError};
use crate::hawk::{Credentials, HawkError, Signer};
use crate::secret::{SecretRef, SecretString};

/// Settings that could never yield a valid credential, rejected when the source is built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Taskcluster would not accept this clientId.
    #[error("client_id is not a valid clientId: use only letters, digits and !@/:.+|_-")]
    ClientId,
    /// Taskcluster would not accept this scope.
    #[error("scope {0:?} is not valid: use only printable ASCII, with at most one trailing `*`")]
    Scope(String),
    /// A certificate is valid for at most 31 days.
    #[error("lifetime must be greater than 0 and at most 31 days")]
    Lifetime,
}

/// Fails on the first scope that Taskcluster would not accept.
pub(super) fn check_scopes(scopes: &[String]) -> Result<(), SettingsError> {
    match scopes.iter().find(|scope| !super::scope::is_valid(scope)) {
        Some(bad) => Err(SettingsError::Scope(bad.clone())),
        None => Ok(()),
    }
}

/// Reads a secret on a blocking thread: it may be a file on a slow volume.
pub(super) async fn read(secret: &SecretRef) -> Result<SecretString, FetchError> {
    let secret = secret.clone();
    let unavailable = |cause: String| FetchError::Unavailable {
        cause,
        retry_after: None,
    };
    tokio::task::spawn_blocking(move || secret.read())
        .await
        .map_err(|_| unavailable("reading a secret was interrupted".into()))?
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
