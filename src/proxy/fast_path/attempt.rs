//! Sends the request upstream and forwards the response, in as many attempts as necessary.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::{StatusCode, header};
use pingora::protocols::Stream;
use pingora::{Error, ErrorType, Result, RetryType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::request::RequestHead;
use super::response::{InvalidResponse, ResponseBody, ResponseHead};
use super::{Caller, FastPath, SentResponse, send};
use crate::gateway::route::Upstream;
use crate::gateway::{Admission, UnauthorizedResponse};
use crate::proxy::context::Context;
use crate::proxy::deadline::Deadline;
use crate::proxy::error::ErrorKind;
use crate::proxy::hooks::{self, ATTEMPTS};
use crate::proxy::local_response;
use crate::proxy::transport::Transport;

/// Capacity for the first read of a response, into which most heads and many bodies fit.
const HEAD_READ_CAPACITY: usize = 4 * 1024;
/// Capacity into which most response heads fit.
const HEAD_CAPACITY: usize = 1024;
/// Capacity for each further read.
pub(super) const READ_CAPACITY: usize = 32 * 1024;

/// A connection to an upstream, with the bytes that have been read and not yet forwarded.
pub(super) struct UpstreamConn {
    stream: Stream,
    pub(super) received: BytesMut,
    /// Whether the buffer has grown too large to be kept in the pool.
    oversized: bool,
    upstream: Arc<Upstream>,
    address: SocketAddr,
    /// Whether the connection was taken from the pool.
    reused: bool,
}

impl FastPath {
    /// Sends the request upstream, retrying if necessary, and forwards the response.
    pub(super) async fn forward(
        &self,
        caller: &mut Caller<'_>,
        context: &mut Context,
        request: &mut RequestHead,
        sent: &mut SentResponse,
    ) -> Result<()> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(caller, context, request, sent).await {
                Ok(()) => return Ok(()),
                Err(error) if error.retry() && attempts < ATTEMPTS => {}
                Err(error) => return self.fail(caller, context, request, error, sent).await,
            }
        }
    }

    async fn attempt(
        &self,
        caller: &mut Caller<'_>,
        context: &mut Context,
        request: &mut RequestHead,
        sent: &mut SentResponse,
    ) -> Result<()> {
        let times = &mut context.times;
        // The first attempt begins right after admission.
        let now = match (times.upstream, times.admitted) {
            (None, Some(admitted)) => admitted,
            _ => self.hooks.clock.monotonic(),
        };
        times.upstream.get_or_insert(now);
        context.attempts.replaying = false;
        let mut conn = self.connect(caller.worker, context, now).await?;
        let wire = encode_signed(context, request)?;
        let result = self
            .exchange(caller, context, request, sent, &mut conn, &wire)
            .await;
        match result {
            Ok(persistent) => {
                let now = self.hooks.clock.monotonic();
                context.times.ended = Some(now);
                if persistent && conn.received.is_empty() {
                    self.return_to_pool(caller.worker, conn, now);
                }
                Ok(())
            }
            Err(error) => Err(hooks::after_failed_attempt(
                &request.method,
                sent.head_sent,
                context,
                error,
                conn.reused,
            )),
        }
    }

    async fn connect(
        &self,
        worker: usize,
        context: &mut Context,
        now: Duration,
    ) -> Result<UpstreamConn> {
        let (upstream, address) = self.hooks.choose_address(context, now).await?;
        let pooled = self
            .pool(worker)
            .and_then(|pool| pool.take(&upstream, address, now));
        let reused = pooled.is_some();
        let (stream, received) = if let Some(pooled) = pooled {
            pooled
        } else {
            let stream = self.open(&upstream, address, context).await?;
            (stream, BytesMut::new())
        };
        Ok(UpstreamConn {
            stream,
            received,
            oversized: false,
            upstream,
            address,
            reused,
        })
    }

    async fn open(
        &self,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        context: &mut Context,
    ) -> Result<Stream> {
        let connected = if upstream.tls {
            let peer = self.hooks.peer(upstream, address, false, context)?;
            self.connector.new_stream(&peer).await
        } else {
            let connected = Transport::connect(address, upstream.timeouts.connect).await;
            connected
                .map(|transport| Box::new(transport) as Stream)
                .map_err(|error| {
                    let kind = match error.kind {
                        ErrorKind::ConnectTimeout => ErrorType::ConnectTimedout,
                        ErrorKind::ConnectRefused => ErrorType::ConnectRefused,
                        ErrorKind::NoRoute => ErrorType::ConnectNoRoute,
                        _ => ErrorType::ConnectError,
                    };
                    Error::explain(kind, error.describe())
                })
        };
        connected.map_err(|mut error| {
            error.as_up();
            self.hooks
                .after_failed_connect(Some(address), context, error)
        })
    }

    fn return_to_pool(&self, worker: usize, conn: UpstreamConn, now: Duration) {
        if let Some(pool) = self.pool(worker) {
            let buffer = if conn.oversized {
                BytesMut::new()
            } else {
                conn.received
            };
            pool.put(&conn.upstream, conn.address, (conn.stream, buffer), now);
        }
    }

    /// Sends one request and forwards its response. Returns whether the connection can be
    /// reused.
    async fn exchange(
        &self,
        caller: &mut Caller<'_>,
        context: &mut Context,
        request: &RequestHead,
        sent: &mut SentResponse,
        conn: &mut UpstreamConn,
        wire: &[u8],
    ) -> Result<bool> {
        conn.send(caller.deadline, wire).await?;
        let mut out = BytesMut::new();
        let mut head = loop {
            let mut head = conn.read_head(caller).await?;
            if !head.status.is_informational() {
                break head;
            }
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(invalid_response(InvalidResponse(
                    "101 response without an upgrade request",
                )));
            }
            head.remove_echoed_reason(&context.sent);
            hooks::sanitize_response(
                &mut head.fields,
                head.status,
                request.target().as_bytes(),
                context,
            )?;
            head.encode(&mut out);
            send(caller.connection, [&out, &[]]).await?;
            sent.code = head.status.as_u16();
            out.clear();
        };
        let body = head.body(&request.method);
        if head.status == StatusCode::UNAUTHORIZED {
            let target = request.target();
            let scopes_refused = context.depends_on_body(target)
                && conn.is_scopes_refusal(caller, &head, &body).await?;
            let response = UnauthorizedResponse {
                date: hooks::date(&head.fields),
                target,
                scopes_refused,
            };
            self.hooks.recover(response, context).await?;
        } else {
            context.accepted();
        }
        self.finalize_head(caller, context, request, sent, &mut head, &body)?;
        out.reserve(HEAD_CAPACITY);
        head.encode(&mut out);
        sent.code = head.status.as_u16();
        conn.forward_body(caller, body, out, sent).await?;
        Ok(head.persistent)
    }

    /// Completes a response head for the caller.
    fn finalize_head(
        &self,
        caller: &Caller<'_>,
        context: &mut Context,
        request: &RequestHead,
        sent: &mut SentResponse,
        head: &mut ResponseHead,
        body: &ResponseBody,
    ) -> Result<()> {
        let target = request.target().as_bytes();
        head.remove_echoed_reason(&context.sent);
        hooks::sanitize_response(&mut head.fields, head.status, target, context)?;
        if body.is_chunked() {
            head.fields.set(&header::TRANSFER_ENCODING, b"chunked");
        }
        if !head.fields.contains(&header::DATE) {
            // A recipient that forwards a response without a Date adds one (RFC 9110 §6.6.1).
            let date = local_response::date(self.hooks.clock.now());
            head.fields.set(&header::DATE, date.as_bytes());
        }
        sent.last |= caller.signal.is_draining();
        if sent.last {
            head.fields.set(&header::CONNECTION, b"close");
        }
        Ok(())
    }
}

