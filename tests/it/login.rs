//! hawkgate as a login service: it serves Taskcluster's oidcCredentials endpoint
//! (`docs/design/taskcluster.md`).

use serde_json::{Value, json};

use crate::support::client::{Body, Request, Response};
use crate::support::gateway::{self, ROOT_KEY, TestGateway};
use crate::support::peers::{OidcProvider, Taskcluster};
use crate::support::secrets::Secrets;
use crate::support::standard::{AUDIENCE, MINT, Peers};

const ENDPOINT: &str = "/api/login/v1/oidc-credentials/idp";
const OLD_ENDPOINT: &str = "/v1/oidc-credentials/idp";
const TOOLS: &str = "https://tools.example.com";

/// A provider, a Taskcluster that verifies Hawk, a gateway that serves credentials, and a second one that
/// obtains credentials there and signs with them.
struct Fixture {
    provider: OidcProvider,
    taskcluster: Taskcluster,
    server: TestGateway,
    gateway: TestGateway,
}

impl Fixture {
    async fn start() -> Self {
        let Peers {
            provider,
            taskcluster,
        } = Peers::start().await;
        let server = TestGateway::start(&server(provider.issuer(), taskcluster.url())).await;
        let gateway = TestGateway::start(&format!(
            r#"
[[issuer]]
name = "idp"
url = "{}"
audiences = ["{AUDIENCE}"]
[[source]]
name = "login"
kind = "taskcluster-login"
url = "http://{}{ENDPOINT}"
[[route]]
name = "taskcluster"
upstream = "{}"
issuers = ["idp"]
source = "login"
"#,
            provider.issuer(),
            server.address(),
            taskcluster.url()
        ))
        .await;
        Self {
            provider,
            taskcluster,
            server,
            gateway,
        }
    }

    async fn token(&self, sub: &str) -> String {
        self.provider.user_token("RS256", sub, AUDIENCE).await
    }
}

/// Serves credentials, and has a route that covers both paths of the endpoint.
fn server(issuer: &str, root_url: &str) -> String {
    format!(
        r#"
[login]
source = "mint"
issuers = ["idp"]
allowed_origins = ["{TOOLS}"]
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]
{MINT}
[[route]]
name = "everything"
path = "/"
upstream = "{root_url}"
anonymous = true
"#
    )
}

fn get(endpoint: &str, token: &str) -> Request {
    Request::get(endpoint).bearer(token)
}

/// The body of an error, without the time.
fn error(response: &Response) -> Value {
    let mut body = response.json();
    assert!(body["requestInfo"]["time"].is_string());
    body["requestInfo"]["time"] = Value::Null;
    body
}

#[tokio::test]
async fn one_hawkgate_can_be_the_login_service_of_another() {
    let fixture = Fixture::start().await;
    let token = fixture.token("user|1").await;
    let request = Request::post("/api/queue/v1/task", "{}").bearer(&token);
    for _ in 0..3 {
        let response = fixture.gateway.send(&request).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["clientId"], "sso/user|1");
        assert_eq!(response.json()["scopes"], json!(["test:*"]));
    }
    let served = [("route", "login"), ("code", "200"), ("outcome", "served")];
    fixture
        .server
        .wait_for_metric("hawkgate_requests_total", &served, 1)
        .await;
    // A revoked certificate is replaced through the endpoint.
    fixture.taskcluster.revoke().await;
    let response = fixture.gateway.send(&request).await;
    assert_eq!(response.status, 200, "{}", response.text());
    fixture
        .server
        .wait_for_metric("hawkgate_requests_total", &served, 2)
        .await;
    // A token that the endpoint refuses is refused by the second gateway.
    let other = fixture
        .provider
        .token(json!({ "alg": "RS256", "sub": "user|2", "audience": AUDIENCE, "scope": "read" }))
        .await;
    let response = fixture.gateway.send(&get("/api/x", &other)).await;
    assert_eq!(response.error_reason(), Some("token_refused"));
}

