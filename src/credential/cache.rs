//! The credential cache in front of one source: generations, single flight, renewal ahead of
//! expiry and negative caching, all of it bounded (`docs/design/cache.md`).
//!
//! A hit costs one HMAC, one look-up and one or two atomic loads; it takes no lock and awaits
//! nothing. Every change to what is cached happens under one mutex in [`fetch_coordinator`],
//! off the hot path. That is what makes "fetch only if this generation is still the current
//! one" a single step.

mod fetch_coordinator;
mod generation;
mod lease_memo;
mod negative;
mod receipt;
mod replacement;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::identity::{Identity, IdentityKey};
use super::{Credential, CredentialSource, FetchError, Inject, RandomnessError, SwapRequest};
use crate::bounded_cache::CacheBounds;
use crate::circuit_breaker::Jitter;
use crate::clock::{Now, SharedClock, UnixMillis};
use crate::credential::Lookup;
use crate::secret::SecretString;
use crate::shared_store::{Fleet, FleetKeyError, StoreEvent};
use crate::token::{Caller, ExtensionKey};
use fetch_coordinator::{FetchCoordinator, Replacing};
use generation::Generation;
pub use receipt::{Receipt, Reported};
pub use replacement::Replacement;
use shared::SharedCredentials;

/// The settings of `[cache]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheLimits {
    /// Identities per source; the least recently used is evicted first.
    pub max_entries: u64,
    /// The memory that each source's credentials may take, in bytes, and again its refusals.
    pub max_bytes: u64,
    /// The longest a credential is used, regardless of its own expiry.
    pub max_age: Duration,
    /// How long before expiry a credential in use is renewed: at most a third of its
    /// lifetime, reduced by up to a quarter of jitter.
    pub refresh_ahead: Duration,
    /// How long a refusal is cached.
    pub refusals: Duration,
}

impl CacheLimits {
    /// The bounds of each cache.
    pub fn bounds(&self) -> CacheBounds {
        CacheBounds {
            entries: self.max_entries,
            bytes: self.max_bytes,
        }
    }
}

/// The limits of a [`CachedSource`].
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// The `[cache]` section.
    pub limits: CacheLimits,
    /// The limit for one exchange, and again for waiting for a permit to start it.
    pub timeout: Duration,
    /// Concurrent exchanges; 0 counts as 1.
    pub concurrency: usize,
}

/// A credential to use for one attempt. It knows its generation, so that rejecting it cannot
/// drop a newer one.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Generation>);

impl Lease {
    /// A lease for a user's own `credential`, which is in no cache and is never renewed: it ends
    /// shortly before `expires_at`.
    pub fn detached(credential: Credential, expires_at: UnixMillis, now: Now) -> Self {
        Self(Arc::new(Generation::detached(credential, expires_at, now)))
    }

    /// A lease for `credential` that is not in any cache.
    #[cfg(test)]
    pub(crate) fn for_test(credential: Credential) -> Self {
        let limits = CacheLimits {
            max_entries: 1,
            max_bytes: 1 << 20,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::ZERO,
            refusals: Duration::ZERO,
        };
        let issued = super::Issued {
            credential,
            expires_at: None,
            original: None,
        };
        let now = Now::read(&*crate::clock::ManualClock::at(UnixMillis::from_secs(0)));
        Self(Arc::new(Generation::new(issued, 1, now, &limits, 0.0)))
    }

    /// The credential.
    pub fn credential(&self) -> &Credential {
        &self.0.credential
    }
    /// When the credential stops being used, by our wall clock.
    pub fn usable_until(&self) -> UnixMillis {
        self.0.wall_end
    }
    /// Whether the credential may still be used at `now`.
    pub fn is_usable(&self, now: Now) -> bool {
        self.0.is_usable(now)
    }
    /// The credential's position in the sequence that its source has issued; 0 for
    /// [`Lease::detached`].
    pub fn generation(&self) -> u64 {
        self.0.number
    }
}

/// A lease, and how it was obtained.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The lease.
    pub lease: Lease,
    /// [`Lookup::Hit`], `Stale`, `Fetched`, `Shared` or `Joined`.
    pub lookup: Lookup,
}

