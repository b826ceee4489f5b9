//! Source `password` through the whole proxy, against the grants and second factors of
//! `tests/peers/auth0.js`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hawkgate::clock::{ManualClock, SystemClock};
use serde_json::json;

use crate::support::auth0::Auth0;
use crate::support::client::{Client, Request, Response};
use crate::support::gate::{Files, Gate, Program, SERVER};
use crate::support::upstream::{Reply, Speaks, Upstream};

const PASSWORD: &str = "correct horse: battery stäple";

/// A tenant, an upstream that refuses one token, hawkgate between them.
struct House {
    tenant: Auth0,
    upstream: Upstream,
    refused: Arc<Mutex<Option<String>>>,
    clock: Arc<ManualClock>,
    gate: Gate,
}

impl House {
    /// `more` are further keys of the source.
    async fn build_with(more: &str) -> Self {
        let tenant = Auth0::start().await;
        let refused: Arc<Mutex<Option<String>>> = Arc::default();
        let judge = Arc::clone(&refused);
        let upstream = Upstream::start(Speaks::Http1, move |seen| {
            let authorization = seen.header("authorization").map(str::to_owned);
            if authorization.is_some() && *judge.lock().unwrap() == authorization {
                Reply::new(401, "{}").header("www-authenticate", "Bearer")
            } else {
                Reply::ok()
            }
        })
        .await;
        let text = format!(
            r#"{SERVER}
[[source]]
name = "users"
kind = "password"
token_url = "{tenant}/oauth/token"
client_id = "{id}"
client_secret = {{ file = "client-secret" }}
realm = "employees"
audience = "urn:example:api"
{more}
[[route]]
name = "users"
upstream = "{upstream}"
source = "users"
"#,
            tenant = tenant.issuer(),
            id = tenant.client("basic").0,
            upstream = upstream.url(),
        );
        let files = Files::new();
        files.write("client-secret", tenant.client("basic").1);
        let clock = ManualClock::at(hawkgate::clock::Clock::now(&*SystemClock::shared()));
        let gate = Gate::start_with(&text, files, clock.clone()).await;
        Self {
            tenant,
            upstream,
            refused,
            clock,
            gate,
        }
    }

    async fn build() -> Self {
        Self::build_with("scopes = [\"openid\", \"read\"]").await
    }

    /// A user, with what a sign-in needs beside the password.
    async fn user(&self, name: &str, factors: serde_json::Value) {
        let mut user = json!({ "name": name, "password": PASSWORD, "realm": "employees" });
        for (factor, value) in factors.as_object().unwrap() {
            user[factor] = value.clone();
        }
        self.tenant.control("user", user).await;
    }

    async fn get(&self, name: &str, password: &str) -> Response {
        self.gate.send(&basic(name, password)).await
    }

    async fn get_with_code(&self, name: &str, code: &str) -> Response {
        let request = basic(name, PASSWORD).header("X-OTP", code);
        self.gate.send(&request).await
    }

    /// How often a grant was answered so.
    async fn count(&self, what: &str) -> u64 {
        self.tenant.counts().await[what].as_u64().unwrap_or(0)
    }
}

fn basic(name: &str, password: &str) -> Request {
    let pair = STANDARD.encode(format!("{name}:{password}"));
    Request::get("/reports?x=1").header("Authorization", &format!("Basic {pair}"))
}

fn refusal(response: &Response) -> (u16, Option<&str>) {
    (response.status, response.refusal())
}

/// Everything of an answer but what differs each time.
fn comparable(response: &Response) -> (u16, Vec<String>, serde_json::Value) {
    let head = String::from_utf8_lossy(&response.raw_head).to_lowercase();
    let varies = |line: &str| line.starts_with("x-request-id:") || line.starts_with("date:");
    let head = head.lines().filter(|line| !varies(line)).map(str::to_owned);
    let mut body = response.json();
    body["requestInfo"]["time"] = json!(null);
    (response.status, head.collect(), body)
}

