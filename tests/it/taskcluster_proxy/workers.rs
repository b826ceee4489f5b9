//! What generic-worker (`workers/generic-worker/tcproxy/tcproxy.go` and `taskcluster_proxy_feature.go`,
//! v106) and docker-worker (`workers/docker-worker/src/features/taskcluster_proxy.js`, v99) do with
//! their taskcluster-proxy, step by step, with a link to hawkgate in its place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use hawkgate::clock::SystemClock;
use hawkgate::hawk::certificate::Mint;
use hawkgate::proxy::settings::Address;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Body, Client, Request, Response, connect};
use crate::support::gateway::ROOT_KEY;
use crate::support::peers::Taskcluster;
use crate::support::program::{Exited, Server};
use crate::support::secrets::Secrets;
use crate::support::upstream::{FakeUpstream, Reply};
use crate::support::wait::until;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The credentials of one claim of a task.
struct Claim {
    client_id: String,
    access_token: String,
    certificate: String,
}

impl Claim {
    /// Temporary credentials, as the queue issues them.
    fn new(client_id: &str) -> Self {
        let now = SystemClock::shared().now();
        let hour = Duration::from_hours(1);
        let minted = Mint {
            issuer: "root",
            issuer_token: &ROOT_KEY.into(),
            client_id,
            scopes: &["test:*", "queue:create-artifact:*"].map(str::to_owned),
            start: now.minus(hour),
            expiry: now.plus(hour),
        }
        .sign()
        .unwrap();
        Self {
            client_id: minted.client_id,
            access_token: minted.access_token.expose().to_owned(),
            certificate: minted.certificate.unwrap().as_json().to_owned(),
        }
    }

    fn json(&self) -> String {
        json!({
            "accessToken": self.access_token,
            "certificate": self.certificate,
            "clientId": self.client_id,
        })
        .to_string()
    }

    fn secrets(&self) -> Secrets {
        let secrets = Secrets::default();
        secrets.add("the access token", &self.access_token);
        secrets
    }
}

/// The link, in a directory of its own.
struct Link(TempDir);

impl Link {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_hawkgate");
        symlink(program, dir.path().join("taskcluster-proxy")).unwrap();
        Self(dir)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.0.path().join("taskcluster-proxy"));
        for name in ["ROOT_URL", "CLIENT_ID", "ACCESS_TOKEN", "CERTIFICATE"] {
            command.env_remove(format!("TASKCLUSTER_{name}"));
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Exited {
        Exited::run(self.command().args(arguments))
    }
}

/// A running proxy.
struct Proxy(Server);

impl Proxy {
    /// Starts it as generic-worker does.
    fn of_generic_worker(
        link: &Link,
        (ip_address, port): (IpAddr, u16),
        root_url: &str,
        claim: &Claim,
        access: &[&str],
    ) -> Self {
        let mut command = link.command();
        command
            .args(["--port", &port.to_string(), "--root-url", root_url])
            .args(["--ip-address", &ip_address.to_string()])
            .args(access)
            .args(["test:x", "queue:create-artifact:KTBKfEgxR5GdfIIREQIvFQ/0"])
            .env("TASKCLUSTER_CLIENT_ID", &claim.client_id)
            .env("TASKCLUSTER_ACCESS_TOKEN", &claim.access_token)
            .env("TASKCLUSTER_CERTIFICATE", &claim.certificate);
        Self(Server::spawn(&mut command))
    }

    /// Ends it as generic-worker does.
    fn kill(&mut self) {
        self.0.child.kill().unwrap();
        let status = self.0.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
    }
}

/// As generic-worker's tests and its allocation of ports do.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn at(ip: IpAddr, port: u16) -> Address {
    Address::Tcp(SocketAddr::new(ip, port))
}

/// `waitForPortToBeActive`: connects until that succeeds, and closes the connection.
async fn wait_for_port(ip: IpAddr, port: u16) {
    until("the port to be active", async || {
        connect(&at(ip, port)).await.is_ok()
    })
    .await;
}

/// Sends a request as a program does that was given `http://<ip>:<port>`.
async fn send(ip: IpAddr, port: u16, mut request: Request) -> Response {
    request.authority = SocketAddr::new(ip, port).to_string();
    let mut client = Client::connect(&at(ip, port)).await;
    client.request(&request).await.unwrap()
}

async fn get(ip: IpAddr, port: u16, target: &str) -> Response {
    send(ip, port, Request::get(target)).await
}

/// What a worker does when the task was reclaimed.
async fn put(ip: IpAddr, port: u16, body: &str) -> Response {
    let body = Body::Sized(body.to_owned().into());
    let request = Request::new("PUT", "/credentials").body(body);
    send(ip, port, request.header("Content-Type", "text/json")).await
}

