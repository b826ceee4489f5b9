//! Decisions without sockets: a scripted source, a manual clock.

mod passwords;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::outcome::UnauthorizedReason;
use super::route::tests as fixture;
use crate::credential::Lookup;
use http::HeaderMap;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::credential::{
    CacheLimits, CachedSource, CredentialSource, FetchError, IdentityHasher, Issued, SourceOptions,
    SwapRequest,
};
use crate::hawk::{Credentials, Signer};
use crate::secret::SecretString;
use crate::token::settings::Profile;
use crate::token::testing::{self, ED25519, ScriptedKeys, configured};
use crate::token::{Caller, WorkloadToken};

const NOW: UnixMillis = UnixMillis::from_secs(1_700_000_000);
const FRESH: Replayable = Replayable::Yes;

/// Gives numbered clients until told to fail.
#[derive(Debug, Default)]
struct Script {
    fetched: AtomicUsize,
    local: bool,
    failure: Mutex<Option<FetchError>>,
    offsets: Mutex<Vec<i64>>,
}

#[async_trait]
impl CredentialSource for Script {
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
            authorized_scopes: None,
        };
        Ok(Issued {
            credential: Credential::Taskcluster {
                client_id: credentials.client_id.clone(),
                signer: Box::new(Signer::new(&credentials).unwrap()),
            },
            expires_at: None,
        })
    }

    fn is_local(&self) -> bool {
        self.local
    }
}

struct Stage {
    gateway: Gateway,
    script: Arc<Script>,
}

fn stage(script: Script) -> Stage {
    let clock = ManualClock::at(NOW);
    let script = Arc::new(script);
    let options = SourceOptions {
        limits: CacheLimits {
            max_entries: 10,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::ZERO,
            refusals: Duration::from_secs(10),
        },
        timeout: Duration::from_secs(5),
        concurrency: 4,
    };
    let inner: Arc<dyn CredentialSource> = script.clone();
    let source = CachedSource::new("scripted".into(), inner, options, clock.clone()).unwrap();
    let mut route = fixture::route("tc", None, "/api/", None);
    route.source = Some(Arc::new(source));
    let plain = fixture::route("plain", None, "/plain/", None);
    let mut guarded = fixture::route("guarded", None, "/guarded/", None);
    guarded.anonymous = false;
    Stage {
        gateway: Gateway {
            routes: RouteTable::new([route, plain, guarded].map(Arc::new).to_vec()),
            login: None,
            clock,
            rule_headers: vec![],
            observe: Observe::default(),
        },
        script,
    }
}

impl Stage {
    async fn admit(&self, target: &str) -> Result<Admission, Box<Refused>> {
        let head = Head {
            method: &Method::GET,
            host: "any",
            target,
            headers: &HeaderMap::new(),
            peer: None,
            certificate: None,
        };
        self.gateway.admit(head).await
    }

    async fn admitted(&self) -> Admission {
        self.admit("/api/x").await.unwrap()
    }

    fn fetched(&self) -> usize {
        self.script.fetched.load(Ordering::SeqCst)
    }

    fn fail_with(&self, error: FetchError) {
        *self.script.failure.lock().unwrap() = Some(error);
    }

    async fn recover(
        &self,
        admission: &mut Admission,
        skew: Option<i64>,
        replayable: Replayable,
    ) -> Recovery {
        let date = skew.map(|seconds| NOW.offset_by(seconds * 1000));
        self.gateway
            .recover(admission, UpstreamAnswer { date }, replayable)
            .await
    }
}

fn replayed(recovery: &Recovery) -> UnauthorizedReason {
    match recovery {
        Recovery::Replay(reason) => *reason,
        other => panic!("not replayed: {other:?}"),
    }
}

fn passed(recovery: &Recovery) -> UnauthorizedReason {
    match recovery {
        Recovery::PassThrough(reason) => *reason,
        other => panic!("not passed through: {other:?}"),
    }
}

#[tokio::test]
async fn the_second_request_hits_the_cache() {
    let stage = stage(Script::default());
    assert_eq!(stage.admitted().await.lookup, Some(Lookup::Fetched));
    let again = stage.admitted().await;
    assert_eq!(again.lookup, Some(Lookup::Hit));
    assert_eq!(again.client_id(), Some("client-1"));
}

#[tokio::test]
async fn what_bears_a_bewit_or_has_no_source_is_not_signed() {
    let stage = stage(Script::default());
    for target in ["/api/x?bewit=abc", "/plain/x"] {
        let mut admission = stage.admit(target).await.unwrap();
        assert_eq!(admission.lookup, None);
        let header = stage
            .gateway
            .sign(&admission, &Method::GET, target)
            .unwrap();
        assert!(header.is_none());
        let recovery = stage.recover(&mut admission, None, FRESH).await;
        assert_eq!(passed(&recovery), UnauthorizedReason::NotSigned);
    }
    assert_eq!(stage.fetched(), 0);
}

