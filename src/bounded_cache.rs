//! Caches that are bounded both in entries and in the memory that their entries take.
//!
//! Bounding entries alone lets those who control the size of an entry control how much memory a
//! cache takes: the parsed claims of a token of 5 KB can take more than 100 times that.

pub mod heap_size;

use std::hash::Hash;

use moka::sync::{Cache, CacheBuilder};

/// What an entry costs in moka besides the value: the key, the nodes of its queues and its share
/// of the hash table, in bytes. Measured.
const ENTRY_OVERHEAD: usize = 400;

/// The bounds of one cache. Both hold at any time, except that moka evicts with a delay of up to
/// 64 insertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheBounds {
    /// The most entries; at least 1.
    pub entries: u64,
    /// The most memory of all entries together, in bytes. An entry that is larger than this
    /// is not cached.
    pub bytes: u64,
}

impl CacheBounds {
    /// Bounds for tests in which memory does not matter.
    #[cfg(test)]
    pub(crate) fn of_entries(entries: u64) -> Self {
        Self {
            entries,
            bytes: 1 << 30,
        }
    }

    /// A cache with these bounds. `heap_size` returns how much memory a value takes, in bytes,
    /// without the entry's own overhead; it runs once per insertion.
    pub fn builder<K, V>(
        self,
        heap_size: impl Fn(&V) -> usize + Send + Sync + 'static,
    ) -> CacheBuilder<K, V, Cache<K, V>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        // moka bounds one number only. If each entry counts at least its equal share of the
        // memory, bounding the memory bounds the number of entries as well.
        let share = (self.bytes / self.entries.max(1)).max(1);
        let capacity = share.saturating_mul(self.entries.max(1)).min(self.bytes);
        Cache::builder()
            .max_capacity(capacity)
            .weigher(move |_, value| {
                let size = heap_size(value).saturating_add(ENTRY_OVERHEAD);
                let size = u64::try_from(size).unwrap_or(u64::MAX);
                u32::try_from(size.max(share)).unwrap_or(u32::MAX)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn filled(bounds: CacheBounds, sizes: impl Iterator<Item = usize>) -> Cache<usize, usize> {
        let cache = bounds.builder(|size: &usize| *size).build();
        for (key, size) in sizes.enumerate() {
            cache.insert(key, size);
            cache.run_pending_tasks();
        }
        cache
    }

    #[test]
    fn small_entries_are_bounded_by_their_number() {
        for (entries, bytes) in [(10, MIB), (7, 100_000), (1, 1000), (3, MIB + 1)] {
            let cache = filled(CacheBounds { entries, bytes }, std::iter::repeat_n(1, 50));
            assert_eq!(cache.entry_count(), entries);
        }
    }

    #[test]
    fn large_entries_are_bounded_by_their_size() {
        let bounds = CacheBounds {
            entries: 1000,
            bytes: MIB,
        };
        let cache = filled(bounds, std::iter::repeat_n(100_000, 500));
        let total: usize = cache.iter().map(|(_, size)| size).sum();
        assert_eq!(total, 1_000_000);
        let mixed = (0..2000).map(|at| if at % 7 == 0 { 60_000 } else { 500 });
        let total: usize = filled(bounds, mixed).iter().map(|(_, size)| size).sum();
        assert!(total <= 1 << 20, "{total}");
    }

    #[test]
    fn an_entry_larger_than_the_cache_is_not_kept() {
        let bounds = CacheBounds {
            entries: 10,
            bytes: MIB,
        };
        assert_eq!(filled(bounds, [2 << 20, 5].into_iter()).entry_count(), 1);
    }

    #[test]
    fn fewer_bytes_than_entries_leave_nothing_cached() {
        let bounds = CacheBounds {
            entries: 1000,
            bytes: 10,
        };
        assert_eq!(filled(bounds, std::iter::repeat_n(1, 20)).entry_count(), 0);
    }
}
