mod fleet;

use serde_json::json;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::label::Label as _;
use crate::token::VerifiedToken;

fn rate(requests: u64, per: Duration, burst: u64, by: RateBy) -> Rate {
    Rate {
        requests,
        per,
        burst,
        by,
        clients: 1000,
    }
}

struct Fixture {
    limits: RateLimiters,
    clock: Arc<ManualClock>,
}

fn fixture(rate: &Rate) -> Fixture {
    let clock = ManualClock::at(UnixMillis(0));
    let limit = RateLimiter::new(rate, clock.clone());
    Fixture {
        limits: RateLimiters::new(vec![Arc::new(limit)]),
        clock,
    }
}

fn at(address: &str) -> Client<'static> {
    Client {
        address: Some(address.parse().unwrap()),
        certificate: None,
    }
}

fn caller(issuer: &str, subject: &str) -> Caller {
    Caller::Verified(VerifiedToken::for_test(issuer, json!({ "sub": subject })))
}

/// How many of `attempts` are admitted.
fn admitted<T>(attempts: usize, mut one: impl FnMut() -> Result<T, Rejection>) -> usize {
    (0..attempts).filter(|_| one().is_ok()).count()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_burst_is_admitted_and_then_the_sustained_rate() {
    let Fixture { limits, clock } = fixture(&rate(10, SECOND, 20, RateBy::Address));
    let one = || limits.check_address(at("192.0.2.1"));
    assert_eq!(admitted(100, one), 20);
    clock.advance(Duration::from_millis(100));
    assert_eq!(admitted(100, one), 1);
    clock.advance(SECOND);
    assert_eq!(admitted(100, one), 10);
    // The bucket refills up to the burst and no further.
    clock.advance(Duration::from_hours(1));
    assert_eq!(admitted(100, one), 20);
}

#[test]
fn retry_after_is_the_time_until_the_next_token() {
    let Fixture { limits, clock } = fixture(&rate(1, Duration::from_secs(10), 1, RateBy::Address));
    let one = || limits.check_address(at("192.0.2.1")).map(drop);
    one().unwrap();
    clock.advance(Duration::from_millis(500));
    let refused = one().unwrap_err();
    assert_eq!(refused.reason, Reason::RateLimited);
    assert_eq!(refused.retry_after, Some(Duration::from_secs(10)));
    let response = refused.to_response(&http::Method::GET, UnixMillis(0));
    assert_eq!(response.status, 429);
    assert!(response.headers.contains(&("retry-after", "10".into())));
    assert_eq!(refused.reason.label(), "rate_limited");
    // A refused request takes no token.
    clock.advance(Duration::from_millis(9_499));
    assert_eq!(one().unwrap_err().retry_after, Some(SECOND));
    clock.advance(Duration::from_millis(1));
    one().unwrap();
}

#[test]
fn clients_are_ipv4_addresses_or_ipv6_64_prefixes() {
    let Fixture { limits, .. } = fixture(&rate(1, SECOND, 1, RateBy::Address));
    let one = |address: &str| limits.check_address(at(address)).is_ok();
    assert!(one("192.0.2.1"));
    assert!(!one("192.0.2.1"));
    assert!(!one("::ffff:192.0.2.1"), "the same address");
    assert!(one("192.0.2.2"));
    assert!(one("2001:db8:1:1::1"));
    assert!(!one("2001:db8:1:1:ffff::2"), "the same /64");
    assert!(one("2001:db8:1:2::1"));
    let unix = Client::default();
    assert!(limits.check_address(unix).is_ok());
    assert!(limits.check_address(unix).is_err());
}

#[test]
fn a_verified_identity_is_counted_across_addresses() {
    let Fixture { limits, .. } = fixture(&rate(1, SECOND, 2, RateBy::Client));
    let one = |caller: &Caller, address: &str| limits.check_identity(caller, at(address)).is_ok();
    let (alice, bob) = (caller("idp", "alice"), caller("idp", "bob"));
    assert!(limits.check_address(at("192.0.2.1")).is_ok());
    assert!(one(&alice, "192.0.2.1"));
    assert!(one(&alice, "192.0.2.2"));
    assert!(!one(&alice, "192.0.2.3"));
    // Other subjects at the same address and the same subject of another issuer are different
    // clients.
    assert!(one(&bob, "192.0.2.1"));
    assert!(one(&caller("other", "alice"), "192.0.2.1"));
    assert!(one(&caller("idpalic", "e"), "192.0.2.1"));
}

#[test]
fn unverified_callers_are_counted_by_certificate_or_address() {
    let Fixture { limits, .. } = fixture(&rate(1, SECOND, 2, RateBy::Client));
    let here = at("192.0.2.1");
    assert!(limits.check_identity(&Caller::Anonymous, here).is_ok());
    // Failed verifications count against the address, whatever the token.
    assert!(limits.check_unverified(here).is_ok());
    assert!(limits.check_unverified(here).is_err());
    let certificate = ClientCertificate::for_test("worker", &[]);
    let known = Client {
        certificate: Some(&certificate),
        ..here
    };
    assert_eq!(
        admitted(5, || limits.check_identity(&Caller::Anonymous, known)),
        2
    );
}

#[test]
fn the_number_of_buckets_is_bounded_by_evicting_the_least_recently_used() {
    let limited = Rate {
        clients: 100,
        ..rate(1, Duration::from_hours(1), 1, RateBy::Address)
    };
    let clock = ManualClock::at(UnixMillis(0));
    let limit = RateLimiter::new(&limited, clock);
    for n in 0..10_000_u32 {
        let key = Key::Address(IpAddr::V4(n.into()));
        limit.take(key).unwrap();
    }
    limit.buckets.run_pending_tasks();
    assert!(limit.buckets.entry_count() <= 100);
    let last = Key::Address(IpAddr::V4(9_999.into()));
    assert!(limit.take(last).is_err(), "evicted at once");
}

#[test]
fn extreme_rates_neither_overflow_nor_stop_limiting() {
    // The interval times the burst is close to the largest number of nanoseconds that fits.
    let slow = rate(1, Duration::from_hours(10), 100_000, RateBy::Address);
    let fast = rate(1_000_000, SECOND, 1, RateBy::Address);
    let Fixture { limits, clock } = fixture(&slow);
    clock.advance(Duration::from_hours(24 * 365 * 100));
    assert_eq!(
        admitted(100_100, || limits.check_address(at("::1"))),
        100_000
    );
    let Fixture { limits, clock } = fixture(&fast);
    assert_eq!(admitted(10, || limits.check_address(at("::1"))), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(admitted(10, || limits.check_address(at("::1"))), 1);
}

#[test]
fn concurrent_requests_do_not_exceed_the_limit() {
    let Fixture { limits, .. } = fixture(&rate(1, Duration::from_hours(1), 500, RateBy::Address));
    let got: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| admitted(200, || limits.check_address(at("192.0.2.1")))))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(got, 500);
}
