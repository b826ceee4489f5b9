//! The authorization request, and which redirects are accepted.

use std::collections::HashMap;

use super::*;

const ISSUER: &str = "https://issuer.example/";
const NOW: Duration = Duration::from_secs(100);

fn started(iss_required: bool) -> (AuthorizationFlow, HashMap<String, String>) {
    let redirect = "http://127.0.0.1:4711/callback".parse().unwrap();
    let flow = AuthorizationFlow::start(ISSUER, iss_required, redirect, NOW).unwrap();
    let endpoint = "https://issuer.example/authorize?tenant=a".parse().unwrap();
    let request = AuthorizationRequest {
        scope: "openid offline_access".into(),
        audience: Some("urn:api".into()),
        resources: vec!["https://r.example/".into()],
        without_pkce: false,
    };
    let url = flow.url(&endpoint, "client 1", &request);
    let sent = url.query_pairs().into_owned().collect();
    (flow, sent)
}

#[test]
fn the_authorization_request_has_every_required_parameter() {
    let (flow, sent) = started(false);
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
    let verifier = flow.saved.code_verifier.expose();
    assert_eq!(verifier.len(), 43);
    let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
    assert_eq!(sent["code_challenge"], URL_SAFE_NO_PAD.encode(hash));
    assert!(!sent.values().any(|value| value == verifier));
    assert_ne!(sent["state"], sent["nonce"]);
    assert_ne!(sent["state"], started(false).1["state"]);
}

#[test]
fn a_redirect_with_the_right_state_is_accepted_once() {
    let (mut flow, sent) = started(false);
    let query = format!("code=c-1-secret&state={}", sent["state"]);
    let code = flow.accept_redirect(&query, NOW).unwrap();
    assert_eq!(code.code.expose(), "c-1-secret");
    assert_eq!(code.nonce, sent["nonce"]);
    let again = flow.accept_redirect(&query, NOW).unwrap_err();
    assert_eq!(again, CallbackError::AlreadyUsed);
    let debug = format!("{code:?} {flow:?}");
    assert!(!debug.contains("c-1-secret") && !debug.contains(&sent["state"]));
}

#[test]
fn a_redirect_with_another_state_does_not_consume_the_flow() {
    let (mut flow, sent) = started(false);
    for query in [
        "",
        "code=evil",
        "code=evil&state=",
        "code=evil&state=guess",
        "error=access_denied",
    ] {
        let error = flow.accept_redirect(query, NOW).unwrap_err();
        assert_eq!(error, CallbackError::StateMismatch, "{query}");
    }
    let query = format!("code=c-1&state={}", sent["state"]);
    assert!(flow.accept_redirect(&query, NOW).is_ok());
}

#[test]
fn an_invalid_redirect_with_the_right_state_ends_the_flow() {
    use CallbackError::{IssuerMismatch, Malformed};
    for (rest, promised, expected) in [
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
        let (mut flow, sent) = started(promised);
        let query = format!("{rest}&state={}", sent["state"]);
        let result = flow.accept_redirect(&query, NOW);
        assert_eq!(result.err(), expected, "{rest}");
    }
    let (mut flow, sent) = started(false);
    let state = &sent["state"];
    let result = flow.accept_redirect(&format!("code=c&state={state}&state={state}"), NOW);
    assert_eq!(result.unwrap_err(), Malformed);
}

#[test]
fn authorization_errors_are_described_without_quoting_the_response() {
    for (error, expected) in [
        ("access_denied", "refused, by you"),
        ("invalid_scope", "--scope"),
        ("%3Cscript%3E", "non-standard"),
    ] {
        let (mut flow, sent) = started(false);
        let state = &sent["state"];
        let query = format!("error={error}&error_description=secret&state={state}");
        let text = flow.accept_redirect(&query, NOW).unwrap_err().to_string();
        let clean = !text.contains("secret") && !text.contains('<');
        assert!(text.contains(expected) && clean, "{text}");
    }
}

#[test]
fn a_redirect_after_ten_minutes_is_rejected() {
    let (mut flow, sent) = started(false);
    let query = format!("code=c&state={}", sent["state"]);
    let result = flow.accept_redirect(&query, NOW + LIFETIME);
    assert_eq!(result.unwrap_err(), CallbackError::Expired);
}
