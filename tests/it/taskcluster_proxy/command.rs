//! `hawkgate taskcluster-proxy`, the drop-in replacement for taskcluster-proxy.

use std::process::Command;

use hawkgate::proxy::settings::Address;
use serde_json::{Value, json};

use super::taskcluster;
use crate::support::client::{Client, Request};
use crate::support::gateway::ROOT_KEY;
use crate::support::program::{Exited, Server};
use crate::support::upstream::{FakeUpstream, Reply};

/// `hawkgate taskcluster-proxy` without inherited TASKCLUSTER_* variables.
fn command(variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawkgate"));
    command.arg("taskcluster-proxy").args(arguments);
    for name in ["ROOT_URL", "CLIENT_ID", "ACCESS_TOKEN", "CERTIFICATE"] {
        command.env_remove(format!("TASKCLUSTER_{name}"));
    }
    command.envs(variables.iter().copied());
    command
}

/// Runs it to its end.
fn run(variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    let Exited {
        code,
        stdout,
        stderr,
    } = Exited::run(&mut command(variables, arguments));
    (code, stdout, stderr)
}

/// A running proxy and its address.
struct RunningProxy {
    /// Ends with this.
    _server: Server,
    address: Address,
}

impl RunningProxy {
    fn start(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut server = Server::spawn(&mut command(variables, arguments));
        let line = server.stderr.wait_for("listening for callers");
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = line["address"].as_str().unwrap();
        Self {
            _server: server,
            address: Address::Tcp(address.parse().unwrap()),
        }
    }
}

#[tokio::test]
async fn the_taskcluster_proxy_command_reads_the_same_environment_variables() {
    let taskcluster = taskcluster().await;
    let variables = [
        ("TASKCLUSTER_ROOT_URL", taskcluster.url()),
        ("TASKCLUSTER_CLIENT_ID", "root"),
        ("TASKCLUSTER_ACCESS_TOKEN", ROOT_KEY),
        ("TASKCLUSTER_CERTIFICATE", ""),
    ];
    let ports = ["--port", "0", "--admin", "127.0.0.1:0"];
    let whole = RunningProxy::start(&variables, &ports);
    let narrow = RunningProxy::start(&variables, &[&ports[..], &["test:x", "test:y*"]].concat());
    for (up, scopes) in [
        (&whole, json!(["test:*", "auth:create-client:*"])),
        (&narrow, json!(["test:x", "test:y*"])),
    ] {
        let mut client = Client::connect(&up.address).await;
        let response = client.request(&Request::get("/queue/v1/x")).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["clientId"], "root");
        assert_eq!(response.json()["scopes"], scopes);
    }
}

