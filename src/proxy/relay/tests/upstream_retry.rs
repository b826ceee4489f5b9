//! Requests that are sent again because the upstream failed. Time is paused, so waits take none.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::client::TestRequest;
use super::failures::{OK, raw_upstream, read_head};
use super::replay_matrix::body;
use super::support::TestProxy;
use crate::gateway::outcome::Ending;
use crate::gateway::upstream_retry::{RetryPolicy, RetryReason};

fn policy() -> RetryPolicy {
    RetryPolicy {
        max_elapsed: Duration::from_mins(15),
        statuses: vec![502, 503, 504],
    }
}

/// A proxy with retries, whose upstream calls `serve` with each connection's number and head.
async fn proxy<F, T>(serve: F) -> (TestProxy, mpsc::UnboundedReceiver<String>)
where
    F: Fn(usize, TcpStream) -> T + Clone + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let (heads, received) = mpsc::unbounded_channel();
    let address = raw_upstream(move |number, mut tcp| {
        let (heads, serve) = (heads.clone(), serve.clone());
        async move {
            let head = read_head(&mut tcp).await;
            let _ = heads.send(head);
            serve(number, tcp).await;
        }
    })
    .await;
    let proxy = TestProxy::with(|o| {
        o.addresses = Some(vec![address]);
        o.retry = Some(policy());
    });
    (proxy.await, received)
}

async fn answer(mut tcp: TcpStream, answer: &[u8]) {
    // The caller of this upstream may be gone.
    let _ = tcp.write_all(answer).await;
    let _ = tcp.shutdown().await;
}

const DOWN: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndown";

fn authorization(head: &str) -> &str {
    let line = head
        .lines()
        .find(|line| line.starts_with("authorization:") || line.starts_with("Authorization:"));
    line.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_request_is_signed_and_sent_again_until_the_upstream_recovers() {
    for http2 in [false, true] {
        for method in ["GET", "PUT", "DELETE"] {
            let (mut proxy, mut heads) = proxy(|number, tcp| async move {
                match number {
                    0 => answer(tcp, DOWN).await,
                    // Closed without an answer.
                    1 => drop(tcp),
                    _ => answer(tcp, OK).await,
                }
            })
            .await;
            let request = TestRequest {
                method,
                target: "/api/x",
                body: (method == "PUT").then(|| body(10)),
                ..TestRequest::default()
            };
            let mut client = proxy.connect(http2).await;
            let response = client.send(&request).await;
            assert_eq!((response.status, &*response.body), (200, "ok"), "{method}");
            let outcome = proxy.outcome().await;
            let counts: Vec<_> = outcome.retries.iter().filter(|(_, n)| *n > 0).collect();
            assert_eq!(
                counts,
                [(RetryReason::Connection, 1), (RetryReason::Status, 1)]
            );
            assert_eq!(outcome.ending, Ending::Forwarded);
            let mut sent = Vec::new();
            while let Ok(head) = heads.try_recv() {
                sent.push(authorization(&head).to_owned());
            }
            assert_eq!(sent.len(), 3);
            assert!(
                sent[0] != sent[1] && sent[1] != sent[2],
                "each has a nonce of its own"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_had_an_effect_is_not_repeated() {
    let (mut proxy, mut heads) = proxy(|_, tcp| answer(tcp, DOWN)).await;
    let mut client = proxy.connect(false).await;
    let response = client.send(&TestRequest::post(body(10))).await;
    assert_eq!((response.status, &*response.body), (503, "down"));
    assert_eq!(proxy.outcome().await.retries.total(), 0);
    assert!(heads.try_recv().is_ok() && heads.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn any_request_waits_for_an_upstream_that_cannot_be_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut proxy = TestProxy::with(|o| {
        o.addresses = Some(vec![address]);
        o.retry = Some(policy());
    })
    .await;
    let mut client = proxy.connect(false).await;
    let response = client.send(&TestRequest::post(body(10))).await;
    // The manual clock stands still, so what ends it is the limit of retries of the route.
    assert_eq!(response.headers["x-hawkgate-error"], "upstream_unreachable");
    let retries = proxy.outcome().await.retries;
    assert_eq!(retries.iter().next(), Some((RetryReason::Connect, 200)));
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_is_passed_on_when_the_time_is_over() {
    let advance: Arc<std::sync::OnceLock<Arc<crate::clock::ManualClock>>> = Arc::default();
    let clock = Arc::clone(&advance);
    let (mut proxy, _heads) = proxy(move |_, tcp| {
        if let Some(clock) = clock.get() {
            clock.advance(Duration::from_mins(8));
        }
        answer(tcp, DOWN)
    })
    .await;
    let _ = advance.set(Arc::clone(&proxy.clock));
    let mut client = proxy.connect(false).await;
    let response = client.send(&TestRequest::get("/api/x")).await;
    assert_eq!((response.status, &*response.body), (503, "down"));
    assert_eq!(response.headers["retry-after"], "1");
    assert_eq!(proxy.outcome().await.retries.total(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_ends_the_wait() {
    let (mut proxy, mut heads) = proxy(|_, tcp| answer(tcp, DOWN)).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let request = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request).await.unwrap();
    heads.recv().await.unwrap();
    drop(client);
    assert_eq!(proxy.outcome().await.ending, Ending::CallerGone);
}

/// The end of the connection is behind the body, which no attempt has read.
#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_after_a_large_body_ends_the_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut proxy = TestProxy::with(|o| {
        o.addresses = Some(vec![address]);
        o.retry = Some(policy());
    })
    .await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let head = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\n\r\n";
    client.write_all(head).await.unwrap();
    client.write_all(&body(65536)).await.unwrap();
    drop(client);
    let outcome = proxy.outcome().await;
    assert_eq!(outcome.ending, Ending::CallerGone);
    assert!(outcome.retries.total() < 10, "{:?}", outcome.retries);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_wait_with_a_last_attempt() {
    let (mut proxy, mut heads) = proxy(|_, tcp| answer(tcp, DOWN)).await;
    let mut client = proxy.connect(false).await;
    let request = TestRequest::get("/api/x");
    let respond = client.send(&request);
    let drain = async {
        heads.recv().await.unwrap();
        // Until the answer was received, and well before the retry.
        let pause = std::future::pending::<()>();
        let _ = tokio::time::timeout(Duration::from_millis(100), pause).await;
        proxy
            .handle
            .drain(Duration::ZERO, Duration::from_mins(1))
            .await;
    };
    let (response, ()) = tokio::join!(respond, drain);
    assert_eq!((response.status, &*response.body), (503, "down"));
    assert_eq!(proxy.outcome().await.retries.total(), 1);
}
