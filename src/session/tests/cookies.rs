//! The session's cookie: what it holds, when it opens, and attacks on it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;

use super::support::*;
use crate::clock::UnixMillis;
use crate::session::*;

fn usual(fixture: &Fixture) -> ProviderGrant {
    let expires_at = fixture.after(Duration::from_hours(1));
    let (access, id) = (jwt("ACCESS-SECRET", 900), jwt("ID-SECRET", 900));
    let refresh = "v1.REFRESH-SECRET_x-y~z";
    grant(tokens(&access, Some(expires_at), Some(refresh), Some(&id)))
}

async fn signed_in() -> (Fixture, Browser, Arc<UserSession>) {
    let fixture = Fixture::new();
    let (browser, session) = fixture.signed_in(usual(&fixture)).await;
    (fixture, browser, session)
}

fn assert_same(one: &UserSession, other: &UserSession) {
    let public = |s: &UserSession| {
        let texts = (s.subject.clone(), s.name.clone(), s.email.clone());
        let times = (s.signed_in_at, s.expires_at, s.idle_expires_at, s.renew_at);
        (
            s.id.0,
            s.generation,
            texts,
            s.provider_session.clone(),
            times,
        )
    };
    assert_eq!(public(one), public(other));
    match (&one.grant, &other.grant) {
        (
            SessionGrant::Oidc {
                access_token,
                access_token_expires_at,
                refresh_token,
                id_token,
            },
            SessionGrant::Oidc {
                access_token: access_token2,
                access_token_expires_at: access_token_expires_at2,
                refresh_token: refresh_token2,
                id_token: id_token2,
            },
        ) => {
            assert_eq!(access_token.expose(), access_token2.expose());
            assert_eq!(access_token_expires_at, access_token_expires_at2);
            assert_eq!(refresh_token, refresh_token2);
            assert_eq!(id_token, id_token2);
        }
        (
            SessionGrant::Taskcluster {
                credentials,
                expires_at,
                ..
            },
            SessionGrant::Taskcluster {
                credentials: credentials2,
                expires_at: expires_at2,
                ..
            },
        ) => {
            assert_eq!(expires_at, expires_at2);
            assert_eq!(credentials.client_id, credentials2.client_id);
            assert_eq!(credentials.access_token, credentials2.access_token);
            assert_eq!(credentials.certificate, credentials2.certificate);
            assert_eq!(
                credentials.authorized_scopes,
                credentials2.authorized_scopes
            );
        }
        _ => panic!("another kind"),
    }
}

#[tokio::test]
async fn a_cookie_holds_the_whole_session() {
    let (fixture, browser, session) = signed_in().await;
    assert_eq!(browser.0.keys().collect::<Vec<_>>(), [NAME]);
    assert_same(&session, &fixture.opened(&browser));

    let expires_at = fixture.after(Duration::from_hours(30));
    let grant = ProviderGrant {
        grant: taskcluster(expires_at, fixture.now()),
        subject: "mozilla/web-abc123".into(),
        name: None,
        email: None,
        provider_session: None,
    };
    let (browser, session) = fixture.signed_in(grant).await;
    assert_same(&session, &fixture.opened(&browser));
    assert!(
        matches!(&session.grant, SessionGrant::Taskcluster { lease, .. }
        if lease.usable_until() <= expires_at)
    );
}

#[tokio::test]
async fn cookies_have_the_attributes_that_keep_them_safe() {
    let fixture = Fixture::new();
    let headers = Browser::default().headers();
    let begun = fixture
        .sessions
        .begin("/", &fixture.site, &headers, fixture.now())
        .await
        .unwrap();
    let text = begun.cookies[0].as_str();
    assert!(text.starts_with("__Host-hawkgate-web-signin-"), "{text}");
    assert!(
        text.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"),
        "{text}"
    );
    let removal = fixture.sessions.removal(SiteSecurity::Https);
    assert_eq!(
        removal.as_str(),
        "__Host-hawkgate-web=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
    );
    let removal = fixture.sessions.removal(SiteSecurity::LoopbackHttp);
    assert_eq!(
        removal.as_str(),
        "hawkgate-web=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
    );
    let (_, session) = fixture.signed_in(usual(&fixture)).await;
    let cookie = fixture
        .sessions
        .inner
        .cookie(&session, SiteSecurity::Https, fixture.now());
    let cookie = cookie.unwrap();
    assert!(
        cookie.as_str().contains("; Max-Age=28800; "),
        "the idle limit"
    );
}

