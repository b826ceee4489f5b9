//! The threads that serve connections.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::proxy::listener::Incoming;

/// Determines where the tasks of connections run.
#[derive(Debug, Default)]
pub enum Workers {
    /// They run in the runtime that accepts the connections.
    #[default]
    CurrentRuntime,
    /// Each runs on one of several threads for its whole lifetime, without work stealing.
    Pinned(Pinned),
}

/// Threads with one runtime each. They end when this value is dropped.
#[derive(Debug)]
pub struct Pinned {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
    _running: watch::Sender<()>,
}

impl Workers {
    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// Returns an error if the system cannot start a thread.
    pub fn pinned(threads: usize) -> io::Result<Self> {
        let (running, stopped) = watch::channel(());
        let runtimes = (0..threads.max(1))
            .map(|index| start_thread(index, stopped.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self::Pinned(Pinned {
            runtimes,
            next: AtomicUsize::new(0),
            _running: running,
        }))
    }

    /// Spawns `serve` with the connection and the index of its worker. Returns `None` if the
    /// connection cannot be moved to that worker.
    pub(super) fn spawn<F, T>(&self, incoming: Incoming, serve: F) -> Option<AbortHandle>
    where
        F: FnOnce(Incoming, usize) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::CurrentRuntime => Some(tokio::spawn(serve(incoming, 0)).abort_handle()),
            Self::Pinned(pinned) => pinned.spawn(incoming, serve),
        }
    }
}

impl Pinned {
    fn spawn<F, T>(&self, incoming: Incoming, serve: F) -> Option<AbortHandle>
    where
        F: FnOnce(Incoming, usize) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let worker = turn % self.runtimes.len().max(1);
        let runtime = self.runtimes.get(worker)?;
        let detached = incoming.detach().ok()?;
        let task = runtime.spawn(async move {
            if let Ok(incoming) = Incoming::attach(detached) {
                serve(incoming, worker).await;
            }
        });
        Some(task.abort_handle())
    }
}

fn start_thread(index: usize, mut stopped: watch::Receiver<()>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name(format!("hawkgate-{index}"))
        .spawn(move || {
            // Returns when the sender is dropped, which is the signal to stop.
            let _ = runtime.block_on(stopped.changed());
        })?;
    Ok(handle)
}
