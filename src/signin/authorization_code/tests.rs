//! What an authorization request says, and which of the answers is taken.

use std::collections::HashMap;

use super::*;

const ISSUER: &str = "https://issuer.example/";
const NOW: Duration = Duration::from_secs(100);

fn begun(iss_required: bool) -> (AuthorizationFlow, HashMap<String, String>) {
    let redirect = "http://127.0.0.1:4711/callback".parse().unwrap();
    let attempt = AuthorizationFlow::begin(ISSUER, iss_required, redirect, NOW).unwrap();
    let endpoint = "https://issuer.example/authorize?tenant=a".parse().unwrap();
    let request = AuthorizationRequest {
        scope: "openid offline_access".into(),
        audience: Some("urn:api".into()),
        resources: vec!["https://r.example/".into()],
    };
    let url = attempt.url(&endpoint, "client 1", &request);
    let sent = url.query_pairs().into_owned().collect();
    (attempt, sent)
}

#[test]
fn the_request_has_what_the_rfcs_ask_for() {
    let (attempt, sent) = begun(false);
    for (name, value) in [
        ("tenant", "a"),
        ("response_type", "code"),
        ("client_id", "client 1"),
        ("redirect_uri", "http://127.0.0.1:4711/callback"),
        ("scope", "openid offline_access"),
        ("audience", "urn:api"),
        ("resource", "https://r.example/"),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
    ] {
        assert_eq!(sent[name], value, "{name}");
    }
    let verifier = attempt.verifier.expose();
    assert_eq!(verifier.len(), 43);
    let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
    assert_eq!(sent["code_challenge"], URL_SAFE_NO_PAD.encode(hash));
    assert!(!sent.values().any(|value| value == verifier));
    assert_ne!(sent["state"], sent["nonce"]);
    assert_ne!(sent["state"], begun(false).1["state"]);
}

#[test]
fn our_answer_is_taken_once() {
    let (mut attempt, sent) = begun(false);
    let query = format!("code=c-1-secret&state={}", sent["state"]);
    let code = attempt.redeem(&query, NOW).unwrap();
    assert_eq!(code.code.expose(), "c-1-secret");
    assert_eq!(code.nonce, sent["nonce"]);
    let again = attempt.redeem(&query, NOW).unwrap_err();
    assert_eq!(again, CallbackError::AlreadyUsed);
    let shown = format!("{code:?} {attempt:?}");
    assert!(!shown.contains("c-1-secret") && !shown.contains(&sent["state"]));
}

#[test]
fn a_foreign_answer_does_not_use_it_up() {
    let (mut attempt, sent) = begun(false);
    for query in [
        "",
        "code=evil",
        "code=evil&state=",
        "code=evil&state=guess",
        "error=access_denied",
    ] {
        let error = attempt.redeem(query, NOW).unwrap_err();
        assert_eq!(error, CallbackError::StateMismatch, "{query}");
    }
    let query = format!("code=c-1&state={}", sent["state"]);
    assert!(attempt.redeem(&query, NOW).is_ok());
}

#[test]
fn answers_that_are_ours_and_no_good_end_it() {
    use CallbackError::{IssuerMismatch, Malformed};
    for (rest, promised, wanted) in [
        (
            "code=c&iss=https%3A%2F%2Fevil.example%2F",
            false,
            Some(IssuerMismatch),
        ),
        ("code=c", true, Some(IssuerMismatch)),
        ("code=c&iss=https%3A%2F%2Fissuer.example%2F", true, None),
        (
            "code=c&iss=https%3A%2F%2Fissuer.example",
            true,
            Some(IssuerMismatch),
        ),
        ("code=c&code=d", false, Some(Malformed)),
        ("code=", false, Some(Malformed)),
        ("x=y", false, Some(Malformed)),
    ] {
        let (mut attempt, sent) = begun(promised);
        let query = format!("{rest}&state={}", sent["state"]);
        let answer = attempt.redeem(&query, NOW);
        assert_eq!(answer.err(), wanted, "{rest}");
    }
    let (mut attempt, sent) = begun(false);
    let state = &sent["state"];
    let answer = attempt.redeem(&format!("code=c&state={state}&state={state}"), NOW);
    assert_eq!(answer.unwrap_err(), Malformed);
}

#[test]
fn errors_are_told_in_words_of_our_own() {
    for (error, said) in [
        ("access_denied", "refused, by you"),
        ("invalid_scope", "--scope"),
        ("%3Cscript%3E", "not in the standards"),
    ] {
        let (mut attempt, sent) = begun(false);
        let state = &sent["state"];
        let query = format!("error={error}&error_description=secret&state={state}");
        let text = attempt.redeem(&query, NOW).unwrap_err().to_string();
        let clean = !text.contains("secret") && !text.contains('<');
        assert!(text.contains(said) && clean, "{text}");
    }
}

#[test]
fn ten_minutes_and_no_longer() {
    let (mut attempt, sent) = begun(false);
    let query = format!("code=c&state={}", sent["state"]);
    let answer = attempt.redeem(&query, NOW + LIFETIME);
    assert_eq!(answer.unwrap_err(), CallbackError::Expired);
}
