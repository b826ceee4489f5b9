//! Explanations with a configuration whose keys are in a file, so no network is needed.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Stage;
use super::token::Check;
use super::{Explanation, Question, Status, Step, Verdict, explain};
use crate::clock::{ManualClock, SharedClock, UnixMillis};
use crate::config::{self, Config, ParseOptions};
use crate::token::testing::{self, ED25519, b64, with};

const ISSUER: &str = "https://idp.example.com/";

const CONFIG: &str = r#"
[[issuer]]
name = "idp"
url = "https://idp.example.com/"
jwks_file = "jwks.json"
audiences = ["hawkgate"]
profile = "auth0"
clients = ["spa"]
subjects = ["dev|*"]
[[issuer]]
name = "far"
url = "https://far.example.com/"
audiences = ["hawkgate"]
[[source]]
name = "mint"
kind = "taskcluster-mint"
client_id = "issuing"
access_token = { file = "access-token" }
client_name = "sso/{sub}"
scopes = ["a:*", "b"]
[[route]]
name = "tc"
host = "tc.example.com"
path = "/api/"
methods = ["GET"]
upstream = "https://tc.example.com"
issuers = ["idp"]
source = "mint"
require_scopes = ["openid"]
passes_401 = ["/api/own/"]
[[route]]
name = "far"
path = "/far/"
upstream = "https://tc.example.com"
issuers = ["far"]
[[route]]
name = "open"
path = "/open/"
upstream = "http://127.0.0.1:9"
anonymous = true
[login]
source = "mint"
issuers = ["idp"]
require_scopes = ["openid"]
[[rule]]
name = "no-secrets"
effect = "deny"
when = 'request.path.startsWith("/api/secrets/")'
[[rule]]
name = "broken"
when = 'claims.absent == 1'
[[rule]]
name = "devs"
when = '"dev" in claims.groups'
scopes = ["a:x"]
headers = { "x-sub" = "claims.sub" }
routes = ["tc"]
[[rule]]
name = "rest"
when = 'token.issuer == ""'
"#;

struct Fixture {
    dir: TempDir,
    config: Config,
    clock: SharedClock,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("jwks.json"),
            testing::jwks(&[ED25519.jwk()]),
        )
        .unwrap();
        std::fs::write(dir.path().join("access-token"), "an-access-token-for-tests").unwrap();
        let config = parsed(dir.path());
        let clock: SharedClock = ManualClock::at(UnixMillis::from_secs(testing::NOW));
        Self { dir, config, clock }
    }

    async fn explain(&self, question: &Question) -> Explanation {
        explain(&self.config, question, &self.clock).await.unwrap()
    }
}

fn parsed(base_dir: &Path) -> Config {
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: base_dir.to_owned(),
    };
    config::parse(CONFIG, "t.toml", &options).unwrap().0
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "hawkgate", "sub": "dev|1", "azp": "spa", "scope": "openid",
        "exp": testing::NOW + 60, "iat": testing::NOW - 60, "groups": ["dev"],
    })
}

fn question(target: &str, token: Option<String>) -> Question {
    Question {
        method: Method::GET,
        https: false,
        host: "tc.example.com".into(),
        target: target.into(),
        token,
        cookie: None,
        user: None,
        origin: None,
        user_agent: None,
        client: Some([127, 0, 0, 1].into()),
        offline: false,
        exchange: false,
    }
}

fn good() -> String {
    ED25519.token(&json!({"typ": "JWT"}), &claims())
}

fn failed(explanation: &Explanation) -> Vec<(Stage, &str)> {
    let failed = |step: &&Step| step.status == Status::Failed;
    let steps = explanation.steps.iter().filter(failed);
    steps.map(|step| (step.stage, step.what.as_str())).collect()
}

/// Changes to the header and the claims of a token that make this check fail.
fn broken(check: Check) -> (Value, Value) {
    let header = |changes: Value| (changes, json!({}));
    let claim = |changes: Value| (json!({}), changes);
    match check {
        Check::Form | Check::Signature => header(json!({})),
        Check::Issuer => claim(json!({"iss": "https://other.example.com/"})),
        Check::CriticalHeaders => header(json!({"crit": ["x"]})),
        Check::Algorithm => header(json!({"alg": "HS256"})),
        Check::Type => header(json!({"typ": "other"})),
        Check::Key => header(json!({"kid": "unknown"})),
        Check::Time => claim(json!({"exp": testing::NOW - 3600})),
        Check::OneClient => claim(json!({"client_id": "one", "azp": "two"})),
        Check::Audience => claim(json!({"aud": "other"})),
        Check::NoIdToken => claim(json!({"nonce": "n"})),
        Check::Subject => claim(json!({"sub": "other"})),
        Check::Client => claim(json!({"azp": "other"})),
        Check::Unbound => claim(json!({"cnf": {"jkt": "x"}})),
        Check::Scopes => claim(json!({"scope": 5})),
    }
}

