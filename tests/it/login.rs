//! hawkgate as the login service: the oidcCredentials endpoint served (seed 000).

use serde_json::{Value, json};

use crate::support::client::{Body, Request, Response};
use crate::support::gate::{self, Gate, ROOT_KEY};
use crate::support::peers::{OidcProvider, Taskcluster};
use crate::support::secrets::Secrets;

const AUDIENCE: &str = "login.taskcluster.net";
const ENDPOINT: &str = "/api/login/v1/oidc-credentials/idp";
const OLD_ENDPOINT: &str = "/v1/oidc-credentials/idp";
const TOOLS: &str = "https://tools.example.com";

/// A provider, a verifying Taskcluster, a hawkgate that serves credentials, and one that
/// fetches them there and signs with them.
struct House {
    provider: OidcProvider,
    taskcluster: Taskcluster,
    server: Gate,
    gate: Gate,
}

impl House {
    async fn build() -> Self {
        let provider = OidcProvider::start(json!({ "ttl": 3600 })).await;
        let taskcluster = Taskcluster::start(json!({
            "clients": { "root": {
                "accessToken": ROOT_KEY,
                "scopes": ["test:*", "auth:create-client:sso/*"],
            } },
        }))
        .await;
        let server = Gate::start(&server(provider.issuer(), taskcluster.url())).await;
        let gate = Gate::start(&format!(
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
            gate,
        }
    }

    async fn token(&self, sub: &str) -> String {
        self.provider.user_token("RS256", sub, AUDIENCE).await
    }
}

/// Serves credentials, and beside them a route that covers both of the endpoint's places.
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
[[source]]
name = "mint"
kind = "taskcluster-mint"
client_id = "root"
access_token = {{ file = "access-token" }}
client_name = "sso/{{sub}}"
scopes = ["test:*"]
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

/// An error's body without what differs from one moment to the next.
fn error(response: &Response) -> Value {
    let mut body = response.json();
    assert!(body["requestInfo"]["time"].is_string());
    body["requestInfo"]["time"] = Value::Null;
    body
}

#[tokio::test]
async fn one_hawkgate_is_the_login_service_of_another() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let request = Request::post("/api/queue/v1/task", "{}").bearer(&token);
    for _ in 0..3 {
        let response = house.gate.send(&request).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["clientId"], "sso/user|1");
        assert_eq!(response.json()["scopes"], json!(["test:*"]));
    }
    let served = [("route", "login"), ("code", "200"), ("outcome", "served")];
    house
        .server
        .until_counted("hawkgate_requests_total", &served, 1)
        .await;
    // A revoked certificate is healed through the endpoint.
    house.taskcluster.revoke().await;
    let response = house.gate.send(&request).await;
    assert_eq!(response.status, 200, "{}", response.text());
    house
        .server
        .until_counted("hawkgate_requests_total", &served, 2)
        .await;
    // What the endpoint calls a bad token is one to who fetches there.
    let other = house
        .provider
        .token(json!({ "alg": "RS256", "sub": "user|2", "audience": AUDIENCE, "scope": "read" }))
        .await;
    let response = house.gate.send(&get("/api/x", &other)).await;
    assert_eq!(response.refusal(), Some("token_refused"));
}

#[tokio::test]
async fn old_clients_get_what_they_always_got() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    for endpoint in [ENDPOINT, OLD_ENDPOINT] {
        let response = house.server.send(&get(endpoint, &token)).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("content-type"), Some("application/json"));
        let body = response.json();
        assert!(body["expires"].as_str().unwrap().ends_with('Z'));
        assert_eq!(body["credentials"]["clientId"], "sso/user|1");
        assert!(body["credentials"]["certificate"].is_string());
    }
    let unknown = house
        .server
        .send(&get("/v1/oidc-credentials/github", &token))
        .await;
    assert_eq!(unknown.status, 400);
    assert_eq!(unknown.json()["code"], "InputError");
    assert_eq!(unknown.refusal(), Some("login_unknown_provider"));
    // Anything else below is the route's.
    let below = Request::get("/v1/oidc-credentials/idp/more");
    assert_eq!(house.server.send(&below).await.status, 404);
    assert_eq!(
        house
            .taskcluster
            .count("GET", "/v1/oidc-credentials/idp/more", 404)
            .await,
        1
    );
    assert_eq!(house.taskcluster.count("GET", OLD_ENDPOINT, 404).await, 0);
}

