//! Misbehaving clients and upstreams.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::client::{TestClient, TestRequest};
use super::replay_matrix::body;
use super::support::TestProxy;
use crate::gateway::outcome::Ending;
use crate::gateway::reason::Reason;

/// Starts a raw TCP upstream, which calls `serve` with each connection.
pub(super) async fn raw_upstream<F, T>(serve: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> T + std::marker::Send + 'static,
    T: Future<Output = ()> + std::marker::Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((tcp, _)) = listener.accept().await else {
                return;
            };
            tokio::spawn(serve(number, tcp));
        }
    });
    address
}

/// Reads one head; body bytes that arrive with it are dropped.
pub(super) async fn read_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if tcp.read_buf(&mut head).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An address that nothing listens on.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn an_unreachable_upstream_is_502() {
    let address = closed_port().await;
    let mut proxy = TestProxy::with(|o| o.addresses = Some(vec![address])).await;
    let response = proxy
        .connect(false)
        .await
        .send(&TestRequest::post(body(10)))
        .await;
    assert_eq!(response.status, 502);
    assert_eq!(response.headers["x-hawkgate-error"], "upstream_unreachable");
    assert!(response.headers.contains_key("retry-after"));
    let outcome = proxy.outcome().await;
    assert_eq!(outcome.ending, Ending::UpstreamFailed);
    assert_eq!(outcome.rejection, Some(Reason::UpstreamUnreachable));
    assert!(outcome.upstream.is_some());
}

#[tokio::test]
async fn an_unresolved_upstream_is_502() {
    let mut proxy = TestProxy::with(|o| o.addresses = Some(vec![])).await;
    let response = proxy
        .connect(true)
        .await
        .send(&TestRequest::get("/api/x"))
        .await;
    assert_eq!(response.status, 502);
    let outcome = proxy.outcome().await;
    assert!(outcome.cause.unwrap().contains("tc.example.com"));
}

#[tokio::test]
async fn the_next_address_is_tried_whatever_the_method() {
    let good = raw_upstream(|_, mut tcp| async move {
        loop {
            if read_head(&mut tcp).await.is_empty() {
                return;
            }
            tcp.write_all(OK).await.unwrap();
        }
    })
    .await;
    let bad = [closed_port().await, closed_port().await];
    let proxy = TestProxy::with(|o| o.addresses = Some(vec![bad[0], bad[1], good])).await;
    let mut client = proxy.connect(false).await;
    for _ in 0..6 {
        assert_eq!(client.send(&TestRequest::post(body(10))).await.status, 200);
    }
}

#[tokio::test]
async fn a_silent_upstream_is_504() {
    let silent = raw_upstream(|_, tcp| async move {
        let _held = tcp;
        std::future::pending::<()>().await;
    })
    .await;
    let mut proxy = TestProxy::with(|o| {
        o.addresses = Some(vec![silent]);
        o.read_timeout = Duration::from_millis(50);
    })
    .await;
    for http2 in [false, true] {
        let response = proxy
            .connect(http2)
            .await
            .send(&TestRequest::get("/api/x"))
            .await;
        assert_eq!(response.status, 504);
        assert_eq!(response.headers["x-hawkgate-error"], "upstream_timeout");
        assert_eq!(proxy.outcome().await.ending, Ending::UpstreamFailed);
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http_is_502_and_not_quoted() {
    let mut proxy = TestProxy::with_raw_upstream(|_, mut tcp| async move {
        read_head(&mut tcp).await;
        let _ = tcp.write_all(b"SECRET nonsense\r\n\r\n").await;
    })
    .await;
    let response = proxy
        .connect(false)
        .await
        .send(&TestRequest::get("/api/x"))
        .await;
    assert_eq!(response.status, 502);
    assert!(!format!("{response:?}").contains("SECRET"));
    let outcome = proxy.outcome().await;
    assert_eq!(outcome.rejection, Some(Reason::UpstreamFailed));
    assert!(!format!("{outcome:?}").contains("SECRET"));
}

#[tokio::test]
async fn a_truncated_response_is_not_completed() {
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut proxy = TestProxy::with_raw_upstream(move |_, mut tcp| async move {
            read_head(&mut tcp).await;
            let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n");
            tcp.write_all(head.as_bytes()).await.unwrap();
        })
        .await;
        let TestClient::H1(mut read, mut write) = proxy.connect(false).await else {
            unreachable!()
        };
        write
            .write_all(b"GET /api/x HTTP/1.1\r\nHost: any\r\n\r\n")
            .await
            .unwrap();
        let mut all = String::new();
        // A reset indicates the truncation as well.
        let _ = read.read_to_string(&mut all).await;
        assert!(all.starts_with("HTTP/1.1 200"), "{all}");
        assert!(!all.ends_with("0\r\n\r\n"), "{all}");
        assert!(!all.contains("502"), "{all}");
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.ending, Ending::UpstreamFailed);
        assert_eq!(outcome.rejection, None);
        assert_eq!(outcome.code, 200);
    }
}

