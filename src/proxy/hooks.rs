//! Implements pingora's [`ProxyHttp`] hooks: admits a request, chooses a peer, prepares and
//! signs each attempt, recovers from a 401, and records the outcome.

mod admit;
mod forward;
mod informational;
mod serve;
#[cfg(test)]
mod tests;
mod unauthorized;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::context::Context;
use super::failure;
use super::headers::{self, HeaderFieldsMut};
use super::in_flight::InFlight;
use super::local_response;
use super::peer::{Peers, UPGRADED_IDLE};
use super::record::{Exchange, Recorder, RequestError};
use super::replay::{Budget, Replay};
use crate::clock::SharedClock;
use crate::gateway::rejection::{RECOVERY_CODE, Rejection};
use crate::gateway::route::UpgradeExpiry;
use crate::gateway::{Gateway, LocalResponse};
use crate::proxy::settings::Limits;
use crate::trace;
use admit::Admitted;
pub(super) use admit::host;
pub(super) use forward::{after_failed_attempt, credential_header, prepare_request};
pub(super) use serve::is_own;
pub(super) use unauthorized::date;

/// Maximum number of attempts per request. It exceeds the sum of the separate limits on failed
/// connections, stale pooled connections and replays ([`forward`], [`crate::gateway`]), so that
/// this limit of pingora's is never the one that ends a request.
pub(super) const ATTEMPTS: usize = 16;

/// Returns pingora's configuration for [`super::server::http_proxy`] with these hooks. `threads`
/// sizes its connection pools.
pub fn server_conf(threads: usize) -> Arc<ServerConf> {
    Arc::new(ServerConf {
        threads: threads.max(1),
        max_retries: ATTEMPTS,
        ..ServerConf::default()
    })
}

/// The hooks that pingora calls in each phase of a request. Clones share all state.
#[derive(Clone)]
pub struct Hooks {
    pub(super) gateway: Arc<ArcSwap<Gateway>>,
    limits: Arc<ArcSwap<Limits>>,
    budget: Arc<Budget>,
    pub(super) clock: SharedClock,
    pub(super) recorder: Recorder,
    peers: Arc<Peers>,
    pub(super) in_flight: InFlight,
    serial: Arc<AtomicU64>,
    /// The prefix of every request id.
    serial_start: Arc<str>,
}

impl Hooks {
    /// Each request uses the `gateway` and `limits` that are current when it begins.
    pub fn new(
        gateway: Arc<ArcSwap<Gateway>>,
        limits: Arc<ArcSwap<Limits>>,
        budget: Arc<Budget>,
        clock: SharedClock,
        recorder: Recorder,
    ) -> Self {
        // Makes the request ids of successive runs differ in the logs. Nothing else depends on
        // it.
        let serial_start = format!("{:x}-", clock.now().0.max(0)).into();
        let in_flight = InFlight::new(&limits.load());
        Self {
            gateway,
            limits,
            budget,
            clock,
            recorder,
            peers: Arc::default(),
            in_flight,
            serial: Arc::default(),
            serial_start,
        }
    }

    /// Returns the counters of requests in flight.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }

    /// Rejects a request before anything has been sent upstream. The caller's connection is kept
    /// alive if possible.
    async fn reject(
        &self,
        session: &mut Session,
        context: &mut Context,
        rejection: Rejection,
    ) -> Result<bool> {
        let now = self.clock.now();
        let close = context.admission.is_none() && context.request_refused(rejection.reason);
        let id = &context.request_id;
        local_response::send_rejection(session, &rejection, now, id, !close).await?;
        context.rejection = Some(rejection);
        Ok(true)
    }

    /// Sets the end of an upgraded connection, if its route has one.
    fn limit_upgrade(&self, context: &Context) {
        let (Some(admission), Some(replay)) = (&context.admission, &context.replay) else {
            return;
        };
        let end = match admission.route.upgrade_expiry {
            UpgradeExpiry::Token => admission.valid_until(),
            UpgradeExpiry::None => None,
        };
        if let Some(end) = end {
            replay.end_upgrade_after(self.clock.now().until(end));
        }
    }

    /// Sends the response of one of hawkgate's own endpoints.
    async fn answer(
        &self,
        session: &mut Session,
        context: &mut Context,
        served: LocalResponse,
    ) -> Result<bool> {
        let verified = context.admission.is_some() || served.details.issuer.is_some();
        context.own_endpoint = Some(Box::new(served.details));
        context.rejection = served.rejection;
        let refused = context.rejection.as_ref().map(|rejection| rejection.reason);
        if refused.is_none() && verified {
            context.request_admitted();
        }
        let close = refused.is_some_and(|reason| context.request_refused(reason));
        let (status, headers, body) = (served.status, served.headers, served.body);
        let id = &context.request_id;
        local_response::send(session, status, headers, body, id, close).await?;
        Ok(true)
    }
}

