//! `docs/observability.md` lists exactly the metrics, labels and label values that are exported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hawkgate::clock::{SystemClock, UnixMillis};
use hawkgate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};
use hawkgate::gateway::outcome::{Ending, UnauthorizedAction, UnauthorizedReason};
use hawkgate::label::Label;
use hawkgate::metrics::{self, Metrics, ScrapeCallbacks};
use hawkgate::proxy::{LimitAction, LimitLabel};

use super::{code_span, code_spans, read, rows};

/// A metric's type and labels.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

#[derive(Debug)]
struct Unreachable;

#[async_trait]
impl CredentialSource for Unreachable {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        Err(FetchError::Refused(String::new()))
    }
}

/// `/metrics` of a gateway with one route, issuer and source, all of its parts in use.
fn exposition() -> String {
    let metrics = Metrics::new("1", "r").unwrap();
    let names = metrics::LabelValues {
        routes: vec!["r".into()],
        issuers: vec!["i".into()],
        sources: vec!["s".into()],
        sessions: vec!["w".into()],
        forward_auth: vec!["f".into()],
    };
    let mut callbacks = ScrapeCallbacks::default();
    callbacks.cache_entries(&"s".into(), || 1);
    callbacks.jwks_age(&"i".into(), || Some(Duration::ZERO));
    callbacks.certificate("127.0.0.1:8443", || Some([0, 1]));
    callbacks.circuit_open("source", &"s".into(), || false);
    callbacks.shared_up(|| true);
    callbacks.circuit_open("issuer", &"i".into(), || false);
    for limit in labels(LimitLabel::ALL) {
        for action in labels(LimitAction::ALL) {
            callbacks.connections_limited(limit, action, || 0);
        }
    }
    metrics.configure(&names, callbacks, UnixMillis(0));
    let _keys = metrics.key_observer("i");
    let _introspection = metrics.introspection_observer("i");
    let _session = metrics.session_observer("w");
    let _store = metrics.store_observer();
    let _spans = metrics.span_observer();
    let _source = metrics.meter("s", Arc::new(Unreachable), SystemClock::shared());
    metrics.render().unwrap()
}

/// Labels and values of one sample line. No value in this exposition has a quote or comma.
fn labels_of(sample: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = sample.split_once('{') else {
        return Vec::new();
    };
    let (labels, _) = rest.split_once('}').unwrap();
    labels
        .split(',')
        .map(|pair| {
            let (label, value) = pair.split_once('=').unwrap();
            (label.to_owned(), value.trim_matches('"').to_owned())
        })
        .filter(|(label, _)| label != "le")
        .collect()
}

type Families = BTreeMap<String, Family>;

/// The values by metric and label.
type LabelValues = BTreeMap<(String, String), BTreeSet<String>>;

/// Exported families, and the values of each of their labels.
fn exported() -> (Families, LabelValues) {
    let mut families = Families::new();
    let mut values = LabelValues::new();
    let mut name = String::new();
    for line in exposition().lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').unwrap();
            family.clone_into(&mut name);
            kind.clone_into(&mut families.entry(name.clone()).or_default().kind);
        } else if !line.starts_with('#') {
            for (label, value) in labels_of(line) {
                let family = families.get_mut(&name).unwrap();
                family.labels.insert(label.clone());
                let value_set = values.entry((name.clone(), label)).or_default();
                value_set.insert(value);
            }
        }
    }
    (families, values)
}

#[test]
fn every_exported_metric_is_documented_with_its_labels_and_no_other_is() {
    let mut documented = BTreeMap::new();
    for row in rows(&read("docs/observability.md")) {
        let [name, labels, kind, meaning] = &row[..] else {
            continue;
        };
        let prefixed = |name: &&str| name.starts_with("hawkgate_") || name.starts_with("process_");
        let Some(name) = code_span(name).filter(prefixed) else {
            continue;
        };
        assert!(!meaning.is_empty(), "{name} has no meaning");
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let family = Family {
            kind: kind.clone(),
            labels: labels.map(str::to_owned).collect(),
        };
        let twice = documented.insert(name.to_owned(), family);
        assert_eq!(twice, None, "{name} is listed twice");
    }
    assert_eq!(documented, exported().0);
}

/// Labels whose values come from the configuration, the build, HTTP, or another page.
const OPEN: &[&str] = &[
    "route",
    "issuer",
    "source",
    "session",
    "forward_auth",
    "name",
    "code",
    "version",
    "revision",
    "listener",
];

#[test]
fn every_label_value_is_documented_and_no_other_is() {
    let mut documented = BTreeMap::new();
    for row in rows(&read("docs/observability.md")) {
        let [name, label, values] = &row[..] else {
            continue;
        };
        let Some(name) = code_span(name).filter(|name| name.starts_with("hawkgate_")) else {
            continue;
        };
        let values: BTreeSet<_> = code_spans(values).map(str::to_owned).collect();
        let twice = documented.insert((name.to_owned(), label.clone()), values);
        assert_eq!(twice, None, "{name} is listed twice");
    }
    let mut actual = exported().1;
    actual.retain(|(name, label), _| {
        // Their values are the reasons of docs/errors.md.
        let reasons = name == "hawkgate_rejections_total";
        !OPEN.contains(&&**label) && !reasons
    });
    // Some combinations are exported only once they have occurred.
    let mut rare = |name: &str, label: &str, all: Vec<&str>| {
        let values = all.into_iter().map(str::to_owned).collect();
        let key = (name.to_owned(), label.to_owned());
        let usual = actual.insert(key, values).unwrap();
        assert!(!usual.is_empty());
    };
    let unauthorized = "hawkgate_upstream_unauthorized_total";
    rare("hawkgate_requests_total", "outcome", labels(Ending::ALL));
    rare(unauthorized, "action", labels(UnauthorizedAction::ALL));
    rare(unauthorized, "reason", labels(UnauthorizedReason::ALL));
    assert_eq!(documented, actual);
}

fn labels<L: Label>(all: &[L]) -> Vec<&'static str> {
    all.iter().map(|member| member.label()).collect()
}
