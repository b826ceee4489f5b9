//! What the token itself remembers.

use super::*;
use crate::clock::Now;

impl Fixture {
    fn memoized(&self, request: &SwapRequest) -> Option<Leased> {
        let now = Now::read(&*self.clock);
        self.source.memoized(&request.caller, now)
    }

    /// A fixture where `request` has got "one", and its token remembers it.
    async fn remembering(request: &SwapRequest) -> (Self, Lease) {
        let mut fixture = Self::new();
        let answer = fixture.credential("one", LIFE);
        fixture.fetched(request, answer).await.unwrap();
        assert!(fixture.memoized(request).is_none(), "nobody came again");
        fixture.at_once(request).await.unwrap();
        let memoized = fixture.memoized(request).unwrap();
        assert_eq!((memoized.lookup, text(&memoized)), (Lookup::Hit, "one"));
        (fixture, memoized.lease)
    }
}

#[tokio::test]
async fn a_hit_is_memoized_for_a_second_and_then_looked_up_again() {
    let ann = user("ann");
    let (mut fixture, _) = Fixture::remembering(&ann).await;
    fixture.clock.advance(Duration::from_millis(999));
    assert!(fixture.memoized(&ann).is_some());
    fixture.clock.advance(Duration::from_millis(1));
    assert!(fixture.memoized(&ann).is_none());
    fixture.at_once(&ann).await.unwrap();
    assert!(fixture.memoized(&ann).is_some());
}

#[tokio::test]
async fn a_credential_in_constant_use_is_not_evicted() {
    let ann = user("ann");
    let (mut fixture, _) = Fixture::remembering(&ann).await;
    for _ in 0..30 {
        fixture.advance(1);
        if fixture.memoized(&ann).is_none() {
            fixture.at_once(&ann).await.unwrap();
        }
    }
    assert_eq!(fixture.source.entries(), 1);
}

#[tokio::test]
async fn a_memo_is_specific_to_its_caller_token_and_source() {
    let ann = user("ann");
    let (fixture, _) = Fixture::remembering(&ann).await;
    let (other, _) = Fixture::remembering(&user("bob")).await;
    assert!(other.memoized(&ann).is_none(), "another source");
    assert!(
        fixture.memoized(&user("ann")).is_none(),
        "another token of hers"
    );
    let opaque = Caller::Delegated {
        issuer: "idp".into(),
        digest: TokenDigest([7; 32]),
    };
    let opaque = SwapRequest {
        caller: opaque,
        ..user("")
    };
    let mut fixture = fixture;
    let answer = fixture.credential("two", LIFE);
    fixture.fetched(&opaque, answer).await.unwrap();
    fixture.at_once(&opaque).await.unwrap();
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
    let answer = fixture.credential("narrow", LIFE);
    fixture.fetched(&narrowed, answer).await.unwrap();
    fixture.at_once(&narrowed).await.unwrap();
    assert!(fixture.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_rejected_lease_is_never_returned_from_the_memo() {
    let ann = user("ann");
    let (mut fixture, rejected) = Fixture::remembering(&ann).await;
    let replacing = fixture.replace(&ann, &rejected);
    let call = fixture.call().await;
    assert!(fixture.memoized(&ann).is_none());
    let answer = fixture.credential("two", LIFE);
    call.answer(answer);
    replacing.await.unwrap().unwrap();
    assert!(fixture.memoized(&ann).is_none());
    assert_eq!(text(&fixture.at_once(&ann).await.unwrap()), "two");
    assert_eq!(text(&fixture.memoized(&ann).unwrap()), "two");

    let rejected = fixture.memoized(&ann).unwrap().lease;
    fixture.source.invalidate(&ann, &rejected);
    assert!(fixture.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_rejected_lease_is_never_returned_even_after_its_eviction() {
    let ann = user("ann");
    let (fixture, rejected) = Fixture::remembering(&ann).await;
    fixture.source.coordinator.evict_all();
    assert!(fixture.memoized(&ann).is_some());
    fixture.source.invalidate(&ann, &rejected);
    assert!(fixture.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_new_epoch_invalidates_the_memo() {
    let ann = user("ann");
    let (fixture, _) = Fixture::remembering(&ann).await;
    fixture.epoch.store(1, Ordering::SeqCst);
    assert!(fixture.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_refused_renewal_invalidates_the_memo() {
    let ann = user("ann");
    let (mut fixture, _) = Fixture::remembering(&ann).await;
    fixture.advance(LIFE - 5 - 60);
    // Renewals are the cache's to start.
    fixture.at_once_renewing(&ann, refused()).await;
    assert!(fixture.memoized(&ann).is_none());
    assert!(fixture.lease(&ann).await.unwrap().is_err());
}

#[tokio::test]
async fn a_memo_is_valid_during_a_renewal_and_not_afterwards() {
    let ann = user("ann");
    let (mut fixture, _) = Fixture::remembering(&ann).await;
    fixture.advance(LIFE - 5 - 60);
    assert!(fixture.memoized(&ann).is_none(), "due");
    let leased = fixture.lease(&ann).await.unwrap().unwrap();
    assert_eq!(text(&leased), "one");
    assert_eq!(text(&fixture.memoized(&ann).unwrap()), "one");
    let answer = fixture.credential("two", LIFE);
    fixture.call().await.answer(answer);
    let_tasks_run().await;
    assert!(fixture.memoized(&ann).is_none());
    assert_eq!(text(&fixture.at_once(&ann).await.unwrap()), "two");
}

#[tokio::test]
async fn a_memo_is_not_used_past_the_credentials_expiry() {
    let ann = user("ann");
    let mut fixture = Fixture::new();
    // Without the lead of a renewal, which would come first.
    let answer = fixture.credential("short", 1);
    fixture.fetched(&ann, answer).await.unwrap();
    fixture.at_once(&ann).await.unwrap();
    fixture
        .clock
        .set_wall(START.plus(Duration::from_millis(900)));
    assert!(fixture.memoized(&ann).is_none());
}

impl Fixture {
    /// A hit that starts a renewal, which ends with `answer`.
    async fn at_once_renewing(&mut self, request: &SwapRequest, answer: Answer) {
        self.lease(request).await.unwrap().unwrap();
        self.call().await.answer(answer);
        let_tasks_run().await;
    }
}
