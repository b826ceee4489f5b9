//! Requests that other sites make a browser send, with its cookies.

use serde_json::json;

use crate::support::client::{Body, Client, Request};
use crate::support::sessions::{COOKIE, HOST, ORIGIN, Options, Site, Visitor, own_fetch};

/// A header field.
type Field = (&'static str, &'static str);

const SAME: Field = ("Sec-Fetch-Site", "same-origin");
const SIBLING: Field = ("Sec-Fetch-Site", "same-site");
const CROSS: Field = ("Sec-Fetch-Site", "cross-site");
const USER: Field = ("Sec-Fetch-Site", "none");
const OWN: Field = ("Origin", ORIGIN);
const EVIL: Field = ("Origin", "https://evil.example");
const CORS: Field = ("Sec-Fetch-Mode", "cors");
const NO_CORS: Field = ("Sec-Fetch-Mode", "no-cors");
const NAVIGATE: Field = ("Sec-Fetch-Mode", "navigate");

/// What a request with the cookie has besides, and whether it is forwarded.
const REQUESTS: &[(&str, &[Field], bool)] = &[
    ("POST", &[OWN, SAME, CORS], true),
    ("POST", &[OWN], true),
    ("POST", &[SAME], true),
    ("PUT", &[OWN, SAME], true),
    ("DELETE", &[SAME], true),
    // Neither field: an old browser, or a program. It cannot be told from an attack.
    ("POST", &[], false),
    ("DELETE", &[], false),
    ("PATCH", &[], false),
    ("PROPFIND", &[], false),
    // A form of another site. SameSite=Lax prevents most of these, but not within two minutes of the
    // sign-in, and not from a sibling domain.
    ("POST", &[EVIL, CROSS, NAVIGATE], false),
    ("POST", &[EVIL], false),
    ("POST", &[CROSS], false),
    ("POST", &[SIBLING], false),
    (
        "POST",
        &[("Origin", "https://sibling.example.test"), SIBLING],
        false,
    ),
    ("POST", &[USER], false),
    // Fields that contradict each other.
    ("POST", &[OWN, CROSS], false),
    ("POST", &[OWN, SIBLING], false),
    ("POST", &[EVIL, SAME], false),
    // A form of a page whose referrer policy is `no-referrer`.
    ("POST", &[("Origin", "null"), SAME], true),
    // Almost the site's origin.
    ("POST", &[("Origin", "null")], false),
    ("POST", &[("Origin", "")], false),
    ("POST", &[("Origin", "http://app.example.test")], false),
    (
        "POST",
        &[("Origin", "https://app.example.test:8443")],
        false,
    ),
    (
        "POST",
        &[("Origin", "https://app.example.test.evil.example")],
        false,
    ),
    (
        "POST",
        &[("Origin", "https://evil.example/https://app.example.test")],
        false,
    ),
    (
        "POST",
        &[("Origin", "https://app.example.test https://evil.example")],
        false,
    ),
    ("POST", &[("Origin", "https://app.example.test/")], false),
    ("POST", &[("Origin", "https://xapp.example.test")], false),
    ("POST", &[("Origin", "app.example.test")], false),
    ("POST", &[OWN, EVIL], false),
    ("POST", &[("Sec-Fetch-Site", "SAME-ORIGIN"), EVIL], false),
    ("POST", &[("Sec-Fetch-Site", "future-value")], false),
    (
        "POST",
        &[("Referer", "https://app.example.test/page")],
        false,
    ),
    // Reading.
    ("GET", &[SAME, CORS], true),
    ("GET", &[], true),
    ("HEAD", &[SAME], true),
    ("OPTIONS", &[SAME], true),
    ("GET", &[USER, NAVIGATE], true),
    ("GET", &[SIBLING, NO_CORS], true),
    // A link of another site.
    ("GET", &[CROSS, NAVIGATE], true),
    // An image, a script, fetch().
    ("GET", &[CROSS, NO_CORS], false),
    ("GET", &[CROSS, CORS, EVIL], false),
    ("GET", &[CROSS], false),
    ("HEAD", &[CROSS, NO_CORS], false),
    ("GET", &[CROSS, ("Sec-Fetch-Mode", "websocket")], false),
];

