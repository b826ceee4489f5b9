//! Tests of admission and recovery with a scripted source and a manual clock.

mod memo;
mod passwords;
mod recovery;
mod sessions;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::outcome::UnauthorizedReason;
use super::route::UpgradeExpiry;
use super::route::tests as routes;
use super::upstream_clock::PeerTime;
use crate::credential::Lookup;
use http::HeaderMap;

use super::*;
use crate::clock::{Clock as _, ManualClock, UnixMillis};
use crate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};
use crate::hawk::{Credentials, Signer};
use crate::secret::SecretString;
use crate::token::settings::Profile;
use crate::token::testing::{self, ED25519, ScriptedKeys, configured};
use crate::token::{Caller, Issuer, WorkloadToken};

const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
const REPLAYABLE: Replayable = Replayable::Yes;

/// A source of numbered clients that fails while `failure` is set.
#[derive(Debug, Default)]
struct ScriptedSource {
    fetched: AtomicUsize,
    local: bool,
    authorized_scopes: Option<Vec<String>>,
    failure: Mutex<Option<FetchError>>,
    offsets: Mutex<Vec<i64>>,
}

#[async_trait]
impl CredentialSource for ScriptedSource {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        if let Some(failure) = self.failure.lock().unwrap().clone() {
            return Err(failure);
        }
        let number = self.fetched.fetch_add(1, Ordering::SeqCst) + 1;
        self.offsets.lock().unwrap().push(request.clock_offset);
        let credentials = Credentials {
            client_id: format!("client-{number}"),
            access_token: SecretString::from("secret"),
            certificate: None,
            authorized_scopes: self.authorized_scopes.clone(),
        };
        Ok(Issued {
            credential: Credential::Taskcluster {
                client_id: credentials.client_id.clone(),
                signer: Box::new(Signer::new(&credentials).unwrap()),
            },
            expires_at: None,
            original: None,
        })
    }

    fn is_local(&self) -> bool {
        self.local
    }
}

struct Fixture {
    gateway: Gateway,
    clock: Arc<ManualClock>,
    source: Arc<ScriptedSource>,
}

fn fixture(source: ScriptedSource) -> Fixture {
    let clock = ManualClock::at(NOW);
    let source = Arc::new(source);
    let mut route = routes::route("tc", None, "/api/", None);
    route.source = Some(routes::source(source.clone(), clock.clone()));
    route.passes_401 = vec!["/api/own/".into(), "/api/exact".into()];
    let plain = routes::route("plain", None, "/plain/", None);
    let mut guarded = routes::route("guarded", None, "/guarded/", None);
    guarded.anonymous = false;
    Fixture {
        gateway: Gateway {
            routes: RouteTable::new([route, plain, guarded].map(Arc::new).to_vec()),
            sessions: SessionTable::default(),
            login: None,
            credentials: None,
            clock: clock.clone(),
            max_token_bytes: crate::token::DEFAULT_TOKEN_BYTES,
            rule_headers: vec![],
            forward_auth: vec![],
            isolation: IsolationPolicy::default(),
            observability: Observability::default(),
        },
        clock,
        source,
    }
}

impl Fixture {
    async fn admit(&self, target: &str) -> Result<Admission, Box<AdmissionError>> {
        let headers = HeaderMap::new();
        self.gateway.admit(Head::for_test(target, &headers)).await
    }

    async fn admitted(&self) -> Admission {
        self.admit("/api/x").await.unwrap()
    }

    fn fetched(&self) -> usize {
        self.source.fetched.load(Ordering::SeqCst)
    }

    fn fail_with(&self, error: FetchError) {
        *self.source.failure.lock().unwrap() = Some(error);
    }

    async fn recover(
        &self,
        admission: &mut Admission,
        skew: Option<i64>,
        replayable: Replayable,
    ) -> Recovery {
        let response = UnauthorizedResponse {
            date: skew.map(|seconds| NOW.offset_by(seconds * 1000)),
            ..unauthorized()
        };
        self.gateway.recover(admission, response, replayable).await
    }
}

/// A 401 to `/api/x` without a `Date`.
fn unauthorized() -> UnauthorizedResponse<'static> {
    UnauthorizedResponse {
        date: None,
        target: "/api/x",
        scopes_refused: false,
    }
}

fn replayed(recovery: &Recovery) -> UnauthorizedReason {
    match recovery {
        Recovery::Replay(reason) => *reason,
        other => panic!("not replayed: {other:?}"),
    }
}

fn passed_through(recovery: &Recovery) -> UnauthorizedReason {
    match recovery {
        Recovery::PassThrough(reason) => *reason,
        other => panic!("not passed through: {other:?}"),
    }
}

