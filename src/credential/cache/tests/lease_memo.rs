//! What the token itself remembers.

use super::*;
use crate::clock::Now;

impl Rig {
    fn memoized(&self, request: &SwapRequest) -> Option<Leased> {
        let now = Now::read(&*self.clock);
        self.source.memoized(&request.caller, now)
    }

    /// A rig where `request` has got "one", and its token remembers it.
    async fn remembering(request: &SwapRequest) -> (Self, Lease) {
        let mut rig = Self::new();
        let answer = rig.credential("one", LIFE);
        rig.fetched(request, answer).await.unwrap();
        assert!(rig.memoized(request).is_none(), "nobody came again");
        rig.at_once(request).await.unwrap();
        let memoized = rig.memoized(request).unwrap();
        assert_eq!((memoized.lookup, text(&memoized)), (Lookup::Hit, "one"));
        (rig, memoized.lease)
    }
}

#[tokio::test]
async fn a_hit_is_remembered_for_a_second_and_then_looked_up_again() {
    let ann = user("ann");
    let (mut rig, _) = Rig::remembering(&ann).await;
    rig.clock.advance(Duration::from_millis(999));
    assert!(rig.memoized(&ann).is_some());
    rig.clock.advance(Duration::from_millis(1));
    assert!(rig.memoized(&ann).is_none());
    rig.at_once(&ann).await.unwrap();
    assert!(rig.memoized(&ann).is_some());
}

#[tokio::test]
async fn what_is_asked_for_all_the_time_stays_in_the_cache() {
    let ann = user("ann");
    let (mut rig, _) = Rig::remembering(&ann).await;
    for _ in 0..30 {
        rig.advance(1);
        if rig.memoized(&ann).is_none() {
            rig.at_once(&ann).await.unwrap();
        }
    }
    assert_eq!(rig.source.entries(), 1);
}

#[tokio::test]
async fn no_other_caller_token_or_source_meets_it() {
    let ann = user("ann");
    let (rig, _) = Rig::remembering(&ann).await;
    let (other, _) = Rig::remembering(&user("bob")).await;
    assert!(other.memoized(&ann).is_none(), "another source");
    assert!(
        rig.memoized(&user("ann")).is_none(),
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
    let mut rig = rig;
    let answer = rig.credential("two", LIFE);
    rig.fetched(&opaque, answer).await.unwrap();
    rig.at_once(&opaque).await.unwrap();
    assert!(rig.memoized(&opaque).is_none());
}

#[tokio::test]
async fn what_a_rule_narrowed_is_not_remembered() {
    let ann = user("ann");
    let narrowed = SwapRequest {
        scopes: Some(["queue:x".to_owned()].into()),
        ..ann.clone()
    };
    let mut rig = Rig::new();
    let answer = rig.credential("narrow", LIFE);
    rig.fetched(&narrowed, answer).await.unwrap();
    rig.at_once(&narrowed).await.unwrap();
    assert!(rig.memoized(&ann).is_none());
}

#[tokio::test]
async fn what_the_upstream_rejected_is_forgotten_at_once() {
    let ann = user("ann");
    let (mut rig, rejected) = Rig::remembering(&ann).await;
    let replacing = rig.replace(&ann, &rejected);
    let call = rig.call().await;
    assert!(rig.memoized(&ann).is_none());
    let answer = rig.credential("two", LIFE);
    call.answer(answer);
    replacing.await.unwrap().unwrap();
    assert!(rig.memoized(&ann).is_none());
    assert_eq!(text(&rig.at_once(&ann).await.unwrap()), "two");
    assert_eq!(text(&rig.memoized(&ann).unwrap()), "two");

    let rejected = rig.memoized(&ann).unwrap().lease;
    rig.source.invalidate(&ann, &rejected);
    assert!(rig.memoized(&ann).is_none());
}

#[tokio::test]
async fn also_where_the_cache_has_forgotten_it_before() {
    let ann = user("ann");
    let (rig, rejected) = Rig::remembering(&ann).await;
    rig.source.coordinator.evict_all();
    assert!(rig.memoized(&ann).is_some());
    rig.source.invalidate(&ann, &rejected);
    assert!(rig.memoized(&ann).is_none());
}

#[tokio::test]
async fn another_epoch_voids_it_at_once() {
    let ann = user("ann");
    let (rig, _) = Rig::remembering(&ann).await;
    rig.epoch.store(1, Ordering::SeqCst);
    assert!(rig.memoized(&ann).is_none());
}

#[tokio::test]
async fn a_refused_renewal_voids_it_at_once() {
    let ann = user("ann");
    let (mut rig, _) = Rig::remembering(&ann).await;
    rig.advance(LIFE - 5 - 60);
    // Renewals are the cache's to start.
    rig.at_once_renewing(&ann, refused()).await;
    assert!(rig.memoized(&ann).is_none());
    assert!(rig.lease(&ann).await.unwrap().is_err());
}

#[tokio::test]
async fn it_serves_while_it_is_renewed_and_not_afterwards() {
    let ann = user("ann");
    let (mut rig, _) = Rig::remembering(&ann).await;
    rig.advance(LIFE - 5 - 60);
    assert!(rig.memoized(&ann).is_none(), "due");
    let leased = rig.lease(&ann).await.unwrap().unwrap();
    assert_eq!(text(&leased), "one");
    assert_eq!(text(&rig.memoized(&ann).unwrap()), "one");
    let answer = rig.credential("two", LIFE);
    rig.call().await.answer(answer);
    everybody_runs().await;
    assert!(rig.memoized(&ann).is_none());
    assert_eq!(text(&rig.at_once(&ann).await.unwrap()), "two");
}

#[tokio::test]
async fn it_is_not_used_past_its_end() {
    let ann = user("ann");
    let mut rig = Rig::new();
    // Without the lead of a renewal, which would come first.
    let answer = rig.credential("short", 1);
    rig.fetched(&ann, answer).await.unwrap();
    rig.at_once(&ann).await.unwrap();
    rig.clock.set_wall(START.plus(Duration::from_millis(900)));
    assert!(rig.memoized(&ann).is_none());
}

impl Rig {
    /// A hit that starts a renewal, which ends with `answer`.
    async fn at_once_renewing(&mut self, request: &SwapRequest, answer: Answer) {
        self.lease(request).await.unwrap().unwrap();
        self.call().await.answer(answer);
        everybody_runs().await;
    }
}
