//! A store in this process's memory, for tests and simulations of a fleet: the operations of the real
//! one, with the clock passed in. It has no limits and is never used to serve requests.

use std::collections::HashMap;
use std::future::pending;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{
    Acquired, GenerationId, LEASE, Quota, SharedStore, StoreError, StoreEvent, StoreKey,
    StoredValue, Taken, Unwanted,
};
use crate::clock::SharedClock;
use crate::sync::{Mutex, MutexGuard};

/// The events that a receiver may lag behind.
const EVENTS: usize = 1024;

/// A store in memory.
#[derive(Debug)]
pub struct InMemoryStore {
    clock: SharedClock,
    state: Mutex<State>,
    events: broadcast::Sender<StoreEvent>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<StoreKey, Entry>,
    /// When each bucket will be full, in monotonic time.
    buckets: HashMap<StoreKey, Duration>,
    failure: Option<StoreError>,
    hangs: bool,
    lies: bool,
}

#[derive(Debug, Default)]
struct Entry {
    value: Option<Value>,
    /// The lease, and its end.
    lease: Option<(GenerationId, Duration)>,
}

#[derive(Debug)]
struct Value {
    generation: GenerationId,
    sealed: Vec<u8>,
    end: Duration,
}

impl InMemoryStore {
    /// An empty store.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
        }
    }

    /// Makes every operation fail with `failure`, or none.
    pub fn fail(&self, failure: Option<StoreError>) {
        self.state().failure = failure;
    }

    /// Makes every operation that begins hang, or none.
    pub fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// Makes the store return values that are not wanted, or have ended; or no longer.
    pub fn lie(&self, lies: bool) {
        self.state().lies = lies;
    }

    /// Loses everything, as a server that was restarted.
    pub fn clear(&self) {
        let mut state = self.state();
        state.entries.clear();
        state.buckets.clear();
    }

    /// Replaces every value with `bytes`.
    pub fn corrupt(&self, bytes: &[u8]) {
        for entry in self.state().entries.values_mut() {
            if let Some(value) = &mut entry.value {
                value.sealed = bytes.to_vec();
            }
        }
    }

    /// Gives each entry the value of another one.
    pub fn swap_values(&self) {
        let mut state = self.state();
        let mut values: Vec<_> = state
            .entries
            .values_mut()
            .map(|entry| entry.value.take())
            .collect();
        values.rotate_left(1);
        for (entry, value) in state.entries.values_mut().zip(values) {
            entry.value = value;
        }
    }

    /// The number of values.
    pub fn values(&self) -> usize {
        let state = self.state();
        let now = self.clock.monotonic();
        let lives = |entry: &&Entry| entry.value.as_ref().is_some_and(|value| now < value.end);
        state.entries.values().filter(lives).count()
    }

    /// Tells every replica `event`.
    pub fn tell(&self, event: StoreEvent) {
        // An error means that nobody listens.
        let _ = self.events.send(event);
    }

    async fn ready(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        if self.state().hangs {
            return pending().await;
        }
        let state = self.state();
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The entry of `key`, without what has ended by `now`.
    fn entry(&mut self, key: StoreKey, now: Duration) -> &mut Entry {
        let lies = self.lies;
        let entry = self.entries.entry(key).or_default();
        entry.value.take_if(|value| value.end <= now && !lies);
        entry.lease.take_if(|(_, end)| *end <= now);
        entry
    }
}

impl Entry {
    fn stored(&self, now: Duration) -> Option<StoredValue> {
        self.value.as_ref().map(|value| StoredValue {
            generation: value.generation,
            sealed: value.sealed.clone(),
            // One that has ended is there only if the store lies.
            ttl: value
                .end
                .checked_sub(now)
                .filter(|left| !left.is_zero())
                .unwrap_or(Duration::from_hours(1)),
        })
    }

    fn holds(&self, lease: GenerationId) -> bool {
        self.lease.is_some_and(|(held, _)| held == lease)
    }
}

