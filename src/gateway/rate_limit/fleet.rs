//! Rate limits over the replicas of a fleet: a client's bucket is in the shared store, and each replica
//! takes tokens from it in batches, so that most requests find one at hand.
//!
//! A batch only grows with the demand at this replica, to a fiftieth of what the rate adds in a second;
//! slower rates are taken token by token. A replica that was told that there is none refuses without
//! asking again until there may be one. So a client causes at most one operation for each request that
//! is admitted, fewer if it sends many, and no more than a hundred a second at each replica for those
//! that are refused. Without an answer the replica's own bucket decides.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Bucket, Key, RateBy, RateLimiter, nanoseconds};
use crate::clock::SharedClock;
use crate::shared_store::{Fleet, FleetKeyError, Namespace, Quota, SharedStore, StoreKey, Taken};

const SECOND: u64 = 1_000_000_000;
/// Nanoseconds of the rate that the largest batch contains. Also the pause after the store had none, for
/// rates that add a token more often.
const LARGEST_BATCH: u64 = SECOND / 50;
/// Nanoseconds that a batch lasts, if the demand stays as it is and the batch may be as large.
const BATCH_LASTS: u64 = SECOND;
/// Nanoseconds for which the replica's own bucket decides after the store has failed: without a pause every
/// request of the client would wait for a store that hangs.
const UNDECIDED: u64 = SECOND / 2;
/// The shortest interval of a bucket in the store, in nanoseconds, so that rounding it to microseconds does
/// not change the rate. Of a faster rate, a token stands for several requests.
const SHORTEST_INTERVAL: u64 = 100_000;

/// A rate limit that the replicas of a fleet share.
pub(super) struct FleetLimit {
    store: Arc<dyn SharedStore>,
    names: Namespace,
    quota: Quota,
    /// How many requests a token stands for.
    requests_per_token: u64,
    /// The most tokens taken ahead of demand.
    largest_batch: u64,
    /// How long the store is not asked after it had none, in nanoseconds, at least.
    pause: u64,
    clock: SharedClock,
}

/// Whether a request is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Granted,
    /// There is no token until then, in nanoseconds of the monotonic clock.
    Refused {
        until: u64,
    },
    /// The store does not answer.
    Undecided,
}

/// The result of [`FleetLimit::take`].
pub(super) enum Take {
    Decided(Verdict),
    Pending(Pending),
}

/// A request that waits for the store.
pub(super) struct Pending(oneshot::Receiver<Verdict>);

impl Pending {
    pub(super) async fn verdict(self) -> Verdict {
        self.0.await.unwrap_or(Verdict::Undecided)
    }
}

/// What a replica holds of the fleet's bucket of one client. Times are nanoseconds of the monotonic clock.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Requests that may be admitted without asking.
    requests: AtomicU64,
    /// How many of them are left when more are asked for in the background.
    low: AtomicU64,
    /// Until when the store has no token.
    refused_until: AtomicU64,
    /// Until when the store is not asked, because it failed.
    undecided_until: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// Whether a task asks the store.
    asking: bool,
    waiting: Vec<oneshot::Sender<Verdict>>,
    /// Tokens in the last batch.
    batch: u64,
    asked_at: u64,
}

/// No number of requests that are left.
const NEVER: u64 = u64::MAX;

impl Default for Allowance {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            low: AtomicU64::new(NEVER),
            refused_until: AtomicU64::new(0),
            undecided_until: AtomicU64::new(0),
            queue: Mutex::new(Queue {
                asking: false,
                waiting: Vec::new(),
                batch: 1,
                asked_at: 0,
            }),
        }
    }
}

impl Allowance {
    /// Admits one request. Returns how many more may be.
    fn take(&self) -> Option<u64> {
        let taken = self
            .requests
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        taken.ok().map(|before| before.saturating_sub(1))
    }

