mod fleet;
#[cfg(shuttle)]
mod interleavings;
mod lasting_lease;
mod lease_memo;
mod receipt;
mod replacement;

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::fetch_coordinator::MAX_FLIGHTS;
use super::*;
use crate::circuit_breaker::Jitter;
use crate::clock::{Clock as _, ManualClock, UnixMillis};
use crate::credential::{IdentityHasher, Issued};
use crate::secret::SecretString;
use crate::token::{BasicCredentials, BearerToken, Caller, TokenDigest, VerifiedToken};

const START: UnixMillis = UnixMillis::from_secs(1_000_000);
const LIFE: u64 = 900;
const TIMEOUT: Duration = Duration::from_secs(3);

type FetchResult = Result<Issued, FetchError>;

/// A fetch that waits until the test supplies its result.
struct Call {
    request: SwapRequest,
    result: oneshot::Sender<FetchResult>,
}

impl Call {
    fn respond(self, result: FetchResult) {
        self.result
            .send(result)
            .expect("the exchange is still waiting");
    }
    fn subject(&self) -> String {
        match &self.request.caller {
            Caller::Verified(token) => token.subject().to_owned(),
            other => format!("{other:?}"),
        }
    }
}

#[derive(Debug)]
struct ScriptedSource {
    calls: mpsc::UnboundedSender<Call>,
    bearer_bound: bool,
    epoch: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl CredentialSource for ScriptedSource {
    fn identity(&self, request: &SwapRequest, key: &mut IdentityHasher) -> Result<(), FetchError> {
        if !self.bearer_bound {
            return Ok(());
        }
        let Some(bearer) = &request.bearer else {
            return Err(FetchError::NotEntitled("no token".into()));
        };
        key.part(&bearer.digest().0);
        Ok(())
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.epoch.load(Ordering::SeqCst))
    }

    fn retries_are_safe(&self) -> bool {
        false
    }

    async fn fetch(&self, request: &SwapRequest) -> FetchResult {
        let (result, response) = oneshot::channel();
        let call = Call {
            request: request.clone(),
            result,
        };
        self.calls.send(call).expect("the fixture is alive");
        response.await.expect("the test sends a result")
    }
}

struct Fixture {
    source: Arc<CachedSource>,
    clock: Arc<ManualClock>,
    calls: mpsc::UnboundedReceiver<Call>,
    epoch: Arc<AtomicU64>,
}

fn options() -> SourceOptions {
    SourceOptions {
        limits: CacheLimits {
            max_entries: 1000,
            max_bytes: 1 << 20,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::from_mins(1),
            refusals: Duration::from_secs(20),
        },
        timeout: TIMEOUT,
        concurrency: 8,
    }
}

impl Fixture {
    fn new() -> Self {
        Self::with(options(), false)
    }

    fn with(options: SourceOptions, bearer_bound: bool) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let clock = ManualClock::at(START);
        let epoch = Arc::new(AtomicU64::new(0));
        let inner = Arc::new(ScriptedSource {
            calls: sender,
            bearer_bound,
            epoch: Arc::clone(&epoch),
        });
        let source = CachedSource::with_jitter(
            "login".into(),
            inner,
            options,
            clock.clone(),
            Jitter::Fixed(0.0),
        )
        .unwrap();
        Self {
            source: Arc::new(source),
            clock,
            calls,
            epoch,
        }
    }

    fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    fn lease(&self, request: &SwapRequest) -> JoinHandle<Result<Leased, LeaseError>> {
        let (source, request) = (Arc::clone(&self.source), request.clone());
        tokio::spawn(async move { source.lease(&request).await })
    }

    fn replace(
        &self,
        request: &SwapRequest,
        rejected: &Lease,
    ) -> JoinHandle<Result<Leased, LeaseError>> {
        let (source, request, rejected) =
            (Arc::clone(&self.source), request.clone(), rejected.clone());
        tokio::spawn(async move {
            match source.replace(&request, &rejected).await? {
                Replacement::New(leased) => Ok(leased),
                Replacement::StillRejected => panic!("the replacement is limited"),
            }
        })
    }

    async fn call(&mut self) -> Call {
        // Only a failing test waits this long.
        let call = tokio::time::timeout(TIMEOUT * 10, self.calls.recv());
        call.await
            .expect("an exchange starts")
            .expect("the source is alive")
    }

    /// Asserts that no exchange has been started.
    async fn assert_no_exchange(&mut self) {
        run_pending_tasks().await;
        assert!(self.calls.try_recv().is_err(), "unexpected exchange");
    }

    /// Requests a lease that needs an exchange, which ends with `result`.
    async fn fetched(
        &mut self,
        request: &SwapRequest,
        result: FetchResult,
    ) -> Result<Leased, LeaseError> {
        let waiting = self.lease(request);
        self.call().await.respond(result);
        waiting.await.unwrap()
    }

    /// Requests a lease that is served from the cache, positive or negative.
    async fn cached(&mut self, request: &SwapRequest) -> Result<Leased, LeaseError> {
        let leased = self.lease(request).await.unwrap();
        self.assert_no_exchange().await;
        leased
    }

    /// Lets the exchanges of three callers fail.
    async fn open_circuit(&mut self, retry_after: Option<u64>) {
        for n in 0..3 {
            self.fetched(&user(&format!("bad{n}")), unavailable(retry_after))
                .await
                .unwrap_err();
        }
    }

    #[allow(clippy::unnecessary_wraps)]
    fn credential(&self, text: &str, life: u64) -> FetchResult {
        Ok(Issued {
            credential: Credential::Bearer(SecretString::from(text)),
            expires_at: Some(self.clock.now().plus(Duration::from_secs(life))),
            original: None,
        })
    }
}

