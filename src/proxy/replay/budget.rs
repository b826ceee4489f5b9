//! The memory budget shared by all recorded bodies (`limits.replay_memory`), of which one client
//! address may use half. Otherwise the slow uploads of one client would use up all of it, and no
//! other caller's request could be replayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::proxy::in_flight::Address;

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

    /// Returns the limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        take(&self.used, bytes, self.limit())
    }
}

/// Adds `bytes` to `used`, unless that would exceed `limit`.
fn take(used: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(bytes).filter(|total| *total <= limit)
    })
    .is_ok()
}

/// One request's share of the budget, which is released when dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
    address: Option<AddressShare>,
}

/// The part of the budget that a client address may use.
#[derive(Debug)]
struct AddressShare {
    address: Arc<Address>,
    /// In bytes.
    limit: usize,
}

impl Reservation {
    /// Creates a reservation for a request of `address`, if it is limited. `body` is the maximum
    /// size of a recorded body, which a single request may always use.
    pub(in crate::proxy) fn new(
        budget: &Arc<Budget>,
        address: Option<&Arc<Address>>,
        body: usize,
    ) -> Self {
        let half = budget.limit() / 2;
        Self {
            budget: Arc::clone(budget),
            bytes: 0,
            address: address.map(|address| AddressShare {
                address: Arc::clone(address),
                limit: half.max(body),
            }),
        }
    }

    /// Reserves `bytes` more bytes. Returns `false`, without reserving any, if that would exceed
    /// the budget or the share of the client's address.
    #[must_use]
    pub(in crate::proxy) fn grow(&mut self, bytes: usize) -> bool {
        if let Some(share) = &self.address
            && !take(&share.address.replay_memory, bytes, share.limit)
        {
            return false;
        }
        let granted = self.budget.take(bytes);
        if granted {
            self.bytes += bytes;
        } else {
            self.give_back_to_address(bytes);
        }
        granted
    }

    pub(in crate::proxy) fn release(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.give_back_to_address(self.bytes);
        self.bytes = 0;
    }

    fn give_back_to_address(&self, bytes: usize) {
        if let Some(share) = &self.address {
            let used = &share.address.replay_memory;
            used.fetch_sub(bytes, Ordering::Relaxed);
        }
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
    use crate::proxy::InFlight;

    #[test]
    fn the_budget_is_granted_up_to_its_limit_and_returned_on_drop() {
        let budget = Budget::new(100);
        let mut first = Reservation::new(&budget, None, 0);
        assert!(first.grow(60));
        let mut second = Reservation::new(&budget, None, 0);
        assert!(!second.grow(41));
        assert!(second.grow(40));
        assert_eq!((budget.used(), budget.limit()), (100, 100));
        drop(first);
        assert_eq!(budget.used(), 40);
        second.release();
        second.release();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_budget_does_not_overflow() {
        let budget = Budget::new(usize::MAX);
        let mut reservation = Reservation::new(&budget, None, 0);
        assert!(reservation.grow(usize::MAX));
        assert!(!reservation.grow(1));
    }

    #[test]
    fn one_address_may_use_half_of_the_budget() {
        let in_flight = InFlight::for_test(10, 10);
        let budget = Budget::new(100);
        let address = |last| in_flight.address([192, 0, 2, last].into());
        let of = |address: &Arc<Address>| Reservation::new(&budget, Some(address), 10);
        let hostile = address(1);
        let mut held: Vec<_> = (0..10).map(|_| of(&hostile)).collect();
        let granted = held.iter_mut().filter_map(|r| r.grow(10).then_some(r));
        assert_eq!(granted.count(), 5);
        let mut other = of(&address(2));
        assert!(other.grow(50));
        assert!(!other.grow(1));
        assert_eq!(budget.used(), 100);
        drop((held, other));
        assert_eq!(budget.used(), 0);
        assert!(of(&hostile).grow(50), "returned to the address as well");
    }

    #[test]
    fn a_share_is_large_enough_for_one_body_and_survives_an_exhausted_budget() {
        let in_flight = InFlight::for_test(10, 10);
        let budget = Budget::new(100);
        let address = in_flight.address([192, 0, 2, 1].into());
        assert!(Reservation::new(&budget, Some(&address), 80).grow(80));
        let mut all = Reservation::new(&budget, None, 0);
        assert!(all.grow(100));
        for _ in 0..10 {
            assert!(!Reservation::new(&budget, Some(&address), 80).grow(80));
        }
        drop(all);
        assert!(Reservation::new(&budget, Some(&address), 80).grow(80));
    }
}
