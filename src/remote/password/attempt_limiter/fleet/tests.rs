//! Limiters that share a store, as those of the replicas of a fleet do.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::secret::SecretString;
use crate::shared_store::{
    FleetKeys, Guard, InMemoryStore, Operation, OperationResult, StoreError, StoreObserver,
};

const REPLICAS: usize = 8;
const TIMEOUT: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Operations(AtomicUsize);

impl Operations {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl StoreObserver for Operations {
    fn operation(&self, _: Operation, _: OperationResult) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn up(&self, _: bool) {}
}

struct Replicas {
    limiters: Vec<AttemptLimiter>,
    store: Arc<InMemoryStore>,
    operations: Arc<Operations>,
    clock: Arc<ManualClock>,
}

fn replicas() -> Replicas {
    let clock = ManualClock::at(UnixMillis::from_secs(1_700_000_000));
    let store = Arc::new(InMemoryStore::new(clock.clone()));
    let key = SecretString::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned());
    let operations = Arc::new(Operations::default());
    let guard = Guard::new(store.clone(), TIMEOUT, operations.clone());
    let fleet = Fleet {
        store: Arc::new(guard),
        keys: Arc::new(FleetKeys::new(&key, None).unwrap()),
    };
    let limiter = |_| {
        let limiter = AttemptLimiter::new(clock.clone());
        limiter.sharing(&fleet, &[b"https://idp.example"]).unwrap()
    };
    Replicas {
        limiters: (0..REPLICAS).map(limiter).collect(),
        store,
        operations,
        clock,
    }
}

impl Replicas {
    fn user(&self, number: usize) -> UserKey {
        let name = format!("user {number}");
        let keys = self.limiters.iter().map(|l| l.fleet_user_key(&name));
        let mut keys: Vec<_> = keys.map(Option::unwrap).collect();
        keys.dedup();
        assert_eq!(keys.len(), 1, "the same at all replicas");
        keys[0]
    }

    async fn fail(&self, replica: usize, user: usize, peer: PeerKey) -> Result<(), Duration> {
        let attempt = self.limiters[replica].acquire(self.user(user), peer);
        attempt.await?.failed().await;
        Ok(())
    }

    async fn succeed(&self, replica: usize, user: usize, peer: PeerKey) -> Result<(), Duration> {
        let attempt = self.limiters[replica].acquire(self.user(user), peer);
        attempt.await?.succeeded().await;
        Ok(())
    }
}

fn address(number: u32) -> PeerKey {
    PeerKey::from(Some(IpAddr::from((0x0a00_0000 + number).to_be_bytes())))
}

/// How many of `attempts`, spread over the replicas, get through within an hour.
async fn guesses(
    fleet: &Replicas,
    attempts: usize,
    attempt: impl Fn(usize) -> (usize, PeerKey),
) -> usize {
    let mut admitted = 0;
    for number in 0..attempts {
        let (user, peer) = attempt(number);
        admitted += usize::from(fleet.fail(number % REPLICAS, user, peer).await.is_ok());
        let hour = 3_600_000;
        fleet
            .clock
            .advance(Duration::from_millis(hour / attempts as u64));
    }
    admitted
}

#[tokio::test(start_paused = true)]
async fn spreading_guesses_over_replicas_gains_little() {
    // One replica alone lets 16 (4 in each window), 196 and 76 through without a delay.
    let one_user = guesses(&replicas(), 2_000, |_| (1, address(1))).await;
    assert!(one_user <= 10 + 20, "{one_user}");
    let everywhere = |number: usize| (1, address(u32::try_from(number).unwrap()));
    let one_user = guesses(&replicas(), 2_000, everywhere).await;
    assert!(one_user <= 55 + 200, "{one_user}");
    let many_users = guesses(&replicas(), 2_000, |number| (number, address(1))).await;
    assert!(many_users <= 25 + 80, "{many_users}");
}

