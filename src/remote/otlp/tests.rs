use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::remote::testing::{Peer, Reply, closed_port, peer};
use crate::trace::settings::IncomingTrace;
use crate::trace::{SpanId, SpanKind, TraceId, Tracer};

type Reported = Arc<Mutex<Vec<(ExportResult, u64)>>>;

fn observer() -> (SpanObserver, Reported) {
    let reported = Reported::default();
    let sink = Arc::clone(&reported);
    let observer =
        SpanObserver::new(move |result, count| sink.lock().unwrap().push((result, count)));
    (observer, reported)
}

fn export(endpoint: &Url) -> TraceExport {
    TraceExport {
        endpoint: endpoint.join("/v1/traces").unwrap(),
        headers: Vec::new(),
        service_name: "gate".into(),
        attributes: vec![("deployment.environment.name".into(), "test".into())],
        timeout: Duration::from_secs(20),
        ca: None,
        allow_plaintext: false,
    }
}

fn span(name: &'static str) -> Span {
    Span {
        trace: TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736").unwrap(),
        id: SpanId::random().unwrap(),
        parent: None,
        name: name.into(),
        kind: SpanKind::Client,
        started: 1_500_000_000_000_000_001,
        ended: 1_500_000_000_000_000_002,
        attributes: vec![("a", "text".into()), ("n", 7.into())],
        error: None,
    }
}

/// Exports the spans through a tracer and returns the notifications of the observer.
async fn exported(export: &TraceExport, spans: Vec<Span>) -> Vec<(ExportResult, u64)> {
    let (observer, reported) = observer();
    let (sender, items) = mpsc::channel(64);
    let exporter = Exporter::new(export, &Network::default(), observer.clone()).unwrap();
    let running = tokio::spawn(exporter.run(items));
    let clock = ManualClock::at(UnixMillis(0));
    let tracer = Tracer::new(IncomingTrace::Continue, 1.0, clock, observer, Some(sender));
    for span in spans {
        tracer.record(span);
    }
    tracer.flush().await;
    drop(tracer);
    // All senders are gone, so the exporter stops.
    running.await.unwrap();
    reported.lock().unwrap().clone()
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn collector(status: u16, headers: &[(&str, &str)], body: &str) -> Peer {
    peer(Reply::new(status, headers, body)).await
}

#[tokio::test]
async fn spans_are_encoded_as_otlp_json() {
    let mut collector = collector(200, &[], "{}").await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "Bearer s3cret\n").unwrap();
    let export = TraceExport {
        headers: vec![(http::header::AUTHORIZATION, SecretRef::File(key))],
        ..export(&collector.url)
    };
    let child = Span {
        parent: SpanId::random(),
        error: Some("upstream_failed"),
        ..span("child")
    };
    let (own, parent) = (child.id.to_string(), child.parent.unwrap().to_string());
    let reported = exported(&export, vec![span("root"), child]).await;
    assert_eq!(reported, [(ExportResult::Exported, 2)]);

    let request = collector.requests.recv().await.unwrap();
    assert!(
        request.starts_with("POST /v1/traces HTTP/1.1\r\n"),
        "{request}"
    );
    let head = request.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/json\r\n"),
        "{head}"
    );
    assert!(head.contains("authorization: bearer s3cret\r\n"), "{head}");
    assert!(
        !head.contains("traceparent"),
        "an export is not part of a trace"
    );
    let body = body(&request);
    let resource = &body["resourceSpans"][0];
    assert_eq!(
        resource["resource"]["attributes"],
        json!([
            { "key": "service.name", "value": { "stringValue": "gate" } },
            { "key": "service.version", "value": { "stringValue": crate::VERSION } },
            { "key": "deployment.environment.name", "value": { "stringValue": "test" } },
        ])
    );
    let spans = &resource["scopeSpans"][0]["spans"];
    assert_eq!(
        spans[1],
        json!({
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
            "spanId": own,
            "parentSpanId": parent,
            "name": "child",
            "kind": 3,
            "startTimeUnixNano": "1500000000000000001",
            "endTimeUnixNano": "1500000000000000002",
            "attributes": [
                { "key": "a", "value": { "stringValue": "text" } },
                { "key": "n", "value": { "intValue": "7" } },
            ],
            "status": { "code": 2, "message": "upstream_failed" },
        })
    );
    assert!(spans[0].get("parentSpanId").is_none() && spans[0]["status"] == json!({}));
}

