//! Coordinates the fetches of one source: what is cached, what is being fetched, and what
//! failed recently.

mod exchange;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use exchange::abandoned;

use super::generation::Generation;
use super::negative::NegativeEntry;
use super::receipt::Reported;
use super::replacement::{Replacement, ReplacementLimit};
use super::shared::SharedCredentials;
use super::{Lease, LeaseError, Leased, SourceOptions};
use crate::bounded_cache::CacheBounds;
use crate::circuit_breaker::{
    Attempt, CircuitBreaker, Jitter, LONGEST_RETRY_AFTER, Limits, Rejected,
};
use crate::clock::{Now, SharedClock};
use crate::credential::Lookup;
use crate::credential::identity::{Identity, IdentityKey};
use crate::credential::{CredentialSource, FetchError, SwapRequest};
use crate::shared_store::{GenerationId, StoreEvent, Unwanted};
use crate::singleflight::Flight;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, MutexGuard};

/// The most exchanges per source, running or waiting for a permit.
pub(super) const MAX_FLIGHTS: usize = 4096;

/// How long an unused entry stays in memory. It has no bearing on whether a credential is valid.
const IDLE: Duration = Duration::from_mins(15);

type FetchResult = Result<Obtained, FetchError>;

/// What a flight ends with.
#[derive(Clone, Debug)]
enum Obtained {
    /// From an exchange.
    Fetched(Lease),
    /// From the store of the fleet: another replica fetched it.
    Shared(Lease),
    /// Only the store was looked at, and it has nothing newer. What there was before may be used, by those
    /// who do not want it replaced.
    NothingNewer,
}

/// The flights that a caller waits for. A second one is necessary if the first only looked in the store of
/// the fleet; a third one at most if an event arrives in between.
const MAX_WAITS: usize = 3;

/// A generation that a caller wants another one for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replacing {
    number: u64,
    /// Its name in the store of the fleet.
    shared: Option<GenerationId>,
    /// Whether the upstream rejected it.
    reject: bool,
}

impl Replacing {
    /// The upstream rejected `lease`.
    pub(super) fn rejected(lease: &Lease) -> Self {
        Self::of(&lease.0, true)
    }

    /// `lease` ends soon, or is of no use to this replica.
    pub(super) fn outdated(lease: &Lease) -> Self {
        Self::of(&lease.0, false)
    }

    fn of(generation: &Generation, reject: bool) -> Self {
        Self {
            number: generation.number,
            shared: generation.shared_generation(),
            reject,
        }
    }

    /// Whether `generation` is what is to be replaced: the same one, or read from the store once more.
    fn is_of(&self, generation: &Generation) -> bool {
        generation.number == self.number
            || (self.shared.is_some() && self.shared == generation.shared_generation())
    }

    fn unwanted(self) -> Option<Unwanted> {
        let generation = self.shared?;
        let reject = self.reject;
        Some(Unwanted { generation, reject })
    }
}

#[derive(Debug)]
pub(super) struct FetchCoordinator {
    name: Arc<str>,
    inner: Arc<dyn CredentialSource>,
    options: SourceOptions,
    clock: SharedClock,
    jitter: Jitter,
    /// In a fleet with a store.
    shared: OnceLock<SharedCredentials>,
    generations: AtomicU64,
    breaker: Arc<CircuitBreaker<Identity>>,
    key: IdentityKey,
    /// Written only with `in_flight` locked; read without it.
    current: Cache<Identity, Arc<Generation>>,
    /// Separate from `current`, so that a flood of bad tokens evicts no valid credential.
    negatives: Cache<Identity, NegativeEntry>,
    replacements: ReplacementLimit,
    in_flight: Mutex<InFlight>,
    /// What the source said of hawkgate's client in its last response, if it refused it.
    refusal: Mutex<Option<String>>,
}

/// The exchanges in progress or waiting.
type InFlight = HashMap<Identity, Flight<FetchResult>>;

/// How a caller without a cache hit gets its lease.
enum Joined {
    Cached(Leased),
    Flight(Flight<FetchResult>, Lookup),
}

