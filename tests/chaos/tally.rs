//! What became of the requests.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A caller that has used hawkgate before, with a valid token: its credentials are cached.
    Established,
    /// A new caller with a valid token.
    Newcomer,
    /// A process on this machine, on the route that needs no token and no exchange.
    Local,
    /// Somebody with a forged token.
    Hostile,
}

impl Class {
    /// Those whose requests must not be lost.
    pub(crate) const GOOD: [Self; 3] = [Self::Established, Self::Newcomer, Self::Local];
}

/// How a request ended: `200`, `503 exchange_unavailable`, `no answer`.
pub(crate) type Ending = String;

/// Counts endings, apart for calm and disturbed times, and collects violations.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Odd while something is wrong.
    period: AtomicU64,
    counts: Mutex<BTreeMap<(Class, bool, Ending), u64>>,
    violations: Mutex<Vec<String>>,
}

/// A period in which a request was sent.
#[derive(Clone, Copy)]
pub(crate) struct Period(u64);

impl Tally {
    /// The current period, to be passed to [`Self::count`].
    pub(crate) fn period(&self) -> Period {
        Period(self.0.period.load(Ordering::SeqCst))
    }

    /// From now on something is wrong, or no longer.
    pub(crate) fn next_period(&self) {
        self.0.period.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a request that was sent in `sent`. It counts as calm only if nothing was wrong at any
    /// time.
    pub(crate) fn count(&self, class: Class, sent: Period, ending: Ending) {
        let calm = sent.0 == self.period().0 && sent.0.is_multiple_of(2);
        *self
            .0
            .counts
            .lock()
            .unwrap()
            .entry((class, calm, ending))
            .or_default() += 1;
    }

    /// Records something that must never happen.
    pub(crate) fn violation(&self, what: String) {
        self.0.violations.lock().unwrap().push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.0.violations.lock().unwrap().clone()
    }

    /// The endings of the requests of `class`, in calm or disturbed times, with their numbers.
    pub(crate) fn endings(&self, class: Class, calm: bool) -> Vec<(Ending, u64)> {
        let counts = self.0.counts.lock().unwrap();
        let of_class = counts
            .iter()
            .filter(|((c, q, _), _)| (*c, *q) == (class, calm));
        of_class
            .map(|((_, _, ending), n)| (ending.clone(), *n))
            .collect()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Established => "established",
            Self::Newcomer => "newcomer",
            Self::Local => "local",
            Self::Hostile => "hostile",
        })
    }
}