/// Runs every task until it is blocked.
async fn run_pending_tasks() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn user(subject: &str) -> SwapRequest {
    SwapRequest {
        caller: Caller::Verified(Arc::new(VerifiedToken::for_tests("idp", subject, None))),
        bearer: None,
        scopes: None,
        clock_offset: 0,
    }
}

fn text(leased: &Leased) -> &str {
    match leased.lease.credential() {
        Credential::Bearer(secret) => secret.expose(),
        Credential::Taskcluster { .. } | Credential::Basic { .. } => panic!("a bearer credential"),
    }
}

fn unavailable(retry_after: Option<u64>) -> FetchResult {
    Err(FetchError::Unavailable {
        cause: "down".into(),
        retry_after: retry_after.map(Duration::from_secs),
    })
}

fn refused() -> FetchResult {
    Err(FetchError::Refused("no such token".into()))
}

fn retry_after(error: &LeaseError) -> Option<Duration> {
    match &error.cause {
        FetchError::Unavailable { retry_after, .. }
        | FetchError::Misconfigured { retry_after, .. } => *retry_after,
        other => panic!("{other:?}"),
    }
}

// Hits and identities

#[tokio::test]
async fn the_second_request_is_a_cache_hit() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    let first = fixture.fetched(&user("ann"), result).await.unwrap();
    assert_eq!((first.lookup, text(&first)), (Lookup::Fetched, "one"));
    let second = fixture.cached(&user("ann")).await.unwrap();
    assert_eq!((second.lookup, text(&second)), (Lookup::Hit, "one"));
    assert_eq!(second.lease.generation(), first.lease.generation());
    assert_eq!(fixture.source.entries(), 1);
}

#[tokio::test]
async fn callers_that_differ_in_any_way_never_share_a_credential() {
    let caller = |issuer: &str, subject: &str, client| SwapRequest {
        caller: Caller::Verified(Arc::new(VerifiedToken::for_tests(issuer, subject, client))),
        ..user("")
    };
    let scoped = |scopes: &[&str]| SwapRequest {
        scopes: Some(scopes.iter().map(|s| (*s).to_owned()).collect()),
        ..user("ann")
    };
    let delegated = |issuer: &str, digest: u8| SwapRequest {
        caller: Caller::Delegated {
            issuer: issuer.into(),
            digest: TokenDigest([digest; 32]),
            peer: None,
        },
        ..user("")
    };
    let password = |username: &str, password: &str| SwapRequest {
        caller: Caller::Password {
            credentials: Arc::new(BasicCredentials::for_tests(username, password, None)),
            peer: None,
        },
        ..user("")
    };
    let requests = [
        caller("idp", "ann", None),
        caller("idp", "bob", None),
        caller("other", "ann", None),
        // The same bytes, divided differently among the parts.
        caller("idpa", "nn", None),
        caller("id", "pann", None),
        caller("idp", "an", Some("n")),
        caller("idp", "ann", Some("")),
        caller("idp", "ann", Some("cli")),
        caller("idp", "anncli", None),
        caller("idp", "", Some("ann")),
        scoped(&[]),
        scoped(&[""]),
        scoped(&["a"]),
        scoped(&["a", "b"]),
        scoped(&["ab"]),
        scoped(&["b", "a"]),
        delegated("idp", 1),
        delegated("idp", 2),
        delegated("other", 1),
        password("ann", "p"),
        password("ann", "P"),
        password("annp", "x"),
        password("ann", "px"),
        SwapRequest {
            caller: Caller::Anonymous,
            ..user("")
        },
    ];
    let mut fixture = Fixture::new();
    for (n, request) in requests.iter().enumerate() {
        let result = fixture.credential(&n.to_string(), LIFE);
        let leased = fixture.fetched(request, result).await.unwrap();
        assert_eq!(
            (leased.lookup, text(&leased)),
            (Lookup::Fetched, &*n.to_string())
        );
    }
    for (n, request) in requests.iter().enumerate() {
        let leased = fixture.cached(request).await.unwrap();
        assert_eq!(
            (leased.lookup, text(&leased)),
            (Lookup::Hit, &*n.to_string())
        );
    }
}

