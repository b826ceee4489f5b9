//! Sessions that ended before their time, in this process: signed out here, by the provider, or because
//! the upstream rejected their credentials.
//!
//! They are looked up with each request. Reading takes no lock, and costs one atomic load as long as
//! nothing has been revoked.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Ended, SessionId, UserSession};
use crate::bounded_cache::{CacheBounds, heap_size};
use crate::clock::{Now, UnixMillis};

/// The bounds of the users, and again of the provider's sessions. Both are driven by sign-ins that the
/// provider let through; what was looked up longest ago is forgotten first.
const BOUNDS: CacheBounds = CacheBounds {
    entries: 100_000,
    bytes: 64 << 20,
};

/// The sessions of one user that are remembered one by one. Beyond it, all sessions that the user began
/// until then have ended: nobody uses up the memory of others.
const MAX_SESSIONS_OF_USER: usize = 32;

/// What has ended.
pub(super) struct Revocations {
    /// Whether there is anything to look up.
    any: AtomicBool,
    /// By subject.
    users: Cache<String, Arc<OfUser>>,
    /// By the provider's `sid`.
    provider_sessions: Cache<String, ()>,
    /// Held while an entry changes.
    writing: Mutex<()>,
}

/// What has ended for one user.
#[derive(Clone, Default)]
struct OfUser {
    /// Sessions from sign-ins until then.
    until: Option<UnixMillis>,
    /// The same for sessions without the provider's `sid`.
    unnamed_until: Option<UnixMillis>,
    sessions: Vec<(SessionId, Ended)>,
}

impl OfUser {
    fn heap_size(&self) -> usize {
        size_of::<Self>()
            + heap_size::allocation(self.sessions.len() * size_of::<(SessionId, Ended)>())
    }
}

impl Revocations {
    /// Why `session` has ended, if it is revoked.
    pub(super) fn ended(&self, session: &UserSession) -> Option<Ended> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let sid = session.provider_session.as_ref();
        if sid.is_some_and(|sid| self.provider_sessions.get(sid).is_some()) {
            return Some(Ended::SignedOut);
        }
        let user = self.users.get(&session.subject)?;
        let unnamed_until = user.unnamed_until.filter(|_| sid.is_none());
        if user
            .until
            .max(unnamed_until)
            .is_some_and(|until| session.signed_in_at <= until)
        {
            return Some(Ended::SignedOut);
        }
        let ended = user.sessions.iter().find(|(id, _)| *id == session.id);
        ended.map(|(_, ended)| *ended)
    }

    /// Ends one session. Returns how many sessions of its user have ended for the same reason, as far as
    /// they are remembered one by one.
    pub(super) fn end_session(&self, session: &UserSession, ended: Ended, now: Now) -> usize {
        let mut count = 0;
        self.change(&session.subject, |user| {
            if !user.sessions.iter().any(|(id, _)| *id == session.id) {
                if user.sessions.len() >= MAX_SESSIONS_OF_USER {
                    user.until = user.until.max(Some(now.wall));
                    user.sessions.clear();
                }
                // Its clock may be ahead of this one.
                user.sessions.push((session.id, ended));
            }
            let alike = user.sessions.iter().filter(|(_, why)| *why == ended);
            count = alike.count();
        });
        count
    }

    /// Ends every session that the user `subject` has begun until now.
    pub(super) fn end_user(&self, subject: &str, now: Now) {
        self.change(subject, |user| user.until = user.until.max(Some(now.wall)));
    }

    /// Ends every session that the user `subject` has begun until now and whose `sid` is not known:
    /// one of them may be the one that a logout token names by it.
    pub(super) fn end_unnamed(&self, subject: &str, now: Now) {
        self.change(subject, |user| {
            user.unnamed_until = user.unnamed_until.max(Some(now.wall));
        });
    }

    /// Ends the sessions of the provider's session `sid`.
    pub(super) fn end_provider_session(&self, sid: &str) {
        self.provider_sessions.insert(sid.to_owned(), ());
        self.any.store(true, Ordering::Release);
    }

    fn change(&self, subject: &str, change: impl FnOnce(&mut OfUser)) {
        // Nothing under this lock panics halfway.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let user = self.users.get(subject);
        let mut user = user.map_or_else(OfUser::default, |user| OfUser::clone(&user));
        change(&mut user);
        self.users.insert(subject.to_owned(), Arc::new(user));
        self.any.store(true, Ordering::Release);
    }
}

impl Default for Revocations {
    fn default() -> Self {
        let users = BOUNDS.builder(|user: &Arc<OfUser>| user.heap_size());
        let provider_sessions = BOUNDS.builder(|(): &()| 0);
        Self {
            any: AtomicBool::new(false),
            // The default policy may refuse what has not been looked up before.
            users: users.eviction_policy(EvictionPolicy::lru()).build(),
            provider_sessions: provider_sessions
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            writing: Mutex::default(),
        }
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revocations(..)")
    }
}
