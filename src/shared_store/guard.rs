//! Keeps a faulty store from harming requests: each operation has a deadline, and after failures none is
//! attempted until a probe in the background succeeds, so that no request pays for a store that is down.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{
    Acquired, GenerationId, Operation, OperationResult, Quota, SharedStore, StoreError, StoreEvent,
    StoreKey, StoredValue, Taken, Unwanted,
};

/// Failures in a row after which the store counts as down. One that cannot be reached does at once.
const MAX_FAILURES: u32 = 3;

/// The pauses between two probes of a store that is down: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The limit of a probe, which delays no request.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Told about operations and about the store's state.
pub trait StoreObserver: Send + Sync + fmt::Debug {
    /// An operation ended.
    fn operation(&self, operation: Operation, result: OperationResult);
    /// The store has come up or gone down.
    fn up(&self, up: bool);
}

/// A store with deadlines and a circuit breaker.
#[derive(Debug)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn SharedStore>,
    timeout: Duration,
    observer: Arc<dyn StoreObserver>,
    failures: AtomicU32,
    down: AtomicBool,
}

impl Guard {
    /// Guards `store`, whose operations may take `timeout`. It counts as up until an operation fails.
    pub fn new(
        store: Arc<dyn SharedStore>,
        timeout: Duration,
        observer: Arc<dyn StoreObserver>,
    ) -> Self {
        observer.up(true);
        Self(Arc::new(Inner {
            store,
            timeout,
            observer,
            failures: AtomicU32::new(0),
            down: AtomicBool::new(false),
        }))
    }

    /// Probes the store, for at most two seconds, and counts it as down if that fails: to connect before
    /// the first request needs it, and to notice a loss when none does.
    pub async fn check(&self) {
        if self.0.down.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.0.probe().await {
            self.0.go_down(&error);
        }
    }

    async fn call<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
        result: impl Fn(&T) -> OperationResult,
    ) -> Result<T, StoreError> {
        if self.0.down.load(Ordering::Acquire) {
            self.0
                .observer
                .operation(operation, OperationResult::Skipped);
            return Err(StoreError::Down);
        }
        let timeout = self.0.timeout;
        let done = tokio::time::timeout(timeout, call).await;
        let done = done.unwrap_or(Err(StoreError::Timeout(timeout)));
        let label = match &done {
            Ok(value) => result(value),
            Err(StoreError::Timeout(_)) => OperationResult::Timeout,
            Err(_) => OperationResult::Error,
        };
        self.0.observer.operation(operation, label);
        match &done {
            Ok(_) => self.0.failures.store(0, Ordering::Relaxed),
            Err(error) => self.0.failed(error),
        }
        done
    }
}

impl Inner {
    fn failed(self: &Arc<Self>, error: &StoreError) {
        let failures = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if failures >= MAX_FAILURES || matches!(error, StoreError::Unreachable(_)) {
            self.go_down(error);
        }
    }

    fn go_down(self: &Arc<Self>, error: &StoreError) {
        if self.down.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(
            "the shared store is down: {error}. Requests go on with what this replica knows by itself"
        );
        self.observer.up(false);
        let inner = Arc::downgrade(self);
        tokio::spawn(probe_until_up(inner));
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let probing = tokio::time::timeout(PROBE_TIMEOUT, self.store.probe()).await;
        probing.unwrap_or(Err(StoreError::Timeout(PROBE_TIMEOUT)))
    }
}

/// Ends when the store is up again, or gone with the configuration that named it.
async fn probe_until_up(guard: Weak<Inner>) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let Some(inner) = guard.upgrade() else { return };
        if inner.probe().await.is_ok() {
            inner.failures.store(0, Ordering::Relaxed);
            tracing::info!("the shared store is up again");
            // Before operations are attempted again: one that fails says that it is down.
            inner.observer.up(true);
            inner.down.store(false, Ordering::Release);
            return;
        }
    }
}

#[async_trait]
impl SharedStore for Guard {
    async fn acquire(
        &self,
        key: StoreKey,
        lease: GenerationId,
        unwanted: Option<Unwanted>,
    ) -> Result<Acquired, StoreError> {
        let call = self.0.store.acquire(key, lease, unwanted);
        self.call(Operation::Acquire, call, |acquired| match acquired {
            Acquired::Value(_) => OperationResult::Hit,
            Acquired::Granted => OperationResult::Ok,
            Acquired::Held => OperationResult::Held,
        })
        .await
    }

    async fn renew(&self, key: StoreKey, lease: GenerationId) -> Result<bool, StoreError> {
        let call = self.0.store.renew(key, lease);
        self.call(Operation::Renew, call, |held| ok_or_held(*held))
            .await
    }

    async fn complete(
        &self,
        key: StoreKey,
        lease: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let call = self.0.store.complete(key, lease, sealed, ttl);
        self.call(Operation::Complete, call, |written| ok_or_held(*written))
            .await
    }

