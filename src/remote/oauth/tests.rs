//! Requests to a peer that deviates from the RFCs in the ways that real servers do.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::credential::FetchError;
use crate::remote::http_client::{HttpClient, HttpClientOptions};
use crate::remote::settings::{AssertionKey, ClientProof, OauthClient};
use crate::remote::testing::{Peer, Reply, closed_port, peer};
use crate::secret::SecretRef;

const NOW: UnixMillis = UnixMillis::from_secs(1_900_000_000);
const SECRET: &str = "se:cr%t +ü";
const GRANT: &[(&str, &str)] = &[("grant_type", "client_credentials"), ("scope", "a b")];

fn secret(dir: &tempfile::TempDir, content: &str) -> SecretRef {
    let path = dir.path().join("secret");
    std::fs::write(&path, content).unwrap();
    SecretRef::File(path)
}

fn endpoint(url: &url::Url, proof: ClientProof) -> Endpoint {
    let options = HttpClientOptions {
        timeout: Duration::from_millis(500),
        max_bytes: MAX_RESPONSE_BYTES,
        ca: None,
        network: crate::network::Network::default(),
    };
    let config = OauthClient {
        id: "cli:ent".into(),
        proof,
    };
    let client = HttpClient::new(&options).unwrap();
    Endpoint::new(
        url.join("token").unwrap(),
        config,
        client,
        ManualClock::at(NOW),
    )
}

/// The result of a token request that the peer answers with `reply`.
async fn grant_result(reply: Reply, on_behalf_of: OnBehalfOf) -> Result<TokenResponse, FetchError> {
    let peer = peer(reply).await;
    let end = endpoint(&peer.url, ClientProof::Public).grant(GRANT).await;
    end.map_err(|failure| failure.into_fetch_error(on_behalf_of))
}

fn good() -> Value {
    json!({ "access_token": "t0ken", "token_type": "Bearer", "expires_in": 60 })
}

fn with(member: &str, value: Value) -> Reply {
    let mut response = good();
    response[member] = value;
    Reply::json(200, &response.to_string())
}

/// The head and the decoded form of the next request.
async fn received(peer: &mut Peer) -> (String, Vec<(String, String)>) {
    let request = peer.requests.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let form = url::form_urlencoded::parse(body.as_bytes());
    (head.to_ascii_lowercase(), form.into_owned().collect())
}

fn value<'a>(form: &'a [(String, String)], name: &str) -> &'a str {
    let mut values = form.iter().filter(|(n, _)| n == name);
    let found = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(values.next().is_none(), "{name} twice");
    &found.1
}

#[tokio::test]
async fn client_secret_basic_form_encodes_both_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut peer = peer(Reply::json(200, &good().to_string())).await;
    let proof = ClientProof::SecretBasic(secret(&dir, SECRET));
    let response = endpoint(&peer.url, proof).grant(GRANT).await.unwrap();
    assert_eq!(response.access_token.expose(), "t0ken");
    assert_eq!(response.expires_at, Some(NOW.plus(Duration::from_mins(1))));
    let request = peer.requests.recv().await.unwrap();
    // "cli%3Aent:se%3Acr%25t+%2B%C3%BC"
    let expected = "authorization: Basic Y2xpJTNBZW50OnNlJTNBY3IlMjV0KyUyQiVDMyVCQw==";
    assert!(request.contains(expected), "{request}");
    assert!(
        request.ends_with("grant_type=client_credentials&scope=a+b"),
        "{request}"
    );
}

#[tokio::test]
async fn client_secret_post_sends_no_authorization_header() {
    let dir = tempfile::tempdir().unwrap();
    let mut peer = peer(Reply::json(200, &good().to_string())).await;
    let proof = ClientProof::SecretPost(secret(&dir, SECRET));
    endpoint(&peer.url, proof).grant(GRANT).await.unwrap();
    let (head, form) = received(&mut peer).await;
    assert!(!head.contains("authorization"), "{head}");
    assert_eq!(value(&form, "client_id"), "cli:ent");
    assert_eq!(value(&form, "client_secret"), SECRET);
}

