//! gRPC through hawkgate, with a client and a server of Google's C core, which insist on `te: trailers`,
//! trailers and HTTP/2's flow control.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use hawkgate::clock::SystemClock;
use hawkgate::proxy::settings::Address;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::standard::API_AUDIENCE;
use crate::support::tls::{Identity, TestCa};
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::wait::within;

/// A Python with the packages of `tests/peers/requirements.txt`, which are installed if necessary.
pub(crate) async fn python() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/python");
    let prepared = Command::new(script).output().await.unwrap();
    assert!(
        prepared.status.success(),
        "cannot prepare Python 3.11 or newer (Debian: python3-venv): {}",
        String::from_utf8_lossy(&prepared.stderr)
    );
    String::from_utf8(prepared.stdout).unwrap().trim().into()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/peers")
        .join(name)
}

/// `tests/peers/grpc_server.py`; killed when dropped.
struct Server {
    port: u16,
    _child: Child,
}

impl Server {
    async fn start(python: &Path, identity: Option<&Identity>) -> Self {
        let mut command = Command::new(python);
        command.arg(script("grpc_server.py"));
        if let Some(identity) = identity {
            command.args([&identity.cert, &identity.key]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = within("the gRPC server to start", lines.next_line()).await;
        Self {
            port: port.unwrap().unwrap().parse().unwrap(),
            _child: child,
        }
    }
}

/// Runs `tests/peers/grpc_client.py` against a port of this machine; returns its results.
async fn calls(python: &Path, port: u16, bearer: &str, ca: Option<&TestCa>) -> Value {
    let mut command = Command::new(python);
    command
        .arg(script("grpc_client.py"))
        .arg(format!("127.0.0.1:{port}"))
        .arg(bearer);
    if let Some(ca) = ca {
        command.arg(ca.file());
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = within("the gRPC client", output).await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A gateway whose first listener has these keys, in front of this upstream; the issuer of its
/// callers' tokens; and a token.
async fn gateway(listener: &str, upstream: &str) -> (TestGateway, IssuerServer, String) {
    let issuer = IssuerServer::start(&[&SHARED[0]]).await;
    let server = SERVER_CONFIG.replace(
        "[\"127.0.0.1:0\"]",
        &format!("[{{ address = \"127.0.0.1:0\", {listener} }}]"),
    );
    let text = format!(
        r#"{server}
[[issuer]]
name = "idp"
url = "{}"
audiences = ["{API_AUDIENCE}"]
[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
[[route]]
name = "grpc"
path = "/test.Echo/"
http2 = true
issuers = ["idp"]
source = "static"
{upstream}
"#,
        issuer.issuer()
    );
    let clock = SystemClock::shared();
    let now = clock.now().as_secs();
    let claims = tokens::claims(&issuer.issuer(), API_AUDIENCE, now);
    let token = SHARED[0].token("RS256", &claims);
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), clock).await;
    (gateway, issuer, token)
}

fn port(gateway: &TestGateway) -> u16 {
    match gateway.address() {
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => panic!("not TCP"),
    }
}

/// Asserts that the results are those of calls without a proxy, except that the upstream has hawkgate's
/// credentials.
fn assert_same(mut direct: Value, through: &Value) {
    for call in ["unary", "large", "empty"] {
        let scheme = &mut direct[call]["trailing"]["x-authorization"];
        assert_eq!(*scheme, "Bearer");
        *scheme = "Hawk".into();
    }
    let expected = [
        ("unary", "/code", json!("OK")),
        ("unary", "/response", json!("hello")),
        ("unary", "/initial/x-initial", json!("ascii")),
        ("unary", "/trailing/x-trailing-bin", json!("00ff")),
        ("large", "/bytes", json!(300_000)),
        ("server_stream", "/messages", json!(200)),
        ("client_stream", "/response", json!("2000000")),
        ("ping_pong", "/answers/4", json!("pong 4")),
        ("failing", "/code", json!("FAILED_PRECONDITION")),
        ("failing", "/trailing/x-trailing", json!("of a failure")),
        ("failing_late", "/code", json!("DATA_LOSS")),
        ("unknown", "/code", json!("UNIMPLEMENTED")),
        ("deadline", "/code", json!("DEADLINE_EXCEEDED")),
        ("noticed", "/response", json!("cancelled")),
    ];
    for (call, pointer, value) in expected {
        assert_eq!(direct[call].pointer(pointer), Some(&value), "{call}");
    }
    for (call, result) in direct.as_object().unwrap() {
        assert_eq!(&through[call], result, "{call}");
    }
}

#[tokio::test]
async fn every_kind_of_call_passes_without_tls() {
    let python = python().await;
    let server = Server::start(&python, None).await;
    let direct = calls(&python, server.port, "none", None).await;
    let server = Server::start(&python, None).await;
    let upstream = format!("upstream = \"http://127.0.0.1:{}\"", server.port);
    let (gateway, _issuer, token) = gateway("h2c = true", &upstream).await;
    let through = calls(&python, port(&gateway), &token, None).await;
    assert_same(direct, &through);
}

#[tokio::test]
async fn every_kind_of_call_passes_with_tls_on_both_sides() {
    let python = python().await;
    let ca = TestCa::new();
    let identity = ca.issue(&["localhost"]);
    let server = Server::start(&python, Some(&identity)).await;
    let direct = calls(&python, server.port, "none", Some(&ca)).await;
    let server = Server::start(&python, Some(&identity)).await;
    let upstream = format!(
        "upstream = \"https://localhost:{}\"\nca = \"{}\"",
        server.port,
        ca.file().display()
    );
    let listener = format!(
        "tls = {{ cert = \"{}\", key = \"{}\" }}",
        identity.cert.display(),
        identity.key.display()
    );
    let (gateway, _issuer, token) = gateway(&listener, &upstream).await;
    let through = calls(&python, port(&gateway), &token, Some(&ca)).await;
    assert_same(direct, &through);
}
