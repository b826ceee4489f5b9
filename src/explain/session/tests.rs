//! Explanations of requests with a cookie.

use http::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::clock::{Clock as _, ManualClock, Now, UnixMillis};
use crate::config::{self, Config, ParseOptions};
use crate::credential::{Credential, Lease};
use crate::explain::{Explanation, Question, Stage, Status, Verdict, explain};
use crate::hawk::Credentials;
use crate::session::testing::{sessions, sign_in};
use crate::session::{ProviderGrant, SessionGrant, Site, SiteSecurity};
use crate::token::BearerToken;
use crate::token::testing::{self, ED25519, with};
use std::sync::Arc;
use std::time::Duration;

const CONFIG: &str = r#"
[[issuer]]
name = "idp"
url = "https://idp.example.com/"
jwks_file = "jwks.json"
audiences = ["hawkgate"]
profile = "auth0"
[[session]]
name = "web"
issuer = "idp"
client_id = "app"
client_secret = { file = "missing-client-secret" }
cookie_key = { file = "cookie-key" }
origin = "https://app.example.com"
[[session]]
name = "tc"
kind = "taskcluster"
root_url = "https://tc.example.com"
client_id = "app"
scopes = ["queue:*"]
cookie_key = { file = "cookie-key" }
prefix = "/tc/oauth2/"
unauthenticated = "refuse"
[[route]]
name = "web"
path = "/api/"
upstream = "https://api.example.com"
session = "web"
require_scopes = ["openid"]
[[route]]
name = "tc"
path = "/tc/"
upstream = "https://tc.example.com"
session = "tc"
[[rule]]
name = "own"
when = 'claims.clientId.startsWith("github/") || claims.sub == "dev|1"'
"#;

struct Fixture {
    dir: TempDir,
    config: Config,
    clock: Arc<ManualClock>,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| std::fs::write(dir.path().join(name), content).unwrap();
    file("jwks.json", &testing::jwks(&[ED25519.jwk()]));
    file(
        "cookie-key",
        b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    );
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: dir.path().to_owned(),
    };
    let config = config::parse(CONFIG, "t.toml", &options).unwrap().0;
    let clock = ManualClock::at(UnixMillis::from_secs(testing::NOW));
    Fixture { dir, config, clock }
}

fn access_token(changes: &serde_json::Value) -> BearerToken {
    let claims = json!({
        "iss": "https://idp.example.com/", "aud": "hawkgate", "sub": "dev|1", "scope": "openid",
        "exp": testing::NOW + 600, "iat": testing::NOW,
    });
    let token = ED25519.token(&json!({"typ": "JWT"}), &with(&claims, changes));
    BearerToken::new(&token).unwrap()
}

fn oidc(access_token: BearerToken, refresh_token: Option<&str>) -> ProviderGrant {
    ProviderGrant {
        grant: SessionGrant::Oidc {
            access_token,
            access_token_expires_at: Some(UnixMillis::from_secs(testing::NOW + 600)),
            refresh_token: refresh_token.map(Into::into),
            id_token: Some("s3cret-id-token".into()),
        },
        subject: "dev|1".into(),
        name: Some("Ada".into()),
        email: None,
        provider_session: None,
    }
}

impl Fixture {
    /// The cookie of a user who has signed in: `name=value`.
    async fn cookie(&self, name: &str, grant: ProviderGrant) -> String {
        let all = &self.config.sessions;
        let session = all.iter().find(|s| &*s.settings.name == name).unwrap();
        let sessions = sessions(session.settings.clone(), Some(grant), self.clock.clone());
        let site = Site {
            origin: "https://app.example.com".into(),
            security: SiteSecurity::Https,
        };
        sign_in(&sessions, &site, Now::read(&*self.clock)).await
    }

    async fn signed_in(&self) -> String {
        let grant = oidc(access_token(&json!({})), Some("s3cret-refresh"));
        self.cookie("web", grant).await
    }

    async fn explain(&self, target: &str, cookie: Option<&str>) -> Explanation {
        let question = question(target, cookie);
        self.explained(&question).await
    }

