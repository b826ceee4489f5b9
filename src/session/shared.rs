//! What sessions have in the store that the replicas of a fleet share (`docs/design/sessions.md`): which
//! of them have ended, whatever `store` is; and the sessions themselves if it is `shared`.
//!
//! What was read there holds until it is heard to have changed, for half a minute at most, so that most
//! requests do not ask the store. When the store fails, it holds until it is known to have changed.

mod claim;
mod ends;
mod later;
mod watch;

pub(super) use claim::{Claim, Claimed, Saved};
pub(super) use ends::Which;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::record;
use super::settings::{SessionSettings, SessionStore};
use super::user_session::StoreEntry;
use super::{Ended, MAX_CLOCK_SKEW, SessionError, SessionGrant, SessionId, UserSession};
use crate::bounded_cache::{CacheBounds, heap_size};
use crate::clock::{Now, SharedClock, UnixMillis};
use crate::codec::{Reader, Writer};
use crate::secret::KEY_BYTES;
use crate::shared_store::{
    Acquired, Fleet, GenerationId, Namespace, SharedStore, StoreError, StoreEvent, StoreKey,
    Unwanted,
};
use ends::Ends;
use watch::{Freshness, Watches};

/// The version of a ticket's encoding.
const VERSION: u8 = 1;

/// The largest session that is stored, in bytes.
pub(super) const MAX_RECORD_BYTES: usize = 64 * 1024;

/// The bounds of what is remembered of the store. Only sessions of users who signed in are; of more, those
/// that were used longest ago are read again.
const BOUNDS: CacheBounds = CacheBounds {
    entries: 50_000,
    bytes: 128 << 20,
};

/// The most writes that are tried again at a time.
const MAX_RETRIES: usize = 1024;

/// An entry that is about to end is not worth less.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// What a cookie contains if the session is in the shared store. The store has the other half of the key.
pub(super) struct Ticket {
    pub(super) id: SessionId,
    pub(super) half: Zeroizing<[u8; KEY_BYTES]>,
}

/// What became of a session in the store.
pub(super) enum Looked {
    Open(Arc<UserSession>),
    Ended(Ended),
    Unavailable(StoreError),
}

/// Why a session was not stored.
#[derive(Debug)]
pub(super) enum SaveError {
    /// It takes that many bytes.
    TooLarge(usize),
    Store(StoreError),
}

impl From<StoreError> for SaveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One `[[session]]` in the store.
pub(super) struct Shared {
    store: Arc<dyn SharedStore>,
    ends: Ends,
    /// If the sessions themselves are in the store.
    records: Option<Namespace>,
    /// What was read of each session.
    seen: Cache<SessionId, Arc<Seen>>,
    watches: Arc<Watches>,
    idle: Duration,
    lifetime: Duration,
    /// The time limit of a request to the provider.
    timeout: Duration,
    clock: SharedClock,
    retries: Arc<Semaphore>,
}

struct Seen {
    found: Found,
    freshness: Arc<Freshness>,
}

enum Found {
    /// The session's record.
    Record(Arc<UserSession>),
    /// No record that can be read.
    Nothing,
    /// A record of a session that has ended.
    Ended(Ended),
    /// That the session, which is in a cookie, has not ended.
    NotEnded,
}

impl Ticket {
    /// What a cookie contains.
    pub(super) fn encode(id: SessionId, half: &[u8; KEY_BYTES]) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::with_capacity(64);
        writer.byte(VERSION);
        writer.fixed(&id.0);
        writer.fixed(half);
        writer.finish()
    }

    /// Decodes what [`Self::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return None;
        }
        let id = SessionId(reader.fixed()?);
        let half = Zeroizing::new(reader.fixed()?);
        reader.is_at_end().then_some(Self { id, half })
    }

    /// A new session's.
    pub(super) fn random() -> Result<Self, StoreError> {
        let (mut id, mut half) = ([0; 16], Zeroizing::new([0; KEY_BYTES]));
        let filled = getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut *half));
        filled.map_err(|_| StoreError::Randomness)?;
        let id = SessionId(id);
        Ok(Self { id, half })
    }
}

