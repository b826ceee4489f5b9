use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::remote::testing::{Reply, peer_with};

/// 2026-11-20T19:10:09Z.
const NOW: UnixMillis = UnixMillis::from_secs(1_795_201_809);
const TOKEN: &str = r#"{"access_token":"s3cret-opaque-token","token_type":"Bearer"}"#;
const CREDENTIALS: &str = r#"{"expires":"2026-12-20T19:09:39.000Z","credentials":{"clientId":"github/1|ada/app-Ab3dEf","accessToken":"s3cret-key"}}"#;

struct Fake {
    provider: TaskclusterProvider,
    replies: Arc<Mutex<HashMap<&'static str, Reply>>>,
    requests: mpsc::UnboundedReceiver<String>,
    root_url: Url,
}

impl Fake {
    async fn start() -> Self {
        let replies: Arc<Mutex<HashMap<&'static str, Reply>>> = Arc::default();
        let known = Arc::clone(&replies);
        let peer = peer_with(move |request| {
            let path = request.split(' ').nth(1).unwrap_or_default();
            let replies = known.lock().unwrap();
            replies
                .get(path)
                .cloned()
                .unwrap_or_else(|| Reply::json(404, "{}"))
        })
        .await;
        let settings = TaskclusterProviderSettings {
            root_url: peer.url.join("/ignored?too").unwrap(),
            client_id: "app".into(),
            ca: None,
            timeout: Duration::from_millis(500),
        };
        let fake = Self {
            provider: TaskclusterProvider::new(
                settings,
                &crate::network::Network::default(),
                ManualClock::at(NOW),
            )
            .unwrap(),
            replies,
            requests: peer.requests,
            root_url: peer.url,
        };
        fake.token(Reply::json(200, TOKEN));
        fake.credentials(Reply::json(200, CREDENTIALS));
        fake
    }

    fn token(&self, reply: Reply) {
        self.replies
            .lock()
            .unwrap()
            .insert("/login/oauth/token", reply);
    }

    fn credentials(&self, reply: Reply) {
        let path = "/login/oauth/credentials";
        self.replies.lock().unwrap().insert(path, reply);
    }
}

