//! What every kind of source does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{IdentityHasher, Issued};
use crate::credential::ExchangeResult;
use crate::secret::SecretString;
use crate::token::{BearerToken, Caller};

/// What a source needs to know about one swap. Owned and cheap to clone, because a fetch
/// outlives the request that started it.
#[derive(Clone, Debug)]
pub struct SwapRequest {
    /// Who asks.
    pub caller: Caller,
    /// The token itself, for sources that pass it on ([`CredentialSource::takes_token`]).
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
    /// The username and password, or what has to go with them, did not do. The caller gets
    /// 401, 403 or 429 by `problem`. Never remembered: the next attempt may be the right one.
    #[error("sign-in: {cause}")]
    SignIn {
        /// What the caller is told.
        problem: SignInProblem,
        /// For the log.
        cause: String,
        /// When to try again, where that matters.
        retry_after: Option<Duration>,
    },
    /// The credential's header would pass Taskcluster's limit. 502 with its own reason.
    #[error("{0}")]
    TooLarge(String),
}

impl ExchangeResult {
    /// How an exchange ended that gave nothing.
    pub fn of(error: &FetchError) -> Self {
        match error {
            FetchError::Refused(_) | FetchError::SignIn { .. } => Self::Refused,
            FetchError::NotEntitled(_) => Self::NotEntitled,
            FetchError::Unavailable { .. } => Self::Unavailable,
            FetchError::BadAnswer(_) => Self::BadAnswer,
            FetchError::TooLarge(_) => Self::TooLarge,
        }
    }
}

/// Why a sign-in with a password came to nothing (identity.md §F).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInProblem {
    /// Username or password is wrong, or the account may not sign in: nobody is told which.
    Password,
    /// A second factor's code is needed.
    CodeRequired,
    /// The second factor was wrong or came too late.
    CodeRefused,
    /// The user has to confirm on another device, and has not yet.
    Unconfirmed,
    /// A second factor is needed, and the account has none that could be used here.
    NoFactor,
    /// Too many failures; the password was not looked at.
    TooManyAttempts,
}

/// A way to a credential. Implementations know nothing of caching, single flight or
/// metrics: [`super::Source`] wraps them.
#[async_trait]
pub trait CredentialSource: Send + Sync + std::fmt::Debug {
    /// Adds what, besides source, issuer, subject, client and scopes, makes two callers'
    /// credentials different (the token's digest where the credential is bound to it).
    /// Runs for every request: cheap, and without I/O.
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError>;

    /// A number that is another one whenever [`Self::identity`] would say something else of
    /// the same verified token: while it is the same, the token's identity need not be
    /// computed for every request. `None` where nobody can tell. A decorator must pass it on.
    fn epoch(&self) -> Option<u64> {
        None
    }

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

    /// Whether it does anything with [`SwapRequest::bearer`]: where not, the token is not even
    /// copied out of the request. A decorator must pass it on.
    fn takes_token(&self) -> bool {
        true
    }

    /// Whether a new credential is made here, without asking anybody: then a new one is
    /// the cheap way out of a clock that was wrong.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether callers bring this source a username and password ([`Caller::Password`])
    /// instead of a token. Its [`Self::fetch`] is their proof.
    fn asks_password(&self) -> bool {
        false
    }

    /// Whether only the user's own signing in elsewhere gives credentials that the upstream
    /// accepts again once it refused fresh ones.
    fn needs_sign_in(&self) -> bool {
        false
    }

    /// Something that the user of `request` must be given, once: the recovery code that
    /// takes the place of the one that was used. Asked after a fetch.
    fn recovery_code(&self, _request: &SwapRequest) -> Option<SecretString> {
        None
    }
}
