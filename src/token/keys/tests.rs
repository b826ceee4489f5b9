use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::token::testing::{ED25519, P256, ScriptedKeys, clock};
use serde_json::Value;

struct World {
    keys: Keys,
    source: Arc<ScriptedKeys>,
    clock: Arc<ManualClock>,
    ended: Arc<Mutex<[u64; 3]>>,
}

impl World {
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

    async fn ask(&self, kid: &str) -> Result<u64, TokenError> {
        let algorithm = match kid {
            "ed25519" => Algorithm::EdDSA,
            _ => Algorithm::ES256,
        };
        let selection = self.keys.select(algorithm, Some(kid)).await?;
        assert_eq!(selection.verifiers.len(), 1);
        Ok(selection.epoch)
    }

    /// As [`Self::ask`], in a task of its own.
    fn asking(&self, kid: &'static str) -> tokio::task::JoinHandle<Result<u64, TokenError>> {
        let keys = self.keys.clone();
        tokio::spawn(async move {
            let selection = keys.select(Algorithm::ES256, Some(kid)).await?;
            Ok(selection.epoch)
        })
    }

    fn pass(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// Until no fetch is under way.
    async fn settle(&self) {
        while self.keys.0.state().in_progress().is_some() {
            tokio::task::yield_now().await;
        }
    }

    /// How often attempts ended changed, unchanged, failed.
    fn ended(&self) -> [u64; 3] {
        *self.ended.lock().unwrap()
    }
}

fn unobserved(fetcher: Arc<dyn KeyFetcher>, clock: SharedClock) -> Keys {
    let (algorithms, observer) = (Algorithm::ALL.to_vec(), RefreshObserver::default());
    Keys::new("i".into(), fetcher, clock, algorithms, observer)
}

/// Lets every other task run until it waits.
async fn everybody_waits() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn unavailable(secs: u64) -> Result<u64, TokenError> {
    let retry_after = Duration::from_secs(secs);
    Err(TokenError::KeysUnavailable { retry_after })
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let world = World::publishing(&[P256.jwk(), ED25519.jwk()]);
    assert!(!world.keys.usable());
    assert_eq!(world.keys.age(), None);
    assert_eq!(world.ask("p256").await, Ok(1));
    assert_eq!(world.ask("ed25519").await, Ok(1));
    world.pass(7);
    assert_eq!(world.source.calls(), 1);
    assert_eq!(world.keys.age(), Some(Duration::from_secs(7)));
    assert_eq!(world.ended(), [1, 0, 0]);
    assert!(world.keys.usable());
}

#[tokio::test]
async fn a_refresh_in_the_background_comes_before_the_end() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    world.pass(449);
    world.ask("p256").await.unwrap();
    world.settle().await;
    assert_eq!(world.source.calls(), 1);
    world.pass(1);
    world.source.publish(&[P256.jwk(), ED25519.jwk()]);
    assert_eq!(world.ask("p256").await, Ok(1), "does not wait");
    world.settle().await;
    assert_eq!(world.source.calls(), 2);
    assert_eq!(world.ask("p256").await, Ok(2));
    assert_eq!(world.ended(), [2, 0, 0]);
}

#[tokio::test]
async fn cached_use_refreshes_too() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    world.pass(450);
    assert_eq!(world.keys.current_epoch(world.clock.monotonic()), Some(1));
    world.settle().await;
    assert_eq!(world.ended(), [1, 1, 0]);
    assert_eq!(world.keys.current_epoch(world.clock.monotonic()), Some(1));
}

#[tokio::test]
async fn keys_past_their_time_are_not_used_before_asking() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    world.pass(600);
    world.source.publish(&[ED25519.jwk()]);
    assert_eq!(world.keys.current_epoch(world.clock.monotonic()), None);
    world.settle().await;
    assert_eq!(world.ask("p256").await, Err(TokenError::UnknownKey));
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
        let world = World::publishing(&[P256.jwk()]);
        world.source.publish_for(&[P256.jwk()], max_age);
        world.ask("p256").await.unwrap();
        world.pass(ttl * 3 / 4 - 1);
        world.keys.refresh_if_due().await;
        assert_eq!(world.source.calls(), 1, "{max_age:?}");
        world.pass(1);
        world.keys.refresh_if_due().await;
        assert_eq!(world.source.calls(), 2, "{max_age:?}");
    }
}

