//! Writes HTTP/1 messages: heads together with the beginning of their content, and content with
//! its framing, in as few writes as possible.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use tokio::io::AsyncWrite;

use crate::proxy::head::BodySize;

/// Maximum number of bytes that are copied so that they are written together, on streams without
/// vectored writes. A TLS record holds as many.
const MAX_COPIED: usize = 16 * 1024;
/// Capacity into which most heads fit.
const HEAD_CAPACITY: usize = 1024;

/// How a message body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// This number of bytes is left.
    Length(u64),
    Chunked,
    /// The body ends when the connection closes, or the connection has been upgraded.
    UntilClose,
}

/// How a request is framed: its body does not end with the connection.
impl From<BodySize> for BodyFraming {
    fn from(size: BodySize) -> Self {
        match size {
            BodySize::Empty => Self::Length(0),
            BodySize::Known(length) => Self::Length(length),
            BodySize::Unknown => Self::Chunked,
        }
    }
}

/// Why something could not be written.
#[derive(Debug)]
pub(super) enum WriteError {
    Io(io::Error),
    /// The content is longer or shorter than announced, or there is none in this message.
    Content,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The write side of a connection. Not `Debug`, because its queue can contain credentials.
pub(super) struct Writer {
    /// Bytes to be sent before any content.
    queue: BytesMut,
    framing: BodyFraming,
    /// The number of content bytes that the chunk lacks whose size has been queued.
    chunk: usize,
    /// Whether the message has ended, and its end is in the queue at the latest.
    ended: bool,
    /// Whether a flush is due.
    unflushed: bool,
}

impl Writer {
    /// Creates a writer without a message: nothing but heads may be queued.
    pub(super) fn new() -> Self {
        Self {
            queue: BytesMut::new(),
            framing: BodyFraming::Length(0),
            chunk: 0,
            ended: false,
            unflushed: false,
        }
    }

    /// Returns the buffer to which a head is appended.
    pub(super) fn head(&mut self) -> &mut BytesMut {
        self.queue.reserve(HEAD_CAPACITY);
        &mut self.queue
    }

    /// Begins the body after the head that was queued.
    pub(super) fn begin_body(&mut self, framing: BodyFraming) {
        self.framing = framing;
    }

    /// Turns the connection into a tunnel: content is written as it is.
    pub(super) fn begin_tunnel(&mut self) {
        self.framing = BodyFraming::UntilClose;
        self.ended = false;
    }

    /// Whether the whole message has been written and flushed.
    pub(super) fn is_complete(&self) -> bool {
        self.is_ended() && self.is_flushed()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing is left to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty() && !self.unflushed
    }

    /// Whether the end of the connection ends the message.
    pub(super) fn is_delimited_by_close(&self) -> bool {
        self.framing == BodyFraming::UntilClose
    }

    /// Writes what is queued, and then content. Ready with the number of bytes of `content` that
    /// were taken, which is not 0 unless `content` is empty. `end` says that the body ends with
    /// them. A flush is begun, and may be completed by [`Writer::poll_flush`].
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        content: &[u8],
        end: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.check(content, end)?;
        if content.is_empty() {
            if end {
                self.queue_end();
            }
            return self
                .poll_flush(stream, cx)
                .map_ok(|()| 0)
                .map_err(Into::into);
        }
        loop {
            let taken = if self.needs_copy(stream) {
                ready!(self.poll_copy(stream, cx, content, end))?
            } else {
                ready!(self.poll_vectored(stream, cx, content, end))?
            };
            if taken > 0 {
                if let Poll::Ready(flushed) = self.poll_flush(stream, cx) {
                    flushed?;
                }
                return Poll::Ready(Ok(taken));
            }
        }
    }

    /// Ends the body, if it has not ended yet, and writes and flushes everything.
    pub(super) fn poll_finish(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        self.poll_write(stream, cx, &[], true).map_ok(drop)
    }