#[tokio::test]
async fn debug_output_shows_no_secret() {
    let (fixture, browser, session) = signed_in().await;
    let mut memo = SessionMemo::default();
    let presented = fixture
        .sessions
        .open(
            &browser.headers(),
            SiteSecurity::Https,
            fixture.now(),
            &mut memo,
        )
        .await;
    let cookie = fixture
        .sessions
        .inner
        .cookie(&session, SiteSecurity::Https, fixture.now());
    let cookie = cookie.unwrap();
    let expires_at = fixture.after(Duration::from_hours(1));
    let credentials = grant(taskcluster(expires_at, fixture.now()));
    let headers = browser.headers();
    let begun = fixture
        .sessions
        .begin("/", &fixture.site, &headers, fixture.now())
        .await
        .unwrap();
    let debug = format!(
        "{presented:?} {memo:?} {cookie:?} {session:?} {credentials:?} {:?} {:#?} {:?}",
        begun.cookies, fixture.sessions, session.id
    );
    let value = &browser.0[NAME];
    let part = &value[value.len() / 2..value.len() / 2 + 20];
    let encoded = URL_SAFE_NO_PAD.encode("ACCESS-SECRE");
    let attempt = begun.cookies[0].as_str().split_once('=').unwrap().1;
    let id = format!("{:?}", session.id.0);
    for secret in [
        "REFRESH-SECRET",
        "tc-access-token",
        part,
        &encoded,
        &attempt[..20],
        &id,
    ] {
        assert!(!debug.contains(secret), "{secret} in {debug}");
    }
    assert!(
        debug.contains("SetCookie(\"__Host-hawkgate-web\", [redacted])"),
        "{debug}"
    );
}

#[tokio::test]
async fn a_cookie_that_was_changed_in_one_bit_does_not_open() {
    let (fixture, browser, _) = signed_in().await;
    let value = &browser.0[NAME];
    let bytes = URL_SAFE_NO_PAD.decode(value).unwrap();
    for index in 0..bytes.len() {
        for bit in 0..8 {
            // All bits of the header and the tag, and some of what is between them.
            if (40..bytes.len() - 32).contains(&index) && index % 16 != bit {
                continue;
            }
            let mut changed = bytes.clone();
            changed[index] ^= 1 << bit;
            let field = format!("{NAME}={}", URL_SAFE_NO_PAD.encode(changed));
            let presented = open(&fixture.sessions, &cookies(&[&field]), fixture.now());
            assert_ended(&presented, Ended::Invalid);
        }
    }
}

#[tokio::test]
async fn a_cookie_that_was_cut_or_extended_does_not_open() {
    let (fixture, browser, _) = signed_in().await;
    let value = browser.0[NAME].as_str();
    let mut values: Vec<String> = (0..value.len()).map(|end| value[..end].into()).collect();
    values.extend((1..value.len()).map(|start| value[start..].into()));
    for suffix in ["A", "=", "==", "AAAA", " A", "%00", ".", "\"", value] {
        values.push(format!("{value}{suffix}"));
    }
    values.push(format!("\"{value}\""));
    values.push(format!("{}{value}", "A".repeat(4)));
    values.push("A".repeat(4096));
    values.push("A".repeat(30_000));
    for value in values {
        let headers = cookies(&[&format!("{NAME}={value}")]);
        let presented = open(&fixture.sessions, &headers, fixture.now());
        assert_ended(&presented, Ended::Invalid);
    }
}

