//! What an upstream's 401 means, on both ways through the proxy: the upstream's own, refused scopes,
//! and clocks that differ.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hawkgate::clock::{Clock as _, ManualClock, SystemClock, UnixMillis};
use hawkgate::proxy::settings::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::client::{Request, Response};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::tokens::{IssuerServer, Key, claims};
use crate::support::upstream::{FakeUpstream, ReceivedRequest, Reply, ReplyAt, ReplyBody};

const UNAUTHORIZED: &str = "hawkgate_upstream_unauthorized_total";

/// A message as Taskcluster writes it, longer than the look at it.
fn scopes_message() -> String {
    let held = "assume:some-role,".repeat(1000);
    format!(
        "Unauthorized: Supplied credentials do not satisfy authorizedScopes; \
         credentials have scopes [{held}]; authorizedScopes are [too:wide]"
    )
}

/// A 401 as Taskcluster sends it, which repeats the payload of the request.
fn scopes_refused() -> Reply {
    let body = serde_json::json!({
        "code": "AuthenticationFailed",
        "message": scopes_message(),
        "requestInfo": { "payload": { "password": "the-payload-of-the-request" } },
    });
    Reply::new(401, body.to_string()).header("content-type", "application/json; charset=utf-8")
}

/// The route `api` without tokens, and the source `static`, narrowed to `too:wide` by a rule.
fn sections(upstream: &FakeUpstream, route_keys: &str) -> String {
    format!(
        r#"
[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
[[route]]
name = "api"
upstream = "{}"
anonymous = true
source = "static"
{route_keys}
[[rule]]
name = "generous"
when = "true"
scopes = ["too:wide"]
"#,
        upstream.url()
    )
}

/// The same request in each way through the proxy: without a body, with one, and in HTTP/2.
async fn send_each(gateway: &TestGateway, target: &str) -> Vec<Response> {
    let http2 = gateway.http2(1).await;
    let get = Request::get(target);
    vec![
        gateway.send(&get).await,
        gateway.send(&Request::post(target, "x".repeat(5000))).await,
        http2.request(&get).await.unwrap(),
        http2.request(&Request::post(target, "body")).await.unwrap(),
    ]
}

/// With a listener for HTTP/1.1 and one for HTTP/2.
const LISTENERS: &str = r#"
[server]
listen = ["127.0.0.1:0", { address = "127.0.0.1:0", h2c = true }]
admin = "127.0.0.1:0"
drain_delay = "0s"
"#;

async fn start(sections: &str) -> TestGateway {
    let text = format!("{LISTENERS}{sections}");
    TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await
}

#[tokio::test]
async fn a_401_of_the_upstreams_own_is_passed_on_as_it_is() {
    let upstream = FakeUpstream::http1(|_| Reply::unauthorized("log in to the application")).await;
    let keys = "passes_401 = [\"/app/session\"]";
    let gateway = start(&sections(&upstream, keys)).await;
    for target in ["/app/session", "/app/session/x?y", "/app/%73ession"] {
        for response in send_each(&gateway, target).await {
            assert_eq!(response.status_and_reason(), (401, None), "{target}");
            assert_eq!(response.json()["message"], "log in to the application");
        }
    }
    assert_eq!(upstream.attempts().len(), 12, "nothing was replayed");
    let labels = [("reason", "upstream_own"), ("action", "passed_through")];
    gateway.wait_for_metric(UNAUTHORIZED, &labels, 12).await;
    send_each(&gateway, "/app/sessions").await;
    assert!(upstream.attempts_at("/app/sessions").len() > 4);
}

#[tokio::test]
async fn refused_scopes_are_not_replayed_and_the_log_names_the_rule() {
    let upstream = FakeUpstream::http1(|_| scopes_refused()).await;
    let gateway = start(&sections(&upstream, "")).await;
    for _ in 0..3 {
        for response in send_each(&gateway, "/api/x").await {
            assert_eq!(response.status_and_reason(), (401, None));
            let ReplyBody::Whole(expected) = scopes_refused().payload else {
                unreachable!()
            };
            assert_eq!(response.body, expected, "not byte for byte");
        }
    }
    assert_eq!(upstream.attempts().len(), 12, "nothing was replayed");
    let labels = [("reason", "authorized_scopes")];
    gateway.wait_for_metric(UNAUTHORIZED, &labels, 12).await;
    let log = gateway.log();
    let about = |line: &&str| line.contains("asks for scopes") && line.contains("generous");
    let lines: Vec<_> = log.lines().filter(about).collect();
    assert_eq!(lines.len(), 1, "once a minute: {lines:?}");
    for part in ["\"static\"", "\"api\"", "\"root\""] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert!(!log.contains("the-payload-of-the-request"));
}

#[tokio::test]
async fn refused_scopes_are_recognised_in_every_framing() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let gateway = start(&sections(&upstream, "")).await;
    let ReplyBody::Whole(plain) = scopes_refused().payload else {
        unreachable!()
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&plain).unwrap();
    let gzip = Bytes::from(encoder.finish().unwrap());
    let (body, whole) = (gzip.clone(), gzip.clone());
    upstream.set_handler(move |_| {
        let json = Reply::new(401, body.clone()).header("content-type", "application/json");
        json.header("content-encoding", "gzip")
    });
    for response in send_each(&gateway, "/gzip").await {
        assert_eq!((response.status, &response.body), (401, &whole));
    }
    assert_eq!(upstream.attempts_at("/gzip").len(), 4);
    let body = plain.clone();
    upstream.set_handler(move |_| {
        let (send, pieces) = mpsc::channel(100);
        for piece in [body.slice(..1), body.slice(1..60), body.slice(60..)] {
            send.try_send(piece).unwrap();
        }
        let mut reply = Reply::streamed(pieces).header("content-type", "application/json");
        reply.status = 401;
        reply
    });
    for response in send_each(&gateway, "/chunked").await {
        assert_eq!((response.status, &response.body), (401, &plain));
    }
    assert_eq!(upstream.attempts_at("/chunked").len(), 4);
}

