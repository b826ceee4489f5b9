//! Verification of opaque tokens by introspection (RFC 7662).
//!
//! A response is cached under the token's keyed hash for as long as the token is valid, but at most
//! a minute, so that revocation takes effect soon. Concurrent requests with the same token share
//! one introspection. If the issuer is unreachable, no token is accepted.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::cache::{VerifiedTokenCache, Window};
use super::extensions::Extensions;
use super::rules::{Rules, ValidatedClaims};
use super::{BearerToken, TokenDigest, TokenError, VerifiedToken, strict_json};
use crate::bounded_cache::CacheBounds;
use crate::clock::{Now, SharedClock, UnixMillis};
use crate::singleflight::Flight;
use crate::token::settings::IntrospectionIssuer;

/// How long a refusal is cached. Short, because a token may be used before it has reached all of
/// the issuer's replicas.
const REFUSAL_AGE: Duration = Duration::from_secs(10);
/// Maximum number of concurrent introspection requests; further ones wait.
const MAX_CONCURRENT: usize = 32;
/// Maximum number of introspections in progress or waiting. Further ones are refused, so that a
/// flood of invalid tokens cannot exhaust memory.
const MAX_IN_FLIGHT: usize = 1024;
/// The timeout of one introspection, including the wait for a permit.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The backoff after two consecutive failures; it doubles with each further failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The maximum backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Why introspection failed. For operators; contains no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct IntrospectionError {
    /// What went wrong.
    pub cause: String,
    /// The `Retry-After` of the response, if there was one.
    pub retry_after: Option<Duration>,
}

/// Sends introspection requests to an issuer.
#[async_trait]
pub trait Introspector: Send + Sync + fmt::Debug {
    /// Returns the body of the issuer's response for `token`. The implementation limits its size
    /// and the time taken; the caller also applies a timeout.
    async fn introspect(&self, token: &BearerToken) -> Result<Vec<u8>, IntrospectionError>;
}

/// The result of an introspection, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntrospectionResult {
    /// The token is active and satisfies the issuer's rules.
    Accepted,
    /// The token is not active, or violates a rule.
    Refused,
    /// The issuer was unreachable, or its response was unusable.
    Failed,
}

/// A callback for the result of each introspection, for metrics. Must not block.
#[derive(Clone, Default)]
pub struct IntrospectionObserver(Option<Arc<dyn Fn(IntrospectionResult) + Send + Sync>>);

impl IntrospectionObserver {
    /// Calls `observe` after each introspection.
    pub fn new(observe: impl Fn(IntrospectionResult) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }
}

impl fmt::Debug for IntrospectionObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntrospectionObserver")
    }
}

type FetchResult = Result<Arc<VerifiedToken>, TokenError>;

/// An issuer that verifies tokens by introspection. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Introspection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: Arc<str>,
    prefix: Option<String>,
    max_age: Duration,
    rules: Rules,
    introspector: Arc<dyn Introspector>,
    clock: SharedClock,
    cache: VerifiedTokenCache,
    /// Refusals and the monotonic time until which each is valid. Separate from `cache`, so that
    /// a flood of invalid tokens does not evict valid ones.
    refusals: Cache<TokenDigest, (TokenError, Duration)>,
    permits: Semaphore,
    in_flight: Mutex<InFlight>,
    observer: IntrospectionObserver,
}

#[derive(Debug, Default)]
struct InFlight {
    flights: HashMap<TokenDigest, Flight<FetchResult>>,
    /// Consecutive failures.
    failures: u32,
    /// Monotonic time.
    backoff_until: Duration,
}