/// A sibling domain can set cookies for the whole domain, though none with `__Host-`; which of two a
/// browser sends first is up to it. Neither wins.
#[tokio::test]
async fn an_injected_cookie_never_wins() {
    let (fixture, browser, session) = signed_in().await;
    let (attacker, _) = fixture.signed_in(usual(&fixture)).await;
    let (mine, theirs) = (&browser.0[NAME], &attacker.0[NAME]);
    let (mine, theirs) = (format!("{NAME}={mine}"), format!("{NAME}={theirs}"));
    let twice = [
        vec![format!("{mine}; {theirs}")],
        vec![format!("{theirs}; {mine}")],
        vec![mine.clone(), theirs.clone()],
        vec![theirs.clone(), mine.clone()],
        vec![format!("{mine}; a=b; {NAME}=")],
        vec![format!("{NAME}=; {mine}")],
        vec![format!("{mine};{NAME} = x")],
        vec![mine.clone(), "a=b".into(), mine.clone()],
    ];
    for fields in twice {
        let fields: Vec<_> = fields.iter().map(String::as_str).collect();
        let presented = open(&fixture.sessions, &cookies(&fields), fixture.now());
        assert_ended(&presented, Ended::Invalid);
    }
    let plain = theirs.replace("__Host-", "");
    for other in [
        &plain,
        &theirs.replace("__Host-", "__Secure-"),
        &theirs.replace("__Host-", "__host-"),
        &format!("{NAME}x=1"),
        &format!("x{NAME}=1"),
        "=",
        "",
        NAME,
    ] {
        let headers = cookies(&[&format!("{other}; {mine}; {other}")]);
        match open(&fixture.sessions, &headers, fixture.now()) {
            Presented::Open(opened) => assert!(opened.id == session.id),
            refused => panic!("{other}: {refused:?}"),
        }
        let alone = open(&fixture.sessions, &cookies(&[other]), fixture.now());
        assert!(matches!(alone, Presented::None), "{other}: {alone:?}");
    }
    // HTTP/2 splits the list.
    let split = open(
        &fixture.sessions,
        &cookies(&["a=b", &mine, "c=d"]),
        fixture.now(),
    );
    assert!(matches!(split, Presented::Open(_)));
}

#[tokio::test]
async fn on_loopback_http_the_cookie_has_no_prefix_and_duplicates_are_refused() {
    let mut fixture = Fixture::new();
    fixture.site = Site {
        origin: "http://localhost:8080".into(),
        security: SiteSecurity::LoopbackHttp,
    };
    let (browser, _) = fixture.signed_in(usual(&fixture)).await;
    assert_eq!(browser.0.keys().collect::<Vec<_>>(), ["hawkgate-web"]);
    let open = |headers: &http::HeaderMap| {
        let mut memo = SessionMemo::default();
        let now = fixture.now();
        fixture
            .sessions
            .open(headers, SiteSecurity::LoopbackHttp, now, &mut memo)
            .now_or_never()
            .unwrap()
    };
    assert!(matches!(open(&browser.headers()), Presented::Open(_)));
    let pair = format!("hawkgate-web={}", browser.0["hawkgate-web"]);
    assert_ended(
        &open(&cookies(&[&format!("{pair}; {pair}")])),
        Ended::Invalid,
    );
}

#[tokio::test]
async fn a_cookie_opens_only_as_what_it_was_sealed() {
    let (fixture, browser, _) = signed_in().await;
    let mut other = Browser::default();
    fixture.begin(&mut other, "/").await;
    let attempt = other.0.values().next().unwrap();
    let as_session = cookies(&[&format!("{NAME}={attempt}")]);
    assert_ended(
        &open(&fixture.sessions, &as_session, fixture.now()),
        Ended::Invalid,
    );
    // And the other way round.
    let (name, _) = other.0.iter().next().unwrap();
    let as_attempt = cookies(&[&format!("{name}={}", browser.0[NAME])]);
    let begun = fixture
        .sessions
        .begin("/", &fixture.site, &as_attempt, fixture.now())
        .await;
    assert_eq!(
        begun.unwrap().cookies.len(),
        2,
        "it is removed like any junk"
    );

    let same_key: [fn(&mut SessionSettings); 3] = [
        |settings| settings.name = "other".into(),
        |settings| settings.provider = "https://other.example/".into(),
        |settings| settings.client_id = "client 2".into(),
    ];
    for change in same_key {
        let sessions = fixture.rebuilt(false, change);
        let name = sessions.inner.names.session(SiteSecurity::Https);
        let headers = cookies(&[&format!("{name}={}", browser.0[NAME])]);
        assert_ended(&open(&sessions, &headers, fixture.now()), Ended::Invalid);
    }
}

#[tokio::test]
async fn keys_are_rotated_without_signing_anybody_out() {
    let (fixture, browser, _) = signed_in().await;
    let (old, new) = (fixture.key(1), fixture.key(2));
    let rotating = fixture.rebuilt(false, |settings| {
        settings.cookie_key = new.clone();
        settings.previous_cookie_key = Some(old.clone());
    });
    let Presented::Open(session) = open(&rotating, &browser.headers(), fixture.now()) else {
        panic!("the previous key opens");
    };
    let cookie = rotating
        .inner
        .cookie(&session, SiteSecurity::Https, fixture.now())
        .unwrap();
    let mut moved = Browser::default();
    moved.take(&[cookie]);
    let rotated = fixture.rebuilt(false, |settings| settings.cookie_key = new.clone());
    let presented = open(&rotated, &moved.headers(), fixture.now());
    assert!(
        matches!(presented, Presented::Open(_)),
        "sealed with the new key"
    );
    assert_ended(
        &open(&rotated, &browser.headers(), fixture.now()),
        Ended::Invalid,
    );
    assert_ended(&fixture.open(&moved), Ended::Invalid);
}

