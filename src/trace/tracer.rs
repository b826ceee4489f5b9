//! Which requests are traced, and where finished spans go.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::sync::{mpsc, oneshot};

use super::context::{Parent, SpanId, TRACESTATE, TraceId, state_is_valid};
use super::request::{RequestTrace, TASKCLUSTER_TRACE_ID};
use super::span::Span;
use crate::clock::{SharedClock, UnixMillis};
use crate::trace::settings::IncomingTrace;

/// Spans waiting for the collector; more are dropped and counted.
pub const MAX_QUEUED: usize = 4096;
/// Longest trace id in Taskcluster's header that is passed on.
const MAX_TASKCLUSTER_ID: usize = 128;
/// Longest wait for the collector at the end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportResult {
    /// The collector has it.
    Exported,
    /// There were too many at once.
    Dropped,
    /// The collector could not be reached, or refused it.
    Failed,
}

/// Told what becomes of spans, and how many.
#[derive(Clone)]
pub struct SpanObserver(Arc<dyn Fn(ExportResult, u64) + Send + Sync>);

impl SpanObserver {
    /// Calls `observe`, which must be quick.
    pub fn new(observe: impl Fn(ExportResult, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    /// This became of so many.
    pub fn tell(&self, fate: ExportResult, count: u64) {
        (self.0)(fate, count);
    }
}

impl fmt::Debug for SpanObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpanObserver(..)")
    }
}

/// What goes to the exporter.
#[derive(Debug)]
pub enum Item {
    /// A span that is over.
    Span(Box<Span>),
    /// Send what there is, and say so.
    Flush(oneshot::Sender<()>),
}

/// `[trace]` at work.
#[derive(Debug)]
pub struct Tracer {
    incoming: IncomingTrace,
    sample: f64,
    clock: SharedClock,
    observer: SpanObserver,
    spans: Option<mpsc::Sender<Item>>,
}

impl Tracer {
    /// Spans go into `spans`, if there is a collector.
    pub fn new(
        incoming: IncomingTrace,
        sample: f64,
        clock: SharedClock,
        observer: SpanObserver,
        spans: Option<mpsc::Sender<Item>>,
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

    /// A request with these headers begins. `None` if the system gives no randomness: then
    /// it goes untraced.
    pub fn begin(self: &Arc<Self>, headers: &HeaderMap) -> Option<Box<RequestTrace>> {
        let trusted = self.incoming == IncomingTrace::Continue;
        let parent = Parent::of(headers).filter(|_| trusted);
        let taskcluster = taskcluster_id(headers).filter(|_| trusted);
        let trace = match (parent, taskcluster.and_then(TraceId::from_text)) {
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
            keeps_state: parent.is_some()
                && headers.contains_key(TRACESTATE)
                && state_is_valid(headers),
            taskcluster: match taskcluster {
                Some(_) => None,
                None => HeaderValue::try_from(trace.to_string()).ok(),
            },
            epoch: Epoch {
                wall: self.clock.now(),
                monotonic: self.clock.monotonic(),
            },
            attempts: Vec::new(),
        }))
    }

    /// By the trace's id alone, as OpenTelemetry's `TraceIdRatioBased` does.
    fn samples(&self, trace: TraceId) -> bool {
        // Precise enough for a share, and in range.
        #[allow(clippy::cast_precision_loss)]
        let place = (trace.tail() >> 1) as f64 / (1_u64 << 63) as f64;
        place < self.sample
    }

    /// Takes a span that is over. Never waits: one too many is dropped and counted.
    pub fn record(&self, span: Span) {
        if let Some(spans) = &self.spans
            && spans.try_send(Item::Span(Box::new(span))).is_err()
        {
            self.observer.tell(ExportResult::Dropped, 1);
        }
    }

    /// Waits a moment until the collector has what was recorded so far.
    pub async fn flush(&self) {
        let Some(spans) = &self.spans else { return };
        let (done, flushed) = oneshot::channel();
        let flushing = async {
            if spans.send(Item::Flush(done)).await.is_ok() {
                // An exporter that has ended has nothing left to send.
                let _ = flushed.await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, flushing).await;
    }
}

/// What Taskcluster's services call the trace, if it is one short plain text.
fn taskcluster_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TASKCLUSTER_TRACE_ID).iter();
    let id = values.next()?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:".contains(&b);
    let fits = !id.is_empty() && id.len() <= MAX_TASKCLUSTER_ID && id.bytes().all(plain);
    (fits && values.next().is_none()).then_some(id)
}

/// One moment in both of a clock's ways, so that monotonic times can be told as dates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    pub(super) wall: UnixMillis,
    pub(super) monotonic: Duration,
}

impl Epoch {
    /// Nanoseconds since 1970 of a monotonic time.
    pub(super) fn nanos(self, monotonic: Duration) -> u64 {
        let wall = i128::from(self.wall.0) * 1_000_000;
        let nanos = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
        let at = wall.saturating_add(nanos(monotonic).saturating_sub(nanos(self.monotonic)));
        u64::try_from(at).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
