//! A caller's connection in HTTP/1: the bytes that were read and not yet used, and how far the
//! current request and its response have come.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Version};
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::decode::{BodyDecoder, MalformedChunk};
use super::encode::Writer;
use super::head;
use super::lingering_close::discard;
use super::read::{ReadSize, poll_read};
use crate::proxy::head::RequestHead;
use crate::proxy::transport::Transport;
use crate::proxy::validate::Framing;

/// Maximum number of bytes read from the socket at once for a head, or beyond the current
/// request.
pub(super) const READ_AHEAD: usize = 8 * 1024;

/// A connection; see the module documentation.
pub(in crate::proxy) struct Connection {
    pub(super) stream: Stream,
    /// Bytes read from the socket and not yet delivered.
    pub(super) received: BytesMut,
    /// The number of bytes at the beginning of `received` that are decoded content.
    content: usize,
    body: BodyDecoder,
    read_size: ReadSize,
    /// Whether the caller has closed its write side.
    pub(super) read_closed: bool,
    /// Whether the caller may send more, although nothing more will be read.
    pub(super) unread_input: bool,
    pub(super) writer: Writer,
    pub(super) exchange: Exchange,
}

/// What the current request determines about its response, and how far that is.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Whether the caller uses HTTP/1.0.
    pub(super) http10: bool,
    /// Whether the method is HEAD.
    pub(super) head_only: bool,
    /// Whether the caller asked for an upgrade.
    pub(super) upgrade: bool,
    /// Whether the connection can serve another request afterwards.
    pub(super) persistent: bool,
    /// Whether a final response head was queued.
    pub(super) answered: bool,
    /// Whether the connection was upgraded.
    pub(super) tunnel: bool,
    /// Whether the response was given up.
    pub(super) aborted: bool,
    /// Whether the end of the request cannot be found, because its body is malformed.
    pub(super) malformed: bool,
}

