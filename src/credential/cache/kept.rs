//! Credentials remembered by the verified token that they were had for: who comes again at
//! once with the same token is spared the hash of its identity and the look-up.

use std::sync::Arc;
use std::time::Duration;

use super::generation::Generation;
use super::{Lease, Leased};
use crate::clock::Moment;
use crate::credential::CredentialSource;
use crate::token::{Author, Caller, VerifiedToken};

/// After this the cache is asked again, which learns by it that the identity is in use. Not
/// what keeps a dropped credential from being used: that is told by the credential itself.
const TRUSTED: Duration = Duration::from_secs(1);

struct Kept {
    epoch: u64,
    /// Steady.
    until: Duration,
    generation: Arc<Generation>,
}

/// What was kept for `caller`, while it is what the cache would say.
pub(super) fn recall(
    author: Author,
    source: &dyn CredentialSource,
    caller: &Caller,
    now: Moment,
) -> Option<Leased> {
    let kept: Arc<Kept> = token(caller)?.notes().recall(author)?;
    let generation = &kept.generation;
    let good = now.steady < kept.until
        && source.epoch() == Some(kept.epoch)
        && generation.is_usable(now)
        // The cache sees to that.
        && !generation.is_renewal_due(now);
    good.then(|| Leased::of(Arc::clone(generation)))
}

/// Keeps `lease`, which the cache has just given for `caller`. `epoch` is the source's from
/// before that: were it another one by now, nothing would be recalled.
pub(super) fn keep(author: Author, caller: &Caller, lease: &Lease, epoch: u64, now: Moment) {
    let Some(token) = token(caller) else { return };
    let kept = Kept {
        epoch,
        until: now.steady.saturating_add(TRUSTED),
        generation: Arc::clone(&lease.0),
    };
    token.notes().keep(author, Arc::new(kept));
}

/// Of the others nothing lives on that could remember.
fn token(caller: &Caller) -> Option<&VerifiedToken> {
    match caller {
        Caller::Verified(token) => Some(token),
        Caller::Delegated { .. } | Caller::Password { .. } | Caller::Anonymous => None,
    }
}
