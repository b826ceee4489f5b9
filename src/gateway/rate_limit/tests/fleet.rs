//! Limiters that share a store, as those of the replicas of a fleet do.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::secret::SecretString;
use crate::shared_store::{
    FleetKeys, Guard, InMemoryStore, Operation, OperationResult, StoreError, StoreObserver,
};

const REPLICAS: usize = 8;
const MILLISECOND: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_millis(50);

/// Counts what the store is asked for.
#[derive(Debug, Default)]
struct Counter(AtomicUsize);

impl StoreObserver for Counter {
    fn operation(&self, operation: Operation, result: OperationResult) {
        assert_eq!(operation, Operation::Take);
        if result != OperationResult::Skipped {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn up(&self, _: bool) {}
}

struct Replicas {
    limits: Vec<RateLimiters>,
    store: Arc<InMemoryStore>,
    asked: Arc<Counter>,
    clock: Arc<ManualClock>,
}

fn replicas(rate: &Rate) -> Replicas {
    let clock = ManualClock::at(UnixMillis(0));
    let store = Arc::new(InMemoryStore::new(clock.clone()));
    let asked = Arc::new(Counter::default());
    let key = SecretString::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned());
    let fleet = Fleet {
        store: Arc::new(Guard::new(store.clone(), TIMEOUT, asked.clone())),
        keys: Arc::new(FleetKeys::new(&key, None).unwrap()),
    };
    let limiter = |_| {
        let limiter = RateLimiter::new(rate, clock.clone());
        let limiter = limiter.sharing(&fleet, "limits.rate").unwrap();
        RateLimiters::new(vec![Arc::new(limiter)])
    };
    Replicas {
        limits: (0..REPLICAS).map(limiter).collect(),
        store,
        asked,
        clock,
    }
}

impl Replicas {
    async fn check(&self, replica: usize, client: &Caller) -> Result<(), Rejection> {
        match self.limits[replica].check_identity(client, at("192.0.2.1"))? {
            Some(wait) => wait.await,
            None => Ok(()),
        }
    }

    async fn admits(&self, replica: usize, client: &Caller) -> bool {
        self.check(replica, client).await.is_ok()
    }

    /// How many of `attempts` at this replica are admitted.
    async fn admitted(&self, replica: usize, client: &Caller, attempts: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..attempts {
            admitted += usize::from(self.admits(replica, client).await);
        }
        admitted
    }

    /// How many requests of `client` the fleet admits in a second in which `sent` says how many each
    /// replica receives in each millisecond.
    async fn second(&self, client: &Caller, sent: impl Fn(usize, usize) -> usize) -> usize {
        self.milliseconds(1000, client, sent).await
    }

    async fn milliseconds(
        &self,
        length: usize,
        client: &Caller,
        sent: impl Fn(usize, usize) -> usize,
    ) -> usize {
        let mut admitted = 0;
        for millisecond in 0..length {
            self.clock.advance(MILLISECOND);
            for replica in 0..REPLICAS {
                let attempts = sent(millisecond, replica);
                admitted += self.admitted(replica, client, attempts).await;
            }
        }
        admitted
    }

