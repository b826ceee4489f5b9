use http::{HeaderMap, HeaderValue};

use super::*;

const APP: &str = "https://app.example.com";
const EXPOSED_ALWAYS: &str = "X-Hawkgate-Error, WWW-Authenticate, Retry-After, X-Request-Id";

fn settings(origins: &[&str]) -> PolicySettings {
    let patterns = origins.iter().map(|o| OriginPattern::parse(o).unwrap());
    PolicySettings {
        allowed_origins: match origins {
            ["*"] => AllowedOrigins::Any,
            _ => AllowedOrigins::Listed(patterns.collect()),
        },
        allowed_headers: FieldNames::Listed(vec!["X-Tenant".into()]),
        exposed_headers: FieldNames::Listed(vec!["ETag".into()]),
        allow_credentials: false,
        max_age: DEFAULT_MAX_AGE,
    }
}

fn cors(settings: PolicySettings) -> Cors {
    Cors::new(&CorsSettings::Policy(settings), None, false)
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// The fields for a page of `origin`.
fn fields(cors: &Cors, origin: &str) -> Vec<(&'static str, String)> {
    let grant = cors.grant(&headers(&[("origin", origin)])).unwrap();
    let owned = |(name, value): (_, &str)| (name, value.to_owned());
    grant.fields().map(owned).collect()
}

fn preflight(cors: &Cors, origin: &str, method: &str) -> PreflightAnswer {
    let sent = headers(&[
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-private-network", "true"),
    ]);
    let grant = cors.grant(&sent).unwrap();
    grant.answer_preflight(requested_method(&sent).as_ref(), &sent)
}

fn header<'a>(answer: &'a PreflightAnswer, name: &str) -> Option<&'a str> {
    let mut named = answer.response.headers.iter().filter(|(n, _)| *n == name);
    let value = named.next().map(|(_, value)| value.as_str());
    assert!(named.next().is_none(), "{name} twice");
    value
}

#[test]
fn a_listed_origin_is_echoed_and_a_foreign_one_gets_nothing() {
    let cors = cors(settings(&["https://other.example", APP]));
    let expose = format!("{EXPOSED_ALWAYS}, ETag");
    assert_eq!(
        fields(&cors, APP),
        [
            ("access-control-allow-origin", APP.to_owned()),
            ("access-control-expose-headers", expose),
        ]
    );
    for foreign in ["", "null", "*", "https://app.example.com.evil.com"] {
        assert_eq!(fields(&cors, foreign), [], "{foreign}");
    }
    // Several fields, also of the same origin, are none of a browser.
    let twice = headers(&[("origin", APP), ("origin", APP)]);
    let none = headers(&[]);
    for sent in [twice, none] {
        assert_eq!(cors.grant(&sent).unwrap().fields().count(), 0);
        assert!(!cors.lists_origin(&sent));
    }
    let invalid = OriginPattern::parse("https://*.example.com").unwrap();
    assert!(!invalid.matches(b"https://\xff.example.com"));
}

#[test]
fn an_origin_that_matches_a_pattern_is_echoed_as_sent() {
    let cors = cors(settings(&["https://*.example.com", "http://localhost:*"]));
    for origin in ["https://a.b.example.com", "http://localhost:3000"] {
        assert_eq!(fields(&cors, origin)[0].1, origin);
        assert!(cors.lists_origin(&headers(&[("origin", origin)])));
    }
    assert_eq!(fields(&cors, "https://example.com"), []);
}

#[test]
fn any_origin_gets_the_same_answer_and_counts_as_listed_nowhere() {
    let cors = cors(settings(&["*"]));
    for origin in [APP, "null", "https://evil.example"] {
        let sent = headers(&[("origin", origin)]);
        assert_eq!(fields(&cors, origin)[0].1, "*");
        assert!(!cors.lists_origin(&sent) && !cors.allows_credentials(&sent));
    }
    assert!(cors.grant(&headers(&[])).unwrap().is_allowed());
}

#[test]
fn credentials_are_allowed_to_listed_origins_only() {
    let with = |origins: &[&str]| {
        cors(PolicySettings {
            allow_credentials: true,
            ..settings(origins)
        })
    };
    let allowed = with(&[APP]);
    let credentials = |fields: &[(&str, String)]| {
        let named = |(name, _): &&(&str, String)| *name == "access-control-allow-credentials";
        fields.iter().find(named).map(|(_, value)| value.clone())
    };
    assert_eq!(credentials(&fields(&allowed, APP)).as_deref(), Some("true"));
    assert!(allowed.allows_credentials(&headers(&[("origin", APP)])));
    let answer = preflight(&allowed, APP, "PUT");
    assert_eq!(
        header(&answer, "access-control-allow-credentials"),
        Some("true")
    );
    for foreign in ["https://evil.example", "null"] {
        assert!(!allowed.allows_credentials(&headers(&[("origin", foreign)])));
        assert_eq!(fields(&allowed, foreign), []);
    }
    assert!(!cors(settings(&[APP])).allows_credentials(&headers(&[("origin", APP)])));
    assert!(!Cors::Upstream.allows_credentials(&headers(&[("origin", APP)])));
    // The configuration reader refuses this; the answer would still be safe.
    assert_eq!(credentials(&fields(&with(&["*"]), APP)), None);
}

