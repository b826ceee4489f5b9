//! Sessions of users who sign in with a browser (`[[session]]`; `docs/design/sessions.md`): signing
//! in, the sealed cookie that holds the session or finds it in the shared store, its renewal, and its end. No HTTP and no network
//! here: [`crate::gateway::session`] turns requests into calls and results into answers, and
//! [`IdentityProvider`] is implemented by `remote`.
//!
//! A browser's request passes through [`Sessions::open`] (the cookie, unsealed, or remembered from the
//! connection's previous request) and [`Sessions::renew`] (tokens refreshed before they expire). A
//! sign-in passes through [`Sessions::begin`] and [`Sessions::complete`].

mod attempt;
mod cookie;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod memo;
mod opening;
mod provider;
mod record;
mod refresh;
mod renewals;
mod replay;
mod return_to;
mod revocation;
mod seal;
pub mod settings;
mod shared;
mod sign_in;
mod sign_out;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod user_session;

pub use cookie::is_own_cookie;
pub use error::{RenewError, SessionError, SignInError};
pub use memo::SessionMemo;
pub use provider::{
    IdentityProvider, LogoutToken, LogoutTokenError, ProviderEndpoints, ProviderError,
    ProviderGrant,
};
pub use refresh::{RefreshObserver, RefreshResult};
pub use return_to::return_to;
pub use user_session::{SessionGrant, SessionId, UserSession};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use url::Url;

use crate::circuit_breaker::{CircuitBreaker, Jitter, Limits};
use crate::clock::{Now, SharedClock};
use crate::header_fields::HeaderFields;
use crate::shared_store::{Fleet, StoreEvent};
use crate::signin::AuthorizationRequest;
use cookie::{Found, Names};
use renewals::Renewals;
use replay::Replays;
use revocation::Revocations;
use seal::Sealer;
use settings::{SessionKind, SessionSettings, SessionStore};
use shared::Shared;

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
    /// A cookie that may be a session, but the shared store cannot be asked. 503: the user is not signed
    /// out.
    Unavailable {
        /// For the operator's log.
        cause: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// Why a cookie is not a session. For metrics and logs; callers do not learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Not sealed by one of the keys, truncated, or several cookies of the name. Or not in the shared
    /// store, or no longer.
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
    /// Whether this request is the one whose tokens were refreshed, for the audit log.
    pub refreshed: bool,
}

/// How far in the future a cookie's times may be: clocks of replicas differ.
const MAX_CLOCK_SKEW: Duration = Duration::from_mins(5);

/// The longest time between two cookies that differ only in the idle limit is this share of it.
const IDLE_SHARE: u32 = 20;

/// A user whose credentials the upstream rejected that often, the last time this soon after the sign-in, is
/// not sent to sign in again: the provider might return at once, again and again.
const MAX_REJECTED: usize = 3;
const JUST_SIGNED_IN: Duration = Duration::from_mins(1);

/// One `[[session]]`.
#[derive(Debug)]
pub struct Sessions {
    /// The configured name; a metric label.
    pub name: Arc<str>,
    inner: Arc<Inner>,
}

/// What refreshes, which run in tasks of their own, need as well.
#[derive(Debug)]
struct Inner {
    settings: SessionSettings,
    sealer: Sealer,
    names: Names,
    /// What sign-ins ask the provider for.
    request: AuthorizationRequest,
    provider: Arc<dyn IdentityProvider>,
    observer: Arc<dyn RefreshObserver>,
    clock: SharedClock,
    state: Arc<State>,
    /// What the replicas of the fleet share, if this is one.
    shared: Option<Arc<Shared>>,
    /// Judges failing refreshes (`docs/design/failures.md`).
    breaker: Arc<CircuitBreaker<SessionId>>,
    /// Tells [`SessionMemo`] which sessions opened a cookie.
    instance: u64,
    /// Whether the log says that cookies are not protected as they should be.
    warned_of_http: AtomicBool,
}

/// What is remembered about sessions in this process. All of it is bounded, and no user can use up
/// what others need.
#[derive(Debug, Default)]
struct State {
    /// Sessions that ended before their time: an entry for each user who signed out.
    revocations: Revocations,
    /// Refreshes: an entry for each session whose tokens were renewed.
    renewals: Renewals,
    /// Attempts whose callback has arrived. Anybody can cause entries; one that is forgotten early can
    /// only be replayed with its cookie, and with a code that the provider has not seen.
    attempts: Replays,
    /// Logout tokens. Only the provider causes entries.
    logout_tokens: Replays,
}

