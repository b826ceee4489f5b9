//! Fetching, caching and refreshing an issuer's keys. The intervals are those of
//! `docs/design/tokens.md`, "Keys", measured on the monotonic clock.
//!
//! There is one fetch at a time per issuer. It runs in a separate task, so that a caller that goes
//! away does not cancel it for the others.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use async_trait::async_trait;

use super::TokenError;
use super::jwk::{KeySelectionError, KeySet, KeySetError, no_usable_key, unusable_for_signatures};
use super::jws::Jws;
use super::rules::ValidatedHeader;
use super::signature::Verifier;
use crate::clock::SharedClock;
use crate::singleflight::Flight;
use crate::token::settings::Algorithm;

/// How long a document is fresh if the response has no `max-age`.
const DEFAULT_TTL: Duration = Duration::from_mins(10);
/// The range to which `max-age` is clamped.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(24));
/// How long stale keys may be used while fetches fail (as with `stale-if-error`, RFC 5861 §4).
const STALE_LIMIT: Duration = Duration::from_hours(24);
/// The minimum interval between refreshes caused by unknown `kid`s.
const MISS_COOLDOWN: Duration = Duration::from_secs(30);
/// How long a `kid` that a refresh did not find is cached as unknown.
const UNKNOWN_TTL: Duration = Duration::from_mins(1);
/// Maximum number of unknown `kid`s cached; beyond that, only the cooldown limits refreshes.
const MAX_UNKNOWN: usize = 64;
/// The backoff after the first failed fetch; it doubles with each further failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest that a request waits for fetches, which continue without it. An issuer that hangs for
/// one unknown `kid` must not hold requests for the sum of several timeouts.
const MAX_WAIT: Duration = Duration::from_secs(4);
/// The maximum backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A fetched JWK Set document and its freshness lifetime.
#[derive(Clone, Debug)]
pub struct FetchedKeys {
    /// The document, at most 256 KiB.
    pub document: Vec<u8>,
    /// `Cache-Control: max-age`, not clamped; `None` if absent.
    pub max_age: Option<Duration>,
}

/// Why keys could not be fetched. Messages are for operators and contain no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyFetchError(pub String);

impl From<KeySetError> for KeyFetchError {
    fn from(error: KeySetError) -> Self {
        Self(error.to_string())
    }
}

/// Fetches an issuer's keys from a URL, through discovery, or from a file.
#[async_trait]
pub trait KeyFetcher: Send + Sync + fmt::Debug {
    /// Fetches the document once, within the implementation's time and size limits.
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError>;

    /// How long a document is fresh, if that depends on the kind of source and not on
    /// `Cache-Control`: a local file, for example, is cheap to read again. Decorators must forward
    /// this call.
    fn fixed_ttl(&self) -> Option<Duration> {
        None
    }
}

/// The result of an attempt to refresh keys, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefresh {
    /// The document was fetched, and its keys differ from the previous ones.
    Changed,
    /// The document was fetched, and its keys are the same as before.
    Unchanged,
    /// No usable document was fetched; the previous keys, if any, remain.
    Failed,
}

/// A callback for the result of each refresh, for metrics. Must not block.
#[derive(Clone, Default)]
pub struct RefreshObserver(Option<Arc<dyn Fn(KeyRefresh) + Send + Sync>>);

impl RefreshObserver {
    /// Calls `observe` after each attempt.
    pub fn new(observe: impl Fn(KeyRefresh) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }

    fn notify(&self, result: KeyRefresh) {
        if let Some(observe) = &self.0 {
            observe(result);
        }
    }
}

impl fmt::Debug for RefreshObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshObserver")
    }
}

/// The keys of one issuer, refreshed in the background. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: Arc<str>,
    fetcher: Arc<dyn KeyFetcher>,
    clock: SharedClock,
    algorithms: Vec<Algorithm>,
    current: ArcSwap<CurrentKeys>,
    /// Whether the last attempt failed.
    failing: AtomicBool,
    /// When the next scheduled refresh is due, in monotonic milliseconds.
    next_refresh: AtomicU64,
    state: Mutex<RefreshState>,
    observer: RefreshObserver,
}

