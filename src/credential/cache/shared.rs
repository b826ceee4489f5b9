//! Shares the credentials of one source with the other replicas of a fleet (`docs/design/fleet.md`).
//!
//! Only what a miss would cost goes through the store: before an exchange, a replica looks there and takes
//! the lease of the entry, so that one replica at a time asks the source for an identity. If the store
//! fails at any point, this replica goes on alone.

mod record;

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::generation::{Generation, SharedName};
use crate::clock::{Now, UnixMillis};
use crate::credential::identity::IdentityKey;
use crate::credential::{CredentialSource, Issued, SwapRequest};
use crate::shared_store::{
    Acquired, Fleet, FleetKeyError, GenerationId, LEASE_RENEWAL, Namespace, POLL, SharedStore,
    StoreError, StoreKey, StoredValue, Unwanted,
};
use crate::sync::{self, Mutex, MutexGuard};

/// How long the rejection of a generation is remembered: longer than an answer of the store that still
/// contains it may take. A rejection may arrive before such an answer.
const REJECTED_AGE: Duration = Duration::from_mins(1);

/// The most rejections that are remembered. The oldest is forgotten first; should an answer of the store
/// that is older still contain it, the upstream rejects it once more.
const MAX_REJECTED: u64 = 100_000;

/// The values in a row that may be of no use to this replica before it goes on without the store. The store
/// returns none that is named as unwanted, so there is more than one only if others write just then.
const MAX_USELESS: usize = 4;

#[derive(Debug)]
pub(super) struct SharedCredentials {
    store: Arc<dyn SharedStore>,
    namespace: Namespace,
    key: IdentityKey,
    previous_key: Option<IdentityKey>,
    /// The latest generation of each entry in this replica, to find those that others have replaced.
    generations: Cache<StoreKey, Weak<Generation>>,
    rejected: Cache<GenerationId, ()>,
    /// The flights that wait for another replica: one for each identity.
    waiting: Mutex<HashMap<StoreKey, Arc<Notify>>>,
}

/// The result of [`SharedCredentials::obtain`].
pub(super) enum Obtained {
    /// Another replica has fetched this.
    Value(Issued, SharedName),
    /// This replica is to fetch it.
    Lease(HeldLease),
    /// The store is of no help.
    Alone,
}

/// A lease that this replica holds. It is released when it is dropped.
pub(super) struct HeldLease {
    store: Arc<dyn SharedStore>,
    name: SharedName,
    ended: bool,
}

impl SharedCredentials {
    /// For the source `name`, whose configuration `section` describes: replicas share credentials only if
    /// they agree on it. `entries` is the size of this replica's cache.
    pub(super) fn new(
        fleet: &Fleet,
        name: &str,
        section: &[u8],
        entries: u64,
    ) -> Result<Self, FleetKeyError> {
        let namespace = fleet
            .keys
            .namespace(&[b"credentials", name.as_bytes(), section])?;
        let bounded = || {
            Cache::builder()
                .max_capacity(entries)
                .eviction_policy(EvictionPolicy::lru())
        };
        Ok(Self {
            store: Arc::clone(&fleet.store),
            key: IdentityKey::of_fleet(namespace.name_key().clone()),
            previous_key: namespace
                .previous_name_key()
                .cloned()
                .map(IdentityKey::of_fleet),
            namespace,
            generations: bounded().build(),
            rejected: Cache::builder()
                .max_capacity(MAX_REJECTED)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(REJECTED_AGE)
                .build(),
            waiting: Mutex::default(),
        })
    }

    /// The entry of `request`'s caller; `None` if it cannot be shared.
    pub(super) fn entry(
        &self,
        name: &str,
        source: &dyn CredentialSource,
        request: &SwapRequest,
    ) -> Option<Entry> {
        let identify = |key: &IdentityKey| key.identify_in_fleet(name, source, request);
        Some(Entry {
            key: StoreKey(identify(&self.key)?),
            previous: self.previous_key.as_ref().and_then(identify).map(StoreKey),
        })
    }

