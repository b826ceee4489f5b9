//! Swapping tokens for credentials, against a Taskcluster that verifies Hawk: every kind of source, and
//! recovery from a 401.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::client::{Body, Client, Request, Response};
use crate::support::standard::{Standard, to};
use crate::support::upstream::sha256;

const OAUTH: &str = "/login/oauth/credentials";

/// The request as Taskcluster received it, echoed in a successful response.
fn echo(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.error_reason(), None);
    response.json()
}

#[tokio::test]
async fn the_login_source_exchanges_a_bearer_token_for_named_credentials() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("ad|Mozilla|user!1").await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
        let request = to(
            "login",
            Request::new(method, "/api/queue/v1/task/x"),
            &token,
        );
        let response = fixture.gateway.send(&request).await;
        assert_eq!(response.status, 200, "{method}");
        if method != "HEAD" {
            let echo = response.json();
            assert_eq!(echo["clientId"], "mozilla-auth0/ad|Mozilla|user!211");
            assert_eq!(echo["scheme"], "Hawk");
            assert_eq!(echo["method"], method);
        }
    }
    assert_eq!(fixture.peers.exchanges().await, 1);
}

#[tokio::test]
async fn path_and_query_are_forwarded_and_signed_byte_for_byte() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    for target in [
        "/api/a%2Fb/c",
        "/api//a///b",
        "/api/a?",
        "/api/a?b=c%20d+e&b=&&=",
        "/api/a;v=1/b,c?x=%C3%A4&y=[1]",
        "/api/%e4%f6?%FF",
        "/api/a?q=https://x.example.com/?a=b",
    ] {
        let response = fixture.send("login", Request::get(target), &token).await;
        assert_eq!(echo(&response)["url"], target);
    }
}

#[tokio::test]
async fn bodies_of_every_framing_arrive_complete() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let body = Bytes::from(vec![7u8; 200_000]);
    for framing in [
        Body::Sized(body.clone()),
        Body::Chunked(body.clone(), 9_999),
    ] {
        let request = Request::new("POST", "/api/x").body(framing);
        let response = fixture.gateway.send(&to("login", request, &token)).await;
        assert_eq!(echo(&response)["body"]["sha256"], sha256(&body));
    }
}

#[tokio::test]
async fn a_revoked_credential_is_replaced_and_the_request_replayed() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let post = Request::post("/api/queue/v1/task", vec![b'x'; 100_000]);
    let mut client = fixture.gateway.client().await;
    let request = to("login", post, &token);
    echo(&client.request(&request).await.unwrap());

    fixture.peers.taskcluster.revoke().await;
    let response = client.request(&request).await.unwrap();
    assert_eq!(
        echo(&response)["body"]["sha256"],
        sha256(&vec![b'x'; 100_000])
    );
    assert_eq!(fixture.peers.exchanges().await, 2);
    let refused = fixture
        .peers
        .taskcluster
        .count("POST", "/api/queue/v1/task", 401)
        .await;
    assert_eq!(refused, 1);

    // The caller's connection stays open, and the new credentials are used.
    echo(&client.request(&request).await.unwrap());
    assert_eq!(fixture.peers.exchanges().await, 2);
    let replayed = [
        ("route", "login"),
        ("action", "replayed"),
        ("reason", "fresh_credentials"),
    ];
    let healed = [("route", "login"), ("outcome", "healed")];
    let unauthorized = "hawkgate_upstream_unauthorized_total";
    fixture
        .gateway
        .wait_for_metric(unauthorized, &replayed, 1)
        .await;
    let requests = "hawkgate_requests_total";
    fixture.gateway.wait_for_metric(requests, &healed, 1).await;
}

#[tokio::test]
async fn fifty_concurrent_requests_on_revoked_credentials_cost_one_exchange() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let request = to("login", Request::post("/api/x", "body"), &token);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..50 {
        clients.push(fixture.gateway.client().await);
    }
    echo(&clients[0].request(&request).await.unwrap());
    fixture.peers.taskcluster.revoke().await;
    let all = clients.iter_mut().map(|client| client.request(&request));
    for response in futures::future::join_all(all).await {
        echo(&response.unwrap());
    }
    assert_eq!(fixture.peers.exchanges().await, 2);
}

#[tokio::test]
async fn fifty_concurrent_first_requests_cost_one_exchange() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let request = to("login", Request::get("/api/x"), &token);
    let all = (0..50).map(|_| fixture.gateway.send(&request));
    for response in futures::future::join_all(all).await {
        echo(&response);
    }
    assert_eq!(fixture.peers.exchanges().await, 1);
}

