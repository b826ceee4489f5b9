//! Values derived from a verified token and stored with it. They are dropped together with the
//! token, when it expires, is evicted, or is verified again with other keys.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

/// Maximum number of extensions per token. A token is used on few routes; beyond this number the
/// oldest extension is evicted, and computed again if it is needed.
const MAX_EXTENSIONS: usize = 16;
/// The most memory that the extensions of a token take, in bytes. The cache of tokens counts this
/// much for every token, since it is told the size of an entry only when that is inserted.
pub(super) const MAX_BYTES: usize = 2048;
/// What an extension takes besides its own size: its place in the list and its `Arc`'s counters.
const OVERHEAD: usize = size_of::<Extension>() + 32;

#[derive(Clone)]
struct Extension {
    key: ExtensionKey,
    size: usize,
    value: Arc<dyn Any + Send + Sync>,
}

/// Identifies the owner of an extension. Unique within the process, so that a component created by
/// a reload never reads a value stored by its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionKey(u64);

impl ExtensionKey {
    /// A new key, distinct from all others.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A small map from keys to values. Reading takes no lock.
#[derive(Default)]
pub struct Extensions(ArcSwapOption<Vec<Extension>>);

impl Extensions {
    /// The value stored under `key`, if there is one and it is a `T`.
    pub fn get<T: Any + Send + Sync>(&self, key: ExtensionKey) -> Option<Arc<T>> {
        let extensions = self.0.load();
        let extension = extensions.as_ref()?.iter().find(|e| e.key == key)?;
        Arc::downcast(Arc::clone(&extension.value)).ok()
    }

    /// Stores `value` under `key`, replacing an earlier one. `heap_size` is what it takes besides
    /// `T` itself, in bytes. The oldest extensions are evicted to make room; a value that is larger
    /// than the limit of a token by itself is not stored.
    pub fn insert<T: Any + Send + Sync>(&self, key: ExtensionKey, value: Arc<T>, heap_size: usize) {
        let size = (size_of::<T>() + OVERHEAD).saturating_add(heap_size);
        if size > MAX_BYTES {
            return;
        }
        let extension = Extension { key, size, value };
        self.0.rcu(|extensions| {
            let old = extensions
                .as_ref()
                .map_or(&[][..], |extensions| extensions.as_slice());
            let mut kept = vec![extension.clone()];
            let mut total = size;
            // The newest are at the end.
            for other in old.iter().rev().filter(|other| other.key != key) {
                total += other.size;
                if kept.len() == MAX_EXTENSIONS || total > MAX_BYTES {
                    break;
                }
                kept.push(other.clone());
            }
            kept.reverse();
            Some(Arc::new(kept))
        });
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extensions(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_found_by_key_and_type() {
        let extensions = Extensions::default();
        let (one, two) = (ExtensionKey::new(), ExtensionKey::new());
        assert_eq!(extensions.get::<u8>(one), None);
        extensions.insert(one, Arc::new(7_u8), 0);
        extensions.insert(two, Arc::new("text"), 0);
        assert_eq!(extensions.get(one), Some(Arc::new(7_u8)));
        assert_eq!(extensions.get(two), Some(Arc::new("text")));
        assert_eq!(extensions.get::<u16>(one), None);
        extensions.insert(one, Arc::new(8_u8), 0);
        assert_eq!(extensions.get(one), Some(Arc::new(8_u8)));
    }

    #[test]
    fn the_oldest_extension_is_evicted() {
        let extensions = Extensions::default();
        let keys: Vec<_> = (0..=MAX_EXTENSIONS).map(|_| ExtensionKey::new()).collect();
        for (number, key) in keys.iter().enumerate() {
            extensions.insert(*key, Arc::new(number), 0);
        }
        assert_eq!(extensions.get::<usize>(keys[0]), None);
        assert_eq!(extensions.get(keys[1]), Some(Arc::new(1_usize)));
        assert_eq!(extensions.get(keys[16]), Some(Arc::new(16_usize)));
    }

    #[test]
    fn extensions_are_bounded_by_their_size() {
        let extensions = Extensions::default();
        let keys: Vec<_> = (0..4).map(|_| ExtensionKey::new()).collect();
        for key in &keys {
            extensions.insert(*key, Arc::new(1_u8), MAX_BYTES / 3);
        }
        let found: Vec<_> = keys.iter().map(|key| extensions.get::<u8>(*key)).collect();
        let stored = Some(Arc::new(1_u8));
        assert_eq!(found, [None, None, stored.clone(), stored.clone()]);
        extensions.insert(keys[0], Arc::new(2_u8), MAX_BYTES);
        assert_eq!(extensions.get::<u8>(keys[0]), None);
        assert_eq!(extensions.get::<u8>(keys[3]), stored);
    }
}
