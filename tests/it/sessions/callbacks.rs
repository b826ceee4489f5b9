//! The callback: forged, replayed, of another browser, of another session, of another provider.

use std::time::Duration;

use hawkgate::clock::Clock as _;
use serde_json::json;

use super::assert_sign_in_refused;
use crate::support::sessions::{
    AUDIENCE, COOKIE, ORIGIN, Options, SessionProvider, Site, from_elsewhere,
};

/// The parameters of an URL's query.
fn query(url: &str) -> Vec<(String, String)> {
    let url = url::Url::parse(url).unwrap();
    url.query_pairs().into_owned().collect()
}

fn parameter(url: &str, name: &str) -> String {
    let found = query(url).into_iter().find(|(own, _)| own == name);
    found.unwrap_or_else(|| panic!("no {name} in {url}")).1
}

/// The callback's path with these parameters.
fn callback(parameters: &[(&str, &str)]) -> String {
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish();
    format!("/oauth2/callback?{query}")
}

#[tokio::test]
async fn a_sign_in_ends_where_the_user_wanted_to_go() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let refused = visitor.navigate("/deep/link?x=1&y=%2F").await;
    assert_eq!(refused.status, 302, "{refused:?}");
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    let login = refused.header("location").unwrap().to_owned();
    assert!(login.starts_with("/oauth2/login?return_to="), "{login}");

    let begun = visitor.navigate(&login).await;
    assert_eq!(begun.status, 302, "{begun:?}");
    assert_eq!(begun.header("cache-control"), Some("no-store"));
    let authorization = begun.header("location").unwrap();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "web"),
        ("redirect_uri", "https://app.example.test/oauth2/callback"),
        ("scope", "openid profile email read"),
        ("resource", AUDIENCE),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameter(authorization, name), value, "{authorization}");
    }
    for name in ["state", "nonce", "code_challenge"] {
        assert!(parameter(authorization, name).len() >= 22, "{name}");
    }

    let callback = site.provider.sign_in(authorization, "ada").await;
    let response = visitor.arrive(&callback).await;
    assert!(matches!(response.status, 302 | 303), "{response:?}");
    assert_eq!(response.header("location"), Some("/deep/link?x=1&y=%2F"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(visitor.attempts().is_empty(), "{:?}", visitor.attempts());
    assert_eq!(visitor.navigate("/deep/link?x=1&y=%2F").await.status, 200);
    let who = visitor.fetch("GET", "/oauth2/session").await.json();
    assert_eq!(who["sub"], "ada");
    assert_eq!(who["name"], "Ada Lovelace");
    assert_eq!(who["email"], "ada@example.com");
    assert_eq!(who["issuer"], site.provider.issuer());
    assert!(
        who["expires"].as_str() > who["idle_expires"].as_str(),
        "{who}"
    );
    let requests = site.application.requests().await;
    assert!(requests[0]["headers"]["cookie"].is_null(), "{requests:?}");
}

/// Login CSRF: the attacker signs in, and makes the victim's browser complete it.
#[tokio::test]
async fn a_callback_completes_only_the_attempt_of_its_own_browser() {
    let site = Site::usual().await;
    let mut attacker = site.visitor();
    let authorization = attacker.begin("/").await;
    let foreign = site.provider.sign_in(&authorization, "grace").await;

    let mut victim = site.visitor();
    assert_sign_in_refused(&victim.arrive(&foreign).await, "without an attempt");
    let own = victim.begin("/mine").await;
    assert_sign_in_refused(&victim.arrive(&foreign).await, "with another attempt");
    assert_eq!(site.provider.count("token").await, 0);
    assert_eq!(victim.who().await, None);

    // The victim's own attempt is unharmed, and so is the attacker's.
    let callback = site.provider.sign_in(&own, "ada").await;
    let response = victim.arrive(&callback).await;
    assert_eq!(response.header("location"), Some("/mine"));
    assert_eq!(victim.who().await.as_deref(), Some("ada"));
    assert_eq!(attacker.arrive(&foreign).await.status / 100, 3);
}

#[tokio::test]
async fn a_signed_in_browser_is_not_signed_in_as_somebody_else() {
    let site = Site::usual().await;
    let mut victim = site.signed_in("ada").await;
    let mut attacker = site.visitor();
    let authorization = attacker.begin("/").await;
    let foreign = site.provider.sign_in(&authorization, "grace").await;
    assert_sign_in_refused(&victim.arrive(&foreign).await, "signed in");
    assert_eq!(victim.who().await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn a_callback_is_accepted_once() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/").await;
    let callback = site.provider.sign_in(&authorization, "ada").await;
    // Somebody with a copy of the browser's cookies, the attempt's included.
    let mut thief = visitor.thief();
    assert_eq!(visitor.arrive(&callback).await.status / 100, 3);
    assert_sign_in_refused(&thief.arrive(&callback).await, "copied attempt");
    let again = visitor.arrive(&callback).await;
    assert_sign_in_refused(&again, "the browser's back button");
    // The code was sent once: a provider revokes what it issued for a code that comes twice.
    assert_eq!(site.provider.count("token").await, 1);
    assert_eq!(visitor.who().await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn malformed_callbacks_are_refused_without_a_request_to_the_provider() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/").await;
    let state = parameter(&authorization, "state");
    let issuer = site.provider.issuer();
    let long = "x".repeat(9_000);
    let first = if state.starts_with('A') { 'B' } else { 'A' };
    let other_state = format!("{first}{}", &state[1..]);
    let cases: [(&str, Vec<(&str, &str)>); 14] = [
        ("empty", vec![]),
        ("no state", vec![("code", "c"), ("iss", issuer)]),
        (
            "empty state",
            vec![("code", "c"), ("state", ""), ("iss", issuer)],
        ),
        (
            "another state",
            vec![("code", "c"), ("state", &other_state), ("iss", issuer)],
        ),
        (
            "truncated state",
            vec![("code", "c"), ("state", &state[..9]), ("iss", issuer)],
        ),
        ("no code", vec![("state", &state), ("iss", issuer)]),
        (
            "empty code",
            vec![("code", ""), ("state", &state), ("iss", issuer)],
        ),
        ("no iss", vec![("code", "c"), ("state", &state)]),
        (
            "another iss",
            vec![
                ("code", "c"),
                ("state", &state),
                ("iss", "https://evil.example"),
            ],
        ),
        (
            "iss with a slash",
            vec![
                ("code", "c"),
                ("state", &state),
                ("iss", &issuer[..issuer.len() - 1]),
            ],
        ),
        (
            "two codes",
            vec![
                ("code", "c"),
                ("code", "d"),
                ("state", &state),
                ("iss", issuer),
            ],
        ),
        (
            "two states",
            vec![
                ("code", "c"),
                ("state", "x"),
                ("state", &state),
                ("iss", issuer),
            ],
        ),
        (
            "code and error",
            vec![
                ("code", "c"),
                ("error", "access_denied"),
                ("state", &state),
                ("iss", issuer),
            ],
        ),
        (
            "a huge code",
            vec![("code", &long), ("state", &state), ("iss", issuer)],
        ),
    ];
    for (case, parameters) in cases {
        // A copy: a refused callback may end the attempt.
        let response = visitor
            .thief()
            .send(from_elsewhere(&callback(&parameters)))
            .await;
        assert_sign_in_refused(&response, case);
    }
    assert_eq!(site.provider.count("token").await, 0);
}

#[tokio::test]
async fn a_refusal_by_the_provider_is_shown_without_its_text() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/deep?a=1").await;
    let arguments = json!({ "url": authorization, "deny": true });
    let denied = site.provider.control("signIn", arguments).await;
    let response = visitor.arrive(denied["location"].as_str().unwrap()).await;
    assert_sign_in_refused(&response, "denied");
    assert!(
        !response.text().contains("cancelled"),
        "{}",
        response.text()
    );
    let again = "href=\"/oauth2/login?return_to=%2Fdeep%3Fa%3D1\"";
    assert!(response.text().contains(again), "{}", response.text());
    let csp = response.header("content-security-policy").unwrap();
    for directive in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(csp.contains(directive), "{csp}");
    }
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(response.header("cache-control"), Some("no-store"));

    for error in [
        "<script>alert(1)</script>",
        "access_denied\"onload=\"x",
        "%00",
        "login_required",
    ] {
        let authorization = visitor.begin("/").await;
        let state = parameter(&authorization, "state");
        let issuer = site.provider.issuer();
        let parameters = [
            ("error", error),
            ("error_description", "<img src=x onerror=alert(1)>"),
            ("error_uri", "javascript:alert(1)"),
            ("state", state.as_str()),
            ("iss", issuer),
        ];
        let response = visitor.send(from_elsewhere(&callback(&parameters))).await;
        assert_sign_in_refused(&response, error);
        let page = response.text();
        for reflected in ["<script", "<img", "onload", "javascript:", "alert(1)"] {
            assert!(!page.contains(reflected), "{page}");
        }
    }
    assert_eq!(site.provider.count("token").await, 0);
}

/// A browser may begin many sign-ins; the cookies stay few, and the latest attempts work.
#[tokio::test]
async fn the_cookies_of_attempts_are_bounded() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let mut begun = Vec::new();
    for number in 0..12 {
        begun.push(visitor.begin(&format!("/tab/{number}")).await);
        assert!(visitor.attempts().len() <= 5, "{:?}", visitor.attempts());
    }
    // Two tabs come back in any order.
    for (authorization, place) in [(&begun[10], "/tab/10"), (&begun[11], "/tab/11")] {
        let callback = site.provider.sign_in(authorization, "ada").await;
        let response = visitor.arrive(&callback).await;
        assert_eq!(response.header("location"), Some(place), "{response:?}");
    }
    let callback = site.provider.sign_in(&begun[0], "ada").await;
    assert_sign_in_refused(&visitor.arrive(&callback).await, "superseded");
}