fn code() -> AuthorizationCode {
    AuthorizationCode {
        code: "s3cret-code".into(),
        code_verifier: "s3cret-verifier".into(),
        nonce: "n-1".into(),
        redirect_uri: "https://app.example/oauth2/callback".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_code_becomes_credentials() {
    let mut fake = Fake::start().await;
    let granted = fake.provider.redeem(&code()).await.unwrap();
    let debug = format!("{granted:?} {:?}", fake.provider);
    assert!(!debug.contains("s3cret"), "{debug}");
    assert_eq!(granted.subject, "github/1|ada/app-Ab3dEf");
    let SessionGrant::Taskcluster {
        lease,
        credentials,
        expires_at,
    } = granted.grant
    else {
        panic!("{debug}");
    };
    assert_eq!(expires_at, UnixMillis::from_secs(1_797_793_779));
    assert_eq!(lease.usable_until(), UnixMillis::from_secs(1_797_793_774));
    assert_eq!(credentials.access_token.expose(), "s3cret-key");
    assert!(credentials.certificate.is_none() && credentials.authorized_scopes.is_none());
    let token = fake.requests.recv().await.unwrap();
    assert!(
        token.starts_with("POST /login/oauth/token HTTP/1.1\r\n"),
        "{token}"
    );
    assert!(
        token.ends_with(
            "\r\n\r\ngrant_type=authorization_code&code=s3cret-code\
             &redirect_uri=https%3A%2F%2Fapp.example%2Foauth2%2Fcallback&client_id=app"
        ),
        "{token}"
    );
    let credentials = fake.requests.recv().await.unwrap();
    assert!(
        credentials.starts_with("GET /login/oauth/credentials HTTP/1.1\r\n")
            && credentials.contains("authorization: Bearer s3cret-opaque-token\r\n"),
        "{credentials}"
    );
}

#[tokio::test]
async fn the_deployments_clock_does_not_matter() {
    let fake = Fake::start().await;
    // An hour behind; the credentials have ten minutes left.
    fake.credentials(Reply::new(
        200,
        &[
            ("Content-Type", "application/json"),
            ("Date", "Fri, 20 Nov 2026 18:10:09 GMT"),
        ],
        CREDENTIALS.replace("2026-12-20T19:09:39", "2026-11-20T18:20:09"),
    ));
    let granted = fake.provider.redeem(&code()).await.unwrap();
    let SessionGrant::Taskcluster { expires_at, .. } = granted.grant else {
        panic!();
    };
    assert_eq!(expires_at, NOW.plus(Duration::from_mins(10)));
}

#[tokio::test]
async fn each_failure_of_the_deployment_has_its_class() {
    const INPUT_ERROR: &str =
        r#"{"name":"InputError","message":"Could not generate credentials for s3cret"}"#;
    const TYPE_ERROR: &str = r#"{"code":"ERR_INVALID_ARG_TYPE","name":"TypeError"}"#;
    let fake = Fake::start().await;
    let ok = || Reply::json(200, TOKEN);
    let expired = CREDENTIALS.replace("2026-12-20", "2026-11-20");
    let retry = [("Retry-After", "7")];
    let error = |code: &str| format!(r#"{{"error":"{code}","error_description":"s3cret"}}"#);
    for (token, credentials, expected, text) in [
        (
            Reply::json(403, &error("invalid_grant")),
            None,
            "Refused",
            "403",
        ),
        (
            Reply::json(400, &error("invalid_request")),
            None,
            "Misconfigured",
            "400",
        ),
        (
            Reply::json(501, &error("unsupported_grant_type")),
            None,
            "Misconfigured",
            "501",
        ),
        (Reply::json(500, ""), None, "Unavailable", "500"),
        (Reply::new(429, &retry, ""), None, "Unavailable", "7s"),
        (Reply::json(404, "s3cret"), None, "Misconfigured", "404"),
        (
            Reply::new(302, &[("Location", "/s3cret")], ""),
            None,
            "Misconfigured",
            "redirect",
        ),
        (
            Reply::json(200, r#"{"access_token":"s3cret"}"#),
            None,
            "Misconfigured",
            "token_type",
        ),
        (Reply::Stall(Vec::new()), None, "Unavailable", "within"),
        (Reply::Bytes(Vec::new()), None, "Unavailable", "127.0.0.1"),
        (
            ok(),
            Some(Reply::json(500, INPUT_ERROR)),
            "Refused",
            "InputError",
        ),
        (
            ok(),
            Some(Reply::json(500, TYPE_ERROR)),
            "Unavailable",
            "500",
        ),
        (
            ok(),
            Some(Reply::json(500, "<html>s3cret")),
            "Unavailable",
            "500",
        ),
        (ok(), Some(Reply::json(404, "{}")), "Misconfigured", "404"),
        (
            ok(),
            Some(Reply::json(200, "{\"s3cret\":1}")),
            "Misconfigured",
            "shape",
        ),
        (
            ok(),
            Some(Reply::json(200, &expired)),
            "InvalidToken",
            "already expired",
        ),
        (
            ok(),
            Some(Reply::Bytes(Vec::new())),
            "Unavailable",
            "127.0.0.1",
        ),
    ] {
        fake.token(token.clone());
        fake.credentials(credentials.clone().unwrap_or(Reply::json(200, CREDENTIALS)));
        let error = fake.provider.redeem(&code()).await.unwrap_err();
        let found = format!("{error} {error:?}");
        assert!(!found.contains("s3cret"), "{found}");
        assert!(
            format!("{error:?}").starts_with(expected) && found.contains(text),
            "{token:?} {credentials:?} {found}"
        );
    }
}

#[tokio::test]
async fn a_clientid_that_quotes_the_token_is_refused() {
    let fake = Fake::start().await;
    let quoting = CREDENTIALS.replace("github/1|ada", "s3cret-opaque-token");
    fake.credentials(Reply::json(200, &quoting));
    let error = fake.provider.redeem(&code()).await.unwrap_err();
    assert!(
        matches!(&error, ProviderError::Misconfigured(_)),
        "{error:?}"
    );
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_deployment_signs_in_and_does_nothing_more() {
    let fake = Fake::start().await;
    let found = fake.provider.endpoints().await.unwrap();
    assert_eq!(format!("{}/", found.issuer), fake.root_url.as_str());
    assert_eq!(
        found.authorization,
        fake.root_url.join("/login/oauth/authorize").unwrap()
    );
    assert!(found.end_session.is_none() && !found.iss_required);
    let token = "s3cret".into();
    let refused = fake.provider.refresh(&token, "ada").await.unwrap_err();
    assert!(matches!(refused, ProviderError::Refused(_)));
    fake.provider.revoke(&token).await.unwrap();
    assert!(fake.provider.verify_logout_token("x").await.is_err());
}