#[tokio::test]
async fn the_signature_bears_the_upstreams_time() {
    let stage = stage(Script::default());
    let admission = stage.admitted().await;
    let signed = |stage: &Stage| {
        let value = stage
            .gateway
            .sign(&admission, &Method::GET, "/api/x")
            .unwrap()
            .unwrap()
            .value;
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    };
    assert!(signed(&stage).contains("ts=\"1700000000\""));
    admission
        .route
        .upstream
        .clock_offset
        .store(-3_600_000, Ordering::Relaxed);
    assert!(signed(&stage).contains("ts=\"1699996400\""));
}

#[tokio::test]
async fn rejected_credentials_are_replaced_once() {
    let stage = stage(Script::default());
    let mut admission = stage.admitted().await;
    let recovery = stage.recover(&mut admission, Some(0), FRESH).await;
    assert_eq!(replayed(&recovery), UnauthorizedReason::FreshCredentials);
    assert_eq!(admission.client_id(), Some("client-2"));
    let recovery = stage.recover(&mut admission, Some(0), FRESH).await;
    assert_eq!(passed(&recovery), UnauthorizedReason::StillUnauthorized);
    // The second generation is dropped as well: the next request begins anew.
    assert_eq!(stage.admitted().await.client_id(), Some("client-3"));
}

#[tokio::test]
async fn what_cannot_be_replayed_drops_the_credentials() {
    let stage = stage(Script::default());
    let mut admission = stage.admitted().await;
    let no = Replayable::No(UnauthorizedReason::BodyTooLarge);
    let recovery = stage.recover(&mut admission, None, no).await;
    assert_eq!(passed(&recovery), UnauthorizedReason::BodyTooLarge);
    assert_eq!(stage.fetched(), 1, "nothing is fetched for nobody");
    assert_eq!(stage.admitted().await.client_id(), Some("client-2"));
}

#[tokio::test]
async fn a_wrong_clock_costs_no_exchange() {
    let stage = stage(Script::default());
    let mut admission = stage.admitted().await;
    let recovery = stage.recover(&mut admission, Some(3600), FRESH).await;
    assert_eq!(replayed(&recovery), UnauthorizedReason::ClockSkew);
    assert_eq!(admission.client_id(), Some("client-1"));
    assert_eq!(admission.route.upstream.clock_offset(), 3_600_000);
    // With the right time it is about the credentials after all: once.
    let recovery = stage.recover(&mut admission, Some(3600), FRESH).await;
    assert_eq!(replayed(&recovery), UnauthorizedReason::FreshCredentials);
    let recovery = stage.recover(&mut admission, Some(3600), FRESH).await;
    assert_eq!(passed(&recovery), UnauthorizedReason::StillUnauthorized);
}

#[tokio::test]
async fn what_is_made_here_is_made_again_with_the_right_time() {
    let script = Script {
        local: true,
        ..Script::default()
    };
    let stage = stage(script);
    let mut admission = stage.admitted().await;
    let recovery = stage.recover(&mut admission, Some(-3600), FRESH).await;
    assert_eq!(replayed(&recovery), UnauthorizedReason::ClockSkew);
    assert_eq!(admission.client_id(), Some("client-2"));
    assert_eq!(*stage.script.offsets.lock().unwrap(), [0, -3_600_000]);
}

#[tokio::test]
async fn small_and_absurd_differences_are_not_believed() {
    let stage = stage(Script::default());
    for skew in [200, -200, 100_000, -100_000, i64::MAX / 2000] {
        let mut admission = stage.admitted().await;
        let recovery = stage.recover(&mut admission, Some(skew), FRESH).await;
        assert_eq!(
            replayed(&recovery),
            UnauthorizedReason::FreshCredentials,
            "{skew}"
        );
        assert_eq!(admission.route.upstream.clock_offset(), 0);
    }
}

#[tokio::test]
async fn a_wrong_clock_and_no_replay_keeps_the_credentials() {
    let stage = stage(Script::default());
    let mut admission = stage.admitted().await;
    let no = Replayable::No(UnauthorizedReason::ReplayMemory);
    let recovery = stage.recover(&mut admission, Some(3600), no).await;
    assert_eq!(passed(&recovery), UnauthorizedReason::ReplayMemory);
    assert_eq!(stage.admitted().await.client_id(), Some("client-1"));
}

#[tokio::test]
async fn a_dead_exchange_never_looks_like_a_bad_token() {
    let stage = stage(Script::default());
    let mut admission = stage.admitted().await;
    stage.fail_with(FetchError::Unavailable {
        cause: "down".into(),
        retry_after: Some(Duration::from_secs(9)),
    });
    let Recovery::Refuse(reason, rejection) = stage.recover(&mut admission, None, FRESH).await
    else {
        panic!("not refused");
    };
    assert_eq!(reason, UnauthorizedReason::ExchangeFailed);
    assert_eq!(rejection.reason, Reason::ExchangeUnavailable);
    let refused = stage.admit("/api/x").await.unwrap_err();
    assert_eq!(
        refused.rejection.reason.status(),
        503,
        "the rejected ones are gone for good"
    );
}

