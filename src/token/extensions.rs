//! Conclusions that are kept with the token that they were drawn from, so that they are
//! gone when it is: expired, forgotten, or verified anew with other keys.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

/// Most extensions that one token bears. A token is used on few routes; past this the oldest
/// goes and is made again when it is needed.
const MAX_EXTENSIONS: usize = 16;

type Extension = (ExtensionKey, Arc<dyn Any + Send + Sync>);

/// Whoever keeps extensions. Unlike any other in this process, so that no extension outlives whoever
/// made it: what is built anew by a reload reads none of what its predecessor wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionKey(u64);

impl ExtensionKey {
    /// One that has kept nothing yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A few values, each by its key. Reading takes no lock.
#[derive(Default)]
pub struct Extensions(ArcSwapOption<Vec<Extension>>);

impl Extensions {
    /// What `key` has kept, if it is still there and a `T`.
    pub fn get<T: Any + Send + Sync>(&self, key: ExtensionKey) -> Option<Arc<T>> {
        let extensions = self.0.load();
        let (_, extension) = extensions.as_ref()?.iter().find(|(by, _)| *by == key)?;
        Arc::downcast(Arc::clone(extension)).ok()
    }

    /// Keeps the one `extension` of `key`, in the place of an earlier one.
    pub fn insert<T: Any + Send + Sync>(&self, key: ExtensionKey, extension: Arc<T>) {
        let extension: Arc<dyn Any + Send + Sync> = extension;
        self.0.rcu(|extensions| {
            let old = extensions
                .as_ref()
                .map_or(&[][..], |extensions| extensions.as_slice());
            let kept = old.iter().filter(|(by, _)| *by != key);
            let surplus = (kept.clone().count() + 1).saturating_sub(MAX_EXTENSIONS);
            let mut extensions: Vec<Extension> = kept.skip(surplus).cloned().collect();
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
    fn notes_are_found_by_their_author_and_type() {
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
    fn the_oldest_goes() {
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
