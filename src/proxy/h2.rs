//! HTTP/2 (RFC 9113), towards callers and upstreams.

pub(super) mod client;
mod fields;
pub(super) mod server;
pub(super) mod session;
mod stall;

/// Maximum number of bytes of a message that wait for their connection to be written, for each
/// stream. The default of `h2` is 400 KB.
const SEND_BUFFER: usize = 32 * 1024;
