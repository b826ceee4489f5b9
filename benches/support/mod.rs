//! What the benchmarks that run the built program share.

pub(crate) mod hawkgate;
pub(crate) mod http1;
pub(crate) mod identity;
pub(crate) mod process;
pub(crate) mod session;
pub(crate) mod upstream;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use tokio::net::TcpStream;

/// Returns a port that is free at the moment, for a program that cannot be told to choose one.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Waits until a server listens on `port`, for at most `limit`.
pub(crate) async fn wait_for(port: u16, limit: Duration) {
    let connect = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, connect)
        .await
        .unwrap_or_else(|_| panic!("no server listens on port {port}"));
}

/// Raises the soft limit of file descriptors to the hard one, for this process and those that it
/// starts.
pub(crate) fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("more file descriptors");
}

/// Runs `cargo build` with `args` for the program, and returns its path.
pub(crate) fn build(args: &[&str]) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // Some build scripts (such as ring's, which reads `CARGO_PKG_*`) would consider the
    // variables that cargo sets for this benchmark a changed environment, and half of the
    // dependencies would be rebuilt each time.
    let prefixes = [
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
        "CARGO_PRIMARY_",
    ];
    for (name, _) in std::env::vars() {
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .args([
            "build",
            "--locked",
            "--message-format=json-render-diagnostics",
        ])
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "the build failed");
    let messages = String::from_utf8(output.stdout).expect("UTF-8");
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .next_back();
    executable.expect("a program")
}
