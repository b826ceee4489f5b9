//! What other servers read differently from hawkgate: spellings of paths and of header names. None
//! may get past a route, a rule or the list of stripped headers.

use hawkgate::clock::SystemClock;

use crate::support::client::{Body, Request, Response};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::standard::api_route;
use crate::support::tokens::{IssuerServer, SHARED};
use crate::support::upstream::{FakeUpstream, Reply};

/// A lax route `/api/` and, to the same upstream, a strict one and a rule that denies, each for
/// `/api/secrets/` on a host of its own. Then a route on `case.test` to an upstream that ignores
/// case.
struct Fixture {
    gateway: TestGateway,
    upstream: FakeUpstream,
    /// Ignores case.
    _other: FakeUpstream,
}

impl Fixture {
    async fn set_up() -> Self {
        let issuer = IssuerServer::start(&[&SHARED[0]]).await;
        let upstream = FakeUpstream::http1(|_| Reply::ok().header("X_Hawkgate_Error", "x")).await;
        let other = FakeUpstream::http1(|_| Reply::ok()).await;
        let (url, other_url) = (upstream.url(), other.url());
        let strict = api_route(&issuer, "", &upstream, "path = \"/api/secrets/\"");
        let server = SERVER_CONFIG.replace(
            "\"127.0.0.1:0\"]",
            "\"127.0.0.1:0\", { address = \"127.0.0.1:0\", h2c = true }]",
        );
        let text = format!(
            r#"{server}{strict}
[[route]]
name = "lax"
path = "/api/"
upstream = "{url}"
anonymous = true
[[route]]
name = "ruled"
host = "rules.test"
upstream = "{url}"
anonymous = true
strip_headers = ["X-Tenant", "x-corp-*"]
keep_headers = ["x-forwarded-user", "x-webauth-*"]
[[route]]
name = "case"
host = "case.test"
path = "/api/"
upstream = "{other_url}"
anonymous = true
case_insensitive_path = true
[[rule]]
name = "no-secrets"
effect = "deny"
when = 'request.path == "/api/secrets" || request.path.startsWith("/api/secrets/")'
routes = ["ruled", "case"]
[[rule]]
name = "rest"
when = "true"
headers = {{ "x-remote-user" = '"from the rule"' }}
routes = ["ruled", "case"]
"#
        );
        let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
        Self {
            gateway,
            upstream,
            _other: other,
        }
    }

