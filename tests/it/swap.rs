//! The main job against a Taskcluster that verifies: each source's swap, and what heals.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::client::{Body, Client, Request, Response};
use crate::support::gate::{Gate, ROOT_KEY};
use crate::support::peers::{OidcProvider, Taskcluster};
use crate::support::upstream::sha256;

const AUDIENCE: &str = "login.taskcluster.net";
const EXCHANGE: &str = "/api/login/v1/oidc-credentials/mozilla-auth0";
const OAUTH: &str = "/login/oauth/credentials";

/// A real provider, a verifying Taskcluster, and hawkgate in front of it with a route for
/// each kind of source.
struct House {
    provider: OidcProvider,
    taskcluster: Taskcluster,
    gate: Gate,
}

impl House {
    async fn build() -> Self {
        let provider = OidcProvider::start(json!({ "ttl": 3600 })).await;
        let taskcluster = Taskcluster::start(json!({
            "login": {
                "issuer": provider.issuer(),
                "jwks": provider.jwks(),
                "audience": AUDIENCE,
                "scopes": ["test:*"],
            },
            "clients": {
                "root": {
                    "accessToken": ROOT_KEY,
                    "scopes": ["test:*", "auth:create-client:sso/*"],
                },
            },
        }))
        .await;
        let gate = Gate::start(&sections(provider.issuer(), taskcluster.url())).await;
        Self {
            provider,
            taskcluster,
            gate,
        }
    }

    async fn token(&self, sub: &str) -> String {
        self.provider.user_token("RS256", sub, AUDIENCE).await
    }

    async fn exchanges(&self) -> u64 {
        self.taskcluster.count("GET", EXCHANGE, 200).await
    }

    /// Revoked, so that the next attempt gets a 401.
    async fn revoke(&self) {
        self.taskcluster.revoke().await;
    }
}

fn sections(issuer: &str, root_url: &str) -> String {
    let mut text = format!(
        r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]

[[issuer]]
name = "opaque"
kind = "delegated"

[[source]]
name = "login"
kind = "taskcluster-login"
url = "{root_url}{EXCHANGE}"

[[source]]
name = "oauth"
kind = "taskcluster-oauth"
root_url = "{root_url}"

[[source]]
name = "mint"
kind = "taskcluster-mint"
client_id = "root"
access_token = {{ file = "access-token" }}
client_name = "sso/{{sub}}"
scopes = ["test:minted:*"]

[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}

[[source]]
name = "narrow"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
authorized_scopes = []
"#
    );
    // One host for each kind of source: paths go upstream as they are.
    for (source, issuers) in [
        ("login", r#"["idp"]"#),
        ("oauth", r#"["opaque"]"#),
        ("mint", r#"["idp"]"#),
        ("static", r#"["idp"]"#),
        ("narrow", r#"["idp"]"#),
    ] {
        text += &format!(
            r#"
[[route]]
name = "{source}"
host = "{source}.test"
path = "/"
upstream = "{root_url}"
issuers = {issuers}
source = "{source}"
"#
        );
    }
    text
}

/// A request for the route of `source`.
fn to(source: &str, request: Request, token: &str) -> Request {
    let mut request = request.bearer(token);
    request.authority = format!("{source}.test");
    request
}

/// What Taskcluster says reached it, once it let it in.
fn echo(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.refusal(), None);
    response.json()
}

#[tokio::test]
async fn the_login_endpoint_swaps_a_bearer_for_named_credentials() {
    let house = House::build().await;
    let token = house.token("ad|Mozilla|user!1").await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
        let request = to(
            "login",
            Request::new(method, "/api/queue/v1/task/x"),
            &token,
        );
        let response = house.gate.send(&request).await;
        assert_eq!(response.status, 200, "{method}");
        if method != "HEAD" {
            let echo = response.json();
            assert_eq!(echo["clientId"], "mozilla-auth0/ad|Mozilla|user!211");
            assert_eq!(echo["scheme"], "Hawk");
            assert_eq!(echo["method"], method);
        }
    }
    assert_eq!(house.exchanges().await, 1);
}

#[tokio::test]
async fn path_and_query_pass_byte_for_byte_and_are_signed_as_they_are() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    for target in [
        "/api/a%2Fb/c",
        "/api//a///b",
        "/api/a?",
        "/api/a?b=c%20d+e&b=&&=",
        "/api/a;v=1/b,c?x=%C3%A4&y=[1]",
        "/api/%e4%f6?%FF",
        "/api/a?q=https://x.example.com/?a=b",
    ] {
        let response = house
            .gate
            .send(&to("login", Request::get(target), &token))
            .await;
        assert_eq!(echo(&response)["url"], target);
    }
}

#[tokio::test]
async fn bodies_arrive_whole_in_each_framing() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let body = Bytes::from(vec![7u8; 200_000]);
    for framing in [
        Body::Sized(body.clone()),
        Body::Chunked(body.clone(), 9_999),
    ] {
        let request = Request::new("POST", "/api/x").body(framing);
        let response = house.gate.send(&to("login", request, &token)).await;
        assert_eq!(echo(&response)["body"]["sha256"], sha256(&body));
    }
}

