//! What HTTP requires of an intermediary, beyond the tables in `parity.rs` and `attacks.rs`. The rules are
//! in `docs/design/http.md`.

mod http2_heads;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::differences::{Differences, patiently};
use crate::support::client::{Body, Request};
use crate::support::gateway::TestGateway;
use crate::support::tls::TestCa;
use crate::support::upstream::{AfterReply, FakeUpstream, ReceivedRequest, Reply, ReplyAt};

struct Fixture {
    upstream: FakeUpstream,
    gateway: TestGateway,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(|_| Reply::ok()).await
    }

    async fn with(handler: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let upstream = FakeUpstream::http1(handler).await;
        let gateway = TestGateway::signing(&upstream.url(), "").await;
        Self { upstream, gateway }
    }

    /// Sends these bytes on a new connection and returns all that comes back until its end.
    async fn raw(&self, bytes: &str) -> String {
        let mut client = self.gateway.client().await;
        client.send(bytes.as_bytes()).await.unwrap();
        let all = patiently(client.rest()).await;
        let all = all.unwrap_or_else(|why| panic!("{why}: {bytes}"));
        String::from_utf8_lossy(&all.unwrap_or_default()).into_owned()
    }

    /// The only request that arrived for this path.
    fn arrived(&self, path: &str) -> ReceivedRequest {
        let mut all = self.upstream.attempts_at(path);
        assert_eq!(all.len(), 1, "{path}");
        all.remove(0).request
    }
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn requests_of_every_version_are_sent_in_http11_with_one_host() {
    let fixture = Fixture::start().await;
    for (path, version) in [("/1.0", "1.0"), ("/1.1", "1.1")] {
        let head =
            format!("GET {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&fixture.raw(&head).await), "200");
    }
    let http2 = fixture.gateway.http2(1).await;
    http2.request(&Request::get("/2")).await.unwrap();
    for path in ["/1.0", "/1.1", "/2"] {
        let request = fixture.arrived(path);
        assert!(
            request
                .raw
                .starts_with(format!("GET {path} HTTP/1.1\r\n").as_bytes())
        );
        let hosts: Vec<_> = request.fields.all("host").collect();
        assert_eq!(hosts, [format!("127.0.0.1:{}", fixture.upstream.port())]);
    }
}

#[tokio::test]
async fn absolute_form_is_accepted_and_sent_as_origin_form() {
    let fixture = Fixture::start().await;
    let mut found = Differences::default();
    let head = "GET http://localhost/x?y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let response = fixture.raw(head).await;
    let accepted = status(&response) == "200";
    let what = (!accepted).then(|| format!("status {}", status(&response)));
    found.record("absolute-form", "GET", what);
    if accepted {
        assert_eq!(fixture.arrived("/x").target, "/x?y");
    }
    found.assert_none();
}

#[tokio::test]
async fn unknown_fields_pass_in_order_and_via_is_neither_added_nor_removed() {
    let fixture = Fixture::start().await;
    let http2 = fixture.gateway.http2(1).await;
    let request = |path: &str| {
        Request::get(path)
            .header("X-New", "1")
            .header("Via", "1.0 fred")
            .header("X-New", "2, 3")
    };
    fixture.gateway.send(&request("/h1")).await;
    http2.request(&request("/h2")).await.unwrap();
    fixture.gateway.send(&Request::get("/plain")).await;
    for path in ["/h1", "/h2"] {
        let arrived = fixture.arrived(path);
        assert_eq!(
            arrived.fields.all("x-new").collect::<Vec<_>>(),
            ["1", "2, 3"]
        );
        assert_eq!(arrived.fields.all("via").collect::<Vec<_>>(), ["1.0 fred"]);
    }
    assert_eq!(fixture.arrived("/plain").header("via"), None);
}

#[tokio::test]
async fn max_forwards_of_zero_ends_an_options_request() {
    let fixture = Fixture::start().await;
    let mut found = Differences::default();
    let options = |path, value| Request::new("OPTIONS", path).header("Max-Forwards", value);
    fixture.gateway.send(&options("/0", "0")).await;
    let forwarded = !fixture.upstream.attempts_at("/0").is_empty();
    found.record(
        "Max-Forwards: 0",
        "OPTIONS",
        forwarded.then(|| "forwarded".into()),
    );
    fixture.gateway.send(&options("/5", "5")).await;
    let value = fixture
        .arrived("/5")
        .header("max-forwards")
        .map(str::to_owned);
    let unchanged = (value.as_deref() != Some("4")).then(|| "not decremented".into());
    found.record("Max-Forwards: 5", "OPTIONS", unchanged);
    // Other methods do not count hops.
    fixture
        .gateway
        .send(&Request::get("/get").header("Max-Forwards", "0"))
        .await;
    assert_eq!(fixture.arrived("/get").header("max-forwards"), Some("0"));
    found.assert_none();
}

#[tokio::test]
async fn bodies_are_framed_anew_for_the_upstream() {
    let fixture = Fixture::start().await;
    let http2 = fixture.gateway.http2(1).await;
    let mut found = Differences::default();
    let chunked = || Body::Chunked("hello".into(), 2);
    let cases = [
        ("/get", Request::get("/get"), None, None),
        ("/post-0", Request::post("/post-0", ""), Some("0"), None),
        ("/post", Request::post("/post", "hello"), Some("5"), None),
        (
            "/unsized",
            Request::new("POST", "/unsized").body(chunked()),
            None,
            Some("chunked"),
        ),
    ];
    for (shape, prefix) in [("h1", ""), ("h2", "/h2")] {
        for (path, request, length, coding) in &cases {
            let path = format!("{prefix}{path}");
            let mut request = request.clone();
            request.target.clone_from(&path);
            let response = match shape {
                "h1" => fixture.gateway.send(&request).await,
                _ => http2.request(&request).await.unwrap(),
            };
            assert_eq!(response.status, 200, "{path}");
            let arrived = fixture.arrived(&path);
            let framing = |name| arrived.fields.all(name).collect::<Vec<_>>();
            assert_eq!(framing("content-length"), Vec::from_iter(*length), "{path}");
            assert_eq!(
                framing("transfer-encoding"),
                Vec::from_iter(*coding),
                "{path}"
            );
        }
    }
    // A POST that ends with its head (RFC 9110 §8.6).
    http2
        .request(&Request::new("POST", "/h2/no-body"))
        .await
        .unwrap();
    let length = fixture
        .arrived("/h2/no-body")
        .header("content-length")
        .map(str::to_owned);
    let what = (length.as_deref() != Some("0")).then(|| format!("Content-Length {length:?}"));
    found.record("POST without content", "h2", what);
    found.assert_none();
}

#[tokio::test]
async fn cookie_lines_of_http2_are_joined() {
    let fixture = Fixture::start().await;
    let http2 = fixture.gateway.http2(1).await;
    let request = Request::get("/x")
        .header("Cookie", "a=b")
        .header("Cookie", "c=d");
    http2.request(&request).await.unwrap();
    let arrived = fixture.arrived("/x");
    assert_eq!(
        arrived.fields.all("cookie").collect::<Vec<_>>(),
        ["a=b; c=d"]
    );
}

#[tokio::test]
async fn an_http2_body_of_another_length_than_stated_is_never_complete() {
    let fixture = Fixture::start().await;
    for (path, length) in [("/short", "9"), ("/long", "3")] {
        let http2 = fixture.gateway.http2(1).await;
        let request = Request::new("POST", path)
            .header("Content-Length", length)
            .body(Body::Chunked("hello".into(), 5));
        let response = http2.request(&request).await;
        assert!(response.is_err_and(|error| error.is_reset()), "{path}");
        let attempts = fixture.upstream.attempts_at(path);
        assert!(
            attempts.iter().all(|attempt| attempt.sha256.is_none()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_100_continue_is_sent_to_those_who_wait_for_it() {
    let fixture = Fixture::start().await;
    let response = fixture
        .gateway
        .send(&Request::post("/1.1", "hello").expect())
        .await;
    assert_eq!((response.status, &response.interim[..]), (200, &[100][..]));
    // An expectation in HTTP/1.0 is ignored (RFC 9110 §10.1.1).
    let response = fixture
        .raw("POST /1.0 HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    let mut found = Differences::default();
    let what = (status(&response) != "200").then(|| format!("status {}", status(&response)));
    found.record("Expect in HTTP/1.0", "POST", what);
    found.assert_none();
}

#[tokio::test]
async fn a_final_answer_instead_of_100_continue_is_passed_on() {
    let fixture = Fixture::with(|_| {
        let early = Reply::new(413, "no").when(ReplyAt::BeforeBody);
        early.rest(AfterReply::Close)
    })
    .await;
    let mut client = fixture.gateway.client().await;
    let request = Request::post("/x", vec![b'x'; 100_000]).expect();
    client.send(&request.head()).await.unwrap();
    let response = client.response("POST").await.unwrap();
    assert_eq!((response.status, response.text()), (413, "no".into()));
}

#[tokio::test]
async fn an_upgrade_in_http10_is_ignored() {
    let fixture = Fixture::start().await;
    let response = fixture
        .raw("GET /x HTTP/1.0\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert_eq!(status(&response), "200");
    assert_eq!(fixture.arrived("/x").header("upgrade"), None);
}

#[tokio::test]
async fn an_http10_connection_ends_after_its_answer() {
    let fixture = Fixture::start().await;
    let twice = "GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n".repeat(2);
    let response = fixture.raw(&twice).await;
    assert_eq!(response.matches(" 200 ").count(), 1, "{response}");
    let kept = "GET /x HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n";
    let response = fixture.raw(&format!("{kept}{twice}")).await;
    assert_eq!(response.matches(" 200 ").count(), 2, "{response}");
    assert!(
        response.contains("\r\nConnection: keep-alive\r\n"),
        "{response}"
    );
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_sent_again() {
    let fixture = Fixture::with(|received| match (received.path(), received.repeat) {
        ("/lost", 0) => Reply::raw(""),
        _ => Reply::ok(),
    })
    .await;
    let mut client = fixture.gateway.client().await;
    let wanted = [
        ("GET", 200, 2),
        ("PUT", 200, 2),
        ("DELETE", 200, 2),
        ("POST", 502, 1),
        ("PATCH", 502, 1),
    ];
    for (method, status, attempts) in wanted {
        // The connection to the upstream is reused, and may have been closed before.
        assert_eq!(
            client
                .request(&Request::post("/warm", "x"))
                .await
                .unwrap()
                .status,
            200
        );
        let mut client = fixture.gateway.client().await;
        let request = match method {
            "GET" | "DELETE" => Request::new(method, "/lost"),
            _ => Request::new(method, "/lost").body(Body::Sized("x".into())),
        };
        client.request(&Request::get("/warm")).await.unwrap();
        let response = client.request(&request).await.unwrap();
        let lost = fixture.upstream.attempts_at("/lost");
        let count = lost.iter().filter(|a| a.request.method == method).count();
        assert!(
            (response.status, count) == (status, attempts) || (response.status, count) == (502, 1),
            "{method}: {} after {count} attempts",
            response.status
        );
    }
}

/// RFC 9112 §9.8: only TLS's own closure says that nothing was cut off.
#[tokio::test]
async fn a_body_that_ends_without_tls_closure_is_truncated() {
    let ca = TestCa::new();
    let acceptor = TestCa::acceptor(&ca.issue(&["127.0.0.1"]), &["http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let upstream = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut stream = acceptor.accept(tcp).await.unwrap();
            let mut buffer = [0; 16 * 1024];
            let read = stream.read(&mut buffer).await.unwrap();
            let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
                .await
                .unwrap();
            stream.flush().await.unwrap();
            if head.contains("/closed") {
                stream.shutdown().await.unwrap();
            }
        }
    });
    let gateway = TestGateway::signing(&url, &format!("ca = \"{}\"", ca.file().display())).await;
    let mut found = Differences::default();
    for (path, complete) in [("/closed", true), ("/cut", false)] {
        for (shape, request) in [
            ("GET", Request::get(path)),
            ("POST", Request::post(path, Bytes::from("x"))),
        ] {
            let mut client = gateway.client().await;
            let response = client.request(&request).await;
            let whole = response.is_ok_and(|r| r.status == 200 && r.body == "hello");
            let what = (whole != complete).then(|| format!("complete: {whole}"));
            found.record(&format!("TLS {path}"), shape, what);
        }
    }
    upstream.abort();
    found.assert_none();
}

/// Answers each request with its path. After one for `/first` it waits for `go`, and then sends an answer
/// that nobody has asked for.
async fn serve_and_send_more(mut stream: TcpStream, go: Arc<Notify>, sent: Arc<Notify>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
        let path = head.split(' ').nth(1).unwrap();
        let answer = |status: u16, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let own = answer(200, path);
        stream.write_all(own.as_bytes()).await.unwrap();
        if path == "/first" {
            go.notified().await;
            let more = answer(299, "leak");
            // Fails if hawkgate has closed the connection.
            let _ = stream.write_all(more.as_bytes()).await;
            sent.notify_one();
        }
    }
}

/// RFC 9112 §9.2: what arrives on an idle connection is no answer to the next request.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_passed_on() {
    let mut found = Differences::default();
    for (shape, http2, method) in [
        ("GET", false, "GET"),
        ("POST", false, "POST"),
        ("h2 GET", true, "GET"),
        ("h2 POST", true, "POST"),
    ] {
        let what = after_an_unasked_answer(http2, method).await;
        found.record("an answer that nobody asked for", shape, what);
    }
    found.assert_none();
}

/// What differs from the answers that should arrive.
async fn after_an_unasked_answer(http2: bool, method: &str) -> Option<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (go, sent) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, tells) = (Arc::clone(&go), Arc::clone(&sent));
    let upstream = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let serve = serve_and_send_more(tcp, Arc::clone(&told), Arc::clone(&tells));
            tokio::spawn(serve);
        }
    });
    let gateway = TestGateway::signing(&url, "").await;
    let mut http1 = gateway.client().await;
    let connection = gateway.http2(1).await;
    let mut exchange = async |path: &str| {
        let body = match method {
            "POST" => Body::Sized(Bytes::new()),
            _ => Body::None,
        };
        let request = Request::new(method, path).body(body);
        let response = if http2 {
            connection.request(&request).await.unwrap()
        } else {
            http1.request(&request).await.unwrap()
        };
        format!("{} {}", response.status, response.text())
    };
    assert_eq!(exchange("/first").await, "200 /first");
    go.notify_one();
    sent.notified().await;
    let second = exchange("/second").await;
    upstream.abort();
    (second != "200 /second").then_some(second)
}

/// The methods whose requests are refused, over both protocols.
#[tokio::test]
async fn trace_and_connect_are_not_forwarded() {
    let fixture = Fixture::start().await;
    let statuses: BTreeSet<u16> = [
        fixture
            .gateway
            .send(&Request::new("TRACE", "/x"))
            .await
            .status,
        fixture
            .gateway
            .http2(1)
            .await
            .request(&Request::new("TRACE", "/x"))
            .await
            .unwrap()
            .status,
    ]
    .into();
    assert_eq!(statuses, [405].into());
    assert!(fixture.upstream.attempts().is_empty());
}
