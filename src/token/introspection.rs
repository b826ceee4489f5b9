//! Verification of opaque tokens by introspection (RFC 7662).
//!
//! A response is cached under the token's keyed hash for as long as the token is valid, but at most
//! a minute, so that revocation takes effect soon. Concurrent requests with the same token share
//! one introspection. If the issuer is unreachable, no token is accepted. Whose fault a failure is,
//! and what follows from it, is decided by the [circuit breaker](crate::circuit_breaker).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::{Map, Value};

use super::cache::{CachedToken, VerifiedTokenCache, Window};
use super::extensions::Extensions;
use super::rules::{Rules, ValidatedClaims};
use super::{BearerToken, TokenDigest, TokenError, VerifiedToken, strict_json};
use crate::bounded_cache::CacheBounds;
use crate::circuit_breaker::{Attempt, Call, CircuitBreaker, Jitter, Limits, Origin, Outcome};
use crate::clock::{Now, SharedClock, UnixMillis};
use crate::peer_text::names_token;
use crate::singleflight::Flight;
use crate::token::settings::IntrospectionIssuer;

/// Without keys there is only one epoch.
pub(super) const EPOCH: u64 = 0;
/// How long a refusal is cached. Short, because a token may be used before it has reached all of
/// the issuer's replicas.
const REFUSAL_AGE: Duration = Duration::from_secs(10);
/// Maximum number of concurrent introspection requests; further ones wait. A quarter of them for
/// an origin of which no token has been accepted. High enough for tokens that make the issuer hang
/// until the timeout, 50 a second.
const MAX_CONCURRENT: usize = 256;
/// Maximum number of introspections in progress or waiting, and a quarter of them likewise.
/// Further ones are refused, so that a flood of invalid tokens cannot exhaust memory.
const MAX_IN_FLIGHT: usize = 1024;
/// The timeout of one introspection, and of the wait for a permit before it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The least `Retry-After` that callers get.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whose fault it is that introspection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntrospectionFault {
    /// The issuer's: it cannot be reached, is overloaded, or its response is unusable.
    Issuer,
    /// This token's: the issuer, or a firewall in front of it, rejects requests with it (a 4xx).
    Token,
    /// The operator's: the issuer does not accept hawkgate as a client.
    Client,
}

/// Why introspection failed. For operators; contains no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct IntrospectionError {
    /// Whose fault it is.
    pub fault: IntrospectionFault,
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
    breaker: Arc<CircuitBreaker<TokenDigest>>,
    in_flight: Mutex<InFlight>,
    observer: IntrospectionObserver,
}

/// The introspections in progress or waiting.
type InFlight = HashMap<TokenDigest, Flight<FetchResult>>;

