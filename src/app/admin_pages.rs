//! The pages of the admin listener: metrics, health, readiness and `PUT /credentials`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;

use super::components::Components;
use super::local_sources::Updatable;
use crate::clock::SharedClock;
use crate::config::Server;
use crate::gateway::rejection::Rejection;
use crate::gateway::route::{Route, Upstream};
use crate::gateway::{Gateway, Head};
use crate::metrics::{Format, Metrics};
use crate::proxy::admin::{AdminPages, PutCredentials};
use crate::token::{Issuer, IssuerStatus};

/// How long after the start hawkgate is not ready while the name of an upstream has not been
/// resolved. After that, such an upstream only counts against its own routes.
const FIRST_RESOLUTION: Duration = Duration::from_secs(5);

/// The state behind the pages of one run.
pub(super) struct Pages {
    pub(super) metrics: Arc<Metrics>,
    pub(super) gateway: Arc<ArcSwap<Gateway>>,
    pub(super) state: ArcSwap<AdminState>,
    pub(super) clock: SharedClock,
    /// `server.startup_grace`
    pub(super) grace: Duration,
    /// The monotonic time at which start-up counts as complete even without keys.
    pub(super) grace_ends: Duration,
    /// The monotonic time at which [`FIRST_RESOLUTION`] is over.
    pub(super) resolution_ends: Duration,
    pub(super) started: AtomicBool,
    pub(super) draining: AtomicBool,
    /// Monotonic milliseconds until which missing keys do not affect readiness, after a reload.
    pub(super) ready_until: AtomicU64,
}

/// The components of the current configuration that the pages use.
pub(super) struct AdminState {
    issuers: Vec<Arc<Issuer>>,
    upstreams: Vec<Arc<Upstream>>,
    /// The sources whose credentials may be replaced at run time.
    updatable: Vec<Updatable>,
}

impl From<&Components> for AdminState {
    fn from(components: &Components) -> Self {
        Self {
            issuers: components.issuers().cloned().collect(),
            upstreams: components.upstreams().cloned().collect(),
            updatable: components.updatable.clone(),
        }
    }
}

impl Pages {
    /// The pages of a run that starts now.
    pub(super) fn new(
        metrics: &Arc<Metrics>,
        gateway: &Arc<ArcSwap<Gateway>>,
        components: &Components,
        server: &Server,
        clock: &SharedClock,
    ) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            gateway: Arc::clone(gateway),
            state: ArcSwap::from_pointee(AdminState::from(components)),
            grace: server.startup_grace,
            grace_ends: clock.monotonic().saturating_add(server.startup_grace),
            resolution_ends: clock.monotonic().saturating_add(FIRST_RESOLUTION),
            clock: clock.clone(),
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            ready_until: AtomicU64::new(0),
        }
    }

    /// Waits until the names of all upstreams have been resolved, or [`FIRST_RESOLUTION`] is over.
    pub(super) async fn first_resolution(&self) {
        let upstreams = self.state.load().upstreams.clone();
        let all = join_all(upstreams.iter().map(|u| u.addresses.wait_until_known()));
        let _ = tokio::time::timeout(FIRST_RESOLUTION, all).await;
    }

    /// Call before a reload. New issuers may briefly have no keys; reporting not ready because
    /// of that would also turn away callers that can be served.
    pub(super) fn expect_reload(&self) {
        if self.can_serve_anyone() {
            let until = self.clock.monotonic().saturating_add(self.grace);
            let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
            self.ready_until.store(until, Ordering::Relaxed);
        }
    }

    /// Whether at least one route could serve a caller.
    fn can_serve_anyone(&self) -> bool {
        let gateway = self.gateway.load();
        let mut routes = gateway.routes.iter();
        let mut login = gateway.login.iter().flat_map(|login| &login.issuers);
        routes.any(|route| can_admit_anyone(route) && route.upstream.addresses.are_known())
            || login.any(|issuer| has_keys(issuer))
    }

    /// Whether the first look-ups of upstreams' names may still end in time.
    fn is_resolving(&self) -> bool {
        self.clock.monotonic() < self.resolution_ends
            && !unresolved(&self.state.load().upstreams).is_empty()
    }

    fn is_within_reload_grace(&self) -> bool {
        let until = Duration::from_millis(self.ready_until.load(Ordering::Relaxed));
        self.clock.monotonic() < until
    }
}

