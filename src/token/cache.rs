//! A cache of verified tokens, so that a token is not verified again for every request.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::{TokenDigest, VerifiedToken};
use crate::bounded_cache::CacheBounds;
use crate::clock::{Now, RELEASED, SharedClock, UnixMillis};

/// From this size on, in bytes, room for a token is made at once. Otherwise moka evicts after up to
/// 64 insertions, which for the largest tokens could exceed the bound several times over.
const LARGE: usize = 32 * 1024;

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
pub(super) struct CachedToken {
    pub(super) token: Arc<VerifiedToken>,
    epoch: u64,
    accepted_from: UnixMillis,
    accepted_until: UnixMillis,
    /// Monotonic time.
    expires_at: Duration,
}

impl CachedToken {
    /// Whether verifying the token again at `now` would succeed. `epoch` returns the epoch of the
    /// keys that are current at a monotonic time, if there are any.
    pub(super) fn is_acceptable(
        &self,
        now: Now,
        epoch: impl FnOnce(Duration) -> Option<u64>,
    ) -> bool {
        Some(self.epoch) == epoch(now.monotonic)
            && (self.accepted_from..self.accepted_until).contains(&now.wall)
            && now.monotonic < self.expires_at
    }
}

/// The period in which a token is acceptable, in wall-clock time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Option<UnixMillis>,
    pub(super) until: UnixMillis,
}

impl VerifiedTokenCache {
    /// A cache of tokens, each cached for at most `max_age`.
    pub(super) fn new(clock: SharedClock, bounds: CacheBounds, max_age: Duration) -> Self {
        // moka's time-to-live only frees memory; `self.clock` determines validity.
        // The default policy (TinyLFU) does not evict tokens in use for those that are used once, so
        // a caller with many tokens does not displace others.
        let tokens = bounds
            .builder(|cached: &Arc<CachedToken>| {
                size_of::<CachedToken>() + cached.token.heap_size()
            })
            .time_to_live(max_age)
            .build();
        Self {
            clock,
            tokens,
            max_age,
        }
    }

    /// The token with this digest, if it is cached and still acceptable at `now` (read from
    /// the cache's clock if `None`). `epoch` is as for [`CachedToken::is_acceptable`].
    pub(super) fn get(
        &self,
        digest: TokenDigest,
        now: Option<Now>,
        epoch: impl FnOnce(Duration) -> Option<u64>,
    ) -> Option<Arc<CachedToken>> {
        let cached = self.tokens.get(&digest)?;
        let now = now.unwrap_or_else(|| Now::read(&*self.clock));
        cached.is_acceptable(now, epoch).then_some(cached)
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
        if token.heap_size() > LARGE {
            self.tokens.run_pending_tasks();
        }
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> u64 {
        self.tokens.run_pending_tasks();
        self.tokens.entry_count()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::ManualClock;

    const START: UnixMillis = RELEASED;

    fn token(number: u16, size: usize) -> Arc<VerifiedToken> {
        let claims = json!({ "sub": "user", "x": "x".repeat(size) });
        let mut token = Arc::into_inner(VerifiedToken::for_test("idp", claims)).unwrap();
        token.digest.0[..2].copy_from_slice(&number.to_be_bytes());
        Arc::new(token)
    }

    #[test]
    fn a_caller_with_many_large_tokens_does_not_displace_tokens_in_use() {
        let bounds = CacheBounds {
            entries: 1000,
            bytes: 1 << 20,
        };
        let max_age = Duration::from_mins(5);
        let cache = VerifiedTokenCache::new(ManualClock::at(START), bounds, max_age);
        let window = Window {
            from: None,
            until: UnixMillis(i64::MAX),
        };
        let in_use: Vec<_> = (0..50).map(|number| token(number, 100)).collect();
        let hits = |cache: &VerifiedTokenCache| {
            let get = |token: &&Arc<VerifiedToken>| cache.get(token.digest, None, |_| Some(0));
            in_use.iter().filter(|t| get(t).is_some()).count()
        };
        for token in &in_use {
            cache.insert(token, 0, window);
        }
        assert_eq!(hits(&cache), 50);
        for number in 1000..3000 {
            cache.insert(&token(number, 20_000), 0, window);
            if number % 20 == 0 {
                hits(&cache);
                cache.tokens.run_pending_tasks();
            }
        }
        assert_eq!(hits(&cache), 50);
        assert!(cache.tokens.weighted_size() <= 1 << 20);
    }
}