#[tokio::test]
async fn each_failure_of_a_source_has_its_refusal() {
    for (error, expected) in [
        (FetchError::Refused("no".into()), Reason::TokenRefused),
        (FetchError::NotEntitled("no".into()), Reason::NotEntitled),
        (FetchError::BadAnswer("no".into()), Reason::ExchangeFailed),
        (
            FetchError::TooLarge("no".into()),
            Reason::CredentialTooLarge,
        ),
    ] {
        let stage = stage(Script::default());
        stage.fail_with(error);
        let refused = stage.admit("/api/x").await.unwrap_err();
        assert_eq!(refused.rejection.reason, expected);
        assert_eq!(refused.route.unwrap().name.as_ref(), "tc");
    }
}

#[tokio::test]
async fn no_route_and_ambiguous_paths() {
    let stage = stage(Script::default());
    let refused = stage.admit("/nowhere").await.unwrap_err();
    assert_eq!(refused.rejection.reason, Reason::NoRoute);
    let refused = stage.admit("/plain/%2e%2e/api/x").await.unwrap_err();
    assert_eq!(refused.rejection.reason, Reason::BadRequest);
    let refused = stage.admit("/guarded/x").await.unwrap_err();
    assert_eq!(refused.rejection.reason, Reason::MissingToken);
}

const ISSUER: &str = "https://issuer.example.com";

/// A route that an `oidc` issuer guards, with the file of a workload's token.
fn verifying(workload: Option<&Path>) -> Gateway {
    let clock = testing::clock();
    let keys = ScriptedKeys::of(&[ED25519.jwk()]);
    let config = configured(ISSUER, Profile::Auth0);
    let mut route = fixture::route("guarded", None, "/", None);
    route.anonymous = false;
    route.require_scopes = vec!["openid".into()];
    route.issuers = vec![testing::issuer("auth0", &config, &keys, &clock)];
    route.workload_token = workload.map(|file| Arc::new(WorkloadToken::new(file.into())));
    Gateway {
        routes: RouteTable::new(vec![Arc::new(route)]),
        login: None,
        clock,
        rule_headers: vec![],
        observe: Observe::default(),
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

async fn admit_with(gateway: &Gateway, values: &[&str]) -> Result<Admission, Box<Refused>> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(http::header::AUTHORIZATION, value.parse().unwrap());
    }
    let head = Head {
        method: &Method::GET,
        host: "any",
        target: "/x",
        headers: &headers,
        peer: None,
        certificate: None,
    };
    gateway.admit(head).await
}

#[tokio::test]
async fn a_token_is_verified_once_and_then_known() {
    let gateway = verifying(None);
    let header = format!("Bearer {}", token(&serde_json::json!({})));
    for how in ["ok", "cached"] {
        let admission = admit_with(&gateway, &[&header]).await.unwrap();
        assert_eq!(admission.verification, Some(how));
        assert_eq!(admission.caller.issuer().map(|i| &**i), Some("auth0"));
    }
}

#[tokio::test]
async fn a_refused_token_is_counted_with_its_issuer() {
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
async fn a_workload_token_stands_in_only_for_nothing_at_all() {
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
async fn a_short_path_goes_where_its_long_form_goes() {
    let clock = ManualClock::at(NOW);
    let short = |name: &str, path: &str, shortcut: bool| {
        let mut route = fixture::route(name, None, path, None);
        route.compat.shortcut = shortcut;
        Arc::new(route)
    };
    let gateway = Gateway {
        routes: RouteTable::new(vec![
            short("all", "/", true),
            short("secrets", "/api/secrets/", false),
            short("plain", "/plain/", false),
        ]),
        login: None,
        clock,
        rule_headers: vec![],
        observe: Observe::default(),
    };
    for (target, name, sent) in [
        ("/queue/v1/ping?x", "all", Some("/api/queue/v1/ping?x")),
        ("/api/queue/v1/ping", "all", None),
        ("/secrets/v1/x", "secrets", Some("/api/secrets/v1/x")),
        ("/plain/v1/x", "plain", None),
        ("/login/oauth/credentials", "all", None),
    ] {
        let head = Head {
            method: &Method::GET,
            host: "any",
            target,
            headers: &HeaderMap::new(),
            peer: None,
            certificate: None,
        };
        let admission = gateway.admit(head).await.unwrap();
        assert_eq!(admission.route.name.as_ref(), name, "{target}");
        assert_eq!(admission.target(), sent);
    }
}

#[tokio::test]
async fn the_informational_headers_tell_no_secret() {
    let mut stage = stage(Script::default());
    assert!(stage.admitted().await.informational("/api/x").is_none());
    let mut route = fixture::route("told", None, "/", None);
    route.compat.headers = true;
    route
        .source
        .clone_from(&stage.admitted().await.route.source);
    stage.gateway.routes = RouteTable::new(vec![Arc::new(route)]);
    let admission = stage.admitted().await;
    let headers = admission.informational("/api/x?y").unwrap();
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
    let bewit = admission.informational("/api/x?bewit=abc").unwrap();
    assert!(bewit.iter().all(|(_, value)| !value.contains("abc")));
}
