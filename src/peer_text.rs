//! What may be quoted of the texts that peers send: identity providers, exchanges, upstreams.
//!
//! A peer can put anything into an error code, a certificate or a URL, including the token or
//! password that it was just sent. Nothing of that may reach a log line, a message for the terminal
//! or an answer, so such a text is replaced by the member of a closed set that it equals or that
//! describes it. Numbers (a status, a length, a time) need no such care.

mod echo;
mod error_code;
mod tls;

pub use echo::{is_echoed, names_token, shortest_echo};
pub use error_code::{UNREGISTERED, error_code, taskcluster_error_code};
pub use tls::{connection_cause, tls_cause};
