//! Responses of upstreams: malformed ones, framing, and connection reuse.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::client::TestRequest;
use super::failures::{OK, read_head, until};
use super::support::TestProxy;
use crate::gateway::outcome::Ending;

/// Sends `requests` and reads until the proxy closes.
async fn exchange(proxy: &TestProxy, requests: &[u8]) -> String {
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(requests).await.unwrap();
    let mut all = String::new();
    tcp.read_to_string(&mut all).await.unwrap();
    all
}

/// The second request closes the connection.
const TWICE: &[u8] = b"GET /api/a HTTP/1.1\r\nHost: any\r\n\r\nGET /api/b HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n";

async fn start_with_response(answer: &'static [u8]) -> TestProxy {
    TestProxy::with_raw_upstream(move |_, mut tcp| async move {
        read_head(&mut tcp).await;
        tcp.write_all(answer).await.unwrap();
    })
    .await
}

/// A proxy for an upstream that sends one answer on each connection, and keeps it open. The answer
/// depends on the number of the connection, which is reported.
async fn start_with_answers(
    answer: impl Fn(usize) -> String + Clone + Send + 'static,
) -> (TestProxy, mpsc::UnboundedReceiver<usize>) {
    let (tx, received) = mpsc::unbounded_channel();
    let proxy = TestProxy::with_raw_upstream(move |number, mut tcp| {
        let (tx, answer) = (tx.clone(), answer.clone());
        async move {
            read_head(&mut tcp).await;
            tx.send(number).unwrap();
            tcp.write_all(answer(number).as_bytes()).await.unwrap();
            let _ = tcp.read(&mut [0]).await;
        }
    })
    .await;
    (proxy, received)
}

#[tokio::test]
async fn ambiguous_or_malformed_responses_are_502() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX",
        b"\x16\x03\x01",
        b"",
    ] {
        let mut proxy = start_with_response(answer).await;
        let mut client = proxy.connect(false).await;
        let response = client.send(&TestRequest::get("/api/x")).await;
        let shown = String::from_utf8_lossy(answer);
        assert_eq!(response.status, 502, "{shown}");
        assert_eq!(response.headers["x-hawkgate-error"], "upstream_failed", "{shown}");
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.ending, Ending::UpstreamFailed, "{shown}");
    }
}

#[tokio::test]
async fn surplus_bytes_after_a_response_never_answer_another_request() {
    // The connection is kept open, so that only the surplus bytes prevent reuse.
    let (proxy, mut received) = start_with_answers(|number| {
        let own = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
        own + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    })
    .await;
    let mut client = proxy.connect(false).await;
    for number in 0..3 {
        let response = client.send(&TestRequest::get("/api/x")).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.body, number.to_string());
        assert_eq!(
            received.recv().await,
            Some(number),
            "a connection of its own"
        );
    }
}

#[tokio::test]
async fn content_length_with_chunked_is_read_as_chunked_and_not_reused() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (proxy, mut received) = start_with_answers(move |_| both.to_owned()).await;
    for number in 0..2 {
        let all = exchange(&proxy, TWICE).await;
        assert!(!all.to_lowercase().contains("content-length: 40"), "{all}");
        assert!(
            all.contains("2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{all}"
        );
        // No connection is used for a second request.
        assert_eq!(received.recv().await, Some(number * 2));
        assert_eq!(received.recv().await, Some(number * 2 + 1));
    }
}

#[tokio::test]
async fn a_close_delimited_response_is_sent_chunked() {
    let mut proxy = start_with_response(b"HTTP/1.0 200 OK\r\nX-Old: yes\r\n\r\nhello").await;
    let mut client = proxy.connect(false).await;
    for _ in 0..2 {
        let response = client.send(&TestRequest::get("/api/x")).await;
        assert_eq!((response.status, response.body.as_str()), (200, "hello"));
        assert_eq!(response.headers["transfer-encoding"], "chunked");
        assert_eq!(response.headers["x-old"], "yes");
        assert!(
            response.headers.contains_key("date"),
            "added where it is missing"
        );
        let outcome = proxy.outcome().await;
        assert_eq!((outcome.ending, outcome.sent), (Ending::Forwarded, 5));
    }
}