#[tokio::test]
async fn the_login_endpoint_responds_like_the_original_service() {
    let fixture = Fixture::start().await;
    let token = fixture.token("user|1").await;
    for endpoint in [ENDPOINT, OLD_ENDPOINT] {
        let response = fixture.server.send(&get(endpoint, &token)).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("content-type"), Some("application/json"));
        let body = response.json();
        assert!(body["expires"].as_str().unwrap().ends_with('Z'));
        assert_eq!(body["credentials"]["clientId"], "sso/user|1");
        assert!(body["credentials"]["certificate"].is_string());
    }
    let unknown = fixture
        .server
        .send(&get("/v1/oidc-credentials/github", &token))
        .await;
    assert_eq!(unknown.status, 400);
    assert_eq!(unknown.json()["code"], "InputError");
    assert_eq!(unknown.error_reason(), Some("login_unknown_provider"));
    // Paths below the endpoint belong to the route.
    let below = Request::get("/v1/oidc-credentials/idp/more");
    assert_eq!(fixture.server.send(&below).await.status, 404);
    assert_eq!(
        fixture
            .taskcluster
            .count("GET", "/v1/oidc-credentials/idp/more", 404)
            .await,
        1
    );
    assert_eq!(fixture.taskcluster.count("GET", OLD_ENDPOINT, 404).await, 0);
}

#[tokio::test]
async fn the_login_endpoint_responds_to_every_bad_token_with_the_same_400() {
    let fixture = Fixture::start().await;
    let provider = &fixture.provider;
    let token = |changes: Value| async move { provider.token(changes).await };
    let wrong_audience = provider.user_token("RS256", "user|1", "another").await;
    let no_scope = token(
        json!({ "alg": "RS256", "sub": "user|1", "audience": AUDIENCE, "scope": "read openid" }),
    )
    .await;
    let good = fixture.token("user|1").await;
    let (head, rest) = good.split_once('.').unwrap();
    let forged = format!("{head}.{}", rest.chars().rev().collect::<String>());
    let mut errors = Vec::new();
    for request in [
        Request::get(ENDPOINT),
        get(ENDPOINT, "opaque"),
        get(ENDPOINT, &wrong_audience),
        get(ENDPOINT, &no_scope),
        get(ENDPOINT, &forged),
        Request::get(ENDPOINT).header("Authorization", "Basic dTpw"),
        Request::get(ENDPOINT).header("Authorization", "Hawk id=\"root\""),
    ] {
        let response = fixture.server.send(&request).await;
        assert_eq!(response.status, 400, "{}", response.text());
        assert_eq!(response.error_reason(), Some("login_refused"));
        assert!(response.header("www-authenticate").is_none());
        errors.push(error(&response));
    }
    errors.dedup();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["code"], "InputError");
    let two = get(ENDPOINT, &good).bearer(&good);
    assert_eq!(fixture.server.send(&two).await.status, 400);
    // Only the log distinguishes them.
    let refused = [("route", "login"), ("code", "400"), ("outcome", "rejected")];
    fixture
        .server
        .wait_for_metric("hawkgate_requests_total", &refused, 7)
        .await;
    let log = fixture.server.log();
    for cause in ["lacks a scope in login.require_scopes", "no bearer token"] {
        assert!(log.contains(cause), "{cause}");
    }
}

#[tokio::test]
async fn the_login_endpoint_responds_with_400_while_the_identity_provider_is_down() {
    let provider = OidcProvider::start(json!({})).await;
    let token = provider.user_token("RS256", "user|1", AUDIENCE).await;
    provider.down().await;
    let server = TestGateway::start(&server(provider.issuer(), "http://127.0.0.1:9")).await;
    let response = server.send(&get(ENDPOINT, &token)).await;
    assert_eq!(response.status, 400, "{}", response.text());
    assert_eq!(response.error_reason(), Some("login_refused"));
}

