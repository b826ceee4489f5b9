//! The session that replaces the caller's own for pingora while the body can be replayed. Reads
//! go through the buffer, writes go to the caller.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};
use tokio::time::sleep_until;

use super::buffer::Played;
use super::{BodyLimits, Shared, absent};
use crate::gateway::Replayable;
use crate::proxy::body_rate::{RateMeter, TooSlow};

/// A caller's session whose body can be read again from the beginning.
pub(super) struct ReplaySession {
    real: Box<ServerSession>,
    shared: Arc<Shared>,
    limits: BodyLimits,
    received: u64,
    rate: RateMeter,
    expects_continue: bool,
    /// Whether the final response has begun.
    answered: bool,
}

impl ReplaySession {
    pub(super) fn new(
        mut real: Box<ServerSession>,
        shared: Arc<Shared>,
        limits: BodyLimits,
    ) -> Self {
        // pingora would close the connection after any response sent before the end of the body,
        // even a 100 Continue. `before_head` closes it where necessary.
        real.set_close_on_response_before_downstream_finish(false);
        let expects_continue = real.req_header().headers.contains_key(http::header::EXPECT);
        let rate = RateMeter::new(limits.min_rate(real.is_http2()));
        Self {
            real,
            shared,
            limits,
            received: 0,
            rate,
            expects_continue,
            answered: false,
        }
    }

    /// Returns the piece to play back next, or `None` to continue reading from the caller.
    fn play(&self) -> Result<Option<Bytes>> {
        match self.shared.buffer().play() {
            Played::Piece(piece) => Ok(Some(piece)),
            Played::Live => Ok(None),
            Played::Incomplete => Error::e_explain(
                ErrorType::InternalError,
                "replay of a body that was not recorded",
            ),
        }
    }

    /// Reads the next piece from the caller, and records it.
    async fn read_live(&mut self) -> Result<Option<Bytes>> {
        let expected = self.is_body_expected();
        let read = self.real.read_request_body();
        // pingora has a read timeout for HTTP/1, but none for HTTP/2.
        let timeout = self.limits.timeout;
        let read = if expected {
            self.rate.within(timeout, read).await
        } else {
            let read = tokio::time::timeout(timeout, read).await;
            read.map_err(|_| TooSlow::Stalled)
        };
        let piece = match read {
            Ok(piece) => piece?,
            Err(slow) => return Error::e_explain(ErrorType::HTTPStatus(408), slow.cause()),
        };
        if let Some(piece) = &piece {
            self.rate.received(piece.len());
            self.count(piece)?;
            self.shared.buffer().record(piece);
        }
        Ok(piece)
    }

    /// Whether the caller should be sending its body. It need not once the response has begun (a
    /// bidirectional stream may pause), nor before the 100 Continue that it has asked for.
    fn is_body_expected(&self) -> bool {
        if self.answered {
            return false;
        }
        let buffer = self.shared.buffer();
        !self.expects_continue || buffer.continued || buffer.has_started()
    }

    /// Returns the output of `io`, a read or write of this session, unless the connection is
    /// upgraded and its life ends first.
    async fn within_life<T>(shared: &Shared, io: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(end) = shared.upgrade_end.get() else {
            return io.await;
        };
        tokio::select! {
            // The end comes first, even for a caller that never pauses.
            biased;
            () = sleep_until(*end) => {
                shared.upgrade_expired.store(true, Ordering::Relaxed);
                Error::e_explain(ErrorType::ConnectionClosed, "the caller's token has expired")
            }
            output = io => output,
        }
    }

