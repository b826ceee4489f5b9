//! The scenarios, each of which asserts what share of good requests is served and how many calls
//! the provider receives.

use super::provider::{Answer, Provider, accepts, user};
use super::*;
use crate::credential::{CachedSource, Lease, Replacement, SwapRequest};

const MINUTE: Duration = Duration::from_mins(1);
/// The retries that are possible before any response.
const RETRY_BURST: usize = 10;
/// The most probes of a circuit that is open for a minute: 9 (at 0, 1, 3, 7, 15, 25 s and so on)
/// for callers that were accepted before, and 9 for others.
const PROBES_PER_MINUTE: usize = 18;

/// A circuit opens at the latest when so many callers in a row have failed.
const VOTERS: usize = 64;
/// The most retries that earlier responses have paid for.
const SAVED_RETRIES: usize = 100;
/// The calls that the source has in flight at once.
const CONCURRENCY: usize = 32;

/// The number in a name such as "good-12".
fn number(name: &str) -> u64 {
    name.rsplit('-').next().unwrap().parse().unwrap()
}

/// Good tokens, 35 a second and each of them new, from 200 addresses. Among them are those of
/// three hostile hosts that send 50 other tokens a second, to which the issuer gives `junk`.
async fn opaque_junk(scenario: &str, junk: Answer) {
    let provider = Provider::new(1, false, move |token, _, _| {
        if token.starts_with("good") {
            Answer::Ok
        } else {
            junk
        }
    });
    let issuers = provider.issuers();
    let good = Arc::new(Tally::default());
    let (sending, tally) = (Arc::clone(&issuers), Arc::clone(&good));
    let callers = arrivals(35, MINUTE, move |n| {
        let (issuers, tally) = (Arc::clone(&sending), Arc::clone(&tally));
        async move {
            tally.count(accepts(&issuers, &format!("good-{n}"), n % 200).await);
        }
    });
    let hostile = arrivals(50, MINUTE, move |n| {
        let issuers = Arc::clone(&issuers);
        async move {
            assert!(!accepts(&issuers, &format!("../-{n}"), n % 3).await);
        }
    });
    tokio::join!(callers, hostile);
    good.assert_served(scenario);
    // One call for each token, and for 5xx as many retries as there are responses.
    let retries = match junk {
        Answer::Status500 => provider.responses() + RETRY_BURST,
        _ => 0,
    };
    let bound = good.requests() + 50 * 60 + retries;
    assert_calls(scenario, provider.calls(), bound);
}

#[tokio::test(start_paused = true)]
async fn opaque_junk_that_is_answered_with_403() {
    opaque_junk("junk, 403", Answer::Status403).await;
}

#[tokio::test(start_paused = true)]
async fn opaque_junk_that_is_answered_with_500() {
    opaque_junk("junk, 500", Answer::Status500).await;
}

#[tokio::test(start_paused = true)]
async fn opaque_junk_that_makes_the_issuer_hang() {
    opaque_junk("junk, hangs", Answer::Hang).await;
}

/// Requests by 5000 callers at random, 200 a second. The callers whose name `is_good` are counted.
async fn requests(
    source: &Arc<CachedSource>,
    seed: u64,
    length: Duration,
    is_good: fn(u64) -> bool,
) -> Arc<Tally> {
    let mut random = Random(seed);
    let good = Arc::new(Tally::default());
    let (source, tally) = (Arc::clone(source), Arc::clone(&good));
    arrivals(200, length, move |_| {
        let caller = random.below(5000);
        let (source, tally) = (Arc::clone(&source), Arc::clone(&tally));
        async move {
            let leased = source.lease(&user(&format!("user-{caller}"))).await;
            if is_good(caller) {
                tally.count(leased.is_ok());
            }
        }
    })
    .await;
    good
}

/// A fifth of all callers: their requests are 40 a second.
fn is_dead(caller: u64) -> bool {
    caller.is_multiple_of(5)
}

#[tokio::test(start_paused = true)]
async fn a_fifth_of_all_identities_always_fails() {
    let provider = Provider::new(2, false, |name, _, _| {
        if is_dead(number(name)) {
            Answer::Status500
        } else {
            Answer::Ok
        }
    });
    let source = provider.source();
    let good = requests(&source, 2, MINUTE, |caller| !is_dead(caller)).await;
    good.assert_served("20 % dead identities");
    // One for each good caller and each request by a dead one, and as many retries as responses.
    let bound = 2 * provider.responses() + 40 * 60 * 11 / 10 + RETRY_BURST;
    assert_calls("20 % dead identities", provider.calls(), bound);
}

#[tokio::test(start_paused = true)]
async fn exchanges_fail_at_random() {
    let provider = Provider::new(3, false, |_, _, random| {
        if random.below(10) < 3 {
            Answer::Status500
        } else {
            Answer::Ok
        }
    });
    let source = provider.source();
    let good = requests(&source, 3, MINUTE, |_| true).await;
    good.assert_served("30 % fail at random");
    let failed = good.requests() - good.served();
    let bound = 2 * provider.responses() + failed + RETRY_BURST;
    assert_calls("30 % fail at random", provider.calls(), bound);
}

