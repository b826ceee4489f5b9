//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::figures::Figure;

/// Measures a fleet of hawkgate processes that share a store.
#[derive(Parser)]
pub(crate) struct Options {
    /// Only these figures.
    #[arg(long, value_delimiter = ',', value_parser = figure, default_values_t = Figure::ALL.map(Figure::name))]
    figures: Vec<&'static str>,
    /// Processes in the fleet.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    processes: u16,
    /// Users, each with a token of their own.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    users: u32,
    /// Seconds of each part of a measurement under load.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Requests a second at each process, in measurements under load.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// Rounds of the comparison of a hit with and without the store.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// Replicas in the simulation.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub(crate) simulated_replicas: u16,
    /// Users in the simulation.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub(crate) simulated_users: u32,
    /// Also count what the same processes do without a store.
    #[arg(long)]
    pub(crate) without: bool,
    /// The hawkgate to measure, instead of a release build of these sources.
    #[arg(long)]
    pub(crate) hawkgate: Option<PathBuf>,
    /// The store's server, instead of `redis-server` or `valkey-server` on the path.
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let chosen = |figure: &Figure| self.figures.contains(&figure.name());
        Figure::ALL.into_iter().filter(chosen).collect()
    }

    pub(crate) fn processes(&self) -> usize {
        self.processes.into()
    }

    pub(crate) fn users(&self) -> usize {
        self.users as usize
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn figure(text: &str) -> Result<&'static str, String> {
    let names = Figure::ALL.map(Figure::name);
    let found = names.iter().find(|name| **name == text);
    found
        .copied()
        .ok_or_else(|| format!("not one of {}", names.join(", ")))
}
