//! Renewal of access tokens.
//!
//! The request that finds a renewal due starts it and waits, so that at least one answer has the new
//! cookie. It runs in a task of its own and is completed even if that request goes away. Meanwhile,
//! requests whose access token is still valid go on with it, and others wait for the result, which also
//! stands in for the old cookie until the new access token expires.
//!
//! Of sessions in the shared store, one replica at a time refreshes the tokens ([`super::shared`]).

use std::fmt;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::opening::RETRY_AFTER;
use super::renewals::{Newer, Refreshed, Table};
use super::shared::{Claim, Claimed, Saved, Shared};
use super::{
    Ended, Inner, ProviderError, ProviderGrant, RenewError, Renewed, SessionGrant, SessionId,
    SignInError, SiteSecurity, UserSession,
};
use crate::circuit_breaker::{Attempt, Call, Origin, Outcome};
use crate::clock::{Now, UnixMillis};
use crate::secret::SecretString;
use crate::shared_store::StoreError;
use crate::singleflight::Flight;
use crate::trace::{self, SpanContext};

/// An access token is renewed when this share of its life is left, but neither earlier nor later than
/// the bounds say.
const AHEAD_SHARE: u32 = 10;
const AHEAD_AT_LEAST: Duration = Duration::from_secs(30);
const AHEAD_AT_MOST: Duration = Duration::from_mins(5);

/// How often an access token that its issuer refuses causes a refresh.
const FORCED_INTERVAL: Duration = Duration::from_secs(30);

/// Told about each refresh.
pub trait RefreshObserver: fmt::Debug + Send + Sync {
    /// A refresh ended.
    fn refreshed(&self, result: RefreshResult);
}

/// How a refresh ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshResult {
    /// There are new tokens.
    Refreshed,
    /// The provider refused the refresh token, or issued what cannot be used.
    Refused,
    /// The provider does not answer, or hawkgate's client is wrong.
    Unavailable,
}

/// Why tokens are refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The access token expires soon, or has expired.
    Due,
    /// Its issuer refused it.
    Refused,
}

/// From when on an access token that was issued at `now` is renewed.
pub(super) fn renew_at(expires_at: UnixMillis, now: UnixMillis) -> UnixMillis {
    let life = now.until(expires_at);
    let ahead = (life / AHEAD_SHARE).clamp(AHEAD_AT_LEAST, AHEAD_AT_MOST);
    // A short life would otherwise mean a refresh with each request.
    expires_at.minus(ahead.min(life / 2))
}

/// What to do about a session.
enum Step {
    /// It may be used as it is.
    Use(Arc<UserSession>),
    /// A refresh is in progress. `leads` if this request has started it.
    Wait {
        /// What there is until then.
        current: Arc<UserSession>,
        flight: Flight<Refreshed>,
        leads: bool,
    },
}

/// Renews `session` if need be.
pub(super) async fn renew(
    inner: &Arc<Inner>,
    session: Arc<UserSession>,
    security: SiteSecurity,
    now: Now,
    cause: Cause,
) -> Result<Renewed, RenewError> {
    let hand_out = |current: Arc<UserSession>, now: Now, refreshed: bool| {
        if current.generation == session.generation {
            // Not with a moved idle limit: another request is about to set a newer cookie.
            return Ok(Renewed {
                session: current,
                cookie: None,
                refreshed,
            });
        }
        inner.hand_out(&current, security, now, refreshed)
    };
    let (current, flight, leads) = match next_step(inner, &session, now, cause)? {
        Step::Use(current) => return hand_out(current, now, false),
        Step::Wait {
            current,
            flight,
            leads,
        } => (current, flight, leads),
    };
    let refreshed = flight.wait().await.unwrap_or_else(|| Err(abandoned()));
    let now = Now::read(&*inner.clock);
    match refreshed {
        Ok(newer) => hand_out(newer.session, now, leads && newer.here),
        Err(_) if cause == Cause::Due && current.has_valid_token(now) => {
            hand_out(current, now, false)
        }
        Err(error) => Err(error),
    }
}

fn abandoned() -> RenewError {
    RenewError::Unavailable {
        cause: "the refresh was abandoned".to_owned(),
        retry_after: None,
    }
}

