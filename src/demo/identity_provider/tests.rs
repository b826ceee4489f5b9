//! The provider over real sockets, as a browser and a client use it.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::demo::{AUDIENCE, SCOPE};
use crate::remote::http_client::{HttpClient, HttpClientOptions, HttpResponse};

const REDIRECT: &str = "http://localhost:4000/oauth2/callback";
const SIGNED_OUT: &str = "http://localhost:4000/oauth2/logout";
/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

type Fields<'a> = Vec<(&'a str, &'a str)>;

struct Browser {
    clock: Arc<ManualClock>,
    provider: IdentityProvider,
    client: HttpClient,
}

impl Browser {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = ManualClock::at(UnixMillis::from_secs(1_795_201_809));
        let provider = IdentityProvider::start(clock.clone()).await.unwrap();
        provider.register(vec![REDIRECT.into()], vec![SIGNED_OUT.into()]);
        let client = HttpClient::new(&HttpClientOptions {
            timeout: Duration::from_secs(20),
            max_bytes: 65_536,
            ca: None,
            network: crate::network::Network::default(),
        })
        .unwrap();
        Self {
            clock,
            provider,
            client,
        }
    }

    fn url(&self, path: &str, fields: &[(&str, &str)]) -> Url {
        let mut url = self.provider.url.join(path).unwrap();
        if !fields.is_empty() {
            url.query_pairs_mut().extend_pairs(fields);
        }
        url
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
        let url = self.url(path, fields);
        self.client.get(&url, HeaderMap::new()).await.unwrap()
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
        self.post_with(path, fields, HeaderMap::new()).await
    }

    async fn post_with(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        mut headers: HeaderMap,
    ) -> HttpResponse {
        let form = self.url("/", fields).query().unwrap_or_default().to_owned();
        let media_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, media_type);
        let url = self.url(path, &[]);
        self.client
            .post(&url, headers, Bytes::from(form))
            .await
            .unwrap()
    }

    /// Requests authorization, and returns the secret in the form.
    async fn begin(&self) -> String {
        let response = self.get("/authorize", &request()).await;
        assert_eq!(response.status, StatusCode::OK);
        let html = text(&response);
        let (_, rest) = html.split_once(r#"name="attempt" value=""#).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    async fn submit(&self, attempt: &str, user: &str, password: &str) -> HttpResponse {
        let form = [
            ("attempt", attempt),
            ("username", user),
            ("password", password),
        ];
        self.post("/sign-in", &form).await
    }

    /// Signs Alice in, and returns the code.
    async fn code(&self) -> String {
        let attempt = self.begin().await;
        let response = self.submit(&attempt, "alice", "tea-party").await;
        callback(&response).remove("code").unwrap()
    }

    async fn redeem(&self, code: &str) -> HttpResponse {
        self.post("/token", &redemption(code)).await
    }

    async fn refresh(&self, refresh_token: &str) -> HttpResponse {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT_ID),
            ("refresh_token", refresh_token),
        ];
        self.post("/token", &form).await
    }

    /// Signs Alice in, and returns her tokens.
    async fn tokens(&self) -> Value {
        let code = self.code().await;
        json_of(&self.redeem(&code).await)
    }
}

fn request() -> Fields<'static> {
    vec![
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", REDIRECT),
        (
            "scope",
            "openid profile email offline_access taskcluster-credentials unknown",
        ),
        ("audience", AUDIENCE),
        ("state", "s<t&te"),
        ("nonce", "n-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]
}

/// The request with another value, or without the parameter if it is empty.
fn request_with(name: &'static str, value: &'static str) -> Fields<'static> {
    let mut fields = request();
    fields.retain(|(other, _)| *other != name);
    fields.push((name, value));
    fields
}

fn redemption(code: &str) -> Fields<'_> {
    vec![
        ("grant_type", "authorization_code"),
        ("client_id", CLIENT_ID),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ]
}

fn text(response: &HttpResponse) -> String {
    String::from_utf8(response.body.to_vec()).unwrap()
}