#[tokio::test]
async fn a_get_on_a_stale_pooled_connection_is_retried_and_a_post_is_not() {
    let (tx, mut heads) = mpsc::unbounded_channel();
    // Each connection responds once, and closes on the second request.
    let proxy = TestProxy::with_raw_upstream(move |_, mut tcp| {
        let tx = tx.clone();
        async move {
            read_head(&mut tcp).await;
            tcp.write_all(OK).await.unwrap();
            let head = read_head(&mut tcp).await;
            tx.send(head).unwrap();
        }
    })
    .await;
    let mut client = proxy.connect(false).await;
    let get = TestRequest::get("/api/x");
    assert_eq!(client.send(&get).await.status, 200);
    assert_eq!(client.send(&get).await.status, 200);
    assert!(heads.recv().await.unwrap().starts_with("GET"));
    // Uses the connection that the second GET was sent on.
    let response = client.send(&TestRequest::post(body(10))).await;
    assert_eq!(response.status, 502);
    assert_eq!(response.headers["x-hawkgate-error"], "upstream_failed");
    assert!(heads.recv().await.unwrap().starts_with("POST"));
}

#[tokio::test]
async fn an_early_upstream_response_reaches_an_uploading_caller() {
    let early = raw_upstream(|_, mut tcp| async move {
        read_head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 400 Bad\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhmpf")
            .await
            .unwrap();
        tcp.shutdown().await.unwrap();
        let mut sink = vec![0; 65536];
        while tcp.read(&mut sink).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    for http2 in [false, true] {
        let mut proxy = TestProxy::with(|o| o.addresses = Some(vec![early])).await;
        let mut client = proxy.connect(http2).await;
        let response = client.send(&TestRequest::post(body(3_000_000))).await;
        assert_eq!((response.status, response.body.as_str()), (400, "hmpf"));
        assert_eq!(proxy.outcome().await.code, 400);
        // The connection can be reused.
        assert_eq!(client.send(&TestRequest::get("/api/x")).await.status, 400);
    }
}

#[tokio::test]
async fn a_disconnecting_caller_releases_the_replay_budget() {
    for http2 in [false, true] {
        let mut proxy = TestProxy::start().await;
        let uploading = stalled_upload(&proxy, http2).await;
        // Wait until part of the body has been recorded.
        until(|| proxy.budget.used() > 0).await;
        drop(uploading);
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.ending, Ending::CallerGone);
        assert_eq!(outcome.code, 0);
        assert_eq!(proxy.budget.used(), 0);
        until(|| proxy.in_flight.requests() == 0).await;
    }
}

pub(super) async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    in_time.expect("the condition was not met in time");
}

#[tokio::test]
async fn a_body_that_stalls_is_408() {
    for http2 in [false, true] {
        let mut proxy =
            TestProxy::with(|o| o.limits.body_timeout = Duration::from_millis(100)).await;
        let _uploading = stalled_upload(&proxy, http2).await;
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.rejection, Some(Reason::BodyTimeout), "h2 {http2}");
        assert_eq!(outcome.code, 408);
        assert_eq!(proxy.budget.used(), 0);
    }
}

/// Keeps an unfinished upload open.
enum StalledUpload {
    H1 {
        _caller: TestClient,
    },
    H2 {
        _body: h2::SendStream<bytes::Bytes>,
        driver: tokio::task::JoinHandle<()>,
    },
}

impl Drop for StalledUpload {
    fn drop(&mut self) {
        if let Self::H2 { driver, .. } = self {
            driver.abort();
        }
    }
}

async fn stalled_upload(proxy: &TestProxy, http2: bool) -> StalledUpload {
    if !http2 {
        let mut client = proxy.connect(false).await;
        let TestClient::H1(_, write) = &mut client else {
            unreachable!()
        };
        let head = "POST /api/x HTTP/1.1\r\nHost: any\r\nContent-Length: 100000\r\n\r\n";
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&body(20_000)).await.unwrap();
        return StalledUpload::H1 { _caller: client };
    }
    let tcp = TcpStream::connect(proxy.h2c).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = http::Request::post("http://any/api/x").body(()).unwrap();
    let (response, mut sending) = sender.send_request(request, false).unwrap();
    sending.send_data(body(20_000), false).unwrap();
    // Dropping the response future would cancel the request.
    tokio::spawn(response);
    StalledUpload::H2 {
        _body: sending,
        driver,
    }
}