    /// Without a body, with one, and over HTTP/2.
    async fn send_each(&self, host: &str, request: &Request) -> Vec<Response> {
        let mut request = request.clone();
        request.authority = host.into();
        let mut responses = vec![self.gateway.send(&request).await];
        let http2 = self.gateway.http2(1).await;
        responses.push(http2.request(&request).await.unwrap());
        request.method = "POST".into();
        request.body = Body::Chunked("x".into(), 1);
        responses.push(self.gateway.send(&request).await);
        responses
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_bypasses_a_stricter_route_or_a_rule() {
    let fixture = Fixture::set_up().await;
    for target in [
        "/api/secrets/x",
        "/api/;/secrets/x",
        "/api/;a=b/secrets/x",
        "/api;x/secrets/x",
        "/api/secrets;x/y",
        "/api/%73ecrets/x",
        "/api/%2573ecrets/x",
        "/api/%252573ecrets/x",
        "/api/%u0073ecrets/x",
        "/api/secrets%00/x",
        "/api/secrets%2500/x",
        "/api/secrets%0a/x",
        "/api/%c0%afsecrets/x",
        "/api%c0%afsecrets/x",
        "/api/%c1%b3ecrets/x",
        "/api/%e0%80%afsecrets/x",
        "/api/%f0%80%80%afsecrets/x",
        "/api/%fesecrets/x",
        "/api/%ef%bd%93ecrets/x",
        "/api/%c5%bfecrets/x",
        "/api%e2%88%95secrets/x",
        "/api//secrets/x",
        "/api%2fsecrets/x",
        "/api%252fsecrets/x",
        "/api/%5csecrets/x",
        "/api/secrets%5cx",
        "/api/secrets./x",
        "/api/secrets%20/x",
        "/api/secrets+/x",
        "/api/secrets::$DATA/x",
        "/api/secrets%2f%3fx",
        "/api/secrets/%23x",
        "/api/x%2f..%2fsecrets/x",
        "/api/x/%252e%252e/secrets/x",
        "/api/x/..;/secrets/x",
        "/api/x/.%2e;a/secrets/x",
        "/%61pi/secrets/x",
    ] {
        for host in ["api.test", "rules.test"] {
            let responses = fixture.send_each(host, &Request::get(target)).await;
            for response in responses {
                let refused = matches!(
                    response.error_reason(),
                    Some("bad_request" | "missing_token" | "rule_denied" | "no_route")
                );
                assert!(refused, "{host} {target}: {}", response.status);
            }
        }
    }
    let arrived: Vec<_> = fixture.upstream.attempts();
    assert!(arrived.is_empty(), "{arrived:?}");
    for target in [
        "/api/index/v1/task/a%2Fb%252Fc%3Ad",
        "/api/x;a/y//z./%e4",
        "/api/Secrets/x",
    ] {
        for response in fixture.send_each("rules.test", &Request::get(target)).await {
            assert_eq!(response.status, 200, "{target}: {}", response.text());
        }
    }
    assert!(fixture.gateway.log().contains("decode"), "the log says why");
}

#[tokio::test]
async fn where_the_upstream_ignores_case_so_do_routes_and_rules() {
    let fixture = Fixture::set_up().await;
    for (target, expected) in [
        ("/api/queue/X", None),
        ("/API/Queue/x", None),
        ("/api/SECRETS/x", Some("rule_denied")),
        ("/Api/Secrets/x", Some("rule_denied")),
        ("/api/%53ECRETS/x", Some("bad_request")),
        ("/api/%C5%BFECRETS/x", Some("bad_request")),
    ] {
        for response in fixture.send_each("case.test", &Request::get(target)).await {
            assert_eq!(response.error_reason(), expected, "{target}");
        }
    }
}

#[tokio::test]
async fn names_that_some_servers_read_as_framing_are_refused() {
    let fixture = Fixture::set_up().await;
    for name in [
        "Transfer_Encoding",
        "transfer.encoding",
        "Content_Length",
        "content~length",
    ] {
        let request = Request::get("/api/x").header(name, "0");
        for response in fixture.send_each("api.test", &request).await {
            assert_eq!(response.error_reason(), Some("bad_request"), "{name}");
        }
    }
    assert!(fixture.upstream.attempts().is_empty());
}

#[tokio::test]
async fn callers_cannot_send_headers_in_which_other_proxies_say_who_they_are() {
    let fixture = Fixture::set_up().await;
    let stripped = [
        "Remote-User",
        "Remote_User",
        "X-Remote-User",
        "X.Remote.User",
        "X-Remote-Extra-Scopes",
        "X-Forwarded-Email",
        "X-Forwarded_User",
        "X-Auth-Request-User",
        "X-Goog-Iap-Jwt-Assertion",
        "X-Amzn-Oidc-Data",
        "X-Ms-Client-Principal",
        "X-Ms-Client-Principal-Id",
        "Cf-Access-Jwt-Assertion",
        "Ssl-Client-Verify",
        "SSL_CLIENT_S_DN",
        "X-Authentik-Username",
        "Tailscale-User-Login",
        "Impersonate-User",
        "OIDC_CLAIM_sub",
        "Proxy",
        "Keep_Alive",
        "Proxy_Connection",
        "X-Tenant",
        "X_Tenant",
        "X-Corp-User",
    ];
    let mut request = Request::get("/api/x")
        .header("X-Forwarded-User", "kept")
        .header("X-Webauth-User", "kept")
        .header("X-Custom", "kept")
        .header("x_custom", "kept");
    for name in stripped {
        request = request.header(name, "forged");
    }
    for response in fixture.send_each("rules.test", &request).await {
        assert_eq!(response.status, 200);
        assert_eq!(response.header("x_hawkgate_error"), None);
    }
    let attempts = fixture.upstream.attempts();
    assert_eq!(attempts.len(), 3);
    for attempt in attempts {
        let sent = &attempt.request;
        for name in ["x-forwarded-user", "x-webauth-user", "x-custom", "x_custom"] {
            assert_eq!(sent.header(name), Some("kept"), "{name}");
        }
        assert_eq!(sent.header("x-remote-user"), Some("from the rule"));
        let forged = String::from_utf8_lossy(&sent.raw).contains("forged");
        assert!(!forged, "{sent:?}");
    }
}
