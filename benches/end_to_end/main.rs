//! Measures hawkgate end to end, and compares it with other proxies in interleaved rounds: CPU
//! time per request (user and system, from `/proc`), throughput, latency and memory. Everything
//! runs on loopback, for a bounded time. Each proxy has two workers and, except for bare
//! pingora, an access log written to `/dev/null`.
//!
//! `cargo bench --bench end_to_end` builds the release binaries that it measures. nginx (Debian
//! package `nginx-light` or `nginx`) serves as the upstream and as the reference; without it,
//! the upstream is a small Rust server, and the ratios to nginx are omitted.
//!
//! `cargo bench --bench end_to_end -- --rounds 7 --seconds 3 --connections 32`

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::format_collect,
    reason = "a benchmark measures real time, prints, and panics on any failure"
)]

mod load;
mod process;
mod proxies;
mod report;

use std::time::Duration;

use proxies::Proxies;
use report::{Figures, Report};

/// The extent of the measurement.
struct Options {
    rounds: usize,
    seconds: u64,
    connections: usize,
}

impl Options {
    fn from_args() -> Self {
        let args: Vec<String> = std::env::args().collect();
        let value = |name: &str, default: usize| {
            args.iter()
                .position(|a| a == name)
                .and_then(|at| args.get(at + 1)?.parse().ok())
                .unwrap_or(default)
        };
        Self {
            rounds: value("--rounds", 5).clamp(1, 50),
            seconds: value("--seconds", 3).clamp(1, 60) as u64,
            connections: value("--connections", 32).clamp(1, 512),
        }
    }
}

fn main() {
    let options = Options::from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure(&options));
}

async fn measure(options: &Options) {
    let mut proxies = Proxies::start().await;
    let mut report = Report::new(&proxies);
    for round in 0..=options.rounds {
        for variant in &mut proxies.variants {
            // Round 0 warms up caches and connection pools, and is not counted.
            let length = if round == 0 {
                Duration::from_millis(500)
            } else {
                Duration::from_secs(options.seconds)
            };
            let before = variant.process.cpu();
            let run = load::run(variant.target(), options.connections, length).await;
            let cpu = variant.process.cpu().saturating_sub(before);
            if round > 0 {
                report.add(variant.name, Figures::of(&run, cpu, length));
            }
        }
        eprintln!("round {round} of {}", options.rounds);
    }
    for variant in &mut proxies.variants {
        let idle_rss = variant.idle_rss;
        let connections = load::open_idle(variant.target(), 1000).await;
        report.memory(variant.name, idle_rss, variant.process.rss());
        drop(connections);
    }
    report.start_up(proxies.time_to_ready().await);
    report.print();
}
