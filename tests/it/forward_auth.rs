//! `[[forward_auth]]`: what proxies are told, and what they are not; then the real nginx, Envoy and Caddy
//! with the configurations of `docs/forward-auth.md`.

mod attacks;
mod proxies;
mod reports;

use hawkgate::clock::SystemClock;
use serde_json::{Value, json};

use crate::support::client::{Client, Request, Response};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::standard::Peers;
use crate::support::upstream::{FakeUpstream, Reply};

/// The peers of [`Peers`], an API with bearer tokens, and a gateway whose second listener is for a proxy.
struct Fixture {
    peers: Peers,
    api: FakeUpstream,
    gateway: TestGateway,
}

impl Fixture {
    /// For a proxy of this kind, which may get the credentials of the routes `login` and `own`, but not
    /// `static`.
    async fn start(kind: &str) -> Self {
        Self::start_with(kind, "listen = [\"127.0.0.1:0\"]").await
    }

    async fn start_with(kind: &str, keys: &str) -> Self {
        let peers = Peers::start().await;
        let api = FakeUpstream::http1(|_| Reply::new(200, "ok")).await;
        let files = ConfigDir::new();
        files.write("secret", peers.provider.0.part("client", "secret"));
        let text = format!(
            r#"{SERVER_CONFIG}
[log]
audit = true
{standard}
[[source]]
name = "own"
kind = "client-credentials"
token_url = "{token_url}"
client_id = "hawkgate-tests"
client_secret = {{ file = "secret" }}
resource = "urn:hawkgate:ES256"
inject = {{ header = "X-Api-Token", format = "{{token}}" }}
[[route]]
name = "own"
host = "own.test"
upstream = "{api}"
issuers = ["idp"]
source = "own"
passes_401 = ["/private"]
[[rule]]
name = "subject"
when = "true"
headers = {{ "x-auth-subject" = "claims.sub" }}
routes = ["login"]
[[forward_auth]]
name = "edge"
kind = "{kind}"
routes = ["login", "own"]
{keys}
"#,
            standard = peers.config(&["login", "static"]),
            token_url = peers.provider.token_url(),
            api = api.url(),
        );
        let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
        Self {
            peers,
            api,
            gateway,
        }
    }

    /// Sends a request to the listener for the proxy.
    async fn ask(&self, request: &Request) -> Response {
        let mut client = Client::connect(&self.gateway.running.listeners[1]).await;
        client.request(request).await.unwrap()
    }

    /// Sends `request` to the Taskcluster with the `Authorization` of `answer`, as the proxy would.
    async fn forward(&self, request: Request, answer: &Response) -> Response {
        let authorization = answer.header("authorization").unwrap();
        let mut request = request.header("Authorization", authorization);
        let (_, authority) = self.peers.taskcluster.url().split_once("://").unwrap();
        request.authority = authority.to_owned();
        let mut client = Client::connect(&self.peers.taskcluster.0.address()).await;
        client.request(&request).await.unwrap()
    }

    /// The lines of a log about this request. Other tests write to the same log.
    fn log_line(&self, target: &str, request_id: &str) -> Value {
        let log = self.gateway.log();
        let lines = log.lines().filter_map(|l| serde_json::from_str(l).ok());
        let mut lines: Vec<Value> = lines
            .filter(|line: &Value| line["target"] == target && line["request_id"] == request_id)
            .collect();
        assert_eq!(lines.len(), 1, "{target} {request_id}");
        lines.remove(0)
    }
}

/// What a proxy of this kind asks for a request of `token`'s bearer.
fn question(kind: &str, method: &str, host: &str, target: &str, token: &str) -> Request {
    let request = match kind {
        "nginx" => Request::get("/check")
            .header("X-Original-Method", method)
            .header("X-Original-URL", &format!("https://{host}{target}")),
        "envoy" => {
            let mut request = Request::new(method, &format!("/check{target}"));
            host.clone_into(&mut request.authority);
            request
        }
        _ => Request::get("/check")
            .header("X-Forwarded-Method", method)
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", host)
            .header("X-Forwarded-Uri", target),
    };
    request.bearer(token)
}

const KINDS: [&str; 4] = ["nginx", "traefik", "caddy", "envoy"];

#[tokio::test]
async fn the_answer_signs_the_original_request_and_no_other() {
    for kind in KINDS {
        let fixture = Fixture::start(kind).await;
        let token = fixture.peers.token("user|1").await;
        let target = "/api/queue/v1/a%2Fb//c?x=%20+&&";
        let asked = question(kind, "PUT", "LOGIN.test:8443", target, &token);
        let answer = fixture.ask(&asked).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        assert_eq!(answer.text(), "", "{kind}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-auth-subject"), Some("user|1"));
        let response = fixture.forward(Request::new("PUT", target), &answer).await;
        assert_eq!(response.status, 200, "{kind}: {}", response.text());
        let echo = response.json();
        assert_eq!(echo["clientId"], "mozilla-auth0/user|1");
        for other in [
            Request::new("POST", target),
            Request::new("PUT", "/api/queue/v1/a%2Fb//c?x=%20+&"),
        ] {
            assert_eq!(fixture.forward(other, &answer).await.status, 401, "{kind}");
        }
        // Every answer has a signature of its own.
        let again = fixture.ask(&asked).await;
        assert_ne!(
            again.header("authorization"),
            answer.header("authorization")
        );
        assert_eq!(fixture.peers.exchanges().await, 1);
    }
}

