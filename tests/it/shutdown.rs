//! Start-up and shutdown as callers and probes observe them.

use bytes::Bytes;
use hawkgate::clock::SystemClock;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{Body, Client, Http2Client, Request};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::tokens::{IssuerServer, SHARED, claims};
use crate::support::upstream::{FakeUpstream, Latch, Reply, sha256};
use crate::support::wait::{until, within};

const OPEN: &str = r#"
[[route]]
name = "open"
path = "/"
anonymous = true
"#;

/// A gateway in front of an upstream that replies only once the latch is open.
async fn gateway_with_held_upstream(server: &str) -> (TestGateway, FakeUpstream, Latch) {
    let latch = Latch::closed();
    let shared = latch.clone();
    let upstream = FakeUpstream::http1(move |_| Reply::ok().after(&shared)).await;
    let text = format!("{server}{OPEN}upstream = \"{}\"\n", upstream.url());
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    (gateway, upstream, latch)
}

/// Waits until new connections are refused: the drain has begun.
async fn wait_for_listener_to_close(gateway: &TestGateway) {
    let hawkgate::proxy::settings::Address::Tcp(address) = gateway.address() else {
        panic!("TCP")
    };
    until("the listener to close", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn draining_finishes_in_flight_requests_with_connection_close() {
    let (gateway, upstream, latch) = gateway_with_held_upstream(SERVER_CONFIG).await;
    let body: Bytes = vec![b'u'; 300_000].into();
    let poll = Request::get("/poll");
    let upload = Request::new("POST", "/upload").body(Body::Chunked(body.clone(), 10_000));
    let (mut one, mut two) = (gateway.client().await, gateway.client().await);
    let mut idle = gateway.client().await;
    let ending = async {
        upstream.until("both requests", |a| a.len() == 2).await;
        assert_eq!(gateway.admin("/readyz").await.status, 200);
        let drained = gateway.running.drain();
        let checks = async {
            wait_for_listener_to_close(&gateway).await;
            let draining = gateway.admin("/readyz").await;
            assert_eq!((draining.status, draining.text().trim()), (503, "draining"));
            assert_eq!(gateway.admin("/healthz").await.status, 200);
            assert!(idle.rest().await.unwrap().is_empty());
            latch.open();
        };
        tokio::join!(drained, checks);
    };
    let all = async { tokio::join!(one.request(&poll), two.request(&upload), ending) };
    let (polled, uploaded, ()) = within("the drain to end", Box::pin(all)).await;
    for response in [polled.unwrap(), uploaded.unwrap()] {
        assert_eq!(response.status, 200);
        assert_eq!(response.header("connection"), Some("close"));
    }
    assert!(one.rest().await.unwrap().is_empty());
    let upload = &upstream.attempts_at("/upload")[0];
    assert_eq!(upload.sha256.as_deref(), Some(sha256(&body).as_str()));
}

#[tokio::test]
async fn draining_waits_for_a_slow_upload() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let text = format!("{SERVER_CONFIG}{OPEN}upstream = \"{}\"\n", upstream.url());
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    let mut stream = crate::support::client::connect(gateway.address())
        .await
        .unwrap();
    let head = b"PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nfour";
    stream.write_all(head).await.unwrap();
    upstream
        .until("half of it", |a| a.iter().any(|a| a.body_bytes == 4))
        .await;
    let ((), response) = within("the drain to end", async {
        tokio::join!(gateway.running.drain(), async {
            wait_for_listener_to_close(&gateway).await;
            stream.write_all(b"more").await.unwrap();
            Client::over(stream).response("PUT").await.unwrap()
        })
    })
    .await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("connection"), Some("close"));
}

#[tokio::test]
async fn refusals_during_a_drain_close_the_connection() {
    let latch = Latch::closed();
    let issuer = IssuerServer::start(&[&SHARED[1]]).await;
    issuer.set_mode(crate::support::tokens::JwksMode::Held(latch.clone()));
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let text = format!(
        "{SERVER_CONFIG}\n[[issuer]]\nname = \"idp\"\nurl = \"{}\"\naudiences = [\"api\"]\n\
         [[route]]\nname = \"closed\"\npath = \"/\"\nissuers = [\"idp\"]\nupstream = \"{}\"\n",
        issuer.issuer(),
        upstream.url(),
    );
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    let now = SystemClock::shared().now().as_secs();
    let token = SHARED[1].token("ES256", &claims(&issuer.issuer(), "another-api", now));
    let mut client = gateway.client().await;
    let request = Request::get("/x").bearer(&token);
    let (response, ()) = within(
        "the drain to end",
        Box::pin(async {
            tokio::join!(client.request(&request), async {
                gateway
                    .wait_for_metric("hawkgate_requests_in_flight", &[], 1)
                    .await;
                tokio::join!(gateway.running.drain(), async {
                    wait_for_listener_to_close(&gateway).await;
                    latch.open();
                });
            })
        }),
    )
    .await;
    let response = response.unwrap();
    assert_eq!(response.error_reason(), Some("token_audience"));
    assert_eq!(response.header("connection"), Some("close"));
}

