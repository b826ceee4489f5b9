//! Sessions of users who sign in with a browser (`[[session]]`; `docs/design/sessions.md`): signing
//! in, the sealed cookie that holds the session, its renewal, and its end. No HTTP and no network
//! here: [`crate::gateway::session`] turns requests into calls and results into answers, and
//! [`IdentityProvider`] is implemented by `remote`.
//!
//! A browser's request passes through [`Sessions::open`] (the cookie, unsealed, or remembered from the
//! connection's previous request) and [`Sessions::renew`] (tokens refreshed before they expire). A
//! sign-in passes through [`Sessions::begin`] and [`Sessions::complete`].

pub mod settings;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use crate::clock::{Now, UnixMillis};
use crate::hawk::Credentials;
use crate::header_fields::HeaderFields;
use crate::secret::SecretString;
use crate::signin::AuthorizationCode;
use crate::token::BearerToken;

/// The origin at which browsers reach hawkgate, and what it means for cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Scheme, host and port (RFC 6454), without a trailing slash: `https://app.example.com`.
    pub origin: String,
    /// Which cookies browsers accept from it.
    pub security: SiteSecurity,
}

/// Which cookies browsers accept from a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteSecurity {
    /// https: `__Host-` cookies.
    Https,
    /// http on loopback: cookies without the prefix and without `Secure`, which not every browser
    /// accepts there.
    LoopbackHttp,
}

/// What the cookies of a request hold.
#[derive(Clone, Debug)]
pub enum Presented {
    /// No session cookie.
    None,
    /// A cookie that is no session, or no longer one. The browser is told to forget it.
    Ended(Ended),
    /// A session.
    Open(Arc<UserSession>),
}

/// Why a cookie is not a session. For metrics and logs; callers do not learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Not sealed by one of the keys, truncated, or several cookies of the name.
    Invalid,
    /// `idle` is over.
    Idle,
    /// `lifetime` is over.
    Lifetime,
    /// Signed out here, or by the provider's back-channel logout.
    SignedOut,
    /// The provider refused to renew it.
    Refused,
    /// The credentials in it have expired or were rejected by the upstream.
    Credentials,
}

/// One user's session. `Debug` shows no token.
pub struct UserSession {
    /// Random; stays the same until the session ends. A new one at each sign-in.
    pub id: SessionId,
    /// Counts renewals.
    pub generation: u32,
    /// What the session is good for.
    pub grant: SessionGrant,
    /// `sub`, or the clientId.
    pub subject: String,
    /// `name`, if the provider says.
    pub name: Option<String>,
    /// `email`, if the provider says.
    pub email: Option<String>,
    /// `sid` of the ID token: the provider's name for its session.
    pub provider_session: Option<String>,
    /// When the user signed in.
    pub signed_in_at: UnixMillis,
    /// The end of `lifetime`.
    pub expires_at: UnixMillis,
    /// The end of `idle`, unless the session is used before.
    pub idle_expires_at: UnixMillis,
}

/// What a session is good for.
pub enum SessionGrant {
    /// Tokens of an OpenID provider.
    Oidc {
        /// Verified by the session's issuer for each request, like any bearer token.
        access_token: BearerToken,
        /// When it expires; `None` if the provider did not say.
        access_token_expires_at: Option<UnixMillis>,
        /// Renews it.
        refresh_token: Option<SecretString>,
        /// Kept for the provider's logout if it fits into the cookie.
        id_token: Option<SecretString>,
    },
    /// Credentials of a Taskcluster deployment, leased to requests as they are.
    Taskcluster {
        /// The credentials with their `Lease`.
        lease: crate::credential::Lease,
        /// The credentials, to be sealed again.
        credentials: Credentials,
        /// When they expire.
        expires_at: UnixMillis,
    },
}

/// 128 random bits. Not a secret, but not logged either: the log has a digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

/// A `Set-Cookie` field value. `Debug` shows only the name.
#[derive(Clone, PartialEq, Eq)]
pub struct SetCookie(pub(crate) String);

impl SetCookie {
    /// The field value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The answer to a request to sign in.
#[derive(Debug)]
pub struct Begun {
    /// The authorization request.
    pub location: Url,
    /// The cookie of this attempt, and the removal of superseded ones.
    pub cookies: Vec<SetCookie>,
}

/// A completed sign-in.
#[derive(Debug)]
pub struct SignedIn {
    /// The new session.
    pub session: Arc<UserSession>,
    /// Where the user wanted to go: a path on this site.
    pub return_to: String,
    /// The session cookie, and the removal of the attempt's.
    pub cookies: Vec<SetCookie>,
}

/// A session that was signed out.
#[derive(Debug)]
pub struct SignedOut {
    /// The provider's logout page; `None` if it has none.
    pub location: Option<Url>,
    /// Removals.
    pub cookies: Vec<SetCookie>,
}

/// A session that may be used for a request.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// The session, renewed if it was due.
    pub session: Arc<UserSession>,
    /// The cookie to set if the session, or its idle limit, has changed.
    pub cookie: Option<SetCookie>,
}

/// Why a session could not be renewed.
#[derive(Clone, Debug)]
pub enum RenewError {
    /// It has ended: the user has to sign in again.
    Ended(Ended),
    /// The provider does not answer and the access token has expired. 503.
    Unavailable {
        /// For the operator's log, without secrets.
        cause: String,
        /// When to try again.
        retry_after: Option<std::time::Duration>,
    },
}

