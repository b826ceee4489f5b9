//! The upstream's side of one attempt, in HTTP/1 or HTTP/2.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::error::RelayError;
use super::head::{RequestHead, ResponseHead};
use super::{h1, h2};

/// The upstream's side of one attempt. Reads and writes are independent of each other.
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
