//! Settings of distributed tracing.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use crate::secret::SecretRef;

/// The settings in `[trace]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What to do with a caller's trace context.
    pub incoming: IncomingTrace,
    /// Fraction (0 to 1) of the traces started by hawkgate that is sampled.
    pub sample: f64,
    /// The collector, if spans are exported.
    pub export: Option<TraceExport>,
}

/// `trace.export`: the collector that spans are sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceExport {
    /// The OTLP/HTTP endpoint, including the path.
    pub endpoint: Url,
    /// Headers sent with every export.
    pub headers: Vec<(HeaderName, SecretRef)>,
    /// The resource attribute `service.name`.
    pub service_name: String,
    /// The other resource attributes.
    pub attributes: Vec<(String, String)>,
    /// Time limit for one export.
    pub timeout: Duration,
    /// PEM file with the only CAs to trust; `None` trusts the platform's.
    pub ca: Option<PathBuf>,
    /// Whether plain HTTP to another machine is allowed.
    pub allow_plaintext: bool,
}

/// What to do with a caller's trace context: `trace.incoming`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncomingTrace {
    /// Continue the trace that the caller propagates.
    Continue,
    /// Start a new trace for every request.
    Restart,
}
