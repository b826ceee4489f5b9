//! A cache of verified tokens, so that a token is not verified again for every request.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::{TokenDigest, VerifiedToken};
use crate::clock::{Now, RELEASED, SharedClock, UnixMillis};

/// The verified tokens of one issuer.
#[derive(Debug)]
pub(super) struct VerifiedTokenCache {
    clock: SharedClock,
    tokens: Cache<TokenDigest, Arc<CachedToken>>,
    max_age: Duration,
}

/// A cached token. It is accepted for exactly as long as verifying it again would succeed, and for
/// at most [`VerifiedTokenCache::max_age`]: not after `exp` plus the leeway, not before `nbf`, `iat` or
/// [`RELEASED`] (in case the clock is set back), and only while the keys that verified it are current.
#[derive(Debug)]
struct CachedToken {
    token: Arc<VerifiedToken>,
    epoch: u64,
    accepted_from: UnixMillis,
    accepted_until: UnixMillis,
    /// Monotonic time.
    expires_at: Duration,
}

/// The period in which a token is acceptable, in wall-clock time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Option<UnixMillis>,
    pub(super) until: UnixMillis,
}

impl VerifiedTokenCache {
    /// A cache of at most `max` tokens, each cached for at most `max_age`.
    pub(super) fn new(clock: SharedClock, max: u64, max_age: Duration) -> Self {
        // moka's time-to-live only frees memory; `self.clock` determines validity.
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

    /// The token with this digest, if it is cached and still acceptable at `now` (read from
    /// the cache's clock if `None`). `epoch` returns the epoch of the keys that are current at
    /// a monotonic time, if there are any.
    pub(super) fn get(
        &self,
        digest: TokenDigest,
        now: Option<Now>,
        epoch: impl FnOnce(Duration) -> Option<u64>,
    ) -> Option<Arc<VerifiedToken>> {
        let cached = self.tokens.get(&digest)?;
        let now = now.unwrap_or_else(|| Now::read(&*self.clock));
        let acceptable = Some(cached.epoch) == epoch(now.monotonic)
            && (cached.accepted_from..cached.accepted_until).contains(&now.wall)
            && now.monotonic < cached.expires_at;
        acceptable.then(|| Arc::clone(&cached.token))
    }

    /// Caches a token. `epoch` is the epoch of the keys that verified it: if the keys have been
    /// replaced in the meantime, the entry is never used.
    pub(super) fn insert(&self, token: &Arc<VerifiedToken>, epoch: u64, window: Window) {
        let cached = CachedToken {
            token: Arc::clone(token),
            epoch,
            accepted_from: window.from.unwrap_or(RELEASED),
            accepted_until: window.until,
            expires_at: self.clock.monotonic().saturating_add(self.max_age),
        };
        self.tokens.insert(token.digest, Arc::new(cached));
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> u64 {
        self.tokens.run_pending_tasks();
        self.tokens.entry_count()
    }
}
