use http::HeaderValue;
use serde_json::{Value, json};
use tempfile::TempDir;

use http::{HeaderMap, header};

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::credential::taskcluster_mint::{MintSettings, NameTemplate};
use crate::gateway::cors::{AllowedOrigins, OriginPattern};
use crate::gateway::rate_limit::{Rate, RateBy, RateLimiter};
use crate::gateway::rule::{Effect, Expression, Rule};
use crate::secret::SecretRef;
use crate::token::settings::Profile;
use crate::token::testing::{self, ED25519, NOW, OTHER_RSA, ScriptedKeys, configured};

const URL: &str = "https://auth.example.com/";
const TOOLS: &str = "https://tools.example.com";

fn listed(origin: &str) -> AllowedOrigins {
    AllowedOrigins::Listed(vec![OriginPattern::parse(origin).unwrap()])
}

struct Fixture {
    login: Login,
    clock: Arc<ManualClock>,
    keys: Arc<ScriptedKeys>,
    dir: TempDir,
}

fn fixture() -> Fixture {
    let clock = testing::clock();
    let keys = ScriptedKeys::of(&[ED25519.jwk()]);
    let config = configured(URL, Profile::Auth0);
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "issuing key").unwrap();
    let settings = MintSettings {
        client_id: "project/login".into(),
        access_token: SecretRef::File(key),
        client_name: NameTemplate::parse("mozilla-auth0/{sub}").unwrap(),
        scopes: vec!["queue:*".into()],
        lifetime: Duration::from_hours(24),
    };
    let login = Login {
        issuers: vec![testing::issuer("mozilla-auth0", &config, &keys, &clock)],
        minter: Arc::new(MintSource::new(settings, clock.clone()).unwrap()),
        source: "mint".into(),
        require_scopes: vec!["taskcluster-credentials".into()],
        rules: None,
        cors: Some(Arc::new(CorsPolicy::for_login(listed(TOOLS)))),
        lifetime: Duration::from_mins(15),
        timeout: Duration::from_secs(5),
        rates: RateLimiters::default(),
        max_token_bytes: crate::token::DEFAULT_TOKEN_BYTES,
        clock: clock.clone(),
    };
    Fixture {
        login,
        clock,
        keys,
        dir,
    }
}

fn token(changes: &Value) -> String {
    let claims = json!({
        "iss": URL, "aud": testing::AUDIENCE, "sub": "alice", "azp": "spa",
        "exp": NOW + 3600, "scope": "openid taskcluster-credentials",
    });
    ED25519.token(&json!({"typ": "JWT"}), &testing::with(&claims, changes))
}

impl Fixture {
    async fn get(&self, provider: &str, authorization: Option<&str>) -> LocalResponse {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        self.send(&Method::GET, provider, &headers).await
    }

    async fn request_with_claims(&self, changes: &Value) -> LocalResponse {
        let value = format!("Bearer {}", token(changes));
        self.get("mozilla-auth0", Some(&value)).await
    }

    async fn request_from(&self, method: Method, origin: Option<&str>) -> LocalResponse {
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        self.send(&method, "mozilla-auth0", &headers).await
    }

    async fn send(&self, method: &Method, provider: &str, headers: &HeaderMap) -> LocalResponse {
        let target = "/api/login/v1/oidc-credentials/mozilla-auth0";
        let head = Head {
            method,
            ..Head::for_test(target, headers)
        };
        self.login.respond(LoginRequest { provider, head }).await
    }
}

fn header_value<'a>(response: &'a LocalResponse, name: &str) -> Option<&'a str> {
    let mut found = response.headers.iter().filter(|(n, _)| *n == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} twice");
    value
}

