//! The table at the end.

use std::time::Duration;

use crate::scenario::Outcome;

/// All outcomes of a run.
#[derive(Default)]
pub(crate) struct Report(Vec<Outcome>);

impl Report {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        println!(
            "{:28} seed {:3}  {}",
            outcome.name,
            outcome.seed,
            if outcome.faults.is_empty() {
                "ok"
            } else {
                "FAILED"
            }
        );
        self.0.push(outcome);
    }

    pub(crate) fn failed(&self) -> bool {
        self.0.iter().any(|outcome| !outcome.faults.is_empty())
    }

    /// Prints the table that `docs/reliability.md` shows, and what failed.
    pub(crate) fn print(&self, elapsed: Duration, seed: u64) {
        println!(
            "\n| scenario | good requests | answered 200 | others while disturbed | forged tokens refused | recovered after | memory before, after |"
        );
        println!("|---|---|---|---|---|---|---|");
        for outcome in &self.0 {
            println!("{}", outcome.row());
        }
        for outcome in self.0.iter().filter(|outcome| !outcome.faults.is_empty()) {
            println!("\n{} (seed {}) failed:", outcome.name, outcome.seed);
            for fault in &outcome.faults {
                println!("- {fault}");
            }
        }
        let failed = self
            .0
            .iter()
            .filter(|outcome| !outcome.faults.is_empty())
            .count();
        println!(
            "\n{} runs, {failed} failed, {} s, first seed {seed}",
            self.0.len(),
            elapsed.as_secs()
        );
    }
}
