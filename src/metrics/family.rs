//! Metric families whose number of labels is part of their type, so that a child can be
//! resolved without a way to fail.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::MetricsError;
use super::series::UNKNOWN;

/// From half a millisecond (a cached swap on the same machine) to two minutes (several
/// 20-second long polls of `claimWork`), about 2–2.5 times apart.
pub(super) const DURATION_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0,
];

/// Removes every child whose `label` is none of `names`, and not [`UNKNOWN`].
fn retain<B: MetricVecBuilder>(family: &MetricVec<B>, label: &str, names: &[Arc<str>]) {
    let kept = |name: &str| name == UNKNOWN || names.iter().any(|n| **n == *name);
    for metrics in family.collect() {
        for metric in metrics.get_metric() {
            let labels: HashMap<&str, &str> = metric
                .get_label()
                .iter()
                .map(|pair| (pair.name(), pair.value()))
                .collect();
            if !labels.get(label).is_some_and(|name| kept(name)) {
                // Gone already: all the better.
                let _ = family.remove(&labels);
            }
        }
    }
}

/// Counters with `N` labels.
#[derive(Clone)]
pub(super) struct Counters<const N: usize>(IntCounterVec);

impl<const N: usize> Counters<N> {
    pub(super) fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Self, MetricsError> {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        registry.register(Box::new(family.clone()))?;
        Ok(Self(family))
    }

    /// The child with these label values; from now on it is exported, at 0 if new.
    pub(super) fn child(&self, values: [&str; N]) -> IntCounter {
        self.0.with_label_values(&values)
    }

    /// Ends the children whose `label` is none of `names`.
    pub(super) fn retain(&self, label: &str, names: &[Arc<str>]) {
        retain(&self.0, label, names);
    }
}

/// Gauges with `N` labels.
#[derive(Clone)]
pub(super) struct Gauges<const N: usize>(IntGaugeVec);

impl<const N: usize> Gauges<N> {
    pub(super) fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Self, MetricsError> {
        let family = IntGaugeVec::new(Opts::new(name, help), &labels)?;
        registry.register(Box::new(family.clone()))?;
        Ok(Self(family))
    }

    /// The child with these label values.
    pub(super) fn child(&self, values: [&str; N]) -> IntGauge {
        self.0.with_label_values(&values)
    }

    /// Forgets every child: what is gone must not be exported with its last value.
    pub(super) fn clear(&self) {
        self.0.reset();
    }
}

/// Histograms of seconds with `N` labels.
#[derive(Clone)]
pub(super) struct Durations<const N: usize>(HistogramVec);

impl<const N: usize> Durations<N> {
    pub(super) fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Self, MetricsError> {
        let options = HistogramOpts::new(name, help).buckets(DURATION_BUCKETS.to_vec());
        let family = HistogramVec::new(options, &labels)?;
        registry.register(Box::new(family.clone()))?;
        Ok(Self(family))
    }

    /// The child with these label values.
    pub(super) fn child(&self, values: [&str; N]) -> Histogram {
        self.0.with_label_values(&values)
    }

    /// Ends the children whose `label` is none of `names`.
    pub(super) fn retain(&self, label: &str, names: &[Arc<str>]) {
        retain(&self.0, label, names);
    }
}
