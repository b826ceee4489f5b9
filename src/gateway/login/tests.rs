use http::HeaderValue;
use serde_json::{Value, json};
use tempfile::TempDir;

use http::HeaderMap;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::credential::taskcluster_mint::{MintSettings, NameTemplate};
use crate::gateway::rate::{Rate, RateBy, RateLimit};
use crate::gateway::rule::{Effect, Expression, Rule};
use crate::secret::SecretRef;
use crate::token::settings::Profile;
use crate::token::testing::{self, ED25519, NOW, OTHER_RSA, ScriptedKeys, configured};

const URL: &str = "https://auth.example.com/";
const TOOLS: &str = "https://tools.example.com";

struct Stage {
    login: Login,
    clock: Arc<ManualClock>,
    keys: Arc<ScriptedKeys>,
    folder: TempDir,
}

fn stage() -> Stage {
    let clock = testing::clock();
    let keys = ScriptedKeys::of(&[ED25519.jwk()]);
    let config = configured(URL, Profile::Auth0);
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
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
        allowed_origins: AllowedOrigins::These(vec![TOOLS.into()]),
        lifetime: Duration::from_mins(15),
        timeout: Duration::from_secs(5),
        rates: Rates::default(),
        clock: clock.clone(),
    };
    Stage {
        login,
        clock,
        keys,
        folder,
    }
}

fn token(changes: &Value) -> String {
    let claims = json!({
        "iss": URL, "aud": testing::AUDIENCE, "sub": "alice", "azp": "spa",
        "exp": NOW + 3600, "scope": "openid taskcluster-credentials",
    });
    ED25519.token(&json!({"typ": "JWT"}), &testing::with(&claims, changes))
}

impl Stage {
    async fn ask(&self, provider: &str, authorization: Option<&str>) -> Served {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        self.send(&Method::GET, provider, &headers).await
    }

    async fn with(&self, changes: &Value) -> Served {
        let value = format!("Bearer {}", token(changes));
        self.ask("mozilla-auth0", Some(&value)).await
    }

    async fn from(&self, method: Method, origin: Option<&str>) -> Served {
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        self.send(&method, "mozilla-auth0", &headers).await
    }

    async fn send(&self, method: &Method, provider: &str, headers: &HeaderMap) -> Served {
        let head = Head {
            method,
            host: "login.example.com",
            target: "/api/login/v1/oidc-credentials/mozilla-auth0",
            headers,
            peer: None,
            certificate: None,
        };
        self.login.answer(LoginRequest { provider, head }).await
    }
}

fn header_of<'a>(served: &'a Served, name: &str) -> Option<&'a str> {
    let mut found = served.headers.iter().filter(|(n, _)| *n == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} twice");
    value
}

fn body(served: &Served) -> Value {
    serde_json::from_slice(&served.body).unwrap()
}

