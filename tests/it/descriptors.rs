//! The limit of file descriptors: raised at start, with a warning where that does not suffice.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::program::{Exited, StderrLines};

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:0"

[[route]]
name = "open"
path = "/"
upstream = "http://127.0.0.1:9"
anonymous = true
"#;

/// The soft limit that the program starts with.
const SOFT: u32 = 256;

/// A program started with these limits of file descriptors; killed when dropped.
struct Limited(Child);

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn limited(hard: u32, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!(
            "ulimit -Sn {SOFT}; ulimit -Hn {hard}; exec \"$0\" \"$@\""
        ))
        .arg(env!("CARGO_BIN_EXE_hawkgate"))
        .args(args)
        .env("TASKCLUSTER_ACCESS_TOKEN", "an-access-token")
        .env_remove("HAWKGATE_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Limited {
    fn start(hard: u32, args: &[&str]) -> Self {
        Self(limited(hard, args).spawn().unwrap())
    }

    /// The soft and the hard limit that the process has now.
    fn limits(&self) -> (u32, u32) {
        let path = format!("/proc/{}/limits", self.0.id());
        let limits = std::fs::read_to_string(path).unwrap();
        let line = limits.lines().find(|l| l.starts_with("Max open files"));
        let mut numbers = line.unwrap().split_whitespace().skip(3);
        let mut next = || numbers.next().unwrap().parse().unwrap();
        (next(), next())
    }
}

fn write_config(dir: &TempDir, connections: u32) -> String {
    let path = dir.path().join("hawkgate.toml");
    let text = format!("{CONFIG}\n[limits]\nconnections = {connections}\n");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs `hawkgate check` with this hard limit; returns what it prints.
fn check(hard: u32, config: &str) -> String {
    assert!(Path::new(config).is_file());
    let checked = Exited::run(&mut limited(hard, &["check", "--config", config]));
    assert_eq!(checked.code, 0, "{checked:?}");
    checked.stdout
}

/// Runs `hawkgate run` with this hard limit until it listens; returns its limits and its log.
fn run(hard: u32, config: &str) -> ((u32, u32), String) {
    let mut process = Limited::start(hard, &["run", "--config", config, "--log-format", "text"]);
    let mut lines = StderrLines::of(&mut process.0);
    let mut log = String::new();
    while let Some(line) = lines.next() {
        log.push_str(&line);
        log.push('\n');
        if line.contains("hawkgate is up") {
            return (process.limits(), log);
        }
    }
    panic!("hawkgate exited: {log}")
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_limit() {
    let dir = TempDir::new().unwrap();
    let config = write_config(&dir, 1000);
    let (limits, log) = run(2000, &config);
    assert_eq!(limits, (2000, 2000));
    assert!(!log.contains("file descriptors"), "{log}");
    assert_eq!(
        check(2000, &config),
        "valid: 1 route, 0 issuers, 0 sources\n"
    );
}

#[test]
fn a_hard_limit_that_does_not_suffice_is_a_warning() {
    let dir = TempDir::new().unwrap();
    let config = write_config(&dir, 1000);
    let (limits, log) = run(1999, &config);
    assert_eq!(limits, (1999, 1999));
    let checked = check(1999, &config);
    for (said, begins) in [(log, " warn "), (checked, "hawkgate.toml: warning: ")] {
        let warning = said.lines().find(|l| l.contains("limits.connections"));
        let warning = warning.unwrap_or_else(|| panic!("no warning: {said}"));
        for part in [
            begins,
            "limits.connections = 1000 needs 2000 file descriptors",
            "may open only 1999",
            "LimitNOFILE=",
            "to 2256, or lower limits.connections to 871",
        ] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
    }
}

#[test]
fn taskcluster_proxy_and_the_demo_raise_it_too() {
    let mut proxy = Limited::start(
        2000,
        &[
            "taskcluster-proxy",
            "--root-url=http://127.0.0.1:9",
            "--client-id=me",
            "--port=0",
            "--admin=127.0.0.1:0",
        ],
    );
    let mut lines = StderrLines::of(&mut proxy.0);
    let warning = lines.wait_for("limits.connections");
    assert!(warning.contains("may open only 2000"), "{warning}");
    lines.wait_for("hawkgate is up");
    assert_eq!(proxy.limits(), (2000, 2000));

    let mut demo = Limited::start(2000, &["demo"]);
    let mut stdout = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    assert!(stdout.any(|line| line.unwrap().contains("Ctrl-C")));
    assert_eq!(demo.limits(), (2000, 2000));
}
