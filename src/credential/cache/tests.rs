mod lease_memo;

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::fetch_coordinator::MAX_FLIGHTS;
use super::*;
use crate::clock::{Clock as _, ManualClock, UnixMillis};
use crate::credential::{IdentityHasher, Issued};
use crate::secret::SecretString;
use crate::token::{BasicCredentials, BearerToken, Caller, TokenDigest, VerifiedToken};

const START: UnixMillis = UnixMillis::from_secs(1_000_000);
const LIFE: u64 = 900;
const TIMEOUT: Duration = Duration::from_secs(3);

type Answer = Result<Issued, FetchError>;

/// One exchange as the source sees it, standing still until the test answers.
struct Call {
    request: SwapRequest,
    answer: oneshot::Sender<Answer>,
}

impl Call {
    fn answer(self, answer: Answer) {
        self.answer.send(answer).expect("the exchange still waits");
    }
    fn subject(&self) -> String {
        match &self.request.caller {
            Caller::Verified(token) => token.subject().to_owned(),
            other => format!("{other:?}"),
        }
    }
}

#[derive(Debug)]
struct Scripted {
    calls: mpsc::UnboundedSender<Call>,
    bearer_bound: bool,
    epoch: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl CredentialSource for Scripted {
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

    async fn fetch(&self, request: &SwapRequest) -> Answer {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            request: request.clone(),
            answer,
        };
        self.calls.send(call).expect("the test listens");
        answered.await.expect("the test answers")
    }
}

struct Rig {
    source: Arc<Source>,
    clock: Arc<ManualClock>,
    calls: mpsc::UnboundedReceiver<Call>,
    epoch: Arc<AtomicU64>,
}

fn options() -> SourceOptions {
    SourceOptions {
        limits: CacheLimits {
            max_entries: 1000,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::from_mins(1),
            refusals: Duration::from_secs(20),
        },
        timeout: TIMEOUT,
        concurrency: 8,
    }
}

impl Rig {
    fn new() -> Self {
        Self::with(options(), false)
    }

    fn with(options: SourceOptions, bearer_bound: bool) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let clock = ManualClock::at(START);
        let epoch = Arc::new(AtomicU64::new(0));
        let inner = Arc::new(Scripted {
            calls: sender,
            bearer_bound,
            epoch: Arc::clone(&epoch),
        });
        let source = Source::with_jitter(
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
        tokio::spawn(async move { source.replace(&request, &rejected).await })
    }

    async fn call(&mut self) -> Call {
        // So that a failing test ends; a good one never waits.
        let call = tokio::time::timeout(TIMEOUT * 10, self.calls.recv());
        call.await
            .expect("an exchange starts")
            .expect("the source lives")
    }

    /// No exchange is started, however long one waits.
    async fn assert_quiet(&mut self) {
        everybody_runs().await;
        assert!(self.calls.try_recv().is_err(), "an exchange too many");
    }

    /// A lease that needs an exchange, which ends with `answer`.
    async fn fetched(
        &mut self,
        request: &SwapRequest,
        answer: Answer,
    ) -> Result<Leased, LeaseError> {
        let waiting = self.lease(request);
        self.call().await.answer(answer);
        waiting.await.unwrap()
    }

    /// A lease that needs none.
    async fn at_once(&mut self, request: &SwapRequest) -> Result<Leased, LeaseError> {
        let leased = self.lease(request).await.unwrap();
        self.assert_quiet().await;
        leased
    }

    #[allow(clippy::unnecessary_wraps)]
    fn credential(&self, text: &str, life: u64) -> Answer {
        Ok(Issued {
            credential: Credential::Bearer(SecretString::from(text)),
            expires_at: Some(self.clock.now().plus(Duration::from_secs(life))),
        })
    }
}

/// Lets every task run until it waits for something.
async fn everybody_runs() {
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
        Credential::Taskcluster { .. } => panic!("not from this source"),
    }
}