impl Seen {
    /// What a cookie with `ticket` gets.
    fn answer(&self, ticket: &Ticket) -> Looked {
        match &self.found {
            Found::Record(session) if opens(session, ticket) => Looked::Open(Arc::clone(session)),
            Found::Ended(ended) => Looked::Ended(*ended),
            _ => Looked::Ended(Ended::Invalid),
        }
    }

    fn heap_size(&self) -> usize {
        let session = match &self.found {
            Found::Record(session) => session.heap_size(),
            Found::Nothing | Found::Ended(_) | Found::NotEnded => 0,
        };
        // With its watches.
        size_of::<Self>() + size_of::<Freshness>() + 600 + heap_size::allocation(session)
    }
}

/// Whether `ticket` is the one that `session` was opened with.
fn opens(session: &UserSession, ticket: &Ticket) -> bool {
    let entry = session.entry.as_ref();
    entry.is_some_and(|entry| {
        verify_slices_are_equal(entry.half.as_slice(), ticket.half.as_slice()).is_ok()
    })
}

impl Shared {
    pub(super) fn new(
        settings: &SessionSettings,
        fleet: &Fleet,
        clock: SharedClock,
    ) -> Result<Self, SessionError> {
        let parts = [
            settings.name.as_bytes(),
            settings.provider.as_bytes(),
            settings.client_id.as_bytes(),
        ];
        let records = match settings.store {
            SessionStore::Cookie => None,
            SessionStore::Shared => {
                let [name, provider, client] = parts;
                let parts: [&[u8]; 4] = [b"sessions", name, provider, client];
                Some(fleet.keys.namespace(&parts)?)
            }
        };
        let seen = BOUNDS.builder(|seen: &Arc<Seen>| seen.heap_size());
        Ok(Self {
            store: Arc::clone(&fleet.store),
            ends: Ends::new(fleet, parts)?,
            records,
            // The default policy may refuse what has not been looked up before.
            seen: seen.eviction_policy(EvictionPolicy::lru()).build(),
            watches: Arc::default(),
            idle: settings.idle,
            lifetime: settings.lifetime,
            timeout: settings.timeout,
            clock,
            retries: Arc::new(Semaphore::new(MAX_RETRIES)),
        })
    }

    /// Handles news from the store.
    pub(super) fn on_event(&self, event: &StoreEvent) {
        self.watches.on_event(event);
    }

    /// Opens the session of `ticket`. Does not ask the store if it was read a moment ago.
    pub(super) async fn open(&self, ticket: &Ticket, now: Now) -> Looked {
        let seen = self.seen.get(&ticket.id);
        if let Some(seen) = &seen
            && self.watches.is_fresh(&seen.freshness, now)
        {
            return seen.answer(ticket);
        }
        match (self.load(ticket, now).await, seen) {
            (Ok(looked), _) => looked,
            (Err(_), Some(seen)) if !seen.freshness.has_changed() => seen.answer(ticket),
            (Err(error), _) => Looked::Unavailable(error),
        }
    }

    async fn load(&self, ticket: &Ticket, now: Now) -> Result<Looked, StoreError> {
        let keys = self.record_keys(ticket.id);
        let freshness = self.watches.watch(&keys, now);
        let Some(session) = self.read(&keys, &ticket.half, now).await? else {
            self.remember(ticket.id, Found::Nothing, freshness);
            return Ok(Looked::Ended(Ended::Invalid));
        };
        if let Some(entry) = &session.entry {
            freshness.knows(entry.generation);
        }
        let session = Arc::new(session);
        if let Some(ended) = self.ended(&session, &freshness, now).await? {
            // Also so that its cookie, which may be sent any number of times, does not ask the store each time.
            self.remember(ticket.id, Found::Ended(ended), freshness);
            return Ok(Looked::Ended(ended));
        }
        self.remember(ticket.id, Found::Record(Arc::clone(&session)), freshness);
        Ok(Looked::Open(session))
    }

