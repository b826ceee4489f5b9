//! Time is passed in, so that expiry, clock skew, cooldowns and jitter can be tested without
//! waiting. `clippy.toml` bans ambient time; only this file reads it.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A wall-clock instant: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

/// 1 January of the year in which this version was released. No machine that runs it can truthfully
/// say an earlier time. A constant instead of the time of the build, which would make two builds
/// of the same source differ. Moved forward with the first release of a year.
pub const RELEASED: UnixMillis = UnixMillis::from_secs(1_767_225_600);

/// How long after [`RELEASED`] a time is believed.
const CREDIBLE: Duration = Duration::from_hours(24 * 365 * 50);

impl UnixMillis {
    /// Whether a clock that is set can show this time: not before [`RELEASED`] (a machine without a
    /// clock battery starts in 1970), nor more than 50 years after it.
    pub fn is_credible(self) -> bool {
        RELEASED <= self && self < RELEASED.plus(CREDIBLE)
    }

    /// What is wrong with a clock that shows this time, and what follows from it, for operators;
    /// `None` if it is credible.
    pub fn clock_problem(self) -> Option<String> {
        if self.is_credible() {
            return None;
        }
        let (time, released) = (self.to_rfc3339(), RELEASED.to_rfc3339());
        Some(format!(
            "this machine's clock says {time}, which cannot be right (this version was released \
             after {released}): set it, for example with NTP. Until then bearer tokens are refused \
             with 503, and TLS connections fail because certificates seem not to be valid"
        ))
    }

    /// From whole seconds since the epoch, saturating.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Parses an HTTP date in any of its three formats (RFC 9110 §5.6.7). `None` for anything
    /// else, and for dates before 1970.
    pub fn from_http_date(text: &str) -> Option<Self> {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(Self(millis(date.duration_since(UNIX_EPOCH).ok()?)))
    }

    /// `self` plus `duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// `self` minus `duration`, saturating.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `self` to `later`; zero if `later` is not later.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// `self` shifted by a signed number of milliseconds, such as a clock offset, saturating.
    #[must_use]
    pub const fn offset_by(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// RFC 3339 in UTC with milliseconds, as Taskcluster formats its times
    /// (`2026-11-20T19:10:09.000Z`).
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0)
            .map_or_else(|_| String::from("out-of-range"), |t| format!("{t:.3}"))
    }

    /// Appends [`Self::to_rfc3339`] to `out`. Each thread caches the last second that it
    /// formatted, because a busy log has thousands of lines within one.
    pub fn write_rfc3339(self, out: &mut Vec<u8>) {
        thread_local! {
            static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
        }
        LAST.with_borrow_mut(|(second, text)| {
            if *second != self.as_secs() {
                *text = self.to_rfc3339();
                *second = self.as_secs();
            }
            // All but the milliseconds and the Z.
            match text.len().checked_sub(4).filter(|_| text.ends_with('Z')) {
                Some(end) => {
                    let millis = self.0.rem_euclid(1000);
                    out.extend_from_slice(text.as_bytes().get(..end).unwrap_or_default());
                    let digit = |by: i64| b'0' + u8::try_from(millis / by % 10).unwrap_or(0);
                    out.extend_from_slice(&[digit(100), digit(10), digit(1), b'Z']);
                }
                None => out.extend_from_slice(text.as_bytes()),
            }
        });
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A source of time: the wall clock for times that other parties state (`exp`, certificates,
/// `Date`), the monotonic clock for our own intervals.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall-clock time. May jump.
    fn now(&self) -> UnixMillis;
    /// The time since an arbitrary fixed start. Never goes backwards.
    fn monotonic(&self) -> Duration;
}

/// Both clocks, read at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// [`Clock::now`].
    pub wall: UnixMillis,
    /// [`Clock::monotonic`].
    pub monotonic: Duration,
}

impl Now {
    /// Reads both clocks.
    pub fn read(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.now(),
            monotonic: clock.monotonic(),
        }
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of the machine.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[allow(clippy::disallowed_methods)]
    pub fn shared() -> SharedClock {
        Arc::new(Self {
            start: Instant::now(),
        })
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> UnixMillis {
        // Before 1970 only if the clock is wrong. Reading that as 1970 fails safe: no token
        // has been issued yet.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(millis(since))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when advanced, for tests and the demo's checks.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicI64,
    monotonic: AtomicU64,
}

impl ManualClock {
    /// A clock that stays at `now` until it is moved.
    pub fn at(now: UnixMillis) -> Arc<Self> {
        Arc::new(Self {
            wall: AtomicI64::new(now.0),
            monotonic: AtomicU64::new(0),
        })
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.wall.fetch_add(millis(by), Ordering::SeqCst);
        self.monotonic.fetch_add(
            u64::try_from(by.as_millis()).unwrap_or(u64::MAX),
            Ordering::SeqCst,
        );
    }

    /// Sets the wall clock alone, as NTP or an operator would.
    pub fn set_wall(&self, now: UnixMillis) {
        self.wall.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_as_by_taskcluster() {
        assert_eq!(
            UnixMillis(1_795_201_809_007).to_rfc3339(),
            "2026-11-20T19:10:09.007Z"
        );
        assert_eq!(
            UnixMillis::from_secs(0).to_rfc3339(),
            "1970-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn http_dates_are_parsed() {
        let date = "Fri, 20 Nov 2026 19:10:09 GMT";
        assert_eq!(
            UnixMillis::from_http_date(date),
            Some(UnixMillis::from_secs(1_795_201_809))
        );
        assert_eq!(UnixMillis::from_http_date("soon"), None);
    }

    #[test]
    fn a_manual_clock_moves_only_when_advanced() {
        let clock = ManualClock::at(UnixMillis::from_secs(100));
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), UnixMillis::from_secs(105));
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
        clock.set_wall(UnixMillis::from_secs(1));
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
    }

    #[test]
    fn the_time_of_an_unset_clock_is_not_credible() {
        let year = |year: i64| UnixMillis::from_secs((year - 1970) * 365 * 24 * 3600);
        assert_eq!(RELEASED.to_rfc3339(), "2026-01-01T00:00:00.000Z");
        for (time, credible) in [
            (year(1970), false),
            (year(1996), false),
            (RELEASED.minus(Duration::from_secs(1)), false),
            (RELEASED, true),
            (year(2060), true),
            (year(2100), false),
            (UnixMillis(i64::MAX), false),
        ] {
            assert_eq!(time.is_credible(), credible, "{}", time.to_rfc3339());
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(
            UnixMillis(i64::MAX).plus(Duration::MAX),
            UnixMillis(i64::MAX)
        );
        assert_eq!(UnixMillis(5).until(UnixMillis(3)), Duration::ZERO);
    }

    #[test]
    fn write_rfc3339_agrees_with_to_rfc3339() {
        let seconds = [
            0,
            1,
            1_795_201_809,
            -1,
            -62_135_596_800,
            i64::MAX / 1000 - 1,
        ];
        for second in seconds {
            for millis in [0, 7, 42, 999] {
                let time = UnixMillis(second * 1000 + millis);
                let mut written = b"at ".to_vec();
                time.write_rfc3339(&mut written);
                let expected = format!("at {}", time.to_rfc3339());
                assert_eq!(String::from_utf8(written).unwrap(), expected);
            }
        }
    }
}
