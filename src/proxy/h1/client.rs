//! One attempt at an upstream in HTTP/1.

mod pool;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, header};
use pingora::protocols::Stream;
use tokio::io::AsyncWrite;

use super::decode::BodyDecoder;
use super::encode::{WriteError, Writer};
use super::head::{self, InvalidResponse};
use super::read::{HEAD_READ, ReadSize, poll_read};
use super::response_head_end::ResponseHeadEnd;
use crate::gateway::route::Upstream;
use crate::proxy::error::{ErrorKind, RelayError, Retry, Side};
use crate::proxy::head::{InterimLimit, RequestHead, ResponseHead};
pub(in crate::proxy) use pool::Pool;

/// See [`crate::proxy::upstream::Upstream`] for the methods.
pub(in crate::proxy) struct Session {
    /// `None` once it was released.
    stream: Option<Stream>,
    reused: bool,
    origin: Origin,
    writer: Writer,
    /// Why the upstream takes no more of the request. It may have answered before.
    write_error: Option<io::Error>,
    /// The method of the request, which decides whether its response has content.
    method: Method,
    /// Whether the request asked for an upgrade.
    upgrade: bool,
    /// Bytes read and not yet consumed.
    received: BytesMut,
    /// The number of bytes at the beginning of `received` that are decoded content.
    content: usize,
    /// Whether any byte of a response has arrived.
    began: bool,
    head_end: ResponseHeadEnd,
    interim: InterimLimit,
    /// The body of the final response, once its head has arrived.
    body: Option<BodyDecoder>,
    tunnel: bool,
    /// Whether the connection can be used again after the response.
    persistent: bool,
    read_size: ReadSize,
}

/// Where a connection came from, and where it goes if it can be used again.
struct Origin {
    pool: Arc<Pool>,
    upstream: Arc<Upstream>,
    address: SocketAddr,
}

impl Session {
    /// Creates a session on an open connection. `buffer` is empty, and is read into. `reused` says
    /// that the connection has served a request before.
    fn new(stream: Stream, buffer: BytesMut, reused: bool, origin: Origin) -> Self {
        Self {
            stream: Some(stream),
            reused,
            origin,
            writer: Writer::new(),
            write_error: None,
            method: Method::GET,
            upgrade: false,
            received: buffer,
            content: 0,
            began: false,
            head_end: ResponseHeadEnd::default(),
            interim: InterimLimit::default(),
            body: None,
            tunnel: false,
            persistent: false,
            read_size: ReadSize::default(),
        }
    }

