//! A connection in memory.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use hyper::rt::{Read, ReadBufCursor, Write};

/// How often a future may return `Pending` before it counts as stuck.
const MAX_POLLS: usize = 10_000;

/// Delivers the inputs one after the other, and then the end of the stream. Discards what is written.
pub struct Memory {
    input: Vec<u8>,
    at: usize,
    next: VecDeque<Vec<u8>>,
    /// Whether the next input has to wait for a write.
    waits: bool,
}

impl Memory {
    /// A connection on which `requests` arrive.
    pub fn to_server(requests: &[u8]) -> Self {
        Self {
            input: requests.to_vec(),
            at: 0,
            next: VecDeque::new(),
            waits: false,
        }
    }

    /// A connection on which one of `responses` arrives for each write, that is, for each request.
    pub fn to_client(responses: &[&[u8]]) -> Self {
        Self {
            input: Vec::new(),
            at: 0,
            next: responses.iter().map(|response| response.to_vec()).collect(),
            waits: true,
        }
    }
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.at == self.input.len() && self.waits {
            return Poll::Pending;
        }
        let length = buffer.remaining().min(self.input.len() - self.at);
        buffer.put_slice(&self.input[self.at..self.at + length]);
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.at == self.input.len()
            && let Some(next) = self.next.pop_front()
        {
            self.input = next;
            self.at = 0;
            self.waits = !self.next.is_empty();
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls `future`, which needs no runtime, until it is ready; `None` if it never is.
pub fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..MAX_POLLS).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}
