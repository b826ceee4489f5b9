//! Tests over in-memory streams, with a small service and the client of `h2`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::BoxFuture;
use h2::client::{Connection as ClientConnection, SendRequest};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::gateway::outcome::Outcome;
use crate::header_fields::HeaderFields;
use crate::proxy::drain::Signal;
use crate::proxy::error::RelayError;
use crate::proxy::head::{FieldList, ResponseHead};
use crate::proxy::in_flight::InFlight;
use crate::proxy::service::Served;
use crate::proxy::settings::Limits;
use crate::proxy::test_support::{self, TIMEOUT, TestConn};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

type Handler = Arc<dyn for<'r> Fn(Request<'r>) -> BoxFuture<'r, Served> + Send + Sync>;

struct Handle(Handler);

#[async_trait]
impl Service for Handle {
    async fn serve(&self, request: Request<'_>) -> Served {
        request.conn.state.request_admitted();
        (self.0)(request).await
    }
}

/// A connection that is being served, without its client.
struct Server {
    task: JoinHandle<()>,
    signal: Signal,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

fn limits() -> Limits {
    Limits {
        keepalive_timeout: 3 * TIMEOUT,
        unadmitted_keepalive: 2 * TIMEOUT,
        ..test_support::limits()
    }
}

fn start_for(is_proxy: bool, handler: Handler) -> (Server, DuplexStream) {
    let (io, client) = duplex(256 * 1024);
    let signal = Signal::default();
    let mut conn = TestConn::new(limits(), signal.clone());
    conn.info.address = (!is_proxy).then(|| InFlight::for_test(1, 1).address(PEER));
    let outcomes = conn.outcomes();
    let task = tokio::spawn(async move {
        serve(&Handle(handler), &conn.info, io, &conn.h2_settings()).await;
    });
    let server = Server {
        task,
        signal,
        outcomes,
    };
    (server, client)
}

fn start(
    handler: impl for<'r> Fn(Request<'r>) -> BoxFuture<'r, Served> + Send + Sync + 'static,
) -> (Server, DuplexStream) {
    start_for(false, Arc::new(handler))
}

type Driver = JoinHandle<Result<(), h2::Error>>;

async fn client(io: DuplexStream) -> (SendRequest<Bytes>, Driver) {
    client_with(io, &mut h2::client::Builder::new()).await
}

async fn client_with(
    io: DuplexStream,
    builder: &mut h2::client::Builder,
) -> (SendRequest<Bytes>, Driver) {
    let handshake: Result<(_, ClientConnection<_>), _> = builder.handshake(io).await;
    let (client, connection) = handshake.unwrap();
    (client.ready().await.unwrap(), tokio::spawn(connection))
}

fn get(path: &str) -> http::Request<()> {
    http::Request::get(format!("http://a{path}"))
        .body(())
        .unwrap()
}

fn post(path: &str) -> http::Request<()> {
    http::Request::post(format!("http://a{path}"))
        .body(())
        .unwrap()
}

fn head_of(status: u16, fields: &[(&str, &str)], body: BodySize) -> ResponseHead {
    let fields = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        reason: None,
        fields: FieldList::of(fields, 0),
        body,
    }
}

async fn body_piece(downstream: &mut Downstream<'_>) -> Result<Option<Bytes>, RelayError> {
    poll_fn(|cx| downstream.poll_body(cx)).await
}

async fn write(
    downstream: &mut Downstream<'_>,
    content: &[u8],
    end: bool,
) -> Result<usize, RelayError> {
    poll_fn(|cx| downstream.poll_write(cx, content, end)).await
}

async fn write_all(downstream: &mut Downstream<'_>, mut content: &[u8]) -> Result<(), RelayError> {
    while !content.is_empty() {
        let taken = write(downstream, content, true).await?;
        assert!(taken > 0);
        content = &content[taken..];
    }
    Ok(())
}

async fn finish(
    downstream: &mut Downstream<'_>,
    trailers: Option<HeaderMap>,
) -> Result<(), RelayError> {
    let mut trailers = trailers;
    poll_fn(|cx| downstream.poll_finish(cx, &mut trailers)).await
}

async fn flush(downstream: &mut Downstream<'_>) {
    poll_fn(|cx| downstream.poll_flush(cx)).await.unwrap();
}