    /// A credential other than `unwanted` from the store, or the lease to fetch one. Waits for a replica
    /// that is fetching it, for at most `patience`.
    pub(super) async fn obtain(
        &self,
        entry: Entry,
        unwanted: Option<Unwanted>,
        patience: Duration,
        now: impl Fn() -> Now,
    ) -> Obtained {
        let Ok(lease) = GenerationId::random() else {
            return Obtained::Alone;
        };
        if let Some(unwanted) = unwanted.filter(|unwanted| unwanted.reject) {
            self.rejected.insert(unwanted.generation, ());
        }
        let waiter = Waiter::new(self, entry.key);
        let obtaining = self.obtain_by(&waiter, lease, unwanted, &now);
        let obtained = match sync::timeout(patience, obtaining).await {
            Ok(Ok(obtained)) => obtained,
            // The lease may have been granted all the same.
            Ok(Err(StoreError::Timeout(_))) | Err(_) => {
                drop(self.held(entry.key, lease));
                Obtained::Alone
            }
            Ok(Err(_)) => Obtained::Alone,
        };
        match (obtained, entry.previous) {
            (Obtained::Lease(lease), Some(previous)) => {
                self.migrated(lease, previous, unwanted, &now).await
            }
            (obtained, _) => obtained,
        }
    }

    async fn obtain_by(
        &self,
        waiter: &Waiter<'_>,
        lease: GenerationId,
        mut unwanted: Option<Unwanted>,
        now: &impl Fn() -> Now,
    ) -> Result<Obtained, StoreError> {
        let mut useless = 0;
        loop {
            match self.store.acquire(waiter.key, lease, unwanted).await? {
                Acquired::Granted => return Ok(Obtained::Lease(self.held(waiter.key, lease))),
                Acquired::Held => {
                    // The event may be lost, and a lease ends without one.
                    let _ = sync::timeout(POLL, waiter.notify.notified()).await;
                }
                Acquired::Value(stored) => {
                    let generation = stored.generation;
                    let reject = self.rejected.contains_key(&generation);
                    if !reject && let Some(issued) = self.open(waiter.key, stored, now()) {
                        let key = waiter.key;
                        return Ok(Obtained::Value(issued, SharedName { key, generation }));
                    }
                    useless += 1;
                    if useless > MAX_USELESS {
                        let problem = "the store has nothing but values that are of no use";
                        return Err(StoreError::Answer(problem.to_owned()));
                    }
                    // Not readable, too old by this clock, or rejected in the meantime: replaced.
                    unwanted = Some(Unwanted { generation, reject });
                }
            }
        }
    }

    /// The credential in the store, if it is another one than `unwanted`.
    pub(super) async fn look_up(
        &self,
        entry: Entry,
        unwanted: Option<Unwanted>,
        now: Now,
    ) -> Option<(Issued, SharedName)> {
        let key = entry.key;
        let stored = self.store.read(key).await.ok()??;
        let generation = stored.generation;
        let is_unwanted = unwanted.is_some_and(|unwanted| unwanted.generation == generation);
        if is_unwanted || self.is_rejected(generation) {
            return None;
        }
        let issued = self.open(key, stored, now)?;
        Some((issued, SharedName { key, generation }))
    }

    /// While the fleet's key is being rotated, what is stored under the previous key spares an exchange.
    async fn migrated(
        &self,
        lease: HeldLease,
        previous: StoreKey,
        unwanted: Option<Unwanted>,
        now: &impl Fn() -> Now,
    ) -> Obtained {
        if unwanted.is_some() {
            // What is there may be what is unwanted, by another name.
            let _ = self.store.remove(previous).await;
            return Obtained::Lease(lease);
        }
        let Ok(Some(stored)) = self.store.read(previous).await else {
            return Obtained::Lease(lease);
        };
        if self.rejected.contains_key(&stored.generation) {
            return Obtained::Lease(lease);
        }
        let now = now();
        let Some(issued) = self.open(previous, stored, now) else {
            return Obtained::Lease(lease);
        };
        let life = issued.expires_at.map(|end| now.wall.until(end));
        let life = life.unwrap_or_default();
        let name = self.complete(lease, &issued, life, now.wall).await;
        Obtained::Value(issued, name)
    }

    fn held(&self, key: StoreKey, generation: GenerationId) -> HeldLease {
        HeldLease {
            store: Arc::clone(&self.store),
            name: SharedName { key, generation },
            ended: false,
        }
    }

    /// The credential in `stored`, which expires no later than the store forgets it: by that, the clock of
    /// the replica that fetched it does not matter. `None` if it cannot be used.
    fn open(&self, key: StoreKey, stored: StoredValue, now: Now) -> Option<Issued> {
        let end = now.wall.plus(stored.ttl);
        let plain = self.namespace.open(key, stored.generation, stored.sealed)?;
        let issued = record::decode(&plain)?;
        let expires_at = issued.expires_at.map_or(end, |at| at.min(end));
        (now.wall < expires_at).then_some(Issued {
            expires_at: Some(expires_at),
            ..issued
        })
    }

