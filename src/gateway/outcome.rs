//! The outcome of one request, as recorded in metrics and logs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::reason::Reason;
use super::upstream_retry::RetryCounts;
use crate::credential::Lookup;
use crate::label::labels;
use crate::trace::TraceId;

labels! {
    /// The action taken on an upstream 401.
    UnauthorizedAction {
        /// The request was signed again and replayed.
        Replayed = "replayed",
        /// The 401 was forwarded to the caller.
        PassedThrough = "passed_through",
        /// hawkgate refused the request: the credentials were rejected and no others are
        /// available.
        Refused = "refused",
    }
}

labels! {
    /// The reason for the action.
    UnauthorizedReason {
        /// New credentials are available.
        FreshCredentials = "fresh_credentials",
        /// The clocks differ; signed again with the upstream's time.
        ClockSkew = "clock_skew",
        /// Fresh credentials were rejected too, for this request or for an earlier one.
        StillUnauthorized = "still_unauthorized",
        /// The source is of kind `static`, and its secret is still the one that was rejected.
        SameCredentials = "same_credentials",
        /// The route's `passes_401` covers the path.
        UpstreamOwn = "upstream_own",
        /// The client does not hold the scopes that the request was narrowed to.
        AuthorizedScopes = "authorized_scopes",
        /// The body exceeds `limits.replay_body`.
        BodyTooLarge = "body_too_large",
        /// Other requests had exhausted `limits.replay_memory`, or the half of it that one client
        /// address may use.
        ReplayMemory = "replay_memory",
        /// Fetching other credentials failed.
        ExchangeFailed = "exchange_failed",
        /// hawkgate had not signed the request (it has a bewit, or the route has no source).
        NotSigned = "not_signed",
        /// The request cannot be sent again (the connection was upgraded, or the caller
        /// disconnected).
        NotReplayable = "not_replayable",
    }
}

labels! {
    /// How a request ended: the `outcome` label.
    Ending {
        /// The upstream's response was forwarded to the caller.
        Forwarded = "forwarded",
        /// As `forwarded`, after the upstream accepted a replay.
        Healed = "healed",
        /// One of hawkgate's own endpoints (`[login]`, `/bewit`) handled the request.
        Served = "served",
        /// hawkgate answered a preflight (`[login]`, or `cors` of a route).
        Preflight = "preflight",
        /// hawkgate refused the request.
        Rejected = "rejected",
        /// The upstream failed (unreachable, timed out, closed early).
        UpstreamFailed = "upstream_failed",
        /// The caller closed the connection.
        CallerGone = "caller_gone",
        /// An upgraded connection was closed because the caller's token had expired.
        UpgradeExpired = "upgrade_expired",
    }
}

labels! {
    /// The kind of an audit event.
    AuditEvent {
        /// A request through a route.
        Request = "request",
        /// A request for credentials at `[login]`.
        Login = "login",
        /// A request for a signed URL at `/bewit`.
        Bewit = "bewit",
        /// A request that another proxy asked about.
        ForwardAuth = "forward_auth",
        /// A sign-in with a browser.
        SignIn = "sign_in",
        /// The renewal of a session.
        SessionRefresh = "session_refresh",
        /// The end of a session at its user's request.
        SignOut = "sign_out",
        /// The end of sessions at the provider's request.
        BackChannelLogout = "back_channel_logout",
    }
}

labels! {
    /// How a sign-in with a browser ended: the `result` label of `hawkgate_sign_ins_total`.
    SignInResult {
        /// The user is signed in.
        Ok = "ok",
        /// The provider or the user refused.
        Denied = "denied",
        /// It took longer than ten minutes.
        Expired = "expired",
        /// The callback belongs to no sign-in of this browser.
        UnknownAttempt = "unknown_attempt",
        /// The callback names another issuer, or is malformed.
        InvalidCallback = "invalid_callback",
        /// The provider refused the code, or its answer cannot be used.
        ProviderError = "provider_error",
        /// The provider does not answer.
        Unavailable = "unavailable",
        /// The ID token or the access token is not valid here.
        TokenInvalid = "token_invalid",
        /// The session does not fit into a cookie.
        TooLarge = "too_large",
        /// A fault of hawkgate or this machine.
        Internal = "internal",
    }
}

labels! {
    /// How a forward-auth request ended: the `result` label of `hawkgate_forward_auth_total`.
    ForwardAuthResult {
        /// The answer contains a credential.
        Allowed = "allowed",
        /// The caller has to present another token.
        Unauthenticated = "unauthenticated",
        /// Refused for another reason.
        Refused = "refused",
        /// The issuer or the source does not answer, or another failure that is not the caller's.
        Unavailable = "unavailable",
        /// The proxy reported a 401 of the upstream, and the credential is replaced.
        Reported = "reported",
    }
}

/// What metrics and logs record about a forward-auth request.
#[derive(Clone, Debug)]
pub struct ForwardAuthRecord {
    /// The configured name of the `[[forward_auth]]`.
    pub name: Arc<str>,
    /// How the request ended.
    pub result: ForwardAuthResult,
    /// Method and path of the request that the proxy asked about, once known.
    pub original: Option<(http::Method, String)>,
}

