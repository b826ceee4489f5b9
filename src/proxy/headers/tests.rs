use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::gateway::CredentialHeader;
use crate::gateway::request_headers::{HeaderPattern, IDENTITY_HEADERS};
use crate::gateway::route::UpstreamTimeouts;

fn upstream() -> Upstream {
    let second = Duration::from_secs(1);
    Upstream {
        tls: true,
        host: "tc.example.com".into(),
        port: 8443,
        authority: HeaderValue::from_static("tc.example.com:8443"),
        signed_port: 443,
        ca: None,
        additional_ca: None,
        proxy: None,
        http2: false,
        timeouts: UpstreamTimeouts {
            connect: second,
            read: second,
            write: second,
            idle: second,
        },
        addresses: crate::gateway::upstream_addresses::UpstreamAddresses::fixed(vec![]),
        clock: crate::gateway::UpstreamClock::default(),
    }
}

/// Collects fields in order.
fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, value.parse().unwrap());
    }
    map
}

fn prepared(headers: &[(&'static str, &str)], peer: Option<&str>) -> HeaderMap {
    let mut head = fields(headers);
    let peer = peer.map(|p| p.parse().unwrap());
    let upgrade = asks_for_upgrade(&head, Version::HTTP_11);
    let stripped = StrippedHeaders::default();
    prepare_request(&mut head, upgrade, &stripped, &upstream(), peer, "id-1").unwrap();
    head
}

#[test]
fn fields_that_recipients_read_as_reserved_ones_are_removed() {
    let kept = [
        "x_custom",
        "x.custom",
        "x-custom",
        "my_host",
        "transfer_encodings",
    ];
    let removed = [
        "X_Forwarded_For",
        "X.Real.IP",
        "x-forwarded_user",
        "Keep_Alive",
        "Proxy_Connection",
        "Proxy_Authorization",
        "HTTP2_Settings",
        "X_HTTP_Method_Override",
        "X_Request_Id",
        "x~hawkgate~subject",
        "Content_Type",
        "Content_Encoding",
        "If_Match",
        "Transfer_Encoding",
        "Content!Length",
        "Remote_User",
        "X_Remote_User",
        "SSL_CLIENT_S_DN",
        "OIDC_CLAIM_sub",
        "SM_USER",
        "Proxy",
    ];
    let fields: Vec<_> = kept
        .iter()
        .chain(&removed)
        .map(|name| (*name, "1"))
        .collect();
    let head = prepared(&fields, None);
    let mut expected = [&SET_BY_HAWKGATE[..], &kept].concat();
    expected.sort_unstable();
    assert_eq!(names(&head), expected);
}

#[test]
fn identity_fields_of_other_proxies_are_removed_unless_the_route_keeps_them() {
    let mut fields: Vec<_> = IDENTITY_HEADERS
        .iter()
        .map(|entry| (entry.trim_end_matches('*'), "admin"))
        .map(|(name, value)| {
            (
                if name.ends_with('-') {
                    "x-remote-user"
                } else {
                    name
                },
                value,
            )
        })
        .collect();
    fields.push(("x-tenant", "1"));
    fields.push(("x_tenant", "1"));
    fields.push(("x_webauth_user", "1"));
    let stripped = |also: &[&str], kept: &[&str]| {
        let parse = |written: &[&str]| {
            let parsed = written.iter().map(|p| HeaderPattern::parse(p).unwrap());
            parsed.collect()
        };
        let stripped = StrippedHeaders {
            also: parse(also),
            kept: parse(kept),
        };
        let mut head = super::tests::fields(&fields);
        head.append("x-webauth-user", HeaderValue::from_static("admin"));
        prepare_request(&mut head, false, &stripped, &upstream(), None, "id-1").unwrap();
        let left = names(&head)
            .into_iter()
            .filter(|n| !SET_BY_HAWKGATE.contains(n));
        left.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(stripped(&[], &[]), ["x-tenant", "x_tenant"]);
    assert_eq!(stripped(&["X-Tenant"], &[]), [""; 0]);
    let kept = stripped(&["x-ten*"], &["X-Webauth-User", "x-forwarded-user"]);
    assert_eq!(kept, ["x-forwarded-user", "x-webauth-user"]);
}

#[test]
fn response_fields_that_recipients_read_as_hop_by_hop_are_removed() {
    let head = sanitized(
        StatusCode::OK,
        &[
            ("Transfer_Encoding", "chunked"),
            ("Content_Length", "0"),
            ("X_Hawkgate_Error", "internal"),
            ("Keep_Alive", "1"),
            ("Server_Authorization", "1"),
            ("x_custom", "1"),
        ],
    );
    assert_eq!(names(&head), ["x_custom"]);
}

fn names(head: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = head.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

const SET_BY_HAWKGATE: [&str; 4] = [
    "host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

#[test]
fn forwarding_and_credential_headers_are_replaced() {
    let head = prepared(
        &[
            ("Host", "callers.example"),
            ("Authorization", "Bearer x"),
            ("Authorization", "Hawk y"),
            ("Proxy-Authorization", "x"),
            ("Proxy-Connection", "x"),
            ("Forwarded", "x"),
            ("X-Forwarded", "x"),
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Forwarded-Server", "x"),
            ("X-Forwarded-Prefix", "x"),
            ("X_Forwarded_For", "1.1.1.1"),
            ("X-Forwarded_Port", "1"),
            ("X-Real-IP", "x"),
            ("True-Client-IP", "x"),
            ("CF-Connecting-IP", "x"),
            ("X-Original-URL", "x"),
            ("X-Original-Host", "x"),
            ("X-Rewrite-URL", "x"),
            ("X-HTTP-Method-Override", "x"),
            ("X-Hawkgate-Subject", "x"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Keep-Alive", "x"),
            ("Upgrade-Insecure-Requests", "1"),
        ],
        None,
    );
    let mut expected = SET_BY_HAWKGATE.to_vec();
    expected.push("upgrade-insecure-requests");
    expected.sort_unstable();
    assert_eq!(names(&head), expected);
    assert_eq!(head[header::HOST], "tc.example.com:8443");
    assert_eq!(head[X_FORWARDED_PORT], "443");
    assert_eq!(head[X_FORWARDED_PROTO], "https");
}

#[test]
fn x_forwarded_for_is_one_plain_address_or_absent() {
    let from = |peer| {
        let head = prepared(&[("X-Forwarded-For", "6.6.6.6")], peer);
        let value = head.get(X_FORWARDED_FOR);
        value.map(|v| v.to_str().unwrap().to_owned())
    };
    assert_eq!(from(Some("10.1.2.3")).as_deref(), Some("10.1.2.3"));
    assert_eq!(from(Some("2001:db8::1")).as_deref(), Some("2001:db8::1"));
    assert_eq!(from(None), None);
}

#[test]
fn an_upgrade_request_keeps_its_upgrade_header() {
    let head = prepared(&[("Connection", "Upgrade"), ("Upgrade", "websocket")], None);
    assert_eq!(head[header::CONNECTION], "Upgrade");
    assert_eq!(head[header::UPGRADE], "websocket");
}

#[test]
fn cookie_field_lines_are_joined() {
    let head = prepared(
        &[("Cookie", "a=1"), ("Cookie", "b=2"), ("Cookie", "c=3")],
        None,
    );
    let cookies: Vec<_> = head.get_all(header::COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

fn sanitized(status: StatusCode, headers: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut head = fields(headers);
    sanitize_response(&mut head, status).unwrap();
    head
}

#[test]
fn headers_listed_in_connection_are_removed_except_framing_headers() {
    let head = sanitized(
        StatusCode::OK,
        &[
            ("Connection", "close, X-Hop ,content-length"),
            ("Connection", "transfer-encoding,X-Other"),
            ("X-Hop", "1"),
            ("X-Other", "1"),
            ("X-Kept", "1"),
            ("Content-Length", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
        ],
    );
    assert_eq!(
        names(&head),
        ["content-length", "transfer-encoding", "x-kept"]
    );
}

#[test]
fn only_a_101_keeps_its_upgrade_header() {
    let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let switching = sanitized(StatusCode::SWITCHING_PROTOCOLS, &headers);
    assert_eq!(names(&switching), ["connection", "upgrade"]);
    assert!(sanitized(StatusCode::OK, &headers).is_empty());
}

#[test]
fn trailers_are_sanitized_like_headers() {
    let mut map = HeaderMap::new();
    for name in ["authorization", "x-hawkgate-error", "x-checksum"] {
        map.insert(name, HeaderValue::from_static("1"));
    }
    sanitize_trailers(&mut map).unwrap();
    assert_eq!(names(&map), ["x-checksum"]);
}

#[test]
fn only_plain_request_ids_are_accepted() {
    let id = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, value.parse().unwrap());
        }
        request_id(&headers).map(str::to_owned)
    };
    assert_eq!(id(&["a-1_b.C"]).as_deref(), Some("a-1_b.C"));
    let longest = "x".repeat(MAX_REQUEST_ID);
    assert_eq!(id(&[&longest]), Some(longest.clone()));
    let too_long = longest + "x";
    for bad in ["", "a b", "a\"b", "a=b", "ä", too_long.as_str()] {
        assert_eq!(id(&[bad]), None, "{bad:?}");
    }
    assert_eq!(id(&["a", "b"]), None);
    assert_eq!(id(&[]), None);
}

#[test]
fn request_headers_named_like_an_injected_header_are_removed() {
    let mut head = prepared(
        &[
            ("X-Api-Token", "a"),
            ("x-api-token", "b"),
            ("X_Api_Token", "c"),
            ("x-api_token", "d"),
            ("X-Api-Tokens", "stays"),
        ],
        None,
    );
    remove_reserved(&mut head, &HeaderName::from_static("x-api-token")).unwrap();
    let left: Vec<_> = names(&head)
        .into_iter()
        .filter(|name| !SET_BY_HAWKGATE.contains(name))
        .collect();
    assert_eq!(left, ["x-api-tokens"]);
}

fn sent(value: &str, secret: &str) -> SentCredentials {
    let at = value.find(secret).unwrap();
    let mut sent = SentCredentials::default();
    sent.record(CredentialHeader::for_test(value, at..at + secret.len()));
    sent
}

#[test]
fn fields_that_echo_the_credential_are_removed_except_framing_fields() {
    let sent = sent("Bearer 11", "11");
    let mut head = fields(&[
        ("X-Echo", "Bearer 11"),
        ("Location", "https://x.example/?t=11"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "t=11"),
        ("Content-Length", "11"),
        ("X-Plain", "1 1"),
    ]);
    remove_echoes(&mut head, StatusCode::OK, &sent).unwrap();
    assert_eq!(names(&head), ["content-length", "set-cookie", "x-plain"]);
    let cookies: Vec<_> = head.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1"]);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("2; 11"));
    trailers.insert("x-other", HeaderValue::from_static("1"));
    remove_echoes_from_trailers(&mut trailers, &sent).unwrap();
    assert_eq!(names(&trailers), ["x-other"]);
}

#[test]
fn an_upgrade_that_echoes_the_credential_is_refused() {
    let sent = sent("Bearer a-token-of-this-test", "a-token-of-this-test");
    for (name, value, ok) in [
        ("Upgrade", "websocket", true),
        ("Upgrade", "websocket, A-Token-Of-This-Test", false),
        ("Connection", "upgrade, a-token-of-this-test", false),
        ("X-a-token-of-this-test", "1", true),
    ] {
        let mut head = fields(&[(name, value)]);
        let removed = remove_echoes(&mut head, StatusCode::SWITCHING_PROTOCOLS, &sent);
        assert_eq!(removed.is_ok(), ok, "{name}: {value}");
        assert!(!ok || !names(&head).iter().any(|name| name.contains("token")));
    }
}
