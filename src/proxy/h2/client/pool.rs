//! Connections to upstreams in HTTP/2. Each worker has its own pool, so that its lock is never
//! contended and a connection never changes threads.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Request;
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Session;
use crate::clock::SharedClock;
use crate::gateway::route::Upstream;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::h2::SEND_BUFFER;
use crate::proxy::h2::stall::StallGuard;
use crate::proxy::pool_sweep::{self, Sweep};

/// Maximum number of concurrent streams of a connection, unless the upstream allows fewer.
const MAX_STREAMS: usize = 100;
/// How much of a response an upstream may send before its caller has taken any. This is what a
/// response costs that nobody reads, so it is no more than the initial value of the protocol (RFC
/// 9113 §6.9.2), which is also HAProxy's.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all responses of a connection. There is room for every stream: otherwise a few
/// callers that do not read their responses would hold up those of all others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 100;
/// Maximum size of a response head, in bytes; the same as in HTTP/1.
const MAX_HEAD: u32 = 128 * 1024;
/// Maximum number of idle connections per worker. When it is exceeded, the oldest is closed.
const MAX_IDLE: usize = 128;
/// The number of sweeps without anything received after which a request that is given up makes
/// its connection suspect.
const SILENT_SWEEPS: u32 = 2;

/// A pool of connections; see the module documentation.
pub(in crate::proxy) struct Pool {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest connection is last.
    connections: Vec<Arc<Connection>>,
    /// Whether a task is sweeping the pool.
    sweeping: bool,
}

/// An open connection. It closes once it is in no pool and has no streams.
struct Connection {
    sender: SendRequest<Bytes>,
    clock: SharedClock,
    /// The weak pointer keeps the allocation from being reused, so equal pointers mean the same
    /// upstream, and thus the same host name, CA certificates and protocol.
    upstream: Weak<Upstream>,
    address: SocketAddr,
    tls: bool,
    idle_timeout: Duration,
    /// The number of streams in use.
    streams: AtomicUsize,
    /// When the last stream ended, in milliseconds of monotonic time.
    idle_since: AtomicU64,
    closed: Arc<AtomicBool>,
    /// Whether a response, or part of one, was received since the last sweep.
    heard: AtomicBool,
    /// The number of sweeps since one was received or the connection was without streams.
    silent: AtomicU32,
    /// Whether the connection may be dead: a request on it was given up after a silence, for
    /// example because of the read timeout. No stream is opened until something is received.
    /// (PING frames would tell, but gRPC servers close connections that send too many.)
    suspect: AtomicBool,
}

