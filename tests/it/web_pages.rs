//! Web pages in a browser on this machine can send requests to loopback listeners. What is served
//! there without a token is out of their reach; programs notice nothing.

use hawkgate::clock::SystemClock;
use hawkgate::proxy::settings::Address;

use crate::support::client::{Body, Client, Http2Client, Request, Response};
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::upstream::{Attempt, FakeUpstream, Reply};
use crate::support::wait::until;

const AUDIENCE: &str = "https://api.example.com";

/// The paths at which requests without a token are served: with a fixed client's signature, by a
/// short path, with the workload's token, and unchanged.
const LOCAL: [&str; 4] = [
    "/api/queue/v1/task",
    "/queue/v1/task",
    "/workload/x",
    "/plain/x",
];

/// A header field.
type Field = (&'static str, &'static str);

/// What a page of `http://evil.example` can make a browser send, and why it is refused. The
/// authority is empty where it is the listener's own.
const ATTACKS: &[(&str, &[Field], &str)] = &[
    // DNS rebinding: for the browser, the same origin.
    (
        "evil.example:8080",
        &[
            ("Origin", "http://evil.example:8080"),
            ("Sec-Fetch-Site", "same-origin"),
        ],
        "host_not_allowed",
    ),
    ("evil.example", &[], "host_not_allowed"),
    ("localhost.evil.example", &[], "host_not_allowed"),
    ("0.0.0.0", &[], "host_not_allowed"),
    ("[::ffff:127.0.0.1]", &[], "host_not_allowed"),
    // A form or fetch() with mode no-cors.
    (
        "",
        &[
            ("Origin", "http://evil.example"),
            ("Content-Type", "text/plain"),
        ],
        "cross_site",
    ),
    // From a sandboxed frame, a data: URL or a local file.
    ("", &[("Origin", "null")], "cross_site"),
    // Another program's page on this machine.
    ("", &[("Origin", "http://localhost:3000")], "cross_site"),
    ("", &[("Sec-Fetch-Site", "same-site")], "cross_site"),
    // An image, a script, fetch() with mode no-cors.
    (
        "",
        &[
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Mode", "no-cors"),
        ],
        "cross_site",
    ),
    // A link.
    (
        "",
        &[
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-User", "?1"),
        ],
        "cross_site",
    ),
    // A browser that sends neither of the two.
    ("", &[("Referer", "http://evil.example/page")], "cross_site"),
];

struct Fixture {
    gateway: TestGateway,
    upstream: FakeUpstream,
    token: String,
    _issuer: IssuerServer,
}

impl Fixture {
    async fn start() -> Self {
        let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
        let issuer = IssuerServer::start(&[&SHARED[0]]).await;
        let files = ConfigDir::new();
        let now = SystemClock::shared().now().as_secs();
        let claims = tokens::claims(&issuer.issuer(), AUDIENCE, now);
        let token = SHARED[0].token("RS256", &claims);
        files.write("token", &token);
        files.write("client-secret", "tests-only-client-secret");
        let text = config(&upstream.url(), &issuer.issuer(), &files.path("socket"));
        let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
        let fixture = Self {
            gateway,
            upstream,
            token,
            _issuer: issuer,
        };
        until("the workload token to be read", async || {
            let request = Request::get("/workload/x").header("X-Setup", "1");
            fixture.gateway.send(&request).await.status == 200
        })
        .await;
        fixture
    }

    fn port(&self) -> u16 {
        tcp_port(self.gateway.address())
    }

    /// The listeners for HTTP/1.1, and over a Unix socket.
    fn http1(&self) -> [&Address; 2] {
        [
            &self.gateway.running.listeners[0],
            &self.gateway.running.listeners[2],
        ]
    }

    /// How many requests have reached the upstream, except those of the set-up.
    fn forwarded(&self) -> usize {
        let attempts = self.upstream.attempts();
        let counted = |attempt: &&Attempt| attempt.request.header("x-setup").is_none();
        attempts.iter().filter(counted).count()
    }
}

fn tcp_port(address: &Address) -> u16 {
    match address {
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => panic!("not TCP"),
    }
}

fn config(upstream: &str, issuer: &str, socket: &std::path::Path) -> String {
    let socket = socket.display();
    format!(
        r#"
[server]
listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}, "unix:{socket}"]
admin = "127.0.0.1:0"
local_hosts = ["taskcluster"]

