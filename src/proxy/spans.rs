//! The attributes of a request's spans, following OpenTelemetry's semantic conventions for HTTP
//! where they apply. Only the path of the target is recorded, and no header values.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::context::Context;
use super::error::RelayError;
use crate::gateway::outcome::{Ending, Outcome};
use crate::gateway::reason::Reason;
use crate::header_fields::{self, HeaderFields};
use crate::label::Label;
use crate::trace::{
    Attempt, Attribute, RequestSummary, SpanContext, TASKCLUSTER_TRACE_ID, TRACEPARENT, TRACESTATE,
};

/// Maximum length of a recorded path, in bytes.
const MAX_PATH: usize = 1024;

/// The fields that continue a trace.
const TRACE_HEADERS: [HeaderName; 3] = [TRACEPARENT, TRACESTATE, TASKCLUSTER_TRACE_ID];

impl Context {
    /// Starts the request's trace if `[trace]` is enabled, and returns the span for admission.
    pub(super) fn begin_trace(&mut self, fields: &dyn HeaderFields) -> Option<SpanContext> {
        let tracer = self.gateway.observability.trace.as_ref()?;
        let mut headers = HeaderMap::new();
        for name in TRACE_HEADERS {
            for value in header_fields::all(fields, &name) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(name.clone(), value);
                }
            }
        }
        self.trace = tracer.begin(&headers);
        self.trace.as_ref().map(|trace| trace.admission_span())
    }

    /// Records that the current attempt ended with `error`, or, without one, with a 401 that is
    /// not forwarded.
    pub(super) fn attempt_ended(&mut self, error: Option<&RelayError>, now: Duration) {
        if let Some(trace) = &mut self.trace {
            let why = match error.map(RelayError::to_rejection) {
                None => "unauthorized",
                Some(None) => Ending::CallerGone.label(),
                Some(Some(rejection)) => rejection.reason.label(),
            };
            trace.end_attempt(now, Some(why));
        }
    }

    /// Records the spans of a request that ended with `outcome`.
    pub(super) fn finish_trace(&mut self, outcome: &Outcome, now: Duration) {
        let Some(mut trace) = self.trace.take().filter(|trace| trace.is_recorded()) else {
            return;
        };
        let route = outcome.route.as_deref().unwrap_or("-");
        let method = method(&outcome.method);
        let started = self.times.started;
        let summary = RequestSummary {
            started,
            admitted: started.saturating_add(outcome.admission),
            ended: now,
            name: format!("{method} {route}"),
            attributes: span_attributes(outcome, method, route),
            error: error_type(outcome),
        };
        let upstream = self.admission.as_ref().map(|a| &a.route.upstream);
        let host = upstream.map(|upstream| (upstream.host.as_str(), upstream.port));
        trace.finish(summary, |index, attempt| {
            let mut attributes = attempt_attributes(index, attempt, method, host);
            if let Some(unauthorized) = outcome.unauthorized.get(index)
                && attempt.status == Some(401)
            {
                attributes.push(("hawkgate.unauthorized", unauthorized.reason.label().into()));
            }
            attributes
        });
    }
}

/// Returns the method as one of the closed set that the conventions define.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}

fn span_attributes(outcome: &Outcome, method: &'static str, route: &str) -> Vec<Attribute> {
    let mut end = outcome.path.len().min(MAX_PATH);
    while !outcome.path.is_char_boundary(end) {
        end -= 1;
    }
    let mut attributes: Vec<Attribute> = vec![
        ("http.request.method", method.into()),
        ("url.path", outcome.path[..end].to_owned().into()),
        ("http.response.status_code", i64::from(outcome.code).into()),
        ("hawkgate.request_id", outcome.request_id.clone().into()),
        ("hawkgate.route", route.to_owned().into()),
        ("hawkgate.outcome", outcome.ending.label().into()),
    ];
    if let Some(peer) = outcome.client.or(outcome.peer) {
        attributes.push(("client.address", peer.to_string().into()));
    }
    let names = [
        ("hawkgate.issuer", &outcome.issuer),
        ("hawkgate.rule", &outcome.rule),
        ("hawkgate.source", &outcome.source),
    ];
    for (key, name) in names {
        if let Some(name) = name {
            attributes.push((key, name.to_string().into()));
        }
    }
    let labels = [
        ("hawkgate.verification", outcome.verification),
        ("hawkgate.lookup", outcome.lookup.map(Label::label)),
        ("hawkgate.reason", outcome.rejection.map(Label::label)),
    ];
    for (key, label) in labels {
        if let Some(label) = label {
            attributes.push((key, label.into()));
        }
    }
    attributes
}

fn attempt_attributes(
    index: usize,
    attempt: &Attempt,
    method: &'static str,
    host: Option<(&str, u16)>,
) -> Vec<Attribute> {
    let mut attributes: Vec<Attribute> = vec![("http.request.method", method.into())];
    if let Some((host, port)) = host {
        attributes.push(("server.address", host.to_owned().into()));
        attributes.push(("server.port", i64::from(port).into()));
    }
    if let Some(address) = attempt.address {
        attributes.push(("network.peer.address", address.ip().to_string().into()));
    }
    if let Some(status) = attempt.status {
        attributes.push(("http.response.status_code", i64::from(status).into()));
    }
    if let Some(resent) = i64::try_from(index).ok().filter(|index| *index > 0) {
        attributes.push(("http.request.resend_count", resent.into()));
    }
    attributes
}

/// Returns the `error.type` attribute. Errors caused by the caller do not count as errors of
/// this span.
fn error_type(outcome: &Outcome) -> Option<&'static str> {
    if let Some(reason) = outcome.rejection {
        return reason
            .status()
            .is_server_error()
            .then(|| Reason::label(reason));
    }
    let failed = outcome.ending == Ending::UpstreamFailed || outcome.code >= 500;
    failed.then(|| Ending::UpstreamFailed.label())
}
