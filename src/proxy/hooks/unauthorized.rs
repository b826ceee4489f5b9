//! Handles a 401 from the upstream.

use http::header;
use pingora::{Error, ErrorType, Result};

use super::{Hooks, decided};
use crate::clock::UnixMillis;
use crate::gateway::outcome::UnauthorizedAction::{PassedThrough, Refused, Replayed};
use crate::gateway::outcome::UnauthorizedReason;
use crate::gateway::{Recovery, Replayable, UnauthorizedResponse};
use crate::proxy::context::Context;
use crate::proxy::headers::HeaderFieldsMut;
use crate::proxy::replay::Replay;

/// Maximum number of replays of a request: one with a corrected timestamp, and one with other
/// credentials. A safeguard in addition to the gateway's own count.
const MAX_REPLAYS: usize = 2;

impl Hooks {
    /// Decides what to do about a 401 whose `Date` is `date`. `Ok` means that the 401 is
    /// forwarded. An error ends this attempt: either another one follows, or hawkgate sends its
    /// own response.
    pub(in crate::proxy) async fn recover(
        &self,
        date: Option<UnixMillis>,
        context: &mut Context,
    ) -> Result<()> {
        let Some(admission) = &mut context.admission else {
            return Ok(());
        };
        let replayable = if context.unauthorized.len() < MAX_REPLAYS {
            context
                .replay
                .as_ref()
                .map_or(Replayable::Yes, Replay::replayable)
        } else {
            Replayable::No(UnauthorizedReason::StillUnauthorized)
        };
        let answer = UnauthorizedResponse { date };
        match context.gateway.recover(admission, answer, replayable).await {
            Recovery::PassThrough(reason) => {
                context.record_401(PassedThrough, reason);
                Ok(())
            }
            Recovery::Refuse(reason, rejection) => {
                context.record_401(Refused, reason);
                Err(decided(context, *rejection))
            }
            Recovery::Replay(reason) => {
                context.record_401(Replayed, reason);
                context.attempts.replaying = true;
                let mut error = Error::explain(ErrorType::HTTPStatus(401), "to be replayed");
                error.as_up();
                error.set_retry(true);
                Err(error)
            }
        }
    }
}

/// Notes a final response other than 401.
pub(in crate::proxy) fn accepted(context: &Context) {
    if let Some(admission) = &context.admission {
        context.gateway.accepted(admission);
    }
}

/// Returns the value of the response's `Date` (RFC 9110 §6.6.1).
pub(in crate::proxy) fn date(head: &impl HeaderFieldsMut) -> Option<UnixMillis> {
    let date = head.first(&header::DATE)?;
    UnixMillis::from_http_date(std::str::from_utf8(date).ok()?)
}