#[tokio::test]
async fn two_users_never_share_credentials() {
    let fixture = Standard::start("").await;
    let (one, two) = (
        fixture.peers.token("user|1").await,
        fixture.peers.token("user|2").await,
    );
    for _ in 0..2 {
        for (token, name) in [(&one, "user|1"), (&two, "user|2")] {
            let response = fixture.send("login", Request::get("/api/x"), token).await;
            assert_eq!(echo(&response)["clientId"], format!("mozilla-auth0/{name}"));
        }
    }
    assert_eq!(fixture.peers.exchanges().await, 2);
}

/// With and without a body.
#[tokio::test]
async fn revocations_in_quick_succession_are_each_healed() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    echo(&fixture.send("login", Request::get("/api/x"), &token).await);
    for n in 0..6 {
        fixture.peers.taskcluster.revoke().await;
        let request = match n % 2 {
            0 => Request::get("/api/x"),
            _ => Request::post("/api/x", vec![b'x'; 1000]),
        };
        echo(&fixture.send("login", request, &token).await);
    }
    assert_eq!(fixture.peers.exchanges().await, 1 + 6);
}

#[tokio::test]
async fn a_persistent_401_is_replayed_once_and_passed_on() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let failure = json!({ "endpoint": "api", "mode": "unauthorized", "message": "permanent" });
    fixture.peers.taskcluster.control("fail", failure).await;
    let response = fixture
        .send("login", Request::get("/api/persistent"), &token)
        .await;
    assert_eq!(response.status, 401);
    assert_eq!(response.json()["message"], "permanent");
    assert_eq!(response.header("www-authenticate"), Some("hawk"));
    assert_eq!(
        response.error_reason(),
        None,
        "it is the upstream's response"
    );
    let tries = fixture
        .peers
        .taskcluster
        .count("GET", "/api/persistent", 401)
        .await;
    assert_eq!(tries, 2);
    // More of them cause neither replays nor exchanges.
    for _ in 0..99 {
        let response = fixture
            .send("login", Request::get("/api/persistent"), &token)
            .await;
        assert_eq!(response.status, 401);
    }
    let tries = fixture
        .peers
        .taskcluster
        .count("GET", "/api/persistent", 401)
        .await;
    assert_eq!(tries, 2 + 99);
    assert_eq!(fixture.peers.exchanges().await, 2);
}

#[tokio::test]
async fn a_403_is_never_replayed() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let target = "/api/test/v1/scoped/missing:scope";
    let response = fixture.send("login", Request::get(target), &token).await;
    assert_eq!(response.status, 403);
    assert_eq!(fixture.peers.taskcluster.count("GET", target, 403).await, 1);
    assert_eq!(fixture.peers.exchanges().await, 1);
}

#[tokio::test]
async fn opaque_tokens_are_verified_by_the_exchange() {
    let fixture = Standard::start("").await;
    let (token, client_id) = fixture.peers.taskcluster.oauth_token(json!({})).await;
    let request = to("oauth", Request::post("/api/x", "body"), &token);
    let response = fixture.gateway.send(&request).await;
    assert_eq!(echo(&response)["clientId"], client_id);

    fixture.peers.taskcluster.revoke().await;
    assert_eq!(
        echo(&fixture.gateway.send(&request).await)["clientId"],
        client_id
    );
    assert_eq!(fixture.peers.taskcluster.count("GET", OAUTH, 200).await, 2);

    // Taskcluster's web-server responds with 500 to a bad token; it is still a client error.
    let bad = to("oauth", Request::get("/api/x"), "no-such-token-anywhere");
    for _ in 0..3 {
        let response = fixture.gateway.send(&bad).await;
        assert_eq!(response.status, 401, "{}", response.text());
        assert_eq!(response.error_reason(), Some("token_refused"));
    }
    let exchanges = fixture.peers.taskcluster.count("GET", OAUTH, 500).await;
    assert_eq!(exchanges, 1, "a refusal is cached briefly");
}