[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]

[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
credentials_update = true

[[source]]
name = "employees"
kind = "password"
token_url = "{upstream}/oauth/token"
client_id = "hawkgate"
client_secret = {{ file = "client-secret" }}
realm = "employees"

[[route]]
name = "local"
path = "/"
upstream = "{upstream}"
source = "static"
anonymous = true
shortcut = true
bewit = true

[[route]]
name = "workload"
path = "/workload/"
upstream = "{upstream}"
issuers = ["idp"]
source = "static"
workload_token = {{ file = "token" }}

[[route]]
name = "plain"
path = "/plain/"
upstream = "{upstream}"
anonymous = true

[[route]]
name = "employees"
path = "/employees/"
upstream = "{upstream}"
source = "employees"

[[route]]
name = "verified"
path = "/verified/"
upstream = "{upstream}"
issuers = ["idp"]
source = "static"

[[route]]
name = "hosted"
host = "proxy.internal"
path = "/hosted/"
upstream = "{upstream}"
source = "static"
anonymous = true
"#
    )
}

/// A request with this authority and these fields.
fn request(method: &str, target: &str, authority: &str, fields: &[(&str, &str)]) -> Request {
    let mut request = Request::new(method, target);
    if !authority.is_empty() {
        request.authority = authority.into();
    }
    for (name, value) in fields {
        request = request.header(name, value);
    }
    if method == "POST" {
        request = request.body(Body::Sized("{}".into()));
    }
    request
}

/// The answer of a refusal, which shows a page nothing.
fn assert_refused(response: &Response, reason: &str, what: &str) {
    let expected = (403, Some(reason));
    assert_eq!(response.status_and_reason(), expected, "{what}");
    for (name, _) in &response.fields.0 {
        assert!(
            !name.to_lowercase().starts_with("access-control-"),
            "{what}"
        );
    }
}

#[tokio::test]
async fn pages_reach_nothing_that_needs_no_token() {
    let fixture = Fixture::start().await;
    for &(authority, fields, reason) in ATTACKS {
        // No page reaches a Unix socket, so any name is accepted there.
        let is_name = reason == "host_not_allowed";
        let listeners = fixture
            .http1()
            .into_iter()
            .take(if is_name { 1 } else { 2 });
        for address in listeners {
            for target in LOCAL.iter().chain(&["/employees/x"]) {
                for method in ["GET", "POST", "OPTIONS", "DELETE"] {
                    let request = request(method, target, authority, fields);
                    let mut client = Client::connect(address).await;
                    let response = client.request(&request).await.unwrap();
                    let what = format!("{method} {target} {authority} {fields:?}");
                    assert_refused(&response, reason, &what);
                }
            }
        }
    }
    assert_eq!(fixture.forwarded(), 0);
    for reason in ["host_not_allowed", "cross_site"] {
        let metrics = fixture.gateway.metrics().await;
        let count = metrics.sum("hawkgate_rejections_total", &[("reason", reason)]);
        assert!(count > 0.0, "{reason}");
    }
    let log = fixture.gateway.log();
    assert!(
        log.contains("\\\"evil.example\\\" is neither localhost"),
        "{log}"
    );
}

