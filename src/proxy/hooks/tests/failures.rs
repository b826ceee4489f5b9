//! Callers and upstreams that misbehave.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::caller::{Caller, Send};
use super::matrix::body;
use super::stage::Stage;
use crate::gateway::outcome::Ending;
use crate::gateway::reason::Reason;

/// An upstream of raw bytes: `serve` gets each connection.
pub(super) async fn raw<F, T>(serve: F) -> SocketAddr
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

/// Reads one head; what came of the body with it is dropped.
pub(super) async fn read_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if tcp.read_buf(&mut head).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An address where nothing listens.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn an_upstream_that_is_not_there_is_502() {
    let address = nowhere().await;
    let mut stage = Stage::with(|o| o.addresses = Some(vec![address])).await;
    let got = stage.connect(false).await.send(&Send::post(body(10))).await;
    assert_eq!(got.status, 502);
    assert_eq!(got.headers["x-hawkgate-error"], "upstream_unreachable");
    assert!(got.headers.contains_key("retry-after"));
    let outcome = stage.outcome().await;
    assert_eq!(outcome.ending, Ending::UpstreamFailed);
    assert_eq!(outcome.rejection, Some(Reason::UpstreamUnreachable));
    assert!(outcome.upstream.is_some());
}

#[tokio::test]
async fn a_name_not_resolved_yet_is_502() {
    let mut stage = Stage::with(|o| o.addresses = Some(vec![])).await;
    let got = stage.connect(true).await.send(&Send::get("/api/x")).await;
    assert_eq!(got.status, 502);
    let outcome = stage.outcome().await;
    assert!(outcome.cause.unwrap().contains("tc.example.com"));
}

#[tokio::test]
async fn the_next_address_is_tried_whatever_the_method() {
    let good = raw(|_, mut tcp| async move {
        loop {
            if read_head(&mut tcp).await.is_empty() {
                return;
            }
            tcp.write_all(OK).await.unwrap();
        }
    })
    .await;
    let bad = [nowhere().await, nowhere().await];
    let stage = Stage::with(|o| o.addresses = Some(vec![bad[0], bad[1], good])).await;
    let mut caller = stage.connect(false).await;
    for _ in 0..6 {
        assert_eq!(caller.send(&Send::post(body(10))).await.status, 200);
    }
}

