//! What a request's spans say, in OpenTelemetry's conventions for HTTP where there is one.
//! Of the target only the path, never a header's value.

use std::time::Duration;

use http::{HeaderMap, Method};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::context::Context;
use super::failure::{self, Failure};
use crate::gateway::outcome::{Ending, Outcome};
use crate::gateway::reason::Reason;
use crate::label::Label;
use crate::trace::{Attempt, Attribute, RequestSummary, SpanContext};

/// Longest path told, in bytes.
const MAX_PATH: usize = 1024;

impl Context {
    /// Begins the request's trace, if `[trace]` is on, and says whose span its admission is
    /// in.
    pub(super) fn begin_trace(&mut self, headers: &HeaderMap) -> Option<SpanContext> {
        let tracer = self.gateway.observe.trace.as_ref()?;
        self.trace = tracer.begin(headers);
        self.trace.as_ref().map(|trace| trace.admission_span())
    }

    /// An attempt to reach `peer` begins.
    pub(super) fn begin_attempt(&mut self, peer: &HttpPeer, now: Duration) {
        if let Some(trace) = &mut self.trace {
            let address = match peer._address {
                SocketAddr::Inet(address) => Some(address),
                SocketAddr::Unix(_) => None,
            };
            trace.begin_attempt(now, address);
        }
    }

    /// The attempt under way came to nothing, or to an answer that is not the last.
    pub(super) fn attempt_failed(&mut self, error: &Error, now: Duration) {
        if let Some(trace) = &mut self.trace {
            let why = match (error.etype(), failure::judge(error)) {
                (ErrorType::HTTPStatus(401), _) => "unauthorized",
                (_, Failure::CallerGone) => Ending::CallerGone.label(),
                (_, Failure::Refuse(rejection)) => rejection.reason.label(),
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
            attributes: about(outcome, method, route),
            error: fault(outcome),
        };
        let upstream = self.admission.as_ref().map(|a| &a.route.upstream);
        let host = upstream.map(|upstream| (upstream.host.as_str(), upstream.port));
        trace.finish(summary, |index, attempt| {
            let mut told = about_attempt(index, attempt, method, host);
            if let Some(answer) = outcome.unauthorized.get(index)
                && attempt.status == Some(401)
            {
                told.push(("hawkgate.unauthorized", answer.reason.label().into()));
            }
            told
        });
    }
}

/// One of a closed set, as the conventions want it.
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

fn about(outcome: &Outcome, method: &'static str, route: &str) -> Vec<Attribute> {
    let mut end = outcome.path.len().min(MAX_PATH);
    while !outcome.path.is_char_boundary(end) {
        end -= 1;
    }
    let mut told: Vec<Attribute> = vec![
        ("http.request.method", method.into()),
        ("url.path", outcome.path[..end].to_owned().into()),
        ("http.response.status_code", i64::from(outcome.code).into()),
        ("hawkgate.request_id", outcome.request_id.clone().into()),
        ("hawkgate.route", route.to_owned().into()),
        ("hawkgate.outcome", outcome.ending.label().into()),
    ];
    if let Some(peer) = outcome.client.or(outcome.peer) {
        told.push(("client.address", peer.to_string().into()));
    }
    let names = [
        ("hawkgate.issuer", &outcome.issuer),
        ("hawkgate.rule", &outcome.rule),
        ("hawkgate.source", &outcome.source),
    ];
    for (key, name) in names {
        if let Some(name) = name {
            told.push((key, name.to_string().into()));
        }
    }
    let labels = [
        ("hawkgate.verification", outcome.verification),
        ("hawkgate.lookup", outcome.lookup.map(Label::label)),
        ("hawkgate.reason", outcome.rejection.map(Label::label)),
    ];
    for (key, label) in labels {
        if let Some(label) = label {
            told.push((key, label.into()));
        }
    }
    told
}

fn about_attempt(
    index: usize,
    attempt: &Attempt,
    method: &'static str,
    host: Option<(&str, u16)>,
) -> Vec<Attribute> {
    let mut told: Vec<Attribute> = vec![("http.request.method", method.into())];
    if let Some((host, port)) = host {
        told.push(("server.address", host.to_owned().into()));
        told.push(("server.port", i64::from(port).into()));
    }
    if let Some(address) = attempt.address {
        told.push(("network.peer.address", address.ip().to_string().into()));
    }
    if let Some(status) = attempt.status {
        told.push(("http.response.status_code", i64::from(status).into()));
    }
    if let Some(resent) = i64::try_from(index).ok().filter(|index| *index > 0) {
        told.push(("http.request.resend_count", resent.into()));
    }
    told
}

/// Only what is not the caller's own doing is an error of this span's.
fn fault(outcome: &Outcome) -> Option<&'static str> {
    if let Some(reason) = outcome.rejection {
        return reason
            .status()
            .is_server_error()
            .then(|| Reason::label(reason));
    }
    let failed = outcome.ending == Ending::UpstreamFailed || outcome.code >= 500;
    failed.then(|| Ending::UpstreamFailed.label())
}
