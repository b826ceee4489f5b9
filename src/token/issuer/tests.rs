use super::*;
use crate::clock::{Clock as _, ManualClock, UnixMillis};
use crate::token::BearerToken;
use crate::token::settings::{Algorithm, Profile};
use crate::token::testing::{
    AUDIENCE, ED25519, NOW, OTHER_RSA, P256, P384, RSA, ScriptedKeys, TestKey, clock, configured,
    issuer, with,
};
use serde_json::json;

mod bad_tokens;
mod differential;
mod providers;
mod wycheproof;

pub(super) const MAIN: &str = "https://main.example.com";
pub(super) const AUTH0: &str = "https://tenant.auth0.example/";
pub(super) const WORKLOAD: &str = "https://ci.example.com";
pub(super) const OTHER: &str = "https://other.example.com";

/// Claims that pass the `rfc9068` profile of [`MAIN`].
pub(super) fn claims() -> Value {
    json!({
        "iss": MAIN, "aud": AUDIENCE, "sub": "alice", "client_id": "cli",
        "exp": NOW + 600, "iat": NOW, "jti": "1", "scope": "openid  profile",
    })
}

pub(super) fn claims_with(changes: &Value) -> Value {
    with(&claims(), changes)
}

pub(super) fn auth0_claims() -> Value {
    json!({
        "iss": AUTH0, "aud": [AUDIENCE, "https://tenant.auth0.example/userinfo"],
        "sub": "auth0|1", "azp": "spa", "exp": NOW + 600, "iat": NOW, "scope": "openid",
        "permissions": ["read:x"], "https://foo.com/myclaim": [1],
    })
}

pub(super) fn workload_claims() -> Value {
    json!({
        "iss": WORKLOAD, "aud": [AUDIENCE], "sub": "repo:org/app:ref:refs/heads/main",
        "exp": NOW + 600, "nbf": NOW, "iat": NOW,
    })
}

pub(super) fn at_jwt() -> Value {
    json!({"typ": "at+jwt"})
}

/// Three issuers, one of each profile.
pub(super) struct Fixture {
    pub(super) issuers: Vec<Arc<Issuer>>,
    pub(super) keys: Arc<ScriptedKeys>,
    pub(super) clock: Arc<ManualClock>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with_main(|_| {})
    }

    pub(super) fn with_main(adapt: impl FnOnce(&mut OidcIssuer)) -> Self {
        let clock = clock();
        let keys = ScriptedKeys::of(&[
            RSA.jwk(),
            P256.jwk(),
            P384.jwk(),
            ED25519.jwk(),
            OTHER_RSA.jwk_with(&json!({"kid": "for-encryption", "use": "enc"})),
            OTHER_RSA.jwk_with(&json!({"kid": "for-rs512", "alg": "RS512"})),
            json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}),
        ]);
        let mut main = configured(MAIN, Profile::Rfc9068);
        adapt(&mut main);
        let mut auth0 = configured(AUTH0, Profile::Auth0);
        auth0.algorithms = vec![Algorithm::RS256];
        auth0.clients = Some(vec!["spa".into(), "web".into()]);
        auth0.audiences.push("spa".into());
        let mut workload = configured(WORKLOAD, Profile::Workload);
        workload.subjects = Some(vec!["repo:org/app:*".into()]);
        let other_rsa = ScriptedKeys::of(&[OTHER_RSA.jwk()]);
        let only_p256 = ScriptedKeys::of(&[P256.jwk_with(&json!({"kid": null}))]);
        Self {
            issuers: vec![
                issuer("main", &main, &keys, &clock),
                issuer("auth0", &auth0, &other_rsa, &clock),
                issuer("workload", &workload, &only_p256, &clock),
            ],
            keys,
            clock,
        }
    }

    pub(super) async fn authenticate(&self, token: &str) -> Result<Authenticated, Unauthenticated> {
        authenticate(&BearerToken::new(token).unwrap(), &self.issuers, None).await
    }

    async fn verified(&self, token: &str) -> Arc<VerifiedToken> {
        match self.authenticate(token).await.unwrap().caller {
            Caller::Verified(verified) => verified,
            other => panic!("{other:?}"),
        }
    }

    async fn verify(&self, token: &str) -> &'static str {
        self.authenticate(token)
            .await
            .unwrap()
            .verification
            .unwrap()
    }

    async fn error(&self, token: &str) -> TokenError {
        self.authenticate(token).await.unwrap_err().error
    }
}

