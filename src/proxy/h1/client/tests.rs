use std::future::poll_fn;

use futures::FutureExt;
use http::{StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::clock::{Clock, ManualClock, UnixMillis};
use crate::gateway::route::tests as fixture;
use crate::proxy::head::{BodySize, FieldList};

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// A session over a new connection, and its other end.
struct Fixture {
    clock: Arc<ManualClock>,
    pool: Arc<Pool>,
    upstream: Arc<Upstream>,
    session: Session,
    peer: DuplexStream,
}

impl Fixture {
    fn new(room: usize) -> Self {
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        let pool = Pool::new(clock.clone());
        let upstream = Arc::new(fixture::upstream());
        let (local, peer) = duplex(room);
        let session = pool.begin(&upstream, ADDRESS, Box::new(local));
        Self {
            clock,
            pool,
            upstream,
            session,
            peer,
        }
    }

    /// A session whose request, without a body, was sent, and whose upstream answers so.
    async fn answered(method: Method, answer: &[u8]) -> Self {
        let mut this = Self::new(1 << 20);
        send(&mut this.session, method, BodySize::Empty, b"").await;
        this.peer.write_all(answer).await.unwrap();
        this
    }

    /// Releases the connection. Returns whether it can be taken again.
    fn reuse(&mut self) -> bool {
        let now = self.clock.monotonic();
        self.session.release(now);
        let again = self.pool.take(&self.upstream, ADDRESS, now);
        assert!(again.as_ref().is_none_or(Session::is_reused));
        again.is_some()
    }
}

async fn send(session: &mut Session, method: Method, body: BodySize, content: &'static [u8]) {
    let mut fields = FieldList::with_capacity(1, 16);
    fields.push(b"Host", b"x");
    let target = (None, Bytes::from_static(b"/"));
    let head = RequestHead::new(method, Version::HTTP_11, target, fields, body);
    session.queue_head(&head, "/").unwrap();
    let mut content = Bytes::from_static(content);
    poll_fn(|cx| session.poll_write(cx, &mut content, true))
        .await
        .unwrap();
    assert!(content.is_empty());
    poll_fn(|cx| session.poll_finish(cx, &mut None))
        .await
        .unwrap();
}

async fn head(session: &mut Session) -> Result<ResponseHead, RelayError> {
    poll_fn(|cx| session.poll_head(cx)).await
}

async fn whole_body(session: &mut Session) -> Result<Vec<u8>, RelayError> {
    let mut whole = Vec::new();
    while poll_fn(|cx| session.poll_body(cx)).await? {
        assert!(!session.chunk().is_empty());
        // Not all at once.
        let part = session.chunk().len().div_ceil(2);
        whole.extend_from_slice(&session.chunk()[..part]);
        session.consume(part);
    }
    assert!(session.ends_with_chunk() && session.chunk().is_empty());
    Ok(whole)
}

#[tokio::test]
async fn a_connection_is_reused_after_a_complete_exchange_only() {
    for (method, answer, content, reused) in [
        (
            Method::GET,
            "200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "hello",
            true,
        ),
        (
            Method::GET,
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nT: v\r\n\r\n",
            "hello",
            true,
        ),
        (
            Method::GET,
            "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
            false,
        ),
        (
            Method::GET,
            "200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            "hello",
            false,
        ),
        (
            Method::GET,
            "200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK",
            "hello",
            false,
        ),
        (
            Method::GET,
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
            "",
            false,
        ),
        (Method::GET, "204 No Content\r\n\r\n", "", true),
        (
            Method::GET,
            "304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "",
            true,
        ),
        (
            Method::HEAD,
            "200 OK\r\nContent-Length: 5\r\n\r\n",
            "",
            true,
        ),
        (
            Method::HEAD,
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "",
            true,
        ),
        (
            Method::HEAD,
            "200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "",
            false,
        ),
    ] {
        let answer = format!("HTTP/1.1 {answer}");
        let mut fixture = Fixture::answered(method, answer.as_bytes()).await;
        head(&mut fixture.session).await.unwrap();
        assert_eq!(
            whole_body(&mut fixture.session).await.unwrap(),
            content.as_bytes()
        );
        assert_eq!(fixture.reuse(), reused, "{answer}");
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
    let mut fixture = Fixture::answered(Method::GET, answer).await;
    head(&mut fixture.session).await.unwrap();
    assert!(poll_fn(|cx| fixture.session.poll_body(cx)).await.unwrap());
    assert!(!fixture.reuse(), "an incomplete response");
}

#[tokio::test]
async fn responses_are_received_in_any_pieces() {
    let answer: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    for room in [1, 2, 3, 5, 7, 50, 1000] {
        let mut fixture = Fixture::new(room);
        let mut peer = fixture.peer;
        let answering = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(peer.read_u8().await.unwrap());
            }
            peer.write_all(answer).await.unwrap();
            (request, peer)
        });
        let session = &mut fixture.session;
        send(session, Method::GET, BodySize::Empty, b"").await;
        let interim = head(session).await.unwrap();
        assert_eq!(
            (interim.status.as_u16(), interim.body),
            (103, BodySize::Empty)
        );
        assert_eq!(head(session).await.unwrap().status, StatusCode::OK);
        assert_eq!(whole_body(session).await.unwrap(), b"hello");
        let (request, peer) = answering.await.unwrap();
        assert_eq!(request, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        fixture.peer = peer;
        let now = fixture.clock.monotonic();
        fixture.session.release(now);
        assert!(fixture.pool.take(&fixture.upstream, ADDRESS, now).is_some());
    }
}

