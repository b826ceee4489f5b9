//! Removes the unusable connections of the pools of both protocols.

use std::sync::{Arc, Weak};
use std::time::Duration;

/// The interval at which unusable connections are removed.
const INTERVAL: Duration = Duration::from_secs(1);

/// A pool of connections to upstreams.
pub(super) trait Sweep: Send + Sync + 'static {
    /// Closes unusable connections. Returns whether any connections are left.
    fn remove_unusable(&self) -> bool;
}

/// Starts to sweep `pool` until it is empty or dropped. Must be called in a Tokio runtime.
pub(super) fn start<P: Sweep>(pool: &Arc<P>) {
    tokio::spawn(sweep(Arc::downgrade(pool)));
}

async fn sweep<P: Sweep>(pool: Weak<P>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        match pool.upgrade() {
            Some(pool) if pool.remove_unusable() => {}
            _ => return,
        }
    }
}
