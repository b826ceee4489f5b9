//! The source `password` through the whole proxy, against the grants and second factors of
//! `tests/peers/auth0.js`.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hawkgate::clock::{ManualClock, SystemClock};
use serde_json::json;

use crate::support::auth0::Auth0;
use crate::support::client::{Client, Request, Response};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::program::Exited;
use crate::support::upstream::{FakeUpstream, Protocol, Reply};

const PASSWORD: &str = "correct horse: battery stäple";

/// An answer whose body is not valid.
const MALFORMED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";

/// A tenant, an upstream that refuses one token, and a gateway between them.
struct Fixture {
    tenant: Auth0,
    upstream: FakeUpstream,
    refused: Arc<Mutex<Option<String>>>,
    clock: Arc<ManualClock>,
    gateway: TestGateway,
}

impl Fixture {
    /// With further keys of the source.
    async fn start_with_keys(more: &str) -> Self {
        let tenant = Auth0::start().await;
        let refused: Arc<Mutex<Option<String>>> = Arc::default();
        let shared = Arc::clone(&refused);
        let upstream = FakeUpstream::start(Protocol::Http1, move |received| {
            let authorization = received.header("authorization").map(str::to_owned);
            if authorization.is_some() && *shared.lock().unwrap() == authorization {
                Reply::new(401, "{}").header("www-authenticate", "Bearer")
            } else if received.target == "/malformed" {
                Reply::raw(MALFORMED)
            } else {
                Reply::ok()
            }
        })
        .await;
        let text = format!(
            r#"{SERVER_CONFIG}
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
        let files = ConfigDir::new();
        files.write("client-secret", tenant.client("basic").1);
        let clock = ManualClock::at(hawkgate::clock::Clock::now(&*SystemClock::shared()));
        let gateway = TestGateway::start_with(&text, files, clock.clone()).await;
        Self {
            tenant,
            upstream,
            refused,
            clock,
            gateway,
        }
    }

    async fn start() -> Self {
        Self::start_with_keys("scopes = [\"openid\", \"read\"]").await
    }

    /// Adds a user with these second factors.
    async fn user(&self, name: &str, factors: serde_json::Value) {
        let mut user = json!({ "name": name, "password": PASSWORD, "realm": "employees" });
        for (factor, value) in factors.as_object().unwrap() {
            user[factor] = value.clone();
        }
        self.tenant.control("user", user).await;
    }

    async fn get(&self, name: &str, password: &str) -> Response {
        self.gateway.send(&basic(name, password)).await
    }

    async fn get_with_code(&self, name: &str, code: &str) -> Response {
        let request = basic(name, PASSWORD).header("X-OTP", code);
        self.gateway.send(&request).await
    }

    /// Responses of this kind so far, as in `"password-realm 200"`.
    async fn count(&self, what: &str) -> u64 {
        self.tenant.counts().await[what].as_u64().unwrap_or(0)
    }
}

fn basic(name: &str, password: &str) -> Request {
    authorized(Request::get("/reports?x=1"), name, password)
}

fn authorized(request: Request, name: &str, password: &str) -> Request {
    let pair = STANDARD.encode(format!("{name}:{password}"));
    request.header("Authorization", &format!("Basic {pair}"))
}

/// The parts of a response that do not vary between requests.
fn comparable(response: &Response) -> (u16, Vec<String>, serde_json::Value) {
    let head = String::from_utf8_lossy(&response.raw_head).to_lowercase();
    let varies = |line: &str| line.starts_with("x-request-id:") || line.starts_with("date:");
    let head = head.lines().filter(|line| !varies(line)).map(str::to_owned);
    let mut body = response.json();
    body["requestInfo"]["time"] = json!(null);
    (response.status, head.collect(), body)
}

#[tokio::test]
async fn a_password_source_is_ready_without_any_keys() {
    let fixture = Fixture::start().await;
    for page in ["/startupz", "/readyz"] {
        assert_eq!(fixture.gateway.admin(page).await.status, 200, "{page}");
    }
}

#[tokio::test]
async fn a_password_is_exchanged_for_a_token_once() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({})).await;
    for _ in 0..5 {
        let request = basic("anna", PASSWORD)
            .header("X-OTP", "123456")
            .header("X_OTP", "123456");
        let response = fixture.gateway.send(&request).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let attempts = fixture.upstream.attempts();
    let sent = attempts[0].request.header("authorization").unwrap();
    assert!(sent.starts_with("Bearer "), "{sent}");
    for attempt in &attempts {
        assert_eq!(attempt.request.header("authorization"), Some(sent));
        assert_eq!(attempt.request.target, "/reports?x=1");
        assert_eq!(
            (
                attempt.request.header("x-otp"),
                attempt.request.header("x_otp")
            ),
            (None, None)
        );
    }
    assert_eq!(fixture.count("password-realm 200").await, 1);
    // Cached for five minutes.
    fixture.clock.advance(Duration::from_mins(5));
    assert_eq!(fixture.get("anna", PASSWORD).await.status, 200);
    assert_eq!(fixture.count("password-realm 200").await, 2);
}

