//! Requests in HTTP/1.0, which old programs and health checks send.

use bytes::Bytes;
use hawkgate::proxy::settings::Address;
use tokio::sync::mpsc;

use crate::support::client::{Client, Response};
use crate::support::gateway::TestGateway;
use crate::support::upstream::{FakeUpstream, Protocol, ReceivedRequest, Reply, sha256};

/// An open route for each host, and one for other hosts.
async fn gateway(upstream: &FakeUpstream, keys: &str) -> TestGateway {
    let url = upstream.url();
    let route =
        format!("[[route]]\nname = \"open\"\nupstream = \"{url}\"\nanonymous = true\n{keys}\n");
    TestGateway::start(&route).await
}

/// Sends these bytes and reads the response, after which the connection must end.
async fn exchange(address: &Address, request: &str) -> Response {
    let mut client = Client::connect(address).await;
    client.send(request.as_bytes()).await.unwrap();
    let method = request.split(' ').next().unwrap();
    let response = client.response(method).await.unwrap();
    assert!(client.rest().await.unwrap().is_empty(), "{request}");
    assert!(response.interim.is_empty(), "1xx to an HTTP/1.0 caller");
    assert_eq!(response.header("transfer-encoding"), None, "{request}");
    assert_eq!(response.header("trailer"), None, "{request}");
    response
}

#[tokio::test]
async fn health_checks_need_no_host() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let gateway = gateway(&upstream, "").await;
    let admin = gateway.admin_address();
    for (request, status) in [
        ("GET /readyz HTTP/1.0", 200),
        ("GET /healthz HTTP/1.0", 200),
        ("HEAD /readyz HTTP/1.0", 200),
        ("GET /metrics HTTP/1.0", 200),
        ("GET /readyz HTTP/1.0\r\nHost: localhost", 200),
        ("OPTIONS / HTTP/1.0", 404),
        // Web pages, and a page that a forged name leads here.
        ("GET /readyz HTTP/1.0\r\nOrigin: http://evil.example", 403),
        ("GET /readyz HTTP/1.0\r\nHost: evil.example", 403),
        // In HTTP/1.1, Host is required.
        ("GET /readyz HTTP/1.1", 400),
    ] {
        let response = exchange(admin, &format!("{request}\r\n\r\n")).await;
        assert_eq!(response.status, status, "{request}");
    }
}

/// A response in two pieces, which HTTP/1.1 sends chunked and HTTP/2 without a length.
fn in_pieces(_: &ReceivedRequest) -> Reply {
    let (sender, receiver) = mpsc::channel(2);
    for piece in ["hello ", "world"] {
        sender
            .try_send(Bytes::from_static(piece.as_bytes()))
            .unwrap();
    }
    Reply::streamed(receiver)
}

#[tokio::test]
async fn a_response_without_length_ends_with_the_connection() {
    for (protocol, keys) in [(Protocol::Http1, ""), (Protocol::Http2, "http2 = true")] {
        let upstream = FakeUpstream::start(protocol, in_pieces).await;
        let gateway = gateway(&upstream, keys).await;
        for head in [
            "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody",
        ] {
            let response = exchange(gateway.address(), head).await;
            let answer = (response.status, response.text());
            assert_eq!(answer, (200, "hello world".to_owned()), "{head}");
            assert_eq!(response.header("content-length"), None, "{head}");
        }
    }
}

#[tokio::test]
async fn trailers_are_dropped() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                   5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n";
    let upstream = FakeUpstream::http1(move |_| Reply::raw(chunked)).await;
    let gateway = gateway(&upstream, "").await;
    let response = exchange(
        gateway.address(),
        "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert_eq!(response.text(), "hello");
    assert!(!String::from_utf8_lossy(&response.raw_head).contains("x-sum"));
}

