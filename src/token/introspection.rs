//! Opaque tokens, of which only their issuer knows what they stand for (RFC 7662).
//!
//! The answer is remembered under the token's keyed hash for as long as the token is valid
//! and at most a minute, so that a token revoked there does not live on here. One question is
//! asked for everybody who comes with the same token at once. Nothing is let in while the
//! issuer cannot be asked.

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
use super::rules::{Facts, Rules};
use super::{BearerToken, TokenDigest, TokenError, VerifiedToken, strict_json};
use crate::clock::{Now, SharedClock, UnixMillis};
use crate::singleflight::Flight;
use crate::token::settings::IntrospectionIssuer;

/// How long "not active" is remembered. Short, because a token may be used a moment before
/// its issuer has it everywhere.
const REFUSAL_AGE: Duration = Duration::from_secs(10);
/// Questions under way at once; others wait for a turn.
const MAX_TURNS: usize = 32;
/// Questions under way or waiting; more are turned away, so that a flood of made-up tokens
/// takes no memory.
const MAX_FLIGHTS: usize = 1024;
/// For one question, waiting for a turn at it included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// After two failures in a row; doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Why an issuer could not be asked. For operators; holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct IntrospectionError {
    /// What happened.
    pub cause: String,
    /// How long the issuer wants to be left alone, if it says so.
    pub retry_after: Option<Duration>,
}

/// Asks an issuer about tokens.
#[async_trait]
pub trait Introspector: Send + Sync + fmt::Debug {
    /// The JSON document with which the issuer answers about `token`, as it came. Bounded in
    /// time and size by the implementation; the time is bounded again here.
    async fn introspect(&self, token: &BearerToken) -> Result<Vec<u8>, IntrospectionError>;
}

/// The end of one question, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introspected {
    /// The token is active and passes the issuer's rules.
    Accepted,
    /// It is not active, or breaks a rule.
    Refused,
    /// The issuer could not be asked, or gave no usable answer.
    Failed,
}

/// Is told how each question ended; for metrics. Must not block.
#[derive(Clone, Default)]
pub struct IntrospectionObserver(Option<Arc<dyn Fn(Introspected) + Send + Sync>>);

impl IntrospectionObserver {
    /// Calls `observe` at the end of each question.
    pub fn new(observe: impl Fn(Introspected) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }
}

impl fmt::Debug for IntrospectionObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntrospectionObserver")
    }
}

type FetchResult = Result<Arc<VerifiedToken>, TokenError>;

/// An issuer that is asked. Cheap to clone.
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
    /// Apart from `cache`, so that a flood of bad tokens displaces no good one. With the
    /// monotonic time until which each stands.
    refusals: Cache<TokenDigest, (TokenError, Duration)>,
    turns: Semaphore,
    in_flight: Mutex<InFlight>,
    observer: IntrospectionObserver,
}

#[derive(Debug, Default)]
struct InFlight {
    flights: HashMap<TokenDigest, Flight<FetchResult>>,
    /// Failures in a row.
    failures: u32,
    /// Monotonic time.
    left_alone_until: Duration,
}

impl Introspection {
    pub(super) fn new(
        issuer: Arc<str>,
        config: &IntrospectionIssuer,
        introspector: Arc<dyn Introspector>,
        clock: SharedClock,
        max_verified: u64,
        observer: IntrospectionObserver,
    ) -> Self {
        Self(Arc::new(Inner {
            issuer,
            prefix: config.token_prefix.clone(),
            max_age: config.verified_max_age,
            rules: Rules::of_introspection(config),
            introspector,
            cache: VerifiedTokenCache::new(clock.clone(), max_verified, config.verified_max_age),
            refusals: Cache::builder()
                .max_capacity(max_verified)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(REFUSAL_AGE)
                .build(),
            turns: Semaphore::new(MAX_TURNS),
            in_flight: Mutex::default(),
            clock,
            observer,
        }))
    }

    /// The exact `iss`.
    pub(super) fn url(&self) -> &str {
        &self.0.rules.url
    }

    /// What its tokens begin with; `None` where any opaque token may be its.
    pub(super) fn prefix(&self) -> Option<&str> {
        self.0.prefix.as_deref()
    }

    /// The token with this digest, if it was found good a moment ago.
    pub(super) fn cached(
        &self,
        digest: TokenDigest,
        now: Option<Now>,
    ) -> Option<Arc<VerifiedToken>> {
        // There are no keys here whose change would void what is remembered.
        self.0.cache.get(digest, now, |_| Some(0))
    }

