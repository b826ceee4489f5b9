//! Everything that `/metrics` shows. The only module that knows `prometheus`: others hand
//! over an [`Outcome`], wrap a source, or give a closure to be read at scrape time.
//!
//! Labels are names from the configuration or members of closed sets, so the number of
//! series is bounded by the configuration.

mod exemplar;
mod families;
mod family;
mod format;
mod open;
mod series;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::LabelPair;
use prometheus::{Registry, TextEncoder};

use crate::clock::{SharedClock, UnixMillis};
use crate::credential::CredentialSource;
use crate::gateway::outcome::Outcome;
use crate::token::{Introspected, IntrospectionObserver, KeyRefresh, RefreshObserver};
use crate::trace::{ExportResult, SpanObserver};
use families::{Families, REQUEST_DURATION};
pub use format::Format;
pub use series::Names;
use series::Series;
pub use source::MeteredSource;

/// How reloads end.
const RELOADS: [&str; 2] = ["success", "invalid"];

/// A metric could not be set up. Names are fixed, so this is a fault of the program.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(String);

impl From<prometheus::Error> for MetricsError {
    fn from(error: prometheus::Error) -> Self {
        Self(error.to_string())
    }
}

type Read<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Values that are read when they are scraped. Replaced whole on reload.
#[derive(Default)]
pub struct Watched {
    cache_entries: Vec<(Arc<str>, Read<u64>)>,
    jwks_age: Vec<(Arc<str>, Read<Option<Duration>>)>,
    log_lines_dropped: Option<Read<u64>>,
    requests_in_flight: Option<Read<u64>>,
}

impl Watched {
    /// How many requests have begun and not ended.
    pub fn requests_in_flight(&mut self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.requests_in_flight = Some(Box::new(read));
    }

    /// How many identities `source` has cached.
    pub fn cache_entries(
        &mut self,
        source: &Arc<str>,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.cache_entries.push((source.clone(), Box::new(read)));
    }

    /// How long ago `issuer`'s keys were last had; `None` while they never were.
    pub fn jwks_age(
        &mut self,
        issuer: &Arc<str>,
        read: impl Fn() -> Option<Duration> + Send + Sync + 'static,
    ) {
        self.jwks_age.push((issuer.clone(), Box::new(read)));
    }

    /// How many log lines were dropped since the start.
    pub fn log_lines_dropped(&mut self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.log_lines_dropped = Some(Box::new(read));
    }
}

/// The metrics of one hawkgate.
pub struct Metrics {
    registry: Registry,
    families: Families,
    series: ArcSwap<Series>,
    watched: Mutex<Watched>,
}

