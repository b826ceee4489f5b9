//! What goes up and what comes back when all is well, or healed.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use super::caller::{Caller, Send};
use super::failures::until;
use super::matrix::body;
use super::stage::Stage;
use super::upstream::{When, expected};
use crate::credential::Lookup;
use crate::gateway::outcome::{Ending, UnauthorizedAction, UnauthorizedReason};
use crate::gateway::reason::Reason;

fn sent(target: &'static str, headers: &[(&'static str, &str)]) -> Send {
    Send {
        headers: headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
        ..Send::get(target)
    }
}

#[tokio::test]
async fn targets_go_byte_for_byte_and_are_signed_so() {
    for upstream in [false, true] {
        let stage = Stage::with(|o| o.http2 = upstream).await;
        for caller in [false, true] {
            let mut caller = stage.connect(caller).await;
            for target in [
                "/api/a%2Fb/%41",
                "/api/x//y///z",
                "/api/x?",
                "/api/x?a=1&a=1&b=%20+%C3%A4",
                "/api/x?redirect=http://elsewhere/../y",
                "/api/;p=1,2/(3)!$&'*@:~",
            ] {
                let got = caller.send(&Send::get(target)).await;
                assert_eq!(got.status, 200, "{target}");
                assert_eq!(stage.upstream.take_seen()[0].target, target);
            }
        }
    }
}

#[tokio::test]
async fn methods_are_signed_as_they_are() {
    let stage = Stage::standard().await;
    let mut caller = stage.connect(false).await;
    for method in ["GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS", "POST"] {
        let send = Send {
            method,
            ..Send::get("/api/x")
        };
        assert_eq!(caller.send(&send).await.status, 200, "{method}");
        assert_eq!(stage.upstream.take_seen()[0].method, method);
    }
}

#[tokio::test]
async fn hawkgate_owns_what_names_parties_and_hops() {
    for http2 in [false, true] {
        let stage = Stage::standard().await;
        let mut caller = stage.connect(http2).await;
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
        assert_eq!(caller.send(&send).await.status, 200);
        let seen = stage.upstream.take_seen().remove(0);
        let all = format!("{:?}", seen.headers);
        for gone in [
            "6.6.6.6", "junk", "gopher", "evil", "/admin", "DELETE", "spoofed",
        ] {
            assert!(!all.contains(gone), "{gone} went through: {all}");
        }
        assert!(!all.contains("callers-own-token") && !all.contains("Zm9v"));
        let value = |name: &str| seen.headers.get(name).map_or("", |v| v.to_str().unwrap());
        assert_eq!(value("host"), "tc.example.com:8443");
        assert_eq!(value("x-forwarded-port"), "443");
        assert_eq!(value("x-forwarded-proto"), "http");
        assert_eq!(value("x-forwarded-for"), "127.0.0.1");
        assert_eq!(value("x-taskcluster-trace-id"), "keep-me");
        assert_eq!(value("x-request-id"), "mine-1");
        assert_eq!(value("accept"), "text/plain");
        assert_eq!(seen.headers.get_all("authorization").iter().count(), 1);
        assert_eq!(seen.headers.get_all("host").iter().count(), 1);
    }
}

#[tokio::test]
async fn a_bewit_is_not_signed() {
    let mut stage = Stage::standard().await;
    let mut caller = stage.connect(false).await;
    let got = caller.send(&Send::get("/api/x?bewit=abc&y=1")).await;
    // The upstream of these tests knows no bewits.
    assert_eq!(got.status, 401);
    let seen = stage.upstream.take_seen();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].headers.contains_key("authorization"));
    let outcome = stage.outcome().await;
    assert_eq!(
        outcome.unauthorized[0].reason,
        UnauthorizedReason::NotSigned
    );
    assert_eq!(outcome.path, "/api/x");
    assert!(!format!("{outcome:?}").contains("bewit"));
}

