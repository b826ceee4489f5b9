//! h2spec (<https://github.com/summerwind/h2spec>): conformance to RFC 7540 and RFC 7541.

use std::path::PathBuf;

use hawkgate::clock::SystemClock;
use hawkgate::proxy::settings::Address;
use tokio::process::Command;

use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::tls::TestCa;
use crate::support::upstream::{FakeUpstream, Reply};
use crate::support::wait::within;

const ROUTE: &str = r#"
[[route]]
name = "open"
path = "/"
anonymous = true
"#;

/// The number of cases, so that leaving some out would be noticed.
const CASES: usize = 145;

/// The cases that may fail: the connection ends, but with a TCP reset if unread bytes are left,
/// which h2spec does not accept as "closed".
const MAY_FAIL: &[(&str, &str)] = &[("http2/3.5", "Sends invalid connection preface")];

/// Builds h2spec if necessary; returns its path.
async fn h2spec() -> PathBuf {
    let install = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/h2spec/install");
    let built = Command::new(install).output();
    let built = built.await.unwrap();
    let stderr = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "cannot build h2spec; install Go (Debian: golang): {stderr}"
    );
    String::from_utf8(built.stdout).unwrap().trim().into()
}

/// The value of an attribute in the first tag of `xml`.
fn attribute<'x>(xml: &'x str, name: &str) -> &'x str {
    let (_, rest) = xml.split_once(&format!("{name}=\"")).unwrap();
    rest.split('"').next().unwrap()
}

/// Runs every case against a listener.
async fn run(address: &Address, options: &[&str]) {
    let Address::Tcp(address) = address else {
        panic!("not TCP")
    };
    let files = tempfile::tempdir().unwrap();
    let report = files.path().join("report.xml");
    let output = Command::new(h2spec().await)
        .args(["generic", "http2", "hpack", "--timeout", "20", "--host"])
        .arg(address.ip().to_string())
        .arg("--port")
        .arg(address.port().to_string())
        .arg("--junit-report")
        .arg(&report)
        .args(options)
        .kill_on_drop(true)
        .output();
    let output = within("h2spec", output).await.unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    let report = std::fs::read_to_string(&report).unwrap_or_else(|e| panic!("{e}: {output}"));
    let cases: Vec<_> = report.split("<testcase ").skip(1).collect();
    assert_eq!(cases.len(), CASES, "{output}");
    for case in cases {
        let (case, _) = case.split_once("</testcase>").unwrap();
        let name = (attribute(case, "package"), attribute(case, "classname"));
        let passed = case.ends_with('>') && !case.contains("</");
        assert!(passed || MAY_FAIL.contains(&name), "{name:?}: {output}");
    }
}

#[tokio::test]
async fn http2_listeners_pass_h2spec() {
    // Some cases need an answer of a few bytes.
    let upstream = FakeUpstream::http1(|_| Reply::new(200, "x".repeat(100))).await;
    let ca = TestCa::new();
    let identity = ca.issue(&["localhost"]);
    let server = SERVER_CONFIG.replace(
        "[\"127.0.0.1:0\"]",
        &format!(
            "[{{ address = \"127.0.0.1:0\", h2c = true }}, \
             {{ address = \"127.0.0.1:0\", tls = {{ cert = \"{}\", key = \"{}\" }} }}]",
            identity.cert.display(),
            identity.key.display()
        ),
    );
    let text = format!("{server}{ROUTE}upstream = \"{}\"\n", upstream.url());
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    let listeners = &gateway.running.listeners;
    run(&listeners[0], &[]).await;
    run(&listeners[1], &["--tls", "--insecure"]).await;
}
