//! Counts the instructions that hawkgate needs for one GET and one POST of 1 KiB with a cached
//! token and a Hawk signature, and for the GET with the cookie of a session, under `valgrind --tool=callgrind`. Unlike time, they hardly depend
//! on what else the machine does.
//!
//! `cargo test --config benches/instructions/debug.toml --bench instructions`, which `./test` runs,
//! measures a debug build in which only hawkgate's own code is optimised, because its dependencies
//! are then those of the tests. It fails if a count exceeds `expected.toml` by more than the
//! tolerance in it. `HAWKGATE_UPDATE=1` writes the counts measured.
//!
//! `cargo bench --bench instructions` measures the release build, and lists the functions that
//! the instructions belong to. `-- --hawkgate PATH` measures another build.

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

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use callgrind::{Lab, Profile};
use support::http1::Request;
use support::upstream::path;

/// Requests by which the measured run is longer than the one that it is compared with.
const REQUESTS: u64 = 2000;

/// What is counted: a name, a method, the length of the request's body, and whether it has the cookie
/// of a session instead of a token.
const KINDS: [(&str, &str, usize, bool); 3] = [
    ("get", "GET", 0, false),
    ("post", "POST", 1024, false),
    ("get-cookie", "GET", 0, true),
];

/// Counts the instructions per request.
#[derive(Parser)]
struct Options {
    /// The hawkgate to measure.
    #[arg(long)]
    hawkgate: Option<PathBuf>,
    /// Lists functions; with `cargo bench`, which passes this option.
    #[arg(long)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let program = options.hawkgate.unwrap_or_else(|| {
        if options.bench {
            build_release()
        } else {
            env!("CARGO_BIN_EXE_hawkgate").into()
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let profiles = runtime.block_on(measure(&program));
    for (name, profile) in &profiles {
        println!("{name}: {} instructions per request", profile.total());
        if options.bench {
            profile.print_functions();
        }
    }
    if options.bench {
        return ExitCode::SUCCESS;
    }
    expected::judge(
        profiles
            .iter()
            .map(|(name, profile)| (*name, profile.total())),
    )
}

/// Returns the instructions per request of each kind.
async fn measure(program: &Path) -> Vec<(&'static str, Profile)> {
    let lab = Lab::new(program).await;
    let requests = KINDS.map(|(name, method, body, cookie)| {
        let credentials = &lab.credentials[usize::from(cookie)];
        let request = Request::new(method, &path(1024), Some(credentials), body, 1024);
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

/// Builds the release with the names of its functions.
fn build_release() -> PathBuf {
    support::build(&[
        "--release",
        "--config=profile.release.package.hawkgate.strip='none'",
    ])
}
