use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::token::settings::{Profile, SharedSecretIssuer};
use crate::token::testing::{AUDIENCE, NOW, P256, ScriptedKeys, configured, issuer, with};
use crate::token::{BearerToken, Issuer, IssuerStatus, authenticate};

const URL: &str = "https://legacy.example.com/";
const SECRET: &str = "tests-only-0123456789-0123456789-0123456789-0123456789-0123456789";

struct World {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    issuer: Arc<Issuer>,
}

fn config(place: SecretRef, algorithms: &[Algorithm]) -> SharedSecretIssuer {
    SharedSecretIssuer {
        url: URL.into(),
        secret: place,
        encoding: SecretEncoding::Text,
        audiences: vec![AUDIENCE.into()],
        algorithms: algorithms.to_vec(),
        profile: Profile::Auth0,
        leeway: Duration::from_secs(30),
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_mins(5),
    }
}

fn world(algorithms: &[Algorithm]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    let clock = ManualClock::at(UnixMillis::from_secs(NOW));
    let config = config(SecretRef::File(path), algorithms);
    let issuer = Issuer::shared_secret("legacy".into(), &config, clock.clone(), 100);
    World {
        dir,
        clock,
        issuer: Arc::new(issuer),
    }
}

fn claims(changes: &Value) -> Value {
    let good =
        json!({ "iss": URL, "aud": AUDIENCE, "sub": "service:a", "exp": NOW + 600, "iat": NOW });
    with(&good, changes)
}

/// A token made with another implementation.
fn token(alg: &str, secret: &[u8], claims: &Value) -> String {
    let algorithm = alg.parse().unwrap();
    let header = jsonwebtoken::Header::new(algorithm);
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

impl World {
    async fn ask(&self, token: &str) -> Result<&'static str, TokenError> {
        let token = BearerToken::new(token).unwrap();
        let issuers = [Arc::clone(&self.issuer)];
        let end = authenticate(&token, &issuers).await;
        end.map(|found| found.how.unwrap()).map_err(|e| e.error)
    }

    fn write(&self, secret: &str) {
        std::fs::write(self.dir.path().join("secret"), secret).unwrap();
    }
}

#[tokio::test]
async fn each_hmac_proves_a_token_and_a_wrong_secret_none() {
    let world = world(Algorithm::HMAC);
    for alg in ["HS256", "HS384", "HS512"] {
        let good = token(alg, SECRET.as_bytes(), &claims(&json!({})));
        assert_eq!(world.ask(&good).await, Ok("ok"), "{alg}");
        assert_eq!(world.ask(&good).await, Ok("cached"), "{alg}");
        let forged = token(alg, b"another", &claims(&json!({})));
        assert_eq!(
            world.ask(&forged).await,
            Err(TokenError::BadSignature),
            "{alg}"
        );
    }
}

#[tokio::test]
async fn the_rules_are_those_of_every_issuer() {
    let world = world(&[Algorithm::HS256]);
    for (changes, error) in [
        (json!({ "aud": "x" }), TokenError::WrongAudience),
        (
            json!({ "aud": null }),
            TokenError::InvalidClaim { name: "aud" },
        ),
        (
            json!({ "exp": null }),
            TokenError::InvalidClaim { name: "exp" },
        ),
        (
            json!({ "sub": null }),
            TokenError::InvalidClaim { name: "sub" },
        ),
        (json!({ "exp": NOW - 31 }), TokenError::Expired),
        (json!({ "nbf": NOW + 31 }), TokenError::NotYetValid),
        (json!({ "iat": NOW + 31 }), TokenError::IssuedInFuture),
        (
            json!({ "iss": "https://x.example" }),
            TokenError::UnknownIssuer,
        ),
        (json!({ "cnf": { "jkt": "x" } }), TokenError::Bound),
        (json!({ "nonce": "x" }), TokenError::IdToken),
    ] {
        let token = token("HS256", SECRET.as_bytes(), &claims(&changes));
        assert_eq!(world.ask(&token).await, Err(error), "{changes}");
    }
    let other = token("HS512", SECRET.as_bytes(), &claims(&json!({})));
    assert_eq!(
        world.ask(&other).await,
        Err(TokenError::UnacceptableAlgorithm)
    );
    let unsigned = other.rsplit_once('.').unwrap().0.to_owned() + ".";
    assert_eq!(
        world.ask(&unsigned).await,
        Err(TokenError::UnacceptableAlgorithm)
    );
}

