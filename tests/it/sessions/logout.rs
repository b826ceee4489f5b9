//! Signing out: here, at the provider, by the provider, and by nobody else.

use hawkgate::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::sessions::{
    COOKIE, HOST, ORIGIN, Options, Site, from_elsewhere, navigation, own_fetch,
};

const LOGOUT: &str = "/oauth2/logout";

/// The form of the page `<prefix>logout`.
fn own_form() -> Request {
    Request::post(LOGOUT, "")
        .header("Sec-Fetch-Site", "same-origin")
        .header("Sec-Fetch-Mode", "navigate")
        .header("Sec-Fetch-Dest", "document")
        .header("Origin", ORIGIN)
        .header("Content-Type", "application/x-www-form-urlencoded")
}

/// A form of another site.
fn foreign_form(target: &str) -> Request {
    Request::post(target, "")
        .header("Sec-Fetch-Site", "cross-site")
        .header("Sec-Fetch-Mode", "navigate")
        .header("Origin", "https://evil.example")
}

/// What the provider sends, without a browser.
fn back_channel(body: &str) -> Request {
    let mut request = Request::post("/oauth2/backchannel-logout", body.to_owned())
        .header("Content-Type", "application/x-www-form-urlencoded");
    HOST.clone_into(&mut request.authority);
    request
}

fn form(token: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .append_pair("logout_token", token)
        .finish()
}

#[track_caller]
fn assert_cookie_removed(response: &Response) {
    let mut fields = response.fields.all("set-cookie");
    let removed = fields.any(|f| f.starts_with(&format!("{COOKIE}=")) && f.contains("Max-Age=0"));
    assert!(removed, "{response:?}");
}

#[tokio::test]
async fn signing_out_ends_the_session_here_and_at_the_provider() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    let mut thief = visitor.thief();
    let response = visitor.send(own_form()).await;
    assert_eq!(response.status, 303, "{response:?}");
    assert_cookie_removed(&response);
    let location = url::Url::parse(response.header("location").unwrap()).unwrap();
    assert!(
        location.as_str().starts_with(site.provider.issuer()),
        "{location}"
    );
    let value = |name: &str| {
        let found = location.query_pairs().find(|(own, _)| own == name);
        found.map(|(_, value)| value.into_owned())
    };
    assert_eq!(
        value("post_logout_redirect_uri").as_deref(),
        Some("https://app.example.test/oauth2/logout")
    );
    assert!(
        value("id_token_hint").is_some() || value("client_id").is_some(),
        "{location}"
    );
    // A copy of the cookie is worth nothing from now on.
    assert_eq!(thief.thief().who().await, None);
    let response = thief.fetch("GET", "/x").await;
    assert_eq!(
        response.status_and_reason(),
        (401, Some("sign_in_required"))
    );
    assert_cookie_removed(&response);
    assert!(site.application.requests().await.is_empty());
}

#[tokio::test]
async fn a_page_signs_out_with_fetch() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    let response = visitor.fetch("POST", LOGOUT).await;
    assert_eq!(response.status, 200, "{response:?}");
    let body: Value = response.json();
    let location = body["location"].as_str().unwrap();
    assert!(location.starts_with(site.provider.issuer()), "{location}");
    assert_cookie_removed(&response);
    assert_eq!(visitor.who().await, None);
}

/// Logout CSRF.
#[tokio::test]
async fn another_site_cannot_sign_a_user_out() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    for (case, request) in [
        ("a form", foreign_form(LOGOUT)),
        ("without fields", Request::post(LOGOUT, "")),
        (
            "a sibling",
            Request::post(LOGOUT, "")
                .header("Sec-Fetch-Site", "same-site")
                .header("Origin", "https://sibling.example.test"),
        ),
        (
            "a sandboxed frame",
            Request::post(LOGOUT, "").header("Origin", "null"),
        ),
    ] {
        let response = visitor.send(request).await;
        assert_eq!(
            response.status_and_reason(),
            (403, Some("cross_site")),
            "{case}: {response:?}"
        );
        assert_eq!(visitor.who().await.as_deref(), Some("ada"), "{case}");
    }
    // An image, or a link: a page with a button.
    for request in [from_elsewhere(LOGOUT), navigation(LOGOUT)] {
        let response = visitor.send(request).await;
        assert_eq!(response.status, 200, "{response:?}");
        assert!(response.text().contains("<form"), "{}", response.text());
        assert_eq!(visitor.who().await.as_deref(), Some("ada"));
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        let response = visitor.send(own_fetch(method, LOGOUT)).await;
        assert_eq!(response.status, 405, "{method}: {response:?}");
        assert!(response.header("allow").is_some(), "{method}");
    }
    assert_eq!(visitor.who().await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn signing_out_without_a_session_is_no_error() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let response = visitor.send(own_form()).await;
    assert_eq!(response.status, 303, "{response:?}");
    let page = visitor.navigate(LOGOUT).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.text().contains("/oauth2/login"), "{}", page.text());
    // Without a session the page shows no form.
    assert!(!page.text().contains("<form"), "{}", page.text());
}

