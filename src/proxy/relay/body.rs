//! The body of a request, as often as it has to be sent: the recording first, then the caller.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::gateway::route::Route;
use crate::gateway::{Gateway, Replayable};
use crate::proxy::body_rate::{RateMeter, TooSlow};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::headers;
use crate::proxy::replay::{BodyLimits, Played, ReplayBuffer};

/// The body of one request.
pub(super) struct RequestBody {
    /// `None` if the request has no body.
    recording: Option<ReplayBuffer>,
    limits: BodyLimits,
    pub(super) rate: RateMeter,
    /// The number of bytes received from the caller.
    received: u64,
    /// Whether the caller waits for a 100 Continue before it sends the body.
    pub(super) expects_continue: bool,
    /// Whether the caller was sent a 100 Continue.
    pub(super) continued: bool,
    /// Which trailers are forwarded; `None` if the caller cannot send any.
    trailer_policy: Option<TrailerPolicy>,
    trailers: Option<HeaderMap>,
}

/// What decides about trailers.
pub(super) struct TrailerPolicy {
    pub(super) gateway: Arc<Gateway>,
    pub(super) route: Arc<Route>,
}

impl RequestBody {
    /// Creates the body of a request that has one if there is a `recording` of it.
    pub(super) fn new(limits: BodyLimits, http2: bool, recording: Option<ReplayBuffer>) -> Self {
        Self {
            recording,
            rate: RateMeter::new(limits.min_rate(http2)),
            limits,
            received: 0,
            expects_continue: false,
            continued: false,
            trailer_policy: None,
            trailers: None,
        }
    }

    /// Begins to record a body that was not recorded so far.
    pub(super) fn record_in(&mut self, recording: ReplayBuffer, trailers: Option<TrailerPolicy>) {
        self.recording = Some(recording);
        self.trailer_policy = trailers;
    }

    /// Timeout for each read.
    pub(super) fn timeout(&self) -> Duration {
        self.limits.timeout
    }

    /// The number of bytes received from the caller.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the caller has begun to send the body or may do so, or there is none.
    pub(super) fn is_under_way(&self) -> bool {
        self.continued
            || self
                .recording
                .as_ref()
                .is_none_or(ReplayBuffer::has_started)
    }

    /// Whether the caller should be sending the body: it need not before the 100 Continue that
    /// it has asked for.
    pub(super) fn is_expected(&self) -> bool {
        !self.expects_continue || self.is_under_way()
    }

    /// Whether everything that was received so far can be sent again.
    pub(super) fn replayable(&self) -> Replayable {
        let recording = self.recording.as_ref();
        recording.map_or(Replayable::Yes, ReplayBuffer::replayable)
    }

    /// Begins another attempt, which reads the body from the beginning.
    pub(super) fn rewind(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.rewind();
        }
    }

    /// Ends recording and releases the memory, because there will be no further attempt.
    pub(super) fn finish_recording(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.finish_recording();
        }
    }

    /// Releases the recording, with what was not sent yet.
    pub(super) fn close(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.close();
        }
    }

    /// Whether nothing follows the pieces that were returned so far in this attempt.
    pub(super) fn is_done(&self, downstream: &Downstream<'_>) -> bool {
        let played = self
            .recording
            .as_ref()
            .is_none_or(ReplayBuffer::is_playback_done);
        played && downstream.is_body_done()
    }

    /// Polls for the next piece, which is recorded before it is returned. `None` at the end.
    ///
    /// # Errors
    /// If the caller is gone, or the body exceeds `limits.body`, or a part of it that has to be
    /// sent again was not recorded.
    pub(super) fn poll_next(
        &mut self,
        downstream: &mut Downstream<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, RelayError>> {
        if let Some(recording) = &mut self.recording {
            match recording.play() {
                Played::Piece(piece) => return Poll::Ready(Ok(Some(piece))),
                Played::Live => {}
                Played::Incomplete => {
                    let cause = "replay of a body that was not recorded";
                    let error = RelayError::new(Side::Gateway, ErrorKind::Internal, cause);
                    return Poll::Ready(Err(error));
                }
            }
        }
        let piece = ready!(self.poll_received(downstream, cx))?;
        if let (Some(piece), Some(recording)) = (&piece, &mut self.recording) {
            recording.record(piece);
        }
        Poll::Ready(Ok(piece))
    }

    /// Polls for the next piece from the caller, and does not record it.
    ///
    /// # Errors
    /// If the caller is gone, or the body exceeds `limits.body`.
    pub(super) fn poll_received(
        &mut self,
        downstream: &mut Downstream<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, RelayError>> {
        if downstream.is_body_done() {
            return Poll::Ready(Ok(None));
        }
        let Some(piece) = ready!(downstream.poll_body(cx))? else {
            return Poll::Ready(Ok(None));
        };
        self.received += piece.len() as u64;
        self.rate.received(piece.len());
        if self.limits.body.is_some_and(|limit| self.received > limit) {
            let cause = "the body is larger than the limit";
            let error = RelayError::new(Side::Caller, ErrorKind::BodyTooLarge, cause);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(Some(piece)))
    }

    /// Counts bytes that were received through a tunnel.
    pub(super) fn count_tunnel(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Returns the trailers to send, after the end of the body: the same in each attempt.
    pub(super) fn trailers(&mut self, downstream: &mut Downstream<'_>) -> Option<HeaderMap> {
        if let Some(received) = downstream.take_trailers()
            && let Some(policy) = &self.trailer_policy
        {
            let (route, rules) = (&policy.route, &policy.gateway.rule_headers);
            let source = route.source.as_ref().map(|source| source.inject().header());
            let (stripped, edits) = (&route.stripped_headers, &route.request_headers);
            self.trailers = headers::request_trailers(received, stripped, rules, edits, source);
        }
        self.trailers.clone()
    }
}

/// Returns the error for a body that arrives too slowly.
pub(super) fn too_slow(slow: TooSlow) -> RelayError {
    RelayError::new(Side::Caller, ErrorKind::BodyTimeout, slow.cause())
}
