//! The `hawkgate explain` command, against a certified provider.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use crate::support::gateway::{ConfigDir, ROOT_KEY};
use crate::support::program::Exited;
use crate::support::secrets::Secrets;
use crate::support::standard::{AUDIENCE, EXCHANGE, Peers};

/// Runs the program with `stdin` as its standard input.
async fn explain(arguments: &[&str], stdin: &str) -> Exited {
    let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let stdin = stdin.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
            .arg("explain")
            .args(arguments)
            .env_remove("HAWKGATE_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have exited without reading.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Exited::from(child.wait_with_output().unwrap())
    });
    run.await.unwrap()
}

struct Fixture {
    peers: Peers,
    files: ConfigDir,
}

const RULE: &str = r#"
[[rule]]
name = "users"
when = 'claims.sub.startsWith("user|")'
scopes = ["test:narrow"]
headers = { "x-auth-subject" = "claims.sub" }
routes = ["login", "static"]
"#;

impl Fixture {
    async fn start() -> Self {
        let peers = Peers::start().await;
        let files = ConfigDir::new();
        let config = peers.config(&["login", "oauth", "static"]);
        files.write("hawkgate.toml", format!("{config}{RULE}"));
        Self { peers, files }
    }

    fn config(&self) -> PathBuf {
        self.files.path("hawkgate.toml")
    }

    async fn explain(&self, more: &[&str], token: &str) -> Exited {
        let config = self.config();
        let mut arguments = vec!["--config", config.to_str().unwrap(), "--token-file", "-"];
        arguments.extend(more);
        explain(&arguments, token).await
    }

    async fn json(&self, more: &[&str], token: &str) -> (i32, Value) {
        let mut arguments = more.to_vec();
        arguments.extend(["--format", "json"]);
        let exited = self.explain(&arguments, token).await;
        let json = serde_json::from_str(&exited.stdout);
        (
            exited.code,
            json.unwrap_or_else(|e| panic!("{e}: {} {}", exited.stdout, exited.stderr)),
        )
    }
}

/// The detail of the step `what`.
fn detail<'j>(json: &'j Value, what: &str) -> &'j str {
    let mut steps = json["steps"].as_array().unwrap().iter();
    let step = steps.find(|step| step["what"] == what);
    step.unwrap_or_else(|| panic!("no {what} in {json:#}"))["detail"]
        .as_str()
        .unwrap()
}

