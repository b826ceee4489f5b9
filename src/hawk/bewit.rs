//! Bewits: a signature in the query (taskcluster.md §4).

/// Whether the query of `target` already has a `bewit`; such a request must not be
/// signed (two schemes are a 401).
pub fn has_bewit(_target: &str) -> bool {
    false
}