#[tokio::test]
async fn the_second_request_hits_the_credential_cache() {
    let fixture = fixture(ScriptedSource::default());
    assert_eq!(fixture.admitted().await.lookup, Some(Lookup::Fetched));
    let again = fixture.admitted().await;
    assert_eq!(again.lookup, Some(Lookup::Hit));
    assert_eq!(again.client_id(), Some("client-1"));
}

#[tokio::test]
async fn requests_with_a_bewit_or_without_a_source_are_not_signed() {
    let fixture = fixture(ScriptedSource::default());
    for target in ["/api/x?bewit=abc", "/plain/x"] {
        let mut admission = fixture.admit(target).await.unwrap();
        assert_eq!(admission.lookup, None);
        let header = fixture
            .gateway
            .sign(&admission, &Method::GET, target)
            .unwrap();
        assert!(header.is_none());
        let recovery = fixture.recover(&mut admission, None, REPLAYABLE).await;
        assert_eq!(passed_through(&recovery), UnauthorizedReason::NotSigned);
    }
    assert_eq!(fixture.fetched(), 0);
}

#[tokio::test]
async fn the_signature_carries_the_upstreams_time() {
    let fixture = fixture(ScriptedSource::default());
    let admission = fixture.admitted().await;
    let signed = |fixture: &Fixture| {
        let value = fixture
            .gateway
            .sign(&admission, &Method::GET, "/api/x")
            .unwrap()
            .unwrap()
            .value;
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    };
    assert!(signed(&fixture).contains("ts=\"1800000000\""));
    let now = Now::read(&*fixture.clock);
    let theirs = PeerTime::new(NOW.minus(Duration::from_hours(1)), now);
    admission.route.upstream.clock.adopt(theirs, now.monotonic);
    assert!(signed(&fixture).contains("ts=\"1799996400\""));
}

#[tokio::test]
async fn rejected_credentials_are_replaced_once_per_request() {
    let fixture = fixture(ScriptedSource::default());
    let mut admission = fixture.admitted().await;
    let recovery = fixture.recover(&mut admission, Some(0), REPLAYABLE).await;
    assert_eq!(replayed(&recovery), UnauthorizedReason::FreshCredentials);
    assert_eq!(admission.client_id(), Some("client-2"));
    let recovery = fixture.recover(&mut admission, Some(0), REPLAYABLE).await;
    assert_eq!(
        passed_through(&recovery),
        UnauthorizedReason::StillUnauthorized
    );
    // The fresh credentials stay in use, and the next 401 fetches no others.
    let mut admission = fixture.admitted().await;
    assert_eq!(admission.client_id(), Some("client-2"));
    let recovery = fixture.recover(&mut admission, Some(0), REPLAYABLE).await;
    assert_eq!(
        passed_through(&recovery),
        UnauthorizedReason::StillUnauthorized
    );
    assert_eq!(fixture.fetched(), 2);
}

#[tokio::test]
async fn a_request_that_cannot_be_replayed_invalidates_the_credentials() {
    let fixture = fixture(ScriptedSource::default());
    let mut admission = fixture.admitted().await;
    let no = Replayable::No(UnauthorizedReason::BodyTooLarge);
    let recovery = fixture.recover(&mut admission, None, no).await;
    assert_eq!(passed_through(&recovery), UnauthorizedReason::BodyTooLarge);
    assert_eq!(fixture.fetched(), 1, "no fetch without a replay");
    assert_eq!(fixture.admitted().await.client_id(), Some("client-2"));
}

#[tokio::test]
async fn an_unavailable_exchange_is_a_503_and_not_a_401() {
    let fixture = fixture(ScriptedSource::default());
    let mut admission = fixture.admitted().await;
    fixture.fail_with(FetchError::Unavailable {
        cause: "down".into(),
        retry_after: Some(Duration::from_secs(9)),
    });
    let Recovery::Refuse(reason, rejection) =
        fixture.recover(&mut admission, None, REPLAYABLE).await
    else {
        panic!("not refused");
    };
    assert_eq!(reason, UnauthorizedReason::ExchangeFailed);
    assert_eq!(rejection.reason, Reason::ExchangeUnavailable);
    // Other requests go on using the credentials, which the upstream may reject for one path only.
    let admitted = fixture.admitted().await;
    assert_eq!(admitted.client_id(), Some("client-1"));
    assert_eq!(admitted.lookup, Some(Lookup::Stale));
}

