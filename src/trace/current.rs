//! Whose span the task at work is in. Told beside the arguments, because the work goes
//! through caches, queues and sources that have nothing to do with tracing.

use std::future::Future;
use std::sync::Arc;

use http::HeaderValue;

use super::context::{SpanId, TraceId, traceparent};
use super::span::{Attribute, Kind, Span};
use super::tracer::{Epoch, Tracer};

tokio::task_local! {
    static ACTIVE: Active;
}

/// A span under way.
#[derive(Clone, Debug)]
pub struct Active {
    pub(super) tracer: Arc<Tracer>,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) sampled: bool,
    pub(super) recorded: bool,
    pub(super) epoch: Epoch,
}

/// Runs `future` inside of `active`. Await it boxed in a branch of its own, where tracing may
/// be off: then that costs nothing but the branch.
pub async fn within<F: Future>(active: Active, future: F) -> F::Output {
    ACTIVE.scope(active, future).await
}

/// The span that this is called in. Tasks spawned do not inherit it: give it to them.
pub fn current() -> Option<Active> {
    ACTIVE.try_with(Clone::clone).ok()
}

/// `traceparent` for a request that is sent from here.
pub fn outgoing() -> Option<HeaderValue> {
    ACTIVE
        .try_with(|a| traceparent(a.trace, a.span, a.sampled))
        .ok()
        .flatten()
}

/// Runs `future` in a span of its own below the current one, if there is one; `tell` says
/// what came of it.
pub async fn spanned<F: Future>(
    name: &'static str,
    kind: Kind,
    future: F,
    tell: impl FnOnce(&F::Output) -> (Vec<Attribute>, Option<&'static str>),
) -> F::Output {
    let Some(parent) = current() else {
        return future.await;
    };
    let Some(id) = SpanId::random() else {
        return future.await;
    };
    let below = Active {
        span: id,
        ..parent.clone()
    };
    let began = parent.tracer.monotonic();
    let output = ACTIVE.scope(below, future).await;
    if parent.recorded {
        let (attributes, error) = tell(&output);
        parent.tracer.record(Span {
            trace: parent.trace,
            id,
            parent: Some(parent.span),
            name: name.into(),
            kind,
            began: parent.epoch.nanos(began),
            ended: parent.epoch.nanos(parent.tracer.monotonic()),
            attributes,
            error,
        });
    }
    output
}
