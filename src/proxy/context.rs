//! The state of one request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Version};
use pingora::proxy::Session;

use super::client::PeerInfo;
use super::replay::Replay;
use crate::gateway::outcome::{
    Ending, Outcome, Traced, Unauthorized, UnauthorizedAction, UnauthorizedReason,
};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Admission, Facts, Gateway, Refused};
use crate::secret::SecretString;
use crate::trace::RequestTrace;

/// The state of one request. Dropping it releases everything that the request holds.
pub struct Context {
    /// Pinned for the life of the request: a reload does not change requests in progress.
    pub(super) gateway: Arc<Gateway>,
    pub(super) request_id: String,
    /// The connected peer and its client; set first.
    pub(super) peer: Option<PeerInfo>,
    pub(super) admission: Option<Admission>,
    /// How far a rejected request got.
    pub(super) refused: Option<Box<Refused>>,
    /// Set when hawkgate answers a request to one of its own endpoints.
    pub(super) own_endpoint: Option<Box<Facts>>,
    /// The rejection that hawkgate responds with, or has responded with.
    pub(super) rejection: Option<Rejection>,
    /// Set if the request has a body.
    pub(super) replay: Option<Replay>,
    /// Set if `[trace]` is on.
    pub(super) trace: Option<Box<RequestTrace>>,
    pub(super) attempts: Attempts,
    pub(super) unauthorized: Vec<Unauthorized>,
    pub(super) times: Times,
    _in_flight: InFlightGuard,
}

/// The attempts to reach the upstream.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// The index in the list of addresses at which this request started.
    pub(super) start_index: Option<usize>,
    /// The addresses that could not be connected to.
    pub(super) unreachable: Vec<SocketAddr>,
    /// How many pooled connections turned out to be dead.
    pub(super) stale: usize,
    /// Set when a 401 is to be replayed, until the replay begins.
    pub(super) replaying: bool,
}

/// Monotonic times.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) began: Duration,
    pub(super) admitted: Option<Duration>,
    pub(super) upstream: Option<Duration>,
    /// Set if it is known before the request is recorded.
    pub(super) ended: Option<Duration>,
}

/// The request and response as exchanged with the caller.
pub(super) struct Exchange {
    pub(super) method: Method,
    /// Without the query.
    pub(super) path: String,
    pub(super) version: Version,
    pub(super) peer: PeerInfo,
    /// The last status sent; 0 if none was.
    pub(super) code: u16,
    /// Body bytes received.
    pub(super) received: u64,
    /// Body bytes sent.
    pub(super) sent: u64,
}

impl Exchange {
    /// As recorded by pingora.
    pub(super) fn from_session(session: &Session, context: &mut Context) -> Self {
        let head = session.req_header();
        let sent = session.response_written();
        Self {
            method: head.method.clone(),
            path: path_of(&String::from_utf8_lossy(head.raw_path())),
            version: head.version,
            peer: context
                .peer
                .take()
                .unwrap_or_else(|| PeerInfo::from_session(session)),
            code: sent.map_or(0, |head| head.status.as_u16()),
            received: session.body_bytes_read() as u64,
            sent: session.body_bytes_sent() as u64,
        }
    }
}

/// A target without its query.
pub(super) fn path_of(target: &str) -> String {
    target.split('?').next().unwrap_or_default().to_owned()
}

/// Counts a request as in flight until dropped.
#[derive(Debug)]
pub(super) struct InFlightGuard(Arc<AtomicU64>);

