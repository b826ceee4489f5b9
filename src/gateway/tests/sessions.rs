//! Requests with a session's own Taskcluster credentials.

use UnauthorizedReason::{AuthorizedScopes, ClockSkew, NotSigned, StillUnauthorized, UpstreamOwn};

use super::*;
use crate::gateway::rule::{Effect, Expression, Rule, Rules};
use crate::gateway::session::EndpointRequest;
use crate::secret::SecretRef;
use crate::session::settings::{SessionKind, SessionSettings, SessionStore, Unauthenticated};
use crate::session::{self, ProviderGrant, SessionGrant, Sessions, Site, SiteSecurity};

const HOUR: i64 = 3600;
const CLIENT: &str = "github/1|ada/app-Ab3dEf";
const REMOVED: &str = "hawkgate-tc=; Path=/; Max-Age=0";

/// What a deployment issues: credentials for eight hours.
fn grant(now: Now) -> ProviderGrant {
    let credentials = Credentials {
        client_id: CLIENT.into(),
        access_token: "s3cret-key".into(),
        certificate: None,
        authorized_scopes: None,
    };
    let expires_at = now.wall.plus(Duration::from_hours(8));
    let credential = Credential::taskcluster(&credentials).unwrap();
    ProviderGrant {
        grant: SessionGrant::Taskcluster {
            lease: Lease::detached(credential, expires_at, now),
            credentials,
            expires_at,
        },
        subject: CLIENT.into(),
        name: None,
        email: None,
        provider_session: None,
    }
}

/// A route with a session, and the cookie of a user who has signed in.
struct SignedIn {
    fixture: Fixture,
    cookie: String,
}

fn sessions(clock: &Arc<ManualClock>) -> Sessions {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let settings = SessionSettings {
        name: "tc".into(),
        kind: SessionKind::Taskcluster,
        provider: "https://tc.example".into(),
        client_id: "app".into(),
        scopes: vec!["queue:*".into()],
        audience: None,
        resource: None,
        store: SessionStore::Cookie,
        cookie_key: SecretRef::File(file),
        previous_cookie_key: None,
        idle: Duration::from_hours(24),
        lifetime: Duration::from_hours(24),
        prefix: "/oauth2/".into(),
        unauthenticated: Unauthenticated::Login,
        origin: None,
        timeout: Duration::from_secs(5),
    };
    let grant = grant(Now::read(&**clock));
    session::testing::sessions(settings, Some(grant), clock.clone())
}

fn with_cookie(cookie: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::COOKIE, cookie.parse().unwrap())])
}

async fn signed_in(rules: Option<Rules>) -> SignedIn {
    let clock = ManualClock::at(NOW);
    let sessions = Arc::new(sessions(&clock));
    let site = Site {
        origin: "http://localhost".into(),
        security: SiteSecurity::LoopbackHttp,
    };
    let cookie = session::testing::sign_in(&sessions, &site, Now::read(&*clock)).await;
    let session = Arc::new(Session {
        sessions,
        prefix: "/oauth2/".into(),
        unauthenticated: Unauthenticated::Login,
        site: None,
        issuers: vec![],
        provider: "https://tc.example".into(),
        rates: rate_limit::RateLimiters::default(),
        sign_ins: rate_limit::RateLimiters::default(),
        clock: clock.clone(),
    });
    let mut route = routes::route("web", None, "/api/", None);
    route.anonymous = false;
    route.session = Some(session);
    route.rules = rules;
    route.passes_401 = vec!["/api/own/".into()];
    let mut fixture = fixture(ScriptedSource::default());
    fixture.gateway.routes = RouteTable::new(vec![Arc::new(route)]);
    fixture.gateway.clock = clock.clone();
    fixture.clock = clock;
    SignedIn { fixture, cookie }
}

impl SignedIn {
    async fn admit(&self, target: &str) -> Result<Admission, Box<AdmissionError>> {
        let headers = with_cookie(&self.cookie);
        self.fixture
            .gateway
            .admit(Head::for_test(target, &headers))
            .await
    }

    async fn navigate(&self) -> Result<Admission, Box<AdmissionError>> {
        let mut headers = with_cookie(&self.cookie);
        headers.insert("accept", "text/html".parse().unwrap());
        let head = Head::for_test("/api/x?y=1", &headers);
        self.fixture.gateway.admit(head).await
    }