#[tokio::test]
async fn concurrent_requests_with_one_password_sign_in_once() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({})).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(fixture.gateway.client().await);
    }
    let request = basic("anna", PASSWORD);
    let all = clients.iter_mut().map(|client| client.request(&request));
    for response in futures::future::join_all(all).await {
        assert_eq!(response.unwrap().status, 200);
    }
    assert_eq!(fixture.count("password-realm 200").await, 1);
}

#[tokio::test]
async fn missing_passwords_and_other_schemes_get_a_basic_challenge() {
    let fixture = Fixture::start().await;
    for request in [
        Request::get("/x"),
        Request::get("/x").bearer("a.b.c"),
        Request::get("/x?bewit=YWJj"),
        Request::get("/x").header("Authorization", "Negotiate abc"),
        basic("", PASSWORD),
        basic("anna", ""),
    ] {
        let response = fixture.gateway.send(&request).await;
        assert_eq!(
            response.status_and_reason(),
            (401, Some("missing_password"))
        );
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
        let response = fixture.gateway.send(&request).await;
        assert_eq!(
            response.status_and_reason(),
            (400, Some("invalid_authorization")),
            "{request:?}"
        );
    }
    let twice = basic("anna", PASSWORD).header("Authorization", &format!("Basic {encoded}"));
    assert_eq!(fixture.gateway.send(&twice).await.status, 400);
    assert_eq!(fixture.upstream.attempts().len(), 0);
    assert_eq!(fixture.tenant.counts().await, json!({}));
}

#[tokio::test]
async fn unknown_users_and_wrong_passwords_are_indistinguishable() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({})).await;
    fixture
        .user(
            "locked",
            json!({ "error": { "status": 403, "code": "unauthorized" } }),
        )
        .await;
    fixture
        .user(
            "leaked",
            json!({ "error": { "status": 401, "code": "password_leaked" } }),
        )
        .await;
    let wrong = fixture.get("anna", "wrong password").await;
    assert_eq!(wrong.status_and_reason(), (401, Some("password_refused")));
    for (name, password) in [
        ("unknown", "wrong password"),
        ("locked", PASSWORD),
        ("leaked", PASSWORD),
    ] {
        let response = fixture.get(name, password).await;
        assert_eq!(comparable(&response), comparable(&wrong), "{name}");
    }
    assert_eq!(fixture.upstream.attempts().len(), 0);
}

#[tokio::test]
async fn password_guessing_is_limited_without_locking_out_signed_in_users() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({})).await;
    assert_eq!(fixture.get("anna", PASSWORD).await.status, 200);
    for guess in 0..5 {
        let response = fixture.get("anna", &format!("guess {guess}")).await;
        assert_eq!(
            response.status_and_reason(),
            (401, Some("password_refused"))
        );
    }
    for guess in ["guess 5", "guess 6"] {
        let response = fixture.get("anna", guess).await;
        assert_eq!(
            response.status_and_reason(),
            (429, Some("too_many_attempts"))
        );
        assert_eq!(response.header("retry-after"), Some("30"));
        assert_eq!(response.header("www-authenticate"), None);
    }
    assert_eq!(fixture.count("password-realm 403").await, 5);
    assert_eq!(fixture.get("anna", PASSWORD).await.status, 200);
    // All users of this machine have one address, so failures there lock out nobody else.
    for guess in 0..60 {
        let response = fixture.get(&format!("user-{guess}"), "guess").await;
        assert_eq!(
            response.status_and_reason(),
            (401, Some("password_refused")),
            "{guess}"
        );
    }
    assert_eq!(fixture.get("anna", PASSWORD).await.status, 200);
    fixture.user("berta", json!({})).await;
    assert_eq!(fixture.get("berta", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn an_upstream_401_is_recovered_by_signing_in_with_the_same_password() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({})).await;
    assert_eq!(fixture.get("anna", PASSWORD).await.status, 200);
    let first = fixture.upstream.attempts()[0]
        .request
        .header("authorization")
        .map(str::to_owned);
    *fixture.refused.lock().unwrap() = first.clone();
    let request = Request {
        body: crate::support::client::Body::Sized(vec![b'x'; 100_000].into()),
        method: "POST".into(),
        ..basic("anna", PASSWORD)
    };
    assert_eq!(fixture.gateway.send(&request).await.status, 200);
    let attempts = fixture.upstream.attempts();
    assert_eq!(attempts.len(), 3);
    assert_eq!(attempts[1].status, 401);
    assert_eq!(attempts[2].body_bytes, 100_000);
    assert_ne!(
        attempts[2].request.header("authorization"),
        first.as_deref()
    );
    assert_eq!(fixture.count("password-realm 200").await, 2);
    // If the password has changed meanwhile, the replay is refused.
    *fixture.refused.lock().unwrap() = attempts[2]
        .request
        .header("authorization")
        .map(str::to_owned);
    fixture
        .user("anna", json!({ "password": "a changed password" }))
        .await;
    let response = fixture.get("anna", PASSWORD).await;
    assert_eq!(
        response.status_and_reason(),
        (401, Some("password_refused"))
    );
    let head = String::from_utf8_lossy(&response.raw_head).to_lowercase();
    assert!(head.contains("www-authenticate: basic "), "{head}");
}

