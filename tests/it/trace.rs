//! Tracing: context propagated from callers to upstreams and exchanges, and spans exported to a
//! collector.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hawkgate::clock::SystemClock;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::client::Request;
use crate::support::gateway::{self, ROOT_KEY, TestGateway};
use crate::support::secrets::Secrets;
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::upstream::{Attempt, FakeUpstream, Reply};

const AUDIENCE: &str = "https://api.example.com";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const KEY: &str = "Bearer the-collectors-own-key";
const LOGIN: &str = "/v1/oidc-credentials/idp";

/// An export and its `Authorization`.
type Export = (Option<String>, Value);

/// A fake OTLP collector that records the exports it receives.
#[derive(Clone, Default)]
struct Collector {
    exports: Arc<Mutex<Vec<Export>>>,
}

impl Collector {
    /// Starts it and returns its endpoint.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let collector = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = collector.clone();
                let take = service_fn(move |request| collector.clone().receive(request));
                let serving = hyper::server::conn::http1::Builder::new();
                tokio::spawn(serving.serve_connection(TokioIo::new(stream), take));
            }
        });
        endpoint
    }

    async fn receive(
        self,
        request: hyper::Request<hyper::body::Incoming>,
    ) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        assert_eq!(
            (head.method.as_str(), head.uri.path()),
            ("POST", "/v1/traces")
        );
        let key = head.headers.get("authorization");
        let key = key.map(|value| value.to_str().unwrap().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        let export = serde_json::from_slice(&body).unwrap();
        self.exports.lock().unwrap().push((key, export));
        Ok(hyper::Response::new(Full::from("{}")))
    }

    /// Every span received so far.
    fn spans(&self) -> Vec<Value> {
        let exports = self.exports.lock().unwrap();
        let lists = exports
            .iter()
            .map(|(_, export)| &export["resourceSpans"][0]["scopeSpans"][0]["spans"]);
        lists
            .flat_map(|list| list.as_array().unwrap().clone())
            .collect()
    }
}

fn attribute<'s>(span: &'s Value, name: &str) -> Option<&'s str> {
    let attributes = span["attributes"].as_array().unwrap();
    let value = &attributes.iter().find(|a| a["key"] == name)?["value"];
    value["stringValue"].as_str().or(value["intValue"].as_str())
}

/// An issuer, one server that is exchange and API, and a gateway in front.
struct Fixture {
    _issuer: IssuerServer,
    upstream: FakeUpstream,
    gateway: TestGateway,
    token: String,
}

impl Fixture {
    /// With this `[trace]` section. The API refuses the first `refusals` requests for each target.
    async fn start(trace: &str, refusals: usize) -> Self {
        let issuer = IssuerServer::start(&[&SHARED[0]]).await;
        let upstream = FakeUpstream::http1(move |received| match received.path() {
            LOGIN => Reply::new(
                200,
                r#"{"expires":"2100-01-01T00:00:00.000Z","credentials":{"clientId":"mozilla-auth0/alice","accessToken":"the-fetched-access-token-0123456789abcdef"}}"#,
            )
            .header("content-type", "application/json"),
            _ if received.repeat < refusals => Reply::unauthorized("no such client"),
            _ => Reply::ok(),
        })
        .await;
        let text = format!(
            r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]
[[source]]
name = "login"
kind = "taskcluster-login"
url = "{url}{LOGIN}"
[[route]]
name = "api"
upstream = "{url}"
issuers = ["idp"]
source = "login"
[log]
audit = true
{trace}
"#,
            issuer = issuer.issuer(),
            url = upstream.url()
        );
        let gateway = TestGateway::start(&text).await;
        let now = SystemClock::shared().now().as_secs();
        let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
        let token = SHARED[0].token("RS256", &claims);
        Self {
            _issuer: issuer,
            upstream,
            gateway,
            token,
        }
    }

    async fn get(&self, target: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::get(target).bearer(&self.token);
        for (name, value) in fields {
            request = request.header(name, value);
        }
        self.gateway.send(&request).await.status
    }
}

fn header<'a>(attempt: &'a Attempt, name: &str) -> &'a str {
    attempt.request.header(name).unwrap_or_default()
}

/// Trace id, parent id and flags of a `traceparent` (W3C Trace Context §3.2).
fn parts(traceparent: &str) -> (&str, &str, &str) {
    assert_eq!(traceparent.len(), 55, "{traceparent}");
    (
        &traceparent[3..35],
        &traceparent[36..52],
        &traceparent[53..],
    )
}

