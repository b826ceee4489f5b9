//! Sending a request again after its upstream failed (`docs/design/replay.md`, "Retries"): when, and
//! how often over all requests of a route.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::rate_limit::client_network;
use crate::circuit_breaker::{Jitter, LONGEST_RETRY_AFTER};
use crate::label::labels;

labels! {
    /// The failure after which a request was sent again.
    RetryReason {
        /// The upstream could not be connected to, or its name not be resolved.
        Connect = "connect_failed",
        /// The connection was closed or reset before an answer.
        Connection = "connection_lost",
        /// The upstream did not answer, or take the request, in time.
        Timeout = "timeout",
        /// The upstream answered with one of the policy's statuses.
        Status = "status",
    }
}

/// The delay before the first retry of a request. It doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest delay if the upstream sends no `Retry-After`.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// How many requests of a route may wait for a retry at a time. They stay in flight, and must not
/// take the places of requests to other upstreams.
const MAX_WAITING: usize = 512;
/// How many of them one client address may have.
const MAX_WAITING_PER_ADDRESS: usize = MAX_WAITING / 2;
/// How many retries a route may make in each second, on average, so that they do not keep down an
/// upstream that is coming up.
const RETRIES_PER_SECOND: f64 = 10.0;
/// How many it may make at once after a pause.
const BURST: f64 = 200.0;
/// How many of them are left to client addresses of which no other request waits, so that one whose
/// requests keep failing does not use up the retries of all others.
const RESERVED: f64 = BURST / 2.0;

/// The settings of a route's `retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long after its arrival a request is sent for the last time.
    pub max_elapsed: Duration,
    /// The upstream's statuses after which an idempotent request is sent again.
    pub statuses: Vec<u16>,
}

/// The retries of one route. Clones share all state.
#[derive(Clone, Debug)]
pub struct UpstreamRetry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    policy: RetryPolicy,
    jitter: Jitter,
    /// Locked only after failures.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many retries may be made now, as of `refilled`.
    tokens: f64,
    /// A monotonic time.
    refilled: Duration,
    waiting: usize,
    by_address: HashMap<Option<IpAddr>, usize>,
}

/// The place of a request that waits for its retry; dropping it leaves the place.
#[derive(Debug)]
pub struct RetryPlace {
    retries: Arc<Shared>,
    address: Option<IpAddr>,
}

/// How often a request was sent again, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryCounts([u32; RetryReason::ALL.len()]);

impl RetryCounts {
    /// Counts a retry.
    pub fn record(&mut self, reason: RetryReason) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// All retries.
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// The retries after each kind of failure.
    pub fn iter(&self) -> impl Iterator<Item = (RetryReason, u32)> {
        RetryReason::ALL.iter().copied().zip(self.0)
    }
}

impl UpstreamRetry {
    /// Creates the retries of a route.
    pub fn new(policy: RetryPolicy) -> Self {
        Self::with_jitter(policy, Jitter::Random)
    }

    /// Like [`UpstreamRetry::new`], with this jitter.
    pub fn with_jitter(policy: RetryPolicy, jitter: Jitter) -> Self {
        Self(Arc::new(Shared {
            policy,
            jitter,
            state: Mutex::new(State {
                tokens: BURST,
                refilled: Duration::ZERO,
                waiting: 0,
                by_address: HashMap::new(),
            }),
        }))
    }

    /// Whether a request is sent again after this status of the upstream.
    pub fn covers(&self, status: u16) -> bool {
        self.0.policy.statuses.contains(&status)
    }

