//! One exchange from its start to what is remembered of it. It runs as a task of its own:
//! whoever waits for it may go away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::{Desk, Flight, Generation, Landed, Lease, Setback, Traffic, busy, left_alone};
use crate::clock::Moment;
use crate::credential::identity::Identity;
use crate::credential::{FetchError, Issued, SwapRequest};
use crate::gateway::outcome::{ExchangeResult, Label};
use crate::trace::{self, Attribute, Kind};

/// A renewal that brought nothing better is not tried again at once.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// What an exchange came to.
enum Exchange {
    Ended(Result<Issued, FetchError>),
    /// The source was not asked; that says nothing about it.
    NotTried(FetchError),
}

impl Desk {
    /// Lets an exchange run by itself: whoever waits may go away.
    pub(super) fn start(
        self: &Arc<Self>,
        traffic: &mut Traffic,
        identity: Identity,
        request: &SwapRequest,
    ) -> Flight {
        let (sender, flight) = watch::channel(None);
        traffic.flights.insert(identity, flight.clone());
        let landing = Landing {
            desk: Arc::clone(self),
            identity,
            sender: Some(sender),
        };
        let request = request.clone();
        let on_behalf = trace::current();
        tokio::spawn(async move {
            let exchange = match on_behalf {
                None => landing.desk.exchange(&request).await,
                Some(active) => {
                    Box::pin(trace::within(active, landing.desk.exchange(&request))).await
                }
            };
            landing.land(exchange);
        });
        flight
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
        let backoff = self.traffic().backoff.remaining(self.now().steady);
        if let Some(left) = backoff {
            return Exchange::NotTried(left_alone(left));
        }
        let fetching = tokio::time::timeout(timeout, self.inner.fetch(request));
        let kind = if self.inner.is_local() {
            Kind::Internal
        } else {
            Kind::Client
        };
        let fetched = trace::spanned("exchange", kind, fetching, |end| self.told(end)).await;
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
    fn settle(&self, identity: Identity, exchange: Exchange) -> Landed {
        let now = self.now();
        let mut traffic = self.traffic();
        traffic.flights.remove(&identity);
        match exchange {
            Exchange::Ended(Ok(issued)) => {
                traffic.backoff.answered();
                Ok(self.admit(identity, issued, now))
            }
            Exchange::Ended(Err(error)) => {
                let jitter = self.jitter.share();
                match &error {
                    FetchError::Unavailable { retry_after, .. } => {
                        let backoff = &mut traffic.backoff;
                        backoff.unavailable(identity, *retry_after, now.steady, jitter);
                    }
                    _ => traffic.backoff.answered(),
                }
                self.set_back(identity, &error, now, jitter);
                Err(error)
            }
            Exchange::NotTried(error) => {
                self.put_off(identity, now.steady.saturating_add(pause(&error)));
                Err(error)
            }
        }
    }

    fn admit(&self, identity: Identity, issued: Issued, now: Moment) -> Lease {
        let number = self.generations.fetch_add(1, Ordering::Relaxed);
        let limits = &self.options.limits;
        let generation = Generation::new(issued, number, now, limits, self.jitter.share());
        let generation = Arc::new(generation);
        self.setbacks.invalidate(&identity);
        if generation.is_usable(now) {
            if let Some(old) = self.current.get(&identity) {
                old.drop_for_good();
            }
            self.current.insert(identity, Arc::clone(&generation));
        } else {
            // It came expired (taskcluster.md §1): for those who waited, and nobody else.
            self.put_off(identity, now.steady.saturating_add(RENEWAL_PAUSE));
        }
        Lease(generation)
    }

    fn set_back(&self, identity: Identity, error: &FetchError, now: Moment, jitter: f64) {
        let before = self.setbacks.get(&identity);
        let limits = &self.options.limits;
        let setback = Setback::after(error.clone(), before.as_ref(), now.steady, limits, jitter);
        match error {
            // Whoever is refused a new one shall not go on with the old one: the token was
            // revoked, or the user is gone.
            FetchError::Refused(_) | FetchError::NotEntitled(_) | FetchError::SignIn { .. } => {
                if let Some(current) = self.current.get(&identity) {
                    self.forget(identity, &current);
                }
            }
            _ => self.put_off(identity, setback.until),
        }
        self.setbacks.insert(identity, setback);
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

/// The end of a flight, which comes even when the source panics or the runtime goes down.
struct Landing {
    desk: Arc<Desk>,
    identity: Identity,
    sender: Option<watch::Sender<Option<Landed>>>,
}

impl Landing {
    fn land(mut self, exchange: Exchange) {
        self.finish(exchange);
    }

    fn finish(&mut self, exchange: Exchange) {
        if let Some(sender) = self.sender.take() {
            let landed = self.desk.settle(self.identity, exchange);
            sender.send_replace(Some(landed));
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.finish(Exchange::Ended(Err(abandoned())));
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
