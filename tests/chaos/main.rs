//! The chaos suite: hawkgate as a process, with its identity provider, its exchange and its
//! upstream as processes of their own, each of which is broken in turn while callers keep sending
//! requests. `docs/reliability.md` explains the scenarios and how to run them.
//!
//! In every scenario: no forged token is accepted, no caller gets an answer meant for another, no
//! answer contains a credential, no request is lost for which valid credentials exist, and
//! afterwards hawkgate uses as much memory as before.

// This whole binary is a test; clippy sees only the functions marked `#[test]` as such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::print_stderr)]
// Everything here happens in real time, hawkgate included.
#![allow(clippy::disallowed_methods)]

mod arguments;
mod callers;
mod hawkgate;
mod peer;
mod report;
mod scenario;
mod tally;
mod tokens;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use arguments::{Arguments, Command};
use report::Report;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match arguments::parse(std::env::args().skip(1)) {
        Ok(Command::Peer(role)) => runtime.block_on(peer::serve(role)),
        Ok(Command::List) => {
            for scenario in scenario::ALL {
                println!("{}: test", scenario.name);
            }
            ExitCode::SUCCESS
        }
        Ok(Command::Run(arguments)) => runtime.block_on(run(arguments)),
        Err(usage) => {
            eprintln!("{usage}");
            ExitCode::from(2)
        }
    }
}

/// Runs the scenarios, some at the same time; then again with other seeds until the time is up.
async fn run(arguments: Arguments) -> ExitCode {
    let started = Instant::now();
    let mut seed = arguments.seed;
    let mut report = Report::default();
    loop {
        let permits = Arc::new(Semaphore::new(arguments.parallel));
        let mut running = JoinSet::new();
        for scenario in arguments.scenarios() {
            let permits = Arc::clone(&permits);
            running.spawn(async move {
                let _permit = permits.acquire_owned().await;
                scenario::run(scenario, seed).await
            });
        }
        while let Some(outcome) = running.join_next().await {
            report.add(outcome.unwrap());
        }
        if started.elapsed() >= arguments.duration || report.failed() {
            break;
        }
        seed += 1;
    }
    report.print(started.elapsed(), arguments.seed);
    if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
