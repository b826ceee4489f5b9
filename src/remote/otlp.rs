//! Spans to a collector: OTLP/HTTP with JSON
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! Written here because the SDK's exporter would bring some fifteen crates, threads, a clock
//! and random numbers of its own, for one POST of one JSON object.

mod json;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::{mpsc, oneshot};
use url::Url;

use super::http_client::{HttpClient, HttpClientOptions, HttpResponse, TransportError};
use crate::config::TraceExport;
use crate::secret::{SecretError, SecretRef};
use crate::trace::{ExportResult, Item, Span, SpanObserver};

/// Spans in one export.
const MAX_BATCH: usize = 512;
/// How long spans are gathered for one.
const GATHER: Duration = Duration::from_secs(1);
/// Tries for one export, and the pause after the first; doubled after each.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest answer read, in bytes; only a count is looked for.
const ANSWER_BYTES: usize = 64 * 1024;

/// Why spans were not taken. For operators: names no secret and quotes no answer.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("header {name}: {cause}")]
    Secret {
        name: HeaderName,
        cause: SecretError,
    },
    #[error("header {0}: its secret has characters that cannot stand in a header")]
    Header(HeaderName),
    #[error("the collector answered {status}")]
    Refused {
        status: StatusCode,
        retry_after: Option<Duration>,
    },
}

/// Sends spans as they come.
#[derive(Debug)]
pub struct Exporter {
    client: HttpClient,
    endpoint: Url,
    headers: Vec<(HeaderName, SecretRef)>,
    resource: serde_json::Value,
    observer: SpanObserver,
}

impl Exporter {
    /// For the collector that `export` names; `observer` is told what becomes of spans.
    ///
    /// # Errors
    /// When the CA file is unusable.
    pub fn new(export: &TraceExport, observer: SpanObserver) -> Result<Self, TransportError> {
        let client = HttpClient::new(&HttpClientOptions {
            timeout: export.timeout,
            max_bytes: ANSWER_BYTES,
            ca: export.ca.clone(),
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

    /// Sends what comes until nobody is left to send any more.
    pub async fn run(self, mut items: mpsc::Receiver<Item>) {
        let mut failing = false;
        let mut open = true;
        while open {
            let (batch, flushed);
            (batch, flushed, open) = gather(&mut items).await;
            if !batch.is_empty() {
                let sent = self.send(&batch).await;
                self.account(batch.len() as u64, &sent, &mut failing);
            }
            if let Some(done) = flushed {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    /// Counts, and says it once when exporting begins to fail or works again.
    fn account(&self, count: u64, sent: &Result<u64, ExportError>, failing: &mut bool) {
        match sent {
            Ok(rejected) => {
                let rejected = (*rejected).min(count);
                self.observer.tell(ExportResult::Exported, count - rejected);
                if rejected > 0 {
                    self.observer.tell(ExportResult::Failed, rejected);
                }
                if std::mem::take(failing) {
                    tracing::info!("spans are exported again");
                }
            }
            Err(error) => {
                self.observer.tell(ExportResult::Failed, count);
                if !std::mem::replace(failing, true) {
                    tracing::warn!(%error, "spans cannot be exported; they are thrown away");
                }
            }
        }
    }

    /// How many of `batch` the collector did not want.
    async fn send(&self, batch: &[Span]) -> Result<u64, ExportError> {
        let body = json::request(&self.resource, batch).to_string();
        let body = bytes::Bytes::from(body);
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.post(body.clone()).await {
                Ok(answer) => return Ok(json::rejected(&answer.body)),
                Err(error) => {
                    let Some(asked) = worth_repeating(&error) else {
                        return Err(error);
                    };
                    tokio::time::sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE)).await;
                    pause *= 2;
                }
            }
        }
        let answer = self.post(body).await?;
        Ok(json::rejected(&answer.body))
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
        let answer = self.client.post(&self.endpoint, headers, body).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(ExportError::Refused {
            status: answer.status,
            retry_after: answer.retry_after(),
        })
    }
}

/// As OTLP says: what may be over soon, with the pause that was asked for.
#[allow(clippy::option_option)]
fn worth_repeating(error: &ExportError) -> Option<Option<Duration>> {
    match error {
        ExportError::Transport(
            TransportError::Connection { .. } | TransportError::Timeout { .. },
        ) => Some(None),
        ExportError::Refused {
            status,
            retry_after,
        } => matches!(status.as_u16(), 429 | 502 | 503 | 504).then_some(*retry_after),
        _ => None,
    }
}

/// Some spans, whether somebody waits for them to be sent, and whether more can come.
async fn gather(
    items: &mut mpsc::Receiver<Item>,
) -> (Vec<Span>, Option<oneshot::Sender<()>>, bool) {
    let mut batch = Vec::new();
    match items.recv().await {
        None => return (batch, None, false),
        Some(Item::Flush(done)) => return (batch, Some(done), true),
        Some(Item::Span(span)) => batch.push(*span),
    }
    let enough = tokio::time::sleep(GATHER);
    tokio::pin!(enough);
    while batch.len() < MAX_BATCH {
        tokio::select! {
            () = &mut enough => break,
            item = items.recv() => match item {
                None => return (batch, None, false),
                Some(Item::Flush(done)) => return (batch, Some(done), true),
                Some(Item::Span(span)) => batch.push(*span),
            }
        }
    }
    (batch, None, true)
}
