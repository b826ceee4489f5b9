//! A fleet in one process: many replicas' caches (the code that serves requests) in front of one store in
//! memory, with the time of a paused runtime as their clock. Latencies of the store and of the exchange are
//! drawn from measured distributions.
//!
//! Each user sends requests at random times to random replicas. Once during the run, the upstream rejects
//! everything that was issued until then.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hawkgate::clock::{Clock, SharedClock, UnixMillis};
use hawkgate::credential::{
    CacheLimits, CachedSource, Credential, CredentialSource, FetchError, IdentityHasher, Issued,
    Lease, Replacement, SourceOptions, SwapRequest,
};
use hawkgate::secret::SecretString;
use hawkgate::shared_store::{
    Acquired, Fleet, FleetKeys, GenerationId, InMemoryStore, Quota, SharedStore, StoreError,
    StoreEvent, StoreKey, StoredValue, Taken, Unwanted,
};
use hawkgate::token::{BearerToken, Caller};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};

/// How long a credential lives.
const LIFE: Duration = Duration::from_mins(15);

/// Quantiles of an answer of redis-server 7.0 over loopback, in microseconds, and of an exchange with an
/// identity provider. The last is the longest that is drawn.
const STORE_MICROS: &[(f64, u64)] = &[
    (0.5, 150),
    (0.9, 300),
    (0.99, 1_000),
    (0.999, 5_000),
    (1.0, 20_000),
];
const EXCHANGE_MICROS: &[(f64, u64)] = &[
    (0.5, 120_000),
    (0.9, 250_000),
    (0.99, 900_000),
    (1.0, 2_500_000),
];

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Replicas; one has no store.
    pub(crate) replicas: usize,
    /// Users, each of whom has one credential.
    pub(crate) users: usize,
    /// The mean time between two requests of a user.
    pub(crate) pause: Duration,
    /// Whether everything is revoked in the middle.
    pub(crate) revocation: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Requests.
    pub(crate) requests: u64,
    /// Exchanges until the revocation, and after it.
    pub(crate) exchanges: [u64; 2],
    /// Requests without a credential that the upstream accepted.
    pub(crate) failed: u64,
    /// Operations of the store.
    pub(crate) operations: u64,
}

/// A small generator (xorshift64*), seeded, so that runs are alike.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    /// Exponentially distributed.
    fn pause(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.share()).ln())
    }

    fn latency(&mut self, quantiles: &[(f64, u64)]) -> Duration {
        let share = self.share();
        let (mut from, mut low) = (0.0, 0);
        for (quantile, micros) in quantiles {
            if share <= *quantile {
                #[allow(clippy::cast_precision_loss)]
                let span = (micros - low) as f64 * (share - from) / (quantile - from);
                return Duration::from_micros(low) + Duration::from_secs_f64(span / 1e6);
            }
            (from, low) = (*quantile, *micros);
        }
        Duration::from_micros(low)
    }
}

type SharedRandom = Mutex<Random>;

fn draw(random: &SharedRandom, quantiles: &[(f64, u64)]) -> Duration {
    let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
    random.latency(quantiles)
}

/// The time of the runtime.
#[derive(Debug)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> UnixMillis {
        UnixMillis::from_secs(1_800_000_000).plus(self.monotonic())
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What every replica and user sees.
struct World {
    /// Credentials of earlier epochs are rejected.
    epoch: AtomicU64,
    exchanges: [AtomicU64; 2],
    requests: AtomicU64,
    failed: AtomicU64,
    operations: AtomicU64,
    random: SharedRandom,
    clock: SharedClock,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl World {
    fn accepts(&self, lease: &Lease) -> bool {
        let Credential::Bearer(token) = lease.credential() else {
            return false;
        };
        let epoch = token.expose().parse();
        epoch == Ok(self.epoch.load(Ordering::Relaxed))
    }
}

/// An identity provider.
#[derive(Debug)]
struct Provider(Arc<World>);

#[async_trait]
impl CredentialSource for Provider {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        let world = &self.0;
        sleep(draw(&world.random, EXCHANGE_MICROS)).await;
        let epoch = world.epoch.load(Ordering::Relaxed);
        if let Some(count) = world.exchanges.get(usize::try_from(epoch).unwrap_or(0)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Issued {
            credential: Credential::Bearer(SecretString::new(epoch.to_string())),
            expires_at: Some(world.clock.now().plus(LIFE)),
            original: None,
        })
    }
}

/// The store, as far away as a real one.
#[derive(Debug)]
struct Distant {
    store: InMemoryStore,
    world: Arc<World>,
}

impl Distant {
    async fn travel(&self) {
        self.world.operations.fetch_add(1, Ordering::Relaxed);
        sleep(draw(&self.world.random, STORE_MICROS)).await;
    }
}

#[async_trait]
impl SharedStore for Distant {
    async fn acquire(
        &self,
        key: StoreKey,
        lease: GenerationId,
        unwanted: Option<Unwanted>,
    ) -> Result<Acquired, StoreError> {
        self.travel().await;
        self.store.acquire(key, lease, unwanted).await
    }
    async fn renew(&self, key: StoreKey, lease: GenerationId) -> Result<bool, StoreError> {
        self.travel().await;
        self.store.renew(key, lease).await
    }
    async fn complete(
        &self,
        key: StoreKey,
        lease: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        self.travel().await;
        self.store.complete(key, lease, sealed, ttl).await
    }
    async fn release(&self, key: StoreKey, lease: GenerationId) -> Result<(), StoreError> {
        self.travel().await;
        self.store.release(key, lease).await
    }
    async fn reject(&self, key: StoreKey, generation: GenerationId) -> Result<(), StoreError> {
        self.travel().await;
        self.store.reject(key, generation).await
    }
    async fn read(&self, key: StoreKey) -> Result<Option<StoredValue>, StoreError> {
        self.travel().await;
        self.store.read(key).await
    }
    async fn write(
        &self,
        key: StoreKey,
        generation: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        self.travel().await;
        self.store.write(key, generation, sealed, ttl).await
    }
    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.travel().await;
        self.store.remove(key).await
    }
    async fn take(&self, key: StoreKey, quota: Quota, wanted: u64) -> Result<Taken, StoreError> {
        self.travel().await;
        self.store.take(key, quota, wanted).await
    }
    async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe().await
    }
    fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.store.events()
    }
}

