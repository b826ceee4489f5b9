//! One attempt at an upstream in HTTP/2: a stream.

mod head;
mod pool;
#[cfg(test)]
mod tests;

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request};

use super::session::poll_capacity;
use crate::proxy::error::{ErrorKind, RelayError, Retry, Side};
use crate::proxy::head::{BodySize, InterimLimit, RequestHead, ResponseHead};
pub(in crate::proxy) use pool::Pool;
use pool::Slot;

/// See [`crate::proxy::upstream::Upstream`] for the methods. A write does not fail because the
/// upstream has reset the stream or the connection is lost: an upstream may answer without the
/// rest of the request (RFC 9113 §8.1), and whether it did is found when the response is read.
pub(in crate::proxy) struct Session {
    reused: bool,
    method: Method,
    /// The head while it is queued. It is not sent at once because it ends the stream if there
    /// is no content.
    queued: Option<Request<()>>,
    response: Option<ResponseFuture>,
    content: Option<SendStream<Bytes>>,
    /// Whether the end of the request was sent, or the upstream does not want the rest.
    ended: bool,
    interim: InterimLimit,
    body: Option<RecvStream>,
    chunk: Bytes,
    body_done: bool,
    trailers: Option<HeaderMap>,
    /// Holds the stream's place on its connection. Dropped last.
    slot: Slot,
}

impl Session {
    fn new(slot: Slot, reused: bool) -> Self {
        Self {
            reused,
            method: Method::GET,
            queued: None,
            response: None,
            content: None,
            ended: false,
            interim: InterimLimit::default(),
            body: None,
            chunk: Bytes::new(),
            body_done: false,
            trailers: None,
            slot,
        }
    }

    pub(in crate::proxy) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(in crate::proxy) fn queue_head(
        &mut self,
        head: &RequestHead,
        target: &str,
    ) -> Result<(), RelayError> {
        self.method = head.method.clone();
        let request = head::request(head, target, self.slot.scheme())?;
        self.queued = Some(request);
        if head.body == BodySize::Empty {
            self.send_head(true)?;
        }
        Ok(())
    }

    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), RelayError>> {
        self.send_head(content.is_empty() && end)?;
        while !self.ended && (end || !content.is_empty()) {
            let Some(stream) = &mut self.content else {
                return Poll::Ready(Err(internal("content before a head")));
            };
            let mut admitted = 0;
            if !content.is_empty() {
                let Ok(capacity) = ready!(poll_capacity(stream, content.len(), cx)) else {
                    self.ended = true;
                    break;
                };
                admitted = capacity;
            }
            let part = content.split_to(admitted);
            let ends_here = end && content.is_empty();
            let sent = stream.send_data(part, ends_here);
            self.ended = ends_here || sent.is_err();
        }
        content.clear();
        Poll::Ready(Ok(()))
    }

    pub(in crate::proxy) fn poll_finish(
        &mut self,
        _cx: &mut Context<'_>,
        trailers: &mut Option<HeaderMap>,
    ) -> Poll<Result<(), RelayError>> {
        self.send_head(trailers.is_none())?;
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = &mut self.content else {
            return Poll::Ready(Err(internal("the end of a request without a head")));
        };
        // If this fails, the reason is found when the response is read.
        let _ = match trailers.take() {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        self.ended = true;
        Poll::Ready(Ok(()))
    }

    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, RelayError>> {
        self.send_head(false)?;
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(internal("a response before its request")));
        };
        let interim = ready!(response.poll_informational(cx));
        self.slot.heard();
        if let Some(interim) = interim {
            let interim = interim.map_err(|error| self.unanswered(error))?;
            let head = head::interim(&interim)?;
            if !self.interim.count(&head) {
                return Poll::Ready(Err(invalid("too many interim responses")));
            }
            return Poll::Ready(Ok(head));
        }
        let polled = ready!(std::pin::Pin::new(response).poll(cx));
        self.response = None;
        let (parts, body) = polled.map_err(|error| self.unanswered(error))?.into_parts();
        let ended = body.is_end_stream();
        self.body_done = ended;
        self.body = Some(body);
        Poll::Ready(head::response(&parts, &self.method, ended))
    }

    pub(in crate::proxy) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, RelayError>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(internal("a body before its head")));
        };
        while self.chunk.is_empty() && !self.body_done {
            match ready!(body.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    self.slot.heard();
                    self.chunk = chunk;
                }
                Some(Err(error)) => return Poll::Ready(Err(upstream_error(error))),
                None => {
                    let trailers = ready!(body.poll_trailers(cx));
                    self.trailers = trailers.map_err(upstream_error)?;
                    self.body_done = true;
                }
            }
        }
        Poll::Ready(Ok(!self.chunk.is_empty()))
    }

    pub(in crate::proxy) fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    pub(in crate::proxy) fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.chunk.len());
        self.chunk.advance(bytes);
        if let Some(body) = &mut self.body {
            // Fails only if more is released than was received.
            let _ = body.flow_control().release_capacity(bytes);
        }
    }

    /// `h2` reports the end only after `END_STREAM`, and only if no trailers are waiting.
    pub(in crate::proxy) fn ends_with_chunk(&self) -> bool {
        let ended = self.body.as_ref().is_some_and(RecvStream::is_end_stream);
        (self.body_done && self.trailers.is_none()) || ended
    }

    pub(in crate::proxy) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Sends the head if it is queued. With `end`, it ends the request.
    fn send_head(&mut self, end: bool) -> Result<(), RelayError> {
        let Some(request) = self.queued.take() else {
            return Ok(());
        };
        let (response, content) = self.slot.send_request(request, end).map_err(not_sent)?;
        self.response = Some(response);
        self.content = Some(content);
        self.ended = end;
        Ok(())
    }

    /// Classifies an error before the final response: which retry is allowed.
    fn unanswered(&self, error: h2::Error) -> RelayError {
        let retry = match error.reason() {
            Some(Reason::HTTP_1_1_REQUIRED) if !error.is_library() => Retry::WithHttp1,
            // The stream is one of those that GOAWAY excludes.
            Some(Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => Retry::Unprocessed,
            Some(Reason::REFUSED_STREAM) if !error.is_library() => Retry::Unprocessed,
            None if error.is_io() && self.interim.is_unused() => Retry::IfReused,
            _ => Retry::Never,
        };
        upstream_error(error).retry(retry)
    }
}

/// Classifies an error of the upstream's stream or connection.
fn upstream_error(error: h2::Error) -> RelayError {
    if error.is_library() {
        // `h2` has found a violation of the protocol.
        return RelayError::because(Side::Upstream, ErrorKind::InvalidMessage, error);
    }
    let (side, kind) = (Side::Upstream, ErrorKind::Closed);
    match error.into_io() {
        Some(error) => RelayError::io(side, kind, error),
        None => RelayError::new(side, kind, "stream reset"),
    }
}

/// Classifies the error of a request of which nothing was sent. If its connection is being closed,
/// any other will do.
fn not_sent(error: h2::Error) -> RelayError {
    if error.is_io() || error.is_go_away() {
        return upstream_error(error).retry(Retry::Unprocessed);
    }
    internal("a head that cannot be sent in HTTP/2")
}

fn invalid(cause: &'static str) -> RelayError {
    RelayError::new(Side::Upstream, ErrorKind::InvalidMessage, cause)
}

fn internal(cause: &'static str) -> RelayError {
    RelayError::new(Side::Gateway, ErrorKind::Internal, cause)
}
