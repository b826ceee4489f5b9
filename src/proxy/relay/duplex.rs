//! Moves a request body up and its answer down at the same time, in one poll loop. In each
//! direction one piece is in flight, and nothing is buffered beyond it. Every wait has an end.

mod look;

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::time::Instant;

use super::body::{RequestBody, too_slow};
use super::waits::{Wait, Waits};
use crate::proxy::body_rate::TooSlow;
use crate::proxy::deadline::Deadline;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::head::ResponseHead;
use crate::proxy::headers::{self, WithheldTrailers};
use crate::proxy::upstream::Upstream;
pub(super) use look::{Look, Looked};

/// Maximum time for reading the rest of a body after the answer. A caller that never ends its body
/// must not keep the request in flight.
const MAX_DISCARD: Duration = Duration::from_secs(10);

/// The caller's side of a request.
pub(super) struct Caller<'r> {
    pub(super) downstream: Downstream<'r>,
    pub(super) body: RequestBody,
    pub(super) deadline: &'r mut Deadline,
    /// Timeout for each write to the caller that makes no progress.
    pub(super) write_timeout: Duration,
    /// The number of content bytes that were sent to the caller.
    pub(super) sent: u64,
}

/// One attempt: both sides, and what is in flight between them.
pub(super) struct Duplex<'d, 'r> {
    pub(super) caller: &'d mut Caller<'r>,
    pub(super) upstream: &'d mut Upstream,
    /// Timeouts of the upstream.
    pub(super) read_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) waits: Waits,
    upload: Upload,
    /// Whether an interim response may not have been written completely.
    interim: bool,
    /// The beginning of the answer's content, read ahead.
    ahead: BytesMut,
    /// Whether the answer is complete, except for its trailers, or why it cannot be completed.
    ended: Option<Result<(), RelayError>>,
    trailers: Option<HeaderMap>,
}

/// How far the request was sent.
struct Upload {
    step: Step,
    /// The piece in flight.
    piece: Bytes,
    trailers: Option<HeaderMap>,
    /// Whether the head, or the part of it that was written, may still be unsent.
    unflushed: bool,
    /// Since when the caller has been waited for.
    waiting_since: Option<Instant>,
    /// Why the upstream takes no more. It may have answered before.
    failed: Option<RelayError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The next piece is to be read.
    Reading,
    /// A piece is to be sent. Whether it is the last.
    Sending(bool),
    /// The end, with the trailers, is to be sent.
    Finishing,
    /// The request is complete.
    Complete,
    /// The upstream does not take the rest.
    Stopped,
}

impl<'d, 'r> Duplex<'d, 'r> {
    /// Begins to send the body after the request head that was queued.
    pub(super) fn new(
        caller: &'d mut Caller<'r>,
        upstream: &'d mut Upstream,
        (read_timeout, write_timeout): (Duration, Duration),
    ) -> Self {
        let done = caller.body.is_done(&caller.downstream);
        let trailers = if done {
            caller.body.trailers(&mut caller.downstream)
        } else {
            None
        };
        let step = match (done, &trailers) {
            (false, _) => Step::Reading,
            (true, None) => Step::Sending(true),
            (true, Some(_)) => Step::Finishing,
        };
        Self {
            caller,
            upstream,
            read_timeout,
            write_timeout,
            waits: Waits::default(),
            upload: Upload {
                step,
                piece: Bytes::new(),
                trailers,
                unflushed: true,
                waiting_since: None,
                failed: None,
            },
            interim: true,
            ahead: BytesMut::new(),
            ended: None,
            trailers: None,
        }
    }

    /// Sends the request until the next response head arrives.
    pub(super) async fn head(&mut self) -> Result<ResponseHead, RelayError> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// Queues an interim response, which is written while the next head is waited for.
    pub(super) fn queue_interim(&mut self, head: &ResponseHead) -> Result<(), RelayError> {
        self.interim = true;
        // A caller that waits for a 100 Continue is expected to send its body from now on.
        self.waits.end(Wait::CallerRead);
        self.caller.downstream.queue_interim(head)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, RelayError>> {
        self.waits.begin_poll();
        loop {
            // Not waited for: a response is read although the caller does not take an interim one, and
            // so what the upstream sends is limited.
            let _ = self.poll_interim(cx)?;
            if !self.upload.unflushed
                && let Poll::Ready(head) = self.upstream.poll_head(cx)
            {
                self.waits.end(Wait::UpstreamRead);
                let failed = &mut self.upload.failed;
                return Poll::Ready(head.map_err(|error| failed.take().unwrap_or(error)));
            }
            if self.poll_upload(cx)?.is_pending() {
                break;
            }
            self.waits.end(Wait::UpstreamRead);
        }
        self.poll_waits(true, cx).map(Err)
    }

    /// Ready once what was queued for the caller has been written.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, RelayError> {
        if self.interim {
            match self.caller.downstream.poll_flush(cx) {
                Poll::Pending => {
                    let timeout = self.caller.write_timeout;
                    self.waits.begin(Wait::CallerWrite, timeout);
                    return Ok(Poll::Pending);
                }
                Poll::Ready(written) => written?,
            }
            self.waits.end(Wait::CallerWrite);
            self.interim = false;
        }
        Ok(Poll::Ready(()))
    }

