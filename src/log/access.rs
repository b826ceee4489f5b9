//! The access log: one line a request.

use crate::clock::UnixMillis;
use crate::gateway::outcome::{Ending, Outcome, UnauthorizedAction};
use crate::label::Label;
use crate::log::settings::LogFormat;

use super::audit;
use super::level::{ACCESS, AUDIT, Levels};
use super::line::{self, Line};
use super::sample::Sample;
use super::sink::Sink;

/// Longest path and cause written, in bytes; more is cut and ends in `…`.
pub(super) const MAX_PATH: usize = 2048;
const MAX_CAUSE: usize = 1024;
pub(super) const MAX_ID: usize = 128;
const MAX_CERT: usize = 256;

/// Where ended requests are recorded, in access and audit lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    sink: Option<Sink>,
    format: LogFormat,
    access: bool,
    audit: bool,
    sample: Sample,
}

impl AccessLog {
    /// Records nothing.
    pub fn off() -> Self {
        Self {
            sink: None,
            format: LogFormat::Json,
            access: false,
            audit: false,
            sample: Sample::new(1.0),
        }
    }

    pub(super) fn to(sink: Sink, format: LogFormat, levels: &Levels) -> Self {
        Self {
            sink: Some(sink),
            format,
            access: levels.access(),
            audit: levels.audit(),
            sample: Sample::new(1.0),
        }
    }

    /// With only this share (0 to 1) of the access lines of requests that went well.
    #[must_use]
    pub fn sampled(self, share: f64) -> Self {
        Self {
            sample: Sample::new(share),
            ..self
        }
    }

    /// Log lines lost so far, of any kind, because stderr was too slow.
    pub fn dropped(&self) -> u64 {
        self.sink.as_ref().map_or(0, Sink::dropped)
    }

    /// Records one request that ended at `now`. Never waits.
    pub fn record(&self, outcome: &Outcome, now: UnixMillis) {
        let Some(sink) = &self.sink else { return };
        if let Some(audit) = outcome.audit.as_deref().filter(|_| self.audit) {
            let fill = |line: &mut Line<'_>| audit::fill(line, outcome, audit);
            sink.push(&line::build(self.format, now, "info", AUDIT, fill));
        }
        if self.access && (!went_well(outcome) || self.sample.takes()) {
            let fill = |line: &mut Line<'_>| self.fill(line, outcome);
            sink.push(&line::build(self.format, now, "info", ACCESS, fill));
        }
    }

    fn fill(&self, line: &mut Line<'_>, outcome: &Outcome) {
        fill(line, outcome);
        if let Some(share) = self.sample.share().filter(|_| went_well(outcome)) {
            line.field("sample", &share);
        }
    }
}

/// Whether nobody will ever ask what went wrong with it.
fn went_well(outcome: &Outcome) -> bool {
    matches!(outcome.ending, Ending::Forwarded | Ending::Served)
        && outcome.code < 400
        && outcome.unauthorized.is_empty()
}

fn fill(line: &mut Line<'_>, outcome: &Outcome) {
    identified(line, outcome);
    connected(line, outcome);
    line.text("method", cut(outcome.method.as_str(), MAX_ID).as_ref());
    // The path arrives without its query; should it not, the query stays out all the same.
    let path = outcome.path.split('?').next().unwrap_or_default();
    line.text("path", cut(path, MAX_PATH).as_ref());
    line.text("version", version(outcome.version));
    let names = [
        ("route", outcome.route.as_deref()),
        ("issuer", outcome.issuer.as_deref()),
        ("verification", outcome.verification),
        ("rule", outcome.rule.as_deref()),
        ("source", outcome.source.as_deref()),
        ("lookup", outcome.lookup.map(Label::label)),
    ];
    optional(line, names);
    line.number("replayed", replays(outcome));
    line.number("code", u64::from(outcome.code));
    line.text("outcome", outcome.ending.label());
    let last_401 = outcome.unauthorized.last();
    optional(
        line,
        [
            ("reason", outcome.rejection.map(Label::label)),
            ("unauthorized", last_401.map(|u| u.reason.label())),
        ],
    );
    if let Some(cause) = &outcome.cause {
        line.text("cause", cut(cause, MAX_CAUSE).as_ref());
    }
    line.millis("total_ms", outcome.total);
    line.millis("admission_ms", outcome.admission);
    if let Some(upstream) = outcome.upstream {
        line.millis("upstream_ms", upstream);
    }
    line.number("received", outcome.received);
    line.number("sent", outcome.sent);
}