#[tokio::test]
async fn every_algorithm_verifies() {
    let fixture = Fixture::new();
    let keys: [(&TestKey, &[&str]); 4] = [
        (
            &RSA,
            &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
        (&P256, &["ES256"]),
        (&P384, &["ES384"]),
        (&ED25519, &["EdDSA", "Ed25519"]),
    ];
    for (key, algorithms) in keys {
        for alg in algorithms {
            let token = key.token(&json!({"typ": "at+jwt", "alg": alg}), &claims());
            assert_eq!(fixture.verify(&token).await, "ok", "{alg}");
            assert_eq!(fixture.verify(&token).await, "cached", "{alg}");
        }
    }
}

/// Tokens encoded by `jsonwebtoken` with a key from `rcgen`.
#[tokio::test]
async fn tokens_encoded_by_jsonwebtoken_verify() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (x, y) = key.public_key_raw()[1..].split_at(32);
    let b64 = crate::token::testing::b64;
    let fixture = Fixture::new();
    fixture
        .keys
        .publish(&[json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(x), "y": b64(y)})]);
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    (header.typ, header.kid) = (Some("at+jwt".into()), Some("k".into()));
    let secret = jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der());
    let token = jsonwebtoken::encode(&header, &claims(), &secret).unwrap();
    assert_eq!(fixture.verify(&token).await, "ok");
}

#[tokio::test]
async fn a_verified_token_exposes_its_claims() {
    let fixture = Fixture::new();
    let token = RSA.token(&at_jwt(), &claims());
    let verified = fixture.verified(&token).await;
    assert_eq!(&**verified.issuer(), "main");
    assert_eq!(verified.subject(), "alice");
    assert_eq!(verified.client(), Some("cli"));
    assert_eq!(verified.scopes(), ["openid", "profile"]);
    assert!(verified.permissions().is_empty());
    assert_eq!(verified.expires_at(), UnixMillis::from_secs(NOW + 600));
    assert_eq!(verified.claims()["jti"], "1");
    assert_eq!(
        verified.digest(),
        BearerToken::new(&token).unwrap().digest()
    );

    let auth0 = OTHER_RSA.token(&json!({"typ": "JWT"}), &auth0_claims());
    let verified = fixture.verified(&auth0).await;
    assert_eq!(verified.client(), Some("spa"));
    assert_eq!(verified.scopes(), ["openid"]);
    assert_eq!(verified.permissions(), ["read:x"]);
    assert_eq!(verified.claims()["https://foo.com/myclaim"], json!([1]));
}

#[tokio::test]
async fn each_profile_accepts_its_tokens() {
    let fixture = Fixture::new();
    for typ in [
        "at+jwt",
        "AT+JWT",
        "application/at+jwt",
        "Application/At+Jwt",
    ] {
        let token = RSA.token(&json!({ "typ": typ }), &claims());
        assert_eq!(fixture.verify(&token).await, "ok", "{typ}");
    }
    for changes in [
        json!({"scope": ["a", "b"]}),
        json!({"scope": null}),
        json!({"azp": "cli"}),
        json!({"client_id": null}),
        json!({"aud": ["x", "another"]}),
        json!({"nonce": "not Auth0's profile"}),
        json!({"exp": NOW - 29}),
        json!({"nbf": NOW + 30}),
        json!({"iat": NOW + 30}),
        json!({"iat": null}),
    ] {
        let token = RSA.token(&at_jwt(), &claims_with(&changes));
        assert_eq!(fixture.verify(&token).await, "ok", "{changes}");
    }
    // Header parameters that are ignored, whatever they contain.
    let untrusted = json!({"typ": "at+jwt", "jku": "https://evil.example/", "x5u": 1,
        "jwk": OTHER_RSA.jwk(), "x5c": ["AA"], "x5t": "AA"});
    assert_eq!(
        fixture.verify(&RSA.token(&untrusted, &claims())).await,
        "ok"
    );
    // Workload tokens: any typ or none, no client, and no kid if only one key is suitable.
    for typ in [json!(null), json!("JWT"), json!("at+jwt")] {
        let token = P256.token_of(
            "ES256",
            &with(&json!({"alg": "ES256"}), &json!({ "typ": typ })).to_string(),
            &workload_claims().to_string(),
        );
        assert_eq!(fixture.verify(&token).await, "ok", "{typ}");
    }
}

#[tokio::test]
async fn a_cached_token_is_accepted_as_long_as_verifying_it_would_succeed() {
    let fixture = Fixture::new();
    let token = RSA.token(&at_jwt(), &claims_with(&json!({"exp": NOW + 100})));
    assert_eq!(fixture.verify(&token).await, "ok");
    fixture.clock.advance(Duration::from_millis(129_999));
    assert_eq!(fixture.verify(&token).await, "cached");
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.error(&token).await, TokenError::Expired);
    // The clock is set back to before the token was issued.
    fixture.clock.set_wall(UnixMillis::from_secs(NOW - 30));
    assert_eq!(fixture.verify(&token).await, "cached");
    fixture.clock.set_wall(UnixMillis(NOW * 1000 - 30_001));
    assert_eq!(fixture.error(&token).await, TokenError::IssuedInFuture);
}

