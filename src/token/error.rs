//! Why a token does not pass. Each variant is a stable metric label and a fixed text.

use std::time::Duration;

/// Why a token was not accepted. No variant carries anything of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a compact JWS, or larger than allowed.
    #[error("the token is not a well-formed JWT")]
    Malformed,
    /// No key was ever had from the issuer: not the caller's fault.
    #[error("the issuer's keys are not available")]
    KeysUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
}
