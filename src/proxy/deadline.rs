//! A deadline that moves on with every step and is hardly ever met.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// One connection's deadline, for whatever it waits for at the time. Setting it costs a look
/// at the clock: the timer underneath stays where it is while it is early enough, and is
/// moved when it goes off. A timer made and dropped for every wait costs a lock and an
/// allocation each time.
pub(super) struct Deadline {
    at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    /// `after` from now. Needs a Tokio runtime.
    pub(super) fn new(after: Duration) -> Self {
        let timer = Box::pin(sleep(after));
        Self {
            at: timer.deadline(),
            timer,
        }
    }

    /// From now on it is `after` from now.
    pub(super) fn set(&mut self, after: Duration) {
        self.at = now()
            .checked_add(after)
            .unwrap_or_else(|| sleep(after).deadline());
        if self.timer.deadline() > self.at {
            self.timer.as_mut().reset(self.at);
        }
    }

    /// What `future` comes to, if it takes no longer than `limit`. The clock is looked at only if
    /// there is something to wait for.
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

    /// Ready once it is met.
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

/// The timer's own clock, which tests stop.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn met(deadline: &mut Deadline) -> Duration {
        let begin = sleep(Duration::ZERO).deadline();
        poll_fn(|cx| deadline.poll(cx)).await;
        sleep(Duration::ZERO).deadline() - begin
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_met_when_it_says_wherever_the_timer_was() {
        let ms = Duration::from_millis;
        let mut deadline = Deadline::new(ms(100));
        assert_eq!(met(&mut deadline).await, ms(100));
        for after in [500, 20, 20, 3000, 1] {
            deadline.set(ms(after));
            assert_eq!(met(&mut deadline).await, ms(after));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_has_its_limit_from_when_it_begins() {
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
    async fn moving_on_keeps_it_from_being_met() {
        let ms = Duration::from_millis;
        let mut deadline = Deadline::new(ms(100));
        for _ in 0..10 {
            deadline.set(ms(100));
            tokio::select! {
                biased;
                () = poll_fn(|cx| deadline.poll(cx)) => panic!("met too early"),
                () = sleep(ms(60)) => {}
            }
        }
        assert_eq!(met(&mut deadline).await, ms(40));
        deadline.set(Duration::MAX);
        let mut once = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(deadline.poll(&mut once).is_pending());
    }
}