#[tokio::test]
async fn a_client_assertion_is_signed_unique_and_short_lived() {
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut peer = peer(Reply::json(200, &good().to_string())).await;
    let proof = ClientProof::PrivateKeyJwt(AssertionKey {
        key: secret(&dir, &pair.serialize_pem()),
        key_id: Some("k1".into()),
        algorithm: None,
        audience: "https://idp.example.com/".into(),
    });
    let endpoint = endpoint(&peer.url, proof);
    let mut ids = Vec::new();
    for _ in 0..2 {
        endpoint.grant(GRANT).await.unwrap();
        let (_, form) = received(&mut peer).await;
        assert_eq!(value(&form, "client_id"), "cli:ent");
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(value(&form, "client_assertion_type"), kind);
        let key = jsonwebtoken::DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes());
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        rules.set_audience(&["https://idp.example.com/"]);
        rules.validate_exp = false;
        let read =
            jsonwebtoken::decode::<Value>(value(&form, "client_assertion"), &key.unwrap(), &rules)
                .unwrap();
        assert_eq!(read.header.kid.as_deref(), Some("k1"));
        let claims = read.claims;
        assert_eq!(
            (&claims["iss"], &claims["sub"]),
            (&json!("cli:ent"), &json!("cli:ent"))
        );
        assert_eq!(claims["exp"].as_i64().unwrap() - NOW.as_secs(), 60);
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_missing_or_invalid_client_secret_is_unavailable_and_sends_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut peer = peer(Reply::json(200, &good().to_string())).await;
    let gone = SecretRef::File(dir.path().join("gone"));
    let junk = AssertionKey {
        key: secret(&dir, "hunter2"),
        key_id: None,
        algorithm: None,
        audience: "a".into(),
    };
    for proof in [
        ClientProof::SecretBasic(gone.clone()),
        ClientProof::SecretPost(gone),
        ClientProof::PrivateKeyJwt(junk),
    ] {
        let failure = endpoint(&peer.url, proof).grant(GRANT).await.unwrap_err();
        let error = failure.into_fetch_error(OnBehalfOf::Caller);
        assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    assert!(peer.requests.try_recv().is_err());
}

#[tokio::test]
async fn each_form_of_expires_in_is_accepted() {
    let life = |seconds: i64| Some(UnixMillis::from_secs(NOW.as_secs() + seconds));
    for (value, expected) in [
        (json!(null), None),
        (json!(3600), life(3600)),
        (json!("3600"), life(3600)),
        (json!(59.9), life(59)),
        (json!(u64::MAX), Some(UnixMillis(i64::MAX))),
        (json!(1e300), Some(UnixMillis(i64::MAX))),
    ] {
        let response = grant_result(with("expires_in", value.clone()), OnBehalfOf::Caller).await;
        assert_eq!(response.unwrap().expires_at, expected, "{value}");
    }
    for value in [
        json!(0),
        json!(-1),
        json!("0"),
        json!("-5"),
        json!("soon"),
        json!([60]),
        json!(true),
        json!(""),
    ] {
        let error = grant_result(with("expires_in", value.clone()), OnBehalfOf::Caller)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, FetchError::BadAnswer(t) if t.starts_with("expires_in")),
            "{value}: {error}"
        );
    }
}

#[tokio::test]
async fn scopes_and_other_tokens_are_returned() {
    let response = json!({
        "access_token": "a", "token_type": "bearer", "scope": "x  y", "refresh_token": "r",
        "id_token": "i", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    });
    let response = grant_result(Reply::json(200, &response.to_string()), OnBehalfOf::Client)
        .await
        .unwrap();
    assert_eq!(
        response.scope.as_deref(),
        Some(&["x".to_owned(), "y".to_owned()][..])
    );
    assert_eq!(response.refresh_token.as_ref().unwrap().expose(), "r");
    assert_eq!(response.id_token.as_ref().unwrap().expose(), "i");
    assert_eq!(response.expires_at, None);
    let debug = format!("{response:?}");
    assert!(
        debug.contains("[redacted]") && !debug.contains("\"r\""),
        "{debug}"
    );
    let array = with("scope", json!(["x", "y"]));
    assert_eq!(
        grant_result(array, OnBehalfOf::Caller)
            .await
            .unwrap()
            .scope
            .unwrap()
            .len(),
        2
    );
    assert!(
        grant_result(with("scope", json!(7)), OnBehalfOf::Caller)
            .await
            .is_err()
    );
}

