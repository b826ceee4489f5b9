//! What operators are told: `check` in its forms, errors at start as JSON lines, signals that come twice,
//! completions and the manual page.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::program::{Exited, Server};
use crate::support::wait::until;

/// Valid, with one warning: the second source is not used.
const VALID: &str = r#"
[server]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
drain_delay = "DELAY"

[[source]]
name = "unused"
kind = "taskcluster-static"
client_id = "me"
access_token = { file = "token" }

[[route]]
name = "open"
upstream = "http://127.0.0.1:9"
anonymous = true
"#;

const INVALID: &str =
    "[server]\nlisten = [\":8080\"]\n\n[[route]]\nname = \"r\"\nupstrem = \"https://u.example\"\n";

fn hawkgate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawkgate"));
    command.args(args).env_remove("HAWKGATE_CONFIG");
    command
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.write("token", "an-access-token");
        folder
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Exited {
        Exited::run(hawkgate(args).current_dir(self.0.path()))
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Exited {
        let mut child = hawkgate(args)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap().into()
    }
}

fn valid() -> String {
    VALID.replace("DELAY", "0s")
}

#[test]
fn check_takes_the_file_as_an_argument_as_an_option_and_from_standard_input() {
    let folder = Folder::new();
    folder.write("good.toml", &valid());
    folder.write("bad.toml", INVALID);
    for args in [
        &["check", "good.toml"][..],
        &["check", "--config", "good.toml"],
    ] {
        let exited = folder.run(args);
        assert_eq!(exited.code, 0, "{args:?}: {}", exited.stdout);
        assert!(
            exited.stdout.contains("valid: 1 route"),
            "{}",
            exited.stdout
        );
    }
    let by_argument = folder.run(&["check", "bad.toml"]);
    assert_eq!(by_argument.code, 1);
    assert_eq!(
        by_argument.stdout,
        folder.run(&["check", "--config", "bad.toml"]).stdout
    );
    // The argument is more specific than the environment.
    let mut command = hawkgate(&["check", "good.toml"]);
    command
        .current_dir(folder.0.path())
        .env("HAWKGATE_CONFIG", "bad.toml");
    assert_eq!(Exited::run(&mut command).code, 0);
    let mut command = hawkgate(&["check"]);
    command
        .current_dir(folder.0.path())
        .env("HAWKGATE_CONFIG", "bad.toml");
    assert_eq!(Exited::run(&mut command).code, 1);
    assert_eq!(
        folder
            .run(&["check", "bad.toml", "--config", "good.toml"])
            .code,
        2
    );

    for args in [&["check", "-"][..], &["check", "--config", "-"]] {
        // The relative path `token` is resolved against the working directory.
        let exited = folder.run_with_input(args, &valid());
        assert_eq!(exited.code, 0, "{args:?}: {}", exited.stdout);
        let exited = folder.run_with_input(args, INVALID);
        assert_eq!(exited.code, 1);
        let expected = by_argument.stdout.replace("bad.toml:", "<stdin>:");
        assert_eq!(exited.stdout, expected);
    }
    std::fs::remove_file(folder.0.path().join("token")).unwrap();
    assert_eq!(folder.run_with_input(&["check", "-"], &valid()).code, 1);
    let skipping = folder.run_with_input(&["check", "-", "--skip-secrets"], &valid());
    assert_eq!(skipping.code, 0, "{}", skipping.stdout);
}

#[test]
fn check_reports_in_json() {
    let folder = Folder::new();
    folder.write("good.toml", &valid());
    folder.write("bad.toml", INVALID);
    let report = |name: &str, code: i32| -> Value {
        let exited = folder.run(&["check", name, "--format", "json"]);
        assert_eq!((exited.code, exited.stderr.as_str()), (code, ""));
        serde_json::from_str(&exited.stdout).unwrap()
    };
    let good = report("good.toml", 0);
    assert_eq!(good["valid"], true);
    assert_eq!(good["errors"], serde_json::json!([]));
    let warning = &good["warnings"][0];
    assert_eq!(warning["section"], "source \"unused\"");
    assert_eq!(warning["problem"], "is not used by any route");

    let bad = report("bad.toml", 1);
    assert_eq!(bad["valid"], false);
    let errors = bad["errors"].as_array().unwrap();
    assert_eq!(
        errors[0],
        serde_json::json!({
            "file": "bad.toml", "line": 2, "column": 11, "section": "[server]", "key": "listen[0]",
            "problem": "\":8080\" is not an address",
            "remedy": "write \"127.0.0.1:8080\", or \"0.0.0.0:8080\" for every interface",
        })
    );
    let text = folder.run(&["check", "bad.toml"]).stdout;
    assert_eq!(errors.len(), text.lines().count());

    // A file that cannot be read, and one that is not TOML.
    folder.write("junk.toml", "[server\nlisten = []\n");
    let missing = report("missing.toml", 1);
    assert_eq!(missing["errors"][0]["line"], Value::Null);
    assert!(
        missing["errors"][0]["problem"]
            .as_str()
            .unwrap()
            .contains("cannot be read")
    );
    assert_eq!(report("junk.toml", 1)["errors"][0]["line"], 1);
}

