//! The addresses of an upstream, and when its name is looked up again: periodically, and at once
//! when a request cannot connect to any known address.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, watch};

use crate::clock::SharedClock;

/// How often a name is looked up again. The system resolver does not report TTLs; half a minute
/// is a common TTL for services that move.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// The delay after a first failure; it doubles up to the maximum.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The maximum delay after failures while the name has never been resolved, because no route to
/// this upstream can be served until it is.
const MAX_FIRST_RETRY: Duration = Duration::from_secs(5);

/// How long a request waits for a look-up.
pub const MAX_WAIT: Duration = Duration::from_secs(3);

/// How long the result of a look-up that failed, or that a request asked for, stands before
/// another request can cause a look-up. Callers decide how many requests fail, so without this
/// they would decide how many look-ups there are.
const RESULT_STANDS: Duration = Duration::from_secs(1);

/// The addresses of one upstream.
#[derive(Debug)]
pub struct UpstreamAddresses {
    known: ArcSwap<Vec<SocketAddr>>,
    /// Whether they come from a name.
    resolvable: bool,
    lookup: Mutex<Lookup>,
    /// The number of look-ups that have ended.
    ended: watch::Sender<u64>,
    /// Wakes [`UpstreamAddresses::keep_resolved`].
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Lookup {
    /// Whether a look-up is in progress or about to start.
    pending: bool,
    /// Whether a request has asked for it.
    wanted: bool,
    /// The monotonic time until which requests cause no further look-up.
    result_stands_until: Duration,
}

impl UpstreamAddresses {
    /// The addresses of a name that is about to be looked up by
    /// [`UpstreamAddresses::keep_resolved`].
    pub fn unresolved() -> Self {
        let mut addresses = Self::fixed(Vec::new());
        addresses.resolvable = true;
        addresses.lookup().pending = true;
        addresses
    }

    /// Addresses that never change, because they were not resolved from a name.
    pub fn fixed(addresses: Vec<SocketAddr>) -> Self {
        Self {
            known: ArcSwap::from_pointee(addresses),
            resolvable: false,
            lookup: Mutex::default(),
            ended: watch::Sender::new(0),
            wanted: Notify::new(),
        }
    }

    /// The known addresses; empty until the name has been resolved once.
    pub fn load(&self) -> Guard<Arc<Vec<SocketAddr>>> {
        self.known.load()
    }

    /// As [`UpstreamAddresses::load`], to be held across an `await`.
    pub fn load_full(&self) -> Arc<Vec<SocketAddr>> {
        self.known.load_full()
    }

    /// Whether they come from a name, which can be looked up again.
    pub fn are_resolvable(&self) -> bool {
        self.resolvable
    }

    /// Whether there are any addresses.
    pub fn are_known(&self) -> bool {
        !self.known.load().is_empty()
    }

    /// Waits until there are addresses.
    pub async fn wait_until_known(&self) {
        let mut ended = self.ended.subscribe();
        while !self.are_known() && ended.changed().await.is_ok() {}
    }

    /// Asks for a look-up, unless one is pending, or the result of one stands: after a failure,
    /// and after a look-up that a request asked for, for a second from its end. `now` is a
    /// monotonic time. Returns whether a look-up is pending, and does not wait for it.
    pub fn request_lookup(&self, now: Duration) -> bool {
        self.request(now).is_some()
    }

    /// Like [`UpstreamAddresses::request_lookup`], and waits up to [`MAX_WAIT`] until the pending
    /// look-up has ended. All requests wait for the same one.
    pub async fn look_up_again(&self, now: Duration) {
        if let Some(mut ended) = self.request(now) {
            let _ = tokio::time::timeout(MAX_WAIT, ended.changed()).await;
        }
    }

    fn request(&self, now: Duration) -> Option<watch::Receiver<u64>> {
        let mut lookup = self.lookup();
        if !lookup.pending {
            if !self.resolvable || now < lookup.result_stands_until {
                return None;
            }
            (lookup.pending, lookup.wanted) = (true, true);
            self.wanted.notify_one();
        }
        // Under the lock, so that the end of the pending look-up cannot be missed.
        Some(self.ended.subscribe())
    }

    /// Records the result of a look-up, which ended at the monotonic time `now`. After a failure
    /// the known addresses stay in use.
    pub fn record(&self, found: Option<Vec<SocketAddr>>, now: Duration) {
        let mut lookup = self.lookup();
        if lookup.wanted || found.is_none() {
            lookup.result_stands_until = now.saturating_add(RESULT_STANDS);
        }
        (lookup.pending, lookup.wanted) = (false, false);
        if let Some(addresses) = found {
            self.known.store(Arc::new(addresses));
        }
        drop(lookup);
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Keeps the addresses of `host` up to date, forever: calls `look_up` now, then periodically
    /// and whenever a request asks for it. One look-up is in progress at a time.
    pub async fn keep_resolved<F>(&self, host: &str, clock: &SharedClock, look_up: impl Fn() -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let mut failures = Failures::default();
        loop {
            self.lookup().pending = true;
            let result = look_up().await;
            let pause = match &result {
                Ok(_) => failures.resolved(host),
                Err(error) => failures.failed(host, error, self.are_known()),
            };
            self.record(result.ok(), clock.monotonic());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    fn lookup(&self) -> MutexGuard<'_, Lookup> {
        self.lookup.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The look-ups that have failed since the last success.
#[derive(Default)]
struct Failures {
    count: u32,
    /// The error that was logged. Callers cause look-ups, so a failure that repeats is not logged
    /// again.
    logged: Option<String>,
}

impl Failures {
    /// Returns the time until the next periodic look-up.
    fn resolved(&mut self, host: &str) -> Duration {
        if self.count > 0 {
            tracing::info!(host, "the upstream's name resolves again");
        }
        *self = Self::default();
        REFRESH_INTERVAL
    }

    /// As above. `known` says whether there are addresses from before.
    fn failed(&mut self, host: &str, error: &io::Error, known: bool) -> Duration {
        let text = error.to_string();
        if self.logged.as_ref() != Some(&text) {
            tracing::warn!(host, %error, "cannot resolve the upstream's name");
            self.logged = Some(text);
        }
        let doubled = FIRST_RETRY.saturating_mul(1 << self.count.min(5));
        self.count = self.count.saturating_add(1);
        doubled.min(if known {
            REFRESH_INTERVAL
        } else {
            MAX_FIRST_RETRY
        })
    }
}

#[cfg(test)]
mod tests;
