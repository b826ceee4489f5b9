//! How many calls run and wait, and the share that one origin can take.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Origin;

/// The part of the capacity that an origin gets which has never been accepted. Any other one
/// leaves as much to others: to have been accepted once is no reason to get all.
const QUOTA: usize = 4;

/// How much of the capacity a call may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// All: its key was accepted before, and has one call at a time.
    All,
    /// All but a quarter, with the other calls of its origin, which was accepted before.
    KnownOrigin,
    /// A quarter, likewise.
    UnknownOrigin,
}

impl Share {
    /// What one origin can take of `all`.
    fn of(self, all: usize) -> usize {
        let quarter = (all / QUOTA).max(1);
        match self {
            Self::All => all,
            Self::KnownOrigin => all.saturating_sub(quarter).max(1),
            Self::UnknownOrigin => quarter,
        }
    }
}

/// Counts calls. Holds an entry only for origins that have calls.
#[derive(Debug)]
pub(super) struct Capacity {
    permits: Arc<Semaphore>,
    concurrency: usize,
    max_calls: usize,
    calls: usize,
    origins: HashMap<Origin, OriginCalls>,
}

#[derive(Debug)]
struct OriginCalls {
    calls: usize,
    known: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
}

/// The permits that a call acquires before it runs.
#[derive(Clone, Debug)]
pub(super) struct Permits {
    all: Arc<Semaphore>,
    quota: Option<Arc<Semaphore>>,
}

/// A call's permission to run.
#[derive(Debug)]
pub(super) struct Permit {
    _all: Option<OwnedSemaphorePermit>,
    _quota: Option<OwnedSemaphorePermit>,
}

impl Capacity {
    pub(super) fn new(concurrency: usize, max_calls: usize) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            max_calls,
            calls: 0,
            origins: HashMap::new(),
        }
    }

    /// Adds a call by `origin`, unless there are too many for its `share`.
    pub(super) fn add(&mut self, origin: Origin, share: Share) -> Option<Permits> {
        let of_origin = self.origins.get(&origin).map_or(0, |o| o.calls);
        if self.calls >= self.max_calls || of_origin >= share.of(self.max_calls) {
            return None;
        }
        let quota = |share: Share| Arc::new(Semaphore::new(share.of(self.concurrency)));
        let entry = self.origins.entry(origin).or_insert_with(|| OriginCalls {
            calls: 0,
            known: quota(Share::KnownOrigin),
            unknown: quota(Share::UnknownOrigin),
        });
        entry.calls += 1;
        self.calls += 1;
        let quota = match share {
            Share::All => None,
            Share::KnownOrigin => Some(&entry.known),
            Share::UnknownOrigin => Some(&entry.unknown),
        };
        Some(Permits {
            all: Arc::clone(&self.permits),
            quota: quota.map(Arc::clone),
        })
    }

    /// Removes a call that [`Self::add`] has added.
    pub(super) fn remove(&mut self, origin: Origin) {
        self.calls = self.calls.saturating_sub(1);
        if let Some(entry) = self.origins.get_mut(&origin) {
            entry.calls = entry.calls.saturating_sub(1);
            if entry.calls == 0 {
                self.origins.remove(&origin);
            }
        }
    }
}

impl Permits {
    /// Waits for permission. A call waits for its origin's quota first, and holds no permit
    /// of the others' in the meantime.
    pub(super) async fn acquire(&self) -> Permit {
        let quota = match &self.quota {
            Some(quota) => Arc::clone(quota).acquire_owned().await.ok(),
            None => None,
        };
        Permit {
            _all: Arc::clone(&self.all).acquire_owned().await.ok(),
            _quota: quota,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_limited_origin_gets_a_quarter_and_leaves_the_rest_to_others() {
        let (one, other) = (Origin::Subject([1; 32]), Origin::Subject([2; 32]));
        let mut capacity = Capacity::new(8, 40);
        let calls: Vec<_> = (0..20)
            .filter_map(|_| capacity.add(one, Share::UnknownOrigin))
            .collect();
        assert_eq!(calls.len(), 10);
        let run = |permits: &Permits| permits.acquire().now_or_never();
        let mut running: Vec<_> = calls.iter().filter_map(run).collect();
        assert_eq!(running.len(), 2);
        let calls: Vec<_> = (0..40)
            .filter_map(|_| capacity.add(other, Share::All))
            .collect();
        assert_eq!(calls.len(), 30);
        running.extend(calls.iter().filter_map(run));
        assert_eq!(running.len(), 8);
        for _ in 0..10 {
            capacity.remove(one);
        }
        for _ in 0..30 {
            capacity.remove(other);
        }
        assert_eq!((capacity.calls, capacity.origins.len()), (0, 0));
    }

    #[test]
    fn an_origin_that_was_accepted_leaves_a_quarter_to_others() {
        let (one, other) = (Origin::Subject([1; 32]), Origin::Subject([2; 32]));
        let mut capacity = Capacity::new(8, 40);
        let mut add = |origin, share| {
            let added = (0..50).filter_map(|_| capacity.add(origin, share));
            added.collect::<Vec<_>>()
        };
        let calls = add(one, Share::KnownOrigin);
        let others = add(other, Share::UnknownOrigin);
        assert_eq!((calls.len(), others.len()), (30, 10));
        let run = |permits: &Permits| permits.acquire().now_or_never();
        let running: Vec<_> = calls.iter().filter_map(run).collect();
        let served: Vec<_> = others.iter().filter_map(run).collect();
        assert_eq!((running.len(), served.len()), (6, 2));
    }
}
