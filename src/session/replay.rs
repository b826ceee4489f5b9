//! What may be used once: attempts and logout tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use crate::clock::UnixMillis;

/// The most that is remembered. Beyond it, what would be forgotten first is forgotten early.
const MAX_ENTRIES: usize = 16 * 1024;

/// Hashes of what has been used, each until it could not be used anyway.
#[derive(Default)]
pub(super) struct Replays(Mutex<HashMap<[u8; 32], UnixMillis>>);

impl Replays {
    /// Records the use of `what`, which is invalid from `until` on. Whether it is the first.
    pub(super) fn is_first(&self, what: &str, until: UnixMillis, now: UnixMillis) -> bool {
        let Ok(hash) = digest(&SHA256, what.as_bytes()).as_ref().try_into() else {
            return false;
        };
        // Nothing under this lock panics halfway.
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_ENTRIES {
            make_room(&mut used, now);
        }
        used.insert(hash, until).is_none()
    }
}

/// Forgets what is invalid at `now`, and as much else that an eighth is free.
fn make_room(used: &mut HashMap<[u8; 32], UnixMillis>, now: UnixMillis) {
    used.retain(|_, until| *until > now);
    let excess = used.len().saturating_sub(MAX_ENTRIES / 8 * 7);
    if excess == 0 {
        return;
    }
    let mut ends: Vec<_> = used.iter().map(|(hash, until)| (*until, *hash)).collect();
    ends.select_nth_unstable(excess - 1);
    for (_, hash) in ends.iter().take(excess) {
        used.remove(hash);
    }
}

impl fmt::Debug for Replays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replays(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_first_once_and_memory_is_bounded() {
        let replays = Replays::default();
        let at = UnixMillis::from_secs;
        assert!(replays.is_first("a", at(900_000), at(0)));
        assert!(!replays.is_first("a", at(900_000), at(1)));
        for n in 0..i64::try_from(MAX_ENTRIES).unwrap() * 2 {
            assert!(replays.is_first(&format!("n{n}"), at(1000 + n), at(2)));
            assert!(replays.0.lock().unwrap().len() <= MAX_ENTRIES);
        }
        assert!(!replays.is_first("a", at(900_000), at(3)), "it ends last");
        assert!(replays.is_first("n0", at(1000), at(3)), "forgotten early");
        assert!(!replays.is_first("n0", at(1000), at(3)));
    }
}
