//! The metrics served at `/metrics`. This is the only module that uses `prometheus`: others pass an
//! [`Outcome`], wrap a credential source, or register a callback that runs at scrape time.
//!
//! Label values are names from the configuration or members of closed sets, so the
//! configuration bounds the number of series.

mod exemplar;
mod families;
mod format;
mod label_values;
mod metered_source;
mod metric_vec;
mod openmetrics;
mod series;
mod shared_store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::LabelPair;
use prometheus::{IntCounter, Registry, TextEncoder};

use crate::clock::{SharedClock, UnixMillis};
use crate::credential::CredentialSource;
use crate::gateway::outcome::{Outcome, RefreshResult};
use crate::session;
use crate::token::{IntrospectionObserver, IntrospectionResult, KeyRefresh, RefreshObserver};
use crate::trace::{ExportResult, SpanObserver};
pub use families::FAMILIES;
use families::{Families, REQUEST_DURATION};
pub use format::Format;
pub use label_values::LabelValues;
use label_values::children;
pub use metered_source::MeteredSource;
use metric_vec::GaugeVec;
use series::Series;
pub use shared_store::SharedStoreMetrics;

/// Values of the `result` label of `hawkgate_config_reloads_total`.
const RELOADS: [&str; 2] = ["success", "invalid"];

/// A metric could not be registered or encoded. Names are fixed, so this is a bug.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(String);

impl From<prometheus::Error> for MetricsError {
    fn from(error: prometheus::Error) -> Self {
        Self(error.to_string())
    }
}

