//! Sign-ins: the authorization request, the callback, and attacks on both.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::support::*;
use crate::session::*;

fn usual(fixture: &Fixture) -> ProviderGrant {
    let expires_at = fixture.after(Duration::from_hours(1));
    grant(tokens(
        "access",
        Some(expires_at),
        Some("refresh"),
        Some("id"),
    ))
}

fn kind(error: &SignInError) -> &'static str {
    match error {
        SignInError::UnknownAttempt => "unknown",
        SignInError::Expired => "expired",
        SignInError::IssuerMismatch => "iss",
        SignInError::Denied(code) => code,
        SignInError::Malformed => "malformed",
        SignInError::Provider(_) => "provider",
        SignInError::Unavailable(_) => "unavailable",
        SignInError::Token(_) => "token",
        SignInError::TooLarge(_) | SignInError::TooLargeToShare(_) => "too large",
        SignInError::StoreUnavailable(_) => "store unavailable",
        SignInError::Randomness => "randomness",
    }
}

async fn refused(fixture: &Fixture, browser: &Browser, query: &str) -> &'static str {
    match fixture.complete(browser, query).await {
        Ok(_) => "accepted",
        Err(error) => kind(&error),
    }
}

#[tokio::test]
async fn a_sign_in_returns_to_where_the_user_wanted_to_go() {
    let fixture = Fixture::new();
    let mut browser = Browser::default();
    let sent = fixture.begin(&mut browser, "/deep/link?a=b%20c").await;
    for (name, value) in [
        ("tenant", "t"),
        ("response_type", "code"),
        ("client_id", "client 1"),
        ("redirect_uri", "https://app.example/oauth2/callback"),
        ("scope", "openid offline_access"),
        ("audience", "urn:api"),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
    ] {
        assert_eq!(sent[name], value, "{name}");
    }
    fixture.will_redeem(usual(&fixture));
    let query = format!("code=the-code&state={}", sent["state"]);
    let signed_in = fixture.complete(&browser, &query).await.unwrap();
    assert_eq!(signed_in.return_to, "/deep/link?a=b%20c");
    let codes = fixture.provider.codes.lock().unwrap();
    assert_eq!(codes[0].code.expose(), "the-code");
    assert_eq!(codes[0].nonce, sent["nonce"]);
    assert_eq!(codes[0].redirect_uri.as_str(), sent["redirect_uri"]);
    let hash = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        codes[0].code_verifier.expose().as_bytes(),
    );
    let challenge = URL_SAFE_NO_PAD.encode(hash);
    assert_eq!(challenge, sent["code_challenge"]);
    browser.take(&signed_in.cookies);
    assert_eq!(
        browser.0.keys().collect::<Vec<_>>(),
        [NAME],
        "the attempt is removed"
    );
    assert_eq!(fixture.opened(&browser).subject, "auth0|user");
}

#[tokio::test]
async fn taskcluster_gets_neither_pkce_nor_nonce_nor_consent() {
    let fixture = Fixture::with(|settings| {
        settings.kind = SessionKind::Taskcluster;
        settings.scopes = vec!["queue:*".into(), "assume:x".into()];
        settings.audience = None;
    });
    let sent = fixture.begin(&mut Browser::default(), "/").await;
    let mut names: Vec<_> = sent.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "client_id",
        "redirect_uri",
        "response_type",
        "scope",
        "state",
        "tenant",
    ];
    assert_eq!(names, expected);
    assert_eq!(sent["scope"], "queue:* assume:x");
}

#[tokio::test]
async fn the_endpoints_themselves_and_other_sites_are_no_destination() {
    let fixture = Fixture::new();
    for to in [
        "/oauth2/login?return_to=/",
        "/oauth2/logout",
        "//evil.example",
        "https://evil.example",
        "",
    ] {
        let mut browser = Browser::default();
        let sent = fixture.begin(&mut browser, to).await;
        fixture.will_redeem(usual(&fixture));
        let query = format!("code=c&state={}", sent["state"]);
        assert_eq!(
            fixture.complete(&browser, &query).await.unwrap().return_to,
            "/"
        );
    }
}

