//! Records a request for metrics and logs. [`Outcome`]s are built only here.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Version};

use super::client::{ConnMetadata, PeerInfo};
use super::context::Context;
use super::error::RelayError;
use super::validate::RejectedHead;
use crate::gateway::Admission;
use crate::gateway::outcome::{
    Ending, Outcome, SessionRecord, Traced, Unauthorized, UnauthorizedAction,
};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::ErrorResponse;

/// A callback that receives the outcome of each request.
pub type Recorder = Arc<dyn Fn(&Outcome) + Send + Sync>;

/// The error with which a request ended early.
#[derive(Debug)]
pub(super) struct RequestError {
    /// Whether the caller caused it by disconnecting.
    pub(super) by_caller: bool,
    /// The cause, for operators. It contains no secret.
    pub(super) cause: String,
}

impl From<&RelayError> for RequestError {
    fn from(error: &RelayError) -> Self {
        Self {
            by_caller: error.to_rejection().is_none(),
            cause: error.describe(),
        }
    }
}

/// The request and response as exchanged with the caller.
pub(super) struct Exchange {
    pub(super) method: Method,
    /// The path, without the query.
    pub(super) path: String,
    pub(super) version: Version,
    pub(super) peer: PeerInfo,
    /// The last status code sent; 0 if none was.
    pub(super) code: u16,
    /// The number of body bytes received.
    pub(super) received: u64,
    /// The number of body bytes sent.
    pub(super) sent: u64,
}

/// Returns a target without its query. Taskcluster also finds a bewit in the path, after `&`, so
/// the path ends there as well.
pub(super) fn path_of(target: &str) -> String {
    let end = memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len());
    let mut path = target.get(..end).unwrap_or_default();
    // Few paths contain `&` at all.
    if memchr::memchr(b'&', path.as_bytes()).is_some() {
        path = path.split("&bewit=").next().unwrap_or_default();
    }
    path.to_owned()
}

impl Context {
    /// Builds the outcome of the request. Must be called once, at the end. `failed` is the error
    /// if the request ended early.
    pub(super) fn outcome(
        &mut self,
        exchange: Exchange,
        now: Duration,
        failed: Option<RequestError>,
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
        let ending = self.ending(failed.as_ref().map(|failed| failed.by_caller));
        let rejection = self.rejection.take();
        let admission = self.admission.as_ref();
        let refused = self.admission_error.as_ref();
        let endpoint = self.own_endpoint.as_ref();
        let route = admission
            .map(|a| &a.route)
            .or(refused.and_then(|r| r.route.as_ref()));
        let admitted = self.times.admitted.unwrap_or(now);
        let session = self.session_record();
        let forward_auth = endpoint.and_then(|endpoint| endpoint.forward_auth.clone());
        let (method, path) = match forward_auth.as_deref().and_then(|f| f.original.clone()) {
            Some(original) => original,
            None => (method, path),
        };
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
                .or(endpoint.and_then(|o| o.route.as_ref()))
                .cloned(),
            issuer: admission
                .and_then(|a| a.caller.issuer())
                .or(refused.and_then(|r| r.issuer.as_ref()))
                .or(endpoint.and_then(|o| o.issuer.as_ref()))
                .cloned(),
            verification: admission
                .and_then(|a| a.verification)
                .or(refused.and_then(|r| r.verification))
                .or(endpoint.and_then(|o| o.verification)),
            rule: admission
                .and_then(|a| a.decision())
                .and_then(|r| r.rule.as_ref())
                .or(refused.and_then(|r| r.rule.as_ref()))
                .or(endpoint.and_then(|o| o.rule.as_ref()))
                .cloned(),
            session,
            forward_auth,
            source: route
                .and_then(|r| r.source.as_ref())
                .map(|s| s.name())
                .or(endpoint.and_then(|o| o.source.as_ref()))
                .cloned(),
            lookup: admission
                .and_then(|a| a.lookup)
                .or(refused.and_then(|r| r.lookup)),
            code,
            ending,
            rejection: rejection.as_ref().map(|r| r.reason),
            cause: rejection
                .and_then(|r| r.cause)
                .or(failed.map(|failed| failed.cause))
                .or(endpoint.and_then(|o| o.cause).map(str::to_owned)),
            unauthorized: std::mem::take(&mut self.unauthorized),
            retries: self.retries,
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

    /// What is recorded about the session: at its endpoints, and of callers with its cookie.
    fn session_record(&self) -> Option<Box<SessionRecord>> {
        if let Some(endpoint) = &self.own_endpoint
            && let Some(record) = &endpoint.session
        {
            return Some(record.clone());
        }
        let (admission, refused) = (self.admission.as_ref(), self.admission_error.as_ref());
        let caller = admission
            .and_then(Admission::by_cookie)
            .or(refused.and_then(|refused| refused.by_cookie.as_deref()))?;
        let route = admission
            .map(|admission| &admission.route)
            .or(refused.and_then(|refused| refused.route.as_ref()))?;
        let (subject, id) = caller.changed().unzip();
        Some(Box::new(SessionRecord {
            name: route.session.as_ref()?.name().clone(),
            event: caller.event(),
            id,
            subject: subject.map(str::to_owned),
            via_cookie: true,
        }))
    }

    fn ending(&self, caller_failed: Option<bool>) -> Ending {
        if self.upgrade_expired {
            return Ending::UpgradeExpired;
        }
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
            (None, None) if self.own_endpoint.is_some() => {
                if self.preflight {
                    Ending::Preflight
                } else {
                    Ending::Served
                }
            }
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

/// Whether a response to a rejected head or connection was sent.
#[derive(Clone, Copy)]
pub(super) enum Delivery<'a> {
    Sent(&'a ErrorResponse),
    /// The response could not be written.
    Failed,
    /// There was no response to send.
    None,
}

/// Builds the outcome of a rejected head or connection, which never became a request.
pub(super) fn rejected_outcome(
    rejected: &RejectedHead,
    delivery: Delivery<'_>,
    peer: Option<IpAddr>,
    metadata: Option<&ConnMetadata>,
) -> Outcome {
    let certificate = metadata.and_then(|metadata| metadata.certificate.as_ref());
    let (code, ending, sent) = match delivery {
        Delivery::Sent(response) => {
            let sent = response.body.len() as u64;
            (response.status.as_u16(), Ending::Rejected, sent)
        }
        Delivery::Failed => (0, Ending::CallerGone, 0),
        Delivery::None => (0, Ending::Rejected, 0),
    };
    let RejectedHead {
        rejection,
        method,
        path,
        version,
    } = rejected;
    Outcome {
        peer,
        client_cert: certificate.map(|certificate| certificate.label()),
        rejection: Some(rejection.reason),
        cause: rejection.cause.clone(),
        sent,
        ..Outcome::new(
            random_id(),
            method.clone(),
            path.clone(),
            *version,
            ending,
            code,
        )
    }
}

/// Returns an id of 128 random bits, to tell log lines apart.
fn random_id() -> String {
    let mut bytes = [0_u8; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}
