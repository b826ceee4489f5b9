use http::Method;

use super::*;
use crate::token::{Advice, Provider};

fn header<'a>(response: &'a ErrorResponse, name: &str) -> Option<&'a str> {
    let mut values = response.headers.iter().filter(|(n, _)| *n == name);
    let value = values.next().map(|(_, v)| v.as_str());
    assert!(values.next().is_none(), "{name} twice");
    value
}

#[test]
fn every_reason_has_a_complete_and_valid_response() {
    for reason in Reason::ALL {
        let response =
            Rejection::from(*reason).to_response(&Method::POST, UnixMillis::from_secs(0));
        assert!(response.status.is_client_error() || response.status.is_server_error());
        assert_eq!(header(&response, "x-hawkgate-error"), Some(reason.label()));
        assert_eq!(header(&response, "cache-control"), Some("no-store"));
        assert_eq!(header(&response, "content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(body["message"], reason.message());
        assert!(body["code"].is_string());
        assert_eq!(
            body["requestInfo"],
            json!({"method": "POST", "params": {}, "payload": null, "time": "1970-01-01T00:00:00.000Z"})
        );
        for (_, value) in &response.headers {
            assert!(http::HeaderValue::from_str(value).is_ok(), "{value}");
        }
        // A 401 must have a challenge (RFC 9110 §15.5.2).
        if response.status == 401 {
            assert!(
                header(&response, "www-authenticate").is_some(),
                "{reason:?}"
            );
        }
        if matches!(response.status.as_u16(), 502 | 503) {
            assert!(header(&response, "retry-after").is_some(), "{reason:?}");
        }
    }
}

#[test]
fn challenges_follow_rfc_6750() {
    let challenge = |rejection: Rejection| {
        let response = rejection.to_response(&Method::GET, UnixMillis(0));
        (
            response.status.as_u16(),
            header(&response, "www-authenticate").unwrap().to_owned(),
        )
    };
    assert_eq!(
        challenge(Reason::MissingToken.into()),
        (401, "Bearer realm=\"hawkgate\"".to_owned())
    );
    let error = |status, code, reason: Reason| {
        let (found, value) = challenge(reason.into());
        let expected = format!("Bearer realm=\"hawkgate\", error=\"{code}\"");
        assert!(found == status && value.starts_with(&expected), "{value}");
    };
    error(400, "invalid_request", Reason::InvalidAuthorization);
    error(401, "invalid_token", Reason::TokenExpired);
    let (status, value) = challenge(Rejection {
        required_scopes: Some("openid read".into()),
        ..Reason::InsufficientScope.into()
    });
    assert!(
        status == 403 && value.ends_with(", scope=\"openid read\""),
        "{value}"
    );
}

#[test]
fn retry_after_is_at_least_a_second() {
    let rejection = Rejection {
        retry_after: Some(Duration::from_millis(20)),
        ..Reason::ExchangeUnavailable.into()
    };
    let response = rejection.to_response(&Method::GET, UnixMillis(0));
    assert_eq!(header(&response, "retry-after"), Some("1"));
}

const AFTER: Duration = Duration::from_secs(7);

/// Each error with the status and the RFC 6750 `error` of the response.
fn table() -> Vec<(TokenError, u16, Option<&'static str>)> {
    use TokenError as E;
    let mut table = vec![
        (E::OtherScheme, 401, None),
        (E::InvalidAuthorization, 400, Some("invalid_request")),
        (E::KeysUnavailable { retry_after: AFTER }, 503, None),
        (E::Internal, 500, None),
    ];
    let invalid_token = [
        E::TooLarge,
        E::Opaque,
        E::Malformed,
        E::Encrypted,
        E::DuplicateMember,
        E::CriticalHeader,
        E::UnacceptableAlgorithm,
        E::WrongType,
        E::IdToken,
        E::RefreshToken,
        E::LogoutToken,
        E::NotAccessToken { why: "x" },
        E::UnknownIssuer,
        E::KeyIdMissing,
        E::UnknownKey,
        E::UnsuitableKey { why: "x" },
        E::BadSignature,
        E::claim("sub"),
        E::ClientMismatch,
        E::WrongAudience,
        E::Expired,
        E::NotYetValid,
        E::IssuedInFuture,
        E::ClientNotAllowed,
        E::SubjectNotAllowed,
        E::Bound,
    ];
    table.extend(invalid_token.map(|error| (error, 401, Some("invalid_token"))));
    table
}

#[test]
fn every_token_error_has_its_status_and_challenge() {
    for (error, status, code) in table() {
        let rejection = Rejection::from(error.clone());
        assert_eq!(rejection.reason.label(), error.label());
        assert_eq!(rejection.cause, Some(error.to_string()));
        let response = rejection.to_response(&Method::GET, UnixMillis(0));
        assert_eq!(response.status, status, "{error}");
        let header = |name| {
            response
                .headers
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v)
        };
        assert_eq!(header("x-hawkgate-error").unwrap(), error.label());
        let challenge = header("www-authenticate");
        match code {
            Some(code) => {
                let expected = format!("Bearer realm=\"hawkgate\", error=\"{code}\"");
                assert!(challenge.unwrap().starts_with(&expected), "{error}");
            }
            None if status == 401 => {
                assert_eq!(challenge.unwrap(), "Bearer realm=\"hawkgate\"");
            }
            None => assert_eq!(challenge, None),
        }
    }
}

#[test]
fn unavailable_keys_set_retry_after() {
    let error = TokenError::KeysUnavailable { retry_after: AFTER };
    let response = Rejection::from(error).to_response(&Method::GET, UnixMillis(0));
    assert!(response.headers.contains(&("retry-after", "7".to_owned())));
}

#[test]
fn callers_are_told_what_a_token_is_and_what_to_send_instead() {
    let response = |rejection: Rejection| {
        let response = rejection.to_response(&Method::GET, UnixMillis(0));
        let body: serde_json::Value = serde_json::from_str(&response.body).unwrap();
        let challenge = header(&response, "www-authenticate").unwrap().to_owned();
        (body["message"].as_str().unwrap().to_owned(), challenge)
    };
    for (error, words) in [
        (TokenError::TooLarge, "too large"),
        (TokenError::Opaque, "opaque token, not a JWT"),
        (TokenError::Encrypted, "encrypted"),
        (TokenError::IdToken, "is an ID token"),
        (TokenError::RefreshToken, "is a refresh token"),
    ] {
        let (message, challenge) = response(error.into());
        assert!(message.contains(words), "{message}");
        assert!(challenge.contains(words), "{challenge}");
    }
    let (message, challenge) = response(Rejection::from(Unauthenticated {
        issuer: None,
        error: TokenError::WrongType,
        advice: Some(Advice::Profile(Provider::Okta)),
    }));
    let text = "this looks like an Okta token; `profile = \"okta\"` takes it.";
    assert!(message.ends_with(text), "{message}");
    assert!(
        challenge.contains("`profile = 'okta'` takes it."),
        "{challenge}"
    );
}
