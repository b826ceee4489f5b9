//! The spans of one proxied request.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::span::{Attribute, Span, SpanKind};
use super::task_local::SpanContext;
use super::time_anchor::TimeAnchor;
use super::trace_context::{
    RemoteParent, SpanId, TRACEPARENT, TRACESTATE, TraceId, traceparent, tracestate_is_valid,
};
use super::tracer::Tracer;
use crate::trace::settings::IncomingTrace;

/// Taskcluster's own trace header (`docs/design/taskcluster.md`).
pub const TASKCLUSTER_TRACE_ID: HeaderName = HeaderName::from_static("x-taskcluster-trace-id");

/// Maximum number of upstream attempts recorded per request; the proxy makes no more than this.
const MAX_ATTEMPTS: usize = 16;

/// What to do with the caller's value of a trace header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderAction {
    /// Replace it with this value.
    Set(HeaderValue),
    /// Forward it unchanged.
    Keep,
    /// Do not forward it.
    Remove,
}

/// Maximum length of an `X-Taskcluster-Trace-Id` value that is forwarded, in bytes.
const MAX_TASKCLUSTER_ID: usize = 128;

/// What [`RequestTrace::finish`] records about the request as a whole. Times are monotonic.
#[derive(Debug)]
pub struct RequestSummary {
    /// When the request's head was complete.
    pub started: Duration,
    /// When it was admitted or refused.
    pub admitted: Duration,
    /// When the response had been sent.
    pub ended: Duration,
    /// The span's name; must be of low cardinality.
    pub name: String,
    /// Further attributes.
    pub attributes: Vec<Attribute>,
    /// The error type, from a closed set, if the request failed.
    pub error: Option<&'static str>,
}

/// The trace of one request, from its head to the end of its response.
#[derive(Debug)]
pub struct RequestTrace {
    pub(super) tracer: Arc<Tracer>,
    pub(super) trace: TraceId,
    /// The caller's span, if the caller's trace is continued.
    pub(super) parent: Option<SpanId>,
    pub(super) span: SpanId,
    pub(super) admission: SpanId,
    /// The `sampled` flag sent upstream.
    pub(super) sampled: bool,
    /// Whether its spans are exported.
    pub(super) recorded: bool,
    pub(super) keeps_tracestate: bool,
    /// The value of `X-Taskcluster-Trace-Id` to send; `None` forwards the caller's.
    pub(super) taskcluster: Option<HeaderValue>,
    pub(super) anchor: TimeAnchor,
    pub(super) attempts: Vec<Attempt>,
}

/// One attempt to send the request upstream.
#[derive(Clone, Debug)]
pub struct Attempt {
    span: SpanId,
    started: Duration,
    ended: Option<Duration>,
    /// Status of the upstream's response.
    pub status: Option<u16>,
    /// The upstream's address; `None` for Unix sockets.
    pub address: Option<std::net::SocketAddr>,
    /// The error type, if the attempt failed.
    pub error: Option<&'static str>,
}

impl Tracer {
    /// Starts the trace of a request with these headers. `None` if the random number generator
    /// fails, in which case the request is not traced.
    pub fn begin(self: &Arc<Self>, headers: &HeaderMap) -> Option<Box<RequestTrace>> {
        let trusted = self.incoming == IncomingTrace::Continue;
        let parent = RemoteParent::from_headers(headers).filter(|_| trusted);
        let taskcluster = taskcluster_id(headers).filter(|_| trusted);
        let trace = match (parent, taskcluster.and_then(TraceId::parse)) {
            (Some(parent), _) => parent.trace,
            (None, Some(trace)) => trace,
            (None, None) => TraceId::random()?,
        };
        let sampled = parent.map_or_else(|| self.samples(trace), |parent| parent.sampled);
        Some(Box::new(RequestTrace {
            tracer: Arc::clone(self),
            trace,
            parent: parent.map(|parent| parent.span),
            span: SpanId::random()?,
            admission: SpanId::random()?,
            sampled,
            recorded: sampled && self.spans.is_some(),
            keeps_tracestate: parent.is_some()
                && headers.contains_key(TRACESTATE)
                && tracestate_is_valid(headers),
            taskcluster: match taskcluster {
                Some(_) => None,
                None => HeaderValue::try_from(trace.to_string()).ok(),
            },
            anchor: TimeAnchor {
                wall: self.clock.now(),
                monotonic: self.clock.monotonic(),
            },
            attempts: Vec::new(),
        }))
    }
}