impl Introspection {
    pub(super) fn new(
        issuer: Arc<str>,
        config: &IntrospectionIssuer,
        introspector: Arc<dyn Introspector>,
        clock: SharedClock,
        bounds: CacheBounds,
        observer: IntrospectionObserver,
    ) -> Self {
        Self(Arc::new(Inner {
            issuer,
            prefix: config.token_prefix.clone(),
            max_age: config.verified_max_age,
            rules: Rules::for_introspection(config),
            introspector,
            cache: VerifiedTokenCache::new(clock.clone(), bounds, config.verified_max_age),
            refusals: bounds
                .builder(|_: &(TokenError, Duration)| 0)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(REFUSAL_AGE)
                .build(),
            permits: Semaphore::new(MAX_CONCURRENT),
            in_flight: Mutex::default(),
            clock,
            observer,
        }))
    }

    /// The exact `iss`.
    pub(super) fn url(&self) -> &str {
        &self.0.rules.url
    }

    /// The prefix of the issuer's tokens; `None` if any opaque token may be one of them.
    pub(super) fn prefix(&self) -> Option<&str> {
        self.0.prefix.as_deref()
    }

    /// The token with this digest, if it is cached and still acceptable at `now`.
    pub(super) fn cached(
        &self,
        digest: TokenDigest,
        now: Option<Now>,
    ) -> Option<Arc<VerifiedToken>> {
        // Without keys there is only one epoch.
        self.0.cache.get(digest, now, |_| Some(0))
    }

    /// Verifies `token` with a cached response or by introspection.
    pub(super) async fn verify(&self, token: &BearerToken) -> FetchResult {
        let digest = token.digest();
        let now = self.0.clock.monotonic();
        if let Some((error, until)) = self.0.refusals.get(&digest)
            && now < until
        {
            return Err(error);
        }
        let flight = self.0.join_or_start(token, now)?;
        flight
            .wait()
            .await
            .unwrap_or_else(|| Err(unavailable(FIRST_BACKOFF)))
    }
}

impl Inner {
    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        // A panic cannot leave the state inconsistent: every change under this lock is atomic.
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the introspection of this token in progress, or starts one. It continues even if the
    /// caller that started it goes away.
    fn join_or_start(
        self: &Arc<Self>,
        token: &BearerToken,
        now: Duration,
    ) -> Result<Flight<FetchResult>, TokenError> {
        let digest = token.digest();
        let mut in_flight = self.in_flight();
        if let Some(flight) = in_flight.flights.get(&digest) {
            return Ok(flight.clone());
        }
        // An introspection may have completed since the caller looked in the cache.
        if let Some(cached) = self.cache.get(digest, None, |_| Some(0)) {
            return Ok(Flight::finished(Ok(cached)));
        }
        let remaining = in_flight.backoff_until.saturating_sub(now);
        if !remaining.is_zero() {
            return Err(unavailable(remaining));
        }
        if in_flight.flights.len() >= MAX_IN_FLIGHT {
            return Err(unavailable(FIRST_BACKOFF));
        }
        let (introspecting, this, token) = (Arc::clone(self), Arc::clone(self), token.clone());
        let (flight, task) = Flight::new(
            async move { introspecting.introspect(&token).await },
            move |result| this.complete(digest, result),
        );
        in_flight.flights.insert(digest, flight.clone());
        // Unlock before spawning, as `Flight::new` requires.
        drop(in_flight);
        tokio::spawn(task);
        Ok(flight)
    }

    async fn introspect(&self, token: &BearerToken) -> FetchResult {
        let request = async {
            let _permit = self.permits.acquire().await;
            self.introspector.introspect(token).await
        };
        let response = tokio::time::timeout(TIMEOUT, request).await;
        let response = response.unwrap_or_else(|_| {
            Err(IntrospectionError {
                cause: format!("no response within {}s", TIMEOUT.as_secs()),
                retry_after: None,
            })
        });
        let now = self.clock.now();
        match response.and_then(|body| active_claims(&body)) {
            Ok(claims) => self.validate(claims, token.digest(), now),
            Err(error) => Err(self.record_failure(&error)),
        }
    }

