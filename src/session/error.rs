//! Why sessions cannot be used, signed in to or renewed.

use std::time::Duration;

use super::Ended;
use crate::secret::SecretError;
use crate::shared_store::{FleetKeyError, StoreError};

/// Why a session could not be renewed.
#[derive(Clone, Debug)]
pub enum RenewError {
    /// It has ended: the user has to sign in again.
    Ended(Ended),
    /// The provider or the shared store does not answer and the access token has expired. 503.
    Unavailable {
        /// For the operator's log, without secrets.
        cause: String,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// The provider refuses hawkgate's own client, and the access token has expired: the operator's to
    /// fix. 503. The cause is for the operator's log, without secrets.
    Misconfigured(String),
}

/// Why a sign-in failed. Each has a text for the page that the user sees, and a label for metrics
/// (`hawkgate_sign_ins_total`).
#[derive(Clone, Debug, thiserror::Error)]
pub enum SignInError {
    /// The callback belongs to no attempt of this browser: expired, already completed, or foreign.
    #[error("the callback belongs to no sign-in of this browser")]
    UnknownAttempt,
    /// The attempt is older than ten minutes.
    #[error("the sign-in took longer than 10 minutes")]
    Expired,
    /// The callback comes from another provider (RFC 9207).
    #[error("the callback comes from another issuer")]
    IssuerMismatch,
    /// The provider or the user refused. The code is one of a closed set.
    #[error("the provider refused: {0}")]
    Denied(&'static str),
    /// The callback's parameters are malformed.
    #[error("the callback is malformed")]
    Malformed,
    /// The provider refused the code, or answered with something that cannot be used. The cause is for
    /// the operator's log.
    #[error("{0}")]
    Provider(String),
    /// The provider does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The ID token or the access token is not valid here. The cause is for the operator's log.
    #[error("{0}")]
    Token(String),
    /// The session does not fit into a cookie.
    #[error(
        "the session takes {0} bytes, but browsers keep cookies of at most 4096: ask the provider for fewer scopes, or let it put fewer claims into tokens"
    )]
    TooLarge(usize),
    /// The session does not fit into the shared store.
    #[error(
        "the session takes {0} bytes, but the shared store takes at most 65536 of one: ask the provider for fewer scopes, or let it put fewer claims into tokens"
    )]
    TooLargeToShare(usize),
    /// The shared store, in which the session would be, does not answer.
    #[error("the shared store: {0}")]
    StoreUnavailable(StoreError),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Randomness,
}

/// Why a `[[session]]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A cookie key could not be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A cookie key is not one.
    #[error("the cookie key {0}")]
    Key(&'static str),
    /// The keys of the fleet cannot be used.
    #[error("the key of the fleet {0}")]
    FleetKey(#[from] FleetKeyError),
    /// `store` is `shared`, but there is no shared store.
    #[error("its store is shared, but there is no [shared]")]
    NoSharedStore,
}
