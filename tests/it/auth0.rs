//! The source `auth0-identity` through the whole proxy: callers with tokens of the certified
//! provider, and the tenant of `tests/peers/auth0.js`.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::auth0::Auth0;
use crate::support::client::{Request, Response};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::peers::OidcProvider;
use crate::support::upstream::{FakeUpstream, Protocol, Reply};

const AUDIENCE: &str = "https://drive.example.com/";
const USER: &str = "google-oauth2|1234567890";

/// A provider that issues callers' tokens, a tenant with their identities, an upstream that refuses
/// some tokens, and a gateway with a route for each value of `via`.
struct Fixture {
    provider: OidcProvider,
    tenant: Auth0,
    upstream: FakeUpstream,
    refused: Arc<Mutex<Vec<String>>>,
    gateway: TestGateway,
}

impl Fixture {
    async fn start() -> Self {
        let provider = OidcProvider::start(json!({ "ttl": 3600 })).await;
        let tenant = Auth0::start().await;
        let refused: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = Arc::clone(&refused);
        let upstream = FakeUpstream::start(Protocol::Http1, move |received| {
            let authorization = received
                .header("authorization")
                .unwrap_or_default()
                .to_owned();
            let refused = shared.lock().unwrap().contains(&authorization);
            let reply = if refused {
                Reply::new(401, "{}")
            } else {
                Reply::ok()
            };
            // An upstream that echoes the credential.
            reply
                .header("x-echo", &format!("you sent {authorization}"))
                .header("x-other", "kept")
        })
        .await;
        let mut text = SERVER_CONFIG.to_owned();
        text += &format!(
            "[[issuer]]\nname = \"idp\"\nurl = \"{}\"\naudiences = [\"{AUDIENCE}\"]\n",
            provider.issuer()
        );
        for (name, keys) in [
            ("identities", "provider = \"google-oauth2\""),
            ("vault", "via = \"vault\""),
        ] {
            text += &format!(
                r#"
[[source]]
name = "{name}"
kind = "auth0-identity"
tenant = "{tenant}"
client_id = "{id}"
client_secret = {{ file = "client-secret" }}
connection = "google-oauth2"
custom_domain = "{domain}"
{keys}
[[route]]
name = "{name}"
host = "{name}.test"
upstream = "{upstream}"
issuers = ["idp"]
source = "{name}"
"#,
                tenant = tenant.issuer(),
                id = tenant.client("post").0,
                domain = provider.issuer(),
                upstream = upstream.url(),
            );
        }
        let files = ConfigDir::new();
        files.write("client-secret", tenant.client("post").1);
        let clock = hawkgate::clock::SystemClock::shared();
        let gateway = TestGateway::start_with(&text, files, clock).await;
        Self {
            provider,
            tenant,
            upstream,
            refused,
            gateway,
        }
    }

    /// Sets the identities of [`USER`], with `token` as the identity provider's.
    async fn set_identity(&self, token: &str) {
        let identities = json!([
            { "provider": "auth0", "connection": "Users", "user_id": "1", "isSocial": false },
            { "provider": "google-oauth2", "connection": "google-oauth2", "user_id": 1_234_567_890,
              "isSocial": true, "access_token": token },
        ]);
        self.tenant.identities(USER, identities).await;
    }

    async fn get(&self, route: &str, sub: &str) -> Response {
        let token = self.provider.user_token("RS256", sub, AUDIENCE).await;
        self.get_with(route, &token).await
    }

    async fn get_with(&self, route: &str, token: &str) -> Response {
        let mut request = Request::get("/drive/v3/files").bearer(token);
        request.authority = format!("{route}.test");
        self.gateway.send(&request).await
    }

    /// The `Authorization` of each request that reached the upstream.
    fn sent(&self) -> Vec<String> {
        let attempts = self.upstream.attempts();
        let sent = attempts.iter().map(|a| a.request.header("authorization"));
        sent.map(|a| a.unwrap_or("none").to_owned()).collect()
    }
}

#[tokio::test]
async fn the_identity_providers_token_goes_upstream_and_is_never_echoed_to_the_caller() {
    let fixture = Fixture::start().await;
    fixture.set_identity("ya29.the-providers-token").await;
    for _ in 0..3 {
        let response = fixture.get("identities", USER).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("x-other"), Some("kept"));
        let head = String::from_utf8_lossy(&response.raw_head).into_owned();
        assert!(!head.contains("ya29"), "{head}");
    }
    assert_eq!(fixture.sent(), ["Bearer ya29.the-providers-token"; 3]);
    // One management token and one lookup, although each request had a different token.
    let counts = fixture.tenant.counts().await;
    assert_eq!(counts["client_credentials 200"], 1);
    assert_eq!(counts["/api/v2/users 200"], 1);
}

#[tokio::test]
async fn a_user_without_the_configured_identity_is_not_entitled() {
    let fixture = Fixture::start().await;
    let other = json!([{ "provider": "github", "connection": "github", "user_id": 1, "access_token": "gho_another-token" }]);
    fixture.tenant.identities("github|1", other).await;
    for sub in ["github|1", "auth0|unknown", "../clients"] {
        for route in ["identities", "vault"] {
            let response = fixture.get(route, sub).await;
            assert_eq!(
                response.status_and_reason(),
                (403, Some("not_entitled")),
                "{sub} {route}"
            );
        }
    }
    let response = fixture.get_with("identities", "no.good.token").await;
    assert_eq!(response.status_and_reason(), (401, Some("token_malformed")));
    assert_eq!(fixture.sent(), [""; 0]);
}

