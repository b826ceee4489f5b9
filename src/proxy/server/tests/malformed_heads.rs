//! Malformed and ambiguous heads, sent as bytes on a socket, must be rejected.

use super::*;
use crate::gateway::reason::Reason;
use Reason::{BadRequest, HeaderTooLarge, InvalidAuthorization, MethodRefused, UrlTooLong};

/// A request that follows every malformed head and must never be served.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Request lines and fields, each followed by an empty line and [`SMUGGLED`].
const HEADS: &[(&str, &str, Reason)] = &[
    // Request line.
    ("HTTP/0.9", "GET /", BadRequest),
    ("no version", "GET / \r\nHost: a", BadRequest),
    (
        "HTTP/2.0 in HTTP/1",
        "GET / HTTP/2.0\r\nHost: a",
        BadRequest,
    ),
    ("HTTP/3", "GET / HTTP/3\r\nHost: a", BadRequest),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a", BadRequest),
    (
        "lower-case version",
        "GET / http/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "version with a tail",
        "GET / HTTP/1.1x\r\nHost: a",
        BadRequest,
    ),
    ("no HTTP at all", "\u{16}\u{3}\u{1}", BadRequest),
    (
        "two spaces before the target",
        "GET  / HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "two spaces before the version",
        "GET /  HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "tab as separator",
        "GET\t/\tHTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    ("leading space", " GET / HTTP/1.1\r\nHost: a", BadRequest),
    ("trailing space", "GET / HTTP/1.1 \r\nHost: a", BadRequest),
    (
        "space in the target",
        "GET /a b HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "method is no token",
        "G(T / HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "method too long",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHI / HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    ("empty method", " / HTTP/1.1\r\nHost: a", BadRequest),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: a", MethodRefused),
    (
        "trace in lower case",
        "trace / HTTP/1.1\r\nHost: a",
        MethodRefused,
    ),
    (
        "CONNECT",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443",
        MethodRefused,
    ),
    (
        "CONNECT to a path",
        "CONNECT /a HTTP/1.1\r\nHost: a",
        MethodRefused,
    ),
    ("HTTP/2 preface", "PRI * HTTP/2.0", BadRequest),
    // Target.
    (
        "another scheme",
        "GET file:///etc/passwd HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "authority-form",
        "GET a:443 HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    ("asterisk with GET", "GET * HTTP/1.1\r\nHost: a", BadRequest),
    ("no slash", "GET a HTTP/1.1\r\nHost: a", BadRequest),
    ("network path", "GET //b/c HTTP/1.1\r\nHost: a", BadRequest),
    ("dot segment", "GET /../a HTTP/1.1\r\nHost: a", BadRequest),
    (
        "dot segment at the end",
        "GET /a/.. HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    ("single dot", "GET /a/./b HTTP/1.1\r\nHost: a", BadRequest),
    (
        "encoded dot segment",
        "GET /a/%2e%2E/b HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "half encoded dot segment",
        "GET /a/.%2e?q HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "dot segment between encoded slashes",
        "GET /a%2f..%2Fb HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "dot segment behind an encoded backslash",
        "GET /a%5C.. HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "dot segment with parameters",
        "GET /a/..;x/b HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    ("fragment", "GET /a#b HTTP/1.1\r\nHost: a", BadRequest),
    (
        "fragment in the query",
        "GET /a?b#c HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    ("backslash", "GET /a\\b HTTP/1.1\r\nHost: a", BadRequest),
    ("quote", "GET /a\"b HTTP/1.1\r\nHost: a", BadRequest),
    ("backtick", "GET /a`b HTTP/1.1\r\nHost: a", BadRequest),
    ("angle bracket", "GET /<a> HTTP/1.1\r\nHost: a", BadRequest),
    (
        "control character in the target",
        "GET /a\u{1}b HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "tab in the target",
        "GET /a\tb HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "NUL in the target",
        "GET /a\0b HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "DEL in the target",
        "GET /a\u{7f}b HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "non-ASCII target",
        "GET /\u{e9} HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "bare CR in the target",
        "GET /a\rb HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    // Host.
    ("missing Host", "GET / HTTP/1.1", BadRequest),
    (
        "second Host",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        BadRequest,
    ),
    (
        "second Host, equal",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a",
        BadRequest,
    ),
    ("empty Host", "GET / HTTP/1.1\r\nHost:", BadRequest),
    ("blank Host", "GET / HTTP/1.1\r\nHost:  \t", BadRequest),
    (
        "two hosts in one",
        "GET / HTTP/1.1\r\nHost: a, b",
        BadRequest,
    ),
    (
        "Host with userinfo",
        "GET / HTTP/1.1\r\nHost: u@a",
        BadRequest,
    ),
    (
        "Host with a path",
        "GET / HTTP/1.1\r\nHost: a/b",
        BadRequest,
    ),
    (
        "Host with a bad port",
        "GET / HTTP/1.1\r\nHost: a:b",
        BadRequest,
    ),
    (
        "Host hidden by a space before the colon",
        "GET / HTTP/1.1\r\nHost : a",
        BadRequest,
    ),
    // Fields.
    (
        "folded line",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c",
        BadRequest,
    ),
    (
        "folded with a tab",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc",
        BadRequest,
    ),
    (
        "first field is indented",
        "GET / HTTP/1.1\r\n Host: a",
        BadRequest,
    ),
    (
        "space before the colon",
        "GET / HTTP/1.1\r\nHost: a\r\nX : b",
        BadRequest,
    ),
    (
        "space in a name",
        "GET / HTTP/1.1\r\nHost: a\r\nX Y: b",
        BadRequest,
    ),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX", BadRequest),
    ("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b", BadRequest),
    (
        "name is no token",
        "GET / HTTP/1.1\r\nHost: a\r\nX(: b",
        BadRequest,
    ),
    (
        "non-ASCII name",
        "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: b",
        BadRequest,
    ),
    (
        "NUL in a name",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b",
        BadRequest,
    ),
    (
        "NUL in a value",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c",
        BadRequest,
    ),
    (
        "control character in a value",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{8}c",
        BadRequest,
    ),
    (
        "DEL in a value",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{7f}",
        BadRequest,
    ),
    (
        "bare CR in a value",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c",
        BadRequest,
    ),
    (
        "CR CR LF",
        "GET / HTTP/1.1\r\nHost: a\r\r\nX: b",
        BadRequest,
    ),
    (
        "bare LF after the request line",
        "GET / HTTP/1.1\nHost: a",
        BadRequest,
    ),
    (
        "bare LF after a field",
        "GET / HTTP/1.1\r\nHost: a\nX: b",
        BadRequest,
    ),
    (
        "bare LF as the end",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        BadRequest,
    ),
    (
        "two empty lines in front",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "bare LF in front",
        "\nGET / HTTP/1.1\r\nHost: a",
        BadRequest,
    ),
    (
        "Expect of something else",
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok",
        BadRequest,
    ),
    (
        "Connection: host",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, HOST",
        BadRequest,
    ),
    (
        "Connection: authorization",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: authorization",
        BadRequest,
    ),
    (
        "Connection: content-length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: content-length",
        BadRequest,
    ),
    (
        "second Authorization",
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nauthorization: Bearer y",
        InvalidAuthorization,
    ),
    (
        "second Authorization, equal",
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nAuthorization: Bearer x",
        InvalidAuthorization,
    ),
    // Framing.
    (
        "CL and TE",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        BadRequest,
    ),
    (
        "TE and CL",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0",
        BadRequest,
    ),
    (
        "two CLs",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6",
        BadRequest,
    ),
    (
        "two equal CLs",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0",
        BadRequest,
    ),
    (
        "CL list",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5",
        BadRequest,
    ),
    (
        "negative CL",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1",
        BadRequest,
    ),
    (
        "signed CL",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5",
        BadRequest,
    ),
    (
        "hexadecimal CL",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5",
        BadRequest,
    ),
    (
        "empty CL",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:",
        BadRequest,
    ),
    (
        "CL with a space",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0",
        BadRequest,
    ),
    (
        "CL past 63 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808",
        BadRequest,
    ),
    (
        "CL past 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999",
        BadRequest,
    ),
    (
        "TE list",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
        BadRequest,
    ),
    (
        "TE identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity",
        BadRequest,
    ),
    (
        "TE with a vertical tab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked",
        BadRequest,
    ),
    (
        "TE in quotes",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"",
        BadRequest,
    ),
    (
        "TE twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        BadRequest,
    ),
    (
        "TE with a parameter",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1",
        BadRequest,
    ),
    (
        "empty TE",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:",
        BadRequest,
    ),
    (
        "TE on HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
        BadRequest,
    ),
    (
        "WebSocket with a body",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 3",
        BadRequest,
    ),
];

async fn assert_rejected(server: &TestServer, name: &str, bytes: &[u8], reason: Reason) {
    let before = server.outcomes().len();
    let responses = server.exchange(bytes).await;
    assert_eq!(responses.len(), 1, "{name}: {responses:?}");
    let response = &responses[0];
    assert_eq!(
        response.status,
        reason.status().as_u16(),
        "{name}: {response:?}"
    );
    let label = crate::label::Label::label(reason);
    assert_eq!(response.header("x-hawkgate-error"), Some(label), "{name}");
    assert_eq!(response.header("connection"), Some("close"), "{name}");
    assert_eq!(response.header("cache-control"), Some("no-store"), "{name}");
    let body: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!(body["requestInfo"]["payload"], serde_json::Value::Null);
    let outcomes = server.outcomes();
    assert_eq!(outcomes.len(), before + 1, "{name}");
    let outcome = &outcomes[before];
    assert_eq!(outcome.rejection, Some(reason), "{name}");
    assert_eq!(outcome.code, response.status, "{name}");
    assert!(
        !outcome.path.contains(['?', '#', '\r', '\n', '\0']),
        "{name}"
    );
    assert_eq!(server.served(), 0, "{name}");
}

#[tokio::test]
async fn every_malformed_or_ambiguous_head_is_rejected_and_closes_the_connection() {
    let server = TestServer::start_plain().await;
    assert!(HEADS.len() >= 50);
    for (name, head, reason) in HEADS {
        assert_rejected(
            &server,
            name,
            format!("{head}\r\n\r\n{SMUGGLED}").as_bytes(),
            *reason,
        )
        .await;
    }
}

#[tokio::test]
async fn heads_over_a_size_limit_are_rejected() {
    let server = TestServer::start_plain().await;
    let url = "a".repeat(8 * 1024);
    let value = "v".repeat(33 * 1024);
    let many = "x: y\r\n".repeat(1000);
    for (name, head, reason) in [
        (
            "long URL",
            format!("GET /{url} HTTP/1.1\r\nHost: a"),
            UrlTooLong,
        ),
        ("URL without end", format!("GET /{url}{url}"), UrlTooLong),
        (
            "long value",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}"),
            HeaderTooLarge,
        ),
        (
            "long name",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{value}: x"),
            HeaderTooLarge,
        ),
        (
            "1,000 fields",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{many}X: y"),
            HeaderTooLarge,
        ),
    ] {
        assert_rejected(
            &server,
            name,
            format!("{head}\r\n\r\n{SMUGGLED}").as_bytes(),
            reason,
        )
        .await;
    }
}

#[tokio::test]
async fn an_endless_head_is_rejected_at_the_size_limit() {
    let server = TestServer::start_plain().await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n")
        .await
        .unwrap();
    stream
        .write_all("x: yyyyyyyyyyyyyyyy\r\n".repeat(2000).as_bytes())
        .await
        .unwrap();
    let responses = read_responses(&mut stream).await;
    assert_eq!(responses[0].status, 431);
    assert_eq!(server.served(), 0);
}

#[tokio::test]
async fn a_trickled_head_gets_a_408_at_the_header_timeout() {
    let limits = Limits {
        header_timeout: Duration::from_millis(100),
        ..limits()
    };
    let server = TestServer::start(&[tcp()], &limits).await;
    let responses = server.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    assert_eq!(responses[0].status, 408);
    assert_eq!(server.outcomes()[0].rejection, Some(Reason::HeaderTimeout));
    assert_eq!(server.outcomes()[0].path, "/");
    assert_eq!(server.served(), 0);
}

#[tokio::test]
async fn the_connection_of_a_caller_that_keeps_sending_after_a_rejection_is_closed() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        linger: Duration::from_millis(100),
        ..limits()
    };
    let server = TestServer::start(&[tcp()], &limits).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(read_response(&mut stream).await.status, 408);
    let sending = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    // Well before the default linger time has passed.
    let cut_off = tokio::time::timeout(Limits::LINGER / 2, sending).await;
    cut_off.expect("the connection is still open");
}

#[tokio::test]
async fn silent_and_idle_connections_are_closed_without_a_response() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(50),
        ..limits()
    };
    let server = TestServer::start(&[tcp()], &limits).await;
    assert!(server.exchange(b"").await.is_empty());
    assert!(server.exchange(b"\r\n").await.is_empty());
    let responses = server.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(responses.len(), 1);
    assert!(server.outcomes().is_empty());
}

#[tokio::test]
async fn the_rejection_of_a_request_with_method_head_has_no_body() {
    let server = TestServer::start_plain().await;
    let responses = server
        .exchange(b"HEAD /../x HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(responses[0].status, 400);
    assert_eq!(responses[0].body, "");
    assert_ne!(responses[0].header("content-length"), Some("0"));
}

#[tokio::test]
async fn requests_after_a_malformed_chunked_body_are_not_served() {
    let server = TestServer::start_plain().await;
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "ffffffffffffffffff\r\n",
        "5;\u{0}\r\nhello\r\n0\r\n\r\n",
    ] {
        let before = server.served();
        let request = format!(
            "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
        );
        let responses = server.exchange(request.as_bytes()).await;
        assert!(
            responses.iter().all(|response| response.status >= 400),
            "{body:?}: {responses:?}"
        );
        // The request itself was started, but the one after it was not.
        assert_eq!(server.served(), before + 1, "{body:?}");
    }
}
