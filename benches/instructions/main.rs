//! Counts the instructions that hawkgate needs for one GET and one POST of 1 KiB with a cached
//! token and a Hawk signature, under `valgrind --tool=callgrind`. Unlike time, they hardly depend
//! on what else the machine does.
//!
//! `cargo test --bench instructions`, which `./test` runs, measures a debug build in which only
//! hawkgate's own code is optimised, because its dependencies are then those of the tests, and
//! fails if a count exceeds `expected.toml` by more than the tolerance in it.
//! `HAWKGATE_UPDATE=1` writes the counts measured.
//!
//! `cargo bench --bench instructions` measures the release build, and lists the functions that
//! the instructions belong to.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark waits in real time, prints, and panics on any failure"
)]

mod callgrind;
mod expected;
#[allow(dead_code, reason = "each benchmark uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;

use callgrind::{Lab, Profile};
use support::http1::Request;
use support::upstream::path;

/// Requests by which the measured run is longer than the one that it is compared with.
const REQUESTS: u64 = 2000;

/// What is counted: a name, a method and the length of the request's body.
const KINDS: [(&str, &str, usize); 2] = [("get", "GET", 0), ("post", "POST", 1024)];

/// Settings of the debug build.
const OPTIMISED: [&str; 4] = [
    "opt-level=2",
    "codegen-units=16",
    "debug-assertions=false",
    "overflow-checks=false",
];

fn main() -> ExitCode {
    // `cargo bench` passes this option, `cargo test` does not.
    let release = std::env::args().any(|arg| arg == "--bench");
    let program = if release {
        build_release()
    } else {
        build_debug()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let profiles = runtime.block_on(measure(&program));
    for (name, profile) in &profiles {
        println!("{name}: {} instructions per request", profile.total());
        if release {
            profile.print_functions();
        }
    }
    let counts = profiles
        .iter()
        .map(|(name, profile)| (*name, profile.total()));
    if release {
        ExitCode::SUCCESS
    } else {
        expected::judge(counts)
    }
}

/// Returns the instructions per request of each kind.
async fn measure(program: &Path) -> Vec<(&'static str, Profile)> {
    let lab = Lab::new(program).await;
    let requests = KINDS.map(|(name, method, body)| {
        let request = Request::new(method, &path(1024), Some(&lab.authorization), body, 1024);
        (name, request)
    });
    let idle = lab.run(&requests, None).await;
    let mut profiles = Vec::new();
    for (name, request) in &requests {
        let busy = lab.run(&requests, Some((request, REQUESTS))).await;
        profiles.push((*name, busy.per_request(&idle, REQUESTS)));
    }
    profiles
}

fn build_debug() -> std::path::PathBuf {
    let settings =
        OPTIMISED.map(|setting| format!("--config=profile.dev.package.hawkgate.{setting}"));
    support::build(&settings.each_ref().map(String::as_str))
}

/// Builds the release with the names of functions in it.
fn build_release() -> std::path::PathBuf {
    support::build(&[
        "--release",
        "--config=profile.release.package.hawkgate.strip='none'",
    ])
}
