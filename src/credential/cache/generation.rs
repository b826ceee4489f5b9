//! One credential of one identity: how long it may be used, and when to renew it.

use std::time::Duration;

use super::CacheLimits;
use crate::clock::{Now, UnixMillis};
use crate::credential::{Credential, Issued};
use crate::shared_store::{GenerationId, StoreKey, Unwanted};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// A credential is retired this long before it expires, so that a request signed with it
/// still arrives in time; a tenth of its lifetime if that is shorter.
const SAFETY: Duration = Duration::from_secs(5);

/// Where a generation is in the store of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SharedName {
    pub(super) key: StoreKey,
    pub(super) generation: GenerationId,
}

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) credential: Credential,
    pub(super) number: u64,
    /// Unusable from this wall-clock time on. Correct after the machine was suspended.
    pub(super) wall_end: UnixMillis,
    /// Unusable from this monotonic time on. Correct after the wall clock was set back.
    monotonic_end: Duration,
    /// The monotonic time at which the last third of its life begins.
    ending_from: Duration,
    /// Monotonic milliseconds; [`CLAIMED`] while a renewal is being started.
    renew_at: AtomicU64,
    stale: AtomicBool,
    /// [`IN_USE`], [`SUPERSEDED`], [`OUTDATED`] or [`RETIRED`]; only increases, except in
    /// [`Generation::keep_in_use`] and [`Generation::keep_superseded`].
    state: AtomicU8,
    /// Where it is in the store of the fleet.
    shared: Option<Box<SharedName>>,
}

const CLAIMED: u64 = u64::MAX;

/// The cache returns it.
const IN_USE: u8 = 0;
/// Another replica has a newer one. The next lease is that one, if it is in the store of the fleet.
const SUPERSEDED: u8 = 1;
/// The upstream answered 401 to it. The next lease replaces it, and returns it only if there is
/// no replacement to be had.
const OUTDATED: u8 = 2;
/// Replaced, or the source would no longer issue it.
const RETIRED: u8 = 3;

impl Generation {
    /// The generation for `issued`, received at `now`. `jitter` (0 to 1) spreads renewals over the last quarter
    /// of `refresh_ahead`.
    pub(super) fn new(
        issued: Issued,
        number: u64,
        now: Now,
        limits: &CacheLimits,
        jitter: f64,
    ) -> Self {
        let life = usable_life(issued.expires_at, now.wall, limits.max_age);
        // Without this bound, short-lived credentials would be renewed continuously.
        let ahead = limits.refresh_ahead.min(life / 3);
        let ahead = ahead.saturating_sub((ahead / 4).mul_f64(jitter.clamp(0.0, 1.0)));
        Self::with_life(issued.credential, number, now, life, ahead)
    }

    /// Usable for `life`, and renewed `ahead` of its end.
    fn with_life(
        credential: Credential,
        number: u64,
        now: Now,
        life: Duration,
        ahead: Duration,
    ) -> Self {
        let monotonic_end = now.monotonic.saturating_add(life);
        Self {
            credential,
            number,
            wall_end: now.wall.plus(life),
            monotonic_end,
            ending_from: monotonic_end.saturating_sub(life / 3),
            renew_at: AtomicU64::new(millis(monotonic_end.saturating_sub(ahead))),
            stale: AtomicBool::new(false),
            state: AtomicU8::new(IN_USE),
            shared: None,
        }
    }

    /// Under `name` in the store of the fleet, if there is one.
    pub(super) fn named(mut self, name: Option<SharedName>) -> Self {
        self.shared = name.map(Box::new);
        self
    }

    /// Where it is in the store of the fleet, if anywhere.
    pub(super) fn shared_name(&self) -> Option<SharedName> {
        self.shared.as_deref().copied()
    }

    /// Its name in the store of the fleet, if it has one.
    pub(super) fn shared_generation(&self) -> Option<GenerationId> {
        self.shared.as_ref().map(|name| name.generation)
    }

    /// What the store need not return to one who wants a newer generation than this.
    pub(super) fn unwanted(&self) -> Option<Unwanted> {
        self.shared_generation().map(|generation| Unwanted {
            generation,
            reject: false,
        })
    }

