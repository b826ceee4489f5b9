//! One exchange from its start to what is remembered of it. It runs as a task of its own:
//! whoever waits for it may go away.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::{
    FetchCoordinator, FetchResult, Generation, InFlight, Lease, NegativeEntry, busy, left_alone,
};
use crate::clock::Now;
use crate::credential::ExchangeResult;
use crate::credential::identity::Identity;
use crate::credential::{FetchError, Issued, SwapRequest};
use crate::label::Label;
use crate::singleflight::Flight;
use crate::trace::{self, Attribute, SpanKind};

/// A renewal that brought nothing better is not tried again at once.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// What an exchange came to.
enum Exchange {
    Ended(Result<Issued, FetchError>),
    /// The source was not asked; that says nothing about it.
    NotTried(FetchError),
}

impl FetchCoordinator {
    /// Registers an exchange and starts it as its own task, so that no caller going away
    /// cancels it. Releases the lock before it spawns, as [`Flight::new`] asks.
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

    /// Runs an exchange within the span that is active now, where the new task would not
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
        let Ok(Ok(_turn)) = tokio::time::timeout(timeout, self.turns.acquire()).await else {
            return Exchange::NotTried(busy(format!(
                "no turn for an exchange within {}ms",
                timeout.as_millis()
            )));
        };
        // The source may have failed others while this one waited for its turn.
        let backoff = self.in_flight().backoff.remaining(self.now().monotonic);
        if let Some(left) = backoff {
            return Exchange::NotTried(left_alone(left));
        }
        let fetching = tokio::time::timeout(timeout, self.inner.fetch(request));
        let kind = if self.inner.is_local() {
            SpanKind::Internal
        } else {
            SpanKind::Client
        };
        let fetched = trace::with_span("exchange", kind, fetching, |end| self.told(end)).await;
        Exchange::Ended(fetched.unwrap_or_else(|_| {
            Err(FetchError::Unavailable {
                cause: format!("no answer within {}ms", timeout.as_millis()),
                retry_after: None,
            })
        }))
    }

    /// What the exchange's span says.
    fn told<E>(
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

    /// Puts down what an exchange came to and ends its flight, in one step for all others.
    fn complete(&self, identity: Identity, exchange: Exchange) -> FetchResult {
        let now = self.now();
        let mut in_flight = self.in_flight();
        in_flight.flights.remove(&identity);
        match exchange {
            Exchange::Ended(Ok(issued)) => {
                in_flight.backoff.answered();
                Ok(self.admit(identity, issued, now))
            }
            Exchange::Ended(Err(error)) => {
                let jitter = self.jitter.share();
                match &error {
                    FetchError::Unavailable { retry_after, .. } => {
                        let backoff = &mut in_flight.backoff;
                        backoff.unavailable(identity, *retry_after, now.monotonic, jitter);
                    }
                    _ => in_flight.backoff.answered(),
                }
                self.record_failure(identity, &error, now, jitter);
                Err(error)
            }
            Exchange::NotTried(error) => {
                self.put_off(identity, now.monotonic.saturating_add(pause(&error)));
                Err(error)
            }
        }
    }

    fn admit(&self, identity: Identity, issued: Issued, now: Now) -> Lease {
        let number = self.generations.fetch_add(1, Ordering::Relaxed);
        let limits = &self.options.limits;
        let generation = Generation::new(issued, number, now, limits, self.jitter.share());
        let generation = Arc::new(generation);
        self.negatives.invalidate(&identity);
        if generation.is_usable(now) {
            if let Some(old) = self.current.get(&identity) {
                old.drop_for_good();
            }
            self.current.insert(identity, Arc::clone(&generation));
        } else {
            // It came expired (taskcluster.md §1): for those who waited, and nobody else.
            self.put_off(identity, now.monotonic.saturating_add(RENEWAL_PAUSE));
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
            // Whoever is refused a new one shall not go on with the old one: the token was
            // revoked, or the user is gone.
            FetchError::Refused(_) | FetchError::NotEntitled(_) | FetchError::SignIn { .. } => {
                if let Some(current) = self.current.get(&identity) {
                    self.forget(identity, &current);
                }
            }
            _ => self.put_off(identity, entry.until),
        }
        self.negatives.insert(identity, entry);
    }

    /// What is current, if anything, serves on until it expires; the next renewal not
    /// before `at`.
    fn put_off(&self, identity: Identity, at: Duration) {
        if let Some(generation) = self.current.get(&identity) {
            generation.mark_stale();
            generation.renew_later(at);
        }
    }
}

/// How long a renewal that could not start is put off.
pub(super) fn pause(error: &FetchError) -> Duration {
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