fn json_of(response: &HttpResponse) -> Value {
    let body = text(response);
    assert_eq!(response.status, StatusCode::OK, "{body}");
    assert_eq!(response.header(&header::CACHE_CONTROL), Some("no-store"));
    serde_json::from_str(&body).unwrap()
}

fn error_of(response: &HttpResponse) -> String {
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

/// The parameters of a redirect to the client.
fn callback(response: &HttpResponse) -> HashMap<String, String> {
    assert_eq!(response.status, StatusCode::SEE_OTHER, "{}", text(response));
    let location = Url::parse(response.header(&header::LOCATION).unwrap()).unwrap();
    assert!(location.as_str().starts_with(&format!("{REDIRECT}?")));
    location.query_pairs().into_owned().collect()
}

fn claims(token: &Value) -> Value {
    let claims = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn a_user_signs_in_and_the_client_gets_tokens() {
    let browser = Browser::start().await;
    let attempt = browser.begin().await;
    let answer = callback(&browser.submit(&attempt, "bob", "toolbox").await);
    let issuer = crate::demo::origin(&browser.provider.url);
    assert_eq!(
        (answer["state"].as_str(), answer["iss"].as_str()),
        ("s<t&te", issuer)
    );
    let tokens = json_of(&browser.redeem(&answer["code"]).await);
    let granted = format!("openid profile email {SCOPE} offline_access");
    assert_eq!(tokens["scope"], granted.as_str());
    let access = claims(&tokens["access_token"]);
    let expected = ("bob", AUDIENCE, CLIENT_ID);
    assert_eq!(
        (&access["sub"], &access["aud"], &access["client_id"]),
        (&expected.0.into(), &expected.1.into(), &expected.2.into())
    );
    let id = claims(&tokens["id_token"]);
    assert_eq!(id["aud"], CLIENT_ID);
    assert_eq!(id["nonce"], "n-1");
    assert_eq!(id["email"], "bob@example.com");
    assert_eq!(id["sid"], access["sid"]);
    let verifier = browser.provider.verifier();
    let access_token = tokens["access_token"].as_str().unwrap();
    assert_eq!(verifier.verify(access_token).unwrap().subject, "bob");
    let id_token = tokens["id_token"].as_str().unwrap();
    assert!(
        verifier.verify(id_token).is_none(),
        "an ID token is not for the API"
    );
}

#[tokio::test]
async fn a_request_of_an_unknown_client_or_address_is_not_redirected() {
    let browser = Browser::start().await;
    for (name, value) in [
        ("client_id", "other"),
        ("client_id", ""),
        ("redirect_uri", ""),
        ("redirect_uri", "http://localhost:4000/oauth2/callback/"),
        ("redirect_uri", "http://localhost:4000/oauth2/callback?x"),
        ("redirect_uri", "http://localhost:4001/oauth2/callback"),
        ("redirect_uri", "http://LOCALHOST:4000/oauth2/callback"),
        (
            "redirect_uri",
            "http://localhost.example.com/oauth2/callback",
        ),
    ] {
        let response = browser.get("/authorize", &request_with(name, value)).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{name} {value}");
        assert_eq!(response.header(&header::LOCATION), None, "{name} {value}");
    }
    let mut repeated = request();
    repeated.push(("redirect_uri", "https://evil.example"));
    let response = browser.get("/authorize", &repeated).await;
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_invalid_request_is_answered_to_the_client() {
    let browser = Browser::start().await;
    for (name, value, error) in [
        ("response_type", "token", "unsupported_response_type"),
        (
            "response_type",
            "code id_token",
            "unsupported_response_type",
        ),
        ("response_mode", "fragment", "invalid_request"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge", "short", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("code_challenge_method", "", "invalid_request"),
        ("scope", "profile", "invalid_scope"),
        ("audience", "another-api", "invalid_target"),
        ("prompt", "none", "login_required"),
        ("request", "eyJ", "request_not_supported"),
    ] {
        let answer = callback(&browser.get("/authorize", &request_with(name, value)).await);
        assert_eq!(answer["error"], error, "{name} {value}");
        assert_eq!(answer["state"], "s<t&te");
        assert!(answer.contains_key("iss") && !answer.contains_key("code"));
    }
}

#[tokio::test]
async fn wrong_passwords_are_refused_and_limited() {
    let browser = Browser::start().await;
    let attempt = browser.begin().await;
    for _ in 0..4 {
        let response = browser
            .submit(&attempt, "alice\"><script>", "tea-party")
            .await;
        assert_eq!(response.status, StatusCode::FORBIDDEN);
        let html = text(&response);
        assert!(
            html.contains(r#"role="alert""#) && !html.contains("<script"),
            "{html}"
        );
    }
    let response = browser.submit(&attempt, "alice", "wrong").await;
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    let response = browser.submit(&attempt, "alice", "tea-party").await;
    assert_eq!(
        response.status,
        StatusCode::BAD_REQUEST,
        "the sign-in has ended"
    );
}

#[tokio::test]
async fn a_sign_in_ends_once() {
    let browser = Browser::start().await;
    let attempt = browser.begin().await;
    let form = [("attempt", attempt.as_str()), ("action", "cancel")];
    let cancelled = browser.post("/sign-in", &form).await;
    assert_eq!(callback(&cancelled)["error"], "access_denied");
    let again = browser.submit(&attempt, "alice", "tea-party").await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);

    let attempt = browser.begin().await;
    callback(&browser.submit(&attempt, "alice", "tea-party").await);
    let again = browser.submit(&attempt, "alice", "tea-party").await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);

    let attempt = browser.begin().await;
    browser.clock.advance(Duration::from_mins(10));
    let late = browser.submit(&attempt, "alice", "tea-party").await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        browser.submit("", "alice", "tea-party").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn the_form_is_accepted_from_its_own_page_only() {
    let browser = Browser::start().await;
    let attempt = browser.begin().await;
    let form = [
        ("attempt", attempt.as_str()),
        ("username", "alice"),
        ("password", "tea-party"),
    ];
    for site in ["cross-site", "same-site", "none"] {
        let name = HeaderName::from_static("sec-fetch-site");
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(site))]);
        let response = browser.post_with("/sign-in", &form, headers).await;
        assert_eq!(response.status, StatusCode::FORBIDDEN, "{site}");
    }
    assert_eq!(
        browser.get("/sign-in", &[]).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn a_code_is_bound_to_its_client_address_and_verifier() {
    let browser = Browser::start().await;
    for (name, value, error) in [
        ("code_verifier", "", "invalid_grant"),
        ("code_verifier", CHALLENGE, "invalid_grant"),
        ("redirect_uri", "", "invalid_grant"),
        ("redirect_uri", SIGNED_OUT, "invalid_grant"),
        ("client_id", "other", "invalid_client"),
        ("grant_type", "password", "unsupported_grant_type"),
        ("grant_type", "", "invalid_request"),
        ("code", "", "invalid_grant"),
    ] {
        let code = browser.code().await;
        let mut form = redemption(&code);
        form.retain(|(other, _)| *other != name);
        form.push((name, value));
        assert_eq!(
            error_of(&browser.post("/token", &form).await),
            error,
            "{name} {value}"
        );
    }
    let code = browser.code().await;
    browser.clock.advance(Duration::from_mins(1));
    assert_eq!(error_of(&browser.redeem(&code).await), "invalid_grant");
}

#[tokio::test]
async fn a_code_used_twice_ends_the_grant() {
    let browser = Browser::start().await;
    let code = browser.code().await;
    let tokens = json_of(&browser.redeem(&code).await);
    assert_eq!(error_of(&browser.redeem(&code).await), "invalid_grant");
    let refresh_token = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(
        error_of(&browser.refresh(refresh_token).await),
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_refresh_token_is_valid_once_and_its_reuse_ends_the_grant() {
    let browser = Browser::start().await;
    let first = browser.tokens().await["refresh_token"].clone();
    let first = first.as_str().unwrap();
    let renewed = json_of(&browser.refresh(first).await);
    let second = renewed["refresh_token"].as_str().unwrap();
    assert_ne!(first, second);
    let id = claims(&renewed["id_token"]);
    assert_eq!((&id["sub"], &id["nonce"]), (&"alice".into(), &Value::Null));
    assert_eq!(error_of(&browser.refresh(first).await), "invalid_grant");
    assert_eq!(error_of(&browser.refresh(second).await), "invalid_grant");
    for unknown in ["", ".", "a.b", "nonsense"] {
        assert_eq!(error_of(&browser.refresh(unknown).await), "invalid_grant");
    }
}

#[tokio::test]
async fn a_sign_out_ends_the_grant_and_returns_to_the_client() {
    let browser = Browser::start().await;
    let tokens = browser.tokens().await;
    let id_token = tokens["id_token"].as_str().unwrap();
    // An expired ID token still says which session to end.
    browser.clock.advance(Duration::from_hours(1));
    let parameters = [
        ("id_token_hint", id_token),
        ("client_id", CLIENT_ID),
        ("post_logout_redirect_uri", SIGNED_OUT),
        ("state", "bye"),
    ];
    let response = browser.get("/end-session", &parameters).await;
    assert_eq!(response.status, StatusCode::SEE_OTHER);
    let location = format!("{SIGNED_OUT}?state=bye");
    assert_eq!(response.header(&header::LOCATION), Some(location.as_str()));
    let refresh_token = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(
        error_of(&browser.refresh(refresh_token).await),
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_sign_out_redirects_to_registered_addresses_and_believes_own_tokens_only() {
    let browser = Browser::start().await;
    let access_token = browser.tokens().await["access_token"].clone();
    let access_token = access_token.as_str().unwrap();
    for (name, value) in [
        ("post_logout_redirect_uri", "https://evil.example/"),
        ("post_logout_redirect_uri", REDIRECT),
        ("id_token_hint", "e30.e30.e30"),
        ("id_token_hint", access_token),
        ("client_id", "other"),
    ] {
        let response = browser.get("/end-session", &[(name, value)]).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{name} {value}");
    }
    let response = browser
        .get("/end-session", &[("client_id", CLIENT_ID)])
        .await;
    assert_eq!(response.status, StatusCode::OK);
}

#[tokio::test]
async fn a_revoked_refresh_token_is_refused() {
    let browser = Browser::start().await;
    let tokens = browser.tokens().await;
    let refresh_token = tokens["refresh_token"].as_str().unwrap();
    let form = [("client_id", CLIENT_ID), ("token", refresh_token)];
    json_of(&browser.post("/revoke", &form).await);
    json_of(&browser.post("/revoke", &form).await);
    assert_eq!(
        error_of(&browser.refresh(refresh_token).await),
        "invalid_grant"
    );
    assert_eq!(
        browser.get("/token", &[]).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn pages_are_protected_and_another_host_is_refused() {
    let browser = Browser::start().await;
    let response = browser.get("/authorize", &request()).await;
    let policy = response.header(&header::CONTENT_SECURITY_POLICY).unwrap();
    for part in [
        "default-src 'none'",
        "form-action 'self' http://localhost:4000;",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(
        !policy.contains("script-src") && !policy.contains("unsafe"),
        "{policy}"
    );
    let html = text(&response);
    for user in &super::users::USERS {
        assert!(html.contains(user.password), "{html}");
    }
    let mut elsewhere = browser.provider.url.clone();
    elsewhere.set_host(Some("localhost")).unwrap();
    let response = browser
        .client
        .get(&elsewhere, HeaderMap::new())
        .await
        .unwrap();
    assert_eq!(response.status, StatusCode::MISDIRECTED_REQUEST);
}