    /// A credential that was issued elsewhere and cannot be renewed here.
    /// The margin does not depend on how much of its life is left.
    pub(super) fn detached(credential: Credential, expires_at: UnixMillis, now: Now) -> Self {
        let life = now.wall.until(expires_at).saturating_sub(SAFETY);
        Self::with_life(credential, 0, now, life, Duration::ZERO)
    }

    /// The memory that it takes, in bytes.
    pub(super) fn heap_size(&self) -> usize {
        let shared = self.shared.as_deref().map_or(0, size_of_val);
        size_of::<Self>() + self.credential.heap_size() + shared
    }

    /// Whether the cache may return the credential without asking for another one.
    pub(super) fn is_in_use(&self, now: Now) -> bool {
        self.state.load(Ordering::Acquire) == IN_USE && self.lives(now)
    }

    /// Whether the credential may be used at all.
    pub(super) fn is_usable(&self, now: Now) -> bool {
        self.state.load(Ordering::Acquire) != RETIRED && self.lives(now)
    }

    fn lives(&self, now: Now) -> bool {
        now.wall < self.wall_end && now.monotonic < self.monotonic_end
    }

    /// Whether the credential is in the last third of its life, or past it.
    pub(super) fn is_ending(&self, now: Now) -> bool {
        now.monotonic >= self.ending_from || !self.lives(now)
    }

    /// Makes the credential unusable for every holder of a lease, because it was replaced or
    /// the source would no longer issue it.
    pub(super) fn retire(&self) {
        self.state.store(RETIRED, Ordering::Release);
    }

    /// Makes the next lease replace the credential.
    pub(super) fn mark_outdated(&self) {
        self.state.fetch_max(OUTDATED, Ordering::AcqRel);
    }

    /// Makes the next lease look for a newer one in the store of the fleet. If this replica went on with
    /// the older one and the upstream rejected that, the newer one might be no better, and the request
    /// is replayed only once.
    pub(super) fn mark_superseded(&self) {
        let _ = self.state.fetch_max(SUPERSEDED, Ordering::AcqRel);
    }

    /// Whether [`Self::mark_superseded`] was called, and it has not been rejected.
    pub(super) fn is_superseded(&self) -> bool {
        self.state.load(Ordering::Acquire) == SUPERSEDED
    }

    /// Undoes [`Self::mark_outdated`], because there is no replacement to be had at present.
    pub(super) fn keep_in_use(&self) {
        self.restore(OUTDATED);
    }

    /// Undoes [`Self::mark_superseded`], because there is no newer one.
    pub(super) fn keep_superseded(&self) {
        self.restore(SUPERSEDED);
    }