#[tokio::test]
async fn minted_credentials_carry_the_callers_name_and_only_the_configured_scopes() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let get = |target: &str| to("mint", Request::get(target), &token);
    let echo = echo(&fixture.gateway.send(&get("/api/x")).await);
    assert_eq!(echo["clientId"], "sso/user|1");
    assert_eq!(echo["scopes"], json!(["test:*", "other:*"]));
    let inside = fixture
        .gateway
        .send(&get("/api/test/v1/scoped/test:a"))
        .await;
    assert_eq!(inside.status, 200);
    // The client that mints has this scope too, but does not pass it on.
    let target = "/api/test/v1/scoped/auth:create-client:sso/x";
    let minting = fixture.send("static", Request::get(target), &token).await;
    assert_eq!(minting.status, 200);
    let outside = fixture.gateway.send(&get(target)).await;
    assert_eq!(outside.status, 403);
    fixture.peers.taskcluster.revoke().await;
    assert_eq!(fixture.gateway.send(&get("/api/x")).await.status, 200);
}

#[tokio::test]
async fn authorized_scopes_can_restrict_a_static_client_to_nothing() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let target = "/api/test/v1/scoped/test:a";
    let wide = fixture.send("static", Request::get(target), &token).await;
    assert_eq!(echo(&wide)["clientId"], "root");
    let narrow = fixture.send("narrow", Request::get(target), &token).await;
    assert_eq!(narrow.status, 403);
}

#[tokio::test]
async fn clock_skew_is_learned_without_another_exchange() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let request = to("static", Request::post("/api/x", "body"), &token);
    let hour = 3_600_000;
    for offset in [hour, -hour, 0] {
        fixture
            .peers
            .taskcluster
            .control("clock", json!({ "offset": offset }))
            .await;
        echo(&fixture.gateway.send(&request).await);
        echo(&fixture.gateway.send(&request).await);
    }
    let stale = fixture.peers.taskcluster.count("POST", "/api/x", 401).await;
    assert_eq!(stale, 3, "once for each change");
    let labels = [("route", "static"), ("reason", "clock_skew")];
    let unauthorized = "hawkgate_upstream_unauthorized_total";
    fixture
        .gateway
        .wait_for_metric(unauthorized, &labels, 3)
        .await;
}

#[tokio::test]
async fn minted_certificates_follow_the_upstream_clock() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let request = to("mint", Request::get("/api/x"), &token);
    let back = json!({ "offset": -3_600_000 });
    fixture.peers.taskcluster.control("clock", back).await;
    echo(&fixture.gateway.send(&request).await);
}

#[tokio::test]
async fn an_exchange_that_is_down_is_502_or_503_never_401() {
    let (unavailable, failed) = ((503, "exchange_unavailable"), (502, "exchange_failed"));
    for (mode, (status, reason)) in [
        ("error", unavailable),
        ("retry-after", unavailable),
        ("html", unavailable),
        ("huge", failed),
        ("disconnect", unavailable),
    ] {
        // A new gateway for each, since a failure puts the source into backoff.
        let fixture = Standard::start("").await;
        let token = fixture.peers.token("user|1").await;
        let failure = json!({ "endpoint": "login", "mode": mode });
        fixture.peers.taskcluster.control("fail", failure).await;
        let request = Request::get("/api/x");
        let response = fixture.send("login", request, &token).await;
        let expected = (status, Some(reason));
        assert_eq!(response.status_and_reason(), expected, "{mode}");
        assert!(response.header("retry-after").is_some(), "{mode}");
        let forwarded = fixture.peers.taskcluster.count("GET", "/api/x", 200);
        assert_eq!(forwarded.await, 0, "{mode}");
    }
}

#[tokio::test]
async fn cached_credentials_survive_an_outage_of_the_exchange() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let request = to("login", Request::get("/api/x"), &token);
    echo(&fixture.gateway.send(&request).await);
    let failure = json!({ "endpoint": "login", "mode": "error" });
    fixture.peers.taskcluster.control("fail", failure).await;
    fixture.peers.provider.down().await;
    for _ in 0..3 {
        echo(&fixture.gateway.send(&request).await);
    }
}

#[tokio::test]
async fn a_slow_exchange_delays_only_the_requests_that_need_it() {
    let fixture = Standard::start("").await;
    let (slow, fast) = (
        fixture.peers.token("user|1").await,
        fixture.peers.token("user|2").await,
    );
    let failure = json!({ "endpoint": "login", "mode": "slow", "times": 1 });
    fixture.peers.taskcluster.control("fail", failure).await;
    let request = to("login", Request::get("/api/slow"), &slow);
    let waiting = fixture.gateway.send(&request);
    let others = async {
        let one = json!({ "count": 1 });
        fixture.peers.taskcluster.control("untilWaiting", one).await;
        let request = to("login", Request::get("/api/fast"), &fast);
        echo(&fixture.gateway.send(&request).await);
        fixture
            .peers
            .taskcluster
            .control("release", json!({}))
            .await;
    };
    let (response, ()) = tokio::join!(waiting, others);
    echo(&response);
}

