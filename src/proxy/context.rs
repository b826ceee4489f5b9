//! What is known of one request between pingora's calls.

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

/// One request's state. Dropping it releases everything that the request held.
pub struct Context {
    /// Pinned for the request's life: a reload does not change a request under way.
    pub(super) gateway: Arc<Gateway>,
    pub(super) request_id: String,
    /// Who asks; found out at the beginning.
    pub(super) peer: Option<PeerInfo>,
    pub(super) admission: Option<Admission>,
    /// How far a refused request had come.
    pub(super) refused: Option<Box<Refused>>,
    /// Present once hawkgate answers a request for an endpoint of its own.
    pub(super) own: Option<Box<Facts>>,
    /// With which refusal hawkgate answers, or answered, by itself.
    pub(super) rejection: Option<Rejection>,
    /// Present when the request has a body.
    pub(super) replay: Option<Replay>,
    /// Present where `[trace]` is on.
    pub(super) trace: Option<Box<RequestTrace>>,
    pub(super) attempts: Attempts,
    pub(super) unauthorized: Vec<Unauthorized>,
    pub(super) times: Times,
    _in_flight: InFlight,
}

/// What was tried to reach the upstream.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Where in the list of addresses this request started.
    pub(super) turn: Option<usize>,
    /// Those that could not be connected to.
    pub(super) unreachable: Vec<SocketAddr>,
    /// Pooled connections that turned out to be dead.
    pub(super) stale: usize,
    /// Set when a 401 is to be replayed, until that has begun.
    pub(super) replaying: bool,
}

/// Monotonic times.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) started: Duration,
    pub(super) admitted: Option<Duration>,
    pub(super) upstream: Option<Duration>,
    /// If that is known before the request is recorded.
    pub(super) ended: Option<Duration>,
}

/// What went to and fro between the caller and here.
pub(super) struct Exchanged {
    pub(super) method: Method,
    /// Without its query.
    pub(super) path: String,
    pub(super) version: Version,
    pub(super) peer: PeerInfo,
    /// The last status sent, 0 for none.
    pub(super) code: u16,
    /// Bytes of body.
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Exchanged {
    /// By what pingora knows of it.
    pub(super) fn on(session: &Session, context: &mut Context) -> Self {
        let head = session.req_header();
        let sent = session.response_written();
        Self {
            method: head.method.clone(),
            path: path_of(&String::from_utf8_lossy(head.raw_path())),
            version: head.version,
            peer: context.peer.take().unwrap_or_else(|| PeerInfo::of(session)),
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

/// Requests that have begun and not ended.
#[derive(Debug)]
pub(super) struct InFlight(Arc<AtomicU64>);

impl InFlight {
    pub(super) fn one_of(gauge: &Arc<AtomicU64>) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gauge))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Context {
    pub(super) fn new(gateway: Arc<Gateway>, started: Duration, in_flight: InFlight) -> Self {
        Self {
            gateway,
            request_id: String::new(),
            peer: None,
            admission: None,
            refused: None,
            own: None,
            rejection: None,
            replay: None,
            trace: None,
            attempts: Attempts::default(),
            unauthorized: Vec::new(),
            times: Times {
                started,
                admitted: None,
                upstream: None,
                ended: None,
            },
            _in_flight: in_flight,
        }
    }

    /// What the caller must be given with whatever answer it gets; once.
    pub(super) fn take_recovery_code(&mut self) -> Option<SecretString> {
        self.admission.as_mut()?.take_recovery_code()
    }

    pub(super) fn saw_401(&mut self, action: UnauthorizedAction, reason: UnauthorizedReason) {
        self.unauthorized.push(Unauthorized { action, reason });
    }

    /// The summary for metrics and log; call once, at the end. `broke` says why the
    /// request ended early, if it did: `Some(true)` because of the caller.
    pub(super) fn outcome(
        &mut self,
        exchanged: Exchanged,
        now: Duration,
        broke: Option<(bool, String)>,
    ) -> Outcome {
        let Exchanged {
            method,
            path,
            version,
            peer,
            code,
            received,
            sent,
        } = exchanged;
        let audit = self.audit(&path);
        let ending = self.ending(broke.as_ref().map(|(caller, _)| *caller));
        let rejection = self.rejection.take();
        let admission = self.admission.as_ref();
        let refused = self.refused.as_ref();
        let own = self.own.as_ref();
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
                .or(broke.map(|(_, cause)| cause)),
            unauthorized: std::mem::take(&mut self.unauthorized),
            total: now.saturating_sub(self.times.started),
            admission: admitted.saturating_sub(self.times.started),
            upstream: self
                .times
                .upstream
                .map(|started| now.saturating_sub(started)),
            received,
            sent,
            trace: self.trace.as_ref().map(|trace| Traced {
                id: trace.id(),
                recorded: trace.is_recorded(),
            }),
            audit,
        }
    }

    fn ending(&self, broke_by_caller: Option<bool>) -> Ending {
        let reason = self.rejection.as_ref().map(|r| r.reason);
        match (broke_by_caller, reason) {
            (Some(true), _) => Ending::CallerGone,
            (
                _,
                Some(
                    Reason::UpstreamUnreachable | Reason::UpstreamTimeout | Reason::UpstreamFailed,
                ),
            )
            | (Some(false), None) => Ending::UpstreamFailed,
            (_, Some(_)) => Ending::Rejected,
            (None, None) if self.own.is_some() => Ending::Served,
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
