//! A single attempt: chooses the address, prepares the head, and decides whether another attempt
//! follows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result, RetryType};

use super::{Hooks, decided, local_response, takes_continue};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::route::Upstream;
use crate::gateway::rule::Decision;
use crate::gateway::{Admission, CredentialHeader, Replayable};
use crate::proxy::context::{Attempts, Context};
use crate::proxy::failure::{self, Failure};
use crate::proxy::headers;
use crate::proxy::headers::HeaderFieldsMut;
use crate::proxy::replay::Replay;

/// Maximum number of addresses tried for a request, before and again after its upstream's name
/// has been looked up.
const MAX_CONNECTS: usize = 3;

/// Maximum number of dead pooled connections tolerated for a request.
const MAX_STALE: usize = 3;

impl Hooks {
    pub(super) async fn choose_peer(
        &self,
        session: &Session,
        context: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let now = self.clock.monotonic();
        let (upstream, address) = self.choose_address(context, now).await?;
        let upgrade = upgrades(session.req_header());
        self.peer(&upstream, address, upgrade, context)
            .map(Box::new)
    }

    /// Returns the peer for pingora to connect to.
    pub(in crate::proxy) fn peer(
        &self,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        upgrade: bool,
        context: &mut Context,
    ) -> Result<HttpPeer> {
        let peer = self.peers.peer(upstream, address, upgrade);
        peer.map_err(|unusable| unreachable(context, unusable))
    }

    /// Chooses the address for the next attempt, which begins at `now`, a monotonic time. If no
    /// address is left, waits for the upstream's name to be looked up again, once for a request.
    pub(in crate::proxy) async fn choose_address(
        &self,
        context: &mut Context,
        now: Duration,
    ) -> Result<(Arc<Upstream>, SocketAddr)> {
        let Some(admission) = &context.admission else {
            return Err(decided(context, Reason::Internal.into()));
        };
        let upstream = Arc::clone(&admission.route.upstream);
        let attempts = &mut context.attempts;
        let mut chosen = self.next_address(&upstream, attempts, now);
        if chosen.is_none() && !attempts.looked_up {
            // Boxed, because only requests that cannot be forwarded otherwise get here.
            Box::pin(look_up_again(&upstream, attempts, now)).await;
            chosen = self.next_address(&upstream, attempts, now);
        }
        if let Some(address) = chosen {
            return Ok((upstream, address));
        }
        let rejection = attempts.connect_failure.take().unwrap_or_else(|| {
            let cause = format!("{} has not been resolved", upstream.host);
            Rejection::from(Reason::UpstreamUnreachable).with_cause(cause)
        });
        Err(decided(context, rejection))
    }

    /// Returns the next address to try, unless all have failed or [`MAX_CONNECTS`] are reached.
    fn next_address(
        &self,
        upstream: &Upstream,
        attempts: &mut Attempts,
        now: Duration,
    ) -> Option<SocketAddr> {
        if attempts.failed_connects >= MAX_CONNECTS {
            return None;
        }
        let addresses = upstream.addresses.load();
        let start = match &addresses[..] {
            // Avoids a contended counter when there is no choice.
            [_] => 0,
            _ => *attempts
                .start_index
                .get_or_insert_with(|| self.peers.next_start()),
        };
        self.peers
            .choose(&addresses, start, &attempts.unreachable, now)
    }

    /// Prepares `head` for the upstream, and signs it in its final form.
    pub(super) fn headers(head: &mut RequestHeader, context: &mut Context) -> Result<()> {
        let upgrade = headers::is_upgrade(head);
        prepare_request(head, upgrade, context)?;
        if let Some(target) = context.admission.as_ref().and_then(Admission::target) {
            head.set_raw_path(target.as_bytes())?;
        }
        let Ok(target) = std::str::from_utf8(head.raw_path()) else {
            return Err(decided(context, Reason::BadRequest.into()));
        };
        if let Some(proof) = credential_header(&head.method, target, context)? {
            head.insert_header(proof.name.clone(), proof.value.clone())?;
            context.sent.record(proof);
        }
        Ok(())
    }

    /// Ensures that a caller waiting for a 100 Continue receives one: from the upstream, or from
    /// hawkgate if the upstream's cannot be forwarded (pingora's HTTP/2 client drops it). Once
    /// the body has started, none is needed.
    pub(super) async fn expect(
        session: &mut Session,
        head: &mut RequestHeader,
        context: &Context,
    ) -> Result<()> {
        if !head.headers.contains_key(header::EXPECT) {
            return Ok(());
        }
        let under_way = context.replay.as_ref().is_none_or(Replay::body_started);
        let relayed = head.version == Version::HTTP_11 && takes_continue(session);
        if relayed && !under_way {
            return Ok(());
        }
        head.remove_header(&header::EXPECT);
        if takes_continue(session) && !under_way && !local_response::response_started(session) {
            session.write_continue_response().await?;
        }
        Ok(())
    }