#[tokio::test]
async fn a_callback_is_accepted_once_and_only_in_the_browser_that_began() {
    let fixture = Fixture::new();
    let (mut browser, mut attacker) = (Browser::default(), Browser::default());
    let sent = fixture.begin(&mut browser, "/").await;
    let theirs = fixture.begin(&mut attacker, "/").await;
    let query = |state: &str| format!("code=c&state={state}");
    // Login CSRF: the attacker's callback in the victim's browser, and the other way round.
    assert_eq!(
        refused(&fixture, &browser, &query(&theirs["state"])).await,
        "unknown"
    );
    assert_eq!(
        refused(&fixture, &attacker, &query(&sent["state"])).await,
        "unknown"
    );
    assert_eq!(
        refused(&fixture, &Browser::default(), &query(&sent["state"])).await,
        "unknown"
    );
    for query in [
        "",
        "code=c",
        "code=c&state=",
        "state=x",
        "error=access_denied",
        "code=c&state=%00",
    ] {
        assert_eq!(
            refused(&fixture, &browser, query).await,
            "unknown",
            "{query}"
        );
    }
    // The attacker's attempt under the name of the victim's, as a sibling domain could inject it.
    let mut injected = browser.clone();
    let name = injected.0.keys().next().unwrap().clone();
    let value = attacker.0.values().next().unwrap().clone();
    injected.0.insert(name, value);
    for state in [&sent["state"], &theirs["state"]] {
        assert_eq!(refused(&fixture, &injected, &query(state)).await, "unknown");
    }
    // None of that has used the attempt up.
    fixture.will_redeem(usual(&fixture));
    assert_eq!(
        refused(&fixture, &browser, &query(&sent["state"])).await,
        "accepted"
    );
    assert_eq!(
        refused(&fixture, &browser, &query(&sent["state"])).await,
        "unknown"
    );
    // Nor does a reload forget that.
    let sessions = fixture.rebuilt(true, |settings| settings.idle = Duration::from_hours(1));
    let headers = browser.headers();
    let again = sessions
        .complete(
            &query(&sent["state"]),
            &fixture.site,
            &headers,
            fixture.now(),
        )
        .await;
    assert_eq!(kind(&again.unwrap_err()), "unknown");
}

#[tokio::test]
async fn a_duplicated_attempt_cookie_is_refused() {
    let fixture = Fixture::new();
    let mut browser = Browser::default();
    let sent = fixture.begin(&mut browser, "/").await;
    let (name, value) = browser.0.iter().next().unwrap();
    let headers = cookies(&[&format!("{name}=x; {name}={value}")]);
    let query = format!("code=c&state={}", sent["state"]);
    let result = fixture
        .sessions
        .complete(&query, &fixture.site, &headers, fixture.now())
        .await;
    assert_eq!(kind(&result.unwrap_err()), "unknown");
}

#[tokio::test]
async fn an_attempt_belongs_to_one_site_and_one_session() {
    let fixture = Fixture::new();
    let mut browser = Browser::default();
    let sent = fixture.begin(&mut browser, "/").await;
    let query = format!("code=c&state={}", sent["state"]);
    let other_site = Site {
        origin: "https://other.example".into(),
        security: SiteSecurity::Https,
    };
    let headers = browser.headers();
    let result = fixture
        .sessions
        .complete(&query, &other_site, &headers, fixture.now())
        .await;
    assert_eq!(kind(&result.unwrap_err()), "unknown");
    // Mix-up: another session with the same key gets the callback.
    let other = fixture.rebuilt(false, |settings| settings.name = "other".into());
    let renamed: Vec<_> = browser
        .0
        .iter()
        .map(|(name, value)| format!("{}={value}", name.replace("-web-", "-other-")))
        .collect();
    let headers = cookies(&[&renamed.join("; ")]);
    let result = other
        .complete(&query, &fixture.site, &headers, fixture.now())
        .await;
    assert_eq!(kind(&result.unwrap_err()), "unknown");
}

#[tokio::test]
async fn errors_in_a_callback_are_told_apart_and_end_the_attempt() {
    let fixture = Fixture::new();
    for (rest, iss_required, expected) in [
        (
            "error=access_denied&error_description=%3Cscript%3E",
            false,
            "access_denied",
        ),
        ("error=%3Cscript%3E", false, "a non-standard error code"),
        ("code=c&iss=https%3A%2F%2Fevil.example%2F", false, "iss"),
        ("code=c", true, "iss"),
        ("code=c&code=d", false, "malformed"),
        ("code=", false, "malformed"),
        ("x=y", false, "malformed"),
        ("code=c&iss=https%3A%2F%2Fidp.example%2F", true, "accepted"),
    ] {
        if let Ok(endpoints) = &mut *fixture.provider.endpoints.lock().unwrap() {
            endpoints.iss_required = iss_required;
        }
        let mut browser = Browser::default();
        let sent = fixture.begin(&mut browser, "/").await;
        let query = format!("{rest}&state={}", sent["state"]);
        if expected == "accepted" {
            fixture.will_redeem(usual(&fixture));
        }
        assert_eq!(
            refused(&fixture, &browser, &query).await,
            expected,
            "{rest}"
        );
        let right = format!(
            "code=c&iss=https%3A%2F%2Fidp.example%2F&state={}",
            sent["state"]
        );
        assert_eq!(
            refused(&fixture, &browser, &right).await,
            "unknown",
            "{rest}"
        );
    }
    let mut browser = Browser::default();
    let sent = fixture.begin(&mut browser, "/").await;
    let twice = format!("code=c&state={0}&state={0}", sent["state"]);
    assert_eq!(refused(&fixture, &browser, &twice).await, "malformed");
}

