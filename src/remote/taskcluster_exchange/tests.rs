use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::{ManualClock, SharedClock};
use crate::credential::{CredentialSource, IdentityKey};
use crate::hawk::SignedRequest;
use crate::remote::http_client::HttpClientOptions;
use crate::remote::taskcluster_login::LoginSource;
use crate::remote::taskcluster_oauth::OauthSource;
use crate::remote::testing::{Peer, Reply, closed_port, peer};
use crate::token::Caller;

/// 2026-11-20T19:10:09Z.
const NOW: UnixMillis = UnixMillis::from_secs(1_795_201_809);
const TOKEN: &str = "hunter2.bearer.token";
const CERTIFICATE: &str =
    r#"{"version":1,"scopes":["assume:x"],"start":1,"expiry":2,"seed":"seed","signature":"sig="}"#;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Login,
    Oauth,
}

fn source(kind: Kind, url: &Url) -> Arc<dyn CredentialSource> {
    let client = HttpClient::new(&HttpClientOptions {
        timeout: Duration::from_secs(30),
        max_bytes: MAX_RESPONSE_BYTES,
        ca: None,
        network: crate::network::Network::default(),
    })
    .unwrap();
    source_with(kind, url, client)
}

fn source_with(kind: Kind, url: &Url, client: HttpClient) -> Arc<dyn CredentialSource> {
    let clock: SharedClock = ManualClock::at(NOW);
    match kind {
        Kind::Login => Arc::new(LoginSource::new(url.clone(), client, clock)),
        Kind::Oauth => Arc::new(OauthSource::new(url, client, clock)),
    }
}

fn request() -> SwapRequest {
    let bearer = BearerToken::new(TOKEN).unwrap();
    SwapRequest {
        caller: Caller::Delegated {
            issuer: "taskcluster".into(),
            digest: bearer.digest(),
            peer: None,
        },
        bearer: Some(bearer),
        scopes: None,
        clock_offset: 0,
    }
}

async fn fetch(kind: Kind, reply: Reply) -> Result<Issued, FetchError> {
    let Peer { url, requests } = peer(reply).await;
    let result = source(kind, &url).fetch(&request()).await;
    drop(requests);
    result
}

fn response_body(expires: &str, more: &str) -> String {
    format!(
        r#"{{"expires":"{expires}","credentials":{{"clientId":"mozilla-auth0/ad|x","accessToken":"hunter2-key"{more}}}}}"#
    )
}

