//! Where credentials are handed out: what is current, what is being fetched, what went
//! wrong a moment ago.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::{Semaphore, watch};

use super::generation::{Generation, Now};
use super::setback::{Backoff, Jitter, LONGEST_RETRY_AFTER, Setback};
use super::{Lease, LeaseError, Leased, SourceOptions};
use crate::clock::SharedClock;
use crate::credential::identity::Identity;
use crate::credential::{CredentialSource, FetchError, Issued, SwapRequest};
use crate::gateway::outcome::Lookup;

/// Exchanges under way or waiting for a turn, per source.
pub(super) const MAX_FLIGHTS: usize = 4096;

/// Memory of identities that nobody asks for is freed after this. Whether a credential is
/// good is never decided by it.
const IDLE: Duration = Duration::from_secs(900);

/// A renewal that brought nothing better is not tried again at once.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

type Landed = Result<Lease, FetchError>;
type Flight = watch::Receiver<Option<Landed>>;

#[derive(Debug)]
pub(super) struct Desk {
    name: Arc<str>,
    inner: Arc<dyn CredentialSource>,
    options: SourceOptions,
    clock: SharedClock,
    jitter: Jitter,
    generations: AtomicU64,
    turns: Semaphore,
    /// Written under `traffic` only; read by anybody.
    current: Cache<Identity, Arc<Generation>>,
    /// Apart from `current`, so that a flood of bad tokens displaces no good credential.
    setbacks: Cache<Identity, Setback>,
    traffic: Mutex<Traffic>,
}

#[derive(Debug, Default)]
struct Traffic {
    flights: HashMap<Identity, Flight>,
    backoff: Backoff,
}

/// What an exchange came to.
enum Exchange {
    Ended(Result<Issued, FetchError>),
    /// The source was not asked; that says nothing about it.
    NotTried(FetchError),
}

