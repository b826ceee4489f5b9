//! Where credentials are handed out: what is current, what is being fetched, what went
//! wrong a moment ago.

mod flight;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Semaphore;

use flight::{abandoned, pause};

use super::generation::Generation;
use super::negative::{Backoff, Jitter, LONGEST_RETRY_AFTER, NegativeEntry};
use super::{Lease, LeaseError, Leased, SourceOptions};
use crate::clock::{Now, SharedClock};
use crate::credential::Lookup;
use crate::credential::identity::Identity;
use crate::credential::{CredentialSource, FetchError, SwapRequest};
use crate::singleflight::Flight;

/// Exchanges under way or waiting for a turn, per source.
pub(super) const MAX_FLIGHTS: usize = 4096;

/// Memory of identities that nobody asks for is freed after this. Whether a credential is
/// good is never decided by it.
const IDLE: Duration = Duration::from_mins(15);

type FetchResult = Result<Lease, FetchError>;

#[derive(Debug)]
pub(super) struct FetchCoordinator {
    name: Arc<str>,
    inner: Arc<dyn CredentialSource>,
    options: SourceOptions,
    clock: SharedClock,
    jitter: Jitter,
    generations: AtomicU64,
    turns: Semaphore,
    /// Written under `in_flight` only; read by anybody.
    current: Cache<Identity, Arc<Generation>>,
    /// Apart from `current`, so that a flood of bad tokens displaces no good credential.
    negatives: Cache<Identity, NegativeEntry>,
    in_flight: Mutex<InFlight>,
}

#[derive(Debug, Default)]
struct InFlight {
    flights: HashMap<Identity, Flight<FetchResult>>,
    backoff: Backoff,
}

/// How somebody without a hit gets a lease.
enum Approach {
    Current(Leased),
    Wait(Flight<FetchResult>, Lookup),
}

impl FetchCoordinator {
    pub(super) fn new(
        name: Arc<str>,
        inner: Arc<dyn CredentialSource>,
        options: SourceOptions,
        clock: SharedClock,
        jitter: Jitter,
    ) -> Self {
        let entries = options.limits.max_entries;
        let negative_ttl = options.limits.refusals.clamp(LONGEST_RETRY_AFTER, IDLE) + IDLE;
        Self {
            current: bounded(entries, IDLE),
            negatives: bounded(entries, negative_ttl),
            turns: Semaphore::new(options.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            generations: AtomicU64::new(1),
            in_flight: Mutex::default(),
            name,
            inner,
            options,
            clock,
            jitter,
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn inner(&self) -> &dyn CredentialSource {
        &*self.inner
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

    /// The hot path. Starts a renewal when it is time for one, and waits for nothing.
    pub(super) fn hit(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        now: Now,
    ) -> Option<Leased> {
        let generation = self.current.get(&identity)?;
        if !generation.is_usable(now) {
            return None;
        }
        if generation.claim_renewal(now) {
            self.renew(identity, request, &generation, now);
        }
        Some(Leased::of(generation))
    }

    /// The slow path: what is current after all, unless it is the `rejected` generation; a
    /// refusal; or the end of an exchange, under way or started now.
    pub(super) async fn obtain(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        rejected: Option<u64>,
    ) -> Result<Leased, LeaseError> {
        let (flight, lookup) = match self.approach(identity, request, rejected)? {
            Approach::Current(leased) => return Ok(leased),
            Approach::Wait(flight, lookup) => (flight, lookup),
        };
        let result = flight.wait().await;
        match result.unwrap_or_else(|| Err(abandoned())) {
            Ok(lease) => Ok(Leased { lease, lookup }),
            Err(cause) => Err(LeaseError {
                cause,
                lookup: Lookup::Failed,
            }),
        }
    }

    fn approach(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        rejected: Option<u64>,
    ) -> Result<Approach, LeaseError> {
        let now = self.now();
        let in_flight = self.in_flight();
        if let Some(generation) = self.current.get(&identity) {
            if Some(generation.number) != rejected && generation.is_usable(now) {
                return Ok(Approach::Current(Leased::of(generation)));
            }
            self.forget(identity, &generation);
        }
        if let Some(flight) = in_flight.flights.get(&identity) {
            return Ok(Approach::Wait(flight.clone(), Lookup::Joined));
        }
        self.may_start(&in_flight, identity, now)?;
        let flight = self.start(in_flight, identity, request);
        Ok(Approach::Wait(flight, Lookup::Fetched))
    }

    /// Drops generation `number` if it is the current one.
    pub(super) fn drop_generation(&self, identity: Identity, number: u64) {
        let _traffic = self.in_flight();
        if let Some(current) = self.current.get(&identity).filter(|g| g.number == number) {
            self.forget(identity, &current);
        }
    }

    /// Under `in_flight`. Also whoever has kept it elsewhere does not use it any more.
    fn forget(&self, identity: Identity, generation: &Generation) {
        generation.drop_for_good();
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
        // A flight under way is a renewal too, and its end puts off the next.
        if replaced || in_flight.flights.contains_key(&identity) {
            return;
        }
        match self.may_start(&in_flight, identity, now) {
            Ok(()) => drop(self.start(in_flight, identity, request)),
            Err(error) => {
                generation.mark_stale();
                generation.renew_later(now.monotonic.saturating_add(pause(&error.cause)));
            }
        }
    }

    /// Whether the source may be asked for `identity` now.
    fn may_start(
        &self,
        in_flight: &InFlight,
        identity: Identity,
        now: Now,
    ) -> Result<(), LeaseError> {
        if let Some(entry) = self.negatives.get(&identity)
            && entry.until > now.monotonic
        {
            return Err(LeaseError {
                cause: entry.repeated(now.monotonic),
                lookup: entry.lookup(),
            });
        }
        let cause = if let Some(left) = in_flight.backoff.remaining(now.monotonic) {
            left_alone(left)
        } else if in_flight.flights.len() >= MAX_FLIGHTS {
            busy("too many exchanges are waiting".to_owned())
        } else {
            return Ok(());
        };
        Err(LeaseError {
            cause,
            lookup: Lookup::Failed,
        })
    }

    pub(super) fn now(&self) -> Now {
        Now::read(&*self.clock)
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded<V: Clone + Send + Sync + 'static>(entries: u64, idle: Duration) -> Cache<Identity, V> {
    Cache::builder()
        .max_capacity(entries)
        // Every new identity gets in: the default policy may turn it away for long.
        .eviction_policy(EvictionPolicy::lru())
        .time_to_idle(idle)
        .build()
}

fn busy(cause: String) -> FetchError {
    FetchError::Unavailable {
        cause,
        retry_after: Some(Duration::from_secs(1)),
    }
}

fn left_alone(left: Duration) -> FetchError {
    FetchError::Unavailable {
        cause: "the source is left alone after failures".to_owned(),
        retry_after: Some(left),
    }
}
