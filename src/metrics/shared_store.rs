//! Counts the operations of the shared store, and remembers whether it is used.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::IntCounter;

use super::families::Families;
use super::label_values::children;
use crate::label::Label as _;
use crate::shared_store::{Operation, OperationResult, StoreObserver};

/// The metrics of one store.
pub struct SharedStoreMetrics {
    /// By operation and result.
    operations: Vec<Vec<IntCounter>>,
    up: AtomicBool,
}

impl SharedStoreMetrics {
    /// Exports every operation with every result from now on.
    pub(super) fn new(families: &Families) -> Self {
        let of = |operation: &Operation| {
            children(OperationResult::ALL, |result| {
                families.shared_requests.child([operation.label(), result])
            })
        };
        Self {
            operations: Operation::ALL.iter().map(of).collect(),
            up: AtomicBool::new(true),
        }
    }

    /// Whether the store is used.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }
}

impl StoreObserver for SharedStoreMetrics {
    fn operation(&self, operation: Operation, result: OperationResult) {
        let results = self.operations.get(operation as usize);
        if let Some(count) = results.and_then(|results| results.get(result as usize)) {
            count.inc();
        }
    }

    fn up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }
}

impl fmt::Debug for SharedStoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedStoreMetrics(..)")
    }
}
