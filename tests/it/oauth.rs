//! OAuth 2.0 on both sides: client credentials and token exchange towards upstreams, opaque tokens and
//! shared secrets from callers. The provider is the certified one; its token exchange is an imitation
//! (a custom grant that verifies and issues tokens through the provider).

mod callers;
mod responses;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hawkgate::clock::SystemClock;
use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::peers::OidcProvider;
use crate::support::secrets::Secrets;
use crate::support::upstream::{FakeUpstream, ReceivedRequest, Reply};

const AUDIENCE: &str = "gateway";

/// Bearer tokens that the upstream no longer accepts.
type Revoked = Arc<Mutex<HashSet<String>>>;

/// The bearer token of a request, in either header.
fn token_of(received: &ReceivedRequest) -> String {
    let own = received.header("x-api-token").map(str::to_owned);
    let bearer = received
        .header("authorization")
        .and_then(|v| v.strip_prefix("Bearer "));
    own.or(bearer.map(str::to_owned)).unwrap_or_default()
}

/// An API that accepts every token that is not revoked, and echoes it in headers.
async fn api(revoked: &Revoked) -> FakeUpstream {
    let revoked = Arc::clone(revoked);
    FakeUpstream::http1(move |received| {
        let token = token_of(received);
        if token.is_empty() || revoked.lock().unwrap().contains(&token) {
            return Reply::new(401, "unauthorized").header("www-authenticate", "Bearer");
        }
        Reply::new(200, "ok")
            .header("x-your-token", &token)
            .header("link", &format!("</next?access_token={token}>; rel=next"))
            .header("x-plain", "stays")
    })
    .await
}

/// The claims of a JWT, unverified.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// The token of the last request that reached the API.
fn last(api: &FakeUpstream) -> String {
    token_of(&api.attempts().last().unwrap().request)
}

fn to(host: &str, token: &str) -> Request {
    let mut request = Request::get("/v1/things").bearer(token);
    request.authority = format!("{host}.test");
    request
}

fn assert_ok(response: &Response) {
    assert_eq!(
        response.status_and_reason(),
        (200, None),
        "{}",
        response.text()
    );
}

struct Fixture {
    provider: OidcProvider,
    api: FakeUpstream,
    revoked: Revoked,
    gateway: TestGateway,
}

impl Fixture {
    /// With a client for each authentication method, and a route for each source.
    async fn start() -> Self {
        let provider = OidcProvider::start(json!({})).await;
        let revoked = Revoked::default();
        let api = api(&revoked).await;
        let files = ConfigDir::new();
        files.write("secret", provider.0.part("client", "secret"));
        files.write("odd", provider.0.part("oddClient", "secret"));
        files.write("post", provider.0.part("postClient", "secret"));
        files.write("key.pem", provider.0.part("keyClient", "pem"));
        let text = format!("{SERVER_CONFIG}{}", sections(&provider, &api.url()));
        let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
        Self {
            provider,
            api,
            revoked,
            gateway,
        }
    }

    async fn token(&self, sub: &str) -> String {
        self.provider.user_token("RS256", sub, AUDIENCE).await
    }
}

fn sections(provider: &OidcProvider, api: &str) -> String {
    let issuer = provider.issuer();
    let token_url = provider.token_url();
    let mut text =
        format!("[[issuer]]\nname = \"idp\"\nurl = \"{issuer}\"\naudiences = [\"{AUDIENCE}\"]\n");
    let own =
        "kind = \"client-credentials\"\nresource = \"urn:hawkgate:ES256\"\nscopes = [\"read\"]\n";
    let exchange =
        "kind = \"token-exchange\"\nresource = \"urn:hawkgate:ES256\"\nscopes = [\"write\"]\n";
    let secret = "client_id = \"hawkgate-tests\"\nclient_secret = { file = \"secret\" }\n";
    let key = format!(
        "client_id = \"hawkgate-key\"\nprivate_key = {{ file = \"key.pem\" }}\nkey_id = \"client-1\"\n\
         assertion_audience = \"{issuer}\"\n"
    );
    for (name, keys) in [
        ("basic", format!("{own}{secret}")),
        (
            "odd",
            format!("{own}client_id = \"hawkgate:odd\"\nclient_secret = {{ file = \"odd\" }}\n"),
        ),
        (
            "post",
            format!(
                "{own}client_id = \"hawkgate-post\"\nclient_secret = {{ file = \"post\" }}\n\
                 auth_method = \"client_secret_post\"\n"
            ),
        ),
        ("key", format!("{own}{key}")),
        (
            "injected",
            format!("{own}{secret}inject = {{ header = \"X-Api-Token\" }}\n"),
        ),
        ("exchange", format!("{exchange}{secret}")),
        ("exchange-key", format!("{exchange}{key}")),
    ] {
        text += &format!("[[source]]\nname = \"{name}\"\ntoken_url = \"{token_url}\"\n{keys}");
        text += &format!(
            "[[route]]\nname = \"{name}\"\nhost = \"{name}.test\"\nupstream = \"{api}\"\n\
             issuers = [\"idp\"]\nsource = \"{name}\"\n"
        );
    }
    text
}

