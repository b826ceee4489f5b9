//! The same cases for the store in memory and for the one on Redis: simulations and tests of the other
//! modules rely on the former.

use std::sync::Arc;
use std::time::Duration;

use hawkgate::clock::{ManualClock, UnixMillis};
use hawkgate::shared_store::{
    Acquired, GenerationId, InMemoryStore, LEASE, LEASE_RENEWAL, Quota, SharedStore, StoreEvent,
    StoredValue, Taken, Unwanted,
};
use tokio::sync::broadcast;

use super::{KEY, OTHER_KEY, changed, id, rejected, store};
use crate::support::redis::RedisServer;
use crate::support::wait::within;

const MINUTE: Duration = Duration::from_mins(1);

/// Makes everything in a server older, instead of waiting.
const AGE: &str = r"
local millis = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', 'hawkgate:*')) do
  local left = redis.call('PTTL', key)
  if redis.call('TYPE', key).ok == 'hash' then
    for _, field in ipairs({'e', 'l'}) do
      local ends = redis.call('HGET', key, field)
      if ends then redis.call('HSET', key, field, string.format('%.0f', ends - millis)) end
    end
  else
    redis.call('SET', key, string.format('%.0f', redis.call('GET', key) - millis * 1000))
  end
  assert(left >= 0, 'a key without an end')
  redis.call('PEXPIRE', key, string.format('%.0f', left - millis))
end
return 1";

/// A store, and the means to let time pass.
enum Subject {
    Memory(Arc<InMemoryStore>, Arc<ManualClock>),
    Redis(Arc<dyn SharedStore>, Box<RedisServer>),
}

impl Subject {
    fn in_memory() -> Self {
        let clock = ManualClock::at(UnixMillis::from_secs(1_000_000));
        Self::Memory(Arc::new(InMemoryStore::new(clock.clone())), clock)
    }

    async fn redis() -> Self {
        let server = RedisServer::start(&[]).await;
        let store = store(&server.url());
        // From here on it is connected and receives events.
        store.probe().await.unwrap();
        Self::Redis(store, Box::new(server))
    }

    fn store(&self) -> &dyn SharedStore {
        match self {
            Self::Memory(store, _) => &**store,
            Self::Redis(store, _) => &**store,
        }
    }

    async fn pass(&self, time: Duration) {
        match self {
            Self::Memory(_, clock) => clock.advance(time),
            Self::Redis(_, server) => {
                let millis = time.as_millis().to_string();
                server.command(&["EVAL", AGE, "0", &millis]).await;
            }
        }
    }

    async fn acquire(&self, lease: u8) -> Acquired {
        self.store().acquire(KEY, id(lease), None).await.unwrap()
    }

    async fn acquire_but(&self, lease: u8, generation: u8, reject: bool) -> Acquired {
        let unwanted = Unwanted {
            generation: id(generation),
            reject,
        };
        let acquired = self.store().acquire(KEY, id(lease), Some(unwanted)).await;
        acquired.unwrap()
    }

    async fn complete(&self, lease: u8, value: &[u8]) -> bool {
        let store = self.store();
        let done = store.complete(KEY, id(lease), value.to_vec(), MINUTE).await;
        done.unwrap()
    }

    async fn renew(&self, lease: u8) -> bool {
        self.store().renew(KEY, id(lease)).await.unwrap()
    }

    async fn value(&self) -> Option<(GenerationId, Vec<u8>)> {
        let value = self.store().read(KEY).await.unwrap();
        value.map(|value| (value.generation, value.sealed))
    }

    async fn put(&self, generation: u8) {
        let store = self.store();
        let done = store
            .write(KEY, id(generation), b"value".to_vec(), MINUTE)
            .await;
        done.unwrap();
    }
}

/// The next event.
async fn next(events: &mut broadcast::Receiver<StoreEvent>) -> StoreEvent {
    within("an event", events.recv()).await.unwrap()
}

fn granted(acquired: &Acquired) -> bool {
    matches!(acquired, Acquired::Granted)
}

fn held(acquired: &Acquired) -> bool {
    matches!(acquired, Acquired::Held)
}

fn found(acquired: Acquired) -> Option<StoredValue> {
    match acquired {
        Acquired::Value(value) => Some(value),
        _ => None,
    }
}

