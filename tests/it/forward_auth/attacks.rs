//! Requests that must never get a credential.

use super::{Fixture, KINDS, question};
use crate::support::client::Request;

/// Targets that two servers may read differently.
const TARGETS: [&str; 15] = [
    "/api/../secret",
    "/api/%2e%2e/secret",
    "/api/x%2F..%2Fy",
    "//evil.example/api/x",
    "/api/x#/public",
    "/api/x\\y",
    "/api/x%00",
    "/%2F/evil",
    "/api/;/../x",
    "/api/\"x\"",
    "/api/x y",
    "/api/\u{e4}",
    "*",
    "https://login.test/api/x",
    "",
];

#[tokio::test]
async fn ambiguous_targets_get_no_credential() {
    for kind in KINDS {
        let fixture = Fixture::start(kind).await;
        let token = fixture.peers.token("user|1").await;
        for target in TARGETS {
            let asked = question(kind, "GET", "login.test", target, &token);
            let answer = fixture.ask(&asked).await;
            assert!(
                [400, 403, 404].contains(&answer.status),
                "{kind} {target}: {}",
                answer.status
            );
            assert_eq!(answer.header("authorization"), None, "{kind} {target}");
        }
        for host in [
            "user@login.test",
            "login.test@evil.example",
            "login.test?",
            "login.test,evil.example",
            "login.test evil.example",
            "",
        ] {
            let asked = question(kind, "GET", host, "/api/x", &token);
            let answer = fixture.ask(&asked).await;
            assert!([400, 403, 404].contains(&answer.status), "{kind} {host}");
            assert_eq!(answer.header("authorization"), None, "{kind} {host}");
        }
        for method in ["CONNECT", "TRACE", "connect", "G(T", ""] {
            let asked = question(kind, method, "login.test", "/api/x", &token);
            let answer = fixture.ask(&asked).await;
            assert!(
                [400, 403, 405].contains(&answer.status),
                "{kind} {method}: {}",
                answer.status
            );
            assert_eq!(answer.header("authorization"), None, "{kind} {method}");
        }
    }
}

#[tokio::test]
async fn each_header_is_required_exactly_once() {
    for kind in ["nginx", "traefik", "caddy"] {
        let fixture = Fixture::start(kind).await;
        let token = fixture.peers.token("user|1").await;
        let whole = question(kind, "GET", "login.test", "/api/x", &token);
        assert_eq!(fixture.ask(&whole).await.status, 200, "{kind}");
        let described = |name: &str| name.starts_with("X-") && name != "X-Forwarded-Proto";
        let names = whole.fields.iter().map(|(name, _)| name.clone());
        let names: Vec<_> = names.filter(|name| described(name)).collect();
        assert!(names.len() >= 2);
        for name in names {
            let mut missing = whole.clone();
            missing.fields.retain(|(own, _)| *own != name);
            let mut doubled = whole.clone();
            let field = whole.fields.iter().find(|(own, _)| *own == name);
            doubled.fields.push(field.unwrap().clone());
            for asked in [missing, doubled] {
                let answer = fixture.ask(&asked).await;
                assert_eq!(
                    answer.status_and_reason(),
                    (400, Some("forward_auth_request")),
                    "{kind} {name}"
                );
            }
        }
    }
}

