//! What is told of requests: the audit log's switch, and `[trace]` with its exporter.

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::StartError;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::gateway::Observability;
use crate::metrics::Metrics;
use crate::remote::otlp::Exporter;
use crate::trace::{MAX_QUEUED, Tracer};

/// As `config` says. The exporter runs for as long as somebody may have spans for it: until
/// the last request that began with this configuration has ended.
pub(super) fn observe(
    config: &Config,
    clock: &SharedClock,
    metrics: &Metrics,
) -> Result<Observability, StartError> {
    let mut observe = Observability {
        audit: config.log.audit,
        trace: None,
    };
    let Some(trace) = &config.trace else {
        return Ok(observe);
    };
    let observer = metrics.span_observer();
    let mut spans = None;
    if let Some(export) = &trace.export {
        let exporter = Exporter::new(export, observer.clone())
            .map_err(|error| StartError::Unusable(format!("[trace]: {error}")))?;
        // Without a runtime nothing is served either, and there will be no spans.
        if let Ok(runtime) = Handle::try_current() {
            let (sender, items) = mpsc::channel(MAX_QUEUED);
            runtime.spawn(exporter.run(items));
            spans = Some(sender);
        }
    }
    let tracer = Tracer::new(trace.incoming, trace.sample, clock.clone(), observer, spans);
    observe.trace = Some(tracer);
    Ok(observe)
}
