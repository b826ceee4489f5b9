//! What is told of a piece of work, in the words of OpenTelemetry.

use std::borrow::Cow;

use super::context::{SpanId, TraceId};

/// How a span stands to others; the numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work of hawkgate's own.
    Internal = 1,
    /// A caller's request.
    Server = 2,
    /// A request of ours to somebody else.
    Client = 3,
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A name (of OpenTelemetry's conventions, or below `hawkgate.`) with its value.
pub type Attribute = (&'static str, Value);

/// A piece of work that is over. Holds no secret: only names, numbers, a path without its
/// query.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// Below which it belongs.
    pub parent: Option<SpanId>,
    /// What kind of work, of low cardinality.
    pub name: Cow<'static, str>,
    /// How it stands to others.
    pub kind: Kind,
    /// Nanoseconds since the epoch.
    pub began: u64,
    /// Nanoseconds since the epoch.
    pub ended: u64,
    /// What else is known.
    pub attributes: Vec<Attribute>,
    /// What went wrong, as a member of a closed set.
    pub error: Option<&'static str>,
}