    /// Sends the next piece of the request. Pending if nothing can be sent at the moment. What is
    /// waited for is noted.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, RelayError> {
        if self.upload.step == Step::Reading {
            let piece = self.poll_piece(cx)?;
            if piece.is_pending() || self.upload.step == Step::Reading {
                return Ok(piece);
            }
        }
        let before = self.upload.piece.len();
        let (piece, trailers) = (&mut self.upload.piece, &mut self.upload.trailers);
        let (sent, next) = match self.upload.step {
            Step::Sending(last) => (
                self.upstream.poll_write(cx, piece, last),
                if last { Step::Complete } else { Step::Reading },
            ),
            Step::Finishing => (self.upstream.poll_finish(cx, trailers), Step::Complete),
            Step::Reading | Step::Complete | Step::Stopped => return Ok(Poll::Pending),
        };
        match sent {
            Poll::Pending => {
                if self.upload.piece.len() < before {
                    self.waits.end(Wait::UpstreamWrite);
                    self.waits.end(Wait::UpstreamRead);
                }
                self.waits.begin(Wait::UpstreamWrite, self.write_timeout);
                return Ok(Poll::Pending);
            }
            Poll::Ready(Ok(())) => self.upload.step = next,
            // An upstream that responds early may close before it has read the request.
            Poll::Ready(Err(error)) => {
                self.upload.failed = Some(error);
                self.upload.step = Step::Stopped;
            }
        }
        self.upload.unflushed = false;
        self.waits.end(Wait::UpstreamWrite);
        Ok(Poll::Ready(()))
    }

    /// Polls for the next piece of the body, and sends the head in the meantime.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, RelayError> {
        let caller = &mut *self.caller;
        let piece = match caller.body.poll_next(&mut caller.downstream, cx) {
            Poll::Ready(piece) => piece?,
            Poll::Pending => return Ok(self.poll_unflushed(cx)),
        };
        self.end_caller_read();
        let caller = &mut *self.caller;
        let done = piece.is_none() || caller.body.is_done(&caller.downstream);
        if done {
            self.upload.trailers = caller.body.trailers(&mut caller.downstream);
        }
        self.upload.step = match &piece {
            None => Step::Finishing,
            Some(_) => Step::Sending(done && self.upload.trailers.is_none()),
        };
        self.upload.piece = piece.unwrap_or_default();
        Ok(Poll::Ready(()))
    }

    /// Writes the head although no piece of the body follows yet. Ready once that is done, because
    /// then a response can be polled for.
    fn poll_unflushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.upload.unflushed {
            match self.upstream.poll_write(cx, &mut Bytes::new(), false) {
                Poll::Ready(Ok(())) => {
                    self.upload.unflushed = false;
                    self.waits.end(Wait::UpstreamWrite);
                    return Poll::Ready(());
                }
                Poll::Pending => self.waits.begin(Wait::UpstreamWrite, self.write_timeout),
                Poll::Ready(Err(error)) => {
                    self.upload.failed = Some(error);
                    self.upload.step = Step::Stopped;
                    self.upload.unflushed = false;
                    return Poll::Ready(());
                }
            }
        }
        self.begin_caller_read();
        Poll::Pending
    }

    fn begin_caller_read(&mut self) {
        let body = &self.caller.body;
        let limit = if self.is_body_expected() {
            self.upload.waiting_since.get_or_insert(self.waits.now());
            body.rate.limit(body.timeout()).0
        } else {
            body.timeout()
        };
        self.waits.begin(Wait::CallerRead, limit);
    }

    fn end_caller_read(&mut self) {
        self.waits.end(Wait::CallerRead);
        if let Some(since) = self.upload.waiting_since.take() {
            let waited = self.waits.now().saturating_duration_since(since);
            self.caller.body.rate.add_wait(waited);
        }
    }

    /// Whether the caller should be sending its body. Once the answer has begun, a bidirectional
    /// stream may pause.
    fn is_body_expected(&self) -> bool {
        !self.caller.downstream.is_answered() && self.caller.body.is_expected()
    }

    /// Notes what is waited for, and ends the attempt if that takes too long or the caller is
    /// gone. `reading` says whether something is expected of the upstream.
    fn poll_waits(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<RelayError> {
        let from_caller = self.upload.step == Step::Reading;
        // An upstream need not respond before it has received the request.
        if reading && !(from_caller && self.is_body_expected()) {
            self.waits.begin(Wait::UpstreamRead, self.read_timeout);
        } else {
            self.waits.end(Wait::UpstreamRead);
        }
        if !from_caller && self.caller.downstream.poll_gone(cx).is_ready() {
            return Poll::Ready(caller_gone());
        }
        let wait = ready!(self.waits.poll(self.caller.deadline, cx));
        Poll::Ready(self.expired(wait))
    }

    /// Returns the error for a wait that took too long.
    pub(super) fn expired(&mut self, wait: Wait) -> RelayError {
        if let Some(failed) = self.upload.failed.take() {
            return failed;
        }
        match wait {
            Wait::UpstreamWrite => {
                RelayError::new(Side::Upstream, ErrorKind::WriteTimeout, "sending a request")
            }
            Wait::CallerRead => {
                let body = &self.caller.body;
                let slow = if self.is_body_expected() {
                    body.rate.limit(body.timeout()).1
                } else {
                    TooSlow::Stalled
                };
                too_slow(slow)
            }
            Wait::CallerWrite => {
                RelayError::new(Side::Caller, ErrorKind::WriteTimeout, "writing a response")
            }
            Wait::UpstreamRead | Wait::Look | Wait::Idle | Wait::Life => {
                RelayError::new(Side::Upstream, ErrorKind::ReadTimeout, "reading a response")
            }
        }
    }

    /// Checks the part of the answer that has arrived with its head, without waiting for more: if
    /// it is malformed, the caller can still be told. That it is incomplete is not known in time in
    /// general, so it is never told.
    pub(super) async fn check_beginning(&mut self) -> Result<(), RelayError> {
        if !self.ahead.is_empty() {
            return Ok(());
        }
        if self.ended.is_none() {
            let first = poll_fn(|cx| Poll::Ready(self.upstream.poll_body(cx))).await;
            self.ended = match first {
                Poll::Ready(Ok(false)) => Some(Ok(())),
                Poll::Ready(Err(error)) => Some(Err(error)),
                Poll::Ready(Ok(true)) | Poll::Pending => None,
            };
        }
        match self.ended.take() {
            Some(Err(error)) if error.kind == ErrorKind::InvalidMessage => Err(error),
            ended => {
                self.ended = ended;
                Ok(())
            }
        }
    }

    /// Forwards the content of the answer, after its head was queued, and reads the rest of the
    /// request. `look` sees what is forwarded, and trailers are sent without what is `withheld`.
    pub(super) async fn answer(
        &mut self,
        mut look: Option<&mut Look>,
        withheld: WithheldTrailers<'_>,
    ) -> Result<(), RelayError> {
        self.waits.begin_poll();
        self.end_caller_read();
        self.waits.end(Wait::CallerWrite);
        poll_fn(|cx| self.poll_answer(&mut look, withheld, cx)).await
    }

    fn poll_answer(
        &mut self,
        look: &mut Option<&mut Look>,
        withheld: WithheldTrailers<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RelayError>> {
        self.waits.begin_poll();
        loop {
            let down = self.poll_download(look, withheld, cx);
            match down {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => {
                    self.waits.end(Wait::UpstreamRead);
                    self.end_caller_read();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            let up = match self.upload.step {
                Step::Stopped => self.poll_discard(cx)?,
                _ => self.poll_upload(cx)?,
            };
            if up.is_ready() {
                self.waits.end(Wait::UpstreamRead);
            }
            if down.is_pending() && up.is_pending() {
                break;
            }
        }
        let reading =
            self.upstream.chunk().is_empty() && self.ahead.is_empty() && self.ended.is_none();
        self.poll_answer_waits(reading, cx).map(Err)
    }

    fn poll_answer_waits(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<RelayError> {
        if reading {
            self.waits.begin(Wait::UpstreamRead, self.read_timeout);
        } else {
            // What has arrived waits for the caller, and the upstream is not to blame for that.
            self.waits.end(Wait::UpstreamRead);
        }
        let from_caller = match self.upload.step {
            Step::Reading => true,
            Step::Stopped => self.discards(),
            _ => false,
        };
        if !from_caller && self.caller.downstream.poll_gone(cx).is_ready() {
            return Poll::Ready(caller_gone());
        }
        let wait = ready!(self.waits.poll(self.caller.deadline, cx));
        self.upload.failed = None;
        Poll::Ready(self.expired(wait))
    }

    /// Forwards the next part of the answer. `true` once it is complete.
    fn poll_download(
        &mut self,
        look: &mut Option<&mut Look>,
        withheld: WithheldTrailers<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, RelayError>> {
        let downstream = &mut self.caller.downstream;
        if !self.ahead.is_empty() {
            let written = downstream.poll_write(cx, &self.ahead, false);
            let written = ready!(self.track_write(written))?;
            self.ahead.advance(written);
            return Poll::Ready(Ok(false));
        }
        match self.ended.take() {
            None => {}
            Some(Err(error)) => {
                // What there is of the answer, at least its head, must not depend on whether its
                // end arrived at the same time.
                let flushed = downstream.poll_flush(cx);
                if self.track_finish(flushed)?.is_pending() {
                    self.ended = Some(Err(error));
                    return Poll::Pending;
                }
                return Poll::Ready(Err(error));
            }
            Some(Ok(())) => {
                self.ended = Some(Ok(()));
                if let Some(trailers) = self.upstream.take_trailers() {
                    self.trailers = headers::response_trailers(trailers, withheld);
                }
                let finished = downstream.poll_finish(cx, &mut self.trailers);
                return self.track_finish(finished).map_ok(|()| true);
            }
        }
        if self.upstream.chunk().is_empty() {
            match self.upstream.poll_body(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    self.ended = Some(Ok(()));
                    return Poll::Ready(Ok(false));
                }
                Poll::Ready(Err(error)) => {
                    self.ended = Some(Err(error));
                    return Poll::Ready(Ok(false));
                }
                Poll::Pending => {
                    let flushed = downstream.poll_flush(cx);
                    ready!(self.track_finish(flushed))?;
                    return Poll::Pending;
                }
            }
        }
        let (chunk, last) = (self.upstream.chunk(), self.upstream.ends_with_chunk());
        let length = chunk.len();
        let written = self.caller.downstream.poll_write(cx, chunk, last);
        let written = ready!(self.track_write(written))?;
        if let Some(look) = look {
            look.add(self.upstream.chunk().get(..written).unwrap_or_default());
        }
        self.upstream.consume(written);
        Poll::Ready(Ok(last && written == length))
    }

    pub(super) fn track_write(
        &mut self,
        written: Poll<Result<usize, RelayError>>,
    ) -> Poll<Result<usize, RelayError>> {
        match &written {
            Poll::Pending => self
                .waits
                .begin(Wait::CallerWrite, self.caller.write_timeout),
            Poll::Ready(Ok(bytes)) => {
                self.waits.end(Wait::CallerWrite);
                self.caller.sent += *bytes as u64;
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    pub(super) fn track_finish(
        &mut self,
        finished: Poll<Result<(), RelayError>>,
    ) -> Poll<Result<(), RelayError>> {
        match &finished {
            Poll::Pending => self
                .waits
                .begin(Wait::CallerWrite, self.caller.write_timeout),
            Poll::Ready(_) => self.waits.end(Wait::CallerWrite),
        }
        finished
    }

    /// Whether the rest of the body is read and discarded while the answer is written, so that the
    /// caller can read the answer. Not in HTTP/2, where a stream can be reset after its end.
    fn discards(&self) -> bool {
        matches!(self.caller.downstream, Downstream::H1(_))
            && !self.caller.downstream.is_body_done()
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, RelayError> {
        if !self.discards() {
            return Ok(Poll::Pending);
        }
        let caller = &mut *self.caller;
        match caller.body.poll_received(&mut caller.downstream, cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(_)) => {}
            // What is wrong with a body that is not used does not matter.
            Poll::Ready(Err(error)) if error.to_rejection().is_some() => {
                self.upload.step = Step::Complete;
            }
            Poll::Ready(Err(error)) => return Err(error),
        }
        Ok(Poll::Ready(()))
    }
}

impl Caller<'_> {
    /// Reads and discards the rest of the body after the answer, so that the caller receives the
    /// answer instead of a reset. Returns whether the connection can be used for another request.
    pub(super) async fn discard_rest(&mut self) -> bool {
        if self.downstream.is_body_done() {
            return true;
        }
        let Self {
            downstream,
            body,
            deadline,
            ..
        } = self;
        let end = crate::proxy::deadline::now() + MAX_DISCARD.min(body.timeout());
        loop {
            let (limit, _) = body.rate.limit(body.timeout());
            let began = crate::proxy::deadline::now();
            let limit = limit.min(end.saturating_duration_since(began));
            if limit.is_zero() {
                return false;
            }
            let piece = poll_fn(|cx| body.poll_received(downstream, cx));
            match deadline.within(limit, piece).await {
                Some(Ok(Some(_))) => {}
                Some(Ok(None)) => return true,
                Some(Err(_)) | None => return false,
            }
            body.rate.add_wait(crate::proxy::deadline::now() - began);
        }
    }
}

pub(super) fn caller_gone() -> RelayError {
    RelayError::new(Side::Caller, ErrorKind::Closed, "the caller disconnected")
}