#[tokio::test]
async fn a_one_time_password_is_sent_as_x_otp() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({ "otp": "123456" })).await;
    let response = fixture.get("anna", PASSWORD).await;
    assert_eq!(response.status_and_reason(), (401, Some("mfa_required")));
    assert!(response.text().contains("X-OTP"), "{}", response.text());
    let response = fixture.get_with_code("anna", "654321").await;
    assert_eq!(response.status_and_reason(), (401, Some("mfa_refused")));
    assert_eq!(fixture.get_with_code("anna", "123456").await.status, 200);
    // For the next five minutes the password is enough.
    assert_eq!(fixture.get("anna", PASSWORD).await.status, 200);
    fixture.clock.advance(Duration::from_mins(5));
    let response = fixture.get("anna", PASSWORD).await;
    assert_eq!(response.status_and_reason(), (401, Some("mfa_required")));
}

#[tokio::test]
async fn a_used_recovery_code_is_replaced_by_a_new_one_in_the_response() {
    let fixture = Fixture::start().await;
    fixture
        .user("anna", json!({ "recovery": "QSVBD3RLYHLB2R6LSM3BCLEV" }))
        .await;
    let response = fixture
        .get_with_code("anna", "QSVBD3RLYHLB2R6LSM3BCLEV")
        .await;
    assert_eq!(response.status, 200);
    let next = response
        .header("x-hawkgate-recovery-code")
        .unwrap()
        .to_owned();
    assert_eq!(next.len(), 24);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let response = fixture.get("anna", PASSWORD).await;
    assert_eq!(
        (response.status, response.header("x-hawkgate-recovery-code")),
        (200, None)
    );
    fixture.clock.advance(Duration::from_mins(5));
    // The new code reaches the user even if the upstream is down.
    fixture.upstream.down().await;
    let response = fixture.get_with_code("anna", &next).await;
    assert_eq!(
        response.status_and_reason(),
        (502, Some("upstream_unreachable"))
    );
    let last = response.header("x-hawkgate-recovery-code").unwrap();
    assert_ne!(last, next);
    fixture.upstream.up().await;
    let response = fixture.get("anna", PASSWORD).await;
    assert_eq!(
        (response.status, response.header("x-hawkgate-recovery-code")),
        (200, None)
    );
}

#[tokio::test]
async fn a_new_recovery_code_reaches_the_caller_with_every_response_of_hawkgate() {
    for (request, expected) in [
        (Request::get("/malformed"), (502, Some("upstream_failed"))),
        (
            Request::new("OPTIONS", "/x").header("Max-Forwards", "0"),
            (204, None),
        ),
    ] {
        let fixture = Fixture::start().await;
        let code = "QSVBD3RLYHLB2R6LSM3BCLEV";
        fixture.user("anna", json!({ "recovery": code })).await;
        let request = authorized(request, "anna", PASSWORD).header("X-OTP", code);
        let response = fixture.gateway.send(&request).await;
        assert_eq!(response.status_and_reason(), expected);
        let next = response.header("x-hawkgate-recovery-code");
        assert_eq!(next.map(str::len), Some(24), "{expected:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn a_push_confirmation_is_awaited_across_requests() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({ "push": "sent" })).await;
    for _ in 0..3 {
        let response = fixture.get("anna", PASSWORD).await;
        assert_eq!(response.status_and_reason(), (401, Some("mfa_pending")));
        assert_eq!(response.header("retry-after"), Some("5"));
    }
    // A wrong password is still refused.
    assert_eq!(
        fixture.get("anna", "guess").await.status_and_reason(),
        (401, Some("password_refused"))
    );
    fixture
        .tenant
        .control("confirm", json!({ "name": "anna" }))
        .await;
    assert_eq!(fixture.get("anna", PASSWORD).await.status, 200);
    assert_eq!(fixture.count("/mfa/challenge 200").await, 1);

    fixture.user("berta", json!({ "push": "sent" })).await;
    assert_eq!(
        fixture.get("berta", PASSWORD).await.error_reason(),
        Some("mfa_pending")
    );
    fixture
        .tenant
        .control("decline", json!({ "name": "berta" }))
        .await;
    assert_eq!(
        fixture.get("berta", PASSWORD).await.status_and_reason(),
        (401, Some("mfa_refused"))
    );
}

#[tokio::test]
async fn a_text_message_code_is_sent_as_x_otp() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({ "sms": "424242" })).await;
    assert_eq!(
        fixture.get("anna", PASSWORD).await.status_and_reason(),
        (401, Some("mfa_required"))
    );
    assert_eq!(
        fixture
            .get_with_code("anna", "111111")
            .await
            .status_and_reason(),
        (401, Some("mfa_refused"))
    );
    assert_eq!(fixture.get_with_code("anna", "424242").await.status, 200);
    assert_eq!(fixture.count("/mfa/challenge 200").await, 1);
}

