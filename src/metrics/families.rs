//! Every family that is exported, with its labels: the contract's table as code.

use prometheus::{IntCounter, IntGauge, Opts, Registry};

use super::MetricsError;
use super::family::{Counters, Durations, Gauges};
use super::series::Names;

/// The one with exemplars.
pub(super) const REQUEST_DURATION: &str = "hawkgate_request_duration_seconds";

/// All families, registered.
pub(super) struct Families {
    pub(super) requests: Counters<3>,
    pub(super) request_duration: Durations<1>,
    pub(super) upstream_duration: Durations<1>,
    pub(super) in_flight: IntGauge,
    pub(super) rejections: Counters<1>,
    pub(super) verifications: Counters<2>,
    pub(super) lookups: Counters<2>,
    pub(super) cache_entries: Gauges<1>,
    pub(super) exchanges: Counters<2>,
    pub(super) exchange_duration: Durations<2>,
    pub(super) unauthorized: Counters<3>,
    pub(super) jwks_refreshes: Counters<2>,
    pub(super) jwks_age: Gauges<1>,
    pub(super) introspections: Counters<2>,
    pub(super) config_reloads: Counters<1>,
    pub(super) config_loaded_at: IntGauge,
    pub(super) log_lines_dropped: IntCounter,
    pub(super) trace_spans: Counters<1>,
    pub(super) build_info: Gauges<2>,
}

impl Families {
    // One row per family; splitting the table would hide it.
    #[allow(clippy::too_many_lines)]
    pub(super) fn register(r: &Registry) -> Result<Self, MetricsError> {
        Ok(Self {
            requests: Counters::register(
                r,
                "hawkgate_requests_total",
                "Requests ended, by status sent to the caller (0: none was) and by how they ended.",
                ["route", "code", "outcome"],
            )?,
            request_duration: Durations::register(
                r,
                REQUEST_DURATION,
                "From the complete request head to the end of the answer.",
                ["route"],
            )?,
            upstream_duration: Durations::register(
                r,
                "hawkgate_upstream_duration_seconds",
                "Waiting for and reading the upstream, all attempts of a request together.",
                ["route"],
            )?,
            in_flight: gauge(r, "hawkgate_requests_in_flight", "Requests under way now.")?,
            rejections: Counters::register(
                r,
                "hawkgate_rejections_total",
                "Requests that hawkgate answered by itself, by the reason in X-Hawkgate-Error.",
                ["reason"],
            )?,
            verifications: Counters::register(
                r,
                "hawkgate_token_verifications_total",
                "Bearer tokens checked, by issuer (-: none found) and result.",
                ["issuer", "result"],
            )?,
            lookups: Counters::register(
                r,
                "hawkgate_credential_cache_lookups_total",
                "Credentials asked for on behalf of requests, by how they were come by.",
                ["source", "result"],
            )?,
            cache_entries: Gauges::register(
                r,
                "hawkgate_credential_cache_entries",
                "Identities whose credentials are cached now.",
                ["source"],
            )?,
            exchanges: Counters::register(
                r,
                "hawkgate_exchanges_total",
                "Credentials fetched or made by a source, by how that ended.",
                ["source", "result"],
            )?,
            exchange_duration: Durations::register(
                r,
                "hawkgate_exchange_duration_seconds",
                "How long a source took to answer.",
                ["source", "result"],
            )?,
            unauthorized: Counters::register(
                r,
                "hawkgate_upstream_unauthorized_total",
                "Upstream 401s, by what was done about them and why.",
                ["route", "action", "reason"],
            )?,
            jwks_refreshes: Counters::register(
                r,
                "hawkgate_jwks_refreshes_total",
                "Attempts to refresh an issuer's keys.",
                ["issuer", "result"],
            )?,
            jwks_age: Gauges::register(
                r,
                "hawkgate_jwks_age_seconds",
                "Time since an issuer's keys were last had; absent until they are.",
                ["issuer"],
            )?,
            introspections: Counters::register(
                r,
                "hawkgate_introspections_total",
                "Tokens that an issuer was asked about, by how that ended.",
                ["issuer", "result"],
            )?,
            config_reloads: Counters::register(
                r,
                "hawkgate_config_reloads_total",
                "Reloads of the configuration.",
                ["result"],
            )?,
            config_loaded_at: gauge(
                r,
                "hawkgate_config_last_reload_success_timestamp_seconds",
                "When the configuration in use was loaded, in seconds since the epoch.",
            )?,
            log_lines_dropped: counter(
                r,
                "hawkgate_log_lines_dropped_total",
                "Log lines dropped because stderr was too slow.",
            )?,
            trace_spans: Counters::register(
                r,
                "hawkgate_trace_spans_total",
                "Spans of requests, by whether the collector has them.",
                ["result"],
            )?,
            build_info: Gauges::register(
                r,
                "hawkgate_build_info",
                "Always 1; which build this is.",
                ["version", "revision"],
            )?,
        })
    }
}

impl Families {
    /// Ends the series of routes, issuers and sources that are not in `names`.
    pub(super) fn forget_all_but(&self, names: &Names) {
        let (routes, issuers, sources) = (&names.routes, &names.issuers, &names.sources);
        self.requests.retain("route", routes);
        self.request_duration.retain("route", routes);
        self.upstream_duration.retain("route", routes);
        self.unauthorized.retain("route", routes);
        self.verifications.retain("issuer", issuers);
        self.jwks_refreshes.retain("issuer", issuers);
        self.lookups.retain("source", sources);
        self.exchanges.retain("source", sources);
        self.exchange_duration.retain("source", sources);
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
    let gauge = IntGauge::with_opts(Opts::new(name, help))?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
    let counter = IntCounter::with_opts(Opts::new(name, help))?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}
