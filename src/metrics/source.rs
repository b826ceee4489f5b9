//! Counts and times what a source does, without the source knowing.

use std::sync::Arc;

use async_trait::async_trait;
use prometheus::{Histogram, IntCounter};

use super::families::Families;
use super::series::children;
use crate::clock::SharedClock;
use crate::credential::ExchangeResult;
use crate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};
use crate::secret::SecretString;

/// A source whose exchanges are counted and timed.
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

/// The label that a fetch's end has.
fn result_of(end: &Result<Issued, FetchError>) -> ExchangeResult {
    end.as_ref()
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
        let end = self.inner.fetch(request).await;
        let took = self.clock.monotonic().saturating_sub(start);
        if let Some((count, duration)) = self.series.get(result_of(&end) as usize) {
            count.inc();
            duration.observe(took.as_secs_f64());
        }
        end
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