#[async_trait]
impl SharedStore for InMemoryStore {
    async fn acquire(
        &self,
        key: StoreKey,
        lease: GenerationId,
        unwanted: Option<Unwanted>,
    ) -> Result<Acquired, StoreError> {
        let mut rejected = None;
        let now = self.clock.monotonic();
        let acquired = {
            let mut state = self.ready().await?;
            let lies = state.lies;
            let entry = state.entry(key, now);
            if let Some(unwanted) = unwanted.filter(|unwanted| unwanted.reject) {
                rejected = Some(unwanted.generation);
                entry
                    .value
                    .take_if(|value| value.generation == unwanted.generation && !lies);
            }
            let unwanted = unwanted.map(|unwanted| unwanted.generation);
            let wanted = |value: &StoredValue| lies || Some(value.generation) != unwanted;
            if let Some(value) = entry.stored(now).filter(wanted) {
                Acquired::Value(value)
            } else if entry.lease.is_some() {
                Acquired::Held
            } else {
                entry.lease = Some((lease, now + LEASE));
                Acquired::Granted
            }
        };
        if let Some(generation) = rejected {
            self.tell(StoreEvent::Rejected { key, generation });
        }
        Ok(acquired)
    }

    async fn renew(&self, key: StoreKey, lease: GenerationId) -> Result<bool, StoreError> {
        let now = self.clock.monotonic();
        let mut state = self.ready().await?;
        let entry = state.entry(key, now);
        let held = entry.holds(lease);
        if held {
            entry.lease = Some((lease, now + LEASE));
        }
        Ok(held)
    }

    async fn complete(
        &self,
        key: StoreKey,
        lease: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let now = self.clock.monotonic();
        {
            let mut state = self.ready().await?;
            let entry = state.entry(key, now);
            if !entry.holds(lease) {
                return Ok(false);
            }
            entry.lease = None;
            entry.value = Some(Value {
                generation: lease,
                sealed,
                end: now + ttl,
            });
        }
        self.tell(StoreEvent::Changed {
            key,
            generation: Some(lease),
        });
        Ok(true)
    }

    async fn release(&self, key: StoreKey, lease: GenerationId) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        {
            let mut state = self.ready().await?;
            let entry = state.entry(key, now);
            if !entry.holds(lease) {
                return Ok(());
            }
            entry.lease = None;
        }
        self.tell(StoreEvent::Changed {
            key,
            generation: None,
        });
        Ok(())
    }

    async fn reject(&self, key: StoreKey, generation: GenerationId) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        {
            let mut state = self.ready().await?;
            let entry = state.entry(key, now);
            entry.value.take_if(|value| value.generation == generation);
        }
        self.tell(StoreEvent::Rejected { key, generation });
        Ok(())
    }

    async fn read(&self, key: StoreKey) -> Result<Option<StoredValue>, StoreError> {
        let now = self.clock.monotonic();
        let mut state = self.ready().await?;
        Ok(state.entry(key, now).stored(now))
    }

    async fn write(
        &self,
        key: StoreKey,
        generation: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        {
            let mut state = self.ready().await?;
            let entry = state.entry(key, now);
            entry.lease = None;
            entry.value = Some(Value {
                generation,
                sealed,
                end: now + ttl,
            });
        }
        self.tell(StoreEvent::Changed {
            key,
            generation: Some(generation),
        });
        Ok(())
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        let now = self.clock.monotonic();
        let removed = {
            let mut state = self.ready().await?;
            let removed = state.entry(key, now).value.is_some();
            state.entries.remove(&key);
            removed
        };
        self.tell(StoreEvent::Changed {
            key,
            generation: None,
        });
        Ok(removed)
    }

    async fn take(&self, key: StoreKey, quota: Quota, wanted: u64) -> Result<Taken, StoreError> {
        let now = self.clock.monotonic();
        let mut state = self.ready().await?;
        let full_at = state.buckets.entry(key).or_insert(now);
        let from = (*full_at).max(now);
        let capacity = times(quota.interval, quota.burst);
        let room = capacity.saturating_sub(from.saturating_sub(now));
        let tokens = room.as_nanos() / quota.interval.as_nanos().max(1);
        let granted = wanted.min(u64::try_from(tokens).unwrap_or(u64::MAX));
        *full_at = from + times(quota.interval, granted);
        let retry_after = quota.interval.saturating_sub(room);
        Ok(Taken {
            granted,
            retry_after,
        })
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.ready().await.map(|_| ())
    }

    fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.events.subscribe()
    }
}

fn times(interval: Duration, count: u64) -> Duration {
    let nanos = interval.as_nanos().saturating_mul(u128::from(count));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