    async fn release(&self, key: StoreKey, lease: GenerationId) -> Result<(), StoreError> {
        let call = self.0.store.release(key, lease);
        self.call(Operation::Release, call, |()| OperationResult::Ok)
            .await
    }

    async fn reject(&self, key: StoreKey, generation: GenerationId) -> Result<(), StoreError> {
        let call = self.0.store.reject(key, generation);
        self.call(Operation::Reject, call, |()| OperationResult::Ok)
            .await
    }

    async fn read(&self, key: StoreKey) -> Result<Option<StoredValue>, StoreError> {
        let call = self.0.store.read(key);
        self.call(Operation::Read, call, |value| match value {
            Some(_) => OperationResult::Hit,
            None => OperationResult::Ok,
        })
        .await
    }

    async fn write(
        &self,
        key: StoreKey,
        generation: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let call = self.0.store.write(key, generation, sealed, ttl);
        self.call(Operation::Write, call, |()| OperationResult::Ok)
            .await
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        let call = self.0.store.remove(key);
        self.call(Operation::Remove, call, |_| OperationResult::Ok)
            .await
    }

    async fn take(&self, key: StoreKey, quota: Quota, wanted: u64) -> Result<Taken, StoreError> {
        let call = self.0.store.take(key, quota, wanted);
        self.call(Operation::Take, call, |taken| {
            ok_or_held(taken.granted > 0 || taken.retry_after.is_zero())
        })
        .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.0.probe().await
    }

    fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.0.store.events()
    }
}

fn ok_or_held(done: bool) -> OperationResult {
    if done {
        OperationResult::Ok
    } else {
        OperationResult::Held
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use crate::shared_store::InMemoryStore;

    const TIMEOUT: Duration = Duration::from_millis(50);
    const KEY: StoreKey = StoreKey([1; 32]);

    #[derive(Debug, Default)]
    struct Recorder {
        operations: Mutex<Vec<OperationResult>>,
        states: Mutex<Vec<bool>>,
    }

    impl StoreObserver for Recorder {
        fn operation(&self, _: Operation, result: OperationResult) {
            self.operations.lock().unwrap().push(result);
        }
        fn up(&self, up: bool) {
            self.states.lock().unwrap().push(up);
        }
    }

    fn guarded() -> (Guard, Arc<InMemoryStore>, Arc<Recorder>) {
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        let store = Arc::new(InMemoryStore::new(clock));
        let recorder = Arc::new(Recorder::default());
        let guard = Guard::new(store.clone(), TIMEOUT, recorder.clone());
        (guard, store, recorder)
    }

    #[allow(clippy::disallowed_methods, reason = "the time of a paused runtime")]
    #[tokio::test(start_paused = true)]
    async fn a_silent_store_is_left_alone_after_three_deadlines_until_a_probe_succeeds() {
        let (guard, store, recorder) = guarded();
        assert!(guard.read(KEY).await.is_ok());
        store.hang(true);
        for _ in 0..MAX_FAILURES {
            let before = tokio::time::Instant::now();
            let error = guard.read(KEY).await.unwrap_err();
            assert_eq!(error, StoreError::Timeout(TIMEOUT));
            assert_eq!(before.elapsed(), TIMEOUT);
        }
        let before = tokio::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(guard.read(KEY).await.unwrap_err(), StoreError::Down);
        }
        assert_eq!(before.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(guard.read(KEY).await.unwrap_err(), StoreError::Down);
        store.hang(false);
        tokio::time::sleep(LONGEST_PAUSE + PROBE_TIMEOUT).await;
        assert!(guard.read(KEY).await.is_ok());
        assert_eq!(*recorder.states.lock().unwrap(), [true, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_cannot_be_reached_is_down_at_once() {
        let (guard, store, recorder) = guarded();
        store.fail(Some(StoreError::Unreachable("refused".into())));
        assert!(matches!(
            guard.read(KEY).await,
            Err(StoreError::Unreachable(_))
        ));
        assert_eq!(guard.read(KEY).await.unwrap_err(), StoreError::Down);
        let results = recorder.operations.lock().unwrap().clone();
        assert_eq!(results, [OperationResult::Error, OperationResult::Skipped]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_notices_a_loss_that_no_request_has_met() {
        let (guard, store, recorder) = guarded();
        guard.check().await;
        store.fail(Some(StoreError::Answer("full".into())));
        guard.check().await;
        guard.check().await;
        assert_eq!(guard.read(KEY).await.unwrap_err(), StoreError::Down);
        assert_eq!(*recorder.states.lock().unwrap(), [true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn single_failures_among_successes_do_not_count() {
        let (guard, store, _) = guarded();
        for _ in 0..10 {
            store.fail(Some(StoreError::Answer("busy".into())));
            assert!(guard.read(KEY).await.is_err());
            store.fail(None);
            assert!(guard.read(KEY).await.is_ok());
        }
    }
}
