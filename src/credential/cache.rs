//! The cache with generations: single flight, refresh ahead, refusals, bounded.

use std::sync::Arc;
use std::time::Duration;

use super::{Credential, FetchError, SwapRequest};
use crate::gateway::outcome::Lookup;

/// The `[cache]` section, resolved.
#[derive(Clone, Debug)]
pub struct CacheLimits {
    /// Entries per source.
    pub max_entries: u64,
    /// Longest a credential without an expiry of its own is used.
    pub max_age: Duration,
    /// How long before expiry a credential in use is fetched anew.
    pub refresh_ahead: Duration,
    /// How long a refusal is remembered.
    pub refusals: Duration,
}

/// A credential on loan for one attempt: which generation it is, is what makes dropping
/// it safe.
#[derive(Clone, Debug)]
pub struct Lease {
    credential: Arc<Credential>,
    generation: u64,
}

impl Lease {
    /// The credential.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }
    /// Which of its identity's successive credentials this is.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// A lease, and how it was come by.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The credential on loan.
    pub lease: Lease,
    /// Hit, fetched, joined, …
    pub lookup: Lookup,
}

/// Why there is no lease.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct LeaseError {
    /// What the source said, now or a moment ago.
    #[source]
    pub cause: FetchError,
    /// Refused (from the cache), fetched (just now), joined (somebody else's fetch).
    pub lookup: Lookup,
}

/// A configured source with its cache.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
}

impl Source {
    /// Its configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A credential for `request`: from the cache, or by one fetch for everybody asking.
    pub async fn lease(&self, _request: &SwapRequest) -> Result<Leased, LeaseError> {
        Err(LeaseError {
            cause: FetchError::BadAnswer("skeleton".into()),
            lookup: Lookup::Fetched,
        })
    }

    /// The upstream answered 401 to `rejected`: drops that generation if it is still the
    /// current one and fetches once for everybody waiting; if another generation is there
    /// already, returns that.
    pub async fn replace(
        &self,
        _request: &SwapRequest,
        _rejected: &Lease,
    ) -> Result<Leased, LeaseError> {
        Err(LeaseError {
            cause: FetchError::BadAnswer("skeleton".into()),
            lookup: Lookup::Fetched,
        })
    }

    /// Drops that generation without fetching (the request cannot be replayed).
    pub fn invalidate(&self, _request: &SwapRequest, _rejected: &Lease) {}

    /// How many identities are cached now.
    pub fn entries(&self) -> u64 {
        0
    }
}
