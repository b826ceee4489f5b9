//! HTTP/2 (RFC 9113), towards callers and upstreams.

pub(super) mod client;
pub(super) mod session;