#[tokio::test]
async fn draining_sends_goaway_and_finishes_http2_streams() {
    let server = SERVER_CONFIG.replace(
        r#"["127.0.0.1:0"]"#,
        r#"[{ address = "127.0.0.1:0", h2c = true }]"#,
    );
    let (gateway, upstream, latch) = gateway_with_held_upstream(&server).await;
    let client = Http2Client::connect(gateway.address()).await;
    let request = Request::get("/poll");
    let (polled, ()) = within("the drain to end", async {
        tokio::join!(client.request(&request), async {
            upstream.until("the request", |a| !a.is_empty()).await;
            tokio::join!(gateway.running.drain(), async {
                wait_for_listener_to_close(&gateway).await;
                // The client library refuses new requests once it has received GOAWAY.
                until("GOAWAY", async || client.has_received_goaway().await).await;
                latch.open();
            });
        })
    })
    .await;
    assert_eq!(polled.unwrap().status, 200);
    assert_eq!(upstream.attempts().len(), 1);
}

#[tokio::test]
async fn requests_are_served_during_drain_delay_while_readyz_is_503() {
    let server = SERVER_CONFIG.replace("drain_delay = \"0s\"", "drain_delay = \"5m\"");
    let (gateway, _upstream, latch) = gateway_with_held_upstream(&server).await;
    latch.open();
    let drain = gateway.running.drain();
    let checks = async {
        until("/readyz to be 503", async || {
            gateway.admin("/readyz").await.status == 503
        })
        .await;
        // New connections are accepted, but close after one response.
        for _ in 0..2 {
            let response = gateway.send(&Request::get("/x")).await;
            assert_eq!(response.status, 200);
            assert_eq!(response.header("connection"), Some("close"));
        }
        gateway.running.abort();
    };
    let both = Box::pin(async { tokio::join!(drain, checks) });
    within("the abort", both).await;
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_deadline_is_aborted() {
    let server = SERVER_CONFIG.replace("drain = \"10s\"", "drain = \"50ms\"");
    let (gateway, upstream, _latch) = gateway_with_held_upstream(&server).await;
    let mut client = gateway.client().await;
    let request = Request::get("/never");
    let (broken, ()) = within("the drain to end", async {
        tokio::join!(client.request(&request), async {
            upstream.until("the request", |a| !a.is_empty()).await;
            gateway.running.drain().await;
        })
    })
    .await;
    assert!(broken.is_err());
}

#[tokio::test]
async fn hawkgate_starts_with_every_dependency_down_and_recovers() {
    let issuer = IssuerServer::start(&[&SHARED[1]]).await;
    let exchange = FakeUpstream::http1(|_| Reply::new(503, "")).await;
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    for down in [&issuer.server, &exchange, &upstream] {
        down.down().await;
    }
    let gateway = TestGateway::start(&format!(
        "[[issuer]]\nname = \"idp\"\nurl = \"{}\"\naudiences = [\"api\"]\n\
         [[source]]\nname = \"login\"\nkind = \"taskcluster-login\"\nurl = \"{}/login\"\n\
         [[route]]\nname = \"main\"\npath = \"/\"\nissuers = [\"idp\"]\nsource = \"login\"\nupstream = \"{}\"\n",
        issuer.issuer(),
        exchange.url(),
        upstream.url(),
    ))
    .await;
    let now = SystemClock::shared().now().as_secs();
    let token = SHARED[1].token("ES256", &claims(&issuer.issuer(), "api", now));
    let send = async || gateway.send(&Request::get("/x").bearer(&token)).await;
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    for page in ["/readyz", "/startupz"] {
        let unready = gateway.admin(page).await;
        assert_eq!(unready.status, 503, "{page}");
        assert!(unready.text().contains("issuer idp"), "{}", unready.text());
    }
    let refused = send().await;
    assert_eq!(refused.status_and_reason(), (503, Some("keys_unavailable")));
    assert!(refused.header("retry-after").is_some());

    issuer.server.up().await;
    until("/readyz to be 200", async || {
        gateway.admin("/readyz").await.status == 200
    })
    .await;
    assert_eq!(gateway.admin("/startupz").await.status, 200);
    let refused = send().await;
    assert_eq!(
        refused.status_and_reason(),
        (503, Some("exchange_unavailable"))
    );

    exchange.set_handler(|_| {
        let expires = "2999-01-01T00:00:00.000Z";
        let body = format!(
            r#"{{"expires":"{expires}","credentials":{{"clientId":"c","accessToken":"an-access-token-of-some-length"}}}}"#
        );
        Reply::new(200, body).header("content-type", "application/json")
    });
    exchange.up().await;
    upstream.up().await;
    until("a request to succeed", async || send().await.status == 200).await;
}
