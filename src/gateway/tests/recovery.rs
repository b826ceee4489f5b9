//! What a 401 means: the upstream's own, refused scopes, clocks.

use super::*;
use UnauthorizedReason::{AuthorizedScopes, ClockSkew, FreshCredentials, UpstreamOwn};

const HOUR: i64 = 3600;

impl Fixture {
    fn offset(&self, admission: &Admission) -> i64 {
        let now = Now::read(&*self.clock);
        admission.route.upstream.clock.offset(now)
    }

    /// The time in the signature of the next attempt, in seconds.
    fn signed_at(&self, admission: &Admission) -> i64 {
        let upstream = &admission.route.upstream;
        Gateway::time_at(upstream, admission, Now::read(&*self.clock)).as_secs()
    }

    /// Recovers from a 401 whose `Date` is the true time plus `skew` seconds.
    async fn recover_at(&self, admission: &mut Admission, date: UnixMillis) -> Recovery {
        let response = UnauthorizedResponse {
            date: Some(date),
            ..unauthorized()
        };
        self.gateway.recover(admission, response, REPLAYABLE).await
    }
}

#[tokio::test]
async fn a_401_of_the_upstreams_own_changes_nothing() {
    let fixture = fixture(ScriptedSource::default());
    for target in [
        "/api/own/x",
        "/api/own/",
        "/api/exact",
        "/api/exact/x?y",
        "/api/%6fwn/x",
        "/api//own/x",
        "/api/own%2Fx",
    ] {
        for _ in 0..3 {
            let mut admission = fixture.admit(target).await.unwrap();
            let response = UnauthorizedResponse {
                date: Some(NOW.offset_by(HOUR * 1000)),
                target,
                scopes_refused: false,
            };
            let recovered = fixture
                .gateway
                .recover(&mut admission, response, REPLAYABLE);
            assert_eq!(passed_through(&recovered.await), UpstreamOwn, "{target}");
            assert_eq!(fixture.offset(&admission), 0);
        }
    }
    assert_eq!(fixture.fetched(), 1);
    for target in ["/api/owner", "/api/exactly", "/api/x?/api/own/"] {
        let fixture = super::fixture(ScriptedSource::default());
        let mut admission = fixture.admit(target).await.unwrap();
        let response = UnauthorizedResponse {
            target,
            ..unauthorized()
        };
        let recovered = fixture
            .gateway
            .recover(&mut admission, response, REPLAYABLE);
        assert_eq!(replayed(&recovered.await), FreshCredentials, "{target}");
    }
}

#[tokio::test]
async fn refused_scopes_cost_neither_a_replay_nor_the_credentials() {
    let fixture = fixture(ScriptedSource {
        authorized_scopes: Some(vec!["too:wide".into()]),
        ..ScriptedSource::default()
    });
    for replayable in [
        REPLAYABLE,
        Replayable::No(UnauthorizedReason::BodyTooLarge),
        Replayable::No(UnauthorizedReason::StillUnauthorized),
    ] {
        let mut admission = fixture.admitted().await;
        assert!(fixture.gateway.depends_on_body(&admission, "/api/x"));
        assert!(!fixture.gateway.depends_on_body(&admission, "/api/own/x"));
        let response = UnauthorizedResponse {
            scopes_refused: true,
            ..unauthorized()
        };
        let recovery = fixture
            .gateway
            .recover(&mut admission, response, replayable)
            .await;
        assert_eq!(passed_through(&recovery), AuthorizedScopes);
    }
    assert_eq!(fixture.fetched(), 1);
    let all = super::fixture(ScriptedSource::default());
    let admission = all.admitted().await;
    assert!(!all.gateway.depends_on_body(&admission, "/api/x"));
}

#[tokio::test]
async fn clock_skew_is_corrected_without_an_exchange() {
    let fixture = fixture(ScriptedSource::default());
    let mut admission = fixture.admitted().await;
    let recovery = fixture
        .recover(&mut admission, Some(HOUR), REPLAYABLE)
        .await;
    assert_eq!(replayed(&recovery), ClockSkew);
    assert_eq!(admission.client_id(), Some("client-1"));
    assert_eq!(fixture.signed_at(&admission), NOW.as_secs() + HOUR);
    fixture.gateway.accepted(&admission);
    assert_eq!(fixture.offset(&admission), HOUR * 1000);
    // The next request is signed right the first time.
    let next = fixture.admitted().await;
    assert_eq!(fixture.signed_at(&next), NOW.as_secs() + HOUR);
}

#[tokio::test]
async fn a_time_that_does_not_help_is_not_adopted() {
    let fixture = fixture(ScriptedSource::default());
    let mut admission = fixture.admitted().await;
    let first = fixture.recover(&mut admission, Some(HOUR), REPLAYABLE);
    assert_eq!(replayed(&first.await), ClockSkew);
    // Still unauthorized: the credentials are replaced once.
    let second = fixture.recover(&mut admission, Some(HOUR), REPLAYABLE);
    assert_eq!(replayed(&second.await), FreshCredentials);
    let third = fixture
        .recover(&mut admission, Some(HOUR), REPLAYABLE)
        .await;
    assert_eq!(
        passed_through(&third),
        UnauthorizedReason::StillUnauthorized
    );
    assert_eq!(fixture.offset(&admission), 0, "others keep the local time");
}

