//! Limits on exchanges that upstream 401s cause (`docs/design/cache.md`, "After a 401"). Without
//! them, one caller that keeps asking for a path that always answers 401 would cause an exchange
//! for each request, until the provider answers 429 to everybody.

use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Leased;
use crate::credential::identity::Identity;

/// How long a caller causes no further exchange after one that its 401 caused and that is not
/// known to have helped.
pub(super) const INTERVAL: Duration = Duration::from_secs(30);

/// How many exchanges 401s may cause at once for one identity, even if each of them helps.
/// Beyond that, it is one per [`REFILL`]: an upstream with a broken replica rejects good
/// credentials at random, and every replay that reaches another replica appears to help.
const BURST: u32 = 30;
/// See [`BURST`].
const REFILL: Duration = Duration::from_secs(1);

/// The outcome of [`super::CachedSource::replace`].
#[derive(Clone, Debug)]
pub enum Replacement {
    /// Another credential than the rejected one.
    New(Leased),
    /// The rejected credential was itself fetched because of this caller's 401 a short time ago,
    /// or 401s have caused too many exchanges for this identity. No exchange was made, and the
    /// credential stays in use.
    StillRejected,
}

/// Which exchanges 401s have caused recently. The keys of both maps are keyed hashes, and both
/// forget the least recently used entry first. Call with the coordinator's lock held.
#[derive(Debug)]
pub(super) struct ReplacementLimit {
    /// By caller and identity, because a shared source has many callers for one identity.
    callers: Cache<Identity, Charge>,
    /// By identity: the theoretical arrival time of the next exchange (the generic cell rate
    /// algorithm, ITU-T I.371), in monotonic time.
    identities: Cache<Identity, Duration>,
}

/// One exchange that a caller's 401 caused.
#[derive(Clone, Copy, Debug)]
struct Charge {
    /// The generation that was rejected.
    rejected: u64,
    /// Monotonic time.
    until: Duration,
}

impl ReplacementLimit {
    pub(super) fn new(entries: u64) -> Self {
        Self {
            callers: bounded(entries, INTERVAL),
            identities: bounded(entries, REFILL * BURST),
        }
    }

    /// Whether the 401 with which `caller` reports `rejected`, a generation of `identity`, may
    /// cause an exchange at `now`. If so, the exchange is charged to the caller.
    pub(super) fn charge(
        &self,
        caller: Identity,
        identity: Identity,
        rejected: u64,
        now: Duration,
    ) -> bool {
        if self.is_limited(caller, identity, rejected, now) {
            return false;
        }
        self.identities
            .insert(identity, self.arrival(identity, now) + REFILL);
        let until = now.saturating_add(INTERVAL);
        self.callers.insert(caller, Charge { rejected, until });
        true
    }

    /// Whether [`Self::charge`] would return false.
    pub(super) fn is_limited(
        &self,
        caller: Identity,
        identity: Identity,
        rejected: u64,
        now: Duration,
    ) -> bool {
        // A charge for the same generation means that its exchange failed: it may be repeated,
        // as often as the backoff allows.
        let limited = |charge: &Charge| charge.rejected < rejected && now < charge.until;
        self.callers.get(&caller).as_ref().is_some_and(limited)
            || self.arrival(identity, now).saturating_sub(now) > REFILL * (BURST - 1)
    }

    fn arrival(&self, identity: Identity, now: Duration) -> Duration {
        self.identities.get(&identity).unwrap_or(now).max(now)
    }

    /// The upstream has accepted a replay by `caller`: the exchange helped.
    pub(super) fn refund(&self, caller: Identity) {
        self.callers.invalidate(&caller);
    }
}

fn bounded<V: Clone + Send + Sync + 'static>(entries: u64, age: Duration) -> Cache<Identity, V> {
    Cache::builder()
        .max_capacity(entries)
        .eviction_policy(EvictionPolicy::lru())
        .time_to_live(age)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Identity = [1; 32];
    const BOB: Identity = [2; 32];
    const SHARED: Identity = [3; 32];

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_caller_whose_fresh_credential_is_rejected_waits_and_others_do_not() {
        let limit = ReplacementLimit::new(10);
        assert!(limit.charge(ANN, SHARED, 1, secs(0)));
        assert!(!limit.charge(ANN, SHARED, 2, secs(29)));
        assert!(limit.charge(BOB, SHARED, 2, secs(29)));
        assert!(limit.charge(ANN, SHARED, 2, secs(30)));
    }

    #[test]
    fn an_exchange_that_failed_may_be_repeated() {
        let limit = ReplacementLimit::new(10);
        assert!(limit.charge(ANN, ANN, 1, secs(0)));
        assert!(limit.charge(ANN, ANN, 1, secs(1)));
        assert!(!limit.charge(ANN, ANN, 2, secs(2)));
    }

    #[test]
    fn an_exchange_that_helped_costs_nothing_up_to_the_limit_of_the_identity() {
        let limit = ReplacementLimit::new(10);
        let charge = |generation, now| {
            let allowed = limit.charge(ANN, ANN, generation, now);
            limit.refund(ANN);
            allowed
        };
        for generation in 0..u64::from(BURST) {
            assert!(charge(generation, secs(5)), "{generation}");
        }
        assert!(!charge(100, secs(5)));
        assert!(charge(101, secs(6)));
        assert!(!charge(102, secs(6)));
    }
}
