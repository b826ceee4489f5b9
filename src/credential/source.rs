//! The interface that every kind of credential source implements.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::identity::Identity;
use super::{IdentityHasher, IdentityKey, Issued};
use crate::bounded_cache::heap_size;
use crate::credential::ExchangeResult;
use crate::secret::SecretString;
use crate::token::{BearerToken, Caller};

/// What a source needs to know to issue one credential. Owned and cheap to clone, because a
/// fetch outlives the request that started it.
#[derive(Clone, Debug)]
pub struct SwapRequest {
    /// The caller to issue it for.
    pub caller: Caller,
    /// The caller's token, for sources that pass it on ([`CredentialSource::takes_token`]).
    pub bearer: Option<BearerToken>,
    /// The scopes that rules narrow the credential to; `None` leaves the source's own grant
    /// unchanged.
    pub scopes: Option<Arc<[String]>>,
    /// Milliseconds to add to our clock to get the upstream's, learned from its `Date` header.
    pub clock_offset: i64,
}

/// Why a source issued no credential. The messages are for the operator's log and contain no
/// secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The source rejected the caller's token. The caller gets 401.
    #[error("refused: {0}")]
    Refused(String),
    /// The caller is authenticated but cannot be issued a credential, for example because
    /// the name template needs a claim that the token lacks. The caller gets 403.
    #[error("not entitled: {0}")]
    NotEntitled(String),
    /// The source cannot be reached, is overloaded or timed out. 503 with `Retry-After`.
    #[error("unavailable: {cause}")]
    Unavailable {
        /// For the log.
        cause: String,
        /// The source's `Retry-After`, if it sent one.
        retry_after: Option<Duration>,
    },
    /// The authorization server refuses hawkgate's own client, or what hawkgate's configuration makes it
    /// ask for (RFC 6749 §5.2): the operator's to fix. 503 with a reason of its own.
    #[error("{cause}")]
    Misconfigured {
        /// For the log, with the remedy.
        cause: String,
        /// How long to leave the source alone; `None` if other requests to it may succeed meanwhile.
        retry_after: Option<Duration>,
    },
    /// The source answered with something that is not a credential. 502.
    #[error("unusable answer: {0}")]
    BadAnswer(String),
    /// Signing in with the username, password or second factor failed. The caller gets 401,
    /// 403 or 429, depending on `problem`. Never cached: the next attempt may succeed.
    #[error("sign-in: {cause}")]
    SignIn {
        /// What to report to the caller.
        problem: SignInProblem,
        /// For the log.
        cause: String,
        /// When to try again, if that matters.
        retry_after: Option<Duration>,
    },
    /// The credential's `Authorization` header would exceed Taskcluster's limit. 502 with a
    /// reason of its own.
    #[error("{0}")]
    TooLarge(String),
}

impl FetchError {
    /// The heap memory that it takes, in bytes.
    pub(super) fn heap_size(&self) -> usize {
        match self {
            Self::Refused(cause)
            | Self::NotEntitled(cause)
            | Self::BadAnswer(cause)
            | Self::TooLarge(cause)
            | Self::Unavailable { cause, .. }
            | Self::Misconfigured { cause, .. }
            | Self::SignIn { cause, .. } => heap_size::string(cause),
        }
    }
}

impl ExchangeResult {
    /// The result of an exchange that failed with `error`.
    pub fn of(error: &FetchError) -> Self {
        match error {
            FetchError::Refused(_) | FetchError::SignIn { .. } => Self::Refused,
            FetchError::NotEntitled(_) => Self::NotEntitled,
            FetchError::Unavailable { .. } => Self::Unavailable,
            FetchError::Misconfigured { .. } => Self::ClientRefused,
            FetchError::BadAnswer(_) => Self::BadAnswer,
            FetchError::TooLarge(_) => Self::TooLarge,
        }
    }
}

/// Why signing in with a password failed (`docs/design/tokens.md`, "Passwords and MFA").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInProblem {
    /// The username or password is wrong, or the account may not sign in. The response does
    /// not say which.
    Password,
    /// A second-factor code is required.
    CodeRequired,
    /// The second-factor code was wrong or arrived too late.
    CodeRefused,
    /// The user has not yet confirmed the sign-in on their other device.
    Unconfirmed,
    /// A second factor is required, and the account has none that works here.
    NoFactor,
    /// Too many failed attempts; the password was not checked.
    TooManyAttempts,
}