    async fn explained(&self, question: &Question) -> Explanation {
        let clock = self.clock.clone() as crate::clock::SharedClock;
        let explanation = explain(&self.config, question, &clock).await.unwrap();
        let (text, json) = (
            explanation.to_string(),
            serde_json::to_string(&explanation).unwrap(),
        );
        for secret in ["s3cret", "eyJ", "AAECAw"] {
            assert!(!text.contains(secret) && !json.contains(secret), "{text}");
        }
        if let Some(cookie) = &question.cookie {
            let value = cookie.expose().rsplit('=').next().unwrap();
            assert!(value.len() < 20 || !text.contains(value), "{text}");
        }
        explanation
    }
}

fn question(target: &str, cookie: Option<&str>) -> Question {
    Question {
        method: Method::GET,
        https: true,
        host: "app.example.com".into(),
        target: target.into(),
        token: None,
        cookie: cookie.map(Into::into),
        origin: None,
        user: None,
        user_agent: None,
        client: None,
        offline: false,
        exchange: false,
    }
}

fn refusal(explanation: &Explanation) -> &'static str {
    match &explanation.verdict {
        Verdict::Refused { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

fn failures(explanation: &Explanation) -> Vec<&str> {
    let steps = explanation.steps.iter();
    let failed = steps.filter(|step| step.stage == Stage::Token && step.status == Status::Failed);
    failed.map(|step| step.what.as_str()).collect()
}

#[tokio::test]
async fn a_cookie_tells_whose_session_it_is_and_until_when() {
    let fixture = fixture();
    let cookie = fixture.signed_in().await;
    let (_, value) = cookie.split_once('=').unwrap();
    for given in [&cookie, value, &format!("theme=dark; {cookie}; x=y")] {
        let explanation = fixture.explain("/api/x", Some(given)).await;
        let text = explanation.to_string();
        assert!(explanation.passes(), "{text}");
        for part in [
            "the cookie is one of session web",
            "\"dev|1\"",
            "\"Ada\"",
            "in 28800 s",
            "in 604800 s",
            "there is a refresh token",
            "verified by issuer idp",
            "own",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // As a page of the site would send it.
    let post = Question {
        method: Method::POST,
        ..question("/api/x", Some(&cookie))
    };
    assert!(fixture.explained(&post).await.passes());
    let foreign = Question {
        origin: Some("https://evil.example.com".into()),
        ..post
    };
    assert_eq!(refusal(&fixture.explained(&foreign).await), "cross_site");
}

#[tokio::test]
async fn a_taskcluster_session_signs_with_its_own_credentials() {
    let fixture = fixture();
    let now = Now::read(&*fixture.clock);
    let credentials = Credentials {
        client_id: "github/1|ada/app-Ab3dEf".into(),
        access_token: "s3cret-key".into(),
        certificate: None,
        authorized_scopes: None,
    };
    let expires_at = now.wall.plus(Duration::from_hours(1));
    let credential = Credential::taskcluster(&credentials).unwrap();
    let grant = ProviderGrant {
        subject: credentials.client_id.clone(),
        grant: SessionGrant::Taskcluster {
            lease: Lease::detached(credential, expires_at, now),
            credentials,
            expires_at,
        },
        name: None,
        email: None,
        provider_session: None,
    };
    let cookie = fixture.cookie("tc", grant).await;
    for exchange in [false, true] {
        let question = Question {
            exchange,
            ..question("/tc/x", Some(&cookie))
        };
        let explanation = fixture.explained(&question).await;
        let text = explanation.to_string();
        assert!(explanation.passes(), "{text}");
        for part in [
            "github/1|ada/app-Ab3dEf",
            "in 3600 s",
            "the session's own credentials",
            "the credential's own header: [redacted]",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    fixture.clock.advance(Duration::from_hours(1));
    let explanation = fixture.explain("/tc/x", Some(&cookie)).await;
    assert_eq!(refusal(&explanation), "sign_in_required");
    let text = explanation.to_string();
    assert!(text.contains("its credentials have expired"), "{text}");
}

#[tokio::test]
async fn a_cookie_that_is_no_session_leads_to_the_sign_in() {
    let fixture = fixture();
    let cookie = fixture.signed_in().await;
    let (name, value) = cookie.split_once('=').unwrap();
    let tampered = format!("{name}={}", &value[4..]);
    let twice = format!("{cookie}; {cookie}");
    for (given, what, why) in [
        (None, "sent", "--cookie-file"),
        (Some("theme=dark"), "sent", "__Host-hawkgate-web"),
        (Some("nonsense"), "a session", "cannot be opened"),
        (Some(tampered.as_str()), "a session", "cannot be opened"),
        (Some(twice.as_str()), "a session", "more than once"),
    ] {
        let explanation = fixture.explain("/api/x", given).await;
        let text = explanation.to_string();
        assert_eq!(refusal(&explanation), "sign_in_required", "{text}");
        assert_eq!(failures(&explanation), [what], "{text}");
        assert!(
            text.contains(why) && text.contains("/oauth2/login"),
            "{text}"
        );
    }
    fixture.clock.advance(Duration::from_hours(9));
    let explanation = fixture.explain("/api/x", Some(&cookie)).await;
    assert!(explanation.to_string().contains("longer than `idle`"));
    let unreadable = fixture.explain("/api/x", Some("a\u{1}b")).await;
    assert_eq!(failures(&unreadable), ["readable"]);
    // The configuration asks for no redirect.
    let explanation = fixture.explain("/tc/x", None).await;
    assert!(!explanation.to_string().contains("redirected"));
}

#[tokio::test]
async fn tokens_are_never_renewed_to_explain_a_request() {
    let fixture = fixture();
    let cookie = fixture.signed_in().await;
    let refused = access_token(&json!({"aud": "other"}));
    let refused = fixture
        .cookie("web", oidc(refused, Some("s3cret-refresh")))
        .await;
    let explanation = fixture.explain("/api/x", Some(&refused)).await;
    assert!(matches!(explanation.verdict, Verdict::Unknown { .. }));
    assert!(
        explanation
            .to_string()
            .contains("hawkgate would renew an access token")
    );
    let kept = fixture.cookie("web", oidc(access_token(&json!({"aud": "other"})), None));
    let explanation = fixture.explain("/api/x", Some(&kept.await)).await;
    assert_eq!(refusal(&explanation), "sign_in_required");
    let kept = fixture
        .cookie("web", oidc(access_token(&json!({})), None))
        .await;
    fixture.clock.advance(Duration::from_mins(11));
    let explanation = fixture.explain("/api/x", Some(&cookie)).await;
    assert!(matches!(explanation.verdict, Verdict::Unknown { .. }));
    let text = explanation.to_string();
    assert!(text.contains("would use up the refresh token"), "{text}");
    let explanation = fixture.explain("/api/x", Some(&kept)).await;
    assert_eq!(refusal(&explanation), "sign_in_required", "{explanation}");
}

#[tokio::test]
async fn a_cookie_is_only_opened_with_the_sessions_key() {
    let fixture = fixture();
    let cookie = fixture.signed_in().await;
    std::fs::remove_file(fixture.dir.path().join("cookie-key")).unwrap();
    let explanation = fixture.explain("/api/x", Some(&cookie)).await;
    assert!(matches!(explanation.verdict, Verdict::Unknown { .. }));
    assert_eq!(failures(&explanation), ["cookie_key"]);
    // Without a cookie, no key is needed.
    let explanation = fixture.explain("/api/x", None).await;
    assert_eq!(refusal(&explanation), "sign_in_required");
}

#[tokio::test]
async fn a_site_without_https_has_no_sessions() {
    let fixture = fixture();
    let plain = Question {
        https: false,
        ..question("/tc/x", Some("tc=x"))
    };
    let explanation = fixture.explained(&plain).await;
    assert_eq!(refusal(&explanation), "insecure_origin");
    assert_eq!(failures(&explanation), ["a site with sessions"]);
    assert!(fixture.clock.now().is_credible());
}

#[tokio::test]
async fn endpoints_of_sessions_are_hawkgates_own() {
    let fixture = fixture();
    let explanation = fixture.explain("/oauth2/login?return_to=%2F", None).await;
    assert!(explanation.passes());
    assert!(explanation.to_string().contains("session web"));
    let explanation = fixture.explain("/oauth2/other", None).await;
    assert_eq!(refusal(&explanation), "no_route");
}
