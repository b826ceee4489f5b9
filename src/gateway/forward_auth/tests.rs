use http::HeaderMap;

use super::*;

fn asked(kind: ProxyKind) -> ForwardAuth {
    ForwardAuth {
        name: "edge".into(),
        kind,
        routes: vec!["r".into()],
    }
}

const ALL: [ProxyKind; 4] = [
    ProxyKind::Nginx,
    ProxyKind::Traefik,
    ProxyKind::Caddy,
    ProxyKind::Envoy,
];

#[test]
fn only_two_paths_are_served() {
    for kind in ALL {
        let action = |method: &Method, target: &str| {
            let action = asked(kind).action(method, target);
            action.map_err(|rejection| rejection.reason)
        };
        let envoy = kind == ProxyKind::Envoy;
        for (method, target, expected) in [
            (Method::GET, "/check", (!envoy).then_some(Action::Check)),
            (Method::PUT, "/check", (!envoy).then_some(Action::Check)),
            (Method::GET, "/check/", envoy.then_some(Action::Check)),
            (Method::PUT, "/check/a?b", envoy.then_some(Action::Check)),
            (Method::POST, "/check//a", envoy.then_some(Action::Check)),
            (Method::POST, "/unauthorized", Some(Action::Report)),
            (Method::GET, "/unauthorized", None),
            (Method::POST, "/unauthorized/", None),
            (Method::POST, "/unauthorized?x", None),
            (
                Method::GET,
                "/check?x",
                (kind == ProxyKind::Caddy).then_some(Action::Check),
            ),
            (Method::GET, "/check%3Fx", None),
            (Method::GET, "/checks", None),
            (Method::GET, "/CHECK", None),
            (Method::GET, "/", None),
            (Method::OPTIONS, "*", None),
        ] {
            let expected = expected.ok_or(Reason::ForwardAuthRequest);
            assert_eq!(action(&method, target), expected, "{kind:?} {target}");
        }
    }
}

#[test]
fn nginx_gets_statuses_that_it_passes_on() {
    for (reason, nginx, other) in [
        (Reason::MissingToken, 401, 401),
        (Reason::InvalidAuthorization, 403, 400),
        (Reason::BadRequest, 403, 400),
        (Reason::NoRoute, 403, 404),
        (Reason::MethodRefused, 403, 405),
        (Reason::RateLimited, 403, 429),
        (Reason::RuleDenied, 403, 403),
        // Faults of the proxy's configuration and of hawkgate are not the client's.
        (Reason::ForwardAuthRequest, 400, 400),
        (Reason::ExchangeUnavailable, 503, 503),
        (Reason::ExchangeFailed, 502, 502),
        (Reason::Internal, 500, 500),
    ] {
        for kind in ALL {
            let expected = if kind == ProxyKind::Nginx {
                nginx
            } else {
                other
            };
            assert_eq!(asked(kind).status(reason).as_u16(), expected, "{reason:?}");
        }
    }
}

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn the_original_request_is_read_from_the_headers_of_the_kind_alone() {
    let all = headers(&[
        ("x-original-method", "PUT"),
        ("x-original-url", "https://n.test:8443/n/%2F?a=http://b/#"),
        ("x-original-uri", "/uri"),
        ("x-forwarded-method", "DELETE"),
        ("x-forwarded-host", "t.test"),
        ("x-forwarded-uri", "/t?x"),
        ("forwarded", "host=f.test"),
    ]);
    for (kind, method, host, target) in [
        (
            ProxyKind::Nginx,
            Method::PUT,
            "n.test:8443",
            "/n/%2F?a=http://b/#",
        ),
        (ProxyKind::Traefik, Method::DELETE, "t.test", "/t?x"),
        (ProxyKind::Caddy, Method::DELETE, "t.test", "/t?x"),
        (ProxyKind::Envoy, Method::PATCH, "e.test", "/e?y"),
    ] {
        let original = kind.original(&Method::PATCH, "e.test", "/check/e?y", &all);
        let expected = OriginalRequest {
            method,
            host: host.to_owned(),
            target: target.to_owned(),
        };
        assert_eq!(original.unwrap(), expected, "{kind:?}");
    }
}

#[test]
fn a_refusal_names_the_header_and_what_to_write() {
    let cause = |kind: ProxyKind, fields: &[(&'static str, &'static str)]| {
        let refused = kind.original(&Method::GET, "h", "/check", &headers(fields));
        let rejection = refused.unwrap_err();
        assert_eq!(rejection.reason, Reason::ForwardAuthRequest);
        rejection.cause.unwrap()
    };
    let method = ("x-original-method", "GET");
    for (fields, expected) in [
        (
            &[][..],
            "x-original-method is missing: write `proxy_set_header X-Original-Method $request_method;`",
        ),
        (
            &[method],
            "x-original-url is missing: write `proxy_set_header X-Original-URL $scheme://$host$request_uri;`",
        ),
        (
            &[method, method],
            "x-original-method was sent more than once: write `proxy_set_header X-Original-Method $request_method;`",
        ),
        (
            &[("x-original-method", "G T")],
            "x-original-method is not a method: write `proxy_set_header X-Original-Method $request_method;`",
        ),
        (
            &[method, ("x-original-url", "")],
            "x-original-url is empty or not ASCII: write `proxy_set_header X-Original-URL $scheme://$host$request_uri;`",
        ),
    ] {
        assert_eq!(cause(ProxyKind::Nginx, fields), expected);
    }
    for url in [
        "/path",
        "//h/path",
        "ftp://h/",
        "https:/h/",
        "https://h",
        "HTTPS://h/",
        "h/path",
        " https://h/",
    ] {
        let fields = [method, ("x-original-url", url)];
        let found = cause(ProxyKind::Nginx, &fields);
        assert!(found.contains("is not scheme://host/path"), "{url}");
    }
    let found = cause(ProxyKind::Traefik, &[]);
    assert!(
        found.ends_with("unless trustForwardHeader is set"),
        "{found}"
    );
    let found = cause(ProxyKind::Caddy, &[("x-forwarded-method", "GET")]);
    assert!(found.starts_with("x-forwarded-host is missing"), "{found}");
}
