//! The state of one request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::headers::SentCredentials;
use crate::gateway::cors::CorsGrant;
use crate::gateway::header_edits::HeaderEdits;
use crate::gateway::outcome::{Unauthorized, UnauthorizedAction, UnauthorizedReason};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::upstream_retry::RetryCounts;
use crate::gateway::{Admission, AdmissionError, Gateway, RequestDetails};
use crate::secret::SecretString;
use crate::session::SetCookie;
use crate::trace::RequestTrace;

/// The state of one request. Dropping it releases all resources of the request.
pub(super) struct Context {
    /// Fixed for the lifetime of the request: a reload does not affect requests in progress.
    pub(super) gateway: Arc<Gateway>,
    pub(super) request_id: String,
    pub(super) admission: Option<Admission>,
    /// Why admission failed, and how far the request got.
    pub(super) admission_error: Option<Box<AdmissionError>>,
    /// What the page that sent the request may do, if its route has `cors` and hawkgate decides.
    pub(super) cors: Option<CorsGrant>,
    /// Whether the request is a preflight that was answered or forwarded without a token.
    pub(super) preflight: bool,
    /// Set if hawkgate itself answers: at one of its own endpoints, or a preflight.
    pub(super) own_endpoint: Option<Box<RequestDetails>>,
    /// The rejection that hawkgate sends, or has sent, as the response.
    pub(super) rejection: Option<Rejection>,
    /// The session cookies that the response sets, whatever it is.
    pub(super) cookies: Vec<SetCookie>,
    /// Whether the connection was upgraded, and closed because the caller's token had expired.
    pub(super) upgrade_expired: bool,
    /// Set if `[trace]` is enabled.
    pub(super) trace: Option<Box<RequestTrace>>,
    pub(super) attempts: Attempts,
    /// The credentials that the request was sent with.
    pub(super) sent: SentCredentials,
    pub(super) unauthorized: Vec<Unauthorized>,
    pub(super) retries: RetryCounts,
    pub(super) times: Times,
}

/// The state of the attempts to reach the upstream.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// The index of the first address that this request tried.
    pub(super) start_index: Option<usize>,
    /// The addresses that could not be connected to, or are not to be tried any more.
    pub(super) unreachable: Vec<SocketAddr>,
    /// The number of failures to connect since the upstream's name was last looked up.
    pub(super) failed_connects: usize,
    /// The latest of these failures, if another attempt followed.
    pub(super) connect_failure: Option<Rejection>,
    /// Whether the upstream's name has been looked up for this request.
    pub(super) looked_up: bool,
    /// The number of pooled connections that turned out to be dead.
    pub(super) stale: usize,
    /// Set once the upstream has asked for HTTP/1.1.
    pub(super) http1: bool,
}

/// Monotonic times.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) started: Duration,
    pub(super) admitted: Option<Duration>,
    pub(super) upstream: Option<Duration>,
    /// Set if the end is known before the request is recorded.
    pub(super) ended: Option<Duration>,
}

impl Context {
    pub(super) fn new(gateway: Arc<Gateway>, started: Duration) -> Self {
        Self {
            gateway,
            request_id: String::new(),
            admission: None,
            admission_error: None,
            cors: None,
            preflight: false,
            own_endpoint: None,
            rejection: None,
            cookies: Vec::new(),
            upgrade_expired: false,
            trace: None,
            attempts: Attempts::default(),
            sent: SentCredentials::default(),
            unauthorized: Vec::new(),
            retries: RetryCounts::default(),
            times: Times {
                started,
                admitted: None,
                upstream: None,
                ended: None,
            },
        }
    }

    /// What the route changes in the upstream's response.
    pub(super) fn response_edits(&self) -> Option<&HeaderEdits> {
        let admission = self.admission.as_ref()?;
        Some(&admission.route.response_headers)
    }

    /// Takes the recovery code that the caller must receive with its response, whatever the
    /// status.
    pub(super) fn take_recovery_code(&mut self) -> Option<SecretString> {
        self.admission.as_mut()?.take_recovery_code()
    }

    /// Whether the body of a 401 to the request for `target` matters; see
    /// [`Gateway::depends_on_body`].
    pub(super) fn depends_on_body(&self, target: &str) -> bool {
        let admission = self.admission.as_ref();
        admission.is_some_and(|admission| self.gateway.depends_on_body(admission, target))
    }

    /// Records that the upstream answered the last attempt with something else than a 401.
    pub(super) fn accepted(&self) {
        if let Some(admission) = &self.admission {
            self.gateway.accepted(admission);
        }
    }

    pub(super) fn record_401(&mut self, action: UnauthorizedAction, reason: UnauthorizedReason) {
        self.unauthorized.push(Unauthorized { action, reason });
    }

    /// Stores the admission of the request.
    pub(super) fn admit(&mut self, mut admission: Admission) {
        self.cookies = admission.take_cookies();
        self.admission = Some(admission);
    }

    /// Whether the caller is known by the cookie of a session.
    pub(super) fn has_session(&self) -> bool {
        let admission = self.admission.as_ref();
        admission.is_some_and(|admission| admission.by_cookie().is_some())
    }

    /// Stores what is known about a rejected request, and returns its rejection.
    pub(super) fn reject(&mut self, mut error: Box<AdmissionError>) -> Rejection {
        let rejection = std::mem::replace(&mut error.rejection, Reason::Internal.into());
        if let Some(caller) = &mut error.by_cookie {
            self.cookies = caller.take_cookies();
        }
        self.admission_error = Some(error);
        rejection
    }
}