#[tokio::test]
async fn answers_are_cleaned_and_otherwise_left_alone() {
    for http2 in [false, true] {
        let stage = Stage::standard().await;
        *stage.upstream.special.lock().unwrap() = Some(Box::new(|_| {
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
        let got = stage.connect(http2).await.send(&Send::get("/api/x")).await;
        assert_eq!((got.status, got.body.as_str()), (303, "see other"));
        assert_eq!(got.headers["location"], "https://elsewhere/x?bewit=abc");
        assert_eq!(got.headers["etag"], "W/\"1\"");
        assert_eq!(got.headers["content-encoding"], "gzip");
        assert_eq!(got.headers.get_all("set-cookie").iter().count(), 2);
        for gone in [
            "x-secret-hop",
            "keep-alive",
            "proxy-authenticate",
            "authorization",
            "server-authorization",
            "alt-svc",
            "x-hawkgate-error",
        ] {
            assert!(!got.headers.contains_key(gone), "{gone} came through");
        }
    }
}

#[tokio::test]
async fn a_permanent_401_is_replayed_once() {
    let mut stage = Stage::standard().await;
    stage
        .upstream
        .valid_from
        .store(usize::MAX, Ordering::SeqCst);
    let mut caller = stage.connect(false).await;
    let got = caller.send(&Send::post(body(100_000))).await;
    assert_eq!((got.status, got.body.as_str()), (401, "no"));
    assert!(!got.headers.contains_key("x-hawkgate-error"));
    assert_eq!(stage.upstream.take_seen().len(), 2);
    let outcome = stage.outcome().await;
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
    assert_eq!(outcome.ending, Ending::Forwarded, "nothing was healed");
    assert_eq!((outcome.code, stage.fetched()), (401, 2));
    assert_eq!(caller.send(&Send::get("/api/x")).await.status, 401);
}

#[tokio::test]
async fn a_403_is_never_replayed() {
    let mut stage = Stage::standard().await;
    *stage.upstream.special.lock().unwrap() = Some(Box::new(|_| {
        Response::builder().status(403).body(Full::default()).ok()
    }));
    let got = stage.connect(false).await.send(&Send::get("/api/x")).await;
    assert_eq!(got.status, 403);
    assert_eq!(stage.upstream.take_seen().len(), 1);
    let outcome = stage.outcome().await;
    assert_eq!(outcome.ending, Ending::Forwarded);
    assert_eq!(outcome.lookup, Some(Lookup::Fetched));
    assert_eq!(stage.fetched(), 1);
}

/// Sends a body that cannot be kept; says why the 401 passed.
async fn unreplayable(stage: &mut Stage, http2: bool, send: &Send) -> UnauthorizedReason {
    let mut caller = stage.connect(http2).await;
    stage.upstream.take_seen();
    stage.revoke();
    *stage.upstream.when.lock().unwrap() = When::After;
    let got = caller.send(send).await;
    assert_eq!((got.status, got.body.as_str()), (401, "no"));
    assert_eq!(stage.upstream.take_seen().len(), 1);
    let outcome = stage.outcome().await;
    assert_eq!(outcome.unauthorized.len(), 1);
    assert_eq!(
        outcome.unauthorized[0].action,
        UnauthorizedAction::PassedThrough
    );
    assert_eq!(stage.budget.used(), 0);
    // The credentials were dropped, so the next one is good, whole, on the same connection.
    let got = caller.send(send).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.body, expected(send.body.as_deref().unwrap()));
    assert_eq!(stage.outcome().await.ending, Ending::Forwarded);
    outcome.unauthorized[0].reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_cap_a_body_streams_whole_and_the_401_passes() {
    for http2 in [false, true] {
        for chunked in [false, true] {
            let mut stage = Stage::with(|o| o.limits.replay_body = 100_000).await;
            let send = Send {
                chunked,
                ..Send::post(body(1_000_000))
            };
            let reason = unreplayable(&mut stage, http2, &send).await;
            assert_eq!(reason, UnauthorizedReason::BodyTooLarge);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_budget_a_body_streams_whole_and_the_401_passes() {
    for http2 in [false, true] {
        let mut stage = Stage::with(|o| o.limits.replay_memory = 300_000).await;
        let send = Send::post(body(1_000_000));
        let reason = unreplayable(&mut stage, http2, &send).await;
        assert_eq!(reason, UnauthorizedReason::ReplayMemory);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_with_revoked_credentials_cost_one_exchange() {
    let mut stage = Stage::standard().await;
    let mut first = stage.connect(false).await;
    assert_eq!(first.send(&Send::get("/api/x")).await.status, 200);
    stage.outcome().await;
    stage.revoke();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..50 {
        let mut caller = stage.connect(number % 2 == 1).await;
        callers.spawn(async move {
            let body = body(70_000 + number);
            let got = caller.send(&Send::post(body.clone())).await;
            assert_eq!((got.status, got.body), (200, expected(&body)));
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert_eq!(stage.fetched(), 2);
    for _ in 0..50 {
        assert_eq!(stage.outcome().await.code, 200);
    }
    assert_eq!(stage.budget.used(), 0);
    // A request is recorded a moment before all of it is gone.
    until(|| stage.in_flight.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_dead_exchange_is_told_in_the_upstreams_place() {
    let mut stage = Stage::standard().await;
    let mut caller = stage.connect(false).await;
    assert_eq!(caller.send(&Send::get("/api/x")).await.status, 200);
    stage.outcome().await;
    stage.revoke();
    *stage.script.fails.lock().unwrap() = true;
    let got = caller.send(&Send::post(body(1000))).await;
    assert_eq!(got.status, 502);
    assert_eq!(got.headers["x-hawkgate-error"], "exchange_failed");
    assert_eq!(got.headers["connection"], "close");
    assert!(got.body.contains("\"code\":\"BadGateway\""));
    let outcome = stage.outcome().await;
    assert_eq!(outcome.rejection, Some(Reason::ExchangeFailed));
    assert_eq!(outcome.ending, Ending::Rejected);
}

#[tokio::test]
async fn refusals_before_the_upstream_keep_the_connection_where_they_can() {
    let mut stage = Stage::with(|o| o.limits.body = Some(50_000)).await;
    let mut caller = stage.connect(false).await;
    *stage.script.fails.lock().unwrap() = true;
    // A short body is read to its end, a HEAD gets no body.
    let got = caller.send(&Send::post(body(10_000))).await;
    assert_eq!(got.status, 502);
    assert_eq!(got.headers["connection"], "keep-alive");
    stage.outcome().await;
    let head = Send {
        method: "HEAD",
        ..Send::get("/api/x")
    };
    let got = caller.send(&head).await;
    assert_eq!((got.status, got.body.as_str()), (502, ""));
    assert_ne!(got.headers["content-length"], "0");
    stage.outcome().await;
    assert!(stage.upstream.take_seen().is_empty());
}

#[tokio::test]
async fn who_waits_for_100_and_gets_a_refusal_loses_the_connection() {
    // It may send the body now or not: nobody can tell what comes next.
    let mut stage = Stage::with(|o| o.limits.body = Some(50_000)).await;
    let mut caller = stage.connect(false).await;
    let waiting = Send {
        expect: true,
        ..Send::post(body(60_000))
    };
    let got = caller.send(&waiting).await;
    assert_eq!((got.status, got.continues), (413, 0));
    assert_eq!(got.headers["connection"], "close");
    assert_eq!(stage.outcome().await.rejection, Some(Reason::BodyTooLarge));
    assert!(stage.upstream.take_seen().is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_while_it_streams() {
    for http2 in [false, true] {
        let mut stage = Stage::with(|o| o.limits.body = Some(50_000)).await;
        let mut caller = stage.connect(http2).await;
        let send = Send {
            chunked: true,
            ..Send::post(body(5_000_000))
        };
        let got = caller.send(&send).await;
        assert_eq!(got.status, 413, "{}", got.body);
        assert_eq!(got.headers["x-hawkgate-error"], "body_too_large");
        let outcome = stage.outcome().await;
        assert_eq!(outcome.rejection, Some(Reason::BodyTooLarge));
        assert_eq!(outcome.ending, Ending::Rejected);
        assert_eq!(stage.budget.used(), 0);
        // At the limit it passes.
        let mut caller = stage.connect(http2).await;
        let send = Send {
            chunked: true,
            ..Send::post(body(50_000))
        };
        assert_eq!(caller.send(&send).await.status, 200);
    }
}

#[tokio::test]
async fn an_empty_chunked_body_is_replayed_too() {
    for upstream in [false, true] {
        for http2 in [false, true] {
            let stage = Stage::with(|o| o.http2 = upstream).await;
            let mut caller = stage.connect(http2).await;
            stage.revoke();
            let send = Send {
                chunked: true,
                ..Send::post(Bytes::new())
            };
            let got = caller.send(&send).await;
            assert_eq!((got.status, got.body), (200, expected(b"")));
            assert_eq!(caller.send(&Send::get("/api/x")).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_web_socket_passes_and_its_401_is_healed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stage = Stage::standard().await;
    *stage.upstream.special.lock().unwrap() = Some(Box::new(|request| {
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
    stage.revoke();
    let mut caller = stage.connect(false).await;
    let send = sent(
        "/api/socket",
        &[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    );
    let got = caller.send(&send).await;
    assert_eq!(got.status, 101);
    assert_eq!(got.headers["upgrade"], "websocket");
    let statuses: Vec<_> = stage
        .upstream
        .take_seen()
        .iter()
        .map(|s| s.status)
        .collect();
    assert_eq!(statuses, [401, 101]);
    let Caller::H1(read, write) = &mut caller else {
        unreachable!()
    };
    write.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    read.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    drop(caller);
    let outcome = stage.outcome().await;
    assert_eq!((outcome.code, outcome.unauthorized.len()), (101, 1));
}

/// What `hyper::upgrade::on` needs of a request, for a hook that only has it on loan.
fn request_of(request: &http::Request<hyper::body::Incoming>) -> http::Request<()> {
    let mut own = http::Request::new(());
    if let Some(upgrade) = request.extensions().get::<hyper::upgrade::OnUpgrade>() {
        own.extensions_mut().insert(upgrade.clone());
    }
    own
}

#[tokio::test]
async fn a_body_that_ends_with_an_empty_frame_ends_once() {
    // Two ends would make the upstream read the second as the next request: hyper answers
    // that with 400 and closes, so a second connection shows it.
    let stage = Stage::standard().await;
    let mut caller = stage.connect(true).await;
    for round in 0..20 {
        let chunked = Send {
            chunked: true,
            ..Send::post(body(1000))
        };
        for send in [&Send::get("/api/x"), &chunked] {
            assert_eq!(caller.send(send).await.status, 200, "round {round}");
        }
    }
    assert_eq!(stage.upstream.connections.load(Ordering::SeqCst), 1);
}
