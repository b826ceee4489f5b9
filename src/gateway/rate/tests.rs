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

struct Rig {
    rates: Rates,
    clock: Arc<ManualClock>,
}

fn rig(rate: &Rate) -> Rig {
    let clock = ManualClock::at(UnixMillis(0));
    let limit = RateLimit::new(rate, clock.clone());
    Rig {
        rates: Rates::new(vec![Arc::new(limit)]),
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

/// How many of `tries` get in.
fn admitted(tries: usize, mut one: impl FnMut() -> Result<(), Rejection>) -> usize {
    (0..tries).filter(|_| one().is_ok()).count()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_burst_gets_in_and_then_the_steady_rate() {
    let Rig { rates, clock } = rig(&rate(10, SECOND, 20, RateBy::Address));
    let one = || rates.arrived(at("192.0.2.1"));
    assert_eq!(admitted(100, one), 20);
    clock.advance(Duration::from_millis(100));
    assert_eq!(admitted(100, one), 1);
    clock.advance(SECOND);
    assert_eq!(admitted(100, one), 10);
    // It fills up to the burst and no further.
    clock.advance(Duration::from_hours(1));
    assert_eq!(admitted(100, one), 20);
}

#[test]
fn the_time_to_wait_is_told_and_is_enough() {
    let Rig { rates, clock } = rig(&rate(1, Duration::from_secs(10), 1, RateBy::Address));
    let one = || rates.arrived(at("192.0.2.1"));
    one().unwrap();
    clock.advance(Duration::from_millis(500));
    let refused = one().unwrap_err();
    assert_eq!(refused.reason, Reason::RateLimited);
    assert_eq!(refused.retry_after, Some(Duration::from_secs(10)));
    let answer = refused.answer(&http::Method::GET, UnixMillis(0));
    assert_eq!(answer.status, 429);
    assert!(answer.headers.contains(&("retry-after", "10".into())));
    assert_eq!(refused.reason.label(), "rate_limited");
    // Being refused costs nothing more.
    clock.advance(Duration::from_millis(9_499));
    assert_eq!(one().unwrap_err().retry_after, Some(SECOND));
    clock.advance(Duration::from_millis(1));
    one().unwrap();
}

#[test]
fn addresses_are_told_apart_as_clients_have_them() {
    let Rig { rates, .. } = rig(&rate(1, SECOND, 1, RateBy::Address));
    let one = |address: &str| rates.arrived(at(address)).is_ok();
    assert!(one("192.0.2.1"));
    assert!(!one("192.0.2.1"));
    assert!(!one("::ffff:192.0.2.1"), "the same address");
    assert!(one("192.0.2.2"));
    assert!(one("2001:db8:1:1::1"));
    assert!(!one("2001:db8:1:1:ffff::2"), "the same /64");
    assert!(one("2001:db8:1:2::1"));
    let unix = Client::default();
    assert!(rates.arrived(unix).is_ok());
    assert!(rates.arrived(unix).is_err());
}

#[test]
fn a_verified_identity_counts_wherever_it_calls_from() {
    let Rig { rates, .. } = rig(&rate(1, SECOND, 2, RateBy::Client));
    let one = |caller: &Caller, address: &str| rates.identified(caller, at(address)).is_ok();
    let (alice, bob) = (caller("idp", "alice"), caller("idp", "bob"));
    assert!(rates.arrived(at("192.0.2.1")).is_ok());
    assert!(one(&alice, "192.0.2.1"));
    assert!(one(&alice, "192.0.2.2"));
    assert!(!one(&alice, "192.0.2.3"));
    // Others at the same address, and the same name at another issuer, are somebody else.
    assert!(one(&bob, "192.0.2.1"));
    assert!(one(&caller("other", "alice"), "192.0.2.1"));
    assert!(one(&caller("idpalic", "e"), "192.0.2.1"));
}

#[test]
fn who_is_not_verified_counts_by_certificate_or_address() {
    let Rig { rates, .. } = rig(&rate(1, SECOND, 2, RateBy::Client));
    let here = at("192.0.2.1");
    assert!(rates.identified(&Caller::Anonymous, here).is_ok());
    // Each a token of its own, as anybody can make up.
    assert!(rates.unidentified(here).is_ok());
    assert!(rates.unidentified(here).is_err());
    let certificate = ClientCertificate::for_test("worker", &[]);
    let known = Client {
        certificate: Some(&certificate),
        ..here
    };
    assert_eq!(
        admitted(5, || rates.identified(&Caller::Anonymous, known)),
        2
    );
}

#[test]
fn memory_is_bounded_and_the_last_used_stays() {
    let limited = Rate {
        clients: 100,
        ..rate(1, Duration::from_hours(1), 1, RateBy::Address)
    };
    let clock = ManualClock::at(UnixMillis(0));
    let limit = RateLimit::new(&limited, clock);
    for n in 0..10_000_u32 {
        let key = Key::Address(IpAddr::V4(n.into()));
        limit.take(key).unwrap();
    }
    limit.buckets.run_pending_tasks();
    assert!(limit.buckets.entry_count() <= 100);
    let last = Key::Address(IpAddr::V4(9_999.into()));
    assert!(limit.take(last).is_err(), "forgotten at once");
}

#[test]
fn extremes_neither_overflow_nor_stop_counting() {
    let slow = rate(1, Duration::from_hours(1), 1_000_000, RateBy::Address);
    let fast = rate(1_000_000, SECOND, 1, RateBy::Address);
    let Rig { rates, clock } = rig(&slow);
    clock.advance(Duration::from_hours(24 * 365 * 100));
    assert_eq!(admitted(1_000_100, || rates.arrived(at("::1"))), 1_000_000);
    let Rig { rates, clock } = rig(&fast);
    assert_eq!(admitted(10, || rates.arrived(at("::1"))), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(admitted(10, || rates.arrived(at("::1"))), 1);
}

#[test]
fn threads_together_get_no_more_than_one_would() {
    let Rig { rates, .. } = rig(&rate(1, Duration::from_hours(1), 500, RateBy::Address));
    let got: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| admitted(200, || rates.arrived(at("192.0.2.1")))))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(got, 500);
}