fn broken_token(checks: &[Check]) -> String {
    let (mut header, mut changed) = (json!({"typ": "JWT"}), claims());
    for check in checks.iter().rev() {
        let (h, c) = broken(*check);
        header = with(&header, &h);
        changed = with(&changed, &c);
    }
    let mut token = ED25519.token(&header, &changed);
    if checks.contains(&Check::Signature) {
        let (signed, _) = token.rsplit_once('.').unwrap();
        token = format!("{signed}.{}", b64([7; 64]));
    }
    if checks.contains(&Check::Form) {
        token.push_str(".x");
    }
    token
}

/// Proves the order of [`Check::ALL`]: of two faults the earlier one is found.
#[tokio::test]
async fn of_two_faults_the_earlier_check_is_reported() {
    let fixture = Fixture::new();
    for (at, first) in Check::ALL.into_iter().enumerate() {
        for second in &Check::ALL[at..] {
            let token = broken_token(&[first, *second]);
            let explanation = fixture.explain(&question("/api/x", Some(token))).await;
            let found = failed(&explanation);
            let name = format!("{first:?} and {second:?}: {explanation}");
            assert_eq!(found.len(), 1, "{name}");
            let all: Vec<_> = explanation
                .steps
                .iter()
                .filter(|s| s.stage == Stage::Token)
                .collect();
            assert_eq!(all.len(), Check::ALL.len(), "{name}");
            assert_eq!(all[at].status, Status::Failed, "{name}");
            assert!(all[..at].iter().all(|s| s.status == Status::Ok), "{name}");
            assert!(
                all[at + 1..].iter().all(|s| s.status == Status::Skipped),
                "{name}"
            );
            assert!(!explanation.passes());
        }
    }
}