impl RequestTrace {
    /// The trace's id.
    pub fn id(&self) -> TraceId {
        self.trace
    }

    /// Whether its spans are exported to a collector.
    pub fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// The parent of spans created while the request is admitted.
    pub fn admission_span(&self) -> SpanContext {
        self.context(self.admission)
    }

    /// The parent of spans created at any other time.
    pub fn request_span(&self) -> SpanContext {
        self.context(self.span)
    }

    fn context(&self, span: SpanId) -> SpanContext {
        SpanContext {
            tracer: Arc::clone(&self.tracer),
            trace: self.trace,
            span,
            sampled: self.sampled,
            recorded: self.recorded,
            anchor: self.anchor,
        }
    }

    /// Starts an attempt at the monotonic time `now`, ending the previous one if it has not ended.
    pub fn begin_attempt(&mut self, now: Duration, address: Option<std::net::SocketAddr>) {
        self.end_attempt(now, None);
        if self.recorded
            && self.attempts.len() < MAX_ATTEMPTS
            && let Some(span) = SpanId::random()
        {
            self.attempts.push(Attempt {
                span,
                started: now,
                ended: None,
                status: None,
                address,
                error: None,
            });
        }
    }

    /// Records the upstream's response status on the current attempt.
    pub fn record_status(&mut self, status: u16) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.status = Some(status);
        }
    }

    /// Ends the current attempt, if it has not ended yet.
    pub fn end_attempt(&mut self, now: Duration, error: Option<&'static str>) {
        if let Some(attempt) = self.attempts.last_mut().filter(|a| a.ended.is_none()) {
            attempt.ended = Some(now);
            attempt.error = error;
        }
    }

    /// The trace headers of the current attempt.
    pub fn headers(&self) -> [(HeaderName, HeaderAction); 3] {
        let span = self.attempts.last().map_or(self.span, |a| a.span);
        let traceparent_value = traceparent(self.trace, span, self.sampled);
        let state = if self.keeps_tracestate {
            HeaderAction::Keep
        } else {
            HeaderAction::Remove
        };
        let taskcluster = self
            .taskcluster
            .clone()
            .map_or(HeaderAction::Keep, HeaderAction::Set);
        [
            (
                TRACEPARENT,
                traceparent_value.map_or(HeaderAction::Remove, HeaderAction::Set),
            ),
            (TRACESTATE, state),
            (TASKCLUSTER_TRACE_ID, taskcluster),
        ]
    }

    /// Records the request's spans. `attempt_attributes` supplies the attributes of each attempt.
    pub fn finish(
        &mut self,
        request: RequestSummary,
        attempt_attributes: impl Fn(usize, &Attempt) -> Vec<Attribute>,
    ) {
        self.end_attempt(request.ended, None);
        if !self.recorded {
            return;
        }
        let parent = Some(self.span);
        let admission = (request.started, request.admitted);
        let mut spans = vec![self.span(self.admission, parent, SpanKind::Internal, admission)];
        for (index, attempt) in self.attempts.iter().enumerate() {
            let times = (attempt.started, attempt.ended.unwrap_or(request.ended));
            spans.push(Span {
                name: "upstream".into(),
                attributes: attempt_attributes(index, attempt),
                error: attempt.error,
                ..self.span(attempt.span, parent, SpanKind::Client, times)
            });
        }
        let times = (request.started, request.ended);
        spans.push(Span {
            name: request.name.into(),
            attributes: request.attributes,
            error: request.error,
            ..self.span(self.span, self.parent, SpanKind::Server, times)
        });
        for span in spans {
            self.tracer.record(span);
        }
    }

    fn span(
        &self,
        id: SpanId,
        parent: Option<SpanId>,
        kind: SpanKind,
        (started, ended): (Duration, Duration),
    ) -> Span {
        Span {
            trace: self.trace,
            id,
            parent,
            name: "admission".into(),
            kind,
            started: self.anchor.nanos(started),
            ended: self.anchor.nanos(ended),
            attributes: Vec::new(),
            error: None,
        }
    }
}

/// The value of `X-Taskcluster-Trace-Id`, if there is exactly one and it is short and consists of
/// ordinary characters.
fn taskcluster_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TASKCLUSTER_TRACE_ID).iter();
    let id = values.next()?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:".contains(&b);
    let fits = !id.is_empty() && id.len() <= MAX_TASKCLUSTER_ID && id.bytes().all(plain);
    (fits && values.next().is_none()).then_some(id)
}