fn request(visitor: &Visitor<'_>, method: &str, target: &str, fields: &[Field]) -> Request {
    let mut request = Request::new(method, target);
    HOST.clone_into(&mut request.authority);
    request = request.header("Cookie", &visitor.cookie_field());
    for (name, value) in fields {
        request = request.header(name, value);
    }
    match method {
        "POST" | "PUT" | "PATCH" => request.body(Body::Sized("{}".into())),
        _ => request,
    }
}

#[tokio::test]
async fn unsafe_requests_by_cookie_need_the_sites_own_origin() {
    let site = Site::usual().await;
    let visitor = site.signed_in("ada").await;
    let mut forwarded = 0;
    for (method, fields, allowed) in REQUESTS {
        let case = format!("{method} {fields:?}");
        let request = request(&visitor, method, "/x", fields);
        let response = site.gateway.send(&request).await;
        if *allowed {
            assert_eq!(response.status, 200, "{case}: {response:?}");
            forwarded += 1;
        } else {
            let refused = matches!(response.status, 400 | 403);
            assert!(
                refused && response.error_reason().is_some(),
                "{case}: {response:?}"
            );
            // Two fields of one kind are malformed, which is another reason.
            if response.status == 403 {
                assert_eq!(response.error_reason(), Some("cross_site"), "{case}");
            }
        }
        let seen = site.application.requests().await.len();
        assert_eq!(seen, forwarded, "{case}");
    }
}

/// A page that holds a token cannot be made to send it by another site.
#[tokio::test]
async fn a_bearer_token_needs_no_origin() {
    let site = Site::start(Options {
        route: "issuers = [\"idp\"]",
        ..Options::default()
    })
    .await;
    let visitor = site.signed_in("ada").await;
    let token = site.provider.token("grace").await;
    for (method, fields, _) in REQUESTS {
        // The bearer wins over the cookie; two origins are malformed for everybody.
        if fields.iter().filter(|(name, _)| *name == "Origin").count() > 1 {
            continue;
        }
        let request = request(&visitor, method, "/x", fields).bearer(&token);
        let response = site.gateway.send(&request).await;
        assert_eq!(response.status, 200, "{method} {fields:?}: {response:?}");
    }
    // An invalid bearer is refused as such: the cookie does not replace it.
    let mut both = visitor.thief();
    let response = both.send(own_fetch("GET", "/x").bearer("a.b.c")).await;
    assert_eq!(response.status_and_reason().0, 401, "{response:?}");
    assert_ne!(response.error_reason(), Some("sign_in_required"));
    assert!(response.header("www-authenticate").is_some());
    let response = both
        .send(own_fetch("GET", "/x").header("Authorization", "Basic YTpi"))
        .await;
    assert_eq!(response.status / 100, 4, "{response:?}");
}

#[tokio::test]
async fn upgrades_by_cookie_need_the_sites_own_origin() {
    let site = Site::usual().await;
    let visitor = site.signed_in("ada").await;
    let websocket: [Field; 4] = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (fields, allowed) in [
        (
            &[OWN, SAME, ("Sec-Fetch-Mode", "websocket")] as &[Field],
            true,
        ),
        (&[OWN], true),
        (&[EVIL, CROSS, ("Sec-Fetch-Mode", "websocket")], false),
        (&[EVIL], false),
        (&[("Origin", "null")], false),
        (
            &[SIBLING, ("Origin", "https://sibling.example.test")],
            false,
        ),
        (&[], false),
        (&[OWN, CROSS], false),
    ] {
        let all: Vec<Field> = websocket.iter().chain(fields).copied().collect();
        let mut client: Client = site.gateway.client().await;
        let request = request(&visitor, "GET", "/socket", &all);
        let response = client.request(&request).await.unwrap();
        let expected = if allowed {
            (101, None)
        } else {
            (403, Some("cross_site"))
        };
        assert_eq!(
            response.status_and_reason(),
            expected,
            "{fields:?}: {response:?}"
        );
    }
}

