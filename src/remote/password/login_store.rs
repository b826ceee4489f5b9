//! State kept about a user between requests: a refresh token, a pending MFA challenge, a new
//! recovery code. It is kept in memory only, under a keyed hash of username and password, so that
//! it cannot be looked up without the password.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::secret::SecretString;

/// The most entries; the least recently used is evicted first.
const MAX_ENTRIES: usize = 10_000;
/// How long a refresh token replaces the password. After that the provider checks the password
/// again, so a changed one takes effect.
const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_hours(1);
/// How long an MFA challenge stays pending.
const CHALLENGE_LIFETIME: Duration = Duration::from_mins(5);
/// How long a new recovery code is kept for the response that delivers it to the user.
const RECOVERY_CODE_LIFETIME: Duration = Duration::from_mins(5);
/// How long an unused entry is kept: until everything in it has expired.
const IDLE_TIMEOUT: Duration = REFRESH_TOKEN_LIFETIME;

/// A keyed hash of username, password and requested scopes.
pub(super) type LoginKey = [u8; 32];

/// An out-of-band MFA challenge that the provider has sent to the user.
#[derive(Clone, Debug)]
pub(super) struct PendingChallenge {
    /// The token that continues the sign-in.
    pub(super) mfa_token: SecretString,
    /// The identifier of the challenge.
    pub(super) oob_code: SecretString,
    /// Whether the user must enter a code that they were sent (as in a text message), rather than
    /// confirm on the device.
    pub(super) needs_binding_code: bool,
    /// When it was sent, in monotonic time.
    pub(super) sent_at: Duration,
}

#[derive(Debug, Default)]
struct Entry {
    last_used: Duration,
    /// The token, and the monotonic time at which the provider last checked the password.
    refresh: Option<(SecretString, Duration)>,
    challenge: Option<PendingChallenge>,
    recovery: Option<(SecretString, Duration)>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.refresh.is_none() && self.challenge.is_none() && self.recovery.is_none()
    }
}

/// The logins of one source.
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

    /// The refresh token, as long as it may replace the password.
    pub(super) fn refresh_token(&self, login: LoginKey) -> Option<SecretString> {
        let now = self.clock.monotonic();
        self.update(login, |entry| {
            let too_old =
                |(_, checked): &mut (_, Duration)| expired(*checked, REFRESH_TOKEN_LIFETIME, now);
            entry.refresh.take_if(too_old);
            entry.refresh.as_ref().map(|(token, _)| token.clone())
        })?
    }

    /// Stores a refresh token that was issued for the password.
    pub(super) fn insert_refresh_token(&self, login: LoginKey, token: SecretString) {
        let now = self.clock.monotonic();
        self.upsert(login, |entry| entry.refresh = Some((token, now)));
    }

    /// Replaces a refresh token with its rotated successor, without extending its lifetime.
    pub(super) fn rotate_refresh_token(&self, login: LoginKey, token: SecretString) {
        self.update(login, |entry| {
            if let Some((current, _)) = &mut entry.refresh {
                *current = token;
            }
        });
    }

    pub(super) fn remove_refresh_token(&self, login: LoginKey) {
        self.update(login, |entry| entry.refresh = None);
    }

    /// The pending MFA challenge.
    pub(super) fn challenge(&self, login: LoginKey) -> Option<PendingChallenge> {
        let now = self.clock.monotonic();
        self.update(login, |entry| {
            entry
                .challenge
                .take_if(|p| expired(p.sent_at, CHALLENGE_LIFETIME, now));
            entry.challenge.clone()
        })?
    }

    pub(super) fn insert_challenge(&self, login: LoginKey, challenge: PendingChallenge) {
        self.upsert(login, |entry| entry.challenge = Some(challenge));
    }

    pub(super) fn remove_challenge(&self, login: LoginKey) {
        self.update(login, |entry| entry.challenge = None);
    }

    /// Stores a new recovery code for the user.
    pub(super) fn insert_recovery_code(&self, login: LoginKey, code: SecretString) {
        let now = self.clock.monotonic();
        self.upsert(login, |entry| entry.recovery = Some((code, now)));
    }

    /// Takes the recovery code, to be sent in one response.
    pub(super) fn take_recovery_code(&self, login: LoginKey) -> Option<SecretString> {
        let now = self.clock.monotonic();
        let (code, since) = self.update(login, |entry| entry.recovery.take())??;
        (!expired(since, RECOVERY_CODE_LIFETIME, now)).then_some(code)
    }

    /// Updates the entry of `login`, creating it if necessary.
    fn upsert(&self, login: LoginKey, change: impl FnOnce(&mut Entry)) {
        let now = self.clock.monotonic();
        let mut entries = self.entries();
        if !entries.contains_key(&login) && entries.len() >= MAX_ENTRIES {
            evict(&mut entries, now);
        }
        let entry = entries.entry(login).or_default();
        entry.last_used = now;
        change(entry);
    }

    /// Updates the entry of `login` if it exists; a lookup never evicts another entry.
    fn update<T>(&self, login: LoginKey, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&login)?;
        entry.last_used = self.clock.monotonic();
        let result = change(entry);
        if entry.is_empty() {
            entries.remove(&login);
        }
        Some(result)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<LoginKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expired(since: Duration, life: Duration, now: Duration) -> bool {
    since.saturating_add(life) <= now
}

