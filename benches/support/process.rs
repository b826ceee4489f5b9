//! Child processes, and their CPU time and memory from `/proc`. Their own children are
//! included, because nginx has worker processes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A process that is terminated on drop.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `program` without input or output, except that its errors are shown if
    /// `show_errors`.
    pub(crate) fn start<A: AsRef<std::ffi::OsStr>>(
        program: &Path,
        args: &[A],
        show_errors: bool,
    ) -> Self {
        let errors = if show_errors {
            Stdio::inherit()
        } else {
            Stdio::null()
        };
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        Self(child)
    }

    /// Returns the user and system time used so far by all threads that still run, including
    /// those of children.
    pub(crate) fn cpu(&self) -> Duration {
        self.pids().iter().map(|pid| threads_cpu(*pid)).sum()
    }

    /// Returns the resident memory in KiB, including children.
    pub(crate) fn rss(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Returns the highest resident memory in KiB since [`Self::reset_peak`], including children.
    pub(crate) fn peak_rss(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Starts a new measurement of the highest resident memory.
    pub(crate) fn reset_peak(&self) {
        for pid in self.pids() {
            // proc_pid_clear_refs(5): 5 resets VmHWM to the current VmRSS.
            fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("clear_refs");
        }
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        // Twice at most: hawkgate drains after the first SIGTERM and exits on the second. Not
        // SIGKILL, which would orphan the workers of nginx: its master forwards SIGTERM to them.
        for _ in 0..2 {
            let Ok(None) = self.0.try_wait() else { return };
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            for _ in 0..100 {
                if !matches!(self.0.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn status(&self, name: &str) -> u64 {
        self.pids()
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
            .filter_map(|status| {
                let line = status.lines().find(|line| line.starts_with(name))?;
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
        self.terminate();
    }
}

/// The first field of a thread's `schedstat` is its time on a CPU in nanoseconds.
fn threads_cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of a process");
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split_whitespace().next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum()
}
