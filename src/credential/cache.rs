//! The cache with generations in front of one source: single flight, renewal ahead of
//! expiry, refusals remembered, everything bounded (identity.md §B, pingora.md "Replay on
//! 401").
//!
//! A hit costs one HMAC, one look-up and one atomic load or two, takes no lock and awaits
//! nothing. All that changes what is cached happens under one mutex in [`coordinator`], off the
//! hot path, so that "fetch only if this generation is still the current one" holds.

mod fetch_coordinator;
mod generation;
mod lease_memo;
mod negative;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::identity::{Identity, IdentityKey};
use super::{Credential, CredentialSource, FetchError, Inject, RandomnessError, SwapRequest};
use crate::clock::{Now, SharedClock, UnixMillis};
use crate::credential::Lookup;
use crate::secret::SecretString;
use crate::token::{Caller, ExtensionKey};
use fetch_coordinator::FetchCoordinator;
use generation::Generation;
pub use negative::Jitter;

/// The `[cache]` section, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheLimits {
    /// Identities per source; the least recently used goes first.
    pub max_entries: u64,
    /// Longest a credential is used, whatever its own expiry.
    pub max_age: Duration,
    /// How long before expiry a credential in use is fetched anew; at most a third of its
    /// life, less up to a quarter of jitter.
    pub refresh_ahead: Duration,
    /// How long a refusal is remembered.
    pub refusals: Duration,
}

/// How a [`Source`] is bounded.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// The `[cache]` section.
    pub limits: CacheLimits,
    /// For one exchange, and for waiting for a turn at it.
    pub timeout: Duration,
    /// Exchanges under way at once; 0 counts as 1.
    pub concurrency: usize,
}

/// A credential on loan for one attempt: which generation it is, is what makes dropping
/// it safe.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Generation>);

impl Lease {
    /// The credential.
    pub fn credential(&self) -> &Credential {
        &self.0.credential
    }
    /// When it will not be used any more, by our wall clock.
    pub fn usable_until(&self) -> UnixMillis {
        self.0.wall_end
    }
    /// Which of its source's successive credentials this is.
    pub fn generation(&self) -> u64 {
        self.0.number
    }
}

/// A lease, and how it was come by.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The credential on loan.
    pub lease: Lease,
    /// Hit, stale, fetched or joined.
    pub lookup: Lookup,
}

impl Leased {
    /// From the cache.
    fn of(generation: Arc<Generation>) -> Self {
        let lookup = if generation.is_stale() {
            Lookup::Stale
        } else {
            Lookup::Hit
        };
        Self {
            lease: Lease(generation),
            lookup,
        }
    }
}

/// Why there is no lease.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct LeaseError {
    /// What the source said, now or a moment ago.
    #[source]
    pub cause: FetchError,
    /// Refused (remembered) or failed (an exchange, just now or a moment ago).
    pub lookup: Lookup,
}

/// A configured source with its cache.
#[derive(Debug)]
pub struct Source {
    memo_key: ExtensionKey,
    key: IdentityKey,
    inject: Inject,
    coordinator: Arc<FetchCoordinator>,
}

impl Source {
    /// Puts a cache in front of `inner`, which is configured as `name`.
    ///
    /// # Errors
    /// When the system has no randomness for the identities' key.
    pub fn new(
        name: Arc<str>,
        inner: Arc<dyn CredentialSource>,
        options: SourceOptions,
        clock: SharedClock,
    ) -> Result<Self, RandomnessError> {
        Self::with_jitter(name, inner, options, clock, Jitter::Random)
    }

    /// As [`Self::new`], with a given `jitter`.
    ///
    /// # Errors
    /// When the system has no randomness for the identities' key.
    pub fn with_jitter(
        name: Arc<str>,
        inner: Arc<dyn CredentialSource>,
        options: SourceOptions,
        clock: SharedClock,
        jitter: Jitter,
    ) -> Result<Self, RandomnessError> {
        Ok(Self {
            memo_key: ExtensionKey::new(),
            key: IdentityKey::random()?,
            inject: Inject::default(),
            coordinator: Arc::new(FetchCoordinator::new(name, inner, options, clock, jitter)),
        })
    }