#[test]
fn both_places_and_nothing_else_are_the_endpoints() {
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
async fn a_good_token_gets_credentials_in_the_old_shape() {
    let stage = stage();
    let served = stage.with(&json!({})).await;
    assert_eq!(served.status, 200);
    assert_eq!(header_of(&served, "cache-control"), Some("no-store"));
    assert_eq!(header_of(&served, "content-type"), Some("application/json"));
    let body = body(&served);
    assert_eq!(body.as_object().unwrap().len(), 2);
    let now = stage.clock.now();
    let expiry = now.plus(Duration::from_mins(15));
    assert_eq!(body["expires"], expiry.minus(REPORTED_EARLY).to_rfc3339());
    let credentials = &body["credentials"];
    assert_eq!(credentials["clientId"], "mozilla-auth0/alice");
    assert!(credentials["accessToken"].as_str().unwrap().len() > 40);
    let certificate = credentials["certificate"].as_str().expect("a JSON string");
    let certificate: Value = serde_json::from_str(certificate).unwrap();
    assert_eq!(certificate["start"], now.minus(BACKDATED).0);
    assert_eq!(certificate["expiry"], expiry.0);
    assert_eq!(certificate["scopes"], json!(["queue:*"]));
    assert_eq!(certificate["issuer"], "project/login");
    assert_eq!(served.facts.issuer.as_deref(), Some("mozilla-auth0"));
    assert_eq!(served.facts.verification, Some("ok"));
    assert_eq!(served.facts.source.as_deref(), Some("mint"));
    let secret = credentials["accessToken"].as_str().unwrap();
    assert!(!format!("{served:?}").contains(secret));
}

#[tokio::test]
async fn the_tokens_end_is_the_credentials_end() {
    let stage = stage();
    for left in [600, 20] {
        let served = stage.with(&json!({ "exp": NOW + left })).await;
        let body = body(&served);
        let end = UnixMillis::from_secs(NOW + left);
        // With less than half a minute left it is over already, as it was there.
        assert_eq!(body["expires"], end.minus(REPORTED_EARLY).to_rfc3339());
        let certificate = body["credentials"]["certificate"].as_str().unwrap();
        let certificate: Value = serde_json::from_str(certificate).unwrap();
        assert_eq!(certificate["expiry"], end.0);
    }
}

#[tokio::test]
async fn every_bad_token_gets_one_and_the_same_answer() {
    let stage = stage();
    let forged = {
        let claims = json!({"iss": URL, "aud": testing::AUDIENCE, "sub": "alice", "exp": NOW + 60,
            "scope": "taskcluster-credentials"});
        OTHER_RSA.token(&json!({"typ": "JWT", "kid": "ed25519"}), &claims)
    };
    let mut said = Vec::new();
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
        let served = stage.ask("mozilla-auth0", authorization.as_deref()).await;
        let rejection = served.rejection.as_ref().unwrap();
        assert_eq!(rejection.reason, Reason::LoginRefused, "{what}");
        assert!(rejection.cause.is_some(), "{what}: the log is told");
        assert_eq!(served.status, 400, "{what}");
        assert_eq!(body(&served)["code"], "InputError");
        said.push((served.headers.clone(), served.body.clone()));
    }
    said.dedup();
    assert_eq!(said.len(), 1, "nothing tells them apart");
}

#[tokio::test]
async fn an_issuer_that_is_down_is_a_bad_token_too() {
    let stage = stage();
    stage.keys.go_down();
    let served = stage.with(&json!({})).await;
    assert_eq!(served.status, 400);
    assert_eq!(served.facts.verification, Some("keys_unavailable"));
}

#[tokio::test]
async fn an_unknown_provider_is_another_400() {
    let stage = stage();
    for name in [
        "github",
        "mozilla-auth",
        "MOZILLA-AUTH0",
        "%6dozilla-auth0",
        "..",
    ] {
        let served = stage.ask(name, None).await;
        assert_eq!(served.status, 400, "{name}");
        assert_eq!(body(&served)["code"], "InputError");
        assert_eq!(body(&served)["message"], "Unknown provider");
    }
}

#[tokio::test]
async fn a_fault_of_our_own_is_a_500() {
    let stage = stage();
    std::fs::remove_file(stage.folder.path().join("key")).unwrap();
    let served = stage.with(&json!({})).await;
    assert_eq!(served.status, 500);
    let rejection = served.rejection.as_ref().unwrap();
    assert_eq!(rejection.reason, Reason::Internal);
    assert!(rejection.cause.as_ref().unwrap().contains("secret file"));
}

#[tokio::test]
async fn only_listed_origins_may_read() {
    let stage = stage();
    for method in [Method::GET, Method::OPTIONS] {
        let served = stage.from(method.clone(), Some(TOOLS)).await;
        let allowed = header_of(&served, "access-control-allow-origin");
        assert_eq!(allowed, Some(TOOLS), "{method}");
        assert_eq!(header_of(&served, "vary"), Some("Origin"));
        assert!(header_of(&served, "access-control-allow-credentials").is_none());
        let preflight = method == Method::OPTIONS;
        for name in [
            "access-control-allow-methods",
            "access-control-allow-headers",
        ] {
            assert_eq!(header_of(&served, name).is_some(), preflight, "{name}");
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
            let served = stage.from(method.clone(), origin).await;
            assert!(
                header_of(&served, "access-control-allow-origin").is_none(),
                "{origin:?}"
            );
            assert_eq!(header_of(&served, "vary"), Some("Origin"));
        }
    }
    let served = stage.from(Method::OPTIONS, Some(TOOLS)).await;
    assert_eq!(served.status, 204);
    assert!(served.body.is_empty());
    let headers = header_of(&served, "access-control-allow-headers");
    assert_eq!(headers, Some("Authorization"));
}

