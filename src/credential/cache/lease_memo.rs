//! Credentials remembered by the verified token that they were had for: who comes again at
//! once with the same token is spared the hash of its identity and the look-up.

use std::sync::Arc;
use std::time::Duration;

use super::generation::Generation;
use super::{Lease, Leased};
use crate::clock::Now;
use crate::credential::CredentialSource;
use crate::token::{Caller, ExtensionKey, VerifiedToken};

/// After this the cache is asked again, which learns by it that the identity is in use. Not
/// what keeps a dropped credential from being used: that is told by the credential itself.
const TRUSTED: Duration = Duration::from_secs(1);

struct LeaseMemo {
    epoch: u64,
    /// Monotonic.
    until: Duration,
    generation: Arc<Generation>,
}

/// What was kept for `caller`, while it is what the cache would say.
pub(super) fn get(
    key: ExtensionKey,
    source: &dyn CredentialSource,
    caller: &Caller,
    now: Now,
) -> Option<Leased> {
    let memo: Arc<LeaseMemo> = token(caller)?.extensions().get(key)?;
    let generation = &memo.generation;
    let good = now.monotonic < memo.until
        && source.epoch() == Some(memo.epoch)
        && generation.is_usable(now)
        // The cache sees to that.
        && !generation.is_renewal_due(now);
    good.then(|| Leased::of(Arc::clone(generation)))
}

/// Keeps `lease`, which the cache has just given for `caller`. `epoch` is the source's from
/// before that: were it another one by now, nothing would be returned.
pub(super) fn insert(key: ExtensionKey, caller: &Caller, lease: &Lease, epoch: u64, now: Now) {
    let Some(token) = token(caller) else { return };
    let memo = LeaseMemo {
        epoch,
        until: now.monotonic.saturating_add(TRUSTED),
        generation: Arc::clone(&lease.0),
    };
    token.extensions().insert(key, Arc::new(memo));
}

/// Of the others nothing lives on that could remember.
fn token(caller: &Caller) -> Option<&VerifiedToken> {
    match caller {
        Caller::Verified(token) => Some(token),
        Caller::Delegated { .. } | Caller::Password { .. } | Caller::Anonymous => None,
    }
}
