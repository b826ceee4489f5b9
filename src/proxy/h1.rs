//! HTTP/1.0 and HTTP/1.1 (RFC 9112), towards callers and upstreams.

pub(super) mod client;
pub(super) mod connection;
pub(super) mod decode;
mod encode;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod head;
pub(super) mod lingering_close;
mod read;
mod response_head_end;
pub(super) mod server;
pub(super) mod session;
