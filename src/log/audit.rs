//! The audit log: who obtained which credential, and on which route.

use crate::gateway::outcome::{
    Audit, AuditDecision, AuditEvent, Outcome, RefreshResult, SessionEvent, SessionRecord,
};
use crate::label::Label;

use super::line::Line;
use super::request_fields::{client, present, replays, request_ids, request_line, truncate};

/// Maximum length of the name of a caller or credential, in bytes; the rest is cut off.
const MAX_NAME: usize = 512;
/// Maximum length of a list of scopes, in bytes; the rest is cut off.
const MAX_SCOPES: usize = 2048;

pub(super) fn fill(line: &mut Line<'_>, outcome: &Outcome, audit: &Audit) {
    line.text("event", audit.event.label());
    line.text("decision", audit.decision.label());
    request_ids(line, outcome);
    client(line, outcome);
    request_line(line, outcome);
    present(line, [("route", outcome.route.as_deref())]);
    present(line, [("issuer", outcome.issuer.as_deref())]);
    name(line, "subject", audit.subject.as_deref());
    name(line, "token_client", audit.client.as_deref());
    session(line, outcome.session.as_deref());
    let forward_auth = outcome.forward_auth.as_deref();
    present(line, [("forward_auth", forward_auth.map(|f| &*f.name))]);
    present(
        line,
        [
            ("verification", outcome.verification),
            ("rule", outcome.rule.as_deref()),
            ("source", outcome.source.as_deref()),
        ],
    );
    name(line, "credential", audit.credential.as_deref());
    present(line, [("lookup", outcome.lookup.map(Label::label))]);
    if let Some(scopes) = &audit.scopes {
        line.text("scopes", truncate(&scopes.join(" "), MAX_SCOPES).as_ref());
    }
    line.number("replayed", replays(outcome));
    line.number("code", u64::from(outcome.code));
    line.text("outcome", outcome.ending.label());
    present(line, [("reason", outcome.rejection.map(Label::label))]);
}

/// The renewal of the session of a request, which has a line of its own.
pub(super) fn fill_refresh(
    line: &mut Line<'_>,
    outcome: &Outcome,
    record: &SessionRecord,
    result: RefreshResult,
) {
    let decision = match result {
        RefreshResult::Refreshed => AuditDecision::Granted,
        RefreshResult::Refused => AuditDecision::Ended,
        RefreshResult::Unavailable => AuditDecision::Refused,
    };
    line.text("event", AuditEvent::SessionRefresh.label());
    line.text("decision", decision.label());
    request_ids(line, outcome);
    client(line, outcome);
    request_line(line, outcome);
    present(line, [("route", outcome.route.as_deref())]);
    name(line, "subject", record.subject.as_deref());
    session(line, Some(record));
    line.text("result", result.label());
}

/// Which session it is.
fn session(line: &mut Line<'_>, record: Option<&SessionRecord>) {
    let id = record.and_then(|record| record.id.as_deref());
    let sign_in = match record.and_then(|record| record.event) {
        Some(SessionEvent::SignIn(result)) => Some(result.label()),
        _ => None,
    };
    present(
        line,
        [
            ("session", record.map(|record| &*record.name)),
            ("session_id", id),
            ("result", sign_in),
        ],
    );
}

fn name(line: &mut Line<'_>, field: &str, name: Option<&str>) {
    if let Some(name) = name {
        line.text(field, truncate(name, MAX_NAME).as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::access::tests::{outcome, recorded_all};
    use crate::log::line::MAX_LINE;
    use crate::log::settings::LogFormat;

    fn audited(subject: &str) -> Outcome {
        Outcome {
            audit: Some(Box::new(Audit {
                event: AuditEvent::Request,
                decision: AuditDecision::Granted,
                subject: Some(subject.into()),
                client: Some("cli".into()),
                credential: Some("sso/alice".into()),
                scopes: Some(["queue:a".to_owned(), "queue:b*".to_owned()].into()),
            })),
            ..outcome()
        }
    }

    #[test]
    fn an_audit_line_records_the_caller_the_credential_and_the_route() {
        let level = "off,access=off,audit=info";
        let text = recorded_all([&audited("alice")], LogFormat::Json, level, 1.0);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:01.000Z", "level": "info", "target": "audit",
            "event": "request", "decision": "granted", "request_id": "01J",
            "peer": "127.0.0.1", "method": "POST", "path": "/api/queue/v1/task",
            "route": "taskcluster", "issuer": "auth0", "subject": "alice", "token_client": "cli",
            "verification": "cached", "rule": "developers", "source": "login",
            "credential": "sso/alice", "lookup": "hit", "scopes": "queue:a queue:b*",
            "replayed": 1, "code": 200, "outcome": "healed",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn audit_lines_require_an_explicit_level_and_are_never_sampled() {
        let outcomes = [audited("a"), audited("b"), audited("c")];
        let text = recorded_all(&outcomes, LogFormat::Json, "trace", 1.0);
        assert!(!text.contains("\"target\":\"audit\""), "{text}");
        let text = recorded_all(&outcomes, LogFormat::Json, "info,audit=info", 0.0);
        assert_eq!(text.matches("\"target\":\"audit\"").count(), 3);
    }

    #[test]
    fn hostile_names_in_an_audit_line_are_escaped_and_truncated() {
        let hostile = format!("\"}}\n{}", "é\u{1}".repeat(20_000));
        for format in [LogFormat::Json, LogFormat::Text] {
            let text = recorded_all([&audited(&hostile)], format, "off,audit=info", 1.0);
            assert_eq!(text.matches('\n').count(), 1);
            assert!(
                text.contains('…') && text.len() < MAX_LINE,
                "{}",
                text.len()
            );
        }
    }
}
