//! One request of a caller: an HTTP/2 stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response, StatusCode, header};

use super::fields::is_connection_specific;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::head::{BodySize, ResponseHead};

/// See [`crate::proxy::downstream::Downstream`] for the methods. Nothing is handed to the
/// connection beyond what the caller's flow-control windows admit, so a response that the caller
/// does not read is held here only as far as the windows that it gave.
pub(in crate::proxy) struct Session {
    body: RecvStream,
    /// The length of the last piece, whose flow-control capacity has not been released yet.
    unreleased: usize,
    body_done: bool,
    trailers: Option<HeaderMap>,
    respond: SendResponse<Bytes>,
    /// Interim responses that are queued.
    interim: Vec<Response<()>>,
    /// The final head while it is queued, and whether no content can follow it. It is not sent
    /// at once because it ends the stream if there is no content.
    head: Option<(Response<()>, bool)>,
    /// The response's content, once its head has been sent.
    content: Option<SendStream<Bytes>>,
    /// The number of bytes of content to come, if it was announced.
    left: Option<u64>,
    answered: bool,
    /// Whether the end of the response, or a reset, was sent.
    ended: bool,
    truncated: Truncated,
}

/// The responses of a connection that were given up after their heads. They are reset once what was
/// sent of them has been written, because a reset discards what has not.
#[derive(Clone, Default)]
pub(super) struct Truncated(Arc<Mutex<Vec<SendStream<Bytes>>>>);

impl Truncated {
    /// Resets the streams. Returns whether there were any.
    pub(super) fn reset(&self) -> bool {
        let streams = std::mem::take(&mut *self.streams());
        let any = !streams.is_empty();
        for mut stream in streams {
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        any
    }

    fn streams(&self) -> MutexGuard<'_, Vec<SendStream<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(super) fn new(
        body: RecvStream,
        respond: SendResponse<Bytes>,
        truncated: Truncated,
    ) -> Self {
        Self {
            body_done: body.is_end_stream(),
            body,
            unreleased: 0,
            trailers: None,
            respond,
            interim: Vec::new(),
            head: None,
            content: None,
            left: None,
            answered: false,
            ended: false,
            truncated,
        }
    }

    pub(in crate::proxy) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, RelayError>> {
        if self.unreleased > 0 {
            let piece = std::mem::take(&mut self.unreleased);
            // Fails only if more is released than was received.
            let _ = self.body.flow_control().release_capacity(piece);
        }
        while !self.body_done {
            match ready!(self.body.poll_data(cx)) {
                // The empty frame that ends the stream.
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.unreleased = piece.len();
                    return Poll::Ready(Ok(Some(piece)));
                }
                Some(Err(error)) => return Poll::Ready(Err(caller_error(error))),
                None => {
                    self.trailers = ready!(self.body.poll_trailers(cx)).map_err(caller_error)?;
                    self.body_done = true;
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    pub(in crate::proxy) fn is_body_done(&self) -> bool {
        self.body_done || self.body.is_end_stream()
    }

    pub(in crate::proxy) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    pub(in crate::proxy) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.content {
            Some(content) => content.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        // An error means that the connection has failed.
        reset.map(drop)
    }

    pub(in crate::proxy) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_gone(cx)
    }

    pub(in crate::proxy) fn queue_interim(
        &mut self,
        head: &ResponseHead,
    ) -> Result<(), RelayError> {
        // RFC 9113 §8.6: a connection that carries other streams cannot be switched.
        if head.status == StatusCode::SWITCHING_PROTOCOLS || self.answered {
            return Err(internal("an interim response that cannot be sent"));
        }
        self.interim.push(response(head)?);
        Ok(())
    }

    #[allow(clippy::needless_pass_by_value)] // The same signature as in HTTP/1.
    pub(in crate::proxy) fn queue_head(
        &mut self,
        head: ResponseHead,
        _close: bool,
    ) -> Result<(), RelayError> {
        if std::mem::replace(&mut self.answered, true) {
            return Err(internal("a second final response"));
        }
        let mut response = response(&head)?;
        if let BodySize::Known(length) = head.body {
            self.left = Some(length);
            let fields = response.headers_mut();
            // END_STREAM says that there is no content. In a gRPC response of trailers only, the field
            // would count as one of them.
            if length > 0 && !fields.contains_key(header::CONTENT_LENGTH) {
                fields.insert(header::CONTENT_LENGTH, length.into());
            }
        }
        self.head = Some((response, head.body == BodySize::Empty));
        Ok(())
    }

    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &[u8],
        end: bool,
    ) -> Poll<Result<usize, RelayError>> {
        let length = content.len() as u64;
        let fits = self
            .left
            .is_none_or(|left| if end { left == length } else { left >= length });
        if !fits {
            self.abort();
            return Poll::Ready(Err(internal("content differs from its length")));
        }
        let ends_here = content.is_empty() && end;
        ready!(self.poll_send_heads(cx, ends_here))?;
        if self.ended || (content.is_empty() && !end) {
            return Poll::Ready(if content.is_empty() {
                Ok(0)
            } else {
                Err(internal("content after the end of a response"))
            });
        }
        let Some(stream) = &mut self.content else {
            return Poll::Ready(Err(internal("content before a head")));
        };
        let admitted = if ends_here {
            0
        } else {
            ready!(poll_capacity(stream, content.len(), cx)).map_err(caller_error)?
        };
        let part = content.get(..admitted).unwrap_or(content);
        let ends_here = end && part.len() == content.len();
        let sent = stream.send_data(Bytes::copy_from_slice(part), ends_here);
        sent.map_err(caller_error)?;
        self.ended = ends_here;
        if let Some(left) = &mut self.left {
            *left -= part.len() as u64;
        }
        Poll::Ready(Ok(part.len()))
    }

    pub(in crate::proxy) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Option<HeaderMap>,
    ) -> Poll<Result<(), RelayError>> {
        if self.left.is_some_and(|left| left > 0) {
            self.abort();
            return Poll::Ready(Err(internal("content shorter than its length")));
        }
        ready!(self.poll_send_heads(cx, trailers.is_none()))?;
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = &mut self.content else {
            return Poll::Ready(Err(internal("the end of a response without a head")));
        };
        let sent = match trailers.take() {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        self.ended = true;
        Poll::Ready(sent.map_err(caller_error))
    }

    /// Hands what is queued to the connection. The windows do not apply to heads.
    pub(in crate::proxy) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RelayError>> {
        self.poll_send_heads(cx, false)
    }

    pub(in crate::proxy) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Resets the stream, unless the response was complete.
    pub(in crate::proxy) fn abort(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.answered = true;
            self.head = None;
            match self.content.take() {
                Some(content) => self.truncated.streams().push(content),
                None => self.respond.send_reset(Reason::INTERNAL_ERROR),
            }
        }
    }