#[tokio::test]
async fn refresh_tokens_are_used_and_rotated() {
    let fixture =
        Fixture::start_with_keys("scopes = [\"openid\", \"read\", \"offline_access\"]").await;
    fixture.user("anna", json!({ "otp": "123456" })).await;
    assert_eq!(fixture.get_with_code("anna", "123456").await.status, 200);
    // Three times after the cached token has expired, without a code.
    for _ in 0..3 {
        fixture.clock.advance(Duration::from_mins(5));
        let response = fixture.get("anna", PASSWORD).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_eq!(fixture.count("refresh_token 200").await, 3);
    assert_eq!(fixture.count("password-realm 403").await, 1);
    // Within the hour for which a refresh token replaces the password.
    fixture.clock.advance(Duration::from_hours(1));
    let response = fixture.get("anna", PASSWORD).await;
    assert_eq!(response.status_and_reason(), (401, Some("mfa_required")));
}

#[tokio::test]
async fn the_callers_address_is_forwarded_to_auth0_when_configured() {
    let fixture = Fixture::start_with_keys("forward_client_ip = true").await;
    fixture.user("anna", json!({})).await;
    let request = basic("anna", PASSWORD)
        .header("X-Forwarded-For", "203.0.113.9")
        .header("auth0-forwarded-for", "203.0.113.9");
    assert_eq!(fixture.gateway.send(&request).await.status, 200);
    assert_eq!(fixture.count("password-realm 200 for 127.0.0.1").await, 1);
}

#[tokio::test]
async fn an_outage_of_the_provider_is_503_not_401() {
    let fixture = Fixture::start().await;
    fixture.user("anna", json!({})).await;
    fixture.tenant.control("down", json!({})).await;
    let response = fixture.get("anna", PASSWORD).await;
    assert_eq!(
        response.status_and_reason(),
        (503, Some("exchange_unavailable"))
    );
    assert!(response.header("retry-after").is_some());
    fixture.tenant.control("up", json!({})).await;
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.get("anna", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn no_secret_of_the_tenant_reaches_logs_metrics_or_responses() {
    let fixture =
        Fixture::start_with_keys("scopes = [\"openid\", \"read\", \"offline_access\"]").await;
    fixture.user("anna", json!({})).await;
    fixture.user("berta", json!({ "otp": "123456" })).await;
    fixture.user("carla", json!({ "push": "sent" })).await;
    fixture
        .user(
            "doris",
            json!({ "error": { "status": 401, "code": "password_leaked" } }),
        )
        .await;
    let mut responses = Vec::new();
    let mut client = Client::connect(fixture.gateway.address()).await;
    for _ in 0..2 {
        for request in [
            basic("anna", PASSWORD),
            basic("berta", PASSWORD),
            basic("berta", PASSWORD).header("X-OTP", "123456"),
            basic("carla", PASSWORD),
            basic("doris", PASSWORD),
            basic("anna", PASSWORD).header("X-OTP", "not allowed"),
            basic("unknown", PASSWORD),
        ] {
            let response = client.request(&request).await.unwrap();
            let head = String::from_utf8_lossy(&response.raw_head).into_owned();
            responses.push(format!("{head}{}", response.text()));
        }
        fixture.clock.advance(Duration::from_mins(5));
    }
    fixture
        .tenant
        .assert_nothing_leaked(&fixture.gateway, &responses)
        .await;
}

#[test]
fn passwords_on_a_listener_without_tls_are_refused_by_check_and_run() {
    let files = ConfigDir::new();
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
        let mut program = Command::new(env!("CARGO_BIN_EXE_hawkgate"));
        program.args([command, "--config", "hawkgate.toml"]);
        let exited = Exited::run(program.current_dir(path.parent().unwrap()));
        assert_eq!(exited.code, 1, "{command}");
        // `run` reports in JSON.
        let output = exited.stdout + &exited.stderr.replace("\\\"", "\"");
        let expected = "hawkgate.toml:14: route \"users\": key \"source\": accepts passwords, but other machines can connect";
        assert!(output.contains(expected), "{output}");
    }
}
