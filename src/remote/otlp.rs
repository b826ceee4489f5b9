//! Exports trace spans to an OpenTelemetry collector over OTLP/HTTP with JSON
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! The SDK's exporter would add some fifteen crates, and its own threads, clock and random
//! number generator, to POST one JSON object.

mod json;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::{mpsc, oneshot};
use url::Url;

use super::http_client::{HttpClient, HttpClientOptions, HttpResponse, TransportError};
use crate::network::Network;
use crate::secret::{SecretError, SecretRef};
use crate::trace::settings::TraceExport;
use crate::trace::{ExportResult, ExporterMessage, Span, SpanObserver};

/// The most spans in one export.
const MAX_BATCH: usize = 512;
/// How long spans are collected before an export.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// The most attempts at one export.
const MAX_ATTEMPTS: u32 = 4;
/// The delay after the first attempt; it doubles after each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is honoured.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The largest response accepted, in bytes; it contains only a count.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Why an export failed. The messages contain no secret and quote no response.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("header {name}: {cause}")]
    Secret {
        name: HeaderName,
        cause: SecretError,
    },
    #[error("header {0}: its secret contains characters that are not allowed in a header")]
    Header(HeaderName),
    #[error("the collector returned {status}")]
    Status {
        status: StatusCode,
        retry_after: Option<Duration>,
    },
}

/// Exports spans in batches.
#[derive(Debug)]
pub struct Exporter {
    client: HttpClient,
    endpoint: Url,
    headers: Vec<(HeaderName, SecretRef)>,
    resource: serde_json::Value,
    observer: SpanObserver,
}

impl Exporter {
    /// Creates an exporter to the collector in `export`. The outcome for each span is reported to
    /// `observer`.
    ///
    /// # Errors
    /// When a CA file or the password of an outgoing proxy is unusable.
    pub fn new(
        export: &TraceExport,
        network: &Network,
        observer: SpanObserver,
    ) -> Result<Self, TransportError> {
        let client = HttpClient::new(&HttpClientOptions {
            timeout: export.timeout,
            max_bytes: MAX_RESPONSE_BYTES,
            ca: export.ca.clone(),
            network: network.clone(),
        })?;
        let client = if export.allow_plaintext {
            client.allowing_plaintext()
        } else {
            client
        };
        Ok(Self {
            client,
            endpoint: export.endpoint.clone(),
            headers: export.headers.clone(),
            resource: json::resource(&export.service_name, &export.attributes),
            observer,
        })
    }

    /// Exports everything received until all senders are gone.
    pub async fn run(self, mut items: mpsc::Receiver<ExporterMessage>) {
        let mut failing = false;
        let mut open = true;
        while open {
            let (batch, flushed);
            (batch, flushed, open) = next_batch(&mut items).await;
            if !batch.is_empty() {
                let sent = self.send(&batch).await;
                self.record(batch.len() as u64, &sent, &mut failing);
            }
            if let Some(done) = flushed {
                // The receiver may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    /// Counts the spans, and logs once when exporting starts to fail or recovers.
    fn record(&self, count: u64, sent: &Result<u64, ExportError>, failing: &mut bool) {
        match sent {
            Ok(rejected) => {
                let rejected = (*rejected).min(count);
                self.observer
                    .record(ExportResult::Exported, count - rejected);
                if rejected > 0 {
                    self.observer.record(ExportResult::Failed, rejected);
                }
                if std::mem::take(failing) {
                    tracing::info!("exporting spans has recovered");
                }
            }
            Err(error) => {
                self.observer.record(ExportResult::Failed, count);
                if !std::mem::replace(failing, true) {
                    tracing::warn!(%error, "cannot export spans; they are dropped");
                }
            }
        }
    }

    /// Exports one batch, with retries. Returns how many spans the collector rejected.
    async fn send(&self, batch: &[Span]) -> Result<u64, ExportError> {
        let body = json::request(&self.resource, batch).to_string();
        let body = bytes::Bytes::from(body);
        let mut backoff = FIRST_BACKOFF;
        for _ in 1..MAX_ATTEMPTS {
            match self.post(body.clone()).await {
                Ok(response) => return Ok(json::rejected(&response.body)),
                Err(error) => {
                    let Some(retry_after) = retryable(&error) else {
                        return Err(error);
                    };
                    tokio::time::sleep(retry_after.unwrap_or(backoff).min(MAX_BACKOFF)).await;
                    backoff *= 2;
                }
            }
        }
        let response = self.post(body).await?;
        Ok(json::rejected(&response.body))
    }

    async fn post(&self, body: bytes::Bytes) -> Result<HttpResponse, ExportError> {
        let mut headers = HeaderMap::new();
        for (name, secret) in &self.headers {
            let secret = secret.read().map_err(|cause| ExportError::Secret {
                name: name.clone(),
                cause,
            })?;
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| ExportError::Header(name.clone()))?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.client.post(&self.endpoint, headers, body).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        Err(ExportError::Status {
            status: response.status,
            retry_after: response.retry_after(),
        })
    }
}

/// Whether the OTLP specification says to retry after this error, with the collector's `Retry-After`
/// if it gave one.
#[allow(clippy::option_option)]
fn retryable(error: &ExportError) -> Option<Option<Duration>> {
    match error {
        ExportError::Transport(
            TransportError::Connection { .. } | TransportError::Timeout { .. },
        ) => Some(None),
        ExportError::Status {
            status,
            retry_after,
        } => matches!(status.as_u16(), 429 | 502 | 503 | 504).then_some(*retry_after),
        _ => None,
    }
}

/// The next batch, the sender to notify once it has been sent, and whether more can follow.
async fn next_batch(
    items: &mut mpsc::Receiver<ExporterMessage>,
) -> (Vec<Span>, Option<oneshot::Sender<()>>, bool) {
    let mut batch = Vec::new();
    match items.recv().await {
        None => return (batch, None, false),
        Some(ExporterMessage::Flush(done)) => return (batch, Some(done), true),
        Some(ExporterMessage::Span(span)) => batch.push(*span),
    }
    let delay = tokio::time::sleep(BATCH_DELAY);
    tokio::pin!(delay);
    while batch.len() < MAX_BATCH {
        tokio::select! {
            () = &mut delay => break,
            item = items.recv() => match item {
                None => return (batch, None, false),
                Some(ExporterMessage::Flush(done)) => return (batch, Some(done), true),
                Some(ExporterMessage::Span(span)) => batch.push(*span),
            }
        }
    }
    (batch, None, true)
}
