//! Each rule for ID tokens, violated one at a time.

use serde_json::json;

use super::super::testing::{
    ED25519, NOW, OTHER_RSA, P256, P384, RSA, ScriptedKeys, b64, clock, with,
};
use super::*;

const ISSUER: &str = "https://issuer.example/";
const CLIENT: &str = "client-1";
const ACCESS_TOKEN: &str = "the-access-token";

fn verifier() -> IdTokenVerifier {
    let keys = ScriptedKeys::of(&[RSA.jwk(), P256.jwk(), P384.jwk(), ED25519.jwk()]);
    IdTokenVerifier::new(ISSUER, CLIENT, keys, clock())
}

fn claims(changes: &Value) -> Value {
    let usual = json!({
        "iss": ISSUER, "aud": CLIENT, "sub": "user", "iat": NOW, "exp": NOW + 300, "nonce": "n-1",
    });
    with(&usual, changes)
}

fn expected() -> Expected<'static> {
    Expected {
        nonce: Some("n-1"),
        access_token: Some(ACCESS_TOKEN),
        subject: None,
    }
}

async fn verified(changes: &Value) -> Result<String, IdTokenError> {
    verified_claims(changes).await.map(|claims| claims.subject)
}

async fn verified_claims(changes: &Value) -> Result<IdTokenClaims, IdTokenError> {
    let token = RSA.token(&json!({}), &claims(changes));
    verifier().verify(&token, expected()).await
}

fn half(algorithm: &'static digest::Algorithm) -> String {
    let whole = digest::digest(algorithm, ACCESS_TOKEN.as_bytes());
    b64(&whole.as_ref()[..whole.as_ref().len() / 2])
}

#[tokio::test]
async fn a_valid_id_token_yields_the_subject() {
    assert_eq!(verified(&json!({})).await.unwrap(), "user");
    let several = json!({"aud": [CLIENT, "other"], "azp": CLIENT});
    assert_eq!(verified(&several).await.unwrap(), "user");
}

#[tokio::test]
async fn an_id_token_that_violates_any_rule_is_refused() {
    use TokenError as T;
    let token = |error| IdTokenError::Token(error);
    for (changes, wanted) in [
        (
            json!({"iss": "https://other.example/"}),
            token(T::UnknownIssuer),
        ),
        (json!({"iss": null}), token(T::UnknownIssuer)),
        (json!({"aud": "other"}), token(T::WrongAudience)),
        (json!({"aud": null}), token(T::claim("aud"))),
        (json!({"aud": [CLIENT, "other"]}), IdTokenError::OtherClient),
        (json!({"azp": "other"}), IdTokenError::OtherClient),
        (
            json!({"aud": [CLIENT, "other"], "azp": "other"}),
            IdTokenError::OtherClient,
        ),
        (json!({"exp": NOW - 31}), token(T::Expired)),
        (json!({"exp": null}), token(T::claim("exp"))),
        (json!({"iat": NOW + 31}), token(T::IssuedInFuture)),
        (json!({"iat": null}), token(T::claim("iat"))),
        (json!({"sub": null}), token(T::claim("sub"))),
        (json!({"nonce": null}), IdTokenError::Nonce),
        (json!({"nonce": "n-2"}), IdTokenError::Nonce),
        (json!({"nonce": ["n-1"]}), IdTokenError::Nonce),
        (json!({"at_hash": "wrong"}), IdTokenError::AccessTokenHash),
        (
            json!({"at_hash": half(&digest::SHA512)}),
            IdTokenError::AccessTokenHash,
        ),
        (json!({"at_hash": 5}), IdTokenError::AccessTokenHash),
    ] {
        assert_eq!(verified(&changes).await, Err(wanted), "{changes}");
    }
}

#[tokio::test]
async fn name_and_email_are_left_out_if_they_are_not_fit_to_be_shown() {
    let fit = json!({"name": " Ada Lovelace ", "email": "ada@example.com", "sid": "s-1"});
    let found = verified_claims(&fit).await.unwrap();
    assert_eq!(found.name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(found.email.as_deref(), Some("ada@example.com"));
    assert_eq!(found.session.as_deref(), Some("s-1"));
    for unfit in [
        json!(null),
        json!(""),
        json!(" "),
        json!(5),
        json!(["x"]),
        json!("a\u{0}b"),
        json!("a\r\nSet-Cookie: x"),
        json!("a\u{85}b"),
        json!("a\u{202e}b"),
        json!("a\u{2066}b"),
        json!("x".repeat(255)),
    ] {
        let changes = json!({"name": unfit.clone(), "email": unfit.clone()});
        let found = verified_claims(&changes).await.unwrap();
        assert_eq!((found.name, found.email), (None, None), "{unfit}");
    }
}

#[tokio::test]
async fn a_sid_that_no_logout_token_could_name_is_refused() {
    for sid in [
        json!(""),
        json!(5),
        json!("x".repeat(1025)),
        json!("a\u{0}"),
    ] {
        let refused = verified(&json!({"sid": sid.clone()})).await;
        let wanted = TokenError::claim("sid");
        assert_eq!(refused, Err(wanted.into()), "{sid}");
    }
}

#[tokio::test]
async fn at_hash_uses_the_hash_of_the_signature_algorithm() {
    for (key, hash) in [
        (&*RSA, &digest::SHA256),
        (&*P256, &digest::SHA256),
        (&*P384, &digest::SHA384),
        (&*ED25519, &digest::SHA512),
    ] {
        let token = key.token(&json!({}), &claims(&json!({"at_hash": half(hash)})));
        verifier().verify(&token, expected()).await.unwrap();
    }
}

#[tokio::test]
async fn id_tokens_must_be_signed_with_the_issuers_keys() {
    let forged = OTHER_RSA.token(&json!({"kid": "rsa"}), &claims(&json!({})));
    let error = verifier().verify(&forged, expected()).await;
    assert_eq!(error, Err(TokenError::BadSignature.into()));
    for alg in ["none", "HS256"] {
        let token = RSA.token(&json!({"alg": alg}), &claims(&json!({})));
        let error = verifier().verify(&token, expected()).await;
        assert_eq!(
            error,
            Err(TokenError::UnacceptableAlgorithm.into()),
            "{alg}"
        );
    }
    let huge = "x".repeat(MAX_ID_TOKEN_BYTES + 1);
    assert_eq!(
        verifier().verify(&huge, expected()).await,
        Err(IdTokenError::TooLarge)
    );
}

#[tokio::test]
async fn a_refreshed_id_token_has_the_same_subject_and_needs_no_nonce() {
    let token = RSA.token(&json!({}), &claims(&json!({"nonce": null})));
    let again = |subject| Expected {
        nonce: None,
        access_token: None,
        subject: Some(subject),
    };
    verifier().verify(&token, again("user")).await.unwrap();
    let error = verifier().verify(&token, again("another")).await;
    assert_eq!(error, Err(IdTokenError::OtherSubject));
}
