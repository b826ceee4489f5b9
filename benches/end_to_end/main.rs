//! End to end, beside other proxies, in one interleaved run: CPU per request (user and
//! system time from `/proc`), throughput, latency, memory. Loopback only, bounded in time.
//! Each proxy has two workers and, but for bare pingora, an access log that goes to
//! `/dev/null`.
//!
//! `cargo bench --bench end_to_end` builds the release binaries it measures. nginx
//! (Debian package `nginx-light` or `nginx`) is the yardstick; without it the upstream is
//! a small Rust server and the ratios to nginx are left out.
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
    reason = "a benchmark measures real time, prints, and stops at the first surprise"
)]

mod load;
mod process;
mod report;
mod scene;

use std::time::Duration;

use report::{Figures, Report};
use scene::Scene;

/// How much to measure.
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
    let mut scene = Scene::set().await;
    let mut report = Report::new(&scene);
    for round in 0..=options.rounds {
        for variant in &mut scene.variants {
            // The first round warms caches and pools and is not counted.
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
    for variant in &mut scene.variants {
        let idle = variant.idle_rss;
        let held = load::hold(variant.target(), 1000).await;
        report.memory(variant.name, idle, variant.process.rss());
        drop(held);
    }
    report.start_up(scene.time_to_ready().await);
    report.print();
}
