//! Peers in Node that the tests run against: `tests/peers/*.js`.

use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use hawkgate::proxy::settings::Address;
use serde_json::{Value, json};

use super::client::{Client, Request};
use super::secrets::Secrets;

const SET_UP: &str = "run `./test` once, or install Node 20 or newer (Debian: apt-get install nodejs npm) and run `npm ci` in tests/peers";

/// The one Node process of this test binary, `tests/peers/host.js`. It exits when its standard
/// input closes, that is with this process.
struct Host {
    control: Address,
    stderr: Arc<Mutex<String>>,
    _child: Child,
}

static HOST: LazyLock<Host> = LazyLock::new(Host::spawn);

impl Host {
    fn spawn() -> Self {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        assert!(
            directory.join("node_modules/hawk").is_dir(),
            "the packages of tests/peers are not installed: {SET_UP}"
        );
        let mut child = Command::new("node")
            .arg(directory.join("host.js"))
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run node ({e}): {SET_UP}"));
        let stderr = Arc::new(Mutex::new(String::new()));
        let (pipe, lines) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut lines = lines.lock().unwrap();
                lines.push_str(&line);
                lines.push('\n');
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let facts: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            child.wait().unwrap();
            panic!("host.js did not start:\n{}", stderr.lock().unwrap())
        });
        Self {
            control: loopback(port(&facts, "control")),
            stderr,
            _child: child,
        }
    }

    /// Posts JSON to a control server; returns the JSON that it responds with.
    async fn post(&self, control: &Address, command: &str, arguments: &Value) -> Value {
        let mut client = Client::connect(control).await;
        let request = Request::post(&format!("/{command}"), arguments.to_string());
        let response = client.request(&request).await;
        let response = response.unwrap_or_else(|e| {
            panic!("{command}: {e}\n{}", self.stderr.lock().unwrap());
        });
        assert_eq!(response.status, 200, "{command}: {}", response.text());
        response.json()
    }
}

