//! How much is read at once. Small reads while a peer may be stalled, so that a stalled exchange
//! holds little memory, and large ones for bodies that make progress.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;

/// Number of bytes read at once for a head, and capacity that an idle buffer may keep.
pub(super) const HEAD_READ: usize = 4 * 1024;
/// Number of bytes read at once at the beginning of a body.
const SMALL_READ: usize = 16 * 1024;
/// Maximum number of bytes read at once.
const LARGE_READ: usize = 64 * 1024;
/// Number of bytes of a body after which its receiver is known to read it: more than the buffers
/// of the kernel hold for a peer that does not read.
const PROVEN: u64 = 4 * 1024 * 1024;

/// Sizes the reads of one body.
#[derive(Debug, Default)]
pub(super) struct ReadSize {
    received: u64,
}

impl ReadSize {
    /// Returns how many bytes to read next, if this number of bytes of the body is left.
    pub(super) fn next(&self, left: Option<u64>) -> usize {
        let left = left.and_then(|left| usize::try_from(left).ok());
        match left {
            Some(left) if left <= LARGE_READ => left.max(1),
            _ if self.received < PROVEN => SMALL_READ,
            _ => LARGE_READ,
        }
    }

    /// Counts a piece of the body.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }
}

/// Reads up to about `size` bytes and appends them to `buffer`. Ready with their number, which is
/// 0 at the end of the stream. Releases a large buffer that stays empty.
pub(super) fn poll_read(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    size: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    buffer.reserve(size);
    let read = pin!(stream.read_buf(buffer)).poll(cx);
    if read.is_pending() && buffer.is_empty() && buffer.capacity() > HEAD_READ {
        *buffer = BytesMut::new();
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_once_a_body_has_made_progress() {
        let mut size = ReadSize::default();
        assert_eq!(size.next(None), SMALL_READ);
        assert_eq!(size.next(Some(100)), 100);
        assert_eq!(size.next(Some(60_000)), 60_000);
        assert_eq!(size.next(Some(1 << 30)), SMALL_READ);
        size.received(usize::try_from(PROVEN).unwrap());
        assert_eq!(size.next(None), LARGE_READ);
        assert_eq!(size.next(Some(1 << 30)), LARGE_READ);
        assert_eq!(size.next(Some(0)), 1);
    }

    #[tokio::test]
    async fn an_empty_buffer_is_released_while_nothing_arrives() {
        let (local, mut peer) = tokio::io::duplex(64);
        let mut stream: Stream = Box::new(local);
        let mut buffer = BytesMut::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(poll_read(&mut stream, &mut buffer, LARGE_READ, &mut cx).is_pending());
        assert_eq!(buffer.capacity(), 0);
        tokio::io::AsyncWriteExt::write_all(&mut peer, b"abc")
            .await
            .unwrap();
        let read = poll_read(&mut stream, &mut buffer, LARGE_READ, &mut cx);
        assert!(matches!(read, Poll::Ready(Ok(3))));
        assert_eq!(&buffer[..], b"abc");
    }
}
