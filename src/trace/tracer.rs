//! Decides which requests are sampled and queues finished spans for the exporter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::sync::{mpsc, oneshot};

use super::request_trace::{RequestTrace, TASKCLUSTER_TRACE_ID};
use super::span::Span;
use super::trace_context::{RemoteParent, SpanId, TRACESTATE, TraceId, tracestate_is_valid};
use crate::clock::{SharedClock, UnixMillis};
use crate::trace::settings::IncomingTrace;

/// Most spans waiting to be exported; further ones are dropped and counted.
pub const MAX_QUEUED: usize = 4096;
/// Longest `X-Taskcluster-Trace-Id` value that is forwarded, in bytes.
const MAX_TASKCLUSTER_ID: usize = 128;
/// How long [`Tracer::flush`] waits at most.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What happened to a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportResult {
    /// The collector accepted it.
    Exported,
    /// The queue was full.
    Dropped,
    /// The collector was unreachable or rejected it.
    Failed,
}

/// Is notified of how many spans were exported, dropped or lost.
#[derive(Clone)]
pub struct SpanObserver(Arc<dyn Fn(ExportResult, u64) + Send + Sync>);

impl SpanObserver {
    /// Notifies by calling `observe`, which must not block.
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
    incoming: IncomingTrace,
    sample: f64,
    clock: SharedClock,
    observer: SpanObserver,
    spans: Option<mpsc::Sender<ExporterMessage>>,
}

impl Tracer {
    /// Spans are sent to `spans`; `None` without a collector.
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

    /// Starts the trace of a request with these headers. `None` if the random number
    /// generator fails; the request then goes untraced.
    pub fn begin(self: &Arc<Self>, headers: &HeaderMap) -> Option<Box<RequestTrace>> {
        let trusted = self.incoming == IncomingTrace::Continue;
        let parent = RemoteParent::from_headers(headers).filter(|_| trusted);
        let taskcluster = taskcluster_id(headers).filter(|_| trusted);
        let trace = match (parent, taskcluster.and_then(TraceId::parse)) {
            (Some(parent), _) => parent.trace,
            (None, Some(trace)) => trace,
            (None, None) => TraceId::random()?,
        };
        let sampled = parent.map_or_else(|| self.samples(trace), |parent| parent.sampled);
        Some(Box::new(RequestTrace {
            tracer: Arc::clone(self),
            trace,
            parent: parent.map(|parent| parent.span),
            span: SpanId::random()?,
            admission: SpanId::random()?,
            sampled,
            recorded: sampled && self.spans.is_some(),
            keeps_tracestate: parent.is_some()
                && headers.contains_key(TRACESTATE)
                && tracestate_is_valid(headers),
            taskcluster: match taskcluster {
                Some(_) => None,
                None => HeaderValue::try_from(trace.to_string()).ok(),
            },
            anchor: TimeAnchor {
                wall: self.clock.now(),
                monotonic: self.clock.monotonic(),
            },
            attempts: Vec::new(),
        }))
    }

    /// Decides by the trace id alone, like OpenTelemetry's `TraceIdRatioBased` sampler.
    fn samples(&self, trace: TraceId) -> bool {
        // Precise enough for a ratio, and in range.
        #[allow(clippy::cast_precision_loss)]
        let position = (trace.low_bits() >> 1) as f64 / (1_u64 << 63) as f64;
        position < self.sample
    }

    /// Queues a finished span. Never waits: if the queue is full, the span is dropped and
    /// counted.
    pub fn record(&self, span: Span) {
        if let Some(spans) = &self.spans
            && spans
                .try_send(ExporterMessage::Span(Box::new(span)))
                .is_err()
        {
            self.observer.record(ExportResult::Dropped, 1);
        }
    }

    /// Waits until everything recorded so far is exported, for at most 5 seconds.
    pub async fn flush(&self) {
        let Some(spans) = &self.spans else { return };
        let (done, flushed) = oneshot::channel();
        let flushing = async {
            if spans.send(ExporterMessage::Flush(done)).await.is_ok() {
                // An error means that the exporter has ended: nothing is left to send.
                let _ = flushed.await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flushing).await;
    }
}

/// The value of `X-Taskcluster-Trace-Id`, if there is exactly one and it is short and free of
/// unusual characters.
fn taskcluster_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TASKCLUSTER_TRACE_ID).iter();
    let id = values.next()?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:".contains(&b);
    let fits = !id.is_empty() && id.len() <= MAX_TASKCLUSTER_ID && id.bytes().all(plain);
    (fits && values.next().is_none()).then_some(id)
}

/// One instant on both the wall clock and the monotonic clock, for converting monotonic times
/// to wall-clock ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeAnchor {
    pub(super) wall: UnixMillis,
    pub(super) monotonic: Duration,
}

impl TimeAnchor {
    /// Converts a monotonic time to nanoseconds since the Unix epoch.
    pub(super) fn nanos(self, monotonic: Duration) -> u64 {
        let wall = i128::from(self.wall.0) * 1_000_000;
        let nanos = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
        let at = wall.saturating_add(nanos(monotonic).saturating_sub(nanos(self.monotonic)));
        u64::try_from(at).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
