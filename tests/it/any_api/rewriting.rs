//! Path prefixes, header edits and hosts of routes.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{assert_ok, at, gateway, values};
use crate::support::client::Request;
use crate::support::gateway::{ConfigDir, ROOT_KEY, TestGateway};
use crate::support::upstream::{FakeUpstream, ReceivedRequest, Reply, ReplyBody};

const STATIC: &str = r#"
[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = { file = "access-token" }
"#;

/// Whether the request's Hawk signature is the one of the client `root` for the target that arrived.
fn is_signed(received: &ReceivedRequest) -> bool {
    let header = received.header("authorization").unwrap_or_default();
    let attribute = |name: &str| {
        let (_, rest) = header.split_once(&format!("{name}=\"")).unwrap();
        rest.split('"').next().unwrap()
    };
    let (host, port) = received.authority.rsplit_once(':').unwrap();
    let signed = format!(
        "hawk.1.header\n{}\n{}\n{}\n{}\n{host}\n{port}\n\n\n",
        attribute("ts"),
        attribute("nonce"),
        received.method,
        received.target,
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, ROOT_KEY.as_bytes());
    attribute("mac") == STANDARD.encode(hmac::sign(&key, signed.as_bytes()))
}

/// Answers 401 below `/own/`, and switches protocols on request.
async fn api() -> FakeUpstream {
    FakeUpstream::http1(|received| {
        if received.header("upgrade").is_some() {
            return Reply {
                payload: ReplyBody::Echo,
                ..Reply::new(101, "").header("Upgrade", "websocket")
            };
        }
        match received.path() {
            path if path.contains("/own/") => Reply::unauthorized("of its own"),
            _ => Reply::ok().header("location", "/elsewhere"),
        }
    })
    .await
}

fn last_target(upstream: &FakeUpstream) -> String {
    upstream.attempts().last().unwrap().request.target.clone()
}

#[tokio::test]
async fn the_path_that_is_sent_is_signed_and_the_callers_decides() {
    let upstream = api().await;
    let keys = r#"
path = "/tc/api/"
strip_prefix = "/tc"
source = "static"
passes_401 = ["/api/own/"]
"#;
    let rules = r#"
[[rule]]
name = "secrets"
effect = "deny"
when = 'request.path.startsWith("/tc/api/secrets/")'
[[rule]]
name = "others"
when = 'request.path.startsWith("/tc/api/")'
"#;
    let gateway = gateway(
        ConfigDir::new(),
        &upstream.url(),
        keys,
        &format!("{STATIC}{rules}"),
    )
    .await;
    for (target, sent) in [
        ("/tc/api/", "/api/"),
        (
            "/tc/api/queue/v1/task/a%2Fb?x=%20/tc",
            "/api/queue/v1/task/a%2Fb?x=%20/tc",
        ),
        ("/tc/api/a//b?", "/api/a//b?"),
        ("/tc/api/tc/api/x", "/api/tc/api/x"),
    ] {
        let response = gateway.send(&Request::get(target)).await;
        assert_ok(&response);
        assert_eq!(response.header("location"), Some("/elsewhere"));
        assert_eq!(last_target(&upstream), sent);
        assert!(
            is_signed(&upstream.attempts().last().unwrap().request),
            "{target}"
        );
    }
    let response = gateway.send(&Request::get("/tc/api/x?bewit=abc")).await;
    assert_ok(&response);
    let unsigned = upstream.attempts().last().unwrap().request.clone();
    assert_eq!(unsigned.target, "/api/x?bewit=abc");
    assert_eq!(unsigned.header("authorization"), None);

    let before = upstream.attempts().len();
    for (target, expected) in [
        ("/tc/api/secrets/x", (403, Some("rule_denied"))),
        ("/api/x", (404, Some("no_route"))),
        ("/tc", (404, Some("no_route"))),
        ("/tc/apix", (404, Some("no_route"))),
        ("/TC/api/x", (404, Some("no_route"))),
    ] {
        let response = gateway.send(&Request::get(target)).await;
        assert_eq!(response.status_and_reason(), expected, "{target}");
    }
    for target in [
        "/tc%2Fapi/x",
        "/%74c/api/x",
        "/tc//api/x",
        "/tc/api/%73ecrets/x",
        "/tc/api/..%2fx",
        "/tc/api/%2e%2e/x",
    ] {
        let response = gateway.send(&Request::get(target)).await;
        assert_eq!(response.status, 400, "{target}");
    }
    assert_eq!(upstream.attempts().len(), before);

    let response = gateway.send(&Request::get("/tc/api/own/x")).await;
    assert_eq!((response.status, response.error_reason()), (401, None));
    let labels = [("reason", "upstream_own")];
    gateway
        .wait_for_metric("hawkgate_upstream_unauthorized_total", &labels, 1)
        .await;

    let mut client = gateway.client().await;
    let request = Request::get("/tc/api/socket?a")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(client.request(&request).await.unwrap().status, 101);
    assert_eq!(last_target(&upstream), "/api/socket?a");
}

#[tokio::test]
async fn no_stripped_path_can_be_read_as_the_name_of_a_host() {
    let upstream = api().await;
    let keys = "path = \"/x\"\nstrip_prefix = \"/x/\"";
    let root = gateway(ConfigDir::new(), &upstream.url(), keys, "").await;
    for (target, sent) in [
        ("/x", "/"),
        ("/x?a=b", "/?a=b"),
        ("/x/", "/"),
        ("/x/a", "/a"),
    ] {
        assert_ok(&root.send(&Request::get(target)).await);
        assert_eq!(last_target(&upstream), sent);
    }
    let before = upstream.attempts().len();
    for target in [
        "/x//evil.example",
        "/x/%2Fevil.example",
        "/x/;a/evil",
        "/x/../y",
    ] {
        let response = root.send(&Request::get(target)).await;
        assert_eq!(response.status, 400, "{target}");
        assert!(response.error_reason().is_some());
    }
    assert_eq!(upstream.attempts().len(), before);

    let keys = "path = \"/x/\"\nstrip_prefix = \"/x\"\nadd_prefix = \"/api/v3\"\n\
                case_insensitive_path = true";
    let below = gateway(ConfigDir::new(), &upstream.url(), keys, "").await;
    for (target, sent) in [("/X/a//B?c", "/api/v3/a//B?c"), ("/x/", "/api/v3/")] {
        assert_ok(&below.send(&Request::get(target)).await);
        assert_eq!(last_target(&upstream), sent);
    }
}

#[tokio::test]
async fn headers_are_changed_in_both_directions_and_once_in_each_attempt() {
    let upstream = FakeUpstream::http1(|received| {
        let reply = match received.repeat {
            0 => Reply::unauthorized("once"),
            _ => Reply::ok(),
        };
        reply
            .header("Server", "upstream/1")
            .header("X-Frame-Options", "ALLOW")
            .header("Vary", "Accept")
    })
    .await;
    let keys = r#"
source = "static"
strip_headers = ["x-corp-*"]
[route.request_headers]
set = { "X-Api-Version" = "2", "x-corp-tenant" = "own" }
add = { "X-Tag" = "gateway" }
remove = ["X-Debug"]
[route.response_headers]
set = { "Strict-Transport-Security" = "max-age=63072000", "X-Frame-Options" = "DENY" }
add = { "Vary" = "Cookie" }
remove = ["Server"]
"#;
    let trace = "[trace]\nendpoint = \"http://127.0.0.1:9/v1/traces\"\n";
    for sections in [STATIC.to_owned(), format!("{STATIC}{trace}")] {
        let gateway = gateway(ConfigDir::new(), &upstream.url(), keys, &sections).await;
        let target = format!("/{}", sections.len());
        let request = Request::get(&target)
            .header("x-api-version", "1")
            .header("x_api_version", "1")
            .header("x-corp-tenant", "forged")
            .header("x-tag", "caller")
            .header("x-debug", "1");
        let response = gateway.send(&request).await;
        assert_ok(&response);
        let attempts = upstream.attempts_at(&target);
        assert_eq!(attempts.len(), 2);
        for attempt in attempts {
            let fields = &attempt.request.fields;
            assert_eq!(values(fields, "x-api-version"), ["2"]);
            assert_eq!(values(fields, "x_api_version"), [""; 0]);
            assert_eq!(values(fields, "x-corp-tenant"), ["own"]);
            assert_eq!(values(fields, "x-tag"), ["caller", "gateway"]);
            assert_eq!(values(fields, "x-debug"), [""; 0]);
        }
        for (name, expected) in [
            ("server", &[][..]),
            ("x-frame-options", &["DENY"]),
            ("strict-transport-security", &["max-age=63072000"]),
            ("vary", &["Accept", "Cookie"]),
        ] {
            assert_eq!(values(&response.fields, name), expected, "{name}");
        }
        let own = gateway.send(&Request::get("/%2e%2e/")).await;
        assert_eq!(own.status, 400);
        assert_eq!(own.header("strict-transport-security"), None);
    }
}

#[tokio::test]
async fn a_route_may_be_for_several_hosts_and_for_all_below_a_domain() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let url = upstream.url();
    let route = |name: &str, host: &str, add: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nhost = {host}\nupstream = \"{url}\"\nanonymous = true\n\
             add_prefix = \"/{add}\"\n"
        )
    };
    let sections = [
        route("listed", r#"["one.test", "two.test"]"#, "listed"),
        route("below", r#""*.test""#, "below"),
        route("exact", r#""three.test""#, "exact"),
    ]
    .concat();
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                  local_hosts = [\"four.test\", \"a.five.test\"]\n";
    let gateway = TestGateway::start_with(
        &format!("{server}{sections}"),
        ConfigDir::new(),
        hawkgate::clock::SystemClock::shared(),
    )
    .await;
    for (host, expected) in [
        ("one.test", "/listed/"),
        ("TWO.test.:8080", "/listed/"),
        ("three.test", "/exact/"),
        ("four.test", "/below/"),
        ("a.five.test", "/below/"),
    ] {
        assert_ok(&gateway.send(&at(host, "/")).await);
        let received = upstream.attempts().last().unwrap().request.clone();
        assert_eq!(received.target, expected, "{host}");
        assert_eq!(received.authority, url.trim_start_matches("http://"));
    }
    for (host, expected) in [
        ("test", (404, Some("no_route"))),
        ("one.test.evil", (404, Some("no_route"))),
        ("127.0.0.1", (404, Some("no_route"))),
        // The owner of any name below the domain may let it resolve to this machine.
        ("rebound.test", (403, Some("host_not_allowed"))),
    ] {
        let response = gateway.send(&at(host, "/")).await;
        assert_eq!(response.status_and_reason(), expected, "{host}");
    }
}