#[tokio::test]
async fn lengths_are_kept() {
    let upstream = FakeUpstream::http1(|request| match request.method.as_str() {
        "GET" => Reply::new(200, "hello"),
        _ => Reply::new(204, ""),
    })
    .await;
    let gateway = gateway(&upstream, "").await;
    let get = exchange(
        gateway.address(),
        "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert_eq!(
        (get.header("content-length"), get.text().as_str()),
        (Some("5"), "hello")
    );
    let head = "DELETE / HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let empty = exchange(gateway.address(), head).await;
    assert_eq!((empty.status, empty.header("content-length")), (204, None));
}

#[tokio::test]
async fn bodies_are_forwarded_without_waiting_for_an_expectation() {
    let mut reply = 0;
    let upstream = FakeUpstream::http1(|_| {
        let mut reply = Reply::ok();
        reply.interim = vec![100, 103];
        reply
    })
    .await;
    let gateway = gateway(&upstream, "").await;
    // RFC 9110 §10.1.1: in HTTP/1.0 the expectation is ignored; §15.2: no 1xx to HTTP/1.0 callers.
    for fields in ["", "Expect: 100-continue\r\n"] {
        let request =
            format!("POST /x HTTP/1.0\r\nHost: localhost\r\n{fields}Content-Length: 4\r\n\r\nbody");
        assert_eq!(exchange(gateway.address(), &request).await.status, 200);
        reply += 1;
        let attempts = upstream.attempts();
        assert_eq!(attempts.len(), reply);
        let last = attempts.last().unwrap();
        assert_eq!(last.sha256, Some(sha256(b"body")));
        assert!(last.request.raw.starts_with(b"POST /x HTTP/1.1\r\n"));
        assert_eq!(last.request.header("expect"), None);
    }
}

#[tokio::test]
async fn upgrades_are_ignored() {
    // RFC 9110 §7.8.
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let gateway = gateway(&upstream, "").await;
    let request =
        "GET / HTTP/1.0\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(exchange(gateway.address(), request).await.status, 200);
    assert_eq!(upstream.attempts()[0].request.header("upgrade"), None);
}

#[tokio::test]
async fn without_host_only_routes_without_a_host_match() {
    let (open, named) = (
        FakeUpstream::http1(|_| Reply::ok()).await,
        FakeUpstream::http1(|_| Reply::ok()).await,
    );
    let routes = format!(
        r#"
[[issuer]]
name = "opaque"
kind = "delegated"
[[source]]
name = "tc"
kind = "taskcluster-oauth"
root_url = "http://127.0.0.1:9"
[[route]]
name = "named"
host = "a"
upstream = "{}"
anonymous = true
[[route]]
name = "signed"
path = "/signed/"
upstream = "{}"
issuers = ["opaque"]
source = "tc"
[[route]]
name = "local"
path = "/local/"
upstream = "{}"
anonymous = true
"#,
        named.url(),
        open.url(),
        open.url()
    );
    let gateway = TestGateway::start(&routes).await;
    for (request, status, reason) in [
        // Matches the route, which needs a token.
        ("GET /signed/ HTTP/1.0", 401, Some("missing_token")),
        // A route without tokens on a local listener insists on a name of this machine.
        ("GET /local/ HTTP/1.0", 403, Some("host_not_allowed")),
        ("GET /local/ HTTP/1.0\r\nHost: localhost", 200, None),
        // Of another host only.
        ("GET /other HTTP/1.0", 404, Some("no_route")),
        ("GET /other HTTP/1.0\r\nHost: a", 200, None),
        (
            "GET /other HTTP/1.0\r\nHost: a\r\nHost: a",
            400,
            Some("bad_request"),
        ),
        ("GET /other HTTP/1.0\r\nHost:", 400, Some("bad_request")),
        ("GET /other HTTP/1.1", 400, Some("bad_request")),
        (
            "POST /other HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
            400,
            Some("bad_request"),
        ),
    ] {
        let response = exchange(gateway.address(), &format!("{request}\r\n\r\n")).await;
        assert_eq!(response.status_and_reason(), (status, reason), "{request}");
    }
    assert_eq!((open.attempts().len(), named.attempts().len()), (1, 1));
}
