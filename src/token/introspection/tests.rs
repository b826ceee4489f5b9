use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use tokio::sync::Semaphore;

use super::*;
use crate::bounded_cache::CacheBounds;
use crate::clock::ManualClock;
use crate::token::settings::Profile;
use crate::token::testing::{AUDIENCE, NOW, P256, ScriptedKeys, configured, issuer, with};
use crate::token::{Authenticated, Caller, Issuer, IssuerStatus, Unauthenticated, authenticate};

const URL: &str = "https://as.example.com";

type Response = Result<Vec<u8>, IntrospectionError>;

/// Returns the response that was set last. If blocked, each introspection waits for a permit.
#[derive(Debug)]
struct Scripted {
    response: Mutex<Response>,
    calls: AtomicUsize,
    started: Semaphore,
    permits: Option<Semaphore>,
}

#[async_trait]
impl Introspector for Scripted {
    async fn introspect(&self, _: &BearerToken) -> Response {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.started.add_permits(1);
        if let Some(permits) = &self.permits {
            permits.acquire().await.unwrap().forget();
        }
        self.response.lock().unwrap().clone()
    }
}

impl Scripted {
    fn new(blocked: bool) -> Arc<Self> {
        Arc::new(Self {
            response: Mutex::new(Ok(active(&json!({})))),
            calls: AtomicUsize::new(0),
            started: Semaphore::new(0),
            permits: blocked.then(|| Semaphore::new(0)),
        })
    }

    fn respond(&self, response: impl Into<Vec<u8>>) {
        *self.response.lock().unwrap() = Ok(response.into());
    }

    fn go_down(&self, retry_after: Option<u64>) {
        self.fail(IntrospectionError {
            fault: IntrospectionFault::Issuer,
            cause: "down".into(),
            retry_after: retry_after.map(Duration::from_secs),
        });
    }

