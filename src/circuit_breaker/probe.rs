//! The probes of an open circuit: which calls are let through, and when.

use std::time::Duration;

use tokio::sync::watch;

/// The time between the first two probes. It doubles with each failure.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between two probes, unless the peer asks for more.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that delays the next probe.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);
/// How long a probe waits for a clean caller before it goes to anybody.
const PREFERENCE: Duration = Duration::from_secs(2);

/// One schedule of probes.
#[derive(Debug)]
pub(super) struct Probes {
    /// When the next one may start, in monotonic time.
    next: Duration,
    interval: Duration,
    /// Dropped when the probe in progress ends.
    running: Option<watch::Sender<()>>,
}

/// Resolves, with an error, when a probe ends.
pub(super) type ProbeEnd = watch::Receiver<()>;

impl Probes {
    /// The first probe may start at `now`.
    pub(super) fn starting(now: Duration) -> Self {
        Self {
            next: now,
            interval: FIRST_INTERVAL,
            running: None,
        }
    }

    /// The probe in progress.
    pub(super) fn running(&self) -> Option<ProbeEnd> {
        self.running.as_ref().map(watch::Sender::subscribe)
    }

    /// Whether a caller may start a probe at `now`. One that is not `clean` lets others go first.
    pub(super) fn is_due(&self, now: Duration, clean: bool) -> bool {
        let from = if clean {
            self.next
        } else {
            self.next.saturating_add(PREFERENCE)
        };
        self.running.is_none() && now >= from
    }

    pub(super) fn start(&mut self) {
        self.running = Some(watch::Sender::new(()));
    }

    /// Ends the probe in progress, which failed.
    pub(super) fn fail(&mut self, retry_after: Option<Duration>, now: Duration) {
        self.running = None;
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        self.next = now.saturating_add(self.interval.max(asked));
        self.interval = (self.interval * 2).min(LONGEST_INTERVAL);
    }

    /// The time until the next probe may start.
    pub(super) fn time_left(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_probe_at_a_time_at_growing_intervals() {
        let mut probes = Probes::starting(Duration::ZERO);
        let mut times = Vec::new();
        for now in (0..60).map(Duration::from_secs) {
            if probes.is_due(now, true) {
                probes.start();
                assert!(!probes.is_due(now, true));
                probes.fail(None, now);
                times.push(now.as_secs());
            }
        }
        assert_eq!(times, [0, 1, 3, 7, 15, 25, 35, 45, 55]);
    }

    #[test]
    fn retry_after_delays_the_next_probe_up_to_a_limit() {
        let mut probes = Probes::starting(Duration::ZERO);
        probes.start();
        probes.fail(Some(Duration::from_hours(1)), Duration::ZERO);
        assert_eq!(probes.time_left(Duration::ZERO), Duration::from_secs(30));
    }

    #[test]
    fn callers_that_are_not_clean_let_others_go_first() {
        let probes = Probes::starting(Duration::ZERO);
        assert!(!probes.is_due(Duration::from_millis(1999), false));
        assert!(probes.is_due(Duration::from_secs(2), false));
    }

    #[tokio::test]
    async fn those_who_wait_for_a_probe_wake_up_when_it_ends() {
        let mut probes = Probes::starting(Duration::ZERO);
        assert!(probes.running().is_none());
        probes.start();
        let mut end = probes.running().unwrap();
        probes.fail(None, Duration::ZERO);
        assert!(end.changed().await.is_err());
    }
}