    /// `claims` is `None` if the token is not active.
    fn validate(
        &self,
        claims: Option<Map<String, Value>>,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> FetchResult {
        let claims = claims.ok_or(TokenError::Inactive)?;
        let ValidatedClaims {
            subject,
            client,
            scopes,
            permissions,
            expires_at,
            starts_at,
        } = self
            .rules
            .validate_introspection(&claims, now, self.max_age)?;
        let token = Arc::new(VerifiedToken {
            issuer: Arc::clone(&self.issuer),
            subject,
            client,
            scopes,
            permissions,
            expires_at,
            claims,
            digest,
            extensions: Extensions::default(),
        });
        let window = Window {
            from: starts_at.map(|t| self.rules.accepted_from(t)),
            // The issuer has checked `exp` by its own clock, so a cached response gets no leeway.
            until: expires_at,
        };
        self.cache.insert(&token, 0, window);
        Ok(token)
    }

    fn record_failure(&self, error: &IntrospectionError) -> TokenError {
        let now = self.clock.monotonic();
        let mut in_flight = self.in_flight();
        // Concurrent failures count once.
        if in_flight.failures < 2 || now >= in_flight.backoff_until {
            in_flight.failures = in_flight.failures.saturating_add(1);
        }
        // A single failure may concern one token only.
        let backoff = match in_flight.failures {
            0 | 1 => Duration::ZERO,
            failures => (FIRST_BACKOFF * (1 << (failures - 2).min(5))).min(MAX_BACKOFF),
        };
        let wait = error
            .retry_after
            .map_or(backoff, |r| r.min(MAX_BACKOFF).max(backoff));
        in_flight.backoff_until = now.saturating_add(wait);
        tracing::warn!(issuer = &*self.issuer, %error, "a token cannot be introspected");
        unavailable(wait.max(FIRST_BACKOFF))
    }

    /// Records the result and removes the flight. The caches hold the result before the flight
    /// leaves the map, so no caller can start a second introspection in between. The observer is
    /// called last: if it panicked earlier, the flight would never leave the map, and its token
    /// would be refused until the process exits.
    fn complete(&self, digest: TokenDigest, result: Option<FetchResult>) -> FetchResult {
        let outcome = result.as_ref().map(|result| self.record(digest, result));
        self.in_flight().flights.remove(&digest);
        if let (Some(outcome), Some(observe)) = (outcome, &self.observer.0) {
            observe(outcome);
        }
        result.unwrap_or_else(|| Err(unavailable(FIRST_BACKOFF)))
    }

    fn record(&self, digest: TokenDigest, result: &FetchResult) -> IntrospectionResult {
        let outcome = match result {
            Ok(_) => IntrospectionResult::Accepted,
            Err(TokenError::IntrospectionUnavailable { .. }) => IntrospectionResult::Failed,
            Err(error) => {
                let until = self.clock.monotonic().saturating_add(REFUSAL_AGE);
                self.refusals.insert(digest, (error.clone(), until));
                IntrospectionResult::Refused
            }
        };
        if outcome != IntrospectionResult::Failed {
            self.in_flight().failures = 0;
        }
        outcome
    }
}

/// The claims of an active token; `None` if it is not active. A response without a boolean `active`
/// is unusable.
fn active_claims(document: &[u8]) -> Result<Option<Map<String, Value>>, IntrospectionError> {
    let unusable = |what: &str| IntrospectionError {
        cause: format!("the response {what}"),
        retry_after: None,
    };
    let claims = strict_json::object(document)
        .map_err(|_| unusable("is not a JSON object without duplicate members"))?;
    match claims.get("active") {
        Some(Value::Bool(true)) => Ok(Some(claims)),
        Some(Value::Bool(false)) => Ok(None),
        _ => Err(unusable("has no boolean \"active\"")),
    }
}

fn unavailable(retry_after: Duration) -> TokenError {
    TokenError::IntrospectionUnavailable { retry_after }
}

#[cfg(test)]
mod tests;