/// The current keys. Times are monotonic.
#[derive(Debug, Default)]
pub(super) struct CurrentKeys {
    /// Incremented when the keys change.
    pub(super) epoch: u64,
    set: KeySet,
    fetched_at: Option<Duration>,
    fresh_until: Duration,
    usable_until: Duration,
}

#[derive(Debug, Default)]
struct RefreshState {
    /// The latest fetch, in progress or finished.
    fetch: Option<Flight<()>>,
    /// Consecutive failures.
    failures: u32,
    last_miss: Option<Duration>,
    /// Why the latest fetch yielded no usable keys, if it did not.
    problem: Option<String>,
    unknown: HashMap<Box<str>, Duration>,
}

/// The keys that may have produced a signature, and their epoch.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) verifiers: Vec<Verifier>,
    pub(super) epoch: u64,
}

impl Keys {
    pub(super) fn new(
        issuer: Arc<str>,
        fetcher: Arc<dyn KeyFetcher>,
        clock: SharedClock,
        algorithms: Vec<Algorithm>,
        observer: RefreshObserver,
    ) -> Self {
        Self(Arc::new(Inner {
            issuer,
            fetcher,
            clock,
            algorithms,
            current: ArcSwap::default(),
            failing: AtomicBool::new(false),
            next_refresh: AtomicU64::new(0),
            state: Mutex::default(),
            observer,
        }))
    }

    /// The epoch of the current keys, if they may be used without a fetch; starts a background
    /// refresh if one is due.
    pub(super) fn current_epoch(&self, now: Duration) -> Option<u64> {
        let current = self.0.current.load();
        let servable = self.0.is_servable(&current, now);
        if servable && self.0.due(now) {
            self.0.join_or_start(now);
        }
        servable.then_some(current.epoch)
    }

    /// Verifies the signature of `jws`, whose header is `header`, and returns the epoch of the keys
    /// that did. Fetches keys as [`Self::select`] does.
    pub(super) async fn verify(
        &self,
        header: &ValidatedHeader<'_>,
        jws: &Jws<'_>,
    ) -> Result<u64, TokenError> {
        let keys = self.select(header.algorithm, header.kid).await?;
        let mut verifiers = keys.verifiers.iter();
        if verifiers.any(|key| key.verify(jws.signing_input, jws.signature)) {
            Ok(keys.epoch)
        } else {
            Err(TokenError::BadSignature)
        }
    }

    /// Selects the keys that may have produced a signature with `algorithm` and `kid`. Fetches
    /// keys, or joins a fetch in progress, if there are none, if they are stale, or if none has
    /// that `kid`.
    pub(super) async fn select(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Selection, TokenError> {
        let start = self.0.clock.monotonic();
        self.ensure_usable().await?;
        match self.lookup(algorithm, kid)? {
            Err(KeySelectionError::Missing) => {}
            other => return Ok(other?),
        }
        let mut fetched = false;
        while let Some((fetch, own)) = self.0.join_or_start_for(kid.unwrap_or_default()) {
            self.wait(fetch, start).await?;
            fetched |= own;
            match self.lookup(algorithm, kid)? {
                // A fetch that was already in progress may have missed the newest key.
                Err(KeySelectionError::Missing) if !own => {}
                Err(KeySelectionError::Missing) => break,
                other => return Ok(other?),
            }
        }
        self.missing(algorithm, kid, fetched)
    }

    /// The result of a search that found no key. Looks it up once more, because another caller's
    /// fetch may just have completed.
    fn missing(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        fetched: bool,
    ) -> Result<Selection, TokenError> {
        match self.lookup(algorithm, kid)? {
            // While the issuer is unreachable, the key may exist without being known here.
            Err(KeySelectionError::Missing) if self.0.is_failing() => Err(self.0.unavailable()),
            Err(KeySelectionError::Missing) => {
                if fetched {
                    self.0.insert_unknown(kid.unwrap_or_default());
                }
                Err(TokenError::UnknownKey)
            }
            other => Ok(other?),
        }
    }

    /// Ensures that there are usable keys, if possible: starts a fetch if one is due, and waits for
    /// it only if there are no usable keys in the meantime.
    async fn ensure_usable(&self) -> Result<(), TokenError> {
        let now = self.0.clock.monotonic();
        if self.current_epoch(now).is_none()
            && let Some(fetch) = self.0.join_or_start(now)
        {
            self.wait(fetch, now).await?;
        }
        Ok(())
    }

    /// Waits for `fetch`, but no longer than [`MAX_WAIT`] after `start`.
    async fn wait(&self, fetch: Flight<()>, start: Duration) -> Result<(), TokenError> {
        let waited = self.0.clock.monotonic().saturating_sub(start);
        let left = MAX_WAIT.saturating_sub(waited);
        match tokio::time::timeout(left, fetch.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.0.unavailable()),
        }
    }