#[test]
fn a_preflight_is_answered_in_full() {
    let answer = preflight(&cors(settings(&[APP])), APP, "PATCH");
    assert_eq!(answer.refused, None);
    assert_eq!(answer.response.status, StatusCode::NO_CONTENT);
    for (name, value) in [
        ("access-control-allow-origin", APP),
        (
            "access-control-allow-methods",
            "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        ),
        ("access-control-allow-headers", "Authorization, X-Tenant"),
        ("access-control-max-age", "600"),
        ("access-control-allow-private-network", "true"),
        (
            "vary",
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ),
    ] {
        assert_eq!(header(&answer, name), Some(value), "{name}");
    }
    for name in [
        "access-control-allow-credentials",
        "access-control-expose-headers",
        "cache-control",
        "content-length",
    ] {
        assert_eq!(header(&answer, name), None, "{name}");
    }
}

#[test]
fn a_preflight_without_permission_has_no_field_that_gives_any() {
    let of = |origin, method| preflight(&cors(settings(&[APP])), origin, method);
    for (answer, cause) in [
        (of("https://evil.example", "GET"), "origin"),
        (of("null", "GET"), "origin"),
        (of(APP, "PROPFIND"), "method"),
        (of(APP, "patch"), "method"),
        (of(APP, "TRACE"), "method"),
        (of(APP, "CONNECT"), "method"),
        (of(APP, "GET, PUT"), "method"),
        (of(APP, ""), "method"),
    ] {
        assert_eq!(answer.response.status, StatusCode::NO_CONTENT);
        assert!(answer.refused.unwrap().contains(cause), "{answer:?}");
        let names: Vec<_> = answer.response.headers.iter().map(|(n, _)| *n).collect();
        assert_eq!(names, ["vary"]);
    }
}

#[test]
fn methods_and_names_come_from_the_route_and_the_settings() {
    let mut settings = settings(&[APP]);
    settings.allowed_headers = FieldNames::Listed(vec!["authorization".into(), "x-otp".into()]);
    settings.exposed_headers = FieldNames::Listed(vec!["retry-after".into(), "Link".into()]);
    settings.max_age = Duration::ZERO;
    let methods = [Method::GET, Method::PUT];
    let of = |settings: &PolicySettings, takes_password| {
        let settings = CorsSettings::Policy(settings.clone());
        Cors::new(&settings, Some(&methods), takes_password)
    };
    let cors = of(&settings, true);
    let answer = preflight(&cors, APP, "PUT");
    for (name, value) in [
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "Authorization, X-OTP"),
        ("access-control-max-age", "0"),
    ] {
        assert_eq!(header(&answer, name), Some(value), "{name}");
    }
    let expose = &fields(&cors, APP)[1].1;
    assert_eq!(
        *expose,
        format!("{EXPOSED_ALWAYS}, x-hawkgate-recovery-code, Link")
    );
    assert!(preflight(&cors, APP, "POST").refused.is_some());
    settings.allowed_headers = FieldNames::Any;
    settings.exposed_headers = FieldNames::Any;
    let cors = of(&settings, false);
    let answer = preflight(&cors, APP, "GET");
    assert_eq!(
        header(&answer, "access-control-allow-headers"),
        Some("Authorization, *"),
        "the asterisk does not cover Authorization"
    );
    assert_eq!(fields(&cors, APP)[1].1, format!("{EXPOSED_ALWAYS}, *"));
}

#[test]
fn private_networks_are_allowed_only_when_asked_for() {
    let cors = cors(settings(&[APP]));
    for (value, allowed) in [
        ("true", true),
        ("false", false),
        ("TRUE", false),
        ("", false),
    ] {
        let sent = headers(&[
            ("origin", APP),
            ("access-control-request-private-network", value),
        ]);
        let grant = cors.grant(&sent).unwrap();
        let answer = grant.answer_preflight(Some(&Method::GET), &sent);
        let field = header(&answer, "access-control-allow-private-network");
        assert_eq!(field, allowed.then_some("true"), "{value}");
    }
}

#[test]
fn only_options_with_an_origin_and_a_method_is_a_preflight() {
    let full = [("origin", APP), ("access-control-request-method", "GET")];
    assert!(is_preflight(&Method::OPTIONS, &headers(&full)));
    assert!(!is_preflight(&Method::GET, &headers(&full)));
    assert!(!is_preflight(&Method::OPTIONS, &headers(&full[..1])));
    assert!(!is_preflight(&Method::OPTIONS, &headers(&full[1..])));
    let twice = headers(&[full[0], full[1], full[1]]);
    assert!(is_preflight(&Method::OPTIONS, &twice));
    assert_eq!(requested_method(&twice), None);
}