    /// Returns the connection to its pool at monotonic time `now` if it can serve another request:
    /// this one was sent, and its response received, completely.
    pub(in crate::proxy) fn release(&mut self, now: Duration) {
        let complete = self.persistent
            && !self.tunnel
            && self.write_error.is_none()
            && self.writer.is_complete()
            && self.received.is_empty()
            && self.body.as_ref().is_some_and(BodyDecoder::is_done);
        let Some(stream) = self.stream.take_if(|_| complete) else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.received);
        if buffer.capacity() > HEAD_READ {
            buffer = BytesMut::new();
        }
        let Origin {
            pool,
            upstream,
            address,
        } = &self.origin;
        pool.put(upstream, *address, (stream, buffer), now);
    }

    pub(in crate::proxy) fn is_reused(&self) -> bool {
        self.reused
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same method as of HTTP/2 sessions"
    )]
    pub(in crate::proxy) fn queue_head(
        &mut self,
        head: &RequestHead,
        target: &str,
    ) -> Result<(), RelayError> {
        self.method = head.method.clone();
        self.upgrade = head.fields.contains(&header::UPGRADE);
        head::encode_request(head, target, self.writer.head());
        self.writer.begin_body(head.body.into());
        Ok(())
    }

    /// An upstream that takes no more may have answered, so that is no error here.
    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), RelayError>> {
        let written = ready!(self.poll_write_all(cx, content, end));
        Poll::Ready(self.after_write(written, content))
    }

    pub(in crate::proxy) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        _trailers: &mut Option<HeaderMap>,
    ) -> Poll<Result<(), RelayError>> {
        ready!(self.poll_write(cx, &mut Bytes::new(), true))?;
        if self.tunnel
            && self.write_error.is_none()
            && let Some(stream) = &mut self.stream
        {
            self.write_error = ready!(Pin::new(stream).poll_shutdown(cx)).err();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        content: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), WriteError>> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.write_error.is_none()) else {
            content.clear();
            return Poll::Ready(Ok(()));
        };
        while !content.is_empty() {
            let taken = self.writer.poll_write(stream, cx, content, end);
            content.advance(ready!(taken)?);
        }
        if end {
            return self.writer.poll_finish(stream, cx);
        }
        self.writer.poll_flush(stream, cx).map_err(Into::into)
    }

    fn after_write(
        &mut self,
        written: Result<(), WriteError>,
        content: &mut Bytes,
    ) -> Result<(), RelayError> {
        match written {
            Ok(()) => Ok(()),
            Err(WriteError::Io(error)) => {
                self.write_error = Some(error);
                content.clear();
                Ok(())
            }
            Err(WriteError::Content) => Err(RelayError::new(
                Side::Gateway,
                ErrorKind::Internal,
                "content differs from what was announced",
            )),
        }
    }

    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, RelayError>> {
        loop {
            if !self.received.is_empty()
                && self.head_end.must_parse(&self.received)
                && let Some(head) = self.parse_head().map_err(invalid_response)?
            {
                return Poll::Ready(Ok(head));
            }
            match ready!(self.poll_read(HEAD_READ, cx)) {
                Ok(0) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(self.read_failed(ErrorKind::Closed, error)));
                }
                Ok(_) => self.began = true,
                Err(error) => {
                    return Poll::Ready(Err(self.read_failed(ErrorKind::ReadFailed, error)));
                }
            }
        }
    }

    fn parse_head(&mut self) -> Result<Option<ResponseHead>, InvalidResponse> {
        let parsed = head::parse_response(&mut self.received, &self.method, self.upgrade)?;
        let Some(response) = parsed else {
            return Ok(None);
        };
        self.head_end = ResponseHeadEnd::default();
        let status = response.head.status;
        self.tunnel = status == http::StatusCode::SWITCHING_PROTOCOLS;
        if self.tunnel || !status.is_informational() {
            self.body = Some(response.body);
            self.persistent = response.persistent;
        } else if !self.interim.count(&response.head) {
            return Err(InvalidResponse("too many interim responses"));
        }
        if self.tunnel {
            self.writer.begin_tunnel();
        }
        Ok(Some(response.head))
    }

    pub(in crate::proxy) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, RelayError>> {
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(Ok(false));
            };
            if self.content == 0 {
                let decoded = body.decode_content(&mut self.received);
                self.content = decoded.map_err(|_| malformed_body())?;
                self.read_size.received(self.content);
            }
            if self.content > 0 {
                return Poll::Ready(Ok(true));
            }
            if body.is_done() {
                return Poll::Ready(Ok(false));
            }
            let size = self.read_size.next(body.left());
            let until_close = *body == BodyDecoder::UntilClose;
            match ready!(self.poll_read(size, cx)) {
                Ok(0) if until_close => self.body = Some(BodyDecoder::Length(0)),
                Ok(0) => {
                    let cause = "connection closed before the end of the body";
                    let error = RelayError::new(Side::Upstream, ErrorKind::Closed, cause);
                    return Poll::Ready(Err(error));
                }
                Ok(_) => {}
                Err(error) => {
                    let error = RelayError::io(Side::Upstream, ErrorKind::ReadFailed, error);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    fn poll_read(&mut self, size: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(stream) => poll_read(stream, &mut self.received, size, cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    pub(in crate::proxy) fn chunk(&self) -> &[u8] {
        self.received.get(..self.content).unwrap_or_default()
    }

    pub(in crate::proxy) fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.content);
        self.received.advance(bytes);
        self.content -= bytes;
    }

    pub(in crate::proxy) fn ends_with_chunk(&self) -> bool {
        self.body.as_ref().is_none_or(BodyDecoder::is_done)
    }

    #[expect(clippy::unused_self, reason = "the same method as of HTTP/2 sessions")]
    pub(in crate::proxy) fn take_trailers(&mut self) -> Option<HeaderMap> {
        None
    }

    /// Creates the error for a response whose head did not arrive. Before its first byte, a
    /// reused connection may have been closed before the request was sent, in which case the
    /// request was not processed.
    fn read_failed(&mut self, kind: ErrorKind, error: io::Error) -> RelayError {
        let (kind, error) = match self.write_error.take() {
            Some(error) if !self.began => (ErrorKind::WriteFailed, error),
            _ => (kind, error),
        };
        let retry = if self.began {
            Retry::Never
        } else {
            Retry::IfReused
        };
        RelayError::io(Side::Upstream, kind, error).retry(retry)
    }
}

fn invalid_response(why: InvalidResponse) -> RelayError {
    RelayError::new(Side::Upstream, ErrorKind::InvalidMessage, why.0)
}

fn malformed_body() -> RelayError {
    let cause = "malformed chunked body";
    RelayError::new(Side::Upstream, ErrorKind::InvalidMessage, cause)
}