/// By what other lines and systems know this request.
pub(super) fn identified(line: &mut Line<'_>, outcome: &Outcome) {
    line.text("request_id", cut(&outcome.request_id, MAX_ID).as_ref());
    if let Some(trace) = outcome.trace {
        // Written as a text, as only such things are serialised.
        line.text("trace_id", trace.id.to_string().as_str());
    }
}

/// From where the request came.
pub(super) fn connected(line: &mut Line<'_>, outcome: &Outcome) {
    if let Some(peer) = outcome.peer {
        line.field("peer", &peer);
    }
    if let Some(client) = outcome.client {
        line.field("client", &client);
    }
    if let Some(name) = &outcome.client_cert {
        line.text("client_cert", cut(name, MAX_CERT).as_ref());
    }
}

pub(super) fn optional<'a>(
    line: &mut Line<'_>,
    fields: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) {
    for (name, value) in fields {
        if let Some(value) = value {
            line.text(name, value);
        }
    }
}

pub(super) fn replays(outcome: &Outcome) -> u64 {
    let actions = outcome.unauthorized.iter().map(|u| u.action);
    actions
        .map(|a| u64::from(a == UnauthorizedAction::Replayed))
        .sum()
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// At most `max` bytes of `text`, cut between characters.
pub(super) fn cut(text: &str, max: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= max {
        return text.into();
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credential::Lookup;
    use crate::gateway::outcome::{Unauthorized, UnauthorizedReason};
    use crate::gateway::reason::Reason;
    use crate::log::sink::tests::Captured;

    pub(in crate::log) fn outcome() -> Outcome {
        Outcome {
            request_id: "01J".into(),
            method: http::Method::POST,
            path: "/api/queue/v1/task".into(),
            version: http::Version::HTTP_2,
            peer: Some([127, 0, 0, 1].into()),
            client: None,
            client_cert: None,
            route: Some("taskcluster".into()),
            issuer: Some("auth0".into()),
            verification: Some("cached"),
            rule: Some("developers".into()),
            source: Some("login".into()),
            lookup: Some(Lookup::Hit),
            code: 200,
            ending: Ending::Healed,
            rejection: None,
            cause: None,
            unauthorized: vec![Unauthorized {
                action: UnauthorizedAction::Replayed,
                reason: UnauthorizedReason::FreshCredentials,
            }],
            total: Duration::from_micros(12_345),
            admission: Duration::from_micros(45),
            upstream: Some(Duration::from_millis(12)),
            received: 10,
            sent: 20,
            trace: None,
            audit: None,
        }
    }

    fn recorded(outcome: &Outcome, format: LogFormat) -> String {
        recorded_all([outcome], format, "info", 1.0)
    }

    pub(in crate::log) fn recorded_all<'o>(
        outcomes: impl IntoIterator<Item = &'o Outcome>,
        format: LogFormat,
        level: &str,
        share: f64,
    ) -> String {
        let out = Captured::default();
        let sink = Sink::start(Box::new(out.clone())).unwrap();
        let log = AccessLog::to(sink.clone(), format, &level.parse().unwrap()).sampled(share);
        for outcome in outcomes {
            log.record(outcome, UnixMillis::from_secs(1));
        }
        sink.flush(Duration::from_secs(20));
        out.text()
    }

    #[test]
    fn of_what_went_well_a_share_is_written_and_of_the_rest_everything() {
        let well = Outcome {
            ending: Ending::Forwarded,
            unauthorized: vec![],
            ..outcome()
        };
        let not_well = [
            Outcome {
                code: 404,
                ..well.clone()
            },
            Outcome {
                ending: Ending::Rejected,
                code: 401,
                ..well.clone()
            },
            Outcome {
                ending: Ending::CallerGone,
                ..well.clone()
            },
            outcome(),
        ];
        let requests = [&well; 40].into_iter().chain(&not_well);
        let text = recorded_all(requests, LogFormat::Json, "info", 0.1);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let sampled = lines.iter().filter(|line| line["sample"] == 0.1).count();
        assert_eq!((sampled, lines.len()), (4, 8), "{text}");
        let none = recorded_all([&well; 40], LogFormat::Json, "info", 0.0);
        assert_eq!(none, "");
        let all = recorded_all([&well; 40], LogFormat::Json, "info", 1.0);
        assert_eq!(all.lines().count(), 40);
        assert!(!all.contains("sample"));
    }

    #[test]
    fn a_request_is_one_json_object() {
        let text = recorded(&outcome(), LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:01.000Z", "level": "info", "target": "access",
            "request_id": "01J", "peer": "127.0.0.1", "method": "POST",
            "path": "/api/queue/v1/task", "version": "HTTP/2.0", "route": "taskcluster",
            "issuer": "auth0", "verification": "cached", "rule": "developers", "source": "login", "lookup": "hit",
            "replayed": 1, "code": 200, "outcome": "healed", "unauthorized": "fresh_credentials",
            "total_ms": 12.345, "admission_ms": 0.045, "upstream_ms": 12.0,
            "received": 10, "sent": 20,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_rejection_says_why_and_queries_stay_out() {
        let text = recorded(
            &Outcome {
                path: "/a?bewit=s3cret".into(),
                rejection: Some(Reason::TokenExpired),
                cause: Some("exp 12 s ago".into()),
                upstream: None,
                ..outcome()
            },
            LogFormat::Json,
        );
        assert!(text.contains(r#""reason":"token_expired""#), "{text}");
        assert!(text.contains(r#""cause":"exp 12 s ago""#), "{text}");
        assert!(
            !text.contains("s3cret") && !text.contains("upstream_ms"),
            "{text}"
        );
    }

    #[test]
    fn the_client_behind_a_proxy_and_its_certificate_are_told() {
        let name = format!("CN=a \"b\" c=d\u{2028}{}", "x".repeat(1000));
        let told = Outcome {
            client: Some([203, 0, 113, 7].into()),
            client_cert: Some(name.as_str().into()),
            ..outcome()
        };
        let text = recorded(&told, LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["peer"], "127.0.0.1");
        assert_eq!(line["client"], "203.0.113.7");
        let cert = line["client_cert"].as_str().unwrap();
        assert!(cert.starts_with("CN=a \"b\" c=d") && cert.ends_with("x…"));
        assert_eq!(cert.len(), MAX_CERT + '…'.len_utf8());
        // In text nobody can write a field of his own either.
        let text = recorded(&told, LogFormat::Text);
        assert!(text.contains(r#"client_cert="CN=a \"b\" c=d"#), "{text}");
    }

    #[test]
    fn text_is_for_people() {
        let text = recorded(&outcome(), LogFormat::Text);
        assert!(text.starts_with("1970-01-01T00:00:01.000Z info  access: request_id=01J peer=127.0.0.1 method=POST path=/api/queue/v1/task"), "{text}");
        assert!(text.ends_with("received=10 sent=20\n"), "{text}");
    }

    #[test]
    fn a_hostile_path_makes_one_short_line() {
        let hostile = format!("/\"\\\n{}", "é\u{1}".repeat(20_000));
        for format in [LogFormat::Json, LogFormat::Text] {
            let text = recorded(
                &Outcome {
                    path: hostile.clone(),
                    request_id: hostile.clone(),
                    ..outcome()
                },
                format,
            );
            assert_eq!(text.matches('\n').count(), 1);
            assert!(text.len() <= line::MAX_LINE, "{}", text.len());
            assert!(text.contains('…'));
        }
    }

    #[test]
    fn off_is_off() {
        AccessLog::off().record(&outcome(), UnixMillis(0));
    }
}