#[tokio::test]
async fn explain_reports_a_valid_token_with_and_without_the_exchange() {
    let fixture = Fixture::start().await;
    let token = fixture
        .peers
        .provider
        .user_token("RS256", "user|1", AUDIENCE)
        .await;
    let url = "https://login.test/api/queue/v1/x?bewit=query-secret-51d0e2";
    let (code, json) = fixture.json(&["--url", url], &token).await;
    assert_eq!((code, &json["result"]), (0, &json!("passes")), "{json:#}");
    assert_eq!(json["request"], "GET login.test/api/queue/v1/x");
    assert!(detail(&json, "credential").contains("has a bewit"));
    assert_eq!(
        fixture.peers.taskcluster.count("GET", EXCHANGE, 200).await,
        0
    );

    let url = "https://login.test/api/queue/v1/x";
    let (code, json) = fixture.json(&["--url", url, "--exchange"], &token).await;
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(detail(&json, "clientId"), "mozilla-auth0/user|1");
    // The endpoint grants a role, which only Taskcluster can expand.
    assert_eq!(
        json["steps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s["what"] == "scopes")
            .count(),
        2
    );
    assert_eq!(detail(&json, "x-auth-subject"), "user|1");
    assert_eq!(
        fixture.peers.taskcluster.count("GET", EXCHANGE, 200).await,
        1
    );
    let requests = fixture
        .peers
        .taskcluster
        .count("GET", "/api/queue/v1/x", 200)
        .await;
    assert_eq!(requests, 0, "nothing goes upstream");

    let exited = fixture
        .explain(
            &["--url", url, "--method", "POST"],
            &format!("Bearer {token}\n"),
        )
        .await;
    assert_eq!(exited.code, 0, "{}{}", exited.stdout, exited.stderr);
    assert!(
        exited.stdout.contains("POST login.test/api/queue/v1/x\n"),
        "{}",
        exited.stdout
    );
    assert!(
        exited.stdout.ends_with("\nThe request would pass.\n"),
        "{}",
        exited.stdout
    );
}

#[tokio::test]
async fn refusals_exit_with_1_and_usage_errors_with_2() {
    let fixture = Fixture::start().await;
    let robot = fixture
        .peers
        .provider
        .user_token("RS256", "robot|1", AUDIENCE)
        .await;
    let other = fixture
        .peers
        .provider
        .user_token("RS256", "user|1", "another-audience")
        .await;
    let url = ["--url", "http://static.test/api/x"];
    for (token, reason) in [(&robot, "rule_denied"), (&other, "token_audience")] {
        let (code, json) = fixture.json(&url, token).await;
        assert_eq!((code, &json["reason"]), (1, &json!(reason)), "{json:#}");
    }
    let (code, json) = fixture
        .json(&["--url", "http://static.test/api/x", "--offline"], &robot)
        .await;
    assert_eq!((code, &json["result"]), (1, &json!("unknown")), "{json:#}");

    let (opaque, client) = fixture.peers.taskcluster.oauth_token(json!({})).await;
    let oauth = ["--url", "http://oauth.test/api/x"];
    assert_eq!(fixture.json(&oauth, &opaque).await.0, 0);
    let exchange = ["--url", "http://oauth.test/api/x", "--exchange"];
    let (code, json) = fixture.json(&exchange, &opaque).await;
    assert_eq!((code, detail(&json, "clientId")), (0, client.as_str()));
    let (code, json) = fixture.json(&exchange, "an-unknown-opaque-token").await;
    assert_eq!(
        (code, &json["reason"]),
        (1, &json!("token_refused")),
        "{json:#}"
    );

    let config = fixture.config();
    let config = config.to_str().unwrap();
    for arguments in [
        &["--config", config, "--url", "mailto:a@b"][..],
        &["--config", config, "--method", "G E T"],
        &["--config", config, "--token-file", "/nowhere/at/all"],
        &["--config", config, "--offline", "--exchange"],
        &["--config", config, "--colour"],
        &["--config", config, "--token-file", "-"],
    ] {
        let exited = explain(arguments, "").await;
        assert_eq!(
            (exited.code, exited.stdout.as_str()),
            (2, ""),
            "{arguments:?}"
        );
        assert!(!exited.stderr.is_empty(), "{arguments:?}");
    }
    let exited = explain(&["--config", "/nowhere.toml"], "").await;
    assert!(
        exited.code == 1 && exited.stderr.contains("/nowhere.toml"),
        "{}",
        exited.stderr
    );
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_reported_as_the_reason() {
    let fixture = Fixture::start().await;
    let token = fixture
        .peers
        .provider
        .user_token("RS256", "user|1", AUDIENCE)
        .await;
    fixture.peers.provider.down().await;
    let (code, json) = fixture
        .json(&["--url", "http://static.test/x"], &token)
        .await;
    assert_eq!(
        (code, &json["reason"]),
        (1, &json!("keys_unavailable")),
        "{json:#}"
    );
    let key = "signed with a key of the issuer (kid)";
    let why = detail(&json, key);
    let expected = "the issuer's keys are not available: discovery failed: ";
    assert!(why.starts_with(expected), "{why}");
}

#[tokio::test]
async fn explain_prints_no_secret() {
    let fixture = Fixture::start().await;
    let secrets = Secrets::default();
    let good = fixture
        .peers
        .provider
        .user_token("RS256", "user|1", AUDIENCE)
        .await;
    let wrong = fixture
        .peers
        .provider
        .user_token("ES256", "robot|1", "other")
        .await;
    let (opaque, _) = fixture.peers.taskcluster.oauth_token(json!({})).await;
    let not_a_token = "not-a-token-93ab17 nor-two".to_owned();
    let tampered = format!("{}AAAA", &good[..good.len() - 4]);
    secrets.add("root's key", ROOT_KEY);
    secrets.token("the good token", &good);
    secrets.token("the wrong token", &wrong);
    secrets.token("the tampered token", &tampered);
    secrets.add("the opaque token", &opaque);
    secrets.add("not a token at all", &not_a_token);
    secrets.add("a query's value", "query-secret-51d0e2");
    let mut runs = Vec::new();
    for host in ["login", "oauth", "static", "nowhere"] {
        let url = format!("http://{host}.test/api/x?token=query-secret-51d0e2");
        for token in [&good, &wrong, &tampered, &opaque, &not_a_token] {
            for more in [&["--format", "json"][..], &["--exchange"], &["--offline"]] {
                let (fixture, url) = (&fixture, url.clone());
                runs.push(async move {
                    let arguments = [&["--url", &url], more].concat();
                    let Exited { stdout, stderr, .. } = fixture.explain(&arguments, token).await;
                    assert!(!stdout.is_empty(), "{stderr}");
                    (format!("{host} {more:?}"), stdout + &stderr)
                });
            }
        }
    }
    let outputs: Vec<_> = stream::iter(runs).buffered(4).collect().await;
    fixture.peers.taskcluster.collect_secrets(&secrets).await;
    let minted = outputs
        .iter()
        .filter(|(_, text)| text.contains("clientId: "))
        .count();
    assert!(minted >= 3, "exchanges were made: {minted}");
    for (which, text) in &outputs {
        secrets.assert_absent(which, text);
    }
}

#[tokio::test]
async fn what_a_web_page_may_do_is_explained() {
    let files = ConfigDir::new();
    let config = files.write(
        "hawkgate.toml",
        r#"
[[issuer]]
name = "shared"
kind = "delegated"
[[source]]
name = "oauth"
kind = "taskcluster-oauth"
root_url = "http://127.0.0.1:9"
[[route]]
name = "pages"
path = "/pages/"
upstream = "http://127.0.0.1:9"
issuers = ["shared"]
source = "oauth"
cors = { allowed_origins = ["https://*.example.com"], allow_credentials = true, max_age = "1m" }
[[route]]
name = "none"
path = "/none/"
upstream = "http://127.0.0.1:9"
issuers = ["shared"]
source = "oauth"
[[route]]
name = "upstream"
path = "/upstream/"
upstream = "http://127.0.0.1:9"
issuers = ["shared"]
source = "oauth"
cors = "upstream"
"#,
    );
    let config = config.to_str().unwrap();
    for (url, origin, expected) in [
        (
            "/pages/x",
            "https://app.example.com",
            "ok      cors: pages of https://app.example.com may use the route:",
        ),
        (
            "/pages/x",
            "https://app.example.com",
            "\n            access-control-allow-credentials: true\n",
        ),
        (
            "/pages/x",
            "https://app.example.com",
            "\n            access-control-max-age: 60\n",
        ),
        (
            "/pages/x",
            "https://example.com",
            "FAILED  cors: allowed_origins has no https://example.com",
        ),
        (
            "/none/x",
            "https://example.com",
            "FAILED  cors: the route has none",
        ),
        (
            "/upstream/x",
            "https://example.com",
            "cors: the upstream answers preflights",
        ),
    ] {
        let arguments = [
            "--config",
            config,
            "--offline",
            "--token-file",
            "-",
            "--url",
            url,
            "--origin",
            origin,
        ];
        let exited = explain(&arguments, "opaque").await;
        assert!(exited.stdout.contains(expected), "{}", exited.stdout);
    }
}