impl Metrics {
    /// Registers every family; those without names to wait for are exported at once.
    ///
    /// # Errors
    /// Never with the families as they are; see [`MetricsError`].
    pub fn new(version: &str, revision: &str) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let families = Families::register(&registry)?;
        families.build_info.child([version, revision]).set(1);
        for result in RELOADS {
            families.config_reloads.child([result]);
        }
        Ok(Self {
            series: ArcSwap::from_pointee(Series::new(&Names::default(), &families)),
            registry,
            families,
            watched: Mutex::default(),
        })
    }

    /// A configuration takes effect: its names become labels, its values are watched
    /// instead of the earlier ones, series of names that are gone end. `now` is when.
    pub fn configure(&self, names: &Names, watched: Watched, now: UnixMillis) {
        self.series
            .store(Arc::new(Series::new(names, &self.families)));
        self.families.forget_all_but(names);
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = watched;
        self.families.config_loaded_at.set(now.as_secs());
    }

    /// A reload ended, well or because a file is invalid; on success
    /// [`Metrics::configure`] was called too.
    pub fn reloaded(&self, success: bool) {
        let [good, invalid] = RELOADS;
        let result = if success { good } else { invalid };
        self.families.config_reloads.child([result]).inc();
    }

    /// A request has ended.
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
            route.exemplars.keep(traced.id, seconds);
        }
        if let Some(upstream) = outcome.upstream {
            route.upstream.observe(upstream.as_secs_f64());
        }
        for answer in &outcome.unauthorized {
            let child = route.unauthorized(&families.unauthorized, answer.action, answer.reason);
            if let Some(count) = child {
                count.inc();
            }
        }
        if let Some(result) = outcome.verification {
            series.verification(outcome.issuer.as_ref(), result).inc();
        }
        let lookup = outcome
            .lookup
            .and_then(|l| series.lookup(outcome.source.as_ref(), l));
        let rejection = outcome.rejection.and_then(|r| series.rejection(r));
        for count in [lookup, rejection].into_iter().flatten() {
            count.inc();
        }
    }

    /// `source`, counted and timed under `name`.
    pub fn meter(
        &self,
        name: &str,
        source: Arc<dyn CredentialSource>,
        clock: SharedClock,
    ) -> Arc<MeteredSource> {
        Arc::new(MeteredSource::new(name, source, clock, &self.families))
    }

    /// Counts how attempts to refresh `issuer`'s keys end.
    pub fn key_observer(&self, issuer: &str) -> RefreshObserver {
        let child = |result| self.families.jwks_refreshes.child([issuer, result]);
        let (changed, unchanged, failed) = (child("changed"), child("unchanged"), child("failed"));
        RefreshObserver::new(move |how| match how {
            KeyRefresh::Changed => changed.inc(),
            KeyRefresh::Unchanged => unchanged.inc(),
            KeyRefresh::Failed => failed.inc(),
        })
    }

    /// Counts how questions to `issuer` about tokens end.
    pub fn introspection_observer(&self, issuer: &str) -> IntrospectionObserver {
        let child = |result| self.families.introspections.child([issuer, result]);
        let (accepted, refused, failed) = (child("accepted"), child("refused"), child("failed"));
        IntrospectionObserver::new(move |how| match how {
            Introspected::Accepted => accepted.inc(),
            Introspected::Refused => refused.inc(),
            Introspected::Failed => failed.inc(),
        })
    }

    /// Counts what becomes of spans.
    pub fn span_observer(&self) -> SpanObserver {
        let child = |result| self.families.trace_spans.child([result]);
        let (exported, dropped, failed) = (child("exported"), child("dropped"), child("failed"));
        SpanObserver::new(move |fate, count| match fate {
            ExportResult::Exported => exported.inc_by(count),
            ExportResult::Dropped => dropped.inc_by(count),
            ExportResult::Failed => failed.inc_by(count),
        })
    }

    /// The plain text format, with watched values read now.
    ///
    /// # Errors
    /// When a family cannot be encoded; never with the families as they are.
    pub fn render(&self) -> Result<String, MetricsError> {
        self.render_as(Format::Text)
    }

    /// The same in `format`. Only OpenMetrics has exemplars.
    ///
    /// # Errors
    /// When a family cannot be encoded; never with the families as they are.
    pub fn render_as(&self, format: Format) -> Result<String, MetricsError> {
        // Held to the end, so that two scrapes at once do not clear each other's gauges.
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(&watched);
        let families = self.registry.gather();
        match format {
            Format::Text => Ok(TextEncoder::new().encode_to_string(&families)?),
            Format::OpenMetrics => {
                let series = self.series.load();
                let exemplar = |family: &str, labels: &[LabelPair], bucket| {
                    let route = labels.first().filter(|_| family == REQUEST_DURATION)?;
                    series.named_route(route.value()).exemplars.get(bucket)
                };
                open::write(&families, exemplar).map_err(|e| MetricsError(e.to_string()))
            }
        }
    }

    fn read(&self, watched: &Watched) {
        let families = &self.families;
        families.cache_entries.clear();
        for (source, read) in &watched.cache_entries {
            let entries = i64::try_from(read()).unwrap_or(i64::MAX);
            families.cache_entries.child([source]).set(entries);
        }
        families.jwks_age.clear();
        for (issuer, read) in &watched.jwks_age {
            if let Some(age) = read() {
                let secs = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
                families.jwks_age.child([issuer]).set(secs);
            }
        }
        if let Some(read) = &watched.requests_in_flight {
            let in_flight = i64::try_from(read()).unwrap_or(i64::MAX);
            families.in_flight.set(in_flight);
        }
        if let Some(read) = &watched.log_lines_dropped {
            let dropped = &families.log_lines_dropped;
            dropped.inc_by(read().saturating_sub(dropped.get()));
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}
