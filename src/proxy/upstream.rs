//! The upstream's side of one attempt, in HTTP/1 or HTTP/2, and the connections for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pingora::ErrorType;
use pingora::connectors::TransportConnector;
use pingora::protocols::Stream;
use pingora::protocols::tls::ALPN;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::{ErrorKind, RelayError, Side};
use super::head::{RequestHead, ResponseHead};
use super::peer::Peers;
use super::transport::Transport;
use super::{h1, h2, outgoing_proxy};
use crate::clock::SharedClock;
use crate::gateway::route::Upstream as Target;
use crate::network::ProxyEndpoint;

/// The upstream's side of one attempt. Reads and writes are independent of each other.
#[expect(
    clippy::large_enum_variant,
    reason = "most upstreams speak HTTP/1, which need not be allocated"
)]
pub(super) enum Upstream {
    H1(h1::client::Session),
    H2(Box<h2::client::Session>),
}

macro_rules! each {
    ($self:expr, $session:ident => $call:expr) => {
        match $self {
            Upstream::H1($session) => $call,
            Upstream::H2($session) => $call,
        }
    };
}

impl Upstream {
    /// Whether the connection had served a request before.
    pub(super) fn is_reused(&self) -> bool {
        each!(self, s => s.is_reused())
    }

    /// Queues the head, with `target` as the request target, and the fields that frame
    /// `head.body`. An empty body gets a length where the method has one (RFC 9110 §8.6).
    ///
    /// # Errors
    /// If the stream cannot be used, with the retry that is allowed.
    pub(super) fn queue_head(
        &mut self,
        head: &RequestHead,
        target: &str,
    ) -> Result<(), RelayError> {
        each!(self, s => s.queue_head(head, target))
    }

    /// Writes what is queued, and then `content`, from which it removes what was taken. Ready
    /// once all of it was. `end` says that the body ends with it.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), RelayError>> {
        each!(self, s => s.poll_write(cx, content, end))
    }

    /// Ends the request, if it has not ended yet, with these trailers, and flushes.
    pub(super) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Option<HeaderMap>,
    ) -> Poll<Result<(), RelayError>> {
        each!(self, s => s.poll_finish(cx, trailers))
    }

    /// Polls for the next response head: interim ones, and then the final one. A 101 that was
    /// asked for turns the session into a tunnel.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, RelayError>> {
        each!(self, s => s.poll_head(cx))
    }

    /// Polls until [`Self::chunk`] is not empty (`true`), or the body is complete (`false`).
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, RelayError>> {
        each!(self, s => s.poll_body(cx))
    }

    /// Returns content that was received and not yet consumed.
    pub(super) fn chunk(&self) -> &[u8] {
        each!(self, s => s.chunk())
    }

    /// Removes this number of bytes from the beginning of [`Self::chunk`].
    pub(super) fn consume(&mut self, bytes: usize) {
        each!(self, s => s.consume(bytes));
    }

    /// Whether the body is known to end with [`Self::chunk`], without trailers.
    pub(super) fn ends_with_chunk(&self) -> bool {
        each!(self, s => s.ends_with_chunk())
    }

    /// Takes the trailers after the end of the body: of HTTP/2 only, because those of HTTP/1 are
    /// dropped (RFC 9110 §6.5.1).
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        each!(self, s => s.take_trailers())
    }

    /// Returns the connection to its pool at monotonic time `now`, if the exchange is complete and
    /// the connection can be used again. Must be called at the end of a complete exchange.
    pub(super) fn release(&mut self, now: Duration) {
        match self {
            Upstream::H1(session) => session.release(now),
            Upstream::H2(_) => {}
        }
    }
}

/// What a request needs of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// HTTP/1.1, whatever the upstream prefers.
    pub(super) http1: bool,
}

/// Connects to upstreams, and keeps idle connections. Each worker has its own, so that its locks
/// are never contended and a connection never changes threads.
pub(super) struct Connector {
    http1: Arc<h1::client::Pool>,
    http2: Arc<h2::client::Pool>,
    tls: Arc<TransportConnector>,
}

impl Connector {
    /// Creates the connectors of this number of workers.
    pub(super) fn for_workers(workers: usize, clock: &SharedClock) -> Vec<Self> {
        // Holds a copy of the platform's CA certificates (about 5 ms to load, 0.3 MiB). Its own
        // pool is not used.
        let tls = Arc::new(TransportConnector::new(None));
        let connector = |_| Self {
            http1: h1::client::Pool::new(clock.clone()),
            http2: h2::client::Pool::new(clock.clone()),
            tls: Arc::clone(&tls),
        };
        (0..workers).map(connector).collect()
    }