impl Pool {
    pub(in crate::proxy) fn new(clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
        })
    }

    /// Returns a new stream on an open connection to `address`, if there is one with a free
    /// stream.
    pub(in crate::proxy) fn take(
        &self,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
    ) -> Option<Session> {
        let mut removed = Vec::new();
        let mut state = self.state();
        let mut found = None;
        state.connections.retain(|connection| {
            if found.is_some() || !connection.leads_to(upstream, address) {
                return true;
            }
            if !connection.is_usable() {
                removed.push(Arc::clone(connection));
                return false;
            }
            if !connection.suspect.load(Ordering::Relaxed) {
                found = Slot::on(connection);
            }
            true
        });
        drop(state);
        // The lock is released before a dead connection is closed.
        drop(removed);
        found.map(|slot| Session::new(slot, true))
    }

    /// Opens an HTTP/2 connection on `io`, which leads to `address`, and returns its first
    /// stream. Does not wait for the upstream. The connection fails once it has taken nothing for the
    /// write timeout, so that none is left behind that cannot be closed. Must be called in a Tokio
    /// runtime.
    ///
    /// # Errors
    /// If `io` has failed.
    pub(in crate::proxy) async fn connect<I>(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        io: I,
    ) -> Result<Session, RelayError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |error: h2::Error| {
            let (side, kind) = (Side::Upstream, ErrorKind::ConnectFailed);
            match error.into_io() {
                Some(error) => RelayError::io(side, kind, error),
                None => RelayError::new(side, kind, "HTTP/2 handshake"),
            }
        };
        let io = StallGuard::new(io, upstream.timeouts.write);
        let (sender, driver) = builder().handshake(io).await.map_err(failed)?;
        let closed = Arc::new(AtomicBool::new(false));
        tokio::spawn({
            let closed = Arc::clone(&closed);
            async move {
                // Its streams report the error.
                let _ = driver.await;
                closed.store(true, Ordering::Relaxed);
            }
        });
        let connection = Arc::new(Connection {
            sender,
            clock: Arc::clone(&self.clock),
            upstream: Arc::downgrade(upstream),
            address,
            tls: upstream.tls,
            idle_timeout: upstream.timeouts.idle,
            streams: AtomicUsize::new(0),
            idle_since: AtomicU64::new(millis(self.clock.monotonic())),
            closed,
            heard: AtomicBool::new(false),
            silent: AtomicU32::new(0),
            suspect: AtomicBool::new(false),
        });
        let slot = Slot::on(&connection).ok_or_else(|| {
            RelayError::new(
                Side::Upstream,
                ErrorKind::ConnectFailed,
                "no stream allowed",
            )
        })?;
        self.add(connection);
        Ok(Session::new(slot, false))
    }

    fn add(self: &Arc<Self>, connection: Arc<Connection>) {
        let mut state = self.state();
        let is_idle = |c: &Arc<Connection>| c.streams.load(Ordering::Relaxed) == 0;
        let idle = state.connections.iter().filter(|c| is_idle(c)).count();
        let oldest = state.connections.iter().position(is_idle);
        let oldest = oldest.filter(|_| idle >= MAX_IDLE);
        let evicted = oldest.map(|at| state.connections.remove(at));
        state.connections.push(connection);
        let start_sweep = !std::mem::replace(&mut state.sweeping, true);
        drop(state);
        drop(evicted);
        if start_sweep {
            pool_sweep::start(self);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sweep for Pool {
    fn remove_unusable(&self) -> bool {
        let mut state = self.state();
        let unusable = |connection: &mut Arc<Connection>| {
            connection.count_silence();
            !connection.is_usable()
        };
        let removed: Vec<_> = state.connections.extract_if(.., unusable).collect();
        state.sweeping = !state.connections.is_empty();
        let remaining = state.sweeping;
        drop(state);
        drop(removed);
        remaining
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false);
    builder
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Connection {
    fn leads_to(&self, upstream: &Arc<Upstream>, address: SocketAddr) -> bool {
        self.address == address && std::ptr::eq(self.upstream.as_ptr(), Arc::as_ptr(upstream))
    }

    /// Whether streams can be opened, now or when others have ended.
    fn is_usable(&self) -> bool {
        let is_open = !self.closed.load(Ordering::Relaxed) && self.upstream.strong_count() > 0;
        let is_busy = self.streams.load(Ordering::Relaxed) > 0;
        // Fails once the upstream has sent GOAWAY or the connection has failed.
        let accepts = || !matches!(self.sender.clone().ready().now_or_never(), Some(Err(_)));
        let is_idle_too_long = || self.has_idled() || self.suspect.load(Ordering::Relaxed);
        is_open && (is_busy || !is_idle_too_long()) && accepts()
    }

    /// Called by each sweep.
    fn count_silence(&self) {
        let heard = self.heard.swap(false, Ordering::Relaxed);
        if heard || self.streams.load(Ordering::Relaxed) == 0 {
            self.silent.store(0, Ordering::Relaxed);
        } else {
            self.silent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn has_idled(&self) -> bool {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        self.clock.monotonic().saturating_sub(since) >= self.idle_timeout
    }
}

/// The place of a stream on its connection.
pub(super) struct Slot {
    connection: Arc<Connection>,
    /// Whether a request was sent and nothing was received in response.
    waiting: bool,
}

impl Slot {
    /// Returns a place on `connection`, if there is one left.
    fn on(connection: &Arc<Connection>) -> Option<Self> {
        let limit = MAX_STREAMS.min(connection.sender.current_max_send_streams());
        let taken = connection.streams.fetch_add(1, Ordering::Relaxed);
        let slot = Self {
            connection: Arc::clone(connection),
            waiting: false,
        };
        (taken < limit).then_some(slot)
    }

    pub(super) fn scheme(&self) -> Scheme {
        if self.connection.tls {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    pub(super) fn send_request(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let sent = self.connection.sender.clone().send_request(request, end)?;
        self.waiting = true;
        Ok(sent)
    }

    /// Records that something was received.
    pub(super) fn heard(&mut self) {
        self.waiting = false;
        self.connection.heard.store(true, Ordering::Relaxed);
        self.connection.silent.store(0, Ordering::Relaxed);
        self.connection.suspect.store(false, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let connection = &self.connection;
        if self.waiting && connection.silent.load(Ordering::Relaxed) >= SILENT_SWEEPS {
            connection.suspect.store(true, Ordering::Relaxed);
        }
        if connection.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            let now = millis(connection.clock.monotonic());
            connection.idle_since.store(now, Ordering::Relaxed);
        }
    }
}
