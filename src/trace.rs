//! Distributed traces: W3C Trace Context (Level 1) taken over from callers and given on,
//! and spans for a collector. Nothing of it happens unless `[trace]` is configured.
//!
//! [`Tracer::begin`] makes a request's [`RequestTrace`]; [`within`] tells what runs on its
//! behalf, wherever that is, whose span it belongs below.

mod context;
mod current;
mod request;
pub mod settings;
mod span;
mod tracer;

pub use context::{Parent, SpanId, TRACEPARENT, TRACESTATE, TraceId, traceparent};
pub use current::{Active, current, outgoing, spanned, within};
pub use request::{Attempt, HeaderAction, RequestTrace, Summary, TASKCLUSTER_TRACE_ID};
pub use span::{Attribute, Kind, Span, Value};
pub use tracer::{ExportResult, Item, MAX_QUEUED, SpanObserver, Tracer};
