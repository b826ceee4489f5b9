//! The decisions with a manual clock; [`simulation`] has thousands of callers.

mod simulation;

use super::policy::{Admission, Policy};
use super::*;
use crate::clock::{ManualClock, UnixMillis};

const FAILED: Outcome = Outcome::Failed { retry_after: None };

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A key of a host of its own.
fn from(host: u8) -> Attempt<u32> {
    key(u32::from(host), host)
}

fn key(key: u32, host: u8) -> Attempt<u32> {
    Attempt {
        key,
        origin: Origin::Subject([host; 32]),
    }
}

struct Fixture(Policy<u32>);

impl Fixture {
    fn new() -> Self {
        let jitter = Jitter::Fixed(0.0);
        Self(Policy::new("issuer", "as".into(), 1000, jitter))
    }

    /// A circuit that three hosts, 101 to 103, have opened at `at`.
    fn open(at: Duration) -> Self {
        let mut fixture = Self::new();
        for host in 101..104 {
            fixture.call(&from(host), FAILED, at);
        }
        assert!(fixture.0.is_open());
        fixture
    }

    /// A call that proceeds and ends with `outcome`, all at `now`.
    fn call(&mut self, attempt: &Attempt<u32>, outcome: Outcome, now: Duration) {
        let probe = self.proceeds(attempt, now);
        self.0.record(attempt, outcome, probe, now);
    }

    fn proceeds(&mut self, attempt: &Attempt<u32>, now: Duration) -> Option<Probe> {
        match self.0.admit(attempt, now) {
            Admission::Proceed(probe) => probe,
            other => panic!("{other:?}"),
        }
    }

    fn rejected(&mut self, attempt: &Attempt<u32>, now: Duration) -> Rejected {
        let checked = self.0.check(attempt, now);
        match self.0.admit(attempt, now) {
            Admission::Reject(rejected) => {
                assert_eq!(checked, Err(rejected));
                rejected
            }
            other => panic!("{other:?}"),
        }
    }

    fn waits(&mut self, attempt: &Attempt<u32>, now: Duration) {
        assert_eq!(self.0.check(attempt, now), Ok(()));
        let admission = self.0.admit(attempt, now);
        assert!(matches!(admission, Admission::Wait(_)), "{admission:?}");
    }
}

#[test]
fn one_origin_never_opens_the_circuit_however_many_keys_it_makes_up() {
    let mut fixture = Fixture::new();
    for n in 0..1000 {
        fixture.call(&key(n, 1), FAILED, secs(1));
        fixture.call(&key(n + 1000, 2), FAILED, secs(1));
    }
    assert!(!fixture.0.is_open());
}

#[test]
fn keys_that_were_accepted_speak_for_themselves() {
    let mut fixture = Fixture::new();
    for n in 0..3 {
        fixture.call(&key(n, 1), Outcome::Accepted, secs(1));
    }
    for n in 0..3 {
        assert!(!fixture.0.is_open());
        fixture.call(&key(n, 1), FAILED, secs(60));
    }
    assert!(fixture.0.is_open());
}

#[test]
fn an_outage_leaves_no_backoff_behind_except_one_that_the_peer_asked_for() {
    let mut fixture = Fixture::new();
    let (served_late, limited) = (from(1), from(2));
    let asked = Outcome::Failed {
        retry_after: Some(secs(60)),
    };
    fixture.call(&limited, asked, secs(5));
    for n in 0..4 {
        fixture.call(&served_late, FAILED, secs(5 + 8 * n));
    }
    fixture.call(&from(3), FAILED, secs(29));
    assert!(fixture.0.is_open());
    let left = fixture.0.backoff_left(&1, secs(30));
    assert_eq!(left, Some(secs(3)), "while the peer is down");
    fixture.call(&from(9), Outcome::Accepted, secs(30));
    assert_eq!(fixture.0.backoff_left(&1, secs(30)), None);
    assert_eq!(fixture.0.backoff_left(&2, secs(30)), Some(secs(35)));

    // What fails after the outage is judged as ever.
    fixture.call(&served_late, FAILED, secs(31));
    assert!(fixture.0.backoff_left(&1, secs(31)).is_some());
}

