//! Web pages of other origins call a route with a token of their own (CORS, `docs/cors.md`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hawkgate::clock::SystemClock;

use crate::support::client::{Body, Client, Request, Response};
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::upstream::{FakeUpstream, Latch, Protocol, Reply};
use crate::support::wait::until;

const AUDIENCE: &str = "https://api.example.com";
const APP: &str = "https://app.example.com";

/// Origins that are none of the pages, of the kinds that attackers try.
const FOREIGN: [&str; 9] = [
    "https://evil.example",
    "https://app.example.com.evil.com",
    "https://evilapp.example.com",
    "https://app.example.com%60.evil.com",
    "https://app.example.com@evil.com",
    "https://APP.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.",
    "null",
];

/// The routes, after `server` and one issuer. The dead port refuses connections.
const ROUTES: &str = r#"
[limits]
body = "1KiB"
LIMITS

[[source]]
name = "dead"
kind = "token-exchange"
token_url = "http://127.0.0.1:9/token"
client_id = "hawkgate"
client_secret = { file = "client-secret" }
timeout = "1s"

[[source]]
name = "root"
kind = "taskcluster-static"
client_id = "root"
access_token = { file = "access-token" }

[[route]]
name = "open"
path = "/open/"
upstream = "UPSTREAM"
issuers = ["idp"]
cors = { allowed_origins = ["https://app.example.com", "https://*.apps.example.com"], exposed_headers = ["ETag"], max_age = "5m" }

[[route]]
name = "scoped"
path = "/scoped/"
upstream = "UPSTREAM"
issuers = ["idp"]
require_scopes = ["never"]
cors = { allowed_origins = ["https://app.example.com"] }

[[route]]
name = "dead-upstream"
path = "/dead/"
upstream = "http://127.0.0.1:9"
issuers = ["idp"]
cors = { allowed_origins = ["https://app.example.com"] }

[[route]]
name = "dead-exchange"
path = "/exchange/"
upstream = "UPSTREAM"
issuers = ["idp"]
source = "dead"
cors = { allowed_origins = ["https://app.example.com"] }

[[route]]
name = "limited"
path = "/limited/"
upstream = "UPSTREAM"
issuers = ["idp"]
rate = { requests = 1, per = "1h", burst = 1 }
cors = { allowed_origins = ["https://app.example.com"] }

[[route]]
name = "any"
path = "/any/"
upstream = "UPSTREAM"
issuers = ["idp"]
cors = { allowed_origins = ["*"], allowed_headers = ["*"] }

[[route]]
name = "cookies"
path = "/cookies/"
upstream = "UPSTREAM"
issuers = ["idp"]
cors = { allowed_origins = ["https://app.example.com"], allow_credentials = true }

[[route]]
name = "read"
path = "/split/"
methods = ["GET"]
upstream = "UPSTREAM"
issuers = ["idp"]
cors = { allowed_origins = ["https://app.example.com"] }

[[route]]
name = "write"
path = "/split/"
methods = ["POST"]
upstream = "UPSTREAM"
issuers = ["idp"]
cors = { allowed_origins = ["https://app.example.com"] }

[[route]]
name = "upstream"
path = "/upstream/"
upstream = "UPSTREAM"
issuers = ["idp"]
source = "root"
cors = "upstream"

[[route]]
name = "none"
path = "/none/"
upstream = "UPSTREAM"
issuers = ["idp"]

[[route]]
name = "local"
path = "/local/"
upstream = "UPSTREAM"
source = "root"
anonymous = true
cors = { allowed_origins = ["https://app.example.com"] }
"#;

struct Fixture {
    gateway: TestGateway,
    upstream: FakeUpstream,
    token: String,
    _issuer: IssuerServer,
}

impl Fixture {
    async fn start() -> Self {
        Self::start_with("").await
    }

