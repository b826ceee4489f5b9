//! What an HTTP/2 upstream did not process is sent again, whatever its method; what it may have
//! processed is not (RFC 9113 §8.7, RFC 9110 §9.2.2).

use bytes::Bytes;

use super::frames::{Act, CANCEL, FrameUpstream, INTERNAL_ERROR, REFUSED_STREAM};
use super::peers::{Caller, full, read, request};
use super::{Pair, gateway};
use crate::known_differences::Differences;
use crate::support::gateway::TestGateway;
use crate::support::tls::TestCa;

/// What the caller should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// 200 after two attempts.
    Retried,
    /// 200 after one.
    Answered,
    /// For a GET, 200 after two attempts or 502 after one; otherwise the latter.
    RefusedUnlessIdempotent,
    /// A truncated answer, or 502, after one attempt.
    Truncated,
}

#[rustfmt::skip]
const CASES: &[(&str, Act, Wanted)] = &[
    ("refused stream", Act::Reset(REFUSED_STREAM), Wanted::Retried),
    ("refused stream after the body", Act::ResetAfterBody(REFUSED_STREAM), Wanted::Retried),
    ("goaway before the stream", Act::GoawayBefore, Wanted::Retried),
    ("goaway including the stream", Act::GoawayIncluding, Wanted::RefusedUnlessIdempotent),
    ("goaway and an answer", Act::GoawayAndAnswer, Wanted::Answered),
    ("internal error", Act::Reset(INTERNAL_ERROR), Wanted::RefusedUnlessIdempotent),
    ("internal error after the body", Act::ResetAfterBody(INTERNAL_ERROR), Wanted::RefusedUnlessIdempotent),
    ("cancelled", Act::Reset(CANCEL), Wanted::RefusedUnlessIdempotent),
    ("an answer and no more of the body", Act::AnswerAndStop, Wanted::Answered),
    ("a head and refused stream", Act::HeadAndReset, Wanted::Truncated),
    ("an answer that is too short", Act::ShortAnswer, Wanted::Truncated),
];

/// Sends a request of which the upstream disposes as `act` says.
async fn differences(
    upstream: &FrameUpstream,
    gateway: &TestGateway,
    pair: Pair,
    (method, body): (&str, &Bytes),
    (act, wanted): (Act, Wanted),
) -> Vec<String> {
    let mut caller = pair.caller(gateway).await;
    upstream.script(&[act]);
    let seen = outcome(&mut caller, pair, method, body).await;
    let arrived = upstream.arrived();
    let attempts = arrived.len();
    let possible: &[(&str, usize)] = match wanted {
        Wanted::Retried => &[("200", 2)],
        Wanted::Answered => &[("200", 1)],
        Wanted::RefusedUnlessIdempotent if method == "GET" => &[("200", 2), ("502", 1)],
        Wanted::RefusedUnlessIdempotent => &[("502", 1)],
        Wanted::Truncated => &[("502", 1), ("a truncated body", 1)],
    };
    let mut found = Vec::new();
    if !possible.contains(&(&seen, attempts)) {
        found.push(format!("{seen}, {attempts} attempts"));
    }
    if seen == "200" && act != Act::AnswerAndStop {
        let last = arrived.last().unwrap();
        assert!(last.complete && last.body == *body, "{act:?} {pair:?}");
    }
    // The upstream is used as before.
    upstream.script(&[]);
    let mut next = pair.caller(gateway).await;
    match outcome(&mut next, pair, "POST", body).await {
        ok if ok == "200" => {}
        other => found.push(format!("next: {other}")),
    }
    found
}

/// The status, unless the answer is broken.
async fn outcome(caller: &mut Caller, pair: Pair, method: &str, body: &Bytes) -> String {
    let answer = caller
        .send(request(pair, method, "/x", full(body.clone())))
        .await;
    let read = async {
        let answer = answer?;
        let status = answer.status().as_str().to_owned();
        read(answer.into_body()).await?;
        Ok(status)
    };
    read.await.unwrap_or_else(|why: String| why)
}

#[tokio::test]
async fn only_what_an_http2_upstream_did_not_process_is_sent_again() {
    let ca = TestCa::new();
    let upstream = FrameUpstream::start(&ca).await;
    let gateway = gateway("http://127.0.0.1:9", &upstream.url, &ca.file()).await;
    // More than the first window.
    let large = Bytes::from(vec![b'x'; 200_000]);
    let requests = [
        ("GET", Bytes::new()),
        ("POST", Bytes::from("body")),
        ("POST", large),
    ];
    let mut found = Differences::default();
    for http2_caller in [false, true] {
        let pair = Pair::new(http2_caller, true);
        for (case, act, wanted) in CASES {
            for (method, body) in &requests {
                let what = differences(&upstream, &gateway, pair, (method, body), (*act, *wanted));
                let case = format!("{case}: {method}, {} bytes", body.len());
                found.record(&case, pair.name(), what.await);
            }
        }
    }
    found.assert_known();
}
