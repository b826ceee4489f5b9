use std::sync::{Arc, Mutex};

use url::Url;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::remote::http_client::HttpClientOptions;
use crate::remote::settings::{OauthClient, PasswordGrant};
use crate::remote::testing::{Peer, Reply, closed_port, peer, peer_with};
use crate::secret::SecretRef;

const NOW: UnixMillis = UnixMillis::from_secs(1_795_201_809);
const USER: &str = "käthe@example.com";
const PASSWORD: &str = "hunter2: größe & more";
const CLIENT_SECRET: &str = "hunter2-client-secret";
const RECOVERY_CODE: &str = "QSVBD3RLYHLB2R6LSM3BCLEV";

struct Fixture {
    source: PasswordSource,
    clock: Arc<ManualClock>,
    peer: Peer,
    /// Keeps the secret's file alive.
    #[allow(dead_code)]
    secret: tempfile::TempDir,
}

/// A test's change to the settings.
type SettingsChange = fn(&mut PasswordGrant);

fn unchanged(_: &mut PasswordGrant) {}

fn source(
    url: &Url,
    timeout: Duration,
    change: SettingsChange,
) -> (PasswordSource, Arc<ManualClock>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, CLIENT_SECRET).unwrap();
    let mut settings = PasswordGrant {
        token_url: url.join("/oauth/token").unwrap(),
        client: OauthClient {
            id: "hawkgate".into(),
            proof: ClientProof::SecretBasic(SecretRef::File(file)),
        },
        realm: None,
        audience: Some("https://api.example".into()),
        scopes: vec!["openid".into(), "read".into()],
        mfa_url: url.join("/mfa/").unwrap(),
        forward_client_ip: false,
    };
    change(&mut settings);
    let client = HttpClient::new(&HttpClientOptions {
        timeout,
        max_bytes: super::super::oauth::MAX_RESPONSE_BYTES,
        ca: None,
        network: crate::network::Network::default(),
    })
    .unwrap();
    let clock = ManualClock::at(NOW);
    let source = PasswordSource::new(&settings, client, clock.clone()).unwrap();
    (source, clock, folder)
}

