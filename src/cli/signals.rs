//! The signals that stop and reload hawkgate.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use hawkgate::clock::SharedClock;

/// Signals that arrive within this time of the first one belong to the same request to stop. coreutils'
/// `timeout` sends its signal to the program and then to the whole process group; a terminal sends
/// Ctrl-C to the group, and a wrapper script in it may forward its own.
const SAME_REQUEST: Duration = Duration::from_millis(250);

/// A signal that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// SIGTERM or SIGINT, by name. The second one that is returned means that the user does not want to
    /// wait any longer.
    Stop(&'static str),
    /// SIGHUP.
    Reload,
}

/// The handled signals. They must be registered before anything starts, so that an early signal does
/// not kill the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    requests: StopRequests,
    clock: SharedClock,
}

impl Signals {
    /// # Errors
    /// If the handlers cannot be installed.
    pub(super) fn new(clock: SharedClock) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            requests: StopRequests::default(),
            clock,
        })
    }

    /// Waits for a signal. Signals to stop that repeat an earlier one are left out.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => return Received::Reload,
            };
            if self.requests.is_new(self.clock.monotonic()) {
                return Received::Stop(name);
            }
            tracing::debug!(signal = name, "ignoring a repeated signal");
        }
    }

    /// Waits for a signal to stop, and returns its name.
    pub(super) async fn stop(&mut self) -> &'static str {
        loop {
            if let Received::Stop(name) = self.next().await {
                return name;
            }
        }
    }
}

/// Which signals to stop are requests of their own.
#[derive(Debug, Default)]
struct StopRequests {
    /// When the last request was made (monotonic time).
    last: Option<Duration>,
}

impl StopRequests {
    /// Whether a signal that arrives at `now` (monotonic time) is a new request, and not part of the last
    /// one.
    fn is_new(&mut self, now: Duration) -> bool {
        let repeats = |last: Duration| now.saturating_sub(last) < SAME_REQUEST;
        if self.last.is_some_and(repeats) {
            return false;
        }
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_250_milliseconds_of_the_first_are_one_request() {
        let new = |times: &[u64]| {
            let mut requests = StopRequests::default();
            times
                .iter()
                .map(|ms| requests.is_new(Duration::from_millis(*ms)))
                .collect::<Vec<_>>()
        };
        assert_eq!(new(&[0, 0, 1, 249]), [true, false, false, false]);
        assert_eq!(new(&[5, 255]), [true, true]);
        // The window does not grow with each signal.
        assert_eq!(new(&[0, 200, 249, 250]), [true, false, false, true]);
    }
}
