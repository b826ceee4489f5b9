//! `hawkgate login`, `token` and `logout` against the certified provider; the test is the
//! person and the browser.

use std::net::SocketAddr;
use std::path::PathBuf;

use hawkgate::proxy::settings::Address;
use serde_json::{Value, json};
use url::Url;

use crate::support::client::{Client, Request, Response};
use crate::support::gate::{Gate, ROOT_KEY};
use crate::support::peers::{Peer, Taskcluster};
use crate::support::program::{Ended, Home, Running, mode};

const TOKENS: &str = "state-home/hawkgate/tokens.json";

/// A provider and a person's home.
struct Stage {
    provider: Peer,
    home: Home,
}

/// A sign-in that waits for its browser.
struct Pending {
    running: Running,
    /// Where the browser was sent.
    url: Url,
}

impl Stage {
    async fn start() -> Self {
        Self::with(json!({})).await
    }

    async fn with(options: Value) -> Self {
        let provider = Peer::start("sign-in.js", &options).await;
        let home = Home::new();
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

    async fn begin(&self, more: &[&str]) -> Pending {
        self.begin_with(&self.login(&[more, &["--no-browser"]].concat()))
            .await
    }

    async fn begin_with(&self, args: &[&str]) -> Pending {
        let mut running = self.home.start(args);
        let line = running.hears("http://127.0.0.1:").await;
        let url = line.trim().parse().unwrap();
        Pending { running, url }
    }

    /// What the browser comes back with.
    async fn browse(&self, pending: &Pending) -> Url {
        let arguments = json!({ "url": pending.url.as_str() });
        let answer = self.control("browse", arguments).await;
        let location = answer["location"].as_str();
        location
            .unwrap_or_else(|| panic!("{answer}"))
            .parse()
            .unwrap()
    }

    /// A whole sign-in.
    async fn signed_in(&self, more: &[&str]) -> Ended {
        let pending = self.begin(more).await;
        let callback = self.browse(&pending).await;
        let page = visit(&callback).await;
        assert_eq!(page.status, 200, "{}", page.text());
        pending.running.ended().await
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

trait At {
    fn at(self, host: &str) -> Self;
}

impl At for Request {
    /// With this `Host`.
    fn at(mut self, host: &str) -> Self {
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
    send(url, &Request::get(&target(url)).at(&host(url))).await
}

/// The callback with other parameters; an empty value takes one away.
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
async fn a_person_signs_in_uses_the_token_and_signs_out() {
    let stage = Stage::start().await;
    let resource = [
        "--resource",
        "urn:api",
        "--scope",
        "openid offline_access read",
    ];
    let ended = stage.signed_in(&resource).await.good();
    assert!(ended.stdout.contains("signed in as user-1"), "{ended:?}");
    let session = stage.session();
    let access = session["tokens"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let refresh = session["tokens"]["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let ended = ended.silent_about(&[&access, &refresh]);
    drop(ended);
    assert_eq!(mode(&stage.home.path(TOKENS)), 0o600);
    assert_eq!(mode(&stage.home.path("state-home/hawkgate")), 0o700);

    let printed = stage.home.run(&["token"]).await.good();
    assert_eq!(printed.stdout, format!("{access}\n"));
    let header = stage.home.run(&["token", "--header"]).await.good();
    assert_eq!(header.stdout, format!("Authorization: Bearer {access}\n"));
    assert_eq!(
        stage.count("POST /token").await,
        1,
        "it is good for long enough"
    );

    let renewed = stage
        .home
        .run(&["token", "--valid-for", "100000"])
        .await
        .good();
    let rotated = stage.session()["tokens"]["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(
        rotated, refresh,
        "the provider rotates it, and the new one was saved"
    );
    assert_ne!(renewed.stdout.trim(), access);
    assert_eq!(
        stage.session()["tokens"]["access_token"],
        renewed.stdout.trim()
    );

    let out = stage.home.run(&["logout"]).await.good();
    assert!(out.stdout.contains("revoked"), "{out:?}");
    assert_eq!(stage.count("POST /token/revocation").await, 2);
    assert!(!stage.home.path(TOKENS).exists());
    stage.home.run(&["token"]).await.says(1, "hawkgate login");
    let out = stage.home.run(&["logout"]).await.good();
    assert!(out.stdout.contains("not signed in"), "{out:?}");
}

#[tokio::test]
async fn the_registered_client_signs_in_from_its_state() {
    let stage = Stage::start().await;
    let register = [
        "register",
        "--issuer",
        stage.provider.fact("issuer"),
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
    stage.home.run(&register).await.good();
    let secret = stage.home.read("client.json.secret");
    let pending = stage
        .begin_with(&["login", "--state", "client.json", "--no-browser"])
        .await;
    assert_eq!(pending.url.path(), "/auth");
    assert_eq!(parameter(&pending.url, "scope"), "openid offline_access");
    let callback = stage.browse(&pending).await;
    assert_eq!(callback.path(), "/cb");
    visit(&callback).await;
    pending
        .running
        .ended()
        .await
        .good()
        .silent_about(&[&secret]);
    assert!(
        !stage.home.read(TOKENS).contains(&secret),
        "the secret stays where it is"
    );
    let renewed = stage
        .home
        .run(&["token", "--valid-for", "100000"])
        .await
        .good();
    renewed.silent_about(&[&secret]);
}

/// docs/signing-in.md, word for word where it matters.
#[tokio::test]
async fn a_configured_gateway_is_tried_from_a_shell() {
    let stage = Stage::start().await;
    let issuer = stage.provider.fact("issuer");
    let clients = json!({ "root": { "accessToken": ROOT_KEY, "scopes": ["test:*", "auth:create-client:sso/*"] } });
    let taskcluster = Taskcluster::start(json!({ "clients": clients })).await;
    let root_url = taskcluster.url();
    let gate = Gate::start(&format!(
        r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["urn:api"]
[[source]]
name = "mint"
kind = "taskcluster-mint"
client_id = "root"
access_token = {{ file = "access-token" }}
client_name = "sso/{{sub}}"
scopes = ["test:*"]
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
    let made = stage.home.run(&register).await.good();
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
    let pending = stage.begin_with(&login).await;
    visit(&stage.browse(&pending).await).await;
    pending.running.ended().await.good();
    let header = stage.home.run(&["token", "--header"]).await.good().stdout;
    let (name, value) = header.trim().split_once(": ").unwrap();
    let request = Request::get("/api/queue/v1/ping").header(name, value);
    let answer = gate.send(&request).await;
    assert_eq!(
        (answer.status, answer.refusal()),
        (200, None),
        "{}",
        answer.text()
    );
    let without = gate.send(&Request::get("/api/queue/v1/ping")).await;
    assert_eq!(without.status, 401);
}

#[tokio::test]
async fn only_the_right_answer_to_the_right_door_is_taken() {
    let stage = Stage::start().await;
    let pending = stage.begin(&[]).await;
    let callback = stage.browse(&pending).await;
    let evil = changed(&callback, &[("state", "guessed"), ("code", "evil")]);
    let get = |url: &Url| Request::get(&target(url));
    for (request, status) in [
        (get(&evil).at(&host(&evil)), 400),
        (get(&callback).at("evil.example"), 421),
        (get(&callback).at("localhost"), 421),
        (
            Request::post(&target(&callback), "").at(&host(&callback)),
            405,
        ),
        (Request::get("/favicon.ico").at(&host(&callback)), 404),
        (
            get(&changed(&callback, &[("state", "")])).at(&host(&callback)),
            400,
        ),
        (
            Request::get("/callback?error=access_denied").at(&host(&callback)),
            400,
        ),
    ] {
        assert_eq!(
            send(&callback, &request).await.status,
            status,
            "{request:?}"
        );
    }
    assert_eq!(stage.count("POST /token").await, 0);
    let page = visit(&callback).await;
    assert!(
        page.status == 200 && page.text().contains("You are signed in"),
        "{}",
        page.text()
    );
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    pending.running.ended().await.good();
}

#[tokio::test]
async fn answers_that_are_not_the_issuers_end_the_sign_in() {
    let stage = Stage::start().await;
    for (changes, said) in [
        (vec![("iss", "https://evil.example/")], "mixing issuers up"),
        (vec![("iss", "")], "mixing issuers up"),
        (
            vec![("code", ""), ("error", "access_denied")],
            "refused, by you",
        ),
        (vec![("code", "")], "malformed"),
        (
            vec![("code", "a-code-of-somebody-else")],
            "used up, expired or revoked",
        ),
    ] {
        let pending = stage.begin(&[]).await;
        let callback = changed(&stage.browse(&pending).await, &changes);
        let page = visit(&callback).await;
        assert!(page.text().contains("did not work"), "{}", page.text());
        pending.running.ended().await.says(1, said);
        assert!(!stage.home.path(TOKENS).exists(), "{said}");
    }
}

#[tokio::test]
async fn a_code_is_of_no_use_a_second_time() {
    let stage = Stage::start().await;
    let pending = stage.begin(&[]).await;
    let callback = stage.browse(&pending).await;
    visit(&callback).await;
    pending.running.ended().await.good();
    let first = stage.session();
    // The same answer to the next sign-in: another state, and nothing comes of it.
    let pending = stage
        .begin(&["--port", &callback.port().unwrap().to_string()])
        .await;
    assert_eq!(visit(&callback).await.status, 400);
    let own = stage.browse(&pending).await;
    // Its code with our state: PKCE does not fit.
    let code = parameter(&callback, "code");
    let mixed = changed(&own, &[("code", &code)]);
    visit(&mixed).await;
    pending.running.ended().await.says(1, "used up");
    assert_eq!(stage.session(), first, "the earlier sign-in stays");
}

#[tokio::test]
async fn an_id_token_that_is_not_for_this_sign_in_is_refused() {
    let stage = Stage::start().await;
    for (claims, said) in [
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
        stage.control("tamper", json!({ "claims": claims })).await;
        let pending = stage.begin(&[]).await;
        let page = visit(&stage.browse(&pending).await).await;
        assert!(page.text().contains("did not work"), "{}", page.text());
        pending.running.ended().await.says(1, said);
        assert!(!stage.home.path(TOKENS).exists(), "{claims}");
    }
    stage
        .control("tamper", json!({ "claims": { "at_hash": null } }))
        .await;
    stage.signed_in(&[]).await.good();
}

#[tokio::test]
async fn an_issuer_that_is_not_fit_is_refused_before_anybody_signs_in() {
    let stage = Stage::start().await;
    for (metadata, said) in [
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
        stage.control("metadata", metadata).await;
        stage
            .home
            .run(&stage.login(&["--no-browser"]))
            .await
            .says(1, said);
    }
    let off = [
        "login",
        "--issuer",
        "http://issuer.example/",
        "--client-id",
        "c",
    ];
    stage.home.run(&off).await.says(1, "must be https");
    let neither = stage.home.run(&["login"]).await;
    neither.says(2, "--state, or --issuer and --client-id");
    let elsewhere = stage.login(&["--redirect-uri", "http://192.0.2.1/cb"]);
    stage.control("metadata", json!({})).await;
    stage.home.run(&elsewhere).await.says(1, "--redirect-uri");
}

#[tokio::test]
async fn tokens_are_kept_from_others() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::start().await;
    let open = stage.home.path("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let login = stage.login(&["--token-file", "open/tokens.json"]);
    stage.home.run(&login).await.says(1, "chmod 700");
    assert_eq!(
        stage.count("GET /auth").await,
        0,
        "nobody was asked to sign in"
    );
    stage.signed_in(&[]).await.good();
    let file = stage.home.path(TOKENS);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    stage.home.run(&["token"]).await.says(1, "chmod 600");
    std::fs::write(&file, "{\"version\": 1, \"issuer\"").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    stage.home.run(&["token"]).await.says(1, "not a token file");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "{\"version\": 1, \"issuer\""
    );
}

#[tokio::test]
async fn two_shells_do_not_race_for_the_refresh_token() {
    let stage = Stage::start().await;
    stage.signed_in(&[]).await.good();
    // Both find the token too old; the one that comes second must use what the first got.
    let mut session = stage.session();
    session["tokens"]["expires_at"] = json!(1000);
    stage.home.write(TOKENS, &session.to_string());
    let (one, other) = tokio::join!(stage.home.run(&["token"]), stage.home.run(&["token"]));
    assert_eq!(one.good().stdout, other.good().stdout);
    assert_eq!(
        stage.count("POST /token").await,
        2,
        "one sign-in, one refresh"
    );
}

#[tokio::test]
async fn a_refresh_that_fails_is_told_and_loses_nothing() {
    let stage = Stage::start().await;
    stage.signed_in(&[]).await.good();
    let before = stage.session();
    let access = before["tokens"]["access_token"].as_str().unwrap();
    stage.control("answer", json!({ "mode": "error" })).await;
    // It is still good for a while.
    let old = stage
        .home
        .run(&["token", "--valid-for", "100000"])
        .await
        .good();
    assert_eq!(old.stdout.trim(), access);
    assert!(old.stderr.contains("not renewed"), "{old:?}");
    assert_eq!(stage.session(), before);
    let mut ended = before.clone();
    ended["tokens"]["expires_at"] = json!(1000);
    stage.home.write(TOKENS, &ended.to_string());
    stage
        .home
        .run(&["token"])
        .await
        .says(1, "could not be renewed");
    stage.control("answer", json!({ "mode": "ok" })).await;
    // Somebody else's ID token comes: what was rotated is saved, and nothing printed.
    stage
        .control("tamper", json!({ "claims": { "sub": "somebody-else" } }))
        .await;
    let foreign = stage.home.run(&["token"]).await;
    let foreign = foreign.says(1, "another user");
    assert_eq!(foreign.stdout, "");
    assert_ne!(
        stage.session()["tokens"]["refresh_token"],
        before["tokens"]["refresh_token"]
    );
    stage.control("tamper", json!({})).await;
    stage.home.run(&["token"]).await.good();
    // Used twice, a rotated refresh token ends the whole grant.
    stage.home.write(TOKENS, &ended.to_string());
    stage.home.run(&["token"]).await.says(1, "hawkgate login");
}

#[tokio::test]
async fn on_another_device_with_a_code() {
    let stage = Stage::start().await;
    let mut running = stage.home.start(&stage.login(&["--device"]));
    let line = running.hears("user_code=").await;
    let complete: Url = line.trim().parse().unwrap();
    let code = parameter(&complete, "user_code");
    running.hears("waiting for you").await;
    stage.control("approve", json!({ "userCode": code })).await;
    let ended = running.ended().await.good();
    assert!(ended.stdout.contains("signed in as user-1"), "{ended:?}");
    assert!(ended.stderr.contains(&code));
    stage.home.run(&["token"]).await.good();

    let mut running = stage.home.start(&stage.login(&["--device"]));
    let line = running.hears("user_code=").await;
    let code = parameter(&line.trim().parse().unwrap(), "user_code");
    stage
        .control("approve", json!({ "userCode": code, "abort": true }))
        .await;
    running.ended().await.says(1, "refused");
    stage
        .control("metadata", json!({ "device_authorization_endpoint": null }))
        .await;
    stage
        .home
        .run(&stage.login(&["--device"]))
        .await
        .says(1, "no device flow");
}

#[tokio::test]
async fn the_current_token_is_handed_out_at_a_socket() {
    let stage = Stage::start().await;
    stage.signed_in(&[]).await.good();
    let path: PathBuf = stage.home.path("t.sock");
    let mut running = stage
        .home
        .start(&["token", "--serve", path.to_str().unwrap()]);
    running.hears("until interrupted").await;
    assert_eq!(mode(&path), 0o600);
    let ask = async |target| {
        let mut client = Client::connect(&Address::Unix(path.clone())).await;
        client.request(&Request::get(target)).await.unwrap()
    };
    let access = stage.session()["tokens"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(ask("/token").await.text(), format!("{access}\n"));
    assert_eq!(
        ask("/header").await.text(),
        format!("Authorization: Bearer {access}\n")
    );
    // Signed out elsewhere: there is no token any more, and the socket says so.
    stage.home.run(&["logout"]).await.good();
    assert_eq!(ask("/token").await.status, 503);
    running.signal(rustix::process::Signal::INT);
    running.ended().await.good().silent_about(&[&access]);
    assert!(!path.exists());
}

#[tokio::test]
async fn signing_out_keeps_the_tokens_while_they_cannot_be_revoked() {
    let stage = Stage::start().await;
    stage.signed_in(&[]).await.good();
    let mut session = stage.session();
    session["revocation_endpoint"] = json!("http://127.0.0.1:9/revoke");
    stage.home.write(TOKENS, &session.to_string());
    stage.home.run(&["logout"]).await.says(1, "--local");
    assert!(stage.home.path(TOKENS).exists());
    let local = stage.home.run(&["logout", "--local"]).await.good();
    assert!(local.stdout.contains("live on"), "{local:?}");
    assert!(!stage.home.path(TOKENS).exists());
}