#[tokio::test]
async fn an_attempt_ends_after_ten_minutes() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/").await;
    let callback = site.provider.sign_in(&authorization, "ada").await;
    site.clock.advance(Duration::from_secs(601));
    assert_sign_in_refused(&visitor.arrive(&callback).await, "late");
    assert_eq!(site.provider.count("token").await, 0);
}

/// Fixation: whatever cookies the attacker has planted, a sign-in begins a new session, and what
/// the attacker knows is worth nothing afterwards.
#[tokio::test]
async fn a_sign_in_begins_a_new_session() {
    let site = Site::usual().await;
    let attacker = site.signed_in("grace").await;
    let mut victim = site.visitor();
    victim.set_cookie(COOKIE, attacker.session());
    victim.sign_in(&site.provider, "ada", "/").await;
    assert_eq!(victim.who().await.as_deref(), Some("ada"));
    assert_ne!(victim.session(), attacker.session());
    assert_eq!(attacker.thief().who().await.as_deref(), Some("grace"));

    // The attacker's attempt in the victim's browser, with the attacker's own callback: what the
    // prefix `__Host-` prevents from outside leads to the attacker's account, but to no mixture.
    let first = victim.session().to_owned();
    victim.sign_in(&site.provider, "ada", "/").await;
    assert_ne!(victim.session(), first);
}

