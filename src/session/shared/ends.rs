//! Sessions that ended before their time, as the replicas of a fleet tell each other: an entry for each
//! session, provider's session or user that has been signed out. An entry is only ever written, never
//! changed depending on what it was, so that replicas need not agree.

use std::time::Duration;

use futures::future::join_all;
use zeroize::Zeroizing;

use crate::clock::{Now, UnixMillis};
use crate::codec::{Reader, Writer};
use crate::session::{Ended, SessionId, UserSession};
use crate::shared_store::{
    Fleet, FleetKeyError, GenerationId, KeyHasher, Namespace, SharedStore, StoreError, StoreKey,
    StoredValue,
};

/// The version of the encoding.
const VERSION: u8 = 1;
const SIGNED_OUT: u8 = 0;
const CREDENTIALS: u8 = 1;

/// Which sessions have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Which<'a> {
    /// This one.
    Session(SessionId),
    /// Those of the provider's session `sid`.
    ProviderSession(&'a str),
    /// Those that this user had begun by then.
    User(&'a str),
    /// Those that this user had begun by then and of which no `sid` is known.
    Unnamed(&'a str),
}

/// The keys of the entries.
#[derive(Debug)]
pub(super) struct Ends(Namespace);

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    ended: Ended,
    at: UnixMillis,
}

impl Which<'_> {
    fn key(self, hasher: KeyHasher) -> StoreKey {
        let (kind, of): (&[u8], &[u8]) = match &self {
            Self::Session(id) => (b"session", &id.0),
            Self::ProviderSession(sid) => (b"provider session", sid.as_bytes()),
            Self::User(subject) => (b"user", subject.as_bytes()),
            Self::Unnamed(subject) => (b"unnamed", subject.as_bytes()),
        };
        hasher.part(kind).part(of).finish()
    }

    /// Whether the entry says when: sessions from later sign-ins go on.
    fn is_of_user(self) -> bool {
        matches!(self, Self::User(_) | Self::Unnamed(_))
    }
}

impl Ends {
    /// Those of sessions that `parts` tell from others.
    pub(super) fn new(fleet: &Fleet, parts: [&[u8]; 3]) -> Result<Self, FleetKeyError> {
        let [name, provider, client] = parts;
        let parts: [&[u8]; 4] = [b"session ends", name, provider, client];
        Ok(Self(fleet.keys.namespace(&parts)?))
    }

    /// Every entry that may end `session`, also under the previous key of the fleet.
    pub(super) fn of<'s>(&self, session: &'s UserSession) -> Vec<(Which<'s>, StoreKey)> {
        let subject = session.subject.as_str();
        let sid = session.provider_session.as_deref();
        let which = [
            Which::Session(session.id),
            Which::User(subject),
            sid.map_or(Which::Unnamed(subject), Which::ProviderSession),
        ];
        let hashers = || std::iter::once(self.0.hasher()).chain(self.0.previous_hasher());
        let keys = |which: Which<'s>| hashers().map(move |hasher| (which, which.key(hasher)));
        which.into_iter().flat_map(keys).collect()
    }

    /// Why `session` has ended, if one of its `entries` says so.
    pub(super) async fn read(
        &self,
        store: &dyn SharedStore,
        entries: &[(Which<'_>, StoreKey)],
        session: &UserSession,
        now: Now,
    ) -> Result<Option<Ended>, StoreError> {
        let read = entries.iter().map(|(_, key)| store.read(*key));
        let mut failed = None;
        for (answer, (which, key)) in join_all(read).await.into_iter().zip(entries) {
            let value = match answer {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            let end = match self.open(*key, value) {
                Some(end) => end,
                None => self.replace(store, (*which, *key), session, now).await,
            };
            if !which.is_of_user() || session.signed_in_at <= end.at {
                return Ok(Some(end.ended));
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Something ended that cannot be read: whatever there was until now. What says so replaces the
    /// entry of a user, who could otherwise not sign in again.
    async fn replace(
        &self,
        store: &dyn SharedStore,
        (which, key): (Which<'_>, StoreKey),
        session: &UserSession,
        now: Now,
    ) -> End {
        let end = End {
            ended: Ended::SignedOut,
            at: now.wall,
        };
        if which.is_of_user() {
            let ttl = now.wall.until(session.expires_at);
            // If that fails, the next look at it replaces it.
            let _ = self.put(store, key, end, ttl).await;
        }
        end
    }

    /// The key of the entry that ends `which`.
    pub(super) fn key(&self, which: Which<'_>) -> StoreKey {
        which.key(self.0.hasher())
    }

    /// Writes for `ttl` to the entry `key` that what it is about ended `at` that time.
    pub(super) async fn write(
        &self,
        store: &dyn SharedStore,
        key: StoreKey,
        (ended, at): (Ended, UnixMillis),
        ttl: Duration,
    ) -> Result<(), StoreError> {
        self.put(store, key, End { ended, at }, ttl).await
    }

    async fn put(
        &self,
        store: &dyn SharedStore,
        key: StoreKey,
        end: End,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let mut writer = Writer::with_capacity(16);
        writer.byte(VERSION);
        writer.byte(match end.ended {
            Ended::Credentials => CREDENTIALS,
            _ => SIGNED_OUT,
        });
        writer.number(u64::try_from(end.at.0).unwrap_or(0));
        let generation = GenerationId::random()?;
        let sealed = self.seal(key, generation, writer.finish())?;
        store.write(key, generation, sealed, ttl).await
    }

    fn open(&self, key: StoreKey, value: StoredValue) -> Option<End> {
        let plain = self.0.open(key, value.generation, value.sealed)?;
        let mut reader = Reader::new(&plain);
        if reader.byte()? != VERSION {
            return None;
        }
        let ended = match reader.byte()? {
            SIGNED_OUT => Ended::SignedOut,
            CREDENTIALS => Ended::Credentials,
            _ => return None,
        };
        let at = i64::try_from(reader.number()?).ok().map(UnixMillis)?;
        reader.is_at_end().then_some(End { ended, at })
    }

    /// The key of what may happen once.
    pub(super) fn once_key(&self, parts: &[&[u8]]) -> StoreKey {
        let hasher = self.0.hasher().part(b"once");
        let hasher = parts.iter().fold(hasher, |hasher, part| hasher.part(part));
        hasher.finish()
    }

    pub(super) fn seal(
        &self,
        key: StoreKey,
        generation: GenerationId,
        plain: Zeroizing<Vec<u8>>,
    ) -> Result<Vec<u8>, StoreError> {
        let sealed = self.0.seal(key, generation, plain);
        sealed.ok_or(StoreError::Randomness)
    }

    /// Whether a replica of the fleet wrote this value.
    pub(super) fn is_own(&self, key: StoreKey, value: StoredValue) -> bool {
        let opened = self.0.open(key, value.generation, value.sealed);
        opened.is_some()
    }
}