/// Responds with `content`.
async fn respond(request: &mut Request<'_>, content: &[u8]) -> Served {
    let size = BodySize::Known(content.len() as u64);
    let head = head_of(200, &[], size);
    request.downstream.queue_head(head, false).unwrap();
    let sent = async {
        write_all(&mut request.downstream, content).await?;
        finish(&mut request.downstream, None).await
    };
    match sent.await {
        Ok(()) => Served::KeepAlive,
        Err(_) => Served::Aborted,
    }
}

async fn read_all(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len()).unwrap();
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

fn field<'m>(fields: &'m HeaderMap, name: &str) -> Option<&'m str> {
    fields.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn heads_bodies_and_trailers_pass_in_both_directions() {
    let (_server, io) = start(|mut request| {
        Box::pin(async move {
            let head = &request.head;
            let about = format!(
                "{} {:?} {} {} {:?}",
                head.method,
                head.version,
                head.host().unwrap(),
                head.target(),
                head.body
            );
            assert_eq!(head.fields.first(&header::TE), Some(&b"trailers"[..]));
            assert!(!request.downstream.is_body_done());
            let mut received = 0;
            while let Some(piece) = body_piece(&mut request.downstream).await.unwrap() {
                assert!(!piece.is_empty());
                received += piece.len();
            }
            assert!(request.downstream.is_body_done());
            let trailers = request.downstream.take_trailers();
            let fields = [
                ("About", about.as_str()),
                ("Connection", "x"),
                ("Keep-Alive", "y"),
            ];
            let head = head_of(200, &fields, BodySize::Unknown);
            request.downstream.queue_head(head, false).unwrap();
            let content = vec![b'x'; received];
            let mut rest = &content[..];
            while !rest.is_empty() {
                let taken = write(&mut request.downstream, rest, false).await.unwrap();
                rest = &rest[taken..];
            }
            finish(&mut request.downstream, trailers).await.unwrap();
            Served::KeepAlive
        })
    });
    let (mut client, _driver) = client(io).await;
    let mut head = post("/p?q=%20");
    head.headers_mut().insert("te", "trailers".parse().unwrap());
    let (response, mut upload) = client.send_request(head, false).unwrap();
    upload
        .send_data(Bytes::from(vec![0; 200_000]), false)
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    upload.send_trailers(trailers.clone()).unwrap();
    let response = response.await.unwrap();
    let fields = response.headers();
    assert_eq!(
        field(fields, "about"),
        Some("POST HTTP/2.0 a /p?q=%20 Unknown")
    );
    assert_eq!(fields.len(), 1, "{fields:?}");
    let mut body = response.into_body();
    assert_eq!(read_all(&mut body).await.unwrap().len(), 200_000);
    assert_eq!(body.trailers().await.unwrap(), Some(trailers));
}

