//! Recovery from an upstream 401. One table decides what it means; the first row that applies
//! counts (`docs/design/replay.md`):
//!
//! | the 401 | credentials | request |
//! |---|---|---|
//! | hawkgate did not sign the request | – | passed through |
//! | the route's `passes_401` covers the path | kept | passed through |
//! | its body says that `authorizedScopes` are not satisfied | kept | passed through, logged |
//! | `Date` differs from the time signed with, for the first time | kept | signed again with that time; passed through if it cannot be replayed |
//! | the credentials are those of the caller's own session, which has ended | – | refused |
//! | the credentials are fresh: replaced for this request, or because of this caller's 401 in the last 30 seconds | kept | passed through, or refused if the user has to sign in again |
//! | the request cannot be replayed | replaced by the next request | passed through |
//! | a source of kind `static` still has the same secret | kept | passed through |
//! | anything else | replaced | replayed; refused if there are no others |
//!
//! So a request is replayed at most twice: once with another time, and once with other credentials.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;
use std::time::Duration;

use super::outcome::UnauthorizedReason as Reason;
use super::path;
use super::reason;
use super::rejection::Rejection;
use super::route::Upstream;
use super::upstream_clock::{MIN_SKEW, PeerTime};
use super::{Admission, Gateway};
use crate::clock::{Now, UnixMillis};
use crate::credential::{Credential, Lease, Leased, Replacement};
use crate::token::Caller;

/// The upstream's 401 response, and the request that it answers.
#[derive(Clone, Copy, Debug)]
pub struct UnauthorizedResponse<'a> {
    /// Its `Date`, if present and valid.
    pub date: Option<UnixMillis>,
    /// The target of the request as the caller sent it.
    pub target: &'a str,
    /// Whether its body says that the client does not hold the `authorizedScopes`.
    pub scopes_refused: bool,
}

/// Whether the request can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayable {
    /// The whole body is buffered, or there is none.
    Yes,
    /// The request cannot be sent again, for this reason.
    No(Reason),
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

/// The right half of the table.
#[derive(Debug)]
enum Step {
    /// Keep the credentials and forward the 401.
    Pass(Reason),
    /// Let the next request replace the credentials, and forward the 401.
    InvalidateAndPass(Reason),
    /// The user has to sign in again at the identity provider.
    SignIn,
    /// The session whose credentials were rejected has ended.
    EndSession,
    /// Replay, signed with this time.
    SignAgain(PeerTime),
    /// Replay with other credentials.
    Replace,
}

impl Gateway {
    /// Whether the body of a 401 to this request can change what [`Gateway::recover`] does.
    pub fn depends_on_body(&self, admission: &Admission, target: &str) -> bool {
        admission.sends_authorized_scopes() && !passes_401(admission, target)
    }

    /// Handles a 401 from the upstream: replaces the credentials or corrects the clock if the
    /// request is `replayable` and that can help.
    pub async fn recover(
        &self,
        admission: &mut Admission,
        response: UnauthorizedResponse<'_>,
        replayable: Replayable,
    ) -> Recovery {
        let Some(rejected) = admission.lease.clone() else {
            return Recovery::PassThrough(Reason::NotSigned);
        };
        match self.judge(admission, response, replayable) {
            Step::Pass(reason) => Recovery::PassThrough(reason),
            Step::InvalidateAndPass(reason) => {
                invalidate(admission);
                Recovery::PassThrough(reason)
            }
            Step::SignIn => sign_in_again(),
            Step::EndSession => self.end_session(admission, response.target),
            Step::SignAgain(time) => {
                admission.clock_offset = time.offset(Now::read(&*self.clock));
                admission.corrected_clock = Some(time);
                mint_again(admission, &rejected).await
            }
            Step::Replace => replace(admission, &rejected).await,
        }
    }

    /// Handles a 401 that is passed through whatever else is tried, and returns the reason. `None`
    /// if [`Gateway::recover`] can do something about it.
    pub fn pass_through(
        &self,
        admission: &Admission,
        response: UnauthorizedResponse<'_>,
        replayable: Replayable,
    ) -> Option<Reason> {
        match self.judge(admission, response, replayable) {
            Step::Pass(reason) => Some(reason),
            Step::InvalidateAndPass(reason) => {
                invalidate(admission);
                Some(reason)
            }
            Step::EndSession => {
                self.end_session(admission, response.target);
                Some(Reason::StillUnauthorized)
            }
            Step::SignIn | Step::SignAgain(_) | Step::Replace => None,
        }
    }