    fn fail(&self, error: IntrospectionError) {
        *self.response.lock().unwrap() = Err(error);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// A valid response, with changes.
fn active(changes: &Value) -> Vec<u8> {
    let good = json!({
        "active": true, "iss": URL, "aud": [AUDIENCE], "sub": "alice", "client_id": "cli", "scope": "read write",
        "exp": NOW + 600, "iat": NOW, "token_type": "Bearer",
    });
    with(&good, changes).to_string().into_bytes()
}

fn config(url: &str, prefix: Option<&str>) -> IntrospectionIssuer {
    IntrospectionIssuer {
        url: url.into(),
        token_prefix: prefix.map(str::to_owned),
        audiences: vec![AUDIENCE.into()],
        format: Profile::Rfc9068.format(),
        leeway: Duration::from_secs(30),
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_mins(1),
    }
}

struct Fixture {
    clock: Arc<ManualClock>,
    script: Arc<Scripted>,
    issuers: Vec<Arc<Issuer>>,
    results: Arc<Mutex<Vec<IntrospectionResult>>>,
}

fn introspecting(
    name: &str,
    config: &IntrospectionIssuer,
    script: &Arc<Scripted>,
    clock: &Arc<ManualClock>,
) -> Arc<Issuer> {
    let observer = IntrospectionObserver::default();
    let (script, clock) = (Arc::clone(script), Arc::clone(clock));
    Arc::new(Issuer::introspection(
        name.into(),
        config,
        script,
        clock,
        CacheBounds::of_entries(100),
        observer,
    ))
}

impl Fixture {
    fn new(blocked: bool) -> Self {
        let clock = ManualClock::at(UnixMillis::from_secs(NOW));
        let script = Scripted::new(blocked);
        let results: Arc<Mutex<Vec<IntrospectionResult>>> = Arc::default();
        let recorded = Arc::clone(&results);
        let observer =
            IntrospectionObserver::new(move |result| recorded.lock().unwrap().push(result));
        let issuer = Issuer::introspection(
            "as".into(),
            &config(URL, None),
            script.clone(),
            clock.clone(),
            CacheBounds::of_entries(100),
            observer,
        );
        Self {
            clock,
            script,
            issuers: vec![Arc::new(issuer)],
            results,
        }
    }

    async fn authenticate(&self, token: &str) -> Result<Authenticated, Unauthenticated> {
        authenticate(&BearerToken::new(token).unwrap(), &self.issuers, None).await
    }

    async fn verify(&self, token: &str) -> &'static str {
        self.authenticate(token)
            .await
            .unwrap()
            .verification
            .unwrap()
    }

    async fn error(&self, token: &str) -> TokenError {
        self.authenticate(token).await.unwrap_err().error
    }
}

#[tokio::test]
async fn an_active_token_identifies_the_caller() {
    let fixture = Fixture::new(false);
    let found = fixture.authenticate("opaque").await.unwrap();
    assert_eq!(found.verification, Some("ok"));
    let Caller::Verified(token) = found.caller else {
        panic!("{:?}", found.caller)
    };
    assert_eq!(
        (&**token.issuer(), token.subject(), token.client()),
        ("as", "alice", Some("cli"))
    );
    assert_eq!(token.scopes(), ["read", "write"]);
    assert_eq!(token.expires_at(), UnixMillis::from_secs(NOW + 600));
    assert_eq!(fixture.verify("opaque").await, "cached");
    assert_eq!(fixture.script.calls(), 1);
    assert_eq!(
        *fixture.results.lock().unwrap(),
        [IntrospectionResult::Accepted]
    );
    assert_eq!(fixture.issuers[0].status(), IssuerStatus::Usable);
}

#[tokio::test]
async fn a_response_is_cached_for_a_minute_and_not_past_the_tokens_expiry() {
    let fixture = Fixture::new(false);
    assert_eq!(fixture.verify("a").await, "ok");
    fixture.clock.advance(Duration::from_millis(59_999));
    assert_eq!(fixture.verify("a").await, "cached");
    fixture.clock.advance(Duration::from_millis(1));
    fixture.script.respond("{\"active\":false}");
    assert_eq!(fixture.error("a").await, TokenError::Inactive, "revoked");
    fixture.script.respond(active(&json!({ "exp": NOW + 65 })));
    assert_eq!(fixture.verify("b").await, "ok");
    fixture.clock.advance(Duration::from_secs(5));
    assert_eq!(
        fixture.verify("b").await,
        "ok",
        "within the leeway, but introspected again"
    );
    fixture.script.respond(active(&json!({ "exp": null })));
    assert_eq!(fixture.verify("c").await, "ok", "exp is optional");
    assert_eq!(fixture.verify("c").await, "cached");
    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(fixture.verify("c").await, "ok");
}

#[tokio::test]
async fn an_inactive_token_is_cached_briefly_as_refused() {
    let fixture = Fixture::new(false);
    fixture
        .script
        .respond("{\"active\":false,\"sub\":\"alice\"}");
    for _ in 0..3 {
        let refused = fixture.authenticate("a").await.unwrap_err();
        assert_eq!(
            (refused.error, refused.issuer.as_deref()),
            (TokenError::Inactive, Some("as"))
        );
    }
    assert_eq!(fixture.script.calls(), 1);
    fixture.script.respond(active(&json!({})));
    fixture.clock.advance(REFUSAL_AGE);
    assert_eq!(fixture.verify("a").await, "ok");
}

#[tokio::test]
async fn an_active_token_must_also_satisfy_the_rules() {
    let fixture = Fixture::new(false);
    for (n, (changes, error)) in [
        (json!({ "aud": "x" }), TokenError::WrongAudience),
        (json!({ "aud": null }), TokenError::claim("aud")),
        (
            json!({ "iss": "https://x.example" }),
            TokenError::UnknownIssuer,
        ),
        (json!({ "iss": [URL] }), TokenError::UnknownIssuer),
        (json!({ "sub": null }), TokenError::claim("sub")),
        (json!({ "exp": NOW - 31 }), TokenError::Expired),
        (json!({ "exp": "soon" }), TokenError::claim("exp")),
        (json!({ "nbf": NOW + 31 }), TokenError::NotYetValid),
        (json!({ "cnf": { "x5t#S256": "x" } }), TokenError::Bound),
        (json!({ "token_type": "DPoP" }), TokenError::Bound),
        (
            json!({ "token_type": "refresh_token" }),
            TokenError::WrongType,
        ),
        (json!({ "token_type": 5 }), TokenError::WrongType),
        (json!({ "typ": "Refresh" }), TokenError::WrongType),
        (json!({ "typ": "ID" }), TokenError::WrongType),
    ]
    .into_iter()
    .enumerate()
    {
        fixture.script.respond(active(&changes));
        assert_eq!(fixture.error(&format!("t{n}")).await, error, "{changes}");
    }
    fixture
        .script
        .respond(active(&json!({ "iss": null, "token_type": null })));
    assert_eq!(fixture.verify("fine").await, "ok");
    fixture
        .script
        .respond(active(&json!({ "token_type": "access_token" })));
    assert_eq!(fixture.verify("fine-too").await, "ok");
}

#[tokio::test(start_paused = true)]
async fn an_unusable_response_is_a_failure_and_not_a_refusal() {
    let fixture = Fixture::new(false);
    for (n, response) in [
        "",
        "<html>",
        "[]",
        "true",
        "{}",
        "{\"active\":\"true\"}",
        "{\"active\":1}",
        "{\"active\":null}",
        "{\"active\":false,\"active\":true}",
        "{\"active\":true,\"sub\":\"a\",\"sub\":\"b\"}",
        "{\"active\":true} {}",
    ]
    .into_iter()
    .enumerate()
    {
        fixture.script.respond(response);
        let error = fixture.error(&format!("t{n}")).await;
        assert!(
            matches!(error, TokenError::IntrospectionUnavailable { .. }),
            "{response}: {error}"
        );
        assert_eq!(error.label(), "keys_unavailable");
        fixture.clock.advance(Duration::from_secs(30));
    }
    assert!(
        fixture
            .results
            .lock()
            .unwrap()
            .iter()
            .all(|result| *result == IntrospectionResult::Failed)
    );
}

fn wait(seconds: u64) -> TokenError {
    TokenError::IntrospectionUnavailable {
        retry_after: Duration::from_secs(seconds),
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_introspected_backs_off_alone() {
    let fixture = Fixture::new(false);
    fixture.script.go_down(None);
    assert_eq!(fixture.error("a").await, wait(1));
    assert_eq!(fixture.script.calls(), 7, "it is tried again at once");
    assert!(matches!(
        fixture.error("a").await,
        TokenError::IntrospectionUnavailable { .. }
    ));
    assert_eq!(fixture.script.calls(), 7, "no request is sent");
    fixture.script.respond(active(&json!({})));
    assert_eq!(fixture.verify("b").await, "ok");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.verify("a").await, "ok");
    fixture.script.go_down(Some(9));
    assert_eq!(fixture.error("c").await, wait(9), "its Retry-After");
    assert_eq!(fixture.verify("a").await, "cached");
    fixture.clock.advance(Duration::from_mins(1));
    assert!(matches!(
        fixture.error("a").await,
        TokenError::IntrospectionUnavailable { .. }
    ));
}

/// A firewall in front of the issuer, for example, answers 403 to tokens with `../` in them.
#[tokio::test]
async fn tokens_that_the_issuer_rejects_affect_no_other_and_are_never_called_bad() {
    let fixture = Fixture::new(false);
    for (fault, prefix) in [
        (IntrospectionFault::Token, "../"),
        (IntrospectionFault::Client, "x"),
    ] {
        fixture.script.fail(IntrospectionError {
            fault,
            cause: "status 403".into(),
            retry_after: None,
        });
        let before = fixture.script.calls();
        for n in 0..200 {
            let token = format!("{prefix}{n}");
            assert_eq!(fixture.error(&token).await, wait(10));
            assert_eq!(fixture.error(&token).await, wait(10));
        }
        assert_eq!(fixture.script.calls() - before, 200, "each is remembered");
        fixture.script.respond(active(&json!({})));
        let good = format!("good-{fault:?}");
        assert_eq!(fixture.verify(&good).await, "ok");
        assert_eq!(fixture.verify(&format!("{prefix}fresh")).await, "ok");
        fixture.clock.advance(REFUSAL_AGE);
        assert_eq!(fixture.verify(&format!("{prefix}1")).await, "ok");
    }
}

#[tokio::test(start_paused = true)]
async fn many_tokens_from_one_address_that_make_the_issuer_fail_affect_no_other() {
    let fixture = Fixture::new(false);
    for n in 0..200 {
        fixture.script.go_down(None);
        assert_eq!(fixture.error(&format!("bad{n}")).await, wait(1));
        fixture.script.respond(active(&json!({})));
        assert_eq!(fixture.verify(&format!("good{n}")).await, "ok");
    }
}

#[tokio::test]
async fn concurrent_requests_with_one_token_share_an_introspection() {
    let fixture = Arc::new(Fixture::new(true));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.authenticate("same").await.is_ok() })
        })
        .collect();
    fixture.script.started.acquire().await.unwrap().forget();
    // The caller that started the introspection goes away; the others still get the result.
    callers[0].abort();
    tokio::task::yield_now().await;
    fixture.script.permits.as_ref().unwrap().add_permits(50);
    for caller in callers.into_iter().skip(1) {
        assert!(caller.await.unwrap());
    }
    assert_eq!(fixture.script.calls(), 1);
}