/// An address of this machine that is not loopback, as a bridge's is. Nothing is sent.
fn bridge_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// A deployment whose client `root` issues the credentials of tasks.
async fn deployment() -> Taskcluster {
    let scopes = ["test:*", "queue:create-artifact:*", "auth:create-client:*"];
    let root = json!({ "accessToken": ROOT_KEY, "scopes": scopes });
    Taskcluster::start(json!({ "clients": { "root": root } })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generic_worker_starts_uses_updates_and_kills_its_proxies() {
    let (taskcluster, link) = (deployment().await, Link::new());
    let claims = ["task-client/a", "task-client/b"].map(Claim::new);
    let ports = [free_port(), free_port()];
    // Side by side, because capacity may be more than one.
    let mut proxies: Vec<_> = claims
        .iter()
        .zip(ports)
        .map(|(claim, port)| {
            Proxy::of_generic_worker(&link, (LOOPBACK, port), taskcluster.url(), claim, &[])
        })
        .collect();
    for (claim, port) in claims.iter().zip(ports) {
        wait_for_port(LOOPBACK, port).await;
        for target in ["/queue/v1/task/x%2Fy", "/api/queue/v1/task/x%2Fy"] {
            let response = get(LOOPBACK, port, target).await;
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.json()["clientId"], claim.client_id);
            assert_eq!(response.json()["url"], "/api/queue/v1/task/x%2Fy");
            let scopes = "[\"test:x\",\"queue:create-artifact:KTBKfEgxR5GdfIIREQIvFQ/0\"]";
            let header = "x-taskcluster-authorized-scopes";
            assert_eq!(response.header(header), Some(scopes));
        }
    }
    // Reclaimed: only this task's proxy gets the new credentials, and uses them at once.
    let reclaimed = Claim::new("task-client/a2");
    let response = put(LOOPBACK, ports[0], &reclaimed.json()).await;
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    for (port, client) in ports.into_iter().zip(["task-client/a2", "task-client/b"]) {
        let response = get(LOOPBACK, port, "/queue/v1/ping").await;
        assert_eq!(response.json()["clientId"], client);
    }
    for (body, status) in [("", 400), ("{\"badJS0n!", 400), ("{}", 400)] {
        assert_eq!(put(LOOPBACK, ports[0], body).await.status, status, "{body}");
    }
    let posted = send(
        LOOPBACK,
        ports[0],
        Request::post("/credentials", reclaimed.json()),
    )
    .await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("PUT")));
    let client = get(LOOPBACK, ports[0], "/queue/v1/ping").await;
    assert_eq!(client.json()["clientId"], "task-client/a2");
    // Resolved: the proxy is killed, and another can have its port.
    proxies[0].kill();
    let log = proxies[0].0.stderr.finish().join("\n");
    for claim in [&claims[0], &reclaimed] {
        claim.secrets().assert_absent("the log", &log);
    }
    let again = (LOOPBACK, ports[0]);
    proxies[0] = Proxy::of_generic_worker(&link, again, taskcluster.url(), &claims[1], &[]);
    wait_for_port(LOOPBACK, ports[0]).await;
    let response = get(LOOPBACK, ports[0], "/queue/v1/ping").await;
    assert_eq!(response.json()["clientId"], "task-client/b");
    // An orderly end.
    let pid = i32::try_from(proxies[1].0.child.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(proxies[1].0.child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_on_a_bridge_are_served_and_the_worker_uses_loopback() {
    let Some(bridge) = bridge_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let (taskcluster, link) = (deployment().await, Link::new());
    let claim = Claim::new("task-client/a");
    let network = format!("{bridge}/24");
    let own = rustix::process::geteuid().as_raw().to_string();
    let port = free_port();
    let access = ["--allowed-user", &own, "--allowed-network", &network];
    let address = (bridge, port);
    let _proxy = Proxy::of_generic_worker(&link, address, taskcluster.url(), &claim, &access);
    wait_for_port(LOOPBACK, port).await;
    let response = get(bridge, port, "/queue/v1/ping").await;
    assert_eq!(response.json()["clientId"], "task-client/a");
    // `--add-host=taskcluster:<gateway>`
    let mut named = Request::get("/queue/v1/ping");
    named.authority = "taskcluster".into();
    let mut client = Client::connect(&at(bridge, port)).await;
    assert_eq!(client.request(&named).await.unwrap().status, 200);
    named.authority = "evil.example".into();
    let refused = client.request(&named).await.unwrap();
    assert_eq!(refused.error_reason(), Some("host_not_allowed"));
    let reclaimed = Claim::new("task-client/a2");
    assert_eq!(put(LOOPBACK, port, &reclaimed.json()).await.status, 200);
    let response = get(bridge, port, "/queue/v1/ping").await;
    assert_eq!(response.json()["clientId"], "task-client/a2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_outside_the_network_and_other_users_are_refused() {
    let Some(bridge) = bridge_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let (taskcluster, link) = (deployment().await, Link::new());
    let claim = Claim::new("task-client/a");
    let own_network = format!("{bridge}/32");
    for access in [
        &["--allowed-network", "198.51.100.0/24"][..],
        // Root is always allowed, so this tells something to other users only.
        &[
            "--allowed-network",
            &own_network,
            "--allowed-user",
            "4000000000",
        ],
    ] {
        let port = free_port();
        let address = (bridge, port);
        let mut proxy = Proxy::of_generic_worker(&link, address, taskcluster.url(), &claim, access);
        proxy.0.stderr.wait_for("listening for callers");
        if access.len() > 2 && rustix::process::geteuid().is_root() {
            continue;
        }
        let mut client = Client::connect(&at(bridge, port)).await;
        let response = client.response("GET").await.unwrap();
        let refused = (403, Some("peer_not_allowed"));
        assert_eq!(response.status_and_reason(), refused, "{access:?}");
    }
    // Without a network, only loopback.
    let without = link.run(&[
        "--ip-address",
        &bridge.to_string(),
        "--client-id=c",
        "--access-token=k",
        "--root-url=https://tc.example.com",
    ]);
    assert_eq!(without.code, 1, "{}", without.stderr);
    assert!(
        without.stderr.contains("--allowed-network"),
        "{}",
        without.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_worker_starts_and_updates_its_proxy() {
    let (taskcluster, link) = (deployment().await, Link::new());
    let claim = Claim::new("task-client/a");
    let port = free_port();
    let mut command = link.command();
    // The image's entry point has the port, and here the network.
    command.args(["--port", &port.to_string()]);
    let bridge = bridge_address();
    if let Some(bridge) = bridge {
        command.args(["--allowed-network", &format!("{bridge}/24")]);
    }
    command
        .arg(format!("--client-id={}", claim.client_id))
        .arg(format!("--access-token={}", claim.access_token))
        .arg(format!("--certificate={}", claim.certificate))
        .arg(format!("--root-url={}", taskcluster.url()))
        .args(["test:x", "queue:create-artifact:KTBKfEgxR5GdfIIREQIvFQ/0"]);
    let mut proxy = Proxy(Server::spawn(&mut command));
    let ip = bridge.unwrap_or(LOOPBACK);
    wait_for_port(ip, port).await;
    // Under the same process id, and without the secrets that other users could read.
    let arguments = std::fs::read(format!("/proc/{}/cmdline", proxy.0.child.id())).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    assert!(arguments.contains("--moved-secrets"), "{arguments}");
    claim.secrets().assert_absent("the arguments", &arguments);
    let warning = proxy.0.stderr.wait_for("--access-token");
    assert!(warning.contains("TASKCLUSTER_ACCESS_TOKEN"), "{warning}");
    let response = send(
        ip,
        port,
        Request::post("/queue/v1/task/x/runs/0/artifacts/c", "{}"),
    )
    .await;
    assert_eq!(response.json()["clientId"], "task-client/a");
    let reclaimed = Claim::new("task-client/a2");
    assert_eq!(put(ip, port, &reclaimed.json()).await.status, 200);
    let response = get(ip, port, "/queue/v1/ping").await;
    assert_eq!(response.json()["clientId"], "task-client/a2");
    proxy.kill();
    let log = proxy.0.stderr.finish().join("\n");
    claim.secrets().assert_absent("the log", &log);
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_api_and_the_known_pages_are_served() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let (link, port) = (Link::new(), free_port());
    let claim = Claim::new("task-client/a");
    let proxy = Proxy::of_generic_worker(&link, (LOOPBACK, port), &upstream.url(), &claim, &[]);
    wait_for_port(LOOPBACK, port).await;
    for target in [
        "/",
        "/favicon.ico",
        "/tasks/x",
        "/graphql",
        "/login/oauth/credentials",
        "/schemas/queue/v1/x.json",
        "/references/queue/v1/api.json",
        "/queue/latest/x",
        "/queue.example.com/v1/x",
        "/apix/queue/v1/x",
    ] {
        let response = get(LOOPBACK, port, target).await;
        let refused = (404, Some("no_route"));
        assert_eq!(response.status_and_reason(), refused, "{target}");
    }
    for target in [
        "/credentials/",
        "/credentials/task",
        "/credentialsx",
        "/Credentials",
        "/%63redentials",
        "/credentials/v1/x",
        "/bewitx",
        "/bewit/v1/x",
        "/BEWIT",
    ] {
        let body = Body::Sized(claim.json().into());
        let response = send(LOOPBACK, port, Request::new("PUT", target).body(body)).await;
        let refused = (404, Some("reserved_path"));
        assert_eq!(response.status_and_reason(), refused, "{target}");
    }
    for target in ["//credentials", "/x/../credentials", "/./bewit"] {
        let response = get(LOOPBACK, port, target).await;
        assert_eq!(response.status, 400, "{target}");
    }
    assert_eq!(upstream.attempts().len(), 0);
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_upstream_is_asked_again() {
    let upstream = FakeUpstream::http1(|received| {
        if received.repeat == 0 {
            Reply::new(503, "down").header("Retry-After", "0")
        } else {
            Reply::ok()
        }
    })
    .await;
    let (link, port) = (Link::new(), free_port());
    let claim = Claim::new("task-client/a");
    let mut proxy = Proxy::of_generic_worker(&link, (LOOPBACK, port), &upstream.url(), &claim, &[]);
    wait_for_port(LOOPBACK, port).await;
    let response = get(LOOPBACK, port, "/queue/v1/ping").await;
    assert_eq!(response.status, 200, "{}", response.text());
    let attempts = upstream.attempts();
    let signatures: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.request.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(signatures.len(), 2);
    assert_ne!(signatures[0], signatures[1], "signed anew");
    let entry = proxy.0.stderr.wait_for("upstream_retries");
    assert_eq!(
        serde_json::from_str::<Value>(&entry).unwrap()["upstream_retries"],
        1
    );
    // A POST may have had its effect.
    let response = send(LOOPBACK, port, Request::post("/queue/v1/once", "{}")).await;
    assert_eq!(response.status, 503);
}

#[test]
fn the_version_is_printed_as_by_the_original() {
    let link = Link::new();
    let version = link.run(&["--version"]);
    let text = format!("Taskcluster proxy {}", hawkgate::VERSION);
    assert!(
        version.code == 0 && version.stdout.starts_with(&text),
        "{version:?}"
    );
    let short = link.run(&["--short-version"]);
    assert_eq!(
        (short.code, short.stdout),
        (0, format!("{}\n", hawkgate::VERSION))
    );
    let help = link.run(&["--help"]);
    assert!(
        help.code == 0 && help.stdout.contains("taskcluster-proxy"),
        "{help:?}"
    );
}

#[test]
fn arguments_are_read_as_by_the_original() {
    let link = Link::new();
    let base = [
        "--root-url",
        "https://tc.example.com",
        "--client-id=c",
        "--print-config",
    ];
    for (arguments, expected) in [
        (&["-p8081"][..], "listen = [\"127.0.0.1:8081\"]"),
        (&["-p", "8081"], "listen = [\"127.0.0.1:8081\"]"),
        (&["--port=8081"], "listen = [\"127.0.0.1:8081\"]"),
        (&["--ip-address="], "listen = [\"127.0.0.1:8080\"]"),
        (&["--ip-address", ""], "listen = [\"127.0.0.1:8080\"]"),
        (&["-i", "::1"], "listen = [\"[::1]:8080\"]"),
        (&["--ip=127.0.0.2"], "listen = [\"127.0.0.2:8080\"]"),
        (
            &["--allowed-user", "", "--allowed-network="],
            "listen = [\"127.0.0.1:8080\"]",
        ),
        (
            &["--allowed-network", "172.18.0.1/16"],
            "local_networks = [\"172.18.0.0/16\"]",
        ),
        (
            &["a:b", "-p", "1", "c:d", "a:b"],
            "authorized_scopes = [\"a:b\", \"c:d\"]",
        ),
        (&["--admin", "127.0.0.1:9090"], "admin = \"127.0.0.1:9090\""),
        (&[], "admin = \"none\""),
        // Access tokens may begin with a hyphen, and are moved to the environment.
        (&["--access-token", "-x"], "listen = [\"127.0.0.1:8080\"]"),
    ] {
        let exited = link.run(&[&base[..], arguments].concat());
        let Exited {
            code,
            stdout,
            stderr,
        } = exited;
        assert!(
            code == 0 && stdout.contains(expected),
            "{arguments:?}: {stdout}{stderr}"
        );
        assert!(!stdout.contains("-x"), "{stdout}");
    }
    for arguments in [
        &["--port", "-12345"][..],
        &["--ip-address", "172.17.0.44.66"],
        &["--no-such"],
    ] {
        assert_eq!(link.run(arguments).code, 2, "{arguments:?}");
    }
}