    /// Why `session`, which is in a cookie, has ended for the fleet. Does not ask the store if it was asked
    /// a moment ago. A store that fails is not waited for: this replica decides by what it knows.
    ///
    /// # Errors
    /// If there is news about the session that cannot be read.
    pub(super) async fn check(
        &self,
        session: &UserSession,
        now: Now,
    ) -> Result<Option<Ended>, StoreError> {
        let seen = self.seen.get(&session.id);
        if let Some(seen) = &seen
            && self.watches.is_fresh(&seen.freshness, now)
        {
            return Ok(None);
        }
        let freshness = self.watches.watch(&[], now);
        match self.ended(session, &freshness, now).await {
            Ok(None) => {
                self.remember(session.id, Found::NotEnded, freshness);
                Ok(None)
            }
            Ok(ended) => Ok(ended),
            Err(error) => {
                let changed = seen.is_some_and(|seen| seen.freshness.has_changed());
                if changed { Err(error) } else { Ok(None) }
            }
        }
    }

    async fn ended(
        &self,
        session: &UserSession,
        freshness: &Arc<Freshness>,
        now: Now,
    ) -> Result<Option<Ended>, StoreError> {
        let entries = self.ends.of(session);
        let keys: Vec<_> = entries.iter().map(|(_, key)| *key).collect();
        self.watches.add(freshness, &keys);
        self.ends.read(&*self.store, &entries, session, now).await
    }

    fn remember(&self, id: SessionId, found: Found, freshness: Arc<Freshness>) {
        self.seen.insert(id, Arc::new(Seen { found, freshness }));
    }

    /// Where the record of a session may be: under the key of the fleet, and under the previous one.
    fn record_keys(&self, id: SessionId) -> Vec<StoreKey> {
        let Some(records) = &self.records else {
            return Vec::new();
        };
        let hashers = std::iter::once(records.hasher()).chain(records.previous_hasher());
        hashers.map(|hasher| hasher.part(&id.0).finish()).collect()
    }

    /// The record, from the first of `keys` that has one; `None` if there is none that can be read.
    async fn read(
        &self,
        keys: &[StoreKey],
        half: &Zeroizing<[u8; KEY_BYTES]>,
        now: Now,
    ) -> Result<Option<UserSession>, StoreError> {
        for key in keys {
            if let Some(value) = self.store.read(*key).await? {
                let entry = StoreEntry {
                    key: *key,
                    half: half.clone(),
                    generation: value.generation,
                };
                return Ok(self.unseal(entry, value.sealed, now));
            }
        }
        Ok(None)
    }

    fn unseal(&self, entry: StoreEntry, sealed: Vec<u8>, now: Now) -> Option<UserSession> {
        let records = self.records.as_ref()?;
        let plain = records.open_with(&entry.half, entry.key, entry.generation, sealed)?;
        let mut session = record::read(&plain, self.idle, self.lifetime, now)?;
        session.entry = Some(Arc::new(entry));
        Some(session)
    }

    fn seal(&self, session: &UserSession) -> Result<Vec<u8>, SaveError> {
        let (Some(records), Some(entry)) = (&self.records, &session.entry) else {
            return Err(StoreError::Answer("the session is not in the store".into()).into());
        };
        let active_at = session.idle_expires_at.minus(self.idle);
        let plain = record::encode(session, active_at, true);
        if plain.len() > MAX_RECORD_BYTES {
            return Err(SaveError::TooLarge(plain.len()));
        }
        let sealed = records.seal_with(&entry.half, entry.key, entry.generation, plain);
        Ok(sealed.ok_or(StoreError::Randomness)?)
    }

    /// Stores a new session.
    pub(super) async fn create(
        &self,
        mut session: UserSession,
        ticket: Ticket,
        now: Now,
    ) -> Result<Arc<UserSession>, SaveError> {
        let key = self.record_keys(ticket.id).first().copied();
        let key = key.ok_or(StoreError::Down)?;
        let generation = GenerationId::random()?;
        session.id = ticket.id;
        session.entry = Some(Arc::new(StoreEntry {
            key,
            half: ticket.half,
            generation,
        }));
        let sealed = self.seal(&session)?;
        let ttl = ttl(&session, now.wall);
        let freshness = self.watch_written(&session, now);
        self.store.write(key, generation, sealed, ttl).await?;
        Ok(self.remember_written(session, freshness))
    }

