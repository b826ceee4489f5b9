//! Handles a 401 from the upstream.

use std::sync::Arc;

use http::{Method, header};

use super::Stop;
use super::duplex::{Duplex, Look, Looked};
use crate::clock::UnixMillis;
use crate::gateway::outcome::UnauthorizedAction::{PassedThrough, Refused, Replayed};
use crate::gateway::outcome::UnauthorizedReason;
use crate::gateway::{Recovery, Replayable, UnauthorizedBody, UnauthorizedResponse};
use crate::header_fields::HeaderFields;
use crate::proxy::context::Context;
use crate::proxy::head::{RequestHead, ResponseHead};
use crate::trace;

/// Maximum number of replays of a request: one with a corrected timestamp, and one with other
/// credentials. A safeguard in addition to the gateway's own count.
const MAX_REPLAYS: usize = 2;

/// A 401 that is forwarded while its body is looked at, because the request cannot be sent again.
pub(super) struct Watched {
    pub(super) look: Look,
    date: Option<UnixMillis>,
}

/// Handles a 401 with this `head` to `request`, if necessary after a look at the beginning of its
/// body. `Ok` means that it is forwarded; with a [`Watched`], [`finish_watch`] must be called
/// afterwards.
pub(super) async fn handle_401(
    request: &RequestHead,
    head: &ResponseHead,
    context: &mut Context,
    duplex: &mut Duplex<'_, '_>,
) -> Result<Option<Watched>, Stop> {
    let date = date(&head.fields);
    let looks = request.method != Method::HEAD && context.depends_on_body(request.target());
    let body = looks.then(|| UnauthorizedBody::new(&head.fields)).flatten();
    let mut scopes_refused = false;
    if let Some(body) = body {
        let mut look = Look::new(body);
        let looked = match replayable(context, duplex) {
            Replayable::Yes => duplex.look(&mut look).await?,
            Replayable::No(_) => Looked::TooLate,
        };
        match looked {
            Looked::Done => scopes_refused = look.is_refusal(),
            Looked::TooLate => return Ok(Some(Watched { look, date })),
        }
    }
    let response = UnauthorizedResponse {
        date,
        target: request.target(),
        scopes_refused,
    };
    let replayable = replayable(context, duplex);
    let span = context.trace.as_ref().map(|trace| trace.request_span());
    let recovering = recover(response, replayable, context);
    match span {
        None => recovering.await?,
        Some(active) => Box::pin(trace::in_span(active, recovering)).await?,
    }
    Ok(None)
}

/// Records what a 401 that was forwarded says.
pub(super) fn finish_watch(
    watched: &Watched,
    request: &RequestHead,
    replayable: Replayable,
    context: &mut Context,
) {
    let Some(admission) = &context.admission else {
        return;
    };
    let response = UnauthorizedResponse {
        date: watched.date,
        target: request.target(),
        scopes_refused: watched.look.is_refusal(),
    };
    let passed = context
        .gateway
        .pass_through(admission, response, replayable);
    // It is too late for another attempt.
    let reason = passed.unwrap_or(UnauthorizedReason::StillUnauthorized);
    context.record_401(PassedThrough, reason);
}

/// Decides what to do about the 401 `response`. `Ok` means that it is forwarded.
async fn recover(
    response: UnauthorizedResponse<'_>,
    replayable: Replayable,
    context: &mut Context,
) -> Result<(), Stop> {
    let Some(admission) = &mut context.admission else {
        return Ok(());
    };
    let gateway = Arc::clone(&context.gateway);
    match gateway.recover(admission, response, replayable).await {
        Recovery::PassThrough(reason) => {
            context.record_401(PassedThrough, reason);
            Ok(())
        }
        Recovery::Refuse(reason, rejection) => {
            context.record_401(Refused, reason);
            Err(Stop::Reject(rejection))
        }
        Recovery::Replay(reason) => {
            context.record_401(Replayed, reason);
            Err(Stop::Again)
        }
    }
}

/// Whether the request can be sent again after a 401.
pub(super) fn replayable(context: &Context, duplex: &Duplex<'_, '_>) -> Replayable {
    if context.unauthorized.len() >= MAX_REPLAYS {
        return Replayable::No(UnauthorizedReason::StillUnauthorized);
    }
    duplex.caller.body.replayable()
}

/// Returns the value of the response's `Date` (RFC 9110 §6.6.1), unless the response comes from a
/// cache, whose `Date` is as old as the response (RFC 9111 §5.1).
fn date(fields: &impl HeaderFields) -> Option<UnixMillis> {
    if fields.first(&header::AGE).is_some() {
        return None;
    }
    let date = fields.first(&header::DATE)?;
    UnixMillis::from_http_date(std::str::from_utf8(date).ok()?)
}
