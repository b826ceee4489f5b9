//! The latest outcome of each voter within a sliding window.

use std::hash::Hash;
use std::time::Duration;

use super::aging_map::AgingMap;

/// Half the length of the window: an outcome counts for 15 to 30 seconds.
const HALF: Duration = Duration::from_secs(15);
/// The most voters that are remembered of each outcome, in each half.
const CAPACITY: usize = 2048;
/// The circuit does not open unless this many voters failed.
const MINIMUM_FAILED: usize = 3;
/// It opens if less than one in this many got a response.
const MINIMUM_SHARE: usize = 10;

/// How many voters there are of each outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Votes {
    pub(super) failed: usize,
    pub(super) responded: usize,
}

impl Votes {
    /// Whether nearly all voters failed.
    pub(super) fn open_the_circuit(self) -> bool {
        let all = self.failed + self.responded;
        self.failed >= MINIMUM_FAILED && self.responded * MINIMUM_SHARE < all
    }
}

/// Each voter is in one of the two maps. They are separate so that a flood of one outcome
/// displaces none of the other.
#[derive(Debug)]
pub(super) struct Window<V> {
    failed: AgingMap<V, ()>,
    responded: AgingMap<V, ()>,
}

impl<V: Hash + Eq> Window<V> {
    pub(super) fn new() -> Self {
        Self {
            failed: AgingMap::new(HALF, CAPACITY),
            responded: AgingMap::new(HALF, CAPACITY),
        }
    }

    pub(super) fn age(&mut self, now: Duration) {
        self.failed.age(now);
        self.responded.age(now);
    }

    pub(super) fn record(&mut self, voter: V, responded: bool, now: Duration) {
        let (from, to) = if responded {
            (&mut self.failed, &mut self.responded)
        } else {
            (&mut self.responded, &mut self.failed)
        };
        from.remove(&voter);
        to.insert(voter, (), now);
    }

    pub(super) fn has_failed(&self, voter: &V) -> bool {
        self.failed.contains(voter)
    }

    pub(super) fn votes(&self) -> Votes {
        Votes {
            failed: self.failed.len(),
            responded: self.responded.len(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.failed.clear();
        self.responded.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn only_the_latest_outcome_of_a_voter_counts() {
        let mut window = Window::new();
        for n in 0..50 {
            window.record("ann", false, secs(n % 3));
        }
        let votes = |failed, responded| Votes { failed, responded };
        assert_eq!(window.votes(), votes(1, 0));
        window.record("ann", true, secs(3));
        assert_eq!(window.votes(), votes(0, 1));
        assert!(!window.has_failed(&"ann"));
        window.record("ann", false, secs(4));
        assert_eq!(window.votes(), votes(1, 0));
        window.age(secs(15));
        assert!(window.has_failed(&"ann"));
        window.age(secs(45));
        assert_eq!(window.votes(), votes(0, 0));
    }

    #[test]
    fn the_circuit_opens_if_three_or_more_failed_and_less_than_a_tenth_succeeded() {
        for (failed, responded, opens) in [
            (0, 0, false),
            (2, 0, false),
            (3, 0, true),
            (3, 1, false),
            (9, 1, false),
            (10, 1, true),
            (90, 10, false),
            (91, 10, true),
        ] {
            let votes = Votes { failed, responded };
            assert_eq!(votes.open_the_circuit(), opens, "{votes:?}");
        }
    }
}