#[tokio::test]
async fn concurrent_misses_of_different_users_are_separate_exchanges() {
    let mut fixture = Fixture::new();
    let (ann, bob) = (fixture.lease(&user("ann")), fixture.lease(&user("bob")));
    for _ in 0..2 {
        let call = fixture.call().await;
        let result = fixture.credential(&call.subject(), LIFE);
        call.respond(result);
    }
    assert_eq!(text(&ann.await.unwrap().unwrap()), "ann");
    assert_eq!(text(&bob.await.unwrap().unwrap()), "bob");
}

#[tokio::test]
async fn the_source_can_extend_the_identity_and_its_error_is_returned() {
    let mut fixture = Fixture::with(options(), true);
    let with = |token: &str| SwapRequest {
        bearer: Some(BearerToken::new(token).unwrap()),
        ..user("ann")
    };
    for token in ["first", "second"] {
        let result = fixture.credential(token, LIFE);
        let leased = fixture.fetched(&with(token), result).await.unwrap();
        assert_eq!(text(&leased), token);
    }
    let error = fixture.cached(&user("ann")).await.unwrap_err();
    assert!(matches!(error.cause, FetchError::NotEntitled(_)));
}

#[tokio::test]
async fn two_sources_and_two_processes_have_different_identities() {
    let source = ScriptedSource {
        calls: mpsc::unbounded_channel().0,
        bearer_bound: false,
        epoch: Arc::default(),
    };
    let key = IdentityKey::random().unwrap();
    let ann = user("ann");
    let identity = key.identify("login", &source, &ann).unwrap();
    assert_eq!(identity, key.identify("login", &source, &ann).unwrap());
    assert_ne!(identity, key.identify("mint", &source, &ann).unwrap());
    let other = IdentityKey::random().unwrap();
    assert_ne!(identity, other.identify("login", &source, &ann).unwrap());
}

// Expiry

#[tokio::test]
async fn an_expired_credential_is_fetched_again() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.advance(LIFE);
    let result = fixture.credential("two", LIFE);
    let leased = fixture.fetched(&user("ann"), result).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Fetched, "two"));
}

#[tokio::test]
async fn a_permanent_credential_is_fetched_again_after_max_age() {
    let mut fixture = Fixture::new();
    let permanent = Ok(Issued {
        credential: Credential::Bearer(SecretString::from("one")),
        expires_at: None,
        original: None,
    });
    fixture.fetched(&user("ann"), permanent).await.unwrap();
    fixture.advance(3600);
    let result = fixture.credential("two", LIFE);
    let leased = fixture.fetched(&user("ann"), result).await.unwrap();
    assert_eq!(text(&leased), "two");
}

#[tokio::test]
async fn a_credential_already_expired_when_issued_serves_only_waiting_callers() {
    let mut fixture = Fixture::new();
    let waiting: Vec<_> = (0..3).map(|_| fixture.lease(&user("ann"))).collect();
    run_pending_tasks().await;
    let result = fixture.credential("brief", 0);
    fixture.call().await.respond(result);
    for leased in waiting {
        assert_eq!(text(&leased.await.unwrap().unwrap()), "brief");
    }
    fixture.assert_no_exchange().await;
    assert_eq!(fixture.source.entries(), 0);
    let result = fixture.credential("next", LIFE);
    let leased = fixture.fetched(&user("ann"), result).await.unwrap();
    assert_eq!(text(&leased), "next");
}

#[tokio::test]
async fn a_renewal_already_expired_when_issued_neither_replaces_the_credential_nor_loops() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.advance(LIFE - 60);
    fixture.source.lease(&user("ann")).await.unwrap();
    let result = fixture.credential("brief", 0);
    fixture.call().await.respond(result);
    run_pending_tasks().await;
    for _ in 0..5 {
        let leased = fixture.cached(&user("ann")).await.unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    }
}

// Single flight

#[tokio::test]
async fn fifty_concurrent_misses_are_one_exchange() {
    let mut fixture = Fixture::new();
    let waiting: Vec<_> = (0..50).map(|_| fixture.lease(&user("ann"))).collect();
    let call = fixture.call().await;
    fixture.assert_no_exchange().await;
    let result = fixture.credential("one", LIFE);
    call.respond(result);
    let mut fetched = 0;
    for leased in waiting {
        let leased = leased.await.unwrap().unwrap();
        assert_eq!(text(&leased), "one");
        fetched += usize::from(leased.lookup == Lookup::Fetched);
    }
    assert_eq!(fetched, 1, "the others joined");
    fixture.assert_no_exchange().await;
}