#[tokio::test]
async fn a_revoked_credential_heals_before_the_caller_notices() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let post = Request::post("/api/queue/v1/task", vec![b'x'; 100_000]);
    let mut client = house.gate.client().await;
    let request = to("login", post, &token);
    echo(&client.request(&request).await.unwrap());

    house.revoke().await;
    let response = client.request(&request).await.unwrap();
    assert_eq!(
        echo(&response)["body"]["sha256"],
        sha256(&vec![b'x'; 100_000])
    );
    assert_eq!(house.exchanges().await, 2);
    let refused = house
        .taskcluster
        .count("POST", "/api/queue/v1/task", 401)
        .await;
    assert_eq!(refused, 1);

    // The caller's connection goes on, and the new credentials serve.
    echo(&client.request(&request).await.unwrap());
    assert_eq!(house.exchanges().await, 2);
    let replayed = [
        ("route", "login"),
        ("action", "replayed"),
        ("reason", "fresh_credentials"),
    ];
    let healed = [("route", "login"), ("outcome", "healed")];
    let unauthorized = "hawkgate_upstream_unauthorized_total";
    house.gate.until_counted(unauthorized, &replayed, 1).await;
    let requests = "hawkgate_requests_total";
    house.gate.until_counted(requests, &healed, 1).await;
}

#[tokio::test]
async fn fifty_at_once_on_revoked_credentials_cost_one_exchange() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let request = to("login", Request::post("/api/x", "body"), &token);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..50 {
        clients.push(house.gate.client().await);
    }
    echo(&clients[0].request(&request).await.unwrap());
    house.revoke().await;
    let all = clients.iter_mut().map(|client| client.request(&request));
    for response in futures::future::join_all(all).await {
        echo(&response.unwrap());
    }
    assert_eq!(house.exchanges().await, 2);
}

#[tokio::test]
async fn fifty_first_requests_at_once_cost_one_exchange() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let request = to("login", Request::get("/api/x"), &token);
    let all = (0..50).map(|_| house.gate.send(&request));
    for response in futures::future::join_all(all).await {
        echo(&response);
    }
    assert_eq!(house.exchanges().await, 1);
}

#[tokio::test]
async fn two_people_never_share_credentials() {
    let house = House::build().await;
    let (one, two) = (house.token("user|1").await, house.token("user|2").await);
    for _ in 0..2 {
        for (token, name) in [(&one, "user|1"), (&two, "user|2")] {
            let response = house
                .gate
                .send(&to("login", Request::get("/api/x"), token))
                .await;
            assert_eq!(echo(&response)["clientId"], format!("mozilla-auth0/{name}"));
        }
    }
    assert_eq!(house.exchanges().await, 2);
}

#[tokio::test]
async fn a_401_that_stays_is_replayed_once_and_passed_on() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let failure = json!({ "endpoint": "api", "mode": "unauthorized", "message": "for ever" });
    house.taskcluster.control("fail", failure).await;
    let response = house
        .gate
        .send(&to("login", Request::get("/api/stays"), &token))
        .await;
    assert_eq!(response.status, 401);
    assert_eq!(response.json()["message"], "for ever");
    assert_eq!(response.header("www-authenticate"), Some("hawk"));
    assert_eq!(response.refusal(), None, "it is the upstream's answer");
    let tries = house.taskcluster.count("GET", "/api/stays", 401).await;
    assert_eq!(tries, 2);
}

#[tokio::test]
async fn a_403_is_never_replayed() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let target = "/api/test/v1/scoped/other:scope";
    let response = house
        .gate
        .send(&to("login", Request::get(target), &token))
        .await;
    assert_eq!(response.status, 403);
    assert_eq!(house.taskcluster.count("GET", target, 403).await, 1);
    assert_eq!(house.exchanges().await, 1);
}