/// The classic confusion, both ways: a public key as an HMAC secret, and an HMAC token where
/// public keys are expected.
#[tokio::test]
async fn public_keys_and_secrets_never_meet() {
    let shared = world(Algorithm::HMAC);
    let keys = ScriptedKeys::of(&[P256.jwk()]);
    let oidc = issuer(
        "main",
        &configured("https://main.example.com", Profile::Auth0),
        &keys,
        &shared.clock,
    );
    let issuers = [Arc::clone(&shared.issuer), oidc];
    for (iss, key) in [
        ("https://main.example.com", SECRET.as_bytes()),
        (
            "https://main.example.com",
            P256.jwk().to_string().as_bytes(),
        ),
    ] {
        let token = token("HS256", key, &claims(&json!({ "iss": iss })));
        let end = authenticate(&BearerToken::new(&token).unwrap(), &issuers).await;
        assert_eq!(end.unwrap_err().error, TokenError::UnacceptableAlgorithm);
    }
    let asymmetric = P256.token(&json!({ "typ": "JWT" }), &claims(&json!({})));
    let end = authenticate(&BearerToken::new(&asymmetric).unwrap(), &issuers).await;
    assert_eq!(end.unwrap_err().error, TokenError::UnacceptableAlgorithm);
}

#[tokio::test]
async fn a_rotated_secret_takes_effect_and_voids_what_was_remembered() {
    let world = world(&[Algorithm::HS256]);
    let old = token("HS256", SECRET.as_bytes(), &claims(&json!({})));
    assert_eq!(world.ask(&old).await, Ok("ok"));
    let next = format!("{SECRET}-next");
    world.write(&next);
    world.clock.advance(INTERVAL);
    world.issuer.warm_up().await;
    assert_eq!(world.ask(&old).await, Err(TokenError::BadSignature));
    let new = token("HS256", next.as_bytes(), &claims(&json!({})));
    assert_eq!(world.ask(&new).await, Ok("ok"));
    // A gap, or a secret that is too short, leaves the last good one in force.
    for broken in ["", "short"] {
        world.write(broken);
        world.clock.advance(INTERVAL);
        world.issuer.warm_up().await;
        assert_eq!(world.ask(&new).await, Ok("cached"));
        assert_eq!(world.issuer.status(), IssuerStatus::Usable);
    }
}

#[tokio::test]
async fn without_a_secret_nobody_is_let_in_and_nobody_is_blamed() {
    let world = world(&[Algorithm::HS256]);
    world.write("short");
    let token = token("HS256", b"short", &claims(&json!({})));
    assert_eq!(world.issuer.status(), IssuerStatus::NoKeys);
    let unavailable = Err(TokenError::KeysUnavailable { retry_after: RETRY });
    assert_eq!(world.ask(&token).await, unavailable);
    world.write(SECRET);
    assert_eq!(
        world.ask(&token).await,
        unavailable,
        "not read again at once"
    );
    world.clock.advance(RETRY);
    assert_eq!(world.ask(&token).await, Err(TokenError::BadSignature));
    let warm = world.issuer.warm_up().await;
    assert_eq!(
        (warm.status, warm.again_in),
        (IssuerStatus::Usable, Some(INTERVAL))
    );
    assert_eq!(world.issuer.keys_age(), None);
    assert!(!format!("{:?}", world.issuer).contains("tests-only"));
}

#[test]
fn a_secret_is_as_long_as_the_longest_hash() {
    for (bytes, algorithms, ok) in [
        (31, &[Algorithm::HS256][..], false),
        (32, &[Algorithm::HS256], true),
        (47, &[Algorithm::HS256, Algorithm::HS384], false),
        (48, &[Algorithm::HS256, Algorithm::HS384], true),
        (63, Algorithm::HMAC, false),
        (64, Algorithm::HMAC, true),
    ] {
        let text = "s".repeat(bytes);
        let read = decode_shared_secret(&text, SecretEncoding::Text, algorithms);
        assert_eq!(read.is_ok(), ok, "{bytes} {algorithms:?}");
    }
    let bytes = [0xfb_u8; 32];
    for engine in [
        base64::engine::general_purpose::STANDARD,
        base64::engine::general_purpose::URL_SAFE,
        base64::engine::general_purpose::URL_SAFE_NO_PAD,
    ] {
        let text = engine.encode(bytes);
        let read = decode_shared_secret(&text, SecretEncoding::Base64, &[Algorithm::HS256]);
        assert_eq!(**read.unwrap(), bytes);
    }
    let wrong = decode_shared_secret("hunter2!", SecretEncoding::Base64, &[Algorithm::HS256]);
    assert_eq!(wrong.unwrap_err(), SharedSecretError::Encoding);
    let short = SharedSecretError::TooShort(Algorithm::HS384).to_string();
    assert_eq!(short, "is shorter than the 48 bytes that HS384 needs");
}