fn unavailable(retry_after: Option<u64>) -> Answer {
    Err(FetchError::Unavailable {
        cause: "down".into(),
        retry_after: retry_after.map(Duration::from_secs),
    })
}

fn refused() -> Answer {
    Err(FetchError::Refused("no such token".into()))
}

fn retry_after(error: &LeaseError) -> Option<Duration> {
    match &error.cause {
        FetchError::Unavailable { retry_after, .. } => *retry_after,
        other => panic!("{other:?}"),
    }
}

// Hits and identities

#[tokio::test]
async fn the_second_request_is_a_hit() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    let first = rig.fetched(&user("ann"), answer).await.unwrap();
    assert_eq!((first.lookup, text(&first)), (Lookup::Fetched, "one"));
    let second = rig.at_once(&user("ann")).await.unwrap();
    assert_eq!((second.lookup, text(&second)), (Lookup::Hit, "one"));
    assert_eq!(second.lease.generation(), first.lease.generation());
    assert_eq!(rig.source.entries(), 1);
}

#[tokio::test]
async fn callers_that_differ_in_anything_never_share() {
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
        // Bytes moved from one part to the next.
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
    let mut rig = Rig::new();
    for (n, request) in requests.iter().enumerate() {
        let answer = rig.credential(&n.to_string(), LIFE);
        let leased = rig.fetched(request, answer).await.unwrap();
        assert_eq!(
            (leased.lookup, text(&leased)),
            (Lookup::Fetched, &*n.to_string())
        );
    }
    for (n, request) in requests.iter().enumerate() {
        let leased = rig.at_once(request).await.unwrap();
        assert_eq!(
            (leased.lookup, text(&leased)),
            (Lookup::Hit, &*n.to_string())
        );
    }
}

#[tokio::test]
async fn parallel_misses_of_different_users_are_different_exchanges() {
    let mut rig = Rig::new();
    let (ann, bob) = (rig.lease(&user("ann")), rig.lease(&user("bob")));
    for _ in 0..2 {
        let call = rig.call().await;
        let answer = rig.credential(&call.subject(), LIFE);
        call.answer(answer);
    }
    assert_eq!(text(&ann.await.unwrap().unwrap()), "ann");
    assert_eq!(text(&bob.await.unwrap().unwrap()), "bob");
}

#[tokio::test]
async fn what_the_source_adds_separates_and_its_error_is_the_answer() {
    let mut rig = Rig::with(options(), true);
    let with = |token: &str| SwapRequest {
        bearer: Some(BearerToken::new(token).unwrap()),
        ..user("ann")
    };
    for token in ["first", "second"] {
        let answer = rig.credential(token, LIFE);
        let leased = rig.fetched(&with(token), answer).await.unwrap();
        assert_eq!(text(&leased), token);
    }
    let error = rig.at_once(&user("ann")).await.unwrap_err();
    assert!(matches!(error.cause, FetchError::NotEntitled(_)));
}

#[tokio::test]
async fn two_sources_and_two_processes_have_different_identities() {
    let source = Scripted {
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
async fn an_expired_credential_is_fetched_anew() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.advance(LIFE);
    let answer = rig.credential("two", LIFE);
    let leased = rig.fetched(&user("ann"), answer).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Fetched, "two"));
}

#[tokio::test]
async fn a_permanent_credential_is_fetched_anew_after_max_age() {
    let mut rig = Rig::new();
    let permanent = Ok(Issued {
        credential: Credential::Bearer(SecretString::from("one")),
        expires_at: None,
    });
    rig.fetched(&user("ann"), permanent).await.unwrap();
    rig.advance(3600);
    let answer = rig.credential("two", LIFE);
    let leased = rig.fetched(&user("ann"), answer).await.unwrap();
    assert_eq!(text(&leased), "two");
}

