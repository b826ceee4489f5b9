//! Shared by the credential sources: access to the caller's token, and error classification.

use super::http_client::TransportError;
use crate::credential::{FetchError, IdentityHasher, SwapRequest};
use crate::token::BearerToken;

/// The caller's token.
///
/// # Errors
/// When the request has none.
pub(super) fn bearer(request: &SwapRequest) -> Result<&BearerToken, FetchError> {
    request.bearer.as_ref().ok_or_else(|| {
        FetchError::NotEntitled(
            "this source presents the caller's token, and the request has none".into(),
        )
    })
}

/// Adds the token's digest to the cache key: the credentials are bound to the token.
pub(super) fn bind_to_token(
    request: &SwapRequest,
    key: &mut IdentityHasher,
) -> Result<(), FetchError> {
    let bearer = bearer(request)?;
    key.token(bearer.digest(), Some(bearer));
    Ok(())
}

/// Classifies a request that got no usable response: either the network failed, or retrying will
/// not help because the response or the configuration is at fault.
pub(super) fn unreachable(error: TransportError) -> FetchError {
    match error {
        TransportError::Connection { .. } | TransportError::Timeout { .. } => {
            FetchError::Unavailable {
                cause: error.to_string(),
                retry_after: None,
            }
        }
        other => FetchError::BadAnswer(other.to_string()),
    }
}