#[tokio::test]
async fn a_token_that_the_upstream_refuses_is_looked_up_once_more_before_sign_in_again() {
    let fixture = Fixture::start().await;
    fixture.set_identity("ya29.first-token").await;
    assert_eq!(fixture.get("identities", USER).await.status, 200);
    // The user has signed in again meanwhile: the replay succeeds.
    fixture.set_identity("ya29.second-token").await;
    fixture
        .refused
        .lock()
        .unwrap()
        .push("Bearer ya29.first-token".into());
    assert_eq!(fixture.get("identities", USER).await.status, 200);
    // The user has not signed in again, and the response says to do so.
    fixture
        .refused
        .lock()
        .unwrap()
        .push("Bearer ya29.second-token".into());
    let response = fixture.get("identities", USER).await;
    assert_eq!(response.status_and_reason(), (401, Some("sign_in_again")));
    assert!(
        response.text().contains("sign in there again"),
        "{}",
        response.text()
    );
    let challenge = response.header("www-authenticate").unwrap();
    assert!(challenge.contains("invalid_token"), "{challenge}");
    assert_eq!(
        fixture.sent(),
        ["first", "first", "second", "second", "second"].map(|n| format!("Bearer ya29.{n}-token"))
    );
}

#[tokio::test]
async fn a_token_for_the_management_api_that_is_refused_is_replaced() {
    let fixture = Fixture::start().await;
    fixture.set_identity("ya29.some-token").await;
    assert_eq!(fixture.get("identities", USER).await.status, 200);
    fixture.tenant.control("revoke", json!({})).await;
    fixture.tenant.identities("google-oauth2|2", json!([
        { "provider": "google-oauth2", "connection": "google-oauth2", "user_id": "2", "access_token": "ya29.of-another-user" },
    ])).await;
    assert_eq!(
        fixture.get("identities", "google-oauth2|2").await.status,
        200
    );
    assert_eq!(
        fixture.sent().last().unwrap(),
        "Bearer ya29.of-another-user"
    );
    let counts = fixture.tenant.counts().await;
    assert_eq!(counts["/api/v2/users 401"], 1);
    assert_eq!(counts["client_credentials 200"], 2);
}

#[tokio::test]
async fn token_vault_exchanges_the_callers_token() {
    let fixture = Fixture::start().await;
    fixture.set_identity("ya29.not-this-one").await;
    let token = fixture.provider.user_token("RS256", USER, AUDIENCE).await;
    for _ in 0..2 {
        assert_eq!(fixture.get_with("vault", &token).await.status, 200);
    }
    let sent = fixture.sent();
    assert!(
        sent[0].starts_with("Bearer vaulted-") && sent[0] == sent[1],
        "{}",
        sent.len()
    );
    assert_eq!(
        fixture.tenant.counts().await["federated-connection-access-token 200"],
        1
    );
    // A token obtained for one caller's token is not used for another.
    assert_eq!(fixture.get("vault", USER).await.status, 200);
    assert_ne!(fixture.sent()[2], sent[0]);
    // Refused upstream: exchanged again, and the replay succeeds.
    fixture.refused.lock().unwrap().push(sent[0].clone());
    assert_eq!(fixture.get_with("vault", &token).await.status, 200);
}

#[tokio::test]
async fn rate_limits_and_outages_of_the_tenant_are_503_not_401() {
    let fixture = Fixture::start().await;
    fixture.set_identity("ya29.some-token").await;
    let fail = async |endpoint: &str, response: Value| {
        let failure = json!({ "endpoint": endpoint, "responses": [response] });
        fixture.tenant.control("fail", failure).await;
    };
    fail(
        "/api/v2/users",
        json!({ "status": 403, "body": { "errorCode": "insufficient_scope" } }),
    )
    .await;
    let response = fixture.get("identities", "google-oauth2|forbidden").await;
    assert_eq!(response.status_and_reason(), (503, Some("client_refused")));
    fixture.tenant.control("down", json!({})).await;
    let response = fixture.get("identities", USER).await;
    assert_eq!(
        response.status_and_reason(),
        (503, Some("exchange_unavailable"))
    );
    assert!(response.header("retry-after").is_some());
    fixture.tenant.control("up", json!({})).await;

    // A new fixture for each case: after a rate limit the source is in backoff.
    let fixture = Fixture::start().await;
    let limit = json!({ "status": 429, "headers": { "retry-after": "17" } });
    let failure = json!({ "endpoint": "/api/v2/users", "responses": [limit] });
    fixture.tenant.control("fail", failure).await;
    let response = fixture.get("identities", USER).await;
    assert_eq!(
        response.status_and_reason(),
        (503, Some("exchange_unavailable"))
    );
    let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((17..=19).contains(&wait), "{wait}");
}

#[tokio::test]
async fn no_secret_of_the_tenant_reaches_logs_metrics_or_responses() {
    let fixture = Fixture::start().await;
    fixture.set_identity("ya29.a-token-in-no-log").await;
    let mut responses = Vec::new();
    for route in ["identities", "vault"] {
        for sub in [USER, "github|1"] {
            let response = fixture.get(route, sub).await;
            responses.push(format!(
                "{}{}",
                String::from_utf8_lossy(&response.raw_head),
                response.text()
            ));
        }
    }
    fixture
        .refused
        .lock()
        .unwrap()
        .push("Bearer ya29.a-token-in-no-log".into());
    let response = fixture.get("identities", USER).await;
    responses.push(format!(
        "{}{}",
        String::from_utf8_lossy(&response.raw_head),
        response.text()
    ));
    fixture
        .tenant
        .assert_nothing_leaked(&fixture.gateway, &responses)
        .await;
}
