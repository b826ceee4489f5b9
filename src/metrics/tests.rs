use std::collections::{BTreeMap, BTreeSet};

use http::{Method, Version};

use super::*;
use crate::clock::ManualClock;
use crate::credential::Lookup;
use crate::credential::{FetchError, IdentityHasher, Issued, SwapRequest};
use crate::gateway::outcome::{
    Ending, Traced, Unauthorized, UnauthorizedAction, UnauthorizedReason,
};
use crate::gateway::reason::Reason;
use crate::gateway::upstream_retry::{RetryCounts, RetryReason};
use crate::label::Label as _;
use crate::shared_store::{Operation, OperationResult, StoreObserver as _};
use crate::token::Caller;
use crate::trace::TraceId;

fn names() -> LabelValues {
    LabelValues {
        routes: vec!["taskcluster".into()],
        issuers: vec!["auth0".into()],
        sources: vec!["login".into()],
        sessions: vec!["web".into()],
        forward_auth: vec!["edge".into()],
    }
}

/// A family as parsed from OpenMetrics.
#[derive(Debug, Default)]
struct OpenFamily {
    kind: String,
    unit: Option<String>,
    help: bool,
    /// Suffix, labels, value, exemplar.
    samples: Vec<(String, String, f64, Option<String>)>,
}

/// Parses OpenMetrics strictly, as the specification requires. Returns the families by name.
fn open_families(text: &str) -> BTreeMap<String, OpenFamily> {
    let body = text.strip_suffix("# EOF\n").expect("an # EOF line");
    let mut families: BTreeMap<String, OpenFamily> = BTreeMap::new();
    let mut current = String::new();
    for line in body.lines() {
        assert!(!line.is_empty() && line.trim_end() == line, "{line:?}");
        if let Some(rest) = line.strip_prefix("# ") {
            let (keyword, rest) = rest.split_once(' ').unwrap();
            let (name, rest) = rest.split_once(' ').unwrap();
            if keyword == "TYPE" {
                assert!(!families.contains_key(name), "{name} twice");
                name.clone_into(&mut current);
            }
            assert_eq!(name, current, "{line}");
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "{line} after samples");
            match keyword {
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{rest}")), "{line}");
                    family.unit = Some(rest.to_owned());
                }
                "HELP" => family.help = true,
                _ => panic!("{line}"),
            }
            continue;
        }
        let (sample, exemplar) = match line.split_once(" # ") {
            Some((sample, exemplar)) => (sample, Some(exemplar.to_owned())),
            None => (line, None),
        };
        let (name, value) = sample.rsplit_once(' ').unwrap();
        let (name, labels) = match name.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (name, ""),
        };
        let suffix = name
            .strip_prefix(&current)
            .unwrap_or_else(|| panic!("{line} in {current}"));
        let family = families.get_mut(&current).unwrap();
        let allowed: &[&str] = match &*family.kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum"],
            other => panic!("{other}"),
        };
        assert!(allowed.contains(&suffix), "{line}");
        assert!(exemplar.is_none() || suffix == "_bucket", "{line}");
        let value: f64 = value.parse().unwrap();
        assert!(family.kind != "counter" || value >= 0.0);
        family
            .samples
            .push((suffix.into(), labels.into(), value, exemplar));
    }
    families
}

