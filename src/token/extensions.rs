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

type Extension = (ExtensionKey, Arc<dyn Any + Send + Sync>);

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
        let (_, extension) = extensions
            .as_ref()?
            .iter()
            .find(|(owner, _)| *owner == key)?;
        Arc::downcast(Arc::clone(extension)).ok()
    }

    /// Stores `extension` under `key`, replacing an earlier value.
    pub fn insert<T: Any + Send + Sync>(&self, key: ExtensionKey, extension: Arc<T>) {
        let extension: Arc<dyn Any + Send + Sync> = extension;
        self.0.rcu(|extensions| {
            let old = extensions
                .as_ref()
                .map_or(&[][..], |extensions| extensions.as_slice());
            let others = old.iter().filter(|(owner, _)| *owner != key);
            let surplus = (others.clone().count() + 1).saturating_sub(MAX_EXTENSIONS);
            let mut extensions: Vec<Extension> = others.skip(surplus).cloned().collect();
            extensions.push((key, Arc::clone(&extension)));
            Some(Arc::new(extensions))
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
        extensions.insert(one, Arc::new(7_u8));
        extensions.insert(two, Arc::new("text"));
        assert_eq!(extensions.get(one), Some(Arc::new(7_u8)));
        assert_eq!(extensions.get(two), Some(Arc::new("text")));
        assert_eq!(extensions.get::<u16>(one), None);
        extensions.insert(one, Arc::new(8_u8));
        assert_eq!(extensions.get(one), Some(Arc::new(8_u8)));
    }

    #[test]
    fn the_oldest_extension_is_evicted() {
        let extensions = Extensions::default();
        let keys: Vec<_> = (0..=MAX_EXTENSIONS).map(|_| ExtensionKey::new()).collect();
        for (number, key) in keys.iter().enumerate() {
            extensions.insert(*key, Arc::new(number));
        }
        assert_eq!(extensions.get::<usize>(keys[0]), None);
        assert_eq!(extensions.get(keys[1]), Some(Arc::new(1_usize)));
        assert_eq!(extensions.get(keys[16]), Some(Arc::new(16_usize)));
    }
}
