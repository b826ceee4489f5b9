//! Settings for the audit log and tracing.

use std::sync::Arc;

use crate::trace::Tracer;

/// What is recorded about requests in addition to metrics and access lines; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Observability {
    /// Whether outcomes include the data for the audit log.
    pub audit: bool,
    /// The tracer, if `[trace]` is configured.
    pub trace: Option<Arc<Tracer>>,
}