/// Why a sign-in failed. Each has a text for the page that the user sees, and a label for metrics
/// (`hawkgate_sign_ins_total`).
#[derive(Clone, Debug, thiserror::Error)]
pub enum SignInError {
    /// The callback belongs to no attempt of this browser: expired, already completed, or foreign.
    #[error("the callback belongs to no sign-in of this browser")]
    UnknownAttempt,
    /// The attempt is older than ten minutes.
    #[error("the sign-in took longer than 10 minutes")]
    Expired,
    /// The callback comes from another provider (RFC 9207).
    #[error("the callback comes from another issuer")]
    IssuerMismatch,
    /// The provider or the user refused. The code is one of a closed set.
    #[error("the provider refused: {0}")]
    Denied(&'static str),
    /// The callback's parameters are malformed.
    #[error("the callback is malformed")]
    Malformed,
    /// The provider refused the code, or answered with something that cannot be used. The cause is for
    /// the operator's log.
    #[error("{0}")]
    Provider(String),
    /// The provider does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The ID token or the access token is not valid here. The cause is for the operator's log.
    #[error("{0}")]
    Token(String),
    /// The session does not fit into a cookie.
    #[error(
        "the session takes {0} bytes, but browsers keep cookies of at most 4096: use store = \"shared\", or ask for fewer claims"
    )]
    TooLarge(usize),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Randomness,
}

/// Why a logout token is refused (OpenID Connect Back-Channel Logout 1.0 §2.6).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct LogoutTokenError(pub String);

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
        retry_after: Option<std::time::Duration>,
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
    /// Ends this user's sessions, if there is no `provider_session`.
    pub subject: Option<String>,
    /// Ends the sessions with this `sid`.
    pub provider_session: Option<String>,
}

/// What a connection's latest request with a cookie presented: the cookie's bytes and the session
/// opened from it, like [`crate::token::TokenMemo`].
#[derive(Default)]
pub struct SessionMemo(());

/// One `[[session]]`.
#[derive(Debug)]
pub struct Sessions {
    /// The configured name; a metric label.
    pub name: Arc<str>,
}

impl Sessions {
    /// Opens the session in the request's cookies. Takes no lock and awaits nothing. A cookie that the
    /// memo remembers costs a comparison.
    pub fn open(
        &self,
        _headers: &dyn HeaderFields,
        _site: SiteSecurity,
        _now: Now,
        _memo: &mut SessionMemo,
    ) -> Presented {
        todo!()
    }

    /// Makes sure that the session can be used: renews its tokens before they expire (single flight for
    /// each session; requests with the cookie of before a rotation get its result), and its idle limit.
    pub async fn renew(
        &self,
        _session: Arc<UserSession>,
        _site: SiteSecurity,
        _now: Now,
    ) -> Result<Renewed, RenewError> {
        todo!()
    }

    /// Begins a sign-in that returns to `return_to`: what [`return_to`] accepted.
    pub async fn begin(
        &self,
        _return_to: &str,
        _site: &Site,
        _headers: &dyn HeaderFields,
        _now: Now,
    ) -> Result<Begun, SignInError> {
        todo!()
    }

    /// Completes a sign-in with the callback's `query`.
    pub async fn complete(
        &self,
        _query: &str,
        _site: &Site,
        _headers: &dyn HeaderFields,
        _now: Now,
    ) -> Result<SignedIn, SignInError> {
        todo!()
    }

    /// Ends the session here; revokes its refresh token in the background. Returns the provider's logout
    /// page, which returns to `<origin><prefix>logout`.
    pub async fn sign_out(
        &self,
        _session: Option<&UserSession>,
        _site: &Site,
        _now: Now,
    ) -> SignedOut {
        todo!()
    }

    /// Ends the sessions that a logout token names.
    pub async fn back_channel_logout(
        &self,
        _token: &str,
        _now: Now,
    ) -> Result<(), LogoutTokenError> {
        todo!()
    }

    /// The upstream rejected the session's own credentials: it has ended, wherever its cookie is.
    pub fn reject_credentials(&self, _session: &UserSession, _now: Now) {
        todo!()
    }

    /// The removal of the session cookie.
    pub fn removal(&self, _site: SiteSecurity) -> SetCookie {
        todo!()
    }
}

/// Checks a `return_to`: a path with an optional query, on this site. `None` for anything that a browser
/// may read as another site (`//`, `/\`, control characters, their encodings) or that is too long.
pub fn return_to(_value: &str) -> Option<&str> {
    todo!()
}

/// Whether `name` is the name of one of hawkgate's own cookies (session or attempt, of any `[[session]]`),
/// which are not forwarded and which upstreams may not set.
pub fn is_own_cookie(_name: &[u8]) -> bool {
    todo!()
}

impl fmt::Debug for SessionMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionMemo(..)")
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

impl fmt::Debug for SetCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split('=').next().unwrap_or_default();
        write!(f, "SetCookie({name:?}, [redacted])")
    }
}

impl fmt::Debug for SessionGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oidc { .. } => "Oidc([redacted])",
            Self::Taskcluster { .. } => "Taskcluster([redacted])",
        })
    }
}

impl fmt::Debug for UserSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSession")
            .field("subject", &self.subject)
            .field("generation", &self.generation)
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}