#[test]
fn known_keys_that_failed_together_do_not_back_off_once_one_is_served() {
    let mut fixture = Fixture::new();
    // Enough responses to keep the circuit closed.
    for host in 1..50 {
        fixture.call(&from(host), Outcome::Accepted, secs(1));
    }
    let unknown = from(99);
    fixture.call(&unknown, FAILED, secs(5));
    for host in 1..3 {
        fixture.call(&from(host), FAILED, secs(5));
    }
    fixture.call(&from(4), Outcome::Accepted, secs(5));
    let left = fixture.0.backoff_left(&1, secs(5));
    assert!(left.is_some(), "two may fail by themselves");
    for host in 5..8 {
        fixture.call(&from(host), FAILED, secs(6));
    }
    fixture.call(&unknown, FAILED, secs(6));
    assert!(!fixture.0.is_open());
    assert!(fixture.0.backoff_left(&5, secs(6)).is_some());
    fixture.call(&from(9), Outcome::Accepted, secs(6));
    for key in 5..8 {
        assert_eq!(fixture.0.backoff_left(&key, secs(6)), None);
    }
    assert!(fixture.0.backoff_left(&99, secs(6)).is_some());
}

#[test]
fn known_keys_that_always_fail_back_off_even_if_responses_are_rare() {
    let mut fixture = Fixture::new();
    for host in 1..50 {
        fixture.call(&from(host), Outcome::Accepted, secs(1));
    }
    let mut calls = 0;
    for second in 2..62 {
        for dead in 1..11 {
            if fixture.0.check(&from(dead), secs(second)).is_ok() {
                fixture.call(&from(dead), FAILED, secs(second));
                calls += 1;
            }
        }
        fixture.call(&from(11), Outcome::Accepted, secs(second));
    }
    // Each is forgiven once: at 2, 3, 4, 6, 10, 18, 34 s and so on.
    assert!(calls <= 10 * 8, "{calls}");
}

#[test]
fn a_key_that_fails_backs_off_alone_and_a_response_ends_that() {
    let mut fixture = Fixture::new();
    let bad = from(1);
    let mut now = secs(1);
    for wait in [500, 1000, 2000] {
        fixture.call(&bad, FAILED, now);
        let left = Duration::from_millis(wait);
        assert_eq!(fixture.rejected(&bad, now), Rejected::Backoff { left });
        fixture.call(&from(2), Outcome::Accepted, now);
        now += left;
    }
    fixture.call(&bad, Outcome::Responded, now);
    fixture.call(&bad, FAILED, now);
    let left = Duration::from_millis(500);
    assert_eq!(fixture.rejected(&bad, now), Rejected::Backoff { left });
}

#[test]
fn responses_to_bad_tokens_never_open_the_circuit() {
    let mut fixture = Fixture::new();
    for host in 0..100 {
        fixture.call(&from(host), Outcome::Responded, secs(1));
    }
    assert!(!fixture.0.is_open());
}

#[test]
fn clean_callers_probe_one_at_a_time_and_others_wait_for_them() {
    let mut fixture = Fixture::open(secs(10));
    let probe = fixture.proceeds(&from(1), secs(10));
    assert!(probe.is_some());
    fixture.waits(&from(2), secs(10));
    // Neither a key that failed, nor another one of its origin.
    let left = Duration::ZERO;
    assert_eq!(
        fixture.rejected(&from(101), secs(11)),
        Rejected::Open { left }
    );
    assert_eq!(
        fixture.rejected(&key(7, 101), secs(11)),
        Rejected::Open { left }
    );
    fixture.0.record(&from(1), FAILED, probe, secs(11));
    let left = secs(1);
    assert_eq!(
        fixture.rejected(&from(2), secs(11)),
        Rejected::Open { left }
    );
    let probe = fixture.proceeds(&from(2), secs(12));
    fixture
        .0
        .record(&from(2), Outcome::Accepted, probe, secs(12));
    assert!(!fixture.0.is_open());
    fixture.call(&from(101), Outcome::Accepted, secs(12));
}

#[test]
fn unknown_callers_cannot_use_up_the_probes_of_known_ones() {
    let mut fixture = Fixture::new();
    fixture.call(&from(1), Outcome::Accepted, secs(0));
    for host in 101..104 {
        fixture.call(&from(host), FAILED, secs(60));
    }
    let hanging = fixture.proceeds(&from(50), secs(60));
    let probe = fixture.proceeds(&from(1), secs(61));
    fixture.waits(&from(51), secs(61));
    fixture.0.record(&from(50), FAILED, hanging, secs(65));
    fixture
        .0
        .record(&from(1), Outcome::Accepted, probe, secs(65));
    assert!(!fixture.0.is_open());
}