#[tokio::test]
async fn an_attempt_lasts_ten_minutes_by_any_clock() {
    let fixture = Fixture::new();
    let mut browser = Browser::default();
    let sent = fixture.begin(&mut browser, "/").await;
    let query = format!("code=c&state={}", sent["state"]);
    fixture.clock.set_wall(START.minus(Duration::from_mins(6)));
    assert_eq!(
        refused(&fixture, &browser, &query).await,
        "unknown",
        "from the future"
    );
    fixture.clock.set_wall(START.plus(Duration::from_mins(10)));
    assert_eq!(refused(&fixture, &browser, &query).await, "expired");
    let sent = fixture.begin(&mut browser, "/").await;
    fixture.clock.advance(secs(599));
    fixture.will_redeem(usual(&fixture));
    let query = format!("code=c&state={}", sent["state"]);
    assert_eq!(refused(&fixture, &browser, &query).await, "accepted");
}

#[tokio::test]
async fn tabs_sign_in_independently_and_the_oldest_of_more_than_five_gives_way() {
    let fixture = Fixture::new();
    let mut browser = Browser::default();
    let mut tabs = Vec::new();
    for tab in 0..8 {
        tabs.push(fixture.begin(&mut browser, &format!("/tab{tab}")).await);
        fixture.clock.advance(secs(1));
        assert_eq!(browser.0.len(), (tab + 1).min(5));
    }
    for (tab, sent) in tabs.iter().enumerate().rev() {
        let query = format!("code=c&state={}", sent["state"]);
        if tab < 3 {
            assert_eq!(refused(&fixture, &browser, &query).await, "unknown");
            continue;
        }
        fixture.will_redeem(usual(&fixture));
        let signed_in = fixture.complete(&browser, &query).await.unwrap();
        assert_eq!(signed_in.return_to, format!("/tab{tab}"));
        browser.take(&signed_in.cookies);
    }
    assert_eq!(browser.0.keys().collect::<Vec<_>>(), [NAME]);
}

#[tokio::test]
async fn attempts_that_are_over_and_junk_in_their_place_are_removed() {
    let fixture = Fixture::new();
    let mut browser = Browser::default();
    for _ in 0..3 {
        fixture.begin(&mut browser, "/").await;
    }
    fixture.clock.advance(Duration::from_mins(10));
    for junk in 0..30 {
        let name = format!("__Host-hawkgate-web-signin-junk{junk:04}");
        browser.0.insert(name, "x".into());
    }
    let sent = fixture.begin(&mut browser, "/").await;
    fixture.begin(&mut browser, "/").await;
    fixture.begin(&mut browser, "/").await;
    assert_eq!(browser.0.len(), 3, "{:?}", browser.0.keys());
    fixture.will_redeem(usual(&fixture));
    let query = format!("code=c&state={}", sent["state"]);
    assert_eq!(refused(&fixture, &browser, &query).await, "accepted");
}

#[tokio::test]
async fn each_sign_in_is_a_new_session() {
    let fixture = Fixture::new();
    let (mut browser, first) = fixture.signed_in(usual(&fixture)).await;
    let second = fixture.sign_in(&mut browser, usual(&fixture)).await;
    assert!(first.id != second.id);
    assert!(fixture.opened(&browser).id == second.id);
    // Nothing that a callback's request brings decides the id.
    let third = fixture.sign_in(&mut browser, usual(&fixture)).await;
    assert!(![first.id, second.id].contains(&third.id));
}

#[tokio::test]
async fn failures_of_the_provider_are_told_apart() {
    use ProviderError as E;
    let fixture = Fixture::new();
    let unavailable = || E::Unavailable {
        cause: "down".into(),
        retry_after: None,
    };
    for (error, expected) in [
        (E::Refused("invalid_grant".into()), "provider"),
        (E::Misconfigured("invalid_client".into()), "provider"),
        (E::InvalidToken("nonce".into()), "token"),
        (unavailable(), "unavailable"),
    ] {
        let mut browser = Browser::default();
        let sent = fixture.begin(&mut browser, "/").await;
        fixture
            .provider
            .redeems
            .lock()
            .unwrap()
            .push_back(Err(error));
        let query = format!("code=c&state={}", sent["state"]);
        assert_eq!(refused(&fixture, &browser, &query).await, expected);
    }
    *fixture.provider.endpoints.lock().unwrap() = Err(unavailable());
    let headers = cookies(&[]);
    let begun = fixture
        .sessions
        .begin("/", &fixture.site, &headers, fixture.now())
        .await;
    assert_eq!(kind(&begun.unwrap_err()), "unavailable");
}

#[tokio::test]
async fn the_longest_destination_fits_into_an_attempt() {
    let fixture = Fixture::new();
    let longest = format!("/{}", "a".repeat(1023));
    let mut browser = Browser::default();
    let sent = fixture.begin(&mut browser, &longest).await;
    assert!(browser.0.values().all(|value| value.len() < 2200));
    fixture.will_redeem(usual(&fixture));
    let query = format!("code=c&state={}", sent["state"]);
    assert_eq!(
        fixture.complete(&browser, &query).await.unwrap().return_to,
        longest
    );
}