#[tokio::test]
async fn what_comes_expired_serves_those_who_waited_and_nobody_else() {
    let mut rig = Rig::new();
    let waiting: Vec<_> = (0..3).map(|_| rig.lease(&user("ann"))).collect();
    everybody_runs().await;
    let answer = rig.credential("brief", 0);
    rig.call().await.answer(answer);
    for leased in waiting {
        assert_eq!(text(&leased.await.unwrap().unwrap()), "brief");
    }
    rig.assert_quiet().await;
    assert_eq!(rig.source.entries(), 0);
    let answer = rig.credential("next", LIFE);
    let leased = rig.fetched(&user("ann"), answer).await.unwrap();
    assert_eq!(text(&leased), "next");
}

#[tokio::test]
async fn a_renewal_that_comes_expired_neither_displaces_nor_loops() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.advance(LIFE - 60);
    rig.source.lease(&user("ann")).await.unwrap();
    let answer = rig.credential("brief", 0);
    rig.call().await.answer(answer);
    everybody_runs().await;
    for _ in 0..5 {
        let leased = rig.at_once(&user("ann")).await.unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    }
}

// Single flight

#[tokio::test]
async fn fifty_misses_are_one_exchange() {
    let mut rig = Rig::new();
    let waiting: Vec<_> = (0..50).map(|_| rig.lease(&user("ann"))).collect();
    let call = rig.call().await;
    rig.assert_quiet().await;
    let answer = rig.credential("one", LIFE);
    call.answer(answer);
    let mut fetched = 0;
    for leased in waiting {
        let leased = leased.await.unwrap().unwrap();
        assert_eq!(text(&leased), "one");
        fetched += usize::from(leased.lookup == Lookup::Fetched);
    }
    assert_eq!(fetched, 1, "the others joined");
    rig.assert_quiet().await;
}

#[tokio::test]
async fn an_exchange_outlives_the_caller_that_started_it() {
    let mut rig = Rig::new();
    let first = rig.lease(&user("ann"));
    let call = rig.call().await;
    let second = rig.lease(&user("ann"));
    everybody_runs().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let answer = rig.credential("one", LIFE);
    call.answer(answer);
    let leased = second.await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Joined, "one"));
}

#[tokio::test]
async fn an_exchange_that_everybody_left_still_fills_the_cache() {
    let mut rig = Rig::new();
    let only = rig.lease(&user("ann"));
    let call = rig.call().await;
    only.abort();
    assert!(only.await.is_err());
    let answer = rig.credential("one", LIFE);
    call.answer(answer);
    everybody_runs().await;
    assert_eq!(rig.at_once(&user("ann")).await.unwrap().lookup, Lookup::Hit);
}

#[tokio::test]
async fn an_eviction_in_the_middle_does_not_disturb_those_who_wait() {
    let mut options = options();
    options.limits.max_entries = 1;
    let mut rig = Rig::with(options, false);
    let ann = rig.lease(&user("ann"));
    let call = rig.call().await;
    for other in ["bob", "cid", "dan"] {
        let answer = rig.credential(other, LIFE);
        rig.fetched(&user(other), answer).await.unwrap();
        assert!(rig.source.entries() <= 1);
    }
    let answer = rig.credential("ann", LIFE);
    call.answer(answer);
    assert_eq!(text(&ann.await.unwrap().unwrap()), "ann");
    assert_eq!(rig.source.entries(), 1);
}

#[tokio::test]
async fn a_source_that_panics_is_an_error_and_not_the_end() {
    let mut rig = Rig::new();
    let waiting = rig.lease(&user("ann"));
    // Unanswered, the scripted source panics.
    drop(rig.call().await);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error.cause, FetchError::BadAnswer(_)));
    rig.advance(6);
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
}

/// A runtime that is shutting down drops what is spawned on it at once, and so ends the
/// exchange while it is being started.
#[test]
fn an_exchange_started_while_the_runtime_shuts_down_is_an_error_and_no_deadlock() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _entered = handle.enter();
    let error = futures::executor::block_on(rig.source.lease(&user("ann"))).unwrap_err();
    assert!(matches!(error.cause, FetchError::BadAnswer(_)), "{error:?}");
}

