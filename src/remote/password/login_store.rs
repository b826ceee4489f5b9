//! What is kept of a user between two requests: a refresh token, a second factor that was
//! asked for, a recovery code on its way. In memory only, under a keyed hash of username
//! and password, so that nothing is found without the right password.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::secret::SecretString;

/// Users remembered at the same time; who was seen longest ago goes first.
const MAX_USERS: usize = 10_000;
/// A refresh token stands in for the password so long: then the provider sees that again,
/// and a password changed there is found out.
const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_hours(1);
/// A second factor asked for is waited for so long.
const CHALLENGE_LIFETIME: Duration = Duration::from_mins(5);
/// A new recovery code waits so long for the answer that takes it along.
const RECOVERY_CODE_LIFETIME: Duration = Duration::from_mins(5);
/// After this all of a user's is over.
const IDLE_TIMEOUT: Duration = REFRESH_TOKEN_LIFETIME;

/// A user with the password: a keyed hash.
pub(super) type LoginKey = [u8; 32];

/// A second factor that the provider was asked to ask for.
#[derive(Clone, Debug)]
pub(super) struct PendingChallenge {
    /// What the second step is done with.
    pub(super) mfa_token: SecretString,
    /// What the confirmation on the other device is known by.
    pub(super) oob_code: SecretString,
    /// Whether the user is sent a code to repeat (a text message), instead of confirming.
    pub(super) needs_binding_code: bool,
    /// When, in monotonic time.
    pub(super) since: Duration,
}

#[derive(Debug, Default)]
struct Entry {
    touched: Duration,
    /// With the monotonic time at which the provider last saw the password.
    refresh: Option<(SecretString, Duration)>,
    pending: Option<PendingChallenge>,
    recovery: Option<(SecretString, Duration)>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.refresh.is_none() && self.pending.is_none() && self.recovery.is_none()
    }
}

/// The memory of one source.
#[derive(Debug)]
pub(super) struct LoginStore {
    entries: Mutex<HashMap<LoginKey, Entry>>,
    clock: SharedClock,
}

impl LoginStore {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            entries: Mutex::default(),
            clock,
        }
    }

    /// The refresh token, while it may stand in for the password.
    pub(super) fn refresh_token(&self, login: LoginKey) -> Option<SecretString> {
        let now = self.clock.monotonic();
        self.known(login, |entry| {
            let seen_long_ago =
                |(_, seen): &mut (_, Duration)| expired(*seen, REFRESH_TOKEN_LIFETIME, now);
            entry.refresh.take_if(seen_long_ago);
            entry.refresh.as_ref().map(|(token, _)| token.clone())
        })?
    }

    /// Keeps a refresh token that came with the password's proof.
    pub(super) fn insert_refresh_token(&self, login: LoginKey, token: SecretString) {
        let now = self.clock.monotonic();
        self.with(login, |entry| entry.refresh = Some((token, now)));
    }

    /// Puts a rotated refresh token in the place of the one that it came for.
    pub(super) fn rotate_refresh_token(&self, login: LoginKey, token: SecretString) {
        self.known(login, |entry| {
            if let Some((kept, _)) = &mut entry.refresh {
                *kept = token;
            }
        });
    }

    pub(super) fn remove_refresh_token(&self, login: LoginKey) {
        self.known(login, |entry| entry.refresh = None);
    }

    /// What the user is being asked for on another device.
    pub(super) fn challenge(&self, login: LoginKey) -> Option<PendingChallenge> {
        let now = self.clock.monotonic();
        self.known(login, |entry| {
            entry
                .pending
                .take_if(|p| expired(p.since, CHALLENGE_LIFETIME, now));
            entry.pending.clone()
        })?
    }

    pub(super) fn insert_challenge(&self, login: LoginKey, pending: PendingChallenge) {
        self.with(login, |entry| entry.pending = Some(pending));
    }

    pub(super) fn remove_challenge(&self, login: LoginKey) {
        self.known(login, |entry| entry.pending = None);
    }

    /// A new recovery code for the user to be given.
    pub(super) fn insert_recovery_code(&self, login: LoginKey, code: SecretString) {
        let now = self.clock.monotonic();
        self.with(login, |entry| entry.recovery = Some((code, now)));
    }

    /// The recovery code, for the one answer that takes it along.
    pub(super) fn take_recovery_code(&self, login: LoginKey) -> Option<SecretString> {
        let now = self.clock.monotonic();
        let (code, since) = self.known(login, |entry| entry.recovery.take())??;
        (!expired(since, RECOVERY_CODE_LIFETIME, now)).then_some(code)
    }

    /// Changes the entry of `login`, a new one if need be.
    fn with(&self, login: LoginKey, change: impl FnOnce(&mut Entry)) {
        let now = self.clock.monotonic();
        let mut entries = self.entries();
        if !entries.contains_key(&login) && entries.len() >= MAX_USERS {
            evict(&mut entries, now);
        }
        let entry = entries.entry(login).or_default();
        entry.touched = now;
        change(entry);
    }

    /// Looks at the entry of `login`, if there is one: whoever is not known displaces
    /// nobody.
    fn known<T>(&self, login: LoginKey, look: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&login)?;
        entry.touched = self.clock.monotonic();
        let found = look(entry);
        if entry.is_empty() {
            entries.remove(&login);
        }
        Some(found)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<LoginKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expired(since: Duration, life: Duration, now: Duration) -> bool {
    since.saturating_add(life) <= now
}