/// Nothing but the cookie makes a request one of a session, so that what does not carry it is asked
/// to sign in, no matter who sends it.
#[tokio::test]
async fn navigations_are_led_to_the_sign_in_and_others_are_told() {
    let site = Site::usual().await;
    let html: Field = ("Accept", "text/html,application/xhtml+xml");
    let document: Field = ("Sec-Fetch-Dest", "document");
    for (method, fields, redirected) in [
        ("GET", &[USER, NAVIGATE, document, html] as &[Field], true),
        ("GET", &[CROSS, NAVIGATE, document], true),
        ("GET", &[html], true),
        ("HEAD", &[html], true),
        // An old browser that asks for a script, or a program.
        ("GET", &[("Accept", "*/*")], false),
        ("GET", &[], false),
        ("GET", &[("Accept", "application/json")], false),
        ("GET", &[SAME, CORS, html], false),
        (
            "GET",
            &[SAME, NO_CORS, ("Sec-Fetch-Dest", "image"), html],
            false,
        ),
        ("POST", &[html], false),
        // A form of the site's own, whose session has ended meanwhile.
        ("POST", &[OWN, SAME, NAVIGATE, document, html], true),
        ("DELETE", &[OWN, SAME, CORS], false),
        (
            "GET",
            &[
                SAME,
                ("X-Requested-With", "XMLHttpRequest"),
                ("Accept", "application/json"),
            ],
            false,
        ),
    ] {
        let case = format!("{method} {fields:?}");
        let mut request = Request::new(method, "/a/b?c=d%26e");
        HOST.clone_into(&mut request.authority);
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let response = site.gateway.send(&request).await;
        if redirected {
            assert_eq!(response.status, 302, "{case}: {response:?}");
            let expected = "/oauth2/login?return_to=%2Fa%2Fb%3Fc%3Dd%2526e";
            let location = response.header("location").unwrap_or_default();
            let decode = |text: &str| {
                url::form_urlencoded::parse(text.as_bytes())
                    .into_owned()
                    .collect::<Vec<_>>()
            };
            assert_eq!(decode(location), decode(expected), "{case}");
        } else {
            assert_eq!(
                response.status_and_reason(),
                (401, Some("sign_in_required")),
                "{case}: {response:?}"
            );
            assert_eq!(response.json()["login_url"], "/oauth2/login", "{case}");
            assert!(response.header("location").is_none(), "{case}");
        }
        assert_eq!(response.header("cache-control"), Some("no-store"), "{case}");
    }
    assert!(site.application.requests().await.is_empty());
}

/// A cross-site page with credentials is allowed only where the route's `cors` names it.
#[tokio::test]
async fn cors_with_credentials_extends_the_session_to_one_origin() {
    let site = Site::start(Options {
        route: r#"cors = { allowed_origins = ["https://partner.example"], allow_credentials = true }"#,
        ..Options::default()
    })
    .await;
    let visitor = site.signed_in("ada").await;
    let partner: Field = ("Origin", "https://partner.example");
    let allowed = request(&visitor, "POST", "/x", &[partner, CROSS, CORS]);
    let response = site.gateway.send(&allowed).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(
        response.header("access-control-allow-origin"),
        Some("https://partner.example")
    );
    assert_eq!(
        response.header("access-control-allow-credentials"),
        Some("true")
    );
    for fields in [&[EVIL, CROSS, CORS] as &[Field], &[CROSS, CORS], &[EVIL]] {
        let refused = request(&visitor, "POST", "/x", fields);
        let response = site.gateway.send(&refused).await;
        assert_eq!(
            response.status_and_reason(),
            (403, Some("cross_site")),
            "{fields:?}: {response:?}"
        );
        assert!(response.header("access-control-allow-origin").is_none());
    }
    assert!(
        json!(site.application.requests().await.len() == 1)
            .as_bool()
            .unwrap()
    );
    assert!(visitor.cookie(COOKIE).is_some());
}
