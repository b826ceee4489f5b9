//! Idle connections to upstreams. Each worker has its own pool, so that its lock is never
//! contended and a connection never changes threads.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;

use super::{Origin, Session};
use crate::clock::SharedClock;
use crate::gateway::route::Upstream;
use crate::proxy::pool_sweep::{self, Sweep};

/// Maximum number of idle connections per worker. When it is exceeded, the oldest is closed.
const MAX_IDLE: usize = 128;

/// A pool of idle connections; see the module documentation.
pub(in crate::proxy) struct Pool {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The most recently used connection is last.
    idle: Vec<IdleConn>,
    /// Whether a task is sweeping the pool.
    sweeping: bool,
}

struct IdleConn {
    stream: Stream,
    /// The empty buffer into which the next response is read.
    buffer: BytesMut,
    /// The weak pointer keeps the allocation from being reused, so equal pointers mean the same
    /// upstream, and thus the same host name, CA certificates and protocol.
    upstream: Weak<Upstream>,
    address: SocketAddr,
    /// When the idle timeout expires, in monotonic time.
    expires: Duration,
}

impl Pool {
    pub(in crate::proxy) fn new(clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
        })
    }

    /// Begins a session on the most recently used open connection to `address`, if there is one.
    /// `now` is a monotonic time.
    pub(in crate::proxy) fn take(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        now: Duration,
    ) -> Option<Session> {
        let (stream, buffer) = self.take_idle(upstream, address, now)?;
        let origin = self.origin(upstream, address);
        Some(Session::new(stream, buffer, true, origin))
    }

    /// Begins a session on a new connection to `address`.
    pub(in crate::proxy) fn begin(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        stream: Stream,
    ) -> Session {
        let origin = self.origin(upstream, address);
        Session::new(stream, BytesMut::new(), false, origin)
    }

    fn origin(self: &Arc<Self>, upstream: &Arc<Upstream>, address: SocketAddr) -> Origin {
        Origin {
            pool: self.clone(),
            upstream: upstream.clone(),
            address,
        }
    }

    fn take_idle(
        &self,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        now: Duration,
    ) -> Option<(Stream, BytesMut)> {
        loop {
            // The lock is released before a dead connection is closed.
            let mut idle = {
                let mut state = self.state();
                let matches = |idle: &IdleConn| {
                    idle.address == address
                        && std::ptr::eq(idle.upstream.as_ptr(), Arc::as_ptr(upstream))
                };
                let at = state.idle.iter().rposition(matches)?;
                state.idle.remove(at)
            };
            if idle.expires > now && is_idle_and_open(&mut idle.stream) {
                return Some((idle.stream, idle.buffer));
            }
        }
    }

    /// Returns a connection and its read buffer to the pool, where it stays until the upstream's
    /// idle timeout has passed since `now`.
    pub(super) fn put(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        (stream, mut buffer): (Stream, BytesMut),
        now: Duration,
    ) {
        buffer.clear();
        let idle = IdleConn {
            stream,
            buffer,
            upstream: Arc::downgrade(upstream),
            address,
            expires: now.saturating_add(upstream.timeouts.idle),
        };
        let mut state = self.state();
        let oldest = (state.idle.len() >= MAX_IDLE).then(|| state.idle.remove(0));
        state.idle.push(idle);
        let start_sweep = !std::mem::replace(&mut state.sweeping, true);
        drop(state);
        drop(oldest);
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
        let now = self.clock.monotonic();
        let mut state = self.state();
        let usable = |idle: &mut IdleConn| {
            idle.expires > now
                && idle.upstream.strong_count() > 0
                && is_idle_and_open(&mut idle.stream)
        };
        let removed: Vec<_> = state.idle.extract_if(.., |idle| !usable(idle)).collect();
        state.sweeping = !state.idle.is_empty();
        let remaining = state.sweeping;
        drop(state);
        drop(removed);
        remaining
    }
}

