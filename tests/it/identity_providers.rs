//! Tokens as the large identity providers issue them, through the whole proxy: what is accepted under
//! the profile for them, and what callers are told otherwise.

use hawkgate::clock::SystemClock;
use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::gateway::TestGateway;
use crate::support::standard::{API_AUDIENCE as AUDIENCE, api_route};
use crate::support::tokens::{IssuerServer, SHARED, claims, with};
use crate::support::upstream::{FakeUpstream, Reply};

struct Fixture {
    gateway: TestGateway,
    _upstream: FakeUpstream,
    issuer: IssuerServer,
}

impl Fixture {
    /// A gateway whose issuer has these keys and whose route requires the scope `read`.
    async fn set_up(keys: &str, more: &str) -> Self {
        let issuer = IssuerServer::start(&[&SHARED[0]]).await;
        let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
        let route = api_route(&issuer, keys, &upstream, "require_scopes = [\"read\"]");
        let gateway = TestGateway::start(&format!("{route}\n{more}")).await;
        Self {
            gateway,
            _upstream: upstream,
            issuer,
        }
    }

    /// A token with this `typ`, if any, and these changes to the claims.
    fn token(&self, typ: &Value, changes: &Value) -> String {
        let now = SystemClock::shared().now().as_secs();
        let good = claims(&self.issuer.issuer(), AUDIENCE, now);
        let header = with(&SHARED[0].header("RS256"), &json!({ "typ": typ }));
        SHARED[0].sign(&header, &with(&good, changes))
    }

    async fn send(&self, token: &str) -> Response {
        let request = Request::get("/api/x").bearer(token);
        self.gateway.send(&request).await
    }

    async fn assert_refused(&self, token: &str, reason: &str, words: &str) {
        let response = self.send(token).await;
        let text = response.text();
        assert_eq!(response.status, 401, "{text}");
        assert_eq!(response.error_reason(), Some(reason), "{text}");
        let message = response.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{words:?} in {message}");
        let challenge = response.header("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
}

#[tokio::test]
async fn each_provider_has_a_profile_for_its_tokens() {
    for (profile, typ, changes) in [
        (
            "okta",
            json!(null),
            json!({"client_id": null, "scope": null, "cid": "0oa1", "scp": ["read"], "ver": 1}),
        ),
        (
            "entra",
            json!("JWT"),
            json!({
                "client_id": null, "scope": null, "azp": AUDIENCE, "azpacr": "0",
                "scp": "read write", "tid": "t", "ver": "2.0",
            }),
        ),
        (
            "cognito",
            json!(null),
            json!({"aud": null, "client_id": AUDIENCE, "scope": "read", "token_use": "access"}),
        ),
        (
            "keycloak",
            json!("JWT"),
            json!({
                "client_id": null, "aud": ["app", AUDIENCE], "azp": "app", "scope": "read",
                "typ": "Bearer", "nonce": "n",
            }),
        ),
    ] {
        let fixture = Fixture::set_up(&format!("profile = \"{profile}\""), "").await;
        let response = fixture.send(&fixture.token(&typ, &changes)).await;
        assert_eq!(response.status, 200, "{profile}: {}", response.text());
        let fractional = with(&changes, &json!({"exp": 2.1e9, "iat": 1_700_000_000.5}));
        let response = fixture.send(&fixture.token(&typ, &fractional)).await;
        assert_eq!(response.status, 200, "{profile}: {}", response.text());
        let id_token = json!({"at_hash": "h", "typ": "ID", "token_use": "id"});
        let id_token = fixture.token(&typ, &with(&changes, &id_token));
        fixture
            .assert_refused(&id_token, "token_type", "is an ID token")
            .await;
    }
}

#[tokio::test]
async fn callers_are_told_what_a_token_is_and_what_would_take_it() {
    let fixture = Fixture::set_up("", "").await;
    for (token, words) in [
        ("opaque-token".to_owned(), "opaque token, not a JWT"),
        ("ya29.a0AfH6SMBx".to_owned(), "or use introspection"),
        ("eyJhbGciOiJkaXIifQ..YQ.YQ.YQ".to_owned(), "encrypted"),
        (
            fixture.token(&json!("at+jwt"), &json!({"groups": "x".repeat(9000)})),
            "too large",
        ),
    ] {
        fixture
            .assert_refused(&token, "token_malformed", words)
            .await;
    }
    let okta = json!({
        "client_id": null, "cid": "0oa1", "scope": null, "scp": ["read"], "jti": "AT.1", "ver": 1,
    });
    let okta = fixture.token(&Value::Null, &okta);
    let words = "this looks like an Okta token; `profile = \"okta\"` takes it";
    fixture.assert_refused(&okta, "token_type", words).await;
}

#[tokio::test]
async fn larger_tokens_are_accepted_if_the_limit_is_raised() {
    let limits = "[limits]\ntoken_bytes = \"24KiB\"";
    let fixture = Fixture::set_up("", limits).await;
    let groups: Vec<_> = (0..400)
        .map(|n| format!("00000000-0000-4000-8000-{n:012}"))
        .collect();
    let large = fixture.token(&json!("at+jwt"), &json!({ "groups": groups }));
    assert!(
        (16 * 1024..24 * 1024).contains(&large.len()),
        "{}",
        large.len()
    );
    for _ in 0..3 {
        let response = fixture.send(&large).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let huge = fixture.token(&json!("at+jwt"), &json!({"x": "x".repeat(18 * 1024)}));
    assert!(huge.len() > 24 * 1024, "{}", huge.len());
    fixture
        .assert_refused(&huge, "token_malformed", "too large")
        .await;
}