#[tokio::test]
async fn tasks_and_local_programs_are_served_and_web_pages_are_not() {
    let taskcluster = taskcluster().await;
    let variables = [
        ("TASKCLUSTER_ROOT_URL", taskcluster.url()),
        ("TASKCLUSTER_CLIENT_ID", "root"),
        ("TASKCLUSTER_ACCESS_TOKEN", ROOT_KEY),
    ];
    let proxy = RunningProxy::start(
        &variables,
        &[
            "-p",
            "0",
            "--admin",
            "127.0.0.1:0",
            "--local-host",
            "proxy.internal",
        ],
    );
    let send = async |authority: &str, fields: &[(&str, &str)]| {
        let mut request = Request::post("/queue/v1/x", "{}");
        request.authority = authority.into();
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let mut client = Client::connect(&proxy.address).await;
        let response = client.request(&request).await.unwrap();
        let reason = response.error_reason().map(str::to_owned);
        (response.status, reason)
    };
    // `http://taskcluster/` is what docker-worker's tasks use.
    for authority in [
        "taskcluster",
        "localhost:8080",
        "127.0.0.1:80",
        "proxy.internal",
    ] {
        assert_eq!(send(authority, &[]).await, (200, None), "{authority}");
    }
    let origin = [
        ("Origin", "http://evil.example"),
        ("Content-Type", "text/plain"),
    ];
    for (authority, fields, reason) in [
        ("evil.example", &[][..], "host_not_allowed"),
        ("taskcluster.evil.example", &[], "host_not_allowed"),
        ("taskcluster", &origin, "cross_site"),
    ] {
        let refused = (403, Some(reason.to_owned()));
        assert_eq!(send(authority, fields).await, refused, "{authority}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_scopes_restrict_the_credentials() {
    const TASK: &str = "KTBKfEgxR5GdfIIREQIvFQ";
    let queue = FakeUpstream::http1(|received| {
        if received.path().ends_with(TASK) && received.header("authorization").is_none() {
            Reply::new(200, r#"{"scopes":["queue:a","queue:b*"]}"#)
        } else {
            Reply::new(404, "{}")
        }
    })
    .await;
    let url = queue.url();
    let print = move |arguments: &'static [&'static str]| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || {
            let variables = [("TASKCLUSTER_ROOT_URL", url.as_str())];
            let all = [&["--client-id", "c", "--print-config"], arguments].concat();
            run(&variables, &all)
        })
    };
    for (arguments, scopes) in [
        (&[][..], None),
        (&["x:y"], Some("[\"x:y\"]")),
        (&["-t", TASK], Some("[\"queue:a\", \"queue:b*\"]")),
        (
            &["--task-id", TASK, "x:y", "queue:a"],
            Some("[\"x:y\", \"queue:a\", \"queue:b*\"]"),
        ),
    ] {
        let (code, text, stderr) = print(arguments).await.unwrap();
        assert_eq!(code, 0, "{stderr}");
        let line = scopes.map(|list| format!("authorized_scopes = {list}\n"));
        match line {
            Some(line) => assert!(text.contains(&line), "{text}"),
            None => assert!(!text.contains("authorized_scopes"), "{text}"),
        }
    }
    let (code, text, stderr) = print(&["-t", "KTBKfEgxR5GdfIIREQIvFx"]).await.unwrap();
    assert!(code == 1 && text.is_empty(), "{text}");
    assert!(stderr.contains("404"), "{stderr}");
}

#[test]
fn arguments_that_cannot_be_served_are_refused_with_the_reason() {
    let variables = [
        ("TASKCLUSTER_ROOT_URL", "https://tc.example.com"),
        ("TASKCLUSTER_CLIENT_ID", "root"),
    ];
    for (arguments, code, hint) in [
        (
            &["--allowed-network", "10.0.0.0"][..],
            2,
            "--allowed-network",
        ),
        (&["--port", "70000"], 2, "70000"),
        (
            &["--task-id", "../auth", "--print-config"],
            1,
            "not a task id",
        ),
        // Not the same as no restriction.
        (&["--task-id", "", "--print-config"], 1, "not a task id"),
        (&["--task-id=", "x:y", "--print-config"], 1, "not a task id"),
        (&[], 1, "set TASKCLUSTER_ACCESS_TOKEN"),
    ] {
        let (actual, _, stderr) = run(&variables, arguments);
        assert_eq!(actual, code, "{stderr}");
        assert!(stderr.contains(hint), "{stderr}");
    }
    let (code, _, stderr) = run(&[], &[]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("--root-url") && stderr.contains("--client-id"),
        "{stderr}"
    );
    let token = [
        variables[0],
        variables[1],
        ("TASKCLUSTER_ACCESS_TOKEN", ROOT_KEY),
    ];
    for (arguments, hint) in [
        (&["--ip-address", "0.0.0.0"][..], "--allowed-network"),
        (&["--allowed-network", "0.0.0.0/0"], "covers every address"),
        (&["--allowed-network", "::/0"], "covers every address"),
        (&["--allowed-network", "10.0.0.0/4"], "other machines"),
        (
            &["--allowed-user", "no-such-user-here"],
            "no-such-user-here",
        ),
        (&["--access-token", "", "--root-url", "x"], "upstream"),
    ] {
        let (code, stdout, stderr) = run(&token, arguments);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(hint), "{stderr}");
        assert!(!format!("{stdout}{stderr}").contains(ROOT_KEY));
    }
}
