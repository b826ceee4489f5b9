//! Signing out, here and by the provider, and sessions whose credentials were rejected.

use std::collections::HashMap;

use super::support::*;
use crate::session::*;

fn usual(fixture: &Fixture) -> ProviderGrant {
    let expires_at = fixture.after(Duration::from_hours(1));
    grant(tokens(
        "access",
        Some(expires_at),
        Some("refresh"),
        Some("id.to.ken"),
    ))
}

fn user(fixture: &Fixture, subject: &str, sid: Option<&str>) -> ProviderGrant {
    ProviderGrant {
        subject: subject.into(),
        provider_session: sid.map(Into::into),
        ..usual(fixture)
    }
}

fn logout_token(fixture: &Fixture, id: &str, subject: Option<&str>, sid: Option<&str>) {
    let token = LogoutToken {
        id: id.into(),
        issued_at: fixture.now().wall,
        accepted_until: fixture.after(Duration::from_mins(2)),
        subject: subject.map(Into::into),
        provider_session: sid.map(Into::into),
    };
    let mut tokens = fixture.provider.logout_tokens.lock().unwrap();
    tokens.insert(id.to_owned(), token);
}

async fn logout(fixture: &Fixture, id: &str) -> Result<(), LogoutTokenError> {
    fixture
        .sessions
        .back_channel_logout(id, fixture.now())
        .await
}

#[tokio::test]
async fn signing_out_ends_the_session_here_and_at_the_provider() {
    let fixture = Fixture::new();
    let (mut browser, session) = fixture.signed_in(usual(&fixture)).await;
    let stolen = browser.clone();
    let signed_out = fixture
        .sessions
        .sign_out(Some(&session), &fixture.site, fixture.now())
        .await;
    browser.take(&signed_out.cookies);
    assert!(browser.0.is_empty());
    let location = signed_out.location.unwrap();
    let sent: HashMap<_, _> = location.query_pairs().into_owned().collect();
    assert!(
        location
            .as_str()
            .starts_with("https://idp.example/logout?x=y&")
    );
    assert_eq!(sent["id_token_hint"], "id.to.ken");
    assert_eq!(sent["client_id"], "client 1");
    assert_eq!(
        sent["post_logout_redirect_uri"],
        "https://app.example/oauth2/logout"
    );
    assert_eq!(sent["state"].len(), 22);
    assert_ended(&fixture.open(&stolen), Ended::SignedOut);
    tokio::task::yield_now().await;
    assert_eq!(*fixture.provider.revoked.lock().unwrap(), ["refresh"]);
    // A reload changes nothing about that, not even with another key.
    let reloaded = fixture.rebuilt(true, |settings| {
        settings.cookie_key = fixture.key(2);
        settings.previous_cookie_key = Some(fixture.key(1));
    });
    assert_ended(
        &open(&reloaded, &stolen.headers(), fixture.now()),
        Ended::SignedOut,
    );
    // The user signs in again.
    fixture.sign_in(&mut browser, usual(&fixture)).await;
    fixture.opened(&browser);
}

#[tokio::test]
async fn signing_out_without_a_session_or_a_logout_page_removes_the_cookie() {
    let fixture = Fixture::new();
    let signed_out = fixture
        .sessions
        .sign_out(None, &fixture.site, fixture.now())
        .await;
    assert_eq!(
        signed_out.cookies,
        [fixture.sessions.removal(SiteSecurity::Https)]
    );
    assert!(
        !signed_out
            .location
            .unwrap()
            .as_str()
            .contains("id_token_hint")
    );
    if let Ok(endpoints) = &mut *fixture.provider.endpoints.lock().unwrap() {
        endpoints.end_session = None;
    }
    let signed_out = fixture
        .sessions
        .sign_out(None, &fixture.site, fixture.now())
        .await;
    assert_eq!(signed_out.location, None);
    *fixture.provider.endpoints.lock().unwrap() =
        Err(ProviderError::Misconfigured("no metadata".into()));
    let (browser, session) = {
        *fixture.provider.endpoints.lock().unwrap() =
            FakeProvider::default().endpoints.into_inner().unwrap();
        fixture.signed_in(usual(&fixture)).await
    };
    *fixture.provider.endpoints.lock().unwrap() =
        Err(ProviderError::Misconfigured("no metadata".into()));
    let signed_out = fixture
        .sessions
        .sign_out(Some(&session), &fixture.site, fixture.now())
        .await;
    assert_eq!(signed_out.location, None);
    assert_ended(&fixture.open(&browser), Ended::SignedOut);
}

