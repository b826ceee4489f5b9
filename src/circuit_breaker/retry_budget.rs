//! A retry budget, as in Finagle and Linkerd: a call is repeated only as long as most
//! calls get a response, so that retries never multiply the load on a peer in trouble.

/// The retries that are allowed before any response.
const BURST: u32 = 10;
/// The most retries that responses can save up.
const LARGEST: u32 = 100;

/// Each response pays for one retry.
#[derive(Debug)]
pub(super) struct RetryBudget(u32);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(BURST)
    }

    /// Records a response.
    pub(super) fn deposit(&mut self) {
        self.0 = (self.0 + 1).min(LARGEST);
    }

    /// Whether a retry is allowed, which this then spends.
    pub(super) fn withdraw(&mut self) -> bool {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or_default();
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_retries_than_responses_and_a_small_burst() {
        let mut budget = RetryBudget::new();
        assert_eq!((0..50).filter(|_| budget.withdraw()).count(), 10);
        budget.deposit();
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!((0..500).filter(|_| budget.withdraw()).count(), 100);
    }
}
