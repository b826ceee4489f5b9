use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::browser::{cross_site, navigates};
use super::*;

const ORIGIN: &str = "https://app.example.com";

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_str(value).unwrap();
        map.append(HeaderName::from_static(name), value);
    }
    map
}

fn is_navigation(method: &Method, sent: &[(&'static str, &str)]) -> bool {
    let headers = fields(sent);
    navigates(Head {
        method,
        ..Head::for_test("/", &headers)
    })
}

#[test]
fn a_navigation_is_what_a_browser_would_show_as_a_page() {
    let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    for sent in [
        &[("sec-fetch-mode", "navigate")][..],
        &[
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ],
        &[html],
        &[("accept", "application/json, TEXT/HTML;q=0.5")],
    ] {
        assert!(is_navigation(&Method::GET, sent), "{sent:?}");
    }
    assert!(is_navigation(
        &Method::POST,
        &[("sec-fetch-mode", "navigate")]
    ));
    for sent in [
        &[][..],
        &[("accept", "*/*")],
        &[("accept", "application/json")],
        &[("accept", "text/html;q=0")],
        &[("accept", "text/html; q=0.0")],
        &[("accept", "text/htmlx")],
        // A script that asks for HTML.
        &[("sec-fetch-mode", "cors"), html],
        &[("sec-fetch-mode", "same-origin"), html],
        &[("sec-fetch-mode", "websocket"), html],
        &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        &[
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-mode", "navigate"),
        ],
    ] {
        assert!(!is_navigation(&Method::GET, sent), "{sent:?}");
    }
    assert!(!is_navigation(&Method::POST, &[html]));
}

fn is_cross_site(method: &Method, sent: &[(&'static str, &str)]) -> bool {
    let headers = fields(sent);
    let head = Head {
        method,
        ..Head::for_test("/", &headers)
    };
    let allowed = |origin: &[u8]| origin == b"https://friend.example.com";
    cross_site(head, |sender| sender == ORIGIN.as_bytes(), allowed).is_some()
}

#[test]
fn unsafe_requests_and_upgrades_come_from_pages_of_this_origin() {
    let upgrade = ("upgrade", "websocket");
    for own in [
        &[("sec-fetch-site", "same-origin")][..],
        &[("origin", ORIGIN)],
        &[("sec-fetch-site", "same-origin"), ("origin", ORIGIN)],
        // A form of a page with the referrer policy `no-referrer`.
        &[("sec-fetch-site", "same-origin"), ("origin", "null")],
        // Allowed by the route's `cors`.
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://friend.example.com"),
        ],
        &[("origin", "https://friend.example.com")],
    ] {
        assert!(!is_cross_site(&Method::POST, own), "{own:?}");
        assert!(
            !is_cross_site(&Method::GET, &[own, &[upgrade]].concat()),
            "{own:?}"
        );
    }
    for foreign in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "Same-Origin")],
        &[("origin", "https://evil.example.com")],
        &[("origin", "null")],
        &[("origin", "https://app.example.com:8443")],
        &[("origin", "https://app.example.com.evil.example")],
        &[("origin", "http://app.example.com")],
        &[("origin", "")],
        &[("sec-fetch-site", "cross-site"), ("origin", ORIGIN)],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://evil.example.com"),
        ],
        &[
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "same-origin"),
        ],
        &[("origin", ORIGIN), ("origin", "https://evil.example.com")],
        // A navigation to an unsafe method is a form.
        &[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
        ],
    ] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(is_cross_site(&method, foreign), "{foreign:?}");
        }
        let strange = Method::from_bytes(b"get").unwrap();
        assert!(is_cross_site(&strange, foreign), "{foreign:?}");
        let upgrade = [foreign, &[upgrade]].concat();
        assert!(is_cross_site(&Method::GET, &upgrade), "{foreign:?}");
    }
}

#[test]
fn safe_requests_of_other_sites_are_navigations_only() {
    let cross = ("sec-fetch-site", "cross-site");
    for sent in [
        &[][..],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")],
        &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
        &[cross, ("sec-fetch-mode", "navigate")],
        &[
            cross,
            ("sec-fetch-mode", "cors"),
            ("origin", "https://friend.example.com"),
        ],
    ] {
        assert!(!is_cross_site(&Method::GET, sent), "{sent:?}");
    }
    for sent in [
        &[cross][..],
        &[cross, ("sec-fetch-mode", "no-cors")],
        &[
            cross,
            ("sec-fetch-mode", "cors"),
            ("origin", "https://evil.example.com"),
        ],
        &[("sec-fetch-site", "something"), ("sec-fetch-mode", "cors")],
    ] {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(is_cross_site(&method, sent), "{sent:?}");
        }
    }
}

#[test]
fn the_origin_is_written_as_browsers_write_it() {
    for (host, https, expected) in [
        ("app.example.com", true, Some("https://app.example.com")),
        ("App.Example.COM:443", true, Some("https://app.example.com")),
        (
            "app.example.com:8443",
            true,
            Some("https://app.example.com:8443"),
        ),
        (
            "app.example.com:80",
            true,
            Some("https://app.example.com:80"),
        ),
        ("localhost:80", false, Some("http://localhost")),
        ("127.0.0.1:8080", false, Some("http://127.0.0.1:8080")),
        ("[::1]:8080", false, Some("http://[::1]:8080")),
        ("[0:0:0:0:0:0:0:1]", false, Some("http://[::1]")),
        ("", true, None),
        ("a/b", true, None),
        ("user@app.example.com", true, None),
        ("app.example.com:", true, None),
        ("app.example.com:x", true, None),
        ("app.example.com:123456", true, None),
        ("[::1", true, None),
        ("[app]", true, None),
        ("a b", true, None),
        ("é.example.com", true, None),
    ] {
        let security = if https {
            SiteSecurity::Https
        } else {
            SiteSecurity::LoopbackHttp
        };
        let found = origin(host, security);
        assert_eq!(found.as_deref(), expected, "{host}");
    }
}