#[tokio::test]
async fn common_tokens_fit_and_what_does_not_fit_is_refused_with_its_size() {
    let fixture = Fixture::new();
    let expires_at = Some(fixture.after(Duration::from_hours(1)));
    // Auth0: opaque refresh token. Keycloak: three JWTs.
    for (access, refresh, id) in [
        (1100, "v1.".to_owned() + &"r".repeat(60), 1000),
        (1300, jwt("r", 750), 1150),
    ] {
        let (access, id) = (jwt("a", access), jwt("i", id));
        let tokens = tokens(&access, expires_at, Some(&refresh), Some(&id));
        let (browser, session) = fixture.signed_in(grant(tokens)).await;
        assert_same(&session, &fixture.opened(&browser));
    }
    // Without the ID token it fits.
    let (access, id) = (jwt("a", 2000), jwt("i", 2000));
    let (browser, _) = fixture
        .signed_in(grant(tokens(&access, expires_at, Some("r"), Some(&id))))
        .await;
    let opened = fixture.opened(&browser);
    assert_eq!(access_token(&opened), access);
    assert_eq!(opened.id_token(), None);
    // The access token alone does not.
    let mut browser = Browser::default();
    let sent = fixture.begin(&mut browser, "/").await;
    fixture.will_redeem(grant(tokens(&jwt("a", 4000), expires_at, None, None)));
    let query = format!("code=c&state={}", sent["state"]);
    let error = fixture.complete(&browser, &query).await.unwrap_err();
    let SignInError::TooLarge(size) = error else {
        panic!("{error}")
    };
    assert!((4097..4500).contains(&size), "{size}");
    let text = error.to_string();
    assert!(
        text.contains(&size.to_string()) && text.contains("4096"),
        "{text}"
    );
}

#[tokio::test]
async fn a_session_ends_when_it_is_not_used_and_at_its_lifetime_anyway() {
    let (fixture, mut browser, session) = signed_in().await;
    let minute = Duration::from_mins(1);
    // Used every 23 minutes, the cookie is renewed at every second use; idle / 20 is 24 minutes.
    let mut renewals = 0;
    let mut uses = 0;
    fixture.clock.advance(Duration::from_mins(23));
    while fixture.now().wall < session.expires_at {
        let opened = fixture.opened(&browser);
        assert_eq!(opened.expires_at, session.expires_at);
        let renewed = fixture
            .sessions
            .inner
            .keep_alive(opened, SiteSecurity::Https, fixture.now())
            .await;
        browser.take(renewed.cookie.as_slice());
        renewals += u32::from(renewed.cookie.is_some());
        uses += 1;
        fixture.clock.advance(Duration::from_mins(23));
    }
    assert!(
        renewals * 2 <= uses && renewals * 2 + 50 > uses,
        "{renewals} of {uses}"
    );
    assert_ended(&fixture.open(&browser), Ended::Lifetime);

    let (fixture, browser, session) = signed_in().await;
    fixture
        .clock
        .advance(fixture.settings.idle.saturating_sub(minute));
    assert_eq!(
        fixture.opened(&browser).idle_expires_at,
        session.idle_expires_at
    );
    fixture.clock.advance(minute);
    assert_ended(&fixture.open(&browser), Ended::Idle);
}

#[tokio::test]
async fn shorter_limits_apply_to_sessions_that_have_begun_and_longer_ones_do_not() {
    let (fixture, browser, session) = signed_in().await;
    fixture.clock.advance(Duration::from_hours(2));
    let headers = browser.headers();
    let shorter = fixture.rebuilt(true, |settings| settings.idle = Duration::from_hours(1));
    assert_ended(&open(&shorter, &headers, fixture.now()), Ended::Idle);
    let shorter = fixture.rebuilt(true, |settings| settings.lifetime = Duration::from_hours(1));
    assert_ended(&open(&shorter, &headers, fixture.now()), Ended::Lifetime);
    let longer = fixture.rebuilt(true, |settings| {
        settings.lifetime = Duration::from_hours(1000);
    });
    let Presented::Open(opened) = open(&longer, &headers, fixture.now()) else {
        panic!("open");
    };
    assert_eq!(opened.expires_at, session.expires_at);
}

