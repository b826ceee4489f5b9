//! Successful requests and responses, and replays.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use super::client::{TestClient, TestRequest};
use super::failures::until;
use super::replay_matrix::body;
use super::support::TestProxy;
use super::upstream::{RejectAt, expected};
use crate::credential::Lookup;
use crate::gateway::outcome::{Ending, UnauthorizedAction, UnauthorizedReason};
use crate::gateway::reason::Reason;

fn sent(target: &'static str, headers: &[(&'static str, &str)]) -> TestRequest {
    TestRequest {
        headers: headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
        ..TestRequest::get(target)
    }
}

#[tokio::test]
async fn targets_are_forwarded_and_signed_byte_for_byte() {
    for upstream in [false, true] {
        let proxy = TestProxy::with(|o| o.http2 = upstream).await;
        for client in [false, true] {
            let mut client = proxy.connect(client).await;
            for target in [
                "/api/a%2Fb/%41",
                "/api/x//y///z",
                "/api/x?",
                "/api/x?a=1&a=1&b=%20+%C3%A4",
                "/api/x?redirect=http://elsewhere/../y",
                "/api/;p=1,2/(3)!$&'*@:~",
            ] {
                let response = client.send(&TestRequest::get(target)).await;
                assert_eq!(response.status, 200, "{target}");
                assert_eq!(proxy.upstream.take_received()[0].target, target);
            }
        }
    }
}

#[tokio::test]
async fn every_method_is_signed() {
    let proxy = TestProxy::start().await;
    let mut client = proxy.connect(false).await;
    for method in ["GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS", "POST"] {
        let send = TestRequest {
            method,
            ..TestRequest::get("/api/x")
        };
        assert_eq!(client.send(&send).await.status, 200, "{method}");
        assert_eq!(proxy.upstream.take_received()[0].method, method);
    }
}

#[tokio::test]
async fn forwarding_and_credential_headers_of_the_caller_are_replaced() {
    for http2 in [false, true] {
        let proxy = TestProxy::start().await;
        let mut client = proxy.connect(http2).await;
        let send = sent(
            "/api/x",
            &[
                ("authorization", "Bearer callers-own-token"),
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-port", "junk"),
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-host", "evil.example"),
                ("x_forwarded_port", "1"),
                ("forwarded", "for=6.6.6.6"),
                ("x-real-ip", "6.6.6.6"),
                ("x-original-url", "/admin"),
                ("x-rewrite-url", "/admin"),
                ("x-http-method-override", "DELETE"),
                ("proxy-authorization", "Basic Zm9vOmJhcg=="),
                ("x-hawkgate-error", "spoofed"),
                ("x-taskcluster-trace-id", "keep-me"),
                ("x-request-id", "mine-1"),
                ("accept", "text/plain"),
            ],
        );
        assert_eq!(client.send(&send).await.status, 200);
        let received = proxy.upstream.take_received().remove(0);
        let all = format!("{:?}", received.headers);
        for gone in [
            "6.6.6.6", "junk", "gopher", "evil", "/admin", "DELETE", "spoofed",
        ] {
            assert!(!all.contains(gone), "{gone} was forwarded: {all}");
        }
        assert!(!all.contains("callers-own-token") && !all.contains("Zm9v"));
        let value = |name: &str| {
            received
                .headers
                .get(name)
                .map_or("", |v| v.to_str().unwrap())
        };
        assert_eq!(value("host"), "tc.example.com:8443");
        assert_eq!(value("x-forwarded-port"), "443");
        assert_eq!(value("x-forwarded-proto"), "http");
        assert_eq!(value("x-forwarded-for"), "127.0.0.1");
        assert_eq!(value("x-taskcluster-trace-id"), "keep-me");
        assert_eq!(value("x-request-id"), "mine-1");
        assert_eq!(value("accept"), "text/plain");
        assert_eq!(received.headers.get_all("authorization").iter().count(), 1);
        assert_eq!(received.headers.get_all("host").iter().count(), 1);
    }
}

#[tokio::test]
async fn a_bewit_is_not_signed() {
    let mut proxy = TestProxy::start().await;
    let mut client = proxy.connect(false).await;
    let response = client.send(&TestRequest::get("/api/x?bewit=abc&y=1")).await;
    // The test upstream does not support bewits.
    assert_eq!(response.status, 401);
    let received = proxy.upstream.take_received();
    assert_eq!(received.len(), 1);
    assert!(!received[0].headers.contains_key("authorization"));
    let outcome = proxy.outcome().await;
    assert_eq!(
        outcome.unauthorized[0].reason,
        UnauthorizedReason::NotSigned
    );
    assert_eq!(outcome.path, "/api/x");
    assert!(!format!("{outcome:?}").contains("bewit"));
}