#[test]
fn openmetrics_has_the_same_families_and_exemplars() {
    let metrics = Metrics::new("1.2.3", "a\"b\\c\nd").unwrap();
    let mut callbacks = ScrapeCallbacks::default();
    callbacks.cache_entries(&"login".into(), || 7);
    metrics.configure(&names(), callbacks, UnixMillis(1_500));
    let trace = TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
    let traced = |recorded| Outcome {
        trace: Some(Traced {
            id: trace,
            recorded,
        }),
        ..outcome()
    };
    metrics.record(&outcome());
    metrics.record(&traced(true));
    metrics.record(&Outcome {
        total: Duration::from_mins(5),
        ..traced(true)
    });
    metrics.record(&Outcome {
        total: Duration::from_secs(7),
        ..traced(false)
    });
    let text = metrics.render_as(Format::OpenMetrics).unwrap();
    let families = open_families(&text);
    assert!(families.values().all(|f| f.help && !f.samples.is_empty()));
    let plain = metrics.render().unwrap();
    let exported = plain
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .count();
    assert_eq!(families.len(), exported);

    let duration = &families["hawkgate_request_duration_seconds"];
    assert_eq!(
        (duration.kind.as_str(), duration.unit.as_deref()),
        ("histogram", Some("seconds"))
    );
    let bucket = |le: &str| {
        let expected = format!("route=\"taskcluster\",le=\"{le}\"");
        let mut samples = duration.samples.iter();
        samples
            .find(|(suffix, labels, ..)| suffix == "_bucket" && *labels == expected)
            .unwrap_or_else(|| panic!("no bucket {le}"))
    };
    let exemplar = |le: &str| bucket(le).3.clone();
    let prefix = format!("{{trace_id=\"{trace}\"}} ");
    assert_eq!(exemplar("0.005"), Some(format!("{prefix}0.003")));
    assert_eq!(exemplar("+Inf"), Some(format!("{prefix}300")));
    assert_eq!((exemplar("0.0025"), exemplar("10.0")), (None, None));
    assert!((bucket("+Inf").2 - 4.0).abs() < 0.1 && (bucket("120.0").2 - 3.0).abs() < 0.1);
    let sample = |family: &str, labels: &str| {
        let mut samples = families[family].samples.iter();
        let found = samples.find(|(_, found, ..)| found == labels);
        found.unwrap_or_else(|| panic!("no {family}{{{labels}}}")).2
    };
    let forwarded = r#"code="200",outcome="forwarded",route="taskcluster""#;
    assert!((sample("hawkgate_requests", forwarded) - 4.0).abs() < 0.1);
    assert_eq!(families["hawkgate_build"].kind, "info");
    let escaped = r#"revision="a\"b\\c\nd",version="1.2.3""#;
    assert!((sample("hawkgate_build", escaped) - 1.0).abs() < 0.1);
    let entries = sample("hawkgate_credential_cache_entries", r#"source="login""#);
    assert!((entries - 7.0).abs() < 0.1);
    assert_eq!(families["process_cpu_seconds"].kind, "counter");
}

fn outcome() -> Outcome {
    Outcome {
        route: Some("taskcluster".into()),
        issuer: Some("auth0".into()),
        verification: Some("ok"),
        source: Some("login".into()),
        lookup: Some(Lookup::Fetched),
        total: Duration::from_millis(3),
        admission: Duration::from_millis(1),
        upstream: Some(Duration::from_millis(2)),
        ..Outcome::new(
            "r".into(),
            Method::GET,
            "/api/secret-path".into(),
            Version::HTTP_11,
            Ending::Forwarded,
            200,
        )
    }
}

fn metrics() -> Metrics {
    let metrics = Metrics::new("1.2.3", "abc").unwrap();
    let mut callbacks = ScrapeCallbacks::default();
    callbacks.cache_entries(&"login".into(), || 7);
    callbacks.jwks_age(&"auth0".into(), || Some(Duration::from_secs(61)));
    callbacks.jwks_age(&"never".into(), || None);
    callbacks.log_lines_dropped(|| 3);
    callbacks.circuit_open("source", &"login".into(), || true);
    callbacks.circuit_open("issuer", &"opaque".into(), || false);
    callbacks.shared_up(|| true);
    callbacks.connections_limited("connections", "refused", || 1);
    callbacks.replay_memory(|| 5, || 256);
    callbacks.certificate("0.0.0.0:8443", || Some([1_000, 2_000]));
    callbacks.certificate("0.0.0.0:8444", || None);
    metrics.configure(&names(), callbacks, UnixMillis::from_secs(1000));
    metrics
}

/// Parses the text format into a map from series (name and sorted labels) to value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty());
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            (series.to_owned(), value.parse::<f64>().expect("a number"))
        })
        .collect()
}

fn value(metrics: &Metrics, series: &str) -> f64 {
    let samples = samples(&metrics.render().unwrap());
    *samples
        .get(series)
        .unwrap_or_else(|| panic!("no {series} among {:#?}", samples.keys()))
}