/// Error messages quote nothing of the response.
#[tokio::test]
async fn a_200_without_a_bearer_token_is_rejected_with_its_cause() {
    let json_type = ("Content-Type", "application/json");
    let long = "x".repeat(MAX_TOKEN_BYTES + 1);
    let huge = format!(
        "{{\"access_token\":\"{}\"}}",
        "x".repeat(MAX_RESPONSE_BYTES)
    );
    for (reply, cause) in [
        (Reply::json(200, "{"), "shape"),
        (Reply::json(200, "[]"), "shape"),
        (Reply::json(200, ""), "shape"),
        (
            Reply::json(200, "{\"access_token\":5,\"token_type\":\"Bearer\"}"),
            "shape",
        ),
        (Reply::json(200, "{\"error\":\"hunter2\"}"), "shape"),
        (
            Reply::json(
                200,
                "{\"access_token\":\"a\",\"access_token\":\"b\",\"token_type\":\"Bearer\"}",
            ),
            "shape",
        ),
        (with("access_token", json!("")), "empty"),
        (with("access_token", json!("hunter 2")), "characters"),
        (with("access_token", json!("hunter\r\n2")), "characters"),
        (with("access_token", json!("hünter2")), "characters"),
        (with("access_token", json!(long)), "larger than 16384 bytes"),
        (with("token_type", json!(null)), "no token_type"),
        (with("token_type", json!("N_A")), "N_A"),
        (with("token_type", json!("DPoP")), "bound to a key"),
        (with("token_type", json!("hunter2")), "not Bearer"),
        (
            Reply::new(200, &[("Content-Type", "text/html")], "<html>hunter2"),
            "not JSON",
        ),
        (
            Reply::new(200, &[("Content-Type", "application/jwt")], "hunter2"),
            "not JSON",
        ),
        (Reply::new(204, &[], ""), "status 204"),
        (Reply::new(302, &[("Location", "/hunter2")], ""), "redirect"),
        (
            Reply::new(
                307,
                &[("Location", "/hunter2"), json_type],
                good().to_string(),
            ),
            "redirect",
        ),
        (Reply::json(200, &huge), "larger than"),
    ] {
        let error = grant_result(reply.clone(), OnBehalfOf::Caller)
            .await
            .unwrap_err();
        let definite = matches!(error, FetchError::BadAnswer(_) | FetchError::TooLarge(_));
        assert!(definite, "{reply:?}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(cause) && !text.contains("hunter"),
            "{reply:?}: {text}"
        );
    }
}

/// How error codes are classified, by the party on whose behalf the request was sent.
#[tokio::test]
async fn error_codes_are_classified_by_client_or_caller() {
    for (status, code, for_client, for_caller) in [
        (400, "invalid_grant", "Misconfigured", "Refused"),
        (403, "invalid_grant", "Misconfigured", "Refused"),
        (401, "invalid_token", "Misconfigured", "Refused"),
        (400, "invalid_client", "Misconfigured", "Misconfigured"),
        (401, "invalid_client", "Misconfigured", "Misconfigured"),
        (400, "unauthorized_client", "Misconfigured", "Misconfigured"),
        (401, "", "Misconfigured", "Misconfigured"),
        (400, "invalid_request", "Misconfigured", "BadAnswer"),
        (
            400,
            "unsupported_grant_type",
            "Misconfigured",
            "Misconfigured",
        ),
        (400, "invalid_scope", "Misconfigured", "NotEntitled"),
        (403, "access_denied", "Misconfigured", "NotEntitled"),
        (400, "invalid_target", "Misconfigured", "NotEntitled"),
        (404, "", "BadAnswer", "BadAnswer"),
        (418, "slow_down", "BadAnswer", "BadAnswer"),
        (429, "too_many_attempts", "Unavailable", "Unavailable"),
        (500, "server_error", "Unavailable", "Unavailable"),
        (503, "invalid_grant", "Unavailable", "Unavailable"),
        (400, "temporarily_unavailable", "Unavailable", "Unavailable"),
        (
            501,
            "unsupported_grant_type",
            "Misconfigured",
            "Misconfigured",
        ),
        (400, "use_dpop_nonce", "Misconfigured", "Misconfigured"),
    ] {
        let body = json!({ "error": code, "error_description": "hunter2" }).to_string();
        for (on_behalf_of, expected) in [
            (OnBehalfOf::Client, for_client),
            (OnBehalfOf::Caller, for_caller),
        ] {
            let error = grant_result(Reply::json(status, &body), on_behalf_of)
                .await
                .unwrap_err();
            let debug = format!("{error:?}");
            assert!(
                debug.starts_with(expected),
                "{status} {code} {on_behalf_of:?}: {debug}"
            );
            assert!(
                debug.contains(&status.to_string()) && debug.contains(code),
                "{debug}"
            );
            assert!(!debug.contains("hunter2"), "{debug}");
        }
    }
}

/// A password can have the shape of a code.
#[tokio::test]
async fn a_code_that_is_not_registered_is_not_quoted() {
    let body = r#"{"error":"correct_horse_battery"}"#;
    let error = grant_result(Reply::json(400, body), OnBehalfOf::Caller).await;
    let text = error.unwrap_err().to_string();
    assert_eq!(text, "unusable answer: status 400 (an unregistered code)");
}

