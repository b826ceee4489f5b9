//! One request of a caller in HTTP/1.

#[cfg(test)]
mod tests;

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::connection::Connection;
use super::encode::{BodyFraming, WriteError};
use super::head::{encode_response, set_content_length};
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::head::{BodySize, RequestHead, ResponseHead};
use crate::proxy::validate::Framing;

/// See [`crate::proxy::downstream::Downstream`] for the methods. Bytes after the request stay in
/// the connection, for the next one.
pub(in crate::proxy) struct Session<'c> {
    connection: &'c mut Connection,
}

impl<'c> Session<'c> {
    /// Begins the exchange for `head`, whose body follows.
    pub(super) fn begin(
        connection: &'c mut Connection,
        head: &RequestHead,
        framing: Framing,
    ) -> Self {
        connection.begin(head, framing);
        Self { connection }
    }

    pub(in crate::proxy) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, RelayError>> {
        let connection = &mut *self.connection;
        loop {
            if connection.exchange.malformed {
                return Poll::Ready(Err(malformed_body()));
            }
            match connection.next_piece() {
                Ok(None) => {}
                Ok(piece) => return Poll::Ready(Ok(piece)),
                Err(_) => connection.exchange.malformed = true,
            }
            if connection.is_body_delivered() {
                return Poll::Ready(Ok(None));
            }
            if connection.read_closed {
                return Poll::Ready(Err(caller_error(
                    ErrorKind::Closed,
                    io::ErrorKind::UnexpectedEof.into(),
                )));
            }
            if !connection.exchange.malformed {
                ready!(connection.poll_read_body(cx))
                    .map_err(|error| caller_error(ErrorKind::ReadFailed, error))?;
            }
        }
    }

    pub(in crate::proxy) fn is_body_done(&self) -> bool {
        self.connection.is_body_delivered()
    }

    #[expect(clippy::unused_self, reason = "the same method as of HTTP/2 sessions")]
    pub(in crate::proxy) fn take_trailers(&mut self) -> Option<HeaderMap> {
        None
    }

    pub(in crate::proxy) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.poll_closed(cx).map(drop)
    }

    pub(in crate::proxy) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.connection.poll_closed(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    pub(in crate::proxy) fn queue_interim(
        &mut self,
        head: &ResponseHead,
    ) -> Result<(), RelayError> {
        let exchange = &mut self.connection.exchange;
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if exchange.answered || (switching && !exchange.upgrade) {
            return Err(internal("an interim response that cannot be sent"));
        }
        if exchange.http10 {
            // RFC 9110 §15.2.
            return Ok(());
        }
        encode_response(head, self.connection.writer.head());
        if switching {
            self.connection.exchange.answered = true;
            self.connection.writer.begin_tunnel();
            self.connection.begin_tunnel();
        }
        Ok(())
    }

    pub(in crate::proxy) fn queue_head(
        &mut self,
        mut head: ResponseHead,
        close: bool,
    ) -> Result<(), RelayError> {
        let connection = &mut *self.connection;
        let exchange = &mut connection.exchange;
        if std::mem::replace(&mut exchange.answered, true) || exchange.aborted {
            return Err(internal("a second final response"));
        }
        let bodiless = exchange.head_only || has_no_content(head.status);
        head.fields.remove(&header::TRANSFER_ENCODING);
        if head.status == StatusCode::NO_CONTENT {
            head.fields.remove(&header::CONTENT_LENGTH);
        }
        let framing = match head.body {
            // Without a length, the caller would wait for content.
            BodySize::Empty if !bodiless => {
                set_content_length(&mut head.fields, 0);
                BodyFraming::Length(0)
            }
            BodySize::Known(length) => {
                if !has_no_content(head.status) {
                    set_content_length(&mut head.fields, length);
                }
                BodyFraming::Length(if bodiless { 0 } else { length })
            }
            BodySize::Unknown if !bodiless => {
                head.fields.remove(&header::CONTENT_LENGTH);
                if exchange.http10 {
                    exchange.persistent = false;
                    BodyFraming::UntilClose
                } else {
                    head.fields.set(&header::TRANSFER_ENCODING, b"chunked");
                    BodyFraming::Chunked
                }
            }
            BodySize::Empty | BodySize::Unknown => BodyFraming::Length(0),
        };
        exchange.persistent &= !close;
        if !exchange.persistent {
            head.fields.set(&header::CONNECTION, b"close");
        } else if exchange.http10 {
            head.fields.set(&header::CONNECTION, b"keep-alive");
        }
        encode_response(&head, connection.writer.head());
        connection.writer.begin_body(framing);
        Ok(())
    }

    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &[u8],
        end: bool,
    ) -> Poll<Result<usize, RelayError>> {
        let connection = &mut *self.connection;
        if connection.exchange.aborted || !connection.exchange.answered {
            return Poll::Ready(Err(internal("content without a head")));
        }
        let writer = &mut connection.writer;
        let written = writer.poll_write(&mut connection.stream, cx, content, end);
        written.map_err(write_failed)
    }

    pub(in crate::proxy) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        _trailers: &mut Option<HeaderMap>,
    ) -> Poll<Result<(), RelayError>> {
        self.poll_write(cx, &[], true).map_ok(drop)
    }

    pub(in crate::proxy) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RelayError>> {
        let connection = &mut *self.connection;
        let flushed = connection.writer.poll_flush(&mut connection.stream, cx);
        flushed.map_err(|error| caller_error(ErrorKind::WriteFailed, error))
    }

    pub(in crate::proxy) fn is_answered(&self) -> bool {
        self.connection.exchange.answered
    }

    pub(in crate::proxy) fn abort(&mut self) {
        let connection = &mut *self.connection;
        if !connection.writer.is_complete() {
            connection.exchange.aborted = true;
        }
    }
}

/// Whether responses with this status have no content by definition, nor a length of it (RFC 9110
/// §8.6). A 304 has the length that a 200 would have.
fn has_no_content(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || status.is_informational()
}

fn caller_error(kind: ErrorKind, cause: io::Error) -> RelayError {
    RelayError::io(Side::Caller, kind, cause)
}

fn malformed_body() -> RelayError {
    let cause = "malformed chunked body";
    RelayError::new(Side::Caller, ErrorKind::InvalidMessage, cause)
}

fn write_failed(error: WriteError) -> RelayError {
    match error {
        WriteError::Io(error) => caller_error(ErrorKind::WriteFailed, error),
        WriteError::Content => internal("content differs from what was announced"),
    }
}

fn internal(cause: &'static str) -> RelayError {
    RelayError::new(Side::Gateway, ErrorKind::Internal, cause)
}