    /// How long to wait before the retry of a request that arrived `elapsed` ago and has been sent
    /// again `before` times; `None` if that would be too late. `retry_after` is what the upstream
    /// asks for: one that asks for more than [`LONGEST_RETRY_AFTER`] is left to the caller.
    pub fn delay(
        &self,
        before: u32,
        elapsed: Duration,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        let full = FIRST_DELAY
            .saturating_mul(1 << before.min(16))
            .min(LONGEST_DELAY);
        let jittered = full.saturating_sub((full / 2).mul_f64(self.0.jitter.share()));
        let asked = retry_after.unwrap_or_default();
        let delay = jittered.max(asked);
        let in_time = elapsed.saturating_add(delay) <= self.0.policy.max_elapsed;
        (asked <= LONGEST_RETRY_AFTER && in_time).then_some(delay)
    }

    /// Takes a place for a retry of a request from `client`, at the monotonic time `now`. `None` if
    /// there are too many at a time.
    pub fn take_place(&self, client: Option<IpAddr>, now: Duration) -> Option<RetryPlace> {
        let mut state = self.0.state();
        let address = client.map(client_network);
        state.refill(now);
        let own = state.by_address.get(&address).copied().unwrap_or_default();
        let reserved = if own == 0 { 0.0 } else { RESERVED };
        if state.tokens < reserved + 1.0
            || state.waiting >= MAX_WAITING
            || own >= MAX_WAITING_PER_ADDRESS
        {
            return None;
        }
        state.tokens -= 1.0;
        state.waiting += 1;
        state.by_address.insert(address, own + 1);
        drop(state);
        Some(RetryPlace {
            retries: Arc::clone(&self.0),
            address,
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RetryPlace {
    fn drop(&mut self) {
        let mut state = self.retries.state();
        state.waiting = state.waiting.saturating_sub(1);
        match state.by_address.get_mut(&self.address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                state.by_address.remove(&self.address);
            }
        }
    }
}

impl State {
    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.refilled);
        self.tokens = (self.tokens + passed.as_secs_f64() * RETRIES_PER_SECOND).min(BURST);
        self.refilled = self.refilled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn retrying() -> UpstreamRetry {
        let policy = RetryPolicy {
            max_elapsed: Duration::from_mins(15),
            statuses: vec![503],
        };
        UpstreamRetry::with_jitter(policy, Jitter::Fixed(0.0))
    }

    #[test]
    fn delays_double_and_end_in_time() {
        let retry = retrying();
        let delays: Vec<_> = (0..9)
            .map(|n| retry.delay(n, SECOND, None).unwrap().as_millis())
            .collect();
        assert_eq!(
            delays,
            [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
        assert!(retry.delay(u32::MAX, SECOND, None).is_some());
        let late = Duration::from_secs(15 * 60 - 29);
        assert_eq!(retry.delay(9, late, None), None);
    }

    #[test]
    fn retry_after_is_honoured_within_limits() {
        let retry = retrying();
        let asked = |seconds| retry.delay(0, SECOND, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(0), Some(Duration::from_millis(500)));
        assert_eq!(asked(120), Some(Duration::from_mins(2)));
        assert_eq!(asked(301), None);
        assert_eq!(asked(u64::MAX), None);
    }

    #[test]
    fn retries_are_bounded_over_all_requests_and_by_address() {
        let retry = retrying();
        let address = |n: u8| Some([192, 0, 2, n].into());
        let mut now = Duration::ZERO;
        let mut places: Vec<_> = (0..100)
            .map(|_| retry.take_place(address(1), now).unwrap())
            .collect();
        assert!(retry.take_place(address(1), now).is_none(), "its share");
        for n in 2..102 {
            places.push(retry.take_place(address(n), now).unwrap());
        }
        assert!(retry.take_place(address(102), now).is_none(), "burst");
        places.truncate(100);
        now += SECOND * 10;
        while places.len() < MAX_WAITING_PER_ADDRESS {
            now += SECOND;
            places.extend((0..10).map_while(|_| retry.take_place(address(1), now)));
        }
        now += SECOND * 10;
        assert!(retry.take_place(address(1), now).is_none());
        let other = retry.take_place(address(2), now).unwrap();
        drop(places);
        drop(other);
        let state = retry.0.state();
        assert_eq!((state.waiting, state.by_address.len()), (0, 0));
    }
}
