//! Callers that do not read their responses.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::failures::until;
use super::support::TestProxy;
use crate::gateway::outcome::Ending;

type Streams = Vec<h2::client::ResponseFuture>;

/// An HTTP/2 connection with requests whose responses have no window.
async fn zero_window(proxy: &TestProxy, streams: usize) -> (Streams, JoinHandle<()>) {
    let tcp = TcpStream::connect(proxy.h2c).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, Bytes>(tcp)
        .await
        .unwrap();
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut client = client.ready().await.unwrap();
    let request = || http::Request::get("http://any/api/x").body(()).unwrap();
    let mut sent = Vec::new();
    for _ in 0..streams {
        client = client.ready().await.unwrap();
        sent.push(client.send_request(request(), true).unwrap().0);
    }
    (sent, driver)
}

async fn proxy_with_large_responses(body_timeout: Duration) -> TestProxy {
    let proxy = TestProxy::with(|o| o.limits.body_timeout = body_timeout).await;
    *proxy.upstream.respond_with.lock().unwrap() = Some(Box::new(|_| {
        Response::builder()
            .body(Full::from(vec![b'x'; 32 << 20]))
            .ok()
    }));
    proxy
}

fn in_flight(proxy: &TestProxy) -> usize {
    proxy.in_flight.requests()
}

#[tokio::test]
async fn closing_the_connection_frees_stalled_streams_at_once() {
    let proxy = proxy_with_large_responses(Duration::from_mins(5)).await;
    let (streams, driver) = zero_window(&proxy, 50).await;
    until(|| in_flight(&proxy) == 50).await;
    let mut responses = Vec::new();
    for stream in streams {
        responses.push(stream.await.unwrap());
    }
    driver.abort();
    let _ = driver.await;
    until(|| in_flight(&proxy) == 0).await;
}

#[tokio::test]
async fn a_reset_frees_a_stalled_stream_at_once() {
    let proxy = proxy_with_large_responses(Duration::from_mins(5)).await;
    let (streams, _driver) = zero_window(&proxy, 10).await;
    let mut responses = Vec::new();
    for stream in streams {
        responses.push(stream.await.unwrap());
    }
    assert_eq!(in_flight(&proxy), 10);
    drop(responses.split_off(4));
    until(|| in_flight(&proxy) == 4).await;
    drop(responses);
    until(|| in_flight(&proxy) == 0).await;
}

#[tokio::test]
async fn stalled_streams_end_at_the_body_timeout() {
    let mut proxy = proxy_with_large_responses(Duration::from_millis(200)).await;
    let (streams, _driver) = zero_window(&proxy, 10).await;
    let mut responses = Vec::new();
    for stream in streams {
        responses.push(stream.await.unwrap());
    }
    for _ in 0..10 {
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.ending, Ending::CallerGone);
    }
    until(|| in_flight(&proxy) == 0).await;
}

#[tokio::test]
async fn an_http1_caller_that_does_not_read_ends_at_the_body_timeout() {
    for method in ["GET", "POST"] {
        let mut proxy = proxy_with_large_responses(Duration::from_millis(200)).await;
        let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
        let head = format!("{method} /api/x HTTP/1.1\r\nHost: any\r\nContent-Length: 0\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.ending, Ending::CallerGone, "{method}");
        until(|| in_flight(&proxy) == 0).await;
    }
}
