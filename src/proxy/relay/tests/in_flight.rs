//! The limits of requests in flight.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{TestClient, TestRequest};
use super::failures::{OK, raw_upstream, read_head, until};
use super::replay_matrix::body;
use super::support::TestProxy;
use crate::gateway::outcome::Ending;
use crate::gateway::reason::Reason;

/// A proxy whose upstream never responds to `/api/hold`.
async fn proxy_with(all: usize, each: usize) -> TestProxy {
    let upstream = raw_upstream(|_, mut tcp| async move {
        loop {
            match read_head(&mut tcp).await {
                head if head.is_empty() => return,
                head if head.contains("/api/hold") => std::future::pending().await,
                _ => tcp.write_all(OK).await.unwrap(),
            }
        }
    })
    .await;
    TestProxy::with(|o| {
        o.addresses = Some(vec![upstream]);
        o.limits.requests_in_flight = all;
        o.limits.requests_in_flight_per_address = each;
    })
    .await
}

/// Begins a request that the upstream does not respond to.
async fn hold(proxy: &TestProxy) -> TcpStream {
    let before = proxy.in_flight.requests();
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    let head = b"GET /api/hold HTTP/1.1\r\nHost: any\r\n\r\n";
    tcp.write_all(head).await.unwrap();
    until(|| proxy.in_flight.requests() == before + 1).await;
    tcp
}

async fn assert_overloaded(client: &mut TestClient, request: &TestRequest) {
    let response = client.send(request).await;
    assert_eq!(response.status, 503);
    assert_eq!(response.headers["x-hawkgate-error"], "overloaded");
    assert!(response.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_on_every_path() {
    for (all, each, key) in [
        (2, 2, "limits.requests_in_flight_per_address is reached"),
        (2, 3, "limits.requests_in_flight is reached"),
    ] {
        let mut proxy = proxy_with(all, each).await;
        let held = [hold(&proxy).await, hold(&proxy).await];
        let fetched = proxy.fetched();
        for (http2, request) in [
            (false, TestRequest::get("/api/x")),
            (false, TestRequest::post(body(100))),
            (true, TestRequest::get("/api/x")),
            (true, TestRequest::post(body(100))),
        ] {
            let mut client = proxy.connect(http2).await;
            for _ in 0..3 {
                // The connection stays open.
                assert_overloaded(&mut client, &request).await;
                let outcome = proxy.outcome().await;
                assert_eq!(outcome.ending, Ending::Rejected);
                assert_eq!(outcome.rejection, Some(Reason::Overloaded));
                assert_eq!(outcome.cause.as_deref(), Some(key));
            }
        }
        assert_eq!(proxy.in_flight.requests(), 2);
        assert_eq!(proxy.fetched(), fetched, "refused before any other work");
        drop(held);
        until(|| proxy.in_flight.requests() == 0).await;
        for http2 in [false, true] {
            let mut client = proxy.connect(http2).await;
            assert_eq!(client.send(&TestRequest::get("/api/x")).await.status, 200);
        }
    }
}

#[tokio::test]
async fn each_http2_stream_counts() {
    let proxy = proxy_with(10, 5).await;
    let tcp = TcpStream::connect(proxy.h2c).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut get = |path: &str| {
        let request = http::Request::get(format!("http://any{path}"));
        let request = request.body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let mut held: Vec<_> = (0..5).map(|_| get("/api/hold")).collect();
    until(|| proxy.in_flight.requests() == 5).await;
    for _ in 0..20 {
        assert_eq!(get("/api/x").await.unwrap().status(), 503);
    }
    // A reset stream makes room for another one at once.
    held.truncate(4);
    until(|| proxy.in_flight.requests() == 4).await;
    assert_eq!(get("/api/x").await.unwrap().status(), 200);
    driver.abort();
    until(|| proxy.in_flight.requests() == 0).await;
}

#[tokio::test]
async fn an_aborted_upload_no_longer_counts() {
    let proxy = proxy_with(10, 10).await;
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    let head = b"POST /api/x HTTP/1.1\r\nHost: any\r\nContent-Length: 5\r\n\r\nab";
    tcp.write_all(head).await.unwrap();
    until(|| proxy.in_flight.requests() == 1).await;
    drop(tcp);
    until(|| proxy.in_flight.requests() == 0).await;
    assert_eq!(proxy.budget.used(), 0);
}

#[tokio::test]
async fn an_aborted_server_counts_nothing() {
    let proxy = proxy_with(10, 10).await;
    let mut held = [hold(&proxy).await, hold(&proxy).await];
    proxy.handle.abort();
    for tcp in &mut held {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }
    until(|| proxy.in_flight.requests() == 0).await;
    assert_eq!(proxy.upstream.connections.load(Ordering::SeqCst), 0);
}
