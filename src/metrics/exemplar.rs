//! For each bucket of a histogram the last recorded trace that fell into it, so that a
//! graph's outlier leads to its trace.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::family::DURATION_BUCKETS;
use crate::trace::TraceId;

/// One observation with its trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    trace: TraceId,
    /// Seconds.
    value: f64,
}

/// As OpenMetrics writes it, behind its `#`.
impl fmt::Display for Exemplar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, value } = self;
        write!(f, "{{trace_id=\"{trace}\"}} {value}")
    }
}

/// Those of one histogram.
pub(super) struct Exemplars(Vec<Mutex<Option<Exemplar>>>);

impl Exemplars {
    pub(super) fn new() -> Self {
        // One more, for what is above every bound.
        Self(
            (0..=DURATION_BUCKETS.len())
                .map(|_| Mutex::default())
                .collect(),
        )
    }

    /// Never waits: where another one is just being written or read, this one is let go.
    pub(super) fn keep(&self, trace: TraceId, value: f64) {
        let index = DURATION_BUCKETS.partition_point(|bound| *bound < value);
        if let Some(Ok(mut slot)) = self.0.get(index).map(Mutex::try_lock) {
            *slot = Some(Exemplar { trace, value });
        }
    }

    pub(super) fn get(&self, bucket: usize) -> Option<Exemplar> {
        *self
            .0
            .get(bucket)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