#[tokio::test]
async fn a_response_without_content_ends_with_its_head() {
    let (_server, io) = start(|mut request| {
        Box::pin(async move {
            assert!(request.downstream.is_body_done());
            assert!(body_piece(&mut request.downstream).await.unwrap().is_none());
            let (status, size) = match request.head.target() {
                "/204" => (204, BodySize::Empty),
                _ => (200, BodySize::Known(0)),
            };
            let fields = if request.head.method == Method::HEAD {
                &[("Content-Length", "12")][..]
            } else {
                &[]
            };
            let size = if fields.is_empty() {
                size
            } else {
                BodySize::Empty
            };
            let head = head_of(status, fields, size);
            request.downstream.queue_head(head, false).unwrap();
            finish(&mut request.downstream, None).await.unwrap();
            Served::KeepAlive
        })
    });
    let (mut client, _driver) = client(io).await;
    for (method, path, length) in [
        // Some gRPC clients take a length in a response that has only trailers for metadata.
        (Method::GET, "/0", None),
        (Method::GET, "/204", None),
        (Method::HEAD, "/", Some("12")),
    ] {
        let mut head = get(path);
        *head.method_mut() = method;
        let (response, _) = client.send_request(head, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(
            field(response.headers(), "content-length"),
            length,
            "{path}"
        );
        assert!(response.body().is_end_stream(), "END_STREAM in HEADERS");
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_stream_only() {
    let (_server, io) = start(|mut request| {
        Box::pin(async move {
            assert_ne!(request.head.target(), "/panic");
            respond(&mut request, b"fine").await
        })
    });
    let (mut client, _driver) = client(io).await;
    let (failed, _) = client.send_request(get("/panic"), true).unwrap();
    let (other, _) = client.send_request(get("/"), true).unwrap();
    assert!(failed.await.unwrap_err().is_reset());
    let mut response = other.await.unwrap();
    assert_eq!(read_all(response.body_mut()).await.unwrap(), b"fine");
}

#[tokio::test]
async fn interim_responses_precede_the_final_one() {
    let (_server, io) = start(|mut request| {
        Box::pin(async move {
            for status in [100, 103] {
                let head = head_of(status, &[("Link", "<x>")], BodySize::Empty);
                request.downstream.queue_interim(&head).unwrap();
            }
            flush(&mut request.downstream).await;
            let switch = head_of(101, &[], BodySize::Empty);
            assert!(request.downstream.queue_interim(&switch).is_err());
            let read = body_piece(&mut request.downstream).await.unwrap().unwrap();
            respond(&mut request, &read).await
        })
    });
    let (mut client, _driver) = client(io).await;
    let (mut response, mut upload) = client.send_request(post("/"), false).unwrap();
    for status in [100, 103] {
        let interim = poll_fn(|cx| response.poll_informational(cx)).await;
        let interim = interim.unwrap().unwrap();
        assert_eq!(interim.status(), status);
        assert_eq!(field(interim.headers(), "link"), Some("<x>"));
    }
    upload.send_data("body".into(), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(read_all(&mut body).await.unwrap(), b"body");
}

#[tokio::test]
async fn malformed_heads_are_refused_and_recorded_without_harm_to_other_streams() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let (server, io) = start(move |mut request| {
        count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { respond(&mut request, b"ok").await })
    });
    let (mut client, _driver) = client(io).await;
    let with = |mut head: http::Request<()>, fields: &[(&'static str, &'static str)]| {
        for (name, value) in fields {
            head.headers_mut().append(*name, value.parse().unwrap());
        }
        head
    };
    let long = "x".repeat(9000);
    for (head, status) in [
        (get("/a/../b"), 400),
        (get("//b"), 400),
        (get(&format!("/{long}")), 414),
        (with(get("/"), &[("host", "other")]), 400),
        (
            with(get("/"), &[("authorization", "a"), ("authorization", "b")]),
            400,
        ),
        (with(get("/"), &[("expect", "x")]), 400),
        (with(get("/"), &[("x", " y")]), 400),
        (with(get("/"), &[("x", "y\t")]), 400),
        (with(get("/"), &[("content_length", "1")]), 400),
        (
            with(
                get("/"),
                &[("content-length", "0"), ("content-length", "0")],
            ),
            400,
        ),
        (http::Request::trace("http://a/").body(()).unwrap(), 405),
        (http::Request::connect("a:1").body(()).unwrap(), 405),
        (get("/fine"), 200),
    ] {
        let text = format!("{head:?}");
        let (response, _) = client.send_request(head, true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), status, "{text}");
        let body = read_all(response.body_mut()).await.unwrap();
        let length = field(response.headers(), "content-length");
        assert_eq!(length, Some(body.len().to_string().as_str()));
    }
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    let outcomes = server.outcomes.lock().unwrap();
    assert_eq!(outcomes.len(), 12);
    assert_eq!(outcomes[0].path, "/a/../b");
    assert!(
        outcomes
            .iter()
            .all(|o| o.code != 200 && o.peer == Some(PEER))
    );
}

#[tokio::test]
async fn many_malformed_heads_close_the_connection_unless_it_carries_many_clients() {
    for is_proxy in [false, true] {
        let handler: Handler = Arc::new(move |request: Request<'_>| {
            let mut request = request;
            Box::pin(async move { respond(&mut request, b"ok").await })
        });
        let (_server, io) = start_for(is_proxy, handler);
        let (mut client, driver) = client(io).await;
        let mut refused = 0;
        for _ in 0..2 * MALFORMED {
            let Ok((response, _)) = client.send_request(get("/.."), true) else {
                break;
            };
            match response.await {
                Ok(response) => assert_eq!(response.status(), 400),
                Err(_) => break,
            }
            refused += 1;
        }
        if is_proxy {
            assert_eq!(refused, 2 * MALFORMED);
        } else {
            assert!(refused <= MALFORMED, "{refused}");
            let error = driver.await.unwrap().unwrap_err();
            assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        }
    }
}