#[tokio::test]
async fn an_exchange_outlives_the_caller_that_started_it() {
    let mut fixture = Fixture::new();
    let first = fixture.lease(&user("ann"));
    let call = fixture.call().await;
    let second = fixture.lease(&user("ann"));
    run_pending_tasks().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let result = fixture.credential("one", LIFE);
    call.respond(result);
    let leased = second.await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Joined, "one"));
}

#[tokio::test]
async fn an_exchange_fills_the_cache_after_every_caller_has_disconnected() {
    let mut fixture = Fixture::new();
    let only = fixture.lease(&user("ann"));
    let call = fixture.call().await;
    only.abort();
    assert!(only.await.is_err());
    let result = fixture.credential("one", LIFE);
    call.respond(result);
    run_pending_tasks().await;
    assert_eq!(
        fixture.cached(&user("ann")).await.unwrap().lookup,
        Lookup::Hit
    );
}

#[tokio::test]
async fn an_eviction_during_an_exchange_does_not_affect_waiting_callers() {
    let mut options = options();
    options.limits.max_entries = 1;
    let mut fixture = Fixture::with(options, false);
    let ann = fixture.lease(&user("ann"));
    let call = fixture.call().await;
    for other in ["bob", "cid", "dan"] {
        let result = fixture.credential(other, LIFE);
        fixture.fetched(&user(other), result).await.unwrap();
        assert!(fixture.source.entries() <= 1);
    }
    let result = fixture.credential("ann", LIFE);
    call.respond(result);
    assert_eq!(text(&ann.await.unwrap().unwrap()), "ann");
    assert_eq!(fixture.source.entries(), 1);
}

#[tokio::test]
async fn a_panicking_source_yields_an_error_and_the_next_exchange_succeeds() {
    let mut fixture = Fixture::new();
    let waiting = fixture.lease(&user("ann"));
    // Without a result the scripted source panics.
    drop(fixture.call().await);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error.cause, FetchError::BadAnswer(_)));
    fixture.advance(6);
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
}

/// A runtime that is shutting down drops newly spawned tasks immediately, which ends the
/// exchange while it is being started.
#[test]
fn an_exchange_started_while_the_runtime_shuts_down_fails_without_deadlock() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _entered = handle.enter();
    let error = futures::executor::block_on(fixture.source.lease(&user("ann"))).unwrap_err();
    assert!(matches!(error.cause, FetchError::BadAnswer(_)), "{error:?}");
}

#[tokio::test]
async fn cache_entries_are_bounded() {
    let mut options = options();
    options.limits.max_entries = 10;
    let mut fixture = Fixture::with(options, false);
    for n in 0..40 {
        let result = fixture.credential("x", LIFE);
        fixture
            .fetched(&user(&n.to_string()), result)
            .await
            .unwrap();
    }
    assert!(fixture.source.entries() <= 10);
}

// Rejected generations

#[tokio::test]
async fn fifty_rejections_of_one_generation_are_one_exchange() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    let old = fixture.fetched(&user("ann"), result).await.unwrap();
    let mut replacing: Vec<_> = (0..25)
        .map(|_| fixture.replace(&user("ann"), &old.lease))
        .collect();
    let call = fixture.call().await;
    let arriving: Vec<_> = (0..10).map(|_| fixture.lease(&user("ann"))).collect();
    replacing.extend((0..25).map(|_| fixture.replace(&user("ann"), &old.lease)));
    run_pending_tasks().await;
    // Some callers disconnect during the exchange, including the one that started it.
    for disconnected in replacing.drain(..5) {
        disconnected.abort();
    }
    fixture.assert_no_exchange().await;
    let result = fixture.credential("two", LIFE);
    call.respond(result);
    for leased in replacing {
        let leased = leased.await.unwrap().unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Joined, "two"));
    }
    for leased in arriving {
        let leased = leased.await.unwrap().unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "one"));
    }
    // The same holds for callers whose 401 arrives late.
    for _ in 0..10 {
        let leased = fixture
            .replace(&user("ann"), &old.lease)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "two"));
    }
    fixture.assert_no_exchange().await;
}