impl FetchCoordinator {
    pub(super) fn new(
        name: Arc<str>,
        inner: Arc<dyn CredentialSource>,
        options: SourceOptions,
        clock: SharedClock,
        jitter: Jitter,
        key: IdentityKey,
    ) -> Self {
        let entries = options.limits.max_entries;
        let bounds = options.limits.bounds();
        let breaker = CircuitBreaker::new(
            "source",
            Arc::clone(&name),
            Limits {
                concurrency: options.concurrency,
                max_calls: MAX_FLIGHTS,
                timeout: options.timeout,
                keys: usize::try_from(entries).unwrap_or(usize::MAX),
            },
            Arc::clone(&clock),
            jitter,
        );
        let negative_ttl = options.limits.refusals.clamp(LONGEST_RETRY_AFTER, IDLE) + IDLE;
        Self {
            current: bounded(bounds, IDLE, |generation: &Arc<Generation>| {
                generation.heap_size()
            }),
            negatives: bounded(bounds, negative_ttl, NegativeEntry::heap_size),
            replacements: ReplacementLimit::new(entries),
            breaker,
            key,
            generations: AtomicU64::new(1),
            in_flight: Mutex::default(),
            refusal: Mutex::default(),
            shared: OnceLock::new(),
            name,
            inner,
            options,
            clock,
            jitter,
        }
    }

    /// Shares the credentials with other replicas through `shared`.
    /// The first call counts.
    pub(super) fn share(&self, shared: SharedCredentials) {
        self.shared.get_or_init(|| shared);
    }

    /// The limits of the cache, and of exchanges.
    pub(super) fn options(&self) -> &SourceOptions {
        &self.options
    }

