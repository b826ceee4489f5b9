//! Nobody keeps others out by holding connections: those of an attacker give way.

use std::net::SocketAddr;

use bytes::Bytes;
use hawkgate::clock::SystemClock;
use hawkgate::proxy::settings::Address;
use tokio::net::TcpSocket;

use crate::support::client::{Client, Http2Client, Request};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::standard::{API_AUDIENCE, api_route};
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::upstream::{FakeUpstream, Reply};
use crate::support::wire::Stream;

const ATTACKER: [u8; 4] = [127, 0, 0, 2];
const GOOD: [u8; 4] = [127, 0, 0, 3];
/// The value of `limits.connections`.
const CONNECTIONS: usize = 20;

/// A signed route `/` on an HTTP/1 and an HTTP/2 listener.
struct Fixture {
    gateway: TestGateway,
    upstream: FakeUpstream,
    token: String,
}

impl Fixture {
    async fn set_up() -> Self {
        let issuer = IssuerServer::start(&[&SHARED[0]]).await;
        let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
        let server = SERVER_CONFIG.replace(
            "[\"127.0.0.1:0\"]",
            "[\"127.0.0.1:0\", { address = \"127.0.0.1:0\", h2c = true }]",
        );
        let api = api_route(&issuer, "", &upstream, "");
        let kind = "kind = \"taskcluster-static\"";
        let api = api.replace(kind, &format!("{kind}\ncredentials_update = true"));
        let text = format!("{server}{api}[limits]\nconnections = {CONNECTIONS}\n");
        let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
        let now = SystemClock::shared().now().as_secs();
        let claims = tokens::claims(&issuer.issuer(), API_AUDIENCE, now);
        let token = SHARED[0].token("RS256", &claims);
        let fixture = Self {
            gateway,
            upstream,
            token,
        };
        // The keys have been fetched, so the issuer may be dropped.
        fixture.expect_service(GOOD, 1).await;
        fixture
    }

    /// Connects to listener `index` from this loopback address.
    async fn connect(&self, source: [u8; 4], index: usize) -> Stream {
        connect(source, &self.gateway.running.listeners[index]).await
    }

    /// Opens this number of connections to listener `index`. On each a request was answered with
    /// `status`, with or without the valid token.
    async fn hold(&self, source: [u8; 4], number: usize, token: Option<&str>) -> Vec<Client> {
        let mut held = Vec::new();
        for _ in 0..number {
            let mut client = Client::over(self.connect(source, 0).await);
            let mut request = Request::get("/held");
            if let Some(token) = token {
                request = request.bearer(token);
            }
            let status = client.request(&request).await.unwrap().status;
            assert_eq!(status, if token.is_some() { 200 } else { 401 });
            held.push(client);
        }
        held
    }

    /// A good caller is served on each of several new connections, on both listeners.
    async fn expect_service(&self, source: [u8; 4], connections: usize) {
        let get = Request::get("/").bearer(&self.token);
        let post = Request::post("/", Bytes::from_static(b"body")).bearer(&self.token);
        for _ in 0..connections {
            for request in [&get, &post] {
                let mut client = Client::over(self.connect(source, 0).await);
                assert_eq!(client.request(request).await.unwrap().status, 200);
                let client = Http2Client::over(self.connect(source, 1).await, "http").await;
                assert_eq!(client.request(request).await.unwrap().status, 200);
            }
        }
    }
}

async fn connect(source: [u8; 4], address: &Address) -> Stream {
    let Address::Tcp(address) = address else {
        panic!("no TCP listener")
    };
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    Box::new(socket.connect(*address).await.unwrap())
}

#[tokio::test]
async fn connections_that_never_authenticated_keep_nobody_out() {
    let fixture = Fixture::set_up().await;
    let mut attack = fixture.hold(ATTACKER, 2 * CONNECTIONS, None).await;
    for _ in 0..3 {
        for source in [GOOD, ATTACKER] {
            fixture.expect_service(source, CONNECTIONS).await;
        }
        attack.extend(fixture.hold(ATTACKER, CONNECTIONS, None).await);
    }
    let metrics = fixture.gateway.metrics().await;
    let limited = "hawkgate_connections_limited_total";
    assert!(metrics.sum(limited, &[("action", "evicted")]) > 1.0);
    assert!(metrics.sum(limited, &[("action", "refused")]) < 1.0);
    let open = metrics.sum("hawkgate_connections_open", &[]);
    assert!((1.0..=20.0).contains(&open), "{open}");
    assert!(fixture.upstream.connections() > 0);
}