    /// Looks the 401 up in the table.
    fn judge(
        &self,
        admission: &Admission,
        response: UnauthorizedResponse<'_>,
        replayable: Replayable,
    ) -> Step {
        let Some(lease) = &admission.lease else {
            return Step::Pass(Reason::NotSigned);
        };
        let now = Now::read(&*self.clock);
        if passes_401(admission, response.target) {
            return Step::Pass(Reason::UpstreamOwn);
        }
        if response.scopes_refused {
            admission.log_refused_scopes(now.monotonic);
            return Step::Pass(Reason::AuthorizedScopes);
        }
        let clock = &admission.route.upstream.clock;
        if admission.corrected_clock.is_some() {
            let (caller, path) = pause_keys(admission, response.target);
            clock.pause(caller, path, now.monotonic);
        } else if let Some(time) = skew(admission, response, now) {
            // A machine whose own clock was never set has nothing better to go by. Otherwise the
            // time counts once it has helped, or if that cannot be tried.
            if !now.wall.is_credible() || replayable != Replayable::Yes {
                adopt(admission, time, now);
            }
            return match replayable {
                Replayable::Yes => Step::SignAgain(time),
                Replayable::No(reason) => Step::Pass(reason),
            };
        }
        if admission.replaced_credential && now.wall.is_credible() {
            // Neither other credentials nor the time learnt helped: do not insist on that time.
            clock.forget();
        }
        let Some(source) = &admission.route.source else {
            return Step::EndSession;
        };
        let fresh = admission.replaced_credential
            || source.is_still_rejected(&admission.swap_request(), lease);
        match replayable {
            _ if fresh && source.needs_sign_in() => Step::SignIn,
            _ if fresh => Step::Pass(Reason::StillUnauthorized),
            Replayable::Yes => Step::Replace,
            Replayable::No(reason) => Step::InvalidateAndPass(reason),
        }
    }

    fn end_session(&self, admission: &Admission, target: &str) -> Recovery {
        match admission.end_session(target, Now::read(&*self.clock)) {
            Some(rejection) => Recovery::Refuse(Reason::StillUnauthorized, Box::new(rejection)),
            None => Recovery::PassThrough(Reason::NotSigned),
        }
    }

    /// The upstream's time, to sign `admission`'s request with.
    pub(super) fn time_at(upstream: &Upstream, admission: &Admission, now: Now) -> UnixMillis {
        match admission.corrected_clock.or(upstream.clock.learnt()) {
            None => now.wall,
            Some(time) => now.wall.offset_by(time.offset(now)),
        }
    }

    /// Notes that the upstream's final response is not a 401. Call it for every such response: if
    /// it answers a replay, what was changed for that has helped. Then the next 401 is healed at
    /// once as well, and all requests are signed with the time that this one was.
    pub fn accepted(&self, admission: &Admission) {
        if let Some(time) = admission.corrected_clock {
            adopt(admission, time, Now::read(&*self.clock));
        }
        if let Some(source) = admission.route.source.as_ref()
            && admission.replaced_credential
        {
            source.accepted(&admission.swap_request());
        }
    }
}

impl Admission {
    /// Whether the request is signed with `authorizedScopes`, which the client may not hold.
    pub fn sends_authorized_scopes(&self) -> bool {
        match self.lease.as_ref().map(Lease::credential) {
            Some(Credential::Taskcluster { signer, .. }) => signer.has_authorized_scopes(),
            Some(Credential::Bearer(_) | Credential::Basic { .. }) | None => false,
        }
    }

    /// Tells the operator, at most once a minute for each rule, that the client does not hold the
    /// scopes that this request was narrowed to.
    pub(super) fn log_refused_scopes(&self, now: Duration) {
        let decision = self.decision();
        let rule = decision
            .filter(|decision| decision.scopes().is_some())
            .and_then(|decision| decision.rule.as_ref());
        if !self.route.refused_scopes.is_due(rule, now) {
            return;
        }
        let source = self.route.source.as_ref();
        let source = source.map_or("", |source| source.name());
        let route = &*self.route.name;
        let client = self.client_id().unwrap_or_default();
        if let Some(rule) = rule {
            tracing::warn!(
                route,
                rule = &**rule,
                source,
                client,
                "this rule asks for scopes that the client of the source does not hold, so the \
                 upstream refuses its requests: remove them from the rule's `scopes`, or grant \
                 them to the client"
            );
        } else {
            tracing::warn!(
                route,
                source,
                client,
                "the source asks for scopes that its client does not hold, so the upstream \
                 refuses its requests: remove them from `authorized_scopes`, or grant them to \
                 the client"
            );
        }
    }
}

