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

/// Configured credentials with which no request could be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct UnusableCredentials {
    /// The key of the source's section.
    pub key: &'static str,
    /// What is wrong with its value. Never quotes it.
    pub problem: String,
}

impl UnusableCredentials {
    pub(super) fn new(key: &'static str, problem: impl std::fmt::Display) -> Self {
        Self {
            key,
            problem: problem.to_string(),
        }
    }
}

/// Reads the accessToken of a source's client. Blocks.
pub(super) fn read_access_token(secret: &SecretRef) -> Result<SecretString, UnusableCredentials> {
    let unusable =
        |problem: &dyn std::fmt::Display| UnusableCredentials::new("access_token", problem);
    let token = secret.read().map_err(|error| unusable(&error))?;
    // Taskcluster's consist of letters, digits, `_` and `-`.
    if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable(
            &"contains white space, a line break or characters other than ASCII, as no access token of Taskcluster does",
        ));
    }
    Ok(token)
}

/// Checks that `credentials` fit into a header. `key` is blamed if they do not.
pub(super) fn check_signing(
    key: &'static str,
    credentials: &Credentials,
) -> Result<(), UnusableCredentials> {
    Signer::new(credentials)
        .map(|_| ())
        .map_err(|error| UnusableCredentials::new(key, error))
}