#[tokio::test]
async fn every_client_authentication_method_obtains_a_token() {
    let fixture = Fixture::start().await;
    let caller = fixture.token("alice").await;
    for (source, client) in [
        ("basic", "hawkgate-tests"),
        ("odd", "hawkgate:odd"),
        ("post", "hawkgate-post"),
        ("key", "hawkgate-key"),
    ] {
        assert_ok(&fixture.gateway.send(&to(source, &caller)).await);
        let sent = last(&fixture.api);
        assert_ne!(sent, caller, "{source}");
        let claims = claims(&sent);
        assert_eq!(claims["client_id"], client);
        assert_eq!(
            (&claims["aud"], &claims["scope"]),
            (&json!("urn:hawkgate:ES256"), &json!("read"))
        );
    }
}

#[tokio::test]
async fn a_client_credentials_token_is_shared_until_the_upstream_refuses_it() {
    let fixture = Fixture::start().await;
    let (alice, bob) = (fixture.token("alice").await, fixture.token("bob").await);
    for caller in [&alice, &bob, &alice] {
        assert_ok(&fixture.gateway.send(&to("basic", caller)).await);
    }
    assert_eq!(fixture.provider.request_count("token").await, 1);
    let first = last(&fixture.api);
    fixture.revoked.lock().unwrap().insert(first.clone());
    let body = Request::post("/v1/things", "payload").bearer(&bob);
    let body = Request {
        authority: "basic.test".into(),
        ..body
    };
    assert_ok(&fixture.gateway.send(&body).await);
    let attempts = fixture.api.attempts();
    let [.., refused, replayed] = &attempts[..] else {
        panic!()
    };
    assert_eq!((refused.status, replayed.status), (401, 200));
    assert_eq!(
        refused.sha256, replayed.sha256,
        "the same body was sent twice"
    );
    assert_ne!(token_of(&replayed.request), first);
    assert_eq!(fixture.provider.request_count("token").await, 2);
    assert_ok(&fixture.gateway.send(&to("basic", &alice)).await);
    assert_eq!(
        fixture.provider.request_count("token").await,
        2,
        "alice has the new one too"
    );
    let labels = [
        ("route", "basic"),
        ("action", "replayed"),
        ("reason", "fresh_credentials"),
    ];
    fixture
        .gateway
        .wait_for_metric("hawkgate_upstream_unauthorized_total", &labels, 1)
        .await;
    let lookups = [("source", "basic"), ("result", "hit")];
    fixture
        .gateway
        .wait_for_metric("hawkgate_credential_cache_lookups_total", &lookups, 3)
        .await;
}

/// A 401 to a bearer token is never attributed to clock skew.
#[tokio::test]
async fn a_401_from_an_upstream_with_clock_skew_is_recovered_by_one_replay() {
    let fixture = Fixture::start().await;
    let caller = fixture.token("alice").await;
    let revoked = Arc::clone(&fixture.revoked);
    fixture.api.set_handler(move |received| {
        let refused = revoked.lock().unwrap().contains(&token_of(received));
        let reply = if refused {
            Reply::new(401, "")
        } else {
            Reply::ok()
        };
        reply.header("date", "Mon, 06 Nov 2023 10:00:00 GMT")
    });
    assert_ok(&fixture.gateway.send(&to("basic", &caller)).await);
    fixture.revoked.lock().unwrap().insert(last(&fixture.api));
    assert_ok(&fixture.gateway.send(&to("basic", &caller)).await);
    assert_eq!(fixture.api.attempts().len(), 3);
}

#[tokio::test]
async fn a_persistent_401_is_passed_on_after_one_new_token() {
    let fixture = Fixture::start().await;
    let caller = fixture.token("alice").await;
    fixture
        .api
        .set_handler(|_| Reply::new(401, "never").header("www-authenticate", "Bearer realm=api"));
    let response = fixture.gateway.send(&to("basic", &caller)).await;
    assert_eq!(response.status_and_reason(), (401, None));
    assert_eq!(
        response.header("www-authenticate"),
        Some("Bearer realm=api")
    );
    assert_eq!(fixture.api.attempts().len(), 2);
    assert_eq!(fixture.provider.request_count("token").await, 2);
}

#[tokio::test]
async fn token_exchange_yields_a_token_for_each_caller() {
    let fixture = Fixture::start().await;
    let (alice, bob) = (fixture.token("alice").await, fixture.token("bob").await);
    for source in ["exchange", "exchange-key"] {
        for (caller, sub) in [(&alice, "alice"), (&bob, "bob"), (&alice, "alice")] {
            assert_ok(&fixture.gateway.send(&to(source, caller)).await);
            let claims = claims(&last(&fixture.api));
            assert_eq!(
                (&claims["sub"], &claims["scope"]),
                (&json!(sub), &json!("write"))
            );
            assert_eq!(claims["aud"], "urn:hawkgate:ES256");
        }
    }
    assert_eq!(
        fixture.provider.request_count("token").await,
        4,
        "once per caller and source"
    );
    // A second token of the same user is a different subject token.
    let again = fixture.token("alice").await;
    assert_ok(&fixture.gateway.send(&to("exchange", &again)).await);
    assert_eq!(fixture.provider.request_count("token").await, 5);
    fixture.revoked.lock().unwrap().insert(last(&fixture.api));
    assert_ok(&fixture.gateway.send(&to("exchange", &again)).await);
    assert_eq!(
        fixture.provider.request_count("token").await,
        6,
        "refused upstream: exchanged again and replayed"
    );
    assert_eq!(claims(&last(&fixture.api))["sub"], "alice");
}

