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
use crate::token::Caller;
use crate::trace::TraceId;

fn names() -> Names {
    Names {
        routes: vec!["taskcluster".into()],
        issuers: vec!["auth0".into()],
        sources: vec!["login".into()],
    }
}

/// A family in OpenMetrics, checked on the way: its samples with their suffixes.
#[derive(Debug, Default)]
struct OpenFamily {
    kind: String,
    unit: Option<String>,
    help: bool,
    /// Suffix, labels, value, exemplar.
    samples: Vec<(String, String, f64, Option<String>)>,
}

/// Reads OpenMetrics as strictly as the specification allows, families by name.
fn open_families(text: &str) -> BTreeMap<String, OpenFamily> {
    let body = text.strip_suffix("# EOF\n").expect("the end is told");
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
            assert!(family.samples.is_empty(), "{line} behind samples");
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
fn open_metrics_says_the_same_with_exemplars() {
    let metrics = Metrics::new("1.2.3", "a\"b\\c\nd").unwrap();
    let mut watched = Watched::default();
    watched.cache_entries(&"login".into(), || 7);
    metrics.configure(&names(), watched, UnixMillis(1_500));
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
    let ours: Vec<_> = duration
        .samples
        .iter()
        .filter(|(_, labels, ..)| labels.contains("taskcluster"))
        .collect();
    let bucket = |le: &str| {
        let wanted = format!("route=\"taskcluster\",le=\"{le}\"");
        ours.iter()
            .find(|(_, labels, ..)| *labels == wanted)
            .unwrap()
    };
    let exemplar = |le: &str| bucket(le).3.clone();
    let told = format!("{{trace_id=\"{trace}\"}} ");
    assert_eq!(exemplar("0.005"), Some(format!("{told}0.003")));
    assert_eq!(exemplar("+Inf"), Some(format!("{told}300")));
    assert_eq!((exemplar("0.0025"), exemplar("10.0")), (None, None));
    assert!((bucket("+Inf").2 - 4.0).abs() < 0.1 && (bucket("120.0").2 - 3.0).abs() < 0.1);
    let requests = &families["hawkgate_requests"];
    assert!(
        requests
            .samples
            .iter()
            .any(|s| s.1.contains("code=\"200\"") && s.2 > 3.0)
    );
    let build = &families["hawkgate_build"];
    assert_eq!(build.kind, "info");
    assert!(
        build.samples[0].1.contains(r#"revision="a\"b\\c\nd""#),
        "{build:?}"
    );
    assert!((families["hawkgate_credential_cache_entries"].samples[0].2 - 7.0).abs() < 0.1);
    assert_eq!(families["process_cpu_seconds"].kind, "counter");
}

fn outcome() -> Outcome {
    Outcome {
        request_id: "r".into(),
        method: Method::GET,
        path: "/api/secret-path".into(),
        version: Version::HTTP_11,
        peer: None,
        client: None,
        client_cert: None,
        route: Some("taskcluster".into()),
        issuer: Some("auth0".into()),
        verification: Some("ok"),
        rule: None,
        source: Some("login".into()),
        lookup: Some(Lookup::Fetched),
        code: 200,
        ending: Ending::Forwarded,
        rejection: None,
        cause: None,
        unauthorized: Vec::new(),
        total: Duration::from_millis(3),
        admission: Duration::from_millis(1),
        upstream: Some(Duration::from_millis(2)),
        received: 0,
        sent: 0,
        trace: None,
        audit: None,
    }
}

fn metrics() -> Metrics {
    let metrics = Metrics::new("1.2.3", "abc").unwrap();
    let mut watched = Watched::default();
    watched.cache_entries(&"login".into(), || 7);
    watched.jwks_age(&"auth0".into(), || Some(Duration::from_secs(61)));
    watched.jwks_age(&"never".into(), || None);
    watched.log_lines_dropped(|| 3);
    metrics.configure(&names(), watched, UnixMillis::from_secs(1000));
    metrics
}

/// Every sample of the text format: name and sorted labels → value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty());
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            (
                series.to_owned(),
                value.parse::<f64>().expect("a number, not NaN text"),
            )
        })
        .collect()
}

fn value(metrics: &Metrics, series: &str) -> f64 {
    let samples = samples(&metrics.render().unwrap());
    *samples
        .get(series)
        .unwrap_or_else(|| panic!("no {series} among {:#?}", samples.keys()))
}

/// family → label names, from the samples themselves (histograms under their own name).
fn shape(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut shape = BTreeMap::<_, BTreeSet<String>>::new();
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
        shape.entry(name.to_owned()).or_default().extend(labels);
    }
    shape
}

