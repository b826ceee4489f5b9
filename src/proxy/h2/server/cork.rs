//! Collects what is written in one turn of a connection's task. `h2` writes each DATA frame of 256
//! bytes or more on its own, so that responses which become ready together would each cost a system
//! call and, with TLS, a record.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum number of bytes that are collected.
const CAPACITY: usize = 16 * 1024;
/// Writes of more bytes than this are not copied.
const MAX_COPIED: usize = 4 * 1024;
/// Maximum number of slices of a vectored write, besides what was collected.
const MAX_SLICES: usize = 3;

/// A stream that is shared by `h2`, which reads and writes, and by the connection's task, which
/// flushes at the end of each turn. Only this task uses it, so its lock is never contended.
pub(super) struct Cork<I>(Arc<Mutex<State<I>>>);

struct State<I> {
    inner: I,
    collected: BytesMut,
    /// Whether flushing is left to [`Cork::poll_flush_turn`].
    corked: bool,
}

impl<I> Clone for Cork<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I> Cork<I> {
    /// Wraps `inner`. Nothing is held back until [`Self::cork`].
    pub(super) fn new(inner: I) -> Self {
        Self(Arc::new(Mutex::new(State {
            inner,
            collected: BytesMut::new(),
            corked: false,
        })))
    }

    /// From now on, [`Self::poll_flush_turn`] has to be called at the end of each turn.
    pub(super) fn cork(&self) {
        self.state().corked = true;
    }

    fn state(&self) -> MutexGuard<'_, State<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: AsyncWrite + Unpin> Cork<I> {
    /// Writes what was collected, and flushes.
    pub(super) fn poll_flush_turn(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state().poll_flush(cx)
    }
}

impl<I: AsyncWrite + Unpin> State<I> {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.collected.is_empty() {
            let written = Pin::new(&mut self.inner).poll_write(cx, &self.collected);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.collected.advance(written),
            }
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = data.iter().map(|slice| slice.len()).sum();
        let copies = length <= MAX_COPIED && self.collected.len() + length <= CAPACITY;
        if copies && self.corked {
            for slice in data {
                self.collected.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(length));
        }
        loop {
            let before = self.collected.len();
            let mut slices = [IoSlice::new(&[]); MAX_SLICES + 1];
            let (first, rest) = slices.split_at_mut(1);
            first.fill(IoSlice::new(&self.collected));
            for (slot, slice) in rest.iter_mut().zip(data) {
                *slot = IoSlice::new(slice);
            }
            let written = Pin::new(&mut self.inner).poll_write_vectored(cx, &slices);
            let written = ready!(written)?;
            if written == 0 && length > 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.collected.advance(written.min(before));
            if written > before || length == 0 {
                return Poll::Ready(Ok(written.saturating_sub(before)));
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Cork<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state().inner).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Cork<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.state().poll_write(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.state().poll_write(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.state().inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.corked {
            return Poll::Ready(Ok(()));
        }
        state.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        ready!(state.poll_flush(cx))?;
        Pin::new(&mut state.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn small_writes_of_a_turn_are_collected_and_sent_in_order() {
        let (io, mut peer) = duplex(64 * 1024);
        let mut cork = Cork::new(io);
        cork.write_all(b"preface ").await.unwrap();
        cork.flush().await.unwrap();
        cork.cork();
        let mut received = [0; 8];
        peer.read_exact(&mut received).await.unwrap();
        for part in [&b"one "[..], b"two "] {
            cork.write_all(part).await.unwrap();
            cork.flush().await.unwrap();
        }
        let mut early = [0; 1];
        assert!(peer.read(&mut early).now_or_never().is_none(), "held back");
        let large = vec![b'x'; MAX_COPIED + 1];
        cork.write_all(&large).await.unwrap();
        cork.write_all(b" three").await.unwrap();
        poll_fn(|cx| cork.poll_flush_turn(cx)).await.unwrap();
        let expected = [b"one two ", &large[..], b" three"].concat();
        let mut received = vec![0; expected.len()];
        peer.read_exact(&mut received).await.unwrap();
        assert_eq!(received, expected);
    }

    #[tokio::test]
    async fn a_slow_peer_limits_what_is_collected_and_loses_nothing() {
        let (io, mut peer) = duplex(100);
        let mut cork = Cork::new(io);
        cork.cork();
        let data: Vec<u8> = (0..60_000_u32).flat_map(u32::to_be_bytes).collect();
        let sent = data.clone();
        let sending = async move {
            for part in sent.chunks(1000) {
                cork.write_all(part).await.unwrap();
                assert!(cork.state().collected.len() <= CAPACITY);
            }
            cork.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let ((), read) = tokio::join!(sending, peer.read_to_end(&mut received));
        read.unwrap();
        assert!(received == data);
    }
}
