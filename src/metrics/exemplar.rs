//! Exemplars: the trace id of the latest observation in each histogram bucket, which links an
//! outlier in a graph to its trace.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::metric_vec::DURATION_BUCKETS;
use crate::trace::TraceId;

/// An observation and the trace it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    trace: TraceId,
    /// Seconds.
    value: f64,
}

/// Formats the exemplar as OpenMetrics does after the `#`.
impl fmt::Display for Exemplar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, value } = self;
        write!(f, "{{trace_id=\"{trace}\"}} {value}")
    }
}

/// The exemplars of one histogram, by bucket.
pub(super) struct Exemplars(Vec<Mutex<Option<Exemplar>>>);

impl Exemplars {
    pub(super) fn new() -> Self {
        // One more for the `+Inf` bucket.
        Self(
            (0..=DURATION_BUCKETS.len())
                .map(|_| Mutex::default())
                .collect(),
        )
    }

    /// Records an observation. Never blocks: if the bucket is being read or written, the exemplar
    /// is dropped.
    pub(super) fn record(&self, trace: TraceId, value: f64) {
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