#[tokio::test]
async fn without_any_key_it_is_ready_all_the_same() {
    let house = House::build().await;
    for page in ["/startupz", "/readyz"] {
        assert_eq!(house.gate.admin(page).await.status, 200, "{page}");
    }
}

#[tokio::test]
async fn a_password_becomes_a_token_once() {
    let house = House::build().await;
    house.user("anna", json!({})).await;
    for _ in 0..5 {
        let request = basic("anna", PASSWORD)
            .header("X-OTP", "123456")
            .header("X_OTP", "123456");
        let response = house.gate.send(&request).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let attempts = house.upstream.attempts();
    let sent = attempts[0].seen.header("authorization").unwrap();
    assert!(sent.starts_with("Bearer "), "a bearer token");
    for attempt in &attempts {
        assert_eq!(attempt.seen.header("authorization"), Some(sent));
        assert_eq!(attempt.seen.target, "/reports?x=1");
        assert_eq!(
            (attempt.seen.header("x-otp"), attempt.seen.header("x_otp")),
            (None, None)
        );
    }
    assert_eq!(house.count("password-realm 200").await, 1);
    // After five minutes the provider is asked again.
    house.clock.advance(Duration::from_mins(5));
    assert_eq!(house.get("anna", PASSWORD).await.status, 200);
    assert_eq!(house.count("password-realm 200").await, 2);
}

#[tokio::test]
async fn many_at_once_sign_in_once() {
    let house = House::build().await;
    house.user("anna", json!({})).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(house.gate.client().await);
    }
    let request = basic("anna", PASSWORD);
    let all = clients.iter_mut().map(|client| client.request(&request));
    for response in futures::future::join_all(all).await {
        assert_eq!(response.unwrap().status, 200);
    }
    assert_eq!(house.count("password-realm 200").await, 1);
}

#[tokio::test]
async fn nothing_and_other_schemes_are_told_what_to_send() {
    let house = House::build().await;
    for request in [
        Request::get("/x"),
        Request::get("/x").bearer("a.b.c"),
        Request::get("/x?bewit=YWJj"),
        Request::get("/x").header("Authorization", "Negotiate abc"),
        basic("", PASSWORD),
        basic("anna", ""),
    ] {
        let response = house.gate.send(&request).await;
        assert_eq!(refusal(&response), (401, Some("missing_password")));
        let head = String::from_utf8_lossy(&response.raw_head).to_lowercase();
        let challenge = "www-authenticate: basic realm=\"hawkgate\", charset=\"utf-8\"\r\n";
        assert!(head.contains(challenge), "{head}");
        assert!(head.contains("cache-control: no-store\r\n"), "{head}");
    }
    let encoded = STANDARD.encode("anna:passw");
    for request in [
        Request::get("/x").header("Authorization", "Basic"),
        Request::get("/x").header("Authorization", "Basic !!!"),
        Request::get("/x").header(
            "Authorization",
            &format!("Basic {}", encoded.trim_end_matches('=')),
        ),
        Request::get("/x").header(
            "Authorization",
            &format!("Basic {}", STANDARD.encode("no colon")),
        ),
        Request::get("/x").header(
            "Authorization",
            &format!("Basic {}", STANDARD.encode(b"a:\xff")),
        ),
        basic("anna", "line\nfeed"),
        basic(&"u".repeat(257), "p"),
        basic("u", &"p".repeat(1025)),
        basic("anna", PASSWORD)
            .header("X-OTP", "123456")
            .header("X-OTP", "123456"),
        basic("anna", PASSWORD).header("X-OTP", "12 34"),
    ] {
        let response = house.gate.send(&request).await;
        assert_eq!(
            refusal(&response),
            (400, Some("invalid_authorization")),
            "{request:?}"
        );
    }
    let twice = basic("anna", PASSWORD).header("Authorization", &format!("Basic {encoded}"));
    assert_eq!(house.gate.send(&twice).await.status, 400);
    assert_eq!(house.upstream.attempts().len(), 0);
    assert_eq!(house.tenant.counts().await, json!({}));
}

