//! Failed sign-ins counted over the replicas of a fleet, so that spreading guesses over replicas gains
//! nothing (`docs/design/fleet/limits.md`).
//!
//! Each key has a bucket of failures in the shared store, which holds as many as one replica alone would
//! let through in the window, and fills up at that pace. So a fleet never refuses what a single replica
//! would admit. An attempt is made if no bucket of its keys is empty, and takes from each if it fails.
//! Attempts in flight at other replicas are not seen: how many there are is limited at each.
//!
//! Origins that only one machine can tell apart are counted there. That a user has signed in from an
//! address is told to the other replicas, so that failures elsewhere lock nobody out who is known there.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{
    ADDRESS_FAILURES, AttemptKeys, KNOWN_FOR, PAIR_FAILURES, Pair, PeerKey, USER_FAILURES, UserKey,
    WINDOW,
};
use crate::shared_store::{
    Fleet, FleetKeyError, GenerationId, Namespace, Quota, SharedStore, StoreKey,
};

/// How many attempts a replica admits between its growing delays within [`WINDOW`], beyond the failures
/// after which these start.
const BETWEEN_DELAYS: usize = 5;

/// Counts the failures of one source in the store.
pub(super) struct FleetAttempts {
    store: Arc<dyn SharedStore>,
    names: Namespace,
}

/// What the fleet knows about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FleetDecision {
    Allow,
    /// Too many failures, but the user has signed in from this origin before, through another replica.
    Known,
    /// Refuse.
    Block(Waits),
}

/// How long the fleet refuses attempts; zero where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) pair: Duration,
    pub(super) user: Duration,
    pub(super) peer: Duration,
}

impl Waits {
    pub(super) fn longest(self) -> Duration {
        self.pair.max(self.user).max(self.peer)
    }
}

type Bucket = (StoreKey, Quota);

impl FleetAttempts {
    /// `source` tells the accounts of one provider from those of others.
    pub(super) fn new(fleet: &Fleet, source: &[&[u8]]) -> Result<Self, FleetKeyError> {
        let mut parts: Vec<&[u8]> = vec![b"password attempts"];
        parts.extend_from_slice(source);
        Ok(Self {
            store: Arc::clone(&fleet.store),
            names: fleet.keys.namespace(&parts)?,
        })
    }

    /// The key of a user, which is the same at all replicas.
    pub(super) fn user_key(&self, name: &str) -> UserKey {
        self.name(b"name", &[name.as_bytes()]).0
    }

    /// Whether there may be an attempt. Without an answer of the store there may.
    pub(super) async fn decide(&self, keys: AttemptKeys) -> FleetDecision {
        let [pair, user, peer] = self.buckets(keys);
        let (pair, user, peer) = tokio::join!(self.wait(pair), self.wait(user), self.wait(peer));
        let waits = Waits { pair, user, peer };
        if waits.longest().is_zero() {
            FleetDecision::Allow
        } else if pair.is_zero() && self.is_known(keys.pair).await {
            FleetDecision::Known
        } else {
            FleetDecision::Block(waits)
        }
    }

    /// Counts a failure.
    pub(super) async fn failed(&self, keys: AttemptKeys) {
        let [pair, user, peer] = self.buckets(keys);
        // A failure that the store does not learn of is counted by this replica.
        tokio::join!(self.take(pair, 1), self.take(user, 1), self.take(peer, 1));
    }

    /// Tells the other replicas that a user has signed in from this origin.
    pub(super) async fn remember(&self, pair: Pair) {
        let Some(key) = self.known_key(pair) else {
            return;
        };
        let Ok(generation) = GenerationId::random() else {
            return;
        };
        if let Some(sealed) = self.names.seal(key, generation, Zeroizing::default()) {
            // Without it, this replica alone knows the origin.
            let _ = self.store.write(key, generation, sealed, KNOWN_FOR).await;
        }
    }

    /// Whether the user has signed in from this origin through another replica.
    pub(super) async fn is_known(&self, pair: Pair) -> bool {
        let Some(key) = self.known_key(pair) else {
            return false;
        };
        match self.store.read(key).await {
            Ok(Some(value)) => {
                let opened = self.names.open(key, value.generation, value.sealed);
                opened.is_some()
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// How long a bucket stays empty; zero if it is not, or not known to be.
    async fn wait(&self, bucket: Option<Bucket>) -> Duration {
        self.take(bucket, 0).await
    }

    async fn take(&self, bucket: Option<Bucket>, wanted: u64) -> Duration {
        let Some((key, quota)) = bucket else {
            return Duration::ZERO;
        };
        let taken = self.store.take(key, quota, wanted).await;
        // It never takes longer, whatever the store says.
        taken.map_or(Duration::ZERO, |taken| {
            taken.retry_after.min(quota.interval)
        })
    }

    /// The buckets that an attempt is counted in: of the user at the origin, the user, and the origin.
    fn buckets(&self, keys: AttemptKeys) -> [Option<Bucket>; 3] {
        let (user, peer) = keys.pair;
        let pair = octets(peer).map(|peer| {
            let name = self.name(b"pair", &[&user, &peer]);
            (name, quota(PAIR_FAILURES))
        });
        let user = keys.user.map(|user| {
            let name = self.name(b"user", &[&user]);
            (name, quota(USER_FAILURES))
        });
        let peer = keys.peer.and_then(octets).map(|peer| {
            let name = self.name(b"address", &[&peer]);
            (name, quota(ADDRESS_FAILURES))
        });
        [pair, user, peer]
    }

    fn known_key(&self, (user, peer): Pair) -> Option<StoreKey> {
        Some(self.name(b"known", &[&user, &octets(peer)?]))
    }

    fn name(&self, kind: &[u8], parts: &[&[u8]]) -> StoreKey {
        let mut hasher = self.names.hasher().part(kind);
        for part in parts {
            hasher = hasher.part(part);
        }
        hasher.finish()
    }
}

/// The address of an origin that is the same for all replicas.
fn octets(peer: PeerKey) -> Option<Vec<u8>> {
    match peer {
        PeerKey::UnixSocket | PeerKey::Loopback => None,
        PeerKey::Ip(IpAddr::V4(address)) => Some(address.octets().to_vec()),
        PeerKey::Ip(IpAddr::V6(address)) => Some(address.octets().to_vec()),
    }
}

/// What one replica lets through if `limit` failures in the window start delays.
fn quota(limit: usize) -> Quota {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX).max(1);
    Quota {
        interval: WINDOW / limit,
        burst: u64::from(limit) + BETWEEN_DELAYS as u64,
    }
}

impl fmt::Debug for FleetAttempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetAttempts(..)")
    }
}
