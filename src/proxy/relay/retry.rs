//! The address of each attempt, and whether another attempt follows a failed one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::body::RequestBody;
use super::{State, Stop, internal};
use crate::gateway::Replayable;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::route::Upstream;
use crate::proxy::context::{Attempts, Context};
use crate::proxy::error::{RelayError, Retry};

/// Maximum number of addresses tried for a request, before and again after its upstream's name
/// has been looked up.
const MAX_CONNECTS: usize = 3;

/// Maximum number of dead pooled connections tolerated for a request.
const MAX_STALE: usize = 3;

impl State {
    /// Chooses the address for the next attempt, which begins at `now`, a monotonic time. If no
    /// address is left, waits for the upstream's name to be looked up again, once for a request.
    pub(super) async fn choose_address(
        &self,
        context: &mut Context,
        now: Duration,
    ) -> Result<(Arc<Upstream>, SocketAddr), Stop> {
        let Some(admission) = &context.admission else {
            return Err(internal("the request was not admitted").into());
        };
        let upstream = Arc::clone(&admission.route.upstream);
        let attempts = &mut context.attempts;
        let mut chosen = self.next_address(&upstream, attempts, now);
        if chosen.is_none() && !attempts.looked_up {
            // Boxed, because only requests that cannot be forwarded otherwise get here.
            Box::pin(look_up_again(&upstream, attempts, now)).await;
            chosen = self.next_address(&upstream, attempts, now);
        }
        if let Some(address) = chosen {
            return Ok((upstream, address));
        }
        let rejection = attempts.connect_failure.take().unwrap_or_else(|| {
            let cause = format!("{} has not been resolved", upstream.next_hop().0);
            Rejection::from(Reason::UpstreamUnreachable).with_cause(cause)
        });
        Err(rejection.into())
    }

    /// Returns the next address to try, unless all have failed or [`MAX_CONNECTS`] are reached.
    fn next_address(
        &self,
        upstream: &Upstream,
        attempts: &mut Attempts,
        now: Duration,
    ) -> Option<SocketAddr> {
        if attempts.failed_connects >= MAX_CONNECTS {
            return None;
        }
        let addresses = upstream.addresses.load();
        let start = match &addresses[..] {
            // Avoids a contended counter when there is no choice.
            [_] => 0,
            _ => *attempts
                .start_index
                .get_or_insert_with(|| self.peers.next_start()),
        };
        self.peers
            .choose(&addresses, start, &attempts.unreachable, now)
    }

    /// Handles a failure to connect to `address`. Nothing has been sent yet, so any request may be
    /// retried with the next address, or with those that the upstream's name has by now.
    pub(super) fn after_failed_connect(
        &self,
        upstream: &Upstream,
        address: SocketAddr,
        attempts: &mut Attempts,
        error: RelayError,
    ) -> Stop {
        let now = self.clock.monotonic();
        attempts.failed_connects += 1;
        self.peers.mark_unreachable(address, now);
        attempts.unreachable.push(address);
        // The upstream may have moved.
        upstream.addresses.request_lookup(now);
        let can_look_up = upstream.addresses.are_resolvable() && !attempts.looked_up;
        let addresses = upstream.addresses.load();
        let untried = addresses.iter().any(|a| !attempts.unreachable.contains(a));
        if can_look_up || (untried && attempts.failed_connects < MAX_CONNECTS) {
            attempts.connect_failure = error.to_rejection();
            return Stop::Again;
        }
        Stop::Fail(error)
    }
}

/// Looks the upstream's name up again. From then on the request only tries addresses that are
/// new.
async fn look_up_again(upstream: &Upstream, attempts: &mut Attempts, now: Duration) {
    attempts.looked_up = true;
    attempts.failed_connects = 0;
    let before = upstream.addresses.load_full();
    attempts.unreachable.extend(before.iter());
    upstream.addresses.look_up_again(now).await;
}

/// Decides whether another attempt follows one that failed on a connection, which may have been
/// `reused`. `answered` says whether a final response head was sent to the caller.
pub(super) fn after_failed_attempt(
    method: &Method,
    answered: bool,
    body: &RequestBody,
    attempts: &mut Attempts,
    error: RelayError,
    reused: bool,
) -> Stop {
    let may_repeat = match error.retry {
        Retry::Never => false,
        Retry::IfReused => reused && method.is_idempotent(),
        Retry::Unprocessed => true,
        Retry::WithHttp1 => !std::mem::replace(&mut attempts.http1, true),
    };
    let whole = body.replayable() == Replayable::Yes;
    if !may_repeat || !whole || answered || attempts.stale >= MAX_STALE {
        return Stop::Fail(error);
    }
    attempts.stale += 1;
    tracing::debug!(cause = error.describe(), "trying another connection");
    Stop::Again
}
