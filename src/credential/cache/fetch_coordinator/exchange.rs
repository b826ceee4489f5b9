//! One exchange, from starting it to recording its result.

use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::generation::{SharedName, usable_life};
use super::super::shared::{self, SharedCredentials};
use super::{
    FetchCoordinator, FetchResult, Generation, InFlight, Lease, LeaseError, NegativeEntry, Obtained,
};
use crate::circuit_breaker::{Call, Outcome, Rejected};
use crate::clock::Now;
use crate::credential::ExchangeResult;
use crate::credential::identity::Identity;
use crate::credential::{FetchError, Issued, SwapRequest};
use crate::label::Label;
use crate::shared_store::Unwanted;
use crate::singleflight::Flight;
use crate::sync::atomic::Ordering;
use crate::sync::{self, MutexGuard};
use crate::trace::{self, Attribute, SpanKind};

/// How long to wait after a renewal that did not improve on the current credential.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// The result of an exchange.
enum Exchange {
    /// The name is that in the store of the fleet, if there is one.
    Ended(Result<Issued, FetchError>, Option<SharedName>),
    /// Another replica has made it.
    Shared(Issued, SharedName),
    /// Only the store of the fleet was looked at, and there is nothing new: because the current credential is
    /// superseded, or in place of an exchange that cannot be made now, for this reason.
    NotFound(Option<FetchError>),
    /// The source was not contacted, so this says nothing about its health.
    NotAttempted(FetchError),
}

impl FetchCoordinator {
    /// Registers an exchange and starts it as its own task, so that it is not cancelled when a
    /// caller disconnects. Releases the lock before spawning, as [`Flight::new`] requires. If
    /// the exchange cannot start now, the current credential stays in use.
    pub(super) fn start(
        self: &Arc<Self>,
        in_flight: MutexGuard<'_, InFlight>,
        identity: Identity,
        request: &SwapRequest,
        unwanted: Option<Unwanted>,
        now: Now,
    ) -> Result<Flight<FetchResult>, LeaseError> {
        let begun = match self.begin(identity, request, now) {
            Ok(call) => Ok(call),
            // Before the current credential is put back into use: the fleet may have rejected it.
            Err(error) if self.is_worth_a_look(identity, now) => Err(Some(error.cause)),
            Err(error) => {
                let at = now.monotonic.saturating_add(renewal_pause(&error.cause));
                self.postpone_renewal(identity, at);
                return Err(error);
            }
        };
        Ok(self.launch(in_flight, identity, request, begun, unwanted))
    }

    /// Looks in the store of the fleet for something newer than the current credential.
    pub(super) fn start_look_up(
        self: &Arc<Self>,
        in_flight: MutexGuard<'_, InFlight>,
        identity: Identity,
        request: &SwapRequest,
        current: Option<Unwanted>,
    ) -> Flight<FetchResult> {
        self.launch(in_flight, identity, request, Err(None), current)
    }

    /// Registers a flight and starts it. Without a call, it only looks in the store of the fleet; the error
    /// is what it ends with if there is nothing.
    fn launch(
        self: &Arc<Self>,
        mut in_flight: MutexGuard<'_, InFlight>,
        identity: Identity,
        request: &SwapRequest,
        begun: Result<Call<Identity>, Option<FetchError>>,
        unwanted: Option<Unwanted>,
    ) -> Flight<FetchResult> {
        let coordinator = Arc::clone(self);
        let exchange = self.exchange_within_span(begun, request.clone(), unwanted);
        let (flight, task) = Flight::new(exchange, move |exchange| {
            let exchange = exchange.unwrap_or_else(|| Exchange::Ended(Err(abandoned()), None));
            coordinator.complete(identity, exchange)
        });
        in_flight.insert(identity, flight.clone());
        drop(in_flight);
        sync::spawn(task);
        flight
    }

