//! Whether what was read in the store still holds: until an event says that it has changed, events may
//! have been missed, or some time is over.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::clock::Now;
use crate::shared_store::{StoreEvent, StoreKey};

/// How long what was read holds if nothing is heard.
const CHECK: Duration = Duration::from_secs(30);

/// The keys that are watched before the first sweep.
const FIRST_SWEEP: usize = 1024;

/// The state of something that was read from a few entries.
#[derive(Debug)]
pub(super) struct Freshness {
    /// One of the entries has changed since.
    changed: AtomicBool,
    /// Events were received without a gap since this one.
    epoch: u64,
    /// Monotonic time at which reading began.
    since: Duration,
}

impl Freshness {
    /// Whether one of the entries has changed.
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }
}

/// What is to be told of changes.
#[derive(Default)]
pub(super) struct Watches {
    /// Counts the gaps in the events.
    epoch: AtomicU64,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    watchers: HashMap<StoreKey, Vec<Weak<Freshness>>>,
    /// The number of keys at which those are forgotten that nothing is known about any more.
    sweep_at: usize,
}

impl Watches {
    /// Begins to watch `keys`. To be called before they are read, or a change could be missed.
    pub(super) fn watch(&self, keys: &[StoreKey], now: Now) -> Arc<Freshness> {
        let freshness = Arc::new(Freshness {
            changed: AtomicBool::new(false),
            epoch: self.epoch.load(Ordering::Acquire),
            since: now.monotonic,
        });
        self.add(&freshness, keys);
        freshness
    }

    /// Watches further keys, before they are read.
    pub(super) fn add(&self, freshness: &Arc<Freshness>, keys: &[StoreKey]) {
        // Nothing under this lock panics halfway.
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let watchers = index.watchers.entry(*key).or_default();
            if watchers.len() == watchers.capacity() {
                watchers.retain(|watcher| watcher.strong_count() > 0);
            }
            watchers.push(Arc::downgrade(freshness));
        }
        if index.watchers.len() >= index.sweep_at.max(FIRST_SWEEP) {
            index
                .watchers
                .retain(|_, watchers| watchers.iter().any(|w| w.strong_count() > 0));
            index.sweep_at = index.watchers.len().saturating_mul(2);
        }
    }

    /// Whether what `freshness` belongs to need not be read again.
    pub(super) fn is_fresh(&self, freshness: &Freshness, now: Now) -> bool {
        !freshness.has_changed()
            && freshness.epoch == self.epoch.load(Ordering::Acquire)
            && now.monotonic.saturating_sub(freshness.since) < CHECK
    }

    fn changed(&self, key: StoreKey) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for watcher in index.watchers.remove(&key).unwrap_or_default() {
            if let Some(freshness) = watcher.upgrade() {
                freshness.changed.store(true, Ordering::Release);
            }
        }
    }

    /// Handles events until there will be no more.
    pub(super) async fn listen(self: Arc<Self>, mut events: Receiver<StoreEvent>) {
        loop {
            match events.recv().await {
                Ok(StoreEvent::Changed(key)) => self.changed(key),
                Ok(StoreEvent::Interrupted) | Err(RecvError::Lagged(_)) => {
                    self.epoch.fetch_add(1, Ordering::AcqRel);
                }
                Ok(StoreEvent::Rejected(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watches(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    fn at(secs: u64) -> Now {
        Now {
            wall: UnixMillis::from_secs(1_796_000_000),
            monotonic: Duration::from_secs(secs),
        }
    }

    fn key(n: u32) -> StoreKey {
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(n.to_be_bytes()) {
            *to = from;
        }
        StoreKey(key)
    }

    #[test]
    fn a_change_of_any_key_ends_freshness_and_so_does_time() {
        let watches = Watches::default();
        let one = watches.watch(&[key(1), key(2)], at(100));
        let other = watches.watch(&[key(2), key(3)], at(100));
        watches.changed(key(4));
        assert!(watches.is_fresh(&one, at(129)) && !watches.is_fresh(&one, at(130)));
        watches.changed(key(1));
        assert!(one.has_changed() && !watches.is_fresh(&one, at(100)));
        assert!(watches.is_fresh(&other, at(100)));
        watches.changed(key(2));
        assert!(other.has_changed());
    }

    #[tokio::test]
    async fn a_gap_in_the_events_ends_freshness_but_is_no_change() {
        let watches = Arc::new(Watches::default());
        let before = watches.watch(&[key(1)], at(0));
        let events = tokio::sync::broadcast::Sender::new(2);
        let receiver = events.subscribe();
        // The first of these is lost.
        for n in 2..5 {
            events.send(StoreEvent::Changed(key(n))).unwrap();
        }
        drop(events);
        Arc::clone(&watches).listen(receiver).await;
        assert!(!watches.is_fresh(&before, at(0)) && !before.has_changed());
        let after = watches.watch(&[key(1)], at(0));
        assert!(watches.is_fresh(&after, at(0)));
    }

    #[test]
    fn what_nobody_knows_any_more_is_forgotten() {
        let watches = Watches::default();
        let kept = watches.watch(&[key(0)], at(0));
        for n in 1..10_000 {
            watches.watch(&[key(n), key(0)], at(0));
        }
        let index = watches.index.lock().unwrap();
        assert!(
            index.watchers.len() <= FIRST_SWEEP,
            "{}",
            index.watchers.len()
        );
        assert!(index.watchers[&key(0)].len() <= 8);
        drop(index);
        watches.changed(key(0));
        assert!(kept.has_changed());
    }
}
