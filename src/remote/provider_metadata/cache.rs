//! A cache of one issuer's metadata: fetched once for all who wait, refreshed in the background,
//! and used stale while the issuer is down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{MetadataDiscoveryError, ProviderMetadata};
use crate::clock::SharedClock;
use crate::remote::http_client::HttpClient;
use crate::singleflight::Flight;

/// How long metadata is fresh. Endpoints change rarely.
const TTL: Duration = Duration::from_hours(1);
/// How long stale metadata is used while fetches fail, like stale keys.
const STALE_LIMIT: Duration = Duration::from_hours(24);
/// The backoff after the first failed fetch; it doubles with each further failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The maximum backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The metadata of one issuer. Cheap to clone. However many callers ask for it, the issuer gets one
/// request at a time, and after failures one in up to 30 seconds.
#[derive(Clone, Debug)]
pub struct MetadataCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: String,
    client: HttpClient,
    clock: SharedClock,
    state: Mutex<State>,
}

/// Times are monotonic.
#[derive(Debug, Default)]
struct State {
    current: Option<Arc<ProviderMetadata>>,
    usable_until: Duration,
    /// When the next fetch may start.
    due_at: Duration,
    /// Consecutive failures.
    failures: u32,
    error: Option<MetadataDiscoveryError>,
    fetch: Option<Flight<()>>,
}

/// There is no metadata to use.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct MetadataUnavailable {
    /// Why the last fetch failed.
    pub cause: MetadataDiscoveryError,
    /// The time until the next one may start.
    pub retry_after: Duration,
}

impl MetadataCache {
    /// An empty cache of the metadata of exactly this `issuer`. `client` must accept responses of
    /// 256 KiB. Nothing is fetched yet.
    pub fn new(issuer: &str, client: HttpClient, clock: SharedClock) -> Self {
        Self(Arc::new(Inner {
            issuer: issuer.to_owned(),
            client,
            clock,
            state: Mutex::default(),
        }))
    }

    /// The metadata, which is at most 25 hours old. Waits for a fetch only if there is none.
    ///
    /// # Errors
    /// If there is none and the last fetch failed.
    pub async fn get(&self) -> Result<Arc<ProviderMetadata>, MetadataUnavailable> {
        if let Some(current) = self.0.current() {
            self.0.join_or_start();
            return Ok(current);
        }
        if let Some(fetch) = self.0.join_or_start() {
            fetch.wait().await;
        }
        self.0.current().ok_or_else(|| self.0.unavailable())
    }
}

impl Inner {
    fn current(&self) -> Option<Arc<ProviderMetadata>> {
        let now = self.clock.monotonic();
        let state = self.state();
        state.current.clone().filter(|_| now < state.usable_until)
    }

    fn unavailable(&self) -> MetadataUnavailable {
        let now = self.clock.monotonic();
        let state = self.state();
        let interrupted = || {
            let cause = "the fetch was interrupted".to_owned();
            MetadataDiscoveryError::Invalid(format!("is not there: {cause}"))
        };
        MetadataUnavailable {
            cause: state.error.clone().unwrap_or_else(interrupted),
            retry_after: state.due_at.saturating_sub(now).max(FIRST_BACKOFF),
        }
    }

    /// Joins the fetch in progress, or starts one if it is due.
    fn join_or_start(self: &Arc<Self>) -> Option<Flight<()>> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        if let Some(fetch) = state.fetch.clone().filter(Flight::is_in_progress) {
            return Some(fetch);
        }
        if now < state.due_at {
            return None;
        }
        let (fetching, this) = (Arc::clone(self), Arc::clone(self));
        let (fetch, task) = Flight::new(
            async move { ProviderMetadata::discover(&fetching.client, &fetching.issuer).await },
            move |fetched| {
                if let Some(fetched) = fetched {
                    this.complete(fetched);
                }
            },
        );
        // The schedule in case the runtime shuts down before the fetch completes.
        state.due_at = now + FIRST_BACKOFF;
        state.fetch = Some(fetch.clone());
        // Unlock before spawning, as `Flight::new` requires.
        drop(state);
        tokio::spawn(task);
        Some(fetch)
    }

    fn complete(&self, fetched: Result<ProviderMetadata, MetadataDiscoveryError>) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        match fetched {
            Ok(metadata) => {
                state.current = Some(Arc::new(metadata));
                state.usable_until = now + TTL + STALE_LIMIT;
                state.due_at = now + TTL;
                state.failures = 0;
                state.error = None;
            }
            Err(error) => {
                let backoff = FIRST_BACKOFF * (1 << state.failures.min(5));
                state.due_at = now + backoff.min(MAX_BACKOFF);
                state.failures = state.failures.saturating_add(1);
                tracing::warn!(
                    issuer = &*self.issuer,
                    %error,
                    "the identity provider's metadata cannot be fetched"
                );
                state.error = Some(error);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state inconsistent: nothing under this lock panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
