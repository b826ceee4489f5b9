//! Sends a request again after its upstream failed, if its route has `retry`: waits as long as the
//! caller does, and signs it anew.

use std::future::poll_fn;
use std::task::{self, Poll, ready};
use std::time::Duration;

use http::{Method, header};

use super::body::RequestBody;
use super::duplex::caller_gone;
use super::{Stop, Transaction};
use crate::clock::{Now, UnixMillis};
use crate::gateway::Replayable;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::upstream_retry::{RetryPlace, RetryReason};
use crate::header_fields::{HeaderFields, only};
use crate::proxy::context::{Attempts, Context};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::head::ResponseHead;

/// How often a request that waits looks for a shutdown.
const SLICE: Duration = Duration::from_secs(1);

/// A retry that will be made.
#[derive(Debug)]
pub(super) struct PlannedRetry {
    delay: Duration,
    _place: RetryPlace,
}

/// What decides whether a request is sent again, apart from the failure.
#[derive(Clone, Copy)]
pub(super) struct Sender<'r> {
    pub(super) method: &'r Method,
    pub(super) client: Option<std::net::IpAddr>,
    pub(super) upgrades: bool,
    pub(super) draining: bool,
    pub(super) now: Now,
}

impl Sender<'_> {
    /// Plans a retry after the answer `head`, if its status is one of the policy's.
    pub(super) fn after_answer(
        self,
        head: &ResponseHead,
        replayable: Replayable,
        context: &mut Context,
    ) -> Option<PlannedRetry> {
        let admission = context.admission.as_ref()?;
        let retry = admission.route.retry.as_ref()?;
        if !retry.covers(head.status.as_u16()) {
            return None;
        }
        let asked = retry_after(&head.fields, self.now.wall);
        self.plan(RetryReason::Status, asked, replayable, context)
    }

    /// Plans a retry. What may have been processed is repeated only if the method is idempotent
    /// (RFC 9110 §9.2.2).
    fn plan(
        self,
        reason: RetryReason,
        retry_after: Option<Duration>,
        replayable: Replayable,
        context: &mut Context,
    ) -> Option<PlannedRetry> {
        let admission = context.admission.as_ref()?;
        let retry = admission.route.retry.as_ref()?;
        let repeatable = reason == RetryReason::Connect || self.method.is_idempotent();
        if self.upgrades || self.draining || !repeatable || replayable != Replayable::Yes {
            return None;
        }
        let elapsed = self.now.monotonic.saturating_sub(context.times.started);
        let delay = retry.delay(context.retries.total(), elapsed, retry_after)?;
        // What admitted the caller must still be valid then.
        let then = self.now.wall.plus(delay);
        if admission.valid_until().is_some_and(|until| until <= then) {
            return None;
        }
        let place = retry.take_place(self.client, self.now.monotonic)?;
        context.retries.record(reason);
        Some(PlannedRetry {
            delay,
            _place: place,
        })
    }
}

impl Transaction<'_> {
    /// Plans a retry after an attempt that ended with `stop`, if the upstream is to blame and the
    /// caller has no answer yet. Otherwise returns `stop`.
    pub(super) fn plan_retry(&mut self, stop: Stop, upgrades: bool) -> Result<PlannedRetry, Stop> {
        let reason = match &stop {
            Stop::Retry(_) | Stop::Again => None,
            Stop::Reject(rejection) => matches!(
                rejection.reason,
                Reason::UpstreamUnreachable | Reason::UpstreamTimeout
            )
            .then_some(RetryReason::Connect),
            Stop::Fail(error) => reason_of(error),
        };
        match (stop, reason) {
            (Stop::Retry(planned), _) => Ok(*planned),
            (stop, None) => Err(stop),
            (stop, Some(_)) if self.caller.downstream.is_answered() => Err(stop),
            (stop, Some(reason)) => {
                let replayable = self.caller.body.replayable();
                let sender = Sender {
                    method: &self.head.method,
                    client: self.peer.accountable,
                    upgrades,
                    draining: self.conn.signal.is_draining(),
                    now: Now::read(&*self.relay.clock),
                };
                sender
                    .plan(reason, None, replayable, &mut self.context)
                    .ok_or(stop)
            }
        }
    }

    /// Waits for the retry, and makes the request ready for it. Meanwhile the rest of the body is received
    /// and kept. A shutdown ends the wait, and what the next attempt then ends with is final.
    pub(super) async fn wait_for_retry(&mut self, planned: PlannedRetry) -> Result<(), Stop> {
        let mut left = planned.delay;
        while !left.is_zero() && !self.conn.signal.is_draining() {
            let slice = left.min(SLICE);
            let (downstream, body) = (&mut self.caller.downstream, &mut self.caller.body);
            let hopeless = poll_fn(|cx| poll_hopeless(downstream, body, cx));
            if let Some(stop) = self.caller.deadline.within(slice, hopeless).await {
                return Err(stop);
            }
            left -= slice;
        }
        drop(planned);
        let attempts = &mut self.context.attempts;
        *attempts = Attempts {
            http1: attempts.http1,
            ..Attempts::default()
        };
        let gateway = std::sync::Arc::clone(&self.context.gateway);
        if let Some(admission) = &mut self.context.admission {
            gateway.renew_lease(admission).await?;
        }
        Ok(())
    }
}

/// Ready with the end of a request that cannot be sent again: its caller is gone, or its body is not
/// kept. Until then, receives the rest of the body, because the end of an HTTP/1 connection is behind it.
/// A request whose caller has left must not be sent: the caller may have sent it again by now.
fn poll_hopeless(
    downstream: &mut Downstream<'_>,
    body: &mut RequestBody,
    cx: &mut task::Context<'_>,
) -> Poll<Stop> {
    while !body.is_done(downstream) {
        match ready!(body.poll_next(downstream, cx)) {
            Ok(None) => break,
            Ok(Some(_)) if body.replayable() == Replayable::Yes => {}
            Ok(Some(_)) => {
                let cause = "the upstream failed, and the body is too large to be kept for a retry";
                let rejection = Rejection::from(Reason::UpstreamUnreachable).with_cause(cause);
                return Poll::Ready(rejection.into());
            }
            Err(error) => return Poll::Ready(error.into()),
        }
    }
    downstream.poll_gone(cx).map(|()| caller_gone().into())
}

/// Why the upstream failed; `None` if it did not, or if it would fail again.
fn reason_of(error: &RelayError) -> Option<RetryReason> {
    if error.side != Side::Upstream {
        return None;
    }
    match error.kind {
        ErrorKind::ConnectTimeout
        | ErrorKind::ConnectRefused
        | ErrorKind::NoRoute
        | ErrorKind::ConnectFailed => Some(RetryReason::Connect),
        ErrorKind::Closed | ErrorKind::ReadFailed | ErrorKind::WriteFailed => {
            Some(RetryReason::Connection)
        }
        ErrorKind::ReadTimeout | ErrorKind::WriteTimeout => Some(RetryReason::Timeout),
        // The upstream's certificate, or what it sends, is not acceptable.
        ErrorKind::TlsFailed
        | ErrorKind::InvalidMessage
        | ErrorKind::BodyTooLarge
        | ErrorKind::BodyTimeout
        | ErrorKind::Internal => None,
    }
}

/// The value of `Retry-After` (RFC 9110 §10.2.3) at the time `now`.
fn retry_after(fields: &dyn HeaderFields, now: UnixMillis) -> Option<Duration> {
    let value = only(fields, &header::RETRY_AFTER).ok()??;
    let value = std::str::from_utf8(value).ok()?.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    UnixMillis::from_http_date(value).map(|then| now.until(then))
}
