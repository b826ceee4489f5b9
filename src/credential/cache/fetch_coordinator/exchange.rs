//! One exchange, from starting it to recording its result.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::{
    FetchCoordinator, FetchResult, Generation, InFlight, Lease, NegativeEntry, backing_off,
    overloaded,
};
use crate::clock::Now;
use crate::credential::ExchangeResult;
use crate::credential::identity::Identity;
use crate::credential::{FetchError, Issued, SwapRequest};
use crate::label::Label;
use crate::singleflight::Flight;
use crate::trace::{self, Attribute, SpanKind};

/// How long to wait after a renewal that did not improve on the current credential.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// The result of an exchange.
enum Exchange {
    Ended(Result<Issued, FetchError>),
    /// The source was not contacted, so this says nothing about its health.
    NotAttempted(FetchError),
}

impl FetchCoordinator {
    /// Registers an exchange and starts it as its own task, so that it is not cancelled when a
    /// caller disconnects. Releases the lock before spawning, as [`Flight::new`] requires.
    pub(super) fn start(
        self: &Arc<Self>,
        mut in_flight: MutexGuard<'_, InFlight>,
        identity: Identity,
        request: &SwapRequest,
    ) -> Flight<FetchResult> {
        let coordinator = Arc::clone(self);
        let exchange = self.exchange_within_span(request.clone());
        let (flight, task) = Flight::new(exchange, move |exchange| {
            let exchange = exchange.unwrap_or_else(|| Exchange::Ended(Err(abandoned())));
            coordinator.complete(identity, exchange)
        });
        in_flight.flights.insert(identity, flight.clone());
        drop(in_flight);
        tokio::spawn(task);
        flight
    }

    /// Runs an exchange within the span that is active now, because a spawned task does not
    /// inherit it.
    fn exchange_within_span(
        self: &Arc<Self>,
        request: SwapRequest,
    ) -> impl Future<Output = Exchange> + Send + use<> {
        let coordinator = Arc::clone(self);
        let parent = trace::current_span();
        async move {
            match parent {
                None => coordinator.exchange(&request).await,
                Some(parent) => {
                    Box::pin(trace::in_span(parent, coordinator.exchange(&request))).await
                }
            }
        }
    }

    async fn exchange(&self, request: &SwapRequest) -> Exchange {
        let timeout = self.options.timeout;
        let Ok(Ok(_permit)) = tokio::time::timeout(timeout, self.permits.acquire()).await else {
            return Exchange::NotAttempted(overloaded(format!(
                "no exchange could start within {} ms: too many are running",
                timeout.as_millis()
            )));
        };
        // The source may have failed for others while this exchange waited for its permit.
        let backoff = self.in_flight().backoff.remaining(self.now().monotonic);
        if let Some(left) = backoff {
            return Exchange::NotAttempted(backing_off(left));
        }
        let fetching = tokio::time::timeout(timeout, self.inner.fetch(request));
        let kind = if self.inner.is_local() {
            SpanKind::Internal
        } else {
            SpanKind::Client
        };
        let fetched =
            trace::with_span("exchange", kind, fetching, |end| self.span_attributes(end)).await;
        Exchange::Ended(fetched.unwrap_or_else(|_| {
            Err(FetchError::Unavailable {
                cause: format!("no answer within {} ms", timeout.as_millis()),
                retry_after: None,
            })
        }))
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
        let mut in_flight = self.in_flight();
        in_flight.flights.remove(&identity);
        match exchange {
            Exchange::Ended(Ok(issued)) => {
                in_flight.backoff.responded();
                Ok(self.install(identity, issued, now))
            }
            Exchange::Ended(Err(error)) => {
                let jitter = self.jitter.share();
                match &error {
                    FetchError::Unavailable { retry_after, .. } => {
                        let backoff = &mut in_flight.backoff;
                        backoff.unavailable(identity, *retry_after, now.monotonic, jitter);
                    }
                    _ => in_flight.backoff.responded(),
                }
                self.record_failure(identity, &error, now, jitter);
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

    fn install(&self, identity: Identity, issued: Issued, now: Now) -> Lease {
        let number = self.generations.fetch_add(1, Ordering::Relaxed);
        let limits = &self.options.limits;
        let generation = Generation::new(issued, number, now, limits, self.jitter.share());
        let generation = Arc::new(generation);
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

    fn record_failure(&self, identity: Identity, error: &FetchError, now: Now, jitter: f64) {
        let before = self.negatives.get(&identity);
        let limits = &self.options.limits;
        let entry = NegativeEntry::after(
            error.clone(),
            before.as_ref(),
            now.monotonic,
            limits,
            jitter,
        );
        match error {
            // A caller that is refused a new credential must not continue with the old one:
            // its token was revoked, or the user was removed.
            FetchError::Refused(_) | FetchError::NotEntitled(_) | FetchError::SignIn { .. } => {
                if let Some(current) = self.current.get(&identity) {
                    self.forget(identity, &current);
                }
            }
            _ => self.postpone_renewal(identity, entry.until),
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

/// How long to postpone a renewal that could not start.
pub(super) fn renewal_pause(error: &FetchError) -> Duration {
    match error {
        FetchError::Unavailable {
            retry_after: Some(left),
            ..
        } => *left,
        _ => RENEWAL_PAUSE,
    }
}

pub(super) fn abandoned() -> FetchError {
    FetchError::BadAnswer("the exchange ended without a result".to_owned())
}
