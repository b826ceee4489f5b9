//! What the admin listener says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::local::Updatable;
use crate::clock::SharedClock;
use crate::gateway::Gateway;
use crate::metrics::{self, Metrics};
use crate::proxy::admin::{AdminPages, CredentialsPut};
use crate::token::{Issuer, IssuerStatus};

/// Liveness, start and readiness of one run.
pub(super) struct Pages {
    pub(super) metrics: Arc<Metrics>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) issuers: Vec<Arc<Issuer>>,
    /// The sources whose credentials may be replaced, by name.
    pub(super) updatable: Vec<Updatable>,
    pub(super) clock: SharedClock,
    /// Steady time after which starting counts as over, keys or no keys.
    pub(super) grace_ends: Duration,
    pub(super) started: AtomicBool,
    pub(super) draining: AtomicBool,
}

fn has_keys(issuer: &Issuer) -> bool {
    issuer.status() == IssuerStatus::Usable
}

impl AdminPages for Pages {
    fn metrics(&self) -> (String, String) {
        let text = self.metrics.render().unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be rendered");
            String::new()
        });
        (metrics::CONTENT_TYPE.to_owned(), text)
    }

    /// False while draining, and while not a single route could let anybody in.
    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        let mut routes = self.gateway.routes.iter();
        let mut login = self.gateway.login.iter().flat_map(|login| &login.issuers);
        if routes.any(|route| route.anonymous || route.issuers.iter().any(|i| has_keys(i)))
            || login.any(|issuer| has_keys(issuer))
        {
            return Ok(());
        }
        Err(without_keys(&self.issuers))
    }

    /// True once each issuer's keys were had, or the grace is over; then for good.
    fn started(&self) -> Result<(), String> {
        if self.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        let complete = self.issuers.iter().all(|i| has_keys(i));
        if complete || self.clock.steady() >= self.grace_ends {
            self.started.store(true, Ordering::Relaxed);
            return Ok(());
        }
        Err(without_keys(&self.issuers))
    }

    fn put_credentials(&self, source: Option<&str>, body: &[u8]) -> CredentialsPut {
        let found = match (source, self.updatable.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(name), all) => all.iter().find(|(own, _)| **own == *name),
        };
        let Some((name, source)) = found else {
            return CredentialsPut::NoSource;
        };
        match source.update(body) {
            Ok(client_id) => {
                tracing::info!(source = %name, client_id, "credentials replaced until the next start");
                CredentialsPut::Taken
            }
            Err(why) => CredentialsPut::Refused(why.to_string()),
        }
    }
}

fn without_keys(issuers: &[Arc<Issuer>]) -> String {
    let missing = issuers.iter().filter(|i| !has_keys(i));
    let lines: Vec<String> = missing
        .map(|i| format!("issuer {}: no usable keys yet", i.name()))
        .collect();
    lines.join("\n")
}
