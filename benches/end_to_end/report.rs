//! Medians and ratios of the measurements, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::kinds::{Kind, Load};
use crate::load::Run;
use crate::memory::Memory;
use crate::peers::Peer;

/// The figures of one proxy and kind in one round.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    /// CPU time of the proxy per request or MiB.
    cpu_us: f64,
    /// Requests or MiB.
    per_second: f64,
    p99_us: f64,
}

impl Figures {
    /// Computes the figures of a closed loop.
    pub(crate) fn of(load: Load, run: &Run) -> Self {
        let units = load.units(run.latencies.len());
        Self::new(&run.latencies, run.cpu, run.elapsed, units)
    }

    /// Computes the figures of `units` requests or MiB that took the proxy `cpu`.
    pub(crate) fn new(latencies: &[u32], cpu: Duration, elapsed: Duration, units: f64) -> Self {
        let mut sorted = latencies.to_vec();
        sorted.sort_unstable();
        Self {
            cpu_us: cpu.as_secs_f64() * 1e6 / units,
            per_second: units / elapsed.as_secs_f64(),
            p99_us: f64::from(sorted[(sorted.len() - 1) * 99 / 100]),
        }
    }
}

/// A title, and the contents of each cell.
type Table<'a> = (&'a str, &'a dyn Fn(Kind, Peer) -> Option<String>);

/// All measurements.
#[derive(Default)]
pub(crate) struct Report {
    notes: Vec<String>,
    /// One entry per round.
    figures: BTreeMap<(Kind, Peer), Vec<Figures>>,
    memory: BTreeMap<(Kind, Peer), Memory>,
    start_up: Vec<Duration>,
}

impl Report {
    /// Adds something that could not be measured.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Adds the figures of one round.
    pub(crate) fn add(&mut self, kind: Kind, peer: Peer, figures: Figures) {
        self.figures.entry((kind, peer)).or_default().push(figures);
    }

    /// Adds resident memory.
    pub(crate) fn memory(&mut self, kind: Kind, peer: Peer, memory: Memory) {
        self.memory.insert((kind, peer), memory);
    }

    /// Sets the times from start to readiness.
    pub(crate) fn start_up(&mut self, times: Vec<Duration>) {
        self.start_up = times;
    }

    /// Prints a table for each aspect, with a column for each of `peers`.
    pub(crate) fn print(&self, peers: &[Peer]) {
        let tables: [Table<'_>; 6] = [
            (
                "CPU time, ratio to nginx (median of the rounds)",
                &|kind, peer| Some(format!("{:.2}", self.ratio(kind, peer)?)),
            ),
            ("CPU time, ratio to nginx (of the minima)", &|kind, peer| {
                let minimum = |peer| self.of(kind, peer, minimum, |f| f.cpu_us);
                Some(format!("{:.2}", minimum(peer)? / minimum(Peer::Nginx)?))
            }),
            (
                "CPU time, µs per request or MiB (median; minimum)",
                &|kind, peer| {
                    let median = self.of(kind, peer, median, |f| f.cpu_us)?;
                    let minimum = self.of(kind, peer, minimum, |f| f.cpu_us)?;
                    Some(format!("{median:.1}; {minimum:.1}"))
                },
            ),
            ("Requests or MiB per second (median)", &|kind, peer| {
                let per_second = self.of(kind, peer, median, |f| f.per_second)?;
                Some(format!("{per_second:.0}"))
            }),
            (
                "99th percentile of latency, ms (median; over nginx)",
                &|kind, peer| {
                    let p99 = self.of(kind, peer, median, |f| f.p99_us)?;
                    let over = self.p99_over_nginx(kind, peer);
                    Some(format!("{:.2}{}", p99 / 1e3, shown_over(over)))
                },
            ),
            (
                "Resident memory, MiB (at start or before the transfer → then)",
                &|kind, peer| self.memory.get(&(kind, peer)).map(|m| shown_memory(*m)),
            ),
        ];
        for (title, cell) in tables {
            print_table(title, peers, cell);
        }
        if !self.start_up.is_empty() {
            let ready = self.start_up.iter().map(|time| time.as_secs_f64() * 1e3);
            println!(
                "\nstart to ready with a JWK set from a file: {:.0} ms",
                median(ready.collect())
            );
        }
        for note in &self.notes {
            println!("\n{note}");
        }
    }

    fn rounds(&self, kind: Kind, peer: Peer) -> Option<&[Figures]> {
        self.figures.get(&(kind, peer)).map(Vec::as_slice)
    }

    /// Reduces one figure of all rounds.
    fn of(
        &self,
        kind: Kind,
        peer: Peer,
        reduce: impl Fn(Vec<f64>) -> f64,
        figure: impl Fn(&Figures) -> f64,
    ) -> Option<f64> {
        let rounds = self.rounds(kind, peer)?;
        Some(reduce(rounds.iter().map(figure).collect()))
    }

    /// Returns the median of the ratios of CPU time to nginx within each round, which cancels out
    /// drift of the machine's speed.
    fn ratio(&self, kind: Kind, peer: Peer) -> Option<f64> {
        let (rounds, nginx) = (self.rounds(kind, peer)?, self.rounds(kind, Peer::Nginx)?);
        let ratios = rounds.iter().zip(nginx).map(|(a, b)| a.cpu_us / b.cpu_us);
        Some(median(ratios.collect()))
    }

    fn p99_over_nginx(&self, kind: Kind, peer: Peer) -> Option<f64> {
        let (rounds, nginx) = (self.rounds(kind, peer)?, self.rounds(kind, Peer::Nginx)?);
        let differences = rounds.iter().zip(nginx).map(|(a, b)| a.p99_us - b.p99_us);
        Some(median(differences.collect()))
    }
}

fn shown_over(over: Option<f64>) -> String {
    over.map_or(String::new(), |over| format!("; {:+.2}", over / 1e3))
}

fn shown_memory(memory: Memory) -> String {
    let mib = |kib: u64| kib as f64 / 1024.0;
    let mut shown = format!("{:.1} → {:.1}", mib(memory.start), mib(memory.held));
    if memory.missing > 0 {
        let _ = write!(shown, " ({} without an answer)", memory.missing);
    }
    shown
}

/// Prints a table, without the kinds that have no cells.
fn print_table(title: &str, peers: &[Peer], cell: &dyn Fn(Kind, Peer) -> Option<String>) {
    let rows: Vec<String> = Kind::ALL
        .into_iter()
        .filter_map(|kind| {
            let cells: Vec<_> = peers.iter().map(|peer| cell(kind, *peer)).collect();
            cells.iter().any(Option::is_some).then(|| {
                let cells = cells.into_iter().map(|cell| cell.unwrap_or("–".into()));
                format!(
                    "| {} | {} |",
                    kind.title(),
                    cells.collect::<Vec<_>>().join(" | ")
                )
            })
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let titles: Vec<_> = peers.iter().map(|peer| peer.title()).collect();
    println!("\n{title}:\n\n| | {} |", titles.join(" | "));
    println!("|---|{}", "---|".repeat(peers.len()));
    println!("{}", rows.join("\n"));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn minimum(values: Vec<f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}
