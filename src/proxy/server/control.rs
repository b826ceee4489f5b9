//! The stages of an ending, and what still runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Shared by everything that one server runs.
#[derive(Clone)]
pub(super) struct Control(Arc<Stages>);

struct Stages {
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
    /// Without a handle until [`Control::breakable`].
    tasks: HashMap<u64, Option<AbortHandle>>,
}

/// Counts as running until dropped.
pub(super) struct Guard {
    control: Control,
    id: u64,
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
}

impl Control {
    pub(super) fn new() -> Self {
        Self(Arc::new(Stages {
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
        connections.tasks.insert(id, None);
        Guard {
            control: self.clone(),
            id,
        }
    }

    /// `task`, which holds the guard with this id or has dropped it already, is broken off
    /// when everything is.
    pub(super) fn breakable(&self, id: u64, task: AbortHandle) {
        let mut connections = self.connections();
        if *self.0.aborted.borrow() {
            task.abort();
        } else if let Some(place) = connections.tasks.get_mut(&id) {
            *place = Some(task);
        }
    }

    /// What pingora takes: true once closing.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
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

    fn abort(&self) {
        self.0.closing.send_replace(true);
        let connections = self.connections();
        self.0.aborted.send_replace(true);
        for task in connections.tasks.values().flatten() {
            task.abort();
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

    /// Goes on for `delay` as if nothing were (readiness has turned false, and load
    /// balancers are to notice); then accepts no more, closes idle connections, lets busy
    /// ones finish their request; after `deadline` more breaks off what is left. Returns
    /// when nothing runs any more and every listener is closed. Called again, or with
    /// [`Serving::abort`] in between, it only gets shorter.
    pub async fn drain(&self, delay: Duration, deadline: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.control.aborted() => {}
            () = self.control.closing() => {}
        }
        self.control.0.closing.send_replace(true);
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
