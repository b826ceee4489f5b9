//! Requests with a target in absolute-form (RFC 9112 §3.2.2), as clients of forward proxies send them.

use std::fmt::Write as _;

use crate::support::client::{Client, Response};
use crate::support::gateway::TestGateway;
use crate::support::standard::Standard;
use crate::support::upstream::{Attempt, FakeUpstream, Reply};

/// A request that ends its connection, sent after those that may not.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Routes for the hosts `a` and `b.test`, each with its own upstream.
struct Fixture {
    gateway: TestGateway,
    a: FakeUpstream,
    b: FakeUpstream,
}

impl Fixture {
    async fn set_up() -> Self {
        let a = FakeUpstream::http1(|_| Reply::ok()).await;
        let b = FakeUpstream::http1(|_| Reply::ok()).await;
        let mut sections = String::new();
        for (host, upstream) in [("a", &a), ("b.test", &b)] {
            let url = upstream.url();
            write!(
                sections,
                "[[route]]\nname = \"{host}\"\nhost = \"{host}\"\nupstream = \"{url}\"\nanonymous = true\n"
            )
            .unwrap();
        }
        let gateway = TestGateway::start(&sections).await;
        Self { gateway, a, b }
    }

    /// Sends a head, with an empty line after it, and reads the response.
    async fn send(&self, head: &str) -> Response {
        let mut client = self.gateway.client().await;
        exchange(&mut client, &format!("{head}\r\n\r\n")).await
    }

    /// The last request that reached the upstream of `b.test`.
    fn last(&self) -> Attempt {
        self.b.attempts().pop().unwrap()
    }
}

async fn exchange(client: &mut Client, request: &str) -> Response {
    client.send(request.as_bytes()).await.unwrap();
    let method = request.split(' ').next().unwrap();
    client.response(method).await.unwrap()
}

#[tokio::test]
async fn the_authority_of_the_target_routes_and_the_origin_form_is_sent() {
    let fixture = Fixture::set_up().await;
    let host = fixture.b.address().to_string();
    for (target, fields, sent) in [
        ("http://b.test/x?y", "Host: b.test", "/x?y"),
        // RFC 9112 §3.2.2: the received Host is ignored.
        ("http://b.test/x", "Host: a", "/x"),
        ("http://b.test/x", "Host: c.test:1", "/x"),
        ("HTTP://B.Test:80/x", "Host: a", "/x"),
        ("https://b.test:8443/x", "Host: b.test:8443", "/x"),
        ("http://b.test./x", "Host: a", "/x"),
        ("http://b.test", "Host: b.test", "/"),
        ("http://b.test?y", "Host: b.test", "/?y"),
        ("http://b.test/http://a/%2f", "Host: a", "/http://a/%2f"),
    ] {
        for method in ["GET", "POST", "OPTIONS"] {
            if method == "OPTIONS" && sent == "/" {
                continue;
            }
            let before = fixture.b.attempts().len();
            let length = if method == "POST" {
                "\r\nContent-Length: 0"
            } else {
                ""
            };
            let head = format!("{method} {target} HTTP/1.1\r\n{fields}{length}");
            assert_eq!(fixture.send(&head).await.status, 200, "{head}");
            let received = fixture.last().request;
            assert_eq!(fixture.b.attempts().len(), before + 1, "{head}");
            assert_eq!(
                (received.method.as_str(), received.target.as_str()),
                (method, sent)
            );
            assert_eq!(received.authority, host, "{head}");
            assert_eq!(received.fields.all("host").count(), 1, "{head}");
        }
    }
    assert!(fixture.a.attempts().is_empty());
    // Other authorities have no route, whatever Host says.
    let refused = fixture
        .send("GET http://c.test/ HTTP/1.1\r\nHost: b.test")
        .await;
    assert_eq!(refused.status_and_reason(), (404, Some("no_route")));
}

#[tokio::test]
async fn options_for_the_whole_server_is_the_same_in_both_forms() {
    let fixture = Fixture::set_up().await;
    let asterisk = fixture.send("OPTIONS * HTTP/1.1\r\nHost: b.test").await;
    let absolute = fixture
        .send("OPTIONS http://b.test HTTP/1.1\r\nHost: b.test")
        .await;
    assert_eq!(asterisk.status_and_reason(), absolute.status_and_reason());
    assert!(fixture.b.attempts().is_empty());
    let slash = fixture
        .send("OPTIONS http://b.test/ HTTP/1.1\r\nHost: b.test")
        .await;
    assert_eq!(slash.status, 200);
    assert_eq!(fixture.last().request.target, "/");
}

#[tokio::test]
async fn both_forms_alternate_on_one_connection() {
    let fixture = Fixture::set_up().await;
    let mut client = fixture.gateway.client().await;
    for (request, body) in [
        (
            "POST http://b.test/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
            4,
        ),
        ("GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n", 0),
        ("GET http://b.test/3 HTTP/1.1\r\nHost: b.test\r\n\r\n", 0),
        (
            "PUT http://b.test/4 HTTP/1.1\r\nHost: b.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            2,
        ),
        (
            "GET http://b.test/5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            0,
        ),
    ] {
        assert_eq!(
            exchange(&mut client, request).await.status,
            200,
            "{request}"
        );
        assert_eq!(fixture.last().body_bytes, body, "{request}");
    }
    let log = fixture.gateway.log();
    assert!(log.contains("\"path\":\"/3\"") && !log.contains("b.test/3"));
}