impl Exchange {
    const fn none() -> Self {
        Self {
            http10: false,
            head_only: false,
            upgrade: false,
            persistent: false,
            answered: false,
            tunnel: false,
            aborted: false,
            malformed: false,
        }
    }
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            content: 0,
            body: BodyDecoder::Length(0),
            read_size: ReadSize::default(),
            read_closed: false,
            unread_input: false,
            writer: Writer::new(),
            exchange: Exchange::none(),
        }
    }

    /// Returns the part of the next request that has been read so far.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Reads more of the next request. Returns 0 if the caller has closed its write side.
    pub(super) async fn receive(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Polls for more of the next request. The result is 0 if the caller has closed its write
    /// side.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that an idle connection holds no buffer.
        let mut scratch = [MaybeUninit::<u8>::uninit(); READ_AHEAD];
        let mut buf = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        let read = buf.filled().len();
        self.received.extend_from_slice(buf.filled());
        self.read_closed |= read == 0;
        Poll::Ready(Ok(read))
    }

    /// Ready once the caller has closed its write side, or with an error once the connection has
    /// failed. Bytes that arrive in the meantime are buffered, up to [`READ_AHEAD`]; what comes
    /// after more of them is not noticed.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.read_closed {
            if self.received.len() >= READ_AHEAD {
                return Poll::Pending;
            }
            ready!(self.poll_receive(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Removes a validated head from the buffer. The first `start` bytes, an empty line, are
    /// dropped.
    pub(super) fn split_head(&mut self, start: usize, end: usize) -> Bytes {
        let mut head = self.received.split_to(end.min(self.received.len()));
        head.advance(start.min(head.len()));
        if self.received.is_empty() {
            // Shares no memory with the head.
            self.received = BytesMut::new();
        }
        head.freeze()
    }

    /// Begins the exchange for `head`, whose body follows.
    pub(super) fn begin(&mut self, head: &RequestHead, framing: Framing) {
        let http10 = head.version == Version::HTTP_10;
        let upgrade = framing == Framing::Tunnel;
        self.content = 0;
        // An upgrade request has no content.
        self.body = match framing {
            Framing::Tunnel => BodyDecoder::Length(0),
            framing => framing.into(),
        };
        self.read_size = ReadSize::default();
        self.writer = Writer::new();
        self.exchange = Exchange {
            http10,
            head_only: head.method == Method::HEAD,
            upgrade,
            persistent: head::persistent(&head.fields, !http10),
            ..Exchange::none()
        };
    }

    /// Whether another request can follow the one that was served.
    pub(super) fn is_reusable(&self) -> bool {
        let Exchange {
            persistent,
            aborted,
            malformed,
            upgrade,
            ..
        } = self.exchange;
        // A caller that expected its upgrade to succeed may already have sent bytes of the other
        // protocol, which must not be interpreted as a request.
        let ambiguous = upgrade && !self.received.is_empty();
        persistent
            && !aborted
            && !malformed
            && !ambiguous
            && self.is_body_delivered()
            && self.writer.is_complete()
    }

    /// Whether the whole body was delivered, so that further bytes belong to the next request.
    pub(super) fn is_body_delivered(&self) -> bool {
        if self.exchange.tunnel {
            return self.read_closed && self.received.is_empty();
        }
        self.content == 0 && self.body.is_done()
    }

    /// Turns the connection into a tunnel.
    pub(super) fn begin_tunnel(&mut self) {
        self.body = BodyDecoder::UntilClose;
        self.exchange.tunnel = true;
        self.exchange.persistent = false;
    }

    /// Returns the next piece of content that was already received.
    pub(super) fn next_piece(&mut self) -> Result<Option<Bytes>, MalformedChunk> {
        if self.content == 0 {
            self.content = self.body.decode_content(&mut self.received)?;
        }
        let length = std::mem::take(&mut self.content);
        if length == 0 {
            return Ok(None);
        }
        self.read_size.received(length);
        // A piece shares the memory of the whole buffer, and may be kept for long.
        if length < self.received.capacity() / 2 || length < self.received.len() {
            let piece = Bytes::copy_from_slice(self.received.get(..length).unwrap_or_default());
            self.received.advance(length);
            if self.received.is_empty() {
                self.received = BytesMut::new();
            }
            return Ok(Some(piece));
        }
        Ok(Some(std::mem::take(&mut self.received).freeze()))
    }

    /// Reads more of the body. Ready with the number of bytes.
    pub(super) fn poll_read_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let size = self.read_size.next(self.body.left());
        let read = ready!(poll_read(&mut self.stream, &mut self.received, size, cx))?;
        self.read_closed |= read == 0;
        Poll::Ready(Ok(read))
    }

    /// Whether the last response was written completely.
    pub(super) fn is_response_complete(&self) -> bool {
        !self.exchange.aborted && self.writer.is_complete()
    }

    /// Whether nothing is left to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.writer.is_flushed()
    }

    /// Writes the last response. What the caller is still sending will not be read.
    pub(super) async fn send_last(&mut self, wire: &[u8]) -> io::Result<()> {
        self.exchange = Exchange::none();
        self.unread_input = true;
        self.writer = Writer::new();
        self.writer.head().extend_from_slice(wire);
        self.flush().await
    }

    /// Writes what the service left unwritten.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.writer.poll_flush(&mut self.stream, cx)).await
    }

    /// Whether the connection uses TLS.
    fn is_tls(&self) -> bool {
        self.stream.get_ssl_digest().is_some()
    }

    /// Closes the write side, cleanly if the last response is `complete`. Keeps reading while the
    /// caller may still be sending, because data that arrives at a closed socket makes the kernel
    /// reset the connection, and the caller might never receive the response (RFC 9112 §9.6).
    /// Closes the connection after `limit` in any case.
    pub(super) async fn close(mut self, complete: bool, limit: Duration) {
        let unread_input = !self.read_closed
            && (self.unread_input || !self.is_body_delivered() || !self.received.is_empty());
        if !complete && self.looks_complete_when_closed() && self.reset() {
            return;
        }
        let closing = pin!(async {
            if complete && self.flush().await.is_err() {
                return;
            }
            // Without TLS, a clean close and a truncation look the same.
            if complete || !self.is_tls() {
                let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
            }
            if unread_input {
                discard(&mut self.stream).await;
            }
        });
        // On timeout or too much data, the connection is reset.
        let _ = timeout(limit, closing).await;
    }

    /// Whether the end of the connection would end the response.
    fn looks_complete_when_closed(&self) -> bool {
        self.exchange.answered && self.writer.is_delimited_by_close() && !self.is_tls()
    }

    /// Makes the kernel reset the connection when it is closed. Returns whether it does.
    fn reset(&self) -> bool {
        let transport = self.stream.as_any().downcast_ref::<Transport<TcpStream>>();
        transport.is_some_and(|transport| transport.reset_on_close().is_ok())
    }
}