/// Maps each family to the label names found in its samples. Histograms appear under the family's
/// name.
fn label_names(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut families = BTreeMap::<_, BTreeSet<String>>::new();
    for series in samples(text).keys() {
        let (name, labels) = series
            .split_once('{')
            .map_or((series.as_str(), ""), |(n, l)| (n, l.trim_end_matches('}')));
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|s| name.strip_suffix(s))
            .unwrap_or(name);
        let labels = labels.split(',').filter_map(|l| l.split_once('='));
        let labels = labels.map(|(k, _)| k.to_owned()).filter(|k| k != "le");
        families.entry(name.to_owned()).or_default().extend(labels);
    }
    families
}

/// Metrics in which every family has at least one series.
fn all_series() -> Metrics {
    let metrics = all_series_at_zero();
    metrics.record(&outcome());
    metrics
}

fn all_series_at_zero() -> Metrics {
    let metrics = metrics();
    let source = Arc::new(FixedSource(None));
    metrics.meter("login", source, ManualClock::at(UnixMillis(0)));
    let _ = metrics.key_observer("auth0");
    let _ = metrics.introspection_observer("auth0");
    let _ = metrics.session_observer("web");
    let _ = metrics.store_observer();
    let _ = metrics.span_observer();
    metrics
}

#[test]
fn exactly_the_listed_families_are_exported_with_their_labels() {
    let exported = label_names(&all_series().render().unwrap());
    let (process, own): (BTreeMap<_, _>, BTreeMap<_, _>) = exported
        .into_iter()
        .partition(|(name, _)| name.starts_with("process_"));
    let set = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let listed = FAMILIES
        .iter()
        .map(|(name, labels)| ((*name).to_owned(), set(labels)));
    assert_eq!(own, listed.collect::<BTreeMap<_, _>>());
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert_eq!(process.get(name), Some(&BTreeSet::new()), "{name}");
    }
}

/// Dashboards and alerts rely on these: renaming one is a breaking change.
#[test]
fn the_families_are_those_of_the_published_interface() {
    let published: &[(&str, &[&str])] = &[
        ("hawkgate_requests_total", &["route", "code", "outcome"]),
        ("hawkgate_request_duration_seconds", &["route"]),
        ("hawkgate_upstream_duration_seconds", &["route"]),
        ("hawkgate_requests_in_flight", &[]),
        ("hawkgate_connections_open", &[]),
        ("hawkgate_replay_memory_bytes", &[]),
        ("hawkgate_replay_memory_limit_bytes", &[]),
        (
            "hawkgate_certificate_not_before_timestamp_seconds",
            &["listener"],
        ),
        (
            "hawkgate_certificate_expiry_timestamp_seconds",
            &["listener"],
        ),
        ("hawkgate_connections_limited_total", &["limit", "action"]),
        ("hawkgate_rejections_total", &["reason"]),
        ("hawkgate_token_verifications_total", &["issuer", "result"]),
        (
            "hawkgate_credential_cache_lookups_total",
            &["source", "result"],
        ),
        ("hawkgate_credential_cache_entries", &["source"]),
        ("hawkgate_exchanges_total", &["source", "result"]),
        ("hawkgate_exchange_duration_seconds", &["source", "result"]),
        (
            "hawkgate_upstream_unauthorized_total",
            &["route", "action", "reason"],
        ),
        ("hawkgate_upstream_retries_total", &["route", "reason"]),
        ("hawkgate_jwks_refreshes_total", &["issuer", "result"]),
        ("hawkgate_jwks_age_seconds", &["issuer"]),
        ("hawkgate_introspections_total", &["issuer", "result"]),
        ("hawkgate_circuit_open", &["kind", "name"]),
        ("hawkgate_sign_ins_total", &["session", "result"]),
        ("hawkgate_session_refreshes_total", &["session", "result"]),
        ("hawkgate_shared_requests_total", &["operation", "result"]),
        ("hawkgate_shared_up", &[]),
        ("hawkgate_forward_auth_total", &["forward_auth", "result"]),
        ("hawkgate_config_reloads_total", &["result"]),
        ("hawkgate_config_last_reload_success_timestamp_seconds", &[]),
        ("hawkgate_log_lines_dropped_total", &[]),
        ("hawkgate_trace_spans_total", &["result"]),
        ("hawkgate_build_info", &["version", "revision"]),
    ];
    assert_eq!(FAMILIES, published);
}

