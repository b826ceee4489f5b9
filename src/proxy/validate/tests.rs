//! Tests of the rules for parsed heads, which are those of HTTP/2. The table of malformed HTTP/1
//! heads is in the server's tests, which send them over real sockets.

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes: 1000,
    url_bytes: 100,
};

fn head(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> http::request::Parts {
    let (mut parts, ()) = http::Request::builder()
        .method(method)
        .uri(uri)
        .version(Version::HTTP_2)
        .body(())
        .unwrap()
        .into_parts();
    for (name, value) in fields {
        parts.headers.append(
            *name,
            http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    parts
}

fn rejection_of(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Option<Reason> {
    check_http2(&head(method, uri, fields), &LIMITS)
        .err()
        .map(|rejection| rejection.reason)
}

#[test]
fn valid_http2_heads_pass() {
    for (uri, fields) in [
        ("https://a/b?c", &[] as &[(&str, &str)]),
        (
            "https://a:8443/b",
            &[("host", "a:8443"), ("authorization", "Bearer x")],
        ),
        (
            "https://a/b",
            &[
                ("content-length", "5"),
                ("expect", "100-continue"),
                ("te", "trailers"),
            ],
        ),
    ] {
        assert_eq!(rejection_of("POST", uri, fields), None, "{uri} {fields:?}");
    }
}

#[test]
fn http2_heads_are_checked_by_the_rules_of_http1() {
    use Reason::{BadRequest, InvalidAuthorization, MethodRefused, UrlTooLong};
    let long = format!("https://a/{}", "x".repeat(100));
    for (method, uri, fields, reason) in [
        (
            "TRACE",
            "https://a/",
            &[] as &[(&'static str, &str)],
            MethodRefused,
        ),
        ("CONNECT", "https://a/", &[], MethodRefused),
        ("GET", "/no-authority", &[], BadRequest),
        ("GET", "https://a/", &[("host", "b")], BadRequest),
        (
            "GET",
            "https://a/",
            &[("host", "a"), ("host", "a")],
            BadRequest,
        ),
        ("GET", "https://u@a/", &[], BadRequest),
        ("GET", "https://a/../b", &[], BadRequest),
        ("GET", "https://a/%2e%2e/b", &[], BadRequest),
        ("GET", "https://a//b", &[], BadRequest),
        ("GET", &long, &[], UrlTooLong),
        (
            "GET",
            "https://a/",
            &[("authorization", "Bearer x"), ("authorization", "Bearer x")],
            InvalidAuthorization,
        ),
        (
            "POST",
            "https://a/",
            &[("content-length", "5"), ("content-length", "5")],
            BadRequest,
        ),
        (
            "POST",
            "https://a/",
            &[("content-length", "5, 5")],
            BadRequest,
        ),
        (
            "POST",
            "https://a/",
            &[("transfer-encoding", "chunked")],
            BadRequest,
        ),
        ("GET", "https://a/", &[("connection", "close")], BadRequest),
        ("GET", "https://a/", &[("upgrade", "websocket")], BadRequest),
        ("GET", "https://a/", &[("keep-alive", "1")], BadRequest),
        (
            "GET",
            "https://a/",
            &[("proxy-connection", "close")],
            BadRequest,
        ),
        ("GET", "https://a/", &[("expect", "x")], BadRequest),
        (
            "POST",
            "https://a/",
            &[("transfer_encoding", "chunked")],
            BadRequest,
        ),
        ("POST", "https://a/", &[("content_length", "0")], BadRequest),
        ("POST", "https://a/", &[("content.length", "0")], BadRequest),
    ] {
        assert_eq!(
            rejection_of(method, uri, fields),
            Some(reason),
            "{method} {uri} {fields:?}"
        );
    }
}

#[test]
fn the_number_of_header_fields_is_limited() {
    let fields = vec![("x", "y"); MAX_FIELDS + 1];
    assert_eq!(
        rejection_of("GET", "https://a/", &fields),
        Some(Reason::HeaderTooLarge)
    );
    assert_eq!(rejection_of("GET", "https://a/", &fields[1..]), None);
}

#[test]
fn the_number_of_connection_options_is_limited() {
    let check = |count| {
        let options = "x-a, ,".repeat(count);
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}\r\nConnection: close\r\n\r\n"
        );
        let limits = HeadLimits {
            header_bytes: 32 * 1024,
            ..LIMITS
        };
        check_raw(head.as_bytes(), &limits).map_err(|rejected| rejected.rejection.reason)
    };
    assert!(check(MAX_CONNECTION_OPTIONS - 1).is_ok());
    let refused = check(MAX_CONNECTION_OPTIONS).unwrap_err();
    assert_eq!(refused, Reason::BadRequest);
}

#[test]
fn a_rejected_head_does_not_contain_the_query() {
    let head = b"GET /a\x01?secret HTTP/1.0\r\nHost: a\r\n\r\n";
    let rejected = check_raw(head, &LIMITS).unwrap_err();
    assert_eq!(rejected.path, "/a.");
    assert_eq!(rejected.version, Version::HTTP_10);
    assert!(!format!("{rejected:?}").contains("secret"));
    let nonsense = check_raw(b"\x16\x03\x01\r\n\r\n", &LIMITS).unwrap_err();
    assert_eq!(
        (nonsense.method.as_str(), nonsense.path.as_str()),
        ("-", "-")
    );
}

/// The framing of a head with this request line and these fields, or why it is rejected.
fn raw(line: &str, fields: &[&str]) -> Result<Framing, Reason> {
    let head = [&[line], fields, &["", ""]].concat().join("\r\n");
    check_raw(head.as_bytes(), &LIMITS).map_err(|rejected| rejected.rejection.reason)
}

#[test]
fn only_http11_requires_a_host() {
    assert_eq!(raw("GET / HTTP/1.0", &[]), Ok(Framing::Length(0)));
    assert_eq!(
        raw("POST / HTTP/1.0", &["Content-Length: 5"]),
        Ok(Framing::Length(5))
    );
    assert_eq!(raw("GET / HTTP/1.0", &["Host: a"]), Ok(Framing::Length(0)));
    for (line, fields) in [
        ("GET / HTTP/1.1", &[][..]),
        ("GET / HTTP/1.0", &["Host: a", "Host: a"]),
        ("GET / HTTP/1.0", &["Host:"]),
        ("GET / HTTP/1.0", &["Host: a@b"]),
        ("POST / HTTP/1.0", &["Transfer-Encoding: chunked"]),
    ] {
        assert_eq!(
            raw(line, fields),
            Err(Reason::BadRequest),
            "{line} {fields:?}"
        );
    }
}

#[test]
fn a_path_in_absolute_form_is_refused_in_http2() {
    // RFC 9113 §8.3.1: `:path` begins with a slash, or is `*`.
    for path in ["http://b/", "http://a/x", "HTTPS://b", "*"] {
        let Ok(path) = path.parse::<http::uri::PathAndQuery>() else {
            // Then the library cannot deliver it either.
            continue;
        };
        let mut parts = head("GET", "https://a/", &[]);
        let mut uri = parts.uri.into_parts();
        uri.path_and_query = Some(path);
        parts.uri = http::Uri::from_parts(uri).unwrap();
        let refused = check_http2(&parts, &LIMITS).map_err(|rejection| rejection.reason);
        assert_eq!(refused, Err(Reason::BadRequest), "{:?}", parts.uri);
    }
}