/// What a client sends through a proxy that describes the request in another way.
#[tokio::test]
async fn headers_of_other_proxies_are_not_read() {
    let foreign = [
        ("X-Original-Method", "DELETE"),
        ("X-Original-URL", "https://static.test/other"),
        ("X-Original-URI", "/other"),
        ("X-Forwarded-Method", "DELETE"),
        ("X-Forwarded-Host", "static.test"),
        ("X-Forwarded-Uri", "/other"),
        ("X-Forwarded-Prefix", "/other"),
        ("X-Rewrite-URL", "/other"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Forwarded", "host=static.test"),
        ("X-Hawkgate-Rejected", "junk"),
        ("X-Envoy-Original-Path", "/other"),
    ];
    for kind in KINDS {
        let fixture = Fixture::start(kind).await;
        let token = fixture.peers.token("user|1").await;
        let mut asked = question(kind, "GET", "login.test", "/api/x", &token);
        for (name, value) in foreign {
            if !asked.fields.iter().any(|(own, _)| own == name) {
                asked = asked.header(name, value);
            }
        }
        let answer = fixture.ask(&asked).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let response = fixture.forward(Request::get("/api/x"), &answer).await;
        assert_eq!(response.status, 200, "{kind}: {}", response.text());
    }
}

#[tokio::test]
async fn the_listener_serves_nothing_else_and_no_other_listener_serves_it() {
    for kind in KINDS {
        let fixture = Fixture::start(kind).await;
        let token = fixture.peers.token("user|1").await;
        let whole = question(kind, "GET", "login.test", "/api/x", &token);
        for target in [
            "/",
            "/api/x",
            "/check%3Fx",
            "/checks",
            "/check%2f",
            "/Check",
            "/unauthorized",
            "/unauthorized/x",
            "/bewit",
            "/metrics",
        ] {
            let mut asked = whole.clone();
            target.clone_into(&mut asked.target);
            let answer = fixture.ask(&asked).await;
            assert_eq!(
                answer.status_and_reason(),
                (400, Some("forward_auth_request")),
                "{kind} {target}"
            );
        }
        // On the callers' listener it is a request like any other, to a route that the bearer may use.
        let answer = fixture.gateway.send(&whole).await;
        assert_eq!(answer.header("x-hawkgate-credential"), None, "{kind}");
        assert!(
            !answer
                .header("authorization")
                .is_some_and(|value| value.contains("Hawk")),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn only_allowed_proxies_can_ask() {
    let fixture = Fixture::start_with(
        "nginx",
        "listen = [{ address = \"127.0.0.1:0\", allowed_networks = [\"192.0.2.1/32\"] }]",
    )
    .await;
    let asked = question("nginx", "GET", "login.test", "/api/x", "any");
    let answer = fixture.ask(&asked).await;
    assert_eq!(answer.status_and_reason(), (403, Some("peer_not_allowed")));
}

/// Rules must not take the proxy's address for its client's.
#[tokio::test]
async fn rules_see_the_clients_address_or_none() {
    let rule = |keys: &str| {
        format!(
            "{keys}\n[[rule]]\nname = \"local\"\nwhen = 'client.address.startsWith(\"127.\")'\n\
             routes = [\"own\"]\n"
        )
    };
    let unknown = Fixture::start_with("nginx", &rule("listen = [\"127.0.0.1:0\"]")).await;
    let trusted = Fixture::start_with(
        "nginx",
        &rule("listen = [{ address = \"127.0.0.1:0\", trusted_proxies = [\"127.0.0.1/32\"] }]"),
    )
    .await;
    let other_trusted = Fixture::start_with(
        "nginx",
        &rule("listen = [{ address = \"127.0.0.1:0\", trusted_proxies = [\"192.0.2.1/32\"] }]"),
    )
    .await;
    for (fixture, client, status) in [
        (&unknown, None, 403),
        (&unknown, Some("127.0.0.9"), 403),
        (&trusted, Some("192.0.2.7"), 403),
        (&trusted, None, 403),
        (&other_trusted, None, 403),
        (&other_trusted, Some("127.0.0.9"), 403),
    ] {
        let token = fixture.peers.token("user|1").await;
        let mut asked = question("nginx", "GET", "own.test", "/v1/x", &token);
        if let Some(client) = client {
            asked = asked.header("X-Forwarded-For", client);
        }
        let answer = fixture.ask(&asked).await;
        assert_eq!(
            answer.status_and_reason(),
            (status, Some("rule_denied")),
            "{client:?}"
        );
    }
}

#[tokio::test]
async fn after_a_reload_the_listener_follows_its_table() {
    let fixture = Fixture::start("nginx").await;
    let token = fixture.peers.token("user|1").await;
    let asked = question("nginx", "GET", "login.test", "/api/x", &token);
    assert_eq!(fixture.ask(&asked).await.status, 200);
    let path = fixture.gateway.files.path("hawkgate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let loaded = hawkgate::reload::load(&path, None).unwrap();
    let reloads = fixture
        .gateway
        .running
        .reloads(path, loaded.fingerprints, None);
    let reload = async |text: &str, count| {
        fixture.gateway.files.write("hawkgate.toml", text);
        reloads.request();
        let name = "hawkgate_config_reloads_total";
        let labels = [("result", "success")];
        fixture.gateway.wait_for_metric(name, &labels, count).await;
    };
    let narrowed = text.replace("routes = [\"login\", \"own\"]", "routes = [\"own\"]");
    reload(&narrowed, 1).await;
    let answer = fixture.ask(&asked).await;
    assert_eq!(answer.status_and_reason(), (403, Some("no_route")));
    let at = text.find("[[forward_auth]]").unwrap();
    reload(&text[..at], 2).await;
    let answer = fixture.ask(&asked).await;
    assert_eq!(answer.status_and_reason(), (404, Some("no_route")));
}
