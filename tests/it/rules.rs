//! Rules over the claims of a certified provider, against a Taskcluster that verifies Hawk: which
//! callers are allowed, with which scopes, and which headers the upstream receives.

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::standard::{AUDIENCE, Standard};

const GROUPS: &str = "https://claims.example.com/groups";

/// A token with this claim [`GROUPS`].
async fn token(fixture: &Standard, sub: &str, groups: Value) -> String {
    let provider = &fixture.peers.provider;
    provider
        .token(json!({
            "alg": "RS256", "sub": sub, "audience": AUDIENCE,
            "scope": "read taskcluster-credentials", "claims": { GROUPS: groups },
        }))
        .await
}

fn assert_denied(response: &Response) {
    assert_eq!(response.status, 403, "{}", response.text());
    assert_eq!(response.error_reason(), Some("rule_denied"));
    let challenge = response.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );
    assert_eq!(response.json()["code"], "InsufficientScopes");
}

#[tokio::test]
async fn rules_on_groups_restrict_the_scopes_of_every_kind_of_credential() {
    let fixture = Standard::start(&format!(
        r#"
[[rule]]
name = "banned"
effect = "deny"
when = 'claims["{GROUPS}"].exists(g, g == "banned")'
routes = ["login", "mint", "static"]
[[rule]]
name = "devs"
when = '"dev" in claims["{GROUPS}"]'
scopes = ["test:queue:*", "missing:*"]
routes = ["mint"]
[[rule]]
name = "fetched-devs"
when = '"dev" in claims["{GROUPS}"]'
scopes = ["test:queue:*"]
routes = ["login", "static"]
[[rule]]
name = "readers"
when = '"reader" in claims["{GROUPS}"]'
scopes = []
routes = ["login", "mint", "static"]
[[rule]]
name = "admins"
when = '"admin" in claims["{GROUPS}"]'
routes = ["login", "mint", "static"]
[[rule]]
name = "opaque"
when = 'token.issuer == "opaque"'
scopes = ["test:oauth:*"]
routes = ["oauth"]
"#
    ))
    .await;
    let dev = token(&fixture, "dev", json!(["dev", "qa"])).await;
    let reader = token(&fixture, "reader", json!(["reader"])).await;
    let admin = token(&fixture, "admin", json!(["admin"])).await;
    let banned = token(&fixture, "banned", json!(["admin", "banned"])).await;
    let ungrouped = token(&fixture, "ungrouped", json!([])).await;
    let bare = fixture
        .peers
        .provider
        .user_token("RS256", "bare", AUDIENCE)
        .await;
    for host in ["login", "mint", "static"] {
        for (token, expected) in [(&dev, json!(["test:queue:*"])), (&reader, json!([]))] {
            // Fetched first, then from the cache.
            for _ in 0..2 {
                let response = fixture.send(host, Request::get("/api/x"), token).await;
                assert_eq!(response.status, 200, "{host}: {}", response.text());
                assert_eq!(response.json()["scopes"], expected, "{host}");
            }
        }
        let response = fixture.send(host, Request::get("/api/x"), &admin).await;
        let scopes = response.json()["scopes"].to_string();
        assert!(scopes.contains("\"other:*\""), "{host}: {scopes}");
        for token in [&banned, &ungrouped, &bare] {
            let response = fixture.send(host, Request::get("/api/x"), token).await;
            assert_denied(&response);
            assert!(!response.text().contains("banned"), "it names the rule");
        }
    }
    let (opaque, _) = fixture.peers.taskcluster.oauth_token(json!({})).await;
    let response = fixture.send("oauth", Request::get("/api/x"), &opaque).await;
    assert_eq!(response.json()["scopes"], json!(["test:oauth:*"]));

    let denied = [("reason", "rule_denied")];
    let rejections = "hawkgate_rejections_total";
    fixture
        .gateway
        .wait_for_metric(rejections, &denied, 9)
        .await;
    let log = fixture.gateway.log();
    let entry = |text: &str| log.lines().any(|line| line.contains(text));
    assert!(
        entry("\"rule\":\"banned\""),
        "the access log does not name the rule"
    );
    assert!(
        entry("\"cause\":\"rule banned: there is no"),
        "the access log does not name the evaluation error"
    );
    assert!(
        entry("\"rule\":\"fetched-devs\""),
        "the access log does not name the rule that allowed a request"
    );
}

#[tokio::test]
async fn a_replay_keeps_restricted_scopes_and_rule_headers() {
    let fixture = Standard::start(
        r#"
[[rule]]
name = "all"
when = 'token.issuer == "idp"'
scopes = ["test:a"]
headers = { "x-auth-subject" = "claims.sub" }
routes = ["login"]
"#,
    )
    .await;
    let token = token(&fixture, "ad|x", json!([])).await;
    for round in 0..2 {
        let request = Request::post("/api/x", "body").header("x-auth-subject", "forged");
        let response = fixture.send("login", request, &token).await;
        let echo = response.json();
        assert_eq!(response.status, 200, "{echo}");
        assert_eq!(echo["scopes"], json!(["test:a"]));
        assert_eq!(echo["headers"]["x-auth-subject"], "ad|x", "{echo}");
        if round == 0 {
            fixture.peers.taskcluster.revoke().await;
        }
    }
    let refused = fixture.peers.taskcluster.count("POST", "/api/x", 401).await;
    assert_eq!(refused, 1, "the second request was replayed");
}

