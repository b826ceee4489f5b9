//! Settings of the logs.

/// Appended to [`Log::level`] when the audit log is on.
pub const AUDIT_LEVEL: &str = ",audit=info";

/// The settings in `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The format of log lines.
    pub format: LogFormat,
    /// Directives as in `RUST_LOG`: `info`, or `info,hawkgate=debug`. Ends in [`AUDIT_LEVEL`] if the
    /// audit log is on.
    pub level: String,
    /// Fraction (0 to 1) of successful requests that get an access line.
    pub access_sample: f64,
    /// Whether the audit log is on.
    pub audit: bool,
}

/// The format of log lines: `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Human-readable `name=value` lines.
    Text,
}
