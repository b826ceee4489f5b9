//! Whether what was read in the store still holds: until an event says that it has changed, events may
//! have been missed, or some time is over.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::clock::Now;
use crate::shared_store::{GenerationId, StoreEvent, StoreKey};

/// How long what was read holds if nothing is heard.
const CHECK: Duration = Duration::from_secs(30);

/// The epoch of what was not read.
const NEVER: u64 = u64::MAX;

/// The keys that are watched before the first sweep.
const FIRST_SWEEP: usize = 1024;

/// The state of something that was read from a few entries.
#[derive(Debug)]
pub(super) struct Freshness {
    /// One of the entries has changed since.
    changed: AtomicBool,
    /// What was read, or written, if that is known: an event about it is no news.
    known: OnceLock<GenerationId>,
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

    /// Says what was read, or is about to be written.
    pub(super) fn knows(&self, generation: GenerationId) {
        // Only once for each.
        let _ = self.known.set(generation);
    }

    /// Handles news. Whether to go on watching.
    fn on_change(&self, written: Option<GenerationId>) -> bool {
        if written.is_some() && written == self.known.get().copied() {
            return true;
        }
        self.changed.store(true, Ordering::Release);
        false
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
        self.watch_since(self.epoch.load(Ordering::Acquire), keys, now)
    }

    /// Begins to watch `keys`, one of which will be written without reading the others: what is known of
    /// them is not fresh.
    pub(super) fn watch_unread(&self, keys: &[StoreKey], now: Now) -> Arc<Freshness> {
        self.watch_since(NEVER, keys, now)
    }

    fn watch_since(&self, epoch: u64, keys: &[StoreKey], now: Now) -> Arc<Freshness> {
        let freshness = Arc::new(Freshness {
            changed: AtomicBool::new(false),
            known: OnceLock::new(),
            epoch,
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

    pub(super) fn on_event(&self, event: &StoreEvent) {
        match event {
            StoreEvent::Changed { key, generation } => self.on_change(*key, *generation),
            StoreEvent::Interrupted => {
                self.epoch.fetch_add(1, Ordering::AcqRel);
            }
            StoreEvent::Rejected { .. } => {}
        }
    }

    fn on_change(&self, key: StoreKey, written: Option<GenerationId>) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut watchers) = index.watchers.remove(&key) else {
            return;
        };
        watchers.retain(|watcher| {
            let freshness = watcher.upgrade();
            freshness.is_some_and(|freshness| freshness.on_change(written))
        });
        if !watchers.is_empty() {
            index.watchers.insert(key, watchers);
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

    fn changed(n: u32, generation: Option<u8>) -> StoreEvent {
        StoreEvent::Changed {
            key: key(n),
            generation: generation.map(|byte| GenerationId([byte; 16])),
        }
    }

    #[test]
    fn a_change_of_any_key_ends_freshness_and_so_does_time() {
        let watches = Watches::default();
        let one = watches.watch(&[key(1), key(2)], at(100));
        let other = watches.watch(&[key(2), key(3)], at(100));
        watches.on_event(&changed(4, None));
        assert!(watches.is_fresh(&one, at(129)) && !watches.is_fresh(&one, at(130)));
        watches.on_event(&changed(1, None));
        assert!(one.has_changed() && !watches.is_fresh(&one, at(100)));
        assert!(watches.is_fresh(&other, at(100)));
        watches.on_event(&changed(2, Some(1)));
        assert!(other.has_changed());
    }

    #[test]
    fn an_event_about_what_is_known_is_no_change() {
        let watches = Watches::default();
        let freshness = watches.watch(&[key(1)], at(0));
        freshness.knows(GenerationId([7; 16]));
        watches.on_event(&changed(1, Some(7)));
        watches.on_event(&changed(1, Some(7)));
        assert!(watches.is_fresh(&freshness, at(0)));
        watches.on_event(&changed(1, Some(8)));
        assert!(freshness.has_changed());
        let removed = watches.watch(&[key(1)], at(0));
        removed.knows(GenerationId([7; 16]));
        watches.on_event(&changed(1, None));
        assert!(removed.has_changed());
    }

    #[test]
    fn what_was_written_without_reading_the_rest_is_not_fresh_but_no_change_either() {
        let watches = Watches::default();
        let freshness = watches.watch_unread(&[key(1)], at(0));
        assert!(!watches.is_fresh(&freshness, at(0)) && !freshness.has_changed());
        watches.on_event(&changed(1, None));
        assert!(freshness.has_changed());
    }

    #[test]
    fn a_gap_in_the_events_ends_freshness_but_is_no_change() {
        let watches = Watches::default();
        let before = watches.watch(&[key(1)], at(0));
        watches.on_event(&StoreEvent::Interrupted);
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
        watches.on_event(&changed(0, None));
        assert!(kept.has_changed());
    }
}
