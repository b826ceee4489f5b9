//! The stream that pingora uses as a downstream connection. It never delivers a byte past the
//! current request, coalesces small writes, fails a write that makes no progress, and hands its
//! socket back when it is dropped.

#[cfg(test)]
mod tests;
mod write_buffer;

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use super::h1::decode::BodyDecoder;
use super::validate::Framing;
use write_buffer::WriteBuffer;

/// Maximum number of bytes read from the socket at once for a head, or beyond the current
/// request.
const READ_AHEAD: usize = 8 * 1024;
/// Length of the client connection preface (RFC 9113 §3.4) and of the header of the SETTINGS
/// frame that follows it.
const PREFACE_BYTES: usize = 24 + 9;

/// What remains of a connection once pingora has finished with it.
pub(super) struct ClosedConn {
    pub(super) stream: Stream,
    /// Bytes accepted for writing but not yet written.
    pub(super) unsent: BytesMut,
    /// Whether the last response is complete, so that the connection may be closed cleanly.
    /// Otherwise the caller must be able to tell that the response was truncated.
    pub(super) response_complete: bool,
    /// Whether the caller is still sending, or has sent bytes that will not be read. Closing the
    /// socket now would make the kernel send a reset, and the response could be lost.
    pub(super) unread_input: bool,
}

/// The slot in which a dropped [`Connection`] leaves its [`ClosedConn`].
#[derive(Clone, Default)]
pub(super) struct Handoff(Arc<Mutex<Option<ClosedConn>>>);

impl Handoff {
    pub(super) fn take(&self) -> Option<ClosedConn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, closed: ClosedConn) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(closed);
    }
}

/// A downstream connection; see the module documentation.
pub(super) struct Connection {
    /// `None` only while the connection is being dropped.
    inner: Option<Stream>,
    /// Bytes read from the socket and not yet delivered.
    received: BytesMut,
    /// The number of bytes of `received` that belong to the current request's body.
    deliverable: usize,
    body: BodyDecoder,
    /// Whether the caller has closed its write side.
    read_closed: bool,
    /// Whether the caller may send more, although nothing more will be read.
    may_send_more: bool,
    response_complete: bool,
    out: WriteBuffer,
    /// Whether this is HTTP/2 without TLS, as configured for the listener rather than
    /// negotiated.
    prior_knowledge: bool,
    /// The number of bytes missing from the preface, and the deadline for them.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    /// What the listener knows about the connection: a [`super::client::ConnMetadata`].
    proxy_digest: Option<Arc<ProxyDigest>>,
    handoff: Handoff,
}

impl Connection {
    /// Creates an HTTP/1 connection. A write that makes no progress for `write_stall` fails.
    pub(super) fn http1(stream: Stream, write_stall: Duration, handoff: Handoff) -> Self {
        Self {
            inner: Some(stream),
            received: BytesMut::new(),
            deliverable: 0,
            body: BodyDecoder::Length(0),
            read_closed: false,
            may_send_more: false,
            response_complete: false,
            out: WriteBuffer::coalescing(write_stall),
            prior_knowledge: false,
            preface: None,
            proxy_digest: None,
            handoff,
        }
    }

    /// Creates an HTTP/2 connection, negotiated by ALPN or used with prior knowledge. The
    /// preface must arrive within `preface`.
    pub(super) fn http2(stream: Stream, write_stall: Duration, preface: Duration) -> Self {
        let prior_knowledge = stream.get_ssl_digest().is_none();
        let mut this = Self::http1(stream, write_stall, Handoff::default());
        this.body = BodyDecoder::UntilClose;
        this.out = WriteBuffer::unbuffered(write_stall);
        this.prior_knowledge = prior_knowledge;
        this.preface = Some((PREFACE_BYTES, Box::pin(tokio::time::sleep(preface))));
        this
    }

    /// Attaches what the listener knows about the connection.
    pub(super) fn with_proxy_digest(mut self, proxy_digest: Option<Arc<ProxyDigest>>) -> Self {
        self.proxy_digest = proxy_digest;
        self
    }

