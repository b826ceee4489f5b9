//! Handles a 401 from the upstream.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::{Hooks, decided};
use crate::clock::UnixMillis;
use crate::gateway::outcome::UnauthorizedAction::{PassedThrough, Refused, Replayed};
use crate::gateway::outcome::UnauthorizedReason;
use crate::gateway::{
    LOOK_TIMEOUT, Recovery, Replayable, ScopesVerdict, UnauthorizedBody, UnauthorizedResponse,
};
use crate::proxy::context::{Context, UnauthorizedLook};
use crate::proxy::headers::HeaderFieldsMut;
use crate::proxy::replay::Replay;

/// Maximum number of replays of a request: one with a corrected timestamp, and one with other
/// credentials. A safeguard in addition to the gateway's own count.
const MAX_REPLAYS: usize = 2;

impl Hooks {
    /// Handles a 401 with this `head`, as [`Self::recover`] does, if necessary after a look at the
    /// beginning of its body. Until then the response is held back, unless the request cannot be
    /// replayed anyway.
    pub(super) async fn handle_401(
        &self,
        session: &Session,
        head: &ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        let date = date(&head.headers);
        let look = session.req_header().method != Method::HEAD
            && !context.attempts.last
            && context.depends_on_body(target(session));
        let body = look.then(|| UnauthorizedBody::new(&head.headers)).flatten();
        if let (Some(body), Some(replay)) = (body, &context.replay) {
            let is_held = replayable(context) == Replayable::Yes;
            if is_held {
                replay.hold(LOOK_TIMEOUT);
            }
            context.look = Some(Box::new(UnauthorizedLook {
                body,
                date,
                is_held,
            }));
            return Ok(());
        }
        let response = UnauthorizedResponse {
            date,
            target: target(session),
            scopes_refused: false,
        };
        self.recover(response, context).await
    }

    /// Looks at the next `piece` of the body of a 401, if that is not decided yet. An error ends
    /// this attempt, and [`Self::recover_after_look`] decides about the next.
    pub(super) fn look(
        session: &Session,
        piece: Option<&Bytes>,
        end: bool,
        context: &mut Context,
    ) -> Result<()> {
        let Some(look) = &mut context.look else {
            return Ok(());
        };
        let verdict = look.body.add(piece.map_or(&[], |piece| piece));
        if verdict == ScopesVerdict::Undecided && !end {
            return Ok(());
        }
        Self::decide_look(session, verdict, context)
    }

    /// Handles a 401 whose body was not decisive when the response ended.
    pub(super) fn finish_look(session: &Session, context: &mut Context) {
        if context.look.is_some() {
            // It is too late for another attempt.
            let _ = Self::decide_look(session, ScopesVerdict::Other, context);
        }
    }

    fn decide_look(session: &Session, verdict: ScopesVerdict, context: &mut Context) -> Result<()> {
        let replayable = replayable(context);
        let (Some(look), Some(admission)) = (&context.look, &context.admission) else {
            return Ok(());
        };
        let response = UnauthorizedResponse {
            date: look.date,
            target: target(session),
            scopes_refused: verdict == ScopesVerdict::Refused,
        };
        let passed = context
            .gateway
            .pass_through(admission, response, replayable);
        let Some(reason) = passed else {
            context.attempts.replaying = true;
            return Err(replay_error());
        };
        context.record_401(PassedThrough, reason);
        context.look = None;
        if let Some(replay) = &context.replay {
            replay.release();
            replay.finish_recording();
        }
        Ok(())
    }

    /// Before another attempt: recovers from a 401 that was held back and given up.
    pub(super) async fn recover_after_look(
        &self,
        session: &Session,
        context: &mut Context,
    ) -> Result<()> {
        let Some(look) = context.look.take() else {
            return Ok(());
        };
        let response = UnauthorizedResponse {
            date: look.date,
            target: target(session),
            scopes_refused: false,
        };
        match self.decide(response, context).await {
            Recovery::Replay(_) => Ok(()),
            // The response is gone, so the upstream is asked for it again.
            Recovery::PassThrough(_) => {
                context.attempts.last = true;
                Ok(())
            }
            Recovery::Refuse(_, rejection) => Err(decided(context, *rejection)),
        }
    }

    /// Decides what to do about the 401 `response`. `Ok` means that it is forwarded. An error ends
    /// this attempt: either another one follows, or hawkgate sends its own response.
    pub(in crate::proxy) async fn recover(
        &self,
        response: UnauthorizedResponse<'_>,
        context: &mut Context,
    ) -> Result<()> {
        if context.admission.is_none() || context.attempts.last {
            return Ok(());
        }
        match self.decide(response, context).await {
            Recovery::PassThrough(_) => Ok(()),
            Recovery::Refuse(_, rejection) => Err(decided(context, *rejection)),
            Recovery::Replay(_) => {
                context.attempts.replaying = true;
                Err(replay_error())
            }
        }
    }

    /// Asks the gateway, and records its answer.
    async fn decide(&self, response: UnauthorizedResponse<'_>, context: &mut Context) -> Recovery {
        let replayable = replayable(context);
        let Some(admission) = &mut context.admission else {
            return Recovery::PassThrough(UnauthorizedReason::NotSigned);
        };
        let gateway = Arc::clone(&context.gateway);
        let recovery = gateway.recover(admission, response, replayable).await;
        match &recovery {
            Recovery::PassThrough(reason) => context.record_401(PassedThrough, *reason),
            Recovery::Refuse(reason, _) => context.record_401(Refused, *reason),
            Recovery::Replay(reason) => context.record_401(Replayed, *reason),
        }
        recovery
    }
}

/// Whether the request can be sent again after a 401.
fn replayable(context: &Context) -> Replayable {
    if context.unauthorized.len() >= MAX_REPLAYS {
        return Replayable::No(UnauthorizedReason::StillUnauthorized);
    }
    let replay = context.replay.as_ref();
    replay.map_or(Replayable::Yes, Replay::replayable)
}

/// The error that causes another attempt.
fn replay_error() -> Box<Error> {
    let mut error = Error::explain(ErrorType::HTTPStatus(401), "to be replayed");
    error.as_up();
    error.set_retry(true);
    error
}

/// The target as the caller sent it. It was checked on admission.
fn target(session: &Session) -> &str {
    std::str::from_utf8(session.req_header().raw_path()).unwrap_or_default()
}

/// Returns the value of the response's `Date` (RFC 9110 §6.6.1), unless the response comes from a
/// cache, whose `Date` is as old as the response (RFC 9111 §5.1).
pub(in crate::proxy) fn date(head: &impl HeaderFieldsMut) -> Option<UnixMillis> {
    if head.first(&header::AGE).is_some() {
        return None;
    }
    let date = head.first(&header::DATE)?;
    UnixMillis::from_http_date(std::str::from_utf8(date).ok()?)
}
