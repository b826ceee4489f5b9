//! `hawkgate login`, `token` and `logout` against the certified provider, with the test as the user
//! and a scripted browser.

use std::net::SocketAddr;
use std::path::PathBuf;

use hawkgate::proxy::settings::Address;
use serde_json::{Value, json};
use url::Url;

use crate::support::client::{Client, Request, Response};
use crate::support::gateway::{ROOT_KEY, TestGateway};
use crate::support::peers::{Peer, Taskcluster};
use crate::support::program::{Exited, HomeDir, Running, mode};
use crate::support::standard::MINT;

const TOKENS: &str = "state-home/hawkgate/tokens.json";

/// A provider and a user's home directory.
struct Fixture {
    provider: Peer,
    home: HomeDir,
}

/// A login that waits for the browser.
struct Pending {
    running: Running,
    /// The authorization URL that it printed.
    url: Url,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(json!({})).await
    }

    async fn with(options: Value) -> Self {
        let provider = Peer::start("sign-in", &options).await;
        let home = HomeDir::new();
        Self { provider, home }
    }

    async fn control(&self, command: &str, arguments: Value) -> Value {
        self.provider.control(command, arguments).await
    }

    fn login<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let issuer = self.provider.fact("issuer");
        let mut args = vec!["login", "--issuer", issuer, "--client-id", "shell"];
        args.extend(more);
        args
    }

    async fn start_login(&self, more: &[&str]) -> Pending {
        self.start_login_with(&self.login(&[more, &["--no-browser"]].concat()))
            .await
    }

    async fn start_login_with(&self, args: &[&str]) -> Pending {
        let mut running = self.home.start(args);
        let line = running.wait_for_line("http://127.0.0.1:").await;
        let url = line.trim().parse().unwrap();
        Pending { running, url }
    }

    /// The callback URL to which the provider redirects the browser.
    async fn browse(&self, pending: &Pending) -> Url {
        let arguments = json!({ "url": pending.url.as_str() });
        let response = self.control("browse", arguments).await;
        let location = response["location"].as_str();
        location
            .unwrap_or_else(|| panic!("{response}"))
            .parse()
            .unwrap()
    }

    /// A complete login.
    async fn signed_in(&self, more: &[&str]) -> Exited {
        let pending = self.start_login(more).await;
        let callback = self.browse(&pending).await;
        let page = visit(&callback).await;
        assert_eq!(page.status, 200, "{}", page.text());
        pending.running.wait().await
    }

    fn session(&self) -> Value {
        serde_json::from_str(&self.home.read(TOKENS)).unwrap()
    }

    async fn count(&self, what: &str) -> u64 {
        let counts = self.control("counts", json!({})).await;
        counts[what].as_u64().unwrap_or(0)
    }
}

fn address(url: &Url) -> Address {
    let port = url.port().unwrap();
    Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn target(url: &Url) -> String {
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

trait WithHost {
    fn with_host(self, host: &str) -> Self;
}

impl WithHost for Request {
    /// Sets `Host`.
    fn with_host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.authority);
        self
    }
}

async fn send(url: &Url, request: &Request) -> Response {
    let mut client = Client::connect(&address(url)).await;
    client.request(request).await.unwrap()
}

fn host(url: &Url) -> String {
    format!("127.0.0.1:{}", url.port().unwrap())
}

async fn visit(url: &Url) -> Response {
    send(url, &Request::get(&target(url)).with_host(&host(url))).await
}

