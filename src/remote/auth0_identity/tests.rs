use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::management::user_url;
use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::remote::http_client::HttpClientOptions;
use crate::remote::settings::{Auth0Identity, ClientProof, OauthClient};
use crate::remote::testing::{Peer, Reply, closed_port, peer, peer_with};
use crate::secret::SecretRef;
use crate::token::{BearerToken, TokenDigest};

const NOW: UnixMillis = UnixMillis::from_secs(1_795_201_809);
/// [`NOW`] as a `Date`.
const DATE: (&str, &str) = ("Date", "Fri, 20 Nov 2026 19:10:09 GMT");
const SUBJECT: &str = "google-oauth2|1234567890";
const SECRET: &str = "hunter2-client-secret";
const IDP_TOKEN: &str = "ya29.hunter2-token-of-the-provider";

struct Fixture {
    source: IdentitySource,
    peer: Peer,
    /// Keeps the secret's file alive.
    #[allow(dead_code)]
    secret: tempfile::TempDir,
}

fn settings(tenant: &Url, via: Via) -> (Auth0Identity, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let settings = Auth0Identity {
        tenant: tenant.clone(),
        client: OauthClient {
            id: "hawkgate".into(),
            proof: ClientProof::SecretPost(SecretRef::File(file)),
        },
        connection: "google-oauth2".into(),
        via,
        custom_domain: None,
    };
    (settings, folder)
}

fn source(tenant: &Url, via: Via, timeout: Duration) -> (IdentitySource, tempfile::TempDir) {
    let (settings, secret) = settings(tenant, via);
    let client = HttpClient::new(&HttpClientOptions {
        timeout,
        max_bytes: super::super::oauth::MAX_RESPONSE_BYTES,
        ca: None,
        network: crate::network::Network::default(),
    })
    .unwrap();
    let clock = ManualClock::at(NOW);
    let source = IdentitySource::new(&settings, client, timeout, clock).unwrap();
    (source, secret)
}

fn identities() -> Via {
    Via::Identities {
        provider: "google-oauth2".into(),
    }
}

