//! Graceful shutdown: the state of a drain, and the registry of running tasks.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The drain state shared by all tasks of one server.
#[derive(Clone)]
pub(super) struct Controller(Arc<State>);

struct State {
    /// First step: requests are still served, but each HTTP/1 response closes its connection, so
    /// that callers open the next one elsewhere.
    draining: watch::Sender<bool>,
    /// Second step: no new connections, and the existing ones close after their current
    /// request.
    closing: watch::Sender<bool>,
    /// Last step: all tasks are aborted.
    aborted: watch::Sender<bool>,
    /// The number of running accept loops and connections.
    running: watch::Sender<usize>,
    registry: Mutex<Registry>,
}

/// The tasks to signal and finally to abort. Otherwise each task would have to check the state
/// at every step of every request.
#[derive(Default)]
struct Registry {
    next: u64,
    tasks: HashMap<u64, Entry>,
}

struct Entry {
    signal: Signal,
    /// `None` until [`Controller::set_abort_handle`].
    handle: Option<AbortHandle>,
}

/// Tells one connection to close. Each connection has its own signal, because waiting on a
/// shared channel would take a shared lock twice per request.
#[derive(Clone, Default)]
pub(super) struct Signal(Arc<SignalState>);

#[derive(Default)]
struct SignalState {
    /// The connection closes after its next response.
    draining: AtomicBool,
    /// The connection closes even if it is idle.
    closing: AtomicBool,
    /// The connection closes to make room for another, unless a request is being served.
    evicted: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    /// Whether the next response is the connection's last.
    pub(super) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether the connection has to make room for another.
    pub(super) fn is_evicted(&self) -> bool {
        self.0.evicted.load(Ordering::Acquire)
    }

    /// Ready once an idle connection has to close. Only one task may poll it or
    /// [`Signal::poll_evicted`].
    pub(super) fn poll_closing(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flag(&self.0.closing, cx)
    }