    /// Cancel-safe, because there is no await between taking a piece and returning it.
    async fn read_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if self.real.was_upgraded() {
            let read = self.real.read_body_or_idle(no_body_expected);
            return Self::within_life(&self.shared, read).await;
        }
        if no_body_expected {
            self.read_rest().await?;
        } else if let Some(piece) = self.play()? {
            return Ok(Some(piece));
        } else if !self.real.is_body_done() {
            return self.read_live().await;
        }
        self.real.read_body_or_idle(true).await
    }

    fn count(&mut self, piece: &Bytes) -> Result<()> {
        self.received += piece.len() as u64;
        if self.limits.body.is_some_and(|limit| self.received > limit) {
            return Error::e_explain(
                ErrorType::HTTPStatus(413),
                "the body is larger than the limit",
            );
        }
        Ok(())
    }

    /// Reads the rest of the body after the upstream responded early and no longer needs it, so
    /// that the caller receives the response instead of a reset. The rest is recorded as well,
    /// because the response can be a 401.
    async fn read_rest(&mut self) -> Result<()> {
        while !self.real.is_http2() && !self.real.is_body_done() {
            match self.read_live().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // The response is being sent; the connection closes after it.
                Err(e) if matches!(e.etype(), ErrorType::HTTPStatus(_)) => {
                    self.real.set_keepalive(None);
                    std::future::pending::<()>().await;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Called before each response head. Returns `false` if the head must not be sent.
    fn before_head(&mut self, head: &ResponseHeader) -> bool {
        let mut buffer = self.shared.buffer();
        if head.status == StatusCode::CONTINUE {
            // The upstream may send one per attempt, but the caller expects only one.
            return !std::mem::replace(&mut buffer.continued, true);
        }
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return true;
        }
        self.answered = true;
        if self.shared.last.load(Ordering::Relaxed) {
            self.real.set_keepalive(None);
        }
        // A caller that waits for a 100 Continue and receives a final response may or may not
        // still send the body, so the next bytes on this connection would be ambiguous (RFC 9110
        // §10.1.1).
        if self.expects_continue && !buffer.continued && !buffer.has_started() {
            drop(buffer);
            if !self.real.is_body_done() {
                self.real.set_keepalive(None);
            }
        }
        true
    }
}

impl Drop for ReplaySession {
    fn drop(&mut self) {
        let real = std::mem::replace(&mut self.real, absent());
        *self.shared.returned() = Some(real);
    }
}

#[async_trait]
impl CustomSession for ReplaySession {
    fn req_header(&self) -> &RequestHeader {
        self.real.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.real.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        if self.real.was_upgraded() {
            return Self::within_life(&self.shared, self.real.read_request_body()).await;
        }
        match self.play()? {
            Some(piece) => Ok(Some(piece)),
            None => self.read_live().await,
        }
    }

    /// pingora calls this while it waits for the response as well, so the deadline of a response
    /// that is held back is noticed here.
    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let deadline = self.shared.hold().deadline();
        let Some(deadline) = deadline else {
            return self.read_or_idle(no_body_expected).await;
        };
        let reading = self.read_or_idle(no_body_expected);
        match tokio::time::timeout_at(deadline, reading).await {
            Ok(read) => read,
            Err(_) => Err(self.shared.hold().abandon()),
        }
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.real.drain_request_body().await
    }

    fn is_body_done(&mut self) -> bool {
        self.shared.buffer().is_playback_done() && self.real.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.real.is_body_empty()
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, _end: bool) -> Result<()> {
        if self.before_head(&head) {
            self.real.write_response_header(head).await?;
        }
        Ok(())
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end)
            .await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.real.write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.real.write_response_trailers(trailers).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut tasks = self.shared.hold().filter(tasks)?;
        tasks.retain(|task| match task {
            HttpTask::Header(head, _) => self.before_head(head),
            _ => true,
        });
        if tasks.is_empty() {
            return Ok(false);
        }
        if self.real.was_upgraded() {
            let write = self.real.response_duplex_vec(tasks);
            return Self::within_life(&self.shared, write).await;
        }
        self.real.response_duplex_vec(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.real.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.real.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.real.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.real.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.real.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.real.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        // This is logged, so it must not contain the path or the query.
        self.real.req_header().method.to_string()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.real.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.real.shutdown().await;
    }

    async fn finish(&mut self) -> Result<()> {
        self.real.finish_body().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.real.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.real.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.real.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.real.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.real.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.real.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.real.to_h1_raw()
    }

    /// Nothing to do: the replay buffer records the body.
    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        self.shared.buffer().replayable() != Replayable::Yes
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }

    fn is_upgrade_req(&self) -> bool {
        self.real.is_upgrade_req()
    }

    fn was_upgraded(&self) -> bool {
        self.real.was_upgraded()
    }
}