#[tokio::test]
async fn everybody_and_nobody() {
    let mut stage = stage();
    stage.login.allowed_origins = AllowedOrigins::new(vec![ANY_ORIGIN.into()]);
    let served = stage.from(Method::GET, Some("https://x.example")).await;
    let allowed = header_of(&served, "access-control-allow-origin");
    assert_eq!(allowed, Some(ANY_ORIGIN));
    stage.login.allowed_origins = AllowedOrigins::new(vec![]);
    let served = stage.from(Method::OPTIONS, Some(TOOLS)).await;
    assert!(header_of(&served, "access-control-allow-origin").is_none());
}

#[tokio::test]
async fn other_methods_are_refused() {
    let stage = stage();
    for method in [Method::POST, Method::HEAD, Method::PUT, Method::DELETE] {
        let served = stage.from(method, None).await;
        assert_eq!(served.status, 405);
        assert_eq!(header_of(&served, "allow"), Some("GET, OPTIONS"));
    }
}

#[tokio::test]
async fn who_asks_too_often_has_to_wait_with_good_tokens_and_bad_ones() {
    let mut stage = stage();
    let limit = |by| {
        let rate = Rate {
            requests: 1,
            per: Duration::from_secs(10),
            burst: 2,
            by,
            clients: 10,
        };
        Rates::new(vec![Arc::new(RateLimit::new(&rate, stage.clock.clone()))])
    };
    let (client, address) = (limit(RateBy::Client), limit(RateBy::Address));
    stage.login.rates = client;
    for status in [200, 200, 429] {
        assert_eq!(stage.with(&json!({})).await.status, status);
    }
    assert_eq!(stage.with(&json!({"sub": "bob"})).await.status, 200);
    for status in [400, 400, 429] {
        assert_eq!(stage.ask("mozilla-auth0", None).await.status, status);
    }
    stage.login.rates = address;
    assert_eq!(stage.ask("mozilla-auth0", None).await.status, 400);
    assert_eq!(stage.with(&json!({})).await.status, 200);
    let refused = stage.with(&json!({"sub": "bob"})).await;
    assert_eq!(refused.status, 429);
    assert_eq!(header_of(&refused, "retry-after"), Some("10"));
}

#[tokio::test]
async fn rules_narrow_and_refuse_as_on_any_route() {
    let mut stage = stage();
    let rule = |name: &str, when: &str, scopes: Option<&[&str]>| {
        Arc::new(Rule {
            name: name.into(),
            when: Expression::compile(when).unwrap(),
            effect: Effect::Allow,
            scopes: scopes.map(|s| s.iter().map(|s| (*s).to_owned()).collect()),
            headers: Vec::new(),
        })
    };
    stage.login.rules = Rules::new(vec![
        rule(
            "narrow",
            "claims.sub == 'alice'",
            Some(&["queue:ping", "index:*"]),
        ),
        rule("boss", "claims.sub == 'boss'", None),
    ]);
    let scopes = |served: &Served| {
        let certificate = body(served)["credentials"]["certificate"].clone();
        let certificate: Value = serde_json::from_str(certificate.as_str().unwrap()).unwrap();
        certificate["scopes"].clone()
    };
    let served = stage.with(&json!({})).await;
    assert_eq!(scopes(&served), json!(["queue:ping"]));
    assert_eq!(served.facts.rule.as_deref(), Some("narrow"));
    let served = stage.with(&json!({"sub": "boss"})).await;
    assert_eq!(scopes(&served), json!(["queue:*"]));
    let served = stage.with(&json!({"sub": "mallory"})).await;
    let rejection = served.rejection.as_ref().unwrap();
    assert_eq!(rejection.reason, Reason::LoginRefused);
    assert!(rejection.cause.as_ref().unwrap().contains("rule"));
    assert_eq!(served.facts.source, None);
}
