//! Waits for files to change, by polling. Polling works the same on every file system, in
//! containers, for symbolic links that are replaced (a Kubernetes ConfigMap's `..data`) and
//! for files that are renamed into place; a delay of a second is acceptable.

use std::future::pending;
use std::time::Duration;

use super::{Fingerprints, ReloadResult};

/// Files that keep changing are accepted as they are after this many checks.
const MAX_CHECKS: u32 = 10;

/// Polls files for changes.
pub(super) struct Watch {
    every: Option<Duration>,
    /// The state at the last reload, or at start-up.
    applied: Fingerprints,
    /// The state at the last check.
    checked: Fingerprints,
    /// The number of checks since the first that differed from `applied`.
    checks: u32,
}

impl Watch {
    /// Compares with `applied` at the interval `every`, if any.
    pub(super) fn new(applied: Fingerprints, every: Option<Duration>) -> Self {
        Self {
            every,
            checked: applied.clone(),
            applied,
            checks: 0,
        }
    }

    /// Waits until files have changed and are stable, so that several writes cause one reload.
    /// Returns the names of the changed files. Cancel-safe.
    pub(super) async fn changed(&mut self) -> Vec<String> {
        let Some(every) = self.every else {
            return pending().await;
        };
        loop {
            tokio::time::sleep(every).await;
            let before = self.checked.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || before.again()).await else {
                continue;
            };
            let stable = now == self.checked;
            self.checked = now;
            if self.checked == self.applied {
                self.checks = 0;
                continue;
            }
            self.checks += 1;
            if stable || self.checks >= MAX_CHECKS {
                self.checks = 0;
                let changed = self.checked.changed_since(&self.applied);
                return changed.map(|path| path.display().to_string()).collect();
            }
        }
    }

    /// Records that a reload found `fingerprints`. After a failed reload the files watched before
    /// remain watched as well, because a change to one of them may fix the problem.
    pub(super) fn reloaded(&mut self, result: ReloadResult, fingerprints: Fingerprints) {
        self.applied = match result {
            ReloadResult::Success => fingerprints,
            ReloadResult::Invalid => fingerprints.and(std::mem::take(&mut self.checked)),
        };
        self.checked = self.applied.clone();
        self.checks = 0;
    }
}