macro_rules! for_both {
    ($($case:ident)+) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Subject::in_memory()).await;
            })+
        }
        mod redis {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Subject::redis().await).await;
            })+
        }
    };
}

for_both! {
    one_holds_the_lease_and_writes_the_value
    a_lease_ends_and_its_holder_can_do_nothing_more
    a_renewed_lease_does_not_end
    a_lease_that_has_ended_is_of_no_use_even_if_nobody_took_it
    one_who_wants_a_newer_value_takes_it_from_nobody
    a_rejected_value_is_removed_by_who_asks_for_another
    rejecting_removes_that_generation_only
    a_released_lease_is_free_at_once
    writing_and_removing_end_the_lease
    a_value_ends_at_its_time_whatever_the_leases
    values_are_bytes
    changes_are_announced_to_all
    a_bucket_is_full_at_first_and_fills_over_time
    a_bucket_gives_what_it_has
    buckets_of_any_size
}

async fn one_holds_the_lease_and_writes_the_value(subject: Subject) {
    assert!(granted(&subject.acquire(1).await));
    assert!(held(&subject.acquire(2).await));
    assert!(held(&subject.acquire(1).await));
    assert_eq!(subject.value().await, None);
    assert!(!subject.complete(2, b"other").await);
    assert!(subject.complete(1, b"value").await);
    assert!(!subject.complete(1, b"again").await);
    assert!(!subject.renew(1).await);
    let value = found(subject.acquire(3).await).unwrap();
    assert_eq!(value.generation, id(1));
    assert_eq!(value.sealed, b"value");
    assert!(value.ttl <= MINUTE && value.ttl > MINUTE / 2, "{value:?}");
    assert_eq!(subject.value().await, Some((id(1), b"value".to_vec())));
    let other = subject.store().acquire(OTHER_KEY, id(4), None).await;
    assert!(granted(&other.unwrap()));
}

async fn a_lease_ends_and_its_holder_can_do_nothing_more(subject: Subject) {
    assert!(granted(&subject.acquire(1).await));
    subject.pass(LEASE).await;
    assert!(granted(&subject.acquire(2).await));
    assert!(!subject.renew(1).await);
    assert!(!subject.complete(1, b"late").await);
    subject.store().release(KEY, id(1)).await.unwrap();
    assert!(held(&subject.acquire(3).await));
    assert!(subject.complete(2, b"value").await);
    assert_eq!(subject.value().await, Some((id(2), b"value".to_vec())));
}

async fn a_renewed_lease_does_not_end(subject: Subject) {
    assert!(granted(&subject.acquire(1).await));
    for _ in 0..5 {
        subject.pass(LEASE_RENEWAL).await;
        assert!(subject.renew(1).await);
        assert!(!subject.renew(2).await);
    }
    subject.pass(LEASE.saturating_sub(LEASE_RENEWAL)).await;
    assert!(held(&subject.acquire(2).await));
    assert!(subject.complete(1, b"value").await);
}

async fn a_lease_that_has_ended_is_of_no_use_even_if_nobody_took_it(subject: Subject) {
    assert!(granted(&subject.acquire(1).await));
    subject.pass(LEASE).await;
    assert!(!subject.renew(1).await);
    assert!(!subject.complete(1, b"late").await);
    assert_eq!(subject.value().await, None);
    assert!(granted(&subject.acquire(1).await));
}

async fn one_who_wants_a_newer_value_takes_it_from_nobody(subject: Subject) {
    subject.put(1).await;
    assert!(found(subject.acquire_but(2, 9, false).await).is_some());
    assert!(granted(&subject.acquire_but(2, 1, false).await));
    assert!(held(&subject.acquire_but(3, 1, false).await));
    let value = found(subject.acquire(4).await).unwrap();
    assert_eq!(value.generation, id(1));
    assert!(subject.complete(2, b"newer").await);
    let value = found(subject.acquire_but(3, 1, false).await).unwrap();
    assert_eq!((value.generation, &*value.sealed), (id(2), &b"newer"[..]));
}

