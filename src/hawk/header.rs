//! The `Authorization: Hawk …` header.

use super::Credentials;
use crate::clock::UnixMillis;

/// The longest Authorization value that the auth service reads (taskcluster.md §3).
pub const MAX_AUTHORIZATION_CHARS: usize = 4096;

/// One request as the service will see it; every part goes into the MAC as it stands.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// When, by the *service's* clock (offset already applied). Sent as whole seconds.
    pub at: UnixMillis,
    /// Required, never checked by Taskcluster; see [`nonce`].
    pub nonce: &'a str,
    /// As sent (HEAD stays HEAD); upper-cased for the MAC.
    pub method: &'a str,
    /// Raw path and query exactly as they go on the wire.
    pub target: &'a str,
    /// Host name without port; lower-cased for the MAC.
    pub host: &'a str,
    /// The port that the service computes with.
    pub port: u16,
    /// Base64 payload hash, if one is sent. hawkgate sends none.
    pub payload_hash: Option<&'a str>,
}

/// Why a header cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HawkError {
    /// The value would pass [`MAX_AUTHORIZATION_CHARS`].
    #[error(
        "the Authorization header would have {length} characters; Taskcluster reads at most {MAX_AUTHORIZATION_CHARS}. Grant fewer scopes"
    )]
    TooLong {
        /// How long it would be.
        length: usize,
    },
    /// An id, host or method that cannot stand in a header.
    #[error("{0} has characters that cannot stand in a Hawk header")]
    Unrepresentable(&'static str),
}

/// Credentials prepared for signing: the HMAC key schedule and `ext` computed once.
pub struct Signer {
    _private: (),
}

impl Signer {
    /// Prepares `credentials`.
    ///
    /// # Errors
    /// When no header made with them could be within the limit.
    pub fn new(_credentials: &Credentials) -> Result<Self, HawkError> {
        Ok(Self { _private: () })
    }

    /// The whole header value, `Hawk id="…", ts="…", nonce="…", [ext="…",] mac="…"`.
    ///
    /// # Errors
    /// When the value passes the limit or a part cannot be represented.
    pub fn authorization(&self, _request: &SignedRequest<'_>) -> Result<String, HawkError> {
        Err(HawkError::Unrepresentable("skeleton"))
    }
}

/// A fresh nonce, unpredictable, header-safe.
pub fn nonce() -> String {
    String::new()
}