#[test]
fn a_file_that_cannot_be_read_comes_with_what_to_do_next() {
    let folder = Folder::new();
    for args in [
        &["check"][..],
        &["run"],
        &["run", "--log-format", "text"],
        &["run", "--print-config"],
        &["explain"],
        &["check", "missing.toml"],
    ] {
        let exited = folder.run(args);
        let said = exited.stdout + &exited.stderr;
        assert_eq!(exited.code, 1, "{args:?}: {said}");
        for part in [
            "cannot be read",
            "--config FILE",
            "HAWKGATE_CONFIG",
            "hawkgate demo --print-config",
        ] {
            assert!(said.contains(part), "{args:?}: {said}");
        }
    }
    let said = folder.run(&["check", "."]).stdout;
    assert!(said.contains("name the file in this folder"), "{said}");
}

/// Each line of stderr as JSON.
fn json_lines(stderr: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    stderr.lines().map(parse).collect()
}

#[test]
fn run_reports_an_invalid_file_in_the_format_of_its_log() {
    let folder = Folder::new();
    folder.write("bad.toml", INVALID);
    folder.write("text.toml", &format!("{INVALID}[log]\nformat = \"text\"\n"));
    folder.write("junk.toml", "[server\nlisten = []\n");
    let checked = folder.run(&["check", "bad.toml"]).stdout;
    for args in [
        &["run", "--config", "bad.toml"][..],
        &["run", "--config", "text.toml", "--log-format", "json"],
        &["run", "--config", "bad.toml", "--print-config"],
    ] {
        let exited = folder.run(args);
        assert_eq!(exited.code, 1);
        let lines = json_lines(&exited.stderr);
        assert_eq!(
            lines.len(),
            checked.lines().count(),
            "{args:?}: {}",
            exited.stderr
        );
        let first = &lines[0];
        assert_eq!(first["level"], "error");
        assert_eq!(
            (&first["line"], &first["key"]),
            (&Value::from(2), &Value::from("listen[0]"))
        );
        assert_eq!(first["file"], args[2]);
        assert_eq!(first["section"], "[server]");
        let message = first["message"].as_str().unwrap();
        assert_eq!(
            message.replace("text.toml", "bad.toml"),
            checked.lines().next().unwrap()
        );
    }
    for args in [
        &["run", "--config", "text.toml"][..],
        &["run", "--config", "bad.toml", "--log-format", "text"],
    ] {
        let exited = folder.run(args);
        let text = exited.stderr.replace("text.toml", "bad.toml");
        assert_eq!(text, format!("hawkgate: {checked}"), "{args:?}");
    }
    for (file, line) in [("junk.toml", Value::from(1)), ("missing.toml", Value::Null)] {
        let exited = folder.run(&["run", "--config", file]);
        let lines = json_lines(&exited.stderr);
        assert_eq!((exited.code, lines.len()), (1, 1), "{}", exited.stderr);
        assert_eq!(
            (&lines[0]["file"], &lines[0]["line"]),
            (&Value::from(file), &line)
        );
    }
    // A valid file with an address that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    folder.write("taken.toml", &valid().replacen("127.0.0.1:0", &address, 1));
    let exited = folder.run(&["run", "--config", "taken.toml"]);
    let lines = json_lines(&exited.stderr);
    let last = lines.last().unwrap();
    assert_eq!((exited.code, &last["level"]), (1, &Value::from("error")));
    assert!(last["error"].as_str().unwrap().contains(&address));
}

#[test]
fn every_line_of_a_server_is_json_from_start_to_end() {
    let folder = Folder::new();
    folder.write("good.toml", &valid());
    let mut server = start(&folder, &[], &["run", "--config", "good.toml"]);
    let warning = server.stderr.wait_for("is not used by any route");
    let warning: Value = serde_json::from_str(&warning).unwrap();
    assert_eq!(
        (&warning["level"], &warning["line"]),
        (&Value::from("warn"), &Value::from(7))
    );
    server.stderr.wait_for("hawkgate is up");
    folder.write("good.toml", INVALID);
    server.signal(Signal::HUP);
    let error = server.stderr.wait_for("upstrem");
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!(
        (&error["key"], &error["file"]),
        (&Value::from("upstrem"), &Value::from("good.toml"))
    );
    server.signal(Signal::TERM);
    let (code, lines) = server.wait();
    assert_eq!(code, Some(0), "{lines:?}");
    json_lines(&lines.join("\n"));
}

