//! The access log: one line per request.

use crate::clock::UnixMillis;
use crate::gateway::outcome::{Ending, Outcome, SessionEvent};
use crate::label::Label;
use crate::log::settings::LogFormat;

use super::audit;
use super::level::{ACCESS, AUDIT, Levels};
use super::line::{self, Line};
use super::request_fields::{client, present, replays, request_ids, request_line, truncate};
use super::sampler::Sampler;
use super::sink::Sink;

/// Maximum length of a cause, in bytes; the rest is cut off.
const MAX_CAUSE: usize = 1024;

/// Writes access and audit lines for finished requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    sink: Option<Sink>,
    format: LogFormat,
    access: bool,
    audit: bool,
    sampler: Sampler,
}

impl AccessLog {
    /// A log that writes nothing.
    pub fn off() -> Self {
        Self {
            sink: None,
            format: LogFormat::Json,
            access: false,
            audit: false,
            sampler: Sampler::new(1.0),
        }
    }

    pub(super) fn to(sink: Sink, format: LogFormat, levels: &Levels) -> Self {
        Self {
            sink: Some(sink),
            format,
            access: levels.access(),
            audit: levels.audit(),
            sampler: Sampler::new(1.0),
        }
    }

    /// Writes access lines for only this fraction (0 to 1) of successful requests.
    #[must_use]
    pub fn sampled(self, fraction: f64) -> Self {
        Self {
            sampler: Sampler::new(fraction),
            ..self
        }
    }

    /// The number of log lines, of any kind, dropped because stderr was too slow.
    pub fn dropped(&self) -> u64 {
        self.sink.as_ref().map_or(0, Sink::dropped)
    }

    /// Records a request that finished at `now`. Never blocks.
    pub fn record(&self, outcome: &Outcome, now: UnixMillis) {
        let Some(sink) = &self.sink else { return };
        if let Some(audit) = outcome.audit.as_deref().filter(|_| self.audit) {
            let fill = |line: &mut Line<'_>| audit::fill(line, outcome, audit);
            sink.push(&line::build(self.format, now, "info", AUDIT, fill));
        }
        if let Some(session) = outcome.session.as_deref().filter(|_| self.audit)
            && let Some(SessionEvent::Refresh(result)) = session.event
        {
            let fill = |line: &mut Line<'_>| audit::fill_refresh(line, outcome, session, result);
            sink.push(&line::build(self.format, now, "info", AUDIT, fill));
        }
        if self.access && (!succeeded(outcome) || self.sampler.take()) {
            let fill = |line: &mut Line<'_>| self.fill(line, outcome);
            sink.push(&line::build(self.format, now, "info", ACCESS, fill));
        }
    }

    fn fill(&self, line: &mut Line<'_>, outcome: &Outcome) {
        fill(line, outcome);
        if let Some(fraction) = self.sampler.fraction().filter(|_| succeeded(outcome)) {
            line.field("sample", &fraction);
        }
    }
}

/// Whether the request succeeded without recovery. Only such requests are subject to sampling.
fn succeeded(outcome: &Outcome) -> bool {
    use Ending::{Forwarded, Preflight, Served};
    matches!(outcome.ending, Forwarded | Served | Preflight)
        && outcome.code < 400
        && outcome.unauthorized.is_empty()
        && outcome.retries.total() == 0
}

