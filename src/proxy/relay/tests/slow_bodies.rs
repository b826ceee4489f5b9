//! Request bodies that arrive slowly.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failures::{raw_upstream, read_head, until};
use super::support::TestProxy;
use crate::gateway::outcome::Ending;
use crate::gateway::reason::Reason;
use crate::proxy::settings::MinRate;

const GRACE: Duration = Duration::from_millis(100);

fn min_rate() -> MinRate {
    MinRate {
        bytes_per_second: 1_000_000,
        grace: GRACE,
    }
}

#[tokio::test]
async fn a_body_below_the_minimum_rate_is_408() {
    let mut proxy = TestProxy::with(|o| o.limits.min_body_rate = min_rate()).await;
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
        let head = format!("POST /api/x HTTP/1.1\r\nHost: any\r\n{framing}\r\n\r\n1\r\na\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        tcp.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 408"), "{response}");
        assert!(response.contains("x-hawkgate-error: body_timeout"));
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.rejection, Some(Reason::BodyTimeout));
        assert_eq!(outcome.ending, Ending::Rejected);
        assert!(outcome.cause.unwrap().contains("limits.min_body_rate"));
        until(|| proxy.in_flight.requests() == 0).await;
        assert_eq!(proxy.budget.used(), 0);
    }
}

#[tokio::test]
async fn an_http2_body_below_the_minimum_rate_is_408_after_the_body_timeout() {
    let mut proxy = TestProxy::with(|o| {
        o.limits.min_body_rate = min_rate();
        o.limits.body_timeout = 3 * GRACE;
    })
    .await;
    let tcp = TcpStream::connect(proxy.h2c).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post("http://any/api/x").body(()).unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"a"), false).unwrap();
    assert_eq!(response.await.unwrap().status(), 408);
    assert_eq!(proxy.outcome().await.rejection, Some(Reason::BodyTimeout));
}

#[tokio::test]
async fn a_caller_waiting_for_a_100_continue_is_not_slow() {
    let upstream = raw_upstream(|_, mut tcp| async move {
        read_head(&mut tcp).await;
        // Longer than the grace period: the caller may not send yet.
        assert!(timeout(4 * GRACE, tcp.read_u8()).await.is_err());
        tcp.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .unwrap();
        let mut body = [0; 4];
        tcp.read_exact(&mut body).await.unwrap();
        tcp.write_all(super::failures::OK).await.unwrap();
    })
    .await;
    let proxy = TestProxy::with(|o| {
        o.limits.min_body_rate = min_rate();
        o.addresses = Some(vec![upstream]);
    })
    .await;
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    let head =
        "POST /api/x HTTP/1.1\r\nHost: any\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    tcp.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 100"));
    tcp.write_all(b"body").await.unwrap();
    assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_may_pause_once_its_response_has_begun() {
    let upstream = raw_upstream(|_, mut tcp| async move {
        read_head(&mut tcp).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        tcp.write_all(head).await.unwrap();
        let mut body = [0; 4];
        tcp.read_exact(&mut body).await.unwrap();
        tcp.write_all(&body).await.unwrap();
    })
    .await;
    let proxy = TestProxy::with(|o| {
        o.limits.min_body_rate = min_rate();
        o.addresses = Some(vec![upstream]);
    })
    .await;
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    let head = "POST /api/x HTTP/1.1\r\nHost: any\r\nContent-Length: 4\r\n\r\n";
    tcp.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 200"));
    let idle = timeout(4 * GRACE, tcp.read_u8()).await;
    assert!(idle.is_err(), "{idle:?}");
    tcp.write_all(b"body").await.unwrap();
    let mut echo = [0; 4];
    tcp.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"body");
}

#[tokio::test]
async fn an_upstream_that_does_not_take_the_body_is_not_held_against_the_caller() {
    const BODY: usize = 16 << 20;
    let upstream = raw_upstream(|_, mut tcp| async move {
        // The buffers on the way fill up, and the caller has to wait.
        let unread = timeout(4 * GRACE, std::future::pending::<()>()).await;
        assert!(unread.is_err());
        let mut left = BODY;
        let mut piece = vec![0; 1 << 20];
        while left > 0 {
            left = left.saturating_sub(tcp.read(&mut piece).await.unwrap());
        }
        tcp.write_all(super::failures::OK).await.unwrap();
    })
    .await;
    let proxy = TestProxy::with(|o| {
        o.limits.min_body_rate = min_rate();
        o.addresses = Some(vec![upstream]);
    })
    .await;
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    let head = format!("POST /api/x HTTP/1.1\r\nHost: any\r\nContent-Length: {BODY}\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp.write_all(&vec![b'x'; BODY]).await.unwrap();
    assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 200"));
}