    fn asked(&self) -> usize {
        self.asked.0.load(Ordering::Relaxed)
    }
}

fn per_second(requests: u64, burst: u64) -> Rate {
    rate(requests, SECOND, burst, RateBy::Client)
}

fn alice() -> Caller {
    caller("idp", "alice")
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_over_all_replicas_whatever_the_balance() {
    type Balance = fn(usize, usize, usize) -> usize;
    let balances: [(&str, Balance); 4] = [
        ("equal", |_, ms, replica| {
            usize::from((ms + replica) % 4 == 0)
        }),
        ("one replica", |_, _, replica| usize::from(replica == 3)),
        ("unequal", |_, ms, replica| {
            usize::from(ms % (1 << replica) == 0)
        }),
        ("changing", |second, _, replica| {
            usize::from(replica == second % REPLICAS || replica == (second * 3 + 1) % REPLICAS)
        }),
    ];
    for burst in [1, 10, 100] {
        for (balance, sent) in balances {
            let fleet = replicas(&per_second(100, burst));
            let mut each = Vec::new();
            for second in 0..6 {
                let sent = |ms, replica| sent(second, ms, replica);
                each.push(fleet.second(&alice(), sent).await);
            }
            // What was left of the burst is used first.
            let steady = each.split_off(1 + usize::from(burst == 100) * 3);
            for admitted in steady {
                assert!(
                    (95..=105).contains(&admitted),
                    "{balance}, {burst}: {admitted}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fast_rates_hold_too() {
    for requests in [1_000, 33_000, 300_000] {
        let fleet = replicas(&per_second(requests, 100));
        let expected = usize::try_from(requests).unwrap() / 5;
        let offered = expected / 200 / 4 + 1;
        fleet.milliseconds(200, &alice(), |_, _| offered).await;
        let asked = fleet.asked();
        let admitted = fleet.milliseconds(200, &alice(), |_, _| offered).await;
        let range = expected * 95 / 100..=expected * 105 / 100;
        assert!(range.contains(&admitted), "{requests}: {admitted}");
        let asked = fleet.asked() - asked;
        assert!(asked < 20 * REPLICAS, "{requests}: {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_demand_little_above_the_limit_is_met_to_the_limit() {
    // At each replica a request every 71 ms: 112 a second.
    for burst in [10, 100] {
        let fleet = replicas(&per_second(100, burst));
        for second in 0..20_usize {
            let sent = |ms, replica| usize::from((second * 1000 + ms) % 71 == replica * 7);
            let admitted = fleet.second(&alice(), sent).await;
            // What was left of the burst is used first.
            if second as u64 > burst / 12 + 1 {
                assert!((95..=105).contains(&admitted), "{burst}: {admitted}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_below_its_limit_is_not_refused_and_asks_less_often_than_it_sends() {
    let fleet = replicas(&per_second(1_000, 1_000));
    for _ in 0..3 {
        let sent = |ms, replica| usize::from(ms % 10 == replica);
        assert_eq!(fleet.second(&alice(), sent).await, 800);
    }
    let asked = fleet.asked();
    assert!(asked < 3 * 800 / 8, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_admitted_once_and_not_once_at_each_replica() {
    for requests in [10, 100, 1_000] {
        let fleet = replicas(&per_second(requests, 100));
        let mut admitted = 0;
        for _ in 0..200 {
            for replica in 0..REPLICAS {
                admitted += fleet.admitted(replica, &alice(), 1).await;
            }
        }
        assert_eq!(admitted, 100, "{requests}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_rates_are_exact() {
    let fleet = replicas(&rate(1, Duration::from_mins(1), 1, RateBy::Client));
    assert!(fleet.admits(0, &alice()).await);
    let refused = fleet.check(1, &alice()).await.unwrap_err();
    assert_eq!(refused.retry_after, Some(Duration::from_mins(1)));
    fleet.clock.advance(Duration::from_millis(59_999));
    for replica in 0..REPLICAS {
        let refused = fleet.check(replica, &alice()).await.unwrap_err();
        assert_eq!(refused.retry_after, Some(SECOND), "{replica}");
    }
    fleet.clock.advance(MILLISECOND);
    assert!(fleet.admits(2, &alice()).await);
    assert!(!fleet.admits(0, &alice()).await);
    assert!(fleet.admits(0, &caller("idp", "bob")).await);
    // What a replica has taken is used: none takes more than it needs.
    let fleet = replicas(&rate(10, Duration::from_mins(1), 10, RateBy::Client));
    for replica in 0..REPLICAS {
        assert!(fleet.admits(replica, &alice()).await, "{replica}");
    }
    assert_eq!(fleet.admitted(5, &alice(), 10).await, 2);
}

#[tokio::test(start_paused = true)]
async fn requests_that_arrive_together_share_one_question() {
    let fleet = replicas(&per_second(10, 10));
    let alice = alice();
    let checks = (0..15).map(|_| fleet.admits(0, &alice));
    let admitted = futures::future::join_all(checks).await;
    assert_eq!(admitted.iter().filter(|admitted| **admitted).count(), 10);
    assert_eq!(fleet.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ended_leaves_its_token_to_the_next() {
    let fleet = replicas(&per_second(1, 1));
    let alice = alice();
    let wait = fleet.limits[0].check_identity(&alice, at("192.0.2.1"));
    drop(wait.unwrap().expect("waits for the store"));
    tokio::task::yield_now().await;
    assert_eq!(fleet.asked(), 1);
    assert!(fleet.admits(0, &alice).await);
    assert_eq!(fleet.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_that_end_save_up_no_bursts() {
    let fleet = replicas(&per_second(10, 10));
    let alice = alice();
    for limits in &fleet.limits {
        let check = |_| limits.check_identity(&alice, at("192.0.2.1")).unwrap();
        let waits: Vec<_> = (0..10).map(check).collect();
        drop(waits);
        tokio::task::yield_now().await;
        fleet.clock.advance(SECOND);
    }
    let mut admitted = 0;
    for replica in 0..REPLICAS {
        admitted += fleet.admitted(replica, &alice, 20).await;
    }
    assert!(admitted <= 10 + REPLICAS, "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_costs_the_store_little_and_nobody_else_anything() {
    for requests in [1, 100, 10_000] {
        let fleet = replicas(&per_second(requests, requests));
        let (mallory, bob) = (caller("idp", "mallory"), caller("idp", "bob"));
        for _ in 0..2 {
            let before = fleet.asked();
            fleet.second(&mallory, |_, _| 5).await;
            let asked = fleet.asked() - before;
            assert!(asked <= 150 * REPLICAS, "{requests}: {asked}");
            assert!(fleet.admits(4, &bob).await);
            assert!(!fleet.admits(4, &mallory).await);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the time of a paused runtime")]
#[tokio::test(start_paused = true)]
async fn without_the_store_each_replica_limits_alone_and_no_request_waits_long() {
    type Fault = fn(&InMemoryStore);
    let faults: [Fault; 3] = [
        |store| store.hang(true),
        |store| store.fail(Some(StoreError::Unreachable("refused".into()))),
        |store| store.fail(Some(StoreError::Answer("OOM".into()))),
    ];
    for fault in faults {
        let fleet = replicas(&per_second(10, 20));
        assert_eq!(fleet.admitted(0, &alice(), 5).await, 5);
        fault(&fleet.store);
        let mut waited = 0;
        for replica in 0..REPLICAS {
            for attempt in 0..30 {
                let before = tokio::time::Instant::now();
                let admitted = fleet.admits(replica, &alice()).await;
                assert!(before.elapsed() <= TIMEOUT);
                waited += usize::from(before.elapsed() > Duration::ZERO);
                // The first replica has admitted five already.
                let expected = attempt < if replica == 0 { 15 } else { 20 };
                assert_eq!(admitted, expected, "{replica}: {attempt}");
            }
        }
        assert!(waited <= 3, "{waited}");
        fleet.clock.advance(SECOND);
        assert_eq!(fleet.admitted(1, &alice(), 30).await, 10);

        // Up again, and empty: a burst for the fleet, not for each replica.
        fleet.store.hang(false);
        fleet.store.fail(None);
        fleet.store.clear();
        tokio::time::sleep(Duration::from_secs(10)).await;
        fleet.clock.advance(SECOND);
        let mut admitted = 0;
        for replica in 0..REPLICAS {
            admitted += fleet.admitted(replica, &alice(), 30).await;
        }
        assert_eq!(admitted, 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_everything_admits_one_more_burst() {
    let fleet = replicas(&per_second(10, 20));
    assert_eq!(fleet.admitted(0, &alice(), 100).await, 20);
    fleet.store.clear();
    fleet.clock.advance(SECOND / 10);
    let mut admitted = 0;
    for replica in 0..REPLICAS {
        admitted += fleet.admitted(replica, &alice(), 100).await;
    }
    assert_eq!(admitted, 20);
}

#[tokio::test(start_paused = true)]
async fn clients_that_only_one_machine_knows_are_counted_there() {
    let fleet = replicas(&rate(1, SECOND, 2, RateBy::Address));
    let local = [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.1.1",
        "fe80::1",
    ];
    let local = local.into_iter().map(at).chain([Client::default()]);
    for client in local {
        for limits in &fleet.limits {
            let one = || {
                limits
                    .check_address(client)
                    .map(|wait| assert!(wait.is_none()))
            };
            let admitted = admitted(5, one);
            assert!(admitted <= 2, "{client:?}");
        }
    }
    assert_eq!(fleet.asked(), 0);
    // Of an address of the network, the fleet admits two together.
    let check = |replica: usize| fleet.limits[replica].check_address(at("192.0.2.1"));
    let mut admitted = 0;
    for replica in 0..REPLICAS {
        if let Ok(Some(wait)) = check(replica) {
            admitted += usize::from(wait.await.is_ok());
        }
    }
    assert_eq!(admitted, 2);
}

#[tokio::test(start_paused = true)]
async fn several_limits_apply_each() {
    let fleet = replicas(&per_second(1, 1));
    let Replicas { clock, store, .. } = &fleet;
    let key = SecretString::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned());
    let keys = Arc::new(FleetKeys::new(&key, None).unwrap());
    let shared = Fleet {
        store: store.clone(),
        keys,
    };
    let limiter = |name: &str, rate: &Rate| {
        let limiter = RateLimiter::new(rate, clock.clone());
        Arc::new(limiter.sharing(&shared, name).unwrap())
    };
    let alone = RateLimiter::new(&per_second(10, 3), clock.clone());
    let limits = RateLimiters::new(vec![
        limiter("limits.rate", &per_second(10, 10)),
        Arc::new(alone),
        limiter("route api", &per_second(10, 2)),
    ]);
    let mut admitted = 0;
    for _ in 0..5 {
        admitted += usize::from(match limits.check_identity(&alice(), at("192.0.2.1")) {
            Ok(Some(wait)) => wait.await.is_ok(),
            Ok(None) => true,
            Err(_) => false,
        });
    }
    assert_eq!(admitted, 2);
    // Another name or another rate is another limit.
    assert!(fleet.admits(0, &alice()).await);
}