#[tokio::test]
async fn opaque_tokens_are_proved_by_the_exchange() {
    let house = House::build().await;
    let (token, client_id) = house.taskcluster.oauth_token(json!({})).await;
    let request = to("oauth", Request::post("/api/x", "body"), &token);
    let response = house.gate.send(&request).await;
    assert_eq!(echo(&response)["clientId"], client_id);

    house.revoke().await;
    assert_eq!(
        echo(&house.gate.send(&request).await)["clientId"],
        client_id
    );
    assert_eq!(house.taskcluster.count("GET", OAUTH, 200).await, 2);

    // web-server says 500 for a bad token; it is the caller's fault all the same.
    let bad = to("oauth", Request::get("/api/x"), "no-such-token-anywhere");
    for _ in 0..3 {
        let response = house.gate.send(&bad).await;
        assert_eq!(response.status, 401, "{}", response.text());
        assert_eq!(response.refusal(), Some("token_refused"));
    }
    let asked = house.taskcluster.count("GET", OAUTH, 500).await;
    assert_eq!(asked, 1, "a refusal is remembered for a moment");
}

#[tokio::test]
async fn minted_credentials_bear_the_callers_name_and_only_the_given_scopes() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let get = |target: &str| to("mint", Request::get(target), &token);
    let echo = echo(&house.gate.send(&get("/api/x")).await);
    assert_eq!(echo["clientId"], "sso/user|1");
    assert_eq!(echo["scopes"], json!(["test:minted:*"]));
    let inside = house
        .gate
        .send(&get("/api/test/v1/scoped/test:minted:a"))
        .await;
    assert_eq!(inside.status, 200);
    let outside = house
        .gate
        .send(&get("/api/test/v1/scoped/test:other"))
        .await;
    assert_eq!(outside.status, 403);
    house.revoke().await;
    assert_eq!(house.gate.send(&get("/api/x")).await.status, 200);
}

#[tokio::test]
async fn a_fixed_client_can_be_narrowed_to_nothing() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let target = "/api/test/v1/scoped/test:a";
    let wide = house
        .gate
        .send(&to("static", Request::get(target), &token))
        .await;
    assert_eq!(echo(&wide)["clientId"], "root");
    let narrow = house
        .gate
        .send(&to("narrow", Request::get(target), &token))
        .await;
    assert_eq!(narrow.status, 403);
}

#[tokio::test]
async fn a_clock_that_is_off_is_learnt_not_fetched_around() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let request = to("static", Request::post("/api/x", "body"), &token);
    let hour = 3_600_000;
    for offset in [hour, -hour, 0] {
        house
            .taskcluster
            .control("clock", json!({ "offset": offset }))
            .await;
        echo(&house.gate.send(&request).await);
        echo(&house.gate.send(&request).await);
    }
    let stale = house.taskcluster.count("POST", "/api/x", 401).await;
    assert_eq!(stale, 3, "once for each change");
    let labels = [("route", "static"), ("reason", "clock_skew")];
    let unauthorized = "hawkgate_upstream_unauthorized_total";
    house.gate.until_counted(unauthorized, &labels, 3).await;
}

#[tokio::test]
async fn minted_certificates_follow_the_upstreams_clock() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let request = to("mint", Request::get("/api/x"), &token);
    let back = json!({ "offset": -3_600_000 });
    house.taskcluster.control("clock", back).await;
    echo(&house.gate.send(&request).await);
}

#[tokio::test]
async fn an_exchange_that_is_down_is_502_or_503_never_401() {
    let house = House::build().await;
    for (n, mode) in ["error", "retry-after", "html", "huge", "disconnect"]
        .iter()
        .enumerate()
    {
        let token = house.token(&format!("user|{n}")).await;
        let failure = json!({ "endpoint": "login", "mode": mode });
        house.taskcluster.control("fail", failure).await;
        let request = to("login", Request::get("/api/x"), &token);
        let response = house.gate.send(&request).await;
        assert!(
            matches!(response.status, 502 | 503),
            "{mode}: {} {}",
            response.status,
            response.text()
        );
        assert!(response.header("retry-after").is_some(), "{mode}");
        assert!(
            matches!(
                response.refusal(),
                Some("exchange_unavailable" | "exchange_failed")
            ),
            "{mode}: {:?}",
            response.refusal()
        );
    }
    assert_eq!(house.taskcluster.count("GET", "/api/x", 200).await, 0);
}

