//! The store that the replicas of a fleet share (`[shared]`; `docs/design/fleet.md`): the port that
//! `remote` implements on Valkey or Redis, the keys that keep what is in it secret, and the guard that
//! keeps a faulty store from harming requests.
//!
//! A store holds entries. Each has at most one value, which names the generation that it is, and at most
//! one lease for the generation to come. Only the holder of the lease may write that generation: one whose
//! lease has ended and been granted again writes nothing. Every operation is a single atomic step in the
//! store, which also measures every time, so that the clocks of replicas do not matter.
//!
//! Nothing that is passed to a store can be read in it: keys are HMACs and values are sealed
//! ([`FleetKeys`]).

mod event;
mod guard;
mod in_memory;
mod keys;

pub use event::{EventKey, StoreEvent};
pub use guard::{Guard, StoreObserver};
pub use in_memory::InMemoryStore;
pub use keys::{FleetKeyError, FleetKeys, KeyHasher, Namespace};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::label::labels;

/// How long a lease lasts unless it is renewed. A holder that has died is followed after this time.
pub const LEASE: Duration = Duration::from_secs(3);

/// How often a holder renews its lease.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(1);

/// How often a replica that waits for another's lease looks at the store, should it miss the event.
pub const POLL: Duration = Duration::from_millis(250);

/// What a replica needs to share something.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The store, guarded.
    pub store: Arc<dyn SharedStore>,
    /// Keeps what is in it secret.
    pub keys: Arc<FleetKeys>,
}

/// Names an entry: an HMAC under a key of the fleet. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreKey(pub [u8; 32]);

/// Names one generation of an entry, and before that the lease under which it is fetched: 128 random
/// bits, never used twice. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GenerationId(pub [u8; 16]);

impl GenerationId {
    /// A new name.
    ///
    /// # Errors
    /// If the operating system cannot supply random bytes.
    pub fn random() -> Result<Self, StoreError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| StoreError::Randomness)?;
        Ok(Self(id))
    }
}

/// The result of [`SharedStore::acquire`].
#[derive(Debug)]
pub enum Acquired {
    /// There is a value other than the unwanted one.
    Value(StoredValue),
    /// The caller holds the lease, for [`LEASE`].
    Granted,
    /// Another replica holds it.
    Held,
}

/// A value in the store.
pub struct StoredValue {
    /// Which generation it is.
    pub generation: GenerationId,
    /// As written.
    pub sealed: Vec<u8>,
    /// How long it stays in the store.
    pub ttl: Duration,
}

impl fmt::Debug for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredValue")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// A token bucket, as in the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The time in which one token is added; at least a microsecond.
    pub interval: Duration,
    /// The capacity; at least 1.
    pub burst: u64,
}

/// The result of [`SharedStore::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many tokens were taken: as many as there were, at most as many as wanted.
    pub granted: u64,
    /// If none were: when there is one.
    pub retry_after: Duration,
}

/// Why an operation failed. The messages are for the operator's log and contain no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer in time ([`Guard`]).
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The store cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The store answered with an error, or with what is no answer to the operation.
    #[error("{0}")]
    Answer(String),
    /// The operation was not attempted, because the store failed before ([`Guard`]).
    #[error("the shared store is down")]
    Down,
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Randomness,
}

labels! {
    /// The operations of a store.
    Operation {
        /// [`SharedStore::acquire`]
        Acquire = "acquire",
        /// [`SharedStore::renew`]
        Renew = "renew",
        /// [`SharedStore::complete`]
        Complete = "complete",
        /// [`SharedStore::release`]
        Release = "release",
        /// [`SharedStore::reject`]
        Reject = "reject",
        /// [`SharedStore::read`]
        Read = "read",
        /// [`SharedStore::write`]
        Write = "write",
        /// [`SharedStore::remove`]
        Remove = "remove",
        /// [`SharedStore::take`]
        Take = "take",
    }
}

