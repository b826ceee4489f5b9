//! What a shared store is worth to a fleet, and what it costs: `cargo bench --bench fleet -- --help`.
// Benchmarks print, measure real time, and may panic.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic
)]

mod simulation;

use std::time::Duration;

use simulation::Scenario;

fn main() {
    for (replicas, revocation) in [(1, false), (100, false), (1, true), (100, true)] {
        let scenario = Scenario {
            replicas,
            users: std::env::var("USERS").map_or(1000, |users| users.parse().expect("a number")),
            pause: Duration::from_secs(10),
            revocation,
        };
        let begun = std::time::Instant::now();
        println!(
            "{scenario:?}: {:?} in {:?}",
            simulation::run(scenario),
            begun.elapsed()
        );
    }
}