#[tokio::test]
async fn responses_are_passed_back_unchanged() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let get = |path: &str| {
        to(
            "login",
            Request::get(&format!("/api/test/v1/{path}")),
            &token,
        )
    };

    let redirect = fixture.gateway.send(&get("redirect")).await;
    assert_eq!(redirect.status, 303);
    let location = "https://artifacts.example.com/a%2Fb//c?bewit=not-yours&x=";
    assert_eq!(redirect.header("location"), Some(location));
    assert_eq!(redirect.json()["url"], location);

    let fresh = fixture.gateway.send(&get("not-modified")).await;
    let etag = fresh.header("etag").unwrap().to_owned();
    let cached = get("not-modified").header("If-None-Match", &etag);
    let cached = fixture.gateway.send(&cached).await;
    assert_eq!((cached.status, cached.body.len()), (304, 0));
    assert_eq!(cached.header("etag"), Some(&*etag));

    let gzip = fixture.gateway.send(&get("gzip")).await;
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert_eq!(gzip.body[..2], [0x1f, 0x8b]);

    for status in [200, 201, 204, 400, 404, 409, 418, 429, 500, 503] {
        let response = fixture
            .gateway
            .send(&get(&format!("status/{status}")))
            .await;
        assert_eq!(response.status, status);
        assert_eq!(response.error_reason(), None);
    }
}

#[tokio::test]
async fn a_long_poll_does_not_block_other_requests() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let poll = to("login", Request::get("/api/test/v1/poll"), &token);
    let polling = fixture.gateway.send(&poll);
    let meanwhile = async {
        let one = json!({ "count": 1 });
        fixture.peers.taskcluster.control("untilWaiting", one).await;
        let other = to("login", Request::get("/api/x"), &token);
        echo(&fixture.gateway.send(&other).await);
        fixture
            .peers
            .taskcluster
            .control("release", json!({}))
            .await;
    };
    let (response, ()) = tokio::join!(polling, meanwhile);
    echo(&response);
}

#[tokio::test]
async fn a_websocket_is_relayed_in_both_directions() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let request = to("login", Request::get("/api/test/v1/socket"), &token)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut client = fixture.gateway.client().await;
    let response = client.request(&request).await.unwrap();
    assert_eq!(response.status, 101, "{}", response.text());
    // The example of RFC 6455 §1.3.
    assert_eq!(
        response.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for frame in ["\u{1}first", "second"] {
        client.send(frame.as_bytes()).await.unwrap();
        let mut back = Vec::new();
        while back.len() < frame.len() {
            back.extend_from_slice(&client.raw().await.unwrap().unwrap());
        }
        assert_eq!(back, frame.as_bytes());
    }
}

#[tokio::test]
async fn a_request_with_a_bewit_is_not_signed() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    let request = to("login", Request::get("/api/x?bewit=Zm9v&a=1"), &token);
    let response = fixture.gateway.send(&request).await;
    // Not "two authentication schemes": only the (invalid) bewit was sent, once.
    assert_eq!(response.status, 401);
    assert!(!response.text().contains("two authentication schemes"));
    assert_eq!(response.error_reason(), None);
    assert_eq!(
        fixture.peers.taskcluster.count("GET", "/api/x", 401).await,
        1
    );
}

#[tokio::test]
async fn forwarded_headers_of_the_caller_do_not_affect_the_hawk_mac() {
    let fixture = Standard::start("").await;
    let token = fixture.peers.token("user|1").await;
    for (name, value) in [
        ("X-Forwarded-Port", "444"),
        ("X-Forwarded-Port", "junk"),
        ("X-Forwarded-Port", ""),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example.com"),
        ("X-Forwarded-For", "unknown, [::1]:80"),
        ("Forwarded", "for=evil;host=evil.example.com;proto=https"),
    ] {
        let request = to("static", Request::get("/api/x"), &token).header(name, value);
        let echo = echo(&fixture.gateway.send(&request).await);
        let arrived = echo["headers"].to_string();
        assert!(!arrived.contains("evil"), "{name}: {arrived}");
    }
    assert_eq!(
        fixture.peers.taskcluster.count("GET", "/api/x", 401).await,
        0
    );
}
