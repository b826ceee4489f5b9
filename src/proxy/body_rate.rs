//! The minimum rate at which a caller sends a request body (`limits.min_body_rate`).
//!
//! A timeout between two reads alone would let a caller hold a request open for as long as it
//! likes by sending one byte at a time. As in Kestrel (`MinRequestBodyDataRate`), the average over
//! the whole body counts, after a grace period. Only time in which hawkgate waits for the caller
//! counts, so a slow upstream is never held against the caller.

use std::time::Duration;

/// The minimum rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes per second; no minimum if 0.
    pub bytes_per_second: u64,
    /// The time that the caller may take before the rate matters.
    pub grace: Duration,
}

/// The caller sent nothing for too long, or too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooSlow {
    /// Nothing within `limits.body_timeout`.
    Stalled,
    /// Less than `limits.min_body_rate` on average.
    BelowMinRate,
}

impl TooSlow {
    /// Describes the cause for the operator.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::Stalled => "nothing arrived within limits.body_timeout",
            Self::BelowMinRate => "slower than limits.min_body_rate",
        }
    }
}

/// Measures one body.
#[derive(Debug)]
pub(super) struct RateMeter {
    min: MinRate,
    waited: Duration,
    received: u64,
}

impl RateMeter {
    pub(super) fn new(min: MinRate) -> Self {
        Self {
            min,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// Counts a piece of the body.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// How long the next piece may take, and what a caller is that takes longer.
    pub(super) fn limit(&self, stall: Duration) -> (Duration, TooSlow) {
        match self.left() {
            Some(left) if left < stall => (left, TooSlow::BelowMinRate),
            _ => (stall, TooSlow::Stalled),
        }
    }

    /// Counts time in which the caller was waited for.
    pub(super) fn add_wait(&mut self, time: Duration) {
        self.waited += time;
    }

    /// How much longer the caller may take for the next piece; `None` if there is no minimum.
    fn left(&self) -> Option<Duration> {
        let rate = u32::try_from(self.min.bytes_per_second).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(self.received).checked_div(rate)?;
        let allowed = self.min.grace.max(earned);
        Some(allowed.saturating_sub(self.waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const STALL: Duration = Duration::from_mins(1);

    fn meter(bytes_per_second: u64) -> RateMeter {
        RateMeter::new(MinRate {
            bytes_per_second,
            grace: 5 * SECOND,
        })
    }

    /// Waits for `time`, as far as the caller may take that long.
    fn wait(meter: &mut RateMeter, time: Duration) -> Result<(), TooSlow> {
        let (limit, slow) = meter.limit(STALL);
        meter.add_wait(time.min(limit));
        if time < limit { Ok(()) } else { Err(slow) }
    }

    #[test]
    fn one_byte_a_second_ends_after_the_grace_period() {
        let mut meter = meter(240);
        let slow = loop {
            match wait(&mut meter, SECOND) {
                Ok(()) => meter.received(1),
                Err(slow) => break slow,
            }
        };
        assert_eq!(slow, TooSlow::BelowMinRate);
        assert_eq!(meter.waited, 5 * SECOND);
    }

    #[test]
    fn a_caller_at_the_rate_is_never_too_slow() {
        let mut meter = meter(240);
        for _ in 0..10_000 {
            wait(&mut meter, SECOND / 10).unwrap();
            meter.received(25);
        }
    }

    #[test]
    fn the_average_counts_and_not_single_pauses() {
        let mut meter = meter(100);
        meter.received(2000);
        wait(&mut meter, 15 * SECOND).unwrap();
        assert_eq!(wait(&mut meter, STALL), Err(TooSlow::BelowMinRate));
        assert_eq!(meter.waited, 20 * SECOND);
    }

    #[test]
    fn without_a_minimum_only_stalls_end_a_body() {
        let mut meter = meter(0);
        for _ in 0..1000 {
            wait(&mut meter, 59 * SECOND).unwrap();
            meter.received(1);
        }
        assert_eq!(wait(&mut meter, STALL), Err(TooSlow::Stalled));
    }

    #[test]
    fn only_time_spent_waiting_for_the_caller_counts() {
        let mut meter = meter(240);
        assert_eq!(meter.limit(STALL), (5 * SECOND, TooSlow::BelowMinRate));
        meter.add_wait(4 * SECOND);
        assert_eq!(meter.limit(STALL), (SECOND, TooSlow::BelowMinRate));
    }
}
