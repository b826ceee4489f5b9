//! The state of one request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::client::PeerInfo;
use super::replay::Replay;
use crate::gateway::outcome::{Unauthorized, UnauthorizedAction, UnauthorizedReason};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Admission, AdmissionError, Gateway, RequestDetails};
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
    pub(super) refused: Option<Box<AdmissionError>>,
    /// Set when hawkgate answers a request to one of its own endpoints.
    pub(super) own_endpoint: Option<Box<RequestDetails>>,
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
    pub(super) started: Duration,
    pub(super) admitted: Option<Duration>,
    pub(super) upstream: Option<Duration>,
    /// Set if it is known before the request is recorded.
    pub(super) ended: Option<Duration>,
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
    pub(super) fn new(gateway: Arc<Gateway>, started: Duration, in_flight: InFlightGuard) -> Self {
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
                started,
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

    /// Keeps what is known of a rejected request, and returns its rejection.
    pub(super) fn reject(&mut self, mut refused: Box<AdmissionError>) -> Rejection {
        let rejection = std::mem::replace(&mut refused.rejection, Reason::Internal.into());
        self.refused = Some(refused);
        rejection
    }
}