fn body(response: &LocalResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

#[test]
fn the_provider_is_parsed_from_both_path_prefixes_only() {
    for (target, name) in [
        (
            "/api/login/v1/oidc-credentials/mozilla-auth0",
            Some("mozilla-auth0"),
        ),
        ("/v1/oidc-credentials/a?b=c/d", Some("a")),
        ("/v1/oidc-credentials/%61", Some("%61")),
        ("/v1/oidc-credentials/", None),
        ("/v1/oidc-credentials", None),
        ("/v1/oidc-credentials/a/b", None),
        ("/api/login/v1/oidc-credentials/a/", None),
        ("/api/login/v2/oidc-credentials/a", None),
        ("/x/v1/oidc-credentials/a", None),
        ("*", None),
    ] {
        assert_eq!(provider(target), name, "{target}");
    }
}

#[tokio::test]
async fn a_valid_token_gets_credentials_in_the_original_format() {
    let fixture = fixture();
    let response = fixture.request_with_claims(&json!({})).await;
    assert_eq!(response.status, 200);
    assert_eq!(header_value(&response, "cache-control"), Some("no-store"));
    assert_eq!(
        header_value(&response, "content-type"),
        Some("application/json")
    );
    let body = body(&response);
    assert_eq!(body.as_object().unwrap().len(), 2);
    let now = fixture.clock.now();
    let expiry = now.plus(Duration::from_mins(15));
    assert_eq!(body["expires"], expiry.minus(EXPIRES_EARLY).to_rfc3339());
    let credentials = &body["credentials"];
    assert_eq!(credentials["clientId"], "mozilla-auth0/alice");
    assert!(credentials["accessToken"].as_str().unwrap().len() > 40);
    let certificate = credentials["certificate"].as_str().expect("a JSON string");
    let certificate: Value = serde_json::from_str(certificate).unwrap();
    assert_eq!(certificate["start"], now.minus(BACKDATE).0);
    assert_eq!(certificate["expiry"], expiry.0);
    assert_eq!(certificate["scopes"], json!(["queue:*"]));
    assert_eq!(certificate["issuer"], "project/login");
    assert_eq!(response.details.issuer.as_deref(), Some("mozilla-auth0"));
    assert_eq!(response.details.verification, Some("ok"));
    assert_eq!(response.details.source.as_deref(), Some("mint"));
    let secret = credentials["accessToken"].as_str().unwrap();
    assert!(!format!("{response:?}").contains(secret));
}

#[tokio::test]
async fn credentials_expire_no_later_than_the_token() {
    let fixture = fixture();
    for left in [600, 20] {
        let response = fixture
            .request_with_claims(&json!({ "exp": NOW + left }))
            .await;
        let body = body(&response);
        let end = UnixMillis::from_secs(NOW + left);
        // With less than half a minute left, the reported expiry is in the past, as in the
        // original service.
        assert_eq!(body["expires"], end.minus(EXPIRES_EARLY).to_rfc3339());
        let certificate = body["credentials"]["certificate"].as_str().unwrap();
        let certificate: Value = serde_json::from_str(certificate).unwrap();
        assert_eq!(certificate["expiry"], end.0);
    }
}

#[tokio::test]
async fn every_bad_token_gets_the_same_response() {
    let fixture = fixture();
    let forged = {
        let claims = json!({"iss": URL, "aud": testing::AUDIENCE, "sub": "alice", "exp": NOW + 60,
            "scope": "taskcluster-credentials"});
        OTHER_RSA.token(&json!({"typ": "JWT", "kid": "ed25519"}), &claims)
    };
    let mut responses = Vec::new();
    for (what, authorization) in [
        (
            "expired",
            format!("Bearer {}", token(&json!({"exp": NOW - 60}))),
        ),
        (
            "audience",
            format!("Bearer {}", token(&json!({"aud": "x"}))),
        ),
        (
            "issuer",
            format!("Bearer {}", token(&json!({"iss": "https://x.example"}))),
        ),
        (
            "scope",
            format!("Bearer {}", token(&json!({"scope": "openid"}))),
        ),
        (
            "no scope",
            format!("Bearer {}", token(&json!({"scope": null}))),
        ),
        (
            "ID token",
            format!("Bearer {}", token(&json!({"nonce": "n"}))),
        ),
        ("no name", format!("Bearer {}", token(&json!({"sub": ""})))),
        ("forged", format!("Bearer {forged}")),
        ("opaque", "Bearer opaque".into()),
        ("basic", "Basic dTpw".into()),
        ("nothing", String::new()),
        ("malformed", "Bearer a b".into()),
        ("too large", format!("Bearer {}", "a".repeat(9000))),
    ] {
        let authorization = (!authorization.is_empty()).then_some(authorization);
        let response = fixture.get("mozilla-auth0", authorization.as_deref()).await;
        let rejection = response.rejection.as_ref().unwrap();
        assert_eq!(rejection.reason, Reason::LoginRefused, "{what}");
        assert!(rejection.cause.is_some(), "{what}: the cause is logged");
        assert_eq!(response.status, 400, "{what}");
        assert_eq!(body(&response)["code"], "InputError");
        responses.push((response.headers.clone(), response.body.clone()));
    }
    responses.dedup();
    assert_eq!(responses.len(), 1, "the responses are indistinguishable");
}

#[tokio::test]
async fn an_unreachable_issuer_gets_the_response_of_a_bad_token() {
    let fixture = fixture();
    fixture.keys.go_down();
    let response = fixture.request_with_claims(&json!({})).await;
    assert_eq!(response.status, 400);
    assert_eq!(response.details.verification, Some("keys_unavailable"));
}

#[tokio::test]
async fn an_unknown_provider_is_a_400_with_its_own_message() {
    let fixture = fixture();
    for name in [
        "github",
        "mozilla-auth",
        "MOZILLA-AUTH0",
        "%6dozilla-auth0",
        "..",
    ] {
        let response = fixture.get(name, None).await;
        assert_eq!(response.status, 400, "{name}");
        assert_eq!(body(&response)["code"], "InputError");
        assert_eq!(body(&response)["message"], "Unknown provider");
    }
}

#[tokio::test]
async fn a_failure_to_mint_is_a_500() {
    let fixture = fixture();
    std::fs::remove_file(fixture.dir.path().join("key")).unwrap();
    let response = fixture.request_with_claims(&json!({})).await;
    assert_eq!(response.status, 500);
    let rejection = response.rejection.as_ref().unwrap();
    assert_eq!(rejection.reason, Reason::Internal);
    assert!(rejection.cause.as_ref().unwrap().contains("secret file"));
}

#[tokio::test]
async fn cors_allows_only_listed_origins() {
    let fixture = fixture();
    for method in [Method::GET, Method::OPTIONS] {
        let response = fixture.request_from(method.clone(), Some(TOOLS)).await;
        let allowed = header_value(&response, "access-control-allow-origin");
        assert_eq!(allowed, Some(TOOLS), "{method}");
        assert_eq!(header_value(&response, "vary"), Some("Origin"));
        assert!(header_value(&response, "access-control-allow-credentials").is_none());
        let preflight = method == Method::OPTIONS;
        for name in [
            "access-control-allow-methods",
            "access-control-allow-headers",
        ] {
            assert_eq!(header_value(&response, name).is_some(), preflight, "{name}");
        }
        for origin in [
            None,
            Some("null"),
            Some("https://tools.example.com.evil.example"),
            Some("https://tools.example.com/"),
            Some("http://tools.example.com"),
            Some("HTTPS://tools.example.com"),
            Some("*"),
        ] {
            let response = fixture.request_from(method.clone(), origin).await;
            assert!(
                header_value(&response, "access-control-allow-origin").is_none(),
                "{origin:?}"
            );
            assert_eq!(header_value(&response, "vary"), Some("Origin"));
        }
    }
    let response = fixture.request_from(Method::OPTIONS, Some(TOOLS)).await;
    assert_eq!(response.status, 204);
    assert!(response.body.is_empty());
    let headers = header_value(&response, "access-control-allow-headers");
    assert_eq!(headers, Some("Authorization"));
}

#[tokio::test]
async fn cors_can_allow_every_origin_or_none() {
    let mut fixture = fixture();
    fixture.login.cors = Some(Arc::new(CorsPolicy::for_login(AllowedOrigins::Any)));
    let response = fixture
        .request_from(Method::GET, Some("https://x.example"))
        .await;
    let allowed = header_value(&response, "access-control-allow-origin");
    assert_eq!(allowed, Some("*"));
    fixture.login.cors = None;
    let response = fixture.request_from(Method::OPTIONS, Some(TOOLS)).await;
    assert!(header_value(&response, "access-control-allow-origin").is_none());
}

#[tokio::test]
async fn methods_other_than_get_and_options_are_refused() {
    let fixture = fixture();
    for method in [Method::POST, Method::HEAD, Method::PUT, Method::DELETE] {
        let response = fixture.request_from(method, None).await;
        assert_eq!(response.status, 405);
        assert_eq!(header_value(&response, "allow"), Some("GET, OPTIONS"));
    }
}

#[tokio::test]
async fn rate_limits_apply_to_valid_and_invalid_tokens() {
    let mut fixture = fixture();
    let limit = |by| {
        let rate = Rate {
            requests: 1,
            per: Duration::from_secs(10),
            burst: 2,
            by,
            clients: 10,
        };
        RateLimiters::new(vec![Arc::new(RateLimiter::new(
            &rate,
            fixture.clock.clone(),
        ))])
    };
    let (client, address) = (limit(RateBy::Client), limit(RateBy::Address));
    fixture.login.rates = client;
    for status in [200, 200, 429] {
        assert_eq!(fixture.request_with_claims(&json!({})).await.status, status);
    }
    assert_eq!(
        fixture
            .request_with_claims(&json!({"sub": "bob"}))
            .await
            .status,
        200
    );
    for status in [400, 400, 429] {
        assert_eq!(fixture.get("mozilla-auth0", None).await.status, status);
    }
    fixture.login.rates = address;
    assert_eq!(fixture.get("mozilla-auth0", None).await.status, 400);
    assert_eq!(fixture.request_with_claims(&json!({})).await.status, 200);
    let refused = fixture.request_with_claims(&json!({"sub": "bob"})).await;
    assert_eq!(refused.status, 429);
    assert_eq!(header_value(&refused, "retry-after"), Some("10"));
}

#[tokio::test]
async fn rules_limit_scopes_and_deny_requests() {
    let mut fixture = fixture();
    let rule = |name: &str, when: &str, scopes: Option<&[&str]>| {
        Arc::new(Rule {
            name: name.into(),
            when: Expression::compile(when).unwrap(),
            effect: Effect::Allow,
            scopes: scopes.map(|s| s.iter().map(|s| (*s).to_owned()).collect()),
            headers: Vec::new(),
        })
    };
    fixture.login.rules = Rules::new(vec![
        rule(
            "narrow",
            "claims.sub == 'alice'",
            Some(&["queue:ping", "index:*"]),
        ),
        rule("boss", "claims.sub == 'boss'", None),
    ]);
    let scopes = |response: &LocalResponse| {
        let certificate = body(response)["credentials"]["certificate"].clone();
        let certificate: Value = serde_json::from_str(certificate.as_str().unwrap()).unwrap();
        certificate["scopes"].clone()
    };
    let response = fixture.request_with_claims(&json!({})).await;
    assert_eq!(scopes(&response), json!(["queue:ping"]));
    assert_eq!(response.details.rule.as_deref(), Some("narrow"));
    let response = fixture.request_with_claims(&json!({"sub": "boss"})).await;
    assert_eq!(scopes(&response), json!(["queue:*"]));
    let response = fixture
        .request_with_claims(&json!({"sub": "mallory"}))
        .await;
    let rejection = response.rejection.as_ref().unwrap();
    assert_eq!(rejection.reason, Reason::LoginRefused);
    assert!(rejection.cause.as_ref().unwrap().contains("rule"));
    assert_eq!(response.details.source, None);
}