#[tokio::test]
async fn pages_are_refused_over_http2_alike() {
    let fixture = Fixture::start().await;
    let address = &fixture.gateway.running.listeners[1];
    for &(authority, fields, reason) in ATTACKS {
        let client = Http2Client::connect(address).await;
        for target in LOCAL {
            let request = request("POST", target, authority, fields);
            let response = client.request(&request).await.unwrap();
            assert_refused(
                &response,
                reason,
                &format!("{target} {authority} {fields:?}"),
            );
        }
    }
    assert_eq!(fixture.forwarded(), 0);
    let client = Http2Client::connect(address).await;
    for authority in ["localhost:1", "127.0.0.1", "[::1]:8080", "taskcluster"] {
        let request = request("POST", "/api/x", authority, &[]);
        assert_eq!(client.request(&request).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn programs_are_served_under_every_name_of_this_machine() {
    let fixture = Fixture::start().await;
    let port = fixture.port();
    let names = [
        "localhost".to_owned(),
        format!("localhost:{port}"),
        format!("LOCALHOST:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        "taskcluster".to_owned(),
        format!("taskcluster:{port}"),
    ];
    for name in &names {
        for target in LOCAL {
            for method in ["GET", "POST"] {
                let response = fixture
                    .gateway
                    .send(&request(method, target, name, &[]))
                    .await;
                assert_eq!(response.status, 200, "{method} {name} {target}");
            }
        }
    }
    // Unix sockets: clients put anything into Host.
    for name in ["localhost", "unix", "hawkgate.sock", "evil.example"] {
        let mut client = Client::connect(fixture.http1()[1]).await;
        let response = client.request(&request("POST", LOCAL[0], name, &[])).await;
        assert_eq!(response.unwrap().status, 200, "{name}");
    }
    // A page that hawkgate itself serves, and a person at the address bar.
    let own = format!("http://localhost:{port}");
    for fields in [
        &[("Origin", &*own), ("Sec-Fetch-Site", "same-origin")][..],
        &[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")],
    ] {
        let request = request("POST", LOCAL[0], &format!("localhost:{port}"), fields);
        assert_eq!(
            fixture.gateway.send(&request).await.status,
            200,
            "{fields:?}"
        );
    }
}

#[tokio::test]
async fn a_route_with_a_host_of_its_own_serves_it() {
    let fixture = Fixture::start().await;
    let send = async |authority, fields: &[(&str, &str)]| {
        let request = request("POST", "/hosted/x", authority, fields);
        fixture.gateway.send(&request).await
    };
    assert_eq!(send("proxy.internal:8080", &[]).await.status, 200);
    let foreign = [("Origin", "http://evil.example")];
    let response = send("proxy.internal:8080", &foreign).await;
    assert_refused(&response, "cross_site", "Origin");
    // The route for any host.
    let response = send("evil.example", &[]).await;
    assert_refused(&response, "host_not_allowed", "Host");
}

#[tokio::test]
async fn routes_with_a_token_of_the_caller_serve_every_host_and_origin() {
    let fixture = Fixture::start().await;
    for target in ["/verified/x", "/workload/x"] {
        for &(authority, fields, _) in ATTACKS {
            let request = request("POST", target, authority, fields).bearer(&fixture.token);
            let response = fixture.gateway.send(&request).await;
            assert_eq!(response.status, 200, "{target} {authority} {fields:?}");
        }
    }
}

#[tokio::test]
async fn a_page_cannot_open_a_websocket() {
    let fixture = Fixture::start().await;
    fixture
        .upstream
        .set_handler(|_| Reply::new(101, "").header("upgrade", "websocket"));
    for (fields, reason) in [
        (&[("Origin", "http://evil.example")][..], "cross_site"),
        (&[("Origin", "null")], "cross_site"),
        (
            &[
                ("Origin", "http://localhost"),
                ("Sec-Fetch-Site", "cross-site"),
            ],
            "cross_site",
        ),
    ] {
        let request = request("GET", "/plain/socket", "", fields)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let response = fixture.gateway.send(&request).await;
        assert_refused(&response, reason, &format!("{fields:?}"));
    }
    assert_eq!(fixture.forwarded(), 0);
}

#[tokio::test]
async fn a_private_network_preflight_gets_no_permission() {
    let fixture = Fixture::start().await;
    let fields = [
        ("Origin", "https://evil.example"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Private-Network", "true"),
    ];
    for target in LOCAL.iter().chain(&["/bewit"]) {
        for fields in [&fields[..], &fields[2..]] {
            let request = request("OPTIONS", target, "", fields);
            let response = fixture.gateway.send(&request).await;
            assert_refused(&response, "cross_site", target);
        }
    }
    assert_eq!(fixture.forwarded(), 0);
}

#[tokio::test]
async fn bewits_are_not_signed_for_pages() {
    let fixture = Fixture::start().await;
    let url = format!("{}/api/queue/v1/task", fixture.upstream.url());
    let post = |authority, fields| {
        let request = request("POST", "/bewit", authority, fields);
        request.body(Body::Sized(url.clone().into()))
    };
    for &(authority, fields, reason) in ATTACKS {
        let response = fixture.gateway.send(&post(authority, fields)).await;
        let what = format!("{authority} {fields:?}");
        assert_refused(&response, reason, &what);
        assert_eq!(response.header("location"), None, "{what}");
        // Nor does the answer tell what the endpoint accepts.
        for (method, body) in [("POST", "nonsense"), ("GET", "")] {
            let request = request(method, "/bewit", authority, fields);
            let request = request.body(Body::Sized(body.into()));
            let response = fixture.gateway.send(&request).await;
            assert_refused(&response, reason, &what);
        }
    }
    for authority in ["", "127.0.0.1:8080", "taskcluster"] {
        let response = fixture.gateway.send(&post(authority, &[])).await;
        assert_eq!(response.status, 303, "{authority} {}", response.text());
    }
}

#[tokio::test]
async fn pages_reach_no_page_of_a_local_admin_listener() {
    let fixture = Fixture::start().await;
    let admin = fixture.gateway.admin_address();
    let credentials = r#"{"clientId":"evil","accessToken":"evil-evil-evil-evil-evil-evil"}"#;
    let send = async |request: &Request| {
        let mut client = Client::connect(admin).await;
        client.request(request).await.unwrap()
    };
    for &(authority, fields, _) in ATTACKS {
        let what = format!("{authority} {fields:?}");
        for target in ["/metrics", "/healthz", "/readyz", "/startupz", "/x"] {
            let response = send(&request("GET", target, authority, fields)).await;
            assert_eq!(response.status, 403, "{target} {what}");
            assert!(!response.text().contains("hawkgate_"), "{target} {what}");
        }
        for method in ["PUT", "POST", "OPTIONS"] {
            let request = request(method, "/credentials", authority, fields);
            let response = send(&request.body(Body::Sized(credentials.into()))).await;
            assert_eq!(response.status, 403, "{method} {what}");
        }
    }
    assert!(!fixture.gateway.log().contains("credentials_replaced"));
    let port = tcp_port(admin);
    for authority in [
        format!("127.0.0.1:{port}"),
        "localhost".into(),
        "taskcluster:9".into(),
    ] {
        for target in ["/metrics", "/healthz"] {
            let response = send(&request("GET", target, &authority, &[])).await;
            assert_eq!(response.status, 200, "{target} {authority}");
        }
        let put = request("PUT", "/credentials", &authority, &[]);
        let put = put.body(Body::Sized(credentials.into()));
        assert_eq!(send(&put).await.status, 200, "{authority}");
    }
}

#[tokio::test]
async fn an_open_admin_listener_serves_every_name() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let url = upstream.url();
    let text = format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
admin = "0.0.0.0:0"
[[route]]
name = "open"
upstream = "{url}"
anonymous = true
"#
    );
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    let address = Address::Tcp(([127, 0, 0, 1], tcp_port(gateway.admin_address())).into());
    for authority in ["hawkgate.monitoring.svc:9090", "10.1.2.3:9090", "node-1"] {
        let mut client = Client::connect(&address).await;
        let request = request("GET", "/metrics", authority, &[]);
        assert_eq!(
            client.request(&request).await.unwrap().status,
            200,
            "{authority}"
        );
    }
}

#[tokio::test]
async fn a_route_without_tokens_or_source_is_public_if_other_machines_can_connect() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let url = upstream.url();
    let text = format!(
        r#"
[server]
listen = ["0.0.0.0:0"]
admin = "127.0.0.1:0"
[[route]]
name = "open"
upstream = "{url}"
anonymous = true
"#
    );
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    let address = Address::Tcp(([127, 0, 0, 1], tcp_port(gateway.address())).into());
    let fields = [
        ("Origin", "https://www.example.com"),
        ("Sec-Fetch-Site", "cross-site"),
    ];
    let mut client = Client::connect(&address).await;
    let request = request("POST", "/x", "gateway.example.com", &fields);
    assert_eq!(client.request(&request).await.unwrap().status, 200);
}

#[tokio::test]
async fn local_hosts_take_effect_on_reload() {
    let fixture = Fixture::start().await;
    let request = request("GET", LOCAL[0], "proxy.internal:8080", &[]);
    let response = fixture.gateway.send(&request).await;
    assert_refused(&response, "host_not_allowed", "before");
    let path = fixture.gateway.files.path("hawkgate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let loaded = hawkgate::reload::load(&path, None).unwrap();
    let running = &fixture.gateway.running;
    let reloads = running.reloads(path, loaded.fingerprints, None);
    let text = text.replace("[\"taskcluster\"]", "[\"proxy.internal\"]");
    fixture.gateway.files.write("hawkgate.toml", text);
    reloads.request();
    until("the configuration to be reloaded", async || {
        fixture.gateway.send(&request).await.status == 200
    })
    .await;
}
