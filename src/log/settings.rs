//! Settings of what is logged.

/// What [`Log::level`] ends in where the audit log is on.
pub const AUDIT_LEVEL: &str = ",audit=info";

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// JSON or text.
    pub format: LogFormat,
    /// As in `RUST_LOG`: `info`, or `info,hawkgate=debug`. Ends in `audit=info` where `audit`
    /// is on.
    pub level: String,
    /// Which part of the access lines of requests that went well is written; 0 to 1.
    pub access_sample: f64,
    /// Whether there is an audit log.
    pub audit: bool,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