fn evict(entries: &mut HashMap<LoginKey, Entry>, now: Duration) {
    entries.retain(|_, entry| !expired(entry.touched, IDLE_TIMEOUT, now));
    if entries.len() < MAX_USERS {
        return;
    }
    if let Some(oldest) = entries
        .iter()
        .min_by_key(|(_, e)| e.touched)
        .map(|(k, _)| *k)
    {
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::clock::{Clock as _, ManualClock, UnixMillis};

    const LOGIN: LoginKey = [1; 32];
    const OTHER: LoginKey = [2; 32];

    fn stage() -> (LoginStore, Arc<ManualClock>) {
        let clock = ManualClock::at(UnixMillis::from_secs(1_700_000_000));
        (LoginStore::new(clock.clone()), clock)
    }

    fn text(secret: Option<SecretString>) -> Option<String> {
        secret.map(|s| s.expose().to_owned())
    }

    #[test]
    fn a_rotated_refresh_token_does_not_put_off_the_password() {
        let (memory, clock) = stage();
        memory.insert_refresh_token(LOGIN, "one".into());
        clock.advance(REFRESH_TOKEN_LIFETIME.saturating_sub(Duration::from_secs(1)));
        memory.rotate_refresh_token(LOGIN, "two".into());
        assert_eq!(text(memory.refresh_token(LOGIN)).as_deref(), Some("two"));
        assert_eq!(text(memory.refresh_token(OTHER)), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(text(memory.refresh_token(LOGIN)), None);
        // One dropped meanwhile does not come back.
        memory.rotate_refresh_token(LOGIN, "three".into());
        assert_eq!(text(memory.refresh_token(LOGIN)), None);
    }

    #[test]
    fn a_recovery_code_is_given_once_and_not_late() {
        let (memory, clock) = stage();
        memory.insert_recovery_code(LOGIN, "new".into());
        assert_eq!(text(memory.take_recovery_code(OTHER)), None);
        assert_eq!(
            text(memory.take_recovery_code(LOGIN)).as_deref(),
            Some("new")
        );
        assert_eq!(text(memory.take_recovery_code(LOGIN)), None);
        memory.insert_recovery_code(LOGIN, "late".into());
        clock.advance(RECOVERY_CODE_LIFETIME);
        assert_eq!(text(memory.take_recovery_code(LOGIN)), None);
    }

    #[test]
    fn what_was_asked_for_is_not_waited_for_for_ever() {
        let (memory, clock) = stage();
        let pending = PendingChallenge {
            mfa_token: "m".into(),
            oob_code: "o".into(),
            needs_binding_code: false,
            since: clock.monotonic(),
        };
        memory.insert_challenge(LOGIN, pending);
        clock.advance(CHALLENGE_LIFETIME.saturating_sub(Duration::from_secs(1)));
        assert!(memory.challenge(LOGIN).is_some());
        clock.advance(Duration::from_secs(1));
        assert!(memory.challenge(LOGIN).is_none());
        assert!(memory.entries().is_empty());
    }

    #[test]
    fn is_bounded_and_shows_nothing() {
        let (memory, clock) = stage();
        for number in 0..MAX_USERS + 10 {
            let mut login = [0; 32];
            login[..8].copy_from_slice(&number.to_le_bytes());
            memory.insert_refresh_token(login, "hunter2".into());
            clock.advance(Duration::from_millis(1));
        }
        assert_eq!(memory.entries().len(), MAX_USERS);
        assert_eq!(text(memory.refresh_token([0; 32])), None);
        assert_eq!(memory.entries().len(), MAX_USERS, "asking displaces nobody");
        clock.advance(IDLE_TIMEOUT);
        memory.insert_refresh_token(OTHER, "hunter2".into());
        assert_eq!(memory.entries().len(), 1);
        assert!(!format!("{memory:?}").contains("hunter2"));
    }
}