impl InFlightGuard {
    pub(super) fn new(gauge: &Arc<AtomicU64>) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gauge))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Context {
    pub(super) fn new(gateway: Arc<Gateway>, began: Duration, in_flight: InFlightGuard) -> Self {
        Self {
            gateway,
            request_id: String::new(),
            peer: None,
            admission: None,
            refused: None,
            own_endpoint: None,
            rejection: None,
            replay: None,
            trace: None,
            attempts: Attempts::default(),
            unauthorized: Vec::new(),
            times: Times {
                began,
                admitted: None,
                upstream: None,
                ended: None,
            },
            _in_flight: in_flight,
        }
    }

    /// The recovery code that the caller must receive with its response, whatever that is.
    /// Returned once.
    pub(super) fn take_recovery_code(&mut self) -> Option<SecretString> {
        self.admission.as_mut()?.take_recovery_code()
    }

    pub(super) fn record_401(&mut self, action: UnauthorizedAction, reason: UnauthorizedReason) {
        self.unauthorized.push(Unauthorized { action, reason });
    }

    /// The summary for metrics and logs; call once, at the end. `failure` is the cause if the
    /// request ended early, with whether the caller caused it.
    pub(super) fn outcome(
        &mut self,
        exchange: Exchange,
        now: Duration,
        failure: Option<(bool, String)>,
    ) -> Outcome {
        let Exchange {
            method,
            path,
            version,
            peer,
            code,
            received,
            sent,
        } = exchange;
        let audit = self.audit(&path);
        let ending = self.ending(failure.as_ref().map(|(caller, _)| *caller));
        let rejection = self.rejection.take();
        let admission = self.admission.as_ref();
        let refused = self.refused.as_ref();
        let own = self.own_endpoint.as_ref();
        let route = admission
            .map(|a| &a.route)
            .or(refused.and_then(|r| r.route.as_ref()));
        let admitted = self.times.admitted.unwrap_or(now);
        Outcome {
            request_id: std::mem::take(&mut self.request_id),
            method,
            path,
            version,
            peer: peer.ip,
            client: peer.client.filter(|_| peer.client != peer.ip),
            client_cert: peer.certificate.map(|certificate| certificate.label()),
            route: route
                .map(|r| &r.name)
                .or(own.and_then(|o| o.route.as_ref()))
                .cloned(),
            issuer: admission
                .and_then(|a| a.caller.issuer())
                .or(refused.and_then(|r| r.issuer.as_ref()))
                .or(own.and_then(|o| o.issuer.as_ref()))
                .cloned(),
            verification: admission
                .and_then(|a| a.verification)
                .or(refused.and_then(|r| r.verification))
                .or(own.and_then(|o| o.verification)),
            rule: admission
                .and_then(|a| a.ruling())
                .and_then(|r| r.rule.as_ref())
                .or(refused.and_then(|r| r.rule.as_ref()))
                .or(own.and_then(|o| o.rule.as_ref()))
                .cloned(),
            source: route
                .and_then(|r| r.source.as_ref())
                .map(|s| s.name())
                .or(own.and_then(|o| o.source.as_ref()))
                .cloned(),
            lookup: admission
                .and_then(|a| a.lookup)
                .or(refused.and_then(|r| r.lookup)),
            code,
            ending,
            rejection: rejection.as_ref().map(|r| r.reason),
            cause: rejection
                .and_then(|r| r.cause)
                .or(failure.map(|(_, cause)| cause)),
            unauthorized: std::mem::take(&mut self.unauthorized),
            total: now.saturating_sub(self.times.began),
            admission: admitted.saturating_sub(self.times.began),
            upstream: self.times.upstream.map(|began| now.saturating_sub(began)),
            received,
            sent,
            trace: self.trace.as_ref().map(|trace| Traced {
                id: trace.id(),
                recorded: trace.is_recorded(),
            }),
            audit,
        }
    }

    fn ending(&self, caller_failed: Option<bool>) -> Ending {
        let reason = self.rejection.as_ref().map(|r| r.reason);
        match (caller_failed, reason) {
            (Some(true), _) => Ending::CallerGone,
            (
                _,
                Some(
                    Reason::UpstreamUnreachable | Reason::UpstreamTimeout | Reason::UpstreamFailed,
                ),
            )
            | (Some(false), None) => Ending::UpstreamFailed,
            (_, Some(_)) => Ending::Rejected,
            (None, None) if self.own_endpoint.is_some() => Ending::Served,
            (None, None) => {
                let replayed = |u: &Unauthorized| u.action == UnauthorizedAction::Replayed;
                if self.unauthorized.last().is_some_and(replayed) {
                    Ending::Healed
                } else {
                    Ending::Forwarded
                }
            }
        }
    }
}
