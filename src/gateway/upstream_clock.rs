//! The clock of an upstream, learnt from its `Date` (`docs/design/replay.md`, "Clocks").

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Now, UnixMillis};

/// Smallest clock skew that can have caused a 401. Taskcluster tolerates 15 minutes in `ts` and
/// 5 in certificates (`docs/design/taskcluster.md`). `Date` has whole seconds and may be as old
/// as a long poll, so the limit is a little below the smaller of the two.
pub(super) const MIN_SKEW: Duration = Duration::from_mins(4);

/// How long no request of a caller is signed again with another time after that did not help.
const PAUSE: Duration = Duration::from_secs(30);

/// Maximum number of callers whose pauses are remembered; the pause that ends first is dropped.
const MAX_PAUSES: usize = 1024;

/// Another party's clock: its time minus our monotonic clock, in milliseconds. As the monotonic
/// clock is never set, it stays right when the wall clock is set, by NTP or by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerTime(i64);

impl PeerTime {
    /// The clock that shows `time` at `now`.
    pub(super) fn new(time: UnixMillis, now: Now) -> Self {
        Self(time.0.saturating_sub(millis(now.monotonic)))
    }

    /// Milliseconds to add to the wall clock to get this one. 0 if they agree, because the wall
    /// clock is the more precise one.
    pub(super) fn offset(self, now: Now) -> i64 {
        let time = self.0.saturating_add(millis(now.monotonic));
        let offset = time.saturating_sub(now.wall.0);
        if offset.unsigned_abs() < millis(MIN_SKEW).unsigned_abs() {
            return 0;
        }
        offset
    }
}

/// How often a change of an upstream's clock is logged.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// An upstream's clock as far as it is known, and the callers whom it did not help.
#[derive(Debug)]
pub struct UpstreamClock {
    /// A [`PeerTime`], or [`UNKNOWN`].
    learnt: AtomicI64,
    /// Until when, in monotonic time, a caller's requests are not signed again with another time.
    pauses: Mutex<HashMap<u64, Duration>>,
    /// When a change may be logged again, in monotonic milliseconds.
    next_log: AtomicI64,
}

/// Nothing has been learnt, so the upstream's clock is taken to be the local one.
const UNKNOWN: i64 = i64::MIN;

impl Default for UpstreamClock {
    fn default() -> Self {
        Self {
            learnt: AtomicI64::new(UNKNOWN),
            pauses: Mutex::default(),
            next_log: AtomicI64::new(0),
        }
    }
}

impl UpstreamClock {
    /// Milliseconds to add to the wall clock to get the upstream's.
    pub(super) fn offset(&self, now: Now) -> i64 {
        self.learnt().map_or(0, |learnt| learnt.offset(now))
    }

    pub(super) fn learnt(&self) -> Option<PeerTime> {
        let learnt = self.learnt.load(Ordering::Relaxed);
        (learnt != UNKNOWN).then_some(PeerTime(learnt))
    }

    /// Signs every request with this clock from `now`, a monotonic time, on. Returns whether that
    /// is to be logged, which is at most once a minute.
    pub(super) fn adopt(&self, learnt: PeerTime, now: Duration) -> bool {
        self.learnt.store(learnt.0, Ordering::Relaxed);
        let now = millis(now);
        let due = |next: i64| (next <= now).then(|| now.saturating_add(millis(LOG_INTERVAL)));
        self.next_log
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due)
            .is_ok()
    }

    /// Signs with the local clock again.
    pub(super) fn forget(&self) {
        self.learnt.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Whether another time recently did not help `caller`, at a monotonic time.
    pub(super) fn is_paused(&self, caller: u64, now: Duration) -> bool {
        self.pauses().get(&caller).is_some_and(|until| now < *until)
    }

    /// Records that another time did not help `caller`.
    pub(super) fn pause(&self, caller: u64, now: Duration) {
        let mut pauses = self.pauses();
        if pauses.len() >= MAX_PAUSES && !pauses.contains_key(&caller) {
            pauses.retain(|_, until| now < *until);
            let first = pauses.iter().min_by_key(|(_, until)| **until);
            if let Some(first) = first.map(|(caller, _)| *caller)
                && pauses.len() >= MAX_PAUSES
            {
                pauses.remove(&first);
            }
        }
        pauses.insert(caller, now.saturating_add(PAUSE));
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<u64, Duration>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_learnt_clock_stays_right_when_the_wall_clock_is_set() {
        let clock = ManualClock::at(UnixMillis(12_000));
        let upstream = UpstreamClock::default();
        assert_eq!(upstream.offset(Now::read(&*clock)), 0);
        let learnt = PeerTime::new(NOW, Now::read(&*clock));
        assert!(upstream.adopt(learnt, Duration::ZERO));
        assert!(
            !upstream.adopt(learnt, LOG_INTERVAL / 2),
            "logged too often"
        );
        assert!(upstream.adopt(learnt, LOG_INTERVAL));
        assert_eq!(upstream.offset(Now::read(&*clock)), NOW.0 - 12_000);
        clock.advance(HOUR);
        assert_eq!(upstream.offset(Now::read(&*clock)), NOW.0 - 12_000);
        clock.set_wall(NOW.plus(HOUR).plus(Duration::from_secs(2)));
        assert_eq!(
            upstream.offset(Now::read(&*clock)),
            0,
            "the wall clock is right now"
        );
        clock.set_wall(NOW.plus(HOUR * 3));
        assert_eq!(upstream.offset(Now::read(&*clock)), -7_200_000);
        upstream.forget();
        assert_eq!(upstream.offset(Now::read(&*clock)), 0);
    }

    #[test]
    fn pauses_end_and_are_bounded() {
        let upstream = UpstreamClock::default();
        let second = Duration::from_secs(1);
        upstream.pause(1, second);
        assert!(upstream.is_paused(1, PAUSE));
        assert!(!upstream.is_paused(1, PAUSE + second));
        assert!(!upstream.is_paused(2, PAUSE));
        for caller in 0..3 * MAX_PAUSES as u64 {
            upstream.pause(caller, second * 2);
        }
        assert_eq!(upstream.pauses().len(), MAX_PAUSES);
        assert!(upstream.is_paused(3 * MAX_PAUSES as u64 - 1, PAUSE));
    }
}
