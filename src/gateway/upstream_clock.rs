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

/// How long no request of a caller for a path is signed again with another time after that did not
/// help.
const PAUSE: Duration = Duration::from_secs(30);

/// For how many paths that applies separately. One path that always answers 401 must not keep the
/// clock from being learnt with others, which matters most where all callers are one, namely
/// anonymous. If so many did not help, the caller's requests for any path are not signed again.
const MAX_PATHS: usize = 3;

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

/// The paths for which another time did not help a caller.
#[derive(Debug)]
struct Pause {
    /// In monotonic time.
    until: Duration,
    /// At most [`MAX_PATHS`].
    paths: Vec<u64>,
}

/// An upstream's clock as far as it is known, and the callers whom it did not help.
#[derive(Debug)]
pub struct UpstreamClock {
    /// A [`PeerTime`], or [`UNKNOWN`].
    learnt: AtomicI64,
    /// Of callers whose requests are not signed again with another time.
    pauses: Mutex<HashMap<u64, Pause>>,
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

    /// Whether another time recently did not help `caller`, for `path` or too many other ones.
    pub(super) fn is_paused(&self, caller: u64, path: u64, now: Duration) -> bool {
        let applies = |pause: &Pause| {
            now < pause.until && (pause.paths.len() >= MAX_PATHS || pause.paths.contains(&path))
        };
        self.pauses().get(&caller).is_some_and(applies)
    }

    /// Records that another time did not help `caller` for `path`.
    pub(super) fn pause(&self, caller: u64, path: u64, now: Duration) {
        let mut pauses = self.pauses();
        if pauses.len() >= MAX_PAUSES && !pauses.contains_key(&caller) {
            pauses.retain(|_, pause| now < pause.until);
            let first = pauses.iter().min_by_key(|(_, pause)| pause.until);
            if let Some(first) = first.map(|(caller, _)| *caller)
                && pauses.len() >= MAX_PAUSES
            {
                pauses.remove(&first);
            }
        }
        let new = || Pause {
            until: now.saturating_add(PAUSE),
            paths: Vec::new(),
        };
        let pause = pauses.entry(caller).or_insert_with(new);
        if pause.until <= now {
            *pause = new();
        }
        if pause.paths.len() < MAX_PATHS && !pause.paths.contains(&path) {
            pause.paths.push(path);
        }
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<u64, Pause>> {
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
        upstream.pause(1, 1, second);
        assert!(upstream.is_paused(1, 1, PAUSE));
        assert!(!upstream.is_paused(1, 1, PAUSE + second));
        assert!(!upstream.is_paused(2, 1, PAUSE));
        assert!(!upstream.is_paused(1, 2, PAUSE));
        for path in 2..=MAX_PATHS as u64 {
            upstream.pause(1, path, second * 2);
        }
        assert!(upstream.is_paused(1, 100, PAUSE), "too many paths");
        assert!(!upstream.is_paused(1, 1, PAUSE + second), "not extended");
        for caller in 0..3 * MAX_PAUSES as u64 {
            upstream.pause(caller, caller, second * 2);
        }
        assert_eq!(upstream.pauses().len(), MAX_PAUSES);
        let last = 3 * MAX_PAUSES as u64 - 1;
        assert!(upstream.is_paused(last, last, PAUSE));
    }
}