#[tokio::test]
async fn entries_are_bounded() {
    let mut options = options();
    options.limits.max_entries = 10;
    let mut rig = Rig::with(options, false);
    for n in 0..40 {
        let answer = rig.credential("x", LIFE);
        rig.fetched(&user(&n.to_string()), answer).await.unwrap();
    }
    assert!(rig.source.entries() <= 10);
}

// Rejected generations

#[tokio::test]
async fn fifty_rejections_of_one_generation_are_one_exchange() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    let old = rig.fetched(&user("ann"), answer).await.unwrap();
    let mut replacing: Vec<_> = (0..25)
        .map(|_| rig.replace(&user("ann"), &old.lease))
        .collect();
    let call = rig.call().await;
    let arriving: Vec<_> = (0..10).map(|_| rig.lease(&user("ann"))).collect();
    replacing.extend((0..25).map(|_| rig.replace(&user("ann"), &old.lease)));
    everybody_runs().await;
    // Some go away in the middle, the one that started it among them.
    for gone in replacing.drain(..5) {
        gone.abort();
    }
    rig.assert_quiet().await;
    let answer = rig.credential("two", LIFE);
    call.answer(answer);
    for leased in replacing.into_iter().chain(arriving) {
        let leased = leased.await.unwrap().unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Joined, "two"));
    }
    // And those whose 401 arrives late.
    for _ in 0..10 {
        let leased = rig
            .replace(&user("ann"), &old.lease)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "two"));
    }
    rig.assert_quiet().await;
}

#[tokio::test]
async fn a_rejected_generation_is_not_served_again_even_when_the_exchange_is_down() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    let old = rig.fetched(&user("ann"), answer).await.unwrap();
    let replacing = rig.replace(&user("ann"), &old.lease);
    rig.call().await.answer(unavailable(None));
    let error = replacing.await.unwrap().unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    let error = rig.at_once(&user("ann")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_millis(500)));
    rig.advance(1);
    let answer = rig.credential("two", LIFE);
    let leased = rig.fetched(&user("ann"), answer).await.unwrap();
    assert_eq!(text(&leased), "two");
}

#[tokio::test]
async fn a_rejection_joins_a_renewal_under_way() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.advance(LIFE - 60);
    let old = rig.source.lease(&user("ann")).await.unwrap();
    let call = rig.call().await;
    let replacing = rig.replace(&user("ann"), &old.lease);
    rig.assert_quiet().await;
    let answer = rig.credential("two", LIFE);
    call.answer(answer);
    let leased = replacing.await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Joined, "two"));
}

#[tokio::test]
async fn a_failed_renewal_does_not_bring_back_a_rejected_generation() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.advance(LIFE - 60);
    let old = rig.source.lease(&user("ann")).await.unwrap();
    let call = rig.call().await;
    rig.source.invalidate(&user("ann"), &old.lease);
    call.answer(unavailable(None));
    everybody_runs().await;
    assert!(rig.at_once(&user("ann")).await.is_err());
}

#[tokio::test]
async fn invalidating_drops_that_generation_only_and_fetches_nothing() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    let old = rig.fetched(&user("ann"), answer).await.unwrap();
    rig.source.invalidate(&user("ann"), &old.lease);
    rig.assert_quiet().await;
    assert_eq!(rig.source.entries(), 0);
    let answer = rig.credential("two", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.source.invalidate(&user("ann"), &old.lease);
    let leased = rig.at_once(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "two"));
}

#[tokio::test]
async fn one_users_rejection_leaves_the_others_alone() {
    let mut rig = Rig::new();
    let answer = rig.credential("a", LIFE);
    let ann = rig.fetched(&user("ann"), answer).await.unwrap();
    let answer = rig.credential("b", LIFE);
    rig.fetched(&user("bob"), answer).await.unwrap();
    // Not even with another's lease.
    rig.source.invalidate(&user("bob"), &ann.lease);
    assert_eq!(rig.at_once(&user("bob")).await.unwrap().lookup, Lookup::Hit);
}

