use http::{HeaderMap, HeaderValue};

use super::*;
use crate::clock::ManualClock;
use crate::clock::UnixMillis;
use crate::trace::RequestTrace;
use crate::trace::{
    HeaderAction, RequestSummary, TRACEPARENT, current_span, in_span, outgoing_traceparent,
    with_span,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn tracer(incoming: IncomingTrace, sample: f64) -> (Arc<Tracer>, mpsc::Receiver<ExporterMessage>) {
    let (sender, items) = mpsc::channel(16);
    let clock = ManualClock::at(UnixMillis(5));
    let observer = SpanObserver::new(|_, _| ());
    let tracer = Tracer::new(incoming, sample, clock, observer, Some(sender));
    (tracer, items)
}

fn begun(incoming: IncomingTrace, sample: f64, headers: &[(&'static str, &str)]) -> RequestTrace {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    *tracer(incoming, sample).0.begin(&map).unwrap()
}

fn sent(trace: &RequestTrace) -> [String; 3] {
    trace.headers().map(|(_, action)| match action {
        HeaderAction::Set(value) => value.to_str().unwrap().to_owned(),
        HeaderAction::Keep => "keep".into(),
        HeaderAction::Remove => "remove".into(),
    })
}

#[test]
fn a_callers_trace_is_continued_in_a_child_span() {
    let headers = [("traceparent", PARENT), ("tracestate", "a=1")];
    let trace = begun(IncomingTrace::Continue, 0.0, &headers);
    assert_eq!(trace.id().to_string(), TRACE);
    let [parent, state, taskcluster] = sent(&trace);
    assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && parent.ends_with("-01"));
    assert!(
        !parent.contains("00f067aa0ba902b7"),
        "hawkgate's own span id"
    );
    assert_eq!((state.as_str(), taskcluster.as_str()), ("keep", TRACE));
    let bad = [("traceparent", PARENT), ("tracestate", "A=1")];
    let trace = begun(IncomingTrace::Continue, 0.0, &bad);
    assert_eq!(
        (trace.id().to_string().as_str(), sent(&trace)[1].as_str()),
        (TRACE, "remove")
    );
}

#[test]
fn an_invalid_traceparent_starts_a_new_trace() {
    let wrong = PARENT.to_uppercase();
    for headers in [
        vec![],
        vec![("traceparent", wrong.as_str()), ("tracestate", "a=1")],
        vec![
            ("traceparent", PARENT),
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
        ],
        vec![("tracestate", "a=1")],
    ] {
        let trace = begun(IncomingTrace::Continue, 1.0, &headers);
        assert_ne!(trace.id().to_string(), TRACE);
        let [parent, state, taskcluster] = sent(&trace);
        assert!(parent.ends_with("-01"), "{parent}");
        assert_eq!(
            (state, taskcluster),
            ("remove".into(), trace.id().to_string())
        );
    }
}

#[test]
fn an_untrusted_callers_trace_context_is_ignored() {
    let headers = [
        ("traceparent", PARENT),
        ("tracestate", "a=1"),
        ("x-taskcluster-trace-id", TRACE),
    ];
    let trace = begun(IncomingTrace::Restart, 0.0, &headers);
    assert_ne!(trace.id().to_string(), TRACE);
    let [parent, state, taskcluster] = sent(&trace);
    assert!(parent.ends_with("-00"), "the caller cannot force sampling");
    assert_eq!(
        (state, taskcluster),
        ("remove".into(), trace.id().to_string())
    );
}

#[test]
fn a_taskcluster_trace_id_is_adopted_if_it_is_a_valid_trace_id() {
    let uuid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
    for (id, same) in [(uuid, true), (TRACE, true), ("foo/bar", false)] {
        let trace = begun(
            IncomingTrace::Continue,
            1.0,
            &[("x-taskcluster-trace-id", id)],
        );
        assert_eq!(trace.id().to_string() == TRACE, same, "{id}");
        assert_eq!(sent(&trace)[2], "keep", "{id}");
    }
    let replaced = begun(
        IncomingTrace::Continue,
        1.0,
        &[("x-taskcluster-trace-id", "a b\t")],
    );
    assert_eq!(sent(&replaced)[2], replaced.id().to_string());
}

#[test]
fn the_sampling_ratio_applies_to_the_trace_id() {
    let (tracer, _items) = tracer(IncomingTrace::Continue, 0.25);
    let sampled = |text: &str| tracer.samples(TraceId::parse(text).unwrap());
    assert!(sampled("ffffffffffffffff0000000000000001"));
    assert!(sampled("00000000000000013ff0000000000000"));
    assert!(!sampled("00000000000000014000000000000000"));
    assert!(!sampled("0000000000000001ffffffffffffffff"));
    for (share, expected) in [(0.0, 0), (1.0, 1000)] {
        let (tracer, _items) = self::tracer(IncomingTrace::Continue, share);
        let count = (0..1000)
            .filter(|_| tracer.samples(TraceId::random().unwrap()))
            .count();
        assert_eq!(count, expected);
    }
}

#[tokio::test]
async fn spans_nest_across_tasks_and_record_their_times() {
    let (tracer, mut items) = tracer(IncomingTrace::Continue, 1.0);
    let mut trace = tracer.begin(&HeaderMap::new()).unwrap();
    let admission = trace.admission_span();
    assert_eq!(outgoing_traceparent(), None, "outside any span");
    let header = in_span(admission.clone(), async {
        let here = current_span().unwrap();
        tokio::spawn(in_span(here, async {
            with_span(
                "exchange",
                crate::trace::SpanKind::Client,
                async { outgoing_traceparent() },
                |_| (vec![], Some("refused")),
            )
            .await
        }))
        .await
        .unwrap()
    })
    .await;
    let Ok(ExporterMessage::Span(exchange)) = items.try_recv() else {
        panic!("no span")
    };
    assert_eq!(
        (exchange.parent, exchange.error),
        (Some(admission.span), Some("refused"))
    );
    let expected = format!("00-{}-{}-01", trace.id(), exchange.id);
    assert_eq!(header.unwrap().to_str().unwrap(), expected);

    let second = Duration::from_secs(1);
    trace.begin_attempt(second, None);
    trace.record_status(401);
    trace.end_attempt(2 * second, Some("unauthorized"));
    trace.begin_attempt(3 * second, None);
    let (name, value) = trace.headers()[0].clone();
    assert_eq!(name, TRACEPARENT);
    let whole = RequestSummary {
        started: Duration::ZERO,
        admitted: second,
        ended: 4 * second,
        name: "GET r".into(),
        attributes: vec![],
        error: None,
    };
    trace.finish(whole, |index, _| {
        vec![("index", i64::try_from(index).unwrap().into())]
    });
    let mut spans = Vec::new();
    while let Ok(ExporterMessage::Span(span)) = items.try_recv() {
        spans.push(*span);
    }
    let recorded: Vec<_> = spans
        .iter()
        .map(|s| {
            (
                &*s.name,
                s.started / 1_000_000,
                s.ended / 1_000_000,
                s.error,
            )
        })
        .collect();
    let expected = [
        ("admission", 5, 1005, None),
        ("upstream", 1005, 2005, Some("unauthorized")),
        ("upstream", 3005, 4005, None),
        ("GET r", 5, 4005, None),
    ];
    assert_eq!(recorded, expected);
    let root = spans[3].id;
    assert!(spans[..3].iter().all(|span| span.parent == Some(root)));
    assert_eq!(spans[3].parent, None);
    let HeaderAction::Set(sent) = value else {
        panic!("no header")
    };
    assert!(sent.to_str().unwrap().contains(&spans[2].id.to_string()));
}
