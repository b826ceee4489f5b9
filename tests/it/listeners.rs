//! Listeners behind proxies, client certificates and rate limits, from the caller to the upstream and
//! the log.

use hawkgate::clock::SystemClock;
use hawkgate::proxy::settings::Address;

use crate::support::client::{Client, Request, Response, connect};
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::tls::{Identity, TestCa};
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::upstream::{FakeUpstream, Reply};
use crate::support::wait::until_some;

const AUDIENCE: &str = "https://api.example.com";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 51234 8443\r\n";

/// The access-log line of the request with this id.
async fn access_line(gateway: &TestGateway, id: &str) -> serde_json::Value {
    let needle = format!("\"request_id\":\"{id}\"");
    until_some(&format!("the access-log line of {id}"), async || {
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains(&needle))?;
        Some(serde_json::from_str(line).unwrap())
    })
    .await
}

/// A gateway with this `[server]` and these `sections`, and an open route to an upstream.
async fn start_gateway(listen: &str, sections: &str) -> (TestGateway, FakeUpstream) {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let url = upstream.url();
    let text = format!(
        r#"
[server]
listen = [{listen}]
admin = "127.0.0.1:0"
[[route]]
name = "open"
path = "/open/"
upstream = "{url}"
anonymous = true
[[route]]
name = "ruled"
path = "/ruled/"
upstream = "{url}"
anonymous = true
{}
"#,
        sections.replace("{url}", &url)
    );
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    (gateway, upstream)
}

fn forwarded(upstream: &FakeUpstream) -> String {
    let last = upstream.attempts().pop().unwrap().request;
    let values: Vec<_> = last.fields.all("x-forwarded-for").collect();
    values.join(" and ")
}

async fn send_after_proxy_header(
    address: &Address,
    header: &[u8],
    request: &Request,
) -> std::io::Result<Response> {
    let mut client = Client::connect(address).await;
    client.send(header).await?;
    client.request(request).await
}

const BY_ADDRESS: &str = r#"
[[rule]]
name = "office"
when = "client.address == '203.0.113.7'"
routes = ["ruled"]
"#;

#[tokio::test]
async fn x_forwarded_for_of_a_trusted_proxy_sets_the_client_address() {
    let listen = r#"{ address = "127.0.0.1:0", trusted_proxies = ["127.0.0.0/8"] }"#;
    let (gateway, upstream) = start_gateway(listen, BY_ADDRESS).await;
    let request = |for_whom: &str, id: &str| {
        Request::get("/ruled/x")
            .header("X-Forwarded-For", for_whom)
            .header("X-Request-Id", id)
    };
    let passes = request("198.51.100.9, 203.0.113.7", "xff-passes");
    assert_eq!(gateway.send(&passes).await.status, 200);
    assert_eq!(forwarded(&upstream), "203.0.113.7");
    // Addresses further left are unverified claims of the client.
    let spoofed = request("203.0.113.7, 198.51.100.9", "xff-forged");
    assert_eq!(
        gateway.send(&spoofed).await.error_reason(),
        Some("rule_denied")
    );
    let junk = request("203.0.113.7, unknown", "xff-junk");
    assert_eq!(
        gateway.send(&junk).await.error_reason(),
        Some("rule_denied")
    );
    gateway
        .wait_for_metric("hawkgate_requests_total", &[("route", "ruled")], 3)
        .await;
    let line = access_line(&gateway, "xff-passes").await;
    assert_eq!(line["peer"], "127.0.0.1");
    assert_eq!(line["client"], "203.0.113.7");
    assert_eq!(
        access_line(&gateway, "xff-forged").await["client"],
        "198.51.100.9"
    );
    assert!(
        access_line(&gateway, "xff-junk")
            .await
            .get("client")
            .is_none()
    );
}

#[tokio::test]
async fn x_forwarded_for_of_untrusted_peers_is_ignored() {
    let elsewhere = r#"{ address = "127.0.0.1:0", trusted_proxies = ["10.0.0.0/8"] }"#;
    for listen in [elsewhere, r#""127.0.0.1:0""#] {
        let (gateway, upstream) = start_gateway(listen, BY_ADDRESS).await;
        let spoofed = |path: &str| Request::get(path).header("X-Forwarded-For", "203.0.113.7");
        let refused = gateway.send(&spoofed("/ruled/x")).await;
        assert_eq!(refused.error_reason(), Some("rule_denied"));
        assert_eq!(gateway.send(&spoofed("/open/x")).await.status, 200);
        assert_eq!(forwarded(&upstream), "127.0.0.1");
    }
}

