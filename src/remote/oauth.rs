//! What all OAuth2 endpoints have in common (RFC 6749 §2.3, §4, §5): hawkgate's own client
//! asks with a form, a token or an error code comes back.
//!
//! [`Endpoint::grant`] asks a token endpoint, [`Endpoint::post`] any other that takes a form
//! and client authentication (introspection). Of what a server says only an error code in
//! plain words is ever repeated: descriptions may quote a token or a password.

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

/// The largest answer of a token endpoint that is read, in bytes: tokens of 16 KiB, twice,
/// with room to spare.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The longest access token taken, in bytes: a longer one fits into no header that
/// upstreams accept.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
