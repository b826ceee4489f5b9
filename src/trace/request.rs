//! One request's place in a trace.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::context::{SpanId, TRACEPARENT, TRACESTATE, TraceId, traceparent};
use super::current::Active;
use super::span::{Attribute, Kind, Span};
use super::tracer::{Epoch, Tracer};

/// What Taskcluster's services call the trace of a request (taskcluster.md §6).
pub const TASKCLUSTER_TRACE_ID: HeaderName = HeaderName::from_static("x-taskcluster-trace-id");

/// Attempts that are told of; pingora makes no more than this.
const MAX_ATTEMPTS: usize = 16;

/// What becomes of the caller's header of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderAction {
    /// This goes in its place.
    Set(HeaderValue),
    /// It goes on as it came.
    Keep,
    /// It goes no further.
    Remove,
}

/// A whole request, for its span.
#[derive(Debug)]
pub struct Summary {
    /// Monotonic times: its beginning, the end of its admission, its end.
    pub began: Duration,
    /// When it was admitted or refused.
    pub admitted: Duration,
    /// When it was over.
    pub ended: Duration,
    /// What kind of request, of low cardinality.
    pub name: String,
    /// What else is known.
    pub attributes: Vec<Attribute>,
    /// What went wrong.
    pub error: Option<&'static str>,
}

/// One request's trace, from its head to its end.
#[derive(Debug)]
pub struct RequestTrace {
    pub(super) tracer: Arc<Tracer>,
    pub(super) trace: TraceId,
    /// The caller's span.
    pub(super) parent: Option<SpanId>,
    pub(super) span: SpanId,
    pub(super) admission: SpanId,
    /// What the upstream is told.
    pub(super) sampled: bool,
    /// Whether a collector wants its spans.
    pub(super) recorded: bool,
    pub(super) keeps_state: bool,
    /// `None` where the caller's own goes on.
    pub(super) taskcluster: Option<HeaderValue>,
    pub(super) epoch: Epoch,
    pub(super) attempts: Vec<Attempt>,
}

/// One attempt to get an answer from the upstream.
#[derive(Clone, Debug)]
pub struct Attempt {
    span: SpanId,
    began: Duration,
    ended: Option<Duration>,
    /// What the upstream answered last.
    pub status: Option<u16>,
    /// Where to, if that is an address.
    pub address: Option<std::net::SocketAddr>,
    /// Why it came to nothing.
    pub error: Option<&'static str>,
}

impl RequestTrace {
    /// The trace.
    pub fn id(&self) -> TraceId {
        self.trace
    }

    /// Whether its spans go to a collector.
    pub fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// For what is done to admit the request.
    pub fn admission(&self) -> Active {
        self.active(self.admission)
    }

    /// For what else is done for the request.
    pub fn whole(&self) -> Active {
        self.active(self.span)
    }

    fn active(&self, span: SpanId) -> Active {
        Active {
            tracer: Arc::clone(&self.tracer),
            trace: self.trace,
            span,
            sampled: self.sampled,
            recorded: self.recorded,
            epoch: self.epoch,
        }
    }

    /// An attempt begins at this monotonic time.
    pub fn attempt(&mut self, now: Duration, address: Option<std::net::SocketAddr>) {
        self.attempt_over(now, None);
        if self.recorded
            && self.attempts.len() < MAX_ATTEMPTS
            && let Some(span) = SpanId::random()
        {
            self.attempts.push(Attempt {
                span,
                began: now,
                ended: None,
                status: None,
                address,
                error: None,
            });
        }
    }

    /// The upstream answered the attempt under way.
    pub fn answered(&mut self, status: u16) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.status = Some(status);
        }
    }

    /// The attempt under way, if one is, has ended.
    pub fn attempt_over(&mut self, now: Duration, error: Option<&'static str>) {
        if let Some(attempt) = self.attempts.last_mut().filter(|a| a.ended.is_none()) {
            attempt.ended = Some(now);
            attempt.error = error;
        }
    }

    /// What the attempt under way does with the headers of traces.
    pub fn headers(&self) -> [(HeaderName, HeaderAction); 3] {
        let span = self.attempts.last().map_or(self.span, |a| a.span);
        let own = traceparent(self.trace, span, self.sampled);
        let state = if self.keeps_state {
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
                own.map_or(HeaderAction::Remove, HeaderAction::Set),
            ),
            (TRACESTATE, state),
            (TASKCLUSTER_TRACE_ID, taskcluster),
        ]
    }

    /// Records the request's spans; `tell` says what is known of each attempt.
    pub fn finish(&mut self, whole: Summary, tell: impl Fn(usize, &Attempt) -> Vec<Attribute>) {
        self.attempt_over(whole.ended, None);
        if !self.recorded {
            return;
        }
        let below = Some(self.span);
        let admission = (whole.began, whole.admitted);
        let mut spans = vec![self.over(self.admission, below, Kind::Internal, admission)];
        for (index, attempt) in self.attempts.iter().enumerate() {
            let times = (attempt.began, attempt.ended.unwrap_or(whole.ended));
            spans.push(Span {
                name: "upstream".into(),
                attributes: tell(index, attempt),
                error: attempt.error,
                ..self.over(attempt.span, below, Kind::Client, times)
            });
        }
        let times = (whole.began, whole.ended);
        spans.push(Span {
            name: whole.name.into(),
            attributes: whole.attributes,
            error: whole.error,
            ..self.over(self.span, self.parent, Kind::Server, times)
        });
        for span in spans {
            self.tracer.record(span);
        }
    }

    fn over(
        &self,
        id: SpanId,
        parent: Option<SpanId>,
        kind: Kind,
        (began, ended): (Duration, Duration),
    ) -> Span {
        Span {
            trace: self.trace,
            id,
            parent,
            name: "admission".into(),
            kind,
            began: self.epoch.nanos(began),
            ended: self.epoch.nanos(ended),
            attributes: Vec::new(),
            error: None,
        }
    }
}
