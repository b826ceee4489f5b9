//! Sends the request to its upstream and forwards the answer, in as many attempts as necessary.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, Version, header};

use super::duplex::Duplex;
use super::endpoints::continue_head;
use super::prepare::{credential_header, prepare_request, sanitize_response};
use super::retry::after_failed_attempt;
use super::tunnel::{self, TunnelEnd};
use super::unauthorized::{self, Watched};
use super::upstream_retry::Sender;
use super::{Stop, Transaction, internal};
use crate::clock::Now;
use crate::gateway::Admission;
use crate::gateway::route::{UpgradeExpiry, Upstream as Target};
use crate::proxy::context::Context;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::head::ResponseHead;
use crate::proxy::headers::{self, HeaderFieldsMut, WithheldTrailers};
use crate::proxy::local_response;
use crate::proxy::upstream::{Needs, Upstream};

/// Maximum number of attempts per request, and again after each wait for a retry. It exceeds the sum
/// of the separate limits on failed connections, stale pooled connections and replays
/// ([`super::retry`], [`crate::gateway`]), so that this limit is never the one that ends a request.
const ATTEMPTS: usize = 16;

/// The lowest status after which a route may send a request again (429).
const LEAST_FAILURE: u16 = StatusCode::TOO_MANY_REQUESTS.as_u16();

/// What the request asks of its upstream's protocol.
#[derive(Clone, Copy)]
struct Asks {
    /// To switch protocols.
    upgrade: bool,
    /// Trailers (`TE: trailers`), in HTTP/2.
    trailers: bool,
    prepared: bool,
}