#[test]
fn exports_the_contracts_table() {
    let metrics = metrics();
    let _ = metrics.key_observer("auth0");
    let _ = metrics.introspection_observer("auth0");
    metrics.meter(
        "login",
        Arc::new(Fixed(None)),
        ManualClock::at(UnixMillis(0)),
    );
    let _ = metrics.key_observer("auth0");
    let _ = metrics.introspection_observer("auth0");
    let shape = shape(&metrics.render().unwrap());
    let contract: &[(&str, &[&str])] = &[
        ("hawkgate_requests_total", &["code", "outcome", "route"]),
        ("hawkgate_request_duration_seconds", &["route"]),
        ("hawkgate_upstream_duration_seconds", &["route"]),
        ("hawkgate_requests_in_flight", &[]),
        ("hawkgate_token_verifications_total", &["issuer", "result"]),
        (
            "hawkgate_credential_cache_lookups_total",
            &["result", "source"],
        ),
        ("hawkgate_credential_cache_entries", &["source"]),
        ("hawkgate_exchanges_total", &["result", "source"]),
        ("hawkgate_exchange_duration_seconds", &["result", "source"]),
        (
            "hawkgate_upstream_unauthorized_total",
            &["action", "reason", "route"],
        ),
        ("hawkgate_jwks_refreshes_total", &["issuer", "result"]),
        ("hawkgate_introspections_total", &["issuer", "result"]),
        ("hawkgate_jwks_age_seconds", &["issuer"]),
        ("hawkgate_config_reloads_total", &["result"]),
        ("hawkgate_config_last_reload_success_timestamp_seconds", &[]),
        ("hawkgate_build_info", &["revision", "version"]),
        ("process_cpu_seconds_total", &[]),
        ("process_resident_memory_bytes", &[]),
        ("process_open_fds", &[]),
    ];
    for (name, labels) in contract {
        let found = shape.get(*name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(found.iter().collect::<Vec<_>>(), *labels, "{name}");
    }
}

#[test]
fn counts_an_outcome_once_in_each_family() {
    let metrics = metrics();
    let healed = Outcome {
        ending: Ending::Healed,
        code: 201,
        unauthorized: vec![Unauthorized {
            action: UnauthorizedAction::Replayed,
            reason: UnauthorizedReason::FreshCredentials,
        }],
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
    one(r#"hawkgate_build_info{revision="abc",version="1.2.3"}"#);
    let zero = value(
        &metrics,
        r#"hawkgate_requests_total{code="200",outcome="forwarded",route="taskcluster"}"#,
    );
    assert!(zero.abs() < 1e-9, "exported before it first happens");
}

#[test]
fn a_rejection_without_a_route_counts_under_the_dash() {
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
fn watched_values_are_read_at_each_scrape_and_forgotten_on_reload() {
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
    let never = r#"hawkgate_jwks_age_seconds{issuer="never"}"#;
    assert!(!metrics.render().unwrap().contains(never));
    metrics.configure(&names(), Watched::default(), UnixMillis::from_secs(2000));
    metrics.reloaded(true);
    let text = metrics.render().unwrap();
    assert!(!text.contains("hawkgate_jwks_age_seconds{"));
    assert!(text.contains("hawkgate_config_last_reload_success_timestamp_seconds 2000"));
    assert!(text.contains(r#"hawkgate_config_reloads_total{result="success"} 1"#));
    assert!(text.contains(r#"hawkgate_config_reloads_total{result="invalid"} 0"#));
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
        audiences: vec!["x".into()],
        algorithms: crate::token::settings::Algorithm::ALL.to_vec(),
        profile: crate::token::settings::Profile::Rfc9068,
        leeway: Duration::ZERO,
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_secs(1),
    };
    let clock = ManualClock::at(UnixMillis(0));
    let issuer =
        crate::token::Issuer::oidc("auth0".into(), &config, Arc::new(Down), clock, 1, observer);
    issuer.warm_up().await;
    assert!((value(&metrics, failed) - 1.0).abs() < 1e-9);
}

#[test]
fn requests_in_flight_are_read_when_scraped() {
    let metrics = metrics();
    let mut watched = Watched::default();
    watched.requests_in_flight(|| 2);
    metrics.configure(&Names::default(), watched, UnixMillis(0));
    assert!((value(&metrics, "hawkgate_requests_in_flight") - 2.0).abs() < 1e-9);
}

#[test]
fn cardinality_is_bounded_by_the_configuration() {
    const RESULTS: [&str; 4] = ["ok", "cached", "token_expired", "made up"];
    let metrics = metrics();
    // A fixed linear congruential generator: random enough, the same each time.
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
        "none is lost: {requests}"
    );
    for series in samples.keys() {
        let labels = series.split_once('{').map_or("", |(_, l)| l);
        for unknown in ["made up", "r1", "i1", "s1"] {
            assert!(!labels.contains(&format!("\"{unknown}")), "{series}");
        }
        if let Some(code) = labels.split("code=\"").nth(1) {
            let code: u16 = code.split('"').next().unwrap().parse().unwrap();
            assert!(code == 0 || (100..600).contains(&code), "{series}");
        }
    }
    // Two routes (one of them "-") × 5 endings × 501 codes bound the largest family.
    let largest = samples
        .keys()
        .filter(|k| k.starts_with("hawkgate_requests_total"))
        .count();
    assert!(largest <= 2 * 5 * 501, "{largest}");
}

#[derive(Debug)]
struct Fixed(Option<FetchError>);

#[async_trait::async_trait]
impl CredentialSource for Fixed {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        self.0.clone().map_or(Ok(()), Err)
    }
    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => Ok(Issued {
                credential: crate::credential::Credential::Bearer("t".into()),
                expires_at: None,
            }),
        }
    }
}

#[tokio::test]
async fn exchanges_are_counted_by_how_they_end() {
    let metrics = metrics();
    let clock = ManualClock::at(UnixMillis(0));
    let request = SwapRequest {
        caller: Caller::Anonymous,
        bearer: None,
        scopes: None,
        clock_offset: 0,
    };
    let ends = [
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
    for (end, label) in ends {
        let source = metrics.meter("login", Arc::new(Fixed(end.clone())), clock.clone());
        assert_eq!(source.fetch(&request).await.is_ok(), end.is_none());
        let count = format!(r#"hawkgate_exchanges_total{{result="{label}",source="login"}}"#);
        assert!((value(&metrics, &count) - 1.0).abs() < 1e-9, "{label}");
        let timed = format!(
            r#"hawkgate_exchange_duration_seconds_count{{result="{label}",source="login"}}"#
        );
        assert!((value(&metrics, &timed) - 1.0).abs() < 1e-9, "{label}");
    }
}
