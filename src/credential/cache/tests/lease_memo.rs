//! Leases memoized with the caller's token.

use super::*;
use crate::clock::Now;

impl Fixture {
    fn memoized(&self, request: &SwapRequest) -> Option<Leased> {
        let now = Now::read(&*self.clock);
        self.source.memoized(&request.caller, now)
    }

    /// A fixture in which the lease of the credential "one" is memoized with the token of
    /// `request`.
    async fn with_memo(request: &SwapRequest) -> (Self, Lease) {
        let mut fixture = Self::new();
        let result = fixture.credential("one", LIFE);
        fixture.fetched(request, result).await.unwrap();
        assert!(
            fixture.memoized(request).is_none(),
            "memoized only at a cache hit"
        );
        fixture.cached(request).await.unwrap();
        let memoized = fixture.memoized(request).unwrap();
        assert_eq!((memoized.lookup, text(&memoized)), (Lookup::Hit, "one"));
        (fixture, memoized.lease)
    }
}

#[tokio::test]
async fn a_hit_is_memoized_for_a_second_and_then_looked_up_again() {
    let ann = user("ann");
    let (mut fixture, _) = Fixture::with_memo(&ann).await;
    fixture.clock.advance(Duration::from_millis(999));
    assert!(fixture.memoized(&ann).is_some());
    fixture.clock.advance(Duration::from_millis(1));
    assert!(fixture.memoized(&ann).is_none());
    fixture.cached(&ann).await.unwrap();
    assert!(fixture.memoized(&ann).is_some());
}

#[tokio::test]
async fn a_credential_in_constant_use_is_not_evicted() {
    let ann = user("ann");
    let (mut fixture, _) = Fixture::with_memo(&ann).await;
    for _ in 0..30 {
        fixture.advance(1);
        if fixture.memoized(&ann).is_none() {
            fixture.cached(&ann).await.unwrap();
        }
    }
    assert_eq!(fixture.source.entries(), 1);
}

#[tokio::test]
async fn a_memo_is_specific_to_its_caller_token_and_source() {
    let ann = user("ann");
    let (fixture, _) = Fixture::with_memo(&ann).await;
    let (other, _) = Fixture::with_memo(&user("bob")).await;
    assert!(other.memoized(&ann).is_none(), "another source");
    assert!(
        fixture.memoized(&user("ann")).is_none(),
        "another token of the same user"
    );
    let opaque = Caller::Delegated {
        issuer: "idp".into(),
        digest: TokenDigest([7; 32]),
        peer: None,
    };
    let opaque = SwapRequest {
        caller: opaque,
        ..user("")
    };
    let mut fixture = fixture;
    let result = fixture.credential("two", LIFE);
    fixture.fetched(&opaque, result).await.unwrap();
    fixture.cached(&opaque).await.unwrap();
    assert!(fixture.memoized(&opaque).is_none());
}

#[tokio::test]
async fn narrowed_leases_are_not_memoized() {
    let ann = user("ann");
    let narrowed = SwapRequest {
        scopes: Some(["queue:x".to_owned()].into()),
        ..ann.clone()
    };
    let mut fixture = Fixture::new();
    let result = fixture.credential("narrow", LIFE);
    fixture.fetched(&narrowed, result).await.unwrap();
    fixture.cached(&narrowed).await.unwrap();
    assert!(fixture.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_replaced_lease_is_never_returned_from_the_memo() {
    let ann = user("ann");
    let (mut fixture, rejected) = Fixture::with_memo(&ann).await;
    let replacing = fixture.replace(&ann, &rejected);
    let call = fixture.call().await;
    assert_eq!(
        text(&fixture.memoized(&ann).unwrap()),
        "one",
        "in use until then"
    );
    let result = fixture.credential("two", LIFE);
    call.respond(result);
    replacing.await.unwrap().unwrap();
    assert!(fixture.memoized(&ann).is_none());
    assert_eq!(text(&fixture.cached(&ann).await.unwrap()), "two");
    assert_eq!(text(&fixture.memoized(&ann).unwrap()), "two");

    // The next one is replaced after a pause, because the first replacement may not have helped.
    fixture.advance(30);
    fixture.cached(&ann).await.unwrap();
    let rejected = fixture.memoized(&ann).unwrap().lease;
    fixture.source.invalidate(&ann, &rejected);
    assert!(fixture.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_rejected_lease_is_never_returned_even_after_its_eviction() {
    let ann = user("ann");
    let (fixture, rejected) = Fixture::with_memo(&ann).await;
    fixture.source.coordinator.evict_all();
    assert!(fixture.memoized(&ann).is_some());
    fixture.source.invalidate(&ann, &rejected);
    assert!(fixture.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_new_epoch_invalidates_the_memo() {
    let ann = user("ann");
    let (fixture, _) = Fixture::with_memo(&ann).await;
    fixture.epoch.store(1, Ordering::SeqCst);
    assert!(fixture.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_refused_renewal_invalidates_the_memo() {
    let ann = user("ann");
    let (mut fixture, _) = Fixture::with_memo(&ann).await;
    fixture.advance(LIFE - 5 - 60);
    fixture.hit_with_renewal(&ann, refused()).await;
    assert!(fixture.memoized(&ann).is_none());
    assert!(fixture.lease(&ann).await.unwrap().is_err());
}

#[tokio::test]
async fn a_memo_is_valid_during_a_renewal_but_not_afterwards() {
    let ann = user("ann");
    let (mut fixture, _) = Fixture::with_memo(&ann).await;
    fixture.advance(LIFE - 5 - 60);
    assert!(fixture.memoized(&ann).is_none(), "renewal due");
    let leased = fixture.lease(&ann).await.unwrap().unwrap();
    assert_eq!(text(&leased), "one");
    assert_eq!(text(&fixture.memoized(&ann).unwrap()), "one");
    let result = fixture.credential("two", LIFE);
    fixture.call().await.respond(result);
    run_pending_tasks().await;
    assert!(fixture.memoized(&ann).is_none());
    assert_eq!(text(&fixture.cached(&ann).await.unwrap()), "two");
}

#[tokio::test]
async fn a_memo_is_not_used_past_the_credentials_expiry() {
    let ann = user("ann");
    let mut fixture = Fixture::new();
    let result = fixture.credential("short", 1);
    fixture.fetched(&ann, result).await.unwrap();
    fixture.cached(&ann).await.unwrap();
    // Only the wall clock moves, so that no renewal is due.
    fixture
        .clock
        .set_wall(START.plus(Duration::from_millis(900)));
    assert!(fixture.memoized(&ann).is_none());
}

impl Fixture {
    /// Requests a lease from the cache and completes the renewal that this starts with `result`.
    async fn hit_with_renewal(&mut self, request: &SwapRequest, result: FetchResult) {
        self.lease(request).await.unwrap().unwrap();
        self.call().await.respond(result);
        run_pending_tasks().await;
    }
}
