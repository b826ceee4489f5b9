//! Sessions of a fleet: two replicas over one store.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::broadcast::Receiver;

use super::support::*;
use crate::secret::SecretString;
use crate::session::settings::SessionStore;
use crate::session::*;
use crate::shared_store::{
    Fleet, FleetKeys, Guard, InMemoryStore, Operation, OperationResult, SharedStore as _,
    StoreError, StoreEvent, StoreObserver,
};

/// Counts what a replica asks the store.
#[derive(Debug, Default)]
pub(super) struct Asked(AtomicUsize);

impl StoreObserver for Asked {
    fn operation(&self, _: Operation, _: OperationResult) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn up(&self, _: bool) {}
}

/// One replica.
pub(super) struct Replica {
    pub(super) fixture: Fixture,
    events: std::sync::Mutex<Receiver<StoreEvent>>,
    asked: Arc<Asked>,
}

pub(super) struct Replicas {
    pub(super) store: Arc<InMemoryStore>,
    pub(super) a: Replica,
    pub(super) b: Replica,
}

pub(super) fn keys(current: u8, previous: Option<u8>) -> FleetKeys {
    use base64::Engine as _;
    let text = |first: u8| {
        let bytes: Vec<u8> = (first..first + 32).collect();
        SecretString::new(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    FleetKeys::new(&text(current), previous.map(text).as_ref()).unwrap()
}

impl Replicas {
    pub(super) fn new(store: SessionStore) -> Self {
        let base = Fixture::with(|settings| settings.store = SessionStore::Cookie);
        let clock = Arc::clone(&base.clock);
        let shared = Arc::new(InMemoryStore::new(clock));
        let replica = || Replica::new(&base, &shared, keys(1, None), store);
        let (a, b) = (replica(), replica());
        // The keys are read when the replicas are made.
        drop(base);
        Self {
            store: shared,
            a,
            b,
        }
    }

    pub(super) fn shared() -> Self {
        Self::new(SessionStore::Shared)
    }

    /// Another replica, with these keys of the fleet.
    fn another(&self, keys: FleetKeys) -> Replica {
        let key = self.a.fixture.key(1);
        let store = self.a.fixture.settings.store;
        let base = Fixture::with(|settings| settings.cookie_key = key);
        let mut base = base;
        base.clock = Arc::clone(&self.a.fixture.clock);
        base.provider = Arc::clone(&self.a.fixture.provider);
        Replica::new(&base, &self.store, keys, store)
    }

    /// Both handle the events so far.
    pub(super) fn hear(&self) {
        self.a.hear();
        self.b.hear();
    }

    pub(super) fn advance(&self, by: Duration) {
        self.a.fixture.clock.advance(by);
    }

    /// Makes the store fail, or work again.
    pub(super) fn down(&self, down: bool) {
        let failure = StoreError::Answer("LOADING".into());
        self.store.fail(down.then_some(failure));
    }
}

impl Replica {
    fn new(base: &Fixture, store: &Arc<InMemoryStore>, keys: FleetKeys, of: SessionStore) -> Self {
        let asked = Arc::<Asked>::default();
        let guard = Guard::new(store.clone(), secs(1), asked.clone());
        let fleet = Fleet {
            store: Arc::new(guard),
            keys: Arc::new(keys),
        };
        Self {
            fixture: base.replica(&fleet, |settings| settings.store = of),
            events: std::sync::Mutex::new(store.events()),
            asked,
        }
    }

    pub(super) fn hear(&self) {
        while let Ok(event) = self.events.lock().unwrap().try_recv() {
            self.fixture.sessions.on_event(&event);
        }
    }

    /// How often the store was asked since the last time.
    fn asked(&self) -> usize {
        self.asked.0.swap(0, Ordering::Relaxed)
    }

    async fn sign_out(&self, session: &UserSession) {
        let (sessions, site) = (&self.fixture.sessions, &self.fixture.site);
        let now = self.fixture.now();
        sessions.sign_out(Some(session), site, now).await;
    }
}

pub(super) fn usual(fixture: &Fixture) -> ProviderGrant {
    user(fixture, "auth0|user", Some("sid-1"))
}

fn user(fixture: &Fixture, subject: &str, sid: Option<&str>) -> ProviderGrant {
    let expires_at = fixture.after(Duration::from_hours(1));
    let tokens = tokens("access-0", Some(expires_at), Some("refresh-0"), Some("id"));
    ProviderGrant {
        subject: subject.into(),
        provider_session: sid.map(Into::into),
        ..grant(tokens)
    }
}

#[track_caller]
pub(super) fn assert_open(replica: &Replica, browser: &Browser) -> Arc<UserSession> {
    replica.fixture.opened(browser)
}

#[track_caller]
fn assert_unavailable(replica: &Replica, browser: &Browser) {
    match replica.fixture.open(browser) {
        Presented::Unavailable { cause, retry_after } => {
            assert!(cause.starts_with("the shared store: "), "{cause}");
            assert!(retry_after > Duration::ZERO);
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn assert_over(replica: &Replica, browser: &Browser, expected: Ended) {
    assert_ended(&replica.fixture.open(browser), expected);
}

#[tokio::test]
async fn a_session_of_one_replica_is_open_at_another_and_hits_do_not_ask_the_store() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    let (browser, session) = a.fixture.signed_in(usual(&a.fixture)).await;
    let cookie = &browser.0[NAME];
    assert!(cookie.len() < 150, "{cookie}");
    for replica in [a, b] {
        fleet.hear();
        let opened = assert_open(replica, &browser);
        assert!(opened.id == session.id && opened.subject == session.subject);
        assert_eq!(access_token(&opened), "access-0");
        assert_eq!(opened.id_token().unwrap().expose(), "id");
        assert_eq!(opened.expires_at, session.expires_at);
        assert!(replica.asked() > 0);
        for _ in 0..100 {
            fleet.hear();
            assert_open(replica, &browser);
        }
        assert_eq!(replica.asked(), 0);
    }
    // Even if no events arrive, the store is asked again.
    fleet.advance(secs(30));
    assert_open(b, &browser);
    assert!(b.asked() > 0);
    // And if some may have been missed.
    b.fixture.sessions.on_event(&StoreEvent::Interrupted);
    assert_open(b, &browser);
    assert!(b.asked() > 0);
    assert_open(b, &browser);
    assert_eq!(b.asked(), 0);
}

#[tokio::test]
async fn nothing_in_the_store_can_be_read_without_the_cookie() {
    let fleet = Replicas::shared();
    let (browser, session) = fleet.a.fixture.signed_in(usual(&fleet.a.fixture)).await;
    let settings = &fleet.a.fixture.settings;
    let fleet_keys = keys(1, None);
    let parts: [&[u8]; 4] = [
        b"sessions",
        settings.name.as_bytes(),
        settings.provider.as_bytes(),
        settings.client_id.as_bytes(),
    ];
    let namespace = fleet_keys.namespace(&parts).unwrap();
    let key = namespace.hasher().part(&session.id.0).finish();
    let value = fleet.store.read(key).await.unwrap().unwrap();
    for secret in ["access-0", "refresh-0", "auth0|user", "Ada", "sid-1"] {
        let secret = secret.as_bytes();
        let found = value.sealed.windows(secret.len()).any(|at| at == secret);
        assert!(!found);
    }
    let generation = value.generation;
    // With the key of the fleet, too.
    assert!(
        namespace
            .open(key, generation, value.sealed.clone())
            .is_none()
    );
    let guess = [0; 32];
    let opened = namespace.open_with(&guess, key, generation, value.sealed.clone());
    assert!(opened.is_none());
    let half = &session.entry.as_ref().unwrap().half;
    let opened = namespace.open_with(half, key, generation, value.sealed);
    assert!(opened.is_some());
    // The cookie opens nothing without the store, and is sealed itself.
    fleet.store.clear();
    assert_over(&fleet.b, &browser, Ended::Invalid);
    let mut forged = browser.clone();
    let cookie = forged.0.get_mut(NAME).unwrap();
    let changed = if cookie.ends_with('A') { "B" } else { "A" };
    cookie.replace_range(cookie.len() - 1.., changed);
    fleet.a.asked();
    assert_over(&fleet.a, &forged, Ended::Invalid);
    assert_eq!(fleet.a.asked(), 0, "strangers do not make it ask the store");
}

#[tokio::test]
async fn sessions_that_do_not_fit_into_a_cookie_fit_into_the_store() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    let expires_at = a.fixture.after(Duration::from_hours(1));
    let large = jwt("SECRET", 20_000);
    let tokens_of = |id: &str| grant(tokens(&large, Some(expires_at), None, Some(id)));
    let (browser, _) = a.fixture.signed_in(tokens_of(&large)).await;
    assert_eq!(access_token(&assert_open(b, &browser)), large);
    // But not everything does.
    let mut browser = Browser::default();
    let sent = a.fixture.begin(&mut browser, "/").await;
    a.fixture.will_redeem(tokens_of(&jwt("SECRET", 120_000)));
    let query = format!("code=c&state={}", sent["state"]);
    let failed = a.fixture.complete(&browser, &query).await.unwrap_err();
    assert!(matches!(failed, SignInError::TooLargeToShare(size) if size > 65536));
    assert!(failed.to_string().contains("at most 65536"), "{failed}");
    assert_eq!(fleet.store.values(), 1);
}

#[tokio::test]
async fn cookies_of_one_store_are_none_of_the_other() {
    let (cookie, shared) = (Replicas::new(SessionStore::Cookie), Replicas::shared());
    let grant = usual(&shared.a.fixture);
    let (browser, _) = cookie.a.fixture.signed_in(grant).await;
    assert_over(&shared.a, &browser, Ended::Invalid);
    let grant = usual(&shared.a.fixture);
    let (browser, _) = shared.a.fixture.signed_in(grant).await;
    assert_over(&cookie.a, &browser, Ended::Invalid);
}

#[test]
fn a_shared_store_is_needed() {
    let fixture = Fixture::new();
    let settings = SessionSettings {
        store: SessionStore::Shared,
        ..fixture.settings.clone()
    };
    let (provider, observed) = (fixture.provider.clone(), fixture.observed.clone());
    let made = Sessions::new(
        settings,
        provider,
        observed,
        fixture.clock.clone(),
        None,
        None,
    );
    assert!(matches!(made, Err(SessionError::NoSharedStore)));
}

#[tokio::test]
async fn signing_out_ends_the_session_everywhere_for_both_stores() {
    for store in [SessionStore::Shared, SessionStore::Cookie] {
        for events in [true, false] {
            let fleet = Replicas::new(store);
            let (a, b) = (&fleet.a, &fleet.b);
            let (browser, session) = a.fixture.signed_in(usual(&a.fixture)).await;
            let (other, _) = a.fixture.signed_in(usual(&a.fixture)).await;
            fleet.hear();
            assert_open(b, &browser);
            assert_open(b, &other);
            a.sign_out(&session).await;
            if events {
                fleet.hear();
            } else {
                fleet.advance(secs(30));
            }
            assert_over(
                a,
                &browser,
                match store {
                    SessionStore::Shared => Ended::Invalid,
                    SessionStore::Cookie => Ended::SignedOut,
                },
            );
            assert!(matches!(b.fixture.open(&browser), Presented::Ended(_)));
            assert_open(b, &other);
            // Replicas that start later know, too.
            let c = fleet.another(keys(1, None));
            assert!(matches!(c.fixture.open(&browser), Presented::Ended(_)));
            settle().await;
            assert_eq!(*a.fixture.provider.revoked.lock().unwrap(), ["refresh-0"]);
        }
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

async fn logout(replica: &Replica, id: &str) -> Result<(), LogoutTokenError> {
    let (sessions, now) = (&replica.fixture.sessions, replica.fixture.now());
    sessions.back_channel_logout(id, now).await
}

#[tokio::test]
async fn a_logout_token_at_one_replica_ends_sessions_at_all_for_both_stores() {
    for store in [SessionStore::Shared, SessionStore::Cookie] {
        let fleet = Replicas::new(store);
        let (a, b) = (&fleet.a, &fleet.b);
        let at = &a.fixture;
        let (one, _) = at.signed_in(user(at, "ada", Some("s1"))).await;
        let (two, _) = at.signed_in(user(at, "ada", Some("s2"))).await;
        let (unnamed, _) = at.signed_in(user(at, "ada", None)).await;
        let (eve, _) = at.signed_in(user(at, "eve", Some("s3"))).await;
        fleet.hear();
        for browser in [&one, &two, &unnamed, &eve] {
            assert_open(b, browser);
        }
        logout_token(at, "t1", None, Some("s1"));
        logout(a, "t1").await.unwrap();
        fleet.hear();
        assert_over(b, &one, Ended::SignedOut);
        assert_open(b, &two);
        assert_open(b, &unnamed);
        logout_token(at, "t2", Some("ada"), Some("s9"));
        logout(a, "t2").await.unwrap();
        fleet.hear();
        assert_over(b, &unnamed, Ended::SignedOut);
        assert_open(b, &two);
        logout_token(at, "t3", Some("ada"), None);
        logout(a, "t3").await.unwrap();
        fleet.hear();
        assert_over(b, &two, Ended::SignedOut);
        assert_open(b, &eve);
        // Once in the fleet.
        for id in ["t1", "t2", "t3"] {
            let again = logout(b, id).await;
            assert!(matches!(again, Err(LogoutTokenError::Invalid(_))), "{id}");
        }
        // The user signs in again.
        fleet.advance(secs(1));
        let (again, _) = at.signed_in(user(at, "ada", Some("s4"))).await;
        fleet.hear();
        assert_open(b, &again);
    }
}

#[tokio::test]
async fn the_cookie_of_a_session_that_was_ended_by_the_provider_does_not_ask_the_store_each_time() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    let (browser, _) = a.fixture.signed_in(user(&a.fixture, "ada", None)).await;
    logout_token(&a.fixture, "t", Some("ada"), None);
    logout(a, "t").await.unwrap();
    fleet.hear();
    assert_over(b, &browser, Ended::SignedOut);
    b.asked();
    for _ in 0..100 {
        fleet.hear();
        assert_over(b, &browser, Ended::SignedOut);
    }
    assert_eq!(b.asked(), 0);
    fleet.advance(secs(30));
    fleet.down(true);
    assert_over(b, &browser, Ended::SignedOut);
}

#[tokio::test]
async fn rejected_credentials_end_the_session_everywhere() {
    for store in [SessionStore::Shared, SessionStore::Cookie] {
        let fleet = Replicas::new(store);
        let (a, b) = (&fleet.a, &fleet.b);
        let (browser, session) = a.fixture.signed_in(usual(&a.fixture)).await;
        fleet.hear();
        assert_open(b, &browser);
        let now = a.fixture.now();
        a.fixture.sessions.reject_credentials(&session, now);
        settle().await;
        fleet.hear();
        let expected = match store {
            SessionStore::Shared => Ended::Invalid,
            SessionStore::Cookie => Ended::Credentials,
        };
        assert_over(b, &browser, expected);
    }
}

#[tokio::test]
async fn limits_hold_at_every_replica_and_use_at_one_counts_at_the_other() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    let expires_at = a.fixture.after(Duration::from_hours(24 * 30));
    let lasting = || grant(tokens("access", Some(expires_at), None, None));
    let (mut browser, session) = a.fixture.signed_in(lasting()).await;
    let idle = a.fixture.settings.idle;
    let used_at_both = [b, a, b];
    for replica in used_at_both {
        fleet.advance(idle.saturating_sub(secs(1)));
        let renewed = replica.fixture.request(&mut browser).await.unwrap();
        assert!(renewed.cookie.is_some());
        assert_eq!(renewed.session.idle_expires_at, a.fixture.after(idle));
    }
    fleet.advance(idle);
    assert!(matches!(a.fixture.open(&browser), Presented::Ended(_)));
    assert!(matches!(b.fixture.open(&browser), Presented::Ended(_)));
    // The lifetime ends however it is used.
    let (mut browser, session) = {
        let _ = session;
        a.fixture.signed_in(lasting()).await
    };
    while a.fixture.now().wall < session.expires_at {
        fleet.hear();
        a.fixture.request(&mut browser).await.unwrap();
        fleet.advance(idle / 2);
    }
    assert!(matches!(a.fixture.open(&browser), Presented::Ended(_)));
    assert!(matches!(b.fixture.open(&browser), Presented::Ended(_)));
    assert_eq!(fleet.store.values(), 0, "the store forgets them as well");
}

#[tokio::test]
async fn what_a_use_writes_does_not_bring_back_what_has_ended() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    let (mut browser, session) = a.fixture.signed_in(usual(&a.fixture)).await;
    fleet.hear();
    fleet.advance(Duration::from_mins(30));
    let opened = assert_open(b, &browser);
    // Before b has heard of it.
    a.sign_out(&session).await;
    let (sessions, now) = (&b.fixture.sessions, b.fixture.now());
    let renewed = sessions.renew(opened, SiteSecurity::Https, now).await;
    browser.take(renewed.unwrap().cookie.as_slice());
    fleet.hear();
    for replica in [a, b] {
        assert!(matches!(
            replica.fixture.open(&browser),
            Presented::Ended(_)
        ));
    }
}

#[tokio::test]
async fn a_store_that_was_cleared_or_corrupted_means_signing_in_again() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    for bytes in [None, Some(&b""[..]), Some(b"garbage"), Some(&[1; 200])] {
        let (browser, _) = a.fixture.signed_in(usual(&a.fixture)).await;
        fleet.hear();
        assert_open(b, &browser);
        match bytes {
            None => fleet.store.clear(),
            Some(bytes) => fleet.store.corrupt(bytes),
        }
        b.fixture.sessions.on_event(&StoreEvent::Interrupted);
        assert_over(b, &browser, Ended::Invalid);
        let (again, _) = b.fixture.signed_in(usual(&b.fixture)).await;
        fleet.hear();
        assert_open(a, &again);
    }
}

#[tokio::test]
async fn an_end_that_cannot_be_read_ends_what_there_was_but_nobody_is_shut_out() {
    let fleet = Replicas::new(SessionStore::Cookie);
    let (a, b) = (&fleet.a, &fleet.b);
    let (browser, _) = a.fixture.signed_in(usual(&a.fixture)).await;
    logout_token(&a.fixture, "t", Some("auth0|user"), None);
    logout(a, "t").await.unwrap();
    fleet.store.corrupt(b"garbage");
    assert_over(b, &browser, Ended::SignedOut);
    fleet.advance(secs(1));
    let (again, _) = b.fixture.signed_in(usual(&b.fixture)).await;
    fleet.hear();
    assert_open(b, &again);
    assert_open(a, &again);
}

#[tokio::test]
async fn values_that_were_swapped_open_for_nobody() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    let at = &a.fixture;
    let (ada, _) = at.signed_in(user(at, "ada", None)).await;
    let (eve, _) = at.signed_in(user(at, "eve", None)).await;
    fleet.store.swap_values();
    for browser in [&ada, &eve] {
        assert_over(b, browser, Ended::Invalid);
    }
}

