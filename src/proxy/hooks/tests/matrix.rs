//! The replay matrix: whatever the size, the framing, the moment of the 401 and the
//! protocols, the upstream gets the same bytes again and the caller notices nothing.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::caller::{Caller, Send};
use super::stage::Stage;
use super::upstream::{When, expected};
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

/// Bytes in which a lost, doubled or misplaced piece shows.
pub(super) fn body(size: usize) -> Bytes {
    (0u64..)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes())
        .take(size)
        .collect()
}

async fn healed(stage: &mut Stage, caller: &mut Caller, send: &Send, what: &str) {
    stage.revoke();
    stage.upstream.take_seen();
    let got = caller.send(send).await;
    let body = send.body.as_deref().unwrap_or_default();
    assert_eq!(got.status, 200, "{what}: {}", got.body);
    assert_eq!(got.body, expected(body), "{what}");
    assert!(got.continues <= 1, "{what}: {} times 100", got.continues);
    let seen = stage.upstream.take_seen();
    let statuses: Vec<u16> = seen.iter().map(|s| s.status).collect();
    assert_eq!(statuses, [401, 200], "{what}");
    let outcome = stage.outcome().await;
    assert_eq!(outcome.ending, Ending::Healed, "{what}");
    assert_eq!(outcome.unauthorized.len(), 1, "{what}");
    assert_eq!(outcome.unauthorized[0].action, UnauthorizedAction::Replayed);
    assert_eq!(
        outcome.unauthorized[0].reason,
        UnauthorizedReason::FreshCredentials
    );
    assert_eq!(stage.budget.used(), 0, "{what}: memory kept");
    // The same connection serves another request.
    let got = caller.send(&Send::get("/api/after")).await;
    assert_eq!(got.status, 200, "{what}: connection lost");
    stage.outcome().await;
}

async fn matrix(caller_http2: bool, upstream_http2: bool) {
    let mut stage = Stage::with(|o| o.http2 = upstream_http2).await;
    let mut caller = stage.connect(caller_http2).await;
    for when in [When::Before, When::Amid, When::After] {
        *stage.upstream.when.lock().unwrap() = when;
        let get = Send::get("/api/get");
        healed(&mut stage, &mut caller, &get, &format!("GET {when:?}")).await;
        for size in SIZES {
            let body = body(size);
            for (chunked, expect) in [(false, false), (true, false), (false, true), (true, true)] {
                let what = format!("{size} {when:?} chunked {chunked} expect {expect}");
                let send = Send {
                    chunked,
                    expect,
                    ..Send::post(body.clone())
                };
                let healing = healed(&mut stage, &mut caller, &send, &what);
                let limit = std::time::Duration::from_mins(1);
                let in_time = tokio::time::timeout(limit, healing).await;
                assert!(in_time.is_ok(), "{what}: hangs");
            }
        }
    }
    if upstream_http2 {
        // A 401 costs no connection there.
        assert!(stage.upstream.connections.load(Ordering::SeqCst) <= 2);
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