/// Decides under the lock that guards refreshes, and starts one if need be.
fn next_step(
    inner: &Arc<Inner>,
    session: &Arc<UserSession>,
    now: Now,
    cause: Cause,
) -> Result<Step, RenewError> {
    let table = inner.state.renewals.lock();
    let known = table.get(session);
    // The browser may have the cookie of before the latest refresh.
    let newer = known.and_then(|entry| entry.newer_than(session, now));
    let is_newer = newer.is_some();
    let current = Arc::clone(newer.unwrap_or(session));
    if is_newer && !current.is_renewal_due(now) {
        return Ok(Step::Use(current));
    }
    // A newer access token is not the one that was refused.
    let refused = cause == Cause::Refused && !is_newer;
    let usable = !refused && current.has_valid_token(now);
    let or_use = |error: RenewError| {
        if usable {
            Ok(Step::Use(Arc::clone(&current)))
        } else {
            Err(error)
        }
    };
    if let Some(flight) = known.and_then(|entry| entry.in_flight()) {
        if usable {
            return Ok(Step::Use(current));
        }
        return Ok(Step::Wait {
            flight: flight.clone(),
            current,
            leads: false,
        });
    }
    let Some(refresh_token) = current.refresh_token().cloned() else {
        return or_use(RenewError::Ended(Ended::Credentials));
    };
    if known.is_some_and(|entry| entry.is_useless(&current)) {
        return or_use(RenewError::Ended(Ended::Refused));
    }
    let forced_at = known.and_then(|entry| entry.forced_at);
    if refused && forced_at.is_some_and(|at| now.monotonic.saturating_sub(at) < FORCED_INTERVAL) {
        return Err(RenewError::Ended(Ended::Credentials));
    }
    match start(inner, table, &current, refresh_token, now, refused) {
        Ok(flight) => Ok(Step::Wait {
            current,
            flight,
            leads: true,
        }),
        Err(error) => or_use(error),
    }
}

/// Starts a refresh. Releases the lock before spawning, as [`Flight::new`] requires.
fn start(
    inner: &Arc<Inner>,
    mut table: MutexGuard<'_, Table>,
    session: &Arc<UserSession>,
    refresh_token: SecretString,
    now: Now,
    forced: bool,
) -> Result<Flight<Refreshed>, RenewError> {
    let attempt = Attempt {
        key: session.id,
        origin: Origin::Subject(origin(&session.subject)),
    };
    let call = inner
        .breaker
        .begin(attempt)
        .map_err(|rejected| RenewError::Unavailable {
            cause: rejected.to_string(),
            retry_after: Some(rejected.retry_after()),
        })?;
    let no_room = RenewError::Unavailable {
        cause: "too many refreshes are in progress".to_owned(),
        retry_after: Some(Duration::from_secs(1)),
    };
    let entry = table.entry(session, now).ok_or(no_room)?;
    if forced {
        entry.forced_at = Some(now.monotonic);
    }
    let refresh = refresh(Arc::clone(inner), call, Arc::clone(session), refresh_token);
    let refresh = within_span(trace::current_span(), refresh);
    let (completing, before) = (Arc::clone(inner), Arc::clone(session));
    let (flight, task) = Flight::new(refresh, move |result| {
        complete(&completing, &before, result)
    });
    entry.flight = Some(flight.clone());
    drop(table);
    tokio::spawn(task);
    Ok(flight)
}

/// Runs `future` within the request's span, because a spawned task does not inherit it.
async fn within_span<F: Future>(span: Option<SpanContext>, future: F) -> F::Output {
    match span {
        Some(span) => trace::in_span(span, future).await,
        None => future.await,
    }
}

fn origin(subject: &str) -> [u8; 32] {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, subject.as_bytes());
    hash.as_ref().try_into().unwrap_or_default()
}

/// What a refresh results in, and whether the provider was asked.
struct Answer {
    result: Result<Arc<UserSession>, RenewError>,
    asked: bool,
}

impl Answer {
    fn asked(result: Result<Arc<UserSession>, RenewError>) -> Self {
        let asked = true;
        Self { result, asked }
    }

    fn not_asked(result: Result<Arc<UserSession>, RenewError>) -> Self {
        let asked = false;
        Self { result, asked }
    }
}

/// Refreshes the tokens of `session`.
async fn refresh(
    inner: Arc<Inner>,
    call: Call<SessionId>,
    session: Arc<UserSession>,
    refresh_token: SecretString,
) -> Answer {
    if let Some(records) = inner.records() {
        return refresh_shared(&inner, records, call, &session, &refresh_token).await;
    }
    let answer = ask(&inner, call, &session, &refresh_token, || true).await;
    // Signed out meanwhile: sign-out could not know these tokens.
    if let Ok(grant) = &answer
        && let SessionGrant::Oidc {
            refresh_token: Some(token),
            ..
        } = &grant.grant
        && inner.state.revocations.ended(&session).is_some()
    {
        let _ = inner.provider.revoke(token).await;
    }
    Answer::asked(renewed(&inner, &session, answer).map(Arc::new))
}