type Callback<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Callbacks that supply values when metrics are scraped. Replaced as a whole on reload.
#[derive(Default)]
pub struct ScrapeCallbacks {
    cache_entries: Vec<(Arc<str>, Callback<u64>)>,
    jwks_age: Vec<(Arc<str>, Callback<Option<Duration>>)>,
    circuit_open: Vec<(&'static str, Arc<str>, Callback<bool>)>,
    shared_up: Option<Callback<bool>>,
    log_lines_dropped: Option<Callback<u64>>,
    requests_in_flight: Option<Callback<u64>>,
    connections_open: Option<Callback<u64>>,
    connections_limited: Vec<([&'static str; 2], Callback<u64>)>,
    replay_memory: Option<[Callback<u64>; 2]>,
    certificates: Vec<(String, Callback<Option<[i64; 2]>>)>,
}

impl ScrapeCallbacks {
    /// The number of requests in progress.
    pub fn requests_in_flight(&mut self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.requests_in_flight = Some(Box::new(read));
    }

    /// The number of open connections from callers.
    pub fn connections_open(&mut self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.connections_open = Some(Box::new(read));
    }

    /// The number of connections for which `action` was taken at `limit`, since the start.
    pub fn connections_limited(
        &mut self,
        limit: &'static str,
        action: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.connections_limited
            .push(([limit, action], Box::new(read)));
    }

    /// The memory that request bodies recorded for a replay use, and may use, in bytes.
    pub fn replay_memory(
        &mut self,
        used: impl Fn() -> u64 + Send + Sync + 'static,
        limit: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.replay_memory = Some([Box::new(used), Box::new(limit)]);
    }

    /// From when to when the certificate of the listener at this address is valid, in seconds since
    /// the Unix epoch; `None` if that is unknown.
    pub fn certificate(
        &mut self,
        listener: &str,
        read: impl Fn() -> Option<[i64; 2]> + Send + Sync + 'static,
    ) {
        self.certificates
            .push((listener.to_owned(), Box::new(read)));
    }

    /// The number of identities for which `source` has a cached credential.
    pub fn cache_entries(
        &mut self,
        source: &Arc<str>,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.cache_entries.push((source.clone(), Box::new(read)));
    }

    /// The time since `issuer`'s keys were last fetched; `None` until they have been.
    pub fn jwks_age(
        &mut self,
        issuer: &Arc<str>,
        read: impl Fn() -> Option<Duration> + Send + Sync + 'static,
    ) {
        self.jwks_age.push((issuer.clone(), Box::new(read)));
    }

    /// Whether the circuit to the `kind` called `name` is open; `kind` is "source" or "issuer".
    pub fn circuit_open(
        &mut self,
        kind: &'static str,
        name: &Arc<str>,
        read: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        self.circuit_open.push((kind, name.clone(), Box::new(read)));
    }

    /// Whether the shared store is used, if there is one.
    pub fn shared_up(&mut self, read: impl Fn() -> bool + Send + Sync + 'static) {
        self.shared_up = Some(Box::new(read));
    }

    /// The number of log lines dropped since the start.
    pub fn log_lines_dropped(&mut self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.log_lines_dropped = Some(Box::new(read));
    }
}

/// The metrics of one hawkgate instance.
pub struct Metrics {
    registry: Registry,
    families: Families,
    series: ArcSwap<Series>,
    callbacks: Mutex<ScrapeCallbacks>,
}

impl Metrics {
    /// Registers every family. Families without configured names are exported immediately.
    ///
    /// # Errors
    /// If a family cannot be registered, which would be a bug.
    pub fn new(version: &str, revision: &str) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let families = Families::register(&registry)?;
        families.build_info.child([version, revision]).set(1);
        for result in RELOADS {
            families.config_reloads.child([result]);
        }
        Ok(Self {
            series: ArcSwap::from_pointee(Series::new(&LabelValues::default(), &families)),
            registry,
            families,
            callbacks: Mutex::default(),
        })
    }

    /// Applies a configuration that takes effect at `now`: its names become label values, its
    /// callbacks replace the previous ones, and series of other names are removed.
    pub fn configure(&self, names: &LabelValues, callbacks: ScrapeCallbacks, now: UnixMillis) {
        self.series
            .store(Arc::new(Series::new(names, &self.families)));
        self.families.retain_configured(names);
        if callbacks.shared_up.is_none() {
            self.families.shared_requests.clear();
        }
        *self
            .callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = callbacks;
        self.families.config_loaded_at.set(now.as_secs());
    }

    /// Counts a reload. `success` is false if the configuration was invalid; if true, the caller
    /// also calls [`Metrics::configure`].
    pub fn reloaded(&self, success: bool) {
        let [succeeded, invalid] = RELOADS;
        let result = if success { succeeded } else { invalid };
        self.families.config_reloads.child([result]).inc();
    }

    /// Counts a finished request.
    pub fn record(&self, outcome: &Outcome) {
        let families = &self.families;
        let series = self.series.load();
        let route = series.route(outcome.route.as_ref());
        if let Some(count) = route.requests(&families.requests, outcome.ending, outcome.code) {
            count.inc();
        }
        route.duration.observe(outcome.total.as_secs_f64());
        if let Some(traced) = outcome.trace.filter(|traced| traced.recorded) {
            let seconds = outcome.total.as_secs_f64();
            route.exemplars.record(traced.id, seconds);
        }
        if let Some(upstream) = outcome.upstream {
            route.upstream.observe(upstream.as_secs_f64());
        }
        for response in &outcome.unauthorized {
            let child =
                route.unauthorized(&families.unauthorized, response.action, response.reason);
            if let Some(count) = child {
                count.inc();
            }
        }
        if outcome.retries.total() > 0 {
            route.count_retries(outcome.retries);
        }
        if let Some(result) = outcome.verification {
            series.verification(outcome.issuer.as_ref(), result).inc();
        }
        let lookup = outcome
            .lookup
            .and_then(|l| series.lookup(outcome.source.as_ref(), l));
        let rejection = outcome.rejection.and_then(|r| series.rejection(r));
        let session = outcome.session.as_deref();
        let session = session.and_then(|record| series.session(record));
        let forward_auth = outcome.forward_auth.as_deref();
        let forward_auth = forward_auth.and_then(|record| series.forward_auth(record));
        for count in [lookup, rejection, session, forward_auth]
            .into_iter()
            .flatten()
        {
            count.inc();
        }
    }

    /// Wraps `source` so that its exchanges are counted and timed under `name`.
    pub fn meter(
        &self,
        name: &str,
        source: Arc<dyn CredentialSource>,
        clock: SharedClock,
    ) -> Arc<MeteredSource> {
        Arc::new(MeteredSource::new(name, source, clock, &self.families))
    }

    /// An observer that counts attempts to refresh `issuer`'s keys.
    pub fn key_observer(&self, issuer: &str) -> RefreshObserver {
        let child = |result| self.families.jwks_refreshes.child([issuer, result]);
        let (changed, unchanged, failed) = (child("changed"), child("unchanged"), child("failed"));
        RefreshObserver::new(move |result| match result {
            KeyRefresh::Changed => changed.inc(),
            KeyRefresh::Unchanged => unchanged.inc(),
            KeyRefresh::Failed => failed.inc(),
        })
    }

    /// An observer that counts the refreshes of the sessions called `session`.
    pub fn session_observer(&self, session: &str) -> Arc<dyn session::RefreshObserver> {
        Arc::new(SessionRefreshes(children(RefreshResult::ALL, |result| {
            self.families.session_refreshes.child([session, result])
        })))
    }

    /// An observer that counts the operations of the shared store.
    pub fn store_observer(&self) -> Arc<SharedStoreMetrics> {
        Arc::new(SharedStoreMetrics::new(&self.families))
    }

    /// An observer that counts introspection requests to `issuer`.
    pub fn introspection_observer(&self, issuer: &str) -> IntrospectionObserver {
        let child = |result| self.families.introspections.child([issuer, result]);
        let (accepted, refused, failed) = (child("accepted"), child("refused"), child("failed"));
        IntrospectionObserver::new(move |result| match result {
            IntrospectionResult::Accepted => accepted.inc(),
            IntrospectionResult::Refused => refused.inc(),
            IntrospectionResult::Failed => failed.inc(),
        })
    }

    /// An observer that counts exported, dropped and lost spans.
    pub fn span_observer(&self) -> SpanObserver {
        let child = |result| self.families.trace_spans.child([result]);
        let (exported, dropped, failed) = (child("exported"), child("dropped"), child("failed"));
        SpanObserver::new(move |result, count| match result {
            ExportResult::Exported => exported.inc_by(count),
            ExportResult::Dropped => dropped.inc_by(count),
            ExportResult::Failed => failed.inc_by(count),
        })
    }

    /// Encodes all metrics in the Prometheus text format, calling the callbacks.
    ///
    /// # Errors
    /// If a family cannot be encoded, which would be a bug.
    pub fn render(&self) -> Result<String, MetricsError> {
        self.render_as(Format::Text)
    }

    /// Encodes all metrics in `format`, calling the callbacks. Only OpenMetrics includes exemplars.
    ///
    /// # Errors
    /// As [`Metrics::render`].
    pub fn render_as(&self, format: Format) -> Result<String, MetricsError> {
        // Locked until this function returns, so that concurrent scrapes do not clear each other's
        // gauges.
        let callbacks = self
            .callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.run_callbacks(&callbacks);
        let families = self.registry.gather();
        match format {
            Format::Text => Ok(TextEncoder::new().encode_to_string(&families)?),
            Format::OpenMetrics => {
                let series = self.series.load();
                let exemplar = |family: &str, labels: &[LabelPair], bucket| {
                    let route = labels.first().filter(|_| family == REQUEST_DURATION)?;
                    series.route_by_label(route.value()).exemplars.get(bucket)
                };
                openmetrics::write(&families, exemplar).map_err(|e| MetricsError(e.to_string()))
            }
        }
    }

    fn run_callbacks(&self, callbacks: &ScrapeCallbacks) {
        let families = &self.families;
        families.cache_entries.clear();
        for (source, read) in &callbacks.cache_entries {
            let entries = i64::try_from(read()).unwrap_or(i64::MAX);
            families.cache_entries.child([source]).set(entries);
        }
        families.jwks_age.clear();
        for (issuer, read) in &callbacks.jwks_age {
            if let Some(age) = read() {
                let secs = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
                families.jwks_age.child([issuer]).set(secs);
            }
        }
        families.circuit_open.clear();
        for (kind, name, read) in &callbacks.circuit_open {
            let open = families.circuit_open.child([kind, name]);
            open.set(i64::from(read()));
        }
        families.shared_up.clear();
        if let Some(read) = &callbacks.shared_up {
            families.shared_up.child([]).set(i64::from(read()));
        }
        if let Some(read) = &callbacks.requests_in_flight {
            let in_flight = i64::try_from(read()).unwrap_or(i64::MAX);
            families.in_flight.set(in_flight);
        }
        if let Some(read) = &callbacks.connections_open {
            let open = i64::try_from(read()).unwrap_or(i64::MAX);
            families.connections.set(open);
        }
        if let Some([used, limit]) = &callbacks.replay_memory {
            let gauges = [&families.replay_memory, &families.replay_memory_limit];
            for (gauge, read) in gauges.into_iter().zip([used, limit]) {
                gauge.set(i64::try_from(read()).unwrap_or(i64::MAX));
            }
        }
        families.certificate_not_before.clear();
        families.certificate_expiry.clear();
        for (listener, read) in &callbacks.certificates {
            if let Some([not_before, not_after]) = read() {
                let of = |family: &GaugeVec<1>| family.child([listener]);
                of(&families.certificate_not_before).set(not_before);
                of(&families.certificate_expiry).set(not_after);
            }
        }
        for (labels, read) in &callbacks.connections_limited {
            let limited = families.connections_limited.child(*labels);
            limited.inc_by(read().saturating_sub(limited.get()));
        }
        if let Some(read) = &callbacks.log_lines_dropped {
            let dropped = &families.log_lines_dropped;
            dropped.inc_by(read().saturating_sub(dropped.get()));
        }
    }
}

/// One counter for each member of [`RefreshResult`].
struct SessionRefreshes(Vec<IntCounter>);

impl session::RefreshObserver for SessionRefreshes {
    fn refreshed(&self, result: session::RefreshResult) {
        let result = match result {
            session::RefreshResult::Refreshed => RefreshResult::Refreshed,
            session::RefreshResult::Refused => RefreshResult::Refused,
            session::RefreshResult::Unavailable => RefreshResult::Unavailable,
        };
        if let Some(count) = self.0.get(result as usize) {
            count.inc();
        }
    }
}

impl fmt::Debug for SessionRefreshes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionRefreshes(..)")
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}