impl Introspection {
    pub(super) fn new(
        issuer: Arc<str>,
        config: &IntrospectionIssuer,
        introspector: Arc<dyn Introspector>,
        clock: SharedClock,
        bounds: CacheBounds,
        observer: IntrospectionObserver,
    ) -> Self {
        let breaker = CircuitBreaker::new(
            "issuer",
            Arc::clone(&issuer),
            Limits {
                concurrency: MAX_CONCURRENT,
                max_calls: MAX_IN_FLIGHT,
                timeout: TIMEOUT,
                keys: usize::try_from(bounds.entries).unwrap_or(usize::MAX),
            },
            Arc::clone(&clock),
            Jitter::Random,
        );
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
            breaker,
            in_flight: Mutex::default(),
            clock,
            observer,
        }))
    }

    /// Whether the circuit to the issuer is open.
    pub(super) fn is_circuit_open(&self) -> bool {
        self.0.breaker.is_open()
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
    pub(super) fn cached(&self, digest: TokenDigest, now: Option<Now>) -> Option<Arc<CachedToken>> {
        self.0.cache.get(digest, now, |_| Some(EPOCH))
    }

    /// Verifies `token` with a cached response or by introspection, which `origin` causes.
    pub(super) async fn verify(&self, token: &BearerToken, origin: Origin) -> FetchResult {
        let digest = token.digest();
        let now = self.0.clock.monotonic();
        if let Some((error, until)) = self.0.refusals.get(&digest)
            && now < until
        {
            return Err(error);
        }
        let flight = self.0.join_or_start(token, origin)?;
        flight
            .wait()
            .await
            .unwrap_or_else(|| Err(unavailable(MIN_RETRY_AFTER)))
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
        origin: Origin,
    ) -> Result<Flight<FetchResult>, TokenError> {
        let digest = token.digest();
        let mut in_flight = self.in_flight();
        if let Some(flight) = in_flight.get(&digest) {
            return Ok(flight.clone());
        }
        // An introspection may have completed since the caller looked in the cache.
        if let Some(cached) = self.cache.get(digest, None, |_| Some(EPOCH)) {
            return Ok(Flight::finished(Ok(Arc::clone(&cached.token))));
        }
        let attempt = Attempt {
            key: digest,
            origin,
        };
        let call = self.breaker.begin(attempt);
        let call = call.map_err(|rejected| unavailable(rejected.retry_after()))?;
        let (introspecting, this, token) = (Arc::clone(self), Arc::clone(self), token.clone());
        let (flight, task) = Flight::new(
            async move { introspecting.introspect(call, &token).await },
            move |result| this.complete(digest, result),
        );
        in_flight.insert(digest, flight.clone());
        // Unlock before spawning, as `Flight::new` requires.
        drop(in_flight);
        tokio::spawn(task);
        Ok(flight)
    }

    async fn introspect(&self, call: Call<TokenDigest>, token: &BearerToken) -> FetchResult {
        let result = call
            .run(true, |left| self.send(token, left), Verdict::outcome)
            .await
            .map_err(|rejected| unavailable(rejected.retry_after()))?;
        match result {
            Verdict::Decided(result) => result,
            Verdict::Failed(error) => Err(self.record_failure(token.digest(), &error)),
        }
    }

    async fn send(&self, token: &BearerToken, left: Duration) -> Verdict {
        let response = tokio::time::timeout(left, self.introspector.introspect(token)).await;
        let response = response.unwrap_or_else(|_| {
            let cause = format!("no response within {}s", TIMEOUT.as_secs());
            Err(IntrospectionError::of_issuer(cause))
        });
        let now = self.clock.now();
        match response.and_then(|body| self.active_claims(&body, token)) {
            Ok(claims) => Verdict::Decided(self.validate(claims, token.digest(), now)),
            Err(error) => Verdict::Failed(error),
        }
    }

    /// The claims of an active token; `None` if it is not active. A response without a boolean
    /// `active` is unusable.
    fn active_claims(
        &self,
        document: &[u8],
        token: &BearerToken,
    ) -> Result<Option<Map<String, Value>>, IntrospectionError> {
        let unusable = |what: &str| IntrospectionError::of_issuer(format!("the response {what}"));
        let claims = strict_json::object(document)
            .map_err(|_| unusable("is not a JSON object without duplicate members"))?;
        match claims.get("active") {
            Some(Value::Bool(true)) if self.names_echo(&claims, token) => Err(unusable(
                "repeats the token as the name of its subject or client",
            )),
            Some(Value::Bool(true)) => Ok(Some(claims)),
            Some(Value::Bool(false)) => Ok(None),
            _ => Err(unusable("has no boolean \"active\"")),
        }
    }

    /// Whether a claim that is logged contains the token.
    fn names_echo(&self, claims: &Map<String, Value>, token: &BearerToken) -> bool {
        let names = ["sub", "client_id", "azp", "username"].into_iter();
        let clients = self.rules.client_claims().iter().map(String::as_str);
        let mut names = names
            .chain(clients)
            .filter_map(|name| claims.get(name)?.as_str());
        names.any(|name| names_token(name, token.expose()))
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
            accepted_until: expires_at,
            claims,
            digest,
            extensions: Extensions::default(),
        });
        let window = Window {
            from: starts_at.map(|t| self.rules.accepted_from(t)),
            // The issuer has checked `exp` by its own clock, so a cached response gets no leeway.
            until: expires_at,
        };
        self.cache.insert(&token, EPOCH, window);
        Ok(token)
    }

    /// The error for the caller. It is never that the token is bad: that would blame callers for
    /// an operator's mistake.
    fn record_failure(&self, digest: TokenDigest, error: &IntrospectionError) -> TokenError {
        let issuer = &*self.issuer;
        match error.fault {
            IntrospectionFault::Issuer => {
                tracing::warn!(issuer, %error, "a token cannot be introspected");
                unavailable(self.breaker.backoff_left(&digest))
            }
            IntrospectionFault::Client => {
                tracing::error!(
                    issuer,
                    %error,
                    "the issuer does not accept hawkgate as a client"
                );
                self.remember(digest, &unavailable(REFUSAL_AGE))
            }
            IntrospectionFault::Token => {
                tracing::info!(issuer, %error, "the issuer does not introspect this token");
                self.remember(digest, &unavailable(REFUSAL_AGE))
            }
        }
    }

    /// Caches an error that concerns one token, and returns it.
    fn remember(&self, digest: TokenDigest, error: &TokenError) -> TokenError {
        let until = self.clock.monotonic().saturating_add(REFUSAL_AGE);
        self.refusals.insert(digest, (error.clone(), until));
        error.clone()
    }

    /// Records the result and removes the flight. The caches hold the result before the flight
    /// leaves the map, so no caller can start a second introspection in between. The observer is
    /// called last: if it panicked earlier, the flight would never leave the map, and its token
    /// would be refused until the process exits.
    fn complete(&self, digest: TokenDigest, result: Option<FetchResult>) -> FetchResult {
        let outcome = result.as_ref().map(|result| self.record(digest, result));
        self.in_flight().remove(&digest);
        if let (Some(outcome), Some(observe)) = (outcome, &self.observer.0) {
            observe(outcome);
        }
        result.unwrap_or_else(|| Err(unavailable(MIN_RETRY_AFTER)))
    }

    fn record(&self, digest: TokenDigest, result: &FetchResult) -> IntrospectionResult {
        match result {
            Ok(_) => IntrospectionResult::Accepted,
            // Recorded by `record_failure`.
            Err(TokenError::IntrospectionUnavailable { .. }) => IntrospectionResult::Failed,
            Err(error) => {
                self.remember(digest, error);
                IntrospectionResult::Refused
            }
        }
    }
}

/// What the issuer's response says about a token, if anything.
enum Verdict {
    Decided(FetchResult),
    Failed(IntrospectionError),
}

impl Verdict {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Decided(Ok(_)) => Outcome::Accepted,
            Self::Failed(error) if error.fault == IntrospectionFault::Issuer => Outcome::Failed {
                retry_after: error.retry_after,
            },
            Self::Decided(Err(_)) | Self::Failed(_) => Outcome::Responded,
        }
    }
}

impl IntrospectionError {
    /// A failure of the issuer's without `Retry-After`.
    pub fn of_issuer(cause: String) -> Self {
        Self {
            fault: IntrospectionFault::Issuer,
            cause,
            retry_after: None,
        }
    }
}

fn unavailable(retry_after: Duration) -> TokenError {
    let retry_after = retry_after.max(MIN_RETRY_AFTER);
    TokenError::IntrospectionUnavailable { retry_after }
}

#[cfg(test)]
mod tests;
