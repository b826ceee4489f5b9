//! What happened to one request, as closed enums: the vocabulary of metrics and logs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::reason::Reason;
use crate::credential::Lookup;
use crate::label::labels;
use crate::trace::TraceId;

labels! {
    /// What was done about an upstream 401.
    UnauthorizedAction {
        /// Signed anew and sent again.
        Replayed = "replayed",
        /// Given to the caller.
        PassedThrough = "passed_through",
        /// Answered by hawkgate: the credentials were rejected and no others are to be had.
        Refused = "refused",
    }
}

labels! {
    /// Why that was done.
    UnauthorizedReason {
        /// Other credentials are there now: worth one more try.
        FreshCredentials = "fresh_credentials",
        /// The clocks differ: signed again with the offset.
        ClockSkew = "clock_skew",
        /// It had been replayed already.
        StillUnauthorized = "still_unauthorized",
        /// The body is past `limits.replay_body`.
        BodyTooLarge = "body_too_large",
        /// `limits.replay_memory` was used up by other requests.
        ReplayMemory = "replay_memory",
        /// The exchange gave no other credentials.
        ExchangeFailed = "exchange_failed",
        /// hawkgate had not signed it (a bewit, or a route without a source).
        NotSigned = "not_signed",
        /// The request cannot be sent again (its connection was upgraded, the caller is gone).
        NotReplayable = "not_replayable",
    }
}

labels! {
    /// The end of a request, as the `outcome` label.
    Ending {
        /// The upstream's answer went to the caller.
        Forwarded = "forwarded",
        /// The same, and the upstream accepted a replay.
        Healed = "healed",
        /// hawkgate answered by itself, with what was asked for (`[login]`, `/bewit`).
        Served = "served",
        /// hawkgate refused.
        Rejected = "rejected",
        /// The upstream failed (unreachable, timed out, broke off).
        UpstreamFailed = "upstream_failed",
        /// The caller went away.
        CallerGone = "caller_gone",
    }
}

labels! {
    /// What the audit log tells of.
    AuditEvent {
        /// A request through a route.
        Request = "request",
        /// Credentials asked for at `[login]`.
        Login = "login",
        /// A signed URL asked for at `/bewit`.
        Bewit = "bewit",
    }
}

labels! {
    /// What became of the wish for a credential.
    AuditDecision {
        /// A credential was had.
        Granted = "granted",
        /// hawkgate refused.
        Refused = "refused",
        /// It passed without one, because it bears a signature of its own (a bewit).
        Unsigned = "unsigned",
    }
}

/// What the audit log tells beyond the rest of an [`Outcome`]: who got what. Names, never
/// a secret or anything made from one.
#[derive(Clone, Debug)]
pub struct Audit {
    /// What happened.
    pub event: AuditEvent,
    /// What became of it.
    pub decision: AuditDecision,
    /// `sub` of the verified token.
    pub subject: Option<String>,
    /// `client_id` or `azp` of the verified token.
    pub client: Option<String>,
    /// Upstream's name for whom signed; none where a bearer token went upstream.
    pub credential: Option<String>,
    /// What a rule narrowed the credential to.
    pub scopes: Option<Arc<[String]>>,
}

/// Which trace a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The trace.
    pub id: TraceId,
    /// Whether a collector has its spans.
    pub recorded: bool,
}

/// One upstream 401 and what was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthorized {
    /// Replayed or passed on.
    pub action: UnauthorizedAction,
    /// Why.
    pub reason: UnauthorizedReason,
}

/// Everything that metrics and the access log say about one request. Holds no secret,
/// and of the target only the path.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Ours, or the caller's when it is plain.
    pub request_id: String,
    /// The request method.
    pub method: http::Method,
    /// Path without query.
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub version: http::Version,
    /// The connected peer, or what a PROXY header says; none on Unix sockets.
    pub peer: Option<IpAddr>,
    /// The client behind it, where a trusted proxy named another.
    pub client: Option<IpAddr>,
    /// What the client's verified certificate is called, if it presented one.
    pub client_cert: Option<Arc<str>>,
    /// Which route, if one matched.
    pub route: Option<Arc<str>>,
    /// Which issuer the token came from, once known.
    pub issuer: Option<Arc<str>>,
    /// Result of the verification, if one took place: "ok", "cached" or a reason.
    pub verification: Option<&'static str>,
    /// Which rule decided, if one did.
    pub rule: Option<Arc<str>>,
    /// Which source the credential came from.
    pub source: Option<Arc<str>>,
    /// How the (last) credential was come by.
    pub lookup: Option<Lookup>,
    /// Status sent to the caller; 0 when none was.
    pub code: u16,
    /// How it ended.
    pub ending: Ending,
    /// Why hawkgate answered by itself, if it did.
    pub rejection: Option<Reason>,
    /// For operators: the cause behind a rejection or failure. No secrets.
    pub cause: Option<String>,
    /// Each upstream 401, in order; at most three.
    pub unauthorized: Vec<Unauthorized>,
    /// From the complete head to the end of the answer.
    pub total: Duration,
    /// Verification, rules and credential lookup.
    pub admission: Duration,
    /// Waiting for and reading the upstream, all attempts.
    pub upstream: Option<Duration>,
    /// Bytes of request body received from the caller.
    pub received: u64,
    /// Bytes of response body sent to the caller.
    pub sent: u64,
    /// Its trace, where `[trace]` is on.
    pub trace: Option<Traced>,
    /// For the audit log, where it is on and this request concerns it.
    pub audit: Option<Box<Audit>>,
}

impl Outcome {
    /// The outcome of a request of which only the head and how it ended are known. Durations
    /// and sizes are zero, everything else is absent.
    pub fn new(
        request_id: String,
        method: http::Method,
        path: String,
        version: http::Version,
        ending: Ending,
        code: u16,
    ) -> Self {
        Self {
            request_id,
            method,
            path,
            version,
            peer: None,
            client: None,
            client_cert: None,
            route: None,
            issuer: None,
            verification: None,
            rule: None,
            source: None,
            lookup: None,
            code,
            ending,
            rejection: None,
            cause: None,
            unauthorized: Vec::new(),
            total: Duration::ZERO,
            admission: Duration::ZERO,
            upstream: None,
            received: 0,
            sent: 0,
            trace: None,
            audit: None,
        }
    }
}