// Renewal ahead of expiry

#[tokio::test]
async fn renews_once_in_the_background_while_the_old_one_serves() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.advance(LIFE - 5 - 60 - 1);
    rig.at_once(&user("ann")).await.unwrap();
    rig.advance(1);
    for _ in 0..20 {
        let leased = rig.source.lease(&user("ann")).await.unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "one"));
    }
    let call = rig.call().await;
    rig.assert_quiet().await;
    let answer = rig.credential("two", LIFE);
    call.answer(answer);
    everybody_runs().await;
    let leased = rig.at_once(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "two"));
}

#[tokio::test]
async fn an_outage_takes_nothing_away_that_is_still_valid() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.advance(LIFE - 65);
    rig.source.lease(&user("ann")).await.unwrap();
    rig.call().await.answer(unavailable(None));
    everybody_runs().await;
    let leased = rig.at_once(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    // Tried again after the wait, which grows.
    rig.advance(1);
    rig.source.lease(&user("ann")).await.unwrap();
    rig.call().await.answer(unavailable(Some(30)));
    everybody_runs().await;
    rig.advance(29);
    rig.at_once(&user("ann")).await.unwrap();
    rig.advance(1);
    let leased = rig.source.lease(&user("ann")).await.unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    let call = rig.call().await;
    // Valid to the last moment, and not beyond.
    rig.advance(28);
    assert_eq!(text(&rig.at_once(&user("ann")).await.unwrap()), "one");
    rig.advance(1);
    let waiting = rig.lease(&user("ann"));
    rig.assert_quiet().await;
    let answer = rig.credential("two", LIFE);
    call.answer(answer);
    let leased = waiting.await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Joined, "two"));
    assert_eq!(rig.at_once(&user("ann")).await.unwrap().lookup, Lookup::Hit);
}

#[tokio::test]
async fn a_refused_renewal_takes_the_old_credential_away() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.advance(LIFE - 65);
    rig.source.lease(&user("ann")).await.unwrap();
    rig.call().await.answer(refused());
    everybody_runs().await;
    let error = rig.at_once(&user("ann")).await.unwrap_err();
    assert!(matches!(error.cause, FetchError::Refused(_)));
    assert_eq!(error.lookup, Lookup::Refused);
    assert_eq!(rig.source.entries(), 0);
}

#[tokio::test]
async fn a_renewal_blocked_by_the_sources_backoff_is_put_off() {
    let mut rig = Rig::new();
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.advance(LIFE - 65);
    rig.fetched(&user("bob"), unavailable(Some(10)))
        .await
        .unwrap_err();
    let leased = rig.at_once(&user("ann")).await.unwrap();
    assert_eq!(text(&leased), "one");
    rig.advance(9);
    assert_eq!(
        rig.at_once(&user("ann")).await.unwrap().lookup,
        Lookup::Stale
    );
    rig.advance(1);
    rig.source.lease(&user("ann")).await.unwrap();
    let answer = rig.credential("two", LIFE);
    rig.call().await.answer(answer);
    everybody_runs().await;
    assert_eq!(text(&rig.at_once(&user("ann")).await.unwrap()), "two");
}

// Failures

