//! Reports medians and ratios of the measurements.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::load::Run;
use crate::proxies::{FULL, NGINX, PASS_THROUGH, Proxies};

/// The figures of one proxy in one round.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Figures {
    /// Computes the figures of a run for which the proxy used `cpu`.
    pub(crate) fn of(run: &Run, cpu: Duration, length: Duration) -> Self {
        let mut sorted = run.latencies.clone();
        sorted.sort_unstable();
        let quantile = |q: f64| f64::from(sorted[((sorted.len() - 1) as f64 * q) as usize]);
        let count = sorted.len() as f64;
        Self {
            cpu_us: cpu.as_secs_f64() * 1e6 / count,
            per_second: count / length.as_secs_f64(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
        }
    }
}

/// All measurements.
pub(crate) struct Report {
    order: Vec<&'static str>,
    rounds: BTreeMap<&'static str, Vec<Figures>>,
    memory: BTreeMap<&'static str, (u64, u64)>,
    start_up: Vec<Duration>,
}

impl Report {
    /// An empty report, in the order of `proxies`.
    pub(crate) fn new(proxies: &Proxies) -> Self {
        Self {
            order: proxies.variants.iter().map(|v| v.name).collect(),
            rounds: BTreeMap::new(),
            memory: BTreeMap::new(),
            start_up: Vec::new(),
        }
    }

    /// Adds the figures of one round.
    pub(crate) fn add(&mut self, variant: &'static str, figures: Figures) {
        self.rounds.entry(variant).or_default().push(figures);
    }

    /// Adds resident memory in KiB: idle, and with 1,000 open connections.
    pub(crate) fn memory(&mut self, variant: &'static str, idle: u64, connected: u64) {
        self.memory.insert(variant, (idle, connected));
    }

    /// Sets the times from start to readiness.
    pub(crate) fn start_up(&mut self, times: Vec<Duration>) {
        self.start_up = times;
    }

    fn median(&self, variant: &str, of: impl Fn(&Figures) -> f64) -> f64 {
        let rounds = self.rounds.get(variant).map_or(&[][..], Vec::as_slice);
        median(rounds.iter().map(of).collect())
    }

    /// Returns the median of the ratios of CPU time within each round, which cancels out drift
    /// of the machine's speed.
    fn ratio(&self, a: &str, b: &str) -> Option<f64> {
        let (a, b) = (self.rounds.get(a)?, self.rounds.get(b)?);
        Some(median(
            a.iter().zip(b).map(|(a, b)| a.cpu_us / b.cpu_us).collect(),
        ))
    }

    /// Prints the figures, and compares the measured values with their targets.
    pub(crate) fn print(&self) {
        println!(
            "\n{:<28} {:>10} {:>10} {:>9} {:>9} {:>11} {:>12}",
            "variant", "CPU us/req", "req/s", "p50 us", "p99 us", "RSS idle", "RSS at 1000"
        );
        for name in &self.order {
            let (idle, connected) = self.memory.get(name).copied().unwrap_or_default();
            println!(
                "{name:<28} {:>10.1} {:>10.0} {:>9.0} {:>9.0} {:>7.1} MiB {:>8.1} MiB",
                self.median(name, |f| f.cpu_us),
                self.median(name, |f| f.per_second),
                self.median(name, |f| f.p50_us),
                self.median(name, |f| f.p99_us),
                idle as f64 / 1024.0,
                connected as f64 / 1024.0,
            );
        }
        println!("\n{:<58} {:>9} {:>9}", "", "target", "measured");
        let line = |what: &str, target: &str, measured: String| {
            println!("{what:<58} {target:>9} {measured:>9}");
        };
        let shown = |ratio: Option<f64>| ratio.map_or("no nginx".into(), |r| format!("{r:.2}"));
        line(
            "CPU per request, full path / nginx proxy_pass",
            "<= 1.50",
            shown(self.ratio(FULL, NGINX)),
        );
        line(
            "CPU per request, full path / bare pingora pass-through",
            "<= 1.10",
            shown(self.ratio(FULL, PASS_THROUGH)),
        );
        let (idle, connected) = self.memory.get(FULL).copied().unwrap_or_default();
        line(
            "RSS idle, MiB",
            "<= 16",
            format!("{:.1}", idle as f64 / 1024.0),
        );
        line(
            "RSS at 1,000 connections, MiB",
            "<= 64",
            format!("{:.1}", connected as f64 / 1024.0),
        );
        let ready = median(
            self.start_up
                .iter()
                .map(|d| d.as_secs_f64() * 1e3)
                .collect(),
        );
        line(
            "start to ready with a JWKS file, ms",
            "<= 100",
            format!("{ready:.0}"),
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
