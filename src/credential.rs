//! What a caller is given in exchange: sources of upstream credentials, and the cache
//! with generations in front of each.

mod cache;
pub mod fixed;
mod identity;
mod inject;
mod local;
pub mod mint;
mod outcome;
mod source;

pub use cache::{CacheLimits, Jitter, Lease, LeaseError, Leased, Source, SourceOptions};
pub use identity::{IdentityHasher, IdentityKey, RandomnessError};
pub use inject::{Inject, InjectError};
pub use outcome::{ExchangeResult, Lookup};
pub use source::{CredentialSource, FetchError, SignInProblem, SwapRequest};

pub use crate::hawk::scope;

use crate::clock::UnixMillis;
use crate::hawk::Signer;
use crate::secret::SecretString;

/// What goes upstream in place of the caller's token.
pub enum Credential {
    /// Signs each request with Hawk.
    Taskcluster {
        /// The client's name; not a secret.
        client_id: String,
        /// Key and `ext`, prepared.
        signer: Box<Signer>,
    },
    /// Goes as a bearer token.
    Bearer(SecretString),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taskcluster { client_id, .. } => {
                write!(f, "Taskcluster({client_id:?}, [redacted])")
            }
            Self::Bearer(_) => f.write_str("Bearer([redacted])"),
        }
    }
}

/// A credential fresh from its source.
#[derive(Debug)]
pub struct Issued {
    /// The credential.
    pub credential: Credential,
    /// When it stops being good by its source's word, told in *our* clock: a source whose
    /// own clock may differ says "now, plus what is left" (RFC 9110 §6.6.1 `Date`). `None`
    /// for permanent ones. `cache.max_age` bounds both.
    pub expires_at: Option<UnixMillis>,
}