#[tokio::test]
async fn the_newest_refresh_token_is_revoked() {
    let fixture = Fixture::new();
    let (mut browser, _) = fixture.signed_in(usual(&fixture)).await;
    let old = fixture.opened(&browser);
    fixture.clock.advance(Duration::from_mins(56));
    let expires_at = Some(fixture.after(Duration::from_hours(1)));
    fixture.will_refresh(Ok(grant(tokens(
        "access-1",
        expires_at,
        Some("refresh-1"),
        None,
    ))));
    fixture.request(&mut browser).await.unwrap();
    fixture
        .sessions
        .sign_out(Some(&old), &fixture.site, fixture.now())
        .await;
    tokio::task::yield_now().await;
    assert_eq!(*fixture.provider.revoked.lock().unwrap(), ["refresh-1"]);
    assert_ended(&fixture.open(&browser), Ended::SignedOut);
}

#[tokio::test]
async fn the_provider_ends_the_session_with_its_sid() {
    let fixture = Fixture::new();
    let (one, _) = fixture.signed_in(user(&fixture, "ada", Some("s1"))).await;
    let (two, _) = fixture.signed_in(user(&fixture, "ada", Some("s2"))).await;
    logout_token(&fixture, "t1", Some("ada"), Some("s1"));
    logout(&fixture, "t1").await.unwrap();
    assert_ended(&fixture.open(&one), Ended::SignedOut);
    fixture.opened(&two);
}

/// The provider says which session it means, but did not when the user signed in.
#[tokio::test]
async fn a_sid_that_no_id_token_had_ends_the_sessions_without_one() {
    let fixture = Fixture::new();
    let (unnamed, _) = fixture.signed_in(user(&fixture, "ada", None)).await;
    let (named, _) = fixture.signed_in(user(&fixture, "ada", Some("s2"))).await;
    let (other, _) = fixture.signed_in(user(&fixture, "grace", None)).await;
    fixture.clock.advance(secs(1));
    logout_token(&fixture, "t1", Some("ada"), Some("s1"));
    logout(&fixture, "t1").await.unwrap();
    assert_ended(&fixture.open(&unnamed), Ended::SignedOut);
    fixture.opened(&named);
    fixture.opened(&other);
    fixture.clock.advance(secs(1));
    let (again, _) = fixture.signed_in(user(&fixture, "ada", None)).await;
    fixture.opened(&again);
}

#[tokio::test]
async fn the_provider_ends_all_sessions_of_a_user_until_the_next_sign_in() {
    let fixture = Fixture::new();
    let (one, _) = fixture.signed_in(user(&fixture, "ada", Some("s1"))).await;
    let (two, _) = fixture.signed_in(user(&fixture, "ada", None)).await;
    let (other, _) = fixture.signed_in(user(&fixture, "grace", None)).await;
    fixture.clock.advance(secs(1));
    logout_token(&fixture, "t1", Some("ada"), None);
    logout(&fixture, "t1").await.unwrap();
    assert_ended(&fixture.open(&one), Ended::SignedOut);
    assert_ended(&fixture.open(&two), Ended::SignedOut);
    fixture.opened(&other);
    fixture.clock.advance(secs(1));
    let (again, _) = fixture.signed_in(user(&fixture, "ada", Some("s1"))).await;
    fixture.opened(&again);
    // A replay does not sign the user out again.
    let replayed = logout(&fixture, "t1").await.unwrap_err();
    assert!(replayed.to_string().contains("used before"), "{replayed}");
    fixture.opened(&again);
}

