//! Spans, as OpenTelemetry defines them.

use std::borrow::Cow;

use super::trace_context::{SpanId, TraceId};

/// OpenTelemetry's span kind; the discriminants are those of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work inside hawkgate.
    Internal = 1,
    /// A request received from a caller.
    Server = 2,
    /// A request that hawkgate sends.
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A string.
    Text(Cow<'static, str>),
    /// An integer.
    Number(i64),
}

impl From<&'static str> for AttributeValue {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A name (from OpenTelemetry's semantic conventions, or under `hawkgate.`) and its value.
pub type Attribute = (&'static str, AttributeValue);

/// A finished span. Contains no secrets: only names, numbers and a path without its query.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace it belongs to.
    pub trace: TraceId,
    /// The span's id.
    pub id: SpanId,
    /// The parent span, if any.
    pub parent: Option<SpanId>,
    /// The operation; must be of low cardinality.
    pub name: Cow<'static, str>,
    /// The kind of span.
    pub kind: SpanKind,
    /// Nanoseconds since the anchor.
    pub started: u64,
    /// Nanoseconds since the anchor.
    pub ended: u64,
    /// Further attributes.
    pub attributes: Vec<Attribute>,
    /// The error type, from a closed set, if the operation failed.
    pub error: Option<&'static str>,
}
