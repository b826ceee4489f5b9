//! The active span of the current task. It is a task-local rather than an argument because the work
//! passes through caches, queues and sources that do not deal with tracing.

use std::future::Future;
use std::sync::Arc;

use http::HeaderValue;

use super::span::{Attribute, Span, SpanKind};
use super::time_anchor::TimeAnchor;
use super::trace_context::{SpanId, TraceId, traceparent};
use super::tracer::Tracer;

tokio::task_local! {
    static ACTIVE: SpanContext;
}

/// An active span, with what is needed to create children and to propagate it.
#[derive(Clone, Debug)]
pub struct SpanContext {
    pub(super) tracer: Arc<Tracer>,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) sampled: bool,
    pub(super) recorded: bool,
    pub(super) anchor: TimeAnchor,
}

/// Runs `future` with `span` as the active span. Where tracing may be off, box the returned future
/// in a separate branch, so that untraced requests pay only for the branch.
pub async fn in_span<F: Future>(span: SpanContext, future: F) -> F::Output {
    ACTIVE.scope(span, future).await
}

/// The active span, if any. Spawned tasks do not inherit it: pass it to [`in_span`] there.
pub fn current_span() -> Option<SpanContext> {
    ACTIVE.try_with(Clone::clone).ok()
}

/// The `traceparent` value for a request sent within the active span.
pub fn outgoing_traceparent() -> Option<HeaderValue> {
    ACTIVE
        .try_with(|a| traceparent(a.trace, a.span, a.sampled))
        .ok()
        .flatten()
}

/// Runs `future` in a new child of the active span, if there is one. `describe` returns the span's
/// attributes and error for an output.
pub async fn with_span<F: Future>(
    name: &'static str,
    kind: SpanKind,
    future: F,
    describe: impl FnOnce(&F::Output) -> (Vec<Attribute>, Option<&'static str>),
) -> F::Output {
    let Some(parent) = current_span() else {
        return future.await;
    };
    let Some(id) = SpanId::random() else {
        return future.await;
    };
    let child = SpanContext {
        span: id,
        ..parent.clone()
    };
    let started = parent.tracer.monotonic();
    let output = ACTIVE.scope(child, future).await;
    if parent.recorded {
        let (attributes, error) = describe(&output);
        parent.tracer.record(Span {
            trace: parent.trace,
            id,
            parent: Some(parent.span),
            name: name.into(),
            kind,
            started: parent.anchor.nanos(started),
            ended: parent.anchor.nanos(parent.tracer.monotonic()),
            attributes,
            error,
        });
    }
    output
}