#[tokio::test]
async fn cors_is_allowed_for_listed_origins() {
    let fixture = Fixture::start().await;
    let token = fixture.token("user|1").await;
    // All on one connection, so that each response must be framed correctly.
    let mut client = fixture.server.client().await;
    for round in 0..2 {
        let preflight = Request::new("OPTIONS", ENDPOINT)
            .header("Origin", TOOLS)
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "authorization");
        let response = client.request(&preflight).await.unwrap();
        assert_eq!(response.status, 204, "{round}");
        assert_eq!(response.header("access-control-allow-origin"), Some(TOOLS));
        assert_eq!(
            response.header("access-control-allow-headers"),
            Some("Authorization")
        );
        assert_eq!(response.header("vary"), Some("Origin"));
        let request = get(ENDPOINT, &token).header("Origin", TOOLS);
        let response = client.request(&request).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("access-control-allow-origin"), Some(TOOLS));
        let bad = get(ENDPOINT, "opaque").header("Origin", TOOLS);
        let response = client.request(&bad).await.unwrap();
        assert_eq!(response.status, 400);
        assert_eq!(response.header("access-control-allow-origin"), Some(TOOLS));
        let other = get(ENDPOINT, &token).header("Origin", "https://evil.example");
        let response = client.request(&other).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("access-control-allow-origin"), None);
        let posted = Request::post(ENDPOINT, "{}").bearer(&token);
        let response = client.request(&posted).await.unwrap();
        assert_eq!(response.status, 405);
        assert_eq!(response.header("allow"), Some("GET, OPTIONS"));
        let chunked = Request::new("GET", ENDPOINT)
            .bearer(&token)
            .body(Body::Chunked("x".into(), 1));
        assert_eq!(
            fixture.server.send(&chunked).await.status,
            200,
            "a request body is ignored"
        );
    }
    let preflights = [
        ("route", "login"),
        ("code", "204"),
        ("outcome", "preflight"),
    ];
    fixture
        .server
        .wait_for_metric("hawkgate_requests_total", &preflights, 2)
        .await;
}

#[tokio::test]
async fn the_login_endpoint_is_off_unless_configured() {
    let provider = OidcProvider::start(json!({})).await;
    let token = provider.user_token("RS256", "user|1", AUDIENCE).await;
    let text =
        server(provider.issuer(), "http://127.0.0.1:9").replace("path = \"/\"", "path = \"/x\"");
    let start = text.find("[[issuer]]").unwrap();
    let gateway = TestGateway::start(&text[start..]).await;
    let response = gateway.send(&get(ENDPOINT, &token)).await;
    assert_eq!(response.error_reason(), Some("no_route"));
}

#[tokio::test]
async fn issued_credentials_reach_neither_logs_nor_metrics() {
    let fixture = Fixture::start().await;
    let token = fixture.token("user|1").await;
    let secrets = Secrets::default();
    secrets.token("the token", &token);
    secrets.add("root's key", ROOT_KEY);
    for http2 in [false, true] {
        let response = if http2 {
            let text = format!(
                "[server]\nlisten = [{{ address = \"127.0.0.1:0\", h2c = true }}]\nadmin = \"127.0.0.1:0\"\n{}",
                server(fixture.provider.issuer(), fixture.taskcluster.url())
            );
            let clock = hawkgate::clock::SystemClock::shared();
            let gateway = TestGateway::start_with(&text, gateway::ConfigDir::new(), clock).await;
            gateway
                .http2(0)
                .await
                .request(&get(ENDPOINT, &token))
                .await
                .unwrap()
        } else {
            fixture.server.send(&get(ENDPOINT, &token)).await
        };
        assert_eq!(response.status, 200, "{}", response.text());
        secrets.credentials(&response.json()["credentials"]);
    }
    secrets.assert_absent("the metrics", &fixture.server.metrics().await.0);
    secrets.assert_absent("Debug", &format!("{:?}", fixture.server.running));
    secrets.assert_absent("the log", &fixture.server.log());
}