async fn a_rejected_value_is_removed_by_who_asks_for_another(subject: Subject) {
    let mut events = subject.store().events();
    subject.put(1).await;
    assert_eq!(next(&mut events).await, changed(KEY, Some(1)));
    // Another replica knows of a generation that is gone.
    assert!(found(subject.acquire_but(2, 9, true).await).is_some());
    assert_eq!(next(&mut events).await, rejected(9));
    assert!(granted(&subject.acquire_but(2, 1, true).await));
    assert_eq!(next(&mut events).await, rejected(1));
    assert_eq!(subject.value().await, None);
    assert!(held(&subject.acquire_but(3, 1, true).await));
    assert_eq!(next(&mut events).await, rejected(1));
    assert!(subject.complete(2, b"newer").await);
    let value = found(subject.acquire_but(3, 1, true).await).unwrap();
    assert_eq!(value.generation, id(2));
}

async fn rejecting_removes_that_generation_only(subject: Subject) {
    let mut events = subject.store().events();
    subject.put(1).await;
    assert_eq!(next(&mut events).await, changed(KEY, Some(1)));
    subject.store().reject(KEY, id(2)).await.unwrap();
    assert_eq!(next(&mut events).await, rejected(2));
    assert!(subject.value().await.is_some());
    // Somebody fetches a newer one already.
    assert!(granted(&subject.acquire_but(3, 1, false).await));
    subject.store().reject(KEY, id(1)).await.unwrap();
    assert_eq!(next(&mut events).await, rejected(1));
    assert_eq!(subject.value().await, None);
    assert!(held(&subject.acquire(4).await));
    assert!(subject.complete(3, b"newer").await);
    subject.store().reject(KEY, id(1)).await.unwrap();
    assert_eq!(subject.value().await, Some((id(3), b"newer".to_vec())));
}

async fn a_released_lease_is_free_at_once(subject: Subject) {
    let mut events = subject.store().events();
    assert!(granted(&subject.acquire(1).await));
    subject.store().release(KEY, id(2)).await.unwrap();
    assert!(held(&subject.acquire(2).await));
    subject.store().release(KEY, id(1)).await.unwrap();
    // The first release was none, so this is the second one's.
    assert_eq!(next(&mut events).await, changed(KEY, None));
    assert!(events.is_empty());
    assert!(granted(&subject.acquire(2).await));
    subject.store().release(KEY, id(2)).await.unwrap();
    subject.put(3).await;
    assert!(granted(&subject.acquire_but(4, 3, false).await));
    subject.store().release(KEY, id(4)).await.unwrap();
    assert!(subject.value().await.is_some());
}

async fn writing_and_removing_end_the_lease(subject: Subject) {
    assert!(granted(&subject.acquire(1).await));
    subject.put(2).await;
    assert!(!subject.renew(1).await);
    assert!(!subject.complete(1, b"late").await);
    assert_eq!(subject.value().await, Some((id(2), b"value".to_vec())));
    assert!(granted(&subject.acquire_but(3, 2, false).await));
    assert!(subject.store().remove(KEY).await.unwrap());
    assert!(!subject.store().remove(KEY).await.unwrap());
    assert!(!subject.complete(3, b"late").await);
    assert!(granted(&subject.acquire(4).await));
    assert!(!subject.store().remove(KEY).await.unwrap());
    assert!(granted(&subject.acquire(5).await));
}

async fn a_value_ends_at_its_time_whatever_the_leases(subject: Subject) {
    subject.put(1).await;
    subject.pass(MINUTE.saturating_sub(LEASE_RENEWAL)).await;
    assert!(granted(&subject.acquire_but(2, 1, false).await));
    let left = subject.store().read(KEY).await.unwrap().unwrap().ttl;
    assert!(left <= LEASE_RENEWAL, "{left:?}");
    subject.pass(LEASE_RENEWAL).await;
    assert_eq!(subject.value().await, None);
    assert!(held(&subject.acquire(3).await));
    assert!(subject.renew(2).await);
    assert_eq!(subject.value().await, None);
    assert!(subject.complete(2, b"newer").await);
    // A lease does not make it end sooner either.
    assert!(granted(&subject.acquire_but(4, 2, false).await));
    subject.pass(LEASE).await;
    assert_eq!(subject.value().await, Some((id(2), b"newer".to_vec())));
    let none = Duration::ZERO;
    subject
        .store()
        .write(KEY, id(5), b"gone".to_vec(), none)
        .await
        .unwrap();
    assert_eq!(subject.value().await, None);
}