#[tokio::test]
async fn the_proxy_protocol_header_sets_the_client_address() {
    let listen =
        r#"{ address = "127.0.0.1:0", proxy_protocol = true, trusted_proxies = ["127.0.0.0/8"] }"#;
    let (gateway, upstream) = start_gateway(listen, BY_ADDRESS).await;
    let request = Request::get("/ruled/x")
        .header("X-Forwarded-For", "198.51.100.9")
        .header("X-Request-Id", "proxy-header");
    let passes = send_after_proxy_header(gateway.address(), V1, &request)
        .await
        .unwrap();
    assert_eq!(passes.status, 200);
    assert_eq!(forwarded(&upstream), "203.0.113.7");
    gateway
        .wait_for_metric("hawkgate_requests_total", &[("route", "ruled")], 1)
        .await;
    let line = access_line(&gateway, "proxy-header").await;
    assert_eq!(line["peer"], "203.0.113.7");
    assert!(line.get("client").is_none());
    // Without the header there is no response, and nothing is forwarded.
    assert!(
        send_after_proxy_header(gateway.address(), b"", &request)
            .await
            .is_err()
    );
    let twice = [V1, V1].concat();
    let refused = send_after_proxy_header(gateway.address(), &twice, &request)
        .await
        .unwrap();
    assert_eq!(refused.status, 400);
    assert_eq!(upstream.attempts().len(), 1);
}

struct Mutual {
    gateway: TestGateway,
    upstream: FakeUpstream,
    ca: TestCa,
}

impl Mutual {
    async fn start(client_auth: &str) -> Self {
        let ca = TestCa::new();
        let server = ca.issue(&["localhost"]);
        let listen = format!(
            r#"{{ address = "127.0.0.1:0", tls = {{ cert = "{}", key = "{}", client_ca = "{}", client_auth = "{client_auth}" }} }}"#,
            server.cert.display(),
            server.key.display(),
            ca.file().display(),
        );
        let rules = r#"
[[rule]]
name = "builders"
when = "'builder.example.org' in client.certificate.dns_names"
headers = { "x-auth-worker" = "client.certificate.dns_names[0]" }
routes = ["ruled"]
"#;
        let (gateway, upstream) = start_gateway(&listen, rules).await;
        Self {
            gateway,
            upstream,
            ca,
        }
    }

    async fn send(
        &self,
        identity: Option<&Identity>,
        request: &Request,
    ) -> std::io::Result<Response> {
        let address = self.gateway.address();
        let mut client = Client::connect_tls(address, &self.ca, "localhost", identity).await?;
        client.request(request).await
    }
}

#[tokio::test]
async fn rules_can_match_a_client_certificate() {
    let mutual = Mutual::start("optional").await;
    let builder = mutual.ca.issue(&["builder.example.org"]);
    let other = mutual.ca.issue(&["other.example.org"]);
    let request = |id: &str| {
        // A client cannot claim an identity in a header.
        Request::get("/ruled/x")
            .header("X-Request-Id", id)
            .header("X-Auth-Worker", "builder.example.org")
    };
    let passes = mutual.send(Some(&builder), &request("mtls-1")).await;
    assert_eq!(passes.unwrap().status, 200);
    let received = mutual.upstream.attempts().pop().unwrap().request;
    assert_eq!(
        received.header("x-auth-worker"),
        Some("builder.example.org")
    );
    for (identity, id) in [(Some(&other), "mtls-2"), (None, "mtls-3")] {
        let refused = mutual.send(identity, &request(id)).await.unwrap();
        assert_eq!(refused.error_reason(), Some("rule_denied"), "{id}");
    }
    let open = Request::get("/open/x").header("X-Auth-Worker", "builder.example.org");
    assert_eq!(mutual.send(None, &open).await.unwrap().status, 200);
    let received = mutual.upstream.attempts().pop().unwrap().request;
    assert_eq!(received.header("x-auth-worker"), None);
    let refused = [("route", "ruled")];
    mutual
        .gateway
        .wait_for_metric("hawkgate_requests_total", &refused, 3)
        .await;
    for id in ["mtls-1", "mtls-2"] {
        let line = access_line(&mutual.gateway, id).await;
        // rcgen gives every certificate the same common name.
        assert_eq!(line["client_cert"], "CN=rcgen self signed cert");
    }
    let line = access_line(&mutual.gateway, "mtls-3").await;
    assert!(line.get("client_cert").is_none());
}