    fn restore(&self, from: u8) {
        // It fails in any other state.
        let _ = self
            .state
            .compare_exchange(from, IN_USE, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Whether a renewal has failed since this credential was issued.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    /// Once a renewal is due, returns true to exactly one caller, which must then start it or
    /// postpone it with [`Self::renew_later`].
    pub(super) fn claim_renewal(&self, now: Now) -> bool {
        let due = self.renew_at.load(Ordering::Relaxed);
        let claim = || {
            self.renew_at
                .compare_exchange(due, CLAIMED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        is_due(due, now) && claim()
    }

    /// Whether [`Self::claim_renewal`] could return true.
    pub(super) fn is_renewal_due(&self, now: Now) -> bool {
        is_due(self.renew_at.load(Ordering::Relaxed), now)
    }

    /// Postpones the renewal to `at` (monotonic time).
    pub(super) fn renew_later(&self, at: Duration) {
        self.renew_at.store(millis(at), Ordering::Relaxed);
    }

    /// Records that a renewal failed. The credential remains in use until it expires.
    pub(super) fn mark_stale(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }
}

fn is_due(renew_at: u64, now: Now) -> bool {
    renew_at <= millis(now.monotonic) && renew_at != CLAIMED
}

/// How long a credential that expires at `expires_at`, and is at most `max_age` old, is of use.
pub(super) fn usable_life(
    expires_at: Option<UnixMillis>,
    now: UnixMillis,
    max_age: Duration,
) -> Duration {
    let Some(expires_at) = expires_at else {
        return max_age;
    };
    let life = now.until(expires_at);
    life.saturating_sub(SAFETY.min(life / 10)).min(max_age)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .min(CLAIMED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::secret::SecretString;

    const START: UnixMillis = UnixMillis::from_secs(1_000_000);

    fn generation(life: Option<u64>, refresh_ahead: u64, jitter: f64) -> Generation {
        let limits = CacheLimits {
            max_entries: 1,
            max_bytes: 1 << 20,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::from_secs(refresh_ahead),
            refusals: Duration::ZERO,
        };
        let issued = Issued {
            credential: Credential::Bearer(SecretString::from("x")),
            expires_at: life.map(|secs| START.plus(Duration::from_secs(secs))),
            original: None,
        };
        let now = Now {
            wall: START,
            monotonic: Duration::ZERO,
        };
        Generation::new(issued, 1, now, &limits, jitter)
    }

    fn after(secs: f64) -> Now {
        let clock = ManualClock::at(START);
        clock.advance(Duration::from_secs_f64(secs));
        Now::read(&*clock)
    }

    #[test]
    fn a_credential_is_used_until_shortly_before_it_expires() {
        for (life, last) in [(Some(900), 895.0), (Some(10), 9.0), (None, 3600.0)] {
            let generation = generation(life, 0, 0.0);
            assert!(generation.is_usable(after(last - 0.001)), "{life:?}");
            assert!(!generation.is_usable(after(last)), "{life:?}");
        }
    }

    #[test]
    fn a_detached_credential_is_used_until_shortly_before_it_expires() {
        let credential = Credential::Bearer(SecretString::from("x"));
        let month = 30 * 24 * 3600;
        let expires_at = START.plus(Duration::from_secs(month));
        let generation = Generation::detached(credential, expires_at, after(0.0));
        assert!(generation.is_usable(after(2_591_994.9)));
        assert!(!generation.is_usable(after(2_591_995.0)));
        for left in [0, 5] {
            let credential = Credential::Bearer(SecretString::from("x"));
            let expires_at = START.plus(Duration::from_secs(left));
            let generation = Generation::detached(credential, expires_at, after(0.0));
            assert!(!generation.is_usable(after(0.0)), "{left}");
        }
    }

    #[test]
    fn max_age_caps_the_lifetime() {
        let generation = generation(Some(1_000_000), 0, 0.0);
        assert!(generation.is_usable(after(3599.9)));
        assert!(!generation.is_usable(after(3600.0)));
    }

    #[test]
    fn a_credential_already_expired_when_issued_is_never_usable() {
        assert!(!generation(Some(0), 60, 0.0).is_usable(after(0.0)));
    }

    #[test]
    fn a_wall_clock_set_back_does_not_extend_its_lifetime() {
        let generation = generation(Some(900), 0, 0.0);
        let clock = ManualClock::at(START);
        clock.advance(Duration::from_mins(15));
        clock.set_wall(START);
        assert!(!generation.is_usable(Now::read(&*clock)));
    }

    #[test]
    fn a_credential_expires_while_the_machine_is_suspended() {
        let generation = generation(Some(900), 0, 0.0);
        let clock = ManualClock::at(START);
        clock.set_wall(START.plus(Duration::from_mins(15)));
        assert!(!generation.is_usable(Now::read(&*clock)));
    }

    #[test]
    fn renewal_is_due_ahead_of_expiry_and_jitter_only_delays_it() {
        for (jitter, due) in [
            (0.0, 895.0 - 60.0),
            (1.0, 895.0 - 45.0),
            (9.0, 895.0 - 45.0),
        ] {
            let generation = generation(Some(900), 60, jitter);
            assert!(!generation.claim_renewal(after(due - 0.002)), "{jitter}");
            assert!(generation.claim_renewal(after(due)), "{jitter}");
        }
    }

    #[test]
    fn refresh_ahead_is_at_most_a_third_of_the_lifetime() {
        let generation = generation(Some(30), 300, 0.0);
        assert!(!generation.claim_renewal(after(17.9)));
        assert!(generation.claim_renewal(after(18.0)));
    }

    #[test]
    fn only_one_caller_claims_a_renewal_until_it_is_postponed() {
        let generation = generation(Some(900), 60, 0.0);
        assert!(generation.claim_renewal(after(880.0)));
        assert!(!generation.claim_renewal(after(880.0)));
        generation.renew_later(Duration::from_secs(885));
        assert!(!generation.claim_renewal(after(884.0)));
        assert!(generation.claim_renewal(after(885.0)));
    }
}
