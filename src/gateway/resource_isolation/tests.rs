use http::HeaderMap;

use super::*;

/// Checks a request with this `Host` and these fields.
fn check(transport: Transport, host: &str, fields: &[(&str, &str)]) -> Result<(), Reason> {
    let policy = IsolationPolicy::new(vec!["taskcluster".into(), "10.1.2.3".into()]);
    let headers = headers(fields);
    let head = Head {
        host,
        transport,
        https: transport == Transport::Tls,
        ..Head::for_test("/x", &headers)
    };
    let checked = policy.check_route(Isolation::Always, false, None, head);
    checked.map_err(|rejection| rejection.reason)
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, value.parse().unwrap());
    }
    headers
}

#[test]
fn hosts_of_this_machine_are_accepted_with_any_port() {
    for host in [
        "localhost",
        "LocalHost:8080",
        "localhost.:1",
        "127.0.0.1",
        "127.0.0.1:65535",
        "127.255.0.9:80",
        "[::1]",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]:8080",
        "taskcluster",
        "TaskCluster:8080",
        "10.1.2.3:8080",
    ] {
        assert_eq!(check(Transport::Tcp, host, &[]), Ok(()), "{host}");
    }
}

#[test]
fn other_hosts_are_refused_except_on_unix_sockets() {
    for host in [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost-evil",
        "app.localhost",
        "taskcluster.evil.example",
        "10.1.2.4",
        "0.0.0.0:8080",
        "[::]:8080",
        "[::ffff:127.0.0.1]:8080",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
    ] {
        for transport in [Transport::Tcp, Transport::Tls] {
            let refused = check(transport, host, &[]);
            assert_eq!(refused, Err(Reason::HostNotAllowed), "{host}");
        }
        assert_eq!(check(Transport::Unix, host, &[]), Ok(()), "{host}");
    }
}

#[test]
fn addresses_are_accepted_for_containers_unless_they_lead_to_loopback() {
    let policy = IsolationPolicy::default().with_addresses();
    for host in [
        "172.18.0.1:8080",
        "192.0.2.1",
        "[fd00::1]:8080",
        "127.0.0.1",
    ] {
        policy.check_host(host).unwrap();
    }
    for host in [
        "0.0.0.0:8080",
        "[::]:8080",
        "[::ffff:127.0.0.1]:8080",
        "[::ffff:172.18.0.1]",
        "172.18.1",
        "172.18.0.1.evil.example",
        "evil.example",
    ] {
        let refused = policy.check_host(host).unwrap_err();
        assert_eq!(refused.reason, Reason::HostNotAllowed, "{host}");
    }
}

#[test]
fn a_refused_host_is_logged_in_full_up_to_the_limit_of_dns() {
    let long = "a".repeat(10_000);
    let policy = IsolationPolicy::default();
    let cause = policy.check_host(&long).unwrap_err().cause.unwrap();
    assert!(cause.starts_with(&format!("\"{}\" ", "a".repeat(253))));
    let cause = policy.check_host("Evil.example:1").unwrap_err().cause;
    assert!(cause.unwrap().starts_with("\"evil.example\" "));
}

const HOST: &str = "127.0.0.1:8080";

#[test]
fn programs_and_pages_of_the_same_origin_are_accepted() {
    for fields in [
        &[][..],
        &[("user-agent", "curl/8.14.1"), ("accept", "*/*")],
        &[("origin", "http://127.0.0.1:8080")],
        &[("origin", "HTTP://127.0.0.1:8080")],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://127.0.0.1:8080"),
        ],
        &[("referer", "http://127.0.0.1:8080/page?x=http://a#b")],
        &[("referer", "http://127.0.0.1:8080")],
        // A page that withholds its address; this browser sends Sec-Fetch-Site.
        &[
            ("sec-fetch-site", "none"),
            ("referer", "https://evil.example/"),
        ],
    ] {
        assert_eq!(check(Transport::Tcp, HOST, fields), Ok(()), "{fields:?}");
    }
}