#[tokio::test]
async fn other_401s_of_narrowed_requests_are_still_healed() {
    type Case = (&'static str, &'static str, fn() -> Reply);
    let bodies: [Case; 4] = [
        ("/message", "a message", || {
            Reply::unauthorized("Unauthorized: Bad mac")
        }),
        ("/empty", "no body", || {
            Reply::new(401, "").header("content-type", "application/json")
        }),
        ("/html", "another type", || {
            Reply::new(401, scopes_message()).header("content-type", "text/html")
        }),
        ("/short", "too little", || {
            Reply::new(401, "{\"mess").header("content-type", "application/json")
        }),
    ];
    for (target, what, reply) in bodies {
        let first = move |request: &ReceivedRequest| match request.repeat {
            0 => reply(),
            _ => Reply::ok(),
        };
        for index in 0..4 {
            let upstream = FakeUpstream::http1(first).await;
            let gateway = start(&sections(&upstream, "")).await;
            let http2 = gateway.http2(1).await;
            let get = Request::get(target);
            let post = Request::post(target, "x".repeat(5000));
            let response = match index {
                0 => gateway.send(&get).await,
                1 => gateway.send(&post).await,
                2 => http2.request(&get).await.unwrap(),
                _ => http2.request(&post).await.unwrap(),
            };
            assert_eq!(response.status, 200, "{what} {index}");
            assert_eq!(response.text(), "{}");
            assert_eq!(upstream.attempts().len(), 2, "{what} {index}");
        }
    }
}