/// `rate()` and `increase()` cannot see the first increment of a series that appears at 1.
#[test]
fn series_that_alerts_watch_exist_before_the_first_request() {
    let metrics = all_series_at_zero();
    for series in [
        r#"hawkgate_requests_total{code="502",outcome="upstream_failed",route="taskcluster"}"#,
        r#"hawkgate_requests_total{code="504",outcome="upstream_failed",route="taskcluster"}"#,
        r#"hawkgate_requests_total{code="503",outcome="rejected",route="taskcluster"}"#,
        r#"hawkgate_requests_total{code="401",outcome="rejected",route="-"}"#,
        r#"hawkgate_requests_total{code="0",outcome="caller_gone",route="taskcluster"}"#,
        r#"hawkgate_upstream_unauthorized_total{action="refused",reason="exchange_failed",route="taskcluster"}"#,
        r#"hawkgate_upstream_unauthorized_total{action="refused",reason="still_unauthorized",route="taskcluster"}"#,
        r#"hawkgate_rejections_total{reason="keys_unavailable"}"#,
        r#"hawkgate_token_verifications_total{issuer="auth0",result="token_expired"}"#,
        r#"hawkgate_exchanges_total{result="unavailable",source="login"}"#,
        r#"hawkgate_jwks_refreshes_total{issuer="auth0",result="failed"}"#,
        r#"hawkgate_introspections_total{issuer="auth0",result="failed"}"#,
        r#"hawkgate_sign_ins_total{result="unavailable",session="web"}"#,
        r#"hawkgate_session_refreshes_total{result="unavailable",session="web"}"#,
        r#"hawkgate_shared_requests_total{operation="acquire",result="timeout"}"#,
        r#"hawkgate_config_reloads_total{result="invalid"}"#,
    ] {
        assert!(value(&metrics, series).abs() < 1e-9, "{series}");
    }
    let text = metrics.render().unwrap();
    for ending in Ending::ALL.iter().map(|ending| ending.label()) {
        let series = format!("outcome=\"{ending}\",route=\"taskcluster\"");
        assert!(text.contains(&series), "{ending}");
    }
    // Combinations that never occur are not exported.
    assert!(!text.contains(r#"action="replayed",reason="not_signed""#));
}

#[test]
fn a_shared_store_has_series_only_while_it_is_configured() {
    let metrics = Metrics::new("1", "r").unwrap();
    assert!(!metrics.render().unwrap().contains("hawkgate_shared"));
    let store = metrics.store_observer();
    let configure = |store: Option<Arc<SharedStoreMetrics>>| {
        let mut callbacks = ScrapeCallbacks::default();
        if let Some(store) = store {
            callbacks.shared_up(move || store.is_up());
        }
        metrics.configure(&names(), callbacks, UnixMillis(0));
    };
    configure(Some(Arc::clone(&store)));
    store.operation(Operation::Take, OperationResult::Held);
    let is = |series, expected: f64| {
        let value = value(&metrics, series);
        assert!((value - expected).abs() < 1e-9, "{series} {value}");
    };
    is(
        r#"hawkgate_shared_requests_total{operation="take",result="held"}"#,
        1.0,
    );
    is(
        r#"hawkgate_shared_requests_total{operation="read",result="held"}"#,
        0.0,
    );
    is("hawkgate_shared_up", 1.0);
    store.up(false);
    is("hawkgate_shared_up", 0.0);
    configure(None);
    assert!(!metrics.render().unwrap().contains("hawkgate_shared"));
}

#[test]
fn replay_memory_and_certificates_are_read_at_scrape_time() {
    let metrics = metrics();
    let is = |series, expected: f64| {
        assert!(
            (value(&metrics, series) - expected).abs() < 1e-9,
            "{series}"
        );
    };
    is("hawkgate_replay_memory_bytes", 5.0);
    is("hawkgate_replay_memory_limit_bytes", 256.0);
    let expiry = r#"hawkgate_certificate_expiry_timestamp_seconds{listener="0.0.0.0:8443"}"#;
    is(expiry, 2_000.0);
    is(
        r#"hawkgate_certificate_not_before_timestamp_seconds{listener="0.0.0.0:8443"}"#,
        1_000.0,
    );
    assert!(!metrics.render().unwrap().contains("0.0.0.0:8444"));
}

#[test]
fn an_outcome_is_counted_once_in_each_family() {
    let metrics = metrics();
    let healed = Outcome {
        ending: Ending::Healed,
        code: 201,
        unauthorized: vec![Unauthorized {
            action: UnauthorizedAction::Replayed,
            reason: UnauthorizedReason::FreshCredentials,
        }],
        retries: {
            let mut retries = RetryCounts::default();
            retries.record(RetryReason::Status);
            retries
        },
        ..outcome()
    };
    metrics.record(&healed);
    let one = |series| assert!((value(&metrics, series) - 1.0).abs() < 1e-9, "{series}");
    one(r#"hawkgate_requests_total{code="201",outcome="healed",route="taskcluster"}"#);
    one(r#"hawkgate_request_duration_seconds_count{route="taskcluster"}"#);
    one(r#"hawkgate_upstream_duration_seconds_count{route="taskcluster"}"#);
    one(r#"hawkgate_token_verifications_total{issuer="auth0",result="ok"}"#);
    one(r#"hawkgate_credential_cache_lookups_total{result="fetched",source="login"}"#);
    one(
        r#"hawkgate_upstream_unauthorized_total{action="replayed",reason="fresh_credentials",route="taskcluster"}"#,
    );
    one(r#"hawkgate_upstream_retries_total{reason="status",route="taskcluster"}"#);
    one(r#"hawkgate_build_info{revision="abc",version="1.2.3"}"#);
    let zero = value(
        &metrics,
        r#"hawkgate_requests_total{code="200",outcome="forwarded",route="taskcluster"}"#,
    );
    assert!(zero.abs() < 1e-9, "exported before the first request");
}

#[test]
fn a_rejection_without_a_route_has_the_route_and_issuer_label_dash() {
    let metrics = metrics();
    metrics.record(&Outcome {
        route: None,
        issuer: None,
        source: None,
        lookup: None,
        verification: Some("token_issuer"),
        code: 404,
        ending: Ending::Rejected,
        rejection: Some(Reason::NoRoute),
        upstream: None,
        ..outcome()
    });
    for series in [
        r#"hawkgate_requests_total{code="404",outcome="rejected",route="-"}"#,
        r#"hawkgate_rejections_total{reason="no_route"}"#,
        r#"hawkgate_token_verifications_total{issuer="-",result="token_issuer"}"#,
    ] {
        assert!((value(&metrics, series) - 1.0).abs() < 1e-9, "{series}");
    }
}

#[test]
fn callbacks_run_at_each_scrape_and_are_replaced_on_reload() {
    let metrics = metrics();
    assert!(
        (value(
            &metrics,
            r#"hawkgate_credential_cache_entries{source="login"}"#
        ) - 7.0)
            .abs()
            < 1e-9
    );
    assert!((value(&metrics, r#"hawkgate_jwks_age_seconds{issuer="auth0"}"#) - 61.0).abs() < 1e-9);
    assert!((value(&metrics, "hawkgate_log_lines_dropped_total") - 3.0).abs() < 1e-9);
    assert!((value(&metrics, "hawkgate_log_lines_dropped_total") - 3.0).abs() < 1e-9);
    for (series, open) in [
        (r#"hawkgate_circuit_open{kind="source",name="login"}"#, 1.0),
        (r#"hawkgate_circuit_open{kind="issuer",name="opaque"}"#, 0.0),
    ] {
        assert!((value(&metrics, series) - open).abs() < 1e-9, "{series}");
    }
    let ages = |metrics: &Metrics| -> Vec<String> {
        let samples = samples(&metrics.render().unwrap());
        let ages = samples.into_keys();
        ages.filter(|series| series.starts_with("hawkgate_jwks_age_seconds"))
            .collect()
    };
    let fetched = r#"hawkgate_jwks_age_seconds{issuer="auth0"}"#;
    assert_eq!(ages(&metrics), [fetched], "absent until fetched");
    metrics.configure(
        &names(),
        ScrapeCallbacks::default(),
        UnixMillis::from_secs(2000),
    );
    metrics.reloaded(true);
    assert!(ages(&metrics).is_empty());
    for (series, expected) in [
        (
            "hawkgate_config_last_reload_success_timestamp_seconds",
            2000.0,
        ),
        (r#"hawkgate_config_reloads_total{result="success"}"#, 1.0),
        (r#"hawkgate_config_reloads_total{result="invalid"}"#, 0.0),
    ] {
        assert!(
            (value(&metrics, series) - expected).abs() < 1e-9,
            "{series}"
        );
    }
}

#[tokio::test]
async fn key_refreshes_are_counted_from_zero() {
    #[derive(Debug)]
    struct Down;
    #[async_trait::async_trait]
    impl crate::token::KeyFetcher for Down {
        async fn fetch(&self) -> Result<crate::token::FetchedKeys, crate::token::KeyFetchError> {
            Err(crate::token::KeyFetchError("down".into()))
        }
    }
    let metrics = Metrics::new("1", "r").unwrap();
    let observer = metrics.key_observer("auth0");
    let failed = r#"hawkgate_jwks_refreshes_total{issuer="auth0",result="failed"}"#;
    assert!(value(&metrics, failed).abs() < 1e-9);
    let config = crate::token::settings::OidcIssuer {
        url: "https://auth0.example.com/".into(),
        keys: crate::token::settings::KeyLocation::Discovery,
        ca: None,
        keys_token: None,
        audiences: vec!["x".into()],
        algorithms: crate::token::settings::Algorithm::ALL.to_vec(),
        profile: crate::token::settings::Profile::Rfc9068,
        format: crate::token::settings::Profile::Rfc9068.format(),
        leeway: Duration::ZERO,
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_secs(1),
    };
    let clock = ManualClock::at(UnixMillis(0));
    let issuer = crate::token::Issuer::oidc(
        "auth0".into(),
        &config,
        Arc::new(Down),
        clock,
        crate::bounded_cache::CacheBounds::of_entries(1),
        observer,
    );
    issuer.warm_up().await;
    assert!((value(&metrics, failed) - 1.0).abs() < 1e-9);
}

#[test]
fn requests_and_connections_are_read_at_scrape_time() {
    let metrics = metrics();
    let mut callbacks = ScrapeCallbacks::default();
    callbacks.requests_in_flight(|| 2);
    callbacks.connections_open(|| 5);
    callbacks.connections_limited("connections", "evicted", || 4);
    metrics.configure(&LabelValues::default(), callbacks, UnixMillis(0));
    assert!((value(&metrics, "hawkgate_requests_in_flight") - 2.0).abs() < 1e-9);
    assert!((value(&metrics, "hawkgate_connections_open") - 5.0).abs() < 1e-9);
    let evicted = r#"hawkgate_connections_limited_total{action="evicted",limit="connections"}"#;
    for _ in 0..2 {
        assert!((value(&metrics, evicted) - 4.0).abs() < 1e-9);
    }
}

#[test]
fn a_reload_removes_the_series_of_names_that_are_no_longer_configured() {
    let metrics = all_series();
    let configured = |text: &str| -> Vec<String> {
        let named = [
            r#"route="taskcluster""#,
            r#"issuer="auth0""#,
            r#"source="login""#,
        ];
        let series = samples(text).into_keys();
        series
            .filter(|series| named.iter().any(|label| series.contains(label)))
            .collect()
    };
    assert!(!configured(&metrics.render().unwrap()).is_empty());
    metrics.configure(
        &LabelValues::default(),
        ScrapeCallbacks::default(),
        UnixMillis(0),
    );
    assert_eq!(
        configured(&metrics.render().unwrap()),
        Vec::<String>::new(),
        "series that outlived their configuration"
    );
}

#[test]
fn label_cardinality_is_bounded_by_the_configuration() {
    const RESULTS: [&str; 4] = ["ok", "cached", "token_expired", "made up"];
    let metrics = metrics();
    // A linear congruential generator with a fixed seed, so that runs are reproducible.
    let mut state = 1_u64;
    let mut pick = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % n
    };
    for i in 0..10_000 {
        metrics.record(&Outcome {
            path: format!("/{i}"),
            route: [
                None,
                Some("taskcluster".into()),
                Some(format!("r{i}").into()),
            ][pick(3)]
            .clone(),
            issuer: [None, Some("auth0".into()), Some(format!("i{i}").into())][pick(3)].clone(),
            source: [Some("login".into()), Some(format!("s{i}").into())][pick(2)].clone(),
            verification: Some(RESULTS[pick(4)]),
            lookup: Some(Lookup::ALL[pick(Lookup::ALL.len())]),
            code: u16::try_from(pick(65_536)).unwrap(),
            ending: Ending::ALL[pick(Ending::ALL.len())],
            rejection: Some(Reason::ALL[pick(Reason::ALL.len())]),
            unauthorized: vec![Unauthorized {
                action: UnauthorizedAction::ALL[pick(2)],
                reason: UnauthorizedReason::ALL[pick(UnauthorizedReason::ALL.len())],
            }],
            ..outcome()
        });
    }
    let text = metrics.render().unwrap();
    let samples = samples(&text);
    let requests: f64 = samples
        .iter()
        .filter(|(k, _)| k.starts_with("hawkgate_requests_total"))
        .map(|(_, v)| v)
        .sum();
    assert!(
        (requests - 10_000.0).abs() < 1e-9,
        "every request is counted: {requests}"
    );
    let allowed = |label: &str, value: &str| match label {
        "route" => ["-", "taskcluster"].contains(&value),
        "issuer" => ["-", "auth0"].contains(&value),
        "source" => ["-", "login"].contains(&value),
        "listener" => value == "0.0.0.0:8443",
        "code" => value
            .parse()
            .is_ok_and(|code: u16| code == 0 || (100..600).contains(&code)),
        _ => value != "made up" && !value.contains(|c: char| c.is_ascii_digit()),
    };
    let hawkgate = |series: &&String| {
        series.starts_with("hawkgate_") && !series.starts_with("hawkgate_build_info")
    };
    for series in samples.keys().filter(hawkgate) {
        let labels = series.split_once('{').map_or("", |(_, l)| l);
        let labels = labels.trim_end_matches('}').split(',');
        for (label, value) in labels.filter_map(|l| l.split_once('=')) {
            let value = value.trim_matches('"');
            assert!(label == "le" || allowed(label, value), "{series}");
        }
    }
    // Routes (one of them "-") × endings × codes bound the largest family.
    let largest = samples
        .keys()
        .filter(|k| k.starts_with("hawkgate_requests_total"))
        .count();
    assert!(largest <= 2 * Ending::ALL.len() * 501, "{largest}");
}

#[derive(Debug)]
struct FixedSource(Option<FetchError>);

#[async_trait::async_trait]
impl CredentialSource for FixedSource {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        self.0.clone().map_or(Ok(()), Err)
    }
    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => Ok(Issued {
                credential: crate::credential::Credential::Bearer("t".into()),
                expires_at: None,
                original: None,
            }),
        }
    }
}

#[tokio::test]
async fn exchanges_are_counted_and_timed_by_result() {
    let metrics = metrics();
    let clock = ManualClock::at(UnixMillis(0));
    let request = SwapRequest {
        caller: Caller::Anonymous,
        bearer: None,
        scopes: None,
        clock_offset: 0,
    };
    let results = [
        (None, "ok"),
        (Some(FetchError::Refused("x".into())), "refused"),
        (Some(FetchError::NotEntitled("x".into())), "not_entitled"),
        (
            Some(FetchError::Unavailable {
                cause: "x".into(),
                retry_after: None,
            }),
            "unavailable",
        ),
        (Some(FetchError::BadAnswer("x".into())), "bad_answer"),
        (Some(FetchError::TooLarge("x".into())), "too_large"),
    ];
    for (error, label) in results {
        let source = metrics.meter("login", Arc::new(FixedSource(error.clone())), clock.clone());
        assert_eq!(source.fetch(&request).await.is_ok(), error.is_none());
        let count = format!(r#"hawkgate_exchanges_total{{result="{label}",source="login"}}"#);
        assert!((value(&metrics, &count) - 1.0).abs() < 1e-9, "{label}");
        let timed = format!(
            r#"hawkgate_exchange_duration_seconds_count{{result="{label}",source="login"}}"#
        );
        assert!((value(&metrics, &timed) - 1.0).abs() < 1e-9, "{label}");
    }
}