#[test]
fn known_keys_that_failed_long_before_the_circuit_opened_let_others_probe_first() {
    let mut fixture = Fixture::new();
    for host in 1..5 {
        fixture.call(&from(host), Outcome::Accepted, secs(1));
    }
    for second in [10, 60] {
        assert!(!fixture.0.is_open());
        for dead in 1..4 {
            fixture.call(&from(dead), FAILED, secs(second));
        }
    }
    assert!(fixture.0.is_open());
    fixture.rejected(&from(1), secs(61));
    assert!(fixture.proceeds(&from(4), secs(61)).is_some());
}

#[test]
fn anybody_probes_if_no_clean_caller_comes() {
    let mut fixture = Fixture::open(secs(10));
    fixture.rejected(&from(101), secs(11));
    let probe = fixture.proceeds(&from(101), secs(12));
    fixture
        .0
        .record(&from(101), Outcome::Responded, probe, secs(12));
    assert!(!fixture.0.is_open());
}

#[test]
fn a_probe_of_an_earlier_circuit_does_not_end_the_present_one() {
    let mut fixture = Fixture::open(secs(10));
    let old = fixture.proceeds(&from(1), secs(10));
    fixture
        .0
        .record(&from(2), Outcome::Accepted, None, secs(11));
    for host in 101..104 {
        fixture.call(&from(host), FAILED, secs(60));
    }
    let present = fixture.proceeds(&from(3), secs(60));
    fixture.0.end_probe(old, None, secs(60));
    fixture.waits(&from(4), secs(60));
    fixture.0.end_probe(present, None, secs(60));
    fixture.rejected(&from(4), secs(60));
}

#[test]
fn keys_with_a_setback_are_not_retried_and_neither_is_anything_while_the_circuit_is_open() {
    let mut fixture = Fixture::new();
    let delays: Vec<_> = (1..=9)
        .filter_map(|failed| fixture.0.retry_delay(&from(1), failed))
        .map(|delay| delay.as_millis())
        .collect();
    assert_eq!(delays, [20, 40, 80, 160, 320, 320]);
    fixture.call(&from(1), FAILED, secs(1));
    assert_eq!(fixture.0.retry_delay(&from(1), 1), None);
    assert_eq!(fixture.0.retry_delay(&key(7, 1), 1), None);
    assert!(fixture.0.retry_delay(&from(2), 1).is_some());
    assert_eq!(Fixture::open(secs(1)).0.retry_delay(&from(2), 1), None);
}

fn breaker(concurrency: usize) -> Arc<CircuitBreaker<u32>> {
    let limits = Limits {
        concurrency,
        max_calls: 100,
        timeout: secs(5),
        keys: 100,
    };
    let clock = ManualClock::at(UnixMillis(0));
    CircuitBreaker::new("source", "s".into(), limits, clock, Jitter::Fixed(0.0))
}

#[tokio::test]
async fn a_call_that_panics_ends_its_probe_and_leaves_no_trace() {
    let breaker = breaker(1);
    for host in 101..104 {
        let call = breaker.begin(from(host)).unwrap();
        let end = call.run(false, |_| async {}, |()| FAILED).await;
        assert_eq!(end, Ok(()));
    }
    assert!(breaker.is_open());
    let call = breaker.begin(from(1)).unwrap();
    let panics = call.run(
        false,
        |_| async { panic!("a panic that a test causes") },
        |()| FAILED,
    );
    assert!(tokio::spawn(panics).await.is_err());
    let left = secs(1);
    let rejected = breaker.begin(from(2)).map(drop).unwrap_err();
    assert_eq!(rejected, Rejected::Open { left });
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_start_in_time_is_rejected_and_not_recorded() {
    let breaker = breaker(1);
    let first = breaker.begin(from(1)).unwrap();
    let hanging = tokio::spawn(first.run(
        false,
        |_| std::future::pending::<()>(),
        |()| Outcome::Accepted,
    ));
    tokio::task::yield_now().await;
    let second = breaker.begin(from(2)).unwrap();
    let end = second.run(false, |_| async {}, |()| FAILED).await;
    assert_eq!(end, Err(Rejected::Overloaded));
    assert_eq!(breaker.backoff_left(&2), Duration::ZERO);
    hanging.abort();
}

#[tokio::test]
async fn an_origin_that_was_accepted_leaves_calls_to_others() {
    let breaker = breaker(4);
    let call = breaker.begin(key(0, 1)).unwrap();
    let end = call.run(false, |_| async {}, |()| Outcome::Accepted).await;
    assert_eq!(end, Ok(()));
    let calls: Vec<_> = (1..200)
        .filter_map(|n| breaker.begin(key(n, 1)).ok())
        .collect();
    assert_eq!(calls.len(), 75);
    assert!(breaker.begin(from(2)).is_ok());
}