#[tokio::test]
async fn each_source_error_has_its_reason() {
    for (error, expected) in [
        (FetchError::Refused("no".into()), Reason::TokenRefused),
        (FetchError::NotEntitled("no".into()), Reason::NotEntitled),
        (FetchError::BadAnswer("no".into()), Reason::ExchangeFailed),
        (
            FetchError::TooLarge("no".into()),
            Reason::CredentialTooLarge,
        ),
    ] {
        let fixture = fixture(ScriptedSource::default());
        fixture.fail_with(error);
        let refused = fixture.admit("/api/x").await.unwrap_err();
        assert_eq!(refused.rejection.reason, expected);
        assert_eq!(refused.route.unwrap().name.as_ref(), "tc");
    }
}

#[tokio::test]
async fn unmatched_and_ambiguous_paths_and_missing_tokens_are_refused() {
    let fixture = fixture(ScriptedSource::default());
    let refused = fixture.admit("/nowhere").await.unwrap_err();
    assert_eq!(refused.rejection.reason, Reason::NoRoute);
    let refused = fixture.admit("/plain/%2e%2e/api/x").await.unwrap_err();
    assert_eq!(refused.rejection.reason, Reason::BadRequest);
    let refused = fixture.admit("/guarded/x").await.unwrap_err();
    assert_eq!(refused.rejection.reason, Reason::MissingToken);
}

const ISSUER: &str = "https://issuer.example.com";

/// A gateway whose route verifies tokens, with an optional workload token file.
fn verifying(workload: Option<&Path>) -> Gateway {
    let clock = testing::clock();
    let keys = ScriptedKeys::of(&[ED25519.jwk()]);
    let config = configured(ISSUER, Profile::Auth0);
    let mut route = routes::route("guarded", None, "/", None);
    route.anonymous = false;
    route.require_scopes = vec!["openid".into()];
    route.issuers = vec![testing::issuer("auth0", &config, &keys, &clock)];
    route.workload_token = workload.map(|file| Arc::new(WorkloadToken::new(file.into())));
    Gateway {
        routes: RouteTable::new(vec![Arc::new(route)]),
        sessions: SessionTable::default(),
        login: None,
        credentials: None,
        clock,
        max_token_bytes: crate::token::DEFAULT_TOKEN_BYTES,
        rule_headers: vec![],
        forward_auth: vec![],
        isolation: IsolationPolicy::default(),
        observability: Observability::default(),
    }
}

fn token(changes: &serde_json::Value) -> String {
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": testing::AUDIENCE, "sub": "alice", "azp": "spa",
        "exp": testing::NOW + 60, "scope": "openid",
    });
    let header = serde_json::json!({"typ": "JWT"});
    ED25519.token(&header, &testing::with(&claims, changes))
}

async fn admit_with(gateway: &Gateway, values: &[&str]) -> Result<Admission, Box<AdmissionError>> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(http::header::AUTHORIZATION, value.parse().unwrap());
    }
    gateway.admit(Head::for_test("/x", &headers)).await
}

#[tokio::test]
async fn a_verified_token_is_cached() {
    let gateway = verifying(None);
    let header = format!("Bearer {}", token(&serde_json::json!({})));
    for how in ["ok", "cached"] {
        let admission = admit_with(&gateway, &[&header]).await.unwrap();
        assert_eq!(admission.verification, Some(how));
        assert_eq!(admission.caller.issuer().map(|i| &**i), Some("auth0"));
    }
}

#[tokio::test]
async fn a_refused_token_is_reported_with_its_issuer() {
    let gateway = verifying(None);
    for (changes, reason, issuer) in [
        (
            serde_json::json!({"exp": 1}),
            Reason::TokenExpired,
            Some("auth0"),
        ),
        (serde_json::json!({"iss": "x"}), Reason::TokenIssuer, None),
        (
            serde_json::json!({"nonce": "n"}),
            Reason::TokenType,
            Some("auth0"),
        ),
    ] {
        let header = format!("Bearer {}", token(&changes));
        let refused = admit_with(&gateway, &[&header]).await.unwrap_err();
        assert_eq!(refused.rejection.reason, reason);
        assert_eq!(
            refused.verification,
            Some(crate::label::Label::label(reason))
        );
        assert_eq!(refused.issuer.as_deref(), issuer);
    }
    let header = format!("Bearer {}", token(&serde_json::json!({"scope": "email"})));
    let refused = admit_with(&gateway, &[&header]).await.unwrap_err();
    assert_eq!(refused.rejection.reason, Reason::InsufficientScope);
    assert_eq!(refused.verification, Some("ok"));
}

