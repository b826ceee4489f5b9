//! What is to be told of requests besides metrics and access lines.

/// Off as a whole by default.
#[derive(Clone, Debug, Default)]
pub struct Observe {
    /// Whether outcomes bear what the audit log needs.
    pub audit: bool,
}
