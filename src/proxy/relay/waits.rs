//! Everything that one request waits for at the same time, with one timer.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::deadline::{self, Deadline};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The upstream sends something.
    UpstreamRead,
    /// The upstream takes something.
    UpstreamWrite,
    /// The caller sends something.
    CallerRead,
    /// The caller takes something.
    CallerWrite,
    /// The body of a 401 decides what becomes of it.
    Look,
    /// The end of a tunnel that transfers nothing.
    Idle,
    /// The end of a tunnel, in any case.
    Life,
}

const KINDS: [Wait; 7] = [
    Wait::UpstreamRead,
    Wait::UpstreamWrite,
    Wait::CallerRead,
    Wait::CallerWrite,
    Wait::Look,
    Wait::Idle,
    Wait::Life,
];

/// The time at which each wait ends. The clock is read at most once per poll, and only if a wait
/// begins or ends that has to be measured.
#[derive(Default)]
pub(super) struct Waits {
    until: [Option<Instant>; KINDS.len()],
    now: Option<Instant>,
}

impl Waits {
    /// Must be called at the beginning of each poll.
    pub(super) fn begin_poll(&mut self) {
        self.now = None;
    }

    /// Returns the time of this poll.
    pub(super) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(deadline::now)
    }

    /// Begins a wait of at most `limit`, unless it has begun already.
    pub(super) fn begin(&mut self, wait: Wait, limit: Duration) {
        if self.until[wait as usize].is_none() {
            let now = self.now();
            self.until[wait as usize] = now.checked_add(limit);
        }
    }

    /// Ends a wait.
    pub(super) fn end(&mut self, wait: Wait) {
        self.until[wait as usize] = None;
    }

    /// Ready with the wait that has taken too long.
    pub(super) fn poll(&mut self, deadline: &mut Deadline, cx: &mut Context<'_>) -> Poll<Wait> {
        let next = KINDS.iter().zip(&self.until);
        let next = next.filter_map(|(wait, until)| Some((*wait, (*until)?)));
        match next.min_by_key(|(_, until)| *until) {
            Some((wait, until)) => deadline.poll_at(until, cx).map(|()| wait),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_shortest_wait_ends_first() {
        let ms = Duration::from_millis;
        let mut deadline = Deadline::new(ms(1));
        let mut waits = Waits::default();
        let begin = waits.now();
        waits.begin(Wait::UpstreamRead, ms(300));
        waits.begin(Wait::CallerRead, ms(200));
        waits.begin(Wait::CallerRead, ms(5000));
        waits.begin(Wait::Look, ms(100));
        waits.end(Wait::Look);
        for (expected, after) in [(Wait::CallerRead, 200), (Wait::UpstreamRead, 300)] {
            let ended = poll_fn(|cx| waits.poll(&mut deadline, cx)).await;
            waits.begin_poll();
            assert_eq!((ended, waits.now() - begin), (expected, ms(after)));
            waits.end(ended);
        }
        let mut once = Context::from_waker(std::task::Waker::noop());
        assert!(waits.poll(&mut deadline, &mut once).is_pending());
    }
}
