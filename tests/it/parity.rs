//! Upstream answers × request shapes: whatever an HTTP/1 upstream sends, every caller gets the
//! same status, framing and fields, as far as the caller's protocol allows.

mod answers;
mod callers;
mod upstream;

use std::collections::BTreeSet;

use crate::differences::Differences;
use crate::support::gateway::TestGateway;
use answers::{Answer, Length, Passed, Wanted, answers};
use callers::{Caller, Interim, Seen, Shape};
use upstream::{Pace, ScriptedUpstream};

/// Listeners for HTTP/1 and HTTP/2, and one worker, so that all requests share its connections to
/// the upstream.
/// Sends a request of each shape for each answer that `only` selects.
async fn check(pace: Pace, only: impl Fn(&Answer) -> bool) {
    let all = answers();
    let names: BTreeSet<_> = all.iter().map(|answer| answer.name).collect();
    assert_eq!(names.len(), all.len(), "two answers have the same name");
    let upstream = ScriptedUpstream::start(&all, pace).await;
    let gateway = TestGateway::signing(&upstream.url(), "").await;
    let mut all_differences = Differences::default();
    for answer in all.iter().filter(|answer| only(answer)) {
        for shape in Shape::ALL {
            if answer.method == "HEAD" && shape.has_body() {
                continue;
            }
            let mut caller = Caller::connect(&gateway, shape).await;
            let seen = caller.exchange(answer.method, answer.name).await;
            let mut differences = compare(&answer.wanted, shape, answer.method, seen);
            differences.extend(check_next(caller, &gateway).await);
            all_differences.record(answer.name, shape.name(), differences);
        }
    }
    all_differences.assert_none();
}

/// Another request of the same shape gets its own answer, on the same connection if that is still
/// open: nothing of the answer before it is taken for another answer.
async fn check_next(caller: Caller, gateway: &TestGateway) -> Vec<String> {
    let shape = caller.shape;
    let persistent = caller.is_persistent();
    let mut caller = if persistent {
        caller
    } else {
        Caller::connect(gateway, shape).await
    };
    let wanted = Passed::status(200)
        .length(4)
        .body("next")
        .field("x-next", "1");
    let seen = caller.exchange("GET", "next").await;
    let after = compare(&Wanted::Passed(wanted), shape, "GET", seen);
    after
        .into_iter()
        .map(|what| format!("next: {what}"))
        .collect()
}

/// What differs between the answer that the caller should have received and the one that it has
/// received.
fn compare(wanted: &Wanted, shape: Shape, method: &str, seen: Result<Seen, String>) -> Vec<String> {
    let seen = match seen {
        Ok(seen) => seen,
        Err(unreadable) => return vec![unreadable],
    };
    let refused = seen.status == 502 && seen.error_reason.as_deref() == Some("upstream_failed");
    match wanted {
        Wanted::Refused | Wanted::Broken if refused => seen.illegal,
        Wanted::Refused => vec![format!("{}, not refused", seen.status)],
        // In HTTP/1.0 a body that ends with its connection cannot be seen to be truncated.
        Wanted::Broken if !seen.complete || shape == Shape::Http10Get => seen.illegal,
        Wanted::Broken => vec![format!("{}, complete", seen.status)],
        Wanted::Passed(_) if refused => vec!["refused".into()],
        Wanted::Passed(wanted) => {
            let mut found = compare_passed(wanted, shape, method, &seen);
            found.extend(seen.illegal);
            found
        }
    }
}

fn compare_passed(wanted: &Passed, shape: Shape, method: &str, seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |same: bool, what: String| {
        if !same {
            found.push(what);
        }
    };
    check(
        seen.status == wanted.status,
        format!("status {}, not {}", seen.status, wanted.status),
    );
    // A server must not send 1xx to an HTTP/1.0 client (RFC 9110 §15.2).
    let interim = if shape == Shape::Http10Get {
        &[][..]
    } else {
        &wanted.interim[..]
    };
    check(
        seen.interim == interim,
        format!(
            "1xx: {}, not {}",
            list_interim(&seen.interim),
            list_interim(interim)
        ),
    );
    let reason = wanted.reason.filter(|_| shape.is_http1());
    check(
        reason.is_none() || seen.reason.as_deref() == reason,
        format!(
            "reason phrase {}",
            seen.reason.as_deref().unwrap_or_default()
        ),
    );
    check(
        seen.length == wanted.length,
        format!("{}, not {}", seen.length, wanted.length),
    );
    // In HTTP/1.0 a body of unknown length is complete when its connection is closed.
    let visible = shape != Shape::Http10Get || wanted.length != Length::Unknown;
    check(
        !visible || seen.complete == wanted.complete,
        (if seen.complete {
            "complete"
        } else {
            "truncated"
        })
        .into(),
    );
    let body = if method == "HEAD" { "" } else { wanted.body };
    check(
        if wanted.complete {
            seen.body == body
        } else {
            body.starts_with(&seen.body)
        },
        format!("body {}", seen.body),
    );
    check(
        seen.date == wanted.date,
        format!("Date {}, not {}", seen.date, wanted.date),
    );
    let mut fields: Vec<_> = wanted
        .fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    // Only the order of values of the same name matters.
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    check(
        seen.fields == fields,
        format!("fields: {}, not {}", list(&seen.fields), list(&fields)),
    );
    found
}

fn list(fields: &[(String, String)]) -> String {
    let lines: Vec<_> = fields.iter().map(|(n, v)| format!("{n}={v}")).collect();
    lines.join(" ")
}

fn list_interim(interim: &[Interim]) -> String {
    let heads: Vec<_> = interim
        .iter()
        .map(|(status, fields)| format!("{status} {}", list(fields)).trim_end().to_owned())
        .collect();
    if heads.is_empty() {
        "none".into()
    } else {
        heads.join(", ")
    }
}

#[tokio::test]
async fn every_shape_of_request_gets_the_same_answer() {
    check(Pace::AtOnce, |_| true).await;
}

/// The same, with each byte of an answer in a segment of its own.
#[tokio::test]
async fn answers_that_arrive_byte_by_byte_are_judged_alike() {
    // Bytes after the end of an answer may arrive after the next request; large answers add nothing.
    let in_order = |answer: &Answer| !answer.is_followed && answer.bytes.len() < 1000;
    check(Pace::ByteByByte, in_order).await;
}
