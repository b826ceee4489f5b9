//! Single flight: concurrent callers that need the same thing share one fetch.
//!
//! A fetch runs as its own task. A caller that goes away therefore cancels it for no one
//! else, and its result is recorded even if every caller has gone.

use std::future::Future;

use tokio::sync::watch;

/// A fetch, in progress or just finished. Every clone can wait for the same result.
///
/// Keep flights in a map under the lock that also guards the fetched values: looking a value
/// up, joining a flight and registering one must be a single step, or two callers could start
/// the same fetch.
#[derive(Clone, Debug)]
pub struct Flight<V>(watch::Receiver<Option<V>>);

impl<V: Clone + Send + Sync + 'static> Flight<V> {
    /// A flight and the task that carries it out, which the caller spawns.
    ///
    /// `complete` records what `fetch` returned and produces the result that all callers
    /// share. It runs exactly once, before any of them wakes up, and receives `None` if
    /// `fetch` panicked or its task was dropped, as happens when the runtime shuts down. It
    /// should also remove the flight from its owner's map.
    ///
    /// Spawn the task only after releasing any lock that `complete` takes: a runtime that is
    /// shutting down drops the task, and so completes the flight, inside `spawn`.
    pub fn new<T: Send + 'static>(
        fetch: impl Future<Output = T> + Send + 'static,
        complete: impl FnOnce(Option<T>) -> V + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = watch::channel(None);
        let mut completion = Completion {
            sender,
            complete: Some(complete),
            output: None,
        };
        let task = async move {
            // Moves the whole of it into the task, polled or not.
            let completion = &mut completion;
            completion.output = Some(fetch.await);
        };
        (Self(receiver), task)
    }

    /// A flight that has already finished with `result`.
    pub fn finished(result: V) -> Self {
        Self(watch::channel(Some(result)).1)
    }

    /// Whether the fetch has yet to finish. Already false when the callers wake up, so none
    /// of them joins the flight that has just ended.
    pub fn is_in_progress(&self) -> bool {
        self.0.borrow().is_none() && self.0.has_changed().is_ok()
    }

    /// Waits for the result. `None` only if `complete` itself panicked.
    pub async fn wait(mut self) -> Option<V> {
        let result = self.0.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

/// Finishes a flight when it is dropped, which also happens when the fetch panics or the
/// runtime drops its task.
struct Completion<T, V, F: FnOnce(Option<T>) -> V> {
    sender: watch::Sender<Option<V>>,
    complete: Option<F>,
    output: Option<T>,
}

impl<T, V, F: FnOnce(Option<T>) -> V> Drop for Completion<T, V, F> {
    fn drop(&mut self) {
        if let Some(complete) = self.complete.take() {
            let result = complete(self.output.take());
            self.sender.send_replace(Some(result));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Wake, Waker};

    use futures::executor::block_on;
    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::oneshot;

    use super::*;

    fn start<T: Send + 'static>(
        fetch: impl Future<Output = T> + Send + 'static,
        complete: impl FnOnce(Option<T>) -> &'static str + Send + 'static,
    ) -> Flight<&'static str> {
        let (flight, task) = Flight::new(fetch, complete);
        tokio::spawn(task);
        flight
    }

    fn abandoned<T>(output: Option<T>) -> &'static str {
        output.map_or("abandoned", |_| "finished")
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    #[tokio::test]
    async fn all_callers_share_the_result_of_one_fetch() {
        let fetches = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&fetches);
        let (release, released) = oneshot::channel();
        let flight = start(
            async move {
                counter.fetch_add(1, Ordering::Relaxed);
                released.await.unwrap()
            },
            |output| output.unwrap(),
        );
        assert!(flight.is_in_progress());
        let callers: Vec<_> = (0..50)
            .map(|_| tokio::spawn(flight.clone().wait()))
            .collect();
        release.send("result").unwrap();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Some("result"));
        }
        assert!(!flight.is_in_progress());
        assert_eq!(flight.wait().await, Some("result"), "a late caller");
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_fetch_completes_although_every_caller_has_gone() {
        let (completed, complete) = oneshot::channel();
        drop(start(async { "result" }, |output| {
            completed.send(output).unwrap();
            "shared"
        }));
        assert_eq!(complete.await.unwrap(), Some("result"));
    }

    #[tokio::test]
    async fn a_panic_in_the_fetch_completes_the_flight_without_an_output() {
        let flight = start::<()>(async { panic!("a panic that a test causes") }, abandoned);
        assert_eq!(flight.wait().await, Some("abandoned"));
    }

    #[test]
    fn a_runtime_that_shuts_down_completes_its_flights_without_an_output() {
        let runtime = runtime();
        let (flight, task) = Flight::new(pending::<()>(), abandoned);
        runtime.spawn(task);
        drop(runtime);
        assert!(!flight.is_in_progress());
        assert_eq!(block_on(flight.wait()), Some("abandoned"));
    }

    #[test]
    fn a_task_spawned_on_a_runtime_that_has_shut_down_completes_its_flight() {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        drop(runtime);
        let (flight, task) = Flight::new(pending::<()>(), abandoned);
        drop(handle.spawn(task));
        assert_eq!(block_on(flight.wait()), Some("abandoned"));
    }

    #[tokio::test]
    async fn a_panic_while_completing_leaves_callers_without_a_result() {
        let flight = start(async {}, |_| panic!("a panic that a test causes"));
        assert_eq!(flight.wait().await, None);
    }

    #[tokio::test]
    async fn a_finished_flight_has_its_result_at_once() {
        let flight = Flight::finished("cached");
        assert!(!flight.is_in_progress());
        assert_eq!(flight.wait().await, Some("cached"));
    }

    /// Looks at the flight at the moment when a caller is woken.
    struct Caller {
        flight: Flight<&'static str>,
        in_progress: Mutex<Option<bool>>,
    }

    impl Wake for Caller {
        fn wake(self: Arc<Self>) {
            *self.in_progress.lock().unwrap() = Some(self.flight.is_in_progress());
        }
    }

    #[test]
    fn a_flight_is_over_when_its_callers_wake_up() {
        let (flight, task) = Flight::new(async {}, abandoned);
        let caller = Arc::new(Caller {
            flight: flight.clone(),
            in_progress: Mutex::default(),
        });
        let waker = Waker::from(Arc::clone(&caller));
        let mut waiting = pin!(flight.wait());
        let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        block_on(task);
        assert_eq!(*caller.in_progress.lock().unwrap(), Some(false));
    }
}
