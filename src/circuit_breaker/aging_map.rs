//! A bounded map that forgets.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::time::Duration;

/// A map whose entries live for one to two spans after they were last inserted. Once half of it
/// is full, the older half is forgotten at once. Every operation takes constant time on average.
#[derive(Debug)]
pub(super) struct AgingMap<K, V> {
    span: Duration,
    /// Of each half.
    capacity: usize,
    /// When the halves were last exchanged, in monotonic time.
    aged_at: Duration,
    recent: HashMap<K, V>,
    /// Has no key that `recent` has.
    older: HashMap<K, V>,
}

impl<K: Hash + Eq, V> AgingMap<K, V> {
    /// An empty map of up to twice `capacity` entries.
    pub(super) fn new(span: Duration, capacity: usize) -> Self {
        Self {
            span,
            capacity: capacity.max(1),
            aged_at: Duration::ZERO,
            recent: HashMap::new(),
            older: HashMap::new(),
        }
    }

    /// Forgets what is too old at `now`. Call it before the map is read.
    pub(super) fn age(&mut self, now: Duration) {
        let age = now.saturating_sub(self.aged_at);
        if age < self.span {
            return;
        }
        self.older = mem::take(&mut self.recent);
        if age >= self.span * 2 {
            self.older.clear();
        }
        self.aged_at = now;
    }

    pub(super) fn insert(&mut self, key: K, value: V, now: Duration) {
        self.age(now);
        self.older.remove(&key);
        if self.recent.len() >= self.capacity && !self.recent.contains_key(&key) {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(key, value);
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.recent.get(key).or_else(|| self.older.get(key))
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.recent.remove(key);
        self.older.remove(key);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn entries_live_for_one_to_two_spans_after_they_were_last_inserted() {
        let mut map = AgingMap::new(SPAN, 10);
        map.insert("a", 1, secs(9));
        map.insert("b", 1, secs(9));
        map.age(secs(10));
        map.insert("b", 2, secs(10));
        map.age(secs(19));
        assert_eq!(
            (map.get(&"a"), map.get(&"b"), map.len()),
            (Some(&1), Some(&2), 2)
        );
        map.age(secs(20));
        assert_eq!(
            (map.get(&"a"), map.get(&"b"), map.len()),
            (None, Some(&2), 1)
        );
        map.age(secs(40));
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn the_size_is_bounded_and_the_latest_entries_stay() {
        let mut map = AgingMap::new(SPAN, 10);
        for n in 0..1000 {
            map.insert(n, (), secs(0));
            assert!(map.len() <= 20);
        }
        assert!((990..1000).all(|n| map.contains(&n)));
        map.remove(&999);
        assert!(!map.contains(&999));
    }
}
