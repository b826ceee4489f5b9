//! Child processes, and their CPU time and memory from `/proc`. Their own children are
//! included, because nginx has worker processes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The unit of CPU time in `/proc` (`USER_HZ`): 100 per second on every Linux platform in Rust's
/// tier 1.
const TICK: Duration = Duration::from_millis(10);

/// A process that is terminated on drop.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `program` without input or output.
    pub(crate) fn start(program: &Path, args: &[&str]) -> Self {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        Self(child)
    }

    /// Returns the user and system time used so far, including children.
    pub(crate) fn cpu(&self) -> Duration {
        self.pids()
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            .map(|stat| {
                // The second field is the command in parentheses, which may contain anything.
                let fields = stat.rsplit(')').next().unwrap_or_default().to_owned();
                let ticks: u32 = fields
                    .split_whitespace()
                    .skip(11)
                    .take(2)
                    .filter_map(|n| n.parse::<u32>().ok())
                    .sum();
                TICK * ticks
            })
            .sum()
    }

    /// Returns the resident memory in KiB, including children.
    pub(crate) fn rss(&self) -> u64 {
        self.pids()
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
            .filter_map(|status| {
                let line = status.lines().find(|l| l.starts_with("VmRSS:"))?.to_owned();
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .sum()
    }

    fn pids(&self) -> Vec<u32> {
        let pid = self.0.id();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|p| p.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM, because nginx's master forwards it to its workers; SIGKILL would orphan them.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