    /// Returns the part of the next request that has been read so far.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Reads more of the next request. Returns 0 if the caller has closed its write side.
    pub(super) async fn receive(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Ready once the caller has closed its write side or the connection has failed. Bytes that
    /// arrive in the meantime are buffered for the next request.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.read_closed {
            if self.received.len() >= READ_AHEAD {
                return Poll::Pending;
            }
            if ready!(self.poll_receive(cx)).is_err() {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Whether several slices can be written in one system call, without copying them into one
    /// buffer.
    pub(super) fn supports_vectored_write(&self) -> bool {
        self.inner.as_ref().is_some_and(Stream::is_write_vectored)
    }

    /// Writes all of `parts` and flushes, without coalescing.
    pub(super) async fn send(&mut self, parts: [&[u8]; 2]) -> io::Result<()> {
        let mut left = parts;
        poll_fn(|cx| {
            let inner = self.inner.as_mut().ok_or_else(not_connected)?;
            self.out.poll_send(inner, cx, &mut left)
        })
        .await
    }

    /// Removes a validated head from the buffer and starts decoding the body that follows it.
    /// The first `start` bytes, an empty line, are dropped.
    pub(super) fn split_head(&mut self, start: usize, end: usize, framing: Framing) -> BytesMut {
        let mut head = self.received.split_to(end.min(self.received.len()));
        head.advance(start.min(head.len()));
        self.deliverable = 0;
        self.body = framing.into();
        head
    }

    /// Whether the current request has been read to its end, so that any further bytes belong to
    /// the next one.
    pub(super) fn is_between_requests(&self) -> bool {
        self.deliverable == 0 && (self.body.is_done() || self.body == BodyDecoder::UntilClose)
    }

    /// Whether the connection uses TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|inner| inner.get_ssl_digest().is_some())
    }

    /// Marks the last response as complete.
    pub(super) fn mark_response_complete(&mut self) {
        self.response_complete = true;
    }

    /// Records that the caller may still be sending bytes that will not be read.
    pub(super) fn mark_unread_input(&mut self) {
        self.may_send_more = true;
    }

    /// Polls for more of the next request. The result is 0 if the caller has closed its write
    /// side.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that an idle connection holds no buffer.
        let mut scratch = [MaybeUninit::<u8>::uninit(); READ_AHEAD];
        let mut buf = ReadBuf::uninit(&mut scratch);
        ready!(poll_inner_read(&mut self.inner, cx, &mut buf))?;
        let read = buf.filled().len();
        self.received.extend_from_slice(buf.filled());
        self.read_closed |= read == 0;
        Poll::Ready(Ok(read))
    }

    /// Reads bytes that need no decoding directly into `buf`.
    fn poll_read_direct(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let left = usize::try_from(self.body.unframed_len()).unwrap_or(usize::MAX);
        if left >= buf.remaining() {
            ready!(poll_inner_read(&mut self.inner, cx, buf))?;
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(left));
            ready!(poll_inner_read(&mut self.inner, cx, &mut part))?;
            let read = part.filled().len();
            buf.advance(read);
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        self.read_closed |= read.is_empty();
        self.body.decode(read).map_err(io::Error::other)?;
        self.preface = match self.preface.take() {
            Some((left, deadline)) if left > read.len() => Some((left - read.len(), deadline)),
            _ => None,
        };
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let fresh = self.received.get(self.deliverable..).unwrap_or_default();
            self.deliverable += self.body.decode(fresh).map_err(io::Error::other)?;
            if self.deliverable > 0 {
                let part = self.deliverable.min(buf.remaining());
                buf.put_slice(self.received.get(..part).unwrap_or_default());
                self.received.advance(part);
                self.deliverable -= part;
                return Poll::Ready(Ok(()));
            }
            if self.read_closed {
                return Poll::Ready(Ok(()));
            }
            if self.body.unframed_len() > 0 {
                return self.poll_read_direct(cx, buf);
            }
            if self.body.is_done() && self.received.len() >= READ_AHEAD {
                // The next request has to wait. The write side wakes the task.
                return Poll::Pending;
            }
            ready!(self.poll_receive(cx))?;
        }
    }
}

fn not_connected() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

fn poll_inner_read(
    inner: &mut Option<Stream>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let inner = inner.as_mut().ok_or_else(not_connected)?;
    Pin::new(inner).poll_read(cx, buf)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // pingora reads once it has nothing more to write for now.
        let inner = this.inner.as_mut().ok_or_else(not_connected)?;
        this.out.flush_before_read(inner, cx)?;
        let read = this.poll_body(cx, buf);
        if read.is_pending()
            && let Some((_, deadline)) = this.preface.as_mut()
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let inner = this.inner.as_mut().ok_or_else(not_connected)?;
        this.out.poll_write(inner, cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let inner = this.inner.as_mut().ok_or_else(not_connected)?;
        this.out.poll_flush(inner, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let inner = this.inner.as_mut().ok_or_else(not_connected)?;
        // pingora calls this only after a complete response.
        this.response_complete = true;
        this.out.poll_shutdown(inner, cx)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(stream) = self.inner.take() {
            self.handoff.put(ClosedConn {
                stream,
                unsent: self.out.take_unsent(),
                response_complete: self.response_complete,
                unread_input: !self.read_closed
                    && (self.may_send_more
                        || !self.is_between_requests()
                        || !self.received.is_empty()),
            });
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("received", &self.received.len())
            .field("read_closed", &self.read_closed)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // Fails only if the caller has already disconnected.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.inner.as_ref().map_or(-1, |inner| inner.id())
    }
}

impl Ssl for Connection {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.as_ref()?.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        if self.prior_knowledge {
            return Some(ALPN::H2);
        }
        self.inner.as_ref()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.proxy_digest.clone()
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.as_ref()?.get_socket_digest()
    }
}

impl Peek for Connection {}