async fn fixture_with(
    change: SettingsChange,
    reply: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> Fixture {
    let peer = peer_with(move |request| reply(&Received::read(request))).await;
    let (source, clock, secret) = source(&peer.url, Duration::from_secs(30), change);
    Fixture {
        source,
        clock,
        peer,
        secret,
    }
}

async fn fixture(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Fixture {
    fixture_with(unchanged, reply).await
}

/// A request as received by the provider.
#[derive(Debug)]
struct Received {
    target: String,
    head: String,
    body: String,
    form: Vec<(String, String)>,
}

impl Received {
    fn read(request: &str) -> Self {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let form = url::form_urlencoded::parse(body.as_bytes());
        Self {
            target: head.split(' ').nth(1).unwrap().into(),
            head: head.into(),
            body: body.into(),
            form: form.into_owned().collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.form.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} twice");
        value
    }

    /// The last part of the grant type.
    fn grant(&self) -> &str {
        let grant = self.get("grant_type").unwrap_or_default();
        grant.rsplit('/').next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

fn granted(token: &str) -> Reply {
    granted_with(token, "")
}

/// `more` must start with a comma.
fn granted_with(token: &str, more: &str) -> Reply {
    let body =
        format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":86400{more}}}"#);
    Reply::json(200, &body)
}

fn denied(status: u16, code: &str) -> Reply {
    let body = format!(
        r#"{{"error":"{code}","error_description":"hunter2","mfa_token":"hunter2-mfa-token"}}"#
    );
    Reply::json(status, &body)
}

fn swap_request(password: &str, code: Option<&str>) -> SwapRequest {
    swap_request_from(USER, password, code, Some("127.0.0.1".parse().unwrap()))
}

fn swap_request_from(
    user: &str,
    password: &str,
    code: Option<&str>,
    peer: Option<IpAddr>,
) -> SwapRequest {
    SwapRequest {
        caller: Caller::Password {
            credentials: Arc::new(BasicCredentials::for_tests(user, password, code)),
            peer,
        },
        bearer: None,
        scopes: None,
        clock_offset: 0,
    }
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
    assert!(
        !text.contains("hunter2") && !text.contains(RECOVERY_CODE),
        "{text}"
    );
    let kind = match error {
        FetchError::Refused(_) => "refused",
        FetchError::NotEntitled(_) => "not entitled",
        FetchError::Unavailable { .. } => "unavailable",
        FetchError::Misconfigured { .. } => "misconfigured",
        FetchError::BadAnswer(_) => "bad answer",
        FetchError::TooLarge(_) => "too large",
        FetchError::SignIn { problem, .. } => match problem {
            SignInProblem::Password => "password",
            SignInProblem::CodeRequired => "code required",
            SignInProblem::CodeRefused => "code refused",
            SignInProblem::Unconfirmed => "unconfirmed",
            SignInProblem::NoFactor => "no factor",
            SignInProblem::TooManyAttempts => "too many attempts",
        },
    };
    (kind, text)
}

impl Fixture {
    async fn fetch(&self, password: &str, code: Option<&str>) -> Result<Issued, FetchError> {
        self.source.fetch(&swap_request(password, code)).await
    }

    /// The error's kind.
    async fn refused(&self, password: &str, code: Option<&str>) -> &'static str {
        classify(&self.fetch(password, code).await.unwrap_err()).0
    }

    async fn received(&mut self) -> Received {
        Received::read(&self.peer.requests.recv().await.unwrap())
    }

    /// The targets and grants of the requests so far.
    fn history(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(request) = self.peer.requests.try_recv() {
            let received = Received::read(&request);
            all.push(match received.get("grant_type") {
                Some(_) => received.grant().to_owned(),
                None => received.target.clone(),
            });
        }
        all
    }
}

#[tokio::test]
async fn the_password_goes_to_the_provider_with_a_scope() {
    let mut fixture = fixture(|_| granted("the-token")).await;
    let issued = fixture.fetch(PASSWORD, None).await.unwrap();
    assert_eq!(token(&issued), "the-token");
    // Used for at most five minutes, however long the token lives.
    assert_eq!(issued.expires_at, Some(NOW.plus(MAX_TOKEN_LIFETIME)));
    let received = fixture.received().await;
    assert!(
        received.head.starts_with("POST /oauth/token HTTP/1.1\r\n"),
        "{received:?}"
    );
    for (name, value) in [
        ("grant_type", "password"),
        ("username", USER),
        ("password", PASSWORD),
        ("scope", "openid read"),
        ("audience", "https://api.example"),
    ] {
        assert_eq!(received.get(name), Some(value));
    }
    assert_eq!(received.get("realm"), None);
    assert_eq!(received.header("auth0-forwarded-for"), None);
    assert!(
        received
            .header("authorization")
            .unwrap()
            .starts_with("Basic ")
    );
}

#[tokio::test]
async fn the_realm_and_the_callers_address_are_sent() {
    let change = |settings: &mut PasswordGrant| {
        settings.realm = Some("employees".into());
        settings.audience = None;
        settings.forward_client_ip = true;
    };
    let mut fixture = fixture_with(change, |_| granted("t")).await;
    for peer in [Some("10.1.2.3"), Some("2001:db8::7"), None] {
        let address = peer.map(|p| p.parse().unwrap());
        let request = swap_request_from(USER, PASSWORD, None, address);
        fixture.source.fetch(&request).await.unwrap();
        let received = fixture.received().await;
        assert_eq!(
            received.get("grant_type"),
            Some("http://auth0.com/oauth/grant-type/password-realm")
        );
        assert_eq!(
            (received.get("realm"), received.get("audience")),
            (Some("employees"), None)
        );
        assert_eq!(received.header("auth0-forwarded-for"), peer);
    }
    // A public client is not trusted with the address, so it is not sent.
    let public = |settings: &mut PasswordGrant| {
        settings.forward_client_ip = true;
        settings.client.proof = ClientProof::Public;
    };
    let mut fixture = fixture_with(public, |_| granted("t")).await;
    fixture.fetch(PASSWORD, None).await.unwrap();
    assert_eq!(fixture.received().await.header("auth0-forwarded-for"), None);
}

#[tokio::test]
async fn a_short_lived_token_is_used_only_until_it_expires() {
    let body = r#"{"access_token":"t","token_type":"Bearer","expires_in":30}"#;
    let fixture = fixture(move |_| Reply::json(200, body)).await;
    let issued = fixture.fetch(PASSWORD, None).await.unwrap();
    assert_eq!(issued.expires_at, Some(NOW.plus(Duration::from_secs(30))));
}

/// Checks the kind and the cause of the error for each reply to the password.
async fn assert_classified(cases: impl IntoIterator<Item = (Reply, &'static str, &'static str)>) {
    for (reply, kind, cause) in cases {
        let debug = format!("{reply:?}");
        let fixture = fixture(move |_| reply.clone()).await;
        let (found, text) = classify(&fixture.fetch(PASSWORD, None).await.unwrap_err());
        assert_eq!(found, kind, "{text}");
        assert!(text.contains(cause), "{text} for {debug:.80}");
    }
}

#[tokio::test]
async fn user_errors_are_classified() {
    assert_classified([
        // An unknown user, a wrong password and a blocked account look the same to callers.
        (
            denied(403, "invalid_grant"),
            "password",
            "403 (invalid_grant)",
        ),
        (
            denied(400, "invalid_grant"),
            "password",
            "400 (invalid_grant)",
        ),
        (
            denied(401, "password_leaked"),
            "password",
            "401 (password_leaked)",
        ),
        (
            denied(403, "access_denied"),
            "password",
            "403 (access_denied)",
        ),
        (
            denied(403, "unauthorized"),
            "password",
            "403 (unauthorized)",
        ),
        (
            denied(429, "too_many_attempts"),
            "too many attempts",
            "429 (too_many_attempts)",
        ),
        (
            denied(400, "association_required"),
            "no factor",
            "400 (association_required)",
        ),
        (
            denied(400, "unsupported_challenge_type"),
            "no factor",
            "400",
        ),
        (
            Reply::json(403, r#"{"error":"mfa_required"}"#),
            "bad answer",
            "no mfa_token",
        ),
    ])
    .await;
}

#[tokio::test]
async fn operator_errors_are_classified() {
    assert_classified([
        (
            denied(403, "unauthorized_client"),
            "misconfigured",
            "allow this client the grant type",
        ),
        (denied(401, "invalid_client"), "misconfigured", "client_id"),
        (denied(401, "access_denied"), "misconfigured", "client_id"),
        (
            denied(400, "unsupported_grant_type"),
            "misconfigured",
            "400 (unsupported_grant_type)",
        ),
        (
            denied(400, "invalid_request"),
            "misconfigured",
            "400 (invalid_request)",
        ),
        (
            denied(400, "invalid_scope"),
            "misconfigured",
            "400 (invalid_scope)",
        ),
        (denied(400, "Hunter2 hunter2"), "bad answer", "status 400"),
        (denied(429, "too_many_requests"), "unavailable", "429"),
        (denied(500, "invalid_grant"), "unavailable", "500"),
        (denied(503, ""), "unavailable", "503"),
        (Reply::json(418, "hunter2"), "bad answer", "418"),
        (
            Reply::new(302, &[("Location", "/hunter2")], ""),
            "bad answer",
            "redirects are not followed",
        ),
        (
            Reply::new(200, &[("Content-Type", "text/html")], "hunter2"),
            "bad answer",
            "not JSON",
        ),
        (
            Reply::json(200, "{\"access_token\":\"hunter2\""),
            "bad answer",
            "shape",
        ),
        (
            Reply::json(200, r#"{"access_token":"hunter2","token_type":"mac"}"#),
            "bad answer",
            "mac",
        ),
        (granted("hunter2 with blanks"), "bad answer", "header"),
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
    ])
    .await;
}

#[tokio::test]
async fn a_block_by_the_provider_is_passed_on_with_its_retry_after() {
    for (headers, secs) in [
        (vec![("Retry-After", "600")], 600),
        (
            vec![
                ("X-RateLimit-Reset", "1795201839"),
                ("Date", "Fri, 20 Nov 2026 19:10:09 GMT"),
            ],
            30,
        ),
        (vec![], 60),
    ] {
        let reply = Reply::new(429, &headers, r#"{"error":"too_many_attempts"}"#);
        let fixture = fixture(move |_| reply.clone()).await;
        let error = fixture.fetch(PASSWORD, None).await.unwrap_err();
        let FetchError::SignIn { retry_after, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(secs)));
    }
}

#[tokio::test]
async fn an_unreachable_provider_is_unavailable() {
    let closed = closed_port().await;
    let stalled = peer(Reply::Stall(b"HTTP/1.1 200 OK\r\n".to_vec())).await;
    for (url, timeout) in [
        (&closed, Duration::from_secs(30)),
        (&stalled.url, Duration::from_millis(50)),
    ] {
        let (source, _clock, _secret) = source(url, timeout, unchanged);
        for _ in 0..30 {
            // The provider did not check the password, so the attempt does not count.
            let error = source
                .fetch(&swap_request(PASSWORD, None))
                .await
                .unwrap_err();
            assert_eq!(classify(&error).0, "unavailable");
            if timeout < Duration::from_secs(1) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn the_attempt_limit_ignores_the_spelling_of_the_username() {
    let mut fixture = fixture(|received| {
        if received.get("password") == Some("right") {
            granted("t")
        } else {
            denied(403, "invalid_grant")
        }
    })
    .await;
    for (guess, user) in ["anna", "Anna", "ANNA", " anna", "anna "]
        .iter()
        .enumerate()
    {
        let request = swap_request_from(user, &format!("guess-{guess}"), None, None);
        let error = fixture.source.fetch(&request).await.unwrap_err();
        assert_eq!(classify(&error).0, "password");
    }
    let right = swap_request_from("anna", "right", None, None);
    let error = fixture.source.fetch(&right).await.unwrap_err();
    assert_eq!(classify(&error).0, "too many attempts");
    let FetchError::SignIn { retry_after, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(30)));
    assert_eq!(
        fixture.history().len(),
        5,
        "the sixth attempt is not sent to the provider"
    );
    fixture.clock.advance(Duration::from_secs(30));
    fixture.source.fetch(&right).await.unwrap();
}

#[tokio::test]
async fn the_code_is_sent_with_the_mfa_token() {
    for (code, grant, name) in [
        ("123456", "mfa-otp", "otp"),
        (RECOVERY_CODE, "mfa-recovery-code", "recovery_code"),
        // Longer than any one-time code.
        ("12345678901234567890", "mfa-recovery-code", "recovery_code"),
    ] {
        let mut fixture = fixture(|received| match received.grant() {
            "password" => denied(403, "mfa_required"),
            _ => granted("t"),
        })
        .await;
        let issued = fixture.fetch(PASSWORD, Some(code)).await.unwrap();
        assert_eq!(token(&issued), "t");
        assert_eq!(fixture.received().await.grant(), "password");
        let second = fixture.received().await;
        assert_eq!(second.grant(), grant);
        assert_eq!(second.get(name), Some(code));
        assert_eq!(second.get("mfa_token"), Some("hunter2-mfa-token"));
        assert_eq!(second.get("password"), None);
    }
}

#[tokio::test]
async fn code_errors_are_classified() {
    for (reply, kind) in [
        (denied(403, "invalid_grant"), "code refused"),
        (denied(401, "expired_token"), "code refused"),
        (denied(403, "access_denied"), "code refused"),
        (denied(429, "too_many_attempts"), "too many attempts"),
        (denied(400, "unsupported_challenge_type"), "no factor"),
        (denied(400, "association_required"), "no factor"),
        (denied(401, "invalid_client"), "misconfigured"),
        (denied(403, "unauthorized_client"), "misconfigured"),
        (denied(400, "invalid_request"), "misconfigured"),
        (denied(500, "x"), "unavailable"),
        (Reply::json(200, "{}"), "bad answer"),
    ] {
        let fixture = fixture(move |received| match received.grant() {
            "password" => denied(403, "mfa_required"),
            _ => reply.clone(),
        })
        .await;
        assert_eq!(fixture.refused(PASSWORD, Some("123456")).await, kind);
    }
}

#[tokio::test]
async fn wrong_codes_count_as_failures_even_with_the_right_password() {
    let fixture = fixture(
        |received| match (received.target.as_str(), received.grant()) {
            (_, "password") => denied(403, "mfa_required"),
            ("/mfa/authenticators", _) => Reply::json(
                200,
                r#"[{"id":"totp|1","authenticator_type":"otp","active":true}]"#,
            ),
            _ => denied(403, "invalid_grant"),
        },
    )
    .await;
    for _ in 0..5 {
        assert_eq!(fixture.refused(PASSWORD, None).await, "code required");
        assert_eq!(
            fixture.refused(PASSWORD, Some("000000")).await,
            "code refused"
        );
    }
    assert_eq!(fixture.refused(PASSWORD, None).await, "too many attempts");
}

#[tokio::test]
async fn a_new_recovery_code_is_returned_once() {
    let fixture = fixture(|received| match received.grant() {
        "password" => denied(403, "mfa_required"),
        _ => granted_with("t", r#","recovery_code":"NEWCODE5RLYHLB2R6LSM3BCL""#),
    })
    .await;
    let request = swap_request(PASSWORD, Some(RECOVERY_CODE));
    assert_eq!(fixture.source.recovery_code(&request), None);
    fixture.source.fetch(&request).await.unwrap();
    let other = swap_request("another", None);
    assert_eq!(fixture.source.recovery_code(&other), None);
    let code = fixture.source.recovery_code(&request).unwrap();
    assert_eq!(code.expose(), "NEWCODE5RLYHLB2R6LSM3BCL");
    assert_eq!(fixture.source.recovery_code(&request), None);
}

/// A tenant whose user has `authenticators`; `oob` replies to the out-of-band grant.
async fn tenant(
    authenticators: &'static str,
    challenge: &'static str,
    oob: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> Fixture {
    fixture(
        move |received| match (received.target.as_str(), received.grant()) {
            ("/mfa/authenticators", _) => Reply::json(200, authenticators),
            ("/mfa/challenge", _) => Reply::json(200, challenge),
            (_, "password") => denied(403, "mfa_required"),
            (_, "mfa-oob") => oob(received),
            (_, "mfa-otp") if received.get("otp") == Some("123456") => granted("by-otp"),
            _ => denied(403, "invalid_grant"),
        },
    )
    .await
}

const PUSH: &str = r#"[{"id":"recovery-code|1","authenticator_type":"recovery-code","active":true},
    {"id":"totp|old","authenticator_type":"otp","active":false},
    {"id":"push|dev_1","authenticator_type":"oob","oob_channel":"auth0","active":true}]"#;
const CHALLENGE: &str = r#"{"challenge_type":"oob","oob_code":"hunter2-oob"}"#;
const PROMPT: &str =
    r#"{"challenge_type":"oob","oob_code":"hunter2-oob","binding_method":"prompt"}"#;

#[tokio::test]
async fn later_requests_poll_for_the_confirmation() {
    let replies = Arc::new(Mutex::new(vec![
        granted("confirmed"),
        denied(400, "slow_down"),
        denied(400, "authorization_pending"),
    ]));
    let next = Arc::clone(&replies);
    let mut fixture = tenant(PUSH, CHALLENGE, move |_| {
        next.lock().unwrap().pop().unwrap()
    })
    .await;
    let error = fixture.fetch(PASSWORD, None).await.unwrap_err();
    assert_eq!(classify(&error).0, "unconfirmed");
    let FetchError::SignIn { retry_after, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(5)));

    assert_eq!(fixture.received().await.grant(), "password");
    let list = fixture.received().await;
    assert!(
        list.head.starts_with("GET /mfa/authenticators "),
        "{list:?}"
    );
    assert_eq!(
        list.header("authorization"),
        Some("Bearer hunter2-mfa-token")
    );
    let challenge = fixture.received().await;
    assert_eq!(challenge.header("content-type"), Some("application/json"));
    // This API accepts the client secret only in the body.
    let body: serde_json::Value = serde_json::from_str(&challenge.body).unwrap();
    let expected = serde_json::json!({ "mfa_token": "hunter2-mfa-token", "challenge_type": "oob",
        "authenticator_id": "push|dev_1", "client_id": "hawkgate", "client_secret": CLIENT_SECRET });
    assert_eq!(body, expected);

    assert_eq!(fixture.refused(PASSWORD, None).await, "unconfirmed");
    let poll = fixture.received().await;
    assert_eq!(
        (poll.grant(), poll.get("oob_code")),
        ("mfa-oob", Some("hunter2-oob"))
    );
    assert_eq!(poll.get("binding_code"), None);
    // Another password does not find the challenge.
    assert_eq!(fixture.refused("guess", None).await, "unconfirmed");
    assert_eq!(
        fixture.history(),
        ["password", "/mfa/authenticators", "/mfa/challenge"]
    );
    assert_eq!(fixture.refused(PASSWORD, None).await, "unconfirmed");
    assert_eq!(
        token(&fixture.fetch(PASSWORD, None).await.unwrap()),
        "confirmed"
    );
    assert_eq!(fixture.history(), ["mfa-oob", "mfa-oob"]);
}

#[tokio::test]
async fn a_declined_confirmation_ends_the_challenge_and_counts_as_a_failure() {
    let mut fixture = tenant(PUSH, CHALLENGE, |_| denied(403, "invalid_grant")).await;
    for _ in 0..5 {
        assert_eq!(fixture.refused(PASSWORD, None).await, "unconfirmed");
        assert_eq!(fixture.refused(PASSWORD, None).await, "code refused");
    }
    assert_eq!(fixture.refused(PASSWORD, None).await, "too many attempts");
    assert_eq!(fixture.history().len(), 5 * 4);
}

#[tokio::test]
async fn an_app_code_can_replace_the_confirmation() {
    let mut fixture = tenant(PUSH, CHALLENGE, |_| denied(400, "authorization_pending")).await;
    assert_eq!(fixture.refused(PASSWORD, None).await, "unconfirmed");
    fixture.history();
    assert_eq!(
        token(&fixture.fetch(PASSWORD, Some("123456")).await.unwrap()),
        "by-otp"
    );
    assert_eq!(fixture.history(), ["mfa-otp"], "no password a second time");
}

#[tokio::test]
async fn a_pending_challenge_expires_unconfirmed() {
    let mut fixture = tenant(PUSH, CHALLENGE, |_| denied(400, "authorization_pending")).await;
    assert_eq!(fixture.refused(PASSWORD, None).await, "unconfirmed");
    fixture.history();
    fixture.clock.advance(Duration::from_mins(5));
    assert_eq!(fixture.refused(PASSWORD, None).await, "unconfirmed");
    assert_eq!(
        fixture.history(),
        ["password", "/mfa/authenticators", "/mfa/challenge"]
    );
}

#[tokio::test]
async fn a_code_sent_to_the_user_is_sent_as_binding_code() {
    let sms =
        r#"[{"id":"sms|dev_1","authenticator_type":"oob","oob_channel":"sms","active":true}]"#;
    let mut fixture = tenant(sms, PROMPT, |received| {
        if received.get("binding_code") == Some("424242") {
            granted("by-sms")
        } else {
            denied(403, "invalid_grant")
        }
    })
    .await;
    assert_eq!(fixture.refused(PASSWORD, None).await, "code required");
    assert_eq!(fixture.history().last().unwrap(), "/mfa/challenge");
    // It is not sent again at once, and a mistyped code may be corrected.
    assert_eq!(fixture.refused(PASSWORD, None).await, "code required");
    assert_eq!(fixture.history(), Vec::<String>::new());
    assert_eq!(
        fixture.refused(PASSWORD, Some("424243")).await,
        "code refused"
    );
    assert_eq!(
        token(&fixture.fetch(PASSWORD, Some("424242")).await.unwrap()),
        "by-sms"
    );
    assert_eq!(fixture.history(), ["mfa-oob", "mfa-oob"]);
    // A request without a code half a minute later gets a new one.
    assert_eq!(fixture.refused(PASSWORD, None).await, "code required");
    fixture.history();
    fixture.clock.advance(Duration::from_secs(30));
    assert_eq!(fixture.refused(PASSWORD, None).await, "code required");
    assert_eq!(
        fixture.history(),
        ["password", "/mfa/authenticators", "/mfa/challenge"]
    );
}

#[tokio::test]
async fn the_challenge_depends_on_the_accounts_authenticators() {
    for (authenticators, kind, last) in [
        (
            r#"[{"id":"a","authenticator_type":"otp","active":true},{"id":"b","authenticator_type":"oob","active":true}]"#,
            "code required",
            "/mfa/authenticators",
        ),
        (
            r#"[{"authenticator_type":"recovery-code","active":true}]"#,
            "code required",
            "/mfa/authenticators",
        ),
        (
            r#"[{"id":"b","authenticator_type":"oob","active":true}]"#,
            "unconfirmed",
            "/mfa/challenge",
        ),
        (
            r#"[{"id":"b","authenticator_type":"oob","active":false}]"#,
            "no factor",
            "/mfa/authenticators",
        ),
        ("[]", "no factor", "/mfa/authenticators"),
        (
            r#"[{"id":"w","authenticator_type":"webauthn-roaming","active":true}]"#,
            "no factor",
            "/mfa/authenticators",
        ),
        (r#"{"hunter2":1}"#, "bad answer", "/mfa/authenticators"),
        ("[hunter2", "bad answer", "/mfa/authenticators"),
    ] {
        let mut fixture = tenant(authenticators, CHALLENGE, |_| granted("t")).await;
        assert_eq!(
            fixture.refused(PASSWORD, None).await,
            kind,
            "{authenticators}"
        );
        assert_eq!(fixture.history().last().unwrap(), last);
    }
}

#[tokio::test]
async fn mfa_api_errors_are_classified() {
    for (reply, kind) in [
        (denied(400, "unsupported_challenge_type"), "no factor"),
        (denied(400, "association_required"), "no factor"),
        (denied(401, "expired_token"), "code refused"),
        (denied(401, "invalid_grant"), "code refused"),
        (denied(401, "invalid_client"), "misconfigured"),
        (denied(403, "insufficient_scope"), "misconfigured"),
        (denied(429, "too_many_requests"), "unavailable"),
        (denied(500, "x"), "unavailable"),
        (
            Reply::new(302, &[("Location", "/hunter2")], ""),
            "bad answer",
        ),
        (
            Reply::new(200, &[("Content-Type", "text/html")], "hunter2"),
            "bad answer",
        ),
        (
            Reply::json(200, r#"{"challenge_type":"hunter2"}"#),
            "bad answer",
        ),
        (
            Reply::json(200, r#"{"challenge_type":"oob"}"#),
            "bad answer",
        ),
        (Reply::json(200, &"x".repeat(70_000)), "bad answer"),
    ] {
        for broken in ["/mfa/authenticators", "/mfa/challenge"] {
            let reply = reply.clone();
            let fixture =
                fixture(
                    move |received| match (received.target.as_str(), received.grant()) {
                        (target, _) if target == broken => reply.clone(),
                        ("/mfa/authenticators", _) => Reply::json(200, PUSH),
                        _ => denied(403, "mfa_required"),
                    },
                )
                .await;
            assert_eq!(fixture.refused(PASSWORD, None).await, kind, "{broken}");
        }
    }
}

#[tokio::test]
async fn refresh_tokens_replace_the_password_and_rotate() {
    let number = Arc::new(Mutex::new(0));
    let next = Arc::clone(&number);
    let mut fixture = fixture(move |received| {
        let mut number = next.lock().unwrap();
        let fresh = format!("hunter2-refresh-{number}");
        if received.grant() == "refresh_token" && received.get("refresh_token") != Some(&fresh) {
            return denied(403, "invalid_grant");
        }
        *number += 1;
        granted_with(
            "t",
            &format!(r#","refresh_token":"hunter2-refresh-{number}""#),
        )
    })
    .await;
    for _ in 0..3 {
        fixture.fetch(PASSWORD, None).await.unwrap();
    }
    assert_eq!(
        fixture.history(),
        ["password", "refresh_token", "refresh_token"]
    );
    // Another password does not find the refresh token.
    fixture.fetch("another", None).await.unwrap();
    assert_eq!(fixture.history(), ["password"]);
    // Revoked: the password is used instead.
    *number.lock().unwrap() = 100;
    fixture.fetch(PASSWORD, None).await.unwrap();
    assert_eq!(fixture.history(), ["refresh_token", "password"]);
    // After an hour the provider has to check the password again.
    fixture.clock.advance(Duration::from_hours(1));
    fixture.fetch(PASSWORD, None).await.unwrap();
    assert_eq!(fixture.history(), ["password"]);
    let debug = format!("{:?}", fixture.source);
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[tokio::test]
async fn a_refresh_that_fails_otherwise_does_not_fall_back_to_the_password() {
    for (reply, kind) in [
        (denied(500, "x"), "unavailable"),
        (denied(401, "invalid_client"), "misconfigured"),
        (denied(400, "invalid_request"), "misconfigured"),
    ] {
        let mut fixture = fixture(move |received| match received.grant() {
            "password" => granted_with("t", r#","refresh_token":"hunter2""#),
            _ => reply.clone(),
        })
        .await;
        fixture.fetch(PASSWORD, None).await.unwrap();
        assert_eq!(fixture.refused(PASSWORD, None).await, kind);
        assert_eq!(fixture.history(), ["password", "refresh_token"]);
    }
}

#[tokio::test]
async fn rules_narrow_the_requested_scopes() {
    let mut fixture = fixture(|_| granted("t")).await;
    let narrowed = |scopes: &[&str]| SwapRequest {
        scopes: Some(scopes.iter().map(|s| (*s).to_owned()).collect()),
        ..swap_request(PASSWORD, None)
    };
    let narrowed_request = narrowed(&["read", "write"]);
    fixture.source.fetch(&narrowed_request).await.unwrap();
    assert_eq!(fixture.received().await.get("scope"), Some("read"));
    let error = fixture
        .source
        .fetch(&narrowed(&["write"]))
        .await
        .unwrap_err();
    assert_eq!(classify(&error).0, "not entitled");
    assert_eq!(fixture.history(), Vec::<String>::new());
}

#[tokio::test]
async fn only_callers_with_a_password_are_served() {
    let mut fixture = fixture(|_| granted("t")).await;
    let request = SwapRequest {
        caller: Caller::Anonymous,
        ..swap_request(PASSWORD, None)
    };
    let error = fixture.source.fetch(&request).await.unwrap_err();
    assert_eq!(classify(&error).0, "not entitled");
    assert_eq!(fixture.history(), Vec::<String>::new());
    assert!(fixture.source.takes_password() && !fixture.source.needs_sign_in());
}