#[tokio::test]
async fn a_cached_token_is_verified_again_after_the_maximum_age() {
    let fixture = Fixture::new();
    let token = RSA.token(&at_jwt(), &claims());
    assert_eq!(fixture.verify(&token).await, "ok");
    fixture.clock.advance(Duration::from_secs(299));
    assert_eq!(fixture.verify(&token).await, "cached");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.verify(&token).await, "ok");
    assert_eq!(fixture.verify(&token).await, "cached");
}

#[tokio::test]
async fn a_withdrawn_key_invalidates_cached_tokens() {
    let fixture = Fixture::new();
    let [rsa, ec] = [&*RSA, &*P256].map(|key| key.token(&at_jwt(), &claims()));
    assert_eq!(fixture.verify(&rsa).await, "ok");
    assert_eq!(fixture.verify(&ec).await, "ok");
    fixture.keys.publish(&[P256.jwk()]);
    // A token with an unknown key triggers a refresh.
    let unknown = RSA.token(&json!({"typ": "at+jwt", "kid": "new"}), &claims());
    assert_eq!(fixture.error(&unknown).await, TokenError::UnknownKey);
    assert_eq!(fixture.error(&rsa).await, TokenError::UnknownKey);
    assert_eq!(fixture.verify(&ec).await, "ok", "evicted, but still valid");
    assert_eq!(fixture.verify(&ec).await, "cached");
}

#[tokio::test]
async fn a_refresh_without_changes_keeps_the_cache() {
    let fixture = Fixture::new();
    let token = RSA.token(&at_jwt(), &claims());
    assert_eq!(fixture.verify(&token).await, "ok");
    let unknown = RSA.token(&json!({"typ": "at+jwt", "kid": "new"}), &claims());
    assert_eq!(fixture.error(&unknown).await, TokenError::UnknownKey);
    assert_eq!(fixture.keys.calls(), 2);
    assert_eq!(fixture.verify(&token).await, "cached");
}

#[tokio::test]
async fn a_verification_that_finishes_after_a_key_change_is_not_cached() {
    let fixture = Fixture::new();
    let main = fixture.issuers[0].as_jwt().unwrap();
    let token = RSA.token(&at_jwt(), &claims());
    let verified = fixture.verified(&token).await;
    let old = main.keys.epoch(fixture.clock.monotonic()).unwrap();
    fixture.keys.publish(&[P256.jwk()]);
    fixture.clock.advance(Duration::from_mins(8));
    fixture.issuers[0].warm_up().await;
    // A verification that started with the old keys completes now.
    let window = Window {
        from: None,
        until: verified.expires_at(),
    };
    main.cache.insert(&verified, old, window);
    assert!(main.cached(verified.digest(), None).is_none());
    assert_eq!(fixture.error(&token).await, TokenError::UnknownKey);
}

#[tokio::test]
async fn cached_tokens_are_accepted_during_an_outage_until_the_keys_expire() {
    let fixture = Fixture::with_main(|main| main.verified_max_age = Duration::from_hours(48));
    let token = RSA.token(&at_jwt(), &claims_with(&json!({"exp": NOW + 1_000_000})));
    assert_eq!(fixture.verify(&token).await, "ok");
    fixture.keys.go_down();
    fixture.clock.advance(Duration::from_mins(11));
    assert_eq!(
        fixture.verify(&token).await,
        "ok",
        "the keys are stale, and one fetch fails"
    );
    assert_eq!(fixture.verify(&token).await, "cached");
    fixture.clock.advance(Duration::from_hours(24));
    let error = fixture.error(&token).await;
    assert!(
        matches!(error, TokenError::KeysUnavailable { .. }),
        "{error}"
    );
    assert_eq!(fixture.issuers[0].status(), IssuerStatus::NoKeys);
}

#[tokio::test]
async fn a_token_is_verified_only_by_the_given_issuers() {
    let fixture = Fixture::new();
    let token = RSA.token(&at_jwt(), &claims());
    assert_eq!(fixture.verify(&token).await, "ok");
    // A token cached by one issuer is not accepted on a route that names another.
    let bearer = BearerToken::new(&token).unwrap();
    let elsewhere = authenticate(&bearer, &fixture.issuers[1..], None)
        .await
        .unwrap_err();
    assert_eq!(elsewhere.error, TokenError::UnknownIssuer);
    assert_eq!(elsewhere.issuer, None);
    let nowhere = authenticate(&bearer, &[], None).await.unwrap_err();
    assert_eq!(nowhere.error, TokenError::UnknownIssuer);
}