#[tokio::test]
async fn responses_are_sanitized_and_otherwise_unchanged() {
    for http2 in [false, true] {
        let proxy = TestProxy::start().await;
        *proxy.upstream.respond_with.lock().unwrap() = Some(Box::new(|_| {
            Response::builder()
                .status(303)
                .header("location", "https://elsewhere/x?bewit=abc")
                .header("etag", "W/\"1\"")
                .header("content-encoding", "gzip")
                .header("set-cookie", "a=1")
                .header("set-cookie", "b=2")
                .header("connection", "x-secret-hop")
                .header("x-secret-hop", "1")
                .header("keep-alive", "timeout=5")
                .header("proxy-authenticate", "Basic")
                .header("authorization", "Hawk id=\"leak\"")
                .header("server-authorization", "Hawk mac=\"leak\"")
                .header("alt-svc", "h3=\":443\"")
                .header("x-hawkgate-error", "spoofed")
                .body(Full::from("see other"))
                .ok()
        }));
        let response = proxy
            .connect(http2)
            .await
            .send(&TestRequest::get("/api/x"))
            .await;
        assert_eq!(
            (response.status, response.body.as_str()),
            (303, "see other")
        );
        assert_eq!(
            response.headers["location"],
            "https://elsewhere/x?bewit=abc"
        );
        assert_eq!(response.headers["etag"], "W/\"1\"");
        assert_eq!(response.headers["content-encoding"], "gzip");
        assert_eq!(response.headers.get_all("set-cookie").iter().count(), 2);
        for gone in [
            "x-secret-hop",
            "keep-alive",
            "proxy-authenticate",
            "authorization",
            "server-authorization",
            "alt-svc",
            "x-hawkgate-error",
        ] {
            assert!(!response.headers.contains_key(gone), "{gone} was forwarded");
        }
    }
}

#[tokio::test]
async fn a_permanent_401_is_replayed_once() {
    let mut proxy = TestProxy::start().await;
    proxy
        .upstream
        .valid_from
        .store(usize::MAX, Ordering::SeqCst);
    let mut client = proxy.connect(false).await;
    let response = client.send(&TestRequest::post(body(100_000))).await;
    assert_eq!((response.status, response.body.as_str()), (401, "no"));
    assert!(!response.headers.contains_key("x-hawkgate-error"));
    assert_eq!(proxy.upstream.take_received().len(), 2);
    let outcome = proxy.outcome().await;
    let actions: Vec<_> = outcome.unauthorized.iter().map(|u| u.action).collect();
    assert_eq!(
        actions,
        [
            UnauthorizedAction::Replayed,
            UnauthorizedAction::PassedThrough
        ]
    );
    assert_eq!(
        outcome.unauthorized[1].reason,
        UnauthorizedReason::StillUnauthorized
    );
    assert_eq!(outcome.ending, Ending::Forwarded, "the replay failed too");
    assert_eq!((outcome.code, proxy.fetched()), (401, 2));
    assert_eq!(client.send(&TestRequest::get("/api/x")).await.status, 401);
}

#[tokio::test]
async fn a_403_is_never_replayed() {
    let mut proxy = TestProxy::start().await;
    *proxy.upstream.respond_with.lock().unwrap() = Some(Box::new(|_| {
        Response::builder().status(403).body(Full::default()).ok()
    }));
    let response = proxy
        .connect(false)
        .await
        .send(&TestRequest::get("/api/x"))
        .await;
    assert_eq!(response.status, 403);
    assert_eq!(proxy.upstream.take_received().len(), 1);
    let outcome = proxy.outcome().await;
    assert_eq!(outcome.ending, Ending::Forwarded);
    assert_eq!(outcome.lookup, Some(Lookup::Fetched));
    assert_eq!(proxy.fetched(), 1);
}

