//! Callers with opaque tokens (introspection) and with tokens signed with a shared secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hawkgate::clock::{Clock as _, ManualClock, SystemClock};

use super::{AUDIENCE, Revoked, api, assert_ok, last, to};
use crate::support::client::Request;
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::peers::OidcProvider;
use crate::support::tokens::hmac_token;
use crate::support::upstream::{FakeUpstream, Reply};
use serde_json::{Value, json};

const HMAC: &str = "tests-only-hmac-secret-0123456789-abcdef";
const LEGACY: &str = "https://legacy.example.com/";

struct Fixture {
    provider: OidcProvider,
    api: FakeUpstream,
    gateway: TestGateway,
    clock: Arc<ManualClock>,
}

impl Fixture {
    async fn start() -> Self {
        let provider = OidcProvider::start(json!({})).await;
        let api = api(&Revoked::default()).await;
        let files = ConfigDir::new();
        files.write("secret", provider.0.part("client", "secret"));
        files.write("key.pem", provider.0.part("keyClient", "pem"));
        files.write("hmac", HMAC);
        let (issuer, token_url, api_url) = (provider.issuer(), provider.token_url(), api.url());
        let introspection_url = provider.introspection_url();
        let text = format!(
            r#"{SERVER_CONFIG}
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
        let gateway = TestGateway::start_with(&text, files, clock.clone()).await;
        Self {
            provider,
            api,
            gateway,
            clock,
        }
    }

    async fn opaque(&self, sub: &str) -> String {
        let parameters = json!({ "alg": "opaque", "sub": sub, "scope": "read" });
        let token = self.provider.token(parameters).await;
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
async fn introspection_results_are_cached_for_a_minute() {
    let fixture = Fixture::start().await;
    let token = fixture.opaque("alice").await;
    for _ in 0..3 {
        assert_ok(&fixture.gateway.send(&to("api", &token)).await);
    }
    assert_eq!(fixture.provider.request_count("introspection").await, 1);
    assert_ne!(last(&fixture.api), token);
    fixture.provider.revoke().await;
    assert_ok(&fixture.gateway.send(&to("api", &token)).await);
    fixture.clock.advance(Duration::from_mins(1));
    let response = fixture.gateway.send(&to("api", &token)).await;
    assert_eq!(response.status_and_reason(), (401, Some("token_inactive")));
    let challenge = response.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    for (result, count) in [("accepted", 1), ("refused", 1)] {
        let labels = [("issuer", "opaque"), ("result", result)];
        fixture
            .gateway
            .wait_for_metric("hawkgate_introspections_total", &labels, count)
            .await;
    }
    let verified = [("issuer", "opaque"), ("result", "token_inactive")];
    fixture
        .gateway
        .wait_for_metric("hawkgate_token_verifications_total", &verified, 1)
        .await;
}

#[tokio::test]
async fn inactive_tokens_are_refused_and_introspected_scopes_are_enforced() {
    let fixture = Fixture::start().await;
    for _ in 0..3 {
        let response = fixture
            .gateway
            .send(&to("api", "an-unknown-opaque-token"))
            .await;
        assert_eq!(response.status_and_reason(), (401, Some("token_inactive")));
    }
    assert_eq!(
        fixture.provider.request_count("introspection").await,
        1,
        "cached"
    );
    let token = fixture.opaque("alice").await;
    let response = fixture.gateway.send(&to("scoped", &token)).await;
    assert_eq!(
        response.status_and_reason(),
        (403, Some("insufficient_scope"))
    );
    // A JWT of the same issuer is introspected like an opaque token, and is not active.
    let jwt = fixture
        .provider
        .user_token("RS256", "alice", AUDIENCE)
        .await;
    let response = fixture.gateway.send(&to("api", &jwt)).await;
    assert_eq!(response.status, 401);
    assert_eq!(fixture.api.attempts().len(), 0);
}

#[tokio::test]
async fn an_introspection_outage_is_503_never_401() {
    let fixture = Fixture::start().await;
    let (known, unknown) = (fixture.opaque("alice").await, fixture.opaque("bob").await);
    assert_ok(&fixture.gateway.send(&to("api", &known)).await);
    fixture.provider.down().await;
    assert_ok(&fixture.gateway.send(&to("api", &known)).await);
    let response = fixture.gateway.send(&to("api", &unknown)).await;
    assert_eq!(
        response.status_and_reason(),
        (503, Some("keys_unavailable"))
    );
    assert!(response.header("retry-after").is_some());
    assert!(response.header("www-authenticate").is_none());
    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(fixture.gateway.send(&to("api", &known)).await.status, 503);
    assert_eq!(
        fixture.gateway.admin("/readyz").await.status,
        200,
        "the other issuer works"
    );
    fixture.provider.up().await;
    fixture.clock.advance(Duration::from_mins(1));
    assert_ok(&fixture.gateway.send(&to("api", &unknown)).await);
}

/// A firewall in front of the authorization server, for example, rejects tokens with `../` in them.
#[tokio::test]
async fn tokens_that_the_authorization_server_rejects_shut_out_nobody_else() {
    let status = Arc::new(AtomicU16::new(200));
    let answer = Arc::clone(&status);
    let server = FakeUpstream::http1(move |_| match answer.load(Ordering::SeqCst) {
        200 => {
            let body = json!({ "active": true, "aud": AUDIENCE, "sub": "alice" });
            Reply::new(200, body.to_string()).header("content-type", "application/json")
        }
        status => Reply::new(status, "<html>").header("content-type", "text/html"),
    })
    .await;
    let api = api(&Revoked::default()).await;
    let files = ConfigDir::new();
    files.write("secret", "tests-only-junk-secret-88dd");
    let text = format!(
        "{SERVER_CONFIG}[[issuer]]\nname = \"opaque\"\nkind = \"introspection\"\n\
         url = \"https://as.example.com\"\nintrospection_url = \"{}\"\nclient_id = \"c\"\n\
         client_secret = {{ file = \"secret\" }}\naudiences = [\"{AUDIENCE}\"]\n\
         [[route]]\nname = \"api\"\nhost = \"api.test\"\nupstream = \"{}\"\nissuers = [\"opaque\"]\n",
        server.url(),
        api.url()
    );
    let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
    let mut tokens = 0;
    for (code, count) in [(400, 20), (403, 20), (404, 20), (401, 20), (500, 3)] {
        for n in 0..count {
            status.store(code, Ordering::SeqCst);
            let junk = format!("../junk-{code}-{n}");
            let response = gateway.send(&to("api", &junk)).await;
            let end = response.status_and_reason();
            // A 401 concerns the client that asks (RFC 7662 §2.3), as far as can be told.
            let reason = if code == 401 {
                "client_refused"
            } else {
                "keys_unavailable"
            };
            assert_eq!(end, (503, Some(reason)), "{code}");
            status.store(200, Ordering::SeqCst);
            let response = gateway.send(&to("api", &format!("good-{code}-{n}"))).await;
            assert_eq!(response.error_reason(), None, "{code}: {}", response.text());
            tokens += 2;
        }
    }
    let calls = server.attempts().len();
    assert!(calls <= tokens + 3 * 6, "{calls} calls for {tokens} tokens");
}

#[tokio::test]
async fn a_shared_secret_verifies_the_tokens_of_its_own_issuer_only() {
    let fixture = Fixture::start().await;
    assert_ok(
        &fixture
            .gateway
            .send(&to("api", &fixture.legacy(&json!({}))))
            .await,
    );
    assert_eq!(
        fixture.provider.request_count("introspection").await,
        0,
        "JWTs of the shared-secret issuer are not introspected"
    );
    let now = fixture.clock.now().as_secs();
    for (changes, reason) in [
        (json!({ "aud": "x" }), "token_audience"),
        (json!({ "exp": now - 60 }), "token_expired"),
        (json!({ "iss": "https://foreign.example" }), "token_issuer"),
        (
            json!({ "iss": fixture.provider.issuer() }),
            "token_inactive",
        ),
    ] {
        let response = fixture
            .gateway
            .send(&to("api", &fixture.legacy(&changes)))
            .await;
        assert_eq!(
            response.status_and_reason(),
            (401, Some(reason)),
            "{changes}"
        );
    }
    let forged = fixture.legacy(&json!({})) + "A";
    let response = fixture.gateway.send(&to("api", &forged)).await;
    assert_eq!(response.status, 401);
    let mut anonymous = Request::get("/v1/things");
    anonymous.authority = "api.test".into();
    assert_eq!(
        fixture.gateway.send(&anonymous).await.error_reason(),
        Some("missing_token")
    );
    assert_eq!(fixture.gateway.admin("/startupz").await.status, 200);
}