    /// Writes and flushes what is queued.
    pub(super) fn poll_flush(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.queue.is_empty() {
            self.unflushed = true;
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.queue))?;
            self.queue.advance(at_least_one(written)?);
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        if self.ended {
            // A connection that waits for its next message holds no buffer.
            self.queue = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn check(&self, content: &[u8], end: bool) -> Result<(), WriteError> {
        let length = content.len() as u64;
        let fits = match self.framing {
            _ if self.ended => content.is_empty(),
            BodyFraming::Length(left) if end => length == left,
            BodyFraming::Length(left) => length <= left,
            BodyFraming::Chunked => !end || self.chunk <= content.len(),
            BodyFraming::UntilClose => true,
        };
        if fits {
            Ok(())
        } else {
            Err(WriteError::Content)
        }
    }

    fn queue_end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) && self.framing == BodyFraming::Chunked {
            self.queue.extend_from_slice(b"0\r\n\r\n");
        }
    }

    /// Whether the next bytes have to be copied so that they are written together.
    fn needs_copy(&self, stream: &Stream) -> bool {
        let alone = self.queue.is_empty() && self.framing != BodyFraming::Chunked;
        !alone && !stream.is_write_vectored()
    }

    /// Queues the size of the next chunk, if there is one. Returns the part of `content` that
    /// comes next, and what follows it.
    fn frame<'c>(&mut self, content: &'c [u8], end: bool) -> (&'c [u8], &'static [u8]) {
        if self.framing != BodyFraming::Chunked {
            return (content, b"");
        }
        if self.chunk == 0 {
            self.chunk = content.len();
            queue_chunk_size(&mut self.queue, content.len());
        }
        let part = content.get(..self.chunk).unwrap_or(content);
        let tail: &[u8] = match (part.len() == self.chunk, end && part.len() == content.len()) {
            (false, _) => b"",
            (true, false) => b"\r\n",
            (true, true) => b"\r\n0\r\n\r\n",
        };
        (part, tail)
    }

    fn poll_vectored(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        content: &[u8],
        end: bool,
    ) -> Poll<io::Result<usize>> {
        let (part, tail) = self.frame(content, end);
        self.unflushed = true;
        let stream = Pin::new(stream);
        let written = if self.queue.is_empty() && tail.is_empty() {
            ready!(stream.poll_write(cx, part))?
        } else {
            let slices = [&self.queue, part, tail].map(IoSlice::new);
            ready!(stream.poll_write_vectored(cx, &slices))?
        };
        let written = at_least_one(written)?;
        let queued = written.min(self.queue.len());
        self.queue.advance(queued);
        let taken = (written - queued).min(part.len());
        if taken == part.len() {
            let sent = written - queued - taken;
            self.queue
                .extend_from_slice(tail.get(sent..).unwrap_or_default());
        }
        self.took(taken, end && taken == content.len());
        Poll::Ready(Ok(taken))
    }

    fn poll_copy(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        content: &[u8],
        end: bool,
    ) -> Poll<io::Result<usize>> {
        if self.queue.len() >= MAX_COPIED / 2 {
            ready!(self.poll_flush(stream, cx))?;
        }
        let (part, tail) = self.frame(content, end);
        let room = MAX_COPIED.saturating_sub(self.queue.len() + tail.len());
        let taken = part.len().min(room);
        self.queue.reserve(taken + tail.len());
        self.queue
            .extend_from_slice(part.get(..taken).unwrap_or_default());
        if taken == part.len() {
            self.queue.extend_from_slice(tail);
        }
        self.took(taken, end && taken == content.len());
        Poll::Ready(Ok(taken))
    }

    /// Accounts for content that was taken.
    fn took(&mut self, bytes: usize, end: bool) {
        match &mut self.framing {
            BodyFraming::Length(left) => *left = left.saturating_sub(bytes as u64),
            BodyFraming::Chunked => self.chunk = self.chunk.saturating_sub(bytes),
            BodyFraming::UntilClose => {}
        }
        self.ended |= end;
    }
}

fn at_least_one(written: usize) -> io::Result<usize> {
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

/// Appends the size of a chunk and the end of its line (RFC 9112 §7.1).
fn queue_chunk_size(queue: &mut BytesMut, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let value = (size >> (4 * digit)) & 0xf;
        let value = u8::try_from(value).unwrap_or_default();
        queue.extend_from_slice(&[if value < 10 {
            b'0' + value
        } else {
            b'a' + value - 10
        }]);
    }
    queue.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn nothing_is_held_after_a_message() {
        let (local, mut peer) = tokio::io::duplex(1024);
        let mut stream: Stream = Box::new(local);
        let mut writer = Writer::new();
        writer.head().extend_from_slice(b"head");
        writer.begin_body(BodyFraming::Length(4));
        for (content, end) in [(b"bo", false), (b"dy", true)] {
            let taken = poll_fn(|cx| writer.poll_write(&mut stream, cx, content, end));
            assert_eq!(taken.await.unwrap(), 2);
        }
        assert!(writer.is_complete());
        assert_eq!(writer.queue.capacity(), 0);
        let mut received = [0; 8];
        tokio::io::AsyncReadExt::read_exact(&mut peer, &mut received)
            .await
            .unwrap();
        assert_eq!(&received, b"headbody");
    }
}
