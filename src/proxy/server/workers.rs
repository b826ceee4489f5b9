//! On which threads connections are served: the one place where that is chosen.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::proxy::listener::Incoming;

/// Where connections' tasks run.
#[derive(Debug, Default)]
pub enum Workers {
    /// In the runtime that accepts them.
    #[default]
    CurrentRuntime,
    /// Each on one of several threads, for its whole life: nothing is stolen between them.
    Pinned(Pinned),
}

/// Threads with a runtime each. They end when this is dropped.
#[derive(Debug)]
pub struct Pinned {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
    _running: watch::Sender<()>,
}

impl Workers {
    /// `threads` threads of their own; at least one.
    ///
    /// # Errors
    /// When the system gives no thread.
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

    /// Runs `serve` on the connection, wherever that is, and tells it which worker that
    /// is. `None` when the system does not let the connection go there.
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
            // Ends with an error when the sender is gone: that is the signal.
            let _ = runtime.block_on(stopped.changed());
        })?;
    Ok(handle)
}
