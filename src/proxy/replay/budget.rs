//! The memory budget shared by all recorded bodies (`limits.replay_memory`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that the recorded bodies of all requests may use together, in bytes.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
        })
    }

    /// Changes the limit. Memory already in use is not affected.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns the number of bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|total| *total <= limit)
            })
            .is_ok()
    }
}

/// One request's share of the budget, which is released when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes: 0,
        }
    }

    /// Reserves `bytes` more bytes. Returns `false`, without reserving any, if that would exceed
    /// the budget.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let granted = self.budget.take(bytes);
        if granted {
            self.bytes += bytes;
        }
        granted
    }

    pub(super) fn release(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_granted_up_to_its_limit_and_returned_on_drop() {
        let budget = Budget::new(100);
        let mut first = Reservation::new(&budget);
        assert!(first.grow(60));
        let mut second = Reservation::new(&budget);
        assert!(!second.grow(41));
        assert!(second.grow(40));
        assert_eq!(budget.used(), 100);
        drop(first);
        assert_eq!(budget.used(), 40);
        second.release();
        second.release();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_budget_does_not_overflow() {
        let budget = Budget::new(usize::MAX);
        let mut reservation = Reservation::new(&budget);
        assert!(reservation.grow(usize::MAX));
        assert!(!reservation.grow(1));
    }
}