/// A request to a path that answers 401 to everybody.
async fn always_401(source: &CachedSource, request: &SwapRequest) {
    let lease = source.lease(request).await.unwrap().lease;
    let _ = replayed(source, request, &lease).await;
}

/// The credential of the replay after a 401.
async fn replayed(source: &CachedSource, request: &SwapRequest, rejected: &Lease) -> Option<Lease> {
    match source.replace(request, rejected).await.unwrap() {
        Replacement::New(leased) => Some(leased.lease),
        Replacement::StillRejected => None,
    }
}

/// 20 callers ask for a path that always answers 401, 100 times a second, among 5000 good ones.
async fn an_endpoint_that_always_answers_401(shared: bool, bound: usize) {
    let scenario = format!("always 401, shared: {shared}");
    let provider = Provider::new(4, shared, |_, _, _| Answer::Ok);
    let source = provider.source();
    let attacked = Arc::clone(&source);
    let hostile = arrivals(100, MINUTE, move |n| {
        let source = Arc::clone(&attacked);
        async move { always_401(&source, &user(&format!("hostile-{}", n % 20))).await }
    });
    let (good, ()) = tokio::join!(requests(&source, 4, MINUTE, |_| true), hostile);
    good.assert_served(&scenario);
    assert_calls(&scenario, provider.calls(), bound);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_always_answers_401_with_a_credential_for_each_caller() {
    // One for each caller, and one for each hostile one at 0 and at 30 s.
    an_endpoint_that_always_answers_401(false, 5000 + 20 + 2 * 20).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_always_answers_401_with_one_credential_for_all() {
    an_endpoint_that_always_answers_401(true, 1 + 2 * 20).await;
}

/// 2000 callers hold credentials and send 200 requests a second, while 20 new callers a second
/// arrive. The provider answers `fault` from 60 s to 120 s. Returns the calls within that minute,
/// and when the first new caller was served after it.
async fn an_outage(scenario: &'static str, fault: Answer) -> (usize, Duration) {
    let outage = MINUTE..MINUTE * 2;
    let provider = Provider::new(5, false, {
        let outage = outage.clone();
        move |_, now, _| {
            if outage.contains(&now) {
                fault
            } else {
                Answer::Ok
            }
        }
    });
    let source = provider.source();
    for holder in 0..2000 {
        source
            .lease(&user(&format!("user-{holder}")))
            .await
            .unwrap();
    }
    let left = MINUTE.checked_sub(provider.now());
    pass(left.expect("the first minute is long enough")).await;
    let before = provider.calls();
    let mut random = Random(5);
    let (holders, tally) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
    let (leasing, held) = (Arc::clone(&source), Arc::clone(&holders));
    let holding = arrivals(200, MINUTE * 2, move |_| {
        let (source, tally) = (Arc::clone(&leasing), Arc::clone(&held));
        let request = user(&format!("user-{}", random.below(2000)));
        async move { tally.count(source.lease(&request).await.is_ok()) }
    });
    let first = Arc::new(std::sync::Mutex::new(None));
    let (recovered, new) = (Arc::clone(&first), Arc::clone(&tally));
    let (arriving, clock) = (Arc::clone(&source), Arc::clone(&provider));
    let arriving = arrivals(20, MINUTE * 2, move |n| {
        let (source, tally) = (Arc::clone(&arriving), Arc::clone(&new));
        let (first, clock) = (Arc::clone(&recovered), Arc::clone(&clock));
        async move {
            let served = source.lease(&user(&format!("new-{n}"))).await.is_ok();
            let now = clock.now();
            if now < MINUTE * 2 {
                assert!(!served);
                return;
            }
            let mut first = first.lock().unwrap();
            if served && first.is_none() {
                *first = Some(now);
            }
            if first.is_some() {
                tally.count(served);
            }
        }
    });
    let during = async {
        pass(MINUTE).await;
        provider.calls() - before
    };
    let ((), (), during) = tokio::join!(holding, arriving, during);
    holders.assert_served(scenario);
    tally.assert_served(scenario);
    let first = first.lock().unwrap().expect("a new caller is served");
    (during, first.saturating_sub(MINUTE * 2))
}

#[tokio::test(start_paused = true)]
async fn a_provider_answers_429_for_a_minute() {
    let (calls, recovered) = an_outage("429", Answer::Status429 { retry_after: 5 }).await;
    assert_calls("429", calls, VOTERS + PROBES_PER_MINUTE);
    println!("429: new callers are served after {recovered:?}");
    assert!(recovered <= Duration::from_secs(11), "{recovered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_down_for_a_minute() {
    let (calls, recovered) = an_outage("down", Answer::Status500).await;
    assert_calls("down", calls, VOTERS + SAVED_RETRIES + PROBES_PER_MINUTE);
    println!("down: new callers are served after {recovered:?}");
    assert!(recovered <= Duration::from_secs(11), "{recovered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_hangs_for_a_minute() {
    let (calls, recovered) = an_outage("hangs", Answer::Hang).await;
    // What is in flight when the circuit opens ends after that.
    assert_calls("hangs", calls, VOTERS + CONCURRENCY + PROBES_PER_MINUTE);
    println!("hangs: new callers are served after {recovered:?}");
    assert!(recovered <= Duration::from_secs(14), "{recovered:?}");
}
