//! Tests of the test client and the fake upstream, against each other.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::*;
use crate::support::client::{Body, Client, Http2Client, Request};

const BIG: usize = 300 * 1024;

fn body() -> Bytes {
    (0..BIG)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect::<Vec<_>>()
        .into()
}

/// 401 at `when` the first time, 200 afterwards.
fn once(when: ReplyAt, rest: AfterReply) -> impl Fn(&ReceivedRequest) -> Reply {
    move |received| match received.repeat {
        0 => Reply::unauthorized("Unauthorized: Bad mac")
            .when(when)
            .rest(rest),
        _ => Reply::ok(),
    }
}

#[tokio::test]
async fn http1_replies_before_during_and_after_the_body() {
    let moments = [
        ReplyAt::BeforeBody,
        ReplyAt::AfterBytes(1000),
        ReplyAt::AfterBody,
    ];
    for when in moments {
        let upstream = FakeUpstream::http1(once(when, AfterReply::Drain)).await;
        let mut client = Client::connect(&upstream.address()).await;
        for request in [
            Request::post("/a", body()),
            Request::post("/a", "").body(Body::Chunked(body(), 7000)),
        ] {
            let response = client.request(&request).await.unwrap();
            assert!(response.sent_all, "{when:?}");
        }
        let attempts = upstream
            .until("both bodies", |all| {
                all.iter().filter(|a| a.sha256.is_some()).count() == 2
            })
            .await;
        for (attempt, status) in attempts.iter().zip([401, 200]) {
            assert_eq!(attempt.status, status);
            assert_eq!(attempt.body_bytes, BIG as u64);
            assert_eq!(attempt.sha256.as_deref(), Some(sha256(&body()).as_str()));
        }
        assert_eq!(upstream.connections(), 1);
    }
}

#[tokio::test]
async fn the_connection_closes_after_an_early_reply_when_configured() {
    let upstream = FakeUpstream::http1(once(ReplyAt::BeforeBody, AfterReply::Close)).await;
    let mut client = Client::connect(&upstream.address()).await;
    let response = client.request(&Request::post("/a", "short")).await.unwrap();
    assert_eq!(response.status, 401);
    assert_eq!(response.header("connection"), Some("close"));
    let attempts = upstream.until("the end", |all| all[0].broken).await;
    assert_eq!(attempts[0].sha256, None);
}

#[tokio::test]
async fn http1_sends_100_continue() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let mut client = Client::connect(&upstream.address()).await;
    let request = Request::post("/a", "body").expect();
    let response = client.request(&request).await.unwrap();
    assert_eq!((response.status, response.interim), (200, vec![100]));
}

#[tokio::test]
async fn http2_replies_before_during_and_after_the_body() {
    let moments = [
        ReplyAt::BeforeBody,
        ReplyAt::AfterBytes(1000),
        ReplyAt::AfterBody,
    ];
    for when in moments {
        for rest in [AfterReply::Drain, AfterReply::Close] {
            let upstream = FakeUpstream::start(Protocol::Http2, once(when, rest)).await;
            let client = Http2Client::connect(&upstream.address()).await;
            let request = Request::post("/a", body());
            assert_eq!(client.request(&request).await.unwrap().status, 401);
            assert_eq!(client.request(&request).await.unwrap().status, 200);
            let attempts = upstream
                .until("the second body", |all| all[1].sha256.is_some())
                .await;
            assert_eq!(
                attempts[1].sha256.as_deref(),
                Some(sha256(&body()).as_str())
            );
            assert_eq!(attempts[1].request.protocol, "HTTP/2");
        }
    }
}

#[tokio::test]
async fn tls_negotiates_either_protocol() {
    let ca = TestCa::new();
    let identity = ca.issue(&["upstream.test"]);
    let protocol = Protocol::tls(&identity, &["h2", "http/1.1"]);
    let upstream = FakeUpstream::start(protocol, |_| Reply::ok()).await;
    let address = upstream.address();
    let client = Http2Client::connect_tls(&address, &ca, "upstream.test").await;
    assert_eq!(
        client.request(&Request::get("/2")).await.unwrap().status,
        200
    );
    let client = Client::connect_tls(&address, &ca, "upstream.test", None).await;
    let response = client.unwrap().request(&Request::get("/1")).await.unwrap();
    assert_eq!(response.status, 200);
    let stranger = TestCa::new();
    let refused = Client::connect_tls(&address, &stranger, "upstream.test", None).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn an_upstream_can_go_down_and_come_back() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    upstream.down().await;
    assert!(
        crate::support::client::connect(&upstream.address())
            .await
            .is_err()
    );
    upstream.up().await;
    let mut client = Client::connect(&upstream.address()).await;
    assert_eq!(
        client.request(&Request::get("/")).await.unwrap().status,
        200
    );
}

#[tokio::test]
async fn replies_can_be_streamed_and_held_back() {
    let (pieces, receiver) = mpsc::channel(1);
    let receiver = Mutex::new(Some(receiver));
    let latch = Latch::closed();
    let held = latch.clone();
    let upstream = FakeUpstream::http1(move |received| match received.path() {
        "/stream" => Reply::streamed(receiver.lock().unwrap().take().unwrap()),
        _ => Reply::ok().after(&held),
    })
    .await;
    let mut client = Client::connect(&upstream.address()).await;
    client.send(&Request::get("/stream").head()).await.unwrap();
    assert!(client.next_head().await.unwrap().start.contains("200"));
    pieces.send(Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(client.raw().await.unwrap().unwrap(), "3\r\none\r\n");
    drop(pieces);
    assert_eq!(client.raw().await.unwrap().unwrap(), "0\r\n\r\n");

    client.send(&Request::get("/held").head()).await.unwrap();
    upstream.until("it waits", |all| all.len() == 2).await;
    assert_eq!(upstream.attempts()[1].status, 0);
    latch.open();
    assert_eq!(client.response("GET").await.unwrap().status, 200);
}