fn replica(world: &Arc<World>, users: usize, fleet: Option<&Fleet>) -> Arc<CachedSource> {
    let options = SourceOptions {
        limits: CacheLimits {
            max_entries: users as u64 * 2,
            max_bytes: 4 << 30,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::from_mins(1),
            refusals: Duration::from_secs(20),
        },
        timeout: Duration::from_secs(10),
        concurrency: 4096,
    };
    let provider = Arc::new(Provider(Arc::clone(world)));
    let clock = Arc::clone(&world.clock);
    let source = CachedSource::new("simulated".into(), provider, options, clock);
    let source = source.expect("random bytes");
    Arc::new(match fleet {
        Some(fleet) => source.sharing(fleet, b"").expect("a key"),
        None => source,
    })
}

fn request_of(user: usize) -> SwapRequest {
    let bearer = BearerToken::new(&format!("user-{user}")).expect("a token");
    let address = u32::try_from(user).unwrap_or(0) + (10 << 24);
    SwapRequest {
        caller: Caller::Delegated {
            issuer: "simulated".into(),
            digest: bearer.digest(),
            peer: Some(IpAddr::V4(Ipv4Addr::from_bits(address))),
        },
        bearer: Some(bearer),
        scopes: None,
        clock_offset: 0,
    }
}

/// One user, until `end`.
async fn user(
    world: Arc<World>,
    replicas: Arc<[Arc<CachedSource>]>,
    scenario: Scenario,
    number: usize,
    end: Instant,
) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1).wrapping_mul(0xbf58_476d));
    let request = request_of(number);
    loop {
        sleep(random.pause(scenario.pause)).await;
        if end <= Instant::now() {
            return;
        }
        world.requests.fetch_add(1, Ordering::Relaxed);
        let served = match replicas.get(random.below(replicas.len())) {
            Some(source) => serve(&world, source, &request).await,
            None => false,
        };
        if !served {
            world.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request, replayed once after a 401.
async fn serve(world: &World, source: &CachedSource, request: &SwapRequest) -> bool {
    let Ok(leased) = source.lease(request).await else {
        return false;
    };
    if world.accepts(&leased.lease) {
        return true;
    }
    let Ok(Replacement::New(replaced)) = source.replace(request, &leased.lease).await else {
        return false;
    };
    let accepted = world.accepts(&replaced.lease);
    if accepted {
        source.accepted(request);
    }
    accepted
}

/// Runs `scenario` for two lifetimes of a credential.
pub(crate) fn run(scenario: Scenario) -> Counted {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(simulate(scenario))
}

async fn simulate(scenario: Scenario) -> Counted {
    let world = Arc::new(World {
        epoch: AtomicU64::new(0),
        exchanges: Default::default(),
        requests: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        operations: AtomicU64::new(0),
        random: Mutex::new(Random(1)),
        clock: Arc::new(RuntimeClock(Instant::now())),
    });
    let key: Vec<u8> = (0..32).collect();
    let keys = FleetKeys::new(&SecretString::new(STANDARD.encode(key)), None).expect("a key");
    let fleet = Fleet {
        store: Arc::new(Distant {
            store: InMemoryStore::new(Arc::clone(&world.clock)),
            world: Arc::clone(&world),
        }),
        keys: Arc::new(keys),
    };
    let shared = (scenario.replicas > 1).then_some(&fleet);
    let replicas: Arc<[_]> = (0..scenario.replicas)
        .map(|_| replica(&world, scenario.users, shared))
        .collect();
    for source in replicas.iter().filter(|_| shared.is_some()) {
        tokio::spawn(listen(
            Arc::clone(&world),
            Arc::clone(source),
            fleet.store.events(),
        ));
    }
    let end = Instant::now() + LIFE * 2;
    let users: Vec<_> = (0..scenario.users)
        .map(|number| {
            tokio::spawn(user(
                Arc::clone(&world),
                Arc::clone(&replicas),
                scenario,
                number,
                end,
            ))
        })
        .collect();
    if scenario.revocation {
        sleep(LIFE).await;
        world.epoch.fetch_add(1, Ordering::Relaxed);
    }
    for user in users {
        user.await.expect("a user");
    }
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Counted {
        requests: count(&world.requests),
        exchanges: [count(&world.exchanges[0]), count(&world.exchanges[1])],
        failed: count(&world.failed),
        operations: count(&world.operations),
    }
}

/// Hands a replica what the others tell it.
async fn listen(
    world: Arc<World>,
    source: Arc<CachedSource>,
    mut events: broadcast::Receiver<StoreEvent>,
) {
    loop {
        match events.recv().await {
            Ok(event) => {
                // Messages arrive in order.
                sleep(draw(&world.random, STORE_MICROS) / 4).await;
                source.on_event(&event);
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                source.on_event(&StoreEvent::Interrupted);
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