#[tokio::test]
async fn keys_of_the_fleet_are_rotated_without_signing_anybody_out() {
    let fleet = Replicas::shared();
    let (browser, session) = fleet.a.fixture.signed_in(usual(&fleet.a.fixture)).await;
    let (out, left) = fleet.a.fixture.signed_in(usual(&fleet.a.fixture)).await;
    // First, every replica can read what the new key seals.
    let (x, y) = (
        fleet.another(keys(1, Some(2))),
        fleet.another(keys(2, Some(1))),
    );
    for replica in [&x, &y] {
        assert_eq!(assert_open(replica, &browser).id, session.id);
    }
    let (newer, _) = y.fixture.signed_in(usual(&y.fixture)).await;
    x.hear();
    assert_open(&x, &newer);
    // Ends are heard across keys.
    x.sign_out(&left).await;
    y.hear();
    assert!(matches!(y.fixture.open(&out), Presented::Ended(_)));
    // What is used moves to the new key.
    let z = fleet.another(keys(2, None));
    assert_over(&z, &browser, Ended::Invalid);
    fleet.advance(Duration::from_mins(30));
    let renewed = y.fixture.request(&mut browser.clone()).await.unwrap();
    assert!(renewed.cookie.is_some());
    let z = fleet.another(keys(2, None));
    assert_open(&z, &browser);
    assert_open(&z, &newer);
    y.hear();
    assert_open(&y, &browser);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_down_known_sessions_go_on_and_others_wait() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    let (mut browser, _) = a.fixture.signed_in(usual(&a.fixture)).await;
    fleet.hear();
    assert_open(a, &browser);
    fleet.down(true);
    fleet.advance(Duration::from_mins(10));
    a.fixture.sessions.on_event(&StoreEvent::Interrupted);
    let renewed = a.fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-0");
    assert_unavailable(b, &browser);
    // Nobody is signed in without a record.
    let mut other = Browser::default();
    let sent = a.fixture.begin(&mut other, "/").await;
    a.fixture.will_redeem(usual(&a.fixture));
    let query = format!("code=c&state={}", sent["state"]);
    let failed = a.fixture.complete(&other, &query).await.unwrap_err();
    assert!(
        matches!(failed, SignInError::StoreUnavailable(_)),
        "{failed}"
    );
    // Until the access token expires: a refresh token that only this replica had would be lost with it.
    fleet.advance(Duration::from_mins(46));
    let renewed = a.fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-0");
    fleet.advance(Duration::from_mins(5));
    match a.fixture.request(&mut browser).await {
        Err(RenewError::Unavailable { retry_after, .. }) => assert!(retry_after.is_some()),
        other => panic!("{other:?}"),
    }
    assert!(a.fixture.used().is_empty());
    // Nobody was signed out.
    fleet.down(false);
    tokio::time::advance(secs(10)).await;
    settle().await;
    let expires_at = a.fixture.after(Duration::from_hours(1));
    let newer = tokens("access-1", Some(expires_at), Some("refresh-1"), None);
    a.fixture.will_refresh(Ok(grant(newer)));
    let renewed = b.fixture.request(&mut browser).await.unwrap();
    assert_eq!(access_token(&renewed.session), "access-1");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_known_to_have_changed_is_not_opened_while_the_store_is_down() {
    for store in [SessionStore::Shared, SessionStore::Cookie] {
        let fleet = Replicas::new(store);
        let (a, b) = (&fleet.a, &fleet.b);
        let (browser, session) = a.fixture.signed_in(usual(&a.fixture)).await;
        fleet.hear();
        assert_open(b, &browser);
        a.sign_out(&session).await;
        fleet.down(true);
        fleet.hear();
        assert_unavailable(b, &browser);
        assert_unavailable(b, &browser);
        fleet.down(false);
        tokio::time::sleep(secs(10)).await;
        assert!(matches!(b.fixture.open(&browser), Presented::Ended(_)));
        // And what was read once stays known.
        fleet.down(true);
        assert!(!matches!(b.fixture.open(&browser), Presented::Open(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_replicas_decide_about_cookies_by_themselves() {
    let fleet = Replicas::new(SessionStore::Cookie);
    let (a, b) = (&fleet.a, &fleet.b);
    fleet.down(true);
    let (browser, session) = a.fixture.signed_in(usual(&a.fixture)).await;
    assert_open(a, &browser);
    assert_open(b, &browser);
    a.sign_out(&session).await;
    assert_over(a, &browser, Ended::SignedOut);
    assert_open(b, &browser);
    // The others are told as soon as it is up again.
    fleet.down(false);
    tokio::time::sleep(secs(40)).await;
    fleet.hear();
    assert_over(b, &browser, Ended::SignedOut);
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_during_an_outage_reaches_the_store_afterwards() {
    let fleet = Replicas::shared();
    let (a, b) = (&fleet.a, &fleet.b);
    let (browser, session) = a.fixture.signed_in(usual(&a.fixture)).await;
    fleet.hear();
    assert_open(b, &browser);
    fleet.down(true);
    a.sign_out(&session).await;
    assert!(!matches!(a.fixture.open(&browser), Presented::Open(_)));
    logout_token(&a.fixture, "t", Some("auth0|user"), None);
    logout(a, "t").await.unwrap();
    fleet.down(false);
    assert!(!matches!(a.fixture.open(&browser), Presented::Open(_)));
    tokio::time::sleep(secs(40)).await;
    fleet.hear();
    assert!(matches!(b.fixture.open(&browser), Presented::Ended(_)));
    // The end of the session, and that of the user's, but no record.
    assert_eq!(fleet.store.values(), 2);
}