labels! {
    /// How an operation ended.
    OperationResult {
        /// It was carried out. For reading: there is nothing.
        Ok = "ok",
        /// There is a value.
        Hit = "hit",
        /// The lease is held by another replica, or is no longer held by this one; or no token is left.
        Held = "held",
        /// No answer in time.
        Timeout = "timeout",
        /// The store cannot be reached, or answered with an error.
        Error = "error",
        /// Not attempted, because the store failed before.
        Skipped = "skipped",
    }
}

/// The port. Implementations need not bound the time of an operation: [`Guard`] does.
#[async_trait]
pub trait SharedStore: Send + Sync + fmt::Debug {
    /// Returns the value of `key` unless it is the generation `unwanted`; otherwise grants the lease for
    /// the generation `lease`, if nobody holds one. With `reject`, an unwanted value is also removed and
    /// [`StoreEvent::Rejected`] is sent, as by [`Self::reject`].
    ///
    /// # Errors
    /// If the store fails.
    async fn acquire(
        &self,
        key: StoreKey,
        lease: GenerationId,
        unwanted: Option<Unwanted>,
    ) -> Result<Acquired, StoreError>;

    /// Extends a lease by [`LEASE`] from now. False if it is no longer held.
    ///
    /// # Errors
    /// If the store fails.
    async fn renew(&self, key: StoreKey, lease: GenerationId) -> Result<bool, StoreError>;

    /// Writes `sealed` as generation `lease` for `ttl`, ends the lease and sends
    /// [`StoreEvent::Changed`]. False, and nothing is written, if the lease is no longer held.
    ///
    /// # Errors
    /// If the store fails.
    async fn complete(
        &self,
        key: StoreKey,
        lease: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, StoreError>;

    /// Ends a lease without a value and sends [`StoreEvent::Changed`], if it is still held.
    ///
    /// # Errors
    /// If the store fails.
    async fn release(&self, key: StoreKey, lease: GenerationId) -> Result<(), StoreError>;

    /// Removes the value of `key` if it is `generation`, and sends [`StoreEvent::Rejected`] in any case.
    ///
    /// # Errors
    /// If the store fails.
    async fn reject(&self, key: StoreKey, generation: GenerationId) -> Result<(), StoreError>;

    /// The value of `key`.
    ///
    /// # Errors
    /// If the store fails.
    async fn read(&self, key: StoreKey) -> Result<Option<StoredValue>, StoreError>;

    /// Writes a value whatever there is, ends any lease and sends [`StoreEvent::Changed`].
    ///
    /// # Errors
    /// If the store fails.
    async fn write(
        &self,
        key: StoreKey,
        generation: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<(), StoreError>;

    /// Removes value and lease, and sends [`StoreEvent::Changed`]. True if there was a value.
    ///
    /// # Errors
    /// If the store fails.
    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError>;

    /// Takes up to `wanted` tokens from the bucket `key`, which is full at first. With 0 it takes none:
    /// then [`Taken::retry_after`] is zero if there is one.
    ///
    /// # Errors
    /// If the store fails.
    async fn take(&self, key: StoreKey, quota: Quota, wanted: u64) -> Result<Taken, StoreError>;

    /// Whether the store answers and may be written to.
    ///
    /// # Errors
    /// If not.
    async fn probe(&self) -> Result<(), StoreError>;

    /// What the replicas tell each other from now on, this one included. A receiver that lags must act
    /// as on [`StoreEvent::Interrupted`].
    fn events(&self) -> broadcast::Receiver<StoreEvent>;
}

/// A generation that is of no use to the caller of [`SharedStore::acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwanted {
    /// The generation.
    pub generation: GenerationId,
    /// Whether it was rejected, and is of no use to anybody; else the caller just wants a newer one.
    pub reject: bool,
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(")?;
        short_hex(f, &self.0)
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GenerationId(")?;
        short_hex(f, &self.0)
    }
}

fn short_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for byte in bytes.iter().take(4) {
        write!(f, "{byte:02x}")?;
    }
    f.write_str("…)")
}