/// Whether the upstream has neither closed the connection nor sent unsolicited data.
fn is_idle_and_open(stream: &mut Stream) -> bool {
    let mut byte = [0];
    // Unconstrained, because a task that has used up its cooperative budget would find the read
    // pending even if there is data.
    let reading = tokio::task::unconstrained(stream.read(&mut byte));
    reading.now_or_never().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, UnixMillis};
    use crate::gateway::route::tests as fixture;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    const ADDRESS: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
    const IDLE: Duration = Duration::from_secs(1);

    fn upstream() -> Arc<Upstream> {
        let upstream = fixture::upstream();
        assert_eq!(upstream.timeouts.idle, IDLE);
        Arc::new(upstream)
    }

    fn connection() -> (Stream, DuplexStream) {
        let (local, peer) = duplex(64);
        (Box::new(local), peer)
    }

    fn pool() -> (Arc<ManualClock>, Arc<Pool>) {
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        let pool = Pool::new(clock.clone());
        (clock, pool)
    }

    #[tokio::test]
    async fn pooled_connections_are_keyed_by_upstream_and_address() {
        let (clock, pool) = pool();
        let (one, other) = (upstream(), upstream());
        let (stream, _peer) = connection();
        pool.put(&one, ADDRESS, (stream, BytesMut::new()), clock.monotonic());
        let elsewhere = SocketAddr::new(ADDRESS.ip(), 2);
        assert!(
            pool.take_idle(&other, ADDRESS, clock.monotonic()).is_none(),
            "equal but different upstream"
        );
        assert!(pool.take_idle(&one, elsewhere, clock.monotonic()).is_none());
        assert!(pool.take_idle(&one, ADDRESS, clock.monotonic()).is_some());
        assert!(
            pool.take_idle(&one, ADDRESS, clock.monotonic()).is_none(),
            "a connection is taken only once"
        );
    }

    #[tokio::test]
    async fn connections_closed_expired_or_with_unsolicited_data_are_not_reused() {
        let (clock, pool) = pool();
        let upstream = upstream();
        let (stream, peer) = connection();
        pool.put(
            &upstream,
            ADDRESS,
            (stream, BytesMut::new()),
            clock.monotonic(),
        );
        drop(peer);
        assert!(
            pool.take_idle(&upstream, ADDRESS, clock.monotonic())
                .is_none()
        );
        let (stream, mut peer) = connection();
        peer.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        pool.put(
            &upstream,
            ADDRESS,
            (stream, BytesMut::new()),
            clock.monotonic(),
        );
        assert!(
            pool.take_idle(&upstream, ADDRESS, clock.monotonic())
                .is_none()
        );
        let (stream, _peer) = connection();
        pool.put(
            &upstream,
            ADDRESS,
            (stream, BytesMut::new()),
            clock.monotonic(),
        );
        clock.advance(IDLE);
        assert!(
            pool.take_idle(&upstream, ADDRESS, clock.monotonic())
                .is_none()
        );
    }

    #[tokio::test]
    async fn the_sweep_closes_closed_and_expired_connections() {
        let (clock, pool) = pool();
        let upstream = upstream();
        let mut ends = Vec::new();
        for _ in 0..3 {
            let (stream, peer) = connection();
            pool.put(
                &upstream,
                ADDRESS,
                (stream, BytesMut::new()),
                clock.monotonic(),
            );
            ends.push(peer);
        }
        ends.pop();
        assert!(pool.remove_unusable());
        assert_eq!(pool.state().idle.len(), 2);
        clock.advance(IDLE);
        assert!(!pool.remove_unusable());
        for mut end in ends {
            assert_eq!(end.read(&mut [0]).await.unwrap(), 0, "closed");
        }
    }

    #[tokio::test]
    async fn the_pool_size_is_bounded_and_connections_of_removed_upstreams_are_closed() {
        let (clock, pool) = pool();
        let upstream = upstream();
        let mut ends = Vec::new();
        for _ in 0..=MAX_IDLE {
            let (stream, peer) = connection();
            pool.put(
                &upstream,
                ADDRESS,
                (stream, BytesMut::new()),
                clock.monotonic(),
            );
            ends.push(peer);
        }
        assert_eq!(pool.state().idle.len(), MAX_IDLE);
        assert_eq!(
            ends[0].read(&mut [0]).await.unwrap(),
            0,
            "the oldest connection is closed"
        );
        drop(upstream);
        assert!(!pool.remove_unusable());
    }
}