#[tokio::test]
async fn requests_are_signed_for_the_origin_form() {
    let standard = Standard::start("").await;
    let token = standard.peers.token("user|1").await;
    for head in [
        "GET http://static.test/api/queue/v1/x?y=z HTTP/1.1\r\nHost: static.test",
        "GET http://static.test/api/queue/v1/x HTTP/1.1\r\nHost: mint.test",
        "POST http://static.test:80/api/queue/v1/x HTTP/1.1\r\nHost: static.test\r\nContent-Length: 0",
        "GET http://static.test/api/queue/v1/x HTTP/1.0",
    ] {
        let mut client = standard.gateway.client().await;
        let request = format!("{head}\r\nAuthorization: Bearer {token}\r\n\r\n");
        let response = exchange(&mut client, &request).await;
        assert_eq!(response.status, 200, "{head}: {}", response.text());
    }
}

#[tokio::test]
async fn ambiguous_targets_are_refused() {
    let fixture = Fixture::set_up().await;
    let line = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a");
    let mut heads: Vec<String> = [
        "http://a@b.test/",
        "http://u:p@b.test/",
        "http://@b.test/",
        "http:///x",
        "http://",
        "http://?x",
        "http://b.test:99999/",
        "http://b.test:65536/",
        "http://b.test:/",
        "http://b.test:x/",
        "http://b.test#",
        "http://b.test/#",
        "http://b.test/x#y",
        "//b.test/",
        "///b.test/",
        "/\\b.test/",
        "ftp://b.test/",
        "file:///etc/passwd",
        "ws://b.test/",
        "b.test:80",
        "http:/b.test/",
        "http:b.test/",
        "http:\\\\b.test\\",
        "http://b.test\\@a/",
        "http://b.test/../x",
        "http://b.test/%2e%2e/x",
        "http://b.test/a/..;/x",
        "http://b.test//x",
        "http://b.test/<",
        "http://b.test/\"",
        "http://b.test/`",
        "http://b.test%2f/",
        "http://b.test,a/",
        "http://[::1/",
        "http://[b.test]/",
        "http://b..test/",
        "http://b.test /",
        "http://b.test\t/",
        "*",
    ]
    .map(line)
    .into();
    // Host is required and must be valid, although it is ignored (RFC 9112 §3.2).
    for fields in [
        "X: y",
        "Host: a\r\nHost: a",
        "Host: b.test\r\nHost: a",
        "Host:",
        "Host: u@a",
        "Host: a/b",
    ] {
        heads.push(format!("GET http://b.test/ HTTP/1.1\r\n{fields}"));
    }
    heads.push("GET http://b.test/ HTTP/1.0\r\nHost: a\r\nHost: a".to_owned());
    for head in heads {
        let mut client = fixture.gateway.client().await;
        let response = exchange(&mut client, &format!("{head}\r\n\r\n{LAST}")).await;
        assert_eq!(
            response.status_and_reason(),
            (400, Some("bad_request")),
            "{head}"
        );
        assert_eq!(response.header("connection"), Some("close"), "{head}");
        assert!(client.rest().await.unwrap().is_empty(), "{head}");
    }
    let long = format!(
        "GET http://b.test/{} HTTP/1.1\r\nHost: a",
        "x".repeat(16 * 1024)
    );
    assert_eq!(fixture.send(&long).await.status, 414);
    for method in ["TRACE", "CONNECT"] {
        let head = format!("{method} http://b.test/ HTTP/1.1\r\nHost: b.test");
        assert_eq!(fixture.send(&head).await.status, 405, "{head}");
    }
    assert!(fixture.a.attempts().is_empty() && fixture.b.attempts().is_empty());
    assert!(!fixture.gateway.log().contains("u:p@"));
}

#[tokio::test]
async fn local_routes_judge_the_authority_of_the_target() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let route = format!(
        "[[route]]\nname = \"local\"\nupstream = \"{}\"\nanonymous = true\n",
        upstream.url()
    );
    let gateway = TestGateway::start(&route).await;
    for (target, host, status) in [
        ("http://localhost/", "localhost", 200),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080", 200),
        ("http://evil.example/", "localhost", 403),
        ("http://evil.example/", "evil.example", 403),
        ("http://localhost.evil.example/", "localhost", 403),
    ] {
        let mut client = gateway.client().await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = exchange(&mut client, &request).await;
        assert_eq!(response.status, status, "{request}");
        if status == 403 {
            assert_eq!(
                response.error_reason(),
                Some("host_not_allowed"),
                "{request}"
            );
        }
    }
    assert_eq!(upstream.attempts().len(), 2);
}

#[tokio::test]
async fn the_admin_listener_accepts_absolute_form() {
    let gateway = TestGateway::start(
        "[[route]]\nname = \"x\"\nupstream = \"http://127.0.0.1:9\"\nanonymous = true\n",
    )
    .await;
    for (request, status) in [
        (
            "GET http://localhost/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            200,
        ),
        ("GET http://localhost/readyz HTTP/1.0\r\n\r\n", 200),
        (
            "GET http://localhost/metrics?x HTTP/1.1\r\nHost: localhost\r\n\r\n",
            200,
        ),
        (
            "GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n",
            404,
        ),
        (
            "GET http://evil.example/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            403,
        ),
        (
            "GET http://u@localhost/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            400,
        ),
    ] {
        let mut client = Client::connect(gateway.admin_address()).await;
        assert_eq!(
            exchange(&mut client, request).await.status,
            status,
            "{request}"
        );
    }
}
