//! What this process remembers about refreshed sessions: one refresh at a time for each, and its result
//! for requests that still come with the cookie of before.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{RenewError, SessionId, UserSession};
use crate::clock::{Now, UnixMillis};
use crate::singleflight::Flight;

/// The most sessions that are remembered: with a few kilobytes of tokens each, some 100 MB at worst. The
/// one that was refreshed longest ago is forgotten first; its old cookies no longer pass.
const MAX_SESSIONS: usize = 10_000;

/// The most sessions of one user, so that no user displaces others.
const MAX_SESSIONS_OF_USER: usize = 16;

/// How long the result stands in for old cookies if the new access token has no expiry.
const GRACE: Duration = Duration::from_hours(1);

/// What a refresh results in.
pub(super) type Refreshed = Result<Newer, RenewError>;

/// A session after its refresh.
#[derive(Clone)]
pub(super) struct Newer {
    pub(super) session: Arc<UserSession>,
    /// Whether this replica refreshed it, and no other one.
    pub(super) here: bool,
}

#[derive(Default)]
pub(super) struct Renewals(Mutex<Table>);

#[derive(Default)]
pub(super) struct Table {
    entries: HashMap<SessionId, Entry>,
    /// How many entries each user has.
    users: HashMap<Arc<str>, usize>,
}

/// One session.
pub(super) struct Entry {
    subject: Arc<str>,
    /// Monotonic time of the latest refresh.
    touched: Duration,
    /// The refresh in progress, or that of before.
    pub(super) flight: Option<Flight<Refreshed>>,
    /// The session after its latest refresh.
    latest: Option<Arc<UserSession>>,
    /// Until when it stands in for old cookies: as long as its access token.
    latest_until: UnixMillis,
    /// Refresh tokens of generations before this one have been replaced. To use one again would look like
    /// theft to the provider (RFC 9700 §4.14.2).
    pub(super) spent_before: u32,
    /// The generation whose refresh token the provider refused.
    pub(super) refused: Option<u32>,
    /// Monotonic time of the latest refresh because an issuer refused the access token.
    pub(super) forced_at: Option<Duration>,
}

impl Renewals {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under this lock panics halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn in_flight(&self) -> Option<&Flight<Refreshed>> {
        self.flight
            .as_ref()
            .filter(|flight| flight.is_in_progress())
    }

    /// The session after its latest refresh, if it is newer than `session` and may still stand in for it.
    pub(super) fn newer_than(&self, session: &UserSession, now: Now) -> Option<&Arc<UserSession>> {
        self.latest
            .as_ref()
            .filter(|latest| latest.generation > session.generation && now.wall < self.latest_until)
    }

    /// Whether the refresh token of `session` is known to be useless.
    pub(super) fn is_useless(&self, session: &UserSession) -> bool {
        session.generation < self.spent_before || self.refused == Some(session.generation)
    }

    /// Records the session after a refresh. `rotated` says whether the refresh token was replaced.
    pub(super) fn record(&mut self, session: &Arc<UserSession>, rotated: bool, now: Now) {
        let until = session.access_token_expires_at();
        self.latest_until = until.unwrap_or_else(|| now.wall.plus(GRACE));
        self.latest = Some(Arc::clone(session));
        self.touched = now.monotonic;
        if rotated {
            self.spent_before = session.generation;
        }
    }
}

impl Table {
    pub(super) fn get(&self, session: &UserSession) -> Option<&Entry> {
        self.entries.get(&session.id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    /// The entry of `session`, a new one if there is none. `None` if there is no room, because refreshes
    /// of all others are in progress.
    pub(super) fn entry(&mut self, session: &UserSession, now: Now) -> Option<&mut Entry> {
        if !self.entries.contains_key(&session.id) {
            let subject = self.make_room(session)?;
            *self.users.entry(Arc::clone(&subject)).or_default() += 1;
            let entry = Entry {
                subject,
                touched: now.monotonic,
                flight: None,
                latest: None,
                latest_until: now.wall,
                spent_before: 0,
                refused: None,
                forced_at: None,
            };
            self.entries.insert(session.id, entry);
        }
        self.entries.get_mut(&session.id)
    }

    /// Makes room for one more session of this user, and returns the user.
    fn make_room(&mut self, session: &UserSession) -> Option<Arc<str>> {
        let user = self.users.get_key_value(session.subject.as_str());
        let (subject, count) = match user {
            Some((subject, count)) => (Arc::clone(subject), *count),
            None => (Arc::from(session.subject.as_str()), 0),
        };
        if count >= MAX_SESSIONS_OF_USER {
            let oldest = self.oldest(1, |entry| entry.subject == subject);
            self.remove(*oldest.first()?);
        }
        if self.entries.len() >= MAX_SESSIONS {
            // Several at once, so that it costs little on average.
            let oldest = self.oldest(MAX_SESSIONS / 8, |_| true);
            oldest.first()?;
            for id in oldest {
                self.remove(id);
            }
        }
        Some(subject)
    }

    /// The `count` entries that were refreshed longest ago among `candidates`, except those whose refresh
    /// is in progress.
    fn oldest(&self, count: usize, candidates: impl Fn(&Entry) -> bool) -> Vec<SessionId> {
        let idle = |entry: &Entry| entry.in_flight().is_none() && candidates(entry);
        let mut found: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| idle(entry))
            .map(|(id, entry)| (entry.touched, *id))
            .collect();
        found.sort_unstable_by_key(|(touched, _)| *touched);
        found.into_iter().take(count).map(|(_, id)| id).collect()
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        if let Some(count) = self.users.get_mut(&entry.subject) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&entry.subject);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.users.values().sum::<usize>());
        self.entries.len()
    }
}

impl fmt::Debug for Renewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewals(..)")
    }
}