#[tokio::test]
async fn a_refusal_is_remembered_for_its_time_and_blocks_nobody_else() {
    let mut rig = Rig::new();
    let error = rig.fetched(&user("ann"), refused()).await.unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    let error = rig.at_once(&user("ann")).await.unwrap_err();
    assert_eq!(error.lookup, Lookup::Refused);
    assert!(matches!(error.cause, FetchError::Refused(_)));
    let answer = rig.credential("b", LIFE);
    rig.fetched(&user("bob"), answer).await.unwrap();
    rig.advance(20);
    let answer = rig.credential("a", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
}

#[tokio::test]
async fn many_refused_identities_displace_no_credential() {
    let mut options = options();
    options.limits.max_entries = 10;
    let mut rig = Rig::with(options, false);
    let answer = rig.credential("one", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
    for n in 0..100 {
        rig.fetched(&user(&n.to_string()), refused())
            .await
            .unwrap_err();
    }
    assert_eq!(rig.at_once(&user("ann")).await.unwrap().lookup, Lookup::Hit);
}

#[tokio::test]
async fn one_failing_identity_waits_alone() {
    let mut rig = Rig::new();
    let error = rig
        .fetched(&user("ann"), unavailable(None))
        .await
        .unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    let error = rig.at_once(&user("ann")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_millis(500)));
    let answer = rig.credential("b", LIFE);
    rig.fetched(&user("bob"), answer).await.unwrap();
}

#[tokio::test]
async fn a_success_ends_the_row_of_failures() {
    let mut rig = Rig::new();
    for secs in [1, 1, 0] {
        rig.fetched(&user("ann"), unavailable(None))
            .await
            .unwrap_err();
        rig.advance(secs);
    }
    let error = rig.at_once(&user("ann")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_secs(2)));
    rig.advance(2);
    let answer = rig.credential("brief", 0);
    rig.fetched(&user("ann"), answer).await.unwrap();
    rig.fetched(&user("ann"), unavailable(None))
        .await
        .unwrap_err();
    let error = rig.at_once(&user("ann")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_millis(500)));
}

#[tokio::test]
async fn whoever_waits_for_a_turn_at_a_dead_exchange_is_sent_away_without_asking() {
    let mut options = options();
    options.concurrency = 1;
    let mut rig = Rig::with(options, false);
    let waiting: Vec<_> = ["ann", "bob", "cid"]
        .into_iter()
        .map(|name| rig.lease(&user(name)))
        .collect();
    rig.call().await.answer(unavailable(Some(5)));
    for leased in waiting {
        let error = leased.await.unwrap().unwrap_err();
        assert_eq!(retry_after(&error), Some(Duration::from_secs(5)));
    }
    rig.assert_quiet().await;
}

#[tokio::test]
async fn a_dead_exchange_is_left_alone_and_callers_told_for_how_long() {
    let mut rig = Rig::new();
    for name in ["ann", "bob"] {
        rig.fetched(&user(name), unavailable(None))
            .await
            .unwrap_err();
    }
    let error = rig.at_once(&user("cid")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_millis(500)));
    rig.advance(1);
    let answer = rig.credential("c", LIFE);
    rig.fetched(&user("cid"), answer).await.unwrap();
}

#[tokio::test]
async fn retry_after_is_honoured_for_everybody_without_a_credential() {
    let mut rig = Rig::new();
    let answer = rig.credential("b", LIFE);
    rig.fetched(&user("bob"), answer).await.unwrap();
    rig.fetched(&user("ann"), unavailable(Some(42)))
        .await
        .unwrap_err();
    let error = rig.at_once(&user("cid")).await.unwrap_err();
    assert_eq!(retry_after(&error), Some(Duration::from_secs(42)));
    assert_eq!(rig.at_once(&user("bob")).await.unwrap().lookup, Lookup::Hit);
}

