//! What is recorded about requests besides metrics and access lines.

use std::sync::Arc;

use crate::trace::Tracer;

/// Everything is off by default.
#[derive(Clone, Debug, Default)]
pub struct Observability {
    /// Whether outcomes carry the data for the audit log.
    pub audit: bool,
    /// The tracer, if `[trace]` is configured.
    pub trace: Option<Arc<Tracer>>,
}
