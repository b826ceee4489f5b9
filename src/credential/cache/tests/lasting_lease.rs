//! Leases for requests that use a credential for as long as it lives.

use super::*;

impl Fixture {
    fn lasting(&self, request: &SwapRequest) -> JoinHandle<Result<Leased, LeaseError>> {
        let (source, request) = (Arc::clone(&self.source), request.clone());
        tokio::spawn(async move { source.lasting_lease(&request).await })
    }

    /// A fixture whose credential "one" of `request` was fetched this many seconds ago.
    async fn after(request: &SwapRequest, secs: u64) -> Self {
        let mut fixture = Self::new();
        let result = fixture.credential("one", LIFE);
        fixture.fetched(request, result).await.unwrap();
        fixture.advance(secs);
        fixture
    }
}

/// The seconds for which a credential is used, and those before its last third.
const USED: u64 = LIFE - 5;
const TWO_THIRDS: u64 = USED - USED / 3;

#[tokio::test]
async fn a_credential_before_its_last_third_is_returned_as_it_is() {
    let ann = user("ann");
    let mut fixture = Fixture::after(&ann, TWO_THIRDS - 1).await;
    let leased = fixture.lasting(&ann).await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "one"));
    fixture.assert_no_exchange().await;
}

#[tokio::test]
async fn a_credential_in_its_last_third_is_renewed_once_for_everybody() {
    let ann = user("ann");
    // Before a renewal in the background is due, and after.
    for secs in [TWO_THIRDS + 1, USED - 1] {
        let mut fixture = Fixture::after(&ann, secs).await;
        let waiting: Vec<_> = (0..5).map(|_| fixture.lasting(&ann)).collect();
        let call = fixture.call().await;
        run_pending_tasks().await;
        assert!(waiting.iter().all(|lease| !lease.is_finished()));
        call.respond(fixture.credential("two", LIFE));
        for lease in waiting {
            let leased = lease.await.unwrap().unwrap();
            assert_eq!(text(&leased), "two");
            let left = fixture.clock.now().until(leased.lease.usable_until());
            assert_eq!(left, Duration::from_secs(USED));
        }
        let leased = fixture.lasting(&ann).await.unwrap().unwrap();
        assert_eq!((leased.lookup, text(&leased)), (Lookup::Hit, "two"));
        fixture.assert_no_exchange().await;
    }
}

#[tokio::test]
async fn without_a_renewal_the_cached_credential_has_to_do() {
    let ann = user("ann");
    let mut fixture = Fixture::after(&ann, TWO_THIRDS + 1).await;
    let waiting = fixture.lasting(&ann);
    fixture.call().await.respond(unavailable(None));
    assert_eq!(text(&waiting.await.unwrap().unwrap()), "one");
    // The source is left alone for a while.
    let leased = fixture.lasting(&ann).await.unwrap().unwrap();
    assert_eq!((leased.lookup, text(&leased)), (Lookup::Stale, "one"));
    fixture.assert_no_exchange().await;
    // A credential that has expired when it arrives is of no use either.
    fixture.advance(60);
    let waiting = fixture.lasting(&ann);
    let call = fixture.call().await;
    call.respond(fixture.credential("expired", 0));
    assert_eq!(text(&waiting.await.unwrap().unwrap()), "one");
}

#[tokio::test]
async fn a_refused_renewal_is_an_error() {
    let ann = user("ann");
    let mut fixture = Fixture::after(&ann, TWO_THIRDS + 1).await;
    let waiting = fixture.lasting(&ann);
    fixture.call().await.respond(refused());
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error.cause, FetchError::Refused(_)));
    assert!(fixture.cached(&ann).await.is_err());
}

#[tokio::test]
async fn a_credential_that_expires_when_issued_is_fetched_only_once() {
    let ann = user("ann");
    let mut fixture = Fixture::new();
    let waiting = fixture.lasting(&ann);
    let call = fixture.call().await;
    call.respond(fixture.credential("short", 0));
    assert_eq!(text(&waiting.await.unwrap().unwrap()), "short");
    fixture.assert_no_exchange().await;
}