    fn begin(
        &self,
        identity: Identity,
        request: &SwapRequest,
        now: Now,
    ) -> Result<Call<Identity>, LeaseError> {
        let attempt = self.attempt(identity, request);
        self.check(&attempt, now)?;
        let call = self.breaker.begin(attempt);
        call.map_err(|rejected| self.rejected_lease(rejected))
    }

    /// Runs an exchange within the span that is active now, because a spawned task does not
    /// inherit it.
    fn exchange_within_span(
        self: &Arc<Self>,
        begun: Result<Call<Identity>, Option<FetchError>>,
        request: SwapRequest,
        unwanted: Option<Unwanted>,
    ) -> impl Future<Output = Exchange> + Send + use<> {
        let coordinator = Arc::clone(self);
        let parent = trace::current_span();
        async move {
            let exchange = async {
                match begun {
                    Ok(call) => coordinator.exchange(call, &request, unwanted).await,
                    Err(cause) => coordinator.look_up(cause, &request, unwanted).await,
                }
            };
            match parent {
                None => exchange.await,
                Some(parent) => Box::pin(trace::in_span(parent, exchange)).await,
            }
        }
    }

    /// Looks in the store of the fleet first, if there is one; then makes the exchange.
    async fn exchange(
        &self,
        call: Call<Identity>,
        request: &SwapRequest,
        unwanted: Option<Unwanted>,
    ) -> Exchange {
        let Some((shared, entry)) = self.shared_entry(request) else {
            return self.exchange_alone(call, request).await;
        };
        let patience = self.options.timeout;
        let now = || self.now();
        match shared.obtain(entry, unwanted, patience, now).await {
            shared::Obtained::Value(issued, name) => Exchange::Shared(issued, name),
            shared::Obtained::Alone => {
                let exchange = self.exchange_alone(call, request).await;
                if let (Exchange::Ended(Err(error), _), Some(unwanted)) = (&exchange, unwanted)
                    && ends_use(error)
                {
                    // The store may be there again by now, and still have it.
                    shared.withdraw(entry, unwanted.generation);
                }
                exchange
            }
            shared::Obtained::Lease(lease) => {
                let exchange = self.exchange_alone(call, request);
                let exchange = shared.while_held(&lease, exchange).await;
                let issued = match exchange {
                    Exchange::Ended(Ok(issued), _) => issued,
                    Exchange::Ended(Err(error), _) => {
                        if let Some(unwanted) = unwanted.filter(|_| ends_use(&error)) {
                            shared.withdraw(entry, unwanted.generation);
                        }
                        return Exchange::Ended(Err(error), None);
                    }
                    other => return other,
                };
                let max_age = self.options.limits.max_age;
                let now = self.now().wall;
                let life = usable_life(issued.expires_at, now, max_age);
                let name = shared.complete(lease, &issued, life, now).await;
                Exchange::Ended(Ok(issued), Some(name))
            }
        }
    }

    /// Whether another replica may have what this one cannot fetch now: there is no credential of `identity`
    /// in use, and the source has not refused it lately.
    fn is_worth_a_look(&self, identity: Identity, now: Now) -> bool {
        let is_in_use = || {
            let current = self.current.get(&identity);
            current.is_some_and(|current| current.is_in_use(now))
        };
        let negative = || {
            let entry = self.negatives.get(&identity);
            entry.is_some_and(|entry| !entry.is_backoff() && entry.until > now.monotonic)
        };
        self.shared.get().is_some() && !is_in_use() && !negative()
    }

    /// A credential other than `unwanted` from the store of the fleet, in place of an exchange.
    async fn look_up(
        &self,
        cause: Option<FetchError>,
        request: &SwapRequest,
        unwanted: Option<Unwanted>,
    ) -> Exchange {
        let found = match self.shared_entry(request) {
            Some((shared, entry)) => shared.look_up(entry, unwanted, self.now()).await,
            None => None,
        };
        match found {
            Some((issued, name)) => Exchange::Shared(issued, name),
            None => Exchange::NotFound(cause),
        }
    }