    /// Whether the session is still one.
    async fn lives(&self) -> bool {
        match self.admit("/api/x").await {
            Ok(_) => true,
            Err(refused) => {
                let reason = refused.rejection.reason;
                assert_eq!(reason, reason::Reason::SignInRequired);
                let sign_in = refused.rejection.sign_in.unwrap();
                assert!(sign_in.removal.unwrap().as_str().starts_with(REMOVED));
                false
            }
        }
    }
}

fn refused(recovery: Recovery) -> Rejection {
    match recovery {
        Recovery::Refuse(StillUnauthorized, rejection) => {
            assert_eq!(rejection.reason, reason::Reason::SignInRequired);
            *rejection
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn requests_are_signed_with_the_sessions_own_credentials() {
    let user = signed_in(None).await;
    let admission = user.admit("/api/x").await.unwrap();
    assert_eq!(admission.client_id(), Some(CLIENT));
    let gateway = &user.fixture.gateway;
    let header = gateway.sign(&admission, &Method::GET, "/api/x").unwrap();
    let header = header.unwrap();
    assert_eq!(header.name, http::header::AUTHORIZATION);
    assert!(header.value.is_sensitive());
    let text = header.value.to_str().unwrap();
    assert!(text.starts_with(&format!("Hawk id=\"{CLIENT}\"")), "{text}");
    let debug = format!("{admission:?}");
    assert!(!debug.contains("s3cret"), "{debug}");
}

#[tokio::test]
async fn what_a_session_opened_ends_with_it() {
    let user = signed_in(None).await;
    let mut admission = user.admit("/api/x").await.unwrap();
    let credentials_end = admission.valid_until().unwrap();
    let caller = admission.by_cookie.as_mut().unwrap();
    let session = Arc::get_mut(caller.session.as_mut().unwrap()).unwrap();
    assert!(credentials_end < session.expires_at);
    session.expires_at = credentials_end.minus(Duration::from_mins(1));
    let session_end = session.expires_at;
    assert_eq!(admission.valid_until(), Some(session_end));
}

#[tokio::test]
async fn a_rejected_session_ends_wherever_its_cookie_is() {
    for replayable in [REPLAYABLE, Replayable::No(UnauthorizedReason::BodyTooLarge)] {
        let user = signed_in(None).await;
        let mut admission = user.admit("/api/x").await.unwrap();
        let recovery = user.fixture.recover(&mut admission, None, replayable).await;
        let rejection = refused(recovery);
        let sign_in = rejection.sign_in.unwrap();
        assert_eq!(sign_in.login_url, "/oauth2/login");
        assert_eq!(sign_in.location, None);
        assert!(sign_in.removal.unwrap().as_str().starts_with(REMOVED));
        assert!(!user.lives().await);
    }
}

#[tokio::test]
async fn a_page_whose_session_was_rejected_leads_to_the_sign_in() {
    let user = signed_in(None).await;
    let mut admission = user.navigate().await.unwrap();
    let response = UnauthorizedResponse {
        target: "/api/x?y=1",
        ..unauthorized()
    };
    let recovered = user
        .fixture
        .gateway
        .recover(&mut admission, response, REPLAYABLE);
    let sign_in = refused(recovered.await).sign_in.unwrap();
    assert_eq!(
        sign_in.location.as_deref(),
        Some("/oauth2/login?return_to=%2Fapi%2Fx%3Fy%3D1")
    );
}

#[tokio::test]
async fn a_wrong_clock_does_not_end_the_session() {
    let user = signed_in(None).await;
    let mut admission = user.admit("/api/x").await.unwrap();
    let recovery = user.fixture.recover(&mut admission, Some(HOUR), REPLAYABLE);
    assert_eq!(replayed(&recovery.await), ClockSkew);
    let now = Now::read(&*user.fixture.clock);
    let at = Gateway::time_at(&admission.route.upstream, &admission, now);
    assert_eq!(at.as_secs(), NOW.as_secs() + HOUR);
    user.fixture.gateway.accepted(&admission);
    assert!(user.lives().await);
    // Without a replay, the next request is signed with that time.
    let user = signed_in(None).await;
    let mut admission = user.admit("/api/x").await.unwrap();
    let no = Replayable::No(UnauthorizedReason::ReplayMemory);
    let recovery = user.fixture.recover(&mut admission, Some(HOUR), no).await;
    assert_eq!(passed_through(&recovery), UnauthorizedReason::ReplayMemory);
    assert!(user.lives().await);
}

#[tokio::test]
async fn the_session_ends_if_another_time_does_not_help() {
    let user = signed_in(None).await;
    let mut admission = user.admit("/api/x").await.unwrap();
    let recovery = user.fixture.recover(&mut admission, Some(HOUR), REPLAYABLE);
    assert_eq!(replayed(&recovery.await), ClockSkew);
    let again = user.fixture.recover(&mut admission, Some(HOUR), REPLAYABLE);
    refused(again.await);
    assert!(!user.lives().await);
}

#[tokio::test]
async fn a_401_that_is_not_about_the_credentials_leaves_the_session_alone() {
    let narrowing = Rules::new(vec![Arc::new(Rule {
        name: "narrow".into(),
        when: Expression::compile("true").unwrap(),
        effect: Effect::Allow,
        scopes: Some(vec!["queue:x".to_owned()].into()),
        headers: vec![],
    })]);
    let user = signed_in(narrowing).await;
    for (target, scopes_refused, expected) in [
        ("/api/own/x", false, UpstreamOwn),
        ("/api/x?bewit=abc", false, NotSigned),
        ("/api/x", true, AuthorizedScopes),
    ] {
        let mut admission = user.admit(target).await.unwrap();
        let response = UnauthorizedResponse {
            target,
            scopes_refused,
            ..unauthorized()
        };
        let recovered = user
            .fixture
            .gateway
            .recover(&mut admission, response, REPLAYABLE);
        assert_eq!(passed_through(&recovered.await), expected, "{target}");
        assert!(user.lives().await);
    }
    let admission = user.admit("/api/x").await.unwrap();
    assert!(user.fixture.gateway.depends_on_body(&admission, "/api/x"));
}

/// The answer is already on its way, because the request cannot be sent again.
#[tokio::test]
async fn a_401_that_is_passed_through_ends_the_session_too() {
    let user = signed_in(None).await;
    let admission = user.admit("/api/x").await.unwrap();
    let no = Replayable::No(UnauthorizedReason::BodyTooLarge);
    let gateway = &user.fixture.gateway;
    let reason = gateway.pass_through(&admission, unauthorized(), no);
    assert_eq!(reason, Some(StillUnauthorized));
    assert!(!user.lives().await);
}

#[tokio::test]
async fn a_session_ends_with_its_credentials() {
    let user = signed_in(None).await;
    user.fixture
        .clock
        .advance(Duration::from_hours(8) - Duration::from_secs(6));
    assert!(user.lives().await);
    user.fixture.clock.advance(Duration::from_secs(1));
    assert!(!user.lives().await);
}

fn session(clock: &Arc<ManualClock>) -> Session {
    Session {
        sessions: Arc::new(sessions(clock)),
        prefix: "/oauth2/".into(),
        unauthenticated: Unauthenticated::Login,
        site: None,
        issuers: vec![],
        provider: "https://tc.example".into(),
        rates: rate_limit::RateLimiters::default(),
        sign_ins: rate_limit::RateLimiters::new(vec![Arc::new(Session::sign_in_limit(
            clock.clone(),
        ))]),
        clock: clock.clone(),
    }
}

async fn send_logout_token(session: &Session, token: &str) -> LocalResponse {
    let form = "application/x-www-form-urlencoded".parse().unwrap();
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, form)]);
    let head = Head {
        method: &Method::POST,
        peer: Some([192, 0, 2, 1].into()),
        ..Head::for_test("/oauth2/backchannel-logout", &headers)
    };
    let body = format!("logout_token={token}");
    let request = EndpointRequest {
        name: "backchannel-logout",
        head,
        body: body.as_bytes(),
        request_id: "r",
    };
    session.respond(request).await
}

/// A provider that signs everybody out sends all of it from one address.
#[tokio::test]
async fn only_refused_logout_tokens_are_limited() {
    let session = session(&ManualClock::at(NOW));
    let send = async |token: String| {
        let response = send_logout_token(&session, &token).await;
        response.status.as_u16()
    };
    for n in 0..500 {
        assert_eq!(send(format!("valid{n}")).await, 200);
    }
    for n in 0..200 {
        assert_eq!(send(format!("forged{n}")).await, 400);
    }
    assert_eq!(send("forged".into()).await, 429);
    assert_eq!(send("valid".into()).await, 200);
}

/// A 400 would tell the provider that there is no point in sending it again.
#[tokio::test]
async fn a_logout_token_that_cannot_be_verified_now_can_be_sent_again() {
    let session = session(&ManualClock::at(NOW));
    let response = send_logout_token(&session, "unverifiable").await;
    assert_eq!(response.status, 503);
    assert!(response.headers.contains(&("retry-after", "7".to_owned())));
}
