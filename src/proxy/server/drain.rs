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
pub(super) struct Control(Arc<Stages>);

struct Stages {
    /// Everything is served, but whoever is answered is sent elsewhere for the next time.
    leaving: watch::Sender<bool>,
    /// No new connections; those there are end with their current request.
    closing: watch::Sender<bool>,
    /// Everything ends now.
    aborted: watch::Sender<bool>,
    /// How many accept loops and connections run.
    running: watch::Sender<usize>,
    connections: Mutex<Connections>,
}

/// The tasks to break off at the end. A task that asked for itself whether it should end
/// would ask at every step of every request.
#[derive(Default)]
struct Connections {
    next: u64,
    tasks: HashMap<u64, Task>,
}

struct Task {
    signal: Signal,
    /// None until [`Control::breakable`].
    handle: Option<AbortHandle>,
}

/// Says to one connection when it has to end. Each has its own: waiting for what all wait
/// for takes a lock that all share, for every request twice.
#[derive(Clone, Default)]
pub(in crate::proxy) struct Signal(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// A connection that is answered ends with that.
    answered: AtomicBool,
    /// One that waits for its next request ends too.
    idle: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    /// Whether the answer that is given next is the connection's last.
    pub(in crate::proxy) fn has_come(&self) -> bool {
        self.0.answered.load(Ordering::Acquire)
    }

    /// Ready once a connection without a request has to end. For one task at a time.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let over = || self.0.idle.load(Ordering::Acquire);
        if !over() {
            self.0.waker.register(cx.waker());
        }
        // Again, for it may have been said before the waker was there.
        if over() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn for_answered(&self) {
        self.0.answered.store(true, Ordering::Release);
    }

    fn for_all(&self) {
        self.for_answered();
        self.0.idle.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// Counts as running until dropped.
pub(super) struct Guard {
    control: Control,
    id: u64,
    signal: Signal,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.control.connections().tasks.remove(&self.id);
        let running = &self.control.0.running;
        running.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl Guard {
    /// For [`Control::breakable`].
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// When to end.
    pub(super) fn signal(&self) -> Signal {
        self.signal.clone()
    }
}

impl Control {
    pub(super) fn new() -> Self {
        Self(Arc::new(Stages {
            leaving: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            aborted: watch::Sender::new(false),
            running: watch::Sender::new(0),
            connections: Mutex::default(),
        }))
    }

    pub(super) fn enter(&self) -> Guard {
        self.0.running.send_modify(|n| *n += 1);
        let mut connections = self.connections();
        let id = connections.next;
        connections.next += 1;
        let signal = Signal::default();
        if *self.0.closing.borrow() {
            signal.for_all();
        } else if *self.0.leaving.borrow() {
            signal.for_answered();
        }
        let task = Task {
            signal: signal.clone(),
            handle: None,
        };
        connections.tasks.insert(id, task);
        Guard {
            control: self.clone(),
            id,
            signal,
        }
    }

    /// `task`, which holds the guard with this id or has dropped it already, is broken off
    /// when everything is.
    pub(super) fn breakable(&self, id: u64, task: AbortHandle) {
        let mut connections = self.connections();
        if *self.0.aborted.borrow() {
            task.abort();
        } else if let Some(known) = connections.tasks.get_mut(&id) {
            known.handle = Some(task);
        }
    }

    /// What pingora takes: true once closing.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
    }

    /// The same for single requests: true once each is to be its connection's last.
    pub(super) fn watch_leaving(&self) -> watch::Receiver<bool> {
        self.0.leaving.subscribe()
    }

    pub(super) async fn closing(&self) {
        reached(&self.0.closing).await;
    }

    async fn aborted(&self) {
        reached(&self.0.aborted).await;
    }

    async fn idle(&self) {
        let _ = self.0.running.subscribe().wait_for(|n| *n == 0).await;
    }

    /// From now on every answer is its connection's last, whoever is there or comes later.
    fn leave(&self) {
        let connections = self.connections();
        self.0.leaving.send_replace(true);
        for task in connections.tasks.values() {
            task.signal.for_answered();
        }
    }

    /// Announces the end to everybody who is there, and who comes later.
    fn close(&self) {
        let connections = self.connections();
        self.0.leaving.send_replace(true);
        self.0.closing.send_replace(true);
        for task in connections.tasks.values() {
            task.signal.for_all();
        }
    }

    fn abort(&self) {
        self.close();
        let connections = self.connections();
        self.0.aborted.send_replace(true);
        for task in connections.tasks.values() {
            task.handle.iter().for_each(AbortHandle::abort);
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        let connections = self.0.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }
}

async fn reached(stage: &watch::Sender<bool>) {
    // The sender lives as long as the borrow: no other end than the stage itself.
    let _ = stage.subscribe().wait_for(|reached| *reached).await;
}

/// A server at work. Dropping it does not stop it.
pub struct Serving {
    control: Control,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving")
            .field("running", &*self.control.0.running.borrow())
            .finish_non_exhaustive()
    }
}

impl Serving {
    pub(super) fn new(control: Control) -> Self {
        Self { control }
    }

    /// Goes on for `delay` (readiness has turned false, and load balancers are to notice), but
    /// HTTP/1 answers say `Connection: close`: whoever keeps a connection and asks again
    /// meanwhile makes his next one elsewhere, instead of having it closed under his
    /// request. Then accepts no more, closes idle connections, lets busy ones finish their
    /// request; after `deadline` more breaks off what is left. Returns
    /// when nothing runs any more and every listener is closed. Called again, or with
    /// [`Serving::abort`] in between, it only gets shorter.
    pub async fn drain(&self, delay: Duration, deadline: Duration) {
        self.control.leave();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.control.aborted() => {}
            () = self.control.closing() => {}
        }
        self.control.close();
        tokio::select! {
            () = self.control.idle() => {}
            () = self.control.aborted() => {}
            () = tokio::time::sleep(deadline) => {}
        }
        self.abort();
        self.control.idle().await;
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
        let control = Control::new();
        let start = |control: &Control| {
            let guard = control.enter();
            let id = guard.id();
            let task = tokio::spawn(async move {
                let _held = guard;
                pending::<()>().await;
            });
            control.breakable(id, task.abort_handle());
            task
        };
        let before = start(&control);
        control.abort();
        let after = start(&control);
        assert!(before.await.unwrap_err().is_cancelled());
        assert!(after.await.unwrap_err().is_cancelled());
        control.idle().await;
        assert!(control.connections().tasks.is_empty());
    }

    #[tokio::test]
    async fn the_last_call_reaches_who_waits_and_who_comes_later() {
        let control = Control::new();
        let guard = control.enter();
        let signal = guard.signal();
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move { std::future::poll_fn(|cx| signal.poll(cx)).await }
        });
        tokio::task::yield_now().await;
        assert!(!signal.has_come() && !waiting.is_finished());
        control.leave();
        tokio::task::yield_now().await;
        assert!(signal.has_come() && control.enter().signal().has_come());
        assert!(!waiting.is_finished(), "who asks for nothing may stay");
        control.close();
        waiting.await.unwrap();
        let later = control.enter().signal();
        assert!(later.has_come());
        std::future::poll_fn(|cx| later.poll(cx)).await;
    }

    #[tokio::test]
    async fn a_task_that_ended_at_once_leaves_nothing() {
        let control = Control::new();
        let guard = control.enter();
        let id = guard.id();
        let task = tokio::spawn(async move { drop(guard) });
        let handle = task.abort_handle();
        task.await.unwrap();
        control.breakable(id, handle);
        assert!(control.connections().tasks.is_empty());
    }
}