#[tokio::test]
async fn what_has_no_value_is_there_to_replace_the_clients() {
    for kind in KINDS {
        let fixture = Fixture::start(kind).await;
        let token = fixture.peers.token("user|1").await;
        let asked = question(kind, "GET", "own.test", "/v1/things", &token);
        let answer = fixture.ask(&asked).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let injected = answer.header("x-api-token").unwrap();
        assert!(injected.split('.').count() == 3 && injected != token);
        let removed = answer.header("x-envoy-auth-headers-to-remove");
        let absent = ["authorization", "x-auth-subject"];
        if kind == "envoy" {
            assert_eq!(removed, Some("authorization,x-auth-subject"));
            assert!(absent.iter().all(|name| answer.header(name).is_none()));
        } else {
            assert_eq!(removed, None);
            assert!(absent.iter().all(|name| answer.header(name) == Some("")));
        }
        // The 401s of this path are the upstream's own.
        assert!(answer.header("x-hawkgate-credential").is_some());
        let asked = question(kind, "GET", "own.test", "/private/x", &token);
        let answer = fixture.ask(&asked).await;
        assert_eq!(answer.header("x-hawkgate-credential"), None);
        assert!(fixture.api.attempts().is_empty());
    }
}

#[tokio::test]
async fn refusals_have_the_status_that_the_proxy_understands() {
    for kind in KINDS {
        let fixture = Fixture::start(kind).await;
        let token = fixture.peers.token("user|1").await;
        let on_nginx = |status| if kind == "nginx" { 403 } else { status };
        let ask = async |method, host, target, token| {
            let asked = question(kind, method, host, target, token);
            let answer = fixture.ask(&asked).await;
            assert_eq!(answer.header("authorization"), None, "{kind} {target}");
            assert_eq!(answer.header("x-hawkgate-credential"), None);
            let reason = answer.error_reason().unwrap_or_default().to_owned();
            (answer.status, reason)
        };
        let outcome = |status: u16, reason: &str| (status, reason.to_owned());
        assert_eq!(
            ask("GET", "login.test", "/api/x", "junk").await,
            outcome(401, "token_malformed"),
            "{kind}"
        );
        // A route of this gateway, but not for this proxy.
        for host in ["static.test", "elsewhere.test"] {
            assert_eq!(
                ask("GET", host, "/api/x", &token).await,
                outcome(on_nginx(404), "no_route"),
                "{kind}"
            );
        }
        assert_eq!(
            ask("GET", "login.test", "/api/x?bewit=abc", &token).await,
            outcome(403, "bewit_refused"),
            "{kind}"
        );
        fixture.peers.provider.down().await;
        let mut missing = question(kind, "GET", "login.test", "/api/x", "");
        missing.fields.retain(|(name, _)| name != "Authorization");
        let answer = fixture.ask(&missing).await;
        assert_eq!(
            answer.status_and_reason(),
            (401, Some("missing_token")),
            "{kind}"
        );
        assert!(answer.header("www-authenticate").is_some());
    }
}

#[tokio::test]
async fn an_exchange_that_is_down_is_unavailable_for_every_kind() {
    for kind in ["nginx", "envoy"] {
        let fixture = Fixture::start(kind).await;
        let token = fixture.peers.token("user|1").await;
        let arguments = json!({ "endpoint": "login", "mode": "error" });
        fixture.peers.taskcluster.control("fail", arguments).await;
        let asked = question(kind, "GET", "login.test", "/api/x", &token);
        let answer = fixture.ask(&asked).await;
        assert_eq!(
            answer.status_and_reason(),
            (503, Some("exchange_unavailable")),
            "{kind}"
        );
        assert!(answer.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn requests_are_counted_and_logged_as_what_was_asked_about() {
    let fixture = Fixture::start("nginx").await;
    let token = fixture.peers.token("user|1").await;
    let asked = question("nginx", "DELETE", "login.test", "/api/x?secret=1", &token)
        .header("X-Request-Id", "forward-auth-allowed");
    let answer = fixture.ask(&asked).await;
    let signature = answer.header("authorization").unwrap().to_owned();
    let refused = question("nginx", "GET", "login.test", "/api/y", "junk")
        .header("X-Request-Id", "forward-auth-refused");
    fixture.ask(&refused).await;
    for result in ["allowed", "unauthenticated"] {
        let labels = [("forward_auth", "edge"), ("result", result)];
        fixture
            .gateway
            .wait_for_metric("hawkgate_forward_auth_total", &labels, 1)
            .await;
    }
    for (id, method, path, outcome, decision) in [
        (
            "forward-auth-allowed",
            "DELETE",
            "/api/x",
            "served",
            "granted",
        ),
        (
            "forward-auth-refused",
            "GET",
            "/api/y",
            "rejected",
            "refused",
        ),
    ] {
        let access = fixture.log_line("access", id);
        assert_eq!(access["via"], "forward_auth");
        assert_eq!(access["outcome"], outcome);
        let audit = fixture.log_line("audit", id);
        assert_eq!(audit["event"], "forward_auth");
        assert_eq!(audit["decision"], decision);
        for line in [access, audit] {
            assert_eq!(line["forward_auth"], "edge");
            assert_eq!(
                (&line["method"], &line["path"]),
                (&json!(method), &json!(path))
            );
            assert_eq!(line["route"], "login");
        }
    }
    let audit = fixture.log_line("audit", "forward-auth-allowed");
    assert_eq!(audit["credential"], "mozilla-auth0/user|1");
    let log = fixture.gateway.log();
    let receipt = answer.header("x-hawkgate-credential").unwrap();
    let mac = signature.split("mac=\"").nth(1).unwrap();
    for secret in [receipt, mac.split('"').next().unwrap(), &token] {
        assert!(!log.contains(secret));
    }
}