    /// Writes what an exchange under `lease` has issued, for as long as it is of use from `now` on: `life`.
    /// The end is sealed as well, so that a store that keeps the value for longer gains nothing. Returns its
    /// name, under which it may be in the store.
    pub(super) async fn complete(
        &self,
        mut lease: HeldLease,
        issued: &Issued,
        life: Duration,
        now: UnixMillis,
    ) -> SharedName {
        let name = lease.name;
        let sealed = record::encode(issued, now.plus(life))
            .filter(|_| !life.is_zero())
            .and_then(|plain: Zeroizing<Vec<u8>>| {
                self.namespace.seal(name.key, name.generation, plain)
            });
        let Some(sealed) = sealed else { return name };
        let completed = self
            .store
            .complete(name.key, name.generation, sealed, life)
            .await;
        // Otherwise the lease may still be held.
        lease.ended = completed.is_ok();
        name
    }

    /// Runs an exchange and renews `lease` while it takes.
    pub(super) async fn while_held<T>(
        &self,
        lease: &HeldLease,
        exchange: impl Future<Output = T>,
    ) -> T {
        let SharedName { key, generation } = lease.name;
        let renewing = async {
            loop {
                sync::sleep(LEASE_RENEWAL).await;
                if let Ok(false) = self.store.renew(key, generation).await {
                    // Lost: what this exchange issues is of use to this replica only.
                    return pending::<T>().await;
                }
            }
        };
        tokio::select! {
            biased;
            result = exchange => result,
            result = renewing => result,
        }
    }

    /// Whether `generation` has been rejected, here or by another replica.
    pub(super) fn is_rejected(&self, generation: GenerationId) -> bool {
        self.rejected.contains_key(&generation)
    }

    /// Registers a generation of this replica.
    pub(super) fn installed(&self, name: SharedName, generation: &Arc<Generation>) {
        self.generations
            .insert(name.key, Arc::downgrade(generation));
    }

    /// Tells the other replicas that the upstream rejected a generation. Does not wait.
    pub(super) fn reject(&self, name: SharedName) {
        self.rejected.insert(name.generation, ());
        let store = Arc::clone(&self.store);
        sync::spawn_if_running(async move {
            // Should it fail, the other replicas find out by themselves.
            let _ = store.reject(name.key, name.generation).await;
        });
    }

    /// Takes `generation` away from every replica, because the source would no longer issue it. Does not
    /// wait.
    pub(super) fn withdraw(&self, entry: Entry, generation: GenerationId) {
        let key = entry.key;
        self.reject(SharedName { key, generation });
    }

    /// Notes that another replica has rejected `generation`, and returns it if it is here.
    pub(super) fn rejected_by_others(
        &self,
        key: StoreKey,
        generation: GenerationId,
    ) -> Option<Arc<Generation>> {
        if self.rejected.contains_key(&generation) {
            // By this replica, which decides for itself how long it goes on with it.
            return None;
        }
        self.rejected.insert(generation, ());
        let latest = self.generations.get(&key)?.upgrade()?;
        (latest.shared_generation() == Some(generation)).then_some(latest)
    }

    /// The generation that this replica has of the entry `key`, if it is another one than `new`.
    pub(super) fn other_than(&self, key: StoreKey, new: GenerationId) -> Option<Arc<Generation>> {
        let latest = self.generations.get(&key)?.upgrade()?;
        (latest.shared_generation() != Some(new)).then_some(latest)
    }

    /// Wakes the flight that waits for the entry `key`.
    pub(super) fn wake(&self, key: &StoreKey) {
        if let Some(waiter) = self.waiting().get(key) {
            waiter.notify_one();
        }
    }

    /// Every generation of this replica that is in the store.
    pub(super) fn all(&self) -> Vec<Arc<Generation>> {
        let all = self.generations.iter();
        all.filter_map(|(_, generation)| generation.upgrade())
            .collect()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<StoreKey, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of one identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    key: StoreKey,
    /// Its name under the previous key of the fleet.
    previous: Option<StoreKey>,
}

/// A flight that may have to wait for another replica. Registered before it looks at the store, so that it
/// misses no event.
struct Waiter<'s> {
    shared: &'s SharedCredentials,
    key: StoreKey,
    notify: Arc<Notify>,
}

impl<'s> Waiter<'s> {
    fn new(shared: &'s SharedCredentials, key: StoreKey) -> Self {
        let notify = Arc::clone(shared.waiting().entry(key).or_default());
        Self {
            shared,
            key,
            notify,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.key);
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if !self.ended {
            let SharedName { key, generation } = self.name;
            let store = Arc::clone(&self.store);
            sync::spawn_if_running(async move {
                // Should it fail, the lease ends by itself.
                let _ = store.release(key, generation).await;
            });
        }
    }
}