#[tokio::test]
async fn small_chunks_that_arrive_together_are_one_piece() {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    answer.extend_from_slice(&b"2\r\nab\r\n".repeat(100));
    answer.extend_from_slice(b"0\r\n\r\n");
    let mut fixture = Fixture::answered(Method::GET, &answer).await;
    let session = &mut fixture.session;
    head(session).await.unwrap();
    assert!(poll_fn(|cx| session.poll_body(cx)).await.unwrap());
    assert_eq!(session.chunk(), b"ab".repeat(100));
    assert!(session.ends_with_chunk());
    session.consume(200);
    assert!(!poll_fn(|cx| session.poll_body(cx)).await.unwrap());
    assert!(!poll_fn(|cx| session.poll_body(cx)).await.unwrap());
}

#[tokio::test]
async fn bodies_until_the_end_of_the_connection_end_there() {
    let mut fixture = Fixture::answered(Method::GET, b"HTTP/1.1 200 OK\r\n\r\nhel").await;
    fixture.peer.write_all(b"lo").await.unwrap();
    fixture.peer.shutdown().await.unwrap();
    head(&mut fixture.session).await.unwrap();
    assert_eq!(whole_body(&mut fixture.session).await.unwrap(), b"hello");
    assert!(!fixture.reuse());
}

#[tokio::test]
async fn truncated_and_malformed_bodies_fail() {
    for (answer, kind) in [
        ("Content-Length: 5\r\n\r\nhel", ErrorKind::Closed),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            ErrorKind::Closed,
        ),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n", ErrorKind::Closed),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\nhello",
            ErrorKind::InvalidMessage,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello",
            ErrorKind::InvalidMessage,
        ),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
        let mut fixture = Fixture::answered(Method::GET, answer.as_bytes()).await;
        fixture.peer.shutdown().await.unwrap();
        head(&mut fixture.session).await.unwrap();
        let error = whole_body(&mut fixture.session).await.unwrap_err();
        assert_eq!(
            (error.side, error.kind, error.retry),
            (Side::Upstream, kind, Retry::Never),
            "{answer}"
        );
        assert!(!fixture.reuse());
    }
}

