//! Tests over in-memory streams, with the server of `h2` as upstream.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use h2::server::{Connection, SendResponse};
use http::{Response, StatusCode, Version, header};
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::gateway::route::{Upstream, tests as fixture};
use crate::header_fields::HeaderFields;
use crate::proxy::head::FieldList;

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const IDLE: Duration = Duration::from_secs(1);

type Incoming = (http::Request<RecvStream>, SendResponse<Bytes>);

/// A pool, and the upstream that it leads to.
struct Fixture {
    clock: Arc<ManualClock>,
    pool: Arc<Pool>,
    upstream: Arc<Upstream>,
}

/// The upstream's end of a connection.
struct Peer(Connection<DuplexStream, Bytes>);

impl Peer {
    /// Waits for the next request.
    async fn accept(&mut self) -> Incoming {
        self.0.accept().await.unwrap().unwrap()
    }

    /// Waits until the connection is closed.
    async fn closed(&mut self) {
        assert!(!matches!(self.0.accept().await, Some(Ok(_))));
    }

    /// Serves the connection while `test` runs.
    async fn during<T>(&mut self, test: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            output = test => output,
            _ = poll_fn(|cx| self.0.poll_closed(cx)) => panic!("the connection has closed"),
        }
    }
}

impl Fixture {
    fn new() -> Self {
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        Self {
            pool: Pool::new(clock.clone()),
            clock,
            upstream: Arc::new(fixture::upstream()),
        }
    }

    fn take(&self) -> Option<Session> {
        self.pool.take(&self.upstream, ADDRESS)
    }

    /// Opens a connection.
    async fn connect(&self) -> (Session, Peer) {
        self.connect_with(&h2::server::Builder::new()).await
    }

    async fn connect_with(&self, builder: &h2::server::Builder) -> (Session, Peer) {
        let (io, peer) = duplex(1 << 20);
        let connecting = self.pool.connect(&self.upstream, ADDRESS, io);
        let (session, peer) = tokio::join!(connecting, builder.handshake(peer));
        (session.unwrap(), Peer(peer.unwrap()))
    }
}

fn request(method: Method, fields: &[(&str, &str)], body: BodySize) -> RequestHead {
    let fields = [("Host", "up.example.com:8443")].iter().chain(fields);
    let fields: Vec<_> = fields.map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    let target = Bytes::from_static(b"/ignored");
    let fields = FieldList::of(fields.into_iter(), 0);
    RequestHead::new(method, Version::HTTP_11, (None, target), fields, body)
}

/// Sends a GET.
fn send_get(session: &mut Session) {
    let head = request(Method::GET, &[], BodySize::Empty);
    session.queue_head(&head, "/t").unwrap();
}

async fn head_of(session: &mut Session) -> Result<ResponseHead, RelayError> {
    poll_fn(|cx| session.poll_head(cx)).await
}

async fn write(session: &mut Session, content: &'static [u8], end: bool) -> Result<(), RelayError> {
    let mut content = Bytes::from_static(content);
    poll_fn(|cx| session.poll_write(cx, &mut content, end)).await
}

/// Reads the body to its end.
async fn read_all(session: &mut Session) -> Result<Vec<u8>, RelayError> {
    let mut all = Vec::new();
    while poll_fn(|cx| session.poll_body(cx)).await? {
        let chunk = session.chunk().to_vec();
        session.consume(chunk.len());
        all.extend(chunk);
    }
    Ok(all)
}

fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in fields {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}

fn text<'f>(fields: &'f FieldList, name: &http::HeaderName) -> Option<&'f str> {
    fields
        .first(name)
        .map(|value| std::str::from_utf8(value).unwrap())
}