/// Each token is introspected by its own issuer and never sent to another.
#[tokio::test]
async fn a_token_is_sent_only_to_its_own_issuer() {
    let clock = ManualClock::at(UnixMillis::from_secs(NOW));
    let keys = ScriptedKeys::of(&[P256.jwk()]);
    let main = "https://main.example.com";
    let (plain, prefixed, longer) = (
        Scripted::new(false),
        Scripted::new(false),
        Scripted::new(false),
    );
    let other = "https://other.example.com";
    let longest = "https://longest.example.com";
    prefixed.respond(active(&json!({ "iss": other })));
    longer.respond(active(&json!({ "iss": longest })));
    let mut issuers = vec![
        issuer("main", &configured(main, Profile::Rfc9068), &keys, &clock),
        introspecting("as", &config(URL, None), &plain, &clock),
        introspecting("other", &config(other, Some("x_")), &prefixed, &clock),
        introspecting("longest", &config(longest, Some("x_y_")), &longer, &clock),
    ];
    let jwt = |iss: &str| {
        let claims = json!({ "iss": iss, "aud": AUDIENCE, "sub": "a", "exp": NOW + 60 });
        P256.token(&json!({ "typ": "at+jwt" }), &claims)
    };
    let broken = format!("{}.x", jwt(main));
    let calls = || (plain.calls(), prefixed.calls(), longer.calls());
    for (token, by, counts) in [
        ("opaque", Some("as"), (1, 0, 0)),
        ("x_opaque", Some("other"), (1, 1, 0)),
        ("x_y_opaque", Some("longest"), (1, 1, 1)),
        (&jwt(main), Some("main"), (1, 1, 1)),
        (&jwt(URL), Some("as"), (2, 1, 1)),
        (&jwt(other), Some("other"), (2, 2, 1)),
        (&jwt("https://foreign.example"), None, (2, 2, 1)),
        (&broken, None, (2, 2, 1)),
    ] {
        let result = authenticate(&BearerToken::new(token).unwrap(), &issuers, None).await;
        let issuer = result.ok().and_then(|found| found.caller.issuer().cloned());
        assert_eq!((issuer.as_deref(), calls()), (by, counts), "{token}");
    }
    // A delegated issuer takes all tokens that no other issuer's prefix matches.
    issuers.remove(1);
    issuers.push(Arc::new(Issuer::delegated("opaque".into())));
    for (token, by) in [
        ("x_more", Some("other")),
        ("anything", Some("opaque")),
        (&jwt("https://foreign.example"), Some("opaque")),
        (&jwt(main), Some("main")),
        (&broken, None),
    ] {
        let result = authenticate(&BearerToken::new(token).unwrap(), &issuers, None).await;
        let issuer = result.ok().and_then(|found| found.caller.issuer().cloned());
        assert_eq!(issuer.as_deref(), by, "{token}");
    }
}

