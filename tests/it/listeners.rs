//! Listeners with proxies in front, client certificates and rate limits, from the caller to
//! the upstream and the log.

use hawkgate::clock::SystemClock;
use hawkgate::proxy::settings::Address;

use crate::support::client::{Client, Request, Response, connect};
use crate::support::gate::{self, Files, Gate};
use crate::support::tls::{Identity, TestCa};
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::upstream::{Reply, Upstream};

const AUDIENCE: &str = "https://api.example.com";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 51234 8443\r\n";

/// The line of the access log about the request with this id.
fn access_line(id: &str) -> serde_json::Value {
    let log = gate::logged();
    let needle = format!("\"request_id\":\"{id}\"");
    let mut lines = log.lines().filter(|line| line.contains(&needle));
    let line = lines.next().unwrap_or_else(|| panic!("no line of {id}"));
    serde_json::from_str(line).unwrap()
}

/// A gate with this `[server]` and these `sections`, and an open route to an upstream.
async fn gate_with(listen: &str, sections: &str) -> (Gate, Upstream) {
    let upstream = Upstream::http1(|_| Reply::ok()).await;
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
    let gate = Gate::start_with(&text, Files::new(), SystemClock::shared()).await;
    (gate, upstream)
}

fn forwarded(upstream: &Upstream) -> String {
    let last = upstream.attempts().pop().unwrap().seen;
    let values: Vec<_> = last.fields.all("x-forwarded-for").collect();
    values.join(" and ")
}

async fn announced(
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
async fn a_trusted_proxy_says_who_the_client_is_in_rules_logs_and_upstream() {
    let listen = r#"{ address = "127.0.0.1:0", trusted_proxies = ["127.0.0.0/8"] }"#;
    let (gate, upstream) = gate_with(listen, BY_ADDRESS).await;
    let request = |for_whom: &str, id: &str| {
        Request::get("/ruled/x")
            .header("X-Forwarded-For", for_whom)
            .header("X-Request-Id", id)
    };
    let passes = request("198.51.100.9, 203.0.113.7", "xff-passes");
    assert_eq!(gate.send(&passes).await.status, 200);
    assert_eq!(forwarded(&upstream), "203.0.113.7");
    // What stands further left is the client's own word.
    let spoofed = request("203.0.113.7, 198.51.100.9", "xff-lie");
    assert_eq!(gate.send(&spoofed).await.refusal(), Some("rule_denied"));
    let junk = request("203.0.113.7, unknown", "xff-junk");
    assert_eq!(gate.send(&junk).await.refusal(), Some("rule_denied"));
    gate.until_counted("hawkgate_requests_total", &[("route", "ruled")], 3)
        .await;
    let line = access_line("xff-passes");
    assert_eq!(line["peer"], "127.0.0.1");
    assert_eq!(line["client"], "203.0.113.7");
    assert_eq!(access_line("xff-lie")["client"], "198.51.100.9");
    assert!(access_line("xff-junk").get("client").is_none());
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let elsewhere = r#"{ address = "127.0.0.1:0", trusted_proxies = ["10.0.0.0/8"] }"#;
    for listen in [elsewhere, r#""127.0.0.1:0""#] {
        let (gate, upstream) = gate_with(listen, BY_ADDRESS).await;
        let spoofed = |path: &str| Request::get(path).header("X-Forwarded-For", "203.0.113.7");
        let refused = gate.send(&spoofed("/ruled/x")).await;
        assert_eq!(refused.refusal(), Some("rule_denied"));
        assert_eq!(gate.send(&spoofed("/open/x")).await.status, 200);
        assert_eq!(forwarded(&upstream), "127.0.0.1");
    }
}

#[tokio::test]
async fn a_proxy_header_says_it_too_and_nothing_after_it_does() {
    let listen =
        r#"{ address = "127.0.0.1:0", proxy_protocol = true, trusted_proxies = ["127.0.0.0/8"] }"#;
    let (gate, upstream) = gate_with(listen, BY_ADDRESS).await;
    let request = Request::get("/ruled/x")
        .header("X-Forwarded-For", "198.51.100.9")
        .header("X-Request-Id", "proxy-header");
    let passes = announced(gate.address(), V1, &request).await.unwrap();
    assert_eq!(passes.status, 200);
    assert_eq!(forwarded(&upstream), "203.0.113.7");
    gate.until_counted("hawkgate_requests_total", &[("route", "ruled")], 1)
        .await;
    let line = access_line("proxy-header");
    assert_eq!(line["peer"], "203.0.113.7");
    assert!(line.get("client").is_none());
    // Without a header there is no answer, and nothing goes upstream.
    assert!(announced(gate.address(), b"", &request).await.is_err());
    let twice = [V1, V1].concat();
    let refused = announced(gate.address(), &twice, &request).await.unwrap();
    assert_eq!(refused.status, 400);
    assert_eq!(upstream.attempts().len(), 1);
}

struct Mutual {
    gate: Gate,
    upstream: Upstream,
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
        let (gate, upstream) = gate_with(&listen, rules).await;
        Self { gate, upstream, ca }
    }

    async fn send(&self, who: Option<&Identity>, request: &Request) -> std::io::Result<Response> {
        let address = self.gate.address();
        let mut client = Client::connect_tls(address, &self.ca, "localhost", who).await?;
        client.request(request).await
    }
}