    /// Handles a failure to connect. Nothing has been sent yet, so any request may be retried
    /// with the next address, or with those that the upstream's name has by now.
    pub(in crate::proxy) fn after_failed_connect(
        &self,
        address: Option<SocketAddr>,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let now = self.clock.monotonic();
        let attempts = &mut context.attempts;
        attempts.failed_connects += 1;
        if let Some(address) = address {
            self.peers.mark_unreachable(address, now);
            attempts.unreachable.push(address);
        }
        let Some(upstream) = context.admission.as_ref().map(|a| &a.route.upstream) else {
            error.set_retry(false);
            return error;
        };
        // The upstream may have moved.
        upstream.addresses.request_lookup(now);
        let can_look_up = upstream.addresses.are_resolvable() && !attempts.looked_up;
        let addresses = upstream.addresses.load();
        let untried = addresses.iter().any(|a| !attempts.unreachable.contains(a));
        let again = can_look_up || (untried && attempts.failed_connects < MAX_CONNECTS);
        if again {
            error.as_up();
            attempts.connect_failure = match failure::classify(&error) {
                Failure::Reject(rejection) => Some(rejection),
                Failure::CallerGone => None,
            };
        }
        error.set_retry(again);
        error
    }
}

/// Looks the upstream's name up again. From then on the request only tries addresses that are
/// new.
async fn look_up_again(upstream: &Upstream, attempts: &mut Attempts, now: Duration) {
    attempts.looked_up = true;
    attempts.failed_connects = 0;
    let before = upstream.addresses.load_full();
    attempts.unreachable.extend(before.iter());
    upstream.addresses.look_up_again(now).await;
}

/// Prepares the fields of a request for the upstream, except for the credential. Idempotent,
/// because it is applied once per attempt.
pub(in crate::proxy) fn prepare_request(
    head: &mut impl HeaderFieldsMut,
    upgrade: bool,
    context: &mut Context,
) -> Result<()> {
    let Some(admission) = &context.admission else {
        return Err(decided(context, Reason::Internal.into()));
    };
    let upstream = &admission.route.upstream;
    let client = context.peer.as_ref().and_then(|peer| peer.client);
    let stripped = &admission.route.stripped_headers;
    headers::prepare_request(
        head,
        upgrade,
        stripped,
        upstream,
        client,
        &context.request_id,
    )?;
    if let Some(trace) = &context.trace {
        headers::set_trace_headers(head, trace)?;
    }
    let ruling_headers = admission.decision().map_or(&[][..], Decision::headers);
    headers::set_rule_headers(head, &context.gateway.rule_headers, ruling_headers)?;
    if let Some(source) = &admission.route.source {
        headers::remove_reserved(head, source.inject().header())?;
    }
    Ok(())
}

/// Returns the field that authenticates this attempt. `method` and `target` are those sent
/// upstream.
pub(in crate::proxy) fn credential_header(
    method: &Method,
    target: &str,
    context: &mut Context,
) -> Result<Option<CredentialHeader>> {
    let Some(admission) = &context.admission else {
        return Err(decided(context, Reason::Internal.into()));
    };
    let proof = context.gateway.sign(admission, method, target);
    proof.map_err(|rejection| decided(context, rejection))
}

fn unreachable(context: &mut Context, cause: String) -> Box<Error> {
    let rejection = Rejection::from(Reason::UpstreamUnreachable).with_cause(cause);
    decided(context, rejection)
}

/// Whether this is a WebSocket handshake, the only kind of upgrade that pingora forwards.
fn upgrades(head: &RequestHeader) -> bool {
    head.version == Version::HTTP_11
        && head
            .headers
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Decides whether another attempt follows a failed one, because pingora panics on an undecided
/// error. `answered` says whether a final response head was sent to the caller.
pub(in crate::proxy) fn after_failed_attempt(
    method: &Method,
    answered: bool,
    context: &mut Context,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    let abandoned =
        |replay: &Replay| replay.is_abandoned() && replay.replayable() == Replayable::Yes;
    if context.attempts.replaying || context.replay.as_ref().is_some_and(abandoned) {
        error.set_retry(true);
        return error;
    }
    let untouched = unprocessed(&error);
    error.retry.decide_reuse(reused);
    let safe = untouched || method.is_idempotent();
    let whole = context
        .replay
        .as_ref()
        .is_none_or(|r| r.replayable() == Replayable::Yes);
    let again = error.retry()
        && safe
        && whole
        && context.rejection.is_none()
        && !answered
        && context.attempts.stale < MAX_STALE;
    if again {
        context.attempts.stale += 1;
        tracing::debug!(cause = failure::cause(&error), "trying another connection");
    }
    error.set_retry(again);
    error
}

/// Whether the upstream reported that it did not process the request (RFC 9113 §8.7), which
/// makes any method safe to retry. pingora marks the retry of such errors as decided; the only
/// other error that it marks this way is an invalid response.
fn unprocessed(error: &Error) -> bool {
    matches!(error.retry, RetryType::Decided(true))
        && matches!(error.etype(), ErrorType::H2Error | ErrorType::H2Downgrade)
}
