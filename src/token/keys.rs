//! An issuer's keys: fetched, kept, refreshed, never trusted blindly. The intervals are
//! those of identity.md §A ("JWKS"), measured by the monotonic clock.
//!
//! One fetch at a time for each issuer, in a task of its own, so that a caller who goes
//! away takes nothing from the others who wait for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use async_trait::async_trait;

use super::TokenError;
use super::jwk::{KeySet, KeySetError, NoKey};
use super::signature::Verifier;
use crate::clock::SharedClock;
use crate::singleflight::Flight;
use crate::token::settings::Algorithm;

/// How long a document is fresh when its sender does not say.
const DEFAULT_TTL: Duration = Duration::from_mins(10);
/// The bounds of what its sender may say.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(24));
/// How long keys go on serving after that while none can be fetched (as `stale-if-error`,
/// RFC 5861 §4).
const STALE_LIMIT: Duration = Duration::from_hours(24);
/// Between two refreshes for the sake of unknown `kid`s.
const MISS_COOLDOWN: Duration = Duration::from_secs(30);
/// How long a `kid` that a refresh did not bring is known to be unknown.
const UNKNOWN_TTL: Duration = Duration::from_mins(1);
/// How many unknown `kid`s are remembered; the cooldown alone bounds the rest.
const MAX_UNKNOWN: usize = 64;
/// After the first failed fetch; doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait between failed fetches.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A JWKS document as it came, and how long its sender says it is good.
#[derive(Clone, Debug)]
pub struct FetchedKeys {
    /// The document, at most 256 KiB.
    pub document: Vec<u8>,
    /// `Cache-Control: max-age`, unclamped; `None` when absent.
    pub max_age: Option<Duration>,
}

/// Why keys could not be fetched. Texts are for operators and hold no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyFetchError(pub String);

impl From<KeySetError> for KeyFetchError {
    fn from(error: KeySetError) -> Self {
        Self(error.to_string())
    }
}

/// Where an issuer's keys come from (a URL, discovery, or a file).
#[async_trait]
pub trait KeyFetcher: Send + Sync + fmt::Debug {
    /// Fetches the document once, within the time and size limits.
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError>;

    /// How long a document is fresh, where the place decides (a local file is cheap to
    /// read again) and not `Cache-Control`. A decorator must pass it on.
    fn fixed_ttl(&self) -> Option<Duration> {
        None
    }
}

/// The end of one attempt to refresh keys, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefresh {
    /// New document, other keys than before.
    Changed,
    /// New document, same keys.
    Unchanged,
    /// Nothing usable came; earlier keys, if any, stay.
    Failed,
}

/// Is told how each attempt to refresh keys ended; for metrics. Must not block.
#[derive(Clone, Default)]
pub struct RefreshObserver(Option<Arc<dyn Fn(KeyRefresh) + Send + Sync>>);

impl RefreshObserver {
    /// Calls `observe` at the end of each attempt.
    pub fn new(observe: impl Fn(KeyRefresh) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }

    fn tell(&self, how: KeyRefresh) {
        if let Some(observe) = &self.0 {
            observe(how);
        }
    }
}

impl fmt::Debug for RefreshObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshObserver")
    }
}

/// The keys of one issuer and all that keeps them fresh. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: Arc<str>,
    fetcher: Arc<dyn KeyFetcher>,
    clock: SharedClock,
    algorithms: Vec<Algorithm>,
    current: ArcSwap<Current>,
    /// Whether the last attempt failed.
    failing: AtomicBool,
    /// When, in monotonic milliseconds, the next attempt may begin by itself.
    next_attempt: AtomicU64,
    control: Mutex<Control>,
    observer: RefreshObserver,
}

/// The keys in force. Times are of the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// Grows when the keys change.
    pub(super) epoch: u64,
    set: KeySet,
    fetched_at: Option<Duration>,
    fresh_until: Duration,
    usable_until: Duration,
}

#[derive(Debug, Default)]
struct Control {
    /// The latest fetch, in progress or finished.
    fetch: Option<Flight<()>>,
    /// Failures in a row.
    failures: u32,
    last_miss: Option<Duration>,
    unknown: HashMap<Box<str>, Duration>,
}