    fn lookup(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Result<Selection, KeySelectionError>, TokenError> {
        let current = self.0.current.load();
        if !current.usable(self.0.clock.monotonic()) {
            return Err(self.0.unavailable());
        }
        Ok(current
            .set
            .select(algorithm, kid)
            .map(|verifiers| Selection {
                verifiers,
                epoch: current.epoch,
            }))
    }

    /// Refreshes the keys if due, or joins a refresh in progress, and waits for it.
    pub(super) async fn refresh_if_due(&self) {
        if let Some(fetch) = self.0.join_or_start(self.0.clock.monotonic()) {
            fetch.wait().await;
        }
    }

    /// The time until the next scheduled refresh.
    pub(super) fn next_refresh_in(&self) -> Duration {
        self.0.next_refresh_in()
    }

    /// Whether there are usable keys, fresh or stale.
    pub(super) fn usable(&self) -> bool {
        self.0.current.load().usable(self.0.clock.monotonic())
    }

    /// Why the latest fetch yielded no usable keys, for operators; `None` if it did.
    pub(super) fn problem(&self) -> Option<String> {
        self.0.state().problem.clone()
    }

    /// The time since the keys were last fetched.
    pub(super) fn age(&self) -> Option<Duration> {
        let fetched_at = self.0.current.load().fetched_at?;
        Some(self.0.clock.monotonic().saturating_sub(fetched_at))
    }
}

impl CurrentKeys {
    fn usable(&self, now: Duration) -> bool {
        !self.set.is_empty() && now < self.usable_until
    }
}

impl Inner {
    /// Whether `current` may be used without a fetch: it is fresh, or the last fetch failed.
    fn is_servable(&self, current: &Guard<Arc<CurrentKeys>>, now: Duration) -> bool {
        current.usable(now) && (now < current.fresh_until || self.is_failing())
    }

    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    fn due(&self, now: Duration) -> bool {
        millis(now) >= self.next_refresh.load(Ordering::Acquire)
    }

    fn next_refresh_in(&self) -> Duration {
        let next = Duration::from_millis(self.next_refresh.load(Ordering::Acquire));
        next.saturating_sub(self.clock.monotonic())
    }

    fn unavailable(&self) -> TokenError {
        let retry_after = self.next_refresh_in().max(FIRST_BACKOFF);
        TokenError::KeysUnavailable { retry_after }
    }

    fn state(&self) -> MutexGuard<'_, RefreshState> {
        // A panic cannot leave the state inconsistent: every change under this lock is atomic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fetch in progress, or starts one if it is due.
    fn join_or_start(self: &Arc<Self>, now: Duration) -> Option<Flight<()>> {
        let state = self.state();
        match state.in_progress() {
            None if self.due(now) => self.spawn(state, now),
            in_progress => in_progress,
        }
    }

    /// Starts a fetch; `None` outside of a runtime.
    fn spawn(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, RefreshState>,
        now: Duration,
    ) -> Option<Flight<()>> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        // The schedule until the fetch completes, and in case the runtime shuts down first.
        self.schedule(now + MAX_BACKOFF);
        let (fetching, this) = (Arc::clone(self), Arc::clone(self));
        let (fetch, task) = Flight::new(
            async move { fetching.fetcher.fetch().await },
            move |fetched| {
                if let Some(fetched) = fetched {
                    this.complete(fetched);
                }
            },
        );
        state.fetch = Some(fetch.clone());
        // Unlock before spawning, as `Flight::new` requires.
        drop(state);
        runtime.spawn(task);
        Some(fetch)
    }

