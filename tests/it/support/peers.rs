//! Programs in Node that the tests run against: `tests/peers/*.js`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use hawkgate::proxy::settings::Address;
use serde_json::{Value, json};

use super::client::{Client, Request};
use super::secrets::Secrets;

const SET_UP: &str = "run `./test` once, or install Node 20 or newer (Debian: apt-get install nodejs npm) and run `npm ci` in tests/peers";

/// A running peer; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    /// Held open: the peer ends when it closes.
    _stdin: ChildStdin,
    facts: Value,
    stderr: Arc<Mutex<String>>,
}

impl Peer {
    /// Starts `tests/peers/<program>` and waits until it says that it is ready.
    pub(crate) async fn start(program: &str, options: &Value) -> Self {
        let (program, options) = (program.to_owned(), options.to_string());
        let spawned = tokio::task::spawn_blocking(move || Self::spawn(&program, &options));
        spawned.await.unwrap()
    }

    fn spawn(program: &str, options: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        assert!(
            directory.join("node_modules/hawk").is_dir(),
            "the peers' packages are missing: {SET_UP}"
        );
        let mut child = Command::new("node")
            .arg(directory.join(program))
            .arg(options)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("node cannot be run ({e}): {SET_UP}"));
        let stderr = Arc::new(Mutex::new(String::new()));
        let (pipe, kept) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let stdin = child.stdin.take().unwrap();
        let mut peer = Self {
            child,
            _stdin: stdin,
            facts: Value::Null,
            stderr,
        };
        let mut line = String::new();
        let mut stdout = BufReader::new(peer.child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        peer.facts = serde_json::from_str(&line).unwrap_or_else(|_| {
            let _ = peer.child.wait();
            panic!("{program} did not start:\n{}", peer.stderr())
        });
        peer
    }

    /// What it said when it was ready.
    pub(crate) fn fact(&self, name: &str) -> &str {
        let value = self.facts[name].as_str();
        value.unwrap_or_else(|| panic!("no fact {name} in {}", self.facts))
    }

    /// A part of a fact: `("client", "secret")`.
    pub(crate) fn part(&self, name: &str, part: &str) -> &str {
        let value = self.facts[name][part].as_str();
        value.unwrap_or_else(|| panic!("no fact {name}.{part} in {}", self.facts))
    }

    /// The port that it serves at.
    pub(crate) fn port(&self) -> u16 {
        self.number("port")
    }

