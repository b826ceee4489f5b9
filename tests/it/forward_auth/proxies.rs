//! The real proxies, with the configurations of `docs/forward-auth.md`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use hawkgate::proxy::settings::Address;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Fixture, question};
use crate::support::client::{Body, Client, Request, Response, connect};
use crate::support::peers::Taskcluster;
use crate::support::upstream::sha256;
use crate::support::wait::until;

/// The code block of the page that is in this language and contains `text`.
fn documented(language: &str, text: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/forward-auth.md");
    let page = std::fs::read_to_string(page).unwrap();
    let fence = format!("\n```{language}\n");
    let blocks = page.split(&fence).skip(1);
    let mut blocks = blocks.filter_map(|block| block.split("\n```").next());
    let found = blocks.find(|block| block.contains(text));
    found
        .unwrap_or_else(|| panic!("no {language} block with {text}"))
        .to_owned()
}

fn authority(taskcluster: &Taskcluster) -> &str {
    taskcluster.url().split_once("://").unwrap().1
}

/// A proxy; killed when dropped.
struct Proxy {
    callers: Address,
    _files: TempDir,
    _child: Child,
}

impl Proxy {
    /// Runs `command` and waits until it listens on `callers`.
    async fn start(files: TempDir, callers: Address, mut command: Command, name: &str) -> Self {
        let log = files.path().join("log");
        let mut child = command
            .current_dir(files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| {
                panic!("cannot run {name} ({e}): run `./test` once, which installs it")
            });
        until("the proxy to listen", async || {
            let exited = child.try_wait().unwrap();
            assert_eq!(exited, None, "{:?}", std::fs::read_to_string(&log));
            connect(&callers).await.is_ok()
        })
        .await;
        Self {
            callers,
            _files: files,
            _child: child,
        }
    }

    async fn send(&self, request: &Request) -> Response {
        let mut client = Client::connect(&self.callers).await;
        client.request(request).await.unwrap()
    }
}

/// A program that Debian installs outside of some users' PATH.
fn program(name: &str) -> PathBuf {
    let installed = Path::new("/usr/sbin").join(name);
    if installed.exists() {
        installed
    } else {
        name.into()
    }
}

async fn nginx(fixture: &Fixture) -> Proxy {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().display();
    let asked = fixture.gateway.running.listeners[1].to_string();
    let server = documented("nginx", "auth_request /_hawkgate")
        .replace("127.0.0.1:8081", &asked)
        .replace("https://tc.example.com", fixture.peers.taskcluster.url());
    // The upstream of the test has no TLS.
    let server: Vec<_> = server
        .lines()
        .filter(|l| !l.contains("proxy_ssl"))
        .collect();
    let server = server.join("\n");
    let text = format!(
        "daemon off;
master_process off;
pid {folder}/pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen unix:{folder}/callers;
        server_name login.test;
        {server}
    }}
}}
"
    );
    let config = files.path().join("nginx.conf");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(files.path()).arg("-e").arg("stderr");
    command.arg("-c").arg(config);
    let callers = Address::Unix(files.path().join("callers"));
    Proxy::start(files, callers, command, "nginx").await
}

