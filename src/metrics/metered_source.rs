//! A decorator that counts and times the exchanges of a credential source.

use std::sync::Arc;

use async_trait::async_trait;
use prometheus::{Histogram, IntCounter};

use super::families::Families;
use super::label_values::children;
use crate::clock::SharedClock;
use crate::credential::ExchangeResult;
use crate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};
use crate::secret::SecretString;

/// A credential source whose exchanges are counted and timed.
pub struct MeteredSource {
    inner: Arc<dyn CredentialSource>,
    clock: SharedClock,
    series: Vec<(IntCounter, Histogram)>,
}

impl MeteredSource {
    pub(super) fn new(
        name: &str,
        inner: Arc<dyn CredentialSource>,
        clock: SharedClock,
        families: &Families,
    ) -> Self {
        let series = children(ExchangeResult::ALL, |result| {
            (
                families.exchanges.child([name, result]),
                families.exchange_duration.child([name, result]),
            )
        });
        Self {
            inner,
            clock,
            series,
        }
    }
}

/// The `result` label for how a fetch ended.
fn result_of(fetched: &Result<Issued, FetchError>) -> ExchangeResult {
    fetched
        .as_ref()
        .map_or_else(ExchangeResult::of, |_| ExchangeResult::Ok)
}

#[async_trait]
impl CredentialSource for MeteredSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        self.inner.identity(request, key)
    }

    fn epoch(&self) -> Option<u64> {
        self.inner.epoch()
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let start = self.clock.monotonic();
        let fetched = self.inner.fetch(request).await;
        let elapsed = self.clock.monotonic().saturating_sub(start);
        if let Some((count, duration)) = self.series.get(result_of(&fetched) as usize) {
            count.inc();
            duration.observe(elapsed.as_secs_f64());
        }
        fetched
    }

    fn retries_are_safe(&self) -> bool {
        self.inner.retries_are_safe()
    }

    fn is_fixed(&self) -> bool {
        self.inner.is_fixed()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn takes_token(&self) -> bool {
        self.inner.takes_token()
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn takes_password(&self) -> bool {
        self.inner.takes_password()
    }

    fn needs_sign_in(&self) -> bool {
        self.inner.needs_sign_in()
    }

    fn recovery_code(&self, request: &SwapRequest) -> Option<SecretString> {
        self.inner.recovery_code(request)
    }
}

impl std::fmt::Debug for MeteredSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MeteredSource").field(&self.inner).finish()
    }
}
