//! Waits for files to change. They are looked at again and again, which works alike on every
//! file system, in containers, through symbolic links that are swapped (a Kubernetes
//! ConfigMap's `..data`) and for files that are renamed into place; a second is soon enough.

use std::future::pending;
use std::time::Duration;

use super::{ReloadResult, Stamps};

/// Files that never stand still for two looks are taken as they are after so many.
const MOST_LOOKS: u32 = 10;

/// Looks at files.
pub(super) struct Watch {
    every: Option<Duration>,
    /// What the last reload found, or the start.
    known: Stamps,
    /// What the last look found.
    seen: Stamps,
    /// Looks since the first that differed from what is known.
    looks: u32,
}

impl Watch {
    /// Compares with `known` at this interval, if any.
    pub(super) fn new(known: Stamps, every: Option<Duration>) -> Self {
        Self {
            every,
            seen: known.clone(),
            known,
            looks: 0,
        }
    }

    /// Waits until some files are not what is known and stand still, so that one reload
    /// answers several writes; returns their names. Cancel-safe.
    pub(super) async fn changed(&mut self) -> Vec<String> {
        let Some(every) = self.every else {
            return pending().await;
        };
        loop {
            tokio::time::sleep(every).await;
            let before = self.seen.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || before.again()).await else {
                continue;
            };
            let still = now == self.seen;
            self.seen = now;
            if self.seen == self.known {
                self.looks = 0;
                continue;
            }
            self.looks += 1;
            if still || self.looks >= MOST_LOOKS {
                self.looks = 0;
                let changed = self.seen.changed_since(&self.known);
                return changed.map(|path| path.display().to_string()).collect();
            }
        }
    }

    /// A reload found `stamps`. After one that failed, what was watched before goes on being
    /// watched: it may mend what is wrong.
    pub(super) fn reloaded(&mut self, result: ReloadResult, stamps: Stamps) {
        self.known = match result {
            ReloadResult::Success => stamps,
            ReloadResult::Invalid => stamps.and(std::mem::take(&mut self.seen)),
        };
        self.seen = self.known.clone();
        self.looks = 0;
    }
}
