//! Limits open connections, in total and for each address, and decides which connections are
//! closed when room is needed.
//!
//! The address that opens connections pays for them: at its own limit it loses one of its own
//! connections, and at the total limit the address with the most connections loses one.
//! Connections on which no request was admitted go first, then those that have not sent a request
//! yet, then idle ones. A connection is never closed while an admitted request on it is being
//! served.

mod origin;
mod table;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;

use super::drain::Signal;
use super::settings::Limits;
use crate::gateway::reason::Reason;
use crate::label::{Label as _, labels};
pub(super) use origin::Origin;
pub(super) use table::Limit;
use table::{Queue, Table, TableLimits};

/// Number of refused requests in a row after which a connection is closed, so that none stays
/// open for ever without an admitted request. As large as the default of nginx's
/// `keepalive_requests`, because one connection may carry the requests of several callers.
const MAX_REFUSED: u32 = 1000;
/// Maximum number of evicted connections that are still being closed while others are accepted.
const MAX_CLOSING: usize = 1024;
/// Minimum time between two log messages about connections at a limit.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

labels! {
    /// What happened at a limit of connections.
    LimitAction {
        /// A new connection was refused.
        Refused = "refused",
        /// Another connection was closed to make room for a new one.
        Evicted = "evicted",
    }
}

labels! {
    /// A limit of connections.
    LimitLabel {
        /// `limits.connections`.
        Connections = "connections",
        /// `limits.connections_per_address`.
        PerAddress = "connections_per_address",
        /// The process has run out of file descriptors.
        Descriptors = "descriptors",
    }
}

impl From<Limit> for LimitLabel {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Total => Self::Connections,
            Limit::PerAddress => Self::PerAddress,
        }
    }
}

/// The open connections of one server.
pub(super) struct ConnectionLimit {
    table: Mutex<Table>,
    max_closing: usize,
    /// Notified when an evicted connection has been closed.
    closed: Notify,
    counts: [[AtomicU64; LimitAction::ALL.len()]; LimitLabel::ALL.len()],
    log: Mutex<LogState>,
}

/// What has happened since the last log message.
#[derive(Default)]
struct LogState {
    last: Option<Duration>,
    refused: u64,
    evicted: u64,
}

