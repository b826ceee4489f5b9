//! What to do when the upstream answers 401 (taskcluster.md §5): once per request other
//! credentials, or once the right time, and then the answer is the caller's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::outcome::UnauthorizedReason as Reason;
use super::reason;
use super::rejection::Rejection;
use super::{Admission, Gateway};
use crate::clock::UnixMillis;

/// Clocks further apart than this can be what a 401 is about. Taskcluster tolerates
/// 15 minutes in `ts` and 5 in certificates; a `Date` has whole seconds and may be a
/// long poll old, so the line is drawn a little below the narrower of the two.
const SUSPECT_SKEW: Duration = Duration::from_mins(4);

/// An upstream that claims to live further away in time is not believed.
const MAX_SKEW: Duration = Duration::from_hours(24);

/// What the upstream said with its 401.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamAnswer {
    /// Its `Date`, if it had a readable one.
    pub date: Option<UnixMillis>,
}

/// Whether the request can be sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayable {
    /// Head and body are all there, or there is no body.
    Yes,
    /// For this reason not.
    No(Reason),
}

/// What to do about a 401.
#[derive(Clone, Debug)]
pub enum Recovery {
    /// Sign anew and send again.
    Replay(Reason),
    /// Give the 401 to the caller.
    PassThrough(Reason),
    /// The credentials were rejected and no others are to be had: hawkgate answers in the
    /// upstream's place, so that a dead exchange never looks like a bad token.
    Refuse(Reason, Box<Rejection>),
}

impl Gateway {
    /// The upstream answered 401: drops the credential, and when the request is
    /// `replayable` gets another or learns the clock offset.
    pub async fn recover(
        &self,
        admission: &mut Admission,
        answer: UpstreamAnswer,
        replayable: Replayable,
    ) -> Recovery {
        let (Some(source), Some(rejected)) =
            (admission.route.source.clone(), admission.lease.clone())
        else {
            return Recovery::PassThrough(Reason::NotSigned);
        };
        let skewed = !admission.corrected_clock && self.learn_clock_offset(admission, answer);
        if !skewed && admission.replaced_credential {
            source.invalidate(&admission.swap_request(), &rejected);
            if source.needs_sign_in() {
                let rejection = Rejection::from(reason::Reason::SignInAgain);
                return Recovery::Refuse(Reason::StillUnauthorized, Box::new(rejection));
            }
            return Recovery::PassThrough(Reason::StillUnauthorized);
        }
        if let Replayable::No(reason) = replayable {
            // With the clocks apart nothing is known against the credential.
            if !skewed {
                source.invalidate(&admission.swap_request(), &rejected);
            }
            return Recovery::PassThrough(reason);
        }
        if skewed {
            admission.corrected_clock = true;
            // What is made here bears our time in its certificate, and costs no exchange.
            if !source.is_local() {
                return Recovery::Replay(Reason::ClockSkew);
            }
        }
        let replaced = source.replace(&admission.swap_request(), &rejected).await;
        match admission.hold(replaced) {
            Ok(()) if skewed => Recovery::Replay(Reason::ClockSkew),
            Ok(()) => {
                admission.replaced_credential = true;
                Recovery::Replay(Reason::FreshCredentials)
            }
            Err(rejection) => Recovery::Refuse(Reason::ExchangeFailed, Box::new(rejection)),
        }
    }

    /// Takes the upstream's time for granted when the clocks are so far apart that it can
    /// be what the 401 is about.
    ///
    /// Only a signature bears a time: about a bearer token the clocks say nothing.
    fn learn_clock_offset(&self, admission: &Admission, answer: UpstreamAnswer) -> bool {
        if admission.injected().is_some() {
            return false;
        }
        let Some(theirs) = answer.date else {
            return false;
        };
        let upstream = &admission.route.upstream;
        let ours = self.clock.now();
        let offset = theirs.0.saturating_sub(ours.0);
        let residue = offset
            .saturating_sub(upstream.clock_offset())
            .unsigned_abs();
        let limit = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        if residue < limit(SUSPECT_SKEW) || offset.unsigned_abs() > limit(MAX_SKEW) {
            return false;
        }
        upstream.clock_offset.store(offset, Ordering::Relaxed);
        tracing::warn!(
            route = %admission.route.name,
            offset_seconds = offset / 1000,
            "the upstream's clock differs from ours; signing with its time"
        );
        true
    }
}
