//! What every kind of source does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{IdentityHasher, Issued};
use crate::token::{BearerToken, Caller};

/// What a source needs to know about one swap. Owned and cheap to clone, because a fetch
/// outlives the request that started it.
#[derive(Clone, Debug)]
pub struct SwapRequest {
    /// Who asks.
    pub caller: Caller,
    /// The token itself, for sources that pass it on.
    pub bearer: Option<BearerToken>,
    /// Narrowing by rules; `None` leaves the source's own grant as it is.
    pub scopes: Option<Arc<[String]>>,
    /// Milliseconds to add to our clock to get the upstream's (learnt from `Date`).
    pub clock_offset: i64,
}

/// Why a source gave nothing. Texts are for operators' logs; none holds a secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The source says the caller's token is no good. The caller gets 401.
    #[error("refused: {0}")]
    Refused(String),
    /// The caller is known but cannot be given a credential (a claim that the name
    /// template needs is missing, …). The caller gets 403.
    #[error("not entitled: {0}")]
    NotEntitled(String),
    /// The source cannot be reached, is overloaded or timed out. 503 with `Retry-After`.
    #[error("unavailable: {cause}")]
    Unavailable {
        /// For the log.
        cause: String,
        /// The source's own `Retry-After`, if it gave one.
        retry_after: Option<Duration>,
    },
    /// The source answered with something that is not a credential. 502.
    #[error("unusable answer: {0}")]
    BadAnswer(String),
    /// The credential's header would pass Taskcluster's limit. 502 with its own reason.
    #[error("{0}")]
    TooLarge(String),
}

/// A way to a credential. Implementations know nothing of caching, single flight or
/// metrics: [`super::Source`] wraps them.
#[async_trait]
pub trait CredentialSource: Send + Sync + std::fmt::Debug {
    /// Adds what, besides source, issuer, subject, client and scopes, makes two callers'
    /// credentials different (the token's digest where the credential is bound to it).
    /// Runs for every request: cheap, and without I/O.
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError>;

    /// Fetches or makes a credential. Bounded in time and size by the implementation;
    /// [`super::Source`] bounds the time again.
    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError>;

    /// Whether every caller gets the same credential, so that one in the cache serves all.
    ///
    /// Only for sources that look at nothing of the caller but [`SwapRequest::scopes`]
    /// (hawkgate's own OAuth2 client): then two callers whose identities meet get what they
    /// would have got anyway, and a token is not asked for once per caller, which servers
    /// limit or bill (identity.md §G). Whether a caller may have it is decided before, for
    /// each request. A decorator must pass it on.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether a new credential is made here, without asking anybody: then a new one is
    /// the cheap way out of a clock that was wrong.
    fn is_local(&self) -> bool {
        false
    }
}