async fn fixture(via: Via, reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Fixture {
    let peer = peer_with(reply).await;
    let (source, secret) = source(&peer.url, via, Duration::from_secs(30));
    Fixture {
        source,
        peer,
        secret,
    }
}

/// A tenant that issues Management API tokens and replies to everything else with `users`.
async fn tenant(users: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Fixture {
    fixture(identities(), move |request| {
        if request.starts_with("POST /oauth/token ") {
            management_token()
        } else {
            users(request)
        }
    })
    .await
}

fn management_token() -> Reply {
    Reply::json(
        200,
        r#"{"access_token":"hunter2.management","token_type":"Bearer","expires_in":86400,"scope":"read:users read:user_idp_tokens"}"#,
    )
}

fn user(identities: &serde_json::Value) -> Reply {
    Reply::json(200, &json!({ "identities": identities }).to_string())
}

fn google() -> serde_json::Value {
    json!({ "provider": "google-oauth2", "connection": "google-oauth2", "user_id": "1234567890",
        "isSocial": true, "access_token": IDP_TOKEN, "expires_in": 3599, "refresh_token": "hunter2" })
}

fn request(caller: Caller) -> SwapRequest {
    SwapRequest {
        caller,
        bearer: Some(BearerToken::new("hunter2.the.callers-token").unwrap()),
        scopes: None,
        clock_offset: 0,
    }
}

fn of(subject: &str) -> SwapRequest {
    let token = VerifiedToken::for_tests("auth0", subject, None);
    request(Caller::Verified(Arc::new(token)))
}

fn token(issued: &Issued) -> &str {
    match &issued.credential {
        Credential::Bearer(token) => token.expose(),
        Credential::Taskcluster { .. } | Credential::Basic { .. } => {
            panic!("a bearer token is expected")
        }
    }
}

/// The kind of an error and its text, which must not contain secrets.
fn classify(error: &FetchError) -> (&'static str, String) {
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hunter2"), "{text}");
    let kind = match error {
        FetchError::Refused(_) => "refused",
        FetchError::NotEntitled(_) => "not entitled",
        FetchError::SignIn { .. } => "sign-in",
        FetchError::Unavailable { .. } => "unavailable",
        FetchError::Misconfigured { .. } => "misconfigured",
        FetchError::BadAnswer(_) => "bad answer",
        FetchError::TooLarge(_) => "too large",
    };
    (kind, text)
}

async fn refused(fixture: &Fixture) -> (&'static str, String) {
    classify(&fixture.source.fetch(&of(SUBJECT)).await.unwrap_err())
}

#[tokio::test]
async fn the_user_is_read_with_the_management_token() {
    let mut fixture = tenant(|_| user(&json!([google()]))).await;
    let issued = fixture.source.fetch(&of(SUBJECT)).await.unwrap();
    assert_eq!(token(&issued), IDP_TOKEN);
    assert_eq!(issued.expires_at, Some(NOW.plus(Duration::from_mins(5))));

    let grant = fixture.peer.requests.recv().await.unwrap();
    let (_, form) = grant.split_once("\r\n\r\n").unwrap();
    let form: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect();
    let audience = format!("{}api/v2/", fixture.peer.url);
    for (name, value) in [
        ("grant_type", "client_credentials"),
        ("audience", &audience),
        ("scope", "read:users read:user_idp_tokens"),
        ("client_id", "hawkgate"),
        ("client_secret", SECRET),
    ] {
        assert!(form.contains(&(name.into(), value.into())), "{form:?}");
    }
    let lookup = fixture.peer.requests.recv().await.unwrap();
    let target = "/api/v2/users/google-oauth2%7C1234567890?fields=identities&include_fields=true";
    assert!(
        lookup.starts_with(&format!("GET {target} HTTP/1.1\r\n")),
        "{lookup}"
    );
    assert!(
        lookup.contains("uthorization: Bearer hunter2.management\r\n"),
        "{lookup}"
    );

    // The token serves the next user too.
    fixture.source.fetch(&of("github|1")).await.unwrap();
    let lookup = fixture.peer.requests.recv().await.unwrap();
    assert!(
        lookup.starts_with("GET /api/v2/users/github%7C1?"),
        "{lookup}"
    );
}

#[test]
fn the_subject_is_escaped_as_one_path_segment() {
    let tenant: Url = "https://example.auth0.com".parse().unwrap();
    for (subject, segment) in [
        ("auth0|5f7c8ec7", "auth0%7C5f7c8ec7"),
        ("a/b", "a%2Fb"),
        ("../clients", "..%2Fclients"),
        ("a?b#c&d=e", "a%3Fb%23c%26d%3De"),
        ("100%", "100%25"),
        ("%2e%2e", "%252e%252e"),
        ("a\\b;c:d@e", "a%5Cb%3Bc%3Ad%40e"),
        (
            "samlp|x|käthe m@example.com",
            "samlp%7Cx%7Ck%C3%A4the%20m%40example.com",
        ),
        ("a\r\nb\0", "a%0D%0Ab%00"),
        ("-._~", "-._~"),
        ("...", "..."),
    ] {
        let url = user_url(&tenant, subject).unwrap();
        let expected = format!(
            "https://example.auth0.com/api/v2/users/{segment}?fields=identities&include_fields=true"
        );
        assert_eq!(url.as_str(), expected, "{subject}");
    }
    let long = "x".repeat(513);
    for subject in ["", ".", "..", &long] {
        let error = user_url(&tenant, subject).unwrap_err();
        assert_eq!(classify(&error).0, "not entitled", "{subject}");
    }
}

#[tokio::test]
async fn the_configured_identity_is_selected() {
    let other =
        json!({ "provider": "auth0", "connection": "Users", "user_id": 7, "access_token": "no" });
    let same_provider =
        json!({ "provider": "google-oauth2", "connection": "google-work", "access_token": "no" });
    let numbered = json!({ "provider": "google-oauth2", "connection": "google-oauth2", "user_id": 123,
        "access_token": IDP_TOKEN, "profileData": { "name": "x" } });
    for identities in [
        json!([google()]),
        json!([other, google()]),
        json!([same_provider, other, numbered]),
    ] {
        let debug = identities.to_string();
        let fixture = tenant(move |_| user(&identities)).await;
        let issued = fixture.source.fetch(&of(SUBJECT)).await;
        assert_eq!(token(&issued.unwrap()), IDP_TOKEN, "{debug}");
    }
    let without = |name: &str| {
        let mut identity = google();
        identity.as_object_mut().unwrap().remove(name);
        identity
    };
    let with_token = |token: serde_json::Value| {
        let mut identity = google();
        identity["access_token"] = token;
        json!([identity])
    };
    for (identities, kind, cause) in [
        (
            json!([]),
            "not entitled",
            "no identity of provider \"google-oauth2\"",
        ),
        (
            json!([other, same_provider]),
            "not entitled",
            "connection \"google-oauth2\"",
        ),
        (json!([google(), google()]), "not entitled", "2 identities"),
        (
            json!([without("access_token")]),
            "bad answer",
            "read:user_idp_tokens",
        ),
        (with_token(json!(null)), "bad answer", "via = \"vault\""),
        (with_token(json!(5)), "bad answer", "not a string"),
        (with_token(json!("")), "bad answer", "empty"),
        (
            with_token(json!("hunter2\r\nX: y")),
            "bad answer",
            "not allowed in a header",
        ),
        (
            with_token(json!("hunter2".repeat(10_000))),
            "bad answer",
            "larger",
        ),
        (
            with_token(json!("hunter2".repeat(3_000))),
            "too large",
            "larger",
        ),
        (json!([without("provider")]), "bad answer", "shape"),
        (json!("none"), "bad answer", "shape"),
        (json!([5]), "bad answer", "shape"),
        (json!(null), "bad answer", "shape"),
    ] {
        let debug = identities.to_string();
        let fixture = tenant(move |_| user(&identities)).await;
        let (found, text) = refused(&fixture).await;
        assert_eq!(found, kind, "{text} {debug}");
        assert!(text.contains(cause), "{text}");
    }
}

#[tokio::test]
async fn user_lookup_errors_are_classified() {
    let error = |status: u16, code: &str| {
        Reply::json(
            status,
            &json!({ "statusCode": status, "error": "x", "message": "hunter2", "errorCode": code })
                .to_string(),
        )
    };
    for (reply, kind, cause) in [
        (
            error(404, "inexistent_user"),
            "not entitled",
            "404 (inexistent_user): the tenant has no such user",
        ),
        (
            error(400, "invalid_uri"),
            "not entitled",
            "subject is not a user",
        ),
        (
            error(400, "invalid_query_string"),
            "bad answer",
            "400 (invalid_query_string)",
        ),
        (
            error(403, "insufficient_scope"),
            "misconfigured",
            "grant the client read:users and read:user_idp_tokens",
        ),
        (
            error(500, "internal_error"),
            "unavailable",
            "500 (internal_error)",
        ),
        (error(503, "HUNTER2 hunter2"), "unavailable", "status 503"),
        (Reply::json(418, "hunter2"), "bad answer", "status 418"),
        (
            Reply::new(302, &[("Location", "/login?hunter2")], ""),
            "bad answer",
            "a redirect",
        ),
        (
            Reply::new(200, &[("Content-Type", "text/html")], "<p>hunter2"),
            "bad answer",
            "not JSON",
        ),
        (
            Reply::json(200, "{\"identities\":[{\"access_token\":\"hunter2\""),
            "bad answer",
            "shape",
        ),
        (Reply::json(200, "[]"), "bad answer", "shape"),
        (Reply::json(204, ""), "bad answer", "status 204"),
        (
            Reply::json(200, &"x".repeat(70_000)),
            "bad answer",
            "larger than",
        ),
        (
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec()),
            "unavailable",
            "127.0.0.1",
        ),
        (
            Reply::Bytes(b"SSH-2.0\r\n".to_vec()),
            "unavailable",
            "127.0.0.1",
        ),
    ] {
        let debug = format!("{reply:?}");
        let fixture = tenant(move |_| reply.clone()).await;
        let (found, text) = refused(&fixture).await;
        assert_eq!(found, kind, "{text}");
        assert!(text.contains(cause), "{text} for {debug:.60}");
    }
}

#[tokio::test]
async fn a_rate_limit_gives_retry_after() {
    let secs = |s: u64| Some(Duration::from_secs(s));
    for (headers, wait) in [
        (vec![("Retry-After", "7")], secs(7)),
        (
            vec![
                ("Retry-After", "7"),
                ("X-RateLimit-Reset", "1795201900"),
                DATE,
            ],
            secs(7),
        ),
        (vec![("X-RateLimit-Reset", "1795201839"), DATE], secs(30)),
        // Without a Date: relative to the local clock.
        (vec![("X-RateLimit-Reset", "1795201829")], secs(20)),
        (vec![("X-RateLimit-Reset", "1795201000"), DATE], secs(0)),
        (vec![("X-RateLimit-Reset", "soon")], secs(1)),
        (vec![], secs(1)),
    ] {
        let reply = Reply::new(429, &headers, "{}");
        let fixture = tenant(move |_| reply.clone()).await;
        let error = fixture.source.fetch(&of(SUBJECT)).await.unwrap_err();
        let FetchError::Unavailable { retry_after, cause } = error else {
            panic!("{error}");
        };
        assert!(cause.contains("429"), "{cause}");
        // Up to two seconds of jitter.
        let most = wait.map(|wait| wait + Duration::from_secs(2));
        assert!(
            (wait..=most).contains(&retry_after),
            "{retry_after:?} for {wait:?}"
        );
    }
}

#[tokio::test]
async fn a_rejected_management_token_is_replaced_once() {
    for (refusals, succeeds) in [(1, true), (2, false)] {
        let lookups = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lookups);
        let mut fixture = tenant(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) < refusals {
                Reply::json(401, r#"{"statusCode":401,"message":"hunter2"}"#)
            } else {
                user(&json!([google()]))
            }
        })
        .await;
        let result = fixture.source.fetch(&of(SUBJECT)).await;
        assert_eq!(result.is_ok(), succeeds, "{result:?}");
        if let Err(error) = result {
            let (kind, text) = classify(&error);
            assert_eq!(kind, "misconfigured");
            assert!(text.contains("rejects the token"), "{text}");
        }
        let mut grants = 0;
        while let Ok(request) = fixture.peer.requests.try_recv() {
            grants += usize::from(request.starts_with("POST /oauth/token "));
        }
        assert_eq!((grants, lookups.load(Ordering::SeqCst)), (2, 2));
    }
}