fn passes_401(admission: &Admission, target: &str) -> bool {
    let target = admission.target().unwrap_or(target);
    admission.route.passes_401(target)
}

/// The upstream's time, if it differs from the time that the request was signed with by enough to
/// have caused the 401. Only signatures carry a time; clock skew does not affect bearer tokens.
fn skew(admission: &Admission, response: UnauthorizedResponse<'_>, now: Now) -> Option<PeerTime> {
    let date = response.date.filter(|date| date.is_credible())?;
    let clock = &admission.route.upstream.clock;
    let (caller, path) = pause_keys(admission, response.target);
    if admission.is_unsigned() || clock.is_paused(caller, path, now.monotonic) {
        return None;
    }
    let signed = now.wall.offset_by(clock.offset(now));
    let apart = date.until(signed).max(signed.until(date));
    (apart >= MIN_SKEW).then(|| PeerTime::new(date, now))
}

/// Signs all requests to this upstream with `time` from now on.
fn adopt(admission: &Admission, time: PeerTime, now: Now) {
    let clock = &admission.route.upstream.clock;
    if !clock.adopt(time, now.monotonic) {
        return;
    }
    tracing::warn!(
        route = %admission.route.name,
        local_time = now.wall.to_rfc3339(),
        offset_seconds = time.offset(now) / 1000,
        "the upstream's clock differs from this machine's; signing with the upstream's time. If \
         this machine's clock is wrong, set it"
    );
}

/// Identifies the caller, and the path, among those whom another time did not help.
fn pause_keys(admission: &Admission, target: &str) -> (u64, u64) {
    static KEYS: LazyLock<std::hash::RandomState> = LazyLock::new(Default::default);
    let mut hasher = KEYS.build_hasher();
    admission
        .route
        .source
        .as_ref()
        .map(|s| s.name())
        .hash(&mut hasher);
    match &admission.caller {
        Caller::Verified(token) => (token.issuer(), token.subject()).hash(&mut hasher),
        Caller::Client(client) => (client.session(), client.client_id()).hash(&mut hasher),
        Caller::Delegated { issuer, digest, .. } => (issuer, digest).hash(&mut hasher),
        Caller::Password { credentials, .. } => credentials.username().hash(&mut hasher),
        Caller::Anonymous => {}
    }
    let target = admission.target().unwrap_or(target);
    (hasher.finish(), KEYS.hash_one(path::without_query(target)))
}

/// Lets the next request of this caller replace the credentials.
fn invalidate(admission: &Admission) {
    if let (Some(source), Some(rejected)) = (&admission.route.source, &admission.lease) {
        source.invalidate(&admission.swap_request(), rejected);
    }
}

fn sign_in_again() -> Recovery {
    let rejection = Rejection::from(reason::Reason::SignInAgain);
    Recovery::Refuse(Reason::StillUnauthorized, Box::new(rejection))
}

/// Mints credentials whose certificate contains the corrected time, which needs no exchange. Other
/// credentials contain no time of ours.
async fn mint_again(admission: &mut Admission, outdated: &Lease) -> Recovery {
    let source = admission.route.source.clone();
    let Some(source) = source.filter(|source| source.is_local()) else {
        return Recovery::Replay(Reason::ClockSkew);
    };
    let minted = source.reissue(&admission.swap_request(), outdated).await;
    after(admission.record_lease(minted), Reason::ClockSkew)
}

pub(super) async fn replace(admission: &mut Admission, rejected: &Lease) -> Recovery {
    let Some(source) = admission.route.source.clone() else {
        return Recovery::PassThrough(Reason::NotSigned);
    };
    let replaced = match source.replace(&admission.swap_request(), rejected).await {
        Ok(Replacement::New(Leased { lease, .. }))
            if source.is_fixed() && lease.credential().is_sent_like(rejected.credential()) =>
        {
            return Recovery::PassThrough(Reason::SameCredentials);
        }
        Ok(Replacement::New(leased)) => Ok(leased),
        Ok(Replacement::StillRejected) if source.needs_sign_in() => return sign_in_again(),
        Ok(Replacement::StillRejected) => return Recovery::PassThrough(Reason::StillUnauthorized),
        Err(error) => Err(error),
    };
    admission.replaced_credential = replaced.is_ok();
    after(admission.record_lease(replaced), Reason::FreshCredentials)
}

fn after(leased: Result<(), Rejection>, reason: Reason) -> Recovery {
    match leased {
        Ok(()) => Recovery::Replay(reason),
        Err(rejection) => Recovery::Refuse(Reason::ExchangeFailed, Box::new(rejection)),
    }
}
