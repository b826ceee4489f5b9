//! OAuth2 endpoints from the client's side (RFC 6749 §2.3, §4, §5): hawkgate sends a form with
//! client authentication and receives a token or an error code.
//!
//! [`Endpoint::grant`] sends a token request; [`Endpoint::post`] is for other endpoints, such as
//! introspection. The error code is the only part of an error response that is ever logged, because
//! the description may quote a token or a password.

mod authentication;
mod endpoint;
mod failure;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod scopes;
#[cfg(test)]
mod tests;
mod token_response;

pub use endpoint::Endpoint;
pub use failure::{ErrorResponse, Failure, OnBehalfOf, not_json};
pub use scopes::RequestedScopes;
pub use token_response::TokenResponse;

/// The largest response accepted from a token endpoint, in bytes: two tokens of 16 KiB and room to
/// spare.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// The longest access token accepted, in bytes: servers commonly reject longer header fields.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