#[tokio::test]
async fn management_token_errors_are_never_the_callers_fault() {
    let grant = |scope: &str| {
        format!(
            r#"{{"access_token":"hunter2","token_type":"Bearer","expires_in":86400,"scope":"{scope}"}}"#
        )
    };
    for (status, body, kind, cause) in [
        (
            200,
            grant("read:users"),
            "bad answer",
            "lacks the scope read:user_idp_tokens",
        ),
        (200, grant(""), "bad answer", "lacks the scope read:users"),
        (
            200,
            r#"{"token_type":"Bearer"}"#.into(),
            "bad answer",
            "shape",
        ),
        (
            401,
            r#"{"error":"invalid_client"}"#.into(),
            "misconfigured",
            "client_id",
        ),
        (
            403,
            r#"{"error":"access_denied"}"#.into(),
            "misconfigured",
            "403 (access_denied)",
        ),
        (
            403,
            r#"{"error":"unauthorized_client"}"#.into(),
            "misconfigured",
            "allow this client the grant type",
        ),
        (429, "{}".into(), "unavailable", "429"),
        (500, "hunter2".into(), "unavailable", "500"),
    ] {
        let fixture = fixture(identities(), move |_| Reply::json(status, &body)).await;
        let (found, text) = refused(&fixture).await;
        assert_eq!(found, kind, "{text}");
        assert!(
            text.contains("token for the Management API") && text.contains(cause),
            "{text}"
        );
    }
}

