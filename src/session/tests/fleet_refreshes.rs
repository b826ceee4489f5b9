//! Refreshing tokens in a fleet: once, and nobody loses the result.

use futures::future::join_all;

use super::fleet::*;
use super::support::*;
use crate::session::*;
use crate::shared_store::{LEASE, SharedStore as _, StoreError};

/// Tokens of the `n`th refresh, valid for an hour.
fn nth(fixture: &Fixture, n: u32) -> ProviderGrant {
    let expires_at = fixture.after(Duration::from_hours(1));
    let (access, refresh) = (format!("access-{n}"), format!("refresh-{n}"));
    grant(tokens(&access, Some(expires_at), Some(&refresh), None))
}

/// A user who is signed in, and known at both replicas.
async fn signed_in() -> (Replicas, Browser) {
    let fleet = Replicas::shared();
    let (browser, _) = fleet.a.fixture.signed_in(nth(&fleet.a.fixture, 0)).await;
    fleet.hear();
    assert_open(&fleet.a, &browser);
    assert_open(&fleet.b, &browser);
    (fleet, browser)
}

fn used(fleet: &Replicas) -> Vec<String> {
    fleet.a.fixture.used()
}

#[tokio::test(start_paused = true)]
async fn requests_at_two_replicas_cause_one_refresh_and_all_get_its_result() {
    let (fleet, browser) = signed_in().await;
    fleet.advance(Duration::from_hours(2));
    fleet.a.fixture.will_refresh(Ok(nth(&fleet.a.fixture, 1)));
    let requests = (0..12).map(|n| {
        let replica = if n % 2 == 0 { &fleet.a } else { &fleet.b };
        let mut browser = browser.clone();
        async move {
            let renewed = replica.fixture.request(&mut browser).await.unwrap();
            assert_eq!(access_token(&renewed.session), "access-1");
            u32::from(renewed.refreshed)
        }
    });
    let leaders: u32 = join_all(requests).await.iter().sum();
    assert_eq!((leaders, used(&fleet)), (1, vec!["refresh-0".to_owned()]));
    fleet.hear();
    for replica in [&fleet.a, &fleet.b] {
        let opened = assert_open(replica, &browser);
        assert_eq!(access_token(&opened), "access-1");
        assert_eq!(opened.refresh_token().unwrap().expose(), "refresh-1");
    }
    let counted = |replica: &Replica| replica.fixture.observed.0.lock().unwrap().len();
    assert_eq!(counted(&fleet.a) + counted(&fleet.b), 1);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_heard_nothing_uses_what_another_one_refreshed() {
    let (fleet, mut browser) = signed_in().await;
    fleet.advance(Duration::from_mins(56));
    // b holds the record of before, and misses the events.
    let before = assert_open(&fleet.b, &browser);
    fleet.a.fixture.will_refresh(Ok(nth(&fleet.a.fixture, 1)));
    fleet.a.fixture.request(&mut browser).await.unwrap();
    let (sessions, now) = (&fleet.b.fixture.sessions, fleet.b.fixture.now());
    let renewed = sessions
        .renew(before, SiteSecurity::Https, now)
        .await
        .unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
    assert!(!renewed.refreshed && used(&fleet) == ["refresh-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_not_presented_again_when_the_lease_is_lost() {
    let (fleet, browser) = signed_in().await;
    fleet.advance(Duration::from_hours(2));
    fleet.a.fixture.provider.gate.forget_permits(1000);
    fleet.a.fixture.will_refresh(Ok(nth(&fleet.a.fixture, 1)));
    let (mut first, mut second) = (browser.clone(), browser.clone());
    let slow = fleet.a.fixture.request(&mut first);
    let meanwhile = async {
        settle().await;
        assert_eq!(used(&fleet), ["refresh-0"]);
        // Its lease ends, for instance because it cannot reach the store.
        fleet.advance(LEASE);
        match fleet.b.fixture.request(&mut second).await {
            Err(RenewError::Unavailable { cause, .. }) => {
                assert!(cause.contains("another replica"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
        fleet.a.fixture.provider.gate.add_permits(1);
    };
    let (renewed, ()) = tokio::join!(slow, meanwhile);
    assert_eq!(access_token(&renewed.unwrap().session), "access-1");
    assert_eq!(used(&fleet), ["refresh-0"]);
    // It was written although the lease was lost: nobody else had it.
    fleet.hear();
    let renewed = fleet.b.fixture.request(&mut second).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
}

#[tokio::test(start_paused = true)]
async fn a_slow_refresh_keeps_its_lease() {
    let (fleet, browser) = signed_in().await;
    fleet.advance(Duration::from_hours(2));
    fleet.a.fixture.provider.gate.forget_permits(1000);
    fleet.a.fixture.will_refresh(Ok(nth(&fleet.a.fixture, 1)));
    let (mut first, mut second) = (browser.clone(), browser.clone());
    let slow = fleet.a.fixture.request(&mut first);
    let waiting = async {
        settle().await;
        fleet.b.fixture.request(&mut second).await
    };
    let time = async {
        for _ in 0..4 {
            tokio::time::sleep(secs(1)).await;
            settle().await;
            fleet.advance(secs(1));
        }
        fleet.a.fixture.provider.gate.add_permits(1);
    };
    let (first, second, ()) = tokio::join!(slow, waiting, time);
    for renewed in [first, second] {
        assert_eq!(access_token(&renewed.unwrap().session), "access-1");
    }
    assert_eq!(used(&fleet), ["refresh-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_during_a_refresh_wins_and_its_tokens_are_revoked() {
    let (fleet, browser) = signed_in().await;
    fleet.advance(Duration::from_mins(56));
    fleet.a.fixture.provider.gate.forget_permits(1000);
    fleet.a.fixture.will_refresh(Ok(nth(&fleet.a.fixture, 1)));
    let mut first = browser.clone();
    let refreshing = fleet.b.fixture.request(&mut first);
    let signing_out = async {
        settle().await;
        let a = &fleet.a.fixture;
        let session = a.opened(&browser);
        a.sessions.sign_out(Some(&session), &a.site, a.now()).await;
        a.provider.gate.add_permits(1);
    };
    let (_, ()) = tokio::join!(refreshing, signing_out);
    settle().await;
    let mut revoked = fleet.a.fixture.provider.revoked.lock().unwrap().clone();
    revoked.sort();
    assert_eq!(revoked, ["refresh-0", "refresh-1"]);
    fleet.hear();
    for replica in [&fleet.a, &fleet.b] {
        assert!(matches!(
            replica.fixture.open(&browser),
            Presented::Ended(_)
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_was_refused_is_not_presented_by_others() {
    let (fleet, mut browser) = signed_in().await;
    fleet.advance(Duration::from_mins(56));
    let refused = ProviderError::Refused("invalid_grant".into());
    fleet.a.fixture.will_refresh(Err(refused));
    for replica in [&fleet.a, &fleet.b, &fleet.a] {
        fleet.hear();
        let renewed = replica.fixture.request(&mut browser).await.unwrap();
        assert_eq!(access_token(&renewed.session), "access-0");
    }
    fleet.advance(Duration::from_mins(4));
    for replica in [&fleet.a, &fleet.b] {
        fleet.hear();
        let over = replica.fixture.request(&mut browser).await;
        assert!(matches!(over, Err(RenewError::Ended(_))), "{over:?}");
    }
    assert_eq!(used(&fleet), ["refresh-0"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_refresh_that_failed_another_replica_may_try() {
    let (fleet, mut browser) = signed_in().await;
    fleet.advance(Duration::from_mins(56));
    let down = ProviderError::Unavailable {
        cause: "down".into(),
        retry_after: None,
    };
    fleet.a.fixture.will_refresh(Err(down));
    let renewed = fleet.a.fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-0");
    fleet.hear();
    fleet.a.fixture.will_refresh(Ok(nth(&fleet.a.fixture, 1)));
    let renewed = fleet.b.fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
    assert_eq!(used(&fleet), ["refresh-0", "refresh-0"]);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_could_not_be_stored_are_stored_when_the_store_is_up_again() {
    let (fleet, browser) = signed_in().await;
    fleet.advance(Duration::from_mins(56));
    fleet.a.fixture.provider.gate.forget_permits(1000);
    fleet.a.fixture.will_refresh(Ok(nth(&fleet.a.fixture, 1)));
    let (mut first, mut second) = (browser.clone(), browser.clone());
    let refreshing = fleet.a.fixture.request(&mut first);
    let failing = async {
        settle().await;
        fleet.store.fail(Some(StoreError::Answer("OOM".into())));
        fleet.a.fixture.provider.gate.add_permits(1);
    };
    let (renewed, ()) = tokio::join!(refreshing, failing);
    assert_eq!(access_token(&renewed.unwrap().session), "access-1");
    // This replica goes on with them.
    let renewed = fleet.a.fixture.request(&mut first).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
    fleet.store.fail(None);
    tokio::time::sleep(secs(40)).await;
    fleet.hear();
    let renewed = fleet.b.fixture.request(&mut second).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
    assert_eq!(used(&fleet), ["refresh-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_disappears_during_a_refresh_is_not_written_again() {
    let (fleet, browser) = signed_in().await;
    fleet.advance(Duration::from_mins(56));
    fleet.a.fixture.provider.gate.forget_permits(1000);
    fleet.a.fixture.will_refresh(Ok(nth(&fleet.a.fixture, 1)));
    let mut first = browser.clone();
    let refreshing = fleet.a.fixture.request(&mut first);
    let clearing = async {
        settle().await;
        fleet.store.clear();
        fleet.a.fixture.provider.gate.add_permits(1);
    };
    let (_, ()) = tokio::join!(refreshing, clearing);
    settle().await;
    assert_eq!(fleet.store.values(), 0);
    assert_eq!(
        *fleet.a.fixture.provider.revoked.lock().unwrap(),
        ["refresh-1"]
    );
    assert!(fleet.store.probe().await.is_ok());
    fleet
        .b
        .fixture
        .sessions
        .on_event(&crate::shared_store::StoreEvent::Interrupted);
    assert_over(&fleet.b, &browser, Ended::Invalid);
}