async fn envoy(fixture: &Fixture) -> Proxy {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().display();
    let Address::Tcp(asked) = &fixture.gateway.running.listeners[1] else {
        panic!("not TCP")
    };
    let (host, port) = authority(&fixture.peers.taskcluster)
        .rsplit_once(':')
        .unwrap();
    let indent = |block: &str| {
        let filters = block.split_once("http_filters:\n").unwrap().1;
        let lines = filters.lines().map(|line| format!("            {line}\n"));
        lines.collect::<String>()
    };
    let filters = [
        indent(&documented("yaml", "filters.http.lua")),
        indent(&documented("yaml", "filters.http.ext_authz")),
    ]
    .concat();
    let filters = filters.replace("127.0.0.1:8081", &asked.to_string());
    let cluster = |name: &str, host: &str, port: &str| {
        format!(
            "  - name: {name}
    type: STATIC
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }}
"
        )
    };
    let text = format!(
        "static_resources:
  listeners:
  - name: callers
    address: {{ pipe: {{ path: {folder}/callers }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: callers
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: upstream, host_rewrite_literal: \"{host}:{port}\" }}
          http_filters:
{filters}
  clusters:
{}{}",
        cluster("hawkgate", &asked.ip().to_string(), &asked.port().to_string()),
        cluster("upstream", host, port),
    );
    let config = files.path().join("envoy.yaml");
    std::fs::write(&config, text).unwrap();
    let python = crate::grpc::python().await;
    let mut command = Command::new(python.with_file_name("envoy"));
    command.arg("-c").arg(config).args([
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
        "--log-level",
        "warning",
    ]);
    let callers = Address::Unix(files.path().join("callers"));
    Proxy::start(files, callers, command, "envoy").await
}

async fn caddy(fixture: &Fixture) -> Proxy {
    let files = tempfile::tempdir().unwrap();
    // Caddy cannot report the port that the system chooses, and removes X-Forwarded-Host on Unix sockets.
    // Nothing else binds ports of this address.
    let free = std::net::TcpListener::bind("127.83.7.1:0").unwrap();
    let callers = free.local_addr().unwrap();
    drop(free);
    let asked = fixture.gateway.running.listeners[1].to_string();
    let site = documented("caddyfile", "forward_auth")
        .replace("ci.example.com", &format!("http://:{}", callers.port()))
        .replacen('{', &format!("{{\n\tbind {}", callers.ip()), 1)
        .replace("127.0.0.1:8081", &asked)
        .replace("https://tc.example.com", fixture.peers.taskcluster.url());
    let text = format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}\n");
    let config = files.path().join("Caddyfile");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("caddy");
    command.arg("run").arg("--config").arg(config);
    command.args(["--adapter", "caddyfile"]);
    command.env("HOME", files.path());
    Proxy::start(files, Address::Tcp(callers), command, "caddy").await
}

/// A request of a client.
fn to(method: &str, target: &str, token: &str) -> Request {
    let mut request = Request::new(method, target).bearer(token);
    "login.test".clone_into(&mut request.authority);
    request
}

/// What every proxy must do, whatever it is.
async fn assert_serves(fixture: &Fixture, proxy: &Proxy, token: &str) {
    let body = vec![b'x'; 100_000];
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        for target in [
            "/api/queue/v1/task/x",
            "/api/a%2Fb?c=d%20e&&f=%C3%A4",
            "/api/a?",
        ] {
            let mut request = to(method, target, token);
            if method != "GET" {
                request = request.body(Body::Sized(body.clone().into()));
            }
            let response = proxy.send(&request).await;
            assert_eq!(
                response.status,
                200,
                "{method} {target}: {}",
                response.text()
            );
            let echo = response.json();
            assert_eq!(echo["url"], target);
            assert_eq!(echo["method"], method);
            assert_eq!(echo["clientId"], "mozilla-auth0/user|1");
            assert_eq!(echo["headers"]["x-auth-subject"], "user|1");
            if method != "GET" {
                assert_eq!(echo["body"]["sha256"], sha256(&body));
            }
            // Nothing of hawkgate's answer reaches the client.
            assert_eq!(response.header("authorization"), None);
            assert_eq!(response.header("x-hawkgate-credential"), None);
            assert_eq!(
                echo["headers"]["x-hawkgate-credential"],
                serde_json::Value::Null
            );
        }
    }
    // A client's own copies of what the upstream trusts do not survive.
    let forged = to("GET", "/api/x", token).header("X-Auth-Subject", "root");
    assert_eq!(
        proxy.send(&forged).await.json()["headers"]["x-auth-subject"],
        "user|1"
    );

    for (token, reason) in [("", None), ("junk", Some("junk"))] {
        let mut request = to("GET", "/api/x", token);
        if reason.is_none() {
            request.fields.clear();
        }
        let response = proxy.send(&request).await;
        assert_eq!(response.status, 401, "{reason:?}: {}", response.text());
        let challenge = response.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
    }
    assert_eq!(fixture.peers.exchanges().await, 1);
}

