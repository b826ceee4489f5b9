//! HAProxy in front: its plain health checks, and requests through it.

use std::path::Path;
use std::process::Stdio;

use hawkgate::clock::SystemClock;
use hawkgate::proxy::settings::Address;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::support::client::{Client, Request};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::upstream::{FakeUpstream, Reply};
use crate::support::wait::{until, until_some};

const ROUTE: &str = r#"
[[route]]
name = "open"
path = "/"
anonymous = true
"#;

/// A running HAProxy with one server, killed when dropped.
struct HaProxy {
    files: TempDir,
    _child: Child,
}

impl HaProxy {
    /// Forwards to `server`, and checks `GET /readyz` of `admin` every 50 ms. The check is
    /// HTTP/1.0 without `Host`, which is HAProxy's default.
    async fn start(server: &Address, admin: &Address) -> Self {
        let files = tempfile::tempdir().unwrap();
        let folder = files.path().display();
        let Address::Tcp(admin) = admin else {
            panic!("not TCP")
        };
        let text = format!(
            "global
    nbthread 1
    maxconn 100
    stats socket {folder}/stats
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
    timeout check 10s
frontend callers
    bind {folder}/callers
    default_backend gateway
backend gateway
    option httpchk GET /readyz
    server hawkgate {server} check port {} inter 50ms rise 1 fall 1
",
            admin.port()
        );
        let config = files.path().join("haproxy.cfg");
        std::fs::write(&config, text).unwrap();
        // Not in every user's PATH.
        let installed = Path::new("/usr/sbin/haproxy");
        let program = installed.exists().then_some(installed);
        let log = files.path().join("log");
        let mut child = Command::new(program.unwrap_or(Path::new("haproxy")))
            .arg("-db")
            .arg("-f")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| {
                panic!("cannot run haproxy ({e}): run `./test` once, or apt-get install haproxy")
            });
        let callers = files.path().join("callers");
        until("HAProxy to listen", async || {
            let exited = child.try_wait().unwrap();
            assert_eq!(exited, None, "{:?}", std::fs::read_to_string(&log));
            UnixStream::connect(&callers).await.is_ok()
        })
        .await;
        Self {
            files,
            _child: child,
        }
    }

    /// The server's `status` and the `check_status` of its last check.
    async fn state(&self) -> Option<(String, String)> {
        let mut stats = UnixStream::connect(self.files.path().join("stats"))
            .await
            .ok()?;
        stats.write_all(b"show stat\n").await.ok()?;
        let mut text = String::new();
        stats.read_to_string(&mut text).await.ok()?;
        let columns: Vec<_> = text.lines().next()?.split(',').collect();
        let row: Vec<_> = text
            .lines()
            .find(|line| line.starts_with("gateway,hawkgate,"))?
            .split(',')
            .collect();
        let column = |name| Some(row[columns.iter().position(|c| *c == name)?].to_owned());
        Some((column("status")?, column("check_status")?))
    }

    /// Waits until the server has this status, as the result of a check.
    async fn wait_for(&self, status: &str, check: &str) {
        let expected = (status.to_owned(), check.to_owned());
        until_some(&format!("{expected:?}"), async || {
            (self.state().await? == expected).then_some(())
        })
        .await;
    }

    async fn client(&self) -> Client {
        Client::connect(&Address::Unix(self.files.path().join("callers"))).await
    }
}

#[tokio::test]
async fn haproxy_sees_readiness_and_forwards_requests() {
    let upstream = FakeUpstream::http1(|request| Reply::new(200, request.target.clone())).await;
    // Long, so that the drain only announces itself.
    let server = SERVER_CONFIG.replace("drain_delay = \"0s\"", "drain_delay = \"5m\"");
    let text = format!("{server}{ROUTE}upstream = \"{}\"\n", upstream.url());
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    let haproxy = HaProxy::start(gateway.address(), gateway.admin_address()).await;
    // 7 is the layer of HTTP.
    haproxy.wait_for("UP", "L7OK").await;
    let mut client = haproxy.client().await;
    for request in [
        Request::get("/a?b"),
        Request::post("/c", "body"),
        Request::get("/d"),
    ] {
        let response = client.request(&request).await.unwrap();
        let answer = (response.status, response.text());
        assert_eq!(answer, (200, request.target.clone()));
    }
    tokio::select! {
        () = gateway.running.drain() => panic!("drained too early"),
        () = haproxy.wait_for("DOWN", "L7STS") => {}
    }
}