#[tokio::test]
async fn a_refused_token_exchange_is_a_client_error() {
    let fixture = Fixture::start().await;
    let banned = fixture.token("banned-user").await;
    let response = fixture.gateway.send(&to("exchange", &banned)).await;
    assert_eq!(response.status_and_reason(), (403, Some("not_entitled")));
    // The provider has rotated its keys without hawkgate noticing, and refuses the subject token.
    let old = fixture.token("alice").await;
    assert_ok(&fixture.gateway.send(&to("basic", &old)).await);
    fixture.provider.rotate().await;
    let response = fixture.gateway.send(&to("exchange", &old)).await;
    assert_eq!(response.status_and_reason(), (401, Some("token_refused")));
    assert_eq!(
        fixture.api.attempts().len(),
        1,
        "only the client-credentials token was sent"
    );
}

#[tokio::test]
async fn a_wrong_client_secret_is_503_never_401() {
    let fixture = Fixture::start().await;
    let caller = fixture.token("alice").await;
    fixture.gateway.files.write("secret", "wrong-secret-5be10a");
    for source in ["basic", "exchange"] {
        let response = fixture.gateway.send(&to(source, &caller)).await;
        assert_eq!(response.status_and_reason(), (503, Some("client_refused")));
        assert!(response.header("retry-after").is_some());
        assert!(!response.text().contains("cannot be reached"));
    }
    // Nor while the source is left alone.
    let response = fixture.gateway.send(&to("basic", &caller)).await;
    assert_eq!(response.status_and_reason(), (503, Some("client_refused")));
    assert_eq!(fixture.gateway.admin("/readyz").await.status, 200);
    let labels = [("source", "basic"), ("result", "client_refused")];
    fixture
        .gateway
        .wait_for_metric("hawkgate_exchanges_total", &labels, 1)
        .await;
    let log = fixture.gateway.log();
    assert!(log.contains("invalid_client") && log.contains("check client_id"));
    assert!(
        log.contains("source \\\"basic\\\": the identity provider refused hawkgate's client"),
        "{log}"
    );
    let secrets = Secrets::default();
    secrets.add("the wrong secret", "wrong-secret-5be10a");
    secrets.add(
        "the right secret",
        fixture.provider.0.part("client", "secret"),
    );
    secrets.add("the caller's token", &caller);
    secrets.assert_absent("the log", &log);
}

#[tokio::test]
async fn the_token_is_injected_into_the_configured_header_and_never_echoed() {
    let fixture = Fixture::start().await;
    let caller = fixture.token("alice").await;
    let request = to("injected", &caller)
        .header("X-Api-Token", "the callers own")
        .header("x-api-token", "and another")
        .header("X_Api_Token", "and a disguised one");
    let response = fixture.gateway.send(&request).await;
    assert_ok(&response);
    let attempts = fixture.api.attempts();
    let received = &attempts.last().unwrap().request;
    assert!(received.header("authorization").is_none() && received.header("x_api_token").is_none());
    let raw = String::from_utf8_lossy(&received.raw).to_ascii_lowercase();
    assert_eq!(raw.matches("x-api-token").count(), 1, "{raw}");
    assert_eq!(claims(&token_of(received))["client_id"], "hawkgate-tests");
    assert_eq!(response.header("x-plain"), Some("stays"));
    for name in ["x-your-token", "link"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    let head = String::from_utf8_lossy(&response.raw_head).into_owned();
    assert!(!head.contains(&token_of(received)));
    // Recovery from a 401 uses the configured header as well.
    fixture.revoked.lock().unwrap().insert(token_of(received));
    assert_ok(&fixture.gateway.send(&to("injected", &caller)).await);
    assert_eq!(fixture.provider.request_count("token").await, 2);
}

#[tokio::test]
async fn cached_tokens_survive_an_outage_of_the_provider() {
    let fixture = Fixture::start().await;
    let caller = fixture.token("alice").await;
    assert_ok(&fixture.gateway.send(&to("basic", &caller)).await);
    fixture.provider.down().await;
    assert_ok(&fixture.gateway.send(&to("basic", &caller)).await);
    let response = fixture.gateway.send(&to("post", &caller)).await;
    assert_eq!(
        response.status_and_reason(),
        (503, Some("exchange_unavailable"))
    );
    fixture.revoked.lock().unwrap().insert(last(&fixture.api));
    let response = fixture.gateway.send(&to("basic", &caller)).await;
    assert_eq!(response.status, 503, "never the upstream's 401");
    fixture.provider.up().await;
}