/// What clients send to be let in elsewhere, or to make proxy and hawkgate disagree. Whatever the
/// answer is, the upstream never saw such a request with credentials for another.
async fn assert_attacks_fail(fixture: &Fixture, proxy: &Proxy, token: &str) {
    let describing = [
        ("X-Original-URL", "https://login.test/api/other"),
        ("X-Original-Method", "DELETE"),
        ("X-Original-URI", "/api/other"),
        ("X-Forwarded-Uri", "/api/other"),
        ("X-Forwarded-Method", "DELETE"),
        ("X-Forwarded-Host", "static.test"),
        ("X-Envoy-Original-Path", "/api/other"),
        ("X-Hawkgate-Rejected", "junk"),
        ("X-Hawkgate-Credential", "junk"),
    ];
    let mut all = to("GET", "/api/x", token);
    for (name, value) in describing {
        let request = to("GET", "/api/x", token).header(name, value);
        let response = proxy.send(&request).await;
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        assert_eq!(response.json()["url"], "/api/x", "{name}");
        all = all.header(name, value);
    }
    assert_eq!(proxy.send(&all).await.status, 200);
    for target in [
        "/api/x#/public",
        "/api/../secret",
        "/api/%2e%2e/secret",
        "//api/x",
        "/api/x%2F..%2F..%2Fy",
        "/unauthorized",
        "/check",
        "/_hawkgate",
        "/api/x?bewit=abc",
    ] {
        let response = proxy.send(&to("GET", target, token)).await;
        // Caddy encodes the fragment's delimiter, so that it is part of the path, for everybody alike.
        let encoded = target.contains('#') && response.status == 200;
        if encoded {
            assert_eq!(response.json()["url"], target.replace('#', "%23"));
        } else {
            let text = response.text();
            assert!(response.status >= 400, "{target}: {text}");
        }
        assert_eq!(response.header("x-hawkgate-credential"), None, "{target}");
    }
    // Two credentials.
    let twice = to("GET", "/api/x", token).bearer("other");
    assert!(proxy.send(&twice).await.status >= 400);
    let other_host = Request {
        authority: "static.test".to_owned(),
        ..to("GET", "/api/x", token)
    };
    let response = proxy.send(&other_host).await;
    assert!(response.status >= 400, "{}", response.text());
    assert_eq!(fixture.peers.exchanges().await, 1);
}

#[tokio::test]
async fn nginx_with_auth_request() {
    let fixture = Fixture::start("nginx").await;
    let token = fixture.peers.token("user|1").await;
    let proxy = nginx(&fixture).await;
    assert_serves(&fixture, &proxy, &token).await;
    assert_attacks_fail(&fixture, &proxy, &token).await;

    // Revoked credentials: nginx asks again and repeats the request, with its body.
    fixture.peers.taskcluster.revoke().await;
    let body = vec![b'y'; 100_000];
    let post = to("POST", "/api/again", &token).body(Body::Sized(body.clone().into()));
    let response = proxy.send(&post).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let echo = response.json();
    assert_eq!(echo["body"]["sha256"], sha256(&body));
    assert_eq!(echo["url"], "/api/again");
    assert_eq!(echo["headers"]["x-auth-subject"], "user|1");
    assert_eq!(fixture.peers.exchanges().await, 2);
    let taskcluster = &fixture.peers.taskcluster;
    assert_eq!(taskcluster.count("POST", "/api/again", 401).await, 1);

    // Once only: then the client gets the 401.
    taskcluster.revoke().await;
    let response = proxy.send(&to("GET", "/api/twice", &token)).await;
    assert_eq!(response.status, 401);
    assert_eq!(taskcluster.count("GET", "/api/twice", 401).await, 2);
    assert_eq!(fixture.peers.exchanges().await, 2);

    // hawkgate refuses, or is gone.
    let narrowed = question("nginx", "GET", "login.test", "/api/x", &token);
    assert_eq!(fixture.ask(&narrowed).await.status, 200);
    fixture.gateway.running.abort();
    until("nginx to find hawkgate gone", async || {
        proxy.send(&to("GET", "/api/x", &token)).await.status == 500
    })
    .await;
}

#[tokio::test]
async fn envoy_with_ext_authz() {
    let fixture = Fixture::start("envoy").await;
    let token = fixture.peers.token("user|1").await;
    let proxy = envoy(&fixture).await;
    assert_serves(&fixture, &proxy, &token).await;
    assert_attacks_fail(&fixture, &proxy, &token).await;

    // Revoked credentials: Envoy passes the 401 on and reports it, and the next request succeeds.
    fixture.peers.taskcluster.revoke().await;
    let rejected = proxy.send(&to("GET", "/api/again", &token)).await;
    assert_eq!(rejected.status, 401);
    let labels = [("result", "reported")];
    let name = "hawkgate_forward_auth_total";
    fixture.gateway.wait_for_metric(name, &labels, 1).await;
    let accepted = proxy.send(&to("GET", "/api/again", &token)).await;
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    assert_eq!(fixture.peers.exchanges().await, 2);

    fixture.gateway.running.abort();
    until("Envoy to find hawkgate gone", async || {
        proxy.send(&to("GET", "/api/x", &token)).await.status == 503
    })
    .await;
}

#[tokio::test]
async fn caddy_with_forward_auth() {
    let fixture = Fixture::start("caddy").await;
    let token = fixture.peers.token("user|1").await;
    let proxy = caddy(&fixture).await;
    assert_serves(&fixture, &proxy, &token).await;
    assert_attacks_fail(&fixture, &proxy, &token).await;
}