    /// What the issuer says of `token`, now or a moment ago.
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
        // Every change under this lock is complete in itself.
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The question under way about this token, or a new one. It goes on when whoever
    /// started it goes away.
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
        // It may have landed between the look at the cache and here.
        if let Some(known) = self.cache.get(digest, None, |_| Some(0)) {
            return Ok(Flight::finished(Ok(known)));
        }
        let left = in_flight.left_alone_until.saturating_sub(now);
        if !left.is_zero() {
            return Err(unavailable(left));
        }
        if in_flight.flights.len() >= MAX_FLIGHTS {
            return Err(unavailable(FIRST_BACKOFF));
        }
        let (asking, this, token) = (Arc::clone(self), Arc::clone(self), token.clone());
        let (flight, task) = Flight::new(async move { asking.ask(&token).await }, move |result| {
            this.complete(digest, result)
        });
        in_flight.flights.insert(digest, flight.clone());
        // Before spawning, as Flight::new asks.
        drop(in_flight);
        tokio::spawn(task);
        Ok(flight)
    }

    async fn ask(&self, token: &BearerToken) -> FetchResult {
        let question = async {
            let _turn = self.turns.acquire().await;
            self.introspector.introspect(token).await
        };
        let answer = tokio::time::timeout(TIMEOUT, question).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(IntrospectionError {
                cause: format!("no answer within {}s", TIMEOUT.as_secs()),
                retry_after: None,
            })
        });
        let now = self.clock.now();
        match answer.and_then(|document| active(&document)) {
            Ok(claims) => self.judge(claims, token.digest(), now),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// `None` for claims is "not active".
    fn judge(
        &self,
        claims: Option<Map<String, Value>>,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> FetchResult {
        let claims = claims.ok_or(TokenError::Inactive)?;
        let Facts {
            subject,
            client,
            scopes,
            permissions,
            expires_at,
            starts_at,
        } = self.rules.introspected(&claims, now, self.max_age)?;
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
            // The issuer has judged by its own clock: no leeway on what is only remembered.
            until: expires_at,
        };
        self.cache.insert(&token, 0, window);
        Ok(token)
    }

    fn fail(&self, error: &IntrospectionError) -> TokenError {
        let now = self.clock.monotonic();
        let mut in_flight = self.in_flight();
        // Those that were under way together count once.
        if in_flight.failures < 2 || now >= in_flight.left_alone_until {
            in_flight.failures = in_flight.failures.saturating_add(1);
        }
        // What fails once may be about one token only.
        let backoff = match in_flight.failures {
            0 | 1 => Duration::ZERO,
            failures => (FIRST_BACKOFF * (1 << (failures - 2).min(5))).min(MAX_BACKOFF),
        };
        let wait = error
            .retry_after
            .map_or(backoff, |r| r.min(MAX_BACKOFF).max(backoff));
        in_flight.left_alone_until = now.saturating_add(wait);
        tracing::warn!(issuer = &*self.issuer, %error, "the issuer cannot be asked about a token");
        unavailable(wait.max(FIRST_BACKOFF))
    }

    /// Records the result and removes the flight. The caches hold the result before the
    /// flight leaves the map, so no caller can start a second introspection in between.
    fn complete(&self, digest: TokenDigest, result: Option<FetchResult>) -> FetchResult {
        if let Some(result) = &result {
            self.record(digest, result);
        }
        self.in_flight().flights.remove(&digest);
        result.unwrap_or_else(|| Err(unavailable(FIRST_BACKOFF)))
    }

    fn record(&self, digest: TokenDigest, result: &FetchResult) {
        let how = match result {
            Ok(_) => Introspected::Accepted,
            Err(TokenError::IntrospectionUnavailable { .. }) => Introspected::Failed,
            Err(error) => {
                let until = self.clock.monotonic().saturating_add(REFUSAL_AGE);
                self.refusals.insert(digest, (error.clone(), until));
                Introspected::Refused
            }
        };
        if how != Introspected::Failed {
            self.in_flight().failures = 0;
        }
        if let Some(observe) = &self.observer.0 {
            observe(how);
        }
    }
}

/// The claims of an active token, `None` for one that is not. Anything but a plain `true`
/// or `false` is no answer.
fn active(document: &[u8]) -> Result<Option<Map<String, Value>>, IntrospectionError> {
    let unusable = |what: &str| IntrospectionError {
        cause: format!("the answer {what}"),
        retry_after: None,
    };
    let claims = strict_json::object(document)
        .map_err(|_| unusable("is not one JSON object with each member once"))?;
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
