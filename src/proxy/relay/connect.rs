//! Opens a connection to an upstream. While one to an address of IPv6 hangs, one of IPv4 is tried beside
//! it, and the other way round (Happy Eyeballs, RFC 8305), so that a family that leads nowhere does not
//! cost the whole timeout.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::{State, Stop, internal};
use crate::gateway::route::Upstream as Target;
use crate::proxy::context::Attempts;
use crate::proxy::error::RelayError;
use crate::proxy::upstream::{Connector, Needs, Upstream};

/// How long the first connection is waited for before the second is begun (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What came of two connections.
#[derive(Debug, PartialEq, Eq)]
enum Race<T, E> {
    /// The first one's result; the second failed or was not begun.
    First(Result<T, E>),
    /// The second was established before the first.
    Second(T),
    /// Both failed; the error is the first one's.
    Neither(E),
}

impl State {
    /// Returns the connections of this worker.
    pub(super) fn connector(&self, worker: usize) -> Result<&Connector, Stop> {
        let index = worker % self.connectors.len().max(1);
        let connector = self.connectors.get(index);
        connector.ok_or_else(|| internal("there are no workers").into())
    }

    /// Connects to `address`, or to one of the other family if that takes long. Records in `attempts`
    /// what else could not be connected to. `now` is a monotonic time.
    pub(super) async fn open(
        &self,
        connector: &Connector,
        target: &Arc<Target>,
        (address, now): (SocketAddr, Duration),
        attempts: &mut Attempts,
        needs: Needs,
    ) -> Result<Upstream, RelayError> {
        let addresses = target.addresses.load_full();
        let tried = &attempts.unreachable;
        let Some(other) = self.peers.other_family(&addresses, address, tried, now) else {
            return connector.open(&self.peers, target, address, needs).await;
        };
        // Boxed, because with TLS they are large.
        let first = Box::pin(connector.open(&self.peers, target, address, needs));
        let second = Box::pin(connector.open(&self.peers, target, other, needs));
        match race(first, second).await {
            Race::First(result) => result,
            Race::Second(upstream) => {
                self.peers.mark_unreachable(address, self.clock.monotonic());
                Ok(upstream)
            }
            Race::Neither(error) => {
                self.peers.mark_unreachable(other, self.clock.monotonic());
                attempts.unreachable.push(other);
                attempts.failed_connects += 1;
                Err(error)
            }
        }
    }
}

async fn race<T, E>(
    first: impl Future<Output = Result<T, E>>,
    second: impl Future<Output = Result<T, E>>,
) -> Race<T, E> {
    let mut first = pin!(first);
    if let Ok(result) = tokio::time::timeout(ATTEMPT_DELAY, first.as_mut()).await {
        return Race::First(result);
    }
    let mut second = pin!(second);
    let (of_first, of_second) = tokio::select! {
        result = first.as_mut() => (Some(result), None),
        result = second.as_mut() => (None, Some(result)),
    };
    match (of_first, of_second) {
        (Some(Err(error)), _) => match second.await {
            Ok(connected) => Race::Second(connected),
            Err(_) => Race::Neither(error),
        },
        (Some(result), _) => Race::First(result),
        (None, Some(Ok(connected))) => Race::Second(connected),
        (None, _) => match first.await {
            Err(error) => Race::Neither(error),
            result => Race::First(result),
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep_until};

    use super::*;

    /// Ends after this many milliseconds.
    async fn after(start: Instant, ms: u64, result: Result<u8, u8>) -> Result<u8, u8> {
        sleep_until(start + Duration::from_millis(ms)).await;
        result
    }

    // tokio's paused clock, which the timeouts use, too.
    #[allow(clippy::disallowed_methods)]
    #[tokio::test(start_paused = true)]
    async fn the_second_is_tried_once_the_first_takes_long() {
        const NEVER: u64 = 60_000;
        for (first, second, expected, took) in [
            ((100, Ok(1)), (0, Ok(2)), Race::First(Ok(1)), 100),
            ((100, Err(1)), (0, Ok(2)), Race::First(Err(1)), 100),
            ((NEVER, Err(1)), (0, Ok(2)), Race::Second(2), 250),
            ((NEVER, Err(1)), (400, Ok(2)), Race::Second(2), 400),
            ((400, Ok(1)), (500, Ok(2)), Race::First(Ok(1)), 400),
            ((400, Err(1)), (500, Ok(2)), Race::Second(2), 500),
            ((400, Err(1)), (500, Err(2)), Race::Neither(1), 500),
            ((500, Ok(1)), (400, Err(2)), Race::First(Ok(1)), 500),
            ((500, Err(1)), (400, Err(2)), Race::Neither(1), 500),
        ] {
            let start = Instant::now();
            let case = (first, second);
            let first = after(start, first.0, first.1);
            let second = after(start, second.0, second.1);
            assert_eq!(race(first, second).await, expected, "{case:?}");
            assert_eq!(start.elapsed().as_millis(), took, "{case:?}");
        }
    }
}