#[tokio::test]
async fn only_verified_callers_are_served() {
    let digest = TokenDigest([7; 32]);
    let delegated = Caller::Delegated {
        issuer: "opaque".into(),
        digest,
        peer: None,
    };
    for via in [identities(), Via::Vault] {
        let mut fixture = fixture(via, |_| management_token()).await;
        for caller in [delegated.clone(), Caller::Anonymous] {
            let error = fixture.source.fetch(&request(caller)).await.unwrap_err();
            assert_eq!(classify(&error).0, "not entitled");
        }
        assert!(
            fixture.peer.requests.try_recv().is_err(),
            "no request was sent"
        );
        assert!(fixture.source.needs_sign_in() && !fixture.source.takes_password());
    }
}

#[tokio::test]
async fn narrowed_scopes_are_rejected() {
    for via in [identities(), Via::Vault] {
        let fixture = fixture(via, |_| management_token()).await;
        let narrowed = SwapRequest {
            scopes: Some(Arc::from(["read".to_owned()])),
            ..of(SUBJECT)
        };
        let error = fixture.source.fetch(&narrowed).await.unwrap_err();
        let (kind, text) = classify(&error);
        assert!(kind == "not entitled" && text.contains("narrow"), "{text}");
    }
}

#[tokio::test]
async fn token_vault_exchanges_the_callers_token() {
    let body = format!(
        r#"{{"access_token":"{IDP_TOKEN}","issued_token_type":"http://auth0.com/oauth/token-type/federated-connection-access-token","token_type":"Bearer","expires_in":90,"scope":"openid"}}"#
    );
    let mut fixture = fixture(Via::Vault, move |_| Reply::json(200, &body)).await;
    let issued = fixture.source.fetch(&of(SUBJECT)).await.unwrap();
    assert_eq!(token(&issued), IDP_TOKEN);
    assert_eq!(issued.expires_at, Some(NOW.plus(Duration::from_secs(90))));
    let sent = fixture.peer.requests.recv().await.unwrap();
    assert!(sent.starts_with("POST /oauth/token HTTP/1.1\r\n"), "{sent}");
    let (_, form) = sent.split_once("\r\n\r\n").unwrap();
    let form: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect();
    for (name, value) in [
        ("grant_type", VAULT_GRANT),
        ("subject_token", "hunter2.the.callers-token"),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("requested_token_type", VAULT_TOKEN),
        ("connection", "google-oauth2"),
        ("client_id", "hawkgate"),
    ] {
        assert!(form.contains(&(name.into(), value.into())), "{form:?}");
    }
}

