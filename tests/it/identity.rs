//! Identity providers: algorithms, key rotation, outages and invalid key sets.

use std::time::Duration;

use hawkgate::clock::{Clock as _, SystemClock};
use serde_json::json;

use crate::support::client::{Request, Response};
use crate::support::gateway::TestGateway;
use crate::support::peers::OidcProvider;
use crate::support::tokens::{self, IssuerServer, JwksMode, Key, SHARED};
use crate::support::upstream::{FakeUpstream, Reply, sha256};
use crate::support::wait::until_some;

const AUDIENCE: &str = "https://api.example.com";

/// A route `/api/` for tokens of `issuer`.
fn sections(issuer: &str, upstream: &FakeUpstream) -> String {
    let upstream = upstream.url();
    format!(
        r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]

[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}

[[route]]
name = "api"
path = "/api/"
upstream = "{upstream}"
issuers = ["idp"]
source = "static"
"#
    )
}

/// A route `/open/` without authentication.
fn open(upstream: &FakeUpstream) -> String {
    format!(
        r#"
[[route]]
name = "open"
path = "/open/"
upstream = "{}"
anonymous = true
"#,
        upstream.url()
    )
}

async fn upstream() -> FakeUpstream {
    FakeUpstream::http1(|_| Reply::ok()).await
}

fn api(token: &str) -> Request {
    Request::get("/api/queue/v1/ping").bearer(token)
}

fn assert_unavailable(response: &Response) {
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.error_reason(), Some("keys_unavailable"));
    assert!(response.header("retry-after").is_some());
    assert_eq!(response.header("www-authenticate"), None);
}

/// A provider whose tokens outlive every outage simulated here.
async fn provider() -> OidcProvider {
    OidcProvider::start(json!({ "ttl": 7 * 24 * 3600 })).await
}

#[tokio::test]
async fn every_algorithm_of_the_certified_provider_is_accepted() {
    let (provider, upstream) = (provider().await, upstream().await);
    let gateway = TestGateway::start(&sections(provider.issuer(), &upstream)).await;
    for alg in ["RS256", "PS256", "ES256", "EdDSA"] {
        let token = provider.user_token(alg, "user|1", AUDIENCE).await;
        let response = gateway.send(&api(&token)).await;
        assert_eq!(response.status, 200, "{alg}: {}", response.text());
    }
    let attempts = upstream.attempts();
    assert_eq!(attempts.len(), 4);
    for attempt in attempts {
        let sent: Vec<_> = attempt.request.fields.all("authorization").collect();
        assert_eq!(sent.len(), 1);
        assert!(sent[0].starts_with("Hawk id=\"root\""));
    }
    assert_eq!(provider.key_fetches().await, 1);
}

#[tokio::test]
async fn an_issuer_url_with_a_trailing_slash_is_compared_as_it_is() {
    let provider = OidcProvider::start(json!({ "trailingSlash": true })).await;
    let upstream = upstream().await;
    let gateway = TestGateway::start(&sections(provider.issuer(), &upstream)).await;
    let token = provider.user_token("RS256", "user|1", AUDIENCE).await;
    assert_eq!(gateway.send(&api(&token)).await.status, 200);
}

#[tokio::test]
async fn a_token_with_an_unknown_kid_triggers_a_key_refresh() {
    let (provider, upstream) = (provider().await, upstream().await);
    let sections = sections(provider.issuer(), &upstream);
    let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
    let unseen = provider.user_token("RS256", "user|2", AUDIENCE).await;
    let old = provider.user_token("RS256", "user|1", AUDIENCE).await;
    assert_eq!(gateway.send(&api(&old)).await.status, 200);

    provider.rotate().await;
    clock.advance(Duration::from_secs(31));
    let new = provider.user_token("RS256", "user|1", AUDIENCE).await;
    assert_eq!(gateway.send(&api(&new)).await.status, 200);
    assert_eq!(provider.key_fetches().await, 2);

    // The old key is gone, and every token that it signed is refused, cached or not.
    for token in [&unseen, &old] {
        let response = gateway.send(&api(token)).await;
        assert_eq!(response.status, 401, "{}", response.text());
        assert_eq!(response.error_reason(), Some("token_key"));
    }
    assert_eq!(provider.key_fetches().await, 2, "cooldown");
}

