//! From a cookie to a session, and back.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::seal::Purpose;
use super::settings::SessionStore;
use super::shared::{Looked, Shared, Ticket, Which};
use super::{
    Ended, IDLE_SHARE, Inner, Presented, Renewed, SessionGrant, SetCookie, SignInError,
    SiteSecurity, UserSession, cookie, record,
};
use crate::clock::Now;
use crate::shared_store::StoreError;

/// When a request may be tried again that found the shared store down.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

fn unavailable(error: &StoreError) -> Presented {
    Presented::Unavailable {
        cause: format!("the shared store: {error}"),
        retry_after: RETRY_AFTER,
    }
}

impl Inner {
    /// The session in a cookie's value; `None` if it was not sealed as one, or in the future.
    pub(super) fn unseal(&self, value: &[u8], now: Now) -> Option<UserSession> {
        if value.len() > cookie::MAX_COOKIE_BYTES {
            return None;
        }
        let plain = self.sealer.open(Purpose::Session, value)?;
        record::read(&plain, self.settings.idle, self.settings.lifetime, now)
    }

    /// What the replicas share, if the sessions themselves are there.
    pub(super) fn records(&self) -> Option<&Arc<Shared>> {
        let is_shared = self.settings.store == SessionStore::Shared;
        self.shared.as_ref().filter(|_| is_shared)
    }

    /// Opens a session in the shared store, by the value of its cookie.
    pub(super) async fn open_shared(&self, records: &Shared, value: &[u8], now: Now) -> Presented {
        let Some(ticket) = self.unseal_ticket(value) else {
            return Presented::Ended(Ended::Invalid);
        };
        match records.open(&ticket, now).await {
            Looked::Open(session) => match self.ended(&session, now) {
                Some(ended) => Presented::Ended(ended),
                None => Presented::Open(session),
            },
            Looked::Ended(ended) => Presented::Ended(ended),
            Looked::Unavailable(error) => unavailable(&error),
        }
    }

    fn unseal_ticket(&self, value: &[u8]) -> Option<Ticket> {
        if value.len() > cookie::MAX_COOKIE_BYTES {
            return None;
        }
        Ticket::decode(&self.sealer.open(Purpose::Ticket, value)?)
    }

    /// Whether the fleet knows that `session`, which is in its cookie, has ended.
    pub(super) async fn check(
        &self,
        shared: &Shared,
        session: Arc<UserSession>,
        now: Now,
    ) -> Presented {
        match shared.check(&session, now).await {
            Ok(None) => Presented::Open(session),
            Ok(Some(ended)) => {
                // So that this replica knows when the store is down.
                self.state.revocations.end_session(&session, ended, now);
                Presented::Ended(ended)
            }
            Err(error) => unavailable(&error),
        }
    }

    /// Tells the fleet in the background that the upstream rejected the credentials of `session`.
    pub(super) fn tell_rejected(&self, session: &UserSession, now: Now) {
        if let Some(shared) = self.shared.clone() {
            let session = session.clone();
            tokio::spawn(async move {
                let which = Which::Session(session.id);
                shared.end(which, Ended::Credentials, now).await;
                shared.remove(&session).await;
            });
        }
    }

    /// Why `session` has ended, if it has.
    pub(super) fn ended(&self, session: &UserSession, now: Now) -> Option<Ended> {
        if now.wall >= session.expires_at {
            return Some(Ended::Lifetime);
        }
        if now.wall >= session.idle_expires_at {
            return Some(Ended::Idle);
        }
        if let SessionGrant::Taskcluster { lease, .. } = &session.grant
            && !lease.is_usable(now)
        {
            return Some(Ended::Credentials);
        }
        self.state.revocations.ended(session)
    }

    /// The session's cookie: in it, the session, or what finds it in the shared store. The ID token, which
    /// only the provider's logout uses, is left out if the cookie would be too large.
    pub(super) fn cookie(
        &self,
        session: &UserSession,
        security: SiteSecurity,
        now: Now,
    ) -> Result<SetCookie, SignInError> {
        if let Some(entry) = &session.entry {
            // When it was idle for too long is up to the store.
            let max_age = now.wall.until(session.expires_at);
            let plain = Ticket::encode(session.id, &entry.half);
            return self.seal_cookie(Purpose::Ticket, plain, security, max_age);
        }
        let end = session.expires_at.min(session.idle_expires_at);
        let active_at = session.idle_expires_at.minus(self.settings.idle);
        let mut size = 0;
        for with_id_token in [true, false] {
            let plain = record::encode(session, active_at, with_id_token);
            let max_age = now.wall.until(end);
            let cookie = self.seal_cookie(Purpose::Session, plain, security, max_age)?;
            size = cookie.as_str().len();
            if size <= cookie::MAX_COOKIE_BYTES {
                return Ok(cookie);
            }
        }
        Err(SignInError::TooLarge(size))
    }

    fn seal_cookie(
        &self,
        purpose: Purpose,
        plain: Zeroizing<Vec<u8>>,
        security: SiteSecurity,
        max_age: Duration,
    ) -> Result<SetCookie, SignInError> {
        let value = self.sealer.seal(purpose, plain);
        let value = value.map_err(|_| SignInError::Randomness)?;
        let name = self.names.session(security);
        Ok(cookie::set(name, &value, security, max_age))
    }

    /// Moves the idle limit, but not with every request.
    pub(super) async fn keep_alive(
        &self,
        session: Arc<UserSession>,
        security: SiteSecurity,
        now: Now,
    ) -> Renewed {
        let moved = now.wall.plus(self.settings.idle);
        let step = (self.settings.idle / IDLE_SHARE).max(Duration::from_mins(1));
        let step = step.min(self.settings.idle / 2);
        let unchanged = Renewed {
            session,
            cookie: None,
            refreshed: false,
        };
        let idle_expires_at = unchanged.session.idle_expires_at;
        let ends_before = unchanged.session.expires_at <= idle_expires_at;
        if ends_before || idle_expires_at.until(moved) < step {
            return unchanged;
        }
        let session = if let Some(records) = self.records() {
            let moving = records.keep_alive(&unchanged.session, moved, now);
            let Some(moved) = Box::pin(moving).await else {
                return unchanged;
            };
            moved
        } else {
            let mut session = UserSession::clone(&unchanged.session);
            session.idle_expires_at = moved;
            Arc::new(session)
        };
        match self.cookie(&session, security, now) {
            Ok(cookie) => Renewed {
                session,
                cookie: Some(cookie),
                refreshed: false,
            },
            // The old cookie is good until the idle limit.
            Err(_) => unchanged,
        }
    }
}
