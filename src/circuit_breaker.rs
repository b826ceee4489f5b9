//! Judges the failures of a peer that serves many callers: which calls are made, which wait, and
//! which fail at once (`docs/design/failures.md`). Used for each credential source, for
//! each issuer whose tokens are introspected, and for the provider of each session.
//!
//! A failure is judged where it belongs: a key that fails backs off alone, and the circuit opens
//! for all only if calls fail for nearly all of several independent callers.

mod aging_map;
mod backoff;
mod capacity;

mod origin;
mod policy;
mod probe;
mod retry_budget;
#[cfg(test)]
mod tests;
mod window;

pub use backoff::{Jitter, LONGEST_RETRY_AFTER};
pub use origin::Origin;

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::sync::{self, Mutex, MutexGuard};
use capacity::{Capacity, Permit, Permits};
use policy::{Admission, Policy, Probe};

/// An attempt that took longer is not repeated: the peer hangs, and a retry would hang as well.
const LONGEST_RETRIED: Duration = Duration::from_secs(1);

/// Whom a call is for.
#[derive(Clone, Debug)]
pub struct Attempt<K> {
    /// What is exchanged or introspected: an identity or a token, as a keyed hash.
    pub key: K,
    /// Who caused it.
    pub origin: Origin,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer issued a credential, or accepted the token.
    Accepted,
    /// The peer gave another answer, such as a refusal or any 4xx except 429. It is alive, and
    /// the answer concerns this key alone.
    Responded,
    /// There was no usable answer: a transport error, a timeout, a 5xx or a 429.
    Failed {
        /// The peer's `Retry-After`. If present, the call is not retried.
        retry_after: Option<Duration>,
    },
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The key failed recently and backs off.
    Backoff {
        /// The time left.
        left: Duration,
    },
    /// The circuit is open.
    Open {
        /// The time until the next probe.
        left: Duration,
    },
    /// Too many calls run or wait, in all or for this origin.
    Overloaded,
}

impl Rejected {
    /// When to try again.
    pub fn retry_after(self) -> Duration {
        match self {
            Self::Backoff { left } | Self::Open { left } => left.max(Duration::from_millis(1)),
            Self::Overloaded => Duration::from_secs(1),
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backoff { .. } => "backing off after failures for this caller",
            Self::Open { .. } => "the circuit is open: calls fail for nearly all callers",
            Self::Overloaded => "no call could start in time: too many are running or waiting",
        })
    }
}

/// The limits of a [`CircuitBreaker`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Calls that run at once; 0 counts as 1. A quarter of them for each origin that has never
    /// been accepted, and all but a quarter for any other.
    pub concurrency: usize,
    /// Calls that run or wait, and the same shares of them.
    pub max_calls: usize,
    /// The longest wait before a call starts, and the longest time that it then takes, retries
    /// included.
    pub timeout: Duration,
    /// Keys that are remembered, in each half of an ageing map.
    pub keys: usize,
}

/// The circuit breaker of one peer. `K` identifies whom a call is for.
#[derive(Debug)]
pub struct CircuitBreaker<K> {
    limits: Limits,
    clock: SharedClock,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    policy: Policy<K>,
    capacity: Capacity,
}

impl<K: Clone + Hash + Eq> CircuitBreaker<K> {
    /// A closed circuit to the peer `name`, a `kind` ("source" or "issuer") of the
    /// configuration.
    pub fn new(
        kind: &'static str,
        name: Arc<str>,
        limits: Limits,
        clock: SharedClock,
        jitter: Jitter,
    ) -> Arc<Self> {
        let state = State {
            policy: Policy::new(kind, name, limits.keys, jitter),
            capacity: Capacity::new(limits.concurrency, limits.max_calls),
        };
        Arc::new(Self {
            limits,
            clock,
            state: Mutex::new(state),
        })
    }

    /// Whether the circuit is open.
    pub fn is_open(&self) -> bool {
        self.state().policy.is_open()
    }

    /// The time for which `key` backs off; zero if it does not.
    pub fn backoff_left(&self, key: &K) -> Duration {
        let now = self.clock.monotonic();
        let left = self.state().policy.backoff_left(key, now);
        left.unwrap_or_default()
    }

