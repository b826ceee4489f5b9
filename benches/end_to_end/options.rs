//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::kinds::Kind;
use crate::peers::Peer;

/// Compares hawkgate with other proxies: CPU time, latency and memory.
#[derive(Parser)]
pub(crate) struct Options {
    /// Rounds over all kinds and peers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
    /// Seconds for each kind and peer in a round.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Requests in flight: connections, or HTTP/2 streams.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) connections: u16,
    /// Only these kinds.
    #[arg(long, value_delimiter = ',', value_parser = kind, default_values_t = Kind::ALL.map(Kind::name))]
    kinds: Vec<&'static str>,
    /// Only these peers; nginx is always measured, as the reference.
    #[arg(long, value_delimiter = ',', value_parser = peer, default_values_t = Peer::ALL.map(Peer::name))]
    peers: Vec<&'static str>,
    /// The hawkgate to measure, instead of a release build of these sources.
    #[arg(long)]
    pub(crate) hawkgate: Option<PathBuf>,
    /// Another build of hawkgate to compare it with.
    #[arg(long)]
    pub(crate) other: Option<PathBuf>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// The length of each run in a round.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Returns the kinds to measure.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let chosen = |kind: &Kind| self.kinds.contains(&kind.name());
        Kind::ALL.into_iter().filter(chosen).collect()
    }

    /// Returns the peers to measure.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let chosen = |peer: &Peer| match peer {
            Peer::Nginx => true,
            Peer::Other => self.other.is_some(),
            _ => self.peers.contains(&peer.name()),
        };
        Peer::ALL.into_iter().filter(chosen).collect()
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("not between 0.1 and 60".into()),
    }
}

fn kind(text: &str) -> Result<&'static str, String> {
    known(text, &Kind::ALL.map(Kind::name))
}

fn peer(text: &str) -> Result<&'static str, String> {
    known(text, &Peer::ALL.map(Peer::name))
}

fn known(text: &str, names: &[&'static str]) -> Result<&'static str, String> {
    let found = names.iter().find(|name| **name == text);
    found
        .copied()
        .ok_or_else(|| format!("not one of {}", names.join(", ")))
}
