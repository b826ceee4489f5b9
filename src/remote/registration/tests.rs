//! How each kind of response from a registration endpoint is handled.

use super::super::testing::{Peer, Reply, closed_port, peer};
use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::remote::http_client::HttpClientOptions;

const CREATED: &str = r#"{"client_id":"c1","client_secret":"s3cr3t-of-client","client_secret_expires_at":0,
    "registration_access_token":"r3gistration-token","registration_client_uri":"http://127.0.0.1/reg/c1",
    "token_endpoint_auth_method":"client_secret_post"}"#;

fn metadata() -> ClientMetadata {
    let members = json!({"client_name": "n", "redirect_uris": ["https://a.example/cb"]});
    ClientMetadata::new(members.as_object().unwrap().clone()).unwrap()
}

fn endpoint(issuer: &Url) -> RegistrationEndpoint {
    let options = HttpClientOptions {
        timeout: std::time::Duration::from_millis(300),
        max_bytes: 16 * 1024,
        ca: None,
        network: crate::network::Network::default(),
    };
    let clock = ManualClock::at(UnixMillis::from_secs(1_800_000_000));
    RegistrationEndpoint::new(HttpClient::new(&options).unwrap(), clock, issuer.clone())
}

async fn register(peer: &Peer) -> Result<Registration, RegistrationError> {
    endpoint(&peer.url)
        .register(&peer.url, &metadata(), None)
        .await
}

fn existing(uri: &Url) -> Registration {
    Registration {
        client_id: "c1".into(),
        client_secret: Some("old-client-secret".into()),
        client_secret_expires_at: 0,
        registration_access_token: Some("old-registration-token".into()),
        registration_client_uri: Some(uri.clone()),
        auth_method: AuthMethod::ClientSecretBasic,
        metadata: metadata(),
        changed_at: String::new(),
        token_endpoint: None,
        secret_file: None,
    }
}