#[tokio::test]
async fn who_does_not_exist_and_who_mistypes_look_the_same() {
    let house = House::build().await;
    house.user("anna", json!({})).await;
    house
        .user(
            "locked",
            json!({ "error": { "status": 403, "code": "unauthorized" } }),
        )
        .await;
    house
        .user(
            "leaked",
            json!({ "error": { "status": 401, "code": "password_leaked" } }),
        )
        .await;
    let wrong = house.get("anna", "wrong password").await;
    assert_eq!(refusal(&wrong), (401, Some("password_refused")));
    for (name, password) in [
        ("nobody", "wrong password"),
        ("locked", PASSWORD),
        ("leaked", PASSWORD),
    ] {
        let response = house.get(name, password).await;
        assert_eq!(comparable(&response), comparable(&wrong), "{name}");
    }
    assert_eq!(house.upstream.attempts().len(), 0);
}

#[tokio::test]
async fn guessing_is_stopped_and_whoever_is_signed_in_goes_on() {
    let house = House::build().await;
    house.user("anna", json!({})).await;
    assert_eq!(house.get("anna", PASSWORD).await.status, 200);
    for guess in 0..5 {
        let response = house.get("anna", &format!("guess {guess}")).await;
        assert_eq!(refusal(&response), (401, Some("password_refused")));
    }
    for guess in ["guess 5", "guess 6"] {
        let response = house.get("anna", guess).await;
        assert_eq!(refusal(&response), (429, Some("too_many_attempts")));
        assert_eq!(response.header("retry-after"), Some("30"));
        assert_eq!(response.header("www-authenticate"), None);
    }
    assert_eq!(house.count("password-realm 403").await, 5);
    assert_eq!(house.get("anna", PASSWORD).await.status, 200);
    // Others from the same address have fifteen failures left between them.
    for guess in 0..15 {
        let response = house.get(&format!("user-{guess}"), "guess").await;
        assert_eq!(
            refusal(&response),
            (401, Some("password_refused")),
            "{guess}"
        );
    }
    let response = house.get("another", "guess").await;
    assert_eq!(refusal(&response), (429, Some("too_many_attempts")));
    assert_eq!(house.get("anna", PASSWORD).await.status, 200);
    house.clock.advance(Duration::from_secs(30));
    house.user("berta", json!({})).await;
    assert_eq!(house.get("berta", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn an_upstream_401_is_healed_with_the_same_password() {
    let house = House::build().await;
    house.user("anna", json!({})).await;
    assert_eq!(house.get("anna", PASSWORD).await.status, 200);
    let first = house.upstream.attempts()[0]
        .seen
        .header("authorization")
        .map(str::to_owned);
    *house.refused.lock().unwrap() = first.clone();
    let request = Request {
        body: crate::support::client::Body::Sized(vec![b'x'; 100_000].into()),
        method: "POST".into(),
        ..basic("anna", PASSWORD)
    };
    assert_eq!(house.gate.send(&request).await.status, 200);
    let attempts = house.upstream.attempts();
    assert_eq!(attempts.len(), 3);
    assert_eq!(attempts[1].status, 401);
    assert_eq!(attempts[2].received, 100_000);
    assert_ne!(attempts[2].seen.header("authorization"), first.as_deref());
    assert_eq!(house.count("password-realm 200").await, 2);
    // The password was changed meanwhile: the replay is refused here.
    *house.refused.lock().unwrap() = attempts[2].seen.header("authorization").map(str::to_owned);
    house
        .user("anna", json!({ "password": "a changed password" }))
        .await;
    let response = house.get("anna", PASSWORD).await;
    assert_eq!(refusal(&response), (401, Some("password_refused")));
    let head = String::from_utf8_lossy(&response.raw_head).to_lowercase();
    assert!(head.contains("www-authenticate: basic "), "{head}");
}

#[tokio::test]
async fn a_second_factor_comes_as_x_otp() {
    let house = House::build().await;
    house.user("anna", json!({ "otp": "123456" })).await;
    let response = house.get("anna", PASSWORD).await;
    assert_eq!(refusal(&response), (401, Some("mfa_required")));
    assert!(response.text().contains("X-OTP"), "{}", response.text());
    let response = house.get_with_code("anna", "654321").await;
    assert_eq!(refusal(&response), (401, Some("mfa_refused")));
    assert_eq!(house.get_with_code("anna", "123456").await.status, 200);
    // From then on, for five minutes, the password alone.
    assert_eq!(house.get("anna", PASSWORD).await.status, 200);
    house.clock.advance(Duration::from_mins(5));
    let response = house.get("anna", PASSWORD).await;
    assert_eq!(refusal(&response), (401, Some("mfa_required")));
}

#[tokio::test]
async fn a_recovery_code_is_replaced_before_the_users_eyes() {
    let house = House::build().await;
    house
        .user("anna", json!({ "recovery": "QSVBD3RLYHLB2R6LSM3BCLEV" }))
        .await;
    let response = house
        .get_with_code("anna", "QSVBD3RLYHLB2R6LSM3BCLEV")
        .await;
    assert_eq!(response.status, 200);
    let next = response
        .header("x-hawkgate-recovery-code")
        .unwrap()
        .to_owned();
    assert_eq!(next.len(), 24);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let response = house.get("anna", PASSWORD).await;
    assert_eq!(
        (response.status, response.header("x-hawkgate-recovery-code")),
        (200, None)
    );
    house.clock.advance(Duration::from_mins(5));
    // An upstream that is gone does not take it along.
    house.upstream.down().await;
    let response = house.get_with_code("anna", &next).await;
    assert_eq!(refusal(&response), (502, Some("upstream_unreachable")));
    let last = response.header("x-hawkgate-recovery-code").unwrap();
    assert_ne!(last, next);
    house.upstream.up().await;
    let response = house.get("anna", PASSWORD).await;
    assert_eq!(
        (response.status, response.header("x-hawkgate-recovery-code")),
        (200, None)
    );
}

#[tokio::test]
async fn a_confirmation_on_another_device_is_waited_for_across_requests() {
    let house = House::build().await;
    house.user("anna", json!({ "push": "sent" })).await;
    for _ in 0..3 {
        let response = house.get("anna", PASSWORD).await;
        assert_eq!(refusal(&response), (401, Some("mfa_pending")));
        assert_eq!(response.header("retry-after"), Some("5"));
    }
    // Whoever does not know the password gains nothing by it.
    assert_eq!(
        refusal(&house.get("anna", "guess").await),
        (401, Some("password_refused"))
    );
    house
        .tenant
        .control("confirm", json!({ "name": "anna" }))
        .await;
    assert_eq!(house.get("anna", PASSWORD).await.status, 200);
    assert_eq!(house.count("/mfa/challenge 200").await, 1);

    house.user("berta", json!({ "push": "sent" })).await;
    assert_eq!(
        house.get("berta", PASSWORD).await.refusal(),
        Some("mfa_pending")
    );
    house
        .tenant
        .control("decline", json!({ "name": "berta" }))
        .await;
    assert_eq!(
        refusal(&house.get("berta", PASSWORD).await),
        (401, Some("mfa_refused"))
    );
}

#[tokio::test]
async fn a_text_message_is_repeated_as_x_otp() {
    let house = House::build().await;
    house.user("anna", json!({ "sms": "424242" })).await;
    assert_eq!(
        refusal(&house.get("anna", PASSWORD).await),
        (401, Some("mfa_required"))
    );
    assert_eq!(
        refusal(&house.get_with_code("anna", "111111").await),
        (401, Some("mfa_refused"))
    );
    assert_eq!(house.get_with_code("anna", "424242").await.status, 200);
    assert_eq!(house.count("/mfa/challenge 200").await, 1);
}

#[tokio::test]
async fn a_refresh_token_is_used_and_rotated_by_the_provider() {
    let house = House::build_with("scopes = [\"openid\", \"read\", \"offline_access\"]").await;
    house.user("anna", json!({ "otp": "123456" })).await;
    assert_eq!(house.get_with_code("anna", "123456").await.status, 200);
    // Three times past the cached token, without a code.
    for _ in 0..3 {
        house.clock.advance(Duration::from_mins(5));
        let response = house.get("anna", PASSWORD).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_eq!(house.count("refresh_token 200").await, 3);
    assert_eq!(house.count("password-realm 403").await, 1);
    // Within the hour in which the provider has not seen the password again.
    house.clock.advance(Duration::from_hours(1));
    let response = house.get("anna", PASSWORD).await;
    assert_eq!(refusal(&response), (401, Some("mfa_required")));
}

#[tokio::test]
async fn the_callers_address_is_told_where_that_is_wanted() {
    let house = House::build_with("forward_client_ip = true").await;
    house.user("anna", json!({})).await;
    let request = basic("anna", PASSWORD)
        .header("X-Forwarded-For", "203.0.113.9")
        .header("auth0-forwarded-for", "203.0.113.9");
    assert_eq!(house.gate.send(&request).await.status, 200);
    assert_eq!(house.count("password-realm 200 for 127.0.0.1").await, 1);
}

#[tokio::test]
async fn a_provider_that_is_down_is_no_fault_of_the_caller() {
    let house = House::build().await;
    house.user("anna", json!({})).await;
    house.tenant.control("down", json!({})).await;
    let response = house.get("anna", PASSWORD).await;
    assert_eq!(refusal(&response), (503, Some("exchange_unavailable")));
    assert!(response.header("retry-after").is_some());
    house.tenant.control("up", json!({})).await;
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(house.get("anna", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn nothing_of_it_is_ever_said() {
    let house = House::build_with("scopes = [\"openid\", \"read\", \"offline_access\"]").await;
    house.user("anna", json!({})).await;
    house.user("berta", json!({ "otp": "123456" })).await;
    house.user("carla", json!({ "push": "sent" })).await;
    house
        .user(
            "doris",
            json!({ "error": { "status": 401, "code": "password_leaked" } }),
        )
        .await;
    let mut said = Vec::new();
    let mut client = Client::connect(house.gate.address()).await;
    for _ in 0..2 {
        for request in [
            basic("anna", PASSWORD),
            basic("berta", PASSWORD),
            basic("berta", PASSWORD).header("X-OTP", "123456"),
            basic("carla", PASSWORD),
            basic("doris", PASSWORD),
            basic("anna", PASSWORD).header("X-OTP", "not allowed"),
            basic("nobody", PASSWORD),
        ] {
            let response = client.request(&request).await.unwrap();
            let head = String::from_utf8_lossy(&response.raw_head).into_owned();
            said.push(format!("{head}{}", response.text()));
        }
        house.clock.advance(Duration::from_mins(5));
    }
    house.tenant.assert_unsaid(&house.gate, &said).await;
}

#[test]
fn a_listener_that_others_reach_is_refused_by_check_and_run() {
    let files = Files::new();
    let text = r#"
[server]
listen = ["127.0.0.1:0", "0.0.0.0:0"]
admin = "127.0.0.1:0"
[[source]]
name = "users"
kind = "password"
token_url = "https://example.auth0.com/oauth/token"
client_id = "c"
client_secret = { file = "access-token" }
[[route]]
name = "users"
upstream = "http://127.0.0.1:1"
source = "users"
"#;
    let path = files.write("hawkgate.toml", text);
    for command in ["check", "run"] {
        let arguments = [command, "--config", path.to_str().unwrap()];
        let (status, stdout, stderr) = Program::start(&arguments, path.parent().unwrap()).wait();
        assert_eq!(status.code(), Some(1), "{command}");
        let said = format!("{stdout}{stderr}");
        let expected = "hawkgate.toml:14: route \"users\": key \"source\": accepts passwords, but other machines can connect to it";
        assert!(said.contains(expected), "{said}");
    }
}