#[tokio::test]
async fn stale_keys_serve_for_a_day_whatever_goes_wrong() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    let failures: [fn(&ScriptedKeys); 4] = [
        |source| source.go_down(),
        |source| source.serve(b"<html>".to_vec(), None),
        |source| source.serve(b"{}".to_vec(), None),
        |source| source.serve(vec![b' '; super::super::jwk::MAX_DOCUMENT_BYTES + 1], None),
    ];
    for (n, fail) in failures.iter().enumerate() {
        fail(&world.source);
        world.pass(600);
        assert_eq!(world.ask("p256").await, Ok(1));
        world.settle().await;
        assert_eq!(world.ended(), [1, 0, n as u64 + 1]);
    }
    world.pass(86_400 + 600 - 4 * 600 - 1);
    assert_eq!(world.ask("p256").await, Ok(1));
    world.settle().await;
    world.pass(1);
    assert_eq!(world.ask("p256").await, unavailable(15));
    assert!(!world.keys.usable());
    // The issuer is back.
    world.source.publish(&[P256.jwk()]);
    world.pass(15);
    assert_eq!(world.ask("p256").await, Ok(1));
}

#[tokio::test]
async fn while_an_issuer_is_down_nobody_waits_for_it() {
    let world = World::new(ScriptedKeys::held_back(&[P256.jwk()]));
    world.source.release();
    world.ask("p256").await.unwrap();
    world.source.go_down();
    world.source.release();
    world.pass(600);
    assert_eq!(world.ask("p256").await, Ok(1), "waited for the one failure");
    world.pass(30);
    // The next attempt hangs in the background.
    assert_eq!(world.ask("p256").await, Ok(1));
    assert_eq!(world.keys.current_epoch(world.clock.monotonic()), Some(1));
    everybody_waits().await;
    assert_eq!(world.source.calls(), 3);
}

#[tokio::test]
async fn without_keys_attempts_back_off() {
    let world = World::publishing(&[P256.jwk()]);
    world.source.go_down();
    for (n, wait) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
        assert_eq!(world.ask("p256").await, unavailable(wait));
        assert_eq!(world.source.calls(), n + 1);
        world.pass(wait - 1);
        assert_eq!(world.ask("p256").await, unavailable(1));
        assert_eq!(world.source.calls(), n + 1, "not before its time");
        world.pass(1);
    }
    world.source.publish(&[P256.jwk()]);
    assert_eq!(world.ask("p256").await, Ok(1));
    world.source.go_down();
    world.pass(600);
    assert_eq!(world.ask("p256").await, Ok(1));
    assert_eq!(
        world.keys.next_refresh_in(),
        FIRST_BACKOFF,
        "from the start"
    );
}

#[tokio::test]
async fn many_first_requests_make_one_fetch() {
    let world = World::new(ScriptedKeys::held_back(&[P256.jwk()]));
    let requests: Vec<_> = (0..50).map(|_| world.asking("p256")).collect();
    everybody_waits().await;
    world.source.release();
    for request in requests {
        assert_eq!(request.await.unwrap(), Ok(1));
    }
    assert_eq!(world.source.calls(), 1);
}

#[tokio::test]
async fn many_unknown_kids_make_one_fetch() {
    let world = World::new(ScriptedKeys::held_back(&[P256.jwk()]));
    world.source.release();
    world.ask("p256").await.unwrap();
    let requests: Vec<_> = (0..50).map(|_| world.asking("new")).collect();
    everybody_waits().await;
    world.source.release();
    for request in requests {
        assert_eq!(request.await.unwrap(), Err(TokenError::UnknownKey));
    }
    assert_eq!(world.source.calls(), 2);
}

#[tokio::test]
async fn a_fetch_outlives_whoever_began_it() {
    let world = World::new(ScriptedKeys::held_back(&[P256.jwk()]));
    let first = world.asking("p256");
    world.source.begun.acquire().await.unwrap().forget();
    let second = world.asking("p256");
    everybody_waits().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    world.source.release();
    assert_eq!(second.await.unwrap(), Ok(1));
    assert_eq!(world.source.calls(), 1);
}

#[tokio::test]
async fn a_rotated_key_is_found_at_once() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    world.source.publish(&[ED25519.jwk()]);
    assert_eq!(world.ask("ed25519").await, Ok(2));
    assert_eq!(world.ask("p256").await, Err(TokenError::UnknownKey));
    assert_eq!(world.source.calls(), 2);
}

