//! Where users are sent: `return_to`, the redirect URI, and what attackers put into `Host` and
//! `X-Forwarded-*`.

use serde_json::json;

use super::assert_sign_in_refused;
use crate::support::client::Request;
use crate::support::sessions::{HOST, ORIGIN, Options, Site, Visitor, login, navigation, server};

/// What browsers read as another site, or may.
const ELSEWHERE: &[&str] = &[
    "//evil.example",
    "///evil.example",
    "////evil.example/%2f..",
    "/\\evil.example",
    "\\\\evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/\u{0}/evil.example",
    "/\u{7f}/evil.example",
    "\u{a0}//evil.example",
    "https://evil.example",
    "https:evil.example",
    "HTTPS://evil.example",
    "http://app.example.test@evil.example/",
    "https://app.example.test.evil.example/",
    "//app.example.test@evil.example",
    "@evil.example",
    ".evil.example",
    "evil.example",
    ":443@evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "/%2fevil.example",
    "/%5cevil.example",
    "%2f%2fevil.example",
    "/%09/evil.example",
    "/%0a/evil.example",
    "/%0d%0aset-cookie:x=y",
    "/x\r\nSet-Cookie: a=b",
    "/%252fevil.example",
    "/./%2fevil.example",
    "/.//evil.example",
    "/..//evil.example",
    "/x/..//evil.example",
    "/x/../..//evil.example",
    "/%2e%2f/evil.example",
    "/\u{2f}\u{2f}evil.example",
    "/\u{ff0f}evil.example",
    "/\u{2215}evil.example",
    "\u{3002}evil.example",
    "/;//evil.example",
    "?//evil.example",
    "#//evil.example",
    "",
];

/// Where a browser goes from a page of the site with this `Location`.
fn destination(location: &str) -> url::Url {
    let page = url::Url::parse("https://app.example.test/oauth2/callback").unwrap();
    page.join(location).unwrap()
}

#[tokio::test]
async fn a_sign_in_never_ends_on_another_site() {
    let site = Site::usual().await;
    for target in ELSEWHERE {
        let mut visitor = site.visitor();
        let response = visitor.navigate(&login(target)).await;
        if response.status == 400 {
            continue;
        }
        assert_eq!(response.status, 302, "{target:?}: {response:?}");
        let authorization = response.header("location").unwrap();
        let callback = site.provider.sign_in(authorization, "ada").await;
        let response = visitor.arrive(&callback).await;
        let location = response.header("location").unwrap();
        assert!(
            !location.contains("evil.example") || location.starts_with("/;"),
            "{target:?}: {location:?}"
        );
        let destination = destination(location);
        assert_eq!(
            destination.origin().ascii_serialization(),
            ORIGIN,
            "{target:?}"
        );
        assert!(
            !destination.path().starts_with("//"),
            "{target:?}: {location:?}"
        );
        assert!(
            response
                .fields
                .all("set-cookie")
                .all(|c| c.starts_with("__Host-")),
            "{target:?}"
        );
    }
}

/// What is a path on this site arrives unchanged.
#[tokio::test]
async fn a_sign_in_returns_to_every_path_of_the_site() {
    let site = Site::usual().await;
    for target in [
        "/",
        "/a/b/c?d=e&f=g",
        "/tasks/%C3%A9?q=%20x",
        "/search?q=a%2Fb",
        "/search?next=https://other.example/",
        "/a?b=//c",
        "/a@b:c;d=e/f,g!$'()*+",
    ] {
        let mut visitor = site.visitor();
        let response = visitor.sign_in(&site.provider, "ada", target).await;
        assert_eq!(response.header("location"), Some(target), "{response:?}");
    }
    // A path that begins with two slashes is a request like any other, but not a place to return to.
    let response = site.visitor().send(navigation("//evil.example/x")).await;
    let location = response.header("location").unwrap_or_default();
    assert!(
        destination(location).origin().ascii_serialization() == ORIGIN,
        "{response:?}"
    );
}

/// A path of hawkgate's own as the place to return to: neither a loop nor a sign-out.
#[tokio::test]
async fn a_sign_in_may_return_to_hawkgates_own_pages() {
    let site = Site::usual().await;
    for target in ["/oauth2/login", "/oauth2/callback", "/oauth2/logout"] {
        let mut visitor = site.visitor();
        let response = visitor.navigate(&login(target)).await;
        if response.status == 302 {
            let callback = {
                let authorization = response.header("location").unwrap();
                site.provider.sign_in(authorization, "ada").await
            };
            visitor.arrive(&callback).await;
            assert_eq!(visitor.who().await.as_deref(), Some("ada"), "{target}");
        } else {
            assert_eq!(response.status, 400, "{response:?}");
        }
    }
}

