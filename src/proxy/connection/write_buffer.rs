//! The write side of a connection. Sends the head of a response together with the beginning of
//! its body, and fails a write that makes no progress for too long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

/// Maximum number of buffered bytes.
const MAX_BUFFERED: usize = 16 * 1024;
/// A buffered head is sent alone if its body has not arrived after this many polls. pingora
/// reads from the upstream in the same task, so a body that is already available arrives sooner.
const MAX_POLLS: u8 = 3;

/// Buffers the beginning of a response; see the module documentation.
pub(super) struct WriteBuffer {
    /// Whether the first write after a flush is held back until the next one.
    coalesce: bool,
    buffered: BytesMut,
    /// Whether anything has been written since the last flush.
    unflushed: bool,
    /// The number of times that the connection has been polled for reading since the last write.
    read_polls: u8,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl WriteBuffer {
    /// Creates a buffer that coalesces small writes.
    pub(super) fn coalescing(stall: Duration) -> Self {
        Self {
            coalesce: true,
            buffered: BytesMut::new(),
            unflushed: false,
            read_polls: 0,
            stall,
            timer: None,
        }
    }

    /// Creates a buffer that passes every write through.
    pub(super) fn unbuffered(stall: Duration) -> Self {
        Self {
            coalesce: false,
            ..Self::coalescing(stall)
        }
    }

    /// Takes the bytes that were accepted for writing but not written.
    pub(super) fn take_unsent(&mut self) -> BytesMut {
        std::mem::take(&mut self.buffered)
    }

    pub(super) fn poll_write(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = !std::mem::replace(&mut self.unflushed, true);
        self.read_polls = 0;
        if self.buffered.len() >= MAX_BUFFERED {
            ready!(self.poll_drain(inner, cx))?;
        }
        let total: usize = data.iter().map(|part| part.len()).sum();
        let delay = self.coalesce && first && total <= MAX_BUFFERED;
        if self.buffered.is_empty() && !delay {
            let written = Pin::new(inner).poll_write_vectored(cx, data);
            return self.check_stall(cx, written);
        }
        let accepted = self.append(data);
        if !delay && let Poll::Ready(Err(e)) = self.poll_drain(inner, cx) {
            return Poll::Ready(Err(e));
        }
        Poll::Ready(Ok(accepted))
    }

    /// Copies as many bytes as fit and returns their number.
    fn append(&mut self, data: &[io::IoSlice<'_>]) -> usize {
        let before = self.buffered.len();
        for part in data {
            let room = MAX_BUFFERED
                .saturating_sub(self.buffered.len())
                .min(part.len());
            self.buffered
                .extend_from_slice(part.get(..room).unwrap_or_default());
        }
        self.buffered.len() - before
    }

    fn poll_drain(&mut self, inner: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffered.is_empty() {
            let written = Pin::new(&mut *inner).poll_write(cx, &self.buffered);
            match ready!(self.check_stall(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.buffered.advance(n),
            }
        }
        self.buffered = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Writes all of `parts` after the buffered bytes, and flushes. Removes the written bytes
    /// from `parts`.
    pub(super) fn poll_send(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        parts: &mut [&[u8]; 2],
    ) -> Poll<io::Result<()>> {
        self.unflushed = true;
        ready!(self.poll_drain(inner, cx))?;
        while parts.iter().any(|part| !part.is_empty()) {
            let slices = parts.map(io::IoSlice::new);
            let written = Pin::new(&mut *inner).poll_write_vectored(cx, &slices);
            let mut written = ready!(self.check_stall(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            for part in parts.iter_mut() {
                let here = written.min(part.len());
                *part = part.get(here..).unwrap_or_default();
                written -= here;
            }
        }
        self.poll_flush(inner, cx)
    }

    pub(super) fn poll_flush(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(inner, cx))?;
        let flushed = Pin::new(inner).poll_flush(cx);
        ready!(self.check_stall(cx, flushed))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_shutdown(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(inner, cx))?;
        let shut = Pin::new(inner).poll_shutdown(cx);
        self.check_stall(cx, shut)
    }

    /// Sends the buffered bytes when the task begins to wait for the caller, so that a head
    /// whose body is slow to arrive is not held back. Does not wait: the task is woken when more
    /// can be written.
    pub(super) fn flush_before_read(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        if !self.coalesce || !self.unflushed {
            return Ok(());
        }
        self.read_polls = self.read_polls.saturating_add(1);
        if self.read_polls < MAX_POLLS && !self.buffered.is_empty() {
            cx.waker().wake_by_ref();
            return Ok(());
        }
        ready_or_ok(self.poll_flush_buffered(inner, cx))
    }

    /// Flushes without resetting `unflushed`, so that further writes are not held back.
    fn poll_flush_buffered(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(inner, cx))?;
        let flushed = Pin::new(inner).poll_flush(cx);
        self.check_stall(cx, flushed)
    }

    /// Returns an error if a write has made no progress for `stall`.
    fn check_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.timer = None;
            return result;
        }
        let stall = self.stall;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

fn ready_or_ok(result: Poll<io::Result<()>>) -> io::Result<()> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}