#[tokio::test]
async fn nothing_is_taken_beyond_the_windows_of_the_caller() {
    let (taken, mut seen) = mpsc::unbounded_channel();
    let (_server, io) = start(move |mut request| {
        let taken = taken.clone();
        Box::pin(async move {
            let head = head_of(200, &[], BodySize::Known(100));
            request.downstream.queue_head(head, false).unwrap();
            flush(&mut request.downstream).await;
            let content = [b'x'; 100];
            let mut rest = &content[..];
            while !rest.is_empty() {
                let part = write(&mut request.downstream, rest, true).await.unwrap();
                taken.send(part).unwrap();
                rest = &rest[part..];
            }
            Served::KeepAlive
        })
    });
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(7);
    let (mut client, _driver) = client_with(io, &mut builder).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(seen.recv().await, Some(7));
    assert!(seen.try_recv().is_err(), "the window is closed");
    assert_eq!(read_all(&mut body).await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_stream_whose_window_is_closed_does_not_hold_up_others() {
    let (_server, io) = start(|mut request| {
        Box::pin(async move { respond(&mut request, &vec![b'x'; 200_000]).await })
    });
    // The window of the connection is 65,535 bytes; each unread stream takes 20,000 of them.
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(20_000);
    let (mut client, _driver) = client_with(io, &mut builder).await;
    let mut unread = Vec::new();
    for _ in 0..2 {
        let (response, _) = client.send_request(get("/"), true).unwrap();
        unread.push(response.await.unwrap().into_body());
    }
    for _ in 0..3 {
        let (response, _) = client.send_request(get("/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(read_all(&mut body).await.unwrap().len(), 200_000);
    }
    for body in &mut unread {
        assert_eq!(read_all(body).await.unwrap().len(), 200_000);
    }
}

#[tokio::test]
async fn the_window_for_a_body_opens_only_as_its_pieces_are_asked_for() {
    let (go_on, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (resume, reached) = (go_on.clone(), gate.clone());
    let (_server, io) = start(move |mut request| {
        let (go_on, gate) = (go_on.clone(), gate.clone());
        Box::pin(async move {
            let piece = body_piece(&mut request.downstream).await.unwrap().unwrap();
            gate.notify_one();
            go_on.notified().await;
            let mut received = piece.len();
            while let Some(piece) = body_piece(&mut request.downstream).await.unwrap() {
                received += piece.len();
            }
            respond(&mut request, received.to_string().as_bytes()).await
        })
    });
    let (mut client, _driver) = client(io).await;
    let (response, mut upload) = client.send_request(post("/"), false).unwrap();
    upload.reserve_capacity(200_000);
    let mut sent = 0;
    while sent < 65_535 {
        let capacity = poll_fn(|cx| upload.poll_capacity(cx)).await;
        let capacity = capacity.unwrap().unwrap();
        let piece = Bytes::from(vec![0; capacity]);
        upload.send_data(piece, false).unwrap();
        sent += capacity;
    }
    reached.notified().await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let blocked = futures::FutureExt::now_or_never(poll_fn(|cx| upload.poll_capacity(cx)));
    assert!(blocked.is_none(), "the windows are closed");
    assert_eq!(sent, 65_535);
    resume.notify_one();
    while sent < 200_000 {
        let capacity = poll_fn(|cx| upload.poll_capacity(cx))
            .await
            .unwrap()
            .unwrap();
        upload
            .send_data(Bytes::from(vec![0; capacity]), false)
            .unwrap();
        sent += capacity;
    }
    upload.send_data(Bytes::new(), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(
        read_all(&mut body).await.unwrap(),
        sent.to_string().as_bytes()
    );
}

#[tokio::test]
async fn an_early_answer_is_complete_and_then_stops_the_upload() {
    let (_server, io) = start(|mut request| {
        Box::pin(async move { respond(&mut request, &vec![b'x'; 100_000]).await })
    });
    let (mut client, _driver) = client(io).await;
    let (response, mut upload) = client.send_request(post("/"), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(read_all(&mut body).await.unwrap().len(), 100_000);
    let reset = poll_fn(|cx| upload.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::NO_ERROR);
}

#[tokio::test]
async fn a_truncated_response_does_not_look_complete() {
    let (_server, io) = start(|mut request| {
        Box::pin(async move {
            let head = head_of(200, &[], BodySize::Known(10));
            request.downstream.queue_head(head, false).unwrap();
            assert!(request.downstream.is_answered());
            let target = request.head.target().to_owned();
            let part = write(&mut request.downstream, b"abc", false).await.unwrap();
            assert_eq!(part, 3);
            match target.as_str() {
                "/abort" => request.downstream.abort(),
                "/short" => assert!(finish(&mut request.downstream, None).await.is_err()),
                "/long" => {
                    let long = write(&mut request.downstream, b"12345678", false).await;
                    assert!(long.is_err());
                }
                _ => {}
            }
            Served::Aborted
        })
    });
    let (mut client, _driver) = client(io).await;
    for path in ["/abort", "/short", "/long", "/dropped"] {
        let (response, _) = client.send_request(get(path), true).unwrap();
        let result = match response.await {
            Ok(mut response) => read_all(response.body_mut()).await,
            Err(error) => Err(error),
        };
        let error = result.unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{path}: {error}");
    }
}

#[tokio::test]
async fn a_body_that_differs_from_its_length_is_an_error() {
    let (result, mut results) = mpsc::unbounded_channel();
    let (_server, io) = start(move |mut request| {
        let result = result.clone();
        Box::pin(async move {
            assert_eq!(request.head.body, BodySize::Known(5));
            let error = loop {
                match body_piece(&mut request.downstream).await {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some((error.side, error.kind)),
                }
            };
            result.send(error).unwrap();
            Served::Aborted
        })
    });
    let (mut client, _driver) = client(io).await;
    for body in ["1234", "123456"] {
        let mut head = post("/");
        head.headers_mut().insert("content-length", 5.into());
        let (response, mut upload) = client.send_request(head, false).unwrap();
        upload.send_data(body.into(), true).unwrap();
        assert!(response.await.is_err());
        let error = results.recv().await.unwrap().unwrap();
        let expected = (
            crate::proxy::error::Side::Caller,
            crate::proxy::error::ErrorKind::InvalidMessage,
        );
        assert_eq!(error, expected, "{body}");
    }
}

#[tokio::test]
async fn requests_notice_that_their_stream_was_reset_or_their_connection_lost() {
    let (event, mut events) = mpsc::unbounded_channel();
    let (server, io) = start(move |mut request| {
        let event = event.clone();
        Box::pin(async move {
            event.send("begun").unwrap();
            poll_fn(|cx| request.downstream.poll_gone(cx)).await;
            event.send("gone").unwrap();
            Served::Aborted
        })
    });
    let (mut client, driver) = client(io).await;
    let (response, mut upload) = client.send_request(post("/"), false).unwrap();
    assert_eq!(events.recv().await, Some("begun"));
    upload.send_reset(Reason::CANCEL);
    assert_eq!(events.recv().await, Some("gone"));
    drop(response);
    let _open = client.send_request(get("/"), true).unwrap();
    assert_eq!(events.recv().await, Some("begun"));
    driver.abort();
    assert_eq!(events.recv().await, Some("gone"));
    server.task.await.unwrap();
}

#[tokio::test]
async fn rapid_resets_close_the_connection() {
    let (_server, io) = start(|mut request| {
        Box::pin(async move {
            poll_fn(|cx| request.downstream.poll_gone(cx)).await;
            Served::Aborted
        })
    });
    let (mut client, driver) = client(io).await;
    // All of these arrive before any of them is accepted.
    for _ in 0..2 * PENDING_RESETS {
        let Ok((_, mut upload)) = client.send_request(post("/"), false) else {
            break;
        };
        upload.send_reset(Reason::CANCEL);
    }
    let error = driver.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test(start_paused = true)]
async fn the_preface_must_arrive_in_time() {
    let (server, mut io) = start(|_| Box::pin(async { Served::KeepAlive }));
    io.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    server.task.await.unwrap();
    let mut received = Vec::new();
    io.read_to_end(&mut received).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_connections_close_early_until_a_request_was_admitted() {
    let elapsed = async |requests: usize| {
        let (server, io) =
            start(|mut request| Box::pin(async move { respond(&mut request, b"ok").await }));
        let (mut client, driver) = client(io).await;
        let begin = crate::proxy::deadline::now();
        for _ in 0..requests {
            let (response, _) = client.send_request(get("/"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        }
        driver.await.unwrap().unwrap();
        server.task.await.unwrap();
        crate::proxy::deadline::now() - begin
    };
    let limits = limits();
    assert_eq!(
        elapsed(0).await.as_secs(),
        limits.unadmitted_keepalive.as_secs()
    );
    assert_eq!(
        elapsed(2).await.as_secs(),
        limits.keepalive_timeout.as_secs()
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_in_progress_keeps_its_connection_open() {
    let (server, io) = start(|mut request| {
        Box::pin(async move {
            tokio::time::sleep(20 * TIMEOUT).await;
            respond(&mut request, b"late").await
        })
    });
    let (mut client, _driver) = client(io).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    assert!(!server.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn requests_finish_during_a_drain_and_new_ones_are_refused() {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (reached, go_on) = (begun.clone(), release.clone());
    let (server, io) = start(move |mut request| {
        let (begun, release) = (begun.clone(), release.clone());
        Box::pin(async move {
            begun.notify_one();
            release.notified().await;
            respond(&mut request, b"ok").await
        })
    });
    let (mut client, driver) = client(io).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    reached.notified().await;
    server.signal.evict();
    tokio::time::sleep(10 * GOAWAY_TIMEOUT).await;
    assert!(client.send_request(get("/"), true).is_err(), "GOAWAY");
    go_on.notify_one();
    assert_eq!(response.await.unwrap().status(), 200);
    server.task.await.unwrap();
    driver.await.unwrap().unwrap();
}

/// The connection preface, with a SETTINGS frame that opens the window of each stream.
const PREFACE: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff";
/// Opens the window of the connection, and sends `GET /` for the authority `a`.
const GET: &[u8] =
    b"\0\0\x04\x08\0\0\0\0\0\x7f\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";

/// Reads frames up to the end of the connection: type, flags and payload of each.
async fn frames(mut io: DuplexStream) -> Vec<(u8, u8, Vec<u8>)> {
    let mut received = Vec::new();
    io.read_to_end(&mut received).await.unwrap();
    let mut frames = Vec::new();
    let mut rest = &received[..];
    while let [a, b, c, kind, flags, ..] = *rest {
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        frames.push((kind, flags, rest[9..end].to_vec()));
        rest = &rest[end..];
    }
    frames
}

/// Returns the last streams and the errors of the GOAWAY frames.
fn goaways(frames: &[(u8, u8, Vec<u8>)]) -> Vec<(u32, u32)> {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let goaways = frames.iter().filter(|frame| frame.0 == 7);
    goaways
        .map(|(_, _, payload)| (number(&payload[..4]), number(&payload[4..8])))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_silent_holds_up_neither_an_eviction_nor_a_drain() {
    type End = fn(&Signal);
    for (end, limit) in [
        (Signal::evict as End, GOAWAY_TIMEOUT),
        (Signal::set_closing, DRAIN_GOAWAY_TIMEOUT),
    ] {
        let (answered, mut done) = mpsc::unbounded_channel();
        let (server, mut io) = start(move |mut request| {
            let answered = answered.clone();
            Box::pin(async move {
                let result = respond(&mut request, b"ok").await;
                answered.send(()).unwrap();
                result
            })
        });
        io.write_all(PREFACE).await.unwrap();
        io.write_all(GET).await.unwrap();
        done.recv().await.unwrap();
        end(&server.signal);
        let begin = crate::proxy::deadline::now();
        server.task.await.unwrap();
        assert!(crate::proxy::deadline::now() - begin <= 2 * limit);
        let goaways = goaways(&frames(io).await);
        // It learns which requests it can send again.
        assert_eq!(goaways, [(0x7fff_ffff, 0), (1, 0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_truncate_what_a_caller_takes_slowly() {
    let (answered, mut done) = mpsc::unbounded_channel();
    let (server, mut io) = start(move |mut request| {
        let answered = answered.clone();
        Box::pin(async move {
            // A little more than fits into the buffer of the socket.
            let result = respond(&mut request, &vec![b'x'; 270_000]).await;
            answered.send(()).unwrap();
            result
        })
    });
    io.write_all(PREFACE).await.unwrap();
    io.write_all(GET).await.unwrap();
    done.recv().await.unwrap();
    server.signal.set_closing();
    tokio::time::sleep(5 * DRAIN_GOAWAY_TIMEOUT).await;
    assert!(!server.task.is_finished());
    let frames = frames(io).await;
    let content = frames.iter().filter(|frame| frame.0 == 0);
    let length: usize = content.clone().map(|frame| frame.2.len()).sum();
    assert_eq!(
        (length, content.clone().next_back().unwrap().1),
        (270_000, 1)
    );
    assert_eq!(goaways(&frames).last(), Some(&(1, 0)));
    server.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_read_from_its_socket_is_disconnected() {
    let (server, mut io) = start(|_| Box::pin(async { Served::KeepAlive }));
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    // The answers to PING frames fill the buffer of the socket.
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat();
    while io.write_all(&ping.repeat(1000)).await.is_ok() {}
    server.task.await.unwrap();
}
