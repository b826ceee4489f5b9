use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::token::settings::Profile;
use crate::token::testing::{
    AUDIENCE, NOW, P256, RSA, ScriptedKeys, clock, configured, issuer, with,
};
use crate::token::{Caller, authenticate};

const URL: &str = "https://main.example.com";

fn claims(changes: &Value) -> Value {
    let claims = json!({
        "iss": URL, "aud": AUDIENCE, "sub": "alice", "client_id": "cli",
        "exp": NOW + 600, "iat": NOW, "jti": "1",
    });
    with(&claims, changes)
}

fn token(changes: &Value) -> String {
    RSA.token(&json!({"typ": "at+jwt"}), &claims(changes))
}

fn headers(values: &[&str]) -> HeaderMap {
    let value = |text: &&str| (AUTHORIZATION, HeaderValue::from_str(text).unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in values.iter().map(value) {
        headers.append(name, value);
    }
    headers
}

struct Fixture {
    issuers: Vec<Arc<Issuer>>,
    keys: Arc<ScriptedKeys>,
    clock: Arc<ManualClock>,
    memo: TokenMemo,
}

impl Fixture {
    /// A fixture whose memo has seen `token`, which was verified just now, this many times.
    async fn with(token: &str, times: usize) -> Self {
        let (clock, keys) = (clock(), ScriptedKeys::of(&[RSA.jwk()]));
        let mut fixture = Self {
            issuers: vec![Self::issuer(&keys, &clock)],
            keys,
            clock,
            memo: TokenMemo::default(),
        };
        fixture.verify(token).await;
        for _ in 0..times {
            assert!(fixture.look_up(token));
        }
        fixture
    }

    fn issuer(keys: &Arc<ScriptedKeys>, clock: &Arc<ManualClock>) -> Arc<Issuer> {
        issuer("main", &configured(URL, Profile::Rfc9068), keys, clock)
    }

    async fn verify(&self, token: &str) {
        let bearer = BearerToken::new(token).unwrap();
        authenticate(&bearer, &self.issuers, None).await.unwrap();
    }

    fn now(&self) -> Now {
        Now::read(&*self.clock)
    }

    fn look_up(&mut self, token: &str) -> bool {
        let (bearer, now) = (BearerToken::new(token).unwrap(), self.now());
        let found = self.memo.look_up((&bearer).into(), &self.issuers, now);
        found.is_some()
    }

    fn recalls_at(&self, values: &[&str], now: Now) -> bool {
        let recalled = self.memo.recall(&headers(values), &self.issuers, now);
        recalled.is_some()
    }

    fn recalls(&self, token: &str) -> bool {
        self.recalls_at(&[&format!("Bearer {token}")], self.now())
    }
}

#[tokio::test]
async fn a_token_is_recalled_once_it_was_found_in_the_cache_twice_in_a_row() {
    let (one, other) = (token(&json!({})), token(&json!({"jti": "2"})));
    let mut fixture = Fixture::with(&one, 1).await;
    assert!(!fixture.recalls(&one));
    fixture.verify(&other).await;
    for (presented, recalled) in [
        (&other, false),
        (&one, false),
        (&other, false),
        (&other, true),
    ] {
        assert!(fixture.look_up(presented));
        assert_eq!(fixture.recalls(presented), recalled);
    }
    let values = headers(&[&format!("Bearer {other}")]);
    let recalled = fixture
        .memo
        .recall(&values, &fixture.issuers, fixture.now());
    let (authenticated, bearer) = recalled.unwrap();
    assert_eq!(bearer.expose(), other);
    assert_eq!(authenticated.verification, Some("cached"));
    let Caller::Verified(verified) = authenticated.caller else {
        panic!("a verified caller");
    };
    assert_eq!(verified.subject(), "alice");
    assert_eq!(verified.digest(), bearer.digest());
    // Another caller on the same connection.
    assert!(!fixture.recalls(&one));
    assert!(fixture.look_up(&one) && !fixture.recalls(&other));
}

#[tokio::test]
async fn only_the_same_single_token_is_recalled() {
    let one = token(&json!({}));
    let fixture = Fixture::with(&one, 2).await;
    let now = fixture.now();
    for same in ["Bearer ", "bearer ", "BEARER  "] {
        assert!(fixture.recalls_at(&[&format!("{same}{one}")], now));
    }
    let bearer = format!("Bearer {one}");
    let mut changed = bearer.clone().into_bytes();
    *changed.last_mut().unwrap() ^= 1;
    let changed = String::from_utf8(changed).unwrap();
    let cut = &bearer[..bearer.len() - 1];
    let values: [&[&str]; 9] = [
        &[],
        &[&bearer, &bearer],
        &[&bearer, "Basic dTpw"],
        &[&changed],
        &[cut],
        &[&format!("{bearer}=")],
        &[&format!("Basic {one}")],
        &[&format!("Bearer{one}")],
        &["Bearer "],
    ];
    for values in values {
        assert!(!fixture.recalls_at(values, now), "{values:?}");
    }
}

#[tokio::test]
async fn the_issuer_that_verified_the_token_has_to_be_one_of_the_routes() {
    let one = token(&json!({}));
    let mut fixture = Fixture::with(&one, 2).await;
    let own = fixture.issuers.clone();
    let reloaded = Fixture::issuer(&fixture.keys, &fixture.clock);
    fixture.issuers = vec![];
    assert!(!fixture.recalls(&one));
    fixture.issuers = vec![Arc::clone(&reloaded)];
    assert!(!fixture.recalls(&one), "a reload has replaced the issuer");
    fixture.issuers = vec![reloaded, Arc::clone(&own[0])];
    assert!(fixture.recalls(&one));
}

#[tokio::test]
async fn a_token_is_recalled_for_a_second_and_then_looked_up_again() {
    let one = token(&json!({}));
    let mut fixture = Fixture::with(&one, 2).await;
    fixture.clock.advance(Duration::from_millis(999));
    assert!(fixture.recalls(&one));
    fixture.clock.advance(Duration::from_millis(1));
    assert!(!fixture.recalls(&one));
    assert!(fixture.look_up(&one) && fixture.recalls(&one));
}

#[tokio::test]
async fn a_token_is_recalled_only_while_the_cache_would_have_it() {
    let one = token(&json!({"nbf": NOW}));
    let mut fixture = Fixture::with(&one, 2).await;
    let (early, late) = (fixture.now(), UnixMillis::from_secs(NOW + 600 + 30));
    let at = |wall: UnixMillis| Now { wall, ..early };
    let bearer = format!("Bearer {one}");
    for (wall, recalled) in [
        (UnixMillis::from_secs(NOW - 31), false),
        (UnixMillis::from_secs(NOW - 30), true),
        (late.minus(Duration::from_millis(1)), true),
        (late, false),
    ] {
        assert_eq!(
            fixture.recalls_at(&[&bearer], at(wall)),
            recalled,
            "{wall:?}"
        );
        let presented = BearerToken::new(&one).unwrap();
        let found = find_cached((&presented).into(), &fixture.issuers, Some(at(wall)));
        assert_eq!(found.is_some(), recalled, "the cache agrees");
    }
    // The issuer withdraws the key.
    fixture.keys.publish(&[P256.jwk()]);
    fixture.clock.advance(Duration::from_mins(8));
    fixture.issuers[0].warm_up().await;
    assert!(!fixture.recalls_at(&[&bearer], early));
    assert!(!fixture.look_up(&one));
}

#[tokio::test]
async fn unverified_tokens_are_not_remembered() {
    let (one, unknown) = (token(&json!({})), token(&json!({"jti": "2"})));
    let mut fixture = Fixture::with(&one, 2).await;
    for _ in 0..3 {
        assert!(!fixture.look_up(&unknown) && !fixture.recalls(&unknown));
    }
    assert!(fixture.recalls(&one));
    assert_eq!(format!("{:?}", fixture.memo), "TokenMemo(..)");
}
