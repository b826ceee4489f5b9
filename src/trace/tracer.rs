//! Decides which requests are sampled and queues finished spans for the exporter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::span::Span;
use super::trace_context::TraceId;
use crate::clock::SharedClock;
use crate::trace::settings::IncomingTrace;

/// Maximum number of spans waiting to be exported; further ones are dropped and counted.
pub const MAX_QUEUED: usize = 4096;
/// How long [`Tracer::flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of exporting a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportResult {
    /// The collector accepted it.
    Exported,
    /// The queue was full.
    Dropped,
    /// The collector was unreachable or rejected it.
    Failed,
}

/// A callback that is notified of how many spans were exported, dropped or lost.
#[derive(Clone)]
pub struct SpanObserver(Arc<dyn Fn(ExportResult, u64) + Send + Sync>);

impl SpanObserver {
    /// An observer that calls `observe`, which must not block.
    pub fn new(observe: impl Fn(ExportResult, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    /// Records that `count` spans ended with `result`.
    pub fn record(&self, result: ExportResult, count: u64) {
        (self.0)(result, count);
    }
}

impl fmt::Debug for SpanObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpanObserver(..)")
    }
}

/// A message to the exporter task.
#[derive(Debug)]
pub enum ExporterMessage {
    /// A finished span.
    Span(Box<Span>),
    /// Export everything queued so far, then notify the sender.
    Flush(oneshot::Sender<()>),
}

/// Creates request traces and hands finished spans to the exporter, as `[trace]` configures.
#[derive(Debug)]
pub struct Tracer {
    pub(super) incoming: IncomingTrace,
    sample: f64,
    pub(super) clock: SharedClock,
    observer: SpanObserver,
    pub(super) spans: Option<mpsc::Sender<ExporterMessage>>,
}

impl Tracer {
    /// A tracer that sends finished spans to `spans`; `None` if there is no collector.
    pub fn new(
        incoming: IncomingTrace,
        sample: f64,
        clock: SharedClock,
        observer: SpanObserver,
        spans: Option<mpsc::Sender<ExporterMessage>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            incoming,
            sample,
            clock,
            observer,
            spans,
        })
    }

    pub(super) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Decides by the trace id alone, like OpenTelemetry's `TraceIdRatioBased` sampler.
    pub(super) fn samples(&self, trace: TraceId) -> bool {
        // The loss of precision does not matter for a ratio.
        #[allow(clippy::cast_precision_loss)]
        let position = (trace.low_bits() >> 1) as f64 / (1_u64 << 63) as f64;
        position < self.sample
    }

    /// Queues a finished span. Never blocks: if the queue is full, the span is dropped and counted.
    pub fn record(&self, span: Span) {
        if let Some(spans) = &self.spans
            && spans
                .try_send(ExporterMessage::Span(Box::new(span)))
                .is_err()
        {
            self.observer.record(ExportResult::Dropped, 1);
        }
    }

    /// Waits, for at most 5 seconds, until everything recorded so far has been exported.
    pub async fn flush(&self) {
        let Some(spans) = &self.spans else { return };
        let (done, flushed) = oneshot::channel();
        let flushing = async {
            if spans.send(ExporterMessage::Flush(done)).await.is_ok() {
                // An error means that the exporter has stopped and nothing is left to send.
                let _ = flushed.await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flushing).await;
    }
}

#[cfg(test)]
mod tests;
