//! A deadline that is moved often and rarely reached.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// The deadline for whatever a connection is currently waiting for. Moving it costs one read of
/// the clock: the underlying timer is left alone if it fires early enough, and is reset when it
/// fires. Creating and dropping a timer for every wait would cost a lock and an allocation each
/// time.
pub(super) struct Deadline {
    at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    /// Creates a deadline that expires `after` from now. Must be called in a Tokio runtime.
    pub(super) fn new(after: Duration) -> Self {
        let timer = Box::pin(sleep(after));
        Self {
            at: timer.deadline(),
            timer,
        }
    }

    /// Moves the deadline to `after` from now.
    pub(super) fn set(&mut self, after: Duration) {
        self.at = now()
            .checked_add(after)
            .unwrap_or_else(|| sleep(after).deadline());
        if self.timer.deadline() > self.at {
            self.timer.as_mut().reset(self.at);
        }
    }

    /// Moves the deadline to `at`. Ready if it has passed.
    pub(super) fn poll_at(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.at = at;
        if self.timer.deadline() > at {
            self.timer.as_mut().reset(at);
        }
        self.poll(cx)
    }

    /// Returns the output of `future`, or `None` if it takes longer than `limit`. The clock is
    /// read only if the future is not ready immediately.
    pub(super) async fn within<F: Future>(
        &mut self,
        limit: Duration,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut counting = false;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if !std::mem::replace(&mut counting, true) {
                self.set(limit);
            }
            self.poll(cx).map(|()| None)
        })
        .await
    }

    /// Ready once the deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.timer.deadline() >= self.at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.at);
        }
    }
}

/// The timer's own clock, which tests can pause.
#[allow(clippy::disallowed_methods)]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn expires_after(deadline: &mut Deadline) -> Duration {
        let begin = sleep(Duration::ZERO).deadline();
        poll_fn(|cx| deadline.poll(cx)).await;
        sleep(Duration::ZERO).deadline() - begin
    }

    #[tokio::test(start_paused = true)]
    async fn a_moved_deadline_expires_on_time() {
        let ms = Duration::from_millis;
        let mut deadline = Deadline::new(ms(100));
        assert_eq!(expires_after(&mut deadline).await, ms(100));
        for after in [500, 20, 20, 3000, 1] {
            deadline.set(ms(after));
            assert_eq!(expires_after(&mut deadline).await, ms(after));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_starts_when_the_future_is_first_pending() {
        let ms = Duration::from_millis;
        let mut deadline = Deadline::new(ms(100));
        for _ in 0..2 {
            let begin = sleep(Duration::ZERO).deadline();
            assert_eq!(deadline.within(ms(300), async { 7 }).await, Some(7));
            let timely = async {
                sleep(ms(250)).await;
                8
            };
            assert_eq!(deadline.within(ms(300), timely).await, Some(8));
            let endless = std::future::pending::<()>();
            assert_eq!(deadline.within(ms(300), endless).await, None);
            assert_eq!(sleep(Duration::ZERO).deadline() - begin, ms(550));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn moving_the_deadline_keeps_it_from_expiring() {
        let ms = Duration::from_millis;
        let mut deadline = Deadline::new(ms(100));
        for _ in 0..10 {
            deadline.set(ms(100));
            tokio::select! {
                biased;
                () = poll_fn(|cx| deadline.poll(cx)) => panic!("expired too early"),
                () = sleep(ms(60)) => {}
            }
        }
        assert_eq!(expires_after(&mut deadline).await, ms(40));
        deadline.set(Duration::MAX);
        let mut once = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(deadline.poll(&mut once).is_pending());
    }
}
