//! Settings of distributed traces.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use crate::secret::SecretRef;

/// `[trace]`
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What becomes of callers' trace context.
    pub incoming: IncomingTrace,
    /// Which part of the traces begun here is recorded; 0 to 1.
    pub sample: f64,
    /// The collector, if there is one.
    pub export: Option<TraceExport>,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceExport {
    /// For OTLP over HTTP, path included.
    pub endpoint: Url,
    /// Sent with every export.
    pub headers: Vec<(HeaderName, SecretRef)>,
    /// `service.name`
    pub service_name: String,
    /// The resource's other attributes.
    pub attributes: Vec<(String, String)>,
    /// For one export.
    pub timeout: Duration,
    /// PEM file with the only CAs trusted; the platform's when `None`.
    pub ca: Option<PathBuf>,
    /// Whether it may be plain http on another machine.
    pub allow_plaintext: bool,
}

/// `trace.incoming`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncomingTrace {
    /// A request belongs to the trace that its caller says.
    Continue,
    /// Every request begins a trace.
    Restart,
}
