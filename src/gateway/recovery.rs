//! Recovery from an upstream 401: at most once per request with other credentials and at most
//! once with the upstream's time. After that the caller gets the 401
//! (`docs/design/replay.md`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::outcome::UnauthorizedReason as Reason;
use super::reason;
use super::rejection::Rejection;
use super::{Admission, Gateway};
use crate::clock::UnixMillis;
use crate::credential::{CachedSource, Replacement};

/// Smallest clock skew that can have caused a 401. Taskcluster tolerates 15 minutes in `ts` and
/// 5 in certificates (`docs/design/taskcluster.md`). `Date` has whole seconds and may be as old
/// as a long poll, so the limit is a little below the smaller of the two.
const MIN_SKEW: Duration = Duration::from_mins(4);

/// Largest clock skew that is corrected; a larger one is ignored.
const MAX_SKEW: Duration = Duration::from_hours(24);

/// The upstream's 401 response.
#[derive(Clone, Copy, Debug)]
pub struct UnauthorizedResponse {
    /// Its `Date`, if present and valid.
    pub date: Option<UnixMillis>,
}

/// Whether the request can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayable {
    /// The whole body is buffered, or there is none.
    Yes,
    /// The request cannot be sent again, for this reason.
    No(Reason),
}

/// The upstream has rejected fresh credentials too.
fn still_unauthorized(source: &CachedSource) -> Recovery {
    let reason = Reason::StillUnauthorized;
    if source.needs_sign_in() {
        let rejection = Rejection::from(reason::Reason::SignInAgain);
        return Recovery::Refuse(reason, Box::new(rejection));
    }
    Recovery::PassThrough(reason)
}

/// What to do about a 401.
#[derive(Clone, Debug)]
pub enum Recovery {
    /// Sign the request again and replay it.
    Replay(Reason),
    /// Forward the 401 to the caller.
    PassThrough(Reason),
    /// Refuse the request: the credentials were rejected and others cannot be fetched. hawkgate
    /// responds itself, so that an unavailable exchange does not look like a bad token.
    Refuse(Reason, Box<Rejection>),
}

impl Gateway {
    /// Handles a 401 from the upstream: invalidates the credential and, if the request is
    /// `replayable`, fetches another one or corrects the clock offset.
    pub async fn recover(
        &self,
        admission: &mut Admission,
        response: UnauthorizedResponse,
        replayable: Replayable,
    ) -> Recovery {
        let (Some(source), Some(rejected)) =
            (admission.route.source.clone(), admission.lease.clone())
        else {
            return Recovery::PassThrough(Reason::NotSigned);
        };
        let skewed = !admission.corrected_clock && self.learn_clock_offset(admission, response);
        if !skewed && admission.replaced_credential {
            return still_unauthorized(&source);
        }
        if let Replayable::No(reason) = replayable {
            // If clock skew may be the cause, the credential is not known to be bad.
            if !skewed {
                source.invalidate(&admission.swap_request(), &rejected);
            }
            return Recovery::PassThrough(reason);
        }
        if skewed {
            admission.corrected_clock = true;
            // The certificate of locally minted credentials contains the local time, so they are
            // minted again, which needs no exchange.
            if !source.is_local() {
                return Recovery::Replay(Reason::ClockSkew);
            }
        }
        let request = admission.swap_request();
        let replaced = if skewed {
            source.reissue(&request, &rejected).await
        } else {
            match source.replace(&request, &rejected).await {
                Ok(Replacement::New(leased)) => Ok(leased),
                Ok(Replacement::StillRejected) => return still_unauthorized(&source),
                Err(error) => Err(error),
            }
        };
        match admission.record_lease(replaced) {
            Ok(()) if skewed => Recovery::Replay(Reason::ClockSkew),
            Ok(()) => {
                admission.replaced_credential = true;
                Recovery::Replay(Reason::FreshCredentials)
            }
            Err(rejection) => Recovery::Refuse(Reason::ExchangeFailed, Box::new(rejection)),
        }
    }

    /// Notes that the upstream's final response is not a 401. Call it for every such response:
    /// if it answers a replay, the replacement of the credential has helped.
    pub fn accepted(&self, admission: &Admission) {
        if let Some(source) = admission.route.source.as_ref()
            && admission.replaced_credential
        {
            source.accepted(&admission.swap_request());
        }
    }

    /// Adopts the upstream's time if the skew is large enough to have caused the 401.
    ///
    /// Only signatures carry a time; clock skew does not affect bearer tokens.
    fn learn_clock_offset(&self, admission: &Admission, response: UnauthorizedResponse) -> bool {
        if admission.injected().is_some() {
            return false;
        }
        let Some(upstream_time) = response.date else {
            return false;
        };
        let upstream = &admission.route.upstream;
        let local_time = self.clock.now();
        let offset = upstream_time.0.saturating_sub(local_time.0);
        let remaining = offset
            .saturating_sub(upstream.clock_offset())
            .unsigned_abs();
        let limit = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        if remaining < limit(MIN_SKEW) || offset.unsigned_abs() > limit(MAX_SKEW) {
            return false;
        }
        upstream.clock_offset.store(offset, Ordering::Relaxed);
        tracing::warn!(
            route = %admission.route.name,
            offset_seconds = offset / 1000,
            "the upstream's clock differs from the local clock; signing with the upstream's time"
        );
        true
    }
}