#[tokio::test]
async fn invalid_logout_tokens_end_nothing() {
    let fixture = Fixture::new();
    let (browser, _) = fixture.signed_in(user(&fixture, "ada", Some("s1"))).await;
    logout(&fixture, "forged").await.unwrap_err();
    logout_token(&fixture, "empty", None, None);
    logout(&fixture, "empty").await.unwrap_err();
    fixture.opened(&browser);
}

#[tokio::test]
async fn one_user_cannot_displace_what_is_remembered_about_others() {
    let fixture = Fixture::new();
    let (ada, session) = fixture.signed_in(user(&fixture, "ada", None)).await;
    fixture
        .sessions
        .sign_out(Some(&session), &fixture.site, fixture.now())
        .await;
    let (first, session) = fixture.signed_in(user(&fixture, "eve", None)).await;
    let (mut latest, mut session) = (first.clone(), session);
    for _ in 0..100 {
        fixture
            .sessions
            .sign_out(Some(&session), &fixture.site, fixture.now())
            .await;
        fixture.clock.advance(secs(1));
        (latest, session) = fixture.signed_in(user(&fixture, "eve", None)).await;
    }
    assert_ended(&fixture.open(&ada), Ended::SignedOut);
    assert_ended(&fixture.open(&first), Ended::SignedOut);
    fixture.opened(&latest);
}

#[tokio::test]
async fn a_taskcluster_session_ends_with_its_credentials() {
    let fixture = Fixture::with(|settings| settings.kind = SessionKind::Taskcluster);
    let expires_at = fixture.after(Duration::from_hours(5));
    let issued = || ProviderGrant {
        provider_session: None,
        ..grant(taskcluster(expires_at, fixture.now()))
    };
    let (mut browser, session) = fixture.signed_in(issued()).await;
    let (second, _) = fixture.signed_in(issued()).await;
    let renewed = fixture.request(&mut browser).await.unwrap();
    assert!(renewed.cookie.is_none());
    // The upstream rejects them.
    assert!(!fixture.sessions.reject_credentials(&session, fixture.now()));
    assert_ended(&fixture.open(&browser), Ended::Credentials);
    fixture.opened(&second);
    fixture.clock.advance(Duration::from_hours(5));
    assert_ended(&fixture.open(&second), Ended::Credentials);
}

/// Otherwise a browser would go round between the upstream and a provider that asks nothing.
#[tokio::test]
async fn signing_in_again_and_again_is_known_to_be_in_vain() {
    let fixture = Fixture::with(|settings| settings.kind = SessionKind::Taskcluster);
    let expires_at = fixture.after(Duration::from_hours(5));
    let issued = |subject: &str| ProviderGrant {
        subject: subject.into(),
        provider_session: None,
        ..grant(taskcluster(expires_at, fixture.now()))
    };
    let mut found = Vec::new();
    for _ in 0..3 {
        let (_, session) = fixture.signed_in(issued("ada")).await;
        fixture.clock.advance(secs(2));
        // Requests in parallel count once.
        fixture.sessions.reject_credentials(&session, fixture.now());
        found.push(fixture.sessions.reject_credentials(&session, fixture.now()));
    }
    assert_eq!(found, [false, false, true]);
    let (_, other) = fixture.signed_in(issued("grace")).await;
    assert!(!fixture.sessions.reject_credentials(&other, fixture.now()));
    // Credentials that worked for a while are another matter.
    let (_, later) = fixture.signed_in(issued("ada")).await;
    fixture.clock.advance(secs(60));
    assert!(!fixture.sessions.reject_credentials(&later, fixture.now()));
}
