use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::token::testing::{ED25519, P256, ScriptedKeys, clock};
use serde_json::Value;

struct Fixture {
    keys: Keys,
    source: Arc<ScriptedKeys>,
    clock: Arc<ManualClock>,
    ended: Arc<Mutex<[u64; 3]>>,
}

impl Fixture {
    fn new(source: Arc<ScriptedKeys>) -> Self {
        let clock = clock();
        let fetcher = Arc::clone(&source);
        let shared = Arc::clone(&clock);
        let ended = Arc::<Mutex<[u64; 3]>>::default();
        let count = Arc::clone(&ended);
        let observer = RefreshObserver::new(move |how| count.lock().unwrap()[how as usize] += 1);
        let algorithms = Algorithm::ALL.to_vec();
        Self {
            keys: Keys::new("i".into(), fetcher, shared, algorithms, observer),
            source,
            clock,
            ended,
        }
    }

    fn publishing(keys: &[Value]) -> Self {
        Self::new(ScriptedKeys::of(keys))
    }

    async fn select(&self, kid: &str) -> Result<u64, TokenError> {
        let algorithm = match kid {
            "ed25519" => Algorithm::EdDSA,
            _ => Algorithm::ES256,
        };
        let selection = self.keys.select(algorithm, Some(kid)).await?;
        assert_eq!(selection.verifiers.len(), 1);
        Ok(selection.epoch)
    }

    /// Like [`Self::select`], in a separate task.
    fn spawn_select(&self, kid: &'static str) -> tokio::task::JoinHandle<Result<u64, TokenError>> {
        let keys = self.keys.clone();
        tokio::spawn(async move {
            let selection = keys.select(Algorithm::ES256, Some(kid)).await?;
            Ok(selection.epoch)
        })
    }

    fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// Waits until no fetch is in progress.
    async fn fetch_completed(&self) {
        while self.keys.0.state().in_progress().is_some() {
            tokio::task::yield_now().await;
        }
    }

    /// The number of refreshes that ended as changed, unchanged and failed.
    fn refreshes(&self) -> [u64; 3] {
        *self.ended.lock().unwrap()
    }
}

fn unobserved(fetcher: Arc<dyn KeyFetcher>, clock: SharedClock) -> Keys {
    let (algorithms, observer) = (Algorithm::ALL.to_vec(), RefreshObserver::default());
    Keys::new("i".into(), fetcher, clock, algorithms, observer)
}

/// Lets all other tasks run until they block.
async fn run_other_tasks() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn unavailable(secs: u64) -> Result<u64, TokenError> {
    let retry_after = Duration::from_secs(secs);
    Err(TokenError::KeysUnavailable { retry_after })
}

#[tokio::test]
async fn keys_are_fetched_once_and_cached() {
    let fixture = Fixture::publishing(&[P256.jwk(), ED25519.jwk()]);
    assert!(!fixture.keys.usable());
    assert_eq!(fixture.keys.age(), None);
    assert_eq!(fixture.select("p256").await, Ok(1));
    assert_eq!(fixture.select("ed25519").await, Ok(1));
    fixture.advance(7);
    assert_eq!(fixture.source.calls(), 1);
    assert_eq!(fixture.keys.age(), Some(Duration::from_secs(7)));
    assert_eq!(fixture.refreshes(), [1, 0, 0]);
    assert!(fixture.keys.usable());
}

/// Never responds.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl KeyFetcher for Hanging {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_four_seconds_for_an_issuer_that_hangs() {
    let keys = unobserved(Arc::new(Hanging), clock());
    let selecting = keys.select(Algorithm::ES256, Some("unknown"));
    let end = tokio::time::timeout(MAX_WAIT, selecting).await;
    let error = end.expect("it ends in time").unwrap_err();
    assert!(matches!(error, TokenError::KeysUnavailable { .. }));
}

#[tokio::test]
async fn keys_are_refreshed_in_the_background_before_they_become_stale() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    fixture.advance(449);
    fixture.select("p256").await.unwrap();
    fixture.fetch_completed().await;
    assert_eq!(fixture.source.calls(), 1);
    fixture.advance(1);
    fixture.source.publish(&[P256.jwk(), ED25519.jwk()]);
    assert_eq!(
        fixture.select("p256").await,
        Ok(1),
        "the caller does not wait"
    );
    fixture.fetch_completed().await;
    assert_eq!(fixture.source.calls(), 2);
    assert_eq!(fixture.select("p256").await, Ok(2));
    assert_eq!(fixture.refreshes(), [2, 0, 0]);
}

