//! Conclusions that are kept with the token that they were drawn from, so that they are
//! gone when it is: expired, forgotten, or verified anew with other keys.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// Most notes that one token bears. A token is used on few routes; past this the oldest
/// goes and is made again when it is needed.
const MAX_NOTES: usize = 16;

type Note = (u64, Arc<dyn Any + Send + Sync>);

/// A few values, each under the number of whoever made it. Reading takes no lock.
#[derive(Default)]
pub struct Notes(ArcSwapOption<Vec<Note>>);

impl Notes {
    /// What was kept under `number`, if it is there and a `T`.
    pub fn recall<T: Any + Send + Sync>(&self, number: u64) -> Option<Arc<T>> {
        let notes = self.0.load();
        let (_, note) = notes.as_ref()?.iter().find(|(by, _)| *by == number)?;
        Arc::downcast(Arc::clone(note)).ok()
    }

    /// Keeps `note` under `number`, which must be unique in this process: it takes the
    /// place of what was kept there before.
    pub fn keep<T: Any + Send + Sync>(&self, number: u64, note: Arc<T>) {
        let note: Arc<dyn Any + Send + Sync> = note;
        self.0.rcu(|notes| {
            let old = notes.as_ref().map_or(&[][..], |notes| notes.as_slice());
            let kept = old.iter().filter(|(by, _)| *by != number);
            let surplus = (kept.clone().count() + 1).saturating_sub(MAX_NOTES);
            let mut notes: Vec<Note> = kept.skip(surplus).cloned().collect();
            notes.push((number, Arc::clone(&note)));
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
    fn notes_are_found_by_their_number_and_type() {
        let notes = Notes::default();
        assert_eq!(notes.recall::<u8>(1), None);
        notes.keep(1, Arc::new(7_u8));
        notes.keep(2, Arc::new("text"));
        assert_eq!(notes.recall(1), Some(Arc::new(7_u8)));
        assert_eq!(notes.recall(2), Some(Arc::new("text")));
        assert_eq!(notes.recall::<u16>(1), None);
        notes.keep(1, Arc::new(8_u8));
        assert_eq!(notes.recall(1), Some(Arc::new(8_u8)));
    }

    #[test]
    fn the_oldest_goes() {
        let notes = Notes::default();
        for number in 0..=MAX_NOTES as u64 {
            notes.keep(number, Arc::new(number));
        }
        assert_eq!(notes.recall::<u64>(0), None);
        assert_eq!(notes.recall(1), Some(Arc::new(1_u64)));
        assert_eq!(notes.recall(16), Some(Arc::new(16_u64)));
    }
}