#[tokio::test]
async fn refusals_never_start_a_backoff() {
    let mut rig = Rig::new();
    for n in 0..20 {
        rig.fetched(&user(&n.to_string()), refused())
            .await
            .unwrap_err();
    }
    let answer = rig.credential("a", LIFE);
    rig.fetched(&user("ann"), answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_source_times_out() {
    let mut rig = Rig::new();
    let waiting = rig.lease(&user("ann"));
    let _unanswered = rig.call().await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.lookup, Lookup::Failed);
    assert!(error.to_string().contains("3000ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn exchanges_under_way_are_bounded_and_so_is_the_wait_for_a_turn() {
    let mut options = options();
    options.concurrency = 2;
    let mut rig = Rig::with(options, false);
    let waiting: Vec<_> = ["ann", "bob", "cid"]
        .into_iter()
        .map(|name| rig.lease(&user(name)))
        .collect();
    let (first, second) = (rig.call().await, rig.call().await);
    rig.assert_quiet().await;
    let answer = rig.credential("x", LIFE);
    first.answer(answer);
    // The third has its turn now, and is not answered.
    let _third = rig.call().await;
    let answer = rig.credential("y", LIFE);
    second.answer(answer);
    let ends: Vec<_> = futures::future::join_all(waiting).await;
    let good = ends
        .iter()
        .filter(|end| end.as_ref().unwrap().is_ok())
        .count();
    assert_eq!(good, 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_gets_no_turn_is_told_so_and_the_source_is_not_blamed() {
    let mut options = options();
    options.concurrency = 1;
    let mut rig = Rig::with(options, false);
    let ann = rig.lease(&user("ann"));
    let _unanswered = rig.call().await;
    // Bob's turn comes when Ann's exchange times out; Cid's wait ends before Bob's does.
    tokio::time::advance(TIMEOUT / 3).await;
    let bob = rig.lease(&user("bob"));
    everybody_runs().await;
    tokio::time::advance(TIMEOUT / 3).await;
    let cid = rig.lease(&user("cid"));
    let call = rig.call().await;
    assert_eq!(call.subject(), "bob");
    let error = cid.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("no turn"), "{error}");
    assert!(ann.await.unwrap().is_err());
    let answer = rig.credential("b", LIFE);
    call.answer(answer);
    bob.await.unwrap().unwrap();
    let answer = rig.credential("c", LIFE);
    rig.fetched(&user("cid"), answer).await.unwrap();
}

#[tokio::test]
async fn waiting_exchanges_are_bounded() {
    let mut options = options();
    options.concurrency = 1;
    let mut rig = Rig::with(options, false);
    let waiting: Vec<_> = (0..MAX_FLIGHTS)
        .map(|n| rig.lease(&user(&n.to_string())))
        .collect();
    let _held = rig.call().await;
    everybody_runs().await;
    let error = rig.at_once(&user("one too many")).await.unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
    for task in waiting {
        task.abort();
    }
}

/// Answers at once and counts.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

#[async_trait::async_trait]
impl CredentialSource for Counting {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }
    async fn fetch(&self, _: &SwapRequest) -> Answer {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok(Issued {
            credential: Credential::Bearer(SecretString::from("x")),
            expires_at: None,
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_several_threads_too_each_revocation_is_one_exchange() {
    const ROUNDS: u64 = 100;
    let inner = Arc::new(Counting::default());
    let clock = ManualClock::at(START);
    let source = Source::new("login".into(), inner.clone(), options(), clock).unwrap();
    let source = Arc::new(source);
    let mut revoked = source.lease(&user("ann")).await.unwrap().lease;
    for round in 1..=ROUNDS {
        let start = Arc::new(tokio::sync::Barrier::new(50));
        let replacing = (0..50).map(|_| {
            let (source, start, old) = (source.clone(), start.clone(), revoked.clone());
            tokio::spawn(async move {
                start.wait().await;
                source.replace(&user("ann"), &old).await.unwrap().lease
            })
        });
        let fresh = futures::future::join_all(replacing).await;
        let first = fresh[0].as_ref().unwrap().clone();
        assert_ne!(first.generation(), revoked.generation());
        for lease in fresh {
            assert_eq!(lease.unwrap().generation(), first.generation());
        }
        assert_eq!(inner.0.load(Ordering::SeqCst), round + 1);
        revoked = first;
    }
}

#[tokio::test]
async fn nothing_of_a_credential_is_in_debug_output() {
    let mut rig = Rig::with(options(), true);
    let request = SwapRequest {
        bearer: Some(BearerToken::new("hunter2.bearer").unwrap()),
        ..user("ann")
    };
    let answer = rig.credential("hunter2.secret", LIFE);
    let leased = rig.fetched(&request, answer).await.unwrap();
    let shown = format!("{leased:?} {:?} {request:?}", rig.source);
    assert!(!shown.contains("hunter2"), "{shown}");
}
