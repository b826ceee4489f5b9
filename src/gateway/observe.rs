//! What is to be told of requests besides metrics and access lines.

use std::sync::Arc;

use crate::trace::Tracer;

/// Off as a whole by default.
#[derive(Clone, Debug, Default)]
pub struct Observe {
    /// Whether outcomes bear what the audit log needs.
    pub audit: bool,
    /// `[trace]`, if it is there.
    pub trace: Option<Arc<Tracer>>,
}