impl ConnectionLimit {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::new(Table::new(TableLimits {
                total: limits.connections,
                per_address: limits.per_address(),
            })),
            max_closing: limits.connections.clamp(1, MAX_CLOSING),
            closed: Notify::new(),
            counts: Default::default(),
            log: Mutex::default(),
        })
    }

    /// Waits while too many evicted connections are still being closed, which takes a moment.
    /// Cancel-safe.
    pub(super) async fn wait_for_closing(&self) {
        loop {
            let closed = self.closed.notified();
            if self.table().closing() < self.max_closing {
                return;
            }
            closed.await;
        }
    }

    /// Admits a connection from `origin` at monotonic time `now`, evicting another one if
    /// necessary. `signal` tells it to close.
    ///
    /// # Errors
    /// Returns the limit that is reached if no other connection may be evicted.
    pub(super) fn admit(
        self: &Arc<Self>,
        origin: Origin,
        signal: Signal,
        now: Duration,
    ) -> Result<Permit, Limit> {
        let state = |id| {
            Arc::new(ConnState {
                id,
                limit: Arc::clone(self),
                signal,
                active: AtomicU32::new(0),
                begun: AtomicU32::new(0),
                admitted: AtomicBool::new(false),
                refused: AtomicU32::new(0),
                closes_early: AtomicBool::new(origin.is_address()),
            })
        };
        let added = self.table().add(origin, state);
        match added {
            Ok((state, reached)) => {
                if let Some(limit) = reached {
                    self.record(limit.into(), LimitAction::Evicted, now);
                }
                Ok(Permit(state))
            }
            Err(limit) => {
                self.record(limit.into(), LimitAction::Refused, now);
                Err(limit)
            }
        }
    }

    /// Evicts a connection because the process has run out of file descriptors at monotonic time
    /// `now`.
    pub(super) fn evict_for_descriptors(&self, now: Duration) {
        let evicted = self.table().evict_any();
        if evicted {
            self.record(LimitLabel::Descriptors, LimitAction::Evicted, now);
        }
    }

    /// Returns the number of open connections.
    fn open(&self) -> usize {
        self.table().open()
    }

    fn count(&self, limit: LimitLabel, action: LimitAction) -> Option<&AtomicU64> {
        self.counts.get(limit as usize)?.get(action as usize)
    }

    /// Counts, and logs at most once in [`LOG_INTERVAL`].
    fn record(&self, limit: LimitLabel, action: LimitAction, now: Duration) {
        if let Some(count) = self.count(limit, action) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match action {
            LimitAction::Refused => log.refused += 1,
            LimitAction::Evicted => log.evicted += 1,
        }
        if log
            .last
            .is_some_and(|last| now.saturating_sub(last) < LOG_INTERVAL)
        {
            return;
        }
        let LogState {
            refused, evicted, ..
        } = std::mem::replace(
            &mut *log,
            LogState {
                last: Some(now),
                ..LogState::default()
            },
        );
        drop(log);
        let (limit, open) = (limit.label(), self.open());
        tracing::warn!(
            limit,
            open,
            refused,
            evicted,
            "a limit of connections is reached; refused and evicted are totals since the last such message"
        );
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the numbers of a server's connections, for metrics.
#[derive(Clone)]
pub struct ConnectionCounts(Arc<ConnectionLimit>);

impl ConnectionCounts {
    pub(super) fn new(limit: &Arc<ConnectionLimit>) -> Self {
        Self(Arc::clone(limit))
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> u64 {
        self.0.open() as u64
    }

    /// Returns how many connections were refused or evicted at a limit since the start.
    pub fn limited(&self, limit: LimitLabel, action: LimitAction) -> u64 {
        let count = self.0.count(limit, action);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for ConnectionCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionCounts")
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

/// Counts a connection as open until dropped.
pub(super) struct Permit(Arc<ConnState>);

impl Permit {
    /// Returns the state of the connection.
    pub(super) fn state(&self) -> Arc<ConnState> {
        Arc::clone(&self.0)
    }

    /// Counts the connection under another origin, which has become known at monotonic time
    /// `now`.
    ///
    /// # Errors
    /// Returns the limit that is reached if no connection of that origin may be evicted.
    pub(super) fn set_origin(&self, origin: Origin, now: Duration) -> Result<(), Limit> {
        let ConnState { id, limit, .. } = &*self.0;
        self.0
            .closes_early
            .store(origin.is_address(), Ordering::Relaxed);
        let moved = limit.table().set_origin(*id, origin);
        match moved {
            Ok(None) => Ok(()),
            Ok(Some(reached)) => {
                limit.record(reached.into(), LimitAction::Evicted, now);
                Ok(())
            }
            Err(reached) => {
                limit.record(reached.into(), LimitAction::Refused, now);
                Err(reached)
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let ConnState { id, limit, .. } = &*self.0;
        limit.table().remove(*id);
        limit.closed.notify_waiters();
    }
}

/// What is known about an open connection. Reading and changing it takes a lock only until a
/// request has been admitted.
pub(super) struct ConnState {
    id: u64,
    limit: Arc<ConnectionLimit>,
    signal: Signal,
    /// The number of requests that are being served.
    active: AtomicU32,
    /// The number of requests that have begun; wraps around.
    begun: AtomicU32,
    /// Whether a request was admitted: sent upstream, or answered by one of hawkgate's own
    /// endpoints for a verified caller.
    admitted: AtomicBool,
    /// The number of requests refused since one was admitted.
    refused: AtomicU32,
    /// Whether the connection is closed early if no request is admitted.
    closes_early: AtomicBool,
}

impl ConnState {
    /// Whether a request is being served.
    pub(super) fn is_busy(&self) -> bool {
        self.active.load(Ordering::Relaxed) != 0
    }

    /// Marks the beginning of a request, whose head is complete. It ends when the guard is
    /// dropped.
    pub(super) fn begin_request(&self) -> RequestGuard<'_> {
        // Only one task changes it, so this need not be one atomic operation.
        self.active.store(1, Ordering::Relaxed);
        self.begin();
        RequestGuard(self)
    }

    /// Like [`ConnState::begin_request`], for requests that run concurrently.
    pub(super) fn begin_stream(self: &Arc<Self>) -> StreamGuard {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.begin();
        StreamGuard(Arc::clone(self))
    }

    fn begin(&self) {
        if !self.admitted.load(Ordering::Relaxed) {
            self.begun.fetch_add(1, Ordering::Relaxed);
            self.limit.table().dequeue(self.id);
        }
        if self.signal.is_evicted() {
            // The request arrived at the same time, and is served. The connection closes after
            // it.
            self.limit.table().restore(self.id);
        }
    }

    /// Marks the only request as no longer worth protecting, because it is refused or not yet
    /// authenticated: the connection may be evicted although the request has not ended.
    pub(super) fn release_request(&self) {
        self.active.store(0, Ordering::Relaxed);
        self.ended();
    }

    /// Puts a connection without an admitted request into its queue.
    fn ended(&self) {
        if !self.admitted.load(Ordering::Relaxed) {
            let mut table = self.limit.table();
            // Another request may have begun in the meantime.
            if !self.is_busy() {
                table.enqueue(self.id, Queue::Unadmitted);
            }
        }
    }

    /// Returns the output of `serving`, which serves a request, or `None` if the connection has
    /// to make room for another and the request is not worth protecting.
    pub(super) async fn serve<F: Future>(&self, serving: F) -> Option<F::Output> {
        let mut serving = pin!(serving);
        poll_fn(|cx| {
            if let Poll::Ready(output) = serving.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if self.is_busy() {
                return Poll::Pending;
            }
            self.signal.poll_evicted(cx).map(|()| None)
        })
        .await
    }

    /// Records that a request was admitted.
    pub(super) fn request_admitted(&self) {
        if self.refused.load(Ordering::Relaxed) != 0 {
            self.refused.store(0, Ordering::Relaxed);
        }
        if !self.admitted.load(Ordering::Relaxed) && !self.admitted.swap(true, Ordering::Relaxed) {
            self.limit.table().enqueue(self.id, Queue::Admitted);
        }
    }

    /// Records that a request was refused. Returns whether the connection has to close after the
    /// response, because too many requests in a row were refused on it. Neither failures of
    /// hawkgate and its peers count, nor requests of a verified caller that are not allowed.
    pub(super) fn request_refused(&self, reason: Reason) -> bool {
        let verified = matches!(
            reason,
            Reason::InsufficientScope | Reason::RuleDenied | Reason::NotEntitled
        );
        if verified || !reason.status().is_client_error() {
            return false;
        }
        let before = self.refused.fetch_add(1, Ordering::Relaxed);
        self.closes_early.load(Ordering::Relaxed) && before.saturating_add(1) >= MAX_REFUSED
    }

    /// Whether an idle connection gets only the short timeout.
    pub(super) fn closes_early(&self) -> bool {
        self.closes_early.load(Ordering::Relaxed) && !self.admitted.load(Ordering::Relaxed)
    }

    /// Tells the connection to close.
    pub(super) fn evict(&self) {
        self.signal.evict();
    }

    /// Returns once no request has begun for `timeout`, at most for twice as long, and none was
    /// ever admitted.
    pub(super) async fn unadmitted_idle(&self, timeout: Duration) {
        let mut before = self.begun.load(Ordering::Relaxed);
        while self.closes_early() {
            tokio::time::sleep(timeout).await;
            let after = self.begun.load(Ordering::Relaxed);
            if after == before && !self.is_busy() && self.closes_early() {
                return;
            }
            before = after;
        }
        std::future::pending::<()>().await;
    }
}

/// Counts a request as being served until dropped.
pub(super) struct RequestGuard<'a>(&'a ConnState);

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.0.release_request();
    }
}

/// Counts a concurrent request as being served until dropped.
pub(super) struct StreamGuard(Arc<ConnState>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.ended();
        }
    }
}

impl std::fmt::Debug for ConnState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnState")
            .field("id", &self.id)
            .field("active", &self.active)
            .field("admitted", &self.admitted)
            .finish_non_exhaustive()
    }
}