#[tokio::test]
async fn a_truncated_response_is_truncated_for_the_caller() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut proxy = start_with_response(answer).await;
        let all = exchange(&proxy, b"GET /api/x HTTP/1.1\r\nHost: any\r\n\r\n").await;
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
        assert!(!all.ends_with("0\r\n\r\n") && !all.contains("502"), "{all}");
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.ending, Ending::UpstreamFailed);
        assert_eq!((outcome.code, outcome.rejection), (200, None));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut proxy = TestProxy::start().await;
    let three: String = ["a", "b", "c"]
        .map(|name| format!("GET /api/{name} HTTP/1.1\r\nHost: any\r\n\r\n"))
        .concat();
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(three.as_bytes()).await.unwrap();
    for name in ["a", "b", "c"] {
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.path, format!("/api/{name}"));
        assert_eq!((outcome.code, outcome.ending), (200, Ending::Forwarded));
    }
}

#[tokio::test]
async fn an_upstream_connection_is_reused() {
    let (tx, mut received) = mpsc::unbounded_channel();
    let proxy = TestProxy::with_raw_upstream(move |number, mut tcp| {
        let tx = tx.clone();
        async move {
            loop {
                let head = read_head(&mut tcp).await;
                if head.is_empty() {
                    return;
                }
                tx.send((number, head)).unwrap();
                tcp.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let mut client = proxy.connect(false).await;
    for _ in 0..3 {
        assert_eq!(client.send(&TestRequest::get("/api/x")).await.status, 200);
        let (number, head) = received.recv().await.unwrap();
        assert_eq!(number, 0);
        assert_eq!(head.matches("Authorization: Hawk ").count(), 1, "{head}");
        assert!(!head.contains("Connection"), "{head}");
    }
}

#[tokio::test]
async fn informational_responses_are_sanitized_and_forwarded() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Hawkgate-Error: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut proxy = start_with_response(hints).await;
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(b"GET /api/x HTTP/1.1\r\nHost: any\r\n\r\n")
        .await
        .unwrap();
    let mut all = String::new();
    while !all.ends_with("\r\n\r\nok") {
        let mut some = [0; 512];
        let read = tcp.read(&mut some).await.unwrap();
        assert!(read > 0, "{all}");
        all.push_str(std::str::from_utf8(&some[..read]).unwrap());
    }
    assert!(
        all.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        "{all}"
    );
    assert!(all.contains("HTTP/1.1 200 OK\r\n"), "{all}");
    assert_eq!(proxy.outcome().await.code, 200);
}

#[tokio::test]
async fn during_the_drain_delay_responses_say_connection_close() {
    let proxy = TestProxy::start().await;
    let get = b"GET /api/x HTTP/1.1\r\nHost: any\r\n\r\n";
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    let long = Duration::from_hours(1);
    let requests = async {
        tcp.write_all(get).await.unwrap();
        let mut all = String::new();
        tcp.read_to_string(&mut all).await.unwrap();
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
        assert!(
            all.to_lowercase().contains("\r\nconnection: close\r\n"),
            "{all}"
        );
        let refused = b"GET /api/%73 HTTP/1.1\r\nHost: any\r\n\r\n";
        let all = exchange(&proxy, refused).await;
        assert!(
            all.to_lowercase().contains("\r\nconnection: close\r\n"),
            "{all}"
        );
        proxy.handle.abort();
    };
    tokio::join!(proxy.handle.drain(long, long), requests);
}

#[tokio::test]
async fn a_caller_leaving_a_long_poll_closes_the_upstream_connection() {
    let (tx, mut ended) = mpsc::unbounded_channel();
    let (started_tx, mut started) = mpsc::unbounded_channel();
    let mut proxy = TestProxy::with_raw_upstream(move |_, mut tcp| {
        let (tx, started_tx) = (tx.clone(), started_tx.clone());
        async move {
            read_head(&mut tcp).await;
            started_tx.send(()).unwrap();
            tx.send(tcp.read(&mut [0]).await.unwrap_or(0)).unwrap();
        }
    })
    .await;
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(b"GET /api/x HTTP/1.1\r\nHost: any\r\n\r\n")
        .await
        .unwrap();
    started.recv().await.unwrap();
    drop(tcp);
    assert_eq!(proxy.outcome().await.ending, Ending::CallerGone);
    assert_eq!(
        ended.recv().await,
        Some(0),
        "the upstream connection is closed"
    );
    // A request is recorded shortly before its guard is dropped.
    until(|| proxy.in_flight.requests() == 0).await;
}