impl Leased {
    fn from_cache(generation: Arc<Generation>) -> Self {
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
    /// The source's error, either fresh or cached.
    #[source]
    pub cause: FetchError,
    /// [`Lookup::Refused`] (from the negative cache) or `Failed` (by an exchange).
    pub lookup: Lookup,
}

/// A configured source with its cache.
#[derive(Debug)]
pub struct CachedSource {
    memo_key: ExtensionKey,
    key: IdentityKey,
    inject: Inject,
    coordinator: Arc<FetchCoordinator>,
}

impl CachedSource {
    /// Puts a cache in front of `inner`, the source configured as `name`.
    ///
    /// # Errors
    /// If the operating system cannot supply random bytes for the identity key.
    pub fn new(
        name: Arc<str>,
        inner: Arc<dyn CredentialSource>,
        options: SourceOptions,
        clock: SharedClock,
    ) -> Result<Self, RandomnessError> {
        Self::with_jitter(name, inner, options, clock, Jitter::Random)
    }

    /// Like [`Self::new`], with the given `jitter`.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn with_jitter(
        name: Arc<str>,
        inner: Arc<dyn CredentialSource>,
        options: SourceOptions,
        clock: SharedClock,
        jitter: Jitter,
    ) -> Result<Self, RandomnessError> {
        let key = IdentityKey::random()?;
        Ok(Self {
            memo_key: ExtensionKey::new(),
            coordinator: Arc::new(FetchCoordinator::new(
                name,
                inner,
                options,
                clock,
                jitter,
                key.clone(),
            )),
            key,
            inject: Inject::default(),
        })
    }

    /// Sets how bearer credentials are sent upstream.
    #[must_use]
    pub fn injecting(mut self, inject: Inject) -> Self {
        self.inject = inject;
        self
    }