/// Refreshes the tokens of a session in the shared store, unless another replica does.
async fn refresh_shared(
    inner: &Arc<Inner>,
    records: &Arc<Shared>,
    call: Call<SessionId>,
    session: &Arc<UserSession>,
    refresh_token: &SecretString,
) -> Answer {
    let claimed = match records.claim(session).await {
        Ok(Claim::Granted(claimed)) => claimed,
        Ok(Claim::Newer(newer)) => return Answer::not_asked(Ok(newer)),
        Ok(Claim::Ended(ended)) => return Answer::not_asked(Err(RenewError::Ended(ended))),
        Err(error) => return Answer::not_asked(Err(store_error(&error))),
    };
    let session = &claimed.session;
    let asking = ask(inner, call, session, refresh_token, || !claimed.is_lost());
    let answer = claimed.keep(asking).await;
    Answer::asked(match renewed(inner, session, answer) {
        Ok(newer) => save(inner, &claimed, newer).await,
        Err(RenewError::Ended(ended)) => {
            // For every replica: the token is not presented again.
            let _ = claimed.save(session.without_refresh_token()).await;
            Err(RenewError::Ended(ended))
        }
        Err(error) => {
            claimed.abandon().await;
            Err(error)
        }
    })
}

/// Stores the session with its new tokens.
async fn save(
    inner: &Inner,
    claimed: &Claimed,
    newer: UserSession,
) -> Result<Arc<UserSession>, RenewError> {
    let refresh_token = newer.refresh_token().cloned();
    match claimed.save(newer).await {
        Saved::Written(newer) | Saved::Newer(newer) => Ok(newer),
        Saved::Gone => {
            // Signed out meanwhile: sign-out could not know these tokens.
            if let Some(token) = &refresh_token {
                let _ = inner.provider.revoke(token).await;
            }
            Err(RenewError::Ended(Ended::SignedOut))
        }
        Saved::TooLarge(size) => {
            let session = &*inner.settings.name;
            let error = SignInError::TooLargeToShare(size);
            tracing::warn!(session, %error, "a session ends");
            let _ = claimed.save(claimed.session.without_refresh_token()).await;
            Err(RenewError::Ended(Ended::Refused))
        }
    }
}

fn store_error(error: &StoreError) -> RenewError {
    RenewError::Unavailable {
        cause: format!("the shared store: {error}"),
        retry_after: Some(RETRY_AFTER),
    }
}

/// One call to the provider. It is not repeated: the refresh token may be spent without the answer
/// having arrived. Nor is it made if, when its turn comes, it `may` not be made any more.
async fn ask(
    inner: &Inner,
    call: Call<SessionId>,
    session: &UserSession,
    refresh_token: &SecretString,
    may: impl Fn() -> bool,
) -> Result<ProviderGrant, ProviderError> {
    let unavailable = |cause: &str| ProviderError::Unavailable {
        cause: cause.to_owned(),
        retry_after: None,
    };
    let send = |limit| {
        let call = inner.provider.refresh(refresh_token, &session.subject);
        let may = may();
        async move {
            if !may {
                return Err(unavailable("another replica renews the session"));
            }
            let timed_out = |_| unavailable("the provider did not answer in time");
            let answer = tokio::time::timeout(limit, call).await;
            answer.map_err(timed_out).and_then(|answer| answer)
        }
    };
    let outcome = |result: &Result<ProviderGrant, ProviderError>| match result {
        Ok(_) => Outcome::Accepted,
        Err(ProviderError::Refused(_) | ProviderError::InvalidToken(_)) => Outcome::Responded,
        Err(ProviderError::Unavailable { retry_after, .. }) => Outcome::Failed {
            retry_after: *retry_after,
        },
        // So that this session backs off.
        Err(ProviderError::Misconfigured(_)) => Outcome::Failed { retry_after: None },
    };
    let answered = call.run(false, send, outcome).await;
    answered.unwrap_or_else(|rejected| {
        Err(ProviderError::Unavailable {
            cause: rejected.to_string(),
            retry_after: Some(rejected.retry_after()),
        })
    })
}

/// The session with what the provider issued.
fn renewed(
    inner: &Inner,
    before: &UserSession,
    answer: Result<ProviderGrant, ProviderError>,
) -> Result<UserSession, RenewError> {
    let grant = answer.map_err(|error| renew_error(inner, error))?;
    let now = Now::read(&*inner.clock);
    before.after(grant, now).map_err(|cause| {
        tracing::warn!(session = &*inner.settings.name, cause, "a session ends");
        RenewError::Ended(Ended::Refused)
    })
}

