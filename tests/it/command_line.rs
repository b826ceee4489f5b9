//! The command line: exit codes, signals and output.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::program::{Exited, Server};
use crate::support::wait::until;

const TOKEN: &str = "an-access-token-of-the-upstream";

fn hawkgate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawkgate"));
    command.args(args).env_remove("HAWKGATE_CONFIG");
    command.env("HAWKGATE_TEST_TOKEN", TOKEN);
    command
}

/// Runs the program to its end.
fn run(args: &[&str]) -> (i32, String, String) {
    let Exited {
        code,
        stdout,
        stderr,
    } = Exited::run(&mut hawkgate(args));
    (code, stdout, stderr)
}

fn write_config(dir: &TempDir, drain_delay: &str) -> PathBuf {
    let path = dir.path().join("hawkgate.toml");
    let text = format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
drain = "1s"
drain_delay = "{drain_delay}"

[[source]]
name = "fixed"
kind = "taskcluster-static"
client_id = "me"
access_token = {{ env = "HAWKGATE_TEST_TOKEN" }}

[[route]]
name = "tc"
path = "/api/"
upstream = "http://127.0.0.1:9"
source = "fixed"
anonymous = true
"#
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Starts a server.
fn start(config: &Path, extra: &[&str]) -> Server {
    let mut args = vec!["run", "--config", config.to_str().unwrap()];
    args.extend(extra);
    let mut server = Server::spawn(&mut hawkgate(&args));
    server.stderr.wait_for("hawkgate is up");
    server
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    for args in [&[][..], &["frobnicate"], &["run", "--confg", "x"]] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        assert!(stderr.contains("Usage:"), "{stderr}");
    }
    let (code, stdout, _) = run(&["--help"]);
    assert!(code == 0 && stdout.contains("hawkgate demo"), "{stdout}");
    let (code, stdout, _) = run(&["--version"]);
    assert!(code == 0 && stdout.contains(hawkgate::VERSION), "{stdout}");
}

#[test]
fn check_lists_every_error_and_prints_no_secret() {
    let dir = TempDir::new().unwrap();
    let good = write_config(&dir, "0s");
    let (code, stdout, _) = run(&["check", "--config", good.to_str().unwrap()]);
    assert_eq!(code, 0, "{stdout}");
    assert!(
        stdout.contains("valid: 1 route, 0 issuers, 1 source"),
        "{stdout}"
    );

    let text = std::fs::read_to_string(&good).unwrap();
    let bad = text
        .replace("upstream = ", "upstrem = ")
        .replace("HAWKGATE_TEST_TOKEN", "HAWKGATE_TEST_UNSET");
    std::fs::write(&good, bad).unwrap();
    let path = good.to_str().unwrap();
    let (code, stdout, _) = run(&["check", "--config", path]);
    assert_eq!(code, 1, "{stdout}");
    assert!(
        stdout.contains("upstrem") && stdout.contains("\"upstream\""),
        "{stdout}"
    );
    assert!(
        stdout.contains("names an environment variable that is not set"),
        "{stdout}"
    );
    let (_, stdout, _) = run(&["check", "--skip-secrets", "--config", path]);
    assert!(
        !stdout.contains("names an environment variable that is not set"),
        "{stdout}"
    );
    let (code, _, stderr) = run(&["run", "--config", path]);
    assert!(code == 1 && stderr.contains("upstrem"), "{stderr}");
}

#[test]
fn sigterm_drains_and_the_log_is_json_without_secrets() {
    let dir = TempDir::new().unwrap();
    let mut server = start(&write_config(&dir, "0s"), &[]);
    server.signal(Signal::HUP);
    server.stderr.wait_for("the configuration is in effect");
    server.signal(Signal::TERM);
    let (code, lines) = server.wait();
    assert_eq!(code, Some(0), "{lines:?}");
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for field in ["time", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field} of {line}");
        }
    }
    assert!(lines.last().unwrap().contains("drained"), "{lines:?}");
    assert!(!lines.concat().contains(TOKEN));
}