#[tokio::test]
async fn a_fetch_that_began_too_early_decides_nothing() {
    let world = World::new(ScriptedKeys::held_back(&[P256.jwk()]));
    world.source.release();
    world.ask("p256").await.unwrap();
    world.source.begun.forget_permits(9);
    // A regular refresh is under way, its answer already made, when the key is rotated.
    world.pass(450);
    world.ask("p256").await.unwrap();
    world.source.begun.acquire().await.unwrap().forget();
    world.source.publish(&[ED25519.jwk()]);
    let keys = world.keys.clone();
    let request = tokio::spawn(async move {
        let selection = keys.select(Algorithm::EdDSA, Some("ed25519")).await?;
        Ok::<_, TokenError>(selection.epoch)
    });
    everybody_waits().await;
    world.source.release();
    world.source.release();
    assert_eq!(request.await.unwrap(), Ok(2));
    assert_eq!(world.source.calls(), 3);
}

#[tokio::test]
async fn unknown_kids_cost_the_issuer_little() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    let unknown = Err(TokenError::UnknownKey);
    assert_eq!(world.ask("a").await, unknown);
    assert_eq!(world.source.calls(), 2);
    // The cooldown holds for every other kid.
    for kid in ["a", "b", "c"] {
        assert_eq!(world.ask(kid).await, unknown);
    }
    world.pass(29);
    assert_eq!(world.ask("b").await, unknown);
    assert_eq!(world.source.calls(), 2);
    world.pass(1);
    // The one known to be unknown stays so for a minute.
    assert_eq!(world.ask("a").await, unknown);
    assert_eq!(world.source.calls(), 2);
    assert_eq!(world.ask("b").await, unknown);
    assert_eq!(world.source.calls(), 3);
    world.pass(30);
    assert_eq!(world.ask("a").await, unknown);
    assert_eq!(world.source.calls(), 4);
}

#[tokio::test]
async fn a_kid_refused_in_the_cooldown_is_looked_for_after_it() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    assert_eq!(world.ask("a").await, Err(TokenError::UnknownKey));
    world.source.publish(&[P256.jwk(), ED25519.jwk()]);
    assert_eq!(world.ask("ed25519").await, Err(TokenError::UnknownKey));
    world.pass(30);
    assert_eq!(world.ask("ed25519").await, Ok(2));
}

#[tokio::test]
async fn what_is_known_to_be_unknown_is_bounded() {
    let world = World::publishing(&[P256.jwk()]);
    for n in 0..2 * MAX_UNKNOWN {
        world.keys.0.insert_unknown(&n.to_string());
    }
    assert_eq!(world.keys.0.state().unknown.len(), MAX_UNKNOWN);
    world.pass(60);
    world.keys.0.insert_unknown("another");
    assert_eq!(world.keys.0.state().unknown.len(), 1);
}

#[tokio::test]
async fn an_unknown_kid_is_no_verdict_while_the_issuer_is_down() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    world.source.go_down();
    assert_eq!(world.ask("new").await, unavailable(1));
    assert_eq!(world.ask("new").await, unavailable(1));
    assert_eq!(world.ask("p256").await, Ok(1), "what is known goes on");
    assert_eq!(world.source.calls(), 2);
    world.source.publish(&[P256.jwk()]);
    world.pass(30);
    assert_eq!(world.ask("new").await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn an_issuer_may_take_all_its_keys_away() {
    let world = World::publishing(&[P256.jwk()]);
    world.ask("p256").await.unwrap();
    world.source.publish(&[]);
    world.pass(600);
    assert_eq!(world.ask("p256").await, unavailable(30));
    assert!(!world.keys.usable());
    assert_eq!(world.ended(), [2, 0, 0]);
    world.source.publish(&[P256.jwk()]);
    world.pass(30);
    assert_eq!(world.ask("p256").await, Ok(3));
}

#[tokio::test]
async fn a_panic_in_a_fetch_holds_nobody_up() {
    #[derive(Debug)]
    struct Panics;
    #[async_trait]
    impl KeyFetcher for Panics {
        async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
            panic!("a test's own");
        }
    }
    let clock: SharedClock = clock();
    let keys = unobserved(Arc::new(Panics), clock);
    let error = keys.select(Algorithm::ES256, Some("k")).await.unwrap_err();
    let retry_after = MAX_BACKOFF;
    assert_eq!(error, TokenError::KeysUnavailable { retry_after });
}

#[test]
fn without_a_runtime_nothing_breaks() {
    let world = World::publishing(&[P256.jwk()]);
    assert_eq!(world.keys.current_epoch(world.clock.monotonic()), None);
    let asked = futures::executor::block_on(world.ask("p256"));
    assert_eq!(asked, unavailable(1));
}

#[tokio::test]
async fn a_place_may_fix_the_time() {
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