/// Keys that may have made a signature, and the epoch that they are of.
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
            next_attempt: AtomicU64::new(0),
            control: Mutex::default(),
            observer,
        }))
    }

    /// The epoch in force, if its keys may be used now without asking the issuer first;
    /// begins a refresh in the background where one is due.
    pub(super) fn epoch_in_force(&self, now: Duration) -> Option<u64> {
        let current = self.0.current.load();
        let serves = self.0.serves(&current, now);
        if serves && self.0.due(now) {
            self.0.begin(now);
        }
        serves.then_some(current.epoch)
    }

    /// The keys that may have made a signature with `algorithm` and `kid`. Fetches, or
    /// waits for somebody else's fetch, when there are no keys, when they are past their
    /// time, and when there is none of that name.
    pub(super) async fn select(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Selection, TokenError> {
        self.freshen().await;
        match self.look(algorithm, kid)? {
            Err(NoKey::Missing) => {}
            other => return Ok(other?),
        }
        let mut settled = false;
        while let Some((fetch, own)) = self.0.begin_for(kid.unwrap_or_default()) {
            fetch.wait().await;
            settled |= own;
            match self.look(algorithm, kid)? {
                // A fetch that had begun earlier may have missed the newest key.
                Err(NoKey::Missing) if !own => {}
                Err(NoKey::Missing) => break,
                other => return Ok(other?),
            }
        }
        self.missing(algorithm, kid, settled)
    }

    /// The end of a search; a last look, since somebody else's fetch may have ended just now.
    fn missing(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        settled: bool,
    ) -> Result<Selection, TokenError> {
        match self.look(algorithm, kid)? {
            // Whether the key exists is not known while its issuer does not answer.
            Err(NoKey::Missing) if self.0.is_failing() => Err(self.0.unavailable()),
            Err(NoKey::Missing) => {
                if settled {
                    self.0.remember_unknown(kid.unwrap_or_default());
                }
                Err(TokenError::UnknownKey)
            }
            other => Ok(other?),
        }
    }

    /// Makes sure that there are keys that may be used, if that can be had: begins a
    /// fetch that is due, and waits for the one under way where there is no choice.
    async fn freshen(&self) {
        let now = self.0.clock.monotonic();
        if self.epoch_in_force(now).is_none()
            && let Some(fetch) = self.0.begin(now)
        {
            fetch.wait().await;
        }
    }

    fn look(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Result<Selection, NoKey>, TokenError> {
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

    /// Refreshes if that is due, or joins a refresh under way; waits for the end.
    pub(super) async fn refresh_if_due(&self) {
        if let Some(fetch) = self.0.begin(self.0.clock.monotonic()) {
            fetch.wait().await;
        }
    }

    /// How long until the next attempt may begin by itself.
    pub(super) fn next_attempt_in(&self) -> Duration {
        self.0.next_attempt_in()
    }

    /// Whether there are keys to verify with, fresh or stale.
    pub(super) fn usable(&self) -> bool {
        self.0.current.load().usable(self.0.clock.monotonic())
    }

    /// How long ago the keys were last fetched.
    pub(super) fn age(&self) -> Option<Duration> {
        let fetched_at = self.0.current.load().fetched_at?;
        Some(self.0.clock.monotonic().saturating_sub(fetched_at))
    }
}

impl Current {
    fn usable(&self, now: Duration) -> bool {
        !self.set.is_empty() && now < self.usable_until
    }
}

impl Inner {
    /// Whether `current` may be used without asking the issuer first: it is fresh, or
    /// asking has just failed.
    fn serves(&self, current: &Guard<Arc<Current>>, now: Duration) -> bool {
        current.usable(now) && (now < current.fresh_until || self.is_failing())
    }

    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    fn due(&self, now: Duration) -> bool {
        millis(now) >= self.next_attempt.load(Ordering::Acquire)
    }

    fn next_attempt_in(&self) -> Duration {
        let next = Duration::from_millis(self.next_attempt.load(Ordering::Acquire));
        next.saturating_sub(self.clock.monotonic())
    }

    fn unavailable(&self) -> TokenError {
        let retry_after = self.next_attempt_in().max(FIRST_BACKOFF);
        TokenError::KeysUnavailable { retry_after }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // Every change under this lock is complete in itself.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fetch under way, else a new one if that is due.
    fn begin(self: &Arc<Self>, now: Duration) -> Option<Flight<()>> {
        let control = self.control();
        match control.in_progress() {
            None if self.due(now) => self.spawn(control, now),
            in_progress => in_progress,
        }
    }

    /// Starts a fetch; not outside of a runtime.
    fn spawn(
        self: &Arc<Self>,
        mut control: MutexGuard<'_, Control>,
        now: Duration,
    ) -> Option<Flight<()>> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        // For the time of the fetch; also should its runtime go down with it.
        self.schedule(now + MAX_BACKOFF);
        let (fetching, this) = (Arc::clone(self), Arc::clone(self));
        let (fetch, task) = Flight::new(
            async move { fetching.fetcher.fetch().await },
            move |fetched| {
                if let Some(fetched) = fetched {
                    this.end(fetched);
                }
            },
        );
        control.fetch = Some(fetch.clone());
        // Before spawning, as Flight::new asks.
        drop(control);
        runtime.spawn(task);
        Some(fetch)
    }

    /// The fetch to wait for when `kid` is missing, if there may be one: not for a `kid`
    /// known to be unknown, not within the cooldown, not sooner after a failure than the
    /// backoff allows. With it, whether it began only now.
    fn begin_for(self: &Arc<Self>, kid: &str) -> Option<(Flight<()>, bool)> {
        let now = self.clock.monotonic();
        let mut control = self.control();
        if control.unknown.get(kid).is_some_and(|until| now < *until) {
            return None;
        }
        if let Some(fetch) = control.in_progress() {
            return Some((fetch, false));
        }
        let cooling = control
            .last_miss
            .is_some_and(|last| now < last + MISS_COOLDOWN);
        if cooling || (self.is_failing() && !self.due(now)) {
            return None;
        }
        control.last_miss = Some(now);
        Some((self.spawn(control, now)?, true))
    }

    fn remember_unknown(&self, kid: &str) {
        let now = self.clock.monotonic();
        let mut control = self.control();
        control.unknown.retain(|_, until| now < *until);
        if control.unknown.len() < MAX_UNKNOWN {
            control.unknown.insert(kid.into(), now + UNKNOWN_TTL);
        }
    }

    /// Takes over what an attempt brought.
    fn end(&self, fetched: Result<FetchedKeys, KeyFetchError>) {
        let now = self.clock.monotonic();
        let parsed = fetched.and_then(|fetched| {
            let set = KeySet::parse(&fetched.document, &self.algorithms)?;
            Ok((set, self.ttl(fetched.max_age)))
        });
        let how = match parsed {
            Ok((set, ttl)) => self.install(set, ttl, now),
            Err(error) => self.fail(&error, now),
        };
        self.observer.tell(how);
    }

    fn ttl(&self, max_age: Option<Duration>) -> Duration {
        let (least, most) = TTL_BOUNDS;
        let stated = max_age.map_or(DEFAULT_TTL, |age| age.clamp(least, most));
        self.fetcher.fixed_ttl().unwrap_or(stated)
    }

    /// A JWK Set is the issuer's word, even when it takes every key away; it is asked
    /// again soon then.
    fn install(&self, set: KeySet, ttl: Duration, now: Duration) -> KeyRefresh {
        let before = self.current.load();
        let changed = before.set != set || before.fetched_at.is_none();
        let empty = set.is_empty();
        self.current.store(Arc::new(Current {
            epoch: before.epoch + u64::from(changed),
            set,
            fetched_at: Some(now),
            fresh_until: now + ttl,
            usable_until: now + ttl + STALE_LIMIT,
        }));
        self.failing.store(false, Ordering::Release);
        self.control().failures = 0;
        if empty {
            tracing::warn!(issuer = &*self.issuer, "the issuer publishes no usable key");
            self.schedule(now + MAX_BACKOFF);
        } else {
            // Ahead of the end, so that nobody has to wait.
            self.schedule(now + ttl * 3 / 4);
        }
        if changed {
            tracing::info!(issuer = &*self.issuer, "the issuer's keys have changed");
            KeyRefresh::Changed
        } else {
            KeyRefresh::Unchanged
        }
    }

    fn fail(&self, error: &KeyFetchError, now: Duration) -> KeyRefresh {
        let mut control = self.control();
        let doublings = control.failures.min(5);
        control.failures = control.failures.saturating_add(1);
        let backoff = (FIRST_BACKOFF * (1 << doublings)).min(MAX_BACKOFF);
        self.schedule(now + backoff);
        self.failing.store(true, Ordering::Release);
        tracing::warn!(issuer = &*self.issuer, %error, "the issuer's keys cannot be refreshed");
        KeyRefresh::Failed
    }

    fn schedule(&self, at: Duration) {
        self.next_attempt.store(millis(at), Ordering::Release);
    }
}

impl Control {
    fn in_progress(&self) -> Option<Flight<()>> {
        self.fetch.clone().filter(Flight::is_in_progress)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