fn evict(entries: &mut HashMap<LoginKey, Entry>, now: Duration) {
    entries.retain(|_, entry| !expired(entry.last_used, IDLE_TIMEOUT, now));
    if entries.len() < MAX_ENTRIES {
        return;
    }
    if let Some(oldest) = entries
        .iter()
        .min_by_key(|(_, e)| e.last_used)
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

    fn store() -> (LoginStore, Arc<ManualClock>) {
        let clock = ManualClock::at(UnixMillis::from_secs(1_700_000_000));
        (LoginStore::new(clock.clone()), clock)
    }

    fn text(secret: Option<SecretString>) -> Option<String> {
        secret.map(|s| s.expose().to_owned())
    }

    #[test]
    fn rotating_a_refresh_token_does_not_extend_its_lifetime() {
        let (store, clock) = store();
        store.insert_refresh_token(LOGIN, "one".into());
        clock.advance(REFRESH_TOKEN_LIFETIME.saturating_sub(Duration::from_secs(1)));
        store.rotate_refresh_token(LOGIN, "two".into());
        assert_eq!(text(store.refresh_token(LOGIN)).as_deref(), Some("two"));
        assert_eq!(text(store.refresh_token(OTHER)), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(text(store.refresh_token(LOGIN)), None);
        // A removed token is not restored by a late rotation.
        store.rotate_refresh_token(LOGIN, "three".into());
        assert_eq!(text(store.refresh_token(LOGIN)), None);
    }

    #[test]
    fn a_recovery_code_is_returned_once_and_expires() {
        let (store, clock) = store();
        store.insert_recovery_code(LOGIN, "new".into());
        assert_eq!(text(store.take_recovery_code(OTHER)), None);
        assert_eq!(
            text(store.take_recovery_code(LOGIN)).as_deref(),
            Some("new")
        );
        assert_eq!(text(store.take_recovery_code(LOGIN)), None);
        store.insert_recovery_code(LOGIN, "late".into());
        clock.advance(RECOVERY_CODE_LIFETIME);
        assert_eq!(text(store.take_recovery_code(LOGIN)), None);
    }

    #[test]
    fn a_pending_challenge_expires() {
        let (store, clock) = store();
        let challenge = PendingChallenge {
            mfa_token: "m".into(),
            oob_code: "o".into(),
            needs_binding_code: false,
            sent_at: clock.monotonic(),
        };
        store.insert_challenge(LOGIN, challenge);
        clock.advance(CHALLENGE_LIFETIME.saturating_sub(Duration::from_secs(1)));
        assert!(store.challenge(LOGIN).is_some());
        clock.advance(Duration::from_secs(1));
        assert!(store.challenge(LOGIN).is_none());
        assert!(store.entries().is_empty());
    }

    #[test]
    fn the_store_is_bounded_and_its_debug_output_hides_secrets() {
        let (store, clock) = store();
        for number in 0..MAX_ENTRIES + 10 {
            let mut login = [0; 32];
            login[..8].copy_from_slice(&number.to_le_bytes());
            store.insert_refresh_token(login, "hunter2".into());
            clock.advance(Duration::from_millis(1));
        }
        assert_eq!(store.entries().len(), MAX_ENTRIES);
        assert_eq!(text(store.refresh_token([0; 32])), None);
        assert_eq!(
            store.entries().len(),
            MAX_ENTRIES,
            "a lookup evicts nothing"
        );
        clock.advance(IDLE_TIMEOUT);
        store.insert_refresh_token(OTHER, "hunter2".into());
        assert_eq!(store.entries().len(), 1);
        assert!(!format!("{store:?}").contains("hunter2"));
    }
}
