//! The latest outcomes of the voters that voted last.

use std::collections::VecDeque;
use std::time::Duration;

/// How long an outcome counts.
pub(super) const SPAN: Duration = Duration::from_secs(30);
/// How many voters count: those that voted last.
const VOTERS: usize = 64;
/// The circuit does not open unless this many voters failed.
const MINIMUM_FAILED: usize = 3;
/// It opens if less than one in this many got a response.
const MINIMUM_SHARE: usize = 10;
/// It does not open if anybody got a response so recently: the peer is alive.
const SILENCE: Duration = Duration::from_secs(2);

/// How many voters there are of each outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Votes {
    pub(super) failed: usize,
    pub(super) responded: usize,
}

impl Votes {
    /// Whether nearly all voters failed.
    fn nearly_all_failed(self) -> bool {
        let all = self.failed + self.responded;
        self.failed >= MINIMUM_FAILED && self.responded * MINIMUM_SHARE < all
    }
}

#[derive(Debug)]
struct Vote<V> {
    voter: V,
    responded: bool,
    /// Monotonic time.
    at: Duration,
}

/// A sliding window with one vote for each voter, the oldest first.
#[derive(Debug)]
pub(super) struct Window<V> {
    votes: VecDeque<Vote<V>>,
    last_response: Option<Duration>,
}

impl<V: Eq> Window<V> {
    pub(super) fn new() -> Self {
        Self {
            votes: VecDeque::new(),
            last_response: None,
        }
    }

    pub(super) fn record(&mut self, voter: V, responded: bool, now: Duration) {
        let old = |vote: &Vote<V>| vote.at.saturating_add(SPAN) <= now;
        while self.votes.front().is_some_and(old) {
            self.votes.pop_front();
        }
        match self.votes.iter().position(|vote| vote.voter == voter) {
            Some(at) => drop(self.votes.remove(at)),
            None if self.votes.len() >= VOTERS => drop(self.votes.pop_front()),
            None => {}
        }
        if responded {
            self.last_response = Some(now);
        }
        self.votes.push_back(Vote {
            voter,
            responded,
            at: now,
        });
    }

    pub(super) fn votes(&self) -> Votes {
        let responded = self.votes.iter().filter(|vote| vote.responded).count();
        Votes {
            failed: self.votes.len() - responded,
            responded,
        }
    }

    /// Whether the circuit must open at `now`, just after a failure was recorded.
    pub(super) fn is_broken(&self, now: Duration) -> bool {
        let silent = self
            .last_response
            .is_none_or(|last| last.saturating_add(SILENCE) <= now);
        silent && self.votes().nearly_all_failed()
    }

    pub(super) fn clear(&mut self) {
        self.votes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn votes(failed: usize, responded: usize) -> Votes {
        Votes { failed, responded }
    }

    #[test]
    fn only_the_latest_outcome_of_a_voter_counts() {
        let mut window = Window::new();
        for n in 0..50 {
            window.record(1, false, secs(n % 3));
        }
        assert_eq!(window.votes(), votes(1, 0));
        window.record(1, true, secs(3));
        assert_eq!(window.votes(), votes(0, 1));
        window.record(1, false, secs(4));
        assert_eq!(window.votes(), votes(1, 0));
        window.record(2, false, secs(34));
        assert_eq!(window.votes(), votes(1, 0), "the first is too old");
        for n in 0..1000 {
            window.record(n, false, secs(34));
        }
        assert_eq!(window.votes(), votes(VOTERS, 0));
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
            (57, 7, false),
            (58, 6, true),
        ] {
            let votes = votes(failed, responded);
            assert_eq!(votes.nearly_all_failed(), opens, "{votes:?}");
        }
    }

    #[test]
    fn a_recent_response_keeps_the_circuit_closed_however_many_fail() {
        let mut window = Window::new();
        window.record(0, true, secs(10));
        for n in 1..1000 {
            window.record(n, false, secs(11));
        }
        assert!(!window.is_broken(secs(11)));
        assert!(window.is_broken(secs(12)));
    }
}