/// The URL with other query parameters; an empty value removes one.
fn changed(url: &Url, changes: &[(&str, &str)]) -> Url {
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    for (name, value) in changes {
        pairs.retain(|(n, _)| n != name);
        if !value.is_empty() {
            pairs.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url
}

fn parameter(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(n, _)| n == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {url}"))
        .1
        .into_owned()
}

#[tokio::test]
async fn login_token_and_logout_work_end_to_end() {
    let fixture = Fixture::start().await;
    let resource = [
        "--resource",
        "urn:api",
        "--scope",
        "openid offline_access read",
    ];
    let ended = fixture.signed_in(&resource).await.success();
    assert!(ended.stdout.contains("signed in as user-1"), "{ended:?}");
    let session = fixture.session();
    let access = session["tokens"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let refresh = session["tokens"]["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let ended = ended.assert_secrets_absent(&[&access, &refresh]);
    drop(ended);
    assert_eq!(mode(&fixture.home.path(TOKENS)), 0o600);
    assert_eq!(mode(&fixture.home.path("state-home/hawkgate")), 0o700);

    let printed = fixture.home.run(&["token"]).await.success();
    assert_eq!(printed.stdout, format!("{access}\n"));
    let header = fixture.home.run(&["token", "--header"]).await.success();
    assert_eq!(header.stdout, format!("Authorization: Bearer {access}\n"));
    assert_eq!(
        fixture.count("POST /token").await,
        1,
        "it is valid for long enough"
    );

    let renewed = fixture
        .home
        .run(&["token", "--valid-for", "100000"])
        .await
        .success();
    let rotated = fixture.session()["tokens"]["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(
        rotated, refresh,
        "the provider rotates it, and the new one was saved"
    );
    assert_ne!(renewed.stdout.trim(), access);
    assert_eq!(
        fixture.session()["tokens"]["access_token"],
        renewed.stdout.trim()
    );

    let out = fixture.home.run(&["logout"]).await.success();
    assert!(out.stdout.contains("revoked"), "{out:?}");
    assert_eq!(fixture.count("POST /token/revocation").await, 2);
    assert!(!fixture.home.path(TOKENS).exists());
    fixture
        .home
        .run(&["token"])
        .await
        .fails_with(1, "hawkgate login");
    let out = fixture.home.run(&["logout"]).await.success();
    assert!(out.stdout.contains("not signed in"), "{out:?}");
}

#[tokio::test]
async fn login_uses_the_registered_client_from_its_state_file() {
    let fixture = Fixture::start().await;
    let register = [
        "register",
        "--issuer",
        fixture.provider.fact("issuer"),
        "--state",
        "client.json",
        "--client-name",
        "my shell",
        "--redirect-uri",
        "http://127.0.0.1/cb",
        "--grant-type",
        "authorization_code",
        "--grant-type",
        "refresh_token",
        "--auth-method",
        "client_secret_basic",
        "--scope",
        "openid offline_access",
    ];
    fixture.home.run(&register).await.success();
    let secret = fixture.home.read("client.json.secret");
    let pending = fixture
        .start_login_with(&["login", "--state", "client.json", "--no-browser"])
        .await;
    assert_eq!(pending.url.path(), "/auth");
    assert_eq!(parameter(&pending.url, "scope"), "openid offline_access");
    let callback = fixture.browse(&pending).await;
    assert_eq!(callback.path(), "/cb");
    visit(&callback).await;
    pending
        .running
        .wait()
        .await
        .success()
        .assert_secrets_absent(&[&secret]);
    assert!(
        !fixture.home.read(TOKENS).contains(&secret),
        "the secret stays where it is"
    );
    let renewed = fixture
        .home
        .run(&["token", "--valid-for", "100000"])
        .await
        .success();
    renewed.assert_secrets_absent(&[&secret]);
}

/// Runs the commands of docs/signing-in.md as the page shows them.
#[tokio::test]
async fn the_shell_session_of_the_signing_in_page_works() {
    let fixture = Fixture::start().await;
    let issuer = fixture.provider.fact("issuer");
    let clients = json!({ "root": { "accessToken": ROOT_KEY, "scopes": ["test:*", "auth:create-client:sso/*"] } });
    let taskcluster = Taskcluster::start(json!({ "clients": clients })).await;
    let root_url = taskcluster.url();
    let gateway = TestGateway::start(&format!(
        r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["urn:api"]
{MINT}
[[route]]
name = "taskcluster"
path = "/api/"
upstream = "{root_url}"
issuers = ["idp"]
source = "mint"
require_scopes = ["read"]
"#
    ))
    .await;
    let register = [
        "register",
        "--issuer",
        issuer,
        "--state",
        "client.json",
        "--client-name",
        "my shell",
        "--auth-method",
        "none",
        "--redirect-uri",
        "http://127.0.0.1/callback",
        "--grant-type",
        "authorization_code",
        "--grant-type",
        "refresh_token",
        "--scope",
        "openid offline_access read",
    ];
    let made = fixture.home.run(&register).await.success();
    assert!(
        made.stdout.contains("a public client") && made.stdout.contains("hawkgate login --state")
    );
    let login = [
        "login",
        "--state",
        "client.json",
        "--resource",
        "urn:api",
        "--no-browser",
    ];
    let pending = fixture.start_login_with(&login).await;
    visit(&fixture.browse(&pending).await).await;
    pending.running.wait().await.success();
    let header = fixture
        .home
        .run(&["token", "--header"])
        .await
        .success()
        .stdout;
    let (name, value) = header.trim().split_once(": ").unwrap();
    let request = Request::get("/api/queue/v1/ping").header(name, value);
    let response = gateway.send(&request).await;
    assert_eq!(
        response.status_and_reason(),
        (200, None),
        "{}",
        response.text()
    );
    let without = gateway.send(&Request::get("/api/queue/v1/ping")).await;
    assert_eq!(without.status, 401);
}

#[tokio::test]
async fn the_callback_accepts_only_the_expected_request() {
    let fixture = Fixture::start().await;
    let pending = fixture.start_login(&[]).await;
    let callback = fixture.browse(&pending).await;
    let evil = changed(&callback, &[("state", "guessed"), ("code", "evil")]);
    let get = |url: &Url| Request::get(&target(url));
    for (request, status) in [
        (get(&evil).with_host(&host(&evil)), 400),
        (get(&callback).with_host("evil.example"), 421),
        (get(&callback).with_host("localhost"), 421),
        (
            Request::post(&target(&callback), "").with_host(&host(&callback)),
            405,
        ),
        (
            Request::get("/favicon.ico").with_host(&host(&callback)),
            404,
        ),
        (
            get(&changed(&callback, &[("state", "")])).with_host(&host(&callback)),
            400,
        ),
        (
            Request::get("/callback?error=access_denied").with_host(&host(&callback)),
            400,
        ),
    ] {
        assert_eq!(
            send(&callback, &request).await.status,
            status,
            "{request:?}"
        );
    }
    assert_eq!(fixture.count("POST /token").await, 0);
    let page = visit(&callback).await;
    assert!(
        page.status == 200 && page.text().contains("You are signed in"),
        "{}",
        page.text()
    );
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    pending.running.wait().await.success();
}

#[tokio::test]
async fn authorization_responses_of_another_issuer_or_with_errors_end_the_login() {
    let fixture = Fixture::start().await;
    for (changes, expected) in [
        (vec![("iss", "https://evil.example/")], "mix-up attack"),
        (vec![("iss", "")], "mix-up attack"),
        (
            vec![("code", ""), ("error", "access_denied")],
            "refused, by you",
        ),
        (vec![("code", "")], "malformed"),
        (
            vec![("code", "a-code-of-another-login")],
            "used up, expired or revoked",
        ),
    ] {
        let pending = fixture.start_login(&[]).await;
        let callback = changed(&fixture.browse(&pending).await, &changes);
        let page = visit(&callback).await;
        assert!(page.text().contains("did not work"), "{}", page.text());
        pending.running.wait().await.fails_with(1, expected);
        assert!(!fixture.home.path(TOKENS).exists(), "{expected}");
    }
}

#[tokio::test]
async fn an_authorization_code_cannot_be_reused() {
    let fixture = Fixture::start().await;
    let pending = fixture.start_login(&[]).await;
    let callback = fixture.browse(&pending).await;
    visit(&callback).await;
    pending.running.wait().await.success();
    let first = fixture.session();
    // The same callback for the next login is refused: its `state` differs.
    let pending = fixture
        .start_login(&["--port", &callback.port().unwrap().to_string()])
        .await;
    assert_eq!(visit(&callback).await.status, 400);
    let own = fixture.browse(&pending).await;
    // The old code with the new `state` is refused: the PKCE verifier differs.
    let code = parameter(&callback, "code");
    let mixed = changed(&own, &[("code", &code)]);
    visit(&mixed).await;
    pending.running.wait().await.fails_with(1, "used up");
    assert_eq!(fixture.session(), first, "the earlier session is kept");
}

#[tokio::test]
async fn an_id_token_that_does_not_match_the_login_is_refused() {
    let fixture = Fixture::start().await;
    for (claims, expected) in [
        (json!({ "nonce": "another" }), "nonce"),
        (json!({ "nonce": null }), "nonce"),
        (json!({ "aud": "another" }), "another audience"),
        (json!({ "aud": ["shell", "another"] }), "azp"),
        (json!({ "azp": "another" }), "azp"),
        (json!({ "iss": "https://evil.example/" }), "issuer"),
        (json!({ "exp": 1 }), "expired"),
        (json!({ "iat": null }), "iat"),
        (json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" }), "at_hash"),
    ] {
        fixture.control("tamper", json!({ "claims": claims })).await;
        let pending = fixture.start_login(&[]).await;
        let page = visit(&fixture.browse(&pending).await).await;
        assert!(page.text().contains("did not work"), "{}", page.text());
        pending.running.wait().await.fails_with(1, expected);
        assert!(!fixture.home.path(TOKENS).exists(), "{claims}");
    }
    fixture
        .control("tamper", json!({ "claims": { "at_hash": null } }))
        .await;
    fixture.signed_in(&[]).await.success();
}

#[tokio::test]
async fn an_issuer_without_the_required_features_is_refused_before_login() {
    let fixture = Fixture::start().await;
    for (metadata, expected) in [
        (
            json!({ "code_challenge_methods_supported": ["plain"] }),
            "PKCE",
        ),
        (
            json!({ "issuer": "https://evil.example/" }),
            "another issuer",
        ),
        (json!({ "authorization_endpoint": null }), "--device"),
        (
            json!({ "token_endpoint": "http://evil.example/token" }),
            "token_endpoint",
        ),
    ] {
        fixture.control("metadata", metadata).await;
        fixture
            .home
            .run(&fixture.login(&["--no-browser"]))
            .await
            .fails_with(1, expected);
    }
    let plain_http = [
        "login",
        "--issuer",
        "http://issuer.example/",
        "--client-id",
        "c",
    ];
    fixture
        .home
        .run(&plain_http)
        .await
        .fails_with(1, "must be https");
    let neither = fixture.home.run(&["login"]).await;
    neither.fails_with(2, "--state, or --issuer and --client-id");
    let elsewhere = fixture.login(&["--redirect-uri", "http://192.0.2.1/cb"]);
    fixture.control("metadata", json!({})).await;
    fixture
        .home
        .run(&elsewhere)
        .await
        .fails_with(1, "--redirect-uri");
}

#[tokio::test]
async fn the_token_file_must_be_private() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::start().await;
    let open = fixture.home.path("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let login = fixture.login(&["--token-file", "open/tokens.json"]);
    fixture.home.run(&login).await.fails_with(1, "chmod 700");
    assert_eq!(fixture.count("GET /auth").await, 0, "no login was started");
    fixture.signed_in(&[]).await.success();
    let file = fixture.home.path(TOKENS);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    fixture
        .home
        .run(&["token"])
        .await
        .fails_with(1, "chmod 600");
    std::fs::write(&file, "{\"version\": 1, \"issuer\"").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    fixture
        .home
        .run(&["token"])
        .await
        .fails_with(1, "not a token file");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "{\"version\": 1, \"issuer\""
    );
}

#[tokio::test]
async fn concurrent_token_commands_refresh_once() {
    let fixture = Fixture::start().await;
    fixture.signed_in(&[]).await.success();
    // Both find the token expired; the second must use what the first obtained.
    let mut session = fixture.session();
    session["tokens"]["expires_at"] = json!(1000);
    fixture.home.write(TOKENS, &session.to_string());
    let (one, other) = tokio::join!(fixture.home.run(&["token"]), fixture.home.run(&["token"]));
    assert_eq!(one.success().stdout, other.success().stdout);
    assert_eq!(
        fixture.count("POST /token").await,
        2,
        "one sign-in, one refresh"
    );
}

#[tokio::test]
async fn a_failed_refresh_is_reported_and_keeps_the_session() {
    let fixture = Fixture::start().await;
    fixture.signed_in(&[]).await.success();
    let before = fixture.session();
    let access = before["tokens"]["access_token"].as_str().unwrap();
    fixture
        .control("tokenEndpoint", json!({ "mode": "error" }))
        .await;
    // The old token is still valid for a while.
    let old = fixture
        .home
        .run(&["token", "--valid-for", "100000"])
        .await
        .success();
    assert_eq!(old.stdout.trim(), access);
    assert!(old.stderr.contains("not refreshed"), "{old:?}");
    assert_eq!(fixture.session(), before);
    let mut ended = before.clone();
    ended["tokens"]["expires_at"] = json!(1000);
    fixture.home.write(TOKENS, &ended.to_string());
    fixture
        .home
        .run(&["token"])
        .await
        .fails_with(1, "could not be refreshed");
    fixture
        .control("tokenEndpoint", json!({ "mode": "ok" }))
        .await;
    // The ID token names another user: the rotated token is saved, and nothing is printed.
    fixture
        .control("tamper", json!({ "claims": { "sub": "another-user" } }))
        .await;
    let foreign = fixture.home.run(&["token"]).await;
    let foreign = foreign.fails_with(1, "a user other than the one who signed in");
    assert_eq!(foreign.stdout, "");
    assert_ne!(
        fixture.session()["tokens"]["refresh_token"],
        before["tokens"]["refresh_token"]
    );
    fixture.control("tamper", json!({})).await;
    fixture.home.run(&["token"]).await.success();
    // Reusing a rotated refresh token revokes the grant (RFC 9700 §4.14.2).
    fixture.home.write(TOKENS, &ended.to_string());
    fixture
        .home
        .run(&["token"])
        .await
        .fails_with(1, "hawkgate login");
}

#[tokio::test]
async fn device_authorization_flow_signs_in() {
    let fixture = Fixture::start().await;
    let mut running = fixture.home.start(&fixture.login(&["--device"]));
    let line = running.wait_for_line("user_code=").await;
    let complete: Url = line.trim().parse().unwrap();
    let code = parameter(&complete, "user_code");
    running.wait_for_line("waiting for you").await;
    fixture
        .control("approve", json!({ "userCode": code }))
        .await;
    let ended = running.wait().await.success();
    assert!(ended.stdout.contains("signed in as user-1"), "{ended:?}");
    assert!(ended.stderr.contains(&code));
    fixture.home.run(&["token"]).await.success();

    let mut running = fixture.home.start(&fixture.login(&["--device"]));
    let line = running.wait_for_line("user_code=").await;
    let code = parameter(&line.trim().parse().unwrap(), "user_code");
    fixture
        .control("approve", json!({ "userCode": code, "abort": true }))
        .await;
    running.wait().await.fails_with(1, "refused");
    fixture
        .control("metadata", json!({ "device_authorization_endpoint": null }))
        .await;
    fixture
        .home
        .run(&fixture.login(&["--device"]))
        .await
        .fails_with(1, "no device flow");
}

#[tokio::test]
async fn token_serve_serves_the_current_token_at_a_socket() {
    let fixture = Fixture::start().await;
    fixture.signed_in(&[]).await.success();
    let path: PathBuf = fixture.home.path("t.sock");
    let mut running = fixture
        .home
        .start(&["token", "--serve", path.to_str().unwrap()]);
    running.wait_for_line("press Ctrl-C").await;
    assert_eq!(mode(&path), 0o600);
    let ask = async |target| {
        let mut client = Client::connect(&Address::Unix(path.clone())).await;
        client.request(&Request::get(target)).await.unwrap()
    };
    let access = fixture.session()["tokens"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(ask("/token").await.text(), format!("{access}\n"));
    assert_eq!(
        ask("/header").await.text(),
        format!("Authorization: Bearer {access}\n")
    );
    // After a logout in another shell there is no token, and the socket responds with 503.
    fixture.home.run(&["logout"]).await.success();
    assert_eq!(ask("/token").await.status, 503);
    running.signal(rustix::process::Signal::INT);
    running
        .wait()
        .await
        .success()
        .assert_secrets_absent(&[&access]);
    assert!(!path.exists());
}

#[tokio::test]
async fn logout_keeps_the_tokens_while_they_cannot_be_revoked() {
    let fixture = Fixture::start().await;
    fixture.signed_in(&[]).await.success();
    let mut session = fixture.session();
    session["revocation_endpoint"] = json!("http://127.0.0.1:9/revoke");
    fixture.home.write(TOKENS, &session.to_string());
    fixture.home.run(&["logout"]).await.fails_with(1, "--local");
    assert!(fixture.home.path(TOKENS).exists());
    let local = fixture.home.run(&["logout", "--local"]).await.success();
    assert!(local.stdout.contains("remain valid"), "{local:?}");
    assert!(!fixture.home.path(TOKENS).exists());
}