/// Records the result; `None` if the task was dropped.
fn complete(inner: &Inner, before: &Arc<UserSession>, answer: Option<Answer>) -> Refreshed {
    let now = Now::read(&*inner.clock);
    let Answer { result, asked } = answer.unwrap_or_else(|| Answer::asked(Err(abandoned())));
    let mut table = inner.state.renewals.lock();
    if let Some(entry) = table.get_mut(before.id) {
        match &result {
            Ok(session) => {
                let rotated = session.refresh_token() != before.refresh_token();
                entry.record(session, rotated, now);
            }
            Err(RenewError::Ended(_)) => entry.refused = Some(before.generation),
            Err(RenewError::Unavailable { .. } | RenewError::Misconfigured(_)) => {}
        }
    }
    drop(table);
    if asked {
        inner.observer.refreshed(match &result {
            Ok(_) => RefreshResult::Refreshed,
            Err(RenewError::Ended(_)) => RefreshResult::Refused,
            Err(RenewError::Unavailable { .. } | RenewError::Misconfigured(_)) => {
                RefreshResult::Unavailable
            }
        });
    }
    result.map(|session| Newer {
        session,
        here: asked,
    })
}

fn renew_error(inner: &Inner, error: ProviderError) -> RenewError {
    let session = &*inner.settings.name;
    match error {
        ProviderError::Refused(cause) => {
            tracing::debug!(session, cause, "the provider refused a refresh token");
            RenewError::Ended(Ended::Refused)
        }
        ProviderError::InvalidToken(cause) => {
            tracing::warn!(session, cause, "refreshed tokens are not valid");
            RenewError::Ended(Ended::Refused)
        }
        ProviderError::Unavailable { cause, retry_after } => {
            RenewError::Unavailable { cause, retry_after }
        }
        ProviderError::Misconfigured(cause) => {
            tracing::error!(session, cause, "tokens cannot be refreshed");
            RenewError::Misconfigured(cause)
        }
    }
}

impl Inner {
    /// The session after a refresh, for a request that came with the cookie of before.
    fn hand_out(
        &self,
        session: &Arc<UserSession>,
        security: SiteSecurity,
        now: Now,
        refreshed: bool,
    ) -> Result<Renewed, RenewError> {
        let mut session = UserSession::clone(session);
        let idle = now.wall.plus(self.settings.idle);
        session.idle_expires_at = session.idle_expires_at.max(idle);
        if let Some(ended) = self.ended(&session, now) {
            return Err(RenewError::Ended(ended));
        }
        let cookie = self.cookie(&session, security, now).map_err(|error| {
            tracing::warn!(session = &*self.settings.name, %error, "a session ends");
            RenewError::Ended(Ended::Credentials)
        })?;
        Ok(Renewed {
            session: Arc::new(session),
            cookie: Some(cookie),
            refreshed,
        })
    }
}

impl UserSession {
    /// The session after the provider refused its refresh token: it goes on until its access token expires.
    fn without_refresh_token(&self) -> Self {
        let mut session = self.clone();
        session.generation = self.generation.saturating_add(1);
        session.renew_at = None;
        if let SessionGrant::Oidc { refresh_token, .. } = &mut session.grant {
            *refresh_token = None;
        }
        session
    }

    /// The session with the tokens of `grant`. What the provider left out stays.
    fn after(&self, grant: ProviderGrant, now: Now) -> Result<Self, &'static str> {
        if grant.subject != self.subject {
            return Err("refreshed tokens are another user's");
        }
        let SessionGrant::Oidc {
            access_token,
            access_token_expires_at,
            refresh_token,
            id_token,
        } = grant.grant
        else {
            return Err("the provider issued no tokens");
        };
        let refresh_token = refresh_token.or_else(|| self.refresh_token().cloned());
        Ok(Self {
            generation: self.generation.saturating_add(1),
            renew_at: access_token_expires_at.map(|at| renew_at(at, now.wall)),
            grant: SessionGrant::Oidc {
                access_token,
                access_token_expires_at,
                refresh_token,
                id_token: id_token.or_else(|| self.id_token().cloned()),
            },
            name: grant.name.or_else(|| self.name.clone()),
            email: grant.email.or_else(|| self.email.clone()),
            provider_session: grant
                .provider_session
                .or_else(|| self.provider_session.clone()),
            ..self.clone()
        })
    }
}
