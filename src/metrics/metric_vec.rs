//! Wrappers around the metric vectors of `prometheus`. The number of labels is part of the type, so
//! that getting a child cannot fail.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::MetricsError;
use super::label_values::UNKNOWN;

/// Upper bounds in seconds, from half a millisecond (a cached credential and an upstream on the
/// same machine) to two minutes (several 20-second long polls of `claimWork`).
pub(super) const DURATION_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0,
];

/// A metric type that can be created and registered under a name.
pub(super) trait Register<const N: usize>: Sized {
    fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Self, MetricsError>;
}

impl Register<0> for IntGauge {
    fn register(r: &Registry, name: &str, help: &str, _: [&str; 0]) -> Result<Self, MetricsError> {
        let gauge = Self::with_opts(Opts::new(name, help))?;
        r.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

impl Register<0> for IntCounter {
    fn register(r: &Registry, name: &str, help: &str, _: [&str; 0]) -> Result<Self, MetricsError> {
        let counter = Self::with_opts(Opts::new(name, help))?;
        r.register(Box::new(counter.clone()))?;
        Ok(counter)
    }
}

/// Removes every child whose `label` is neither in `names` nor [`UNKNOWN`].
fn retain<B: MetricVecBuilder>(family: &MetricVec<B>, label: &str, names: &[Arc<str>]) {
    let retained = |name: &str| name == UNKNOWN || names.iter().any(|n| **n == *name);
    for metrics in family.collect() {
        for metric in metrics.get_metric() {
            let labels: HashMap<&str, &str> = metric
                .get_label()
                .iter()
                .map(|pair| (pair.name(), pair.value()))
                .collect();
            if !labels.get(label).is_some_and(|name| retained(name)) {
                // An error means that it has already been removed.
                let _ = family.remove(&labels);
            }
        }
    }
}

/// A vector of counters with `N` labels.
#[derive(Clone)]
pub(super) struct CounterVec<const N: usize>(IntCounterVec);

impl<const N: usize> Register<N> for CounterVec<N> {
    fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Self, MetricsError> {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        registry.register(Box::new(family.clone()))?;
        Ok(Self(family))
    }
}

impl<const N: usize> CounterVec<N> {
    /// The child with these label values. If it is new, it is exported at 0 from now on.
    pub(super) fn child(&self, values: [&str; N]) -> IntCounter {
        self.0.with_label_values(&values)
    }

    /// Removes the children whose `label` is not in `names`.
    pub(super) fn retain(&self, label: &str, names: &[Arc<str>]) {
        retain(&self.0, label, names);
    }

    /// Removes every child.
    pub(super) fn clear(&self) {
        self.0.reset();
    }
}

/// A vector of gauges with `N` labels.
#[derive(Clone)]
pub(super) struct GaugeVec<const N: usize>(IntGaugeVec);

impl<const N: usize> Register<N> for GaugeVec<N> {
    fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Self, MetricsError> {
        let family = IntGaugeVec::new(Opts::new(name, help), &labels)?;
        registry.register(Box::new(family.clone()))?;
        Ok(Self(family))
    }
}

impl<const N: usize> GaugeVec<N> {
    /// The child with these label values.
    pub(super) fn child(&self, values: [&str; N]) -> IntGauge {
        self.0.with_label_values(&values)
    }

    /// Removes every child, so that none is exported with an outdated value.
    pub(super) fn clear(&self) {
        self.0.reset();
    }
}

/// A vector of histograms of durations, in seconds, with `N` labels.
#[derive(Clone)]
pub(super) struct DurationVec<const N: usize>(HistogramVec);

impl<const N: usize> Register<N> for DurationVec<N> {
    fn register(
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
}

impl<const N: usize> DurationVec<N> {
    /// The child with these label values.
    pub(super) fn child(&self, values: [&str; N]) -> Histogram {
        self.0.with_label_values(&values)
    }

    /// Removes the children whose `label` is not in `names`.
    pub(super) fn retain(&self, label: &str, names: &[Arc<str>]) {
        retain(&self.0, label, names);
    }
}