/// Issues credentials. Implementations know nothing about caching, single flight or metrics:
/// [`super::CachedSource`] and decorators add those.
#[async_trait]
pub trait CredentialSource: Send + Sync + std::fmt::Debug {
    /// Adds whatever distinguishes two callers' credentials beyond the source, issuer,
    /// subject, client and scopes; for example the token's digest where the credential is
    /// bound to it. Runs for every request, so it must be cheap and do no I/O.
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError>;

    /// A number that changes whenever [`Self::identity`] would give a different result for
    /// the same verified token. While it stays the same, the identity need not be computed
    /// again for every request. `None` if that cannot be known. Decorators must forward it.
    fn epoch(&self) -> Option<u64> {
        None
    }

    /// Fetches or mints a credential. The implementation bounds time and size;
    /// [`super::CachedSource`] bounds the time once more.
    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError>;

    /// Whether an exchange that failed may be repeated at once without the caller noticing. Not
    /// if each attempt counts somewhere, as with passwords. Decorators must forward it.
    fn retries_are_safe(&self) -> bool {
        true
    }

    /// Whether every caller gets the same credential, so that one cache entry serves all.
    ///
    /// Only for sources that use nothing about the caller except [`SwapRequest::scopes`],
    /// such as hawkgate's own OAuth2 client. Sharing avoids one token request per caller,
    /// which authorization servers limit or bill. Whether a caller may use the credential is
    /// decided beforehand, for each request. Decorators must forward it.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether the source uses [`SwapRequest::bearer`]. If not, the token is never copied out
    /// of the request. Decorators must forward it.
    fn takes_token(&self) -> bool {
        true
    }

    /// Whether credentials are minted locally, without the network. If so, minting another
    /// is the cheapest way to recover from a clock that was wrong.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether a fetch gives the same credential as before unless an operator has replaced it, so
    /// that a request is replayed only if it is another one. Decorators must forward it.
    fn is_fixed(&self) -> bool {
        false
    }

    /// Whether callers authenticate with a username and password ([`Caller::Password`])
    /// instead of a token. [`Self::fetch`] then verifies them.
    fn takes_password(&self) -> bool {
        false
    }

    /// Whether, once the upstream has rejected fresh credentials, the user has to sign in
    /// again elsewhere before it accepts any.
    fn needs_sign_in(&self) -> bool {
        false
    }

    /// The MFA recovery code that replaces the one just used and must be shown to the user
    /// once. Called after a fetch.
    fn recovery_code(&self, _request: &SwapRequest) -> Option<SecretString> {
        None
    }
}

impl IdentityKey {
    /// The identity of `request`'s caller at the source called `name`. It always includes
    /// the subject and never the token, except at sources that issue the same credential to
    /// every caller ([`CredentialSource::is_shared`]).
    pub(super) fn identify(
        &self,
        name: &str,
        source: &dyn CredentialSource,
        request: &SwapRequest,
    ) -> Result<Identity, FetchError> {
        self.hash(name, source, request).map(IdentityHasher::finish)
    }

    /// The same in a fleet; `None` if it depends on a token that is not at hand.
    pub(super) fn identify_in_fleet(
        &self,
        name: &str,
        source: &dyn CredentialSource,
        request: &SwapRequest,
    ) -> Option<Identity> {
        self.hash(name, source, request).ok()?.finish_complete()
    }

    fn hash(
        &self,
        name: &str,
        source: &dyn CredentialSource,
        request: &SwapRequest,
    ) -> Result<IdentityHasher, FetchError> {
        let mut hasher = self.hasher();
        hasher.part(name.as_bytes());
        if source.is_shared() {
            hasher.part(b"shared");
            hasher.set(request.scopes.as_deref());
        } else {
            hasher.caller(&request.caller, request.bearer.as_ref());
            hasher.list(request.scopes.as_deref());
        }
        source.identity(request, &mut hasher)?;
        Ok(hasher)
    }
}