/// The state of the provider's answer is not reflected.
#[tokio::test]
async fn the_signed_out_page_ignores_its_query() {
    let site = Site::usual().await;
    let page = site
        .visitor()
        .navigate("/oauth2/logout?state=%3Cscript%3Ealert(1)%3C/script%3E&return_to=//evil.example")
        .await;
    assert_eq!(page.status, 200, "{page:?}");
    let text = page.text();
    assert!(
        !text.contains("<script") && !text.contains("evil.example"),
        "{text}"
    );
}

#[tokio::test]
async fn a_provider_that_is_down_does_not_prevent_signing_out() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    for endpoint in ["discovery", "revocation", "token", "jwks"] {
        site.provider.mode(endpoint, "error").await;
    }
    let response = visitor.send(own_form()).await;
    assert_eq!(response.status, 303, "{response:?}");
    assert_cookie_removed(&response);
    assert_eq!(visitor.who().await, None);
}

#[tokio::test]
async fn signing_out_revokes_the_refresh_token() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    visitor.send(own_form()).await;
    crate::support::wait::until("the revocation", async || {
        site.provider.count("revocation").await == 1
    })
    .await;
}

#[tokio::test]
async fn the_provider_ends_a_session_by_the_back_channel() {
    let site = Site::usual().await;
    let (mut ada, mut grace) = (site.signed_in("ada").await, site.signed_in("grace").await);
    let sid = site.provider.sid("ada").await;
    let claims = json!({ "claims": { "sid": sid, "sub": "ada" } });
    let token = site.provider.logout_token(claims).await;
    let response = site.gateway.send(&back_channel(&form(&token))).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(ada.who().await, None);
    assert_eq!(grace.who().await.as_deref(), Some("grace"));
    // Signing in again is possible at once.
    ada.sign_in(&site.provider, "ada", "/").await;
    assert_eq!(ada.who().await.as_deref(), Some("ada"));
    // The same token again: neither an error that says more, nor the end of the new session.
    let again = site.gateway.send(&back_channel(&form(&token))).await;
    assert_eq!(again.status, 400, "{again:?}");
    assert_eq!(again.header("cache-control"), Some("no-store"));
    assert_eq!(ada.who().await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn a_logout_token_without_sid_ends_every_session_of_the_user() {
    let site = Site::usual().await;
    let (mut first, mut second) = (site.signed_in("ada").await, site.signed_in("ada").await);
    let mut grace = site.signed_in("grace").await;
    let claims = json!({ "claims": { "sub": "ada" } });
    let token = site.provider.logout_token(claims).await;
    let response = site.gateway.send(&back_channel(&form(&token))).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(first.who().await, None);
    assert_eq!(second.who().await, None);
    assert_eq!(grace.who().await.as_deref(), Some("grace"));
}

#[tokio::test]
async fn invalid_logout_tokens_end_nothing() {
    let site = Site::usual().await;
    let mut ada = site.signed_in("ada").await;
    let sid = site.provider.sid("ada").await;
    let now = site.clock.now().as_secs();
    let event = "http://schemas.openid.net/event/backchannel-logout";
    let cases = [
        (
            "another issuer",
            json!({ "iss": "https://evil.example" }),
            json!({}),
            false,
        ),
        (
            "another client",
            json!({ "aud": "somebody-else" }),
            json!({}),
            false,
        ),
        ("no audience", json!({ "aud": null }), json!({}), false),
        ("a nonce", json!({ "nonce": "n" }), json!({}), false),
        ("no event", json!({ "events": null }), json!({}), false),
        (
            "another event",
            json!({ "events": { "urn:x": {} } }),
            json!({}),
            false,
        ),
        (
            "an event that is no object",
            json!({ "events": { event: "x" } }),
            json!({}),
            false,
        ),
        (
            "events as a list",
            json!({ "events": [event] }),
            json!({}),
            false,
        ),
        (
            "neither sub nor sid",
            json!({ "sub": null, "sid": null }),
            json!({}),
            false,
        ),
        ("no jti", json!({ "jti": null }), json!({}), false),
        ("no iat", json!({ "iat": null }), json!({}), false),
        ("expired", json!({ "exp": now - 600 }), json!({}), false),
        (
            "issued long ago",
            json!({ "iat": now - 86_400, "exp": null }),
            json!({}),
            false,
        ),
        (
            "from the future",
            json!({ "iat": now + 600, "exp": now + 900 }),
            json!({}),
            false,
        ),
        ("a foreign key", json!({}), json!({}), true),
        ("another type", json!({}), json!({ "typ": "at+jwt" }), false),
    ];
    for (case, changes, header, foreign) in cases {
        let mut claims = json!({ "sid": sid, "sub": "ada" });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let arguments = json!({ "claims": claims, "header": header, "foreign": foreign });
        let token = site.provider.logout_token(arguments).await;
        let response = site.gateway.send(&back_channel(&form(&token))).await;
        assert_eq!(response.status, 400, "{case}: {response:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"), "{case}");
        assert_eq!(response.json()["error"], "invalid_request", "{case}");
        assert_eq!(ada.who().await.as_deref(), Some("ada"), "{case}");
    }
}

#[tokio::test]
async fn junk_at_the_back_channel_is_refused() {
    let site = Site::usual().await;
    let mut ada = site.signed_in("ada").await;
    let sid = site.provider.sid("ada").await;
    let claims = json!({ "claims": { "sid": sid, "sub": "ada" } });
    let token = site.provider.logout_token(claims).await;
    let unsigned = {
        let parts: Vec<&str> = token.split('.').collect();
        // {"alg":"none"}
        format!("eyJhbGciOiJub25lIn0.{}.", parts[1])
    };
    let issued = site.provider.control("issued", json!({})).await;
    let tokens = issued["tokens"].as_array().unwrap();
    let id_token = tokens[1].as_str().unwrap();
    let bodies = [
        ("nothing", String::new()),
        ("another field", "token=x".to_owned()),
        ("empty", form("")),
        ("words", form("a b c")),
        ("two tokens", format!("{}&{}", form(&token), form(&token))),
        ("unsigned", form(&unsigned)),
        ("an ID token", form(id_token)),
        ("JSON", json!({ "logout_token": token }).to_string()),
        ("huge", form(&"x".repeat(100_000))),
        ("not UTF-8", "logout_token=%ff%fe".to_owned()),
    ];
    for (case, body) in bodies {
        let response = site.gateway.send(&back_channel(&body)).await;
        assert!(matches!(response.status, 400 | 413), "{case}: {response:?}");
        assert_eq!(ada.who().await.as_deref(), Some("ada"), "{case}");
    }
    let in_query = format!("/oauth2/backchannel-logout?{}", form(&token));
    let response = ada.send(Request::get(&in_query)).await;
    assert_eq!(response.status, 405, "{response:?}");
    let mut post = back_channel("");
    post.target = in_query;
    let response = site.gateway.send(&post).await;
    assert_eq!(response.status, 400, "{response:?}");
    assert_eq!(ada.who().await.as_deref(), Some("ada"));
    assert!(site.application.requests().await.is_empty());
}

/// What ended before a reload stays ended after it.
#[tokio::test]
async fn a_reload_does_not_revive_sessions() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    let thief = visitor.thief();
    visitor.send(own_form()).await;
    assert_eq!(thief.thief().who().await, None);
    let changed = site
        .text
        .replace("name = \"application\"", "name = \"renamed\"");
    site.reload(&changed).await;
    assert_eq!(thief.thief().who().await, None);
}

#[tokio::test]
async fn a_provider_without_a_logout_page_is_no_obstacle() {
    let site = Site::start(Options::default()).await;
    site.provider
        .control("metadata", json!({ "end_session_endpoint": null }))
        .await;
    let mut visitor = site.signed_in("ada").await;
    let response = visitor.send(own_form()).await;
    assert_eq!(response.status, 303, "{response:?}");
    assert_eq!(response.header("location"), Some(LOGOUT));
    assert_eq!(visitor.who().await, None);
}