#[tokio::test]
async fn headers_set_by_rules_cannot_be_forged_by_callers() {
    let fixture = Standard::start(&format!(
        r#"
[[rule]]
name = "tell"
when = '"dev" in claims["{GROUPS}"]'
headers = {{ "x-auth-subject" = "claims.sub", "x-auth-groups" = 'claims["{GROUPS}"]' }}
routes = ["static"]
[[rule]]
name = "others"
when = "true"
routes = ["static"]
"#
    ))
    .await;
    let dev = token(&fixture, "dev|1", json!(["dev", "ops"])).await;
    let plain = token(&fixture, "plain|1", json!(["x"])).await;
    let evil = token(&fixture, "evil", json!(["dev", "a\r\nx-admin: 1"])).await;
    let forged = || {
        Request::get("/api/x")
            .header("X-Auth-Subject", "root")
            .header("x_auth_subject", "root")
            .header("X-Auth-Groups", "admin")
            .header("x-auth-subjects", "mine")
            .header("Connection", "x-auth-subject")
    };
    for (host, token, subject, groups) in [
        ("static", &dev, json!("dev|1"), json!("dev,ops")),
        ("static", &plain, Value::Null, Value::Null),
        ("mint", &plain, Value::Null, Value::Null),
        ("login", &dev, Value::Null, Value::Null),
    ] {
        let response = fixture.send(host, forged(), token).await;
        assert_eq!(response.status, 200, "{host}: {}", response.text());
        let headers = &response.json()["headers"];
        assert_eq!(headers["x-auth-subject"], subject, "{host}");
        assert_eq!(headers["x-auth-groups"], groups, "{host}");
        assert_eq!(headers["x_auth_subject"], Value::Null, "{host}");
        assert_eq!(headers["x-auth-subjects"], "mine", "{host}");
    }
    let before = fixture.peers.taskcluster.count("GET", "/api/x", 200).await;
    assert_denied(&fixture.send("static", Request::get("/api/x"), &evil).await);
    let after = fixture.peers.taskcluster.count("GET", "/api/x", 200).await;
    assert_eq!(before, after, "it was forwarded");
}

#[tokio::test]
async fn rules_can_match_the_request_and_the_client() {
    let fixture = Standard::start(
        r#"
[[rule]]
name = "no-secrets"
effect = "deny"
when = 'request.path.startsWith("/api/secrets/")'
[[rule]]
name = "read"
when = '''
request.method in ["GET", "HEAD"] && request.host == "static.test"
&& client.address == "127.0.0.1" && request.user_agent.startsWith("good/")
&& token.scopes.exists(s, s == "read") && token.client != ""
'''
"#,
    )
    .await;
    let token = token(&fixture, "a", json!([])).await;
    let get = |path: &str| Request::get(path).header("User-Agent", "good/1");
    let post = Request::post("/api/queue/x", "x").header("User-Agent", "good/1");
    let twice = get("/api/queue/x").header("User-Agent", "good/1");
    for (request, expected) in [
        (get("/api/queue/x"), None),
        (get("/api/queue/x?y=/api/secrets/"), None),
        (get("/api/queue/a%2Fb"), None),
        (post, Some("rule_denied")),
        (twice, Some("rule_denied")),
        (Request::get("/api/queue/x"), Some("rule_denied")),
        (get("/api/secrets/x"), Some("rule_denied")),
        (get("/api/%73ecrets/x"), Some("bad_request")),
        (get("/api//secrets/x"), Some("bad_request")),
    ] {
        let target = request.target.clone();
        let response = fixture.send("static", request, &token).await;
        assert_eq!(response.error_reason(), expected, "{target}");
    }
    assert_denied(&fixture.send("mint", get("/api/queue/x"), &token).await);
    // A request with a bewit needs no credential, but rules apply to it.
    let bewit = get("/api/secrets/x?bewit=YQ");
    assert_denied(&fixture.send("static", bewit, &token).await);
}

#[tokio::test]
async fn a_claim_over_the_list_limit_is_refused_only_by_rules_that_read_it() {
    let fixture = Standard::start(&format!(
        "[[rule]]\nname = \"dev\"\nwhen = '\"1\" in claims[\"{GROUPS}\"]'\nroutes = [\"static\"]\n"
    ))
    .await;
    let groups = |n: usize| json!((0..n).map(|i| i.to_string()).collect::<Vec<_>>());
    let most = token(&fixture, "most", groups(256)).await;
    let more = token(&fixture, "more", groups(257)).await;
    let send = async |host, token| fixture.send(host, Request::get("/api/x"), token).await;
    assert_eq!(send("static", &most).await.status, 200);
    assert_denied(&send("static", &more).await);
    assert_eq!(
        send("mint", &more).await.status,
        200,
        "no rule of this route reads the claim"
    );
}