#[tokio::test]
async fn bad_tokens_are_all_alike_and_never_401() {
    let house = House::build().await;
    let provider = &house.provider;
    let token = |changes: Value| async move { provider.token(changes).await };
    let wrong_audience = provider.user_token("RS256", "user|1", "another").await;
    let no_scope = token(
        json!({ "alg": "RS256", "sub": "user|1", "audience": AUDIENCE, "scope": "read openid" }),
    )
    .await;
    let good = house.token("user|1").await;
    let (head, rest) = good.split_once('.').unwrap();
    let forged = format!("{head}.{}", rest.chars().rev().collect::<String>());
    let mut said = Vec::new();
    for request in [
        Request::get(ENDPOINT),
        get(ENDPOINT, "opaque"),
        get(ENDPOINT, &wrong_audience),
        get(ENDPOINT, &no_scope),
        get(ENDPOINT, &forged),
        Request::get(ENDPOINT).header("Authorization", "Basic dTpw"),
        Request::get(ENDPOINT).header("Authorization", "Hawk id=\"root\""),
    ] {
        let response = house.server.send(&request).await;
        assert_eq!(response.status, 400, "{}", response.text());
        assert_eq!(response.refusal(), Some("login_refused"));
        assert!(response.header("www-authenticate").is_none());
        said.push(error(&response));
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0]["code"], "InputError");
    let two = get(ENDPOINT, &good).bearer(&good);
    assert_eq!(house.server.send(&two).await.status, 400);
    // The log has the difference.
    let refused = [("route", "login"), ("code", "400"), ("outcome", "rejected")];
    house
        .server
        .until_counted("hawkgate_requests_total", &refused, 7)
        .await;
    let log = gate::logged();
    for cause in ["lacks a scope in login.require_scopes", "no bearer token"] {
        assert!(log.contains(cause), "{cause}");
    }
}

#[tokio::test]
async fn an_identity_provider_that_is_down_is_a_bad_token() {
    let provider = OidcProvider::start(json!({})).await;
    let token = provider.user_token("RS256", "user|1", AUDIENCE).await;
    provider.down().await;
    let server = Gate::start(&server(provider.issuer(), "http://127.0.0.1:9")).await;
    let response = server.send(&get(ENDPOINT, &token)).await;
    assert_eq!(response.status, 400, "{}", response.text());
    assert_eq!(response.refusal(), Some("login_refused"));
}

#[tokio::test]
async fn browsers_of_listed_origins_may_ask() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    // All on one connection: each answer ends where the next begins.
    let mut client = house.server.client().await;
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
        let asked = get(ENDPOINT, &token).header("Origin", TOOLS);
        let response = client.request(&asked).await.unwrap();
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
            house.server.send(&chunked).await.status,
            200,
            "a body means nothing here"
        );
    }
}

#[tokio::test]
async fn off_unless_configured() {
    let provider = OidcProvider::start(json!({})).await;
    let token = provider.user_token("RS256", "user|1", AUDIENCE).await;
    let text =
        server(provider.issuer(), "http://127.0.0.1:9").replace("path = \"/\"", "path = \"/x\"");
    let start = text.find("[[issuer]]").unwrap();
    let gate = Gate::start(&text[start..]).await;
    let response = gate.send(&get(ENDPOINT, &token)).await;
    assert_eq!(response.refusal(), Some("no_route"));
}

#[tokio::test]
async fn what_is_given_out_is_seen_by_nobody_else() {
    let house = House::build().await;
    let token = house.token("user|1").await;
    let secrets = Secrets::default();
    secrets.token("the token", &token);
    secrets.add("root's key", ROOT_KEY);
    for http2 in [false, true] {
        let response = if http2 {
            let text = format!(
                "[server]\nlisten = [{{ address = \"127.0.0.1:0\", h2c = true }}]\nadmin = \"127.0.0.1:0\"\n{}",
                server(house.provider.issuer(), house.taskcluster.url())
            );
            let clock = hawkgate::clock::SystemClock::shared();
            let gate = Gate::start_with(&text, gate::Files::new(), clock).await;
            gate.http2(0)
                .await
                .request(&get(ENDPOINT, &token))
                .await
                .unwrap()
        } else {
            house.server.send(&get(ENDPOINT, &token)).await
        };
        assert_eq!(response.status, 200, "{}", response.text());
        secrets.credentials(&response.json()["credentials"]);
    }
    secrets.assert_absent("the metrics", &house.server.metrics().await.0);
    secrets.assert_absent("Debug", &format!("{:?}", house.server.running));
    for line in gate::logged().lines() {
        secrets.assert_absent("the log", line);
    }
}