/// Encodes the request for this attempt, with its credential.
fn encode_signed(context: &mut Context, request: &mut RequestHead) -> Result<BytesMut> {
    hooks::prepare_request(&mut request.fields, false, context)?;
    let rewritten = context.admission.as_ref().and_then(Admission::target);
    let rewritten = rewritten.map(str::to_owned);
    let target = rewritten.as_deref().unwrap_or(request.target());
    if let Some(credential) = hooks::credential_header(&request.method, target, context)? {
        request
            .fields
            .set(&credential.name, credential.value.as_bytes());
        context.sent.record(credential);
    }
    let target = rewritten.as_deref().unwrap_or(request.target());
    Ok(request.encode(target))
}

impl UpstreamConn {
    async fn send(&mut self, deadline: &mut Deadline, wire: &[u8]) -> Result<()> {
        let limit = self.upstream.timeouts.write;
        let stream = &mut self.stream;
        let sending = async {
            stream.write_all(wire).await?;
            stream.flush().await
        };
        match deadline.within(limit, sending).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(connection_error(ErrorType::WriteError, error, true)),
            None => Err(Error::explain(ErrorType::WriteTimedout, "sending a request").into_up()),
        }
    }

    /// Reads the next response head.
    async fn read_head(&mut self, caller: &mut Caller<'_>) -> Result<ResponseHead> {
        loop {
            if !self.received.is_empty()
                && let Some(head) =
                    ResponseHead::parse(&mut self.received).map_err(invalid_response)?
            {
                return Ok(head);
            }
            let untouched = self.received.is_empty();
            self.oversized |= !untouched;
            match self.read(caller, HEAD_READ_CAPACITY).await {
                Ok(0) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Err(connection_error(
                        ErrorType::ConnectionClosed,
                        error,
                        untouched,
                    ));
                }
                Ok(_) => {}
                Err(mut error) => {
                    // An upstream that has sent part of a response may have processed the
                    // request.
                    if !untouched {
                        error.set_retry(false);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Reads the available bytes and returns their number, which is 0 once the upstream has
    /// closed the connection. Fails on the upstream's read timeout, or if the caller disconnects
    /// in the meantime.
    pub(super) async fn read(&mut self, caller: &mut Caller<'_>, capacity: usize) -> Result<usize> {
        self.received.reserve(capacity);
        caller.deadline.set(self.upstream.timeouts.read);
        let mut reading = pin!(self.stream.read_buf(&mut self.received));
        let first = poll_fn(|cx| {
            if let Poll::Ready(read) = reading.as_mut().poll(cx) {
                return Poll::Ready(ReadEvent::Read(read));
            }
            if caller.connection.poll_closed(cx).is_ready() {
                return Poll::Ready(ReadEvent::CallerGone);
            }
            caller.deadline.poll(cx).map(|()| ReadEvent::Deadline)
        });
        match first.await {
            ReadEvent::Read(Ok(read)) => Ok(read),
            ReadEvent::Read(Err(error)) => Err(connection_error(ErrorType::ReadError, error, true)),
            ReadEvent::CallerGone => Err(Error::explain(
                ErrorType::ConnectionClosed,
                "the caller disconnected",
            )
            .into_down()),
            ReadEvent::Deadline => {
                Err(Error::explain(ErrorType::ReadTimedout, "reading a response").into_up())
            }
        }
    }

    /// Sends `out`, which contains the response head, and forwards the body as it arrives.
    async fn forward_body(
        &mut self,
        caller: &mut Caller<'_>,
        mut body: ResponseBody,
        mut out: BytesMut,
        sent: &mut SentResponse,
    ) -> Result<()> {
        loop {
            // A body that needs no framing is sent from the read buffer.
            let plain = match body {
                ResponseBody::Length(left) if caller.connection.supports_vectored_write() => left,
                _ => 0,
            };
            let plain = usize::try_from(plain).unwrap_or(usize::MAX);
            let plain = plain.min(self.received.len());
            let forwarded = if plain > 0 {
                body.advance(plain)
            } else {
                body.forward(&mut self.received, &mut out)
                    .map_err(invalid_response)?
            };
            // From here on, no other response can be sent.
            sent.head_sent = true;
            sent.body += forwarded.data;
            let part = self.received.get(..plain).unwrap_or_default();
            let sending = send(caller.connection, [&out, part]);
            // Otherwise a caller could read one byte at a time, for as long as it likes.
            match caller.deadline.within(caller.write_timeout, sending).await {
                Some(written) => written?,
                None => return Err(write_timed_out()),
            }
            self.received.advance(plain);
            if forwarded.done {
                return Ok(());
            }
            out.clear();
            self.oversized = true;
            if self.read(caller, READ_CAPACITY).await? == 0 {
                body.on_eof().map_err(|why| {
                    connection_error(ErrorType::ConnectionClosed, io::Error::other(why), false)
                })?;
            }
        }
    }
}

fn write_timed_out() -> Box<Error> {
    Error::explain(ErrorType::WriteTimedout, "writing a response").into_down()
}

/// The event that ended a read.
enum ReadEvent {
    Read(io::Result<usize>),
    CallerGone,
    Deadline,
}

/// Creates a connection error. `stale` means that a reused connection may have been closed
/// before the request was sent, in which case the request was not processed.
fn connection_error(kind: ErrorType, error: io::Error, stale: bool) -> Box<Error> {
    let mut error = Error::because(kind, "connection to the upstream", error).into_up();
    if stale {
        error.retry = RetryType::ReusedOnly;
    }
    error
}

fn invalid_response(why: InvalidResponse) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why.0).into_up()
}