#[tokio::test]
async fn stale_keys_are_used_during_an_outage_until_they_are_too_old() {
    let (provider, upstream) = (provider().await, upstream().await);
    let sections = sections(provider.issuer(), &upstream);
    let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
    let token = provider.user_token("ES256", "user|1", AUDIENCE).await;
    assert_eq!(gateway.send(&api(&token)).await.status, 200);

    provider.down().await;
    for _ in 0..3 {
        clock.advance(Duration::from_hours(7));
        assert_eq!(gateway.send(&api(&token)).await.status, 200);
        assert_eq!(gateway.admin("/readyz").await.status, 200);
    }
    clock.advance(Duration::from_hours(4));
    assert_unavailable(&gateway.send(&api(&token)).await);
    assert_eq!(gateway.admin("/readyz").await.status, 503);

    provider.up().await;
    clock.advance(Duration::from_mins(2));
    assert_eq!(gateway.send(&api(&token)).await.status, 200);
    assert_eq!(gateway.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_provider_that_is_down_at_startup_affects_only_its_own_routes() {
    let provider = OidcProvider::start(json!({ "down": true })).await;
    let upstream = upstream().await;
    let sections = sections(provider.issuer(), &upstream) + &open(&upstream);
    let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
    let token = provider.user_token("RS256", "user|1", AUDIENCE).await;

    assert_unavailable(&gateway.send(&api(&token)).await);
    assert_eq!(upstream.attempts().len(), 0);
    assert_eq!(gateway.send(&Request::get("/open/x")).await.status, 200);
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    assert_eq!(gateway.admin("/startupz").await.status, 503);
    assert_eq!(
        gateway.admin("/readyz").await.status,
        200,
        "one route works"
    );

    provider.up().await;
    clock.advance(Duration::from_mins(1));
    assert_eq!(gateway.send(&api(&token)).await.status, 200);
    assert_eq!(gateway.admin("/startupz").await.status, 200);
    assert_eq!(gateway.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn startupz_succeeds_after_startup_grace_even_without_keys() {
    let provider = OidcProvider::start(json!({ "down": true })).await;
    let upstream = upstream().await;
    let sections = sections(provider.issuer(), &upstream);
    let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
    assert_eq!(gateway.admin("/startupz").await.status, 503);
    assert_eq!(gateway.admin("/readyz").await.status, 503);
    clock.advance(Duration::from_secs(61));
    assert_eq!(gateway.admin("/startupz").await.status, 200);
    assert_eq!(gateway.admin("/readyz").await.status, 503);
}

#[tokio::test]
async fn an_invalid_key_set_is_503_not_401() {
    let provider = provider().await;
    for mode in [
        "error",
        "garbage",
        "huge",
        "redirect",
        "all-error",
        "all-garbage",
    ] {
        let upstream = upstream().await;
        provider.mode(mode).await;
        let sections = sections(provider.issuer(), &upstream);
        let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
        let token = provider.user_token("RS256", "user|1", AUDIENCE).await;
        assert_unavailable(&gateway.send(&api(&token)).await);
        assert_eq!(upstream.attempts().len(), 0, "{mode}");

        provider.mode("ok").await;
        clock.advance(Duration::from_mins(1));
        assert_eq!(gateway.send(&api(&token)).await.status, 200, "{mode}");
    }
}

#[tokio::test]
async fn a_key_set_that_becomes_invalid_does_not_replace_the_good_one() {
    let provider = provider().await;
    for mode in ["error", "garbage", "huge", "redirect"] {
        provider.mode("ok").await;
        let upstream = upstream().await;
        let sections = sections(provider.issuer(), &upstream);
        let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
        let token = provider.user_token("RS256", "user|1", AUDIENCE).await;
        assert_eq!(gateway.send(&api(&token)).await.status, 200);
        provider.mode(mode).await;
        clock.advance(Duration::from_mins(11));
        let other = provider.user_token("RS256", "user|2", AUDIENCE).await;
        assert_eq!(gateway.send(&api(&other)).await.status, 200, "{mode}");
    }
}

#[tokio::test]
async fn many_tokens_with_unknown_kids_trigger_one_key_refresh() {
    let issuer = IssuerServer::start(&[&SHARED[0]]).await;
    let upstream = upstream().await;
    let sections = sections(&issuer.issuer(), &upstream);
    let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
    let now = clock.now().as_secs();
    let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
    let good = SHARED[0].token("RS256", &claims);
    assert_eq!(gateway.send(&api(&good)).await.status, 200);
    clock.advance(Duration::from_secs(31));

    let stranger = Key::p256("unknown");
    let header =
        |n: usize| json!({ "alg": "ES256", "typ": "at+jwt", "kid": format!("unknown-{n}") });
    let tokens: Vec<String> = (0..40)
        .map(|n| stranger.sign(&header(n), &claims))
        .collect();
    let responses = futures::future::join_all(tokens.iter().map(|token| {
        let (gateway, request) = (&gateway, api(token));
        async move { gateway.send(&request).await }
    }));
    for response in responses.await {
        assert_eq!(response.error_reason(), Some("token_key"));
    }
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(upstream.attempts().len(), 1);
}

#[tokio::test]
async fn concurrent_first_tokens_share_one_key_fetch() {
    let issuer = IssuerServer::start(&[&SHARED[0]]).await;
    let held = crate::support::upstream::Latch::closed();
    issuer.set_mode(JwksMode::Held(held.clone()));
    let upstream = upstream().await;
    let sections = sections(&issuer.issuer(), &upstream);
    let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
    let now = clock.now().as_secs();
    let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
    let requests: Vec<Request> = (0..20)
        .map(|n| tokens::with(&claims, &json!({ "sub": format!("user|{n}") })))
        .map(|claims| api(&SHARED[0].token("RS256", &claims)))
        .collect();
    let responses = futures::future::join_all(requests.iter().map(|request| gateway.send(request)));
    let release = async {
        issuer.server.until("a fetch", |all| !all.is_empty()).await;
        held.open();
    };
    let (responses, ()) = tokio::join!(responses, release);
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn discovery_metadata_of_another_issuer_is_refused() {
    let issuer = IssuerServer::start(&[&SHARED[0]]).await;
    issuer.set_discovery_issuer("https://someone.else.example.com");
    let upstream = upstream().await;
    let sections = sections(&issuer.issuer(), &upstream);
    let (gateway, clock) = TestGateway::start_with_clock(&sections).await;
    let now = clock.now().as_secs();
    let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
    let response = gateway.send(&api(&SHARED[0].token("RS256", &claims))).await;
    assert_unavailable(&response);
    assert_eq!(issuer.fetches(), 0);
}

#[tokio::test]
async fn unknown_key_types_in_a_key_set_are_ignored() {
    let issuer = IssuerServer::start(&[]).await;
    issuer.jwks(vec![
        json!({ "kty": "AKP", "alg": "ML-DSA-65", "kid": "future", "pub": "AAAA" }),
        json!({ "kid": "no kty at all" }),
        json!({ "kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AA", "y": "AA" }),
        SHARED[0].jwk(),
    ]);
    let upstream = upstream().await;
    let gateway = TestGateway::start(&sections(&issuer.issuer(), &upstream)).await;
    let now = SystemClock::shared().now().as_secs();
    let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
    let response = gateway.send(&api(&SHARED[0].token("RS256", &claims))).await;
    assert_eq!(response.status, 200, "{}", response.text());
}

#[tokio::test]
async fn a_token_is_verified_against_its_routes_issuers_only() {
    let [ours, theirs] = [
        IssuerServer::start(&[&SHARED[0]]).await,
        IssuerServer::start(&[&SHARED[0]]).await,
    ];
    let upstream = upstream().await;
    let url = upstream.url();
    let more = format!(
        r#"
[[issuer]]
name = "theirs"
url = "{}"
audiences = ["{AUDIENCE}"]

[[route]]
name = "their-api"
path = "/theirs/"
upstream = "{url}"
issuers = ["theirs"]
source = "static"

[[route]]
name = "both"
path = "/both/"
upstream = "{url}"
issuers = ["idp", "theirs"]
source = "static"
"#,
        theirs.issuer()
    );
    let gateway = TestGateway::start(&(sections(&ours.issuer(), &upstream) + &more)).await;
    let now = SystemClock::shared().now().as_secs();
    let token = |issuer: &IssuerServer| {
        SHARED[0].token("RS256", &tokens::claims(&issuer.issuer(), AUDIENCE, now))
    };
    let (our_token, their_token) = (token(&ours), token(&theirs));
    for (path, token, status) in [
        ("/api/x", &our_token, 200),
        ("/api/x", &their_token, 401),
        ("/theirs/x", &our_token, 401),
        ("/theirs/x", &their_token, 200),
        ("/both/x", &our_token, 200),
        ("/both/x", &their_token, 200),
        // Again, now that both tokens are in the cache.
        ("/api/x", &their_token, 401),
        ("/theirs/x", &our_token, 401),
    ] {
        let response = gateway.send(&Request::get(path).bearer(token)).await;
        assert_eq!(response.status, status, "{path}");
        if status == 401 {
            assert_eq!(response.error_reason(), Some("token_issuer"));
        }
    }
}

#[tokio::test]
async fn the_workload_token_is_used_for_requests_without_a_token_and_is_verified() {
    let issuer = IssuerServer::start(&[&SHARED[0]]).await;
    let upstream = upstream().await;
    let text = sections(&issuer.issuer(), &upstream).replace(
        "issuers = [\"idp\"]\n",
        "issuers = [\"idp\"]\nworkload_token = { file = \"token\" }\n",
    );
    let gateway = TestGateway::start(&text).await;
    let now = SystemClock::shared().now().as_secs();
    let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
    let plain = Request::post("/api/x", "body");

    let response = gateway.send(&plain).await;
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.error_reason(), Some("workload_token_unavailable"));

    gateway
        .files
        .write("token", SHARED[0].token("RS256", &claims) + "\n");
    let response = send_until(&gateway, &plain, None).await;
    assert_eq!(response.status, 200);
    let attempts = upstream.attempts();
    assert_eq!(attempts[0].sha256.as_deref(), Some(&*sha256(b"body")));

    let expired = tokens::with(&claims, &json!({ "exp": now - 3600, "sub": "other" }));
    gateway
        .files
        .write("token", SHARED[0].token("RS256", &expired));
    let response = send_until(&gateway, &plain, Some("token_expired")).await;
    assert_eq!(response.status, 401);

    // The caller's own token takes precedence, valid or not.
    let response = gateway.send(&plain.clone().bearer("nonsense")).await;
    assert_eq!(response.error_reason(), Some("token_malformed"));
}

/// Sends `request` until the response has this reason: the token file is read periodically.
async fn send_until(gateway: &TestGateway, request: &Request, reason: Option<&str>) -> Response {
    until_some("the token file to be read again", async || {
        let response = gateway.send(request).await;
        (response.error_reason() == reason).then_some(response)
    })
    .await
}