#[tokio::test]
async fn a_request_that_passes_is_explained_from_end_to_end() {
    let fixture = Fixture::new();
    let explanation = fixture.explain(&question("/api/x?a=1", Some(good()))).await;
    assert!(explanation.passes(), "{explanation}");
    assert!(failed(&explanation).is_empty(), "{explanation}");
    let text = explanation.to_string();
    for expected in [
        "GET tc.example.com/api/x\n",
        "  ok      tc: matches host \"tc.example.com\", paths below \"/api/\", GET\n",
        "  -       open: is for paths below \"/open/\"\n",
        "  ok      an accepted audience (aud)\n            expected one of [\"hawkgate\"]\n            found    \"hawkgate\"\n",
        "found    exp 2027-01-15T08:01:00.000Z (in 1 min), iat 2027-01-15T07:59:00.000Z (1 min ago)\n",
        "  ok      verified by issuer idp\n",
        "  ok      the required scopes\n            expected openid\n",
        "  -       no-secrets: does not match\n",
        "  -       broken: fails, so it does not match: there is no \"absent\"\n",
        "  ok      devs: matches: allowed, with x-sub\n",
        "  -       rest: not reached\n",
        "          scopes: at most [\"a:x\"]\n",
        "          mint: Kind `taskcluster-mint`: ",
        "          credential: would be minted locally (--exchange mints one)\n",
        "          address: https://tc.example.com\n",
        "          host: tc.example.com\n",
        "          x-sub: dev|1\n",
        "          the credential's own header: [redacted]\n",
        "\nThe request would pass.\n",
    ] {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
}

#[tokio::test]
async fn explained_refusals_equal_those_of_the_proxy() {
    let fixture = Fixture::new();
    let without_groups = ED25519.token(
        &json!({"typ": "JWT"}),
        &with(&claims(), &json!({"groups": []})),
    );
    let without_scopes = ED25519.token(
        &json!({"typ": "JWT"}),
        &with(&claims(), &json!({"scope": ""})),
    );
    let expired = broken_token(&[Check::Time]);
    for (target, token, reason, step) in [
        ("/nowhere", Some(good()), "no_route", "a route"),
        (
            "/open/%2e%2e/api/x",
            Some(good()),
            "bad_request",
            "well formed",
        ),
        ("/%61pi/x", Some(good()), "bad_request", "a route"),
        ("/api/x", None, "missing_token", "sent"),
        (
            "/api/x",
            Some("two words".into()),
            "invalid_authorization",
            "readable",
        ),
        (
            "/api/x",
            Some("opaque".into()),
            "token_malformed",
            "a well-formed JWT",
        ),
        (
            "/api/x",
            Some(expired),
            "token_expired",
            "valid now (exp, nbf, iat)",
        ),
        (
            "/api/x",
            Some(without_scopes),
            "insufficient_scope",
            "the required scopes",
        ),
        ("/api/x", Some(without_groups), "rule_denied", "decision"),
        ("/api/secrets/x", Some(good()), "rule_denied", "no-secrets"),
    ] {
        let explanation = fixture.explain(&question(target, token)).await;
        let json = serde_json::to_value(&explanation).unwrap();
        assert_eq!(json["result"], "refused", "{target}: {explanation}");
        assert_eq!(json["reason"], reason, "{explanation}");
        let steps = failed(&explanation);
        assert!(
            steps.iter().any(|(_, what)| *what == step),
            "{step}: {explanation}"
        );
    }
}

#[tokio::test]
async fn the_upstreams_own_401s_and_an_unset_clock_are_reported() {
    let mut fixture = Fixture::new();
    for (target, own) in [
        ("/api/own/x", true),
        ("/api/%6fwn/x", true),
        ("/api/x", false),
    ] {
        let explanation = fixture.explain(&question(target, Some(good()))).await;
        let text = explanation.to_string();
        assert_eq!(text.contains("passes_401"), own, "{target}: {text}");
        assert!(!text.contains("this machine's clock"));
    }
    fixture.clock = ManualClock::at(UnixMillis(12_000));
    let explanation = fixture.explain(&question("/api/x", Some(good()))).await;
    let text = explanation.to_string();
    assert!(
        text.contains("clock says 1970-01-01T00:00:12.000Z"),
        "{text}"
    );
    let clock = (Stage::Request, "this machine's clock");
    assert!(failed(&explanation).contains(&clock));
    assert!(text.contains("clock_not_set"), "{text}");
}

#[tokio::test]
async fn offline_mode_uses_no_network_and_reports_what_is_unknown() {
    let fixture = Fixture::new();
    let token = ED25519.token(
        &json!({"typ": "at+jwt"}),
        &with(&claims(), &json!({"iss": "https://far.example.com/"})),
    );
    let mut request = question("/far/x", Some(token));
    request.offline = true;
    let explanation = fixture.explain(&request).await;
    assert!(!explanation.passes());
    assert!(
        matches!(explanation.verdict, Verdict::Unknown { .. }),
        "{explanation}"
    );
    let text = explanation.to_string();
    assert!(
        text.contains("found    \"https://far.example.com/\""),
        "{text}"
    );
    assert!(!text.contains("  ok      the signature"), "{text}");
    // Keys in a file need no network.
    let mut request = question("/api/x", Some(good()));
    request.offline = true;
    assert!(fixture.explain(&request).await.passes());
}

#[tokio::test]
async fn an_anonymous_route_needs_no_token_but_rules_apply() {
    let fixture = Fixture::new();
    let mut request = question("/open/x", None);
    let explanation = fixture.explain(&request).await;
    let Verdict::Refused { reason, .. } = explanation.verdict else {
        panic!("{explanation}")
    };
    assert_eq!(reason, "host_not_allowed");
    request.host = "localhost".into();
    let explanation = fixture.explain(&request).await;
    let text = explanation.to_string();
    assert!(explanation.passes(), "{text}");
    assert!(text.contains("rest: matches: allowed"), "{text}");
    assert!(text.contains("forwarded without credentials"), "{text}");
}

#[tokio::test]
async fn an_exchange_happens_only_on_request_and_shows_no_secret() {
    let fixture = Fixture::new();
    let mut request = question("/api/x", Some(good()));
    request.exchange = true;
    let explanation = fixture.explain(&request).await;
    let text = explanation.to_string();
    assert!(
        text.contains("clientId: sso/dev!7C1\n") || text.contains("clientId: sso/dev|1\n"),
        "{text}"
    );
    assert!(text.contains("scopes: [\"a:x\"]\n"), "{text}");
    assert!(text.contains("used until: 2027-01-15T08:"), "{text}");
    std::fs::remove_file(fixture.dir.path().join("access-token")).unwrap();
    let explanation = fixture.explain(&request).await;
    let steps = failed(&explanation);
    assert_eq!(
        steps,
        [(Stage::Source, "a credential is issued")],
        "{explanation}"
    );
    request.exchange = false;
    assert!(fixture.explain(&request).await.passes());
}

#[tokio::test]
async fn a_refused_token_is_named_with_what_to_do_and_what_to_write() {
    let fixture = Fixture::new();
    let okta = |changes: Value| {
        let claims = json!({
            "iss": "https://example.okta.com/oauth2/default", "aud": "hawkgate", "sub": "dev|1", "cid": "spa",
            "jti": "AT.x", "scp": ["openid"], "exp": testing::NOW + 60,
        });
        ED25519.token(&json!({}), &with(&claims, &changes))
    };
    let profile = "this looks like an Okta access token (JWT); `profile = \"okta\"` takes it";
    let near = "almost the same";
    for (target, token, advice, section) in [
        ("/api/x", okta(json!({})), profile, true),
        ("/nowhere", okta(json!({})), profile, true),
        ("/api/x", okta(json!({ "iss": ISSUER })), profile, false),
        (
            "/api/x",
            okta(json!({ "iss": "https://idp.example.com" })),
            near,
            true,
        ),
        (
            "/api/x",
            okta(json!({ "iss": "https://far.example.com/" })),
            "add it to the route's issuers",
            false,
        ),
        (
            "/api/x",
            okta(json!({ "jti": "ID.x", "cid": null })),
            "send the access token",
            true,
        ),
        ("/api/x", "x93ab17".into(), "introspection", true),
        ("/api/x", "\"in quotes\"".into(), "one word", false),
        ("/api/x", format!("'{}'", good()), "quotes", false),
    ] {
        let explanation = fixture
            .explain(&question(target, Some(token.clone())))
            .await;
        let all = explanation.advice.join("\n");
        assert!(
            !explanation.passes() && all.contains(advice),
            "{advice}: {explanation}"
        );
        assert_eq!(
            explanation.issuer_section.is_some(),
            section,
            "{explanation}"
        );
        let text = explanation.to_string();
        assert!(text.contains(advice) && !text.contains(&token), "{text}");
    }
    let explanation = fixture.explain(&question("/api/x", Some(good()))).await;
    assert!(explanation.advice.is_empty() && explanation.issuer_section.is_none());
}

const LOGIN: &str = "/api/login/v1/oidc-credentials/idp";

#[tokio::test]
async fn explained_verdicts_of_the_login_endpoint_equal_its_responses() {
    let fixture = Fixture::new();
    // "devs" applies only to the route; no rule of the endpoint allows a request with a token.
    let explanation = fixture.explain(&question(LOGIN, Some(good()))).await;
    assert_eq!(failed(&explanation), [(Stage::Rules, "decision")]);
    let Verdict::Refused { reason, .. } = &explanation.verdict else {
        panic!("{explanation}")
    };
    assert_eq!(*reason, "login_refused");
    let mut config = fixture.config.clone();
    config.rules.clear();
    let request = question(LOGIN, Some(good()));
    let explanation = explain(&config, &request, &fixture.clock).await.unwrap();
    assert!(explanation.passes(), "{explanation}");
    assert!(
        explanation
            .to_string()
            .contains("hawkgate answers this itself")
    );
    let minting = Question {
        exchange: true,
        ..question(LOGIN, Some(good()))
    };
    let explanation = explain(&config, &minting, &fixture.clock).await.unwrap();
    assert!(
        explanation.passes() && !explanation.to_string().contains("an-access-token"),
        "{explanation}"
    );
    for (request, stage, what) in [
        (question(LOGIN, None), Stage::Token, "sent"),
        (
            question(LOGIN, Some("x".into())),
            Stage::Token,
            "a well-formed JWT",
        ),
        (
            question("/v1/oidc-credentials/far", Some(good())),
            Stage::Token,
            "provider",
        ),
        (
            Question {
                method: Method::POST,
                ..question(LOGIN, Some(good()))
            },
            Stage::Route,
            "method",
        ),
    ] {
        let explanation = explain(&config, &request, &fixture.clock).await.unwrap();
        assert!(!explanation.passes());
        assert_eq!(failed(&explanation)[0], (stage, what), "{explanation}");
    }
}

const PASSWORDS: &str = r#"
[[source]]
name = "users"
kind = "password"
token_url = "https://idp.example.com/oauth/token"
client_id = "gateway"
client_secret = { file = "client-secret" }
scopes = ["openid"]
[[route]]
name = "reports"
path = "/reports"
upstream = "https://api.example.com"
source = "users"
"#;

#[tokio::test]
async fn passwords_are_required_and_never_shown() {
    let fixture = Fixture::new();
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: fixture.dir.path().to_owned(),
    };
    let (config, _) = config::parse(PASSWORDS, "t.toml", &options).unwrap();
    let explanation = |user: Option<&str>| {
        let request = Question {
            host: "localhost".into(),
            user: user.map(Into::into),
            ..question("/reports", None)
        };
        let (config, clock) = (config.clone(), fixture.clock.clone());
        async move { explain(&config, &request, &clock).await.unwrap() }
    };
    let without = explanation(None).await;
    assert_eq!(failed(&without), [(Stage::Token, "sent")]);
    assert!(without.to_string().contains("--user-file"), "{without}");
    let with = explanation(Some("anna:hunter2-not-shown")).await;
    assert!(matches!(with.verdict, Verdict::Unknown { .. }), "{with}");
    assert!(!with.to_string().contains("hunter2"), "{with}");
    let broken = explanation(Some("anna:tab\tin it")).await;
    assert_eq!(failed(&broken), [(Stage::Token, "readable")]);
    assert!(!broken.to_string().contains("in it"), "{broken}");
}