impl Transaction<'_> {
    /// Sends the request upstream, again if necessary, and forwards the answer.
    pub(super) async fn forward(&mut self) -> Result<(), RelayError> {
        let mut asks = Asks {
            upgrade: headers::asks_for_upgrade(&self.head.fields, self.head.version),
            trailers: self.head.version == Version::HTTP_2
                && headers::accepts_trailers(&self.head.fields),
            prepared: false,
        };
        let mut left = ATTEMPTS;
        loop {
            match self.attempt(&mut asks).await {
                Ok(()) => return Ok(()),
                Err(Stop::Again) => left -= 1,
                Err(stop) => {
                    if let Err(stop) = Box::pin(self.try_again(stop, asks.upgrade)).await {
                        return Box::pin(self.stopped(stop)).await;
                    }
                    left = ATTEMPTS;
                }
            }
            if left == 0 {
                return Box::pin(self.fail(internal("too many attempts"))).await;
            }
        }
    }

    /// Waits for the retry that the route makes after `stop`, if it makes one.
    async fn try_again(&mut self, stop: Stop, upgrades: bool) -> Result<(), Stop> {
        let planned = self.plan_retry(stop, upgrades)?;
        self.wait_for_retry(planned).await
    }

    /// Ends a request that is not sent again.
    async fn stopped(&mut self, stop: Stop) -> Result<(), RelayError> {
        match stop {
            Stop::Reject(rejection) => {
                self.reject_after_failure(*rejection).await;
                if self.answer.rejected {
                    return Ok(());
                }
                Err(super::duplex::caller_gone())
            }
            Stop::Fail(error) => self.fail(error).await,
            Stop::Again | Stop::Retry(_) => self.fail(internal("an attempt too many")).await,
        }
    }

    async fn attempt(&mut self, asks: &mut Asks) -> Result<(), Stop> {
        let times = &mut self.context.times;
        // The first attempt begins right after admission.
        let now = match (times.upstream, times.admitted) {
            (None, Some(admitted)) => admitted,
            _ => self.relay.clock.monotonic(),
        };
        times.upstream.get_or_insert(now);
        self.caller.body.rewind();
        let (target, address) = self.relay.choose_address(&mut self.context, now).await?;
        if let Some(trace) = &mut self.context.trace {
            trace.begin_attempt(now, Some(address));
        }
        let needs = Needs {
            http1: asks.upgrade || self.context.attempts.http1,
        };
        let relay = self.relay;
        let connector = relay.connector(self.conn.worker)?;
        let connected = if let Some(pooled) = connector.take(&target, address, needs, now) {
            Ok(pooled)
        } else {
            let attempts = &mut self.context.attempts;
            let opening = relay.open(connector, &target, (address, now), attempts, needs);
            Box::pin(opening).await
        };
        let mut upstream = match connected {
            Ok(upstream) => upstream,
            Err(error) => {
                self.attempt_ended(Some(&error));
                let attempts = &mut self.context.attempts;
                return Err(relay.after_failed_connect(&target, address, attempts, error));
            }
        };
        let reused = upstream.is_reused();
        let exchanged = self.exchange(&target, &mut upstream, asks).await;
        match exchanged {
            Ok(()) => Ok(()),
            Err(Stop::Fail(error)) => {
                self.attempt_ended(Some(&error));
                Err(after_failed_attempt(
                    &self.head.method,
                    self.caller.downstream.is_answered(),
                    &self.caller.body,
                    &mut self.context.attempts,
                    error,
                    reused,
                ))
            }
            Err(stop) => {
                self.attempt_ended(None);
                Err(stop)
            }
        }
    }

    /// Records in the trace that the current attempt ended with `error`, or, without one, with a
    /// 401 that is not forwarded.
    fn attempt_ended(&mut self, error: Option<&RelayError>) {
        let now = self.relay.clock.monotonic();
        self.context.attempt_ended(error, now);
    }

    /// Sends the request on this connection, and forwards the answer.
    async fn exchange(
        &mut self,
        target: &Arc<Target>,
        upstream: &mut Upstream,
        asks: &mut Asks,
    ) -> Result<(), Stop> {
        self.queue_request(upstream, asks)?;
        let timeouts = (target.timeouts.read, target.timeouts.write);
        let mut duplex = Duplex::new(&mut self.caller, upstream, timeouts);
        let (context, request) = (&mut self.context, &self.head);
        let mut head = loop {
            let mut head = duplex.head().await?;
            if let Some(trace) = &mut context.trace {
                trace.record_status(head.status.as_u16());
            }
            if head.status == StatusCode::SWITCHING_PROTOCOLS || !head.status.is_informational() {
                break head;
            }
            // The upstream may send one in each attempt, but the caller expects only one.
            let expected = head.status != StatusCode::CONTINUE
                || !std::mem::replace(&mut duplex.caller.body.continued, true);
            if expected {
                sanitize_head(&mut head, request.target(), context)?;
                duplex.queue_interim(&head)?;
                self.answer.code = head.status.as_u16();
            }
        };
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !asks.upgrade {
            let cause = "101 response without an upgrade request";
            return Err(RelayError::new(Side::Upstream, ErrorKind::InvalidMessage, cause).into());
        }
        let mut watched = None;
        if head.status == StatusCode::UNAUTHORIZED {
            let handling = unauthorized::handle_401(request, &head, context, &mut duplex);
            watched = Box::pin(handling).await?;
        } else {
            if head.status.as_u16() >= LEAST_FAILURE {
                let sender = Sender {
                    method: &request.method,
                    client: self.peer.accountable,
                    upgrades: asks.upgrade,
                    draining: self.conn.signal.is_draining(),
                    now: Now::read(&*self.relay.clock),
                };
                let body = duplex.caller.body.replayable();
                if let Some(planned) = sender.after_answer(&head, body, context) {
                    return Err(Stop::Retry(Box::new(planned)));
                }
            }
            context.accepted();
        }
        let replayable = unauthorized::replayable(context, &duplex);
        duplex.caller.body.finish_recording();
        if !switches {
            // Before the head is completed: if the answer is malformed, the rejection needs the
            // recovery code.
            duplex.check_beginning().await?;
        }
        sanitize_head(&mut head, request.target(), context)?;
        if !head.fields.contains(&header::DATE) {
            // A recipient that forwards a response without a Date adds one (RFC 9110 §6.6.1).
            let date = local_response::date(self.relay.clock.now());
            head.fields.set(&header::DATE, date.as_bytes());
        }
        self.answer.code = head.status.as_u16();
        if switches {
            self.answer.close = true;
            duplex.queue_interim(&head)?;
            let life = upgrade_life(self.relay.clock.now(), context);
            return match Box::pin(duplex.tunnel(life)).await? {
                TunnelEnd::Closed => Ok(()),
                TunnelEnd::Expired => {
                    context.upgrade_expired = true;
                    Err(tunnel::expired().into())
                }
            };
        }
        self.answer.close |= self.conn.signal.is_draining();
        let body = &duplex.caller.body;
        // A caller that waits for a 100 Continue and receives a final response may or may not
        // still send the body, so the next bytes on this connection would be ambiguous (RFC 9110
        // §10.1.1).
        self.answer.close |= body.expects_continue
            && !body.is_under_way()
            && !duplex.caller.downstream.is_body_done();
        let close = self.answer.close;
        duplex.caller.downstream.queue_head(head, close)?;
        let look = watched
            .as_mut()
            .map(|watched: &mut Watched| &mut watched.look);
        let withheld = WithheldTrailers {
            sent: &context.sent,
            edits: context.response_edits(),
        };
        let answered = duplex.answer(look, withheld).await;
        if let Some(watched) = &watched {
            unauthorized::finish_watch(watched, request, replayable, context);
        }
        answered?;
        self.answered(upstream).await;
        Ok(())
    }

    /// Ends a request whose answer is complete: the connection to the upstream is released, and
    /// the rest of the body is read if the caller's connection can be kept.
    async fn answered(&mut self, upstream: &mut Upstream) {
        let now = self.relay.clock.monotonic();
        self.context.times.ended = Some(now);
        upstream.release(now);
        // In HTTP/2 the stream is reset instead, without an error (RFC 9113 §8.1).
        let http1 = matches!(self.caller.downstream, Downstream::H1(_));
        if http1 && !self.caller.downstream.is_body_done() && !self.answer.close {
            self.answer.close = !Box::pin(self.caller.discard_rest()).await;
        }
    }

    /// Queues the head of the request for this attempt, with its credential.
    fn queue_request(&mut self, upstream: &mut Upstream, asks: &mut Asks) -> Result<(), Stop> {
        let context = &mut self.context;
        let fields = &mut self.head.fields;
        if !asks.prepared || context.trace.is_some() {
            prepare_request(fields, asks.upgrade, &self.peer, context)?;
            asks.prepared = true;
        }
        let http1 = matches!(upstream, Upstream::H1(_));
        if asks.trailers && !http1 {
            // Cannot fail, because the value is valid.
            let _ = fields.insert(header::TE, HeaderValue::from_static("trailers"));
        } else if asks.trailers {
            fields.remove(&header::TE);
        }
        self.expect(http1)?;
        let rewritten = self.context.admission.as_ref().and_then(Admission::target);
        let target = rewritten.unwrap_or(self.head.target());
        let credential = credential_header(&self.head.method, target, &self.context)?;
        if let Some(credential) = credential {
            let value = credential.value.as_bytes();
            self.head.fields.set(&credential.name, value);
            self.context.sent.record(credential);
        }
        let rewritten = self.context.admission.as_ref().and_then(Admission::target);
        let target = rewritten.unwrap_or(self.head.target());
        upstream.queue_head(&self.head, target)?;
        Ok(())
    }

    /// Ensures that a caller waiting for a 100 Continue receives one: from an upstream in
    /// HTTP/1.1, or from hawkgate. Once the body has started, none is needed.
    fn expect(&mut self, http1: bool) -> Result<(), RelayError> {
        if !self.head.fields.contains(&header::EXPECT) {
            return Ok(());
        }
        let body = &mut self.caller.body;
        let awaited = body.expects_continue && !body.is_under_way();
        if awaited && http1 && self.head.version == Version::HTTP_11 {
            return Ok(());
        }
        self.head.fields.remove(&header::EXPECT);
        if awaited {
            body.continued = true;
            self.caller.downstream.queue_interim(&continue_head())?;
        }
        Ok(())
    }
}

/// Prepares a response head for the caller.
fn sanitize_head(
    head: &mut ResponseHead,
    target: &str,
    context: &mut Context,
) -> Result<(), RelayError> {
    head.reason
        .take_if(|reason| context.sent.are_echoed_in(reason));
    sanitize_response(&mut head.fields, head.status, target, context)
}

/// How long an upgraded connection may last, if its route limits that.
fn upgrade_life(now: crate::clock::UnixMillis, context: &Context) -> Option<std::time::Duration> {
    let admission = context.admission.as_ref()?;
    match admission.route.upgrade_expiry {
        UpgradeExpiry::Token => Some(now.until(admission.valid_until()?)),
        UpgradeExpiry::None => None,
    }
}