    /// What is known without asking.
    fn verdict(&self, now: u64) -> Option<Verdict> {
        let until = self.refused_until.load(Ordering::Relaxed);
        if now < self.undecided_until.load(Ordering::Relaxed) {
            Some(Verdict::Undecided)
        } else if now < until {
            Some(Verdict::Refused { until })
        } else {
            None
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FleetLimit {
    pub(super) fn new(
        limiter: &RateLimiter,
        fleet: &Fleet,
        name: &str,
    ) -> Result<Self, FleetKeyError> {
        let RateLimiter {
            interval,
            tolerance,
            ..
        } = *limiter;
        let by: &[u8] = match limiter.by {
            RateBy::Client => b"client",
            RateBy::Address => b"address",
        };
        let names = fleet.keys.namespace(&[
            b"rate",
            name.as_bytes(),
            by,
            &interval.to_be_bytes(),
            &tolerance.to_be_bytes(),
        ])?;
        let requests_per_token = SHORTEST_INTERVAL.div_ceil(interval);
        let interval = interval.saturating_mul(requests_per_token);
        let burst = (tolerance / limiter.interval).saturating_add(1);
        let largest_batch = (LARGEST_BATCH / interval).max(1);
        // What is added while nobody asks must find room in the bucket.
        let (pause, room) = match interval {
            ..LARGEST_BATCH => (largest_batch.saturating_mul(interval), largest_batch * 2),
            _ => (0, 1),
        };
        Ok(Self {
            store: Arc::clone(&fleet.store),
            names,
            quota: Quota {
                interval: Duration::from_nanos(interval),
                burst: burst.div_ceil(requests_per_token).max(room),
            },
            requests_per_token,
            largest_batch,
            pause,
            clock: limiter.clock.clone(),
        })
    }

    /// Takes a token from what this replica has; without any, waits for the store, unless it is known to
    /// have none, or not to answer.
    pub(super) fn take(
        self: &Arc<Self>,
        bucket: &Arc<Bucket>,
        allowance: &Allowance,
        key: Key,
        now: u64,
    ) -> Take {
        if let Some(left) = allowance.take() {
            if left == allowance.low.load(Ordering::Relaxed) && allowance.verdict(now).is_none() {
                self.ask(bucket, &mut allowance.queue(), key);
            }
            return Take::Decided(Verdict::Granted);
        }
        if let Some(verdict) = allowance.verdict(now) {
            return Take::Decided(verdict);
        }
        let mut queue = allowance.queue();
        // An answer may have come since; answers are applied under this lock.
        if allowance.take().is_some() {
            return Take::Decided(Verdict::Granted);
        }
        if let Some(verdict) = allowance.verdict(now) {
            return Take::Decided(verdict);
        }
        let (sender, receiver) = oneshot::channel();
        queue.waiting.push(sender);
        self.ask(bucket, &mut queue, key);
        Take::Pending(Pending(receiver))
    }

    /// Has the store asked in the background, unless it is being asked: not by the request, which its
    /// caller may end while others wait.
    fn ask(self: &Arc<Self>, bucket: &Arc<Bucket>, queue: &mut Queue, key: Key) {
        if queue.asking {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            queue.waiting.clear();
            return;
        };
        queue.asking = true;
        let mut asking = Asking {
            bucket: Arc::clone(bucket),
            ended: false,
        };
        let limit = Arc::clone(self);
        runtime.spawn(async move { limit.ask_while_wanted(&mut asking, key).await });
    }

    async fn ask_while_wanted(&self, asking: &mut Asking, key: Key) {
        let Some(allowance) = &asking.bucket.allowance else {
            return;
        };
        let name = self.name(key);
        loop {
            let (waiting, wanted) = self.next_batch(allowance);
            let answer = self.store.take(name, self.quota, wanted).await;
            let now = nanoseconds(self.clock.monotonic());
            let mut queue = allowance.queue();
            let waiting = waiting.into_iter().chain(queue.waiting.drain(..));
            let unanswered = if let Ok(taken) = answer {
                self.distribute(allowance, waiting, taken, wanted, now)
            } else {
                let until = now.saturating_add(UNDECIDED);
                allowance.undecided_until.store(until, Ordering::Relaxed);
                tell(waiting, Verdict::Undecided);
                Vec::new()
            };
            if unanswered.is_empty() {
                queue.asking = false;
                asking.ended = true;
                return;
            }
            queue.waiting = unanswered;
        }
    }

    /// Who waits, and how many tokens to ask for.
    fn next_batch(&self, allowance: &Allowance) -> (Vec<oneshot::Sender<Verdict>>, u64) {
        let now = nanoseconds(self.clock.monotonic());
        let mut queue = allowance.queue();
        let elapsed = now.saturating_sub(queue.asked_at).max(1);
        let demand = u128::from(queue.batch) * u128::from(BATCH_LASTS) / u128::from(elapsed);
        let demand = u64::try_from(demand).unwrap_or(u64::MAX);
        queue.batch = demand
            .min(queue.batch.saturating_mul(2))
            .clamp(1, self.largest_batch);
        queue.asked_at = now;
        let waiting = std::mem::take(&mut queue.waiting);
        let needed = (waiting.len() as u64).div_ceil(self.requests_per_token);
        let wanted = queue.batch.max(needed);
        (waiting, wanted)
    }

    /// Hands out what was taken. Returns those who are still without an answer, because there may be more.
    fn distribute(
        &self,
        allowance: &Allowance,
        mut waiting: impl Iterator<Item = oneshot::Sender<Verdict>>,
        taken: Taken,
        wanted: u64,
        now: u64,
    ) -> Vec<oneshot::Sender<Verdict>> {
        let granted = taken.granted.min(wanted);
        let mut requests = granted.saturating_mul(self.requests_per_token);
        while requests > 0 {
            let Some(next) = waiting.next() else { break };
            // A request that has ended leaves its token to the next.
            if next.send(Verdict::Granted).is_ok() {
                requests -= 1;
            }
        }
        // Nobody saves up tokens here, beyond the burst, by ending requests.
        requests = requests.min(self.largest_batch.saturating_mul(self.requests_per_token));
        let left = allowance.requests.fetch_add(requests, Ordering::Relaxed) + requests;
        let ahead = granted > 1 && granted == wanted;
        let low = if ahead { left / 2 } else { NEVER };
        allowance.low.store(low, Ordering::Relaxed);
        if granted == wanted {
            return waiting.collect();
        }
        // In a bucket that has been emptied there is a token after an interval at the latest, whatever the
        // store says.
        let interval = self.quota.interval;
        let next = match granted {
            0 => taken.retry_after.min(interval),
            _ => interval,
        };
        let until = now.saturating_add(nanoseconds(next).max(self.pause));
        allowance.refused_until.store(until, Ordering::Relaxed);
        tell(waiting, Verdict::Refused { until });
        Vec::new()
    }

    fn name(&self, key: Key) -> StoreKey {
        let hasher = self.names.hasher();
        match key {
            Key::NoAddress => hasher.part(b"no address"),
            Key::Address(IpAddr::V4(address)) => hasher.part(b"address").part(&address.octets()),
            Key::Address(IpAddr::V6(address)) => hasher.part(b"address").part(&address.octets()),
            Key::Identity(hash) => hasher.part(b"identity").part(&hash),
        }
        .finish()
    }
}

fn tell(waiting: impl Iterator<Item = oneshot::Sender<Verdict>>, verdict: Verdict) {
    for sender in waiting {
        // An error means that the request has ended.
        let _ = sender.send(verdict);
    }
}

/// A task that asks the store for tokens of this bucket. Should it end early, as at shutdown, another may
/// follow.
struct Asking {
    bucket: Arc<Bucket>,
    ended: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(allowance) = self.bucket.allowance.as_ref().filter(|_| !self.ended) {
            let mut queue = allowance.queue();
            queue.asking = false;
            queue.waiting.clear();
        }
    }
}

impl fmt::Debug for FleetLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetLimit")
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}
