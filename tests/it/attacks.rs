//! Attacks over a raw socket: what must be neither forwarded nor sent back.

// Long tables, with a case in each line.
#![allow(clippy::too_many_lines, clippy::many_single_char_names)]

use bytes::Bytes;
use futures::FutureExt as _;
use hawkgate::clock::SystemClock;

use crate::support::client::{Body, Client, Request, Response};
use crate::support::gateway::TestGateway;
use crate::support::standard::{API_AUDIENCE, api_route};
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::upstream::{FakeUpstream, ReceivedRequest, Reply};
use crate::support::wait::{until, until_some};

/// A request that ends its connection, sent after those that may not.
const LAST: &str = "GET /open/last HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";

/// A signed route `/` with a valid token for it, and an open route `/open/`.
struct Fixture {
    gateway: TestGateway,
    upstream: FakeUpstream,
    token: String,
}

impl Fixture {
    async fn set_up(limits: &str) -> Self {
        Self::with_handler(limits, |_| Reply::ok()).await
    }

    async fn with_handler<S>(limits: &str, handler: S) -> Self
    where
        S: Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static,
    {
        let issuer = IssuerServer::start(&[&SHARED[0]]).await;
        let upstream = FakeUpstream::http1(handler).await;
        let api = api_route(&issuer, "", &upstream, "");
        let gateway = TestGateway::start(&format!(
            r#"{api}
[[route]]
name = "open"
path = "/open/"
upstream = "{}"
anonymous = true
[limits]
{limits}
"#,
            upstream.url()
        ))
        .await;
        let now = SystemClock::shared().now().as_secs();
        let claims = tokens::claims(&issuer.issuer(), API_AUDIENCE, now);
        let token = SHARED[0].token("RS256", &claims);
        let fixture = Self {
            gateway,
            upstream,
            token,
        };
        // The keys have been fetched, so the issuer may be dropped.
        assert_eq!(fixture.send(&Request::get("/first")).await.status, 200);
        fixture
    }

    /// Sends a request with the valid token.
    async fn send(&self, request: &Request) -> Response {
        self.gateway
            .send(&request.clone().bearer(&self.token))
            .await
    }

    /// Sends these bytes, with `{token}` replaced, on a new connection; returns all that comes back
    /// until hawkgate closes it.
    async fn raw(&self, bytes: &str) -> String {
        let mut client = Client::connect(self.gateway.address()).await;
        let bytes = bytes.replace("{token}", &self.token);
        client.send(bytes.as_bytes()).await.unwrap();
        let mut back = Vec::new();
        while let Ok(Some(more)) = client.raw().await {
            back.extend_from_slice(&more);
        }
        String::from_utf8_lossy(&back).into_owned()
    }

    /// The requests that have reached the upstream since the set-up.
    fn forwarded_requests(&self) -> Vec<ReceivedRequest> {
        let all = self.upstream.attempts().into_iter().skip(1);
        all.map(|attempt| attempt.request).collect()
    }
}

fn status(response: &str) -> u16 {
    let code = response.split(' ').nth(1).unwrap_or_default();
    code.parse().unwrap_or(0)
}

