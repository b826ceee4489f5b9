//! Each rule for logout tokens, violated one at a time.

use std::sync::Arc;

use serde_json::json;

use super::super::testing::{
    ED25519, NOW, OTHER_RSA, P256, RSA, ScriptedKeys, clock, configured, issuer, with,
};
use super::*;
use crate::clock::ManualClock;
use crate::token::settings::{Algorithm, Profile};

const ISSUER: &str = "https://issuer.example/";
const CLIENT: &str = "client-1";

fn verifier_with(clock: Arc<ManualClock>) -> (LogoutTokenVerifier, Arc<ScriptedKeys>) {
    let keys = ScriptedKeys::of(&[RSA.jwk(), P256.jwk(), ED25519.jwk()]);
    let id_tokens = IdTokenVerifier::new(ISSUER, CLIENT, keys.clone(), clock);
    (LogoutTokenVerifier::new(&id_tokens), keys)
}

fn verifier() -> LogoutTokenVerifier {
    verifier_with(clock()).0
}

fn claims(changes: &Value) -> Value {
    let usual = json!({
        "iss": ISSUER, "aud": CLIENT, "iat": NOW, "exp": NOW + 120, "jti": "j-1",
        "sub": "user", "sid": "s-1", "events": {LOGOUT_EVENT: {}},
    });
    with(&usual, changes)
}

async fn verified(header: &Value, changes: &Value) -> Result<LogoutTokenClaims, LogoutTokenError> {
    let token = RSA.token(header, &claims(changes));
    verifier().verify(&token).await
}

#[tokio::test]
async fn a_valid_logout_token_names_a_user_or_a_session() {
    let found = verified(&json!({}), &json!({})).await.unwrap();
    assert_eq!(
        found,
        LogoutTokenClaims {
            id: "j-1".into(),
            issued_at: UnixMillis::from_secs(NOW),
            accepted_until: UnixMillis::from_secs(NOW + 120 + 30),
            subject: Some("user".into()),
            session: Some("s-1".into()),
        }
    );
    for changes in [
        json!({"sid": null}),
        json!({"sub": null}),
        json!({"aud": ["other", CLIENT]}),
        json!({"events": {LOGOUT_EVENT: {"more": 1}, "https://other.example/event": {}}}),
        json!({"iat": NOW - 329, "exp": null}),
        json!({"iat": NOW + 30}),
    ] {
        assert!(verified(&json!({}), &changes).await.is_ok(), "{changes}");
    }
    for typ in [
        "logout+jwt",
        "LOGOUT+JWT",
        "application/logout+jwt",
        "JWT",
        "jwt",
    ] {
        assert!(
            verified(&json!({"typ": typ}), &json!({})).await.is_ok(),
            "{typ}"
        );
    }
    let es256 = P256.token(&json!({}), &claims(&json!({})));
    assert!(verifier().verify(&es256).await.is_ok());
}

#[tokio::test]
async fn a_logout_token_is_accepted_for_five_minutes_even_if_it_does_not_expire() {
    let until = |seconds| UnixMillis::from_secs(NOW + seconds);
    for (exp, expected) in [(json!(null), 330), (json!(NOW + 86_400), 330)] {
        let found = verified(&json!({}), &json!({"exp": exp})).await.unwrap();
        assert_eq!(found.accepted_until, until(expected));
    }
}

#[tokio::test]
async fn a_logout_token_that_violates_any_rule_is_refused() {
    use LogoutTokenError as E;
    use TokenError as T;
    let claim = |name| E::Token(T::claim(name));
    for (changes, wanted) in [
        (
            json!({"iss": "https://other.example/"}),
            E::Token(T::UnknownIssuer),
        ),
        (json!({"iss": null}), E::Token(T::UnknownIssuer)),
        (json!({"iss": [ISSUER]}), E::Token(T::UnknownIssuer)),
        (json!({"aud": "other"}), E::Token(T::WrongAudience)),
        (json!({"aud": []}), E::Token(T::WrongAudience)),
        (json!({"aud": null}), claim("aud")),
        (json!({"aud": [CLIENT, 1]}), claim("aud")),
        (json!({"aud": {CLIENT: CLIENT}}), claim("aud")),
        (json!({"iat": null}), claim("iat")),
        (json!({"iat": NOW.to_string()}), claim("iat")),
        (json!({"iat": -0.5}), claim("iat")),
        (json!({"iat": NOW + 31}), E::Token(T::IssuedInFuture)),
        (json!({"iat": NOW - 330}), E::TooOld),
        (json!({"exp": NOW - 30}), E::Token(T::Expired)),
        (json!({"exp": "soon"}), claim("exp")),
        (json!({"nbf": NOW + 31}), E::Token(T::NotYetValid)),
        (json!({"jti": null}), claim("jti")),
        (json!({"jti": ""}), claim("jti")),
        (json!({"jti": 5}), claim("jti")),
        (json!({"jti": "x".repeat(1025)}), claim("jti")),
        (json!({"sub": null, "sid": null}), E::NoSession),
        (json!({"sub": ""}), claim("sub")),
        (json!({"sid": ["s-1"]}), claim("sid")),
        (json!({"sid": "a\u{0}b"}), claim("sid")),
        (json!({"events": null}), E::Event),
        (json!({"events": {}}), E::Event),
        (json!({"events": [LOGOUT_EVENT]}), E::Event),
        (json!({"events": LOGOUT_EVENT}), E::Event),
        (json!({"events": {LOGOUT_EVENT: null}}), E::Event),
        (json!({"events": {LOGOUT_EVENT: []}}), E::Event),
        (json!({"events": {LOGOUT_EVENT: true}}), E::Event),
        (
            json!({"events": {"http://schemas.openid.net/event/other": {}}}),
            E::Event,
        ),
        (json!({"nonce": "n-1"}), E::Nonce),
    ] {
        assert_eq!(
            verified(&json!({}), &changes).await,
            Err(wanted),
            "{changes}"
        );
    }
    // `with` drops a null, so a nonce of null needs another way.
    let token = RSA.token_of(
        "RS256",
        r#"{"alg":"RS256","kid":"rsa"}"#,
        &claims(&json!({}))
            .to_string()
            .replace("\"jti\"", "\"nonce\":null,\"jti\""),
    );
    assert_eq!(verifier().verify(&token).await, Err(E::Nonce));
}

