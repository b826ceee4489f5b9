//! Limits on exchanges that 401s cause.

use super::*;

impl Fixture {
    async fn replacement(&self, request: &SwapRequest, rejected: &Lease) -> Replacement {
        let replaced = self.source.replace(request, rejected).await;
        replaced.unwrap()
    }

    /// Fetches "one" for `request` and replaces it with "two" after a 401.
    async fn with_replacement(&mut self, request: &SwapRequest) -> Lease {
        let result = self.credential("one", LIFE);
        let old = self.fetched(request, result).await.unwrap();
        let replacing = self.replace(request, &old.lease);
        let result = self.credential("two", LIFE);
        self.call().await.respond(result);
        replacing.await.unwrap().unwrap().lease
    }
}

#[tokio::test]
async fn a_hundred_requests_that_always_get_401_cause_one_exchange_in_thirty_seconds() {
    let ann = user("ann");
    let mut fixture = Fixture::new();
    let fresh = fixture.with_replacement(&ann).await;
    for _ in 0..100 {
        let leased = fixture.cached(&ann).await.unwrap();
        assert_eq!(leased.lease.generation(), fresh.generation());
        let end = fixture.replacement(&ann, &leased.lease).await;
        assert!(matches!(end, Replacement::StillRejected));
        fixture.source.invalidate(&ann, &leased.lease);
    }
    fixture.assert_no_exchange().await;
    fixture.advance(30);
    let replacing = fixture.replace(&ann, &fresh);
    let result = fixture.credential("three", LIFE);
    fixture.call().await.respond(result);
    assert_eq!(text(&replacing.await.unwrap().unwrap()), "three");
}

#[tokio::test]
async fn requests_that_succeed_in_between_do_not_lift_the_limit() {
    let ann = user("ann");
    let mut fixture = Fixture::new();
    let fresh = fixture.with_replacement(&ann).await;
    fixture.cached(&ann).await.unwrap();
    let end = fixture.replacement(&ann, &fresh).await;
    assert!(matches!(end, Replacement::StillRejected));
}

#[tokio::test]
async fn a_replacement_that_helped_is_followed_by_the_next_at_once() {
    let ann = user("ann");
    let mut fixture = Fixture::new();
    let fresh = fixture.with_replacement(&ann).await;
    fixture.source.accepted(&ann);
    let replacing = fixture.replace(&ann, &fresh);
    let result = fixture.credential("three", LIFE);
    fixture.call().await.respond(result);
    assert_eq!(text(&replacing.await.unwrap().unwrap()), "three");
}

#[tokio::test]
async fn a_failed_replacement_never_turns_into_a_401() {
    let ann = user("ann");
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    let old = fixture.fetched(&ann, result).await.unwrap();
    for _ in 0..100 {
        let replacing = fixture.replace(&ann, &old.lease);
        run_pending_tasks().await;
        if let Ok(call) = fixture.calls.try_recv() {
            call.respond(unavailable(None));
        }
        assert!(replacing.await.unwrap().is_err());
        fixture.advance(1);
    }
}

/// A source whose credential every caller shares.
fn shared() -> Fixture {
    let mut fixture = Fixture::new();
    let (calls, receiver) = mpsc::unbounded_channel();
    let inner = Shared(ScriptedSource {
        calls,
        bearer_bound: false,
        epoch: Arc::clone(&fixture.epoch),
    });
    let (clock, jitter) = (fixture.clock.clone(), Jitter::Fixed(0.0));
    let source = CachedSource::with_jitter("m2m".into(), Arc::new(inner), options(), clock, jitter);
    fixture.source = Arc::new(source.unwrap());
    fixture.calls = receiver;
    fixture
}

#[derive(Debug)]
struct Shared(ScriptedSource);

#[async_trait::async_trait]
impl CredentialSource for Shared {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }
    fn epoch(&self) -> Option<u64> {
        self.0.epoch()
    }
    fn is_shared(&self) -> bool {
        true
    }
    async fn fetch(&self, request: &SwapRequest) -> FetchResult {
        self.0.fetch(request).await
    }
}

#[tokio::test]
async fn a_callers_rejections_do_not_keep_others_from_replacing_a_shared_credential() {
    let mut fixture = shared();
    let fresh = fixture.with_replacement(&user("mallory")).await;
    let end = fixture.replacement(&user("mallory"), &fresh).await;
    assert!(matches!(end, Replacement::StillRejected));
    let replacing = fixture.replace(&user("ann"), &fresh);
    let result = fixture.credential("three", LIFE);
    fixture.call().await.respond(result);
    assert_eq!(text(&replacing.await.unwrap().unwrap()), "three");
}

#[tokio::test]
async fn no_caller_waits_for_a_shared_credential_that_another_caller_invalidated() {
    let mut fixture = shared();
    let result = fixture.credential("one", LIFE);
    let old = fixture.fetched(&user("mallory"), result).await.unwrap();
    fixture.source.invalidate(&user("mallory"), &old.lease);
    for _ in 0..3 {
        let leased = fixture.lease(&user("ann")).await.unwrap().unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "one"));
    }
    let call = fixture.call().await;
    fixture.assert_no_exchange().await;
    let result = fixture.credential("two", LIFE);
    call.respond(result);
    run_pending_tasks().await;
    assert_eq!(text(&fixture.cached(&user("ann")).await.unwrap()), "two");
}

#[tokio::test]
async fn many_callers_together_replace_a_shared_credential_once_a_second() {
    let mut fixture = shared();
    let result = fixture.credential("x", LIFE);
    let mut lease = fixture.fetched(&user("ann"), result).await.unwrap().lease;
    let mut exchanges = 0;
    for n in 0..1000 {
        let (request, old) = (user(&n.to_string()), lease.clone());
        let source = Arc::clone(&fixture.source);
        let replacing = tokio::spawn(async move { source.replace(&request, &old).await });
        run_pending_tasks().await;
        if let Ok(call) = fixture.calls.try_recv() {
            exchanges += 1;
            let result = fixture.credential("x", LIFE);
            call.respond(result);
        }
        if let Replacement::New(leased) = replacing.await.unwrap().unwrap() {
            lease = leased.lease;
        }
        fixture.clock.advance(Duration::from_millis(100));
    }
    assert_eq!(exchanges, 30 + 99);
}
