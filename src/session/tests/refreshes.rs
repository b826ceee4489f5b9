//! Refreshing tokens: when, how often, and who gets the result.

use super::support::*;
use crate::session::*;

/// Tokens of the `n`th refresh, valid for an hour.
fn nth(fixture: &Fixture, n: u32) -> ProviderGrant {
    let expires_at = fixture.after(Duration::from_hours(1));
    let (access, refresh) = (format!("access-{n}"), format!("refresh-{n}"));
    grant(tokens(&access, Some(expires_at), Some(&refresh), None))
}

/// A signed-in user whose access token is valid for an hour.
async fn signed_in() -> (Fixture, Browser) {
    let fixture = Fixture::new();
    let (browser, _) = fixture.signed_in(nth(&fixture, 0)).await;
    (fixture, browser)
}

fn unavailable() -> ProviderError {
    ProviderError::Unavailable {
        cause: "down".into(),
        retry_after: None,
    }
}

fn refused() -> ProviderError {
    ProviderError::Refused("invalid_grant".into())
}

#[track_caller]
fn assert_over(result: Result<Renewed, RenewError>, expected: Ended) {
    match result {
        Err(RenewError::Ended(ended)) => assert_eq!(ended, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tokens_are_renewed_in_the_last_tenth_of_their_life_within_bounds() {
    for (life, ahead) in [
        (Duration::from_hours(24), secs(300)),
        (Duration::from_hours(1), secs(300)),
        (Duration::from_mins(10), secs(60)),
        (Duration::from_mins(5), secs(30)),
        (secs(60), secs(30)),
        (secs(20), secs(10)),
        (secs(0), secs(0)),
    ] {
        let at = refresh::renew_at(START.plus(life), START);
        assert_eq!(at.until(START.plus(life)), ahead, "{life:?}");
    }
}

#[tokio::test]
async fn a_refresh_before_the_expiry_replaces_tokens_and_cookie() {
    let (fixture, mut browser) = signed_in().await;
    fixture.clock.advance(Duration::from_mins(54));
    let renewed = fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-0");
    assert!(fixture.used().is_empty());
    fixture.clock.advance(Duration::from_mins(1));
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    let before = fixture.opened(&browser);
    let renewed = fixture.request(&mut browser).await.unwrap();
    assert!(renewed.refreshed && renewed.cookie.is_some());
    let opened = fixture.opened(&browser);
    assert_eq!(access_token(&opened), "access-1");
    assert_eq!(opened.refresh_token().unwrap().expose(), "refresh-1");
    assert!(opened.id == before.id && opened.generation == 1);
    assert_eq!(opened.expires_at, before.expires_at, "the lifetime stays");
    assert_eq!(opened.idle_expires_at, fixture.after(fixture.settings.idle));
    assert_eq!(fixture.used(), ["refresh-0"]);
    assert_eq!(
        *fixture.observed.0.lock().unwrap(),
        [RefreshResult::Refreshed]
    );
}

#[tokio::test]
async fn requests_at_expiry_cause_one_refresh_and_all_get_its_result() {
    let (fixture, browser) = signed_in().await;
    fixture.clock.advance(Duration::from_hours(2));
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    let requests = (0..100).map(|_| async {
        let mut browser = browser.clone();
        let renewed = fixture.request(&mut browser).await.unwrap();
        assert_eq!(access_token(&renewed.session), "access-1");
        assert_eq!(access_token(&fixture.opened(&browser)), "access-1");
        u32::from(renewed.refreshed)
    });
    let leaders: u32 = futures::future::join_all(requests).await.iter().sum();
    assert_eq!(leaders, 1);
    // And those that come later with the old cookie.
    let mut late = browser.clone();
    let renewed = fixture.request(&mut late).await.unwrap();
    assert!(!renewed.refreshed);
    assert_eq!(access_token(&fixture.opened(&late)), "access-1");
    assert_eq!(fixture.used(), ["refresh-0"]);
}

#[tokio::test]
async fn while_the_token_is_valid_only_one_request_waits_for_the_refresh() {
    let (fixture, browser) = signed_in().await;
    fixture.clock.advance(Duration::from_mins(56));
    fixture.provider.gate.forget_permits(1000);
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    let (mut first, mut second) = (browser.clone(), browser.clone());
    let leading = async {
        let renewed = fixture.request(&mut first).await.unwrap();
        assert!(renewed.refreshed && renewed.cookie.is_some());
    };
    let following = async {
        settle().await;
        let renewed = fixture.request(&mut second).await.unwrap();
        assert_eq!(access_token(&renewed.session), "access-0");
        assert!(renewed.cookie.is_none(), "it would overwrite the new one");
        fixture.provider.gate.add_permits(1);
    };
    tokio::join!(leading, following);
    assert_eq!(fixture.used(), ["refresh-0"]);
}

#[tokio::test]
async fn a_refresh_is_completed_although_its_request_went_away() {
    let (fixture, mut browser) = signed_in().await;
    fixture.clock.advance(Duration::from_mins(56));
    fixture.provider.gate.forget_permits(1000);
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    let mut gone = browser.clone();
    {
        let mut request = Box::pin(fixture.request(&mut gone));
        assert!(futures::poll!(&mut request).is_pending());
        settle().await;
    }
    fixture.provider.gate.add_permits(1);
    settle().await;
    let renewed = fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
    assert!(renewed.cookie.is_some());
    assert_eq!(fixture.used(), ["refresh-0"]);
}

#[tokio::test]
async fn old_cookies_pass_until_the_new_token_expires_and_no_refresh_token_is_used_twice() {
    let (fixture, mut browser) = signed_in().await;
    let old = browser.clone();
    fixture.clock.advance(Duration::from_mins(56));
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    fixture.request(&mut browser).await.unwrap();
    fixture.clock.advance(Duration::from_mins(54));
    let renewed = fixture.request(&mut old.clone()).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
    // The result is itself due now: it is refreshed with its own refresh token.
    fixture.clock.advance(Duration::from_mins(2));
    fixture.will_refresh(Ok(nth(&fixture, 2)));
    let renewed = fixture.request(&mut old.clone()).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-2");
    let renewed = fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-2");
    // Nobody came for an hour, so no new token stands in for the old cookie any more.
    fixture.clock.advance(Duration::from_hours(1));
    assert_over(fixture.request(&mut old.clone()).await, Ended::Refused);
    assert_eq!(fixture.used(), ["refresh-0", "refresh-1"]);
    // But the browser with the newest cookie goes on.
    fixture.will_refresh(Ok(nth(&fixture, 3)));
    let renewed = fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-3");
    assert_eq!(fixture.used(), ["refresh-0", "refresh-1", "refresh-2"]);
}

#[tokio::test]
async fn a_reload_keeps_what_was_refreshed() {
    let (fixture, mut browser) = signed_in().await;
    let old = browser.clone();
    fixture.clock.advance(Duration::from_mins(56));
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    fixture.request(&mut browser).await.unwrap();
    let reloaded = fixture.rebuilt(true, |settings| {
        settings.cookie_key = fixture.key(2);
        settings.previous_cookie_key = Some(fixture.key(1));
    });
    let Presented::Open(session) = open(&reloaded, &old.headers(), fixture.now()) else {
        panic!("open");
    };
    let renewed = reloaded
        .renew(session, SiteSecurity::Https, fixture.now())
        .await
        .unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
    assert_eq!(fixture.used(), ["refresh-0"]);
}

#[tokio::test]
async fn what_the_provider_leaves_out_stays_as_it_was() {
    let (fixture, mut browser) = signed_in().await;
    fixture.clock.advance(Duration::from_mins(56));
    let expires_at = Some(fixture.after(Duration::from_hours(1)));
    fixture.will_refresh(Ok(ProviderGrant {
        name: None,
        email: None,
        provider_session: None,
        ..grant(tokens("access-1", expires_at, None, None))
    }));
    fixture.request(&mut browser).await.unwrap();
    let session = fixture.opened(&browser);
    assert_eq!(session.name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(session.email.as_deref(), Some("ada@example.com"));
    assert_eq!(session.provider_session.as_deref(), Some("sid-1"));
    assert_eq!(session.refresh_token().unwrap().expose(), "refresh-0");
    // The refresh token was not rotated, so it is used again.
    fixture.clock.advance(Duration::from_mins(56));
    fixture.will_refresh(Ok(nth(&fixture, 2)));
    fixture.request(&mut browser).await.unwrap();
    assert_eq!(fixture.used(), ["refresh-0", "refresh-0"]);
}

#[tokio::test]
async fn a_refused_refresh_ends_the_session_with_its_access_token_and_is_not_repeated() {
    let (fixture, mut browser) = signed_in().await;
    fixture.clock.advance(Duration::from_mins(56));
    fixture.will_refresh(Err(refused()));
    for _ in 0..3 {
        let renewed = fixture.request(&mut browser).await.unwrap();
        assert_eq!(access_token(&renewed.session), "access-0");
        assert!(renewed.cookie.is_none() && !renewed.refreshed);
    }
    fixture.clock.advance(Duration::from_mins(4));
    for _ in 0..3 {
        assert_over(fixture.request(&mut browser).await, Ended::Refused);
    }
    assert_eq!(fixture.used(), ["refresh-0"]);
    assert_eq!(
        *fixture.observed.0.lock().unwrap(),
        [RefreshResult::Refused]
    );
}

#[tokio::test]
async fn an_invalid_or_foreign_answer_ends_the_session() {
    for answer in [
        Ok(ProviderGrant {
            subject: "auth0|another".into(),
            ..grant(tokens("theirs", None, Some("theirs"), None))
        }),
        Ok(grant(taskcluster(START, Fixture::new().now()))),
        Err(ProviderError::InvalidToken("exp".into())),
    ] {
        let (fixture, mut browser) = signed_in().await;
        fixture.clock.advance(Duration::from_hours(1));
        fixture.will_refresh(answer);
        assert_over(fixture.request(&mut browser).await, Ended::Refused);
        assert_over(fixture.request(&mut browser).await, Ended::Refused);
        assert_eq!(fixture.used().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_provider_is_asked_again_after_a_pause() {
    let (fixture, mut browser) = signed_in().await;
    fixture.clock.advance(Duration::from_mins(56));
    fixture.will_refresh(Err(unavailable()));
    for _ in 0..5 {
        let renewed = fixture.request(&mut browser).await.unwrap();
        assert_eq!(access_token(&renewed.session), "access-0");
    }
    assert_eq!(fixture.used().len(), 1, "it backs off");
    fixture.clock.advance(Duration::from_mins(5));
    fixture.will_refresh(Err(ProviderError::Misconfigured("invalid_client".into())));
    for _ in 0..5 {
        match fixture.request(&mut browser).await {
            Err(RenewError::Misconfigured(cause) | RenewError::Unavailable { cause, .. }) => {
                assert!(!cause.contains("refresh-0"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fixture.used().len(), 2);
    fixture.clock.advance(Duration::from_mins(5));
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    let renewed = fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
    let expected = [
        RefreshResult::Unavailable,
        RefreshResult::Unavailable,
        RefreshResult::Refreshed,
    ];
    assert_eq!(*fixture.observed.0.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_costs_one_request_its_time_limit() {
    let (fixture, browser) = signed_in().await;
    fixture.clock.advance(Duration::from_mins(56));
    fixture.provider.gate.forget_permits(1000);
    let (mut first, mut second) = (browser.clone(), browser.clone());
    let (one, other) = tokio::join!(fixture.request(&mut first), fixture.request(&mut second));
    for renewed in [one.unwrap(), other.unwrap()] {
        assert_eq!(access_token(&renewed.session), "access-0");
    }
    assert_eq!(fixture.used().len(), 1);
}

#[tokio::test]
async fn without_a_refresh_token_the_session_ends_with_its_access_token() {
    let fixture = Fixture::new();
    let expires_at = fixture.after(Duration::from_hours(1));
    let issued = grant(tokens("access", Some(expires_at), None, None));
    let (mut browser, session) = fixture.signed_in(issued).await;
    assert_eq!(session.renew_at, None);
    fixture.clock.advance(Duration::from_mins(59));
    fixture.request(&mut browser).await.unwrap();
    fixture.clock.advance(Duration::from_mins(1));
    assert_over(fixture.request(&mut browser).await, Ended::Credentials);

    // Of a token without an expiry, only its issuer knows.
    let issued = grant(tokens("access", None, Some("refresh"), None));
    let (mut browser, _) = fixture.signed_in(issued).await;
    fixture.clock.advance(Duration::from_hours(7));
    fixture.request(&mut browser).await.unwrap();
    assert!(fixture.used().is_empty());
}

#[tokio::test]
async fn an_access_token_that_its_issuer_refuses_is_renewed_once_in_30_seconds() {
    let (fixture, browser) = signed_in().await;
    let renew_refused = |session: Arc<UserSession>| {
        let now = fixture.now();
        fixture
            .sessions
            .renew_refused(session, SiteSecurity::Https, now)
    };
    let old = fixture.opened(&browser);
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    let (one, other) = tokio::join!(renew_refused(old.clone()), renew_refused(old.clone()));
    let newer = one.unwrap();
    assert!(newer.cookie.is_some());
    for renewed in [other.unwrap(), renew_refused(old.clone()).await.unwrap()] {
        assert_eq!(access_token(&renewed.session), "access-1");
    }
    // The new one is refused as well.
    assert_over(
        renew_refused(newer.session.clone()).await,
        Ended::Credentials,
    );
    assert_eq!(fixture.used(), ["refresh-0"]);
    fixture.clock.advance(secs(30));
    fixture.will_refresh(Ok(nth(&fixture, 2)));
    let renewed = renew_refused(newer.session).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-2");
    // No refresh token, no renewal.
    let issued = grant(tokens("access", None, None, None));
    let (_, session) = fixture.signed_in(issued).await;
    assert_over(renew_refused(session).await, Ended::Credentials);
}

#[tokio::test]
async fn a_session_that_was_signed_out_during_its_refresh_stays_signed_out() {
    let (fixture, mut browser) = signed_in().await;
    fixture.clock.advance(Duration::from_hours(1));
    fixture.provider.gate.forget_permits(1000);
    fixture.will_refresh(Ok(nth(&fixture, 1)));
    let session = fixture.opened(&browser);
    let refreshing = fixture.request(&mut browser);
    let signing_out = async {
        settle().await;
        let now = fixture.now();
        fixture
            .sessions
            .sign_out(Some(&session), &fixture.site, now)
            .await;
        fixture.provider.gate.add_permits(1);
    };
    let (renewed, ()) = tokio::join!(refreshing, signing_out);
    assert_over(renewed, Ended::SignedOut);
    settle().await;
    let mut revoked = fixture.provider.revoked.lock().unwrap().clone();
    revoked.sort();
    assert_eq!(revoked, ["refresh-0", "refresh-1"]);
}

#[tokio::test]
async fn tokens_that_no_longer_fit_end_the_session() {
    let (fixture, mut browser) = signed_in().await;
    fixture.clock.advance(Duration::from_mins(56));
    let large = jwt("a", 4000);
    fixture.will_refresh(Ok(grant(tokens(&large, None, Some("r"), None))));
    assert_over(fixture.request(&mut browser).await, Ended::Credentials);
}

#[tokio::test]
async fn memory_of_refreshes_is_bounded_for_each_user_and_for_all() {
    let (fixture, browser) = signed_in().await;
    let session = fixture.opened(&browser);
    let renewals = renewals::Renewals::default();
    let add = |user: u64, number: u64| {
        fixture.clock.advance(Duration::from_millis(1));
        let mut session = UserSession::clone(&session);
        session.subject = format!("user {user}");
        session.id.0[..8].copy_from_slice(&user.to_be_bytes());
        session.id.0[8..].copy_from_slice(&number.to_be_bytes());
        assert!(renewals.lock().entry(&session, fixture.now()).is_some());
        session
    };
    let first = add(0, 0);
    // One user signs in a thousand times.
    for number in 0..1000 {
        add(1, number);
    }
    assert_eq!(renewals.lock().len(), 17);
    assert!(renewals.lock().get(&first).is_some());
    for user in 2..12_000 {
        add(user, 0);
    }
    assert!(renewals.lock().len() <= 10_000);
    assert!(
        renewals.lock().get(&first).is_none(),
        "the oldest gives way"
    );
}