    /// Bearer credentials go upstream as `inject` says.
    #[must_use]
    pub fn injecting(mut self, inject: Inject) -> Self {
        self.inject = inject;
        self
    }

    /// Where bearer credentials go; Hawk is always in `Authorization`.
    pub fn inject(&self) -> &Inject {
        &self.inject
    }

    /// Its configured name.
    pub fn name(&self) -> &Arc<str> {
        self.coordinator.name()
    }

    /// Whether new credentials are made here, without asking anybody.
    pub fn is_local(&self) -> bool {
        self.coordinator.inner().is_local()
    }

    /// Whether it wants the caller's token itself.
    pub fn takes_token(&self) -> bool {
        self.coordinator.inner().takes_token()
    }

    /// Whether callers bring a username and password.
    pub fn asks_password(&self) -> bool {
        self.coordinator.inner().asks_password()
    }

    /// Whether the user must sign in elsewhere once fresh credentials were refused.
    pub fn needs_sign_in(&self) -> bool {
        self.coordinator.inner().needs_sign_in()
    }

    /// What the user must be given after a fetch, once.
    pub fn recovery_code(&self, request: &SwapRequest) -> Option<SecretString> {
        self.coordinator.inner().recovery_code(request)
    }

    /// What [`Self::lease`] would say of a request by this `caller` whose scopes no rule
    /// narrows, where the token itself remembers it of a moment ago: the hot path's hot path.
    pub fn memoized(&self, caller: &Caller, now: Now) -> Option<Leased> {
        lease_memo::get(self.memo_key, self.coordinator.inner(), caller, now)
    }

    /// A credential for `request`: from the cache, or by one exchange for everybody
    /// asking. That exchange goes on when the caller that started it goes away. Needs a
    /// Tokio runtime. Takes at most twice [`SourceOptions::timeout`].
    ///
    /// # Errors
    /// What the source said, or [`FetchError::Unavailable`] while it is left alone.
    pub async fn lease(&self, request: &SwapRequest) -> Result<Leased, LeaseError> {
        let epoch = self.coordinator.inner().epoch();
        let identity = self.identify(request)?;
        let now = self.coordinator.now();
        if let Some(leased) = self.coordinator.hit(identity, request, now) {
            if let (Some(epoch), None) = (epoch, &request.scopes) {
                lease_memo::insert(self.memo_key, &request.caller, &leased.lease, epoch, now);
            }
            return Ok(leased);
        }
        self.coordinator.obtain(identity, request, None).await
    }

    /// The upstream answered 401 to `rejected`: drops that generation for good if it is
    /// still the current one and fetches once for everybody waiting; if another
    /// generation is there already, returns that.
    ///
    /// # Errors
    /// As [`Self::lease`]; the rejected generation stays dropped.
    pub async fn replace(
        &self,
        request: &SwapRequest,
        rejected: &Lease,
    ) -> Result<Leased, LeaseError> {
        rejected.0.drop_for_good();
        let identity = self.identify(request)?;
        self.coordinator
            .obtain(identity, request, Some(rejected.generation()))
            .await
    }

    /// Drops that generation without fetching (the request cannot be replayed).
    pub fn invalidate(&self, request: &SwapRequest, rejected: &Lease) {
        rejected.0.drop_for_good();
        if let Ok(identity) = self.identify(request) {
            self.coordinator
                .drop_generation(identity, rejected.generation());
        }
    }

    /// How many identities are cached now.
    pub fn entries(&self) -> u64 {
        self.coordinator.entries()
    }

    fn identify(&self, request: &SwapRequest) -> Result<Identity, LeaseError> {
        self.key
            .identify(self.coordinator.name(), self.coordinator.inner(), request)
            .map_err(|cause| LeaseError {
                cause,
                lookup: Lookup::Failed,
            })
    }
}