/// Two sessions of two providers on one site.
async fn two_sessions() -> (Site, SessionProvider) {
    let second = SessionProvider::start(json!({})).await;
    second.register("web", ORIGIN, "/other/").await;
    let sections = format!(
        r#"
[[issuer]]
name = "second"
url = "{}"
audiences = ["{AUDIENCE}"]
[[session]]
name = "other"
issuer = "second"
client_id = "web"
client_secret = {{ file = "client-secret" }}
scopes = ["openid", "read"]
resource = "{AUDIENCE}"
cookie_key = {{ file = "cookie-key" }}
origin = "{ORIGIN}"
prefix = "/other/"
[[route]]
name = "other"
path = "/second/"
upstream = "http://127.0.0.1:9"
session = "other"
"#,
        second.issuer()
    );
    let site = Site::start(Options {
        sections: &sections,
        ..Options::default()
    })
    .await;
    (site, second)
}

/// Mix-up: an answer of one provider does not reach the other, although both sessions have the
/// same cookie key and client.
#[tokio::test]
async fn the_callbacks_of_two_sessions_are_kept_apart() {
    let (site, second) = two_sessions().await;
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/").await;
    let callback = site.provider.sign_in(&authorization, "ada").await;
    // The same answer at the other session's callback, with the attempt's cookie under both names.
    for (name, value) in visitor.thief().cookies() {
        let renamed = name.replace("hawkgate-web-", "hawkgate-other-");
        visitor.set_cookie(&renamed, value);
    }
    let elsewhere = callback.replace("/oauth2/", "/other/");
    let response = visitor.arrive(&elsewhere).await;
    assert_sign_in_refused(&response, "the other session's callback");
    assert_eq!(second.count("token").await, 0);
    assert_eq!(site.provider.count("token").await, 0);

    // An answer that claims to come from the other provider.
    let forged = callback.replace(
        &url::form_urlencoded::byte_serialize(site.provider.issuer().as_bytes())
            .collect::<String>(),
        &url::form_urlencoded::byte_serialize(second.issuer().as_bytes()).collect::<String>(),
    );
    assert_ne!(forged, callback);
    let response = visitor.thief().arrive(&forged).await;
    assert_sign_in_refused(&response, "the other provider's iss");
    assert_eq!(site.provider.count("token").await, 0);
}