#[tokio::test]
async fn requests_are_converted() {
    let fixture = Fixture::new();
    let (mut session, mut peer) = fixture.connect().await;
    assert!(!session.is_reused());
    let fields = [
        ("X-A", "1"),
        ("x-a", "2"),
        ("Connection", "x"),
        ("Keep-Alive", "x"),
        ("Transfer-Encoding", "chunked"),
        ("TE", "gzip, Trailers"),
        ("Authorization", "Hawk x"),
    ];
    let head = request(Method::POST, &fields, BodySize::Empty);
    session.queue_head(&head, "/t?q=%2F").unwrap();
    let (received, _respond) = peer.accept().await;
    assert!(received.body().is_end_stream());
    let (parts, _) = received.into_parts();
    assert_eq!(parts.method, Method::POST);
    assert_eq!(parts.uri.to_string(), "https://up.example.com:8443/t?q=%2F");
    let mut seen: Vec<_> = parts
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
        .collect();
    seen.sort_unstable();
    let expected = [
        ("authorization", "Hawk x"),
        ("content-length", "0"),
        ("te", "trailers"),
        ("x-a", "1"),
        ("x-a", "2"),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn bodies_and_trailers_pass_in_both_directions_within_the_windows() {
    let fixture = Fixture::new();
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(10);
    let (mut session, mut peer) = fixture.connect_with(&builder).await;
    // Lets the client see the settings of the server.
    let ready = async { tokio::task::yield_now().await };
    peer.during(ready).await;
    let head = request(Method::PUT, &[], BodySize::Unknown);
    session.queue_head(&head, "/t").unwrap();
    let mut content = Bytes::from_static(b"0123456789abcdef");
    let caller = async {
        poll_fn(|cx| session.poll_write(cx, &mut content, false))
            .await
            .unwrap();
        let mut trailers = Some(HeaderMap::new());
        trailers
            .as_mut()
            .unwrap()
            .insert("x-sum", "1".parse().unwrap());
        poll_fn(|cx| session.poll_finish(cx, &mut trailers))
            .await
            .unwrap();
        let head = head_of(&mut session).await.unwrap();
        assert_eq!(head.body, BodySize::Unknown);
        let body = read_all(&mut session).await.unwrap();
        (body, session.take_trailers())
    };
    let upstream = async {
        let (received, mut respond) = peer.accept().await;
        let mut body = received.into_body();
        let serving = async {
            let mut all = Vec::new();
            while let Some(piece) = body.data().await {
                let piece = piece.unwrap();
                assert!(piece.len() <= 10);
                body.flow_control().release_capacity(piece.len()).unwrap();
                all.extend_from_slice(&piece);
            }
            assert_eq!(all, b"0123456789abcdef");
            assert_eq!(
                body.trailers()
                    .await
                    .unwrap()
                    .unwrap()
                    .get("x-sum")
                    .unwrap(),
                "1"
            );
            let mut content = respond.send_response(response(200, &[]), false).unwrap();
            content
                .send_data(Bytes::from(vec![b'y'; 300_000]), false)
                .unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            content.send_trailers(trailers).unwrap();
        };
        peer.during(serving).await;
        peer.during(std::future::pending::<()>()).await;
    };
    let (body, trailers) = tokio::select! {
        output = caller => output,
        () = upstream => unreachable!(),
    };
    assert_eq!(body.len(), 300_000);
    assert_eq!(trailers.unwrap().get("grpc-status").unwrap(), "0");
}

#[tokio::test]
async fn responses_are_converted() {
    let fixture = Fixture::new();
    let (first, mut peer) = fixture.connect().await;
    let mut first = Some(first);
    let cases = [
        (
            Method::GET,
            200,
            &[("content-length", "0"), ("date", "d")][..],
            BodySize::Known(0),
            Some("0"),
        ),
        (Method::GET, 200, &[], BodySize::Known(0), None),
        (
            Method::GET,
            204,
            &[("content-length", "0")],
            BodySize::Empty,
            None,
        ),
        (
            Method::GET,
            304,
            &[("content-length", "9")],
            BodySize::Empty,
            Some("9"),
        ),
        (
            Method::HEAD,
            200,
            &[("content-length", "9"), ("content-length", "9")],
            BodySize::Empty,
            Some("9"),
        ),
    ];
    for (method, status, fields, size, length) in cases {
        let mut session = first.take().unwrap_or_else(|| fixture.take().unwrap());
        let head = request(method, &[], BodySize::Empty);
        session.queue_head(&head, "/t").unwrap();
        let (_, mut respond) = peer.accept().await;
        respond
            .send_response(response(status, fields), true)
            .unwrap();
        let head = peer.during(head_of(&mut session)).await.unwrap();
        assert_eq!((head.status.as_u16(), head.body), (status, size));
        assert_eq!(text(&head.fields, &header::CONTENT_LENGTH), length);
        assert!(session.ends_with_chunk());
        assert_eq!(read_all(&mut session).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn the_end_is_known_with_the_last_piece_unless_trailers_follow() {
    let fixture = Fixture::new();
    let (mut session, mut peer) = fixture.connect().await;
    for with_trailers in [false, true] {
        send_get(&mut session);
        let (_, mut respond) = peer.accept().await;
        let mut content = respond.send_response(response(200, &[]), false).unwrap();
        content.send_data("abc".into(), !with_trailers).unwrap();
        if with_trailers {
            content.send_trailers(HeaderMap::new()).unwrap();
        }
        let read = async {
            head_of(&mut session).await.unwrap();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert!(poll_fn(|cx| session.poll_body(cx)).await.unwrap());
        };
        peer.during(read).await;
        assert_eq!(session.chunk(), b"abc");
        assert_eq!(session.ends_with_chunk(), !with_trailers);
        session = fixture.take().unwrap();
    }
}

#[tokio::test]
async fn interim_responses_come_before_the_final_one() {
    let fixture = Fixture::new();
    let (mut session, mut peer) = fixture.connect().await;
    let head = request(Method::POST, &[], BodySize::Known(3));
    session.queue_head(&head, "/t").unwrap();
    assert!(futures::FutureExt::now_or_never(head_of(&mut session)).is_none());
    let (_, mut respond) = peer.accept().await;
    for status in [100, 103] {
        let head = response(status, &[("link", "<x>"), ("content-length", "3")]);
        respond.send_informational(head).unwrap();
    }
    for status in [100, 103] {
        let head = peer.during(head_of(&mut session)).await.unwrap();
        assert_eq!((head.status.as_u16(), head.body), (status, BodySize::Empty));
        assert_eq!(text(&head.fields, &header::LINK), Some("<x>"));
        assert_eq!(text(&head.fields, &header::CONTENT_LENGTH), None);
    }
    peer.during(write(&mut session, b"abc", true))
        .await
        .unwrap();
    respond.send_response(response(200, &[]), true).unwrap();
    let head = peer.during(head_of(&mut session)).await.unwrap();
    assert_eq!(head.status, StatusCode::OK);
}

#[tokio::test]
async fn the_size_of_interim_responses_is_limited() {
    let fixture = Fixture::new();
    let (mut session, mut peer) = fixture.connect().await;
    send_get(&mut session);
    let (_, mut respond) = peer.accept().await;
    let value = "x".repeat(InterimLimit::BYTES / 8);
    for _ in 0..8 {
        let mut head = response(103, &[]);
        head.headers_mut().insert("a", value.parse().unwrap());
        respond.send_informational(head).unwrap();
    }
    for _ in 0..7 {
        assert!(peer.during(head_of(&mut session)).await.is_ok());
    }
    let error = peer.during(head_of(&mut session)).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::InvalidMessage);
}

#[tokio::test]
async fn switching_protocols_is_invalid() {
    let fixture = Fixture::new();
    let (mut session, mut peer) = fixture.connect().await;
    send_get(&mut session);
    let (_, mut respond) = peer.accept().await;
    respond.send_informational(response(101, &[])).unwrap();
    let error = peer.during(head_of(&mut session)).await.err().unwrap();
    assert_eq!(
        (error.kind, error.retry),
        (ErrorKind::InvalidMessage, Retry::Never)
    );
}

#[tokio::test]
async fn invalid_responses_are_not_passed_on() {
    let fixture = Fixture::new();
    let (first, mut peer) = fixture.connect().await;
    let mut first = Some(first);
    for (fields, ended) in [
        (&[("x", " y")][..], true),
        (&[("content-length", "1, 1")], false),
        (&[("content-length", "1"), ("content-length", "2")], false),
        (&[("content-length", "-1")], false),
        (&[("content-length", "1")], true),
    ] {
        let mut session = first.take().unwrap_or_else(|| fixture.take().unwrap());
        send_get(&mut session);
        let (_, mut respond) = peer.accept().await;
        let _content = respond.send_response(response(200, fields), ended);
        let error = peer.during(head_of(&mut session)).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::InvalidMessage, "{fields:?}");
        assert_eq!(error.retry, Retry::Never);
    }
}

#[tokio::test]
async fn content_that_differs_from_its_length_is_an_error() {
    let fixture = Fixture::new();
    let (mut session, mut peer) = fixture.connect().await;
    for body in ["ab", "abcd"] {
        send_get(&mut session);
        let (_, mut respond) = peer.accept().await;
        let head = response(200, &[("content-length", "3")]);
        let mut content = respond.send_response(head, false).unwrap();
        let read = async {
            assert_eq!(
                head_of(&mut session).await.unwrap().body,
                BodySize::Known(3)
            );
            content.send_data(body.into(), true).unwrap();
            read_all(&mut session).await
        };
        let error = peer.during(read).await.unwrap_err();
        assert_eq!(
            (error.kind, error.retry),
            (ErrorKind::InvalidMessage, Retry::Never)
        );
        assert!(!session.ends_with_chunk());
        session = fixture.take().unwrap();
    }
}

#[tokio::test]
async fn resets_and_goaway_say_which_retry_is_allowed() {
    for (reason, retry) in [
        (Reason::REFUSED_STREAM, Retry::Unprocessed),
        (Reason::HTTP_1_1_REQUIRED, Retry::WithHttp1),
        (Reason::CANCEL, Retry::Never),
        (Reason::NO_ERROR, Retry::Never),
        (Reason::INTERNAL_ERROR, Retry::Never),
    ] {
        let fixture = Fixture::new();
        let (mut session, mut peer) = fixture.connect().await;
        send_get(&mut session);
        let (_, mut respond) = peer.accept().await;
        respond.send_reset(reason);
        let error = peer.during(head_of(&mut session)).await.err().unwrap();
        assert_eq!(
            (error.kind, error.retry),
            (ErrorKind::Closed, retry),
            "{reason}"
        );
    }
}

/// Frames of a hand-written upstream.
mod raw {
    pub(super) const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    /// GOAWAY without an error, which excludes all streams.
    pub(super) const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
}

#[tokio::test]
async fn streams_that_goaway_excludes_were_not_processed_and_the_connection_is_not_reused() {
    use tokio::io::AsyncWriteExt;
    let fixture = Fixture::new();
    let (io, mut peer) = duplex(1 << 20);
    let mut session = fixture
        .pool
        .connect(&fixture.upstream, ADDRESS, io)
        .await
        .unwrap();
    peer.write_all(raw::SETTINGS).await.unwrap();
    send_get(&mut session);
    peer.write_all(raw::GOAWAY).await.unwrap();
    let error = head_of(&mut session).await.err().unwrap();
    assert_eq!(
        (error.kind, error.retry),
        (ErrorKind::Closed, Retry::Unprocessed)
    );
    assert!(fixture.take().is_none());
}

#[tokio::test]
async fn an_upload_to_a_closing_connection_is_repeated_elsewhere() {
    use tokio::io::AsyncWriteExt;
    let fixture = Fixture::new();
    let (io, mut peer) = duplex(1 << 20);
    let mut session = fixture
        .pool
        .connect(&fixture.upstream, ADDRESS, io)
        .await
        .unwrap();
    let mut late = fixture.take().unwrap();
    peer.write_all(raw::SETTINGS).await.unwrap();
    let head = request(Method::POST, &[], BodySize::Unknown);
    session.queue_head(&head, "/t").unwrap();
    write(&mut session, b"abc", false).await.unwrap();
    peer.write_all(raw::GOAWAY).await.unwrap();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    // Not an error yet: the upstream may have answered.
    write(&mut session, b"abc", true).await.unwrap();
    let error = head_of(&mut session).await.err().unwrap();
    assert_eq!(error.retry, Retry::Unprocessed);
    let error = late
        .queue_head(&request(Method::GET, &[], BodySize::Empty), "/t")
        .err()
        .unwrap();
    assert_eq!(error.retry, Retry::Unprocessed, "nothing was sent");
}

#[tokio::test]
async fn a_lost_connection_allows_a_retry_only_before_the_response() {
    for answered in [false, true] {
        let fixture = Fixture::new();
        let (mut session, mut peer) = fixture.connect().await;
        send_get(&mut session);
        let (_, mut respond) = peer.accept().await;
        let mut content = None;
        if answered {
            content = respond.send_response(response(200, &[]), false).ok();
            peer.during(head_of(&mut session)).await.unwrap();
        }
        drop(peer);
        let error = if answered {
            read_all(&mut session).await.unwrap_err()
        } else {
            head_of(&mut session).await.err().unwrap()
        };
        let retry = if answered {
            Retry::Never
        } else {
            Retry::IfReused
        };
        assert_eq!((error.kind, error.retry), (ErrorKind::Closed, retry));
        assert!(fixture.take().is_none());
        drop((respond, content));
    }
}

#[tokio::test]
async fn an_upstream_may_answer_completely_without_the_rest_of_the_upload() {
    let fixture = Fixture::new();
    let (mut session, mut peer) = fixture.connect().await;
    let head = request(Method::POST, &[], BodySize::Known(1 << 20));
    session.queue_head(&head, "/t").unwrap();
    write(&mut session, b"abc", false).await.unwrap();
    let (received, mut respond) = peer.accept().await;
    let mut content = respond.send_response(response(401, &[]), false).unwrap();
    content.send_data("no".into(), true).unwrap();
    // Ends with RST_STREAM(NO_ERROR).
    drop((received, respond, content));
    let exchange = async {
        let mut rest = Bytes::from(vec![0; 1 << 20]);
        poll_fn(|cx| session.poll_write(cx, &mut rest, true))
            .await
            .unwrap();
        let head = head_of(&mut session).await.unwrap();
        (head.status, read_all(&mut session).await.unwrap())
    };
    let (status, body) = peer.during(exchange).await;
    assert_eq!(
        (status, body.as_slice()),
        (StatusCode::UNAUTHORIZED, &b"no"[..])
    );
}

#[tokio::test]
async fn connections_are_shared_up_to_the_limit_of_the_upstream() {
    let fixture = Fixture::new();
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(3);
    let (mut session, mut peer) = fixture.connect_with(&builder).await;
    send_get(&mut session);
    let _request = peer.accept().await;
    peer.during(async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let second = fixture.take().unwrap();
    assert!(second.is_reused());
    let third = fixture.take().unwrap();
    assert!(fixture.take().is_none());
    drop(second);
    assert!(fixture.take().is_some());
    let other = Arc::new(fixture::upstream());
    assert!(
        fixture.pool.take(&other, ADDRESS).is_none(),
        "equal but different upstream"
    );
    let elsewhere = SocketAddr::new(ADDRESS.ip(), 2);
    assert!(fixture.pool.take(&fixture.upstream, elsewhere).is_none());
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed() {
    let fixture = Fixture::new();
    let (session, mut peer) = fixture.connect().await;
    fixture.clock.advance(10 * IDLE);
    assert!(fixture.take().is_some(), "in use");
    drop(session);
    fixture.clock.advance(IDLE / 2);
    assert!(fixture.take().is_some(), "idle for a moment");
    fixture.clock.advance(IDLE);
    assert!(fixture.take().is_none());
    peer.closed().await;
    // And without anyone looking for one.
    let (session, mut peer) = fixture.connect().await;
    drop(session);
    fixture.clock.advance(IDLE);
    peer.closed().await;
}

#[tokio::test(start_paused = true)]
async fn connections_of_removed_upstreams_close_after_their_last_stream() {
    let mut fixture = Fixture::new();
    let (mut session, mut peer) = fixture.connect().await;
    send_get(&mut session);
    fixture.upstream = Arc::new(fixture::upstream());
    let (_, mut respond) = peer.accept().await;
    let exchange = async {
        tokio::time::sleep(10 * IDLE).await;
        respond.send_response(response(200, &[]), true).unwrap();
        head_of(&mut session).await.unwrap().status
    };
    assert_eq!(peer.during(exchange).await, StatusCode::OK);
    drop((session, respond));
    peer.closed().await;
}

#[tokio::test]
async fn unread_responses_do_not_hold_up_others() {
    let fixture = Fixture::new();
    let (first, mut peer) = fixture.connect().await;
    let mut sessions = vec![first];
    sessions.extend((0..20).map(|_| fixture.take().unwrap()));
    let mut answers = Vec::new();
    for session in &mut sessions {
        send_get(session);
        let (_, mut respond) = peer.accept().await;
        let mut content = respond.send_response(response(200, &[]), false).unwrap();
        content
            .send_data(Bytes::from(vec![0; 200_000]), true)
            .unwrap();
        answers.push(content);
    }
    let mut last = sessions.pop().unwrap();
    let read = async {
        head_of(&mut last).await.unwrap();
        read_all(&mut last).await.unwrap().len()
    };
    assert_eq!(peer.during(read).await, 200_000);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_gets_no_new_streams_once_a_request_was_given_up() {
    let fixture = Fixture::new();
    let (mut given_up, mut peer) = fixture.connect().await;
    let mut waiting = fixture.take().unwrap();
    send_get(&mut given_up);
    send_get(&mut waiting);
    let (_, mut first) = peer.accept().await;
    let (_, mut second) = peer.accept().await;
    peer.during(tokio::time::sleep(4 * IDLE)).await;
    assert!(fixture.take().is_some(), "it may be a long poll");
    drop(given_up);
    assert!(fixture.take().is_none());
    // Until something is received.
    first.send_reset(Reason::CANCEL);
    second.send_response(response(200, &[]), true).unwrap();
    peer.during(head_of(&mut waiting)).await.unwrap();
    assert!(fixture.take().is_some());
    // Connections that stay silent are closed after their last stream.
    let mut given_up = fixture.take().unwrap();
    send_get(&mut given_up);
    drop(waiting);
    let _request = peer.accept().await;
    peer.during(tokio::time::sleep(4 * IDLE)).await;
    drop(given_up);
    assert!(fixture.take().is_none());
    peer.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_fails_once_its_upstream_takes_nothing() {
    let fixture = Fixture::new();
    // Has room for the preface only.
    let (io, _peer) = duplex(32);
    let connecting = fixture.pool.connect(&fixture.upstream, ADDRESS, io);
    let mut session = connecting.await.unwrap();
    send_get(&mut session);
    let limit = 2 * fixture.upstream.timeouts.write;
    let failed = tokio::time::timeout(limit, head_of(&mut session)).await;
    let error = failed.expect("the connection is still open").err().unwrap();
    assert_eq!(
        (error.side, error.kind),
        (Side::Upstream, ErrorKind::Closed)
    );
    assert!(fixture.take().is_none());
}