    /// Stores that `session` may be idle until `idle_expires_at`, and moves it under the current key of
    /// the fleet. `None` if it was not done: the store failed, or another replica was faster.
    pub(super) async fn keep_alive(
        &self,
        session: &UserSession,
        idle_expires_at: UnixMillis,
        now: Now,
    ) -> Option<Arc<UserSession>> {
        let entry = session.entry.as_ref()?;
        let lease = GenerationId::random().ok()?;
        let unwanted = Unwanted {
            generation: entry.generation,
            reject: false,
        };
        let acquired = self.store.acquire(entry.key, lease, Some(unwanted)).await;
        let Ok(Acquired::Granted) = acquired else {
            return None;
        };
        let moved = self.move_idle_limit(session, entry, idle_expires_at, lease, now);
        let moved = moved.await;
        if moved.is_none() {
            // If that fails, the lease ends by itself.
            let _ = self.store.release(entry.key, lease).await;
        }
        moved
    }

    async fn move_idle_limit(
        &self,
        session: &UserSession,
        entry: &StoreEntry,
        idle_expires_at: UnixMillis,
        lease: GenerationId,
        now: Now,
    ) -> Option<Arc<UserSession>> {
        // A lease is granted for what has been removed, too.
        let current = self.store.read(entry.key).await.ok()??;
        if current.generation != entry.generation {
            return None;
        }
        let key = *self.record_keys(session.id).first()?;
        let mut session = session.clone();
        session.idle_expires_at = idle_expires_at;
        session.entry = Some(Arc::new(StoreEntry {
            key,
            half: entry.half.clone(),
            generation: lease,
        }));
        let (sealed, ttl) = (self.seal(&session).ok()?, ttl(&session, now.wall));
        let freshness = self.watch_written(&session, now);
        let written = if key == entry.key {
            self.store.complete(key, lease, sealed, ttl).await.ok()?
        } else {
            self.store.write(key, lease, sealed, ttl).await.ok()?;
            let _ = self.store.remove(entry.key).await;
            true
        };
        written.then(|| self.remember_written(session, freshness))
    }

    /// Watches what may change about a session that is about to be written. The next request reads all of
    /// it; until then it stands in if the store fails.
    fn watch_written(&self, session: &UserSession, now: Now) -> Arc<Freshness> {
        let ends = self.ends.of(session);
        let mut keys = self.record_keys(session.id);
        keys.extend(ends.iter().map(|(_, key)| *key));
        let freshness = self.watches.watch_unread(&keys, now);
        if let Some(entry) = &session.entry {
            freshness.knows(entry.generation);
        }
        freshness
    }

    fn remember_written(
        &self,
        session: UserSession,
        freshness: Arc<Freshness>,
    ) -> Arc<UserSession> {
        let session = Arc::new(session);
        let found = Found::Record(Arc::clone(&session));
        self.remember(session.id, found, freshness);
        session
    }

    /// The session as it is in the store; `None` if it is not, or the store fails.
    pub(super) async fn reread(&self, session: &UserSession, now: Now) -> Option<UserSession> {
        let entry = session.entry.as_ref()?;
        let keys = self.record_keys(session.id);
        self.read(&keys, &entry.half, now).await.ok()?
    }
}

/// How long a session stays in the store.
fn ttl(session: &UserSession, now: UnixMillis) -> Duration {
    let end = session.expires_at.min(session.idle_expires_at);
    now.until(end).max(SHORTEST_TTL)
}

impl UserSession {
    /// Roughly.
    fn heap_size(&self) -> usize {
        let texts = [&self.name, &self.email, &self.provider_session];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        let grant = match &self.grant {
            SessionGrant::Oidc {
                access_token,
                refresh_token,
                id_token,
                ..
            } => {
                let further = [refresh_token, id_token].into_iter().flatten();
                access_token.expose().len() + further.map(|t| t.expose().len()).sum::<usize>()
            }
            // The credential, signed with, repeats what the credentials say.
            SessionGrant::Taskcluster { credentials, .. } => {
                let certificate = credentials.certificate.as_ref();
                let scopes = credentials.authorized_scopes.as_deref();
                4 * (certificate.map_or(0, |c| c.as_json().len())
                    + scopes.map_or(0, heap_size::strings)
                    + 256)
            }
        };
        size_of::<Self>() + self.subject.len() + texts + grant + 512
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket([redacted])")
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