#[tokio::test]
async fn a_listener_that_requires_client_certificates_refuses_clients_without_one() {
    let mutual = Mutual::start("required").await;
    let builder = mutual.ca.issue(&["builder.example.org"]);
    let stranger = TestCa::new().issue(&["builder.example.org"]);
    let request = Request::get("/open/x");
    let passes = mutual.send(Some(&builder), &request).await.unwrap();
    assert_eq!(passes.status, 200);
    for identity in [None, Some(&stranger)] {
        assert!(mutual.send(identity, &request).await.is_err());
    }
    // The same over HTTP/2.
    let stream = connect(mutual.gateway.address()).await.unwrap();
    let agreed = mutual.ca.connect(stream, "localhost", &["h2"], None).await;
    if let Ok((stream, _)) = agreed {
        let bytes = Client::over(stream).rest().await.unwrap_or_default();
        assert!(bytes.is_empty(), "{bytes:?}");
    }
    assert_eq!(mutual.upstream.attempts().len(), 1);
}

fn token_of(issuer: &IssuerServer, sub: &str) -> String {
    let now = SystemClock::shared().now().as_secs();
    let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
    let claims = tokens::with(&claims, &serde_json::json!({ "sub": sub }));
    SHARED[0].token("RS256", &claims)
}

#[tokio::test]
async fn a_caller_over_the_rate_limit_gets_429_and_others_do_not() {
    let issuer = IssuerServer::start(&[&SHARED[0]]).await;
    let sections = format!(
        r#"
[[issuer]]
name = "idp"
url = "{}"
audiences = ["{AUDIENCE}"]
[[route]]
name = "limited"
path = "/limited/"
upstream = "{{url}}"
issuers = ["idp"]
rate = {{ requests = 1, per = "1h", burst = 3 }}
"#,
        issuer.issuer()
    );
    let (gateway, upstream) = start_gateway(r#""127.0.0.1:0""#, &sections).await;
    let request = |sub: &str| Request::get("/limited/x").bearer(&token_of(&issuer, sub));
    for status in [200, 200, 200, 429, 429] {
        assert_eq!(gateway.send(&request("alice")).await.status, status);
    }
    let refused = gateway.send(&request("alice")).await;
    assert_eq!(refused.error_reason(), Some("rate_limited"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.json()["code"], "TooManyRequests");
    assert_eq!(gateway.send(&request("bob")).await.status, 200);
    // Other routes have no limit, and requests with bad tokens count by address.
    for _ in 0..10 {
        assert_eq!(gateway.send(&Request::get("/open/x")).await.status, 200);
    }
    for status in [401, 401, 401, 429] {
        let guess = Request::get("/limited/x").bearer("a.b.c");
        assert_eq!(gateway.send(&guess).await.status, status);
    }
    assert_eq!(gateway.send(&request("carol")).await.status, 200);
    assert_eq!(upstream.attempts_at("/limited/x").len(), 5);
    let limited = [("reason", "rate_limited")];
    gateway
        .wait_for_metric("hawkgate_rejections_total", &limited, 4)
        .await;
    let by_route = [("route", "limited"), ("code", "429")];
    gateway
        .wait_for_metric("hawkgate_requests_total", &by_route, 4)
        .await;
}

#[tokio::test]
async fn a_rate_limit_by_address_counts_the_client_behind_the_proxy_over_all_routes() {
    let listen = r#"{ address = "127.0.0.1:0", trusted_proxies = ["127.0.0.0/8"] }"#;
    let limit = r#"
[limits.rate]
requests = 1
per = "1h"
burst = 2
by = "address"
"#;
    let (gateway, _upstream) = start_gateway(listen, limit).await;
    let status = async |path: &str, client: &str| {
        let request = Request::get(path).header("X-Forwarded-For", client);
        gateway.send(&request).await.status
    };
    assert_eq!(status("/open/x", "203.0.113.7").await, 200);
    assert_eq!(status("/ruled/x", "203.0.113.7").await, 200);
    assert_eq!(status("/open/x", "203.0.113.7").await, 429);
    // A different forged header in each request changes nothing.
    assert_eq!(status("/open/x", "198.51.100.9, 203.0.113.7").await, 429);
    assert_eq!(status("/open/x", "203.0.113.8").await, 200);
}