    fn shared_entry(&self, request: &SwapRequest) -> Option<(&SharedCredentials, shared::Entry)> {
        let shared = self.shared.get()?;
        let entry = shared.entry(&self.name, self.inner(), request)?;
        Some((shared, entry))
    }

    async fn exchange_alone(&self, call: Call<Identity>, request: &SwapRequest) -> Exchange {
        let repeatable = self.inner.retries_are_safe();
        let fetched = call.run(repeatable, |left| self.fetch(request, left), outcome);
        match fetched.await {
            Ok(fetched) => Exchange::Ended(fetched, None),
            Err(rejected) => Exchange::NotAttempted(self.not_attempted(rejected)),
        }
    }

    async fn fetch(&self, request: &SwapRequest, left: Duration) -> Result<Issued, FetchError> {
        let fetching = sync::timeout(left, self.inner.fetch(request));
        let kind = if self.inner.is_local() {
            SpanKind::Internal
        } else {
            SpanKind::Client
        };
        let fetched =
            trace::with_span("exchange", kind, fetching, |end| self.span_attributes(end)).await;
        let fetched = fetched.unwrap_or_else(|_| {
            let timeout = self.options.timeout.as_millis();
            Err(FetchError::Unavailable {
                cause: format!("no answer within {timeout} ms"),
                retry_after: None,
            })
        });
        fetched.map_err(|error| match error {
            FetchError::Misconfigured { cause, retry_after } => FetchError::Misconfigured {
                cause: format!("source {:?}: {cause}", &*self.name),
                retry_after,
            },
            other => other,
        })
    }