    /// The fetch to wait for if `kid` is missing, and whether this call started it. `None` if `kid`
    /// is cached as unknown, during the cooldown, and during the backoff after a failure.
    fn join_or_start_for(self: &Arc<Self>, kid: &str) -> Option<(Flight<()>, bool)> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        if state.unknown.get(kid).is_some_and(|until| now < *until) {
            return None;
        }
        if let Some(fetch) = state.in_progress() {
            return Some((fetch, false));
        }
        let cooling = state
            .last_miss
            .is_some_and(|last| now < last + MISS_COOLDOWN);
        if cooling || (self.is_failing() && !self.due(now)) {
            return None;
        }
        state.last_miss = Some(now);
        Some((self.spawn(state, now)?, true))
    }

    fn insert_unknown(&self, kid: &str) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.unknown.retain(|_, until| now < *until);
        if state.unknown.len() < MAX_UNKNOWN {
            state.unknown.insert(kid.into(), now + UNKNOWN_TTL);
        }
    }

    /// Applies the result of a fetch.
    fn complete(&self, fetched: Result<FetchedKeys, KeyFetchError>) {
        let now = self.clock.monotonic();
        let parsed = fetched.and_then(|fetched| {
            let set = KeySet::parse(&fetched.document, &self.algorithms)?;
            Ok((set, fetched))
        });
        let result = match parsed {
            Ok((set, fetched)) => self.install(set, &fetched, now),
            Err(error) => self.record_failure(&error, now),
        };
        self.observer.notify(result);
    }

    fn ttl(&self, max_age: Option<Duration>) -> Duration {
        let (least, most) = TTL_BOUNDS;
        let stated = max_age.map_or(DEFAULT_TTL, |age| age.clamp(least, most));
        self.fetcher.fixed_ttl().unwrap_or(stated)
    }

    /// Installs fetched keys, even if none of them is usable: in that case the issuer has withdrawn
    /// its keys, and the next refresh is due soon.
    fn install(&self, set: KeySet, fetched: &FetchedKeys, now: Duration) -> KeyRefresh {
        let (document, ttl) = (&fetched.document, self.ttl(fetched.max_age));
        let before = self.current.load();
        let changed = before.set != set || before.fetched_at.is_none();
        let empty = set.is_empty();
        self.current.store(Arc::new(CurrentKeys {
            epoch: before.epoch + u64::from(changed),
            set,
            fetched_at: Some(now),
            fresh_until: now + ttl,
            usable_until: now + ttl + STALE_LIMIT,
        }));
        self.failing.store(false, Ordering::Release);
        {
            let mut state = self.state();
            state.failures = 0;
            state.problem = None;
        }
        if empty {
            let problem = no_usable_key(document, &self.algorithms);
            tracing::warn!(
                issuer = &*self.issuer,
                %problem,
                "the issuer publishes no usable keys"
            );
            self.state().problem = Some(format!("the JWK Set {problem}"));
            self.schedule(now + MAX_BACKOFF);
        } else {
            // Before the keys become stale, so that no caller has to wait.
            self.schedule(now + ttl * 3 / 4);
        }
        if changed {
            tracing::info!(issuer = &*self.issuer, "the issuer's keys have changed");
            let unusable = unusable_for_signatures(document, &self.algorithms);
            if !empty && !unusable.is_empty() {
                tracing::info!(
                    issuer = &*self.issuer,
                    problem = unusable,
                    "some of the issuer's keys cannot be used"
                );
            }
            KeyRefresh::Changed
        } else {
            KeyRefresh::Unchanged
        }
    }

    fn record_failure(&self, error: &KeyFetchError, now: Duration) -> KeyRefresh {
        let mut state = self.state();
        let doublings = state.failures.min(5);
        state.failures = state.failures.saturating_add(1);
        state.problem = Some(error.to_string());
        let backoff = (FIRST_BACKOFF * (1 << doublings)).min(MAX_BACKOFF);
        self.schedule(now + backoff);
        self.failing.store(true, Ordering::Release);
        tracing::warn!(issuer = &*self.issuer, %error, "the issuer's keys cannot be refreshed");
        KeyRefresh::Failed
    }

    fn schedule(&self, at: Duration) {
        self.next_refresh.store(millis(at), Ordering::Release);
    }
}

impl RefreshState {
    fn in_progress(&self) -> Option<Flight<()>> {
        self.fetch.clone().filter(Flight::is_in_progress)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
