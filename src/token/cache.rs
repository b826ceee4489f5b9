//! Tokens that were verified before, so that each need not be verified for every request.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::{TokenDigest, VerifiedToken};
use crate::clock::{Now, SharedClock, UnixMillis};

/// Verified tokens of one issuer.
#[derive(Debug)]
pub(super) struct VerifiedTokenCache {
    clock: SharedClock,
    tokens: Cache<TokenDigest, Arc<CachedToken>>,
    max_age: Duration,
}

/// A verified token. It is accepted for exactly as long as verifying it anew would be, and
/// at most [`VerifiedTokenCache::max_age`]: not past `exp` and the leeway, not before `nbf` or `iat`
/// should the clock be set back, and not with other keys in force than those it was
/// verified with.
#[derive(Debug)]
struct CachedToken {
    token: Arc<VerifiedToken>,
    epoch: u64,
    accepted_from: UnixMillis,
    accepted_until: UnixMillis,
    /// Of the monotonic clock.
    forgotten_at: Duration,
}

/// When a token is acceptable, by the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Option<UnixMillis>,
    pub(super) until: UnixMillis,
}

impl VerifiedTokenCache {
    /// Room for `max` tokens, each cached for at most `max_age`.
    pub(super) fn new(clock: SharedClock, max: u64, max_age: Duration) -> Self {
        // The lifetime here only frees memory; what may be used is decided by our clock.
        let tokens = Cache::builder()
            .max_capacity(max)
            .time_to_live(max_age)
            .build();
        Self {
            clock,
            tokens,
            max_age,
        }
    }

    /// The token with this digest, if it was verified before and would be again `now`, which is read off
    /// its own clock where it is not given. `epoch` says which keys are in force at a monotonic time, if any are.
    pub(super) fn get(
        &self,
        digest: TokenDigest,
        now: Option<Now>,
        epoch: impl FnOnce(Duration) -> Option<u64>,
    ) -> Option<Arc<VerifiedToken>> {
        let known = self.tokens.get(&digest)?;
        let now = now.unwrap_or_else(|| Now::read(&*self.clock));
        let good = Some(known.epoch) == epoch(now.monotonic)
            && (known.accepted_from..known.accepted_until).contains(&now.wall)
            && now.monotonic < known.forgotten_at;
        good.then(|| Arc::clone(&known.token))
    }

    /// `epoch` is that of the keys which proved the token: were they replaced in the
    /// meantime, the entry is void from the beginning.
    pub(super) fn insert(&self, token: &Arc<VerifiedToken>, epoch: u64, window: Window) {
        let cached = CachedToken {
            token: Arc::clone(token),
            epoch,
            accepted_from: window.from.unwrap_or(UnixMillis(i64::MIN)),
            accepted_until: window.until,
            forgotten_at: self.clock.monotonic().saturating_add(self.max_age),
        };
        self.tokens.insert(token.digest, Arc::new(cached));
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> u64 {
        self.tokens.run_pending_tasks();
        self.tokens.entry_count()
    }
}
