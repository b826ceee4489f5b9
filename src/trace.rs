//! Distributed tracing: propagates W3C Trace Context (Level 1) from callers to upstreams and
//! records spans for an OpenTelemetry collector. Inactive unless `[trace]` is configured.
//!
//! [`Tracer::begin`] starts a request's [`RequestTrace`]. Work done on behalf of the request
//! runs inside [`in_span`], which makes the enclosing span available to [`current_span`] and
//! [`outgoing_traceparent`].

mod request_trace;
pub mod settings;
mod span;
mod task_local;
mod time_anchor;
mod trace_context;
mod tracer;

pub use request_trace::{
    Attempt, HeaderAction, RequestSummary, RequestTrace, TASKCLUSTER_TRACE_ID,
};
pub use span::{Attribute, AttributeValue, Span, SpanKind};
pub use task_local::{SpanContext, current_span, in_span, outgoing_traceparent, with_span};
pub use trace_context::{RemoteParent, SpanId, TRACEPARENT, TRACESTATE, TraceId, traceparent};
pub use tracer::{ExportResult, ExporterMessage, MAX_QUEUED, SpanObserver, Tracer};
