//! Why a signature cannot be made, and the limits of the auth service.

/// The longest `Authorization` value that the auth service accepts.
pub const MAX_AUTHORIZATION_CHARS: usize = 4096;

/// The longest path and query, bewit included, that the auth service accepts.
pub const MAX_TARGET_CHARS: usize = 4096;

/// Why a header or a bewit cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HawkError {
    /// The value would exceed [`MAX_AUTHORIZATION_CHARS`].
    #[error(
        "the Authorization header would have {length} characters; Taskcluster accepts at most {MAX_AUTHORIZATION_CHARS}. Grant fewer scopes"
    )]
    TooLong {
        /// The length it would have, in characters.
        length: usize,
    },
    /// The path and query would exceed [`MAX_TARGET_CHARS`] with the bewit.
    #[error(
        "the path and query with a bewit would have {length} characters; Taskcluster accepts at most {MAX_TARGET_CHARS}"
    )]
    TargetTooLong {
        /// The length they would have, in characters.
        length: usize,
    },
    /// The target already has a bewit and must be sent unsigned.
    #[error("the query already has a bewit")]
    SecondScheme,
    /// The service would not see the method or target, which the caller chose, byte for byte
    /// as it is signed.
    #[error("the request's {0} contains characters that cannot be signed")]
    Unsignable(&'static str),
    /// A clientId, accessToken, nonce or host that is empty or not valid in a header.
    #[error("the {0} is empty or contains characters that a Hawk header cannot carry")]
    Unrepresentable(&'static str),
}
