//! The stages of an ending, and the count of what still runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Shared by everything that one server runs.
#[derive(Clone)]
pub(super) struct Control(Arc<Stages>);

struct Stages {
    /// No new connections; those there are end with their current request.
    closing: watch::Sender<bool>,
    /// Everything ends now.
    aborted: watch::Sender<bool>,
    /// Accept loops and connections.
    running: watch::Sender<usize>,
}

/// Counts as running until dropped.
pub(super) struct Guard(Control);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.running.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl Control {
    pub(super) fn new() -> Self {
        Self(Arc::new(Stages {
            closing: watch::Sender::new(false),
            aborted: watch::Sender::new(false),
            running: watch::Sender::new(0),
        }))
    }

    pub(super) fn enter(&self) -> Guard {
        self.0.running.send_modify(|n| *n += 1);
        Guard(self.clone())
    }

    /// What pingora takes: true once closing.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
    }

    pub(super) async fn closing(&self) {
        reached(&self.0.closing).await;
    }

    pub(super) async fn aborted(&self) {
        reached(&self.0.aborted).await;
    }

    async fn idle(&self) {
        let _ = self.0.running.subscribe().wait_for(|n| *n == 0).await;
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
        self.control.0.closing.send_replace(true);
        self.control.0.aborted.send_replace(true);
    }
}
