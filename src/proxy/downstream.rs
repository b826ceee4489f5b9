//! The caller's side of one request, in HTTP/1 or HTTP/2.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::error::RelayError;
use super::head::ResponseHead;
use super::{h1, h2};

/// The caller's side of one request. Reads and writes are independent of each other, so that a
/// body can be received while a response is sent. No method waits longer than the caller does:
/// the relay keeps the time.
pub(super) enum Downstream<'c> {
    H1(h1::session::Session<'c>),
    H2(Box<h2::session::Session>),
}

macro_rules! each {
    ($self:expr, $session:ident => $call:expr) => {
        match $self {
            Downstream::H1($session) => $call,
            Downstream::H2($session) => $call,
        }
    };
}

impl Downstream<'_> {
    /// Polls for the next piece of the request body, which is not empty. `None` once the body is
    /// complete. HTTP/2 flow-control capacity is released when the piece after it is asked for.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, RelayError>> {
        each!(self, s => s.poll_body(cx))
    }

    /// Whether [`Self::poll_body`] has returned `None`, or would without reading.
    pub(super) fn is_body_done(&self) -> bool {
        each!(self, s => s.is_body_done())
    }

    /// Takes the trailers after the end of the body: of HTTP/2 only, because those of HTTP/1 are
    /// dropped (RFC 9110 §6.5.1).
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        each!(self, s => s.take_trailers())
    }

    /// Ready once the caller has disconnected or reset the stream. Must be polled whenever the
    /// relay waits for the upstream.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        each!(self, s => s.poll_gone(cx))
    }

    /// Ready once the caller can neither send nor receive. Unlike after [`Self::poll_gone`], a caller
    /// that has only ended its side of an upgraded connection is not lost.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        each!(self, s => s.poll_lost(cx))
    }

    /// Queues an interim response (1xx), unless the caller's version has none (HTTP/1.0).
    /// [`Self::poll_flush`] sends it. A 101 in HTTP/1.1 turns the session into a tunnel:
    /// from then on `poll_body` and `poll_write` transfer bytes as they are.
    ///
    /// # Errors
    /// If the stream has failed.
    pub(super) fn queue_interim(&mut self, head: &ResponseHead) -> Result<(), RelayError> {
        each!(self, s => s.queue_interim(head))
    }

    /// Queues the head of the final response. Adds the fields that frame `head.body` for the
    /// caller's version. `close` announces that the connection closes after it.
    ///
    /// # Errors
    /// If the stream has failed.
    pub(super) fn queue_head(&mut self, head: ResponseHead, close: bool) -> Result<(), RelayError> {
        each!(self, s => s.queue_head(head, close))
    }

    /// Writes what is queued, and then content from the beginning of `content`. Ready with the
    /// number of its bytes that were taken, which is not 0 unless `content` is empty. `end` says
    /// that the body ends with `content`, so that its end can be sent with it; then all of it
    /// being taken ends the response.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &[u8],
        end: bool,
    ) -> Poll<Result<usize, RelayError>> {
        each!(self, s => s.poll_write(cx, content, end))
    }

    /// Ends the response, if it has not ended yet, with these trailers, and flushes.
    ///
    /// # Errors
    /// If less content was written than announced.
    pub(super) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Option<HeaderMap>,
    ) -> Poll<Result<(), RelayError>> {
        each!(self, s => s.poll_finish(cx, trailers))
    }

    /// Writes what is queued.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        each!(self, s => s.poll_flush(cx))
    }

    /// Whether a final response head was queued, so that no other can be sent.
    pub(super) fn is_answered(&self) -> bool {
        each!(self, s => s.is_answered())
    }

    /// Gives the response up: what was sent so far must not look complete to the caller.
    pub(super) fn abort(&mut self) {
        each!(self, s => s.abort());
    }
}