#[tokio::test]
async fn clocks_of_replicas_may_differ_by_minutes_but_no_cookie_is_from_the_future() {
    let (fixture, mut browser, session) = signed_in().await;
    fixture.clock.set_wall(START.minus(Duration::from_mins(5)));
    let opened = fixture.opened(&browser);
    assert_eq!(opened.idle_expires_at, session.idle_expires_at);
    // A clock that is behind does not set the idle limit back.
    let renewed = fixture.request(&mut browser).await.unwrap();
    assert!(renewed.cookie.is_none());
    fixture
        .clock
        .set_wall(START.minus(Duration::from_secs(301)));
    assert_ended(&fixture.open(&browser), Ended::Invalid);
    fixture.clock.set_wall(UnixMillis::from_secs(0));
    assert_ended(&fixture.open(&browser), Ended::Invalid);
}

#[tokio::test]
async fn a_connection_remembers_its_cookie_but_not_that_it_is_valid() {
    let (fixture, browser, session) = signed_in().await;
    let headers = browser.headers();
    let mut memo = SessionMemo::default();
    let mut open = |sessions: &Sessions, headers: &http::HeaderMap| {
        let opening = sessions.open(headers, SiteSecurity::Https, fixture.now(), &mut memo);
        opening.now_or_never().unwrap()
    };
    let Presented::Open(first) = open(&fixture.sessions, &headers) else {
        panic!("open");
    };
    let Presented::Open(second) = open(&fixture.sessions, &headers) else {
        panic!("open");
    };
    assert!(Arc::ptr_eq(&first, &second), "remembered");
    // Another caller on the same connection.
    let (theirs, other) = fixture.signed_in(usual(&fixture)).await;
    let Presented::Open(third) = open(&fixture.sessions, &theirs.headers()) else {
        panic!("open");
    };
    assert!(third.id == other.id && third.id != session.id);
    assert!(matches!(
        open(&fixture.sessions, &cookies(&[])),
        Presented::None
    ));
    // Other sessions of the configuration do not take it for theirs.
    let stranger = fixture.rebuilt(true, |settings| settings.cookie_key = fixture.key(3));
    assert_ended(&open(&stranger, &theirs.headers()), Ended::Invalid);
    assert!(matches!(
        open(&fixture.sessions, &theirs.headers()),
        Presented::Open(_)
    ));
    // Ended meanwhile.
    fixture.sessions.reject_credentials(&other, fixture.now());
    assert_ended(
        &open(&fixture.sessions, &theirs.headers()),
        Ended::Credentials,
    );
    assert!(matches!(
        open(&fixture.sessions, &headers),
        Presented::Open(_)
    ));
    fixture.clock.advance(fixture.settings.idle);
    let presented = fixture
        .sessions
        .open(&headers, SiteSecurity::Https, fixture.now(), &mut memo)
        .await;
    assert_ended(&presented, Ended::Idle);
}

#[test]
fn own_cookies_are_recognised_by_their_names() {
    for own in [
        "__Host-hawkgate-web",
        "__Host-hawkgate-web-signin-AbCd_-12",
        "hawkgate-web",
        "hawkgate-",
        "__host-Hawkgate-web",
        "HAWKGATE-x",
    ] {
        assert!(is_own_cookie(own.as_bytes()), "{own}");
    }
    for other in [
        "",
        "hawkgate",
        "__Host-",
        "__Host-hawkgat",
        "xhawkgate-web",
        "__Secure-hawkgate-web",
    ] {
        assert!(!is_own_cookie(other.as_bytes()), "{other}");
    }
    let names = cookie::Names::of("web");
    let of = |name: &str| names.is_attempt(SiteSecurity::Https, name.as_bytes());
    assert!(of(&names.attempt(SiteSecurity::Https, "state")));
    assert!(!of(
        &cookie::Names::of("web2").attempt(SiteSecurity::Https, "state")
    ));
    assert!(
        !of(NAME)
            && !of("__Host-hawkgate-web-signin-1234567")
            && !of("hawkgate-web-signin-12345678")
    );
}