/// Sends a body that cannot be replayed, and returns why the 401 was passed through.
async fn unreplayable(
    proxy: &mut TestProxy,
    http2: bool,
    send: &TestRequest,
) -> UnauthorizedReason {
    let mut client = proxy.connect(http2).await;
    proxy.upstream.take_received();
    proxy.revoke();
    *proxy.upstream.reject_at.lock().unwrap() = RejectAt::End;
    let response = client.send(send).await;
    assert_eq!((response.status, response.body.as_str()), (401, "no"));
    assert_eq!(proxy.upstream.take_received().len(), 1);
    let outcome = proxy.outcome().await;
    assert_eq!(outcome.unauthorized.len(), 1);
    assert_eq!(
        outcome.unauthorized[0].action,
        UnauthorizedAction::PassedThrough
    );
    assert_eq!(proxy.budget.used(), 0);
    // The credentials were dropped, so the next request succeeds, on the same connection.
    let response = client.send(send).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.body, expected(send.body.as_deref().unwrap()));
    assert_eq!(proxy.outcome().await.ending, Ending::Forwarded);
    outcome.unauthorized[0].reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_replay_limit_is_streamed_and_its_401_passes() {
    for http2 in [false, true] {
        for chunked in [false, true] {
            let mut proxy = TestProxy::with(|o| o.limits.replay_body = 100_000).await;
            let send = TestRequest {
                chunked,
                ..TestRequest::post(body(1_000_000))
            };
            let reason = unreplayable(&mut proxy, http2, &send).await;
            assert_eq!(reason, UnauthorizedReason::BodyTooLarge);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_replay_budget_is_streamed_and_its_401_passes() {
    for http2 in [false, true] {
        let mut proxy = TestProxy::with(|o| o.limits.replay_memory = 300_000).await;
        let send = TestRequest::post(body(1_000_000));
        let reason = unreplayable(&mut proxy, http2, &send).await;
        assert_eq!(reason, UnauthorizedReason::ReplayMemory);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_401s_cost_one_credential_exchange() {
    let mut proxy = TestProxy::start().await;
    let mut first = proxy.connect(false).await;
    assert_eq!(first.send(&TestRequest::get("/api/x")).await.status, 200);
    proxy.outcome().await;
    proxy.revoke();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..50 {
        let mut client = proxy.connect(number % 2 == 1).await;
        callers.spawn(async move {
            let body = body(70_000 + number);
            let response = client.send(&TestRequest::post(body.clone())).await;
            assert_eq!((response.status, response.body), (200, expected(&body)));
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert_eq!(proxy.fetched(), 2);
    for _ in 0..50 {
        assert_eq!(proxy.outcome().await.code, 200);
    }
    assert_eq!(proxy.budget.used(), 0);
    // A request is recorded shortly before its guard is dropped.
    until(|| proxy.in_flight.requests() == 0).await;
}

#[tokio::test]
async fn a_failed_exchange_after_a_401_is_reported_as_502() {
    let mut proxy = TestProxy::start().await;
    let mut client = proxy.connect(false).await;
    assert_eq!(client.send(&TestRequest::get("/api/x")).await.status, 200);
    proxy.outcome().await;
    proxy.revoke();
    *proxy.credential_source.fails.lock().unwrap() = true;
    let response = client.send(&TestRequest::post(body(1000))).await;
    assert_eq!(response.status, 502);
    assert_eq!(response.headers["x-hawkgate-error"], "exchange_failed");
    assert_eq!(response.headers["connection"], "close");
    assert!(response.body.contains("\"code\":\"BadGateway\""));
    let outcome = proxy.outcome().await;
    assert_eq!(outcome.rejection, Some(Reason::ExchangeFailed));
    assert_eq!(outcome.ending, Ending::Rejected);
}

#[tokio::test]
async fn rejections_before_the_upstream_keep_the_connection_alive() {
    let mut proxy = TestProxy::with(|o| o.limits.body = Some(50_000)).await;
    let mut client = proxy.connect(false).await;
    *proxy.credential_source.fails.lock().unwrap() = true;
    // A short body is drained; a response to HEAD has no body.
    let response = client.send(&TestRequest::post(body(10_000))).await;
    assert_eq!(response.status, 502);
    assert!(!response.headers.contains_key("connection"));
    assert_eq!(
        client.send(&TestRequest::post(body(10_000))).await.status,
        502
    );
    proxy.outcome().await;
    proxy.outcome().await;
    let head = TestRequest {
        method: "HEAD",
        ..TestRequest::get("/api/x")
    };
    let response = client.send(&head).await;
    assert_eq!((response.status, response.body.as_str()), (502, ""));
    assert_ne!(response.headers["content-length"], "0");
    proxy.outcome().await;
    assert!(proxy.upstream.take_received().is_empty());
}

#[tokio::test]
async fn a_rejection_before_100_continue_closes_the_connection() {
    // The client may send its body now or not, so what follows is ambiguous.
    let mut proxy = TestProxy::with(|o| o.limits.body = Some(50_000)).await;
    let mut client = proxy.connect(false).await;
    let waiting = TestRequest {
        expect: true,
        ..TestRequest::post(body(60_000))
    };
    let response = client.send(&waiting).await;
    assert_eq!((response.status, response.continues), (413, 0));
    assert_eq!(response.headers["connection"], "close");
    assert_eq!(proxy.outcome().await.rejection, Some(Reason::BodyTooLarge));
    assert!(proxy.upstream.take_received().is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_rejected_while_it_streams() {
    for http2 in [false, true] {
        let mut proxy = TestProxy::with(|o| o.limits.body = Some(50_000)).await;
        let mut client = proxy.connect(http2).await;
        let send = TestRequest {
            chunked: true,
            ..TestRequest::post(body(5_000_000))
        };
        let response = client.send(&send).await;
        assert_eq!(response.status, 413, "{}", response.body);
        assert_eq!(response.headers["x-hawkgate-error"], "body_too_large");
        let outcome = proxy.outcome().await;
        assert_eq!(outcome.rejection, Some(Reason::BodyTooLarge));
        assert_eq!(outcome.ending, Ending::Rejected);
        assert_eq!(proxy.budget.used(), 0);
        // A body of exactly the limit passes.
        let mut client = proxy.connect(http2).await;
        let send = TestRequest {
            chunked: true,
            ..TestRequest::post(body(50_000))
        };
        assert_eq!(client.send(&send).await.status, 200);
    }
}

#[tokio::test]
async fn an_empty_chunked_body_is_replayed_too() {
    for upstream in [false, true] {
        for http2 in [false, true] {
            let proxy = TestProxy::with(|o| o.http2 = upstream).await;
            let mut client = proxy.connect(http2).await;
            proxy.revoke();
            let send = TestRequest {
                chunked: true,
                ..TestRequest::post(Bytes::new())
            };
            let response = client.send(&send).await;
            assert_eq!((response.status, response.body), (200, expected(b"")));
            assert_eq!(client.send(&TestRequest::get("/api/x")).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_websocket_handshake_is_replayed_after_a_401() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut proxy = TestProxy::start().await;
    *proxy.upstream.respond_with.lock().unwrap() = Some(Box::new(|request| {
        if !request.headers().contains_key("upgrade") {
            return None;
        }
        assert_eq!(request.headers()["connection"], "Upgrade");
        let upgrading = hyper::upgrade::on(request_of(request));
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrading.await.unwrap());
            let mut piece = [0; 5];
            io.read_exact(&mut piece).await.unwrap();
            io.write_all(&piece).await.unwrap();
        });
        Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "x")
            .body(Full::default())
            .ok()
    }));
    proxy.revoke();
    let mut client = proxy.connect(false).await;
    let send = sent(
        "/api/socket",
        &[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    );
    let response = client.send(&send).await;
    assert_eq!(response.status, 101);
    assert_eq!(response.headers["upgrade"], "websocket");
    let statuses: Vec<_> = proxy
        .upstream
        .take_received()
        .iter()
        .map(|s| s.status)
        .collect();
    assert_eq!(statuses, [401, 101]);
    let TestClient::H1(read, write) = &mut client else {
        unreachable!()
    };
    write.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    read.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    drop(client);
    let outcome = proxy.outcome().await;
    assert_eq!((outcome.code, outcome.unauthorized.len()), (101, 1));
}

/// The part of a borrowed request that `hyper::upgrade::on` needs.
fn request_of(request: &http::Request<hyper::body::Incoming>) -> http::Request<()> {
    let mut own = http::Request::new(());
    if let Some(upgrade) = request.extensions().get::<hyper::upgrade::OnUpgrade>() {
        own.extensions_mut().insert(upgrade.clone());
    }
    own
}

#[tokio::test]
async fn a_body_ending_with_an_empty_data_frame_has_one_last_chunk() {
    // With two last chunks the upstream would read the second as the next request: hyper
    // responds with 400 and closes, so there would be a second connection.
    let proxy = TestProxy::start().await;
    let mut client = proxy.connect(true).await;
    for round in 0..20 {
        let chunked = TestRequest {
            chunked: true,
            ..TestRequest::post(body(1000))
        };
        for send in [&TestRequest::get("/api/x"), &chunked] {
            assert_eq!(client.send(send).await.status, 200, "round {round}");
        }
    }
    assert_eq!(proxy.upstream.connections.load(Ordering::SeqCst), 1);
}
