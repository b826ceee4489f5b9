//! The provider that users sign in with, as the sessions see it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use super::SessionGrant;
use crate::clock::UnixMillis;
use crate::secret::SecretString;
use crate::signin::AuthorizationCode;

/// Why a logout token ends nothing. Texts are for the operator's log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogoutTokenError {
    /// It is not valid (OpenID Connect Back-Channel Logout 1.0 §2.6).
    #[error("{0}")]
    Invalid(String),
    /// The keys that it has to be verified with cannot be fetched. The provider may send it again.
    #[error("{cause}")]
    Unavailable {
        /// For the log.
        cause: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// The provider of a session, reached over the network.
#[async_trait]
pub trait IdentityProvider: fmt::Debug + Send + Sync {
    /// The endpoints, from the provider's metadata (cached by the implementation).
    async fn endpoints(&self) -> Result<ProviderEndpoints, ProviderError>;

    /// Exchanges an authorization code, and verifies the ID token that comes with it (signature, `iss`,
    /// `aud`, `azp`, `exp`, `iat`, `nonce`, `at_hash`).
    async fn redeem(&self, code: &AuthorizationCode) -> Result<ProviderGrant, ProviderError>;

    /// Renews tokens. An ID token in the answer must be for the same `subject`. The result has the old
    /// refresh token if the provider issued no new one, and neither an ID token nor what such a token
    /// says about the user unless the answer has a valid one.
    async fn refresh(
        &self,
        refresh_token: &SecretString,
        subject: &str,
    ) -> Result<ProviderGrant, ProviderError>;

    /// Revokes a refresh token, if the provider has an endpoint for that.
    async fn revoke(&self, refresh_token: &SecretString) -> Result<(), ProviderError>;

    /// Verifies a logout token, except that its `jti` is new.
    async fn verify_logout_token(&self, token: &str) -> Result<LogoutToken, LogoutTokenError>;
}

/// Where the provider is.
#[derive(Clone, Debug)]
pub struct ProviderEndpoints {
    /// The issuer identifier, for `iss` in callbacks; for Taskcluster the root URL.
    pub issuer: String,
    /// Where users sign in.
    pub authorization: Url,
    /// RP-initiated logout.
    pub end_session: Option<Url>,
    /// Whether callbacks have `iss` (RFC 9207).
    pub iss_required: bool,
}

/// What the provider issued.
#[derive(Debug)]
pub struct ProviderGrant {
    /// Tokens or credentials, as a session keeps them.
    pub grant: SessionGrant,
    /// `sub`, or the clientId.
    pub subject: String,
    /// From the ID token.
    pub name: Option<String>,
    /// From the ID token.
    pub email: Option<String>,
    /// `sid` of the ID token.
    pub provider_session: Option<String>,
}

/// Why the provider issued nothing. Texts are for the operator's log, without secrets and without
/// quotations.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// It refused what the *user's* session presented: `invalid_grant`.
    #[error("refused: {0}")]
    Refused(String),
    /// It does not answer, or with 5xx or 429.
    #[error("unavailable: {cause}")]
    Unavailable {
        /// For the log.
        cause: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// hawkgate's own client or request is wrong, or the answer cannot be used: the operator's to fix.
    #[error("{0}")]
    Misconfigured(String),
    /// The ID token or the access token that the provider issued is not valid here.
    #[error("{0}")]
    InvalidToken(String),
}

/// A verified logout token.
#[derive(Clone, Debug)]
pub struct LogoutToken {
    /// `jti`.
    pub id: String,
    /// `iat`.
    pub issued_at: UnixMillis,
    /// `exp`, or when it is too old to be accepted.
    pub accepted_until: UnixMillis,
    /// Ends this user's sessions: all of them if there is no `provider_session`, otherwise those of
    /// which no `sid` is known.
    pub subject: Option<String>,
    /// Ends the sessions with this `sid`.
    pub provider_session: Option<String>,
}