#[tokio::test]
async fn a_401_whose_body_hangs_is_one_like_any_other() {
    let (hang, pieces) = mpsc::channel(1);
    let pieces = std::sync::Mutex::new(Some(pieces));
    let upstream = FakeUpstream::http1(move |request| match pieces.lock().unwrap().take() {
        Some(pieces) if request.repeat == 0 => {
            let mut reply = Reply::streamed(pieces).header("content-type", "application/json");
            reply.status = 401;
            reply
        }
        _ => Reply::ok(),
    })
    .await;
    let gateway = start(&sections(&upstream, "")).await;
    hang.send(Bytes::from_static(b"{\"code\":")).await.unwrap();
    let response = gateway.send(&Request::post("/x", "body")).await;
    assert_eq!(response.status, 200, "replayed");
    assert_eq!(upstream.attempts().len(), 2);
}

/// An upstream that accepts signatures of the present time only, as Taskcluster does.
async fn punctual() -> FakeUpstream {
    FakeUpstream::http1(|request| {
        let now = SystemClock::shared().now();
        let header = request.header("authorization").unwrap_or_default();
        let ts = header
            .split("ts=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let ts: i64 = ts.and_then(|ts| ts.parse().ok()).unwrap_or(0);
        if (now.as_secs() - ts).abs() < 900 {
            return Reply::ok();
        }
        Reply::unauthorized("Unauthorized: Stale timestamp").header("date", &http_date(now))
    })
    .await
}

fn http_date(time: UnixMillis) -> String {
    let since = Duration::from_millis(u64::try_from(time.0).unwrap());
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + since)
}

#[tokio::test]
async fn a_machine_whose_clock_was_never_set_is_healed() {
    let now = SystemClock::shared().now();
    let year = Duration::from_hours(24 * 365);
    for local in [
        UnixMillis(12_000),
        now.minus(year * 30),
        now.minus(Duration::from_hours(48)),
        now.plus(Duration::from_hours(48)),
        now.plus(Duration::from_mins(20)),
        now.minus(Duration::from_mins(20)),
    ] {
        let upstream = punctual().await;
        let clock = ManualClock::at(local);
        let text = format!("{SERVER_CONFIG}{}", sections(&upstream, ""));
        let gateway = TestGateway::start_with(&text, ConfigDir::new(), clock.clone()).await;
        for request in [Request::post("/x", "body"), Request::get("/x")] {
            for _ in 0..3 {
                let response = gateway.send(&request).await;
                assert_eq!(response.status, 200, "{}", local.to_rfc3339());
            }
        }
        assert_eq!(upstream.attempts().len(), 7, "one replay, and only one");
        // NTP sets the clock while hawkgate is running.
        clock.set_wall(SystemClock::shared().now());
        for _ in 0..3 {
            assert_eq!(gateway.send(&Request::get("/x")).await.status, 200);
        }
        assert_eq!(upstream.attempts().len(), 10, "nothing to learn");
        assert!(
            gateway
                .log()
                .contains("the upstream's clock differs from this machine's")
        );
    }
}

#[tokio::test]
async fn no_token_is_accepted_while_the_clock_is_not_set() {
    let key = Key::ed25519("k");
    let issuer = IssuerServer::start(&[&key]).await;
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let config = format!(
        r#"
[[issuer]]
name = "idp"
url = "{}"
audiences = ["a"]
[[route]]
name = "api"
upstream = "{}"
issuers = ["idp"]
"#,
        issuer.issuer(),
        upstream.url()
    );
    let (gateway, clock) = TestGateway::start_with_clock(&config).await;
    let now = clock.now();
    // Without `iat` and `nbf`, only `exp` says when the token is valid.
    let mut claims = claims(&issuer.issuer(), "a", now.as_secs());
    let members = claims.as_object_mut().unwrap();
    members.remove("iat");
    members.remove("nbf");
    let current = Request::get("/x").bearer(&key.token("EdDSA", &claims));
    claims["exp"] = (now.as_secs() - 1000).into();
    let expired = Request::get("/x").bearer(&key.token("EdDSA", &claims));
    assert_eq!(gateway.send(&current).await.status, 200);
    assert_eq!(gateway.send(&expired).await.status, 401);
    clock.set_wall(UnixMillis(12_000));
    for request in [&current, &expired] {
        let response = gateway.send(request).await;
        assert_eq!(response.status_and_reason(), (503, Some("clock_not_set")));
        assert!(response.header("retry-after").is_some());
    }
    clock.set_wall(now);
    assert_eq!(gateway.send(&current).await.status, 200);
    assert_eq!(gateway.send(&expired).await.status, 401);
}

