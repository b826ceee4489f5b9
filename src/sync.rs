//! The locks, atomics, tasks and timers of the credential cache: those of std and tokio, or those of
//! `shuttle`, which runs the cache's tests under many schedules (`tests/interleavings`). A build for
//! shuttle has no time: timers never end, and nothing times out.

#[cfg(not(shuttle))]
pub(crate) use real::*;
#[cfg(shuttle)]
pub(crate) use scheduled::*;

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::sync::atomic;
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use tokio::time::{sleep, timeout};

    /// Runs `task` in the background, within a runtime.
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    /// Runs `task` in the background, or drops it if the runtime has shut down.
    pub(crate) fn spawn_if_running(task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(task);
        }
    }
}

#[cfg(shuttle)]
mod scheduled {
    use std::convert::Infallible;
    use std::time::Duration;

    pub(crate) use shuttle::sync::atomic;
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        shuttle::future::spawn(task);
    }

    pub(crate) fn spawn_if_running(task: impl Future<Output = ()> + Send + 'static) {
        spawn(task);
    }

    pub(crate) async fn sleep(_: Duration) {
        std::future::pending().await
    }

    pub(crate) async fn timeout<F: Future>(
        _: Duration,
        future: F,
    ) -> Result<F::Output, Infallible> {
        Ok(future.await)
    }
}
