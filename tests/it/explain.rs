//! `hawkgate explain` as a program: against a real provider, and without a word too much.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::gate::{Files, ROOT_KEY};
use crate::support::peers::{OidcProvider, Taskcluster};
use crate::support::secrets::Secrets;

const AUDIENCE: &str = "login.taskcluster.net";

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the program; `stdin` is what it may read.
async fn explain(arguments: &[&str], stdin: &str) -> Said {
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
        // It may have ended without reading.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    });
    let Output {
        status,
        stdout,
        stderr,
    } = run.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        code: status.code().unwrap(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

struct House {
    provider: OidcProvider,
    taskcluster: Taskcluster,
    files: Files,
}

impl House {
    async fn build() -> Self {
        let provider = OidcProvider::start(json!({ "ttl": 3600 })).await;
        let taskcluster = Taskcluster::start(json!({
            "login": {
                "issuer": provider.issuer(), "jwks": provider.jwks(), "audience": AUDIENCE,
                "scopes": ["test:*"],
            },
            "clients": { "root": { "accessToken": ROOT_KEY, "scopes": ["test:*", "auth:create-client:sso/*"] } },
        }))
        .await;
        let files = Files::new();
        let (issuer, root_url) = (provider.issuer(), taskcluster.url());
        files.write(
            "hawkgate.toml",
            format!(
                r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]
[[issuer]]
name = "opaque"
kind = "delegated"
[[source]]
name = "login"
kind = "taskcluster-login"
url = "{root_url}/api/login/v1/oidc-credentials/mozilla-auth0"
[[source]]
name = "oauth"
kind = "taskcluster-oauth"
root_url = "{root_url}"
[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
[[route]]
name = "login"
host = "login.test"
upstream = "{root_url}"
issuers = ["idp"]
source = "login"
[[route]]
name = "oauth"
host = "oauth.test"
upstream = "{root_url}"
issuers = ["opaque"]
source = "oauth"
[[route]]
name = "static"
host = "static.test"
upstream = "{root_url}"
issuers = ["idp"]
source = "static"
[[rule]]
name = "users"
when = 'claims.sub.startsWith("user|")'
scopes = ["test:narrow"]
headers = {{ "x-auth-subject" = "claims.sub" }}
routes = ["login", "static"]
"#
            ),
        );
        Self {
            provider,
            taskcluster,
            files,
        }
    }

    fn config(&self) -> PathBuf {
        self.files.path("hawkgate.toml")
    }

    async fn explain(&self, more: &[&str], token: &str) -> Said {
        let config = self.config();
        let mut arguments = vec!["--config", config.to_str().unwrap(), "--token-file", "-"];
        arguments.extend(more);
        explain(&arguments, token).await
    }

    async fn json(&self, more: &[&str], token: &str) -> (i32, Value) {
        let mut arguments = more.to_vec();
        arguments.extend(["--format", "json"]);
        let said = self.explain(&arguments, token).await;
        let json = serde_json::from_str(&said.stdout);
        (
            said.code,
            json.unwrap_or_else(|e| panic!("{e}: {} {}", said.stdout, said.stderr)),
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
async fn a_good_token_is_explained_with_and_without_the_exchange() {
    let house = House::build().await;
    let token = house.provider.user_token("RS256", "user|1", AUDIENCE).await;
    let url = "https://login.test/api/queue/v1/x?bewit=query-secret-51d0e2";
    let (code, json) = house.json(&["--url", url], &token).await;
    assert_eq!((code, &json["result"]), (0, &json!("passes")), "{json:#}");
    assert_eq!(json["request"], "GET login.test/api/queue/v1/x");
    assert!(detail(&json, "credential").contains("bears a bewit"));
    assert_eq!(
        house
            .taskcluster
            .count("GET", "/api/login/v1/oidc-credentials/mozilla-auth0", 200)
            .await,
        0
    );

    let url = "https://login.test/api/queue/v1/x";
    let (code, json) = house.json(&["--url", url, "--exchange"], &token).await;
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(detail(&json, "clientId"), "mozilla-auth0/user|1");
    // A role is among what the endpoint grants, so only the service can tell.
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
        house
            .taskcluster
            .count("GET", "/api/login/v1/oidc-credentials/mozilla-auth0", 200)
            .await,
        1
    );
    let requests = house.taskcluster.count("GET", "/api/queue/v1/x", 200).await;
    assert_eq!(requests, 0, "nothing goes upstream");

    let said = house
        .explain(
            &["--url", url, "--method", "POST"],
            &format!("Bearer {token}\n"),
        )
        .await;
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.contains("POST login.test/api/queue/v1/x\n"),
        "{}",
        said.stdout
    );
    assert!(
        said.stdout.ends_with("\nThe request would pass.\n"),
        "{}",
        said.stdout
    );
}

#[tokio::test]
async fn refusals_and_wrong_usage_have_their_exit_codes() {
    let house = House::build().await;
    let robot = house
        .provider
        .user_token("RS256", "robot|1", AUDIENCE)
        .await;
    let other = house
        .provider
        .user_token("RS256", "user|1", "another-audience")
        .await;
    let url = ["--url", "http://static.test/api/x"];
    for (token, reason) in [(&robot, "rule_denied"), (&other, "token_audience")] {
        let (code, json) = house.json(&url, token).await;
        assert_eq!((code, &json["reason"]), (1, &json!(reason)), "{json:#}");
    }
    let (code, json) = house
        .json(&["--url", "http://static.test/api/x", "--offline"], &robot)
        .await;
    assert_eq!((code, &json["result"]), (1, &json!("unknown")), "{json:#}");

    let (opaque, client) = house.taskcluster.oauth_token(json!({})).await;
    let oauth = ["--url", "http://oauth.test/api/x"];
    assert_eq!(house.json(&oauth, &opaque).await.0, 0);
    let exchange = ["--url", "http://oauth.test/api/x", "--exchange"];
    let (code, json) = house.json(&exchange, &opaque).await;
    assert_eq!((code, detail(&json, "clientId")), (0, client.as_str()));
    let (code, json) = house.json(&exchange, "an-unknown-opaque-token").await;
    assert_eq!(
        (code, &json["reason"]),
        (1, &json!("token_refused")),
        "{json:#}"
    );

    let config = house.config();
    let config = config.to_str().unwrap();
    for arguments in [
        &["--config", config, "--url", "mailto:a@b"][..],
        &["--config", config, "--method", "G E T"],
        &["--config", config, "--token-file", "/nowhere/at/all"],
        &["--config", config, "--offline", "--exchange"],
        &["--config", config, "--colour"],
        &["--config", config, "--token-file", "-"],
    ] {
        let said = explain(arguments, "").await;
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!said.stderr.is_empty(), "{arguments:?}");
    }
    let said = explain(&["--config", "/nowhere.toml"], "").await;
    assert!(
        said.code == 1 && said.stderr.contains("/nowhere.toml"),
        "{}",
        said.stderr
    );
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_named_as_the_reason() {
    let house = House::build().await;
    let token = house.provider.user_token("RS256", "user|1", AUDIENCE).await;
    house.provider.down().await;
    let (code, json) = house.json(&["--url", "http://static.test/x"], &token).await;
    assert_eq!(
        (code, &json["reason"]),
        (1, &json!("keys_unavailable")),
        "{json:#}"
    );
    let key = "signed with a key of the issuer (kid)";
    assert_eq!(detail(&json, key), "the issuer's keys are not available");
}

#[tokio::test]
async fn nothing_secret_is_ever_printed() {
    let house = House::build().await;
    let secrets = Secrets::default();
    let good = house.provider.user_token("RS256", "user|1", AUDIENCE).await;
    let wrong = house.provider.user_token("ES256", "robot|1", "other").await;
    let (opaque, _) = house.taskcluster.oauth_token(json!({})).await;
    let tampered = format!("{}AAAA", &good[..good.len() - 4]);
    secrets.add("root's key", ROOT_KEY);
    secrets.token("the good token", &good);
    secrets.token("the wrong token", &wrong);
    secrets.token("the tampered token", &tampered);
    secrets.add("the opaque token", &opaque);
    secrets.add("no token at all", "not-a-token-93ab17 nor-two");
    secrets.add("a query's value", "query-secret-51d0e2");
    let mut said = Vec::new();
    for host in ["login", "oauth", "static", "nowhere"] {
        let url = format!("http://{host}.test/api/x?token=query-secret-51d0e2");
        let tokens = [&good, &wrong, &tampered, &opaque];
        for token in tokens
            .into_iter()
            .map(String::as_str)
            .chain(["not-a-token-93ab17 nor-two"])
        {
            for more in [&["--format", "json"][..], &["--exchange"], &["--offline"]] {
                let mut arguments = vec!["--url", url.as_str()];
                arguments.extend(more);
                let Said { stdout, stderr, .. } = house.explain(&arguments, token).await;
                assert!(!stdout.is_empty(), "{stderr}");
                said.push((format!("{host} {more:?}"), stdout + &stderr));
            }
        }
    }
    house.taskcluster.confess(&secrets).await;
    let minted = said
        .iter()
        .filter(|(_, text)| text.contains("clientId: "))
        .count();
    assert!(minted >= 3, "exchanges were made: {minted}");
    for (which, text) in &said {
        secrets.assert_absent(which, text);
    }
}
