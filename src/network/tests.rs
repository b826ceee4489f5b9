use super::*;

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn from(variables: &[(&str, &str)]) -> Result<Network, ProxyError> {
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Network::from_variables(|wanted| {
        let found = variables.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    })
}

/// The proxy that the environment names for `target`.
fn proxy(variables: &[(&str, &str)], target: &str) -> Option<String> {
    let network = from(variables).unwrap();
    let proxy = network.proxy_for(&url(target));
    proxy.map(|proxy| proxy.name().to_owned())
}

#[test]
fn the_variables_are_looked_up_in_the_order_of_curl() {
    const TARGET: &str = "https://idp.example.com/";
    for (variables, https, http) in [
        (&[][..], None, None),
        (&[("HTTPS_PROXY", "http://a")][..], Some("http://a"), None),
        (&[("HTTP_PROXY", "http://a")], None, Some("http://a")),
        (&[("http_proxy", "http://a")], None, Some("http://a")),
        (
            &[("ALL_PROXY", "http://a")],
            Some("http://a"),
            Some("http://a"),
        ),
        (
            &[("ALL_PROXY", "http://a"), ("https_proxy", "http://b")],
            Some("http://b"),
            Some("http://a"),
        ),
        (
            &[("HTTPS_PROXY", "http://a"), ("https_proxy", "http://b")],
            Some("http://b"),
            None,
        ),
        (
            &[("ALL_PROXY", "http://a"), ("all_proxy", "http://b")],
            Some("http://b"),
            Some("http://b"),
        ),
        (
            &[("HTTPS_PROXY", "http://a"), ("https_proxy", "")],
            Some("http://a"),
            None,
        ),
        (&[("HTTPS_PROXY", "  ")], None, None),
        // Not used for either scheme, so not judged.
        (
            &[
                ("https_proxy", "http://a"),
                ("http_proxy", "http://b"),
                ("all_proxy", "socks5://c"),
            ],
            Some("http://a"),
            Some("http://b"),
        ),
    ] {
        assert_eq!(proxy(variables, TARGET).as_deref(), https, "{variables:?}");
        let plain = proxy(variables, "http://collector.example.com/");
        assert_eq!(plain.as_deref(), http, "{variables:?}");
    }
}