#[test]
fn requests_of_other_origins_are_refused_on_every_transport() {
    for fields in [
        &[("origin", "http://evil.example")][..],
        &[("origin", "null")],
        &[("origin", "")],
        &[("origin", "http://127.0.0.1:8081")],
        &[("origin", "http://127.0.0.1")],
        &[("origin", "http://localhost:8080")],
        &[("origin", "http://127.0.0.1:8080.evil.example")],
        &[("origin", "http://127.0.0.1:8080@evil.example")],
        &[("origin", "http://127.0.0.1:8080/")],
        &[("origin", "ftp://127.0.0.1:8080")],
        &[("origin", "chrome-extension://abcdefgh")],
        &[("origin", "127.0.0.1:8080")],
        &[
            ("origin", "http://127.0.0.1:8080"),
            ("origin", "http://evil.example"),
        ],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "Same-Origin")],
        &[("sec-fetch-site", "")],
        &[("sec-fetch-site", "new-value")],
        &[("sec-fetch-site", "none"), ("sec-fetch-site", "none")],
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "http://127.0.0.1:8080"),
        ],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://evil.example"),
        ],
        &[("referer", "http://evil.example/http://127.0.0.1:8080/")],
        &[("referer", "http://127.0.0.1:80801/")],
        &[("referer", "about:blank")],
        &[("referer", "")],
    ] {
        for transport in [Transport::Tcp, Transport::Tls, Transport::Unix] {
            let refused = check(transport, HOST, fields);
            assert_eq!(refused, Err(Reason::CrossSite), "{fields:?}");
        }
    }
}

#[test]
fn the_scheme_and_the_default_port_belong_to_the_origin() {
    let origin = |transport, host, origin| check(transport, host, &[("origin", origin)]).is_ok();
    assert!(origin(Transport::Tls, "localhost", "https://localhost"));
    assert!(origin(Transport::Tls, "localhost:443", "https://localhost"));
    assert!(origin(Transport::Tcp, "localhost", "http://localhost:80"));
    assert!(origin(Transport::Tcp, "[::1]:80", "http://[::1]"));
    assert!(origin(Transport::Unix, "localhost", "http://localhost"));
    assert!(!origin(Transport::Tls, "localhost", "http://localhost"));
    assert!(!origin(Transport::Tcp, "localhost", "https://localhost"));
    assert!(!origin(Transport::Tcp, "localhost:443", "http://localhost"));
}

#[test]
fn preflights_for_private_network_access_are_refused() {
    let headers = headers(&[("access-control-request-private-network", "true")]);
    let preflight = Head {
        method: &Method::OPTIONS,
        ..Head::for_test("/x", &headers)
    };
    let refused = IsolationPolicy::default().check(preflight).unwrap_err();
    assert_eq!(refused.reason, Reason::CrossSite);
    let get = Head::for_test("/x", &headers);
    IsolationPolicy::default().check(get).unwrap();
}

#[test]
fn only_covered_requests_are_checked() {
    let policy = IsolationPolicy::default();
    let with_token = [("origin", "null"), ("authorization", "Bearer x")];
    for (isolation, fields, refused) in [
        (Isolation::Off, &with_token[..1], false),
        (Isolation::WithoutAuthorization, &with_token[..1], true),
        (Isolation::WithoutAuthorization, &with_token[..], false),
        (Isolation::Always, &with_token[..1], true),
        (Isolation::Always, &with_token[..], true),
    ] {
        let headers = headers(fields);
        let head = Head::for_test("/x", &headers);
        let checked = policy.check_route(isolation, false, None, head);
        assert_eq!(checked.is_err(), refused, "{isolation:?} {fields:?}");
    }
}

#[test]
fn a_host_that_the_configuration_names_elsewhere_is_accepted_but_not_its_other_origins() {
    let policy = IsolationPolicy::default();
    let check = |named, fields| {
        let headers = headers(fields);
        let head = Head {
            host: "tc.example.com:8080",
            ..Head::for_test("/x", &headers)
        };
        let checked = policy.check_route(Isolation::Always, named, None, head);
        checked.map_err(|rejection| rejection.reason)
    };
    assert_eq!(check(false, &[]), Err(Reason::HostNotAllowed));
    assert_eq!(check(true, &[]), Ok(()));
    let own = [("origin", "http://tc.example.com:8080")];
    assert_eq!(check(true, &own), Ok(()));
    let other = [("origin", "http://evil.example")];
    assert_eq!(check(true, &other), Err(Reason::CrossSite));
}

#[test]
fn admin_listeners_accept_requests_without_host_from_programs() {
    let policy = IsolationPolicy::default();
    let check = |host: &str, fields: &[(&str, &str)]| {
        let headers = headers(fields);
        let head = Head {
            host,
            transport: Transport::Tcp,
            ..Head::for_test("/readyz", &headers)
        };
        policy.check(head).map_err(|r| r.reason)
    };
    assert_eq!(check("", &[]), Ok(()));
    assert_eq!(check("localhost", &[]), Ok(()));
    assert_eq!(check("evil.example", &[]), Err(Reason::HostNotAllowed));
    for field in [
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("referer", "http://evil.example/"),
    ] {
        assert_eq!(check("", &[field]), Err(Reason::CrossSite), "{field:?}");
    }
}
