//! Upgraded connections: when they end, and that they count as requests in flight.

use hawkgate::clock::SystemClock;
use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::gateway::TestGateway;
use crate::support::standard::{API_AUDIENCE, api_route};
use crate::support::tokens::{self, IssuerServer, SHARED};
use crate::support::upstream::{FakeUpstream, Reply, ReplyBody};
use crate::support::wait::{until, within};

/// A gateway with a route to an upstream that echoes what arrives on upgraded connections.
struct Fixture {
    gateway: TestGateway,
    issuer: IssuerServer,
    upstream: FakeUpstream,
}

impl Fixture {
    async fn start(route_keys: &str, sections: &str) -> Self {
        let issuer = IssuerServer::start(&[&SHARED[0]]).await;
        let upstream = FakeUpstream::http1(|received| match received.header("upgrade") {
            Some(_) => Reply {
                payload: ReplyBody::Echo,
                ..Reply::new(101, "").header("Upgrade", "websocket")
            },
            None => Reply::ok(),
        })
        .await;
        let api = api_route(&issuer, "leeway = \"0s\"", &upstream, route_keys);
        let gateway = TestGateway::start(&format!("{api}{sections}")).await;
        Self {
            gateway,
            issuer,
            upstream,
        }
    }

    /// A token that expires in this number of seconds.
    fn token(&self, life: i64) -> String {
        let now = SystemClock::shared().now().as_secs();
        let claims = tokens::claims(&self.issuer.issuer(), API_AUDIENCE, now);
        // `exp` is in whole seconds, and part of the present second has passed.
        let claims = tokens::with(&claims, &json!({ "exp": now + life }));
        SHARED[0].token("RS256", &claims)
    }

    /// Opens a WebSocket, or returns the reason for the refusal.
    async fn open(&self, token: &str) -> Result<Client, Option<String>> {
        let request = socket_request(token);
        let mut client = self.gateway.client().await;
        let response = client.request(&request).await.unwrap();
        match response.status {
            101 => Ok(client),
            _ => Err(response.error_reason().map(str::to_owned)),
        }
    }

    async fn wait_until_expired(&self, count: u32) {
        let labels = [("outcome", "upgrade_expired"), ("code", "101")];
        let name = "hawkgate_requests_total";
        self.gateway.wait_for_metric(name, &labels, count).await;
        until("no request to be in flight", async || {
            let metrics = self.gateway.metrics().await;
            metrics.sum("hawkgate_requests_in_flight", &[]) < 0.5
        })
        .await;
    }
}

fn socket_request(token: &str) -> Request {
    Request::get("/socket")
        .bearer(token)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
}

async fn echo(client: &mut Client) {
    client.send(b"hello").await.unwrap();
    let mut back = Vec::new();
    while back.len() < 5 {
        back.extend_from_slice(&client.raw().await.unwrap().expect("the connection ended"));
    }
    assert_eq!(back, b"hello");
}

#[tokio::test]
async fn an_idle_upgraded_connection_ends_with_its_token() {
    let fixture = Fixture::start("", "").await;
    let mut client = fixture.open(&fixture.token(3)).await.unwrap();
    echo(&mut client).await;
    // Nothing is sent any more, and hawkgate closes both sides.
    assert_eq!(client.rest().await.unwrap_or_default(), "");
    fixture.wait_until_expired(1).await;
    assert_eq!(fixture.upstream.attempts().len(), 1);
}

#[tokio::test]
async fn a_busy_upgraded_connection_ends_with_its_token() {
    let fixture = Fixture::start("", "").await;
    let mut client = fixture.open(&fixture.token(3)).await.unwrap();
    let talking = async {
        while client.send(b"more").await.is_ok() {
            if !matches!(client.raw().await, Ok(Some(_))) {
                return;
            }
        }
    };
    within("the end of a busy connection", talking).await;
    fixture.wait_until_expired(1).await;
}

#[tokio::test]
async fn an_upgraded_connection_whose_caller_does_not_read_ends_with_its_token() {
    let fixture = Fixture::start("", "").await;
    // More than all socket buffers hold.
    let mut raw =
        b"HTTP/1.1 101 Scripted\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_vec();
    raw.resize(32 << 20, b'x');
    fixture
        .upstream
        .set_handler(move |_| Reply::raw(raw.clone()));
    let request = socket_request(&fixture.token(3));
    let mut client = fixture.gateway.client().await;
    client.send(&request.head()).await.unwrap();
    assert!(client.next_head().await.unwrap().start.contains("101"));
    fixture.wait_until_expired(1).await;
}

#[tokio::test]
async fn a_route_may_let_upgraded_connections_outlive_their_token() {
    let fixture = Fixture::start("upgrade_expiry = \"none\"", "").await;
    let other = Fixture::start("", "").await;
    let mut outlives = fixture.open(&fixture.token(2)).await.unwrap();
    let mut ends = other.open(&other.token(3)).await.unwrap();
    assert_eq!(ends.rest().await.unwrap_or_default(), "");
    echo(&mut outlives).await;
}

#[tokio::test]
async fn an_upgraded_connection_counts_until_it_closes() {
    let limits = "[limits]\nrequests_in_flight = 2\nrequests_in_flight_per_address = 1\n";
    let fixture = Fixture::start("", limits).await;
    let token = fixture.token(3600);
    let mut open = fixture.open(&token).await.unwrap();
    echo(&mut open).await;
    let refused = fixture.open(&token).await.err();
    assert_eq!(refused, Some(Some("overloaded".to_owned())));
    let request = Request::get("/x").bearer(&token);
    let response = fixture.gateway.send(&request).await;
    assert_eq!(response.status_and_reason(), (503, Some("overloaded")));
    assert!(response.header("retry-after").is_some());
    echo(&mut open).await;
    drop(open);
    until("the closed connection to make room", async || {
        fixture.gateway.send(&request).await.status == 200
    })
    .await;
}