fn fill(line: &mut Line<'_>, outcome: &Outcome) {
    request_ids(line, outcome);
    client(line, outcome);
    request_line(line, outcome);
    line.text("version", version(outcome.version));
    let session = outcome.session.as_deref();
    let forward_auth = outcome.forward_auth.as_deref();
    let names = [
        ("route", outcome.route.as_deref()),
        ("issuer", outcome.issuer.as_deref()),
        ("session", session.map(|session| &*session.name)),
        ("forward_auth", forward_auth.map(|asked| &*asked.name)),
        (
            "via",
            session
                .and_then(|s| s.via_cookie.then_some("cookie"))
                .or(forward_auth.map(|_| "forward_auth")),
        ),
        ("verification", outcome.verification),
        ("rule", outcome.rule.as_deref()),
        ("source", outcome.source.as_deref()),
        ("lookup", outcome.lookup.map(Label::label)),
    ];
    present(line, names);
    line.number("replayed", replays(outcome));
    if outcome.retries.total() > 0 {
        line.number("upstream_retries", u64::from(outcome.retries.total()));
    }
    line.number("code", u64::from(outcome.code));
    line.text("outcome", outcome.ending.label());
    let last_401 = outcome.unauthorized.last();
    present(
        line,
        [
            ("reason", outcome.rejection.map(Label::label)),
            ("unauthorized", last_401.map(|u| u.reason.label())),
        ],
    );
    if let Some(cause) = &outcome.cause {
        line.text("cause", truncate(cause, MAX_CAUSE).as_ref());
    }
    line.millis("total_ms", outcome.total);
    line.millis("admission_ms", outcome.admission);
    if let Some(upstream) = outcome.upstream {
        line.millis("upstream_ms", upstream);
    }
    line.number("received", outcome.received);
    line.number("sent", outcome.sent);
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credential::Lookup;
    use crate::gateway::outcome::{Unauthorized, UnauthorizedAction, UnauthorizedReason};
    use crate::gateway::reason::Reason;
    use crate::log::request_fields::MAX_CERT;
    use crate::log::sink::tests::Captured;

    pub(in crate::log) fn outcome() -> Outcome {
        Outcome {
            peer: Some([127, 0, 0, 1].into()),
            route: Some("taskcluster".into()),
            issuer: Some("auth0".into()),
            verification: Some("cached"),
            rule: Some("developers".into()),
            source: Some("login".into()),
            lookup: Some(Lookup::Hit),
            unauthorized: vec![Unauthorized {
                action: UnauthorizedAction::Replayed,
                reason: UnauthorizedReason::FreshCredentials,
            }],
            total: Duration::from_micros(12_345),
            admission: Duration::from_micros(45),
            upstream: Some(Duration::from_millis(12)),
            received: 10,
            sent: 20,
            ..Outcome::new(
                "01J".into(),
                http::Method::POST,
                "/api/queue/v1/task".into(),
                http::Version::HTTP_2,
                Ending::Healed,
                200,
            )
        }
    }

    fn recorded(outcome: &Outcome, format: LogFormat) -> String {
        recorded_all([outcome], format, "info", 1.0)
    }

    pub(in crate::log) fn recorded_all<'o>(
        outcomes: impl IntoIterator<Item = &'o Outcome>,
        format: LogFormat,
        level: &str,
        fraction: f64,
    ) -> String {
        let out = Captured::default();
        let sink = Sink::start(Box::new(out.clone())).unwrap();
        let log = AccessLog::to(sink.clone(), format, &level.parse().unwrap()).sampled(fraction);
        for outcome in outcomes {
            log.record(outcome, UnixMillis::from_secs(1));
        }
        sink.flush(Duration::from_secs(20));
        out.text()
    }

    #[test]
    fn only_successful_requests_are_sampled() {
        let successful = Outcome {
            ending: Ending::Forwarded,
            unauthorized: vec![],
            ..outcome()
        };
        let others = [
            Outcome {
                code: 404,
                ..successful.clone()
            },
            Outcome {
                ending: Ending::Rejected,
                code: 401,
                ..successful.clone()
            },
            Outcome {
                ending: Ending::CallerGone,
                ..successful.clone()
            },
            outcome(),
        ];
        let requests = [&successful; 40].into_iter().chain(&others);
        let text = recorded_all(requests, LogFormat::Json, "info", 0.1);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let sampled = lines.iter().filter(|line| line["sample"] == 0.1).count();
        assert_eq!((sampled, lines.len()), (4, 8), "{text}");
        let none = recorded_all([&successful; 40], LogFormat::Json, "info", 0.0);
        assert_eq!(none, "");
        let all = recorded_all([&successful; 40], LogFormat::Json, "info", 1.0);
        assert_eq!(all.lines().count(), 40);
        assert!(!all.contains("sample"));
    }

    #[test]
    fn an_access_line_is_one_json_object() {
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
    fn a_rejection_is_logged_with_its_cause_and_without_the_query() {
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
    fn the_client_behind_a_proxy_and_its_certificate_are_logged() {
        let name = format!("CN=a \"b\" c=d\u{2028}{}", "x".repeat(1000));
        let outcome = Outcome {
            client: Some([203, 0, 113, 7].into()),
            client_cert: Some(name.as_str().into()),
            ..outcome()
        };
        let text = recorded(&outcome, LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["peer"], "127.0.0.1");
        assert_eq!(line["client"], "203.0.113.7");
        let cert = line["client_cert"].as_str().unwrap();
        assert!(cert.starts_with("CN=a \"b\" c=d") && cert.ends_with("x…"));
        assert_eq!(cert.len(), MAX_CERT + '…'.len_utf8());
        // A name cannot forge a field in the text format either.
        let text = recorded(&outcome, LogFormat::Text);
        assert!(text.contains(r#"client_cert="CN=a \"b\" c=d"#), "{text}");
    }

    #[test]
    fn the_text_format_lists_fields_as_name_value_pairs() {
        let text = recorded(&outcome(), LogFormat::Text);
        assert!(text.starts_with("1970-01-01T00:00:01.000Z info  access: request_id=01J peer=127.0.0.1 method=POST path=/api/queue/v1/task"), "{text}");
        assert!(text.ends_with("received=10 sent=20\n"), "{text}");
    }

    #[test]
    fn a_hostile_path_is_escaped_and_truncated() {
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
    fn access_lines_can_be_turned_off() {
        assert!(recorded_all([&outcome()], LogFormat::Json, "info,access=off", 1.0).is_empty());
        assert!(recorded_all([&outcome()], LogFormat::Json, "off", 1.0).is_empty());
        let on = recorded_all([&outcome()], LogFormat::Json, "off,access=info", 1.0);
        assert_eq!(on.lines().count(), 1, "{on}");
        let off = AccessLog::off();
        assert!(off.sink.is_none(), "no sink");
        assert_eq!(off.dropped(), 0);
    }
}