/// Starts hawkgate, with `wrapper` before its path.
fn start(folder: &Folder, wrapper: &[&str], args: &[&str]) -> Server {
    let mut words = wrapper.to_vec();
    words.push(env!("CARGO_BIN_EXE_hawkgate"));
    words.extend(args);
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .current_dir(folder.0.path())
        .env_remove("HAWKGATE_CONFIG")
        .stdout(Stdio::null());
    Server::spawn(&mut command)
}

/// Starts a server whose drain takes this long.
fn draining_for(delay: &str, wrapper: &[&str]) -> (Folder, Server) {
    let folder = Folder::new();
    folder.write("hawkgate.toml", &VALID.replace("DELAY", delay));
    let mut server = start(&folder, wrapper, &["run", "--config", "hawkgate.toml"]);
    server.stderr.wait_for("hawkgate is up");
    (folder, server)
}

#[test]
fn the_two_signals_of_timeout_count_as_one() {
    // timeout(1) passes a signal on to its child and then to its process group, with the child in it, so
    // that the child gets it twice. `setsid` makes a group of their own.
    let (_folder, mut server) = draining_for("300ms", &["setsid", "--wait", "timeout", "600"]);
    // setsid becomes timeout, unless it has to fork to leave its group.
    let timeout = match name_of(server.child.id()).as_deref() {
        Some("timeout") => server.child.id(),
        _ => child_of(server.child.id()).unwrap(),
    };
    assert_eq!(name_of(timeout).as_deref(), Some("timeout"));
    let pid = Pid::from_raw(timeout.try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let lines = server.stderr.finish();
    let said = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(said("\"drained\"") && !said("second signal"), "{lines:#?}");
}

/// The name of a process.
fn name_of(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim().to_owned())
}

/// The first child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[test]
fn signals_of_both_kinds_at_once_count_as_one() {
    let (_folder, server) = draining_for("300ms", &[]);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM, Signal::INT] {
        server.signal(signal);
    }
    let (code, lines) = server.wait();
    assert_eq!(code, Some(0), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("\"drained\"")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn a_later_signal_stops_at_once() {
    // Longer than any test may take, so only another signal can end it.
    let (_folder, mut server) = draining_for("5m", &[]);
    server.signal(Signal::INT);
    server.stderr.wait_for("draining");
    until("another signal to count", async || {
        server.signal(Signal::TERM);
        server.child.try_wait().unwrap().is_some()
    })
    .await;
    let (code, lines) = server.wait();
    assert_eq!(code, Some(1), "{lines:#?}");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("second signal (SIGTERM)")),
        "{lines:#?}"
    );
}

#[test]
fn completion_scripts_are_valid_in_the_shells_that_are_installed() {
    let folder = Folder::new();
    for (shell, check) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let exited = folder.run(&["completions", shell]);
        assert_eq!((exited.code, exited.stderr.as_str()), (0, ""));
        for word in ["taskcluster-proxy", "print-config", "skip-secrets"] {
            assert!(exited.stdout.contains(word), "{shell}: {word}");
        }
        let script = folder.write(shell, &exited.stdout);
        let checked = Command::new(check).arg("-n").arg(&script).output();
        // Debian's `./test` has bash only.
        let Ok(checked) = checked else {
            assert_ne!(shell, "bash");
            continue;
        };
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(
            checked.status.success() && said.is_empty(),
            "{shell}: {said}"
        );
    }
    for shell in ["elvish", "powershell"] {
        assert!(
            folder.run(&["completions", shell]).stdout.len() > 1000,
            "{shell}"
        );
    }
    assert_eq!(folder.run(&["completions", "csh"]).code, 2);
    assert_eq!(folder.run(&["completions"]).code, 2);
}

#[test]
fn the_manual_page_renders_without_warnings() {
    let folder = Folder::new();
    let page = folder.run(&["man"]);
    assert_eq!((page.code, page.stderr.as_str()), (0, ""));
    let path = folder.write("hawkgate.1", &page.stdout);
    let Some(rendered) = rendered(&path) else {
        return;
    };
    for part in [
        "NAME",
        "hawkgate run",
        "--log-format",
        "EXIT STATUS",
        "SIGNALS",
        "HAWKGATE_CONFIG",
        "conf/hawkgate.toml",
        "250 milliseconds",
        "hawkgate check conf/hawkgate.toml --format json",
    ] {
        assert!(rendered.contains(part), "{part}: {rendered}");
    }
}

/// The page as text; `None` if groff is not installed.
fn rendered(page: &Path) -> Option<String> {
    let output = Command::new("groff")
        .args(["-ww", "-man", "-Kutf8", "-Tutf8", "-P-cbou"])
        .arg(page)
        .output()
        .ok()?;
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{warnings}");
    Some(String::from_utf8(output.stdout).unwrap())
}