labels! {
    /// How the renewal of a session ended: the `result` label of `hawkgate_session_refreshes_total`.
    RefreshResult {
        /// The tokens were renewed.
        Refreshed = "refreshed",
        /// The provider refused: the user has to sign in again.
        Refused = "refused",
        /// The provider does not answer.
        Unavailable = "unavailable",
    }
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// A sign-in ended.
    SignIn(SignInResult),
    /// Its tokens were renewed, or could not be.
    Refresh(RefreshResult),
    /// The user signed out.
    SignOut,
    /// The provider sent a logout token, which was valid or not.
    BackChannelLogout {
        /// Whether it was valid.
        accepted: bool,
    },
}

/// What metrics and logs record about the session of a request.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// The configured name of the `[[session]]`.
    pub name: Arc<str>,
    /// What happened to it.
    pub event: Option<SessionEvent>,
    /// A digest of the session's id, which tells sessions apart. Only of sessions that something
    /// happened to.
    pub id: Option<String>,
    /// Whose it is, if something happened to it.
    pub subject: Option<String>,
    /// Whether the cookie identified the caller of a request to a route.
    pub via_cookie: bool,
}

labels! {
    /// Whether a credential was granted.
    AuditDecision {
        /// A credential was granted.
        Granted = "granted",
        /// hawkgate refused the request.
        Refused = "refused",
        /// The request was forwarded without a credential because it has a bewit.
        Unsigned = "unsigned",
        /// Sessions ended.
        Ended = "ended",
    }
}

/// Data that only the audit log records about a request. Contains names, never secrets or anything
/// derived from one.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The kind of event.
    pub event: AuditEvent,
    /// The decision.
    pub decision: AuditDecision,
    /// `sub` of the verified token.
    pub subject: Option<String>,
    /// `client_id` or `azp` of the verified token.
    pub client: Option<String>,
    /// The `clientId` that the request was signed with; `None` if a bearer token was sent upstream.
    pub credential: Option<String>,
    /// The scopes that a rule limited the credential to.
    pub scopes: Option<Arc<[String]>>,
}

/// The trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The trace id.
    pub id: TraceId,
    /// Whether its spans are exported to a collector.
    pub recorded: bool,
}

/// An upstream 401 and how it was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthorized {
    /// The action taken.
    pub action: UnauthorizedAction,
    /// Its reason.
    pub reason: UnauthorizedReason,
}

/// Everything that metrics and logs record about one request. Contains no secrets, and only the
/// path of the target.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request id: the caller's if it is well-formed, otherwise a generated one.
    pub request_id: String,
    /// The request method.
    pub method: http::Method,
    /// The path, without the query.
    pub path: String,
    /// The HTTP version of the caller's connection.
    pub version: http::Version,
    /// The connected peer, or the source address in a PROXY protocol header; `None` on Unix
    /// sockets.
    pub peer: Option<IpAddr>,
    /// The client's address, if a trusted proxy forwarded the request for another client.
    pub client: Option<IpAddr>,
    /// The label of the client's verified certificate, if it presented one.
    pub client_cert: Option<Arc<str>>,
    /// The route, if one matched.
    pub route: Option<Arc<str>>,
    /// The issuer of the token, once known.
    pub issuer: Option<Arc<str>>,
    /// The result of token verification, if one took place: `ok`, `cached` or a reason.
    pub verification: Option<&'static str>,
    /// The rule that decided, if any.
    pub rule: Option<Arc<str>>,
    /// The session, if the request involves one.
    pub session: Option<Box<SessionRecord>>,
    /// Set for forward-auth requests; `method` and `path` are then those of the request that the proxy
    /// asked about, if they are known.
    pub forward_auth: Option<Box<ForwardAuthRecord>>,
    /// The source of the credential.
    pub source: Option<Arc<str>>,
    /// The result of the last credential lookup.
    pub lookup: Option<Lookup>,
    /// The status sent to the caller; 0 if none was sent.
    pub code: u16,
    /// How the request ended.
    pub ending: Ending,
    /// Why hawkgate refused the request, if it did.
    pub rejection: Option<Reason>,
    /// The cause of a rejection or failure, for operators. Contains no secrets.
    pub cause: Option<String>,
    /// The upstream's 401 responses in order; at most three.
    pub unauthorized: Vec<Unauthorized>,
    /// How often the request was sent again because the upstream failed.
    pub retries: RetryCounts,
    /// Time from the complete head to the end of the response.
    pub total: Duration,
    /// Time for verification, rules and credential lookup.
    pub admission: Duration,
    /// Time waiting for and reading from the upstream, over all attempts.
    pub upstream: Option<Duration>,
    /// Bytes of request body received from the caller.
    pub received: u64,
    /// Bytes of response body sent to the caller.
    pub sent: u64,
    /// The trace, if `[trace]` is configured.
    pub trace: Option<Traced>,
    /// Data for the audit log, if it is enabled and records this request.
    pub audit: Option<Box<Audit>>,
}

impl Outcome {
    /// The outcome of a request about which only the head and the ending are known. Durations and
    /// sizes are zero; everything else is absent.
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
            session: None,
            forward_auth: None,
            source: None,
            lookup: None,
            code,
            ending,
            rejection: None,
            cause: None,
            unauthorized: Vec::new(),
            retries: RetryCounts::default(),
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
