//! Receipts, and 401s reported with them.

use super::*;

const HOLDER: TokenDigest = TokenDigest([1; 32]);
const OTHER: TokenDigest = TokenDigest([2; 32]);

impl Fixture {
    fn receipt(&self, request: &SwapRequest, lease: &Lease) -> String {
        let now = self.clock.now();
        self.source.receipt(request, lease, HOLDER, now).unwrap()
    }

    fn check(&self, receipt: &str, holder: TokenDigest) -> Option<Receipt> {
        let now = self.clock.now();
        self.source.check_receipt(receipt.as_bytes(), holder, now)
    }
}

#[tokio::test]
async fn a_receipt_is_valid_for_five_minutes_with_the_same_token_at_the_same_source() {
    let mut fixture = Fixture::new();
    let result = fixture.credential("one", LIFE);
    let leased = fixture.fetched(&user("ann"), result).await.unwrap();
    let text = fixture.receipt(&user("ann"), &leased.lease);
    let receipt = fixture.check(&text, HOLDER).unwrap();
    assert!(receipt.is_for(&leased.lease));
    assert_eq!(fixture.check(&text, OTHER), None);
    assert_eq!(Fixture::new().check(&text, HOLDER), None);
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(fixture.check(&changed, HOLDER), None, "{at}");
    }
    for text in ["", &text[1..], &format!("{text}A"), &format!("{text}=")] {
        assert_eq!(fixture.check(text, HOLDER), None, "{text}");
    }
    fixture.advance(299);
    assert!(fixture.check(&text, HOLDER).is_some());
    fixture.advance(1);
    assert_eq!(fixture.check(&text, HOLDER), None);
}

#[tokio::test]
async fn a_report_drops_its_generation_only_and_once_in_thirty_seconds() {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut fixture = Fixture::new();
    let mut leases = Vec::new();
    for (caller, name) in [(&ann, "ann's"), (&bob, "bob's")] {
        let result = fixture.credential(name, LIFE);
        leases.push(fixture.fetched(caller, result).await.unwrap().lease);
    }
    let first = fixture.receipt(&ann, &leases[0]);
    let first = fixture.check(&first, HOLDER).unwrap();
    assert_eq!(fixture.source.report(&first), Reported::Replaced);
    let result = fixture.credential("other", LIFE);
    let other = fixture.fetched(&ann, result).await.unwrap();
    assert_eq!(text(&other), "other");
    assert_eq!(text(&fixture.cached(&bob).await.unwrap()), "bob's");
    // Late.
    assert_eq!(fixture.source.report(&first), Reported::Replaced);
    assert_eq!(text(&fixture.cached(&ann).await.unwrap()), "other");
    // Too soon.
    let second = fixture.receipt(&ann, &other.lease);
    let second = fixture.check(&second, HOLDER).unwrap();
    assert_eq!(fixture.source.report(&second), Reported::Limited);
    assert_eq!(text(&fixture.cached(&ann).await.unwrap()), "other");
    fixture.advance(30);
    assert_eq!(fixture.source.report(&second), Reported::Replaced);
    let result = fixture.credential("last", LIFE);
    assert_eq!(text(&fixture.fetched(&ann, result).await.unwrap()), "last");
}
