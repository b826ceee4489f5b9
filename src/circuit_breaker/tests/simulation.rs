//! Thousands of good callers among hostile ones, over the real cache and the real introspection
//! with providers that misbehave. Seeded, and in paused time. The results are the table in
//! `docs/design/failures.md`.

mod provider;
mod scenarios;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::{Clock, UnixMillis};

/// The start of the wall clock.
const START: UnixMillis = UnixMillis::from_secs(1_800_000_000);

/// Tokio's clock, which stands still while any task can run.
#[derive(Debug)]
pub(super) struct PausedClock(tokio::time::Instant);

impl PausedClock {
    #[allow(clippy::disallowed_methods)]
    fn shared() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for PausedClock {
    fn now(&self) -> UnixMillis {
        START.plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Lets virtual time pass.
async fn pass(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

/// A deterministic generator of pseudo-random numbers (SplitMix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// How many requests of one kind there were, and how many of them were served.
#[derive(Debug, Default)]
struct Tally {
    requests: AtomicUsize,
    served: AtomicUsize,
}

impl Tally {
    fn count(&self, served: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.served
            .fetch_add(usize::from(served), Ordering::Relaxed);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Asserts that at least 99.9 % were served.
    fn assert_served(&self, scenario: &str) {
        let (requests, served) = (self.requests(), self.served());
        println!("{scenario}: {served} of {requests} good requests served");
        assert!(requests >= 1000, "{scenario}: only {requests} requests");
        assert!(
            served * 1000 >= requests * 999,
            "{scenario}: only {served} of {requests} served"
        );
    }
}

/// Starts a request `rate` times a second for `length`, at regular intervals.
async fn arrivals<F: Future<Output = ()> + Send + 'static>(
    rate: u32,
    length: Duration,
    mut request: impl FnMut(u64) -> F,
) {
    let mut tasks = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let requests = u64::from(rate) * length.as_secs();
    for n in 0..requests {
        ticks.tick().await;
        tasks.spawn(request(n));
    }
    while let Some(end) = tasks.join_next().await {
        end.unwrap();
    }
}

/// Asserts that a provider received at most `bound` calls.
fn assert_calls(scenario: &str, calls: usize, bound: usize) {
    println!("{scenario}: {calls} calls, at most {bound} allowed");
    assert!(calls <= bound, "{scenario}: {calls} calls, bound {bound}");
}