#[tokio::test]
async fn a_date_that_keeps_changing_costs_one_replay_in_each_interval() {
    let fixture = fixture(ScriptedSource::default());
    let mut clock_replays = 0;
    for request in 1..=20 {
        let mut admission = fixture.admitted().await;
        let mut skew = request * HOUR;
        while let Recovery::Replay(reason) = fixture
            .recover(&mut admission, Some(skew), REPLAYABLE)
            .await
        {
            clock_replays += usize::from(reason == ClockSkew);
            skew += HOUR;
        }
    }
    assert_eq!(clock_replays, 1);
    fixture.clock.advance(Duration::from_secs(31));
    let mut admission = fixture.admitted().await;
    let later = fixture.recover(&mut admission, Some(HOUR), REPLAYABLE);
    assert_eq!(replayed(&later.await), ClockSkew);
}

/// For example, a task that polls a path that is never allowed, on a machine whose clock is wrong.
#[tokio::test]
async fn a_path_that_always_answers_401_does_not_keep_the_clock_from_being_learnt() {
    let fixture = fixture(ScriptedSource::default());
    for _ in 0..3 {
        let mut admission = fixture.admitted().await;
        while let Recovery::Replay(_) = fixture
            .recover(&mut admission, Some(HOUR), REPLAYABLE)
            .await
        {}
        assert_eq!(fixture.offset(&admission), 0);
    }
    let mut other = fixture.admit("/api/other").await.unwrap();
    let response = UnauthorizedResponse {
        date: Some(NOW.offset_by(HOUR * 1000)),
        target: "/api/other?query",
        ..unauthorized()
    };
    let recovery = fixture.gateway.recover(&mut other, response, REPLAYABLE);
    assert_eq!(replayed(&recovery.await), ClockSkew);
    fixture.gateway.accepted(&other);
    assert_eq!(fixture.offset(&other), HOUR * 1000);
}

#[tokio::test]
async fn a_clock_that_was_never_set_is_healed_and_followed() {
    let fixture = fixture(ScriptedSource::default());
    let unset = UnixMillis(12_000);
    fixture.clock.set_wall(unset);
    let mut admission = fixture.admitted().await;
    let recovery = fixture.recover_at(&mut admission, NOW).await;
    assert_eq!(replayed(&recovery), ClockSkew);
    assert_eq!(fixture.signed_at(&admission), NOW.as_secs());
    // Whatever the replay says: anything is better than 1970.
    let next = fixture.admitted().await;
    assert_eq!(fixture.signed_at(&next), NOW.as_secs());
    // An hour later, NTP sets the clock; nothing has to be learnt again.
    fixture.clock.advance(Duration::from_hours(1));
    assert_eq!(fixture.signed_at(&next), NOW.as_secs() + HOUR);
    fixture.clock.set_wall(NOW.plus(Duration::from_hours(1)));
    let next = fixture.admitted().await;
    assert_eq!(fixture.signed_at(&next), NOW.as_secs() + HOUR);
    assert_eq!(fixture.offset(&next), 0);
}

#[tokio::test]
async fn any_credible_offset_is_corrected_and_any_other_ignored() {
    let day = 24 * HOUR;
    for (skew, reason) in [
        (200, FreshCredentials),
        (-200, FreshCredentials),
        (2 * day, ClockSkew),
        (-300 * day, ClockSkew),
        // Before this version was released, and after the end of time.
        (-3000 * day, FreshCredentials),
        (i64::MAX / 2000, FreshCredentials),
    ] {
        let fixture = fixture(ScriptedSource::default());
        let mut admission = fixture.admitted().await;
        let recovery = fixture
            .recover(&mut admission, Some(skew), REPLAYABLE)
            .await;
        assert_eq!(replayed(&recovery), reason, "{skew}");
        assert_eq!(fixture.offset(&admission), 0, "not before it has helped");
    }
}

#[tokio::test]
async fn local_credentials_are_minted_again_with_the_upstreams_time() {
    let fixture = fixture(ScriptedSource {
        local: true,
        ..ScriptedSource::default()
    });
    let mut admission = fixture.admitted().await;
    let recovery = fixture
        .recover(&mut admission, Some(-HOUR), REPLAYABLE)
        .await;
    assert_eq!(replayed(&recovery), ClockSkew);
    assert_eq!(admission.client_id(), Some("client-2"));
    assert_eq!(*fixture.source.offsets.lock().unwrap(), [0, -3_600_000]);
}

#[tokio::test]
async fn clock_skew_without_a_replay_keeps_the_credentials() {
    let fixture = fixture(ScriptedSource::default());
    let mut admission = fixture.admitted().await;
    let no = Replayable::No(UnauthorizedReason::ReplayMemory);
    let recovery = fixture.recover(&mut admission, Some(HOUR), no).await;
    assert_eq!(passed_through(&recovery), UnauthorizedReason::ReplayMemory);
    let next = fixture.admitted().await;
    assert_eq!(next.client_id(), Some("client-1"));
    assert_eq!(fixture.signed_at(&next), NOW.as_secs() + HOUR);
    // That time was never tried. If nothing helps with it, it is forgotten.
    let mut admission = next;
    let fresh = fixture.recover(&mut admission, Some(HOUR), REPLAYABLE);
    assert_eq!(replayed(&fresh.await), FreshCredentials);
    fixture
        .recover(&mut admission, Some(HOUR), REPLAYABLE)
        .await;
    assert_eq!(fixture.offset(&admission), 0);
}