#[tokio::test]
async fn a_panic_in_the_observer_does_not_leave_the_flight_behind() {
    let clock = ManualClock::at(UnixMillis::from_secs(NOW));
    let script = Scripted::new(false);
    let first = AtomicBool::new(true);
    let observer = IntrospectionObserver::new(move |_| {
        let panics = first.swap(false, Ordering::SeqCst);
        assert!(!panics, "raised by the test");
    });
    let config = config(URL, None);
    let issuer = Issuer::introspection(
        "as".into(),
        &config,
        script.clone(),
        clock.clone(),
        CacheBounds::of_entries(100),
        observer,
    );
    let issuers = [Arc::new(issuer)];
    let token = BearerToken::new("a").unwrap();
    script.go_down(None);
    for _ in 0..2 {
        let error = authenticate(&token, &issuers, None)
            .await
            .unwrap_err()
            .error;
        assert_eq!(error, unavailable(MIN_RETRY_AFTER));
    }
    assert_eq!(script.calls(), 7, "the second time it backs off");
    clock.advance(Duration::from_secs(30));
    script.respond(active(&json!({})));
    let found = authenticate(&token, &issuers, None).await.unwrap();
    assert_eq!(found.verification, Some("ok"));
}

/// Many servers answer without `aud` (RFC 7662 §2.2 makes it optional).
#[tokio::test]
async fn the_claims_of_a_response_can_have_other_names() {
    let (clock, script) = (clock_at_now(), Scripted::new(false));
    let mut config = config(URL, None);
    config.audiences = vec!["cli".into()];
    config.format.audience_claims = vec!["client_id".into()];
    config.format.client_claims = vec!["app".into()];
    let issuers = [introspecting("as", &config, &script, &clock)];
    let ask = async |token: &str, changes: Value| {
        script.respond(active(&changes));
        authenticate(&BearerToken::new(token).unwrap(), &issuers, None).await
    };
    let changes = json!({"aud": null, "scope": null, "scp": ["a"], "app": "mine", "exp": 1.9e9});
    let Caller::Verified(token) = ask("a", changes).await.unwrap().caller else {
        panic!()
    };
    assert_eq!(
        (token.client(), token.scopes()),
        (Some("mine"), &["a".to_owned()][..])
    );
    assert_eq!(token.expires_at(), UnixMillis(1_900_000_000_000));
    for (token, changes, error) in [
        ("b", json!({"aud": "elsewhere"}), TokenError::WrongAudience),
        (
            "c",
            json!({"aud": null, "client_id": "other"}),
            TokenError::WrongAudience,
        ),
        (
            "d",
            json!({"aud": null, "token_use": "id"}),
            TokenError::WrongType,
        ),
        (
            "e",
            json!({"aud": null, "typ": "Logout"}),
            TokenError::WrongType,
        ),
    ] {
        assert_eq!(
            ask(token, changes).await.unwrap_err().error,
            error,
            "{token}"
        );
    }
    // The client is logged, so it must not be the token itself.
    let echoed = "a-token-that-the-server-repeats";
    let refused = ask(echoed, json!({"aud": null, "app": echoed}))
        .await
        .unwrap_err();
    let unavailable = matches!(refused.error, TokenError::IntrospectionUnavailable { .. });
    assert!(unavailable, "{refused}");
}

fn clock_at_now() -> Arc<ManualClock> {
    ManualClock::at(UnixMillis::from_secs(NOW))
}