    /// Another replica has done something to the store.
    pub(super) fn on_event(&self, event: &StoreEvent) {
        let Some(shared) = self.shared.get() else {
            return;
        };
        match event {
            StoreEvent::Rejected { key, generation } => {
                if let Some(rejected) = shared.rejected_by_others(*key, *generation) {
                    self.mark_outdated(&rejected, self.now());
                }
            }
            StoreEvent::Changed { key, generation } => {
                shared.wake(key);
                if let Some(older) = generation.and_then(|new| shared.other_than(*key, new)) {
                    older.mark_superseded();
                }
            }
            // Any of them may have been rejected or replaced.
            StoreEvent::Interrupted => shared.all().iter().for_each(|g| g.mark_superseded()),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn inner(&self) -> &dyn CredentialSource {
        &*self.inner
    }

    pub(super) fn is_circuit_open(&self) -> bool {
        self.breaker.is_open()
    }

    pub(super) fn entries(&self) -> u64 {
        self.current.run_pending_tasks();
        self.current.entry_count()
    }

    #[cfg(test)]
    pub(super) fn evict_all(&self) {
        self.current.invalidate_all();
        self.current.run_pending_tasks();
    }

    /// The hot path. Starts a renewal if one is due, and never waits.
    pub(super) fn hit(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        now: Now,
    ) -> Option<Leased> {
        let generation = self.current.get(&identity)?;
        if !generation.is_in_use(now) {
            return None;
        }
        if generation.claim_renewal(now) {
            self.renew(identity, request, &generation, now);
        }
        Some(Leased::from_cache(generation))
    }

    /// The slow path: returns the current generation if there is a usable one by now other than
    /// the one it replaces; else a cached error; else the result of an exchange, joined or started now.
    pub(super) async fn obtain(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        replacing: Option<Replacing>,
    ) -> Result<Leased, LeaseError> {
        let mut cause = abandoned();
        for _ in 0..MAX_WAITS {
            let (flight, lookup) = match self.join_or_start(identity, request, replacing)? {
                Joined::Cached(leased) => return Ok(leased),
                Joined::Flight(flight, lookup) => (flight, lookup),
            };
            let result = flight.wait().await;
            let (lease, lookup) = match result.unwrap_or_else(|| Err(abandoned())) {
                Ok(Obtained::Shared(lease)) if lookup == Lookup::Fetched => (lease, Lookup::Shared),
                Ok(Obtained::Fetched(lease) | Obtained::Shared(lease)) => (lease, lookup),
                Ok(Obtained::NothingNewer) => continue,
                Err(error) => {
                    cause = error;
                    break;
                }
            };
            // A flight that began before the rejection may have found just that.
            if !replacing.is_some_and(|replacing| replacing.is_of(&lease.0)) {
                return Ok(Leased { lease, lookup });
            }
        }
        self.kept(identity, replacing).ok_or(LeaseError {
            cause,
            lookup: Lookup::Failed,
        })
    }

    /// The generation that stays in use after an exchange has failed, unless it is the one that
    /// the caller wants replaced.
    fn kept(&self, identity: Identity, replacing: Option<Replacing>) -> Option<Leased> {
        let generation = self.current.get(&identity)?;
        let replaced = replacing.is_some_and(|replacing| replacing.is_of(&generation));
        let good = !replaced && generation.is_usable(self.now());
        good.then(|| Leased::from_cache(generation))
    }

    /// [`Self::obtain`] for a caller whose request got a 401 with `rejected`, within the limits
    /// of [`ReplacementLimit`].
    pub(super) async fn replace(
        self: &Arc<Self>,
        identity: Identity,
        caller: Identity,
        request: &SwapRequest,
        rejected: &Lease,
    ) -> Result<Replacement, LeaseError> {
        let replacing = Replacing::rejected(rejected);
        if self.may_replace(identity, caller, request, replacing) {
            let replaced = self.obtain(identity, request, Some(replacing));
            replaced.await.map(Replacement::New)
        } else {
            Ok(Replacement::StillRejected)
        }
    }

    /// Whether `caller` may have `rejected` replaced. Charges it for the exchange, if
    /// one is necessary.
    fn may_replace(
        &self,
        identity: Identity,
        caller: Identity,
        request: &SwapRequest,
        rejected: Replacing,
    ) -> bool {
        let now = self.now();
        let in_flight = self.in_flight();
        self.costs_no_exchange(&in_flight, identity, request, rejected, now)
            || self
                .replacements
                .charge(caller, identity, rejected.number, now.monotonic)
    }

    /// Whether [`Self::replace`] would find that `rejected` must stay in use.
    pub(super) fn is_still_rejected(
        &self,
        identity: Identity,
        caller: Identity,
        request: &SwapRequest,
        rejected: &Lease,
    ) -> bool {
        let now = self.now();
        let rejected = Replacing::rejected(rejected);
        let in_flight = self.in_flight();
        !self.costs_no_exchange(&in_flight, identity, request, rejected, now)
            && self
                .replacements
                .is_limited(caller, identity, rejected.number, now.monotonic)
    }

    /// Whether replacing `rejected` starts no exchange, because there is another generation, an
    /// exchange is under way, or none may be made (which `obtain` reports).
    fn costs_no_exchange(
        &self,
        in_flight: &HashMap<Identity, Flight<FetchResult>>,
        identity: Identity,
        request: &SwapRequest,
        rejected: Replacing,
        now: Now,
    ) -> bool {
        let replaced = self
            .current
            .get(&identity)
            .is_some_and(|current| !rejected.is_of(&current) && current.is_usable(now));
        replaced
            || in_flight.contains_key(&identity)
            || self.check(&self.attempt(identity, request), now).is_err()
    }

    pub(super) fn accepted(&self, caller: Identity) {
        self.replacements.refund(caller);
    }

    /// Makes the next lease replace `rejected`, if that is still the current generation and
    /// `caller` may have it replaced.
    pub(super) fn invalidate(&self, identity: Identity, caller: Identity, rejected: &Generation) {
        let now = self.now();
        let _guard = self.in_flight();
        let current = self.current.get(&identity);
        let replacing = Replacing::of(rejected, true);
        let replaced = current
            .as_ref()
            .is_some_and(|current| !replacing.is_of(current));
        if replaced
            || !self
                .replacements
                .charge(caller, identity, rejected.number, now.monotonic)
        {
            return;
        }
        self.mark_outdated(rejected, now);
        if let Some(current) = &current {
            // Another one only if the same was read from the store once more.
            self.mark_outdated(current, now);
        }
        self.tell_rejected(rejected);
    }

    /// Like [`Self::invalidate`], for a generation of which only the number is known.
    pub(super) fn invalidate_number(
        &self,
        identity: Identity,
        caller: Identity,
        number: u64,
    ) -> Reported {
        let now = self.now();
        let _guard = self.in_flight();
        let current = self.current.get(&identity);
        let Some(current) = current.filter(|current| current.number == number) else {
            return Reported::Replaced;
        };
        if !self
            .replacements
            .charge(caller, identity, number, now.monotonic)
        {
            return Reported::Limited;
        }
        self.mark_outdated(&current, now);
        self.tell_rejected(&current);
        Reported::Replaced
    }

    /// Tells the other replicas, if `rejected` is in the store.
    fn tell_rejected(&self, rejected: &Generation) {
        if let (Some(shared), Some(name)) = (self.shared.get(), rejected.shared_name()) {
            shared.reject(name);
        }
    }

    /// Makes the next lease replace `generation`; at a source that all callers share, without waiting
    /// for the new one.
    fn mark_outdated(&self, generation: &Generation, now: Now) {
        if self.inner.is_shared() {
            generation.renew_later(now.monotonic);
        } else {
            generation.mark_outdated();
        }
    }

    fn join_or_start(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        replacing: Option<Replacing>,
    ) -> Result<Joined, LeaseError> {
        let now = self.now();
        let in_flight = self.in_flight();
        let current = self.current.get(&identity);
        if let Some(generation) = &current {
            let replaced = replacing.is_some_and(|replacing| replacing.is_of(generation));
            if !generation.is_usable(now) {
                self.forget(identity, generation);
            } else if !replaced && generation.is_in_use(now) {
                return Ok(Joined::Cached(Leased::from_cache(Arc::clone(generation))));
            }
        }
        if let Some(flight) = in_flight.get(&identity) {
            return Ok(Joined::Flight(flight.clone(), Lookup::Joined));
        }
        if let Some(current) = &current
            && current.is_superseded()
            && !replacing.is_some_and(|replacing| replacing.is_of(current))
        {
            let unwanted = current.unwanted();
            let flight = self.start_look_up(in_flight, identity, request, unwanted);
            return Ok(Joined::Flight(flight, Lookup::Fetched));
        }
        let unwanted = replacing.and_then(Replacing::unwanted);
        let unwanted = unwanted.or_else(|| current.as_deref().and_then(Generation::unwanted));
        match self.start(in_flight, identity, request, unwanted, now) {
            Ok(flight) => Ok(Joined::Flight(flight, Lookup::Fetched)),
            Err(error) => self
                .kept(identity, replacing)
                .map(Joined::Cached)
                .ok_or(error),
        }
    }

    /// Drops `generation`, also for holders of a memoized lease. Call with `in_flight` locked.
    fn forget(&self, identity: Identity, generation: &Generation) {
        generation.retire();
        self.current.invalidate(&identity);
    }

    fn renew(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        generation: &Generation,
        now: Now,
    ) {
        let in_flight = self.in_flight();
        let current = self.current.get(&identity);
        let replaced = current.is_none_or(|g| g.number != generation.number);
        // A flight in progress is a renewal as well, and its completion schedules the next.
        if replaced || in_flight.contains_key(&identity) {
            return;
        }
        // If it cannot start, it is postponed.
        let unwanted = generation.unwanted();
        drop(self.start(in_flight, identity, request, unwanted, now));
    }

    /// Fails if the source must not be contacted for `attempt` now.
    fn check(&self, attempt: &Attempt<Identity>, now: Now) -> Result<(), LeaseError> {
        if let Some(entry) = self.negatives.get(&attempt.key)
            && entry.until > now.monotonic
            // The circuit breaker may have shortened a backoff since.
            && !(entry.is_backoff() && self.breaker.backoff_left(&attempt.key).is_zero())
        {
            return Err(LeaseError {
                cause: entry.cached_error(now.monotonic),
                lookup: entry.lookup(),
            });
        }
        self.breaker
            .check(attempt)
            .map_err(|rejected| self.rejected_lease(rejected))
    }

    fn attempt(&self, identity: Identity, request: &SwapRequest) -> Attempt<Identity> {
        Attempt {
            key: identity,
            origin: self.key.origin(&request.caller),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now::read(&*self.clock)
    }

    fn rejected_lease(&self, rejected: Rejected) -> LeaseError {
        LeaseError {
            cause: self.not_attempted(rejected),
            lookup: Lookup::Failed,
        }
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded<V: Clone + Send + Sync + 'static>(
    bounds: CacheBounds,
    idle: Duration,
    heap_size: impl Fn(&V) -> usize + Send + Sync + 'static,
) -> Cache<Identity, V> {
    bounds
        .builder(heap_size)
        // Admits every new identity; the default policy may reject it for a long time.
        .eviction_policy(EvictionPolicy::lru())
        .time_to_idle(idle)
        .build()
}
