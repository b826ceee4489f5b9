use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::token::settings::{Profile, SharedSecretIssuer};
use crate::token::testing::{AUDIENCE, NOW, P256, ScriptedKeys, configured, issuer, with};
use crate::token::{BearerToken, Issuer, IssuerStatus, authenticate};

const URL: &str = "https://legacy.example.com/";
const SECRET: &str = "tests-only-0123456789-0123456789-0123456789-0123456789-0123456789";

struct Fixture {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    issuer: Arc<Issuer>,
}

fn config(secret: SecretRef, algorithms: &[Algorithm]) -> SharedSecretIssuer {
    SharedSecretIssuer {
        url: URL.into(),
        secret,
        encoding: SecretEncoding::Text,
        audiences: vec![AUDIENCE.into()],
        algorithms: algorithms.to_vec(),
        profile: Profile::Auth0,
        format: Profile::Auth0.format(),
        leeway: Duration::from_secs(30),
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_mins(5),
    }
}

fn fixture(algorithms: &[Algorithm]) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    let clock = ManualClock::at(UnixMillis::from_secs(NOW));
    let config = config(SecretRef::File(path), algorithms);
    let issuer = Issuer::shared_secret(
        "legacy".into(),
        &config,
        clock.clone(),
        crate::bounded_cache::CacheBounds::of_entries(100),
    );
    Fixture {
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

/// A token made with `jsonwebtoken`.
fn token(alg: &str, secret: &[u8], claims: &Value) -> String {
    let algorithm = alg.parse().unwrap();
    let header = jsonwebtoken::Header::new(algorithm);
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

impl Fixture {
    async fn authenticate(&self, token: &str) -> Result<&'static str, TokenError> {
        let token = BearerToken::new(token).unwrap();
        let issuers = [Arc::clone(&self.issuer)];
        let result = authenticate(&token, &issuers, None).await;
        result
            .map(|found| found.verification.unwrap())
            .map_err(|e| e.error)
    }

    fn write(&self, secret: &str) {
        std::fs::write(self.dir.path().join("secret"), secret).unwrap();
    }
}

#[tokio::test]
async fn each_hmac_algorithm_verifies_with_the_right_secret_only() {
    let fixture = fixture(Algorithm::HMAC);
    for alg in ["HS256", "HS384", "HS512"] {
        let good = token(alg, SECRET.as_bytes(), &claims(&json!({})));
        assert_eq!(fixture.authenticate(&good).await, Ok("ok"), "{alg}");
        assert_eq!(fixture.authenticate(&good).await, Ok("cached"), "{alg}");
        let forged = token(alg, b"another", &claims(&json!({})));
        assert_eq!(
            fixture.authenticate(&forged).await,
            Err(TokenError::BadSignature),
            "{alg}"
        );
    }
}

#[tokio::test]
async fn shared_secret_issuers_apply_the_common_rules() {
    let fixture = fixture(&[Algorithm::HS256]);
    for (changes, error) in [
        (json!({ "aud": "x" }), TokenError::WrongAudience),
        (json!({ "aud": null }), TokenError::claim("aud")),
        (json!({ "exp": null }), TokenError::claim("exp")),
        (json!({ "sub": null }), TokenError::claim("sub")),
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
        assert_eq!(fixture.authenticate(&token).await, Err(error), "{changes}");
    }
    let other = token("HS512", SECRET.as_bytes(), &claims(&json!({})));
    assert_eq!(
        fixture.authenticate(&other).await,
        Err(TokenError::UnacceptableAlgorithm)
    );
    let unsigned = other.rsplit_once('.').unwrap().0.to_owned() + ".";
    assert_eq!(
        fixture.authenticate(&unsigned).await,
        Err(TokenError::UnacceptableAlgorithm)
    );
}

/// Algorithm confusion (RFC 8725 §2.1), both ways: a public key used as an HMAC secret, and an
/// HMAC token sent to an issuer with public keys.
#[tokio::test]
async fn public_keys_are_never_used_as_hmac_secrets() {
    let shared = fixture(Algorithm::HMAC);
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
        let end = authenticate(&BearerToken::new(&token).unwrap(), &issuers, None).await;
        assert_eq!(end.unwrap_err().error, TokenError::UnacceptableAlgorithm);
    }
    let asymmetric = P256.token(&json!({ "typ": "JWT" }), &claims(&json!({})));
    let end = authenticate(&BearerToken::new(&asymmetric).unwrap(), &issuers, None).await;
    assert_eq!(end.unwrap_err().error, TokenError::UnacceptableAlgorithm);
}

#[tokio::test]
async fn a_rotated_secret_takes_effect_and_invalidates_cached_tokens() {
    let fixture = fixture(&[Algorithm::HS256]);
    let old = token("HS256", SECRET.as_bytes(), &claims(&json!({})));
    assert_eq!(fixture.authenticate(&old).await, Ok("ok"));
    let next = format!("{SECRET}-next");
    fixture.write(&next);
    fixture.clock.advance(INTERVAL);
    fixture.issuer.warm_up().await;
    assert_eq!(
        fixture.authenticate(&old).await,
        Err(TokenError::BadSignature)
    );
    let new = token("HS256", next.as_bytes(), &claims(&json!({})));
    assert_eq!(fixture.authenticate(&new).await, Ok("ok"));
    // An empty file, or a secret that is too short, leaves the last valid one current.
    for broken in ["", "short"] {
        fixture.write(broken);
        fixture.clock.advance(INTERVAL);
        fixture.issuer.warm_up().await;
        assert_eq!(fixture.authenticate(&new).await, Ok("cached"));
        assert_eq!(fixture.issuer.status(), IssuerStatus::Usable);
    }
}

#[tokio::test]
async fn without_a_secret_keys_are_unavailable_and_tokens_are_not_refused() {
    let fixture = fixture(&[Algorithm::HS256]);
    fixture.write("short");
    let token = token("HS256", b"short", &claims(&json!({})));
    assert_eq!(fixture.issuer.status(), IssuerStatus::NoKeys);
    let unavailable = Err(TokenError::KeysUnavailable { retry_after: RETRY });
    assert_eq!(fixture.authenticate(&token).await, unavailable);
    fixture.write(SECRET);
    assert_eq!(
        fixture.authenticate(&token).await,
        unavailable,
        "not read again immediately"
    );
    fixture.clock.advance(RETRY);
    assert_eq!(
        fixture.authenticate(&token).await,
        Err(TokenError::BadSignature)
    );
    let warm = fixture.issuer.warm_up().await;
    assert_eq!(
        (warm.status, warm.again_in),
        (IssuerStatus::Usable, Some(INTERVAL))
    );
    assert_eq!(fixture.issuer.keys_age(), None);
    assert!(!format!("{:?}", fixture.issuer).contains("tests-only"));
}

#[test]
fn a_secret_must_be_as_long_as_the_longest_hash() {
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