    /// Whether a call would be rejected at once.
    ///
    /// # Errors
    /// If so.
    pub fn check(&self, attempt: &Attempt<K>) -> Result<(), Rejected> {
        let now = self.clock.monotonic();
        self.state().policy.check(attempt, now)
    }

    /// Registers a call, which counts as waiting until [`Call::run`].
    ///
    /// # Errors
    /// If the call is rejected at once.
    pub fn begin(self: &Arc<Self>, attempt: Attempt<K>) -> Result<Call<K>, Rejected> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.policy.check(&attempt, now)?;
        let share = state.policy.share(&attempt);
        let permits = state.capacity.add(attempt.origin, share);
        let permits = permits.ok_or(Rejected::Overloaded)?;
        Ok(Call {
            breaker: Arc::clone(self),
            attempt,
            permits,
            probe: None,
        })
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // A panic cannot leave the state inconsistent: nothing under this lock panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered call.
#[derive(Debug)]
pub struct Call<K: Clone + Hash + Eq> {
    breaker: Arc<CircuitBreaker<K>>,
    attempt: Attempt<K>,
    permits: Permits,
    probe: Option<Probe>,
}

impl<K: Clone + Hash + Eq> Call<K> {
    /// Waits for a permit, and for the probe in progress if the circuit is open, and then makes
    /// the call with `send`, which receives the time that it may take. If it fails and is
    /// `repeatable`, it is repeated within a retry budget. `outcome` says how an
    /// attempt ended.
    ///
    /// # Errors
    /// If the call could not start: the peer was not contacted.
    pub async fn run<T, F: Future<Output = T>>(
        mut self,
        repeatable: bool,
        send: impl Fn(Duration) -> F,
        outcome: impl Fn(&T) -> Outcome,
    ) -> Result<T, Rejected> {
        let timeout = self.breaker.limits.timeout;
        let admitted = sync::timeout(timeout, self.admitted()).await;
        let _permit = admitted.unwrap_or(Err(Rejected::Overloaded))?;
        let begun = self.breaker.clock.monotonic();
        let mut failed = 0;
        loop {
            let now = self.breaker.clock.monotonic();
            let result = send(timeout.saturating_sub(now.saturating_sub(begun))).await;
            let end = outcome(&result);
            failed += 1;
            let Some(delay) = self.retry_delay(repeatable, end, failed, now) else {
                self.record(end);
                return Ok(result);
            };
            sync::sleep(delay).await;
        }
    }

    async fn admitted(&mut self) -> Result<Permit, Rejected> {
        loop {
            let permit = self.permits.acquire().await;
            let now = self.breaker.clock.monotonic();
            let admission = self.breaker.state().policy.admit(&self.attempt, now);
            match admission {
                Admission::Proceed(probe) => {
                    self.probe = probe;
                    return Ok(permit);
                }
                Admission::Reject(rejected) => return Err(rejected),
                Admission::Wait(mut end) => {
                    drop(permit);
                    // The sender is dropped when the probe ends.
                    let _ = end.changed().await;
                }
            }
        }
    }

    fn retry_delay(
        &self,
        repeatable: bool,
        outcome: Outcome,
        failed: u32,
        attempted_at: Duration,
    ) -> Option<Duration> {
        let took = self.breaker.clock.monotonic().saturating_sub(attempted_at);
        let quick = took < LONGEST_RETRIED;
        let worthwhile = matches!(outcome, Outcome::Failed { retry_after: None }) && quick;
        if !repeatable || !worthwhile || self.probe.is_some() {
            return None;
        }
        self.breaker
            .state()
            .policy
            .retry_delay(&self.attempt, failed)
    }

    fn record(&mut self, outcome: Outcome) {
        let now = self.breaker.clock.monotonic();
        let probe = self.probe.take();
        let mut state = self.breaker.state();
        state.policy.record(&self.attempt, outcome, probe, now);
    }
}

/// A call that ends without an outcome, for example because `send` panicked, ends its probe.
impl<K: Clone + Hash + Eq> Drop for Call<K> {
    fn drop(&mut self) {
        let now = self.breaker.clock.monotonic();
        let mut state = self.breaker.state();
        state.policy.end_probe(self.probe.take(), None, now);
        state.capacity.remove(self.attempt.origin);
    }
}