#[tokio::test]
async fn a_refusal_names_the_issuer_that_refused_the_token() {
    let fixture = Fixture::new();
    let expired = RSA.token(&at_jwt(), &claims_with(&json!({"exp": 1})));
    let refusal = fixture.authenticate(&expired).await.unwrap_err();
    assert_eq!(refusal.issuer.as_deref(), Some("main"));
    assert_eq!(refusal.error, TokenError::Expired);
}

#[tokio::test]
async fn a_delegated_issuer_takes_tokens_that_name_no_other() {
    let mut fixture = Fixture::new();
    fixture
        .issuers
        .push(Arc::new(Issuer::delegated("tc".into())));
    let foreign = RSA.token(&at_jwt(), &claims_with(&json!({"iss": OTHER})));
    let array = RSA.token(&at_jwt(), &claims_with(&json!({"iss": [OTHER]})));
    let without = RSA.token(&at_jwt(), &claims_with(&json!({"iss": null})));
    for token in [
        "opaque",
        "a.b.c",
        "a.b",
        "a.b.c.d.e",
        &foreign,
        &array,
        &without,
    ] {
        let found = fixture.authenticate(token).await.unwrap();
        assert!(
            matches!(&found.caller, Caller::Delegated { issuer, .. } if &**issuer == "tc"),
            "{token}"
        );
        assert_eq!(found.verification, None);
    }
    let found = fixture
        .authenticate(&RSA.token(&at_jwt(), &claims()))
        .await
        .unwrap();
    assert!(matches!(found.caller, Caller::Verified(_)));
}

#[tokio::test]
async fn a_named_issuers_bad_token_is_never_delegated() {
    let mut fixture = Fixture::new();
    fixture
        .issuers
        .insert(0, Arc::new(Issuer::delegated("tc".into())));
    let good = claims().to_string();
    let twice = good.replacen('{', &format!("{{\"iss\":\"{OTHER}\","), 1);
    let [header, body, signature] =
        ["{\"alg\":\"RS256\"}", &good, "x"].map(crate::token::testing::b64);
    for (token, error) in [
        (
            RSA.token(&at_jwt(), &claims_with(&json!({"exp": 1}))),
            TokenError::Expired,
        ),
        (
            OTHER_RSA.token(&json!({"typ": "at+jwt", "kid": "rsa"}), &claims()),
            TokenError::BadSignature,
        ),
        (
            RSA.token(&at_jwt(), &claims_with(&json!({"iss": [OTHER, MAIN]}))),
            TokenError::claim("iss"),
        ),
        (
            RSA.token(&at_jwt(), &claims_with(&json!({"iss": [[MAIN]]}))),
            TokenError::claim("iss"),
        ),
        (
            RSA.token_of("RS256", "{\"alg\":\"RS256\"}", &twice),
            TokenError::DuplicateMember,
        ),
        (format!("{header}.{body}="), TokenError::Malformed),
        (
            format!("{header}.{body}.{signature}="),
            TokenError::Malformed,
        ),
        (format!("{header}.{body}"), TokenError::Malformed),
        (
            format!("{header}.{body}.{signature}.x"),
            TokenError::Malformed,
        ),
        (
            format!("{header}.{body}.{signature}.x.x"),
            TokenError::Encrypted,
        ),
        (format!("x.{body}.{signature}"), TokenError::Opaque),
    ] {
        let refusal = fixture.authenticate(&token).await.unwrap_err();
        assert_eq!(refusal.error, error, "{token}");
        assert_eq!(refusal.issuer.as_deref(), Some("main"), "{token}");
    }
}

#[tokio::test]
async fn the_cache_of_verified_tokens_is_bounded() {
    let fixture = Fixture::new();
    let main = fixture.issuers[0].as_jwt().unwrap();
    for n in 0..300 {
        let token = ED25519.token(&at_jwt(), &claims_with(&json!({"jti": n})));
        assert_eq!(fixture.verify(&token).await, "ok");
    }
    assert_eq!(main.cache.entries(), 100);
}

#[test]
fn debug_shows_no_part_of_a_token() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = Fixture::new();
    let token = RSA.token(&at_jwt(), &claims());
    let found = runtime.block_on(fixture.authenticate(&token)).unwrap();
    let shown = format!("{found:?} {:?}", fixture.issuers);
    for part in token.split('.') {
        assert!(!shown.contains(part));
    }
}
