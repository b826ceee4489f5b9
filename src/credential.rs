//! Upstream credentials: the sources that issue them, and the generation-tracking cache in
//! front of each source (`docs/design/cache.md`).

mod cache;
#[cfg(fuzzing)]
pub mod fuzzing;
mod identity;
mod inject;
mod local;
mod outcome;
mod source;
pub mod static_secret;
pub mod taskcluster_mint;
pub mod taskcluster_static;

pub use cache::{
    CacheLimits, CachedSource, Lease, LeaseError, Leased, Receipt, Replacement, Reported,
    SourceOptions,
};
pub use identity::{IdentityHasher, IdentityKey, RandomnessError};
pub use inject::{Inject, InjectError};
pub use outcome::{ExchangeResult, Lookup};
pub use source::{CredentialSource, FetchError, SignInProblem, SwapRequest};

pub use crate::hawk::scope;

use crate::bounded_cache::heap_size;
use crate::clock::UnixMillis;
use crate::hawk::{Credentials, HawkError, Signer};
use crate::secret::SecretString;

/// What hawkgate sends upstream in place of the caller's token.
pub enum Credential {
    /// Signs each request with Hawk.
    Taskcluster {
        /// The clientId; not a secret.
        client_id: String,
        /// The HMAC key and `ext`, prepared for signing.
        signer: Box<Signer>,
    },
    /// Sent as a bearer token.
    Bearer(SecretString),
    /// Sent as `Authorization: Basic` (RFC 7617).
    Basic {
        /// Username and password in base64.
        encoded: SecretString,
        /// The one of the two that is secret.
        secret: SecretString,
    },
}

impl Credential {
    /// Taskcluster credentials, prepared for signing.
    ///
    /// # Errors
    /// As for [`Signer::new`].
    pub fn taskcluster(credentials: &Credentials) -> Result<Self, HawkError> {
        Ok(Self::Taskcluster {
            signer: Box::new(Signer::new(credentials)?),
            client_id: credentials.client_id.clone(),
        })
    }

    /// Whether it is sent in the same way as `other`, with the same secret. Never true of
    /// Taskcluster credentials, whose signatures differ each time.
    pub fn is_sent_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bearer(own), Self::Bearer(other))
            | (Self::Basic { encoded: own, .. }, Self::Basic { encoded: other, .. }) => {
                own == other
            }
            _ => false,
        }
    }

    /// The heap memory that it takes, in bytes.
    fn heap_size(&self) -> usize {
        match self {
            Self::Taskcluster { client_id, signer } => {
                heap_size::string(client_id) + signer.heap_size()
            }
            Self::Bearer(token) => heap_size::string(token.expose()),
            Self::Basic { encoded, secret } => {
                heap_size::string(encoded.expose()) + heap_size::string(secret.expose())
            }
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taskcluster { client_id, .. } => {
                write!(f, "Taskcluster({client_id:?}, [redacted])")
            }
            Self::Bearer(_) => f.write_str("Bearer([redacted])"),
            Self::Basic { .. } => f.write_str("Basic([redacted])"),
        }
    }
}

/// A credential fresh from its source.
#[derive(Debug)]
pub struct Issued {
    /// The credential.
    pub credential: Credential,
    /// When the credential expires according to its source, converted to *our* clock: a
    /// source whose clock may differ states the remaining lifetime, measured against its
    /// `Date` header (RFC 9110 §6.6.1). `None` for permanent credentials. `cache.max_age`
    /// caps both.
    pub expires_at: Option<UnixMillis>,
    /// The credentials from which `credential` was prepared, if it is of Taskcluster and other replicas
    /// may use it too: a [`Signer`] does not give them back.
    pub original: Option<Credentials>,
}