impl Desk {
    pub(super) fn new(
        name: Arc<str>,
        inner: Arc<dyn CredentialSource>,
        options: SourceOptions,
        clock: SharedClock,
        jitter: Jitter,
    ) -> Self {
        let entries = options.limits.max_entries;
        let setback_life = options.limits.refusals.clamp(LONGEST_RETRY_AFTER, IDLE) + IDLE;
        Self {
            current: bounded(entries, IDLE),
            setbacks: bounded(entries, setback_life),
            turns: Semaphore::new(options.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            generations: AtomicU64::new(1),
            traffic: Mutex::default(),
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

    /// The hot path. Starts a renewal when it is time for one, and waits for nothing.
    pub(super) fn hit(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
    ) -> Option<Leased> {
        let generation = self.current.get(&identity)?;
        let now = self.now();
        if !generation.is_usable(now) {
            return None;
        }
        if generation.claim_renewal(now) {
            self.renew(identity, request, &generation, now);
        }
        Some(leased(generation))
    }

    /// The slow path: what is current after all, unless it is the `rejected` generation; a
    /// refusal; or the end of an exchange, under way or started now.
    pub(super) async fn obtain(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        rejected: Option<u64>,
    ) -> Result<Leased, LeaseError> {
        let (mut flight, lookup) = {
            let now = self.now();
            let mut traffic = self.traffic();
            if let Some(generation) = self.current.get(&identity) {
                if Some(generation.number) != rejected && generation.is_usable(now) {
                    return Ok(leased(generation));
                }
                self.current.invalidate(&identity);
            }
            match traffic.flights.get(&identity) {
                Some(flight) => (flight.clone(), Lookup::Joined),
                None => {
                    self.may_start(&traffic, identity, now)?;
                    (self.start(&mut traffic, identity, request), Lookup::Fetched)
                }
            }
        };
        let landed = flight.wait_for(Option::is_some).await;
        let landed = landed.map_or_else(|_| None, |landed| landed.clone());
        match landed.unwrap_or_else(|| Err(abandoned())) {
            Ok(lease) => Ok(Leased { lease, lookup }),
            Err(cause) => Err(LeaseError {
                cause,
                lookup: Lookup::Failed,
            }),
        }
    }

    /// Drops generation `number` if it is the current one.
    pub(super) fn drop_generation(&self, identity: Identity, number: u64) {
        let _traffic = self.traffic();
        if self
            .current
            .get(&identity)
            .is_some_and(|g| g.number == number)
        {
            self.current.invalidate(&identity);
        }
    }

    fn renew(
        self: &Arc<Self>,
        identity: Identity,
        request: &SwapRequest,
        generation: &Generation,
        now: Now,
    ) {
        let mut traffic = self.traffic();
        let current = self.current.get(&identity);
        let replaced = current.is_none_or(|g| g.number != generation.number);
        // A flight under way is a renewal too, and its end puts off the next.
        if replaced || traffic.flights.contains_key(&identity) {
            return;
        }
        match self.may_start(&traffic, identity, now) {
            Ok(()) => drop(self.start(&mut traffic, identity, request)),
            Err(error) => {
                generation.mark_stale();
                generation.renew_later(now.steady.saturating_add(pause(&error.cause)));
            }
        }
    }

    /// Whether the source may be asked for `identity` now.
    fn may_start(&self, traffic: &Traffic, identity: Identity, now: Now) -> Result<(), LeaseError> {
        if let Some(setback) = self.setbacks.get(&identity)
            && setback.until > now.steady
        {
            return Err(LeaseError {
                cause: setback.repeated(now.steady),
                lookup: setback.lookup(),
            });
        }
        let cause = if let Some(left) = traffic.backoff.remaining(now.steady) {
            left_alone(left)
        } else if traffic.flights.len() >= MAX_FLIGHTS {
            busy("too many exchanges are waiting".to_owned())
        } else {
            return Ok(());
        };
        Err(LeaseError {
            cause,
            lookup: Lookup::Failed,
        })
    }

    /// Lets an exchange run by itself: whoever waits may go away.
    fn start(
        self: &Arc<Self>,
        traffic: &mut Traffic,
        identity: Identity,
        request: &SwapRequest,
    ) -> Flight {
        let (sender, flight) = watch::channel(None);
        traffic.flights.insert(identity, flight.clone());
        let landing = Landing {
            desk: Arc::clone(self),
            identity,
            sender: Some(sender),
        };
        let request = request.clone();
        tokio::spawn(async move {
            let exchange = landing.desk.exchange(&request).await;
            landing.land(exchange);
        });
        flight
    }

    async fn exchange(&self, request: &SwapRequest) -> Exchange {
        let timeout = self.options.timeout;
        let Ok(Ok(_turn)) = tokio::time::timeout(timeout, self.turns.acquire()).await else {
            return Exchange::NotTried(busy(format!(
                "no turn for an exchange within {}ms",
                timeout.as_millis()
            )));
        };
        // The source may have failed others while this one waited for its turn.
        let backoff = self.traffic().backoff.remaining(self.now().steady);
        if let Some(left) = backoff {
            return Exchange::NotTried(left_alone(left));
        }
        let fetched = tokio::time::timeout(timeout, self.inner.fetch(request)).await;
        Exchange::Ended(fetched.unwrap_or_else(|_| {
            Err(FetchError::Unavailable {
                cause: format!("no answer within {}ms", timeout.as_millis()),
                retry_after: None,
            })
        }))
    }

    /// Puts down what an exchange came to and ends its flight, in one step for all others.
    fn settle(&self, identity: Identity, exchange: Exchange) -> Landed {
        let now = self.now();
        let mut traffic = self.traffic();
        traffic.flights.remove(&identity);
        match exchange {
            Exchange::Ended(Ok(issued)) => {
                traffic.backoff.answered();
                Ok(self.admit(identity, issued, now))
            }
            Exchange::Ended(Err(error)) => {
                let jitter = self.jitter.share();
                match &error {
                    FetchError::Unavailable { retry_after, .. } => {
                        let backoff = &mut traffic.backoff;
                        backoff.unavailable(identity, *retry_after, now.steady, jitter);
                    }
                    _ => traffic.backoff.answered(),
                }
                self.set_back(identity, &error, now, jitter);
                Err(error)
            }
            Exchange::NotTried(error) => {
                self.put_off(identity, now.steady.saturating_add(pause(&error)));
                Err(error)
            }
        }
    }

    fn admit(&self, identity: Identity, issued: Issued, now: Now) -> Lease {
        let number = self.generations.fetch_add(1, Ordering::Relaxed);
        let limits = &self.options.limits;
        let generation = Generation::new(issued, number, now, limits, self.jitter.share());
        let generation = Arc::new(generation);
        self.setbacks.invalidate(&identity);
        if generation.is_usable(now) {
            self.current.insert(identity, Arc::clone(&generation));
        } else {
            // It came expired (taskcluster.md §1): for those who waited, and nobody else.
            self.put_off(identity, now.steady.saturating_add(RENEWAL_PAUSE));
        }
        Lease(generation)
    }

    fn set_back(&self, identity: Identity, error: &FetchError, now: Now, jitter: f64) {
        let before = self.setbacks.get(&identity);
        let limits = &self.options.limits;
        let setback = Setback::after(error.clone(), before.as_ref(), now.steady, limits, jitter);
        match error {
            // Whoever is refused a new one shall not go on with the old one: the token was
            // revoked, or the user is gone.
            FetchError::Refused(_) | FetchError::NotEntitled(_) => {
                self.current.invalidate(&identity);
            }
            _ => self.put_off(identity, setback.until),
        }
        self.setbacks.insert(identity, setback);
    }

    /// What is current, if anything, serves on until it expires; the next renewal not
    /// before `at`.
    fn put_off(&self, identity: Identity, at: Duration) {
        if let Some(generation) = self.current.get(&identity) {
            generation.mark_stale();
            generation.renew_later(at);
        }
    }

    fn now(&self) -> Now {
        Now::read(&*self.clock)
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a flight, which comes even when the source panics or the runtime goes down.
struct Landing {
    desk: Arc<Desk>,
    identity: Identity,
    sender: Option<watch::Sender<Option<Landed>>>,
}

impl Landing {
    fn land(mut self, exchange: Exchange) {
        self.finish(exchange);
    }

    fn finish(&mut self, exchange: Exchange) {
        if let Some(sender) = self.sender.take() {
            let landed = self.desk.settle(self.identity, exchange);
            sender.send_replace(Some(landed));
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.finish(Exchange::Ended(Err(abandoned())));
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

fn leased(generation: Arc<Generation>) -> Leased {
    let lookup = if generation.is_stale() {
        Lookup::Stale
    } else {
        Lookup::Hit
    };
    Leased {
        lease: Lease(generation),
        lookup,
    }
}

/// How long a renewal that could not start is put off.
fn pause(error: &FetchError) -> Duration {
    match error {
        FetchError::Unavailable {
            retry_after: Some(left),
            ..
        } => *left,
        _ => RENEWAL_PAUSE,
    }
}

fn abandoned() -> FetchError {
    FetchError::BadAnswer("the exchange ended without a result".to_owned())
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