impl Sessions {
    /// Reads the cookie keys. Keeps what `predecessor`, the same `[[session]]` before a reload, remembers
    /// about sessions that ended and tokens that were renewed, if users still sign in with the same
    /// client at the same provider. `fleet` is what this replica shares with others, if it is one.
    ///
    /// # Errors
    /// If a key cannot be read or is not 32 bytes in base64, or if sessions are in the shared store and
    /// there is none.
    pub fn new(
        settings: SessionSettings,
        provider: Arc<dyn IdentityProvider>,
        observer: Arc<dyn RefreshObserver>,
        clock: SharedClock,
        predecessor: Option<&Self>,
        fleet: Option<&Fleet>,
    ) -> Result<Self, SessionError> {
        let sealer = Sealer::new(&settings)?;
        let shared = fleet.map(|fleet| Shared::new(&settings, fleet, Arc::clone(&clock)));
        let shared = shared.transpose()?.map(Arc::new);
        if shared.is_none() && settings.store == SessionStore::Shared {
            return Err(SessionError::NoSharedStore);
        }
        let same = |other: &&SessionSettings| {
            let of =
                |s: &SessionSettings| (s.name.clone(), s.provider.clone(), s.client_id.clone());
            of(other) == of(&settings)
        };
        let kept = predecessor
            .filter(|predecessor| same(&&predecessor.inner.settings))
            .map(|predecessor| Arc::clone(&predecessor.inner.state));
        let known = (kept.unwrap_or_default(), shared);
        Ok(Self::with(
            settings, sealer, known, provider, observer, clock,
        ))
    }

    /// Like [`Self::new`], but without the keys: opens no cookie of a browser. To explain requests where
    /// the keys are not available.
    ///
    /// # Errors
    /// If the system's random number generator fails.
    pub fn without_keys(
        settings: SessionSettings,
        provider: Arc<dyn IdentityProvider>,
        observer: Arc<dyn RefreshObserver>,
        clock: SharedClock,
    ) -> Result<Self, SessionError> {
        let (sealer, known) = (Sealer::with_random_key(&settings)?, (Arc::default(), None));
        Ok(Self::with(
            settings, sealer, known, provider, observer, clock,
        ))
    }

    fn with(
        settings: SessionSettings,
        sealer: Sealer,
        (state, shared): (Arc<State>, Option<Arc<Shared>>),
        provider: Arc<dyn IdentityProvider>,
        observer: Arc<dyn RefreshObserver>,
        clock: SharedClock,
    ) -> Self {
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        let inner = Inner {
            sealer,
            names: Names::of(&settings.name),
            request: AuthorizationRequest {
                scope: settings.scopes.join(" "),
                audience: settings.audience.clone(),
                resources: settings.resource.iter().cloned().collect(),
                without_pkce: settings.kind == SessionKind::Taskcluster,
            },
            provider,
            observer,
            breaker: breaker(&settings, &clock),
            clock,
            state,
            shared,
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            warned_of_http: AtomicBool::new(false),
            settings,
        };
        Self {
            name: Arc::clone(&inner.settings.name),
            inner: Arc::new(inner),
        }
    }

    /// The name of the session's cookie.
    pub fn cookie_name(&self, site: SiteSecurity) -> &str {
        self.inner.names.session(site)
    }

    /// The settings.
    pub fn settings(&self) -> &SessionSettings {
        &self.inner.settings
    }

    /// Opens the session in the request's cookies. Takes no lock; awaits nothing but the shared store, if
    /// there is one and it was not asked a moment ago. A sealed session that the memo remembers costs a
    /// comparison.
    pub async fn open(
        &self,
        headers: &dyn HeaderFields,
        site: SiteSecurity,
        now: Now,
        memo: &mut SessionMemo,
    ) -> Presented {
        let value = match cookie::find(headers, self.inner.names.session(site)) {
            Found::Nothing => return Presented::None,
            Found::Several => return Presented::Ended(Ended::Invalid),
            Found::One(value) => value,
        };
        if let Some(records) = self.inner.records() {
            return Box::pin(self.inner.open_shared(records, value, now)).await;
        }
        let known = memo.recall(self.inner.instance, value);
        let unseal = || self.inner.unseal(value, now).map(Arc::new);
        let Some(session) = known.or_else(unseal) else {
            return Presented::Ended(Ended::Invalid);
        };
        if let Some(ended) = self.inner.ended(&session, now) {
            return Presented::Ended(ended);
        }
        memo.remember(self.inner.instance, value, &session);
        match &self.inner.shared {
            Some(shared) => Box::pin(self.inner.check(shared, session, now)).await,
            None => Presented::Open(session),
        }
    }