#[tokio::test]
async fn an_error_that_is_not_a_plain_code_is_not_quoted() {
    for body in [
        "hunter2",
        "<html>hunter2</html>",
        "{\"error\":\"hunter2\"}",
        "{\"error\":\"Hunter: the password\"}",
        "{\"error\":{\"hunter\":2}}",
        &format!("{{\"error\":\"{}\"}}", "h".repeat(49)),
    ] {
        let error = grant_result(Reply::json(400, body), OnBehalfOf::Caller)
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("unusable answer: status 400"), "{error}");
        assert!(!error.to_lowercase().contains("hunter"), "{error}");
    }
}

#[tokio::test]
async fn retry_after_is_read_from_three_headers() {
    let wait = |seconds| Some(Duration::from_secs(seconds));
    let reset = (NOW.as_secs() + 9).to_string();
    for (status, headers, expected) in [
        (429, vec![("Retry-After", "7")], wait(7)),
        (503, vec![("Retry-After", "7")], wait(7)),
        (429, vec![("x-ratelimit-reset", &*reset)], wait(9)),
        (429, vec![("x-ratelimit-reset", "soon")], wait(1)),
        (503, vec![("x-ratelimit-reset", &*reset)], None),
        (500, vec![], None),
    ] {
        let error = grant_result(Reply::new(status, &headers, ""), OnBehalfOf::Caller)
            .await
            .unwrap_err();
        let FetchError::Unavailable { retry_after, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(retry_after, expected, "{status} {headers:?}");
    }
}

#[tokio::test]
async fn connection_failures_and_timeouts_are_distinguished_from_bad_responses() {
    let refusing = endpoint(&closed_port().await, ClientProof::Public);
    let stalling = peer(Reply::Stall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec(),
    ))
    .await;
    let broken = peer(Reply::Bytes(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(),
    ))
    .await;
    for endpoint in [
        refusing,
        endpoint(&stalling.url, ClientProof::Public),
        endpoint(&broken.url, ClientProof::Public),
    ] {
        let failure = endpoint.grant(GRANT).await.unwrap_err();
        let error = failure.into_fetch_error(OnBehalfOf::Caller);
        assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
    }
}

#[tokio::test]
async fn members_of_an_error_response_are_readable_and_hidden_from_debug() {
    let body = json!({ "error": "mfa_required", "mfa_token": "hunter2" });
    let peer = peer(Reply::json(403, &body.to_string())).await;
    let failure = endpoint(&peer.url, ClientProof::Public)
        .grant(GRANT)
        .await
        .unwrap_err();
    assert!(!format!("{failure:?}").contains("hunter2"));
    let Failure::ErrorResponse(error) = failure else {
        panic!("{failure:?}")
    };
    assert!(error.is("mfa_required") && error.status == 403);
    assert_eq!(error.secret("mfa_token").unwrap().expose(), "hunter2");
    assert!(error.secret("other").is_none());
}

/// What the operator is told to check, for each code.
#[tokio::test]
async fn a_refusal_of_the_own_client_says_what_to_check() {
    for (status, code, remedy) in [
        (
            401,
            "invalid_client",
            "check client_id, client_secret or private_key, auth_method",
        ),
        (
            400,
            "unauthorized_client",
            "allow this client the grant type",
        ),
        (400, "unsupported_grant_type", "check the endpoint's URL"),
        (400, "invalid_scope", "check scopes"),
        (400, "invalid_target", "check audience and resource"),
        (403, "access_denied", "allow them to this client"),
        (
            400,
            "invalid_request",
            "check audience, resource, scopes and auth_method",
        ),
        (400, "use_dpop_nonce", "does not support"),
    ] {
        let body = json!({ "error": code }).to_string();
        let error = grant_result(Reply::json(status, &body), OnBehalfOf::Client)
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains(code) && text.contains(remedy), "{text}");
        assert!(
            text.starts_with("the identity provider refused hawkgate's "),
            "{text}"
        );
        let client = ["invalid_client", "unauthorized_client"].contains(&code);
        assert_eq!(text.contains("refused hawkgate's client"), client, "{text}");
        // Only a refused client is left alone as a whole.
        let FetchError::Misconfigured { retry_after, .. } = error else {
            panic!("{text}");
        };
        assert_eq!(retry_after.is_some(), client, "{text}");
    }
}

#[tokio::test]
async fn a_web_page_is_named_as_such() {
    let declared = [("Content-Type", "text/html; charset=utf-8")];
    for (reply, status) in [
        (Reply::new(200, &declared, "hunter2"), "the response is"),
        (
            Reply::new(403, &[], " <!DOCTYPE html><title>hunter2"),
            "403",
        ),
        (Reply::new(403, &declared, "<html>hunter2"), "403"),
        (Reply::new(401, &declared, "<html>hunter2"), "401"),
    ] {
        let error = grant_result(reply, OnBehalfOf::Client).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("an HTML page, not JSON") && text.contains(status),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}