#[tokio::test]
async fn an_outage_of_the_exchange_does_not_take_valid_credentials_away() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let request = to("login", Request::get("/api/x"), &token);
    echo(&house.gate.send(&request).await);
    let failure = json!({ "endpoint": "login", "mode": "error" });
    house.taskcluster.control("fail", failure).await;
    house.provider.down().await;
    for _ in 0..3 {
        echo(&house.gate.send(&request).await);
    }
}

#[tokio::test]
async fn a_slow_exchange_holds_up_only_those_who_need_it() {
    let house = House::build().await;
    let (slow, fast) = (house.token("user|1").await, house.token("user|2").await);
    let failure = json!({ "endpoint": "login", "mode": "slow", "times": 1 });
    house.taskcluster.control("fail", failure).await;
    let request = to("login", Request::get("/api/slow"), &slow);
    let waiting = house.gate.send(&request);
    let others = async {
        let one = json!({ "count": 1 });
        house.taskcluster.control("untilWaiting", one).await;
        let request = to("login", Request::get("/api/fast"), &fast);
        echo(&house.gate.send(&request).await);
        house.taskcluster.control("release", json!({})).await;
    };
    let (response, ()) = tokio::join!(waiting, others);
    echo(&response);
}

#[tokio::test]
async fn answers_come_back_as_they_are() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let get = |path: &str| {
        to(
            "login",
            Request::get(&format!("/api/test/v1/{path}")),
            &token,
        )
    };

    let redirect = house.gate.send(&get("redirect")).await;
    assert_eq!(redirect.status, 303);
    let location = "https://artifacts.example.com/a%2Fb//c?bewit=not-yours&x=";
    assert_eq!(redirect.header("location"), Some(location));
    assert_eq!(redirect.json()["url"], location);

    let fresh = house.gate.send(&get("not-modified")).await;
    let etag = fresh.header("etag").unwrap().to_owned();
    let cached = get("not-modified").header("If-None-Match", &etag);
    let cached = house.gate.send(&cached).await;
    assert_eq!((cached.status, cached.body.len()), (304, 0));
    assert_eq!(cached.header("etag"), Some(&*etag));

    let gzip = house.gate.send(&get("gzip")).await;
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert_eq!(gzip.body[..2], [0x1f, 0x8b]);

    for status in [200, 201, 204, 400, 404, 409, 418, 429, 500, 503] {
        let response = house.gate.send(&get(&format!("status/{status}"))).await;
        assert_eq!(response.status, status);
        assert_eq!(response.refusal(), None);
    }
}

#[tokio::test]
async fn a_long_poll_waits_and_others_pass_by() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let poll = to("login", Request::get("/api/test/v1/poll"), &token);
    let polling = house.gate.send(&poll);
    let meanwhile = async {
        let one = json!({ "count": 1 });
        house.taskcluster.control("untilWaiting", one).await;
        let other = to("login", Request::get("/api/x"), &token);
        echo(&house.gate.send(&other).await);
        house.taskcluster.control("release", json!({})).await;
    };
    let (response, ()) = tokio::join!(polling, meanwhile);
    echo(&response);
}

#[tokio::test]
async fn a_websocket_passes_both_ways() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let request = to("login", Request::get("/api/test/v1/socket"), &token)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut client = house.gate.client().await;
    let response = client.request(&request).await.unwrap();
    assert_eq!(response.status, 101, "{}", response.text());
    // RFC 6455's own example.
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
async fn a_request_that_has_a_bewit_is_not_signed() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let request = to("login", Request::get("/api/x?bewit=Zm9v&a=1"), &token);
    let response = house.gate.send(&request).await;
    // Not "two authentication schemes": only the (bad) bewit went up, once.
    assert_eq!(response.status, 401);
    assert!(!response.text().contains("two authentication schemes"));
    assert_eq!(response.refusal(), None);
    assert_eq!(house.taskcluster.count("GET", "/api/x", 401).await, 1);
}

#[tokio::test]
async fn what_a_caller_claims_about_hosts_and_ports_never_reaches_the_mac() {
    let house = House::build().await;
    let token = house.token("user|1").await;
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
        let echo = echo(&house.gate.send(&request).await);
        let arrived = echo["headers"].to_string();
        assert!(!arrived.contains("evil"), "{name}: {arrived}");
    }
    assert_eq!(house.taskcluster.count("GET", "/api/x", 401).await, 0);
}
