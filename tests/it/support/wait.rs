//! Waiting with a deadline. [`until`] and [`until_some`] are the only places in the tests that
//! sleep (`hygiene.rs` checks it): everything else waits for the event itself.

use std::time::Duration;

/// A test that waits longer than this fails. Passing tests come nowhere near it, even on a
/// loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// The pause between two polls: short compared with the events that tests wait for, long compared
/// with the cost of a poll.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Fails the test when `future` does not complete before the deadline. `what` completes the
/// sentence "timed out waiting for …".
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
}

/// Polls `condition` until it is true, for conditions that cannot be awaited.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    until_some(what, async || condition().await.then_some(())).await;
}

/// Polls until there is a value, and returns it.
pub(crate) async fn until_some<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let polling = async {
        loop {
            if let Some(value) = poll().await {
                return value;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    within(what, polling).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn until_polls_until_the_condition_holds() {
        let mut polls = 0;
        until("the third poll", async || {
            polls += 1;
            polls == 3
        })
        .await;
        assert_eq!(polls, 3);
        assert_eq!(until_some("a value", async || Some(7)).await, 7);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "timed out waiting for something impossible")]
    async fn until_fails_at_the_deadline() {
        until("something impossible", async || false).await;
    }
}
