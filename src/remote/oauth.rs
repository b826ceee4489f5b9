//! What all OAuth2 endpoints have in common (RFC 6749 §2.3, §4, §5): hawkgate, as a client,
//! sends a form and receives a token or an error code.
//!
//! [`Endpoint::grant`] sends a token request; [`Endpoint::post`] is for other endpoints that take
//! a form and client authentication, such as introspection. Of a server's error response only
//! a plain error code is ever logged, because descriptions may quote a token or a password.

mod answer;
mod authentication;
mod endpoint;
mod failure;
mod scopes;
#[cfg(test)]
mod tests;

pub use answer::Granted;
pub use endpoint::Endpoint;
pub use failure::{About, Denied, Failure, limit_reset};
pub use scopes::Scopes;

/// The largest response of a token endpoint that is read, in bytes: enough for two tokens of
/// 16 KiB and more.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The longest access token accepted, in bytes: upstreams do not accept a header field with a
/// longer one.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
