//! Replicas of a fleet under many schedules, which `shuttle` chooses at random from a seed: the caches are
//! the real ones, and every lock, atomic and `await` is a point where another task may go on. There is no
//! time: a wake-up that is lost is a deadlock, which shuttle reports.
//!
//! `tests/interleavings` builds and runs this.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shuttle::future::{block_on, spawn};
use shuttle::sync::atomic::AtomicU64 as Shared;

use super::*;
use crate::shared_store::{FleetKeys, InMemoryStore, SharedStore as _};

/// How many schedules each test tries.
const SCHEDULES: usize = 2_000;

/// What the upstream accepts, and how often the source was asked.
#[derive(Debug, Default)]
struct World {
    epoch: Shared,
    exchanges: Shared,
}

impl World {
    fn accepts(&self, lease: &Lease) -> bool {
        let Credential::Bearer(token) = lease.credential() else {
            return false;
        };
        token.expose().parse() == Ok(self.epoch.load(Ordering::SeqCst))
    }
}

#[derive(Debug)]
struct Source(Arc<World>);

#[async_trait::async_trait]
impl CredentialSource for Source {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        self.0.exchanges.fetch_add(1, Ordering::SeqCst);
        shuttle::future::yield_now().await;
        let epoch = self.0.epoch.load(Ordering::SeqCst);
        Ok(Issued {
            credential: Credential::Bearer(SecretString::new(epoch.to_string())),
            expires_at: None,
            original: None,
        })
    }
}

struct Replicas {
    world: Arc<World>,
    sources: Vec<Arc<CachedSource>>,
    store: Arc<InMemoryStore>,
}

impl Replicas {
    fn new(count: usize) -> Self {
        let clock = ManualClock::at(START);
        let world = Arc::new(World::default());
        let store = Arc::new(InMemoryStore::new(clock.clone()));
        let key: Vec<u8> = (0..32).collect();
        let keys = FleetKeys::new(&SecretString::new(STANDARD.encode(key)), None).unwrap();
        let fleet = Fleet {
            store: store.clone(),
            keys: Arc::new(keys),
        };
        let replica = |_| {
            let source = Arc::new(Source(Arc::clone(&world)));
            let clock = clock.clone();
            let jitter = Jitter::Fixed(0.0);
            let source =
                CachedSource::with_jitter("login".into(), source, options(), clock, jitter);
            Arc::new(source.unwrap().sharing(&fleet, b"").unwrap())
        };
        let sources: Vec<_> = (0..count).map(replica).collect();
        for source in &sources {
            let (source, mut events) = (Arc::clone(source), store.events());
            spawn(async move {
                while let Ok(event) = events.recv().await {
                    source.on_event(&event);
                }
            });
        }
        Self {
            world,
            sources,
            store,
        }
    }

    /// A request, replayed once after a 401; returns whether the upstream accepted it.
    async fn serve(world: &World, source: &CachedSource) -> bool {
        let request = user("ann");
        let leased = source.lease(&request).await.unwrap();
        if world.accepts(&leased.lease) {
            return true;
        }
        match source.replace(&request, &leased.lease).await.unwrap() {
            Replacement::New(new) => {
                assert_ne!(
                    new.lease.generation(),
                    leased.lease.generation(),
                    "the rejected generation was handed out again"
                );
                world.accepts(&new.lease)
            }
            Replacement::StillRejected => false,
        }
    }

    /// One request at each replica at the same time; all must be accepted.
    async fn serve_all(&self) {
        let requests: Vec<_> = self
            .sources
            .iter()
            .map(|source| {
                let (world, source) = (Arc::clone(&self.world), Arc::clone(source));
                spawn(async move { Self::serve(&world, &source).await })
            })
            .collect();
        for request in requests {
            assert!(request.await.unwrap());
        }
    }
}

/// Runs `test` under many schedules.
fn check(test: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    // The default is too small for a build without optimizations.
    config.stack_size = 1 << 20;
    let scheduler = shuttle::scheduler::RandomScheduler::new(SCHEDULES);
    shuttle::Runner::new(scheduler, config).run(test);
}

#[test]
fn replicas_fetch_once_and_replace_once() {
    check(|| {
        let replicas = Replicas::new(3);
        block_on(async {
            replicas.serve_all().await;
            assert_eq!(replicas.world.exchanges.load(Ordering::SeqCst), 1);
            replicas.world.epoch.store(1, Ordering::SeqCst);
            replicas.serve_all().await;
            assert_eq!(replicas.world.exchanges.load(Ordering::SeqCst), 2);
            assert_eq!(replicas.store.values(), 1);
        });
    });
}

#[test]
fn callers_of_one_replica_share_an_exchange_with_the_others() {
    check(|| {
        let mut replicas = Replicas::new(2);
        // Four callers at each.
        for source in replicas.sources.clone() {
            replicas.sources.extend(std::iter::repeat_n(source, 3));
        }
        block_on(async {
            replicas.serve_all().await;
            assert_eq!(replicas.world.exchanges.load(Ordering::SeqCst), 1);
        });
    });
}

#[test]
fn revocations_between_requests_never_bring_a_rejected_generation_back() {
    check(|| {
        let replicas = Replicas::new(2);
        block_on(async {
            replicas.serve_all().await;
            let revoking = Arc::clone(&replicas.world);
            let revoker = spawn(async move {
                revoking.epoch.fetch_add(1, Ordering::SeqCst);
            });
            let requests: Vec<_> = (0..4)
                .map(|n| {
                    let world = Arc::clone(&replicas.world);
                    let source = Arc::clone(&replicas.sources[n % 2]);
                    spawn(async move { Replicas::serve(&world, &source).await })
                })
                .collect();
            revoker.await.unwrap();
            for request in requests {
                // A credential that was fetched before the revocation may still be on its way.
                let _ = request.await.unwrap();
            }
        });
    });
}