#[tokio::test]
async fn a_replayed_request_is_one_trace_from_caller_to_collector() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let files = gateway::ConfigDir::new();
    let key = files.write("key", KEY);
    let trace = format!(
        "[trace]\nendpoint = \"{endpoint}\"\nheaders = {{ authorization = {{ file = \"{}\" }} }}\n\
         service_name = \"gate\"\n",
        key.display()
    );
    let fixture = Fixture::start(&trace, 1).await;
    let fields = [
        ("traceparent", PARENT),
        ("tracestate", "vendor=1"),
        ("x-request-id", "healed-trace-1"),
    ];
    assert_eq!(
        fixture.get("/api/x?secret=in-the-query", &fields).await,
        200
    );

    let attempts = fixture.upstream.attempts();
    let paths: Vec<_> = attempts
        .iter()
        .map(|a| a.request.path().to_owned())
        .collect();
    assert_eq!(paths, [LOGIN, "/api/x", LOGIN, "/api/x"]);
    let sent: Vec<_> = attempts
        .iter()
        .map(|a| parts(header(a, "traceparent")))
        .collect();
    assert!(
        sent.iter()
            .all(|(trace, _, flags)| (*trace, *flags) == (TRACE, "01"))
    );
    for api in [&attempts[1], &attempts[3]] {
        assert_eq!(header(api, "tracestate"), "vendor=1");
        assert_eq!(header(api, "x-taskcluster-trace-id"), TRACE);
    }

    fixture.gateway.running.drain().await;
    let sent: Vec<&str> = sent.iter().map(|(_, span, _)| *span).collect();
    assert_tree(&collector.spans(), &sent);
    assert_no_secret_in_spans_and_logs(&collector, &fixture);
}