#[tokio::test]
async fn a_rejected_generation_stays_in_use_until_its_replacement_has_arrived() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    let old = fixture.fetched(&user("ann"), result).await.unwrap();
    let replacing = fixture.replace(&user("ann"), &old.lease);
    fixture.call().await.respond(unavailable(None));
    let error = replacing.await.unwrap().unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    // The exchange backs off, so a second rejection fails immediately.
    let error = fixture.replace(&user("ann"), &old.lease).await.unwrap();
    let error = error.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_millis(500)));
    let leased = fixture.cached(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    fixture.advance(1);
    let replacing = fixture.replace(&user("ann"), &old.lease);
    let call = fixture.call().await;
    let leased = fixture.cached(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    let result = fixture.credential("two", LIFE);
    call.respond(result);
    assert_eq!(text(&replacing.await.unwrap().unwrap()), "two");
    assert_eq!(text(&fixture.cached(&user("ann")).await.unwrap()), "two");
}

#[tokio::test]
async fn a_refused_replacement_drops_the_rejected_generation() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    let old = fixture.fetched(&user("ann"), result).await.unwrap();
    let replacing = fixture.replace(&user("ann"), &old.lease);
    fixture.call().await.respond(refused());
    assert!(replacing.await.unwrap().is_err());
    let error = fixture.cached(&user("ann")).await.unwrap_err();
    assert!(matches!(error.cause, FetchError::Refused(_)));
    assert_eq!(fixture.source.entries(), 0);
}

#[tokio::test]
async fn a_rejection_joins_a_renewal_in_progress() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.advance(LIFE - 60);
    let old = fixture.source.lease(&user("ann")).await.unwrap();
    let call = fixture.call().await;
    let replacing = fixture.replace(&user("ann"), &old.lease);
    fixture.assert_no_exchange().await;
    let result = fixture.credential("two", LIFE);
    call.respond(result);
    let leased = replacing.await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Joined, "two"));
}

#[tokio::test]
async fn an_invalidated_generation_is_used_again_only_if_there_is_no_other() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.advance(LIFE - 60);
    let old = fixture.source.lease(&user("ann")).await.unwrap();
    let call = fixture.call().await;
    fixture.source.invalidate(&user("ann"), &old.lease);
    let waiting = fixture.lease(&user("ann"));
    run_pending_tasks().await;
    assert!(!waiting.is_finished(), "it waits for the replacement");
    call.respond(unavailable(None));
    let leased = waiting.await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    let leased = fixture.cached(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
}

#[tokio::test]
async fn invalidating_concerns_only_that_generation_and_fetches_nothing() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    let old = fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.source.invalidate(&user("ann"), &old.lease);
    fixture.assert_no_exchange().await;
    let result = fixture.credential("two", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.source.invalidate(&user("ann"), &old.lease);
    let leased = fixture.cached(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "two"));
}

#[tokio::test]
async fn one_users_rejection_does_not_affect_others() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("a", LIFE);
    let ann = fixture.fetched(&user("ann"), result).await.unwrap();
    let result = fixture.credential("b", LIFE);
    fixture.fetched(&user("bob"), result).await.unwrap();
    // Not even with another caller's lease.
    fixture.source.invalidate(&user("bob"), &ann.lease);
    assert_eq!(
        fixture.cached(&user("bob")).await.unwrap().lookup,
        Lookup::Hit
    );
}

// Renewal ahead of expiry

#[tokio::test]
async fn a_renewal_runs_once_in_the_background_while_the_old_credential_is_served() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.advance(LIFE - 5 - 60 - 1);
    fixture.cached(&user("ann")).await.unwrap();
    fixture.advance(1);
    for _ in 0..20 {
        let leased = fixture.source.lease(&user("ann")).await.unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "one"));
    }
    let call = fixture.call().await;
    fixture.assert_no_exchange().await;
    let result = fixture.credential("two", LIFE);
    call.respond(result);
    run_pending_tasks().await;
    let leased = fixture.cached(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "two"));
}

#[tokio::test]
async fn credentials_stay_in_use_through_an_outage_while_valid() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.advance(LIFE - 65);
    fixture.source.lease(&user("ann")).await.unwrap();
    fixture.call().await.respond(unavailable(None));
    run_pending_tasks().await;
    let leased = fixture.cached(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    // The renewal is retried after a delay that grows.
    fixture.advance(1);
    fixture.source.lease(&user("ann")).await.unwrap();
    fixture.call().await.respond(unavailable(Some(30)));
    run_pending_tasks().await;
    fixture.advance(29);
    fixture.cached(&user("ann")).await.unwrap();
    fixture.advance(1);
    let leased = fixture.source.lease(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    let call = fixture.call().await;
    // The old credential is used until it expires and no longer.
    fixture.advance(28);
    assert_eq!(text(&fixture.cached(&user("ann")).await.unwrap()), "one");
    fixture.advance(1);
    let waiting = fixture.lease(&user("ann"));
    fixture.assert_no_exchange().await;
    let result = fixture.credential("two", LIFE);
    call.respond(result);
    let leased = waiting.await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Joined, "two"));
    assert_eq!(
        fixture.cached(&user("ann")).await.unwrap().lookup,
        Lookup::Hit
    );
}

