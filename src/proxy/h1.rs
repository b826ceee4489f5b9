//! HTTP/1.0 and HTTP/1.1 (RFC 9112), towards callers and upstreams.

pub(super) mod client;
pub(super) mod session;