#[tokio::test]
async fn using_cached_tokens_also_starts_a_refresh() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    fixture.advance(450);
    assert_eq!(
        fixture.keys.current_epoch(fixture.clock.monotonic()),
        Some(1)
    );
    fixture.fetch_completed().await;
    assert_eq!(fixture.refreshes(), [1, 1, 0]);
    assert_eq!(
        fixture.keys.current_epoch(fixture.clock.monotonic()),
        Some(1)
    );
}

#[tokio::test]
async fn stale_keys_are_not_used_before_a_new_fetch() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    fixture.advance(600);
    fixture.source.publish(&[ED25519.jwk()]);
    assert_eq!(fixture.keys.current_epoch(fixture.clock.monotonic()), None);
    fixture.fetch_completed().await;
    assert_eq!(fixture.select("p256").await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn max_age_is_clamped() {
    let hours = |n: u64| Some(Duration::from_hours(n));
    for (max_age, ttl) in [
        (None, 600),
        (Some(Duration::ZERO), 60),
        (Some(Duration::from_secs(59)), 60),
        (Some(Duration::from_mins(5)), 300),
        (hours(24), 86_400),
        (hours(1_000), 86_400),
        (Some(Duration::MAX), 86_400),
    ] {
        let fixture = Fixture::publishing(&[P256.jwk()]);
        fixture.source.publish_for(&[P256.jwk()], max_age);
        fixture.select("p256").await.unwrap();
        fixture.advance(ttl * 3 / 4 - 1);
        fixture.keys.refresh_if_due().await;
        assert_eq!(fixture.source.calls(), 1, "{max_age:?}");
        fixture.advance(1);
        fixture.keys.refresh_if_due().await;
        assert_eq!(fixture.source.calls(), 2, "{max_age:?}");
    }
}

#[tokio::test]
async fn stale_keys_are_used_for_a_day_while_fetches_fail() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    let failures: [fn(&ScriptedKeys); 4] = [
        |source| source.go_down(),
        |source| source.serve(b"<html>".to_vec(), None),
        |source| source.serve(b"{}".to_vec(), None),
        |source| source.serve(vec![b' '; super::super::jwk::MAX_DOCUMENT_BYTES + 1], None),
    ];
    for (n, fail) in failures.iter().enumerate() {
        fail(&fixture.source);
        fixture.advance(600);
        assert_eq!(fixture.select("p256").await, Ok(1));
        fixture.fetch_completed().await;
        assert_eq!(fixture.refreshes(), [1, 0, n as u64 + 1]);
    }
    fixture.advance(86_400 + 600 - 4 * 600 - 1);
    assert_eq!(fixture.select("p256").await, Ok(1));
    fixture.fetch_completed().await;
    fixture.advance(1);
    assert_eq!(fixture.select("p256").await, unavailable(15));
    assert!(!fixture.keys.usable());
    // The issuer is reachable again.
    fixture.source.publish(&[P256.jwk()]);
    fixture.advance(15);
    assert_eq!(fixture.select("p256").await, Ok(1));
}

#[tokio::test]
async fn callers_do_not_wait_for_an_unreachable_issuer() {
    let fixture = Fixture::new(ScriptedKeys::blocked(&[P256.jwk()]));
    fixture.source.release();
    fixture.select("p256").await.unwrap();
    fixture.source.go_down();
    fixture.source.release();
    fixture.advance(600);
    assert_eq!(
        fixture.select("p256").await,
        Ok(1),
        "one caller waits for the failing fetch"
    );
    fixture.advance(30);
    // The next fetch hangs in the background.
    assert_eq!(fixture.select("p256").await, Ok(1));
    assert_eq!(
        fixture.keys.current_epoch(fixture.clock.monotonic()),
        Some(1)
    );
    run_other_tasks().await;
    assert_eq!(fixture.source.calls(), 3);
}

#[tokio::test]
async fn failed_fetches_back_off() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.source.go_down();
    for (n, wait) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
        assert_eq!(fixture.select("p256").await, unavailable(wait));
        assert_eq!(fixture.source.calls(), n + 1);
        fixture.advance(wait - 1);
        assert_eq!(fixture.select("p256").await, unavailable(1));
        assert_eq!(fixture.source.calls(), n + 1, "no fetch during the backoff");
        fixture.advance(1);
    }
    fixture.source.publish(&[P256.jwk()]);
    assert_eq!(fixture.select("p256").await, Ok(1));
    fixture.source.go_down();
    fixture.advance(600);
    assert_eq!(fixture.select("p256").await, Ok(1));
    assert_eq!(
        fixture.keys.next_refresh_in(),
        FIRST_BACKOFF,
        "the backoff was reset"
    );
}

