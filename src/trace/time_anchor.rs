//! Conversion of monotonic times to wall-clock times.

use std::time::Duration;

use crate::clock::UnixMillis;

/// One instant on both the wall clock and the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeAnchor {
    pub(super) wall: UnixMillis,
    pub(super) monotonic: Duration,
}

impl TimeAnchor {
    /// Converts a monotonic time to nanoseconds since the Unix epoch.
    pub(super) fn nanos(self, monotonic: Duration) -> u64 {
        let wall = i128::from(self.wall.0) * 1_000_000;
        let nanos = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
        let at = wall.saturating_add(nanos(monotonic).saturating_sub(nanos(self.monotonic)));
        u64::try_from(at).unwrap_or(0)
    }
}