    /// Takes an idle connection, or an HTTP/2 connection that has room for another request. `now`
    /// is a monotonic time.
    pub(super) fn take(
        &self,
        target: &Arc<Target>,
        address: SocketAddr,
        needs: Needs,
        now: Duration,
    ) -> Option<Upstream> {
        let http2 = target.http2 && !needs.http1;
        if http2 && let Some(session) = self.http2.take(target, address) {
            return Some(Upstream::H2(Box::new(session)));
        }
        // With TLS, the upstream may have chosen HTTP/1.1.
        if http2 && !target.tls {
            return None;
        }
        let session = self.http1.take(target, address, now)?;
        Some(Upstream::H1(session))
    }

    /// Connects to `address` within the upstream's timeout, twice that with TLS.
    ///
    /// # Errors
    /// If that fails. Nothing has been sent then.
    pub(super) async fn open(
        &self,
        peers: &Peers,
        target: &Arc<Target>,
        address: SocketAddr,
        needs: Needs,
    ) -> Result<Upstream, RelayError> {
        let http2 = target.http2 && !needs.http1;
        let limit = target.timeouts.connect;
        let tunnel = match &target.proxy {
            Some(proxy) => Some(Box::pin(self.tunnel(peers, target, proxy, address)).await?),
            None => None,
        };
        if !target.tls {
            if let Some(tunnel) = tunnel {
                if http2 {
                    return self.begin_http2(target, address, tunnel).await;
                }
                return Ok(self.begin_http1(target, address, tunnel));
            }
            let transport = Transport::connect(address, limit).await?;
            if http2 {
                return self.begin_http2(target, address, transport).await;
            }
            return Ok(self.begin_http1(target, address, Box::new(transport)));
        }
        let unusable = |cause| RelayError::because(Side::Upstream, ErrorKind::TlsFailed, cause);
        let mut peer = peers.peer(target, address, !http2).map_err(unusable)?;
        if let Some(tunnel) = tunnel {
            let established = outgoing_proxy::Established::new(tunnel);
            peer.options.custom_l4 = Some(Arc::new(established));
        }
        let stream = self.tls.new_stream(&peer).await.map_err(connect_error)?;
        match stream.selected_alpn_proto() {
            Some(ALPN::H2) => self.begin_http2(target, address, stream).await,
            _ => Ok(self.begin_http1(target, address, stream)),
        }
    }

    /// Opens a tunnel to `target` through `proxy` at `address`, within the upstream's timeout for
    /// connecting, twice that if the proxy speaks TLS, and again for the tunnel.
    async fn tunnel(
        &self,
        peers: &Peers,
        target: &Arc<Target>,
        proxy: &ProxyEndpoint,
        address: SocketAddr,
    ) -> Result<Stream, RelayError> {
        let limit = target.timeouts.connect;
        let connected: Result<Stream, RelayError> = if proxy.tls {
            let unusable = |cause| RelayError::because(Side::Upstream, ErrorKind::TlsFailed, cause);
            let peer = peers.proxy_peer(target, proxy, address).map_err(unusable)?;
            self.tls.new_stream(&peer).await.map_err(connect_error)
        } else {
            let transport = Transport::connect(address, limit).await;
            transport.map(|transport| Box::new(transport) as Stream)
        };
        let stream = connected.map_err(|error| outgoing_proxy::unreachable(proxy, &error))?;
        let opening = outgoing_proxy::open_tunnel(stream, proxy, target);
        tokio::time::timeout(limit, opening)
            .await
            .map_err(|_| outgoing_proxy::timed_out(proxy))?
    }

    fn begin_http1(&self, target: &Arc<Target>, address: SocketAddr, stream: Stream) -> Upstream {
        Upstream::H1(self.http1.begin(target, address, stream))
    }

    async fn begin_http2<S>(
        &self,
        target: &Arc<Target>,
        address: SocketAddr,
        stream: S,
    ) -> Result<Upstream, RelayError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connecting = self.http2.connect(target, address, stream);
        let session = tokio::time::timeout(target.timeouts.connect, connecting);
        let timed_out = |_| {
            RelayError::new(
                Side::Upstream,
                ErrorKind::ConnectTimeout,
                "HTTP/2 handshake",
            )
        };
        let session = session.await.map_err(timed_out)??;
        Ok(Upstream::H2(Box::new(session)))
    }
}

/// Converts pingora's error for a connection that could not be established.
fn connect_error(error: Box<pingora::Error>) -> RelayError {
    let kind = match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => ErrorKind::ConnectTimeout,
        ErrorType::ConnectRefused => ErrorKind::ConnectRefused,
        ErrorType::ConnectNoRoute => ErrorKind::NoRoute,
        ErrorType::InvalidCert | ErrorType::HandshakeError | ErrorType::TLSHandshakeFailure => {
            ErrorKind::TlsFailed
        }
        _ => ErrorKind::ConnectFailed,
    };
    RelayError::because(Side::Upstream, kind, error)
}