fn redirect_uri(authorization: &str) -> String {
    let url = url::Url::parse(authorization).unwrap();
    let found = url.query_pairs().find(|(name, _)| name == "redirect_uri");
    found.unwrap().1.into_owned()
}

/// What somebody between, or a client, can claim about the site.
const CLAIMS: &[(&str, &str)] = &[
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Port", "8443"),
    ("X-Forwarded-Prefix", "/evil"),
    ("Forwarded", "host=evil.example;proto=http"),
    ("X-Original-Host", "evil.example"),
    ("X-Original-URL", "/evil"),
    ("X-Rewrite-URL", "/evil"),
    ("X-Host", "evil.example"),
];

#[tokio::test]
async fn the_redirect_uri_is_the_configured_origins() {
    let site = Site::usual().await;
    for (name, value) in CLAIMS {
        let mut visitor = site.visitor();
        let request = navigation(&login("/")).header(name, value);
        let response = visitor.send(request).await;
        assert_eq!(response.status, 302, "{name}: {response:?}");
        let authorization = response.header("location").unwrap();
        let expected = "https://app.example.test/oauth2/callback";
        assert_eq!(redirect_uri(authorization), expected, "{name}");
    }
    // A proxy may pass on another name.
    let mut visitor = site.visitor();
    visitor.host = "evil.example".into();
    let response = visitor.navigate(&login("/")).await;
    let authorization = response.header("location").unwrap();
    let expected = "https://app.example.test/oauth2/callback";
    assert_eq!(redirect_uri(authorization), expected);
}

/// With the origin from the request: only what the connection and trusted proxies say.
#[tokio::test]
async fn an_untrusted_peer_does_not_choose_the_scheme() {
    let site = Site::start(Options {
        session: "prefix = \"/oauth2/\"",
        ..Options::default()
    })
    .await;
    let mut visitor = site.visitor();
    visitor.host = "localhost:8080".into();
    let request = navigation(&login("/")).header("X-Forwarded-Proto", "https");
    let response = visitor.send(request).await;
    assert_eq!(response.status, 302, "{response:?}");
    let authorization = response.header("location").unwrap();
    let expected = "http://localhost:8080/oauth2/callback";
    assert_eq!(redirect_uri(authorization), expected);
    for field in response.fields.all("set-cookie") {
        assert!(field.starts_with("hawkgate-web-signin-"), "{field}");
        assert!(!field.contains("Secure"), "{field}");
    }
    let logged = site.gateway.log();
    assert!(logged.contains("cookies have neither Secure nor the prefix"));
    // A name that is no loopback name needs https: browsers would send the cookie in the clear.
    let mut plain = site.visitor();
    let response = plain.navigate(&login("/")).await;
    assert!(response.status >= 400, "{response:?}");
    assert!(plain.cookies().is_empty());
}

#[tokio::test]
async fn a_trusted_proxy_chooses_the_scheme() {
    let server = server("").replace(
        "listen = [\"127.0.0.1:0\",",
        "listen = [{ address = \"127.0.0.1:0\", trusted_proxies = [\"127.0.0.1/32\"], proxy_protocol = false },",
    );
    let site = Site::start(Options {
        server: &server,
        session: "prefix = \"/oauth2/\"",
        ..Options::default()
    })
    .await;
    let proxied = |request: Request| {
        request
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-For", "203.0.113.7")
    };
    let mut visitor = site.visitor();
    let response = visitor.send(proxied(navigation(&login("/")))).await;
    assert_eq!(response.status, 302, "{response:?}");
    let authorization = response.header("location").unwrap();
    assert_eq!(
        redirect_uri(authorization),
        format!("{ORIGIN}/oauth2/callback")
    );
    // The proxy's own clients cannot change it by a field that the proxy passes on.
    for value in ["http, https", "https, http", "HTTPS://evil", "ftp", ""] {
        let mut visitor = Visitor::of(&site.gateway);
        HOST.clone_into(&mut visitor.host);
        let request = navigation(&login("/"))
            .header("X-Forwarded-For", "203.0.113.7")
            .header("X-Forwarded-Proto", value);
        let response = visitor.send(request).await;
        if response.status == 302 {
            let authorization = response.header("location").unwrap();
            let uri = redirect_uri(authorization);
            assert_eq!(uri, format!("{ORIGIN}/oauth2/callback"), "{value:?}");
        }
    }
}

/// The provider refuses what is not registered, and so the user sees hawkgate's or the provider's page
/// instead of the attacker's.
#[tokio::test]
async fn an_answer_for_another_origin_is_not_accepted() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/").await;
    let elsewhere = authorization.replace("app.example.test", "evil.example");
    let response = site
        .provider
        .control("signIn", json!({ "url": elsewhere }))
        .await;
    assert!(response["location"].is_null(), "{response}");
    let response = visitor
        .navigate("/oauth2/callback?error=invalid_request")
        .await;
    assert_sign_in_refused(&response, "without state");
}
