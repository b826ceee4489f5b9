//! Conclusions that are kept with the token that they were drawn from, so that they are
//! gone when it is: expired, forgotten, or verified anew with other keys.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

/// Most notes that one token bears. A token is used on few routes; past this the oldest
/// goes and is made again when it is needed.
const MAX_NOTES: usize = 16;

type Note = (Author, Arc<dyn Any + Send + Sync>);

/// Whoever keeps notes. Unlike any other in this process, so that no note outlives whoever
/// made it: what is built anew by a reload reads none of what its predecessor wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author(u64);

impl Author {
    /// One that has kept nothing yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A few values, each by its author. Reading takes no lock.
#[derive(Default)]
pub struct Notes(ArcSwapOption<Vec<Note>>);

impl Notes {
    /// What `author` has kept, if it is still there and a `T`.
    pub fn recall<T: Any + Send + Sync>(&self, author: Author) -> Option<Arc<T>> {
        let notes = self.0.load();
        let (_, note) = notes.as_ref()?.iter().find(|(by, _)| *by == author)?;
        Arc::downcast(Arc::clone(note)).ok()
    }

    /// Keeps the one `note` of `author`, in the place of an earlier one.
    pub fn keep<T: Any + Send + Sync>(&self, author: Author, note: Arc<T>) {
        let note: Arc<dyn Any + Send + Sync> = note;
        self.0.rcu(|notes| {
            let old = notes.as_ref().map_or(&[][..], |notes| notes.as_slice());
            let kept = old.iter().filter(|(by, _)| *by != author);
            let surplus = (kept.clone().count() + 1).saturating_sub(MAX_NOTES);
            let mut notes: Vec<Note> = kept.skip(surplus).cloned().collect();
            notes.push((author, Arc::clone(&note)));
            Some(Arc::new(notes))
        });
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_found_by_their_author_and_type() {
        let notes = Notes::default();
        let (one, two) = (Author::new(), Author::new());
        assert_eq!(notes.recall::<u8>(one), None);
        notes.keep(one, Arc::new(7_u8));
        notes.keep(two, Arc::new("text"));
        assert_eq!(notes.recall(one), Some(Arc::new(7_u8)));
        assert_eq!(notes.recall(two), Some(Arc::new("text")));
        assert_eq!(notes.recall::<u16>(one), None);
        notes.keep(one, Arc::new(8_u8));
        assert_eq!(notes.recall(one), Some(Arc::new(8_u8)));
    }

    #[test]
    fn the_oldest_goes() {
        let notes = Notes::default();
        let authors: Vec<_> = (0..=MAX_NOTES).map(|_| Author::new()).collect();
        for (number, author) in authors.iter().enumerate() {
            notes.keep(*author, Arc::new(number));
        }
        assert_eq!(notes.recall::<usize>(authors[0]), None);
        assert_eq!(notes.recall(authors[1]), Some(Arc::new(1_usize)));
        assert_eq!(notes.recall(authors[16]), Some(Arc::new(16_usize)));
    }
}