#[tokio::test]
async fn the_cookies_of_two_sessions_are_kept_apart() {
    let (site, _second) = two_sessions().await;
    let mut visitor = site.signed_in("ada").await;
    let session = visitor.session().to_owned();
    visitor.set_cookie("__Host-hawkgate-other", &session);
    let response = visitor.fetch("GET", "/second/x").await;
    assert_eq!(
        response.status_and_reason(),
        (401, Some("sign_in_required")),
        "{response:?}"
    );
    let response = visitor.fetch("GET", "/other/session").await;
    assert_eq!(response.status, 401, "{response:?}");
    assert_eq!(visitor.who().await.as_deref(), Some("ada"));
}

/// The provider's own mistakes, or an attacker's in its place.
#[tokio::test]
async fn id_tokens_for_others_are_refused() {
    let site = Site::usual().await;
    let now = site.clock.now().as_secs();
    let cases = [
        ("another nonce", json!({ "nonce": "x" })),
        ("no nonce", json!({ "nonce": null })),
        ("another audience", json!({ "aud": "somebody-else" })),
        (
            "several audiences without azp",
            json!({ "aud": ["web", "somebody-else"] }),
        ),
        ("another azp", json!({ "aud": ["web", "x"], "azp": "x" })),
        ("another issuer", json!({ "iss": "https://evil.example" })),
        ("expired", json!({ "exp": now - 600 })),
        ("without exp", json!({ "exp": null })),
        ("from the future", json!({ "iat": now + 600 })),
        ("no subject", json!({ "sub": null })),
        (
            "another at_hash",
            json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" }),
        ),
    ];
    for (case, claims) in cases {
        site.provider
            .control("tamper", json!({ "claims": claims }))
            .await;
        let mut visitor = site.visitor();
        let response = visitor.sign_in(&site.provider, "ada", "/").await;
        assert_sign_in_refused(&response, case);
        assert_eq!(visitor.who().await, None, "{case}");
    }
    site.provider.control("tamper", json!({})).await;
    site.provider
        .control("tokenResponse", json!({ "id_token": null }))
        .await;
    let response = site.visitor().sign_in(&site.provider, "ada", "/").await;
    assert_sign_in_refused(&response, "no ID token");
    site.provider
        .control("tokenResponse", json!({ "access_token": "opaque" }))
        .await;
    let response = site.visitor().sign_in(&site.provider, "ada", "/").await;
    assert_sign_in_refused(&response, "an access token that the issuer would refuse");
}

#[tokio::test]
async fn a_provider_that_fails_is_shown_as_such() {
    let site = Site::usual().await;
    for mode in ["error", "disconnect"] {
        site.provider.mode("token", "ok").await;
        let mut visitor = site.visitor();
        let authorization = visitor.begin("/").await;
        let callback = site.provider.sign_in(&authorization, "ada").await;
        site.provider.mode("token", mode).await;
        let response = visitor.arrive(&callback).await;
        assert_sign_in_refused(&response, mode);
        assert!(matches!(response.status, 502 | 503), "{mode}: {response:?}");
        assert_eq!(visitor.who().await, None);
    }
}
