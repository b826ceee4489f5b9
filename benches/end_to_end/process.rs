//! Child processes and what `/proc` says of them (and of their own children: nginx's
//! workers).

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Linux reports CPU time in hundredths of a second to user space on every platform that
/// Rust's tier 1 knows.
const TICK: Duration = Duration::from_millis(10);

/// A process that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `program`, silent.
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

    /// User and system time so far, children included.
    pub(crate) fn cpu(&self) -> Duration {
        self.family()
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            .map(|stat| {
                // The command's name stands in parentheses and may hold anything.
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

    /// Resident memory in KiB, children included.
    pub(crate) fn rss(&self) -> u64 {
        self.family()
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
            .filter_map(|status| {
                let line = status.lines().find(|l| l.starts_with("VmRSS:"))?.to_owned();
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .sum()
    }

    fn family(&self) -> Vec<u32> {
        let pid = self.0.id();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|p| p.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx's master passes SIGTERM on to its workers; SIGKILL would orphan them.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