fn loopback(port: u16) -> Address {
    Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn port(facts: &Value, name: &str) -> u16 {
    let number = facts[name].as_u64().and_then(|n| u16::try_from(n).ok());
    number.unwrap_or_else(|| panic!("no port {name} in {facts}"))
}

/// An instance of a peer, with its own state and ports; stopped when dropped.
pub(crate) struct Peer {
    facts: Value,
}

impl Peer {
    /// Starts an instance of `tests/peers/<program>.js`.
    pub(crate) async fn start(program: &str, options: &Value) -> Self {
        // The first peer spawns the process, which blocks.
        let host = tokio::task::spawn_blocking(|| &*HOST).await.unwrap();
        let arguments = json!({ "program": program, "options": options });
        let facts = host.post(&host.control, "start", &arguments).await;
        Self { facts }
    }

    /// A fact that the instance returned when it started.
    pub(crate) fn fact(&self, name: &str) -> &str {
        let value = self.facts[name].as_str();
        value.unwrap_or_else(|| panic!("no fact {name} in {}", self.facts))
    }

    /// A part of a fact: `("client", "secret")`.
    pub(crate) fn part(&self, name: &str, part: &str) -> &str {
        let value = self.facts[name][part].as_str();
        value.unwrap_or_else(|| panic!("no fact {name}.{part} in {}", self.facts))
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> Address {
        loopback(port(&self.facts, "port"))
    }

    /// Sends a command to its control server; the program's comments list the commands.
    pub(crate) async fn control(&self, command: &str, arguments: Value) -> Value {
        let control = loopback(port(&self.facts, "control"));
        HOST.post(&control, command, &arguments).await
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let Address::Tcp(control) = HOST.control else {
            return;
        };
        // Best effort: everything stops with the process anyway.
        if let Ok(mut stream) = std::net::TcpStream::connect(control) {
            let id = &self.facts["id"];
            let _ = write!(stream, "DELETE /{id} HTTP/1.1\r\nHost: host\r\n\r\n");
        }
    }
}

/// An instance of the OpenID-certified `oidc-provider`.
pub(crate) struct OidcProvider(pub(crate) Peer);

impl OidcProvider {
    pub(crate) async fn start(options: Value) -> Self {
        Self(Peer::start("oidc-provider", &options).await)
    }

    /// Its `iss`.
    pub(crate) fn issuer(&self) -> &str {
        self.0.fact("issuer")
    }

    /// Its key set's URL.
    pub(crate) fn jwks(&self) -> &str {
        self.0.fact("jwks")
    }

    /// A token from its token endpoint. Parameters: `alg` (RS256, PS256, ES256, EdDSA, opaque),
    /// `sub` (without it, a client-credentials token), `scope`, `audience`, `typ`, `claims`.
    pub(crate) async fn token(&self, parameters: Value) -> String {
        let response = self.0.control("token", parameters).await;
        response["access_token"].as_str().unwrap().to_owned()
    }

    /// A user's token for `audience` with the scopes that the oidcCredentials endpoint requires.
    pub(crate) async fn user_token(&self, alg: &str, sub: &str, audience: &str) -> String {
        let scope = "read taskcluster-credentials";
        self.token(json!({ "alg": alg, "sub": sub, "audience": audience, "scope": scope }))
            .await
    }

    /// Generates new keys; the old ones leave the key set.
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

    /// How the key set is served: ok, error, garbage, huge, redirect, slow; with the prefix `all-`,
    /// discovery too.
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

    /// Revokes all opaque tokens issued so far.
    pub(crate) async fn revoke(&self) {
        self.0.control("revoke", json!({})).await;
    }

    /// Requests to an endpoint so far: `token`, `introspection`.
    pub(crate) async fn request_count(&self, endpoint: &str) -> u64 {
        let counts = self.0.control("counts", json!({})).await;
        counts[endpoint].as_u64().unwrap_or(0)
    }

    /// Fetches of its key set so far.
    pub(crate) async fn key_fetches(&self) -> u64 {
        let counts = self.0.control("counts", json!({})).await;
        counts["jwks"].as_u64().unwrap_or(0)
    }
}

/// An imitation of a Taskcluster deployment that verifies Hawk.
pub(crate) struct Taskcluster(pub(crate) Peer);

impl Taskcluster {
    pub(crate) async fn start(options: Value) -> Self {
        Self(Peer::start("taskcluster", &options).await)
    }

    /// Its root URL.
    pub(crate) fn url(&self) -> &str {
        self.0.fact("url")
    }

    pub(crate) async fn control(&self, command: &str, arguments: Value) -> Value {
        self.0.control(command, arguments).await
    }

    /// Revokes all credentials issued so far.
    pub(crate) async fn revoke(&self) {
        self.control("revoke", json!({})).await;
    }

    /// How many requests with this method and path were answered with `status`.
    pub(crate) async fn count(&self, method: &str, path: &str, status: u16) -> u64 {
        let counts = self.control("counts", json!({})).await;
        counts[format!("{method} {path} {status}")]
            .as_u64()
            .unwrap_or(0)
    }

    /// An opaque access token, and its clientId.
    pub(crate) async fn oauth_token(&self, arguments: Value) -> (String, String) {
        let response = self.control("oauthToken", arguments).await;
        let text = |name: &str| response[name].as_str().unwrap().to_owned();
        (text("token"), text("clientId"))
    }

    /// Adds every credential issued so far to `secrets`.
    pub(crate) async fn collect_secrets(&self, secrets: &Secrets) {
        let response = self.control("minted", json!({})).await;
        for credentials in response["minted"].as_array().unwrap() {
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
    async fn taskcluster_exchanges_a_token_and_refuses_unsigned_requests() {
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
        taskcluster.collect_secrets(&secrets).await;
        assert!(!secrets.is_empty());
    }
}