#[tokio::test]
async fn a_refused_renewal_retires_the_old_credential() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.advance(LIFE - 65);
    fixture.source.lease(&user("ann")).await.unwrap();
    fixture.call().await.respond(refused());
    run_pending_tasks().await;
    let error = fixture.cached(&user("ann")).await.unwrap_err();
    assert!(matches!(error.cause, FetchError::Refused(_)));
    assert_eq!(error.lookup, Lookup::Refused);
    assert_eq!(fixture.source.entries(), 0);
}

#[tokio::test]
async fn a_renewal_blocked_by_an_open_circuit_is_postponed() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture.advance(LIFE - 65);
    fixture.open_circuit(Some(10)).await;
    fixture.source.lease(&user("ann")).await.unwrap();
    fixture.call().await.respond(unavailable(Some(10)));
    run_pending_tasks().await;
    for _ in 0..9 {
        let leased = fixture.cached(&user("ann")).await.unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
        fixture.advance(1);
    }
    fixture.advance(1);
    fixture.source.lease(&user("ann")).await.unwrap();
    let result = fixture.credential("two", LIFE);
    fixture.call().await.respond(result);
    run_pending_tasks().await;
    assert_eq!(text(&fixture.cached(&user("ann")).await.unwrap()), "two");
    let result = fixture.credential("c", LIFE);
    fixture.fetched(&user("cid"), result).await.unwrap();
}

// Failures

#[tokio::test]
async fn a_refusal_is_cached_for_its_ttl_and_affects_no_other_identity() {
    let mut fixture = Fixture::new();
    let error = fixture.fetched(&user("ann"), refused()).await.unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    let error = fixture.cached(&user("ann")).await.unwrap_err();
    assert_eq!(error.lookup, Lookup::Refused);
    assert!(matches!(error.cause, FetchError::Refused(_)));
    let result = fixture.credential("b", LIFE);
    fixture.fetched(&user("bob"), result).await.unwrap();
    fixture.advance(20);
    let result = fixture.credential("a", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
}

#[tokio::test]
async fn many_refused_identities_evict_no_credential() {
    let mut options = options();
    options.limits.max_entries = 10;
    let mut fixture = Fixture::with(options, false);
    let result = fixture.credential("one", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
    for n in 0..100 {
        fixture
            .fetched(&user(&n.to_string()), refused())
            .await
            .unwrap_err();
    }
    assert_eq!(
        fixture.cached(&user("ann")).await.unwrap().lookup,
        Lookup::Hit
    );
}

#[tokio::test]
async fn a_failing_identity_does_not_back_off_others() {
    let mut fixture = Fixture::new();
    let error = fixture
        .fetched(&user("ann"), unavailable(None))
        .await
        .unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    let error = fixture.cached(&user("ann")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_millis(500)));
    let result = fixture.credential("b", LIFE);
    fixture.fetched(&user("bob"), result).await.unwrap();
}

#[tokio::test]
async fn a_success_resets_the_backoff() {
    let mut fixture = Fixture::new();
    for secs in [1, 1, 0] {
        fixture
            .fetched(&user("ann"), unavailable(None))
            .await
            .unwrap_err();
        fixture.advance(secs);
    }
    let error = fixture.cached(&user("ann")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_secs(2)));
    fixture.advance(2);
    let result = fixture.credential("brief", 0);
    fixture.fetched(&user("ann"), result).await.unwrap();
    fixture
        .fetched(&user("ann"), unavailable(None))
        .await
        .unwrap_err();
    let error = fixture.cached(&user("ann")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_millis(500)));
}

#[tokio::test]
async fn callers_waiting_for_a_permit_fail_once_the_circuit_is_open() {
    let mut options = options();
    options.concurrency = 1;
    let mut fixture = Fixture::with(options, false);
    let waiting: Vec<_> = ["ann", "bob", "cid", "dan", "eve", "fay"]
        .into_iter()
        .map(|name| fixture.lease(&user(name)))
        .collect();
    // Three failures open the circuit, and the fourth caller is its probe.
    for _ in 0..4 {
        fixture.call().await.respond(unavailable(Some(5)));
    }
    for leased in waiting {
        let error = leased.await.unwrap().unwrap_err();
        assert_eq!(retry_after(&error), Some(Duration::from_secs(5)));
    }
    fixture.assert_no_exchange().await;
}

