//! Sets up observation of requests: the audit log, and tracing with its exporter.

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::StartError;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::gateway::Observability;
use crate::metrics::Metrics;
use crate::remote::otlp::Exporter;
use crate::trace::{MAX_QUEUED, Tracer};

/// Sets up what `config` enables. The exporter runs until the last request that started with
/// this configuration has ended, because until then there may be spans to export.
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
        let exporter = Exporter::new(export, &config.network, observer.clone())
            .map_err(|error| StartError::Unusable(format!("[trace]: {error}")))?;
        // Without a runtime no requests are served, so there are no spans to export.
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