#[tokio::test]
async fn a_client_certificate_opens_what_a_rule_says() {
    let mutual = Mutual::start("optional").await;
    let builder = mutual.ca.issue(&["builder.example.org"]);
    let other = mutual.ca.issue(&["other.example.org"]);
    let request = |id: &str| {
        // Nobody can claim to be somebody in a header.
        Request::get("/ruled/x")
            .header("X-Request-Id", id)
            .header("X-Auth-Worker", "builder.example.org")
    };
    let passes = mutual.send(Some(&builder), &request("mtls-1")).await;
    assert_eq!(passes.unwrap().status, 200);
    let seen = mutual.upstream.attempts().pop().unwrap().seen;
    assert_eq!(seen.header("x-auth-worker"), Some("builder.example.org"));
    for (who, id) in [(Some(&other), "mtls-2"), (None, "mtls-3")] {
        let refused = mutual.send(who, &request(id)).await.unwrap();
        assert_eq!(refused.refusal(), Some("rule_denied"), "{id}");
    }
    let open = Request::get("/open/x").header("X-Auth-Worker", "builder.example.org");
    assert_eq!(mutual.send(None, &open).await.unwrap().status, 200);
    let seen = mutual.upstream.attempts().pop().unwrap().seen;
    assert_eq!(seen.header("x-auth-worker"), None);
    let refused = [("route", "ruled")];
    mutual
        .gate
        .until_counted("hawkgate_requests_total", &refused, 3)
        .await;
    let names = ["mtls-1", "mtls-2"].map(|id| access_line(id)["client_cert"].clone());
    // rcgen gives every certificate the same common name.
    assert_eq!(names[0], "CN=rcgen self signed cert");
    assert_eq!(names[0], names[1]);
    assert!(access_line("mtls-3").get("client_cert").is_none());
}

#[tokio::test]
async fn where_a_certificate_is_required_nobody_else_gets_in() {
    let mutual = Mutual::start("required").await;
    let builder = mutual.ca.issue(&["builder.example.org"]);
    let stranger = TestCa::new().issue(&["builder.example.org"]);
    let request = Request::get("/open/x");
    let passes = mutual.send(Some(&builder), &request).await.unwrap();
    assert_eq!(passes.status, 200);
    for who in [None, Some(&stranger)] {
        assert!(mutual.send(who, &request).await.is_err());
    }
    // Nor over HTTP/2.
    let stream = connect(mutual.gate.address()).await.unwrap();
    let agreed = mutual.ca.connect(stream, "localhost", &["h2"], None).await;
    if let Ok((stream, _)) = agreed {
        let said = Client::over(stream).rest().await.unwrap_or_default();
        assert!(said.is_empty(), "{said:?}");
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
async fn who_asks_too_often_waits_and_nobody_else_does() {
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
    let (gate, upstream) = gate_with(r#""127.0.0.1:0""#, &sections).await;
    let request = |who: &str| Request::get("/limited/x").bearer(&token_of(&issuer, who));
    for status in [200, 200, 200, 429, 429] {
        assert_eq!(gate.send(&request("alice")).await.status, status);
    }
    let refused = gate.send(&request("alice")).await;
    assert_eq!(refused.refusal(), Some("rate_limited"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.json()["code"], "TooManyRequests");
    assert_eq!(gate.send(&request("bob")).await.status, 200);
    // Other routes have no limit, and bad tokens count by address.
    for _ in 0..10 {
        assert_eq!(gate.send(&Request::get("/open/x")).await.status, 200);
    }
    for status in [401, 401, 401, 429] {
        let guess = Request::get("/limited/x").bearer("a.b.c");
        assert_eq!(gate.send(&guess).await.status, status);
    }
    assert_eq!(gate.send(&request("carol")).await.status, 200);
    assert_eq!(upstream.attempts_at("/limited/x").len(), 5);
    let limited = [("reason", "rate_limited")];
    gate.until_counted("hawkgate_rejections_total", &limited, 4)
        .await;
    let by_route = [("route", "limited"), ("code", "429")];
    gate.until_counted("hawkgate_requests_total", &by_route, 4)
        .await;
}

#[tokio::test]
async fn a_limit_by_address_counts_the_client_behind_the_proxy_over_all_routes() {
    let listen = r#"{ address = "127.0.0.1:0", trusted_proxies = ["127.0.0.0/8"] }"#;
    let limit = r#"
[limits.rate]
requests = 1
per = "1h"
burst = 2
by = "address"
"#;
    let (gate, _upstream) = gate_with(listen, limit).await;
    let status = async |path: &str, client: &str| {
        let request = Request::get(path).header("X-Forwarded-For", client);
        gate.send(&request).await.status
    };
    assert_eq!(status("/open/x", "203.0.113.7").await, 200);
    assert_eq!(status("/ruled/x", "203.0.113.7").await, 200);
    assert_eq!(status("/open/x", "203.0.113.7").await, 429);
    // A new lie for each request changes nothing.
    assert_eq!(status("/open/x", "198.51.100.9, 203.0.113.7").await, 429);
    assert_eq!(status("/open/x", "203.0.113.8").await, 200);
}