#[tokio::test]
async fn a_silent_upstream_is_504() {
    let silent = raw(|_, tcp| async move {
        let _held = tcp;
        std::future::pending::<()>().await;
    })
    .await;
    let mut stage = Stage::with(|o| {
        o.addresses = Some(vec![silent]);
        o.read_timeout = Duration::from_millis(50);
    })
    .await;
    for http2 in [false, true] {
        let got = stage.connect(http2).await.send(&Send::get("/api/x")).await;
        assert_eq!(got.status, 504);
        assert_eq!(got.headers["x-hawkgate-error"], "upstream_timeout");
        assert_eq!(stage.outcome().await.ending, Ending::UpstreamFailed);
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_no_http_is_502_and_not_quoted() {
    let odd = raw(|_, mut tcp| async move {
        read_head(&mut tcp).await;
        let _ = tcp.write_all(b"SECRET nonsense\r\n\r\n").await;
    })
    .await;
    let mut stage = Stage::with(|o| o.addresses = Some(vec![odd])).await;
    let got = stage.connect(false).await.send(&Send::get("/api/x")).await;
    assert_eq!(got.status, 502);
    assert!(!format!("{got:?}").contains("SECRET"));
    let outcome = stage.outcome().await;
    assert_eq!(outcome.rejection, Some(Reason::UpstreamFailed));
    assert!(!format!("{outcome:?}").contains("SECRET"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let breaking = raw(move |_, mut tcp| async move {
            read_head(&mut tcp).await;
            let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n");
            tcp.write_all(head.as_bytes()).await.unwrap();
        })
        .await;
        let mut stage = Stage::with(|o| o.addresses = Some(vec![breaking])).await;
        let Caller::H1(mut read, mut write) = stage.connect(false).await else {
            unreachable!()
        };
        write
            .write_all(b"GET /api/x HTTP/1.1\r\nHost: any\r\n\r\n")
            .await
            .unwrap();
        let mut all = String::new();
        // A reset is as good a sign as an early end.
        let _ = read.read_to_string(&mut all).await;
        assert!(all.starts_with("HTTP/1.1 200"), "{all}");
        assert!(!all.ends_with("0\r\n\r\n"), "{all}");
        assert!(!all.contains("502"), "{all}");
        let outcome = stage.outcome().await;
        assert_eq!(outcome.ending, Ending::UpstreamFailed);
        assert_eq!(outcome.rejection, None);
        assert_eq!(outcome.code, 200);
    }
}

#[tokio::test]
async fn a_stale_pooled_connection_costs_a_get_nothing_and_a_post_is_not_repeated() {
    let (noted, mut heads) = mpsc::unbounded_channel();
    // Each connection answers once and closes on the second request.
    let address = raw(move |_, mut tcp| {
        let noted = noted.clone();
        async move {
            read_head(&mut tcp).await;
            tcp.write_all(OK).await.unwrap();
            let head = read_head(&mut tcp).await;
            noted.send(head).unwrap();
        }
    })
    .await;
    let stage = Stage::with(|o| o.addresses = Some(vec![address])).await;
    let mut caller = stage.connect(false).await;
    let get = Send::get("/api/x");
    assert_eq!(caller.send(&get).await.status, 200);
    assert_eq!(caller.send(&get).await.status, 200);
    assert!(heads.recv().await.unwrap().starts_with("GET"));
    // Requests with a body have connections of their own.
    assert_eq!(caller.send(&Send::post(body(10))).await.status, 200);
    let got = caller.send(&Send::post(body(10))).await;
    assert_eq!(got.status, 502);
    assert_eq!(got.headers["x-hawkgate-error"], "upstream_failed");
    assert!(heads.recv().await.unwrap().starts_with("POST"));
}

#[tokio::test]
async fn informational_answers_pass_cleaned() {
    let hinting = raw(|_, mut tcp| async move {
        read_head(&mut tcp).await;
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Hawkgate-Error: x\r\n\r\n";
        tcp.write_all(hints).await.unwrap();
        tcp.write_all(OK).await.unwrap();
    })
    .await;
    let stage = Stage::with(|o| o.addresses = Some(vec![hinting])).await;
    let Caller::H1(mut read, mut write) = stage.connect(false).await else {
        unreachable!()
    };
    write
        .write_all(b"GET /api/x HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut all = String::new();
    read.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{all}");
    assert!(!all.to_lowercase().contains("x-hawkgate"), "{all}");
    assert!(
        all.contains("HTTP/1.1 200 OK\r\n") && all.ends_with("ok"),
        "{all}"
    );
}

#[tokio::test]
async fn an_early_answer_reaches_a_caller_in_the_midst_of_uploading() {
    let early = raw(|_, mut tcp| async move {
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
        let mut stage = Stage::with(|o| o.addresses = Some(vec![early])).await;
        let mut caller = stage.connect(http2).await;
        let got = caller.send(&Send::post(body(3_000_000))).await;
        assert_eq!((got.status, got.body.as_str()), (400, "hmpf"));
        assert_eq!(stage.outcome().await.code, 400);
        // And its connection is in order.
        assert_eq!(caller.send(&Send::get("/api/x")).await.status, 400);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_behind() {
    for http2 in [false, true] {
        let mut stage = Stage::standard().await;
        let uploading = stalled_upload(&stage, http2).await;
        // Something of the body is kept by now, or will be.
        until(|| stage.budget.used() > 0).await;
        drop(uploading);
        let outcome = stage.outcome().await;
        assert_eq!(outcome.ending, Ending::CallerGone);
        assert_eq!(outcome.code, 0);
        assert_eq!(stage.budget.used(), 0);
        until(|| stage.in_flight.load(Ordering::SeqCst) == 0).await;
    }
}

pub(super) async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    in_time.expect("never came about");
}

#[tokio::test]
async fn a_body_that_stalls_is_408() {
    for http2 in [false, true] {
        let mut stage = Stage::with(|o| o.limits.body_timeout = Duration::from_millis(100)).await;
        let _uploading = stalled_upload(&stage, http2).await;
        let outcome = stage.outcome().await;
        assert_eq!(outcome.rejection, Some(Reason::BodyTimeout), "h2 {http2}");
        assert_eq!(outcome.code, 408);
        assert_eq!(stage.budget.used(), 0);
    }
}

/// What keeps a half-sent upload open.
enum Uploading {
    H1 {
        _caller: Caller,
    },
    H2 {
        _body: h2::SendStream<bytes::Bytes>,
        driver: tokio::task::JoinHandle<()>,
    },
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Self::H2 { driver, .. } = self {
            driver.abort();
        }
    }
}

async fn stalled_upload(stage: &Stage, http2: bool) -> Uploading {
    if !http2 {
        let mut caller = stage.connect(false).await;
        let Caller::H1(_, write) = &mut caller else {
            unreachable!()
        };
        let head = "POST /api/x HTTP/1.1\r\nHost: any\r\nContent-Length: 100000\r\n\r\n";
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&body(20_000)).await.unwrap();
        return Uploading::H1 { _caller: caller };
    }
    let tcp = TcpStream::connect(stage.h2c).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = http::Request::post("http://any/api/x").body(()).unwrap();
    let (response, mut sending) = sender.send_request(request, false).unwrap();
    sending.send_data(body(20_000), false).unwrap();
    // Not asked for: dropping it would cancel the request.
    tokio::spawn(response);
    Uploading::H2 {
        _body: sending,
        driver,
    }
}