    async fn start_with(limits: &str) -> Self {
        let upstream = FakeUpstream::start(Protocol::Http1, |_| {
            Reply::ok()
                .header("Access-Control-Allow-Origin", "*")
                .header("Access-Control-Allow-Credentials", "true")
                .header("Access-Control-Allow-Methods", "BREW")
                .header("Vary", "Accept-Encoding")
        })
        .await;
        let issuer = IssuerServer::start(&[&SHARED[0]]).await;
        let files = ConfigDir::new();
        files.write("client-secret", "tests-only-client-secret");
        let now = SystemClock::shared().now().as_secs();
        let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
        let token = SHARED[0].token("RS256", &claims);
        let server = format!(
            r#"
[server]
listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
admin = "127.0.0.1:0"
[[issuer]]
name = "idp"
url = "{}"
audiences = ["{AUDIENCE}"]
"#,
            issuer.issuer()
        );
        let routes = ROUTES
            .replace("UPSTREAM", &upstream.url())
            .replace("LIMITS", limits);
        let text = format!("{server}{routes}");
        let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
        let fixture = Self {
            gateway,
            upstream,
            token,
            _issuer: issuer,
        };
        until("the issuer's keys", async || {
            let request = Request::get("/none/ready").bearer(&fixture.token);
            fixture.gateway.send(&request).await.status == 200
        })
        .await;
        fixture
    }

    /// Sends a request by HTTP/1.1 and by HTTP/2, and returns both answers.
    async fn both(&self, request: &Request) -> [Response; 2] {
        let http2 = self.gateway.http2(1).await;
        [
            self.gateway.send(request).await,
            http2.request(request).await.unwrap(),
        ]
    }

    /// A request that a page of `origin` sends with the token.
    fn from(&self, method: &str, target: &str, origin: &str) -> Request {
        Request::new(method, target)
            .header("Origin", origin)
            .bearer(&self.token)
    }

    /// How many requests with this path have reached the upstream.
    fn forwarded(&self, path: &str) -> usize {
        self.upstream.attempts_at(path).len()
    }
}

fn preflight(target: &str, origin: &str, method: &str) -> Request {
    Request::new("OPTIONS", target)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header(
            "Access-Control-Request-Headers",
            "authorization,content-type",
        )
}

/// The values of all field lines of this name.
fn values<'r>(response: &'r Response, name: &str) -> Vec<&'r str> {
    let named = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
    let fields = response.fields.0.iter().filter(named);
    fields.map(|(_, value)| value.as_str()).collect()
}

/// Whether a page of [`APP`] can read the answer, and with it why it was refused.
fn assert_readable(response: &Response, what: &str) {
    assert_eq!(
        values(response, "access-control-allow-origin"),
        [APP],
        "{what}"
    );
    let exposed = values(response, "access-control-expose-headers").join(", ");
    for name in [
        "X-Hawkgate-Error",
        "WWW-Authenticate",
        "Retry-After",
        "X-Request-Id",
    ] {
        assert!(
            exposed.split(", ").any(|own| own == name),
            "{what}: {exposed}"
        );
    }
    assert_varies(response, what);
}

fn assert_varies(response: &Response, what: &str) {
    let vary = values(response, "vary").join(", ").to_lowercase();
    let origins = vary.split(", ").filter(|member| *member == "origin");
    assert_eq!(origins.count(), 1, "{what}: {vary}");
}