#[tokio::test]
async fn callers_that_never_failed_probe_an_open_circuit_and_the_others_wait_for_them() {
    let mut fixture = Fixture::new();
    fixture.open_circuit(None).await;
    fixture.advance(1);
    let error = fixture.cached(&user("bad0")).await.unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    let (ann, bob) = (fixture.lease(&user("ann")), fixture.lease(&user("bob")));
    let probe = fixture.call().await;
    fixture.assert_no_exchange().await;
    let result = fixture.credential("x", LIFE);
    probe.respond(result);
    let result = fixture.credential("x", LIFE);
    fixture.call().await.respond(result);
    ann.await.unwrap().unwrap();
    bob.await.unwrap().unwrap();
    let result = fixture.credential("x", LIFE);
    fixture.fetched(&user("bad0"), result).await.unwrap();
}

#[tokio::test]
async fn a_failed_probe_fails_those_who_wait_for_it_and_errors_state_when_the_next_one_is() {
    let mut fixture = Fixture::new();
    fixture.open_circuit(None).await;
    let (ann, bob) = (fixture.lease(&user("ann")), fixture.lease(&user("bob")));
    let probe = fixture.call().await;
    run_pending_tasks().await;
    probe.respond(unavailable(None));
    let mut waits = Vec::new();
    for leased in [ann, bob] {
        waits.push(retry_after(&leased.await.unwrap().unwrap_err()));
    }
    waits.sort();
    // The probe's own error has no wait; the source sent none.
    assert_eq!(waits, [None, Some(Duration::from_secs(1))]);
    fixture.assert_no_exchange().await;
}

#[tokio::test]
async fn retry_after_concerns_the_identity_that_got_it() {
    let mut fixture = Fixture::new();
    fixture
        .fetched(&user("ann"), unavailable(Some(42)))
        .await
        .unwrap_err();
    let error = fixture.cached(&user("ann")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_secs(42)));
    let result = fixture.credential("c", LIFE);
    fixture.fetched(&user("cid"), result).await.unwrap();
}

/// A disabled Taskcluster client, for example, gets 500 at each exchange.
#[tokio::test]
async fn identities_that_always_fail_shut_out_no_other() {
    let mut fixture = Fixture::new();
    for n in 0..120 {
        let result = unavailable((n % 2 == 0).then_some(60));
        fixture
            .fetched(&user(&format!("dead{}", n % 40)), result)
            .await
            .unwrap_err();
        let result = fixture.credential("x", LIFE);
        fixture
            .fetched(&user(&format!("good{n}")), result)
            .await
            .unwrap();
        fixture.advance(10);
    }
}

