//! Callers with opaque tokens, and with tokens that a shared secret signs.

use std::sync::Arc;
use std::time::Duration;

use hawkgate::clock::{Clock as _, ManualClock, SystemClock};

use super::{AUDIENCE, Revoked, api, last, to, welcomed};
use crate::support::client::Request;
use crate::support::gate::{Files, Gate, SERVER};
use crate::support::peers::OidcProvider;
use crate::support::tokens::hmac_token;
use crate::support::upstream::Upstream;
use serde_json::{Value, json};

const HMAC: &str = "tests-only-hmac-secret-0123456789-abcdef";
const LEGACY: &str = "https://legacy.example.com/";

struct House {
    provider: OidcProvider,
    api: Upstream,
    gate: Gate,
    clock: Arc<ManualClock>,
}

impl House {
    async fn build() -> Self {
        let provider = OidcProvider::start(json!({})).await;
        let api = api(&Revoked::default()).await;
        let files = Files::new();
        files.write("secret", provider.0.part("client", "secret"));
        files.write("key.pem", provider.0.part("keyClient", "pem"));
        files.write("hmac", HMAC);
        let (issuer, token_url, api_url) = (provider.issuer(), provider.token_url(), api.url());
        let introspection_url = provider.introspection_url();
        let text = format!(
            r#"{SERVER}
[[issuer]]
name = "opaque"
kind = "introspection"
url = "{issuer}"
introspection_url = "{introspection_url}"
client_id = "hawkgate-key"
private_key = {{ file = "key.pem" }}
assertion_audience = "{issuer}"
audiences = ["urn:hawkgate:opaque"]
[[issuer]]
name = "legacy"
kind = "shared-secret"
url = "{LEGACY}"
secret = {{ file = "hmac" }}
audiences = ["{AUDIENCE}"]
profile = "auth0"
[[source]]
name = "own"
kind = "client-credentials"
token_url = "{token_url}"
client_id = "hawkgate-tests"
client_secret = {{ file = "secret" }}
resource = "urn:hawkgate:ES256"
[[route]]
name = "api"
host = "api.test"
upstream = "{api_url}"
issuers = ["opaque", "legacy"]
source = "own"
[[route]]
name = "scoped"
host = "scoped.test"
upstream = "{api_url}"
issuers = ["opaque"]
source = "own"
require_scopes = ["admin"]
"#
        );
        let clock = ManualClock::at(SystemClock::shared().now());
        let gate = Gate::start_with(&text, files, clock.clone()).await;
        Self {
            provider,
            api,
            gate,
            clock,
        }
    }

    async fn opaque(&self, sub: &str) -> String {
        let wanted = json!({ "alg": "opaque", "sub": sub, "scope": "read" });
        let token = self.provider.token(wanted).await;
        assert!(!token.contains('.'), "opaque");
        token
    }

    fn legacy(&self, changes: &Value) -> String {
        let now = self.clock.now().as_secs();
        let mut claims =
            json!({ "iss": LEGACY, "aud": AUDIENCE, "sub": "cron", "iat": now, "exp": now + 60 });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        hmac_token(
            &json!({ "alg": "HS256", "typ": "JWT" }),
            &claims,
            HMAC.as_bytes(),
        )
    }
}

#[tokio::test]
async fn an_opaque_token_is_asked_about_once_a_minute() {
    let house = House::build().await;
    let token = house.opaque("alice").await;
    for _ in 0..3 {
        welcomed(&house.gate.send(&to("api", &token)).await);
    }
    assert_eq!(house.provider.asked("introspection").await, 1);
    assert_ne!(last(&house.api), token);
    house.provider.revoke().await;
    welcomed(&house.gate.send(&to("api", &token)).await);
    house.clock.advance(Duration::from_mins(1));
    let response = house.gate.send(&to("api", &token)).await;
    assert_eq!(
        (response.status, response.refusal()),
        (401, Some("token_inactive"))
    );
    let challenge = response.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    for (result, count) in [("accepted", 1), ("refused", 1)] {
        let labels = [("issuer", "opaque"), ("result", result)];
        house
            .gate
            .until_counted("hawkgate_introspections_total", &labels, count)
            .await;
    }
    let verified = [("issuer", "opaque"), ("result", "token_inactive")];
    house
        .gate
        .until_counted("hawkgate_token_verifications_total", &verified, 1)
        .await;
}

#[tokio::test]
async fn an_unknown_token_is_refused_and_its_scopes_count() {
    let house = House::build().await;
    for _ in 0..3 {
        let response = house.gate.send(&to("api", "made-up-by-somebody")).await;
        assert_eq!(
            (response.status, response.refusal()),
            (401, Some("token_inactive"))
        );
    }
    assert_eq!(house.provider.asked("introspection").await, 1, "remembered");
    let token = house.opaque("alice").await;
    let response = house.gate.send(&to("scoped", &token)).await;
    assert_eq!(
        (response.status, response.refusal()),
        (403, Some("insufficient_scope"))
    );
    // A JWT is no opaque token, even of the same issuer: that one answers for it.
    let jwt = house.provider.user_token("RS256", "alice", AUDIENCE).await;
    let response = house.gate.send(&to("api", &jwt)).await;
    assert_eq!(response.status, 401);
    assert_eq!(house.api.attempts().len(), 0);
}

#[tokio::test]
async fn while_the_endpoint_is_down_nobody_is_let_in_and_nobody_is_told_401() {
    let house = House::build().await;
    let (known, unknown) = (house.opaque("alice").await, house.opaque("bob").await);
    welcomed(&house.gate.send(&to("api", &known)).await);
    house.provider.down().await;
    welcomed(&house.gate.send(&to("api", &known)).await);
    let response = house.gate.send(&to("api", &unknown)).await;
    assert_eq!(
        (response.status, response.refusal()),
        (503, Some("keys_unavailable"))
    );
    assert!(response.header("retry-after").is_some());
    assert!(response.header("www-authenticate").is_none());
    house.clock.advance(Duration::from_mins(1));
    assert_eq!(house.gate.send(&to("api", &known)).await.status, 503);
    assert_eq!(
        house.gate.admin("/readyz").await.status,
        200,
        "the other issuer works"
    );
    house.provider.up().await;
    house.clock.advance(Duration::from_mins(1));
    welcomed(&house.gate.send(&to("api", &unknown)).await);
}

#[tokio::test]
async fn a_shared_secret_proves_a_token_and_is_no_key_to_anything_else() {
    let house = House::build().await;
    welcomed(&house.gate.send(&to("api", &house.legacy(&json!({})))).await);
    assert_eq!(
        house.provider.asked("introspection").await,
        0,
        "its JWTs go nowhere else"
    );
    let now = house.clock.now().as_secs();
    for (changes, reason) in [
        (json!({ "aud": "x" }), "token_audience"),
        (json!({ "exp": now - 60 }), "token_expired"),
        (json!({ "iss": "https://foreign.example" }), "token_issuer"),
        (json!({ "iss": house.provider.issuer() }), "token_inactive"),
    ] {
        let response = house.gate.send(&to("api", &house.legacy(&changes))).await;
        assert_eq!(
            (response.status, response.refusal()),
            (401, Some(reason)),
            "{changes}"
        );
    }
    let forged = house.legacy(&json!({})) + "A";
    let response = house.gate.send(&to("api", &forged)).await;
    assert_eq!(response.status, 401);
    let mut nobody = Request::get("/v1/things");
    nobody.authority = "api.test".into();
    assert_eq!(
        house.gate.send(&nobody).await.refusal(),
        Some("missing_token")
    );
    assert_eq!(house.gate.admin("/startupz").await.status, 200);
}
