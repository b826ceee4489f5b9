//! The minimum rate at which a caller sends a request body (`limits.min_body_rate`).
//!
//! A timeout between two reads alone would let a caller hold a request open for as long as it
//! likes by sending one byte at a time. As in Kestrel (`MinRequestBodyDataRate`), the average over
//! the whole body counts, after a grace period. Only time in which hawkgate waits for the caller
//! counts, so a slow upstream is never held against the caller.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::deadline::now;

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

    /// Returns the output of `read`, unless it takes longer than `stall` or the rate allows. The
    /// time counts even if the returned future is dropped before it is ready.
    pub(super) async fn within<F: Future>(
        &mut self,
        stall: Duration,
        read: F,
    ) -> Result<F::Output, TooSlow> {
        let left = self.left();
        let limit = left.map_or(stall, |left| left.min(stall));
        let mut read = pin!(read);
        let mut timer = pin!(sleep(limit));
        let mut waiting = Waiting {
            meter: self,
            since: None,
        };
        poll_fn(|cx| {
            if let Poll::Ready(output) = read.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            waiting.since.get_or_insert_with(now);
            let timer = timer.as_mut().poll(cx);
            timer.map(|()| {
                Err(if limit < stall {
                    TooSlow::BelowMinRate
                } else {
                    TooSlow::Stalled
                })
            })
        })
        .await
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

/// Adds the time since the caller had to be waited for when dropped.
struct Waiting<'a> {
    meter: &'a mut RateMeter,
    since: Option<Instant>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.since {
            self.meter.waited += now().saturating_duration_since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const SECOND: Duration = Duration::from_secs(1);
    const STALL: Duration = Duration::from_mins(1);

    fn meter(bytes_per_second: u64) -> RateMeter {
        RateMeter::new(MinRate {
            bytes_per_second,
            grace: 5 * SECOND,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_a_second_ends_after_the_grace_period() {
        let (begin, mut meter) = (now(), meter(240));
        let slow = loop {
            match meter.within(STALL, sleep(SECOND)).await {
                Ok(()) => meter.received(1),
                Err(slow) => break slow,
            }
        };
        assert_eq!(slow, TooSlow::BelowMinRate);
        // Timers have a resolution of a millisecond.
        assert_eq!((now() - begin).as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_at_the_rate_is_never_too_slow() {
        let mut meter = meter(240);
        for _ in 0..10_000 {
            meter.within(STALL, sleep(SECOND / 10)).await.unwrap();
            meter.received(25);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_average_counts_and_not_single_pauses() {
        let mut meter = meter(100);
        meter.received(2000);
        meter.within(STALL, sleep(15 * SECOND)).await.unwrap();
        let slow = meter.within(STALL, pending::<()>()).await.unwrap_err();
        assert_eq!(slow, TooSlow::BelowMinRate);
        assert!(meter.waited >= 20 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_minimum_only_stalls_end_a_body() {
        let mut meter = meter(0);
        for _ in 0..1000 {
            meter.within(STALL, sleep(59 * SECOND)).await.unwrap();
            meter.received(1);
        }
        let slow = meter.within(STALL, pending::<()>()).await.unwrap_err();
        assert_eq!(slow, TooSlow::Stalled);
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_spent_waiting_for_the_caller_counts() {
        let mut meter = meter(240);
        for _ in 0..100 {
            // For example, the upstream does not take the body.
            sleep(SECOND).await;
            meter.within(STALL, std::future::ready(())).await.unwrap();
        }
        assert_eq!(meter.waited, Duration::ZERO);
        // Reads that are cancelled because the upstream responds, say, do count.
        for _ in 0..4 {
            let read = meter.within(STALL, pending::<()>());
            assert!(tokio::time::timeout(SECOND, read).await.is_err());
        }
        assert!(meter.waited >= 4 * SECOND);
        let slow = meter.within(STALL, pending::<()>()).await.unwrap_err();
        assert_eq!(slow, TooSlow::BelowMinRate);
    }
}