#[tokio::test]
async fn only_a_connection_that_ends_before_the_response_may_have_been_dead() {
    for (answer, retry) in [
        ("", Retry::IfReused),
        ("H", Retry::Never),
        ("HTTP/1.1 100 Continue\r\n\r\n", Retry::Never),
    ] {
        let mut fixture = Fixture::answered(Method::GET, answer.as_bytes()).await;
        fixture.peer.shutdown().await.unwrap();
        if answer.contains("100") {
            head(&mut fixture.session).await.unwrap();
        }
        let error = head(&mut fixture.session).await.err().unwrap();
        assert_eq!(
            (error.kind, error.retry),
            (ErrorKind::Closed, retry),
            "{answer:?}"
        );
    }
    let mut fixture = Fixture::answered(Method::GET, b"HTTP/1.1 200 OK\r\n folded\r\n\r\n").await;
    let error = head(&mut fixture.session).await.err().unwrap();
    assert_eq!(
        (error.kind, error.retry),
        (ErrorKind::InvalidMessage, Retry::Never)
    );
}

#[tokio::test]
async fn an_upload_is_framed_and_the_end_is_sent_with_it() {
    for (size, expected) in [
        (BodySize::Known(5), "Content-Length: 5\r\n\r\nhello"),
        (
            BodySize::Unknown,
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        let mut fixture = Fixture::new(1024);
        send(&mut fixture.session, Method::PUT, size, b"hello").await;
        let mut request = BytesMut::with_capacity(1024);
        let read = fixture.peer.read_buf(&mut request).now_or_never();
        assert!(read.unwrap().unwrap() > 0);
        let request = String::from_utf8(request.to_vec()).unwrap();
        assert_eq!(request, format!("PUT / HTTP/1.1\r\nHost: x\r\n{expected}"));
    }
}

#[tokio::test]
async fn an_answer_is_read_although_the_upstream_takes_no_more() {
    let mut fixture = Fixture::new(64);
    let mut peer = fixture.peer;
    let answering = tokio::spawn(async move {
        peer.read_u8().await.unwrap();
        peer.write_all(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        // Writing to it fails from now on, but what it has sent can be read.
    });
    let content: &[u8] = &[b'x'; 1000];
    send(
        &mut fixture.session,
        Method::PUT,
        BodySize::Known(1000),
        content,
    )
    .await;
    answering.await.unwrap();
    let answer = head(&mut fixture.session).await.unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!poll_fn(|cx| fixture.session.poll_body(cx)).await.unwrap());
    let now = fixture.clock.monotonic();
    fixture.session.release(now);
    assert!(fixture.pool.take(&fixture.upstream, ADDRESS, now).is_none());

    // Without an answer, the write's error counts.
    let mut fixture = Fixture::new(64);
    drop(fixture.peer);
    send(
        &mut fixture.session,
        Method::PUT,
        BodySize::Known(1000),
        content,
    )
    .await;
    let error = head(&mut fixture.session).await.err().unwrap();
    assert_eq!(
        (error.kind, error.retry),
        (ErrorKind::WriteFailed, Retry::IfReused)
    );
}

#[tokio::test]
async fn an_answer_can_precede_the_end_of_the_upload() {
    let mut fixture = Fixture::new(1024);
    let session = &mut fixture.session;
    let mut fields = FieldList::with_capacity(1, 16);
    fields.push(b"Host", b"x");
    let target = (None, Bytes::from_static(b"/"));
    let request = RequestHead::new(
        Method::POST,
        Version::HTTP_11,
        target,
        fields,
        BodySize::Known(10),
    );
    session.queue_head(&request, "/").unwrap();
    let mut part = Bytes::from_static(b"hello");
    poll_fn(|cx| session.poll_write(cx, &mut part, false))
        .await
        .unwrap();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    fixture.peer.write_all(answer).await.unwrap();
    assert_eq!(head(session).await.unwrap().status, StatusCode::OK);
    assert_eq!(whole_body(session).await.unwrap(), b"ok");
    let now = fixture.clock.monotonic();
    session.release(now);
    assert!(
        fixture.pool.take(&fixture.upstream, ADDRESS, now).is_none(),
        "the upload is incomplete"
    );
    let mut rest = Bytes::from_static(b"world");
    poll_fn(|cx| session.poll_write(cx, &mut rest, true))
        .await
        .unwrap();
    session.release(now);
    assert!(fixture.pool.take(&fixture.upstream, ADDRESS, now).is_some());
}

#[tokio::test]
async fn after_101_bytes_are_transferred_as_they_are() {
    let mut fixture = Fixture::new(1024);
    let session = &mut fixture.session;
    let mut fields = FieldList::with_capacity(3, 64);
    for (name, value) in [
        ("Host", "x"),
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
    ] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let target = (None, Bytes::from_static(b"/"));
    let request = RequestHead::new(
        Method::GET,
        Version::HTTP_11,
        target,
        fields,
        BodySize::Empty,
    );
    session.queue_head(&request, "/").unwrap();
    poll_fn(|cx| session.poll_finish(cx, &mut None))
        .await
        .unwrap();
    let mut sent = BytesMut::with_capacity(1024);
    fixture.peer.read_buf(&mut sent).await.unwrap();
    assert!(sent.ends_with(b"Upgrade: websocket\r\n\r\n"));
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nframe";
    fixture.peer.write_all(answer).await.unwrap();
    assert_eq!(
        head(session).await.unwrap().status,
        StatusCode::SWITCHING_PROTOCOLS
    );
    assert!(poll_fn(|cx| session.poll_body(cx)).await.unwrap());
    assert_eq!(session.chunk(), b"frame");
    assert!(!session.ends_with_chunk());
    session.consume(5);
    let mut piece = Bytes::from_static(b"up");
    poll_fn(|cx| session.poll_write(cx, &mut piece, false))
        .await
        .unwrap();
    poll_fn(|cx| session.poll_finish(cx, &mut None))
        .await
        .unwrap();
    let mut rest = Vec::new();
    fixture.peer.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"up");
    fixture.peer.shutdown().await.unwrap();
    assert!(!poll_fn(|cx| session.poll_body(cx)).await.unwrap());
    assert!(!fixture.reuse());
}

