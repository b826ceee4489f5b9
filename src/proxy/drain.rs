//! The stages of an ending, and what still runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Shared by everything that one server runs.
#[derive(Clone)]
pub(super) struct Controller(Arc<State>);

struct State {
    /// Everything is served, but whoever is draining is sent elsewhere for the next time.
    draining: watch::Sender<bool>,
    /// No new registry; those there are end with their current request.
    closing: watch::Sender<bool>,
    /// Everything ends now.
    aborted: watch::Sender<bool>,
    /// How many accept loops and registry run.
    running: watch::Sender<usize>,
    registry: Mutex<Registry>,
}

/// The tasks to break off at the end. A task that asked for itself whether it should end
/// would ask at every step of every request.
#[derive(Default)]
struct Registry {
    next: u64,
    tasks: HashMap<u64, Entry>,
}

struct Entry {
    signal: Signal,
    /// None until [`Controller::set_abort_handle`].
    handle: Option<AbortHandle>,
}

/// Says to one connection when it has to end. Each has its own: waiting for what all wait
/// for takes a lock that all share, for every request twice.
#[derive(Clone, Default)]
pub(super) struct Signal(Arc<SignalState>);

#[derive(Default)]
struct SignalState {
    /// A connection that is draining ends with that.
    draining: AtomicBool,
    /// One that waits for its next request ends too.
    closing: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    /// Whether the answer that is given next is the connection's last.
    pub(super) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Ready once a connection without a request has to end. For one task at a time.
    pub(super) fn poll_closing(&self, cx: &mut Context<'_>) -> Poll<()> {
        let closing = || self.0.closing.load(Ordering::Acquire);
        if !closing() {
            self.0.waker.register(cx.waker());
        }
        // Again, for it may have been said before the waker was there.
        if closing() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    fn set_closing(&self) {
        self.set_draining();
        self.0.closing.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// Counts as running until dropped.
pub(super) struct TaskGuard {
    control: Controller,
    id: u64,
    signal: Signal,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.control.registry().tasks.remove(&self.id);
        let running = &self.control.0.running;
        running.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl TaskGuard {
    /// For [`Controller::set_abort_handle`].
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// When to end.
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
        let task = Entry {
            signal: signal.clone(),
            handle: None,
        };
        registry.tasks.insert(id, task);
        TaskGuard {
            control: self.clone(),
            id,
            signal,
        }
    }

    /// `task`, which holds the guard with this id or has dropped it already, is broken off
    /// when everything is.
    pub(super) fn set_abort_handle(&self, id: u64, task: AbortHandle) {
        let mut registry = self.registry();
        if *self.0.aborted.borrow() {
            task.abort();
        } else if let Some(known) = registry.tasks.get_mut(&id) {
            known.handle = Some(task);
        }
    }

    /// What pingora takes: true once closing.
    pub(super) fn closing_watch(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
    }

    /// The same for single requests: true once each is to be its connection's last.
    pub(super) fn draining_watch(&self) -> watch::Receiver<bool> {
        self.0.draining.subscribe()
    }

    pub(super) async fn closing(&self) {
        wait_until_set(&self.0.closing).await;
    }

    async fn aborted(&self) {
        wait_until_set(&self.0.aborted).await;
    }

    async fn all_finished(&self) {
        let _ = self.0.running.subscribe().wait_for(|n| *n == 0).await;
    }

    /// From now on every answer is its connection's last, whoever is there or comes later.
    fn begin_drain(&self) {
        let registry = self.registry();
        self.0.draining.send_replace(true);
        for task in registry.tasks.values() {
            task.signal.set_draining();
        }
    }

    /// Announces the end to everybody who is there, and who comes later.
    fn begin_close(&self) {
        let registry = self.registry();
        self.0.draining.send_replace(true);
        self.0.closing.send_replace(true);
        for task in registry.tasks.values() {
            task.signal.set_closing();
        }
    }

    fn abort(&self) {
        self.begin_close();
        let registry = self.registry();
        self.0.aborted.send_replace(true);
        for task in registry.tasks.values() {
            task.handle.iter().for_each(AbortHandle::abort);
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        let registry = self.0.registry.lock();
        registry.unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait_until_set(stage: &watch::Sender<bool>) {
    // The sender lives as long as the borrow: no other end than the stage itself.
    let _ = stage
        .subscribe()
        .wait_for(|wait_until_set| *wait_until_set)
        .await;
}

/// A server at work. Dropping it does not stop it.
pub struct ServerHandle {
    control: Controller,
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerHandle")
            .field("running", &*self.control.0.running.borrow())
            .finish_non_exhaustive()
    }
}

impl ServerHandle {
    pub(super) fn new(control: Controller) -> Self {
        Self { control }
    }

    /// Goes on for `delay` (readiness has turned false, and load balancers are to notice), but
    /// HTTP/1 answers say `Connection: begin_close`: whoever keeps a connection and asks again
    /// meanwhile makes his next one elsewhere, instead of having it closed under his
    /// request. Then accepts no more, closes all_finished registry, lets busy ones finish their
    /// request; after `deadline` more breaks off what is left. Returns
    /// when nothing runs any more and every listener is closed. Called again, or with
    /// [`ServerHandle::abort`] in between, it only gets shorter.
    pub async fn drain(&self, delay: Duration, deadline: Duration) {
        self.control.begin_drain();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.control.aborted() => {}
            () = self.control.closing() => {}
        }
        self.control.begin_close();
        tokio::select! {
            () = self.control.all_finished() => {}
            () = self.control.aborted() => {}
            () = tokio::time::sleep(deadline) => {}
        }
        self.abort();
        self.control.all_finished().await;
    }

    /// Breaks everything off.
    pub fn abort(&self) {
        self.control.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn tasks_are_broken_off_whenever_they_began() {
        let control = Controller::new();
        let start = |control: &Controller| {
            let guard = control.register();
            let id = guard.id();
            let task = tokio::spawn(async move {
                let _held = guard;
                pending::<()>().await;
            });
            control.set_abort_handle(id, task.abort_handle());
            task
        };
        let before = start(&control);
        control.abort();
        let after = start(&control);
        assert!(before.await.unwrap_err().is_cancelled());
        assert!(after.await.unwrap_err().is_cancelled());
        control.all_finished().await;
        assert!(control.registry().tasks.is_empty());
    }

    #[tokio::test]
    async fn the_last_call_reaches_who_waits_and_who_comes_later() {
        let control = Controller::new();
        let guard = control.register();
        let signal = guard.signal();
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move { std::future::poll_fn(|cx| signal.poll_closing(cx)).await }
        });
        tokio::task::yield_now().await;
        assert!(!signal.is_draining() && !waiting.is_finished());
        control.begin_drain();
        tokio::task::yield_now().await;
        assert!(signal.is_draining() && control.register().signal().is_draining());
        assert!(!waiting.is_finished(), "who asks for nothing may stay");
        control.begin_close();
        waiting.await.unwrap();
        let later = control.register().signal();
        assert!(later.is_draining());
        std::future::poll_fn(|cx| later.poll_closing(cx)).await;
    }

    #[tokio::test]
    async fn a_task_that_ended_at_once_leaves_nothing() {
        let control = Controller::new();
        let guard = control.register();
        let id = guard.id();
        let task = tokio::spawn(async move { drop(guard) });
        let handle = task.abort_handle();
        task.await.unwrap();
        control.set_abort_handle(id, handle);
        assert!(control.registry().tasks.is_empty());
    }
}
