//! The replay matrix: for every combination of body size, framing, time of the 401 and
//! protocols, the upstream receives the same bytes again and the client does not notice the 401.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::client::{TestClient, TestRequest};
use super::support::TestProxy;
use super::upstream::{RejectAt, expected};
use crate::gateway::outcome::{Ending, UnauthorizedAction, UnauthorizedReason};

const KIB: usize = 1024;
const SIZES: [usize; 7] = [
    KIB,
    60 * KIB,
    64 * KIB,
    65 * KIB,
    200 * KIB,
    5 * KIB * KIB,
    10 * KIB * KIB,
];

/// Returns bytes that would reveal a lost, repeated or misplaced piece.
pub(super) fn body(size: usize) -> Bytes {
    (0u64..)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes())
        .take(size)
        .collect()
}

async fn assert_replayed(
    proxy: &mut TestProxy,
    client: &mut TestClient,
    send: &TestRequest,
    what: &str,
) {
    proxy.revoke();
    proxy.upstream.take_received();
    let response = client.send(send).await;
    let body = send.body.as_deref().unwrap_or_default();
    assert_eq!(response.status, 200, "{what}: {}", response.body);
    assert_eq!(response.body, expected(body), "{what}");
    assert!(
        response.continues <= 1,
        "{what}: {} times 100",
        response.continues
    );
    let received = proxy.upstream.take_received();
    let statuses: Vec<u16> = received.iter().map(|s| s.status).collect();
    assert_eq!(statuses, [401, 200], "{what}");
    let outcome = proxy.outcome().await;
    assert_eq!(outcome.ending, Ending::Healed, "{what}");
    assert_eq!(outcome.unauthorized.len(), 1, "{what}");
    assert_eq!(outcome.unauthorized[0].action, UnauthorizedAction::Replayed);
    assert_eq!(
        outcome.unauthorized[0].reason,
        UnauthorizedReason::FreshCredentials
    );
    assert_eq!(proxy.budget.used(), 0, "{what}: replay memory not released");
    // The connection can be reused.
    let response = client.send(&TestRequest::get("/api/after")).await;
    assert_eq!(response.status, 200, "{what}: connection lost");
    proxy.outcome().await;
}

async fn matrix(caller_http2: bool, upstream_http2: bool) {
    let mut proxy = TestProxy::with(|o| o.http2 = upstream_http2).await;
    let mut client = proxy.connect(caller_http2).await;
    for when in [RejectAt::Start, RejectAt::Middle, RejectAt::End] {
        *proxy.upstream.reject_at.lock().unwrap() = when;
        let get = TestRequest::get("/api/get");
        assert_replayed(&mut proxy, &mut client, &get, &format!("GET {when:?}")).await;
        for size in SIZES {
            let body = body(size);
            for (chunked, expect) in [(false, false), (true, false), (false, true), (true, true)] {
                let what = format!("{size} {when:?} chunked {chunked} expect {expect}");
                let send = TestRequest {
                    chunked,
                    expect,
                    ..TestRequest::post(body.clone())
                };
                let replayed = assert_replayed(&mut proxy, &mut client, &send, &what);
                let limit = std::time::Duration::from_mins(1);
                let in_time = tokio::time::timeout(limit, replayed).await;
                assert!(in_time.is_ok(), "{what}: timed out");
            }
        }
    }
    if upstream_http2 {
        // An HTTP/2 connection survives a 401.
        assert!(proxy.upstream.connections.load(Ordering::SeqCst) <= 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_to_http1() {
    matrix(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_to_http2() {
    matrix(false, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_to_http1() {
    matrix(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_to_http2() {
    matrix(true, true).await;
}