#[tokio::test]
async fn the_client_information_response_is_read() {
    let mut peer = peer(Reply::json(201, CREATED)).await;
    let token = SecretString::from("initial-token");
    let registration = endpoint(&peer.url)
        .register(&peer.url, &metadata(), Some(&token))
        .await;
    let registration = registration.unwrap();
    assert_eq!(registration.client_id, "c1");
    assert_eq!(
        registration.client_secret.as_ref().unwrap().expose(),
        "s3cr3t-of-client"
    );
    assert_eq!(registration.auth_method, AuthMethod::ClientSecretPost);
    assert!(registration.management().is_some());
    let request = peer.requests.recv().await.unwrap().to_lowercase();
    assert!(request.contains("authorization: bearer initial-token"));
    assert!(request.contains(r#""client_name":"n""#));
    let debug = format!("{registration:?}");
    assert!(
        !debug.contains("s3cr3t") && !debug.contains("r3gistration"),
        "{debug}"
    );
}

#[tokio::test]
async fn the_default_auth_method_follows_the_rfc() {
    let secret = peer(Reply::json(201, r#"{"client_id":"c","client_secret":"s"}"#)).await;
    assert_eq!(
        register(&secret).await.unwrap().auth_method,
        AuthMethod::ClientSecretBasic
    );
    let public = peer(Reply::json(201, r#"{"client_id":"c"}"#)).await;
    assert_eq!(
        register(&public).await.unwrap().auth_method,
        AuthMethod::None
    );
}

#[tokio::test]
async fn rejections_are_explained() {
    let error = |code: &str| {
        format!(r#"{{"error":"{code}","error_description":"redirect_uris: top-s3cret"}}"#)
    };
    for (reply, expected) in [
        (
            Reply::json(400, &error("invalid_redirect_uri")),
            "does not accept the redirect URI (status 400, invalid_redirect_uri); it mentions redirect_uris",
        ),
        (
            Reply::json(400, &error("invalid_client_metadata")),
            "does not accept the client metadata",
        ),
        (
            Reply::json(400, &error("invalid_software_statement")),
            "is invalid",
        ),
        (
            Reply::json(400, &error("unapproved_software_statement")),
            "is not approved",
        ),
        (
            Reply::json(400, &error("top-s3cret TOKEN")),
            "it rejected the request (status 400)",
        ),
        (Reply::json(401, "{}"), "--initial-access-token-file"),
        (Reply::json(403, "{}"), "may be disabled"),
        (
            Reply::json(404, "top-s3cret"),
            "no registration endpoint at this URL",
        ),
        (
            Reply::new(302, &[("Location", "https://x/")], ""),
            "not followed",
        ),
        (
            Reply::new(429, &[("Retry-After", "90")], ""),
            "try again in 90 s",
        ),
    ] {
        let peer = peer(reply).await;
        let error = register(&peer).await.unwrap_err();
        assert!(
            !matches!(error, RegistrationError::OutcomeUnknown(_)),
            "{error}"
        );
        let text = format!("{error} {error:?}");
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(!text.contains("top-s3cret"), "{text}");
    }
    let closed = closed_port().await;
    let error = endpoint(&closed).register(&closed, &metadata(), None).await;
    assert!(
        matches!(error, Err(RegistrationError::Refused(_))),
        "nothing was sent: {error:?}"
    );
}

#[tokio::test]
async fn the_outcome_of_an_unanswered_request_is_unknown() {
    for reply in [
        Reply::json(500, "{}"),
        Reply::json(502, "top-s3cret"),
        Reply::json(202, "{}"),
        Reply::json(201, "{}"),
        Reply::json(201, "not json, top-s3cret"),
        Reply::json(201, r#"{"client_id":""}"#),
        Reply::json(201, r#"{"client_id":"\u001b[2Jtop-s3cret"}"#),
        Reply::json(
            201,
            r#"{"client_id":"c","registration_client_uri":"http://elsewhere.example/"}"#,
        ),
        Reply::json(
            201,
            &format!(r#"{{"client_id":"c","x":"{}"}}"#, "x".repeat(20_000)),
        ),
        Reply::Bytes(b"HTTP/1.1 201 Created\r\nContent-Length: 50\r\n\r\n{".to_vec()),
        Reply::Bytes(Vec::new()),
        Reply::Stall(b"HTTP/1.1 201 Created\r\n".to_vec()),
        Reply::Stall(Vec::new()),
    ] {
        let mut peer = peer(reply.clone()).await;
        let error = register(&peer).await.unwrap_err();
        assert!(
            matches!(error, RegistrationError::OutcomeUnknown(_)),
            "{reply:?}: {error}"
        );
        assert!(
            !format!("{error} {error:?}").contains("top-s3cret"),
            "{error}"
        );
        peer.requests.recv().await.unwrap();
        assert!(peer.requests.try_recv().is_err(), "sent twice: {reply:?}");
    }
}

#[tokio::test]
async fn an_update_sends_all_metadata_and_stores_the_rotated_token() {
    let mut peer = peer(Reply::json(200, CREATED)).await;
    let old = existing(&peer.url);
    let new = endpoint(&peer.url).update(&old, &metadata()).await.unwrap();
    assert_eq!(
        new.registration_access_token.unwrap().expose(),
        "r3gistration-token"
    );
    let request = peer.requests.recv().await.unwrap();
    assert!(request.starts_with("PUT / "), "{request}");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(
        head.to_lowercase()
            .contains("bearer old-registration-token")
    );
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["client_id"], "c1");
    assert_eq!(body["client_secret"], "old-client-secret");
    assert_eq!(body["client_name"], "n");
    assert!(body.get("registration_access_token").is_none());
}

#[tokio::test]
async fn members_missing_from_the_response_keep_their_values() {
    let peer = peer(Reply::json(200, r#"{"client_id":"c1"}"#)).await;
    let new = endpoint(&peer.url)
        .update(&existing(&peer.url), &metadata())
        .await
        .unwrap();
    assert_eq!(
        new.registration_access_token.unwrap().expose(),
        "old-registration-token"
    );
    assert_eq!(new.client_secret.unwrap().expose(), "old-client-secret");
}

#[tokio::test]
async fn another_client_id_in_the_response_is_rejected() {
    let peer = peer(Reply::json(200, r#"{"client_id":"other"}"#)).await;
    let error = endpoint(&peer.url)
        .update(&existing(&peer.url), &metadata())
        .await;
    assert!(matches!(error, Err(RegistrationError::OutcomeUnknown(_))));
}

#[tokio::test]
async fn deletion_accepts_204() {
    let gone = peer(Reply::new(204, &[], "")).await;
    endpoint(&gone.url)
        .delete(&existing(&gone.url))
        .await
        .unwrap();
    let unknown = peer(Reply::json(401, r#"{"error":"invalid_token"}"#)).await;
    let error = endpoint(&unknown.url).delete(&existing(&unknown.url)).await;
    assert!(matches!(error, Err(RegistrationError::Unauthorized(_))));
}