#[test]
fn a_changed_file_is_reloaded_unless_watching_is_off() {
    let dir = TempDir::new().unwrap();
    let path = write_config(&dir, "0s");
    let mut server = start(&path, &[]);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"/api/\"", "\"/two/\"")).unwrap();
    let line = server.stderr.wait_for("files have changed");
    assert!(line.contains("hawkgate.toml"), "{line}");
    server.stderr.wait_for("the configuration is in effect");
    drop(server);

    let mut server = start(&path, &["--no-watch"]);
    std::fs::write(&path, "broken").unwrap();
    server.signal(Signal::HUP);
    server
        .stderr
        .wait_for("reloading the configuration: requested");
    server.stderr.wait_for("the configuration is invalid");
    server.signal(Signal::TERM);
    let (code, lines) = server.wait();
    assert_eq!(code, Some(0), "{lines:?}");
    assert!(!lines.concat().contains("files have changed"), "{lines:?}");
}

#[test]
fn print_config_prints_every_key_and_no_secret() {
    let dir = TempDir::new().unwrap();
    let path = write_config(&dir, "0s");
    let args = ["run", "--print-config", "--config", path.to_str().unwrap()];
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(!stdout.contains(TOKEN), "{stdout}");
    for line in [
        "access_token = { env = \"HAWKGATE_TEST_TOKEN\" }",
        "startup_grace = \"60s\"",
        "max_entries = ",
    ] {
        assert!(stdout.contains(line), "{line} is not in\n{stdout}");
    }
    std::fs::write(&path, &stdout).unwrap();
    let (code, again, _) = run(&args);
    assert_eq!((code, again), (0, stdout));
    std::fs::write(&path, "[server]\nlisen = []\n").unwrap();
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("lisen"), "{stderr}");
}

#[tokio::test]
async fn a_second_signal_exits_immediately() {
    let dir = TempDir::new().unwrap();
    // Longer than any test may take, so only the second signal can end it.
    let mut server = start(&write_config(&dir, "5m"), &["--log-format", "text"]);
    server.signal(Signal::INT);
    let line = server.stderr.wait_for("draining");
    assert!(
        serde_json::from_str::<Value>(&line).is_err(),
        "JSON instead of text"
    );
    // Signals within 250 ms of the first are the same request.
    until("the second signal to count", async || {
        server.signal(Signal::TERM);
        server.child.try_wait().unwrap().is_some()
    })
    .await;
    let (code, lines) = server.wait();
    assert_eq!(code, Some(1), "{lines:?}");
    assert!(lines.last().unwrap().contains("SIGTERM"), "{lines:?}");
}

#[test]
fn a_missing_ca_bundle_is_reported_at_startup() {
    let dir = TempDir::new().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let config = write_config(&dir, "0s");
    let output = hawkgate(&["run", "--config", config.to_str().unwrap()])
        .env("SSL_CERT_FILE", &empty)
        .env("SSL_CERT_DIR", dir.path().join("nowhere"))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for part in ["CA certificates", "ca-certificates", "SSL_CERT_FILE"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    assert!(!stderr.contains("panic"), "{stderr}");
}

#[test]
fn every_step_of_the_demo_succeeds() {
    let (code, stdout, stderr) = run(&["demo", "--once"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.matches("ok:").count(), 3, "{stdout}");
    assert!(!stdout.contains("Press Ctrl-C"), "{stdout}");
}

#[test]
fn the_printed_configuration_of_the_demo_passes_check_without_warnings() {
    let (code, printed, stderr) = run(&["demo", "--print-config"]);
    assert_eq!(code, 0, "{stderr}");
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("hawkgate.toml");
    std::fs::write(&path, printed).unwrap();
    let (code, stdout, stderr) = run(&["check", "--config", &path.display().to_string()]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(stdout, "valid: 1 route, 1 issuer, 1 source\n");
}
