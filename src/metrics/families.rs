//! Every metric family that hawkgate exports, in one table.

use prometheus::{IntCounter, IntGauge, Registry};

use super::MetricsError;
use super::label_values::LabelValues;
use super::metric_vec::{CounterVec, DurationVec, GaugeVec, Register};

/// The family that carries exemplars.
pub(super) const REQUEST_DURATION: &str = "hawkgate_request_duration_seconds";

/// Defines [`Families`] with its registration, and [`FAMILIES`], from one row per family.
macro_rules! families {
    ($($field:ident: $kind:ty = $name:expr, $labels:expr, $help:literal;)+) => {
        /// All families, registered.
        pub(super) struct Families { $(pub(super) $field: $kind),+ }

        impl Families {
            pub(super) fn register(registry: &Registry) -> Result<Self, MetricsError> {
                Ok(Self { $($field: Register::register(registry, $name, $help, $labels)?),+ })
            }
        }

        /// Name and labels of every family that hawkgate exports. The families named
        /// `process_…` come from the `prometheus` crate and are not listed.
        pub const FAMILIES: &[(&str, &[&str])] = &[$(($name, &$labels)),+];
    };
}

families! {
    requests: CounterVec<3> = "hawkgate_requests_total", ["route", "code", "outcome"],
        "Finished requests, by status sent to the caller (0 if none was sent) and outcome.";
    request_duration: DurationVec<1> = REQUEST_DURATION, ["route"],
        "Time from the complete request head to the end of the response.";
    upstream_duration: DurationVec<1> = "hawkgate_upstream_duration_seconds", ["route"],
        "Time spent waiting for and reading from the upstream, over all attempts of a request.";
    in_flight: IntGauge = "hawkgate_requests_in_flight", [],
        "Requests in progress.";
    connections: IntGauge = "hawkgate_connections_open", [],
        "Open connections from callers.";
    replay_memory: IntGauge = "hawkgate_replay_memory_bytes", [],
        "Memory in use by request bodies recorded for a replay.";
    replay_memory_limit: IntGauge = "hawkgate_replay_memory_limit_bytes", [],
        "The most memory that recorded request bodies may use: limits.replay_memory.";
    certificate_not_before: GaugeVec<1> = "hawkgate_certificate_not_before_timestamp_seconds", ["listener"],
        "From when on a listener's certificate is valid, in seconds since the Unix epoch.";
    certificate_expiry: GaugeVec<1> = "hawkgate_certificate_expiry_timestamp_seconds", ["listener"],
        "When a listener's certificate expires, in seconds since the Unix epoch.";
    connections_limited: CounterVec<2> = "hawkgate_connections_limited_total", ["limit", "action"],
        "Connections refused at a limit, or closed to make room for others.";
    rejections: CounterVec<1> = "hawkgate_rejections_total", ["reason"],
        "Requests refused by hawkgate, by the reason in X-Hawkgate-Error.";
    verifications: CounterVec<2> = "hawkgate_token_verifications_total", ["issuer", "result"],
        "Bearer tokens verified, by issuer (- if none was found) and result.";
    lookups: CounterVec<2> = "hawkgate_credential_cache_lookups_total", ["source", "result"],
        "Credential lookups made for requests, by result.";
    cache_entries: GaugeVec<1> = "hawkgate_credential_cache_entries", ["source"],
        "Identities with a cached credential.";
    exchanges: CounterVec<2> = "hawkgate_exchanges_total", ["source", "result"],
        "Attempts by a source to fetch or mint a credential, by result.";
    exchange_duration: DurationVec<2> = "hawkgate_exchange_duration_seconds", ["source", "result"],
        "Time that a source took to fetch or mint a credential, by result.";
    unauthorized: CounterVec<3> = "hawkgate_upstream_unauthorized_total",
        ["route", "action", "reason"],
        "Upstream 401 responses, by action taken and reason.";
    upstream_retries: CounterVec<2> = "hawkgate_upstream_retries_total", ["route", "reason"],
        "Requests sent again because the upstream failed, by failure.";
    jwks_refreshes: CounterVec<2> = "hawkgate_jwks_refreshes_total", ["issuer", "result"],
        "Attempts to refresh an issuer's keys, by result.";
    jwks_age: GaugeVec<1> = "hawkgate_jwks_age_seconds", ["issuer"],
        "Time since an issuer's keys were last fetched; absent until they have been.";
    introspections: CounterVec<2> = "hawkgate_introspections_total", ["issuer", "result"],
        "Token introspection requests, by issuer and result.";
    circuit_open: GaugeVec<2> = "hawkgate_circuit_open", ["kind", "name"],
        "1 while the circuit to a source or an introspecting issuer is open, otherwise 0.";
    sign_ins: CounterVec<2> = "hawkgate_sign_ins_total", ["session", "result"],
        "Sign-ins with a browser, by result.";
    session_refreshes: CounterVec<2> = "hawkgate_session_refreshes_total", ["session", "result"],
        "Renewals of sessions, by result.";
    shared_requests: CounterVec<2> = "hawkgate_shared_requests_total", ["operation", "result"],
        "Operations of the shared store, by result.";
    shared_up: GaugeVec<0> = "hawkgate_shared_up", [],
        "1 while the shared store is used, 0 while it counts as down; absent without one.";
    forward_auth: CounterVec<2> = "hawkgate_forward_auth_total", ["forward_auth", "result"],
        "Requests of other proxies for a credential, by result.";
    config_reloads: CounterVec<1> = "hawkgate_config_reloads_total", ["result"],
        "Configuration reloads, by result.";
    config_loaded_at: IntGauge = "hawkgate_config_last_reload_success_timestamp_seconds", [],
        "When the current configuration was loaded, in seconds since the Unix epoch.";
    log_lines_dropped: IntCounter = "hawkgate_log_lines_dropped_total", [],
        "Log lines dropped because stderr was too slow.";
    trace_spans: CounterVec<1> = "hawkgate_trace_spans_total", ["result"],
        "Spans, by whether they were exported to the collector.";
    build_info: GaugeVec<2> = "hawkgate_build_info", ["version", "revision"],
        "Always 1; the labels identify the build.";
}

impl Families {
    /// Removes the series of routes, issuers and sources that are no longer configured.
    pub(super) fn retain_configured(&self, names: &LabelValues) {
        let (routes, issuers, sources) = (&names.routes, &names.issuers, &names.sources);
        self.requests.retain("route", routes);
        self.request_duration.retain("route", routes);
        self.upstream_duration.retain("route", routes);
        self.unauthorized.retain("route", routes);
        self.upstream_retries.retain("route", routes);
        self.verifications.retain("issuer", issuers);
        self.jwks_refreshes.retain("issuer", issuers);
        self.introspections.retain("issuer", issuers);
        self.lookups.retain("source", sources);
        self.exchanges.retain("source", sources);
        self.exchange_duration.retain("source", sources);
        self.sign_ins.retain("session", &names.sessions);
        self.session_refreshes.retain("session", &names.sessions);
        self.forward_auth
            .retain("forward_auth", &names.forward_auth);
    }
}