    /// Sends the heads that are queued. With `end`, the final one ends the response.
    fn poll_send_heads(&mut self, cx: &mut Context<'_>, end: bool) -> Poll<Result<(), RelayError>> {
        if !self.interim.is_empty() {
            // `h2` would send them on a stream that was reset.
            if self.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(gone()));
            }
            for head in self.interim.drain(..) {
                self.respond
                    .send_informational(head)
                    .map_err(caller_error)?;
            }
        }
        if let Some((head, is_all)) = self.head.take() {
            let end = end || is_all;
            let content = self.respond.send_response(head, end);
            self.content = Some(content.map_err(caller_error)?);
            self.ended = end;
        }
        Poll::Ready(Ok(()))
    }
}

/// Waits until the windows of the stream and its connection admit content, of which there are
/// `wanted` bytes. Ready with the number of bytes that may be sent, which is not 0. Reserves no
/// more than that, so that streams do not keep each other from sending.
pub(super) fn poll_capacity(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, h2::Error>> {
    stream.reserve_capacity(wanted.min(super::SEND_BUFFER));
    loop {
        let admitted = stream.capacity().min(wanted);
        if admitted > 0 {
            return Poll::Ready(Ok(admitted));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => {
                // The stream was reset, or the connection has failed.
                return match stream.poll_reset(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Ready(Ok(reason)) => Poll::Ready(Err(reason.into())),
                    Poll::Pending => Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                };
            }
        }
    }
}

/// Converts a head. Fields that concern the connection have no meaning in HTTP/2 (RFC 9113
/// §8.2.2).
fn response(head: &ResponseHead) -> Result<Response<()>, RelayError> {
    let bodiless = head.status.is_informational() || head.status == StatusCode::NO_CONTENT;
    let fields = head.fields.to_map(|name, value| {
        let dropped = is_connection_specific(name, value);
        !dropped && (!bodiless || name != "content-length")
    });
    let invalid = |_| RelayError::new(Side::Upstream, ErrorKind::InvalidMessage, "invalid field");
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = fields.map_err(invalid)?;
    Ok(response)
}

fn internal(cause: &'static str) -> RelayError {
    RelayError::new(Side::Gateway, ErrorKind::Internal, cause)
}

fn gone() -> RelayError {
    RelayError::new(Side::Caller, ErrorKind::Closed, "stream reset")
}

/// Classifies an error of the caller's stream.
fn caller_error(error: h2::Error) -> RelayError {
    if error.is_library() {
        // For example content that differs from its length: `h2` has reset the stream.
        return RelayError::because(Side::Caller, ErrorKind::InvalidMessage, error);
    }
    match error.into_io() {
        Some(error) => RelayError::io(Side::Caller, ErrorKind::Closed, error),
        None => gone(),
    }
}