/// Whether the answer gives nothing to any page.
fn assert_withheld(response: &Response, what: &str) {
    for (name, value) in &response.fields.0 {
        let lower = name.to_lowercase();
        assert!(
            !lower.starts_with("access-control-"),
            "{what}: {name}: {value}"
        );
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_token() {
    let fixture = Fixture::start().await;
    for origin in [APP, "https://a.b.apps.example.com"] {
        for response in fixture.both(&preflight("/open/x", origin, "PUT")).await {
            assert_eq!(response.status, 204);
            for (name, expected) in [
                ("access-control-allow-origin", Some(origin)),
                (
                    "access-control-allow-methods",
                    Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                ),
                ("access-control-max-age", Some("300")),
                (
                    "vary",
                    Some("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
                ),
                ("access-control-allow-credentials", None),
                ("access-control-allow-private-network", None),
                ("content-length", None),
                ("transfer-encoding", None),
                ("www-authenticate", None),
                ("x-hawkgate-error", None),
            ] {
                assert_eq!(response.header(name), expected, "{name}");
            }
            let headers = response.header("access-control-allow-headers").unwrap();
            assert!(
                headers.starts_with("Authorization, Content-Type"),
                "{headers}"
            );
            assert_eq!(response.body, "");
        }
    }
    let private =
        preflight("/open/x", APP, "PUT").header("Access-Control-Request-Private-Network", "true");
    let response = fixture.gateway.send(&private).await;
    let allowed = response.header("access-control-allow-private-network");
    assert_eq!(allowed, Some("true"));
    assert_eq!(fixture.forwarded("/open/x"), 0);
    let labels = [("route", "open"), ("code", "204"), ("outcome", "preflight")];
    fixture
        .gateway
        .wait_for_metric("hawkgate_requests_total", &labels, 5)
        .await;
    // Nobody was authenticated, and nothing was fetched.
    let metrics = fixture.gateway.metrics().await;
    let verified = metrics.sum("hawkgate_token_verifications_total", &[]);
    assert!((verified - 1.0).abs() < 0.1, "{verified}");
}

#[tokio::test]
async fn a_preflight_of_a_foreign_origin_gets_no_permission() {
    let fixture = Fixture::start().await;
    for origin in FOREIGN {
        for target in ["/open/x", "/cookies/x", "/dead/x"] {
            for response in fixture.both(&preflight(target, origin, "GET")).await {
                assert_eq!(response.status, 204, "{origin}");
                assert_withheld(&response, origin);
                assert_varies(&response, origin);
            }
        }
    }
    let several = preflight("/open/x", APP, "GET").header("Origin", APP);
    let empty = preflight("/open/x", "", "GET");
    for request in [several, empty] {
        let response = fixture.gateway.send(&request).await;
        assert_eq!(response.status, 204);
        assert_withheld(&response, "several or no origins");
    }
    until("the log to say why", async || {
        fixture.gateway.log().contains("is not in allowed_origins")
    })
    .await;
}

#[tokio::test]
async fn a_preflight_is_matched_by_the_method_that_it_asks_for() {
    let fixture = Fixture::start().await;
    for method in ["GET", "POST"] {
        let response = fixture
            .gateway
            .send(&preflight("/split/x", APP, method))
            .await;
        assert_eq!(response.status, 204);
        let methods = response.header("access-control-allow-methods");
        assert_eq!(methods, Some(method));
    }
    for method in ["DELETE", "patch", "BREW", "GET,POST"] {
        for target in ["/split/x", "/open/x"] {
            let response = fixture.gateway.send(&preflight(target, APP, method)).await;
            if (target, method) == ("/open/x", "DELETE") {
                assert_eq!(values(&response, "access-control-allow-origin"), [APP]);
                continue;
            }
            assert_eq!(response.status, 204, "{target} {method}");
            assert_withheld(&response, method);
        }
    }
}

#[tokio::test]
async fn other_options_requests_need_a_token() {
    let fixture = Fixture::start().await;
    let plain = Request::new("OPTIONS", "/open/x").header("Origin", APP);
    let response = fixture.gateway.send(&plain).await;
    assert_eq!(response.status_and_reason(), (401, Some("missing_token")));
    assert_readable(&response, "OPTIONS without a method");
    let response = fixture.gateway.send(&plain.bearer(&fixture.token)).await;
    assert_eq!(response.status, 200);
    assert_readable(&response, "OPTIONS with a token");
    assert_eq!(fixture.forwarded("/open/x"), 1);
    // Without `cors`, a preflight is a request like any other.
    let response = fixture
        .gateway
        .send(&preflight("/none/x", APP, "GET"))
        .await;
    assert_eq!(response.status_and_reason(), (401, Some("missing_token")));
    assert_withheld(&response, "a route without cors");
}

#[tokio::test]
async fn answers_bear_hawkgates_fields_instead_of_the_upstreams() {
    let fixture = Fixture::start().await;
    for response in fixture.both(&fixture.from("GET", "/open/x", APP)).await {
        assert_eq!(response.status, 200);
        assert_readable(&response, "an answer");
        assert_eq!(values(&response, "vary"), ["Accept-Encoding, Origin"]);
        for name in ["allow-credentials", "allow-methods"] {
            let name = format!("access-control-{name}");
            assert_eq!(values(&response, &name), [""; 0]);
        }
        let exposed = response.header("access-control-expose-headers").unwrap();
        assert!(exposed.ends_with(", ETag"), "{exposed}");
    }
    for origin in FOREIGN {
        let response = fixture
            .gateway
            .send(&fixture.from("GET", "/open/x", origin))
            .await;
        assert_eq!(response.status, 200, "CORS is no access control");
        assert_withheld(&response, origin);
        assert_varies(&response, origin);
    }
    let without = Request::get("/open/x").bearer(&fixture.token);
    let response = fixture.gateway.send(&without).await;
    assert_withheld(&response, "no page");
    assert_varies(&response, "no page");
    // The caller may try to hide the field from the answer.
    let hidden = fixture
        .from("GET", "/open/x", APP)
        .header("Connection", "Origin");
    assert_readable(&fixture.gateway.send(&hidden).await, "Connection: Origin");
    let response = fixture
        .gateway
        .send(&fixture.from("GET", "/none/x", APP))
        .await;
    assert_eq!(values(&response, "access-control-allow-origin"), ["*"]);
    assert_eq!(values(&response, "vary"), ["Accept-Encoding"]);
}

#[tokio::test]
async fn a_page_can_read_every_refusal() {
    let fixture = Fixture::start().await;
    let page = |target| Request::get(target).header("Origin", APP);
    let large = Request::post("/open/x", vec![b'x'; 2000])
        .header("Origin", APP)
        .bearer(&fixture.token);
    let bad = page("/open/x").bearer("nonsense");
    let refusals = [
        (page("/open/x"), 401, "missing_token"),
        (bad, 401, "token_malformed"),
        (
            fixture.from("GET", "/scoped/x", APP),
            403,
            "insufficient_scope",
        ),
        (
            fixture.from("GET", "/dead/x", APP),
            502,
            "upstream_unreachable",
        ),
        (
            fixture.from("GET", "/exchange/x", APP),
            503,
            "exchange_unavailable",
        ),
        (large, 413, "body_too_large"),
    ];
    for (request, status, reason) in &refusals {
        for response in fixture.both(request).await {
            assert_eq!(response.status_and_reason(), (*status, Some(*reason)));
            assert_readable(&response, reason);
            assert!(response.header("x-request-id").is_some());
            match status {
                401 => assert!(response.header("www-authenticate").is_some()),
                502 | 503 => assert!(response.header("retry-after").is_some()),
                _ => {}
            }
        }
    }
    let limited = fixture.from("GET", "/limited/x", APP);
    assert_eq!(fixture.gateway.send(&limited).await.status, 200);
    let response = fixture.gateway.send(&limited).await;
    assert_eq!(response.status_and_reason(), (429, Some("rate_limited")));
    assert_readable(&response, "rate_limited");
    // A preflight is no request of the caller.
    let response = fixture
        .gateway
        .send(&preflight("/limited/x", APP, "GET"))
        .await;
    assert_eq!(response.status, 204);
    let foreign = Request::get("/open/x").header("Origin", FOREIGN[0]);
    let response = fixture.gateway.send(&foreign).await;
    assert_eq!(response.status, 401);
    assert_withheld(&response, "a foreign page");
    assert_varies(&response, "a foreign page");
    // Which route it would be is not known.
    for target in ["/nowhere", "/open/%2e%2e/none/x"] {
        let response = fixture
            .gateway
            .send(&fixture.from("GET", target, APP))
            .await;
        assert!(response.error_reason().is_some(), "{target}");
        assert_withheld(&response, target);
    }
}

#[tokio::test]
async fn a_page_can_read_that_hawkgate_is_busy_and_that_its_upstream_died() {
    let fixture = Fixture::start_with("requests_in_flight = 1").await;
    until("the set-up to be over", async || {
        let metrics = fixture.gateway.metrics().await;
        metrics.sum("hawkgate_requests_in_flight", &[]) < 0.5
    })
    .await;
    let (latch, arrived) = (Latch::closed(), Arc::new(AtomicBool::new(false)));
    let (held, seen) = (latch.clone(), Arc::clone(&arrived));
    fixture.upstream.set_handler(move |_| {
        seen.store(true, Ordering::SeqCst);
        Reply::ok().after(&held)
    });
    let mut waiting = fixture.gateway.client().await;
    let request = fixture.from("GET", "/open/wait", APP);
    waiting.send(&request.head()).await.unwrap();
    until("the first request to arrive", async || {
        arrived.load(Ordering::SeqCst)
    })
    .await;
    for response in fixture.both(&fixture.from("GET", "/open/x", APP)).await {
        assert_eq!(response.status_and_reason(), (503, Some("overloaded")));
        assert_readable(&response, "overloaded");
    }
    let response = fixture
        .gateway
        .send(&fixture.from("GET", "/none/x", APP))
        .await;
    assert_withheld(&response, "a route without cors");
    fixture.upstream.down().await;
    let response = waiting.response("GET").await.unwrap();
    assert_eq!(response.status, 502);
    // On a connection that was used before, the request is sent again.
    let reason = response.error_reason().unwrap();
    assert!(reason.starts_with("upstream_"), "{reason}");
    assert_readable(&response, "an upstream that died");
    latch.open();
}

#[tokio::test]
async fn any_origin_is_answered_with_an_asterisk_and_never_with_credentials() {
    let fixture = Fixture::start().await;
    for origin in [APP, "null", "https://evil.example"] {
        let response = fixture
            .gateway
            .send(&preflight("/any/x", origin, "GET"))
            .await;
        assert_eq!(values(&response, "access-control-allow-origin"), ["*"]);
        let headers = response.header("access-control-allow-headers");
        assert_eq!(headers, Some("Authorization, *"));
        let response = fixture
            .gateway
            .send(&fixture.from("GET", "/any/x", origin))
            .await;
        assert_eq!(values(&response, "access-control-allow-origin"), ["*"]);
        assert_eq!(
            values(&response, "access-control-allow-credentials"),
            [""; 0]
        );
        assert_varies(&response, origin);
    }
    for request in [
        preflight("/cookies/x", APP, "GET"),
        fixture.from("GET", "/cookies/x", APP),
        Request::get("/cookies/x").header("Origin", APP),
    ] {
        let response = fixture.gateway.send(&request).await;
        assert_eq!(values(&response, "access-control-allow-origin"), [APP]);
        let credentials = values(&response, "access-control-allow-credentials");
        assert_eq!(credentials, ["true"]);
    }
}

#[tokio::test]
async fn an_upstream_may_answer_preflights_itself_but_learns_nothing() {
    let fixture = Fixture::start().await;
    let request = preflight("/upstream/x?y=z", "https://evil.example", "PUT")
        .bearer(&fixture.token)
        .header("Cookie", "session=secret")
        .header("X-Api-Key", "secret")
        .header("X-HTTP-Method-Override", "DELETE");
    for response in fixture.both(&request).await {
        assert_eq!(response.status, 200);
        assert_eq!(values(&response, "access-control-allow-origin"), ["*"]);
        assert_eq!(values(&response, "access-control-allow-methods"), ["BREW"]);
        assert_eq!(values(&response, "vary"), ["Accept-Encoding"]);
    }
    let attempts = fixture.upstream.attempts_at("/upstream/x");
    assert_eq!(attempts.len(), 2);
    for attempt in attempts {
        let sent = attempt.request;
        assert_eq!(
            (&*sent.method, &*sent.target),
            ("OPTIONS", "/upstream/x?y=z")
        );
        for name in [
            "authorization",
            "cookie",
            "x-api-key",
            "x-http-method-override",
        ] {
            assert_eq!(sent.header(name), None, "{name}");
        }
        assert_eq!(sent.header("origin"), Some("https://evil.example"));
        let method = sent.header("access-control-request-method");
        assert_eq!(method, Some("PUT"));
    }
    let labels = [("route", "upstream"), ("outcome", "forwarded")];
    fixture
        .gateway
        .wait_for_metric("hawkgate_requests_total", &labels, 2)
        .await;
    // The token of the caller is not looked at, and no credential is leased.
    let metrics = fixture.gateway.metrics().await;
    let lookups = metrics.sum("hawkgate_credential_cache_lookups_total", &[]);
    assert!(lookups < 0.5, "{lookups}");
    let response = fixture
        .gateway
        .send(&fixture.from("GET", "/upstream/x", APP))
        .await;
    assert_eq!(values(&response, "access-control-allow-origin"), ["*"]);
    // hawkgate does not know which pages may read what it says itself.
    let response = fixture
        .gateway
        .send(&Request::get("/upstream/x").header("Origin", APP))
        .await;
    assert_eq!(response.status, 401);
    assert_withheld(&response, "a refusal");
}

#[tokio::test]
async fn what_is_more_than_a_preflight_does_not_go_upstream_without_a_token() {
    let fixture = Fixture::start().await;
    let content = preflight("/upstream/x", APP, "PUT").body(Body::Sized("{}".into()));
    let response = fixture.gateway.send(&content).await;
    assert_eq!(response.status_and_reason(), (401, Some("missing_token")));
    assert_eq!(fixture.forwarded("/upstream/x"), 0);
    let upgrade = preflight("/upstream/x", APP, "GET")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    let response = fixture.gateway.send(&upgrade).await;
    assert_eq!(response.status, 200);
    let attempts = fixture.upstream.attempts_at("/upstream/x");
    assert_eq!(attempts[0].request.header("upgrade"), None);
    // An upstream's 401 concerns no credential.
    fixture
        .upstream
        .set_handler(|_| Reply::unauthorized("no preflights here"));
    let response = fixture
        .gateway
        .send(&preflight("/upstream/x", APP, "GET"))
        .await;
    assert_eq!(response.status_and_reason(), (401, None));
    assert_eq!(fixture.forwarded("/upstream/x"), 2);
    let last = preflight("/upstream/x", APP, "GET").header("Max-Forwards", "0");
    assert_eq!(fixture.gateway.send(&last).await.status, 204);
    assert_eq!(fixture.forwarded("/upstream/x"), 2);
}

#[tokio::test]
async fn a_local_route_serves_the_listed_pages_and_no_rebound_name() {
    let fixture = Fixture::start().await;
    let page = |method, origin| {
        Request::new(method, "/local/x")
            .header("Origin", origin)
            .header("Sec-Fetch-Site", "cross-site")
    };
    let private =
        preflight("/local/x", APP, "PUT").header("Access-Control-Request-Private-Network", "true");
    let response = fixture.gateway.send(&private).await;
    assert_eq!(response.status, 204);
    let allowed = response.header("access-control-allow-private-network");
    assert_eq!(allowed, Some("true"));
    for response in fixture.both(&page("PUT", APP)).await {
        assert_eq!(response.status, 200);
        assert_readable(&response, "a listed page");
    }
    let reached = fixture.forwarded("/local/x");
    assert_eq!(reached, 2);
    for origin in FOREIGN {
        for request in [page("PUT", origin), preflight("/local/x", origin, "PUT")] {
            let response = fixture.gateway.send(&request).await;
            assert_eq!(response.status_and_reason(), (403, Some("cross_site")));
            assert_withheld(&response, origin);
        }
    }
    // A link or an image of a listed page has no Origin.
    let link = Request::get("/local/x").header("Sec-Fetch-Site", "cross-site");
    let response = fixture.gateway.send(&link).await;
    assert_eq!(response.error_reason(), Some("cross_site"));
    for mut request in [page("PUT", APP), preflight("/local/x", APP, "PUT")] {
        request.authority = "evil.example:8080".into();
        let response = fixture.gateway.send(&request).await;
        let expected = (403, Some("host_not_allowed"));
        assert_eq!(response.status_and_reason(), expected);
    }
    assert_eq!(fixture.forwarded("/local/x"), reached);
}

#[tokio::test]
async fn preflights_and_requests_share_a_connection() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(fixture.gateway.address()).await;
    for _ in 0..3 {
        let response = client.request(&preflight("/open/x", APP, "GET")).await;
        assert_eq!(response.unwrap().status, 204);
        let response = client.request(&fixture.from("GET", "/open/x", APP)).await;
        assert_eq!(response.unwrap().status, 200);
        let refused = Request::get("/open/x").header("Origin", APP);
        assert_eq!(client.request(&refused).await.unwrap().status, 401);
    }
}
