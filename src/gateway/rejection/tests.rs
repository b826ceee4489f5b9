use http::Method;

use super::*;

fn header<'a>(answer: &'a ErrorResponse, name: &str) -> Option<&'a str> {
    let mut values = answer.headers.iter().filter(|(n, _)| *n == name);
    let value = values.next().map(|(_, v)| v.as_str());
    assert!(values.next().is_none(), "{name} twice");
    value
}

#[test]
fn every_reason_has_a_complete_and_valid_response() {
    for reason in Reason::ALL {
        let answer = Rejection::from(*reason).to_response(&Method::POST, UnixMillis::from_secs(0));
        assert!(answer.status.is_client_error() || answer.status.is_server_error());
        assert_eq!(header(&answer, "x-hawkgate-error"), Some(reason.label()));
        assert_eq!(header(&answer, "cache-control"), Some("no-store"));
        assert_eq!(header(&answer, "content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["message"], reason.message());
        assert!(body["code"].is_string());
        assert_eq!(
            body["requestInfo"],
            json!({"method": "POST", "params": {}, "payload": null, "time": "1970-01-01T00:00:00.000Z"})
        );
        for (_, value) in &answer.headers {
            assert!(http::HeaderValue::from_str(value).is_ok(), "{value}");
        }
        // A 401 must have a challenge (RFC 9110 §15.5.2).
        if answer.status == 401 {
            assert!(header(&answer, "www-authenticate").is_some(), "{reason:?}");
        }
        if matches!(answer.status.as_u16(), 502 | 503) {
            assert!(header(&answer, "retry-after").is_some(), "{reason:?}");
        }
    }
}

#[test]
fn challenges_follow_rfc_6750() {
    let challenge = |rejection: Rejection| {
        let answer = rejection.to_response(&Method::GET, UnixMillis(0));
        (
            answer.status.as_u16(),
            header(&answer, "www-authenticate").unwrap().to_owned(),
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
    let answer = rejection.to_response(&Method::GET, UnixMillis(0));
    assert_eq!(header(&answer, "retry-after"), Some("1"));
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
        E::Malformed,
        E::Encrypted,
        E::DuplicateMember,
        E::CriticalHeader,
        E::UnacceptableAlgorithm,
        E::WrongType,
        E::IdToken,
        E::UnknownIssuer,
        E::KeyIdMissing,
        E::UnknownKey,
        E::UnsuitableKey,
        E::BadSignature,
        E::InvalidClaim { name: "sub" },
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
        let answer = rejection.to_response(&Method::GET, UnixMillis(0));
        assert_eq!(answer.status, status, "{error}");
        let header = |name| {
            answer
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
    let answer = Rejection::from(error).to_response(&Method::GET, UnixMillis(0));
    assert!(answer.headers.contains(&("retry-after", "7".to_owned())));
}