#[tokio::test]
async fn a_workload_token_is_used_only_without_an_authorization_header() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let gateway = verifying(Some(&file));
    let refused = admit_with(&gateway, &[]).await.unwrap_err();
    assert_eq!(refused.rejection.reason, Reason::WorkloadTokenUnavailable);
    std::fs::write(&file, token(&serde_json::json!({}))).unwrap();
    let route = gateway.routes.iter().next().unwrap();
    route.workload_token.as_ref().unwrap().refresh().unwrap();
    let admission = admit_with(&gateway, &[]).await.unwrap();
    assert_eq!(admission.verification, Some("ok"));
    for (values, reason) in [
        (&["Basic dTpw"][..], Reason::MissingToken),
        (&["Bearer"], Reason::InvalidAuthorization),
        (&["Bearer a", "Bearer b"], Reason::InvalidAuthorization),
        (&["Bearer opaque"], Reason::TokenMalformed),
    ] {
        let refused = admit_with(&gateway, values).await.unwrap_err();
        assert_eq!(refused.rejection.reason, reason, "{values:?}");
    }
}

#[tokio::test]
async fn a_short_path_is_routed_by_its_expanded_form() {
    let clock = ManualClock::at(NOW);
    let short = |name: &str, path: &str, shortcut: bool| {
        let mut route = routes::route(name, None, path, None);
        route.compat.shortcut = shortcut;
        Arc::new(route)
    };
    let gateway = Gateway {
        routes: RouteTable::new(vec![
            short("all", "/", true),
            short("secrets", "/api/secrets/", false),
            short("plain", "/plain/", false),
        ]),
        sessions: SessionTable::default(),
        login: None,
        credentials: None,
        clock,
        max_token_bytes: crate::token::DEFAULT_TOKEN_BYTES,
        rule_headers: vec![],
        forward_auth: vec![],
        isolation: IsolationPolicy::default(),
        observability: Observability::default(),
    };
    for (target, name, sent) in [
        ("/queue/v1/ping?x", "all", Some("/api/queue/v1/ping?x")),
        ("/api/queue/v1/ping", "all", None),
        ("/secrets/v1/x", "secrets", Some("/api/secrets/v1/x")),
        ("/plain/v1/x", "plain", None),
        ("/login/oauth/credentials", "all", None),
    ] {
        let headers = HeaderMap::new();
        let head = Head::for_test(target, &headers);
        let admission = gateway.admit(head).await.unwrap();
        assert_eq!(admission.route.name.as_ref(), name, "{target}");
        assert_eq!(admission.target(), sent);
    }
}

#[tokio::test]
async fn taskcluster_proxy_headers_reveal_no_secret() {
    let mut fixture = fixture(ScriptedSource::default());
    assert!(
        fixture
            .admitted()
            .await
            .taskcluster_proxy_headers("/api/x")
            .is_none()
    );
    let mut route = routes::route("headers", None, "/", None);
    route.compat.headers = true;
    route
        .source
        .clone_from(&fixture.admitted().await.route.source);
    fixture.gateway.routes = RouteTable::new(vec![Arc::new(route)]);
    let admission = fixture.admitted().await;
    let headers = admission.taskcluster_proxy_headers("/api/x?y").unwrap();
    let value = |name: &str| {
        let found = headers.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(
        value("x-taskcluster-endpoint"),
        Some("https://tc.example.com/api/x?y")
    );
    assert_eq!(value("x-taskcluster-proxy-version"), Some(crate::VERSION));
    assert_eq!(value("x-taskcluster-proxy-perm-clientid"), Some("client-1"));
    assert_eq!(value("x-taskcluster-proxy-temp-clientid"), None);
    let bewit = admission
        .taskcluster_proxy_headers("/api/x?bewit=abc")
        .unwrap();
    assert!(bewit.iter().all(|(_, value)| !value.contains("abc")));
}

/// A gateway whose only route has a `delegated` issuer and `source`.
fn delegated(source: ScriptedSource) -> Fixture {
    let mut fixture = fixture(source);
    let mut route = routes::route("opaque", None, "/", None);
    route.anonymous = false;
    route.issuers = vec![Arc::new(Issuer::delegated("tc".into()))];
    route.source = Some(routes::source(
        fixture.source.clone(),
        fixture.gateway.clock.clone(),
    ));
    fixture.gateway.routes = RouteTable::new(vec![Arc::new(route)]);
    fixture
}

#[tokio::test]
async fn an_opaque_token_is_proved_by_the_exchange_whatever_the_request_is() {
    let fixture = delegated(ScriptedSource::default());
    let mut headers = HeaderMap::new();
    headers.insert(
        "authorization",
        "Bearer never-issued-by-anyone".parse().unwrap(),
    );
    headers.insert("upgrade", "websocket".parse().unwrap());
    let methods = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST];
    let targets = ["/x", "/x?bewit=abc", "/?a=b&bewit", "/x?bewit=&bewit="];
    fixture.fail_with(FetchError::Refused("no such token".into()));
    for method in &methods {
        for target in targets {
            let head = Head {
                method,
                ..Head::for_test(target, &headers)
            };
            let refused = fixture.gateway.admit(head).await.unwrap_err();
            assert_eq!(refused.rejection.reason, Reason::TokenRefused, "{target}");
        }
    }
}