#[tokio::test]
async fn ambiguous_requests_are_refused_before_anything_else() {
    let fixture = Fixture::set_up("").await;
    let host = "Host: api.test\r\n";
    let auth = "Authorization: Bearer {token}\r\n";
    let end = "\r\n";
    let cases: Vec<(&str, u16, String)> = vec![
        ("no Host", 400, format!("GET / HTTP/1.1\r\n{auth}{end}")),
        (
            "two Hosts",
            400,
            format!("GET / HTTP/1.1\r\n{host}{host}{auth}{end}"),
        ),
        (
            "a second, different Host",
            400,
            format!("GET / HTTP/1.1\r\n{host}Host: evil\r\n{auth}{end}"),
        ),
        (
            "Host with a path",
            400,
            format!("GET / HTTP/1.1\r\nHost: api.test/x\r\n{auth}{end}"),
        ),
        (
            "Host with a user",
            400,
            format!("GET / HTTP/1.1\r\nHost: a@api.test\r\n{auth}{end}"),
        ),
        (
            "two Authorizations",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}{auth}{end}"),
        ),
        (
            "CL and TE",
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}{auth}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n{end}0\r\n\r\n"
            ),
        ),
        (
            "TE and CL",
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}{auth}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n{end}0\r\n\r\n"
            ),
        ),
        (
            "two lengths",
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}{auth}Content-Length: 5\r\nContent-Length: 6\r\n{end}hello"
            ),
        ),
        (
            "one length twice",
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}{auth}Content-Length: 5\r\nContent-Length: 5\r\n{end}hello"
            ),
        ),
        (
            "a list of lengths",
            400,
            format!("POST / HTTP/1.1\r\n{host}{auth}Content-Length: 5, 5\r\n{end}hello"),
        ),
        (
            "a signed length",
            400,
            format!("POST / HTTP/1.1\r\n{host}{auth}Content-Length: +5\r\n{end}hello"),
        ),
        (
            "a length in hex",
            400,
            format!("POST / HTTP/1.1\r\n{host}{auth}Content-Length: 0x5\r\n{end}hello"),
        ),
        (
            "an endless length",
            400,
            format!("POST / HTTP/1.1\r\n{host}{auth}Content-Length: 99999999999999999999\r\n{end}"),
        ),
        (
            "TE identity",
            400,
            format!("POST / HTTP/1.1\r\n{host}{auth}Transfer-Encoding: identity\r\n{end}"),
        ),
        (
            "TE gzip, chunked",
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}{auth}Transfer-Encoding: gzip, chunked\r\n{end}0\r\n\r\n"
            ),
        ),
        (
            "TE xchunked",
            400,
            format!("POST / HTTP/1.1\r\n{host}{auth}Transfer-Encoding: xchunked\r\n{end}0\r\n\r\n"),
        ),
        (
            "TE twice",
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}{auth}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n{end}0\r\n\r\n"
            ),
        ),
        (
            "TE in 1.0",
            400,
            format!("POST / HTTP/1.0\r\n{host}{auth}Transfer-Encoding: chunked\r\n{end}0\r\n\r\n"),
        ),
        (
            "TE with a vertical tab",
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}{auth}Transfer-Encoding: \x0bchunked\r\n{end}0\r\n\r\n"
            ),
        ),
        (
            "a space before the colon",
            400,
            format!("POST / HTTP/1.1\r\n{host}{auth}Transfer-Encoding : chunked\r\n{end}0\r\n\r\n"),
        ),
        (
            "a folded line",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}X-A: a\r\n b\r\n{end}"),
        ),
        (
            "a bare LF",
            400,
            format!("GET / HTTP/1.1\nHost: api.test\n{}\n\n", auth.trim_end()),
        ),
        (
            "a bare CR in a value",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}X-A: a\rb\r\n{end}"),
        ),
        (
            "a NUL in a value",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}X-A: a\0b\r\n{end}"),
        ),
        (
            "a field without a name",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}: x\r\n{end}"),
        ),
        (
            "a field without a colon",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}nonsense\r\n{end}"),
        ),
        (
            "a name with a space",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}X A: b\r\n{end}"),
        ),
        (
            "a target without a slash",
            400,
            format!("GET api HTTP/1.1\r\n{host}{auth}{end}"),
        ),
        (
            "a fragment",
            400,
            format!("GET /a#/open/ HTTP/1.1\r\n{host}{auth}{end}"),
        ),
        (
            "a space in the target",
            400,
            format!("GET /a b HTTP/1.1\r\n{host}{auth}{end}"),
        ),
        (
            "HTTP/1.2",
            400,
            format!("GET / HTTP/1.2\r\n{host}{auth}{end}"),
        ),
        (
            "HTTP/9.9",
            400,
            format!("GET / HTTP/9.9\r\n{host}{auth}{end}"),
        ),
        ("no version", 400, format!("GET /\r\n{host}{auth}{end}")),
        (
            "a method with brackets",
            400,
            format!("GE(T / HTTP/1.1\r\n{host}{auth}{end}"),
        ),
        (
            "an unknown expectation",
            400,
            format!("POST / HTTP/1.1\r\n{host}{auth}Expect: teapot\r\nContent-Length: 0\r\n{end}"),
        ),
        (
            "a nominated Authorization",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}Connection: authorization\r\n{end}"),
        ),
        (
            "a nominated Host",
            400,
            format!("GET / HTTP/1.1\r\n{host}{auth}Connection: host\r\n{end}"),
        ),
        (
            "TRACE",
            405,
            format!("TRACE / HTTP/1.1\r\n{host}{auth}{end}"),
        ),
        (
            "CONNECT",
            405,
            format!("CONNECT api.test:443 HTTP/1.1\r\n{host}{auth}{end}"),
        ),
        (
            "HTTP/2's preface",
            400,
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ),
        (
            "TLS",
            400,
            "\x16\x03\x01\x02\0\x01\0\x01\u{7c}\x03\x03\r\n\r\n".to_owned(),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, expected, bytes) in cases {
        let response = fixture.raw(&bytes).await;
        // One response and the end of the connection: the rest was not parsed as a request.
        let count = response.matches("HTTP/1.1 ").count();
        let own = response.to_ascii_lowercase().contains("x-hawkgate-error:");
        if status(&response) != expected || count != 1 || !own {
            wrong.push(format!(
                "{what}: expected {expected}, got {count} responses: {response:.300}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let arrived: Vec<_> = fixture
        .forwarded_requests()
        .iter()
        .map(|s| s.raw.clone())
        .collect();
    assert!(arrived.is_empty(), "{arrived:?}");
}

#[tokio::test]
async fn a_smuggled_request_is_never_forwarded() {
    let fixture = Fixture::set_up("").await;
    let smuggled = "GET /open/smuggled HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    let head = "POST /open/x HTTP/1.1\r\nHost: api.test\r\n";
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n",
        "Content-Length: 1x\r\n\r\n",
    ] {
        // Where the framing is valid, the last request follows and ends the connection. Where it is
        // not, the connection ends, with a response unless the request was being forwarded.
        fixture
            .raw(&format!("{head}{framing}{smuggled}{LAST}"))
            .await;
    }
    assert_eq!(fixture.send(&Request::get("/open/x")).await.status, 200);
    for received in fixture.forwarded_requests() {
        let path = received.path();
        assert!(["/open/x", "/open/last"].contains(&path), "{path}");
    }
}

#[tokio::test]
async fn absolute_form_targets_cannot_select_another_route_or_host() {
    let fixture = Fixture::set_up("").await;
    for line in [
        "GET http://evil.example.com/open/x HTTP/1.1",
        "GET https://api.test/open/x HTTP/1.1",
        "GET //evil.example.com/x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
    ] {
        let head = format!("{line}\r\nHost: api.test\r\nConnection: close\r\n\r\n");
        assert_ne!(status(&fixture.raw(&head).await), 0, "{line}");
    }
    let own = format!("127.0.0.1:{}", fixture.upstream.port());
    for received in fixture.forwarded_requests() {
        assert_eq!(received.authority, own);
        assert!(received.target.starts_with('/'), "{}", received.target);
    }
}

#[tokio::test]
async fn dot_segments_cannot_escape_their_route() {
    let fixture = Fixture::set_up("").await;
    for path in [
        "/open/../api/secret",
        "/open/./../api",
        "/open/%2e%2e/api",
        "/open/%2E%2E%2Fapi",
        "/open/..%2fapi",
        "/open/..;/api",
        "/open/..\\api",
        "/open/a/../../api",
        "/open/..",
    ] {
        let request = Request::get(path);
        let response = fixture.gateway.send(&request).await;
        // Refused, or treated as a path of the signed route; never forwarded by the open one.
        assert!(
            matches!(response.status, 400 | 401),
            "{path}: {}",
            response.status
        );
    }
    let arrived = fixture.forwarded_requests();
    assert!(arrived.is_empty(), "{arrived:?}");
}

#[tokio::test]
async fn health_check_paths_and_probe_user_agents_bypass_nothing() {
    let fixture = Fixture::set_up("").await;
    for path in [
        "/healthz",
        "/readyz",
        "/startupz",
        "/metrics",
        "/ping",
        "/oauth2/auth",
    ] {
        let probe = Request::get(path)
            .header("User-Agent", "kube-probe/1.30")
            .header("X-Forwarded-Uri", "/open/x")
            .header("X-Original-URL", "/open/x")
            .header("X-Rewrite-URL", "/open/x")
            .header("X-HTTP-Method-Override", "OPTIONS");
        let response = fixture.gateway.send(&probe).await;
        assert_eq!(response.error_reason(), Some("missing_token"), "{path}");
    }
    assert!(fixture.forwarded_requests().is_empty());
}

#[tokio::test]
async fn request_heads_over_the_limits_are_refused() {
    let fixture = Fixture::set_up("header_bytes = \"8KiB\"\nurl_bytes = \"2KiB\"").await;
    let long = fixture
        .send(&Request::get("/x").header("X-A", &"a".repeat(9 * 1024)))
        .await;
    assert_eq!(long.status_and_reason(), (431, Some("header_too_large")));
    let url = fixture
        .send(&Request::get(&format!("/{}", "a".repeat(3 * 1024))))
        .await;
    assert_eq!(url.status_and_reason(), (414, Some("url_too_long")));
    let mut many = Request::get("/x");
    for n in 0..500 {
        many = many.header(&format!("X-{n}"), "1");
    }
    assert_eq!(
        fixture.send(&many).await.error_reason(),
        Some("header_too_large")
    );
    assert!(fixture.forwarded_requests().is_empty());
    // A head without an end is cut off as well.
    let mut client = Client::connect(fixture.gateway.address()).await;
    client.send(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
    for _ in 0..64 {
        if client.send(&[b'a'; 1024]).await.is_err() {
            break;
        }
    }
    let back = client.rest().await.unwrap_or_default();
    assert!(String::from_utf8_lossy(&back).starts_with("HTTP/1.1 431") || back.is_empty());
}

#[tokio::test]
async fn a_request_head_that_trickles_in_hits_the_header_timeout() {
    let fixture = Fixture::set_up("header_timeout = \"300ms\"").await;
    let mut client = Client::connect(fixture.gateway.address()).await;
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    // Bytes keep arriving, but the head is never complete.
    let received = until_some("the header timeout", async || {
        client.send(b"X-A: b\r\n").await.unwrap();
        client.raw().now_or_never()
    })
    .await;
    let received = received.unwrap().unwrap();
    assert!(received.starts_with(b"HTTP/1.1 408 "), "{received:?}");
    assert!(fixture.forwarded_requests().is_empty());
}

#[tokio::test]
async fn a_request_body_over_the_limit_is_refused() {
    let fixture = Fixture::set_up("body = \"10KiB\"").await;
    let body = Bytes::from(vec![0; 20_000]);
    let sized = fixture
        .send(&Request::new("POST", "/x").body(Body::Sized(body.clone())))
        .await;
    assert_eq!(sized.status_and_reason(), (413, Some("body_too_large")));
    assert!(fixture.forwarded_requests().is_empty());
    let chunked = fixture
        .send(&Request::new("POST", "/x").body(Body::Chunked(body, 1000)))
        .await;
    assert_eq!(chunked.status_and_reason(), (413, Some("body_too_large")));
    for attempt in fixture.upstream.attempts().iter().skip(1) {
        assert_eq!(attempt.sha256, None, "never treated as a complete body");
    }
}

#[tokio::test]
async fn hop_by_hop_and_reserved_headers_are_stripped_from_requests() {
    let fixture = Fixture::set_up("").await;
    let request = Request::get("/x?a=b")
        .header("Connection", "keep-alive, X-Nominated")
        .header("X-Nominated", "secret")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Authorization", "Basic eDp5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers")
        .header("X-Forwarded-For", "unknown")
        .header("X-Forwarded-Host", "evil.example.com")
        .header("X-Forwarded-Port", "1")
        .header("X-Forwarded-Proto", "gopher")
        .header("Forwarded", "for=evil")
        .header("X-Hawkgate-Error", "no_route")
        .header("X-Kept", "yes");
    assert_eq!(fixture.send(&request).await.status, 200);
    let received = fixture.forwarded_requests().remove(0);
    for removed in [
        "x-nominated",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "forwarded",
        "x-hawkgate-error",
    ] {
        assert_eq!(received.header(removed), None, "{removed}");
    }
    let raw = String::from_utf8_lossy(&received.raw).to_ascii_lowercase();
    for word in ["evil", "gopher", "unknown", "bearer"] {
        assert!(!raw.contains(word), "{word} in {raw}");
    }
    assert_eq!(received.header("x-kept"), Some("yes"));
    assert_eq!(received.target, "/x?a=b");
    assert_eq!(received.fields.all("authorization").count(), 1);
    assert_eq!(received.fields.all("host").count(), 1);
}

#[tokio::test]
async fn a_route_without_a_source_does_not_forward_authorization() {
    let fixture = Fixture::set_up("").await;
    let request = Request::get("/open/x").bearer(&fixture.token);
    assert_eq!(fixture.gateway.send(&request).await.status, 200);
    let received = fixture.forwarded_requests().remove(0);
    assert_eq!(received.header("authorization"), None);
}

#[tokio::test]
async fn hop_by_hop_and_reserved_headers_are_stripped_from_responses() {
    let fixture = Fixture::with_handler("", |received| {
        let echoed = received.header("authorization").unwrap_or_default();
        Reply::new(200, "ok")
            .header("X-Hawkgate-Error", "no_route")
            .header("Authorization", echoed)
            .header("Keep-Alive", "timeout=5")
            .header("Connection", "X-Nominated")
            .header("X-Nominated", "hop")
            .header("Proxy-Authenticate", "Basic")
            .header("Proxy-Connection", "close")
            .header("Upgrade", "h2c")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
            .header("X-Kept", "yes")
    })
    .await;
    let response = fixture.send(&Request::get("/x")).await;
    assert_eq!(response.status, 200);
    for removed in [
        "x-hawkgate-error",
        "authorization",
        "keep-alive",
        "x-nominated",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
    ] {
        assert_eq!(response.header(removed), None, "{removed}");
    }
    assert_eq!(response.header("x-kept"), Some("yes"));
    let cookies: Vec<_> = response.fields.all("set-cookie").collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[tokio::test]
async fn malformed_upstream_responses_are_502() {
    for raw in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 999999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A",
        "",
    ] {
        let fixture = Fixture::with_handler("", move |received| match received.path() {
            "/first" => Reply::ok(),
            _ => Reply::raw(raw),
        })
        .await;
        let response = fixture.send(&Request::post("/x", "body")).await;
        let failed = (502, Some("upstream_failed"));
        assert_eq!(response.status_and_reason(), failed, "{raw:?}");
        assert!(!response.text().contains("nonsense"));
    }
}

#[tokio::test]
async fn a_truncated_upstream_response_is_not_passed_on_as_complete() {
    let fixture = Fixture::with_handler("", |received| match received.path() {
        "/first" => Reply::ok(),
        "/sized" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"),
        _ => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    })
    .await;
    for path in ["/sized", "/chunked"] {
        let mut client = fixture.gateway.client().await;
        let request = Request::get(path).bearer(&fixture.token);
        let response = client.request(&request).await;
        assert!(
            response.is_err() || response.unwrap().status == 502,
            "{path}"
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let fixture = Fixture::set_up("").await;
    let one =
        |n: usize, more: &str| format!("GET /open/{n} HTTP/1.1\r\nHost: api.test\r\n{more}\r\n");
    let all = [one(1, ""), one(2, ""), one(3, "Connection: close\r\n")].concat();
    let response = fixture.raw(&all).await;
    assert_eq!(response.matches("HTTP/1.1 200").count(), 3, "{response}");
    let paths: Vec<_> = fixture
        .forwarded_requests()
        .into_iter()
        .map(|s| s.target)
        .collect();
    assert_eq!(paths, ["/open/1", "/open/2", "/open/3"]);
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_parsed_as_the_next_request() {
    let fixture = Fixture::set_up("").await;
    let inner = "GET /open/smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n";
    let refused = format!(
        "POST /needs-a-token HTTP/1.1\r\nHost: api.test\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let response = fixture.raw(&format!("{refused}{LAST}")).await;
    assert_eq!(status(&response), 401);
    assert_eq!(response.matches("HTTP/1.1 200").count(), 1, "{response}");
    assert_eq!(response.matches("HTTP/1.1 ").count(), 2, "{response}");
    let paths: Vec<_> = fixture
        .forwarded_requests()
        .into_iter()
        .map(|r| r.target)
        .collect();
    assert_eq!(paths, ["/open/last"]);
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_while_all_are_busy() {
    let fixture = Fixture::set_up("connections = 3\nconnections_per_address = 0").await;
    let mut held = Vec::new();
    for number in 1..=3 {
        let mut client = fixture.gateway.client().await;
        let unfinished = "POST /open/x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\r\n{";
        client.send(unfinished.as_bytes()).await.unwrap();
        // The request of the set-up may still be counted.
        until("the request to be in flight", async || {
            let metrics = fixture.gateway.metrics().await;
            let in_flight = metrics.sum("hawkgate_requests_in_flight", &[]);
            (in_flight - f64::from(number)).abs() < 0.5
        })
        .await;
        held.push(client);
    }
    let mut fourth = fixture.gateway.client().await;
    let refused = fourth.request(&Request::get("/open/x")).await;
    let was_refused = match &refused {
        Err(_) => true,
        Ok(response) => response.error_reason() == Some("overloaded"),
    };
    assert!(was_refused, "{refused:?}");
    // Open connections keep working, and an idle one makes room for another.
    for client in &mut held {
        client.send(b"}").await.unwrap();
        assert_eq!(client.response("POST").await.unwrap().status, 200);
    }
    let mut fifth = fixture.gateway.client().await;
    let response = fifth.request(&Request::get("/open/x")).await.unwrap();
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn the_admin_listener_serves_its_own_pages_only() {
    let fixture = Fixture::set_up("").await;
    for path in ["/", "/open/x", "/metrics/", "/debug", "/healthz/x"] {
        assert_eq!(fixture.gateway.admin(path).await.status, 404, "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz", "/startupz"] {
        assert_eq!(fixture.gateway.admin(path).await.status, 200, "{path}");
    }
    assert!(fixture.forwarded_requests().is_empty());
}