#[tokio::test]
async fn the_header_of_a_logout_token_must_be_that_of_one() {
    use LogoutTokenError as E;
    use TokenError as T;
    for (header, wanted) in [
        (json!({"alg": "none"}), E::Token(T::UnacceptableAlgorithm)),
        (json!({"alg": "HS256"}), E::Token(T::UnacceptableAlgorithm)),
        (
            json!({"alg": ["RS256"]}),
            E::Token(T::UnacceptableAlgorithm),
        ),
        (json!({"crit": ["exp"]}), E::Token(T::CriticalHeader)),
        (json!({"kid": 5}), E::Token(T::Malformed)),
        (json!({"kid": "unknown"}), E::Token(T::UnknownKey)),
        (json!({"typ": "at+jwt"}), E::Type),
        (json!({"typ": "secevent+jwt"}), E::Type),
        (json!({"typ": ""}), E::Type),
        (json!({"typ": 1}), E::Type),
    ] {
        assert_eq!(verified(&header, &json!({})).await, Err(wanted), "{header}");
    }
}

#[tokio::test]
async fn logout_tokens_are_parsed_strictly_and_signed_with_the_issuers_keys() {
    use LogoutTokenError as E;
    use TokenError as T;
    let verifier = verifier();
    let good = RSA.token(&json!({}), &claims(&json!({})));
    let doubled = RSA.token_of(
        "RS256",
        r#"{"alg":"RS256","kid":"rsa"}"#,
        &claims(&json!({}))
            .to_string()
            .replace("\"jti\"", "\"jti\":\"a\",\"jti\""),
    );
    let forged = OTHER_RSA.token(&json!({"kid": "rsa"}), &claims(&json!({})));
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    for (token, wanted) in [
        (forged, E::Token(T::BadSignature)),
        (format!("{unsigned}."), E::Token(T::BadSignature)),
        (unsigned.to_owned(), E::Token(T::Malformed)),
        (format!("{good}.x.y"), E::Token(T::Encrypted)),
        (format!(" {good}"), E::Token(T::Malformed)),
        (String::new(), E::Token(T::Malformed)),
        (doubled, E::Token(T::DuplicateMember)),
        ("x".repeat(MAX_LOGOUT_TOKEN_BYTES + 1), E::TooLarge),
    ] {
        assert_eq!(verifier.verify(&token).await, Err(wanted), "{token}");
    }
}

#[tokio::test]
async fn tokens_for_others_cause_no_fetch_of_keys() {
    let (verifier, keys) = verifier_with(clock());
    for changes in [
        json!({"iss": "https://other.example/"}),
        json!({"aud": "x"}),
    ] {
        let token = RSA.token(&json!({}), &claims(&changes));
        verifier.verify(&token).await.unwrap_err();
    }
    assert_eq!(keys.calls(), 0);
}

#[tokio::test]
async fn a_machine_without_the_time_accepts_no_logout_token() {
    let clock = ManualClock::at(UnixMillis(0));
    let token = RSA.token(&json!({}), &claims(&json!({"iat": 0, "exp": 60})));
    let refused = verifier_with(clock).0.verify(&token).await;
    assert_eq!(refused, Err(TokenError::ClockNotSet.into()));
}

#[tokio::test]
async fn the_keys_algorithms_and_leeway_are_those_of_the_configured_issuer() {
    let keys = ScriptedKeys::of(&[RSA.jwk(), P256.jwk()]);
    let mut config = configured(ISSUER, Profile::Auth0);
    config.algorithms = vec![Algorithm::RS256];
    config.leeway = Duration::ZERO;
    let issuer = issuer("main", &config, &keys, &clock());
    let id_tokens = IdTokenVerifier::sharing_keys(&issuer, CLIENT).unwrap();
    let verifier = LogoutTokenVerifier::new(&id_tokens);
    for _ in 0..2 {
        let token = RSA.token(&json!({}), &claims(&json!({})));
        verifier.verify(&token).await.unwrap();
    }
    assert_eq!(keys.calls(), 1);
    let late = RSA.token(&json!({}), &claims(&json!({"exp": NOW})));
    assert_eq!(
        verifier.verify(&late).await,
        Err(TokenError::Expired.into())
    );
    let es256 = P256.token(&json!({}), &claims(&json!({})));
    let refused = verifier.verify(&es256).await;
    assert_eq!(refused, Err(TokenError::UnacceptableAlgorithm.into()));
}