#[tokio::test]
async fn concurrent_first_requests_share_one_fetch() {
    let fixture = Fixture::new(ScriptedKeys::blocked(&[P256.jwk()]));
    let requests: Vec<_> = (0..50).map(|_| fixture.spawn_select("p256")).collect();
    run_other_tasks().await;
    fixture.source.release();
    for request in requests {
        assert_eq!(request.await.unwrap(), Ok(1));
    }
    assert_eq!(fixture.source.calls(), 1);
}

#[tokio::test]
async fn concurrent_requests_with_an_unknown_kid_share_one_fetch() {
    let fixture = Fixture::new(ScriptedKeys::blocked(&[P256.jwk()]));
    fixture.source.release();
    fixture.select("p256").await.unwrap();
    let requests: Vec<_> = (0..50).map(|_| fixture.spawn_select("new")).collect();
    run_other_tasks().await;
    fixture.source.release();
    for request in requests {
        assert_eq!(request.await.unwrap(), Err(TokenError::UnknownKey));
    }
    assert_eq!(fixture.source.calls(), 2);
}

#[tokio::test]
async fn a_fetch_continues_after_the_caller_that_started_it_is_gone() {
    let fixture = Fixture::new(ScriptedKeys::blocked(&[P256.jwk()]));
    let first = fixture.spawn_select("p256");
    fixture.source.started.acquire().await.unwrap().forget();
    let second = fixture.spawn_select("p256");
    run_other_tasks().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    fixture.source.release();
    assert_eq!(second.await.unwrap(), Ok(1));
    assert_eq!(fixture.source.calls(), 1);
}

#[tokio::test]
async fn a_rotated_key_is_fetched_for_the_first_token_that_names_it() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    fixture.source.publish(&[ED25519.jwk()]);
    assert_eq!(fixture.select("ed25519").await, Ok(2));
    assert_eq!(fixture.select("p256").await, Err(TokenError::UnknownKey));
    assert_eq!(fixture.source.calls(), 2);
}

#[tokio::test]
async fn a_fetch_started_before_a_rotation_is_followed_by_another() {
    let fixture = Fixture::new(ScriptedKeys::blocked(&[P256.jwk()]));
    fixture.source.release();
    fixture.select("p256").await.unwrap();
    fixture.source.started.forget_permits(9);
    // The key is rotated while a scheduled refresh is in progress, with its response already read.
    fixture.advance(450);
    fixture.select("p256").await.unwrap();
    fixture.source.started.acquire().await.unwrap().forget();
    fixture.source.publish(&[ED25519.jwk()]);
    let keys = fixture.keys.clone();
    let request = tokio::spawn(async move {
        let selection = keys.select(Algorithm::EdDSA, Some("ed25519")).await?;
        Ok::<_, TokenError>(selection.epoch)
    });
    run_other_tasks().await;
    fixture.source.release();
    fixture.source.release();
    assert_eq!(request.await.unwrap(), Ok(2));
    assert_eq!(fixture.source.calls(), 3);
}

#[tokio::test]
async fn the_cooldown_limits_fetches_for_unknown_kids() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    let unknown = Err(TokenError::UnknownKey);
    assert_eq!(fixture.select("a").await, unknown);
    assert_eq!(fixture.source.calls(), 2);
    // The cooldown applies to all other kids.
    for kid in ["a", "b", "c"] {
        assert_eq!(fixture.select(kid).await, unknown);
    }
    fixture.advance(29);
    assert_eq!(fixture.select("b").await, unknown);
    assert_eq!(fixture.source.calls(), 2);
    fixture.advance(1);
    // A kid stays cached as unknown for a minute.
    assert_eq!(fixture.select("a").await, unknown);
    assert_eq!(fixture.source.calls(), 2);
    assert_eq!(fixture.select("b").await, unknown);
    assert_eq!(fixture.source.calls(), 3);
    fixture.advance(30);
    assert_eq!(fixture.select("a").await, unknown);
    assert_eq!(fixture.source.calls(), 4);
}

#[tokio::test]
async fn a_kid_refused_during_the_cooldown_is_fetched_after_it() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    assert_eq!(fixture.select("a").await, Err(TokenError::UnknownKey));
    fixture.source.publish(&[P256.jwk(), ED25519.jwk()]);
    assert_eq!(fixture.select("ed25519").await, Err(TokenError::UnknownKey));
    fixture.advance(30);
    assert_eq!(fixture.select("ed25519").await, Ok(2));
}