#[tokio::test(start_paused = true)]
async fn what_one_replica_alone_admits_is_admitted() {
    // As fast as one replica lets failures through, for a day.
    let fleet = replicas();
    let alone = AttemptLimiter::new(fleet.clock.clone());
    let mut admitted = 0;
    for second in 0..24 * 60 {
        let peer = address(second);
        for (user, peer) in [
            (1, address(1_000_000)),
            (2, peer),
            (3 + second as usize, address(2_000_000)),
        ] {
            let Ok(attempt) = alone.acquire(fleet.user(user), peer).await else {
                continue;
            };
            attempt.failed().await;
            admitted += 1;
            assert_eq!(
                fleet.fail(0, user, peer).await,
                Ok(()),
                "{user} at {second}"
            );
        }
        fleet.clock.advance(Duration::from_mins(1));
    }
    assert!(admitted > 100, "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn a_user_who_signed_in_from_an_address_is_known_there_at_every_replica() {
    let fleet = replicas();
    let home = address(1);
    fleet.succeed(0, 1, home).await.unwrap();
    for number in 0..1_000 {
        let other = address(100 + u32::try_from(number).unwrap());
        let _ = fleet.fail(number % REPLICAS, 1, other).await;
    }
    // Elsewhere the user has to wait, at replicas that have not seen much of it either.
    assert!(fleet.fail(7, 1, address(50)).await.is_err());
    // Wherever the user comes next: replicas' own counts refuse strangers only.
    for replica in 0..REPLICAS {
        fleet.succeed(replica, 1, home).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_attacked_itself_asks_the_fleet_who_is_known() {
    let fleet = replicas();
    fleet.succeed(0, 1, address(1)).await.unwrap();
    // As many guesses as block the user at one replica, but not yet in the fleet.
    for number in 0..USER_FAILURES {
        let other = address(100 + u32::try_from(number).unwrap());
        fleet.fail(1, 1, other).await.unwrap();
    }
    assert_eq!(fleet.fail(1, 1, address(2)).await, Err(FIRST_DELAY));
    fleet.succeed(1, 1, address(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refused_attempts_cost_the_store_next_to_nothing() {
    let fleet = replicas();
    // Blocked by the fleet for the pair, for the user and for the address, and not by the last replica.
    for number in 0..20 {
        let _ = fleet.fail(number % 7, 1, address(1)).await;
    }
    for number in 0..80 {
        let other = address(100 + u32::try_from(number).unwrap());
        let _ = fleet.fail(number % 7, 2, other).await;
        let _ = fleet.fail(number % 7, 1_000 + number, address(3)).await;
    }
    let before = fleet.operations.count();
    for number in 0..1_000 {
        fleet.fail(7, 1, address(1)).await.unwrap_err();
        fleet.fail(7, 2, address(2)).await.unwrap_err();
        fleet
            .fail(7, 10_000 + number, address(3))
            .await
            .unwrap_err();
    }
    let operations = fleet.operations.count() - before;
    assert!(operations <= 3 * 4 + 2, "{operations}");
}

#[tokio::test(start_paused = true)]
async fn an_origin_known_to_the_fleet_is_no_licence_to_guess() {
    let fleet = replicas();
    fleet.succeed(0, 1, address(1)).await.unwrap();
    let admitted = guesses(&fleet, 2_000, |_| (1, address(1))).await;
    assert!(admitted <= 10 + 20, "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn processes_on_one_machine_lock_out_nobody_on_another() {
    let fleet = replicas();
    for peer in [PeerKey::Loopback, PeerKey::UnixSocket] {
        for number in 0..100 {
            let _ = fleet.fail(0, 1, peer).await;
            fleet.fail(0, 1_000 + number, peer).await.unwrap();
        }
        for replica in 1..REPLICAS {
            fleet.succeed(replica, 1, peer).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn successes_do_not_count() {
    let fleet = replicas();
    for number in 0..1_000 {
        fleet
            .succeed(number % REPLICAS, number, address(1))
            .await
            .unwrap();
        fleet
            .succeed(number % REPLICAS, 1, address(2))
            .await
            .unwrap();
    }
    fleet.fail(0, 5_000, address(1)).await.unwrap();
}

#[allow(clippy::disallowed_methods, reason = "the time of a paused runtime")]
#[tokio::test(start_paused = true)]
async fn without_the_store_each_replica_limits_alone() {
    type Fault = fn(&InMemoryStore);
    let faults: [Fault; 3] = [
        |store| store.hang(true),
        |store| store.fail(Some(StoreError::Unreachable("refused".into()))),
        |store| store.corrupt(b"garbage"),
    ];
    for fault in faults {
        let fleet = replicas();
        fleet.succeed(0, 2, address(1)).await.unwrap();
        fault(&fleet.store);
        let before = tokio::time::Instant::now();
        for replica in 0..2 {
            for _ in 0..PAIR_FAILURES {
                fleet.fail(replica, 1, address(1)).await.unwrap();
            }
            assert_eq!(fleet.fail(replica, 1, address(1)).await, Err(FIRST_DELAY));
        }
        // Three operations at once, and then none.
        assert!(before.elapsed() <= 2 * TIMEOUT);
    }
}
