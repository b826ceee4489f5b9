//! Leases memoized with the verified token that they were issued for, so that a caller who
//! returns within a second with the same token skips the identity hash and the look-up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::generation::Generation;
use super::{Lease, Leased};
use crate::clock::Now;
use crate::credential::CredentialSource;
use crate::token::{Caller, ExtensionKey, VerifiedToken};

/// How long a memo is valid. After that the cache is consulted again, which refreshes the
/// entry's idle timer. A retired credential is never returned, however fresh its memo: the
/// generation itself records that it was retired.
const MAX_AGE: Duration = Duration::from_secs(1);

struct LeaseMemo {
    epoch: u64,
    /// Monotonic time.
    until: Duration,
    /// Weak, so that it holds no memory that the cache has given up.
    generation: Weak<Generation>,
}

/// The lease memoized for `caller`, as long as the cache would return the same.
pub(super) fn get(
    key: ExtensionKey,
    source: &dyn CredentialSource,
    caller: &Caller,
    now: Now,
) -> Option<Leased> {
    let memo: Arc<LeaseMemo> = token(caller)?.extensions().get(key)?;
    let generation = memo.generation.upgrade()?;
    let good = now.monotonic < memo.until
        && source.epoch() == Some(memo.epoch)
        && generation.is_in_use(now)
        // Only the cache starts renewals.
        && !generation.is_renewal_due(now);
    good.then(|| Leased::from_cache(generation))
}

/// Memoizes `lease`, which the cache has just returned for `caller`. `epoch` is the source's
/// epoch from before that look-up; if it has changed since, the memo is never returned.
pub(super) fn insert(key: ExtensionKey, caller: &Caller, lease: &Lease, epoch: u64, now: Now) {
    let Some(token) = token(caller) else { return };
    let memo = LeaseMemo {
        epoch,
        until: now.monotonic.saturating_add(MAX_AGE),
        generation: Arc::downgrade(&lease.0),
    };
    token.extensions().insert(key, Arc::new(memo), 0);
}

/// Other callers have no token that outlives the request.
fn token(caller: &Caller) -> Option<&VerifiedToken> {
    match caller {
        Caller::Verified(token) => Some(token),
        Caller::Client(_)
        | Caller::Delegated { .. }
        | Caller::Password { .. }
        | Caller::Anonymous => None,
    }
}