#[tokio::test]
async fn http2_connections_that_never_authenticated_keep_nobody_out() {
    let fixture = Fixture::set_up().await;
    let mut attack = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        let client = Http2Client::over(fixture.connect(ATTACKER, 1).await, "http").await;
        let refused = client.request(&Request::get("/")).await.unwrap();
        assert_eq!(refused.status, 401);
        attack.push(client);
    }
    for source in [GOOD, ATTACKER] {
        fixture.expect_service(source, CONNECTIONS).await;
    }
}

#[tokio::test]
async fn an_authenticated_caller_cannot_hold_every_connection() {
    let fixture = Fixture::set_up().await;
    let token = fixture.token.clone();
    let mut good = fixture.hold(GOOD, 2, Some(&token)).await;
    let attack = fixture.hold(ATTACKER, 2 * CONNECTIONS, Some(&token)).await;
    fixture.expect_service(GOOD, CONNECTIONS).await;
    // Connections of others have been kept.
    let request = Request::get("/").bearer(&token);
    for client in &mut good {
        assert_eq!(client.request(&request).await.unwrap().status, 200);
    }
    // Two such addresses together cannot either.
    let more = fixture
        .hold([127, 0, 0, 4], 2 * CONNECTIONS, Some(&token))
        .await;
    fixture.expect_service([127, 0, 0, 5], CONNECTIONS).await;
    drop((attack, more));
}

#[tokio::test]
async fn a_caller_that_sends_only_refused_requests_loses_its_connection() {
    let fixture = Fixture::set_up().await;
    let mut client = fixture
        .hold(ATTACKER, 1, Some(&fixture.token))
        .await
        .remove(0);
    let mut refused = 0;
    while let Ok(response) = client.request(&Request::get("/")).await {
        assert_eq!(response.status, 401);
        refused += 1;
        if response.header("connection") == Some("close") {
            break;
        }
        assert!(refused < 2000);
    }
    assert_eq!(refused, 1000);
    let post = Request::post("/", Bytes::from_static(b"body"));
    let mut client = Client::over(fixture.connect(ATTACKER, 0).await);
    for left in (0..1000).rev() {
        let response = client.request(&post).await.unwrap();
        let closes = response.header("connection") == Some("close");
        assert_eq!((response.status, closes), (401, left == 0));
    }
}

#[tokio::test]
async fn probes_succeed_while_others_hold_connections_to_the_admin_listener() {
    let fixture = Fixture::set_up().await;
    let admin = fixture.gateway.admin_address();
    let mut held = Vec::new();
    for target in ["/metrics", "/healthz", "/none"] {
        for source in [ATTACKER, [127, 0, 0, 4], [127, 0, 0, 5]] {
            for _ in 0..80 {
                let mut client = Client::over(connect(source, admin).await);
                client.request(&Request::get(target)).await.unwrap();
                held.push(client);
            }
        }
    }
    for _ in 0..160 {
        let mut slow = Client::over(connect([127, 0, 0, 6], admin).await);
        slow.send(b"GET /readyz HTTP/1.1\r\n").await.unwrap();
        held.push(slow);
    }
    for source in [GOOD, ATTACKER] {
        for _ in 0..20 {
            let mut client = Client::over(connect(source, admin).await);
            let response = client.request(&Request::get("/readyz")).await.unwrap();
            assert_eq!(response.status, 200);
        }
    }
}

#[tokio::test]
async fn probes_succeed_while_others_send_credentials_slowly_to_the_admin_listener() {
    let fixture = Fixture::set_up().await;
    let admin = fixture.gateway.admin_address();
    let slow_put = b"PUT /credentials HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
    let mut connections = Vec::new();
    for host in 10..20 {
        for _ in 0..20 {
            let mut slow = Client::over(connect([127, 0, 0, host], admin).await);
            // It may have been closed to make room.
            let _ = slow.send(slow_put).await;
            connections.push(slow);
        }
    }
    for source in [GOOD, [127, 0, 0, 19]] {
        let mut client = Client::over(connect(source, admin).await);
        let response = client.request(&Request::get("/readyz")).await.unwrap();
        assert_eq!(response.status, 200);
    }
}