async fn values_are_bytes(subject: Subject) {
    let every: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for value in [Vec::new(), b"\r\n\0$-1\r\n".to_vec(), every] {
        let store = subject.store();
        store
            .write(KEY, GenerationId([0; 16]), value.clone(), MINUTE)
            .await
            .unwrap();
        assert_eq!(subject.value().await, Some((GenerationId([0; 16]), value)));
    }
    let bytes = *b"\r\n\0\xff 'g'\"\\%{}$ab";
    let lease = GenerationId(bytes);
    subject.store().remove(KEY).await.unwrap();
    assert!(granted(
        &subject.store().acquire(KEY, lease, None).await.unwrap()
    ));
    assert!(subject.store().renew(KEY, lease).await.unwrap());
    let done = subject
        .store()
        .complete(KEY, lease, b"value".to_vec(), MINUTE)
        .await;
    assert!(done.unwrap());
    assert_eq!(subject.value().await, Some((lease, b"value".to_vec())));
}

async fn changes_are_announced_to_all(subject: Subject) {
    let mut receivers = [subject.store().events(), subject.store().events()];
    assert!(granted(&subject.acquire(1).await));
    assert!(!subject.complete(2, b"other").await);
    assert!(subject.complete(1, b"value").await);
    subject.store().remove(OTHER_KEY).await.unwrap();
    subject.store().reject(KEY, id(1)).await.unwrap();
    for events in &mut receivers {
        assert_eq!(next(events).await, changed(KEY, Some(1)));
        assert_eq!(next(events).await, changed(OTHER_KEY, None));
        assert_eq!(next(events).await, rejected(1));
        assert!(events.is_empty());
    }
}

/// Ten tokens, of which one is added each minute.
const SLOW: Quota = Quota {
    interval: MINUTE,
    burst: 10,
};

impl Subject {
    async fn take(&self, quota: Quota, wanted: u64) -> Taken {
        self.store().take(KEY, quota, wanted).await.unwrap()
    }

    async fn taken(&self, wanted: u64) -> u64 {
        self.take(SLOW, wanted).await.granted
    }
}

async fn a_bucket_is_full_at_first_and_fills_over_time(subject: Subject) {
    for _ in 0..10 {
        assert_eq!(subject.taken(1).await, 1);
    }
    let none = subject.take(SLOW, 1).await;
    assert_eq!(none.granted, 0);
    let wait = none.retry_after;
    assert!(wait > MINUTE / 2 && wait <= MINUTE, "{wait:?}");
    subject.pass(MINUTE / 2).await;
    let none = subject.take(SLOW, 1).await;
    assert_eq!(none.granted, 0);
    assert!(none.retry_after <= MINUTE / 2, "{none:?}");
    subject.pass(MINUTE / 2).await;
    assert_eq!(subject.taken(1).await, 1);
    assert_eq!(subject.taken(1).await, 0);
    subject.pass(MINUTE * 3).await;
    assert_eq!(subject.taken(10).await, 3);
    let other = subject.store().take(OTHER_KEY, SLOW, 1).await.unwrap();
    assert_eq!(other.granted, 1);
}

async fn a_bucket_gives_what_it_has(subject: Subject) {
    assert_eq!(subject.taken(0).await, 0);
    assert_eq!(subject.taken(7).await, 7);
    assert_eq!(subject.taken(7).await, 3);
    assert_eq!(subject.taken(7).await, 0);
    subject.pass(MINUTE * 1000).await;
    assert_eq!(subject.taken(u64::MAX).await, 10);
    assert_eq!(subject.taken(u64::MAX).await, 0);
}

async fn buckets_of_any_size(subject: Subject) {
    for (interval, burst, key) in [
        (Duration::from_micros(1), u64::MAX, 11),
        (Duration::from_hours(24 * 365), u64::MAX, 12),
        (Duration::from_hours(24 * 365), 1, 13),
        (Duration::from_micros(1), 1, 14),
    ] {
        let quota = Quota { interval, burst };
        let key = hawkgate::shared_store::StoreKey([key; 32]);
        let taken = subject.store().take(key, quota, 1).await.unwrap();
        assert_eq!(taken.granted, 1, "{quota:?}");
    }
}