#[test]
fn proxies_are_http_or_https() {
    for (value, name) in [
        ("proxy.example.com:3128", "http://proxy.example.com:3128"),
        ("http://proxy.example.com", "http://proxy.example.com"),
        (
            "https://proxy.example.com:443/",
            "https://proxy.example.com",
        ),
        ("http://[::1]:3128", "http://[::1]:3128"),
        (" http://u:p@a.example:1 ", "http://a.example:1"),
    ] {
        let used = proxy(&[("HTTPS_PROXY", value)], "https://x.example/");
        assert_eq!(used.as_deref(), Some(name), "{value}");
    }
    for (value, problem) in [
        ("socks5://u:hunter2@a:1080", "is a SOCKS proxy"),
        ("socks5h://a", "is a SOCKS proxy"),
        ("ftp://u:hunter2@a", "scheme other than"),
        ("http://u:hunter2@a/path", "has a path"),
        ("http://u:hunter2@:80:80", "is not a URL"),
        ("http://", "is not a URL"),
    ] {
        let error = from(&[("ALL_PROXY", value)]).unwrap_err().to_string();
        assert!(error.starts_with("https_proxy") || error.starts_with("ALL_PROXY"));
        assert!(error.contains(problem), "{value}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn credentials_in_a_variable_are_decoded_and_never_shown() {
    let network = from(&[("HTTPS_PROXY", "http://al%40ice:hun%3Ater%2@p.example:3128")]).unwrap();
    let proxy = network.https.as_ref().unwrap();
    let endpoint = proxy.endpoint().unwrap();
    // al@ice:hun:ter%2
    let expected = "Basic YWxAaWNlOmh1bjp0ZXIlMg==";
    assert_eq!(endpoint.authorization.as_ref().unwrap().expose(), expected);
    let shown = format!("{network:?} {proxy} {endpoint:?} {:?}", network.describe());
    for secret in ["hun", "al@ice", "al%40", "YWxA"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn the_key_takes_no_credentials() {
    assert!(OutgoingProxy::from_key("http://p.example:3128").is_ok());
    for value in ["http://alice:hunter2@p.example", "http://alice@p.example"] {
        let error = OutgoingProxy::from_key(value).unwrap_err().to_string();
        assert!(error.contains("proxy_password"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("alice"));
    }
}

#[test]
fn no_proxy_is_read_as_curl_reads_it() {
    for (list, host, expected) in [
        ("", "example.com", false),
        ("*", "example.com", true),
        ("*", "10.0.0.1", true),
        ("a.example, *", "example.com", true),
        ("example.com", "example.com", true),
        ("example.com", "www.example.com", true),
        ("example.com", "nonexample.com", false),
        ("example.com", "example.com.evil.net", false),
        ("example.com", "com", false),
        (".example.com", "example.com", true),
        (".example.com", "www.example.com", true),
        (".example.com", "nonexample.com", false),
        ("example.com.", "example.com", true),
        ("example.com", "example.com.", true),
        ("Example.COM", "www.EXAMPLE.com", true),
        ("a.example b.example", "b.example", true),
        ("a.example,b.example", "b.example", true),
        (" a.example ,\t, b.example ", "b.example", true),
        ("localhost", "127.0.0.1", false),
        ("127.0.0.1", "localhost", false),
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.10", false),
        ("10.0.0.0/8", "10.255.1.2", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("192.168.1.17/24", "192.168.1.200", true),
        ("0.0.0.0/0", "8.8.8.8", true),
        ("10.0.0.0/33", "10.0.0.1", false),
        ("::1", "[::1]", true),
        ("[::1]", "[::1]", true),
        ("0:0:0:0:0:0:0:1", "[::1]", true),
        ("fd00::/8", "[fd12::1]", true),
        ("[fd00::]/8", "[fd12::1]", true),
        ("fd00::/8", "[fe80::1]", false),
        ("10.0.0.0/8", "10.example.com", false),
        // Matches nothing in curl.
        ("*.example.com", "www.example.com", false),
        ("example.com:443", "example.com", false),
        (".", "example.com", false),
    ] {
        let target = url(&format!("https://{host}/"));
        let (parsed, _) = NoProxy::parse(list);
        let matched = parsed.matches(&target.host().unwrap());
        assert_eq!(matched, expected, "{list:?} {host}");
    }
}

#[test]
fn entries_that_match_nothing_are_reported() {
    let list =
        "a.example, *.b.example, c.example:8080, 10.0.0.0/40, https://d.example, fo*, [::1]:80";
    let (parsed, unusable) = NoProxy::parse(list);
    assert_eq!(parsed.to_string(), "a.example");
    let remedies: Vec<_> = unusable.iter().map(|u| u.remedy.as_str()).collect();
    assert_eq!(unusable.len(), 6, "{unusable:?}");
    assert!(remedies[0].starts_with("write b.example,"), "{remedies:?}");
    assert!(unusable[1].problem.contains("port"), "{unusable:?}");
    assert!(unusable[2].problem.contains("network"), "{unusable:?}");
    assert!(unusable[3].problem.contains("URL"), "{unusable:?}");
    assert!(unusable[4].problem.contains("wildcard"), "{unusable:?}");
    assert!(unusable[5].problem.contains("port"), "{unusable:?}");
}

#[test]
fn plain_http_to_this_machine_never_leaves_it() {
    let remote = from(&[("ALL_PROXY", "http://proxy.example.com:3128")]).unwrap();
    let local = from(&[("ALL_PROXY", "http://127.0.0.1:3128")]).unwrap();
    for (target, through_remote, through_local) in [
        ("http://127.0.0.1:8080/", false, true),
        ("http://localhost:8080/", false, true),
        ("http://[::1]:8080/", false, true),
        // What is encrypted for the target may pass through any proxy.
        ("https://localhost:8443/", true, true),
        ("http://collector.example.com/", true, true),
    ] {
        let target = url(target);
        assert_eq!(remote.proxy_for(&target).is_some(), through_remote);
        assert_eq!(local.proxy_for(&target).is_some(), through_local);
    }
}

#[test]
fn upstreams_are_reached_directly_unless_the_key_is_set() {
    let mut network = from(&[
        ("HTTPS_PROXY", "http://p.example"),
        ("NO_PROXY", "tc.example"),
    ])
    .unwrap();
    let target = url("https://api.example/");
    assert!(network.upstream_proxy_for(&target).is_none());
    network.upstreams = true;
    assert!(network.upstream_proxy_for(&target).is_some());
    assert!(
        network
            .upstream_proxy_for(&url("https://tc.example/"))
            .is_none()
    );
}

#[test]
fn the_description_says_what_is_used_for_what() {
    for (variables, expected) in [
        (&[][..], None),
        (
            &[
                ("HTTPS_PROXY", "http://u:p@p.example:3128"),
                ("NO_PROXY", "a.example,.b.example 10.0.0.0/8"),
            ][..],
            Some(
                "outgoing proxy: http://p.example:3128 (HTTPS_PROXY) for https, none for http; \
                 not for upstreams, not for a.example, b.example, 10.0.0.0/8",
            ),
        ),
        (
            &[("ALL_PROXY", "p.example:3128")],
            Some("outgoing proxy: http://p.example:3128 (ALL_PROXY); not for upstreams"),
        ),
        (
            &[
                ("https_proxy", "p.example"),
                ("HTTP_PROXY", "q.example"),
                ("no_proxy", "*"),
            ],
            Some(
                "outgoing proxy: http://p.example (https_proxy) for https, http://q.example \
                 (HTTP_PROXY) for http; not for upstreams, not for any host",
            ),
        ),
    ] {
        let network = from(variables).unwrap();
        assert_eq!(network.describe().as_deref(), expected);
    }
}