    /// Makes sure that the session can be used: renews its tokens before they expire (single flight for
    /// each session; requests with the cookie of before a rotation get its result), and its idle limit.
    ///
    /// # Errors
    /// If the access token has expired and cannot be renewed.
    pub async fn renew(
        &self,
        session: Arc<UserSession>,
        site: SiteSecurity,
        now: Now,
    ) -> Result<Renewed, RenewError> {
        if session.is_renewal_due(now) {
            return refresh::renew(&self.inner, session, site, now, refresh::Cause::Due).await;
        }
        Ok(self.inner.keep_alive(session, site, now).await)
    }

    /// Renews the tokens of a session whose access token its issuer has just refused, at most once in 30
    /// seconds.
    ///
    /// # Errors
    /// If there is no newer access token.
    pub async fn renew_refused(
        &self,
        session: Arc<UserSession>,
        site: SiteSecurity,
        now: Now,
    ) -> Result<Renewed, RenewError> {
        refresh::renew(&self.inner, session, site, now, refresh::Cause::Refused).await
    }

    /// Begins a sign-in that returns to `return_to`: what [`return_to`] accepted.
    ///
    /// # Errors
    /// If the provider does not answer.
    pub async fn begin(
        &self,
        return_to: &str,
        site: &Site,
        headers: &dyn HeaderFields,
        now: Now,
    ) -> Result<Begun, SignInError> {
        self.inner.begin(return_to, site, headers, now).await
    }

    /// Completes a sign-in with the callback's `query`.
    ///
    /// # Errors
    /// As [`SignInError`] says.
    pub async fn complete(
        &self,
        query: &str,
        site: &Site,
        headers: &dyn HeaderFields,
        now: Now,
    ) -> Result<SignedIn, SignInError> {
        self.inner.complete(query, site, headers, now).await
    }

    /// Where the user wanted to go whose sign-in failed with the callback's `query`: what
    /// [`Sessions::begin`] got. `None` if the callback belongs to no attempt of this browser.
    pub fn attempted_destination(
        &self,
        query: &str,
        site: &Site,
        headers: &dyn HeaderFields,
        now: Now,
    ) -> Option<String> {
        self.inner.attempted_destination(query, site, headers, now)
    }

    /// Ends the session here; revokes its refresh token in the background. Returns the provider's logout
    /// page, which returns to `<origin><prefix>logout`.
    pub async fn sign_out(
        &self,
        session: Option<&UserSession>,
        site: &Site,
        now: Now,
    ) -> SignedOut {
        self.inner.sign_out(session, site, now).await
    }

    /// Ends the sessions that a logout token names.
    ///
    /// # Errors
    /// If it is not valid, or was used before.
    pub async fn back_channel_logout(&self, token: &str, now: Now) -> Result<(), LogoutTokenError> {
        self.inner.back_channel_logout(token, now).await
    }

    /// The upstream rejected the session's own credentials: it has ended, wherever its cookie is. Returns
    /// whether that happens to one session of the user after another, right after the sign-in: then
    /// another sign-in will not help either.
    pub fn reject_credentials(&self, session: &UserSession, now: Now) -> bool {
        let revocations = &self.inner.state.revocations;
        let rejected = revocations.end_session(session, Ended::Credentials, now);
        self.inner.tell_rejected(session, now);
        rejected >= MAX_REJECTED && session.signed_in_at.until(now.wall) < JUST_SIGNED_IN
    }

    /// Handles news from the shared store: what the other replicas did, and this one.
    pub fn on_event(&self, event: &StoreEvent) {
        if let Some(shared) = &self.inner.shared {
            shared.on_event(event);
        }
    }

    /// The removal of the session cookie.
    pub fn removal(&self, site: SiteSecurity) -> SetCookie {
        cookie::remove(self.inner.names.session(site), site)
    }
}

fn breaker(settings: &SessionSettings, clock: &SharedClock) -> Arc<CircuitBreaker<SessionId>> {
    let limits = Limits {
        concurrency: 64,
        max_calls: 1024,
        timeout: settings.timeout,
        keys: 4096,
    };
    let (name, clock) = (Arc::clone(&settings.name), Arc::clone(clock));
    CircuitBreaker::new("session", name, limits, clock, Jitter::Random)
}