#[tokio::test]
async fn a_receiver_that_stalls_holds_little_memory() {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec();
    answer.resize(500_000, b'x');
    let mut fixture = Fixture::answered(Method::GET, &answer).await;
    let session = &mut fixture.session;
    head(session).await.unwrap();
    let mut pieces = 0;
    while let Some(more) = poll_fn(|cx| session.poll_body(cx)).now_or_never() {
        assert!(more.unwrap());
        assert!(session.received.capacity() <= 32 * 1024);
        session.consume(session.chunk().len());
        pieces += 1;
    }
    assert!(pieces < 40, "{pieces}");
    assert!(
        session.received.capacity() <= HEAD_READ,
        "nothing is held while nothing arrives"
    );
}

#[tokio::test]
async fn an_upstream_cannot_send_interim_responses_forever() {
    let large = "x".repeat(InterimLimit::BYTES / 4);
    for (value, allowed) in [("", InterimLimit::HEADS), (&large, 3)] {
        let interim = format!("HTTP/1.1 103 Early Hints\r\nA: {value}\r\n\r\n");
        let allowed = allowed as usize;
        let sent = interim.repeat(allowed + 1);
        let mut fixture = Fixture::answered(Method::GET, sent.as_bytes()).await;
        for _ in 0..allowed {
            let head = head(&mut fixture.session).await.unwrap();
            assert_eq!(head.status, StatusCode::EARLY_HINTS);
        }
        let error = head(&mut fixture.session).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::InvalidMessage);
        assert!(!fixture.reuse());
    }
}