#[tokio::test]
async fn the_cache_of_unknown_kids_is_bounded() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    for n in 0..2 * MAX_UNKNOWN {
        fixture.keys.0.insert_unknown(&n.to_string());
    }
    assert_eq!(fixture.keys.0.state().unknown.len(), MAX_UNKNOWN);
    fixture.advance(60);
    fixture.keys.0.insert_unknown("another");
    assert_eq!(fixture.keys.0.state().unknown.len(), 1);
}

#[tokio::test]
async fn an_unknown_kid_is_unavailable_and_not_refused_while_the_issuer_is_unreachable() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    fixture.source.go_down();
    assert_eq!(fixture.select("new").await, unavailable(1));
    assert_eq!(fixture.select("new").await, unavailable(1));
    assert_eq!(
        fixture.select("p256").await,
        Ok(1),
        "known keys remain usable"
    );
    assert_eq!(fixture.source.calls(), 2);
    fixture.source.publish(&[P256.jwk()]);
    fixture.advance(30);
    assert_eq!(fixture.select("new").await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn an_issuer_may_withdraw_all_keys() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    fixture.select("p256").await.unwrap();
    fixture.source.publish(&[]);
    fixture.advance(600);
    assert_eq!(fixture.select("p256").await, unavailable(30));
    assert!(!fixture.keys.usable());
    assert_eq!(fixture.refreshes(), [2, 0, 0]);
    fixture.source.publish(&[P256.jwk()]);
    fixture.advance(30);
    assert_eq!(fixture.select("p256").await, Ok(3));
}

#[tokio::test]
async fn a_panic_in_a_fetch_does_not_block_callers() {
    #[derive(Debug)]
    struct Panics;
    #[async_trait]
    impl KeyFetcher for Panics {
        async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
            panic!("raised by the test");
        }
    }
    let clock: SharedClock = clock();
    let keys = unobserved(Arc::new(Panics), clock);
    let error = keys.select(Algorithm::ES256, Some("k")).await.unwrap_err();
    let retry_after = MAX_BACKOFF;
    assert_eq!(error, TokenError::KeysUnavailable { retry_after });
}

#[test]
fn without_a_runtime_no_fetch_is_started() {
    let fixture = Fixture::publishing(&[P256.jwk()]);
    assert_eq!(fixture.keys.current_epoch(fixture.clock.monotonic()), None);
    let asked = futures::executor::block_on(fixture.select("p256"));
    assert_eq!(asked, unavailable(1));
}

#[tokio::test]
async fn a_fetcher_can_override_the_ttl() {
    #[derive(Debug)]
    struct Local(Arc<ScriptedKeys>);
    #[async_trait]
    impl KeyFetcher for Local {
        async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
            self.0.fetch().await
        }
        fn fixed_ttl(&self) -> Option<Duration> {
            Some(Duration::from_secs(4))
        }
    }
    let (source, clock) = (ScriptedKeys::of(&[P256.jwk()]), clock());
    let shared: SharedClock = Arc::clone(&clock) as SharedClock;
    let fetcher = Arc::new(Local(Arc::clone(&source)));
    let keys = unobserved(fetcher, shared);
    keys.refresh_if_due().await;
    clock.advance(Duration::from_secs(2));
    keys.refresh_if_due().await;
    assert_eq!(source.calls(), 1);
    clock.advance(Duration::from_secs(1));
    keys.refresh_if_due().await;
    assert_eq!(source.calls(), 2);
}

#[tokio::test]
async fn operators_can_learn_why_there_are_no_keys() {
    let encrypting = P256.jwk_with(&serde_json::json!({"use": "enc"}));
    let fixture = Fixture::publishing(&[encrypting]);
    assert!(fixture.select("p256").await.is_err());
    let problem = fixture.keys.problem().unwrap();
    let expected = "the JWK Set has no usable key: key \"p256\" is not for verifying signatures";
    assert!(problem.starts_with(expected), "{problem}");
    fixture.source.go_down();
    fixture.clock.advance(Duration::from_mins(1));
    fixture.keys.refresh_if_due().await;
    assert_eq!(fixture.keys.problem().as_deref(), Some("down"));
    fixture.source.publish(&[P256.jwk()]);
    fixture.clock.advance(Duration::from_mins(1));
    fixture.keys.refresh_if_due().await;
    assert_eq!(fixture.keys.problem(), None);
    assert!(fixture.select("p256").await.is_ok());
}