#[tokio::test]
async fn an_unset_clock_is_reported_at_start() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let text = format!("{SERVER_CONFIG}{}", sections(&upstream, ""));
    let clock = ManualClock::at(UnixMillis(12_000));
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), clock).await;
    assert!(
        gateway
            .log()
            .contains("this machine's clock says 1970-01-01T00:00:12.000Z")
    );
}

#[tokio::test]
async fn a_date_that_is_wrong_does_not_cost_a_replay_for_each_request() {
    let upstream = FakeUpstream::http1(|request| {
        let hours = 24 * (request.index as u64 + 2);
        let date = SystemClock::shared()
            .now()
            .plus(Duration::from_hours(hours));
        Reply::unauthorized("no").header("date", &http_date(date))
    })
    .await;
    let gateway = start(&sections(&upstream, "")).await;
    for _ in 0..20 {
        assert_eq!(gateway.send(&Request::get("/x")).await.status, 401);
    }
    let labels = [("reason", "clock_skew")];
    gateway.wait_for_metric(UNAUTHORIZED, &labels, 1).await;
    upstream.set_handler(|_| Reply::ok());
    assert_eq!(gateway.send(&Request::get("/x")).await.status, 200);
    let attempts = upstream.attempts();
    let last = attempts.last().unwrap().request.header("authorization");
    let now = SystemClock::shared().now().as_secs();
    let ts = last.unwrap().split("ts=\"").nth(1).unwrap();
    let ts: i64 = ts.split('"').next().unwrap().parse().unwrap();
    assert!((now - ts).abs() < 60, "signed with the wrong time");
}

#[tokio::test]
async fn an_upload_that_can_no_longer_be_replayed_gets_a_hanging_401_as_it_is() {
    let (hang, pieces) = mpsc::channel(1);
    let pieces = std::sync::Mutex::new(Some(pieces));
    let upstream = FakeUpstream::http1(move |_| match pieces.lock().unwrap().take() {
        Some(pieces) => {
            let mut reply = Reply::streamed(pieces).header("content-type", "application/json");
            reply.status = 401;
            reply.when(ReplyAt::BeforeBody)
        }
        None => Reply::ok(),
    })
    .await;
    let limits = "[limits]\nreplay_body = \"1KiB\"\n";
    let gateway = start(&format!("{}{limits}", sections(&upstream, ""))).await;
    hang.send(Bytes::from_static(b"{\"code\":")).await.unwrap();
    let Address::Tcp(address) = gateway.address() else {
        unreachable!()
    };
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let head = "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    tcp.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    tcp.write_all(chunk.as_bytes()).await.unwrap();
    tcp.write_all(chunk.as_bytes()).await.unwrap();
    let mut received = String::new();
    // The body of the 401 never ends, and neither does the upload.
    while !received.contains("{\"code\":") {
        let mut piece = [0; 1024];
        let read = tcp.read(&mut piece).await.unwrap();
        assert!(read > 0, "{received}");
        received.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    assert!(received.starts_with("HTTP/1.1 401 "), "{received}");
    assert_eq!(upstream.attempts().len(), 1);
    drop(tcp);
    let labels = [("reason", "body_too_large"), ("action", "passed_through")];
    gateway.wait_for_metric(UNAUTHORIZED, &labels, 1).await;
    drop(hang);
}