/// Checks the spans of a request that was replayed once against the parent ids sent upstream.
fn assert_tree(spans: &[Value], sent: &[&str]) {
    assert!(
        spans.iter().all(|span| span["traceId"] == TRACE),
        "{spans:#?}"
    );
    let named =
        |name: &str| -> Vec<&Value> { spans.iter().filter(|s| s["name"] == name).collect() };
    let [root] = named("GET api")[..] else {
        panic!("{spans:#?}")
    };
    let [admission] = named("admission")[..] else {
        panic!("{spans:#?}")
    };
    let (upstream, exchanges) = (named("upstream"), named("exchange"));
    assert_eq!((spans.len(), upstream.len(), exchanges.len()), (6, 2, 2));
    assert_eq!(root["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(root["kind"], 2);
    assert_eq!(admission["parentSpanId"], root["spanId"]);
    assert_eq!(exchanges[0]["parentSpanId"], admission["spanId"]);
    assert_eq!(
        exchanges[1]["parentSpanId"], root["spanId"],
        "the one after the 401"
    );
    let ids = [exchanges[0], upstream[0], exchanges[1], upstream[1]]
        .map(|s| s["spanId"].as_str().unwrap());
    assert_eq!(ids.to_vec(), sent);
    for span in &upstream {
        assert_eq!(
            (&span["parentSpanId"], &span["kind"]),
            (&root["spanId"], &Value::from(3))
        );
    }
    let time =
        |span: &Value, which: &str| -> u64 { span[which].as_str().unwrap().parse().unwrap() };
    for span in spans {
        let (began, ended) = (
            time(span, "startTimeUnixNano"),
            time(span, "endTimeUnixNano"),
        );
        assert!(
            began <= ended && began >= time(root, "startTimeUnixNano"),
            "{span:#}"
        );
    }
    assert_attributes(root, &upstream, exchanges[0]);
}

fn assert_attributes(root: &Value, upstream: &[&Value], exchange: &Value) {
    assert_eq!(
        attribute(upstream[0], "http.response.status_code"),
        Some("401")
    );
    assert_eq!(
        attribute(upstream[0], "hawkgate.unauthorized"),
        Some("fresh_credentials")
    );
    assert_eq!(upstream[0]["status"]["code"], 2);
    assert_eq!(
        attribute(upstream[1], "http.response.status_code"),
        Some("200")
    );
    assert_eq!(
        attribute(upstream[1], "http.request.resend_count"),
        Some("1")
    );
    assert_eq!(attribute(exchange, "hawkgate.source"), Some("login"));
    for (name, value) in [
        ("url.path", "/api/x"),
        ("hawkgate.outcome", "healed"),
        ("hawkgate.issuer", "idp"),
        ("hawkgate.request_id", "healed-trace-1"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(root, name), Some(value), "{name}");
    }
}

/// Neither spans nor logs contain a secret, and the logs contain the trace id.
fn assert_no_secret_in_spans_and_logs(collector: &Collector, fixture: &Fixture) {
    let exports = collector.exports.lock().unwrap().clone();
    assert!(exports.iter().all(|(key, _)| key.as_deref() == Some(KEY)));
    let secrets = Secrets::default();
    secrets.add("root's key", ROOT_KEY);
    secrets.add(
        "the fetched key",
        "the-fetched-access-token-0123456789abcdef",
    );
    secrets.add("the query", "in-the-query");
    secrets.add("the collector's key", KEY);
    secrets.token("the token", &fixture.token);
    let exported: String = exports
        .iter()
        .map(|(_, export)| export.to_string())
        .collect();
    secrets.assert_absent("the spans", &exported);
    let log = fixture.gateway.log();
    secrets.assert_absent("the log", &log);
    for target in ["access", "audit"] {
        let line = log.lines().find(|line| {
            line.contains("healed-trace-1") && line.contains(&format!("\"target\":\"{target}\""))
        });
        assert!(
            line.unwrap().contains(&format!("\"trace_id\":\"{TRACE}\"")),
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn trace_headers_pass_unchanged_without_a_trace_section() {
    let fixture = Fixture::start("", 0).await;
    let wrong = "no-trace-at-all";
    let fields = [
        ("traceparent", wrong),
        ("tracestate", "=="),
        ("x-taskcluster-trace-id", "foo/bar"),
    ];
    assert_eq!(fixture.get("/api/x", &fields).await, 200);
    let attempts = fixture.upstream.attempts_at("/api/x");
    for (name, value) in fields {
        assert_eq!(header(&attempts[0], name), value);
    }
    let exchange = fixture.upstream.attempts_at(LOGIN);
    assert_eq!(exchange[0].request.header("traceparent"), None);
}

#[tokio::test]
async fn invalid_trace_context_is_replaced_and_unsampled_spans_are_not_exported() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let trace = format!("[trace]\nendpoint = \"{endpoint}\"\nsample = 0.0\n");
    let fixture = Fixture::start(&trace, 0).await;
    let upper = PARENT.to_uppercase();
    for (number, fields) in [
        vec![],
        vec![("traceparent", upper.as_str()), ("tracestate", "a=1")],
        vec![("traceparent", PARENT), ("traceparent", PARENT)],
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(fixture.get(&format!("/api/{number}"), &fields).await, 200);
        let attempts = fixture.upstream.attempts_at(&format!("/api/{number}"));
        let (trace, _, flags) = parts(header(&attempts[0], "traceparent"));
        assert_eq!(flags, "00");
        assert_ne!(trace, TRACE);
        assert_eq!(header(&attempts[0], "x-taskcluster-trace-id"), trace);
        assert_eq!(attempts[0].request.header("tracestate"), None);
    }
    // The caller's sampling decision takes precedence.
    assert_eq!(
        fixture
            .get("/api/sampled", &[("traceparent", PARENT)])
            .await,
        200
    );
    fixture.gateway.running.drain().await;
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span["traceId"] == TRACE));
    let kinds: Vec<_> = spans
        .iter()
        .map(|span| span["name"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["admission", "upstream", "GET api"]);
}

#[tokio::test]
async fn trace_context_of_untrusted_callers_is_restarted() {
    let fixture = Fixture::start("[trace]\nincoming = \"restart\"\n", 0).await;
    let fields = [
        ("traceparent", PARENT),
        ("tracestate", "a=1"),
        ("x-taskcluster-trace-id", "foo/bar"),
    ];
    assert_eq!(fixture.get("/api/x", &fields).await, 200);
    let attempts = fixture.upstream.attempts_at("/api/x");
    let (trace, _, flags) = parts(header(&attempts[0], "traceparent"));
    assert!(trace != TRACE && flags == "01");
    assert_eq!(header(&attempts[0], "x-taskcluster-trace-id"), trace);
    assert_eq!(attempts[0].request.header("tracestate"), None);
}

#[tokio::test]
async fn a_failing_collector_loses_spans_but_no_requests() {
    let refusing = FakeUpstream::http1(|_| Reply::new(400, "no")).await;
    let trace = format!("[trace]\nendpoint = \"{}/v1/traces\"\n", refusing.url());
    let fixture = Fixture::start(&trace, 0).await;
    assert_eq!(fixture.get("/api/x", &[]).await, 200);
    // The first request needs an exchange: admission, exchange, attempt and the request itself.
    let failed = [("result", "failed")];
    fixture
        .gateway
        .wait_for_metric("hawkgate_trace_spans_total", &failed, 4)
        .await;
    let denied = Request::get("/api/x").bearer("not.a.token");
    assert_eq!(fixture.gateway.send(&denied).await.status, 401);
    fixture
        .gateway
        .wait_for_metric("hawkgate_trace_spans_total", &failed, 6)
        .await;
}
