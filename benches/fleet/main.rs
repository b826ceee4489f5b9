//! The figures of a fleet: real hawkgate processes that share a real Valkey or Redis, in front of an
//! exchange and an upstream that count. Everything runs on loopback, for a bounded time. Larger fleets are
//! simulated.
//!
//! `cargo bench --bench fleet` builds the release binary that it measures. It needs `redis-server`
//! (Debian's package of that name) or `valkey-server` on the path. `-- --help` lists the options.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    clippy::unused_async,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark measures real time, prints, and panics on any failure"
)]

mod client;
mod figures;
mod lab;
mod load;
mod options;
mod provider;
mod report;
mod simulation;
mod store;
#[allow(dead_code, reason = "each benchmark uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use clap::Parser as _;

use lab::Lab;
use options::Options;
use report::Report;

fn main() {
    let options = Options::parse();
    support::raise_descriptor_limit();
    let hawkgate = options
        .hawkgate
        .clone()
        .unwrap_or_else(|| support::build(&["--release"]));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let lab = Lab::new(hawkgate, &options);
        let mut report = Report::default();
        for figure in options.figures() {
            eprintln!("{}", figure.name());
            lab.provider.reset();
            figure.measure(&lab, &options, &mut report).await;
        }
        report.print();
    });
}