    /// Ready once a connection that serves no request has to make room for another.
    pub(super) fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flag(&self.0.evicted, cx)
    }

    /// Returns the output of `future`, or `None` if the connection has to make room for another
    /// before that.
    pub(super) async fn unless_evicted<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            self.poll_evicted(cx).map(|()| None)
        })
        .await
    }

    /// Tells the connection to make room for another.
    pub(super) fn evict(&self) {
        self.0.evicted.store(true, Ordering::Release);
        self.set_closing();
    }

    fn poll_flag(&self, flag: &AtomicBool, cx: &mut Context<'_>) -> Poll<()> {
        let is_set = || flag.load(Ordering::Acquire);
        if !is_set() {
            self.0.waker.register(cx.waker());
        }
        // Checked again: the flag may have been set before the waker was registered.
        if is_set() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Tells the connection to close once it serves no request.
    pub(super) fn set_closing(&self) {
        self.set_draining();
        self.0.closing.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// Counts a task as running until dropped.
pub(super) struct TaskGuard {
    controller: Controller,
    id: u64,
    signal: Signal,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.controller.registry().tasks.remove(&self.id);
        let running = &self.controller.0.running;
        running.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl TaskGuard {
    /// Returns the id for [`Controller::set_abort_handle`].
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the signal that tells this task to close.
    pub(super) fn signal(&self) -> Signal {
        self.signal.clone()
    }
}

impl Controller {
    pub(super) fn new() -> Self {
        Self(Arc::new(State {
            draining: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            aborted: watch::Sender::new(false),
            running: watch::Sender::new(0),
            registry: Mutex::default(),
        }))
    }

    /// Registers a task, which counts as running until the guard is dropped.
    pub(super) fn register(&self) -> TaskGuard {
        self.0.running.send_modify(|n| *n += 1);
        let mut registry = self.registry();
        let id = registry.next;
        registry.next += 1;
        let signal = Signal::default();
        if *self.0.closing.borrow() {
            signal.set_closing();
        } else if *self.0.draining.borrow() {
            signal.set_draining();
        }
        let entry = Entry {
            signal: signal.clone(),
            handle: None,
        };
        registry.tasks.insert(id, entry);
        TaskGuard {
            controller: self.clone(),
            id,
            signal,
        }
    }

    /// Sets the abort handle of the task registered as `id`. The task may have ended already.
    pub(super) fn set_abort_handle(&self, id: u64, task: AbortHandle) {
        let mut registry = self.registry();
        if *self.0.aborted.borrow() {
            task.abort();
        } else if let Some(entry) = registry.tasks.get_mut(&id) {
            entry.handle = Some(task);
        }
    }

    /// Waits until the second step begins.
    pub(super) async fn closing(&self) {
        wait_until_set(&self.0.closing).await;
    }

    async fn aborted(&self) {
        wait_until_set(&self.0.aborted).await;
    }

    /// Waits until no task is running.
    async fn all_finished(&self) {
        let _ = self.0.running.subscribe().wait_for(|n| *n == 0).await;
    }

    /// Begins the first step, for existing and for new connections.
    fn begin_drain(&self) {
        let registry = self.registry();
        self.0.draining.send_replace(true);
        for entry in registry.tasks.values() {
            entry.signal.set_draining();
        }
    }

    /// Begins the second step, for existing and for new connections.
    fn begin_close(&self) {
        let registry = self.registry();
        self.0.draining.send_replace(true);
        self.0.closing.send_replace(true);
        for entry in registry.tasks.values() {
            entry.signal.set_closing();
        }
    }

    fn abort(&self) {
        self.begin_close();
        let registry = self.registry();
        self.0.aborted.send_replace(true);
        for entry in registry.tasks.values() {
            entry.handle.iter().for_each(AbortHandle::abort);
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        let registry = self.0.registry.lock();
        registry.unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait_until_set(flag: &watch::Sender<bool>) {
    // The sender outlives this borrow, so waiting cannot fail.
    let _ = flag.subscribe().wait_for(|set| *set).await;
}

/// A running server. Dropping the handle does not stop it.
pub struct ServerHandle {
    controller: Controller,
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerHandle")
            .field("running", &*self.controller.0.running.borrow())
            .finish_non_exhaustive()
    }
}

impl ServerHandle {
    pub(super) fn new(controller: Controller) -> Self {
        Self { controller }
    }

    /// Shuts the server down gracefully.
    ///
    /// For `delay`, while load balancers notice that readiness has become false, requests are
    /// still served, but HTTP/1 responses carry `Connection: close`: callers then open their
    /// next connection elsewhere, and none is closed while a request is being sent. After that,
    /// no connections are accepted, idle ones are closed, and busy ones finish their current
    /// request. Any tasks still running after a further `deadline` are aborted.
    ///
    /// Returns once no task is running and every listener is closed. A concurrent second call,
    /// or [`ServerHandle::abort`], can only shorten the drain.
    pub async fn drain(&self, delay: Duration, deadline: Duration) {
        self.controller.begin_drain();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.controller.aborted() => {}
            () = self.controller.closing() => {}
        }
        self.controller.begin_close();
        tokio::select! {
            () = self.controller.all_finished() => {}
            () = self.controller.aborted() => {}
            () = tokio::time::sleep(deadline) => {}
        }
        self.abort();
        self.controller.all_finished().await;
    }

    /// Aborts all tasks.
    pub fn abort(&self) {
        self.controller.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn abort_reaches_tasks_registered_before_and_after_it() {
        let controller = Controller::new();
        let start = |controller: &Controller| {
            let guard = controller.register();
            let id = guard.id();
            let task = tokio::spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
            controller.set_abort_handle(id, task.abort_handle());
            task
        };
        let before = start(&controller);
        controller.abort();
        let after = start(&controller);
        assert!(before.await.unwrap_err().is_cancelled());
        assert!(after.await.unwrap_err().is_cancelled());
        controller.all_finished().await;
        assert!(controller.registry().tasks.is_empty());
    }

    #[tokio::test]
    async fn drain_and_close_signals_reach_existing_and_later_connections() {
        let controller = Controller::new();
        let guard = controller.register();
        let signal = guard.signal();
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move { std::future::poll_fn(|cx| signal.poll_closing(cx)).await }
        });
        tokio::task::yield_now().await;
        assert!(!signal.is_draining() && !waiting.is_finished());
        controller.begin_drain();
        tokio::task::yield_now().await;
        assert!(signal.is_draining() && controller.register().signal().is_draining());
        assert!(
            !waiting.is_finished(),
            "an idle connection stays open while draining"
        );
        controller.begin_close();
        waiting.await.unwrap();
        let later = controller.register().signal();
        assert!(later.is_draining());
        std::future::poll_fn(|cx| later.poll_closing(cx)).await;
    }

    #[tokio::test]
    async fn a_task_that_ended_before_its_handle_was_set_leaves_no_entry() {
        let controller = Controller::new();
        let guard = controller.register();
        let id = guard.id();
        let task = tokio::spawn(async move { drop(guard) });
        let handle = task.abort_handle();
        task.await.unwrap();
        controller.set_abort_handle(id, handle);
        assert!(controller.registry().tasks.is_empty());
    }
}