    /// Shares the credentials with the other replicas of `fleet` whose `section` of the configuration is
    /// the same; without effect for sources that need no network, because there is nothing to spare.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn sharing(self, fleet: &Fleet, section: &[u8]) -> Result<Self, FleetKeyError> {
        if self.is_local() || self.is_fixed() {
            return Ok(self);
        }
        let entries = self.coordinator.options().limits.max_entries;
        let shared = SharedCredentials::new(fleet, self.coordinator.name(), section, entries)?;
        self.coordinator.share(shared);
        Ok(self)
    }

    /// Something happened in the store of the fleet. To be called with each event.
    pub fn on_event(&self, event: &StoreEvent) {
        self.coordinator.on_event(event);
    }

    /// How bearer credentials are sent upstream; Hawk always uses `Authorization`.
    pub fn inject(&self) -> &Inject {
        &self.inject
    }

    /// The name from the configuration.
    pub fn name(&self) -> &Arc<str> {
        self.coordinator.name()
    }

    /// See [`CredentialSource::is_local`].
    pub fn is_local(&self) -> bool {
        self.coordinator.inner().is_local()
    }

    /// See [`CredentialSource::is_fixed`].
    pub fn is_fixed(&self) -> bool {
        self.coordinator.inner().is_fixed()
    }

    /// See [`CredentialSource::takes_token`].
    pub fn takes_token(&self) -> bool {
        self.coordinator.inner().takes_token()
    }

    /// See [`CredentialSource::takes_password`].
    pub fn takes_password(&self) -> bool {
        self.coordinator.inner().takes_password()
    }

    /// See [`CredentialSource::needs_sign_in`].
    pub fn needs_sign_in(&self) -> bool {
        self.coordinator.inner().needs_sign_in()
    }

    /// See [`CredentialSource::recovery_code`].
    pub fn recovery_code(&self, request: &SwapRequest) -> Option<SecretString> {
        self.coordinator.inner().recovery_code(request)
    }

    /// The lease that [`Self::lease`] would return for a request by `caller` whose scopes no
    /// rule narrows, if it was memoized with the caller's token within the last second.
    /// Saves hashing the identity and looking it up.
    pub fn memoized(&self, caller: &Caller, now: Now) -> Option<Leased> {
        lease_memo::get(self.memo_key, self.coordinator.inner(), caller, now)
    }

    /// A credential for `request`: from the cache, or from one exchange shared by every
    /// concurrent caller with the same identity. That exchange continues even if the caller
    /// that started it goes away. Must be called within a Tokio runtime. Takes at most twice
    /// [`SourceOptions::timeout`]; three times in a fleet, where another replica's exchange is waited
    /// for.
    ///
    /// # Errors
    /// The source's answer, or [`FetchError::Unavailable`] while the source is backing off.
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

    /// Like [`Self::lease`], for a request that uses the credential for as long as that lives, such
    /// as an upgrade to WebSocket: a cached one in the last third of its life is renewed first. If
    /// that fails, the cached one is returned, unless the source refuses the caller. One identity
    /// causes one exchange in two thirds of a credential's life by this.
    ///
    /// # Errors
    /// As for [`Self::lease`].
    pub async fn lasting_lease(&self, request: &SwapRequest) -> Result<Leased, LeaseError> {
        let leased = self.lease(request).await?;
        let generation = &leased.lease.0;
        let is_cached = matches!(leased.lookup, Lookup::Hit | Lookup::Stale);
        if !is_cached || !generation.is_ending(self.coordinator.now()) {
            return Ok(leased);
        }
        let identity = self.identify(request)?;
        let replacing = Some(Replacing::outdated(&leased.lease));
        let renewed = self.coordinator.obtain(identity, request, replacing).await;
        let now = self.coordinator.now();
        match renewed {
            Ok(renewed) if renewed.lease.0.is_usable(now) => Ok(renewed),
            Err(error) if !generation.is_usable(now) => Err(error),
            Ok(_) | Err(_) => Ok(leased),
        }
    }

    /// Replaces `rejected`, to which the upstream answered 401, for a request that is then
    /// replayed. If that generation is still the current one, one exchange is made for every
    /// waiting caller, and until it succeeds other requests go on using the old one; otherwise
    /// the newer generation is returned. Call [`Self::accepted`] if the replay gets another
    /// answer than 401: a caller whose replays fail causes one exchange in 30 seconds.
    ///
    /// # Errors
    /// As for [`Self::lease`]. If the source is unavailable, the rejected generation stays in
    /// use.
    pub async fn replace(
        &self,
        request: &SwapRequest,
        rejected: &Lease,
    ) -> Result<Replacement, LeaseError> {
        let identity = self.identify(request)?;
        let caller = self.caller_key(identity, request);
        let replaced = self
            .coordinator
            .replace(identity, caller, request, rejected)
            .await?;
        if let Replacement::New(_) = &replaced {
            // A memo may hold it even if the cache has evicted it.
            rejected.0.retire();
        }
        Ok(replaced)
    }

    /// Whether [`Self::replace`] would return [`Replacement::StillRejected`].
    pub fn is_still_rejected(&self, request: &SwapRequest, rejected: &Lease) -> bool {
        let Ok(identity) = self.identify(request) else {
            return false;
        };
        let caller = self.caller_key(identity, request);
        self.coordinator
            .is_still_rejected(identity, caller, request, rejected)
    }

    /// Issues another credential in place of `outdated`, which the upstream cannot accept
    /// because its clock differs. For sources without network only
    /// ([`CredentialSource::is_local`]), so there is no limit.
    ///
    /// # Errors
    /// As for [`Self::lease`].
    pub async fn reissue(
        &self,
        request: &SwapRequest,
        outdated: &Lease,
    ) -> Result<Leased, LeaseError> {
        let identity = self.identify(request)?;
        let leased = self
            .coordinator
            .obtain(identity, request, Some(Replacing::outdated(outdated)))
            .await?;
        outdated.0.retire();
        Ok(leased)
    }

    /// Notes that the upstream accepted a replay with a credential from [`Self::replace`], so
    /// that the next 401 is healed at once as well.
    pub fn accepted(&self, request: &SwapRequest) {
        if let Ok(identity) = self.identify(request) {
            self.coordinator
                .accepted(self.caller_key(identity, request));
        }
    }

    /// Notes that the upstream answered 401 to `rejected`, for a request that cannot be
    /// replayed. The next lease replaces that generation, within the limits of
    /// [`Self::replace`]. At a shared source ([`CredentialSource::is_shared`]) the old one is
    /// used until the new one has arrived, so that one caller's 401 delays no other.
    pub fn invalidate(&self, request: &SwapRequest, rejected: &Lease) {
        if let Ok(identity) = self.identify(request) {
            let caller = self.caller_key(identity, request);
            self.coordinator.invalidate(identity, caller, &rejected.0);
        }
    }

    /// Whether the circuit to the source is open.
    pub fn is_circuit_open(&self) -> bool {
        self.coordinator.is_circuit_open()
    }

    /// The number of identities that have a cached credential.
    pub fn entries(&self) -> u64 {
        self.coordinator.entries()
    }

    /// The key of the caller of `request` within `identity`.
    fn caller_key(&self, identity: Identity, request: &SwapRequest) -> Identity {
        if !self.coordinator.inner().is_shared() {
            return identity;
        }
        let mut hasher = self.key.hasher();
        hasher.part(&identity);
        hasher.caller(&request.caller, None);
        hasher.finish()
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