#[tokio::test]
async fn a_request_with_a_bewit_is_not_signed_after_its_token_was_proved() {
    let fixture = delegated(ScriptedSource::default());
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer opaque".parse().unwrap());
    for lookup in [Lookup::Fetched, Lookup::Hit] {
        let target = "/x?bewit=abc";
        let head = Head::for_test(target, &headers);
        let mut admission = fixture.gateway.admit(head).await.unwrap();
        assert_eq!(admission.lookup, Some(lookup));
        let header = fixture.gateway.sign(&admission, &Method::GET, target);
        assert!(header.unwrap().is_none());
        // An upgraded connection ends with what proved the token all the same.
        assert_eq!(
            admission.valid_until(),
            Some(NOW.plus(Duration::from_hours(1)))
        );
        let recovery = fixture.recover(&mut admission, None, REPLAYABLE).await;
        assert_eq!(passed_through(&recovery), UnauthorizedReason::NotSigned);
    }
    assert_eq!(fixture.fetched(), 1);
}

#[tokio::test]
async fn an_upgrade_gets_a_credential_with_enough_of_its_life_left() {
    const HOUR: Duration = Duration::from_hours(1);
    for target in ["/x", "/x?bewit=abc"] {
        let fixture = delegated(ScriptedSource::default());
        let admitted = async |upgrade: bool| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", "Bearer opaque".parse().unwrap());
            if upgrade {
                headers.insert("upgrade", "websocket".parse().unwrap());
            }
            let admission = fixture.gateway.admit(Head::for_test(target, &headers));
            let admission = admission.await.unwrap();
            (admission.lookup.unwrap(), admission.valid_until().unwrap())
        };
        let end = NOW.plus(HOUR);
        assert_eq!(admitted(true).await, (Lookup::Fetched, end));
        fixture.clock.advance(HOUR / 2);
        assert_eq!(admitted(true).await, (Lookup::Hit, end));
        fixture.clock.advance(HOUR / 4);
        assert_eq!(admitted(false).await, (Lookup::Hit, end));
        let end = fixture.clock.now().plus(HOUR);
        assert_eq!(admitted(true).await, (Lookup::Fetched, end));
        assert_eq!(admitted(true).await, (Lookup::Hit, end));
        assert_eq!(fixture.fetched(), 2);
    }
}

#[tokio::test]
async fn an_upgrade_that_does_not_end_with_its_credential_causes_no_exchange() {
    let mut fixture = delegated(ScriptedSource::default());
    let mut routes: Vec<_> = fixture.gateway.routes.iter().cloned().collect();
    fixture.gateway.routes = RouteTable::default();
    for route in &mut routes {
        Arc::get_mut(route).unwrap().upgrade_expiry = UpgradeExpiry::None;
    }
    fixture.gateway.routes = RouteTable::new(routes);
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer opaque".parse().unwrap());
    headers.insert("upgrade", "websocket".parse().unwrap());
    for lookup in [Lookup::Fetched, Lookup::Hit] {
        let admission = fixture.gateway.admit(Head::for_test("/x", &headers));
        assert_eq!(admission.await.unwrap().lookup, Some(lookup));
        fixture.clock.advance(Duration::from_mins(50));
    }
}

#[tokio::test]
async fn an_opaque_token_is_refused_if_nothing_would_prove_it() {
    let mut fixture = delegated(ScriptedSource::default());
    let mut route = routes::route("opaque", None, "/", None);
    route.anonymous = false;
    route.issuers = vec![Arc::new(Issuer::delegated("tc".into()))];
    fixture.gateway.routes = RouteTable::new(vec![Arc::new(route)]);
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer opaque".parse().unwrap());
    for target in ["/x", "/x?bewit=abc"] {
        let head = Head::for_test(target, &headers);
        let refused = fixture.gateway.admit(head).await.unwrap_err();
        assert_eq!(refused.rejection.reason, Reason::Internal);
    }
}