#[tokio::test]
async fn refusals_never_start_a_backoff() {
    let mut fixture = Fixture::new();
    for n in 0..20 {
        fixture
            .fetched(&user(&n.to_string()), refused())
            .await
            .unwrap_err();
    }
    let result = fixture.credential("a", LIFE);
    fixture.fetched(&user("ann"), result).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unresponsive_source_times_out() {
    let mut fixture = Fixture::new();
    let waiting = fixture.lease(&user("ann"));
    let _unanswered = fixture.call().await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    assert!(error.to_string().contains("3000 ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn concurrent_exchanges_are_bounded_and_so_is_the_wait_for_a_permit() {
    let mut options = options();
    options.concurrency = 2;
    let mut fixture = Fixture::with(options, false);
    let waiting: Vec<_> = ["ann", "bob", "cid"]
        .into_iter()
        .map(|name| fixture.lease(&user(name)))
        .collect();
    let (first, second) = (fixture.call().await, fixture.call().await);
    fixture.assert_no_exchange().await;
    let result = fixture.credential("x", LIFE);
    first.respond(result);
    // The third exchange has a permit now, but never completes.
    let _third = fixture.call().await;
    let result = fixture.credential("y", LIFE);
    second.respond(result);
    let ends: Vec<_> = futures::future::join_all(waiting).await;
    let good = ends
        .iter()
        .filter(|end| end.as_ref().unwrap().is_ok())
        .count();
    assert_eq!(good, 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_permit_times_out_without_backoff_for_the_source() {
    let mut options = options();
    options.concurrency = 1;
    let mut fixture = Fixture::with(options, false);
    let ann = fixture.lease(&user("ann"));
    let _unanswered = fixture.call().await;
    // Bob gets a permit when Ann's exchange times out; Cid stops waiting before Bob's exchange ends.
    tokio::time::advance(TIMEOUT / 3).await;
    let bob = fixture.lease(&user("bob"));
    run_pending_tasks().await;
    tokio::time::advance(TIMEOUT / 3).await;
    let cid = fixture.lease(&user("cid"));
    let call = fixture.call().await;
    assert_eq!(call.subject(), "bob");
    let error = cid.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("no call could start"), "{error}");
    assert!(ann.await.unwrap().is_err());
    let result = fixture.credential("b", LIFE);
    call.respond(result);
    bob.await.unwrap().unwrap();
    let result = fixture.credential("c", LIFE);
    fixture.fetched(&user("cid"), result).await.unwrap();
}

#[tokio::test]
async fn the_number_of_waiting_exchanges_is_bounded() {
    let mut options = options();
    options.concurrency = 1;
    let mut fixture = Fixture::with(options, false);
    let waiting: Vec<_> = (0..MAX_FLIGHTS)
        .map(|n| fixture.lease(&user(&n.to_string())))
        .collect();
    let _held = fixture.call().await;
    run_pending_tasks().await;
    let error = fixture.cached(&user("one too many")).await.unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
    for task in waiting {
        task.abort();
    }
}

/// Issues a credential immediately and counts the fetches.
#[derive(Debug, Default)]
struct CountingSource(AtomicU64);

#[async_trait::async_trait]
impl CredentialSource for CountingSource {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }
    async fn fetch(&self, _: &SwapRequest) -> FetchResult {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok(Issued {
            credential: Credential::Bearer(SecretString::from("x")),
            expires_at: None,
            original: None,
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_revocation_is_one_exchange_across_threads() {
    const ROUNDS: u64 = 100;
    let inner = Arc::new(CountingSource::default());
    let clock = ManualClock::at(START);
    let source =
        CachedSource::new("login".into(), inner.clone(), options(), clock.clone()).unwrap();
    let source = Arc::new(source);
    let mut revoked = source.lease(&user("ann")).await.unwrap().lease;
    for round in 1..=ROUNDS {
        let start = Arc::new(tokio::sync::Barrier::new(50));
        let replacing = (0..50).map(|_| {
            let (source, start, old) = (source.clone(), start.clone(), revoked.clone());
            tokio::spawn(async move {
                start.wait().await;
                match source.replace(&user("ann"), &old).await.unwrap() {
                    Replacement::New(leased) => leased.lease,
                    Replacement::StillRejected => panic!("the replacement is limited"),
                }
            })
        });
        let fresh = futures::future::join_all(replacing).await;
        let first = fresh[0].as_ref().unwrap().clone();
        assert_ne!(first.generation(), revoked.generation());
        for lease in fresh {
            assert_eq!(lease.unwrap().generation(), first.generation());
        }
        assert_eq!(inner.0.load(Ordering::SeqCst), round + 1);
        source.accepted(&user("ann"));
        clock.advance(Duration::from_secs(1));
        revoked = first;
    }
}

#[tokio::test]
async fn debug_output_shows_no_part_of_a_credential() {
    let mut fixture = Fixture::with(options(), true);
    let request = SwapRequest {
        bearer: Some(BearerToken::new("hunter2.bearer").unwrap()),
        ..user("ann")
    };
    let result = fixture.credential("hunter2.secret", LIFE);
    let leased = fixture.fetched(&request, result).await.unwrap();
    let shown = format!("{leased:?} {:?} {request:?}", fixture.source);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_source_that_refuses_our_client_is_never_called_unreachable() {
    let mut fixture = Fixture::new();
    let refused = |retry_after: Option<u64>| {
        Err(FetchError::Misconfigured {
            cause: "invalid_client".into(),
            retry_after: retry_after.map(Duration::from_secs),
        })
    };
    let is_refusal = |error: &LeaseError| {
        let FetchError::Misconfigured { cause, .. } = &error.cause else {
            return false;
        };
        cause.contains("source") && cause.contains("invalid_client")
    };
    for n in 0..3 {
        let user = user(&format!("bad{n}"));
        let error = fixture.fetched(&user, refused(Some(30))).await.unwrap_err();
        assert!(is_refusal(&error), "{error:?}");
        let error = fixture.cached(&user).await.unwrap_err();
        assert!(is_refusal(&error), "{error:?}");
    }
    // The circuit is open: of those who wait, one probes it, and the others share the result.
    let waiting = [fixture.lease(&user("ann")), fixture.lease(&user("bob"))];
    fixture.call().await.respond(refused(Some(30)));
    for leased in waiting {
        let error = leased.await.unwrap().unwrap_err();
        assert!(is_refusal(&error), "{error:?}");
        assert!(retry_after(&error).is_some());
    }
    let error = fixture.cached(&user("cid")).await.unwrap_err();
    assert!(is_refusal(&error), "{error:?}");
    // What concerns one request only affects no other caller.
    let mut fixture = Fixture::new();
    for n in 0..9 {
        let user = user(&format!("bad{n}"));
        let error = fixture.fetched(&user, refused(None)).await.unwrap_err();
        assert!(is_refusal(&error), "{error:?}");
    }
    let result = fixture.credential("x", LIFE);
    fixture.fetched(&user("good"), result).await.unwrap();
}