fn with_certificate() -> String {
    let text = serde_json::to_string(CERTIFICATE).unwrap();
    response_body(
        "2026-11-20T19:24:39.000Z",
        &format!(r#","certificate":{text}"#),
    )
}

/// The Hawk header that the credential produces.
fn signed(issued: &Issued) -> String {
    let Credential::Taskcluster { signer, .. } = &issued.credential else {
        panic!("{issued:?}");
    };
    signer
        .authorization(&SignedRequest {
            at: NOW,
            nonce: "nonce",
            method: "GET",
            target: "/",
            host: "tc.example",
            port: 443,
            payload_hash: None,
        })
        .unwrap()
}

#[tokio::test]
async fn the_bearer_token_is_sent_to_the_right_url() {
    for (kind, url, line) in [
        (
            Kind::Login,
            "v1/oidc-credentials/mozilla-auth0",
            "GET /v1/oidc-credentials/mozilla-auth0 HTTP/1.1\r\n",
        ),
        (Kind::Oauth, "", "GET /login/oauth/credentials HTTP/1.1\r\n"),
        (
            Kind::Oauth,
            "old/?a=b#c",
            "GET /login/oauth/credentials HTTP/1.1\r\n",
        ),
    ] {
        let mut peer = peer(Reply::json(200, &with_certificate())).await;
        let url = peer.url.join(url).unwrap();
        source(kind, &url).fetch(&request()).await.unwrap();
        let request = peer.requests.recv().await.unwrap();
        assert!(request.starts_with(line), "{request}");
        assert!(
            request.contains(&format!(": Bearer {TOKEN}\r\n")),
            "{request}"
        );
    }
}

#[tokio::test]
async fn credentials_come_with_and_without_a_certificate() {
    let object = response_body(
        "2026-11-20T19:24:39.000Z",
        &format!(r#","certificate":{CERTIFICATE}"#),
    );
    let none = [
        response_body("2026-11-20T19:24:39.000Z", ""),
        response_body("2026-11-20T19:24:39.000Z", r#","certificate":null"#),
        response_body("2026-11-20T19:24:39.000Z", r#","certificate":"""#),
    ];
    for kind in [Kind::Login, Kind::Oauth] {
        for body in [with_certificate(), object.clone()] {
            let issued = fetch(kind, Reply::json(200, &body)).await.unwrap();
            assert!(signed(&issued).contains("ext=\""), "{body}");
        }
        for body in &none {
            let issued = fetch(kind, Reply::json(200, body)).await.unwrap();
            let header = signed(&issued);
            assert!(!header.contains("ext="), "{body}");
            assert!(header.contains(r#"id="mozilla-auth0/ad|x""#), "{header}");
        }
    }
}

#[tokio::test]
async fn the_remaining_lifetime_is_measured_by_the_exchanges_date() {
    for (expires, date, left) in [
        // The clocks agree.
        (
            "2026-11-20T19:24:39.000Z",
            Some("Fri, 20 Nov 2026 19:10:09 GMT"),
            870,
        ),
        // The local clock is three hours fast, then a year slow: still 14.5 minutes.
        (
            "2026-11-20T16:24:39.000Z",
            Some("Fri, 20 Nov 2026 16:10:09 GMT"),
            870,
        ),
        (
            "2027-11-20T19:24:39.000Z",
            Some("Sat, 20 Nov 2027 19:10:09 GMT"),
            870,
        ),
        // Other date formats.
        (
            "2026-11-20T20:24:39+01:00",
            Some("Fri, 20 Nov 2026 19:10:09 GMT"),
            870,
        ),
        // Already past, because it is reported 30 s early.
        (
            "2026-11-20T19:09:49.000Z",
            Some("Fri, 20 Nov 2026 19:10:09 GMT"),
            -20,
        ),
        // No usable `Date`.
        ("2026-11-20T19:24:39.000Z", None, 870),
        ("2026-11-20T19:24:39.000Z", Some("whenever"), 870),
    ] {
        let mut headers = vec![("Content-Type", "application/json; charset=utf-8")];
        headers.extend(date.map(|date| ("Date", date)));
        let reply = Reply::new(200, &headers, response_body(expires, ""));
        let issued = fetch(Kind::Login, reply).await.unwrap();
        assert_eq!(
            issued.expires_at,
            Some(NOW.offset_by(left * 1000)),
            "{expires} {date:?}"
        );
    }
}

#[derive(Debug, PartialEq)]
enum ErrorKind {
    Refused,
    Unavailable(Option<u64>),
    BadAnswer,
    TooLarge,
}

fn error_kind(error: &FetchError) -> ErrorKind {
    match error {
        FetchError::Refused(_) => ErrorKind::Refused,
        FetchError::Unavailable { retry_after, .. } => {
            ErrorKind::Unavailable(retry_after.map(|after| after.as_secs()))
        }
        FetchError::BadAnswer(_) => ErrorKind::BadAnswer,
        FetchError::TooLarge(_) => ErrorKind::TooLarge,
        FetchError::NotEntitled(_)
        | FetchError::SignIn { .. }
        | FetchError::Misconfigured { .. } => {
            panic!("{error}")
        }
    }
}

const CODE: &str =
    r#"{"code":"InputError","message":"hunter2","requestInfo":{"payload":"hunter2"}}"#;
const NAME: &str = r#"{"name":"InputError","message":"Could not generate hunter2"}"#;
const TYPE_ERROR: &str = r#"{"code":"ERR_INVALID_ARG_TYPE","name":"TypeError"}"#;

#[tokio::test]
async fn each_error_response_is_classified() {
    use Kind::{Login, Oauth};
    let html = || Reply::new(502, &[("Content-Type", "text/html")], "<h1>hunter2</h1>");
    let waits = |status| {
        let headers = [("Retry-After", "17"), ("Content-Type", "application/json")];
        Reply::new(status, &headers, "{}")
    };
    let moved = || Reply::new(302, &[("Location", "/elsewhere?hunter2")], "");
    for (kind, reply, expected) in [
        (Login, Reply::json(400, CODE), ErrorKind::Refused),
        (Login, Reply::json(400, NAME), ErrorKind::Refused),
        (Login, Reply::json(400, "{}"), ErrorKind::BadAnswer),
        (
            Login,
            Reply::new(400, &[], "InputError"),
            ErrorKind::BadAnswer,
        ),
        (Login, Reply::json(500, CODE), ErrorKind::Unavailable(None)),
        (Login, Reply::json(401, CODE), ErrorKind::BadAnswer),
        (Login, Reply::json(403, "{}"), ErrorKind::BadAnswer),
        (
            Login,
            Reply::json(404, r#"{"error":"Not found"}"#),
            ErrorKind::BadAnswer,
        ),
        (Login, waits(429), ErrorKind::Unavailable(Some(17))),
        (Login, waits(503), ErrorKind::Unavailable(Some(17))),
        (Login, html(), ErrorKind::Unavailable(None)),
        (Login, moved(), ErrorKind::BadAnswer),
        (Login, Reply::json(204, ""), ErrorKind::BadAnswer),
        (
            Login,
            Reply::json(201, &with_certificate()),
            ErrorKind::BadAnswer,
        ),
        (Oauth, Reply::json(500, NAME), ErrorKind::Refused),
        (
            Oauth,
            Reply::json(500, TYPE_ERROR),
            ErrorKind::Unavailable(None),
        ),
        (Oauth, Reply::json(500, "{}"), ErrorKind::Unavailable(None)),
        (
            Oauth,
            Reply::new(500, &[], "InputError"),
            ErrorKind::Unavailable(None),
        ),
        (Oauth, Reply::json(503, NAME), ErrorKind::Unavailable(None)),
        (Oauth, Reply::json(400, NAME), ErrorKind::BadAnswer),
        (Oauth, Reply::json(404, "{}"), ErrorKind::BadAnswer),
        (Oauth, waits(429), ErrorKind::Unavailable(Some(17))),
        (Oauth, html(), ErrorKind::Unavailable(None)),
        (Oauth, moved(), ErrorKind::BadAnswer),
    ] {
        let case = format!("{kind:?} {}", String::from_utf8_lossy(bytes(&reply)));
        let error = fetch(kind, reply).await.expect_err(&case);
        assert_eq!(error_kind(&error), expected, "{case}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
#[allow(clippy::too_many_lines)]
async fn a_200_without_credentials_is_a_bad_answer() {
    let json = [("Content-Type", "application/json")];
    let good = with_certificate();
    let many = (0..200)
        .map(|n| format!("queue:create-task:highest:worker-pool-{n}"))
        .collect::<Vec<_>>();
    let certificate = serde_json::json!({ "version": 1, "scopes": many }).to_string();
    let huge_certificate = serde_json::json!({ "x": "y".repeat(20_000) }).to_string();
    let certified = |certificate: &str| {
        let text = serde_json::to_string(certificate).unwrap();
        response_body(
            "2026-11-20T19:24:39.000Z",
            &format!(r#","certificate":{text}"#),
        )
    };
    for (reply, expected) in [
        (
            Reply::new(200, &[("Content-Type", "text/html")], &good),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &[("Content-Type", "text/html")], "<html>hunter2"),
            ErrorKind::BadAnswer,
        ),
        (Reply::new(200, &json, ""), ErrorKind::BadAnswer),
        (Reply::new(200, &json, "null"), ErrorKind::BadAnswer),
        (Reply::new(200, &json, "[]"), ErrorKind::BadAnswer),
        (
            Reply::new(200, &json, &good[..good.len() - 9]),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &json, "[".repeat(60_000)),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &json, b"\"hunter2\xff\""),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &json, r#"{"credentials":{"clientId":"hunter2"}}"#),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &json, response_body("tomorrow hunter2", "")),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &json, response_body("", "")),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(
                200,
                &json,
                response_body("2026-11-20T19:24:39Z", r#","accessToken":"hunter2""#),
            ),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &json, certified("hunter2")),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &json, certified("[]")),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(
                200,
                &json,
                response_body("2026-11-20T19:24:39Z", r#","certificate":7"#),
            ),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(
                200,
                &json,
                response_body("2026-11-20T19:24:39Z", "").replace("hunter2-key", ""),
            ),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(
                200,
                &json,
                response_body("2026-11-20T19:24:39Z", "").replace("ad|x", r"a\r\nb"),
            ),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(
                200,
                &json,
                response_body("2026-11-20T19:24:39Z", "").replace("ad|x", r#"a\"b"#),
            ),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::new(200, &json, certified(&certificate)),
            ErrorKind::TooLarge,
        ),
        (
            Reply::new(200, &json, certified(&huge_certificate)),
            ErrorKind::TooLarge,
        ),
        (
            Reply::new(200, &json, vec![b' '; MAX_RESPONSE_BYTES + 1]),
            ErrorKind::BadAnswer,
        ),
        (
            Reply::Bytes(b"SSH-2.0-hunter2\r\n".to_vec()),
            ErrorKind::Unavailable(None),
        ),
        (
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
            ErrorKind::Unavailable(None),
        ),
    ] {
        for kind in [Kind::Login, Kind::Oauth] {
            let case = String::from_utf8_lossy(bytes(&reply)).into_owned();
            let case = &case[..case.len().min(300)];
            let error = fetch(kind, reply.clone()).await.expect_err(case);
            assert_eq!(error_kind(&error), expected, "{case}: {error}");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}

fn bytes(reply: &Reply) -> &[u8] {
    match reply {
        Reply::Bytes(bytes) | Reply::Stall(bytes) => bytes,
    }
}

#[tokio::test]
async fn a_response_at_the_size_limit_is_read() {
    let mut body = with_certificate();
    body.push_str(&" ".repeat(MAX_RESPONSE_BYTES - body.len()));
    fetch(Kind::Login, Reply::json(200, &body)).await.unwrap();
}

#[tokio::test]
async fn no_connection_or_no_response_is_unavailable() {
    let error = source(Kind::Login, &closed_port().await)
        .fetch(&request())
        .await;
    assert_eq!(
        error_kind(&error.unwrap_err()),
        ErrorKind::Unavailable(None)
    );
    let client = HttpClient::new(&HttpClientOptions {
        timeout: Duration::from_millis(50),
        max_bytes: MAX_RESPONSE_BYTES,
        ca: None,
        network: crate::network::Network::default(),
    })
    .unwrap();
    let silent = peer(Reply::Stall(Vec::new())).await;
    for kind in [Kind::Login, Kind::Oauth] {
        let error = source_with(kind, &silent.url, client.clone())
            .fetch(&request())
            .await;
        assert_eq!(
            error_kind(&error.unwrap_err()),
            ErrorKind::Unavailable(None)
        );
    }
}

#[tokio::test]
async fn the_token_is_not_sent_over_plain_http_to_another_machine() {
    let url = "http://login.example.com/".parse().unwrap();
    let error = source(Kind::Login, &url)
        .fetch(&request())
        .await
        .unwrap_err();
    assert_eq!(error_kind(&error), ErrorKind::BadAnswer);
}

#[test]
fn the_error_code_is_truncated_and_sanitised() {
    let kind_of = |body: &str| {
        kind(&HttpResponse {
            status: StatusCode::BAD_REQUEST,
            headers: HeaderMap::new(),
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
        })
    };
    let unregistered = Some(crate::peer_text::UNREGISTERED);
    for text in [
        "A\\r\\n\\u001b[31mB",
        "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "hunter2",
        "NotFound",
    ] {
        let body = format!(r#"{{"code":"{text}","name":7}}"#);
        assert_eq!(kind_of(&body), unregistered);
    }
    assert_eq!(
        kind_of(r#"{"code":404,"name":"ResourceNotFound"}"#),
        Some("ResourceNotFound")
    );
    assert_eq!(
        kind_of(r#"{"code":"X","name":"InputError"}"#),
        Some("InputError")
    );
    assert_eq!(kind_of(r#"{"code":{"deep":["InputError"]}}"#), None);
    assert_eq!(kind_of("[]"), None);
}

#[test]
fn cache_keys_are_bound_to_the_token() {
    let url = "https://tc.example/".parse().unwrap();
    let key = IdentityKey::random().unwrap();
    for kind in [Kind::Login, Kind::Oauth] {
        let source = source(kind, &url);
        let identity = |token: Option<&str>| {
            let mut hasher = key.hasher();
            let request = SwapRequest {
                bearer: token.map(|token| BearerToken::new(token).unwrap()),
                ..request()
            };
            source.identity(&request, &mut hasher)?;
            Ok::<_, FetchError>(hasher.finish())
        };
        assert_eq!(
            identity(Some("a.b")).unwrap(),
            identity(Some("a.b")).unwrap()
        );
        assert_ne!(
            identity(Some("a.b")).unwrap(),
            identity(Some("a.c")).unwrap()
        );
        assert!(matches!(identity(None), Err(FetchError::NotEntitled(_))));
    }
}