#[tokio::test]
async fn rejected_spans_are_counted() {
    for (status, headers, body, requests, expected) in [
        (
            200,
            [("x", "y")],
            r#"{"partialSuccess":{"rejectedSpans":"1"}}"#,
            1,
            vec![(ExportResult::Exported, 1), (ExportResult::Failed, 1)],
        ),
        (
            200,
            [("x", "y")],
            r#"{"partialSuccess":{"rejectedSpans":9}}"#,
            1,
            vec![(ExportResult::Exported, 0), (ExportResult::Failed, 2)],
        ),
        (
            200,
            [("x", "y")],
            "no JSON",
            1,
            vec![(ExportResult::Exported, 2)],
        ),
        (400, [("x", "y")], "", 1, vec![(ExportResult::Failed, 2)]),
        (
            302,
            [("location", "/elsewhere")],
            "",
            1,
            vec![(ExportResult::Failed, 2)],
        ),
        (
            503,
            [("retry-after", "0")],
            "",
            4,
            vec![(ExportResult::Failed, 2)],
        ),
        (
            429,
            [("retry-after", "0")],
            "",
            4,
            vec![(ExportResult::Failed, 2)],
        ),
    ] {
        let mut collector = collector(status, &headers, body).await;
        let reported = exported(&export(&collector.url), vec![span("a"), span("b")]).await;
        assert_eq!(reported, expected, "{status} {body}");
        let mut received = 0;
        while collector.requests.try_recv().is_ok() {
            received += 1;
        }
        assert_eq!(received, requests, "{status}");
    }
}

#[tokio::test]
async fn nothing_is_sent_if_a_header_secret_cannot_be_read() {
    let mut collector = collector(200, &[], "{}").await;
    let missing = SecretRef::File("/nonexistent/key".into());
    let export = TraceExport {
        headers: vec![(http::header::AUTHORIZATION, missing)],
        ..export(&collector.url)
    };
    let reported = exported(&export, vec![span("a")]).await;
    assert_eq!(reported, [(ExportResult::Failed, 1)]);
    assert!(collector.requests.try_recv().is_err());
}

#[tokio::test]
async fn spans_beyond_the_queue_limit_are_dropped_and_counted() {
    let (observer, reported) = observer();
    let (sender, mut items) = mpsc::channel(1);
    let clock = ManualClock::at(UnixMillis(0));
    let tracer = Tracer::new(IncomingTrace::Continue, 1.0, clock, observer, Some(sender));
    tracer.record(span("a"));
    tracer.record(span("b"));
    assert_eq!(*reported.lock().unwrap(), [(ExportResult::Dropped, 1)]);
    assert!(matches!(items.try_recv(), Ok(ExporterMessage::Span(span)) if span.name == "a"));
}

#[test]
fn transient_errors_are_retried() {
    let status_error = |status: u16| ExportError::Status {
        status: StatusCode::from_u16(status).unwrap(),
        retry_after: None,
    };
    for status in [429, 502, 503, 504] {
        assert_eq!(retryable(&status_error(status)), Some(None), "{status}");
    }
    for status in [301, 400, 401, 404, 413, 500, 501] {
        assert_eq!(retryable(&status_error(status)), None, "{status}");
    }
}

#[tokio::test]
async fn plain_http_is_for_loopback_unless_allowed() {
    let client = |allowed| {
        let client = HttpClient::new(&HttpClientOptions {
            timeout: Duration::from_millis(1),
            max_bytes: 1,
            ca: None,
            network: crate::network::Network::default(),
        })
        .unwrap();
        if allowed {
            client.allowing_plaintext()
        } else {
            client
        }
    };
    let remote = Url::parse("http://192.0.2.1:4318/v1/traces").unwrap();
    let post = |allowed| {
        let remote = remote.clone();
        async move {
            client(allowed)
                .post(&remote, HeaderMap::new(), bytes::Bytes::new())
                .await
        }
    };
    assert!(matches!(
        post(false).await,
        Err(TransportError::Plaintext(_))
    ));
    assert!(!matches!(
        post(true).await,
        Err(TransportError::Plaintext(_))
    ));
    let closed = closed_port().await;
    assert!(client(false).get(&closed, HeaderMap::new()).await.is_err());
}