#[tokio::test]
async fn token_vault_errors_are_classified() {
    for (status, code, kind, cause) in [
        (
            401,
            "federated_connection_refresh_token_not_found",
            "not entitled",
            "must connect the account",
        ),
        (
            401,
            "federated_connection_refresh_token_flow_failed",
            "not entitled",
            "connection \"google-oauth2\"",
        ),
        (401, "invalid_client", "misconfigured", "client_id"),
        (401, "access_denied", "not entitled", "401 (access_denied)"),
        (
            403,
            "unauthorized_client",
            "misconfigured",
            "allow this client the grant type",
        ),
        (400, "invalid_grant", "refused", "400 (invalid_grant)"),
        (
            400,
            "invalid_request",
            "bad answer",
            "400 (invalid_request)",
        ),
        (400, "Hunter2", "bad answer", "status 400"),
        (429, "too_many_requests", "unavailable", "429"),
        (502, "", "unavailable", "502"),
    ] {
        let body = format!(r#"{{"error":"{code}","error_description":"hunter2"}}"#);
        let fixture = fixture(Via::Vault, move |_| Reply::json(status, &body)).await;
        let (found, text) = refused(&fixture).await;
        assert_eq!(found, kind, "{text}");
        assert!(text.contains(cause), "{text}");
    }
}

#[tokio::test]
async fn an_unreachable_tenant_is_unavailable() {
    for via in [identities(), Via::Vault] {
        let closed = closed_port().await;
        let tls = no_tls().await;
        let stalled = peer(Reply::Stall(b"HTTP/1.1 200 OK\r\n".to_vec())).await;
        for (url, timeout) in [
            (&closed, Duration::from_secs(30)),
            (&tls, Duration::from_secs(30)),
            (&stalled.url, Duration::from_millis(50)),
        ] {
            let (source, _secret) = source(url, via.clone(), timeout);
            let error = source.fetch(&of(SUBJECT)).await.unwrap_err();
            assert_eq!(classify(&error).0, "unavailable", "{url}");
        }
    }
}

/// An https URL whose server speaks plain HTTP.
async fn no_tls() -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    url.parse().unwrap()
}

#[tokio::test]
async fn clock_skew_does_not_matter() {
    // A day behind and a day ahead: lifetimes are counted from the request.
    for date in [
        "Thu, 19 Nov 2026 19:10:09 GMT",
        "Sat, 21 Nov 2026 19:10:09 GMT",
    ] {
        let body =
            format!(r#"{{"access_token":"{IDP_TOKEN}","token_type":"Bearer","expires_in":90}}"#);
        let headers = [("Content-Type", "application/json"), ("Date", date)];
        let reply = Reply::new(200, &headers, &body);
        let fixture = fixture(Via::Vault, move |_| reply.clone()).await;
        let issued = fixture.source.fetch(&of(SUBJECT)).await.unwrap();
        assert_eq!(issued.expires_at, Some(NOW.plus(Duration::from_secs(90))));
    }
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let fixture = tenant(|_| user(&json!([google()]))).await;
    let issued = fixture.source.fetch(&of(SUBJECT)).await.unwrap();
    let debug = format!("{:?} {issued:?}", fixture.source);
    assert!(!debug.contains("hunter2"), "{debug}");
}