fn can_admit_anyone(route: &Route) -> bool {
    let session = route.session.as_ref();
    let mut verifiers = route
        .issuers
        .iter()
        .chain(session.into_iter().flat_map(|session| &session.issuers));
    // The source verifies passwords, which needs no keys; nor do sessions without an issuer.
    route.anonymous
        || route.takes_password()
        || session.is_some_and(|session| session.issuers.is_empty())
        || verifiers.any(|issuer| has_keys(issuer))
}

fn has_keys(issuer: &Issuer) -> bool {
    issuer.status() == IssuerStatus::Usable
}

impl AdminPages for Pages {
    fn metrics(&self, accept: &str) -> (String, String) {
        let format = Format::negotiate(accept);
        let text = self.metrics.render_as(format).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be rendered");
            String::new()
        });
        (format.content_type().to_owned(), text)
    }

    /// False while draining, while no route could serve a caller, and for up to
    /// [`FIRST_RESOLUTION`] after the start while the name of an upstream has not been resolved. A
    /// reload alone does not turn it false before `server.startup_grace` has passed.
    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        let serves = self.can_serve_anyone() && !self.is_resolving();
        if serves || self.is_within_reload_grace() {
            return Ok(());
        }
        let state = self.state.load();
        let problems = [without_keys(&state.issuers), unresolved(&state.upstreams)];
        Err(problems.concat().join("\n"))
    }

    /// True once the keys of every issuer have been fetched or the grace period is over, and
    /// from then on.
    fn started(&self) -> Result<(), String> {
        if self.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = self.state.load();
        let complete = state.issuers.iter().all(|i| has_keys(i));
        if complete || self.clock.monotonic() >= self.grace_ends {
            self.started.store(true, Ordering::Relaxed);
            return Ok(());
        }
        Err(without_keys(&state.issuers).join("\n"))
    }

    fn check_sender(&self, head: Head<'_>) -> Result<(), Rejection> {
        self.gateway.load().isolation.check(head)
    }

    fn put_credentials(&self, source: Option<&str>, body: &[u8]) -> PutCredentials {
        let state = self.state.load();
        let found = match (source, state.updatable.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(name), all) => all.iter().find(|(own, _)| **own == *name),
        };
        let Some((name, source)) = found else {
            return PutCredentials::NoSource;
        };
        match source.update(body) {
            Ok(client_id) => {
                let event = "credentials_replaced";
                tracing::info!(target: "audit", event, source = %name, credential = client_id, "credentials replaced through the admin listener");
                tracing::info!(source = %name, client_id, "credentials replaced until the next start");
                PutCredentials::Accepted
            }
            Err(why) => {
                // The listener sends an empty body to find out whether any source can be updated.
                if !body.is_empty() {
                    let event = "credentials_refused";
                    tracing::info!(target: "audit", event, source = %name, cause = %why, "credentials sent to the admin listener rejected");
                }
                PutCredentials::Rejected(why.to_string())
            }
        }
    }
}

fn without_keys(issuers: &[Arc<Issuer>]) -> Vec<String> {
    let missing = issuers.iter().filter(|i| !has_keys(i));
    missing
        .map(|i| format!("issuer {}: no usable keys yet", i.name()))
        .collect()
}

fn unresolved(upstreams: &[Arc<Upstream>]) -> Vec<String> {
    let missing = upstreams.iter().filter(|u| !u.addresses.are_known());
    missing
        .map(|u| format!("upstream {}: its name has not been resolved yet", u.host))
        .collect()
}