#[async_trait]
impl ProxyHttp for Hooks {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.gateway.load_full(), self.clock.monotonic())
    }

    /// Adds no modules. pingora's default adds response compression, disabled.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let span = context.begin_trace(&session.req_header().headers);
        let admitted = match span {
            None => self.admit(session, context).await,
            Some(active) => Box::pin(trace::in_span(active, self.admit(session, context))).await,
        };
        context.times.admitted = Some(self.clock.monotonic());
        match admitted {
            Ok(Admitted::Forward) => Ok(false),
            Ok(Admitted::Answer(served)) => self.answer(session, context, *served).await,
            Err(rejection) => self.reject(session, context, rejection).await,
        }
    }

    /// Drops an empty piece at the end of a body, such as an empty DATA frame from an HTTP/2
    /// caller. pingora would write it as a chunk of length 0 followed by another last chunk,
    /// which the upstream would read as the beginning of the next request.
    async fn request_body_filter(
        &self,
        _session: &mut Session,
        piece: &mut Option<Bytes>,
        end_of_stream: bool,
        _context: &mut Context,
    ) -> Result<()> {
        if end_of_stream && piece.as_ref().is_some_and(Bytes::is_empty) {
            *piece = None;
        }
        Ok(())
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let now = self.clock.monotonic();
        context.times.upstream.get_or_insert(now);
        context.attempts.replaying = false;
        if let Some(replay) = &context.replay {
            replay.rewind();
        }
        let span = context.trace.as_ref().map(|trace| trace.request_span());
        let recovering = self.recover_after_look(session, context);
        match span {
            None => recovering.await?,
            Some(active) => Box::pin(trace::in_span(active, recovering)).await?,
        }
        let peer = self.choose_peer(session, context).await?;
        context.begin_attempt(&peer, now);
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        Self::headers(head, context)?;
        Self::expect(session, head, context).await
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(trace) = &mut context.trace {
            trace.record_status(head.status.as_u16());
        }
        if head.status == StatusCode::UNAUTHORIZED {
            let span = context.trace.as_ref().map(|trace| trace.request_span());
            let handling = self.handle_401(session, head, context);
            match span {
                None => handling.await?,
                Some(active) => Box::pin(trace::in_span(active, handling)).await?,
            }
        } else if switching {
            session.set_read_timeout(Some(UPGRADED_IDLE));
            self.limit_upgrade(context);
        }
        let undecided = context.look.as_ref().is_some_and(|look| look.is_held);
        let last = (switching || !head.status.is_informational()) && !undecided;
        if last && head.status != StatusCode::UNAUTHORIZED {
            context.accepted();
        }
        if let Some(replay) = context.replay.as_ref().filter(|_| last) {
            replay.finish_recording();
        }
        // pingora checks for a shutdown only when a request begins, and the shutdown may have
        // begun since.
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
            context.replay.iter().for_each(Replay::close_after);
        }
        let echoed = |reason: &str| context.sent.are_echoed_in(reason.as_bytes());
        if head.get_reason_phrase().is_some_and(echoed) {
            head.set_reason_phrase(None)?;
        }
        let status = head.status;
        sanitize_response(head, status, session.req_header().raw_path(), context)
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        piece: &mut Option<Bytes>,
        end: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        Self::look(session, piece.as_ref(), end, context)?;
        Ok(None)
    }

    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        context: &mut Context,
    ) -> Result<()> {
        headers::sanitize_trailers(trailers)?;
        headers::remove_echoes_from_trailers(trailers, &context.sent)?;
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        context: &mut Context,
        error: Box<Error>,
    ) -> Box<Error> {
        context.attempt_failed(&error, self.clock.monotonic());
        let address = match peer._address {
            SocketAddr::Inet(address) => Some(address),
            SocketAddr::Unix(_) => None,
        };
        self.after_failed_connect(address, context, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        context.attempt_failed(&error, self.clock.monotonic());
        let head_sent = local_response::response_started(session);
        let method = &session.req_header().method;
        after_failed_attempt(method, head_sent, context, error, reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        if let Some(replay) = &context.replay {
            replay.restore(session);
        }
        let rejection = failure::rejection(error, context);
        let error_code = rejection.as_ref().map_or(0, |r| r.reason.status().as_u16());
        if let Some(rejection) = rejection.filter(|_| !local_response::response_started(session)) {
            let now = self.clock.now();
            let id = &context.request_id;
            // Fails only if the caller has disconnected.
            let _ = local_response::send_rejection(session, &rejection, now, id, false).await;
            context.rejection = Some(rejection);
        }
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        Self::finish_look(session, context);
        if let Some(replay) = context.replay.take() {
            context.upgrade_expired = replay.upgrade_expired();
            replay.restore(session);
        }
        let failed = error.map(RequestError::from);
        let now = self.clock.monotonic();
        let exchange = Exchange::from_session(session, context);
        let outcome = context.outcome(exchange, now, failed);
        context.finish_trace(&outcome, now);
        (self.recorder)(&outcome);
    }

    /// The access log contains the same information, without the input that pingora would quote.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Context,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    /// pingora's default includes path and query, and a query can contain a bewit.
    fn request_summary(&self, session: &Session, context: &Context) -> String {
        format!("{} {}", session.req_header().method, context.request_id)
    }
}

/// Prepares the fields of an upstream's response for the caller. `target` is the target of the
/// request.
pub(super) fn sanitize_response(
    head: &mut impl HeaderFieldsMut,
    status: StatusCode,
    target: &[u8],
    context: &mut Context,
) -> Result<()> {
    headers::sanitize_response(head, status)?;
    let interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
    if !interim {
        informational::add(target, head, context)?;
    }
    headers::remove_echoes(head, status, &context.sent)?;
    if !interim && let Some(code) = context.take_recovery_code() {
        let mut code = headers::value(code.expose())?;
        code.set_sensitive(true);
        head.insert(HeaderName::from_static(RECOVERY_CODE), code)?;
        head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    }
    Ok(())
}

/// Whether hawkgate can send the caller a 100 Continue.
fn takes_continue(session: &ServerSession) -> bool {
    session.req_header().version == Version::HTTP_11
}

/// Returns an error that ends the request with `rejection`.
fn decided(context: &mut Context, rejection: Rejection) -> Box<Error> {
    context.rejection = Some(rejection);
    let mut error = Error::new_in(ErrorType::InternalError);
    error.set_retry(false);
    error
}
