//! Unbuffered plain sockets. pingora's own transport buffers in both directions and reads the
//! clock on each read, which is useful for HTTP/2 and pingora's statistics, but unnecessary for
//! HTTP/1.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::l4::ext::set_tcp_keepalive;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::error::{ErrorKind, RelayError, Side};
use super::peer::TCP_KEEPALIVE;

/// A plain socket; see the module documentation.
#[derive(Debug)]
pub(super) struct Transport<S> {
    socket: S,
    digest: Arc<SocketDigest>,
}

impl<S> Transport<S> {
    /// Wraps `socket`. `digest` contains the addresses of both ends.
    pub(super) fn new(socket: S, digest: SocketDigest) -> Self {
        Self {
            socket,
            digest: Arc::new(digest),
        }
    }
}

impl Transport<TcpStream> {
    /// Connects to `address` within `limit`.
    ///
    /// # Errors
    /// Returns the operating system's error, or a timeout.
    pub(super) async fn connect(address: SocketAddr, limit: Duration) -> Result<Self, RelayError> {
        let connecting = tokio::time::timeout(limit, TcpStream::connect(address));
        let timed_out =
            |_| upstream_error(ErrorKind::ConnectTimeout, io::ErrorKind::TimedOut.into());
        let socket = connecting.await.map_err(timed_out)?;
        let socket = socket.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorKind::ConnectRefused,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    ErrorKind::NoRoute
                }
                _ => ErrorKind::ConnectFailed,
            };
            upstream_error(kind, error)
        })?;
        socket
            .set_nodelay(true)
            .map_err(|error| upstream_error(ErrorKind::ConnectFailed, error))?;
        set_tcp_keepalive(&socket, &TCP_KEEPALIVE).map_err(|error| {
            RelayError::because(Side::Upstream, ErrorKind::ConnectFailed, error)
        })?;
        let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        Ok(Self::new(socket, digest))
    }
}

impl Transport<TcpStream> {
    /// Makes the kernel reset the connection when it is closed, instead of ending it cleanly.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        self.socket.set_zero_linger()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: AsyncWrite + Unpin + Send> Shutdown for Transport<S> {
    async fn shutdown(&mut self) {
        // Fails only if the peer has already disconnected.
        let _ = AsyncWriteExt::shutdown(&mut self.socket).await;
    }
}

impl<S: AsRawFd> UniqueID for Transport<S> {
    fn id(&self) -> UniqueIDType {
        self.socket.as_raw_fd()
    }
}

impl<S> Ssl for Transport<S> {}

impl<S> GetTimingDigest for Transport<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Transport<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S> GetSocketDigest for Transport<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl<S: Send> Peek for Transport<S> {}

fn upstream_error(kind: ErrorKind, cause: io::Error) -> RelayError {
    RelayError::io(Side::Upstream, kind, cause)
}