    /// Records whether the source refuses hawkgate's own client, and logs it if so.
    fn note_refusal(&self, fetched: &Result<Issued, FetchError>) {
        let cause = match fetched {
            Err(FetchError::Misconfigured { cause, .. }) => {
                tracing::error!(source = &*self.name, "{cause}");
                Some(cause.clone())
            }
            _ => None,
        };
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// The error if the source is not contacted. If it is left alone because it refuses hawkgate's own
    /// client, the error says that instead of that it cannot be reached.
    pub(super) fn not_attempted(&self, rejected: Rejected) -> FetchError {
        let retry_after = Some(rejected.retry_after());
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match &*refusal {
            Some(cause) if rejected != Rejected::Overloaded => FetchError::Misconfigured {
                cause: cause.clone(),
                retry_after,
            },
            _ => FetchError::Unavailable {
                cause: rejected.to_string(),
                retry_after,
            },
        }
    }

    /// The attributes and the error recorded in the exchange's span.
    fn span_attributes<E>(
        &self,
        end: &Result<Result<Issued, FetchError>, E>,
    ) -> (Vec<Attribute>, Option<&'static str>) {
        let error = match end {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(ExchangeResult::of(error).label()),
            Err(_) => Some(ExchangeResult::Unavailable.label()),
        };
        (
            vec![("hawkgate.source", self.name.to_string().into())],
            error,
        )
    }

    /// Records the result of an exchange and ends its flight, in one step under the lock.
    fn complete(&self, identity: Identity, exchange: Exchange) -> FetchResult {
        let now = self.now();
        if let Exchange::Ended(fetched, _) = &exchange {
            self.note_refusal(fetched);
        }
        let mut in_flight = self.in_flight();
        in_flight.remove(&identity);
        match exchange {
            Exchange::Ended(Ok(issued), name) => {
                let lease = self.install(identity, issued, name, now);
                Ok(Obtained::Fetched(lease))
            }
            Exchange::Shared(issued, name) => {
                let lease = self.install(identity, issued, Some(name), now);
                Ok(Obtained::Shared(lease))
            }
            Exchange::NotFound(cause) => {
                if let Some(current) = self.current.get(&identity) {
                    current.keep_superseded();
                }
                let Some(error) = cause else {
                    return Ok(Obtained::NothingNewer);
                };
                let at = now.monotonic.saturating_add(renewal_pause(&error));
                self.postpone_renewal(identity, at);
                Err(error)
            }
            Exchange::Ended(Err(error), _) => {
                self.record_failure(identity, &error, now);
                Err(error)
            }
            Exchange::NotAttempted(error) => {
                self.postpone_renewal(
                    identity,
                    now.monotonic.saturating_add(renewal_pause(&error)),
                );
                Err(error)
            }
        }
    }

    fn install(
        &self,
        identity: Identity,
        issued: Issued,
        name: Option<SharedName>,
        now: Now,
    ) -> Lease {
        let number = self.generations.fetch_add(1, Ordering::Relaxed);
        let limits = &self.options.limits;
        let generation = Generation::new(issued, number, now, limits, self.jitter.share());
        let generation = Arc::new(generation.named(name));
        if let (Some(shared), Some(name)) = (self.shared.get(), name) {
            shared.installed(name, &generation);
            // An event that arrived before did not find it.
            if shared.is_rejected(name.generation) {
                self.mark_outdated(&generation, now);
            }
        }
        self.negatives.invalidate(&identity);
        if generation.is_usable(now) {
            if let Some(old) = self.current.get(&identity) {
                old.retire();
            }
            self.current.insert(identity, Arc::clone(&generation));
        } else {
            // It was already expired when issued, as happens when the caller's token has less
            // than 30 s left (`docs/design/taskcluster.md`, "Login endpoint"). Only the callers
            // that waited for it get it.
            self.postpone_renewal(identity, now.monotonic.saturating_add(RENEWAL_PAUSE));
        }
        Lease(generation)
    }

    fn record_failure(&self, identity: Identity, error: &FetchError, now: Now) {
        let limits = &self.options.limits;
        let backoff = self.breaker.backoff_left(&identity);
        let entry = NegativeEntry::after(error.clone(), now.monotonic, limits, backoff);
        if ends_use(error) {
            if let Some(current) = self.current.get(&identity) {
                self.forget(identity, &current);
            }
        } else {
            self.postpone_renewal(identity, entry.until);
        }
        self.negatives.insert(identity, entry);
    }

    /// Keeps the current credential, if any, in use until it expires, and renews it no
    /// earlier than `at` (monotonic time).
    pub(super) fn postpone_renewal(&self, identity: Identity, at: Duration) {
        if let Some(generation) = self.current.get(&identity) {
            generation.mark_stale();
            generation.keep_in_use();
            generation.renew_later(at);
        }
    }
}

/// Whether a caller that gets this error instead of a new credential must not continue with the old
/// one: its token was revoked, or the user was removed.
fn ends_use(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Refused(_) | FetchError::NotEntitled(_) | FetchError::SignIn { .. }
    )
}

/// What an exchange says about the source's health.
fn outcome(fetched: &Result<Issued, FetchError>) -> Outcome {
    match fetched {
        Ok(_) => Outcome::Accepted,
        Err(
            FetchError::Unavailable { retry_after, .. }
            | FetchError::Misconfigured {
                retry_after: retry_after @ Some(_),
                ..
            },
        ) => Outcome::Failed {
            retry_after: *retry_after,
        },
        Err(_) => Outcome::Responded,
    }
}

/// How long to postpone a renewal that could not start.
pub(super) fn renewal_pause(error: &FetchError) -> Duration {
    match error {
        FetchError::Unavailable {
            retry_after: Some(left),
            ..
        }
        | FetchError::Misconfigured {
            retry_after: Some(left),
            ..
        } => *left,
        _ => RENEWAL_PAUSE,
    }
}

pub(super) fn abandoned() -> FetchError {
    FetchError::BadAnswer("the exchange ended without a result".to_owned())
}