    fn number(&self, name: &str) -> u16 {
        let number = self.facts[name]
            .as_u64()
            .and_then(|n| u16::try_from(n).ok());
        number.unwrap_or_else(|| panic!("no port {name} in {}", self.facts))
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> Address {
        Address::Tcp(SocketAddr::from(([127, 0, 0, 1], self.port())))
    }

    /// What it wrote to its standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Gives a command to its control server; see the program's own comments.
    pub(crate) async fn control(&self, command: &str, arguments: Value) -> Value {
        let address = SocketAddr::from(([127, 0, 0, 1], self.number("control")));
        let mut client = Client::connect(&Address::Tcp(address)).await;
        let request = Request::post(&format!("/{command}"), arguments.to_string());
        let response = client.request(&request).await;
        let response = response.unwrap_or_else(|e| panic!("{command}: {e}\n{}", self.stderr()));
        assert_eq!(response.status, 200, "{command}: {}", response.text());
        response.json()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The certified OpenID provider.
pub(crate) struct OidcProvider(pub(crate) Peer);

impl OidcProvider {
    pub(crate) async fn start(options: Value) -> Self {
        Self(Peer::start("oidc-provider.js", &options).await)
    }

    /// Its `iss`.
    pub(crate) fn issuer(&self) -> &str {
        self.0.fact("issuer")
    }

    /// Its key set's URL.
    pub(crate) fn jwks(&self) -> &str {
        self.0.fact("jwks")
    }

    /// A token from its token endpoint. `wanted`: `alg` (RS256, PS256, ES256, EdDSA),
    /// `sub` (without: the client's own), `scope`, `audience`, `typ`, `claims`.
    pub(crate) async fn token(&self, wanted: Value) -> String {
        let answer = self.0.control("token", wanted).await;
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// A user's token for `audience` with the scopes that the legacy endpoint wants.
    pub(crate) async fn user_token(&self, alg: &str, sub: &str, audience: &str) -> String {
        let scope = "read taskcluster-credentials";
        self.token(json!({ "alg": alg, "sub": sub, "audience": audience, "scope": scope }))
            .await
    }

    /// New keys; the old ones are gone from the key set.
    pub(crate) async fn rotate(&self) {
        self.0.control("rotate", json!({})).await;
    }

    /// Refuses connections.
    pub(crate) async fn down(&self) {
        self.0.control("down", json!({})).await;
    }

    pub(crate) async fn up(&self) {
        self.0.control("up", json!({})).await;
    }

    /// How the key set is served: ok, error, garbage, huge, redirect, slow; with `all-`
    /// before it, discovery too.
    pub(crate) async fn mode(&self, mode: &str) {
        self.0.control("mode", json!({ "mode": mode })).await;
    }

    /// Its token endpoint.
    pub(crate) fn token_url(&self) -> String {
        format!("{}/token", self.issuer().trim_end_matches('/'))
    }

    /// Its introspection endpoint.
    pub(crate) fn introspection_url(&self) -> String {
        format!("{}/introspection", self.token_url())
    }

    /// Opaque tokens that it gave out so far are no good any more.
    pub(crate) async fn revoke(&self) {
        self.0.control("revoke", json!({})).await;
    }

    /// How often an endpoint was asked: token, introspection.
    pub(crate) async fn asked(&self, endpoint: &str) -> u64 {
        let counts = self.0.control("counts", json!({})).await;
        counts[endpoint].as_u64().unwrap_or(0)
    }

    /// How often its key set was asked for.
    pub(crate) async fn key_fetches(&self) -> u64 {
        let counts = self.0.control("counts", json!({})).await;
        counts["jwks"].as_u64().unwrap_or(0)
    }
}

/// The Taskcluster-style deployment.
pub(crate) struct Taskcluster(pub(crate) Peer);

impl Taskcluster {
    pub(crate) async fn start(options: Value) -> Self {
        Self(Peer::start("taskcluster.js", &options).await)
    }

    /// Its root URL.
    pub(crate) fn url(&self) -> &str {
        self.0.fact("url")
    }

    pub(crate) async fn control(&self, command: &str, arguments: Value) -> Value {
        self.0.control(command, arguments).await
    }

    /// Everything that it gave out so far is no good any more.
    pub(crate) async fn revoke(&self) {
        self.control("revoke", json!({})).await;
    }

    /// How many requests it answered: `("GET", "/path", 200)`.
    pub(crate) async fn count(&self, method: &str, path: &str, status: u16) -> u64 {
        let counts = self.control("counts", json!({})).await;
        counts[format!("{method} {path} {status}")]
            .as_u64()
            .unwrap_or(0)
    }

    /// An opaque token of its own, with the client that it stands for.
    pub(crate) async fn oauth_token(&self, arguments: Value) -> (String, String) {
        let answer = self.control("oauthToken", arguments).await;
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (text("token"), text("clientId"))
    }

    /// Puts every credential that it gave out into `secrets`.
    pub(crate) async fn confess(&self, secrets: &Secrets) {
        let answer = self.control("minted", json!({})).await;
        for credentials in answer["minted"].as_array().unwrap() {
            secrets.credentials(credentials);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::client::Body;

    #[tokio::test]
    async fn the_provider_issues_each_algorithm_and_rotates() {
        let provider = OidcProvider::start(json!({ "trailingSlash": true })).await;
        assert!(provider.issuer().ends_with('/'));
        for alg in ["RS256", "PS256", "ES256", "EdDSA"] {
            let token = provider.user_token(alg, "user|1", "api").await;
            let header = jsonwebtoken::decode_header(&token).unwrap();
            assert_eq!(format!("{:?}", header.alg), alg);
        }
        let before = keys(&provider).await;
        provider.rotate().await;
        assert_ne!(before, keys(&provider).await);
        assert_eq!(provider.key_fetches().await, 2);
        provider.down().await;
        assert!(
            crate::support::client::connect(&provider.0.address())
                .await
                .is_err()
        );
        provider.up().await;
        provider.mode("garbage").await;
        assert!(keys(&provider).await.contains("not a key set"));
    }

    async fn keys(provider: &OidcProvider) -> String {
        let mut client = Client::connect(&provider.0.address()).await;
        let response = client.request(&Request::get("/jwks")).await.unwrap();
        response.text()
    }

    #[tokio::test]
    async fn taskcluster_swaps_a_token_but_lets_nobody_in_unsigned() {
        let provider = OidcProvider::start(json!({})).await;
        let login = json!({ "issuer": provider.issuer(), "jwks": provider.jwks(), "audience": "login.taskcluster.net" });
        let taskcluster = Taskcluster::start(json!({ "login": login })).await;
        let mut client = Client::connect(&taskcluster.0.address()).await;

        let token = provider
            .user_token("RS256", "user|1", "login.taskcluster.net")
            .await;
        let target = "/api/login/v1/oidc-credentials/mozilla-auth0";
        let swap = Request::get(target).bearer(&token);
        let response = client.request(&swap).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(
            response.json()["credentials"]["clientId"],
            "mozilla-auth0/user|1"
        );
        let bad = Request::get(target).bearer("nonsense");
        assert_eq!(client.request(&bad).await.unwrap().status, 400);

        let unsigned = Request::get("/api/queue/v1/x");
        assert_eq!(client.request(&unsigned).await.unwrap().status, 403);
        let bearer = Request::new("POST", "/api/queue/v1/x")
            .bearer(&token)
            .body(Body::Chunked("{}".into(), 1));
        let response = client.request(&bearer).await.unwrap();
        assert_eq!(response.status, 401);
        assert_eq!(response.header("www-authenticate"), Some("hawk"));
        assert_eq!(taskcluster.count("POST", "/api/queue/v1/x", 401).await, 1);

        let secrets = Secrets::default();
        taskcluster.confess(&secrets).await;
        assert!(!secrets.is_empty());
    }
}
