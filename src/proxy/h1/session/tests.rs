use std::future::poll_fn;

use bytes::BytesMut;
use futures::FutureExt;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::proxy::h1::head::parse_request;
use crate::proxy::head::{FieldList, RequestHead};
use crate::proxy::validate::{HeadLimits, check_raw};

const LIMITS: HeadLimits = HeadLimits {
    header_bytes: 32 * 1024,
    url_bytes: 8 * 1024,
};

/// A caller's connection with room for this number of bytes in each direction.
fn pair(room: usize) -> (Connection, DuplexStream) {
    let (local, caller) = tokio::io::duplex(room);
    let stream: Stream = Box::new(local);
    (Connection::new(stream), caller)
}

/// Reads the head of the next request and begins its exchange.
async fn begin(connection: &mut Connection) -> (RequestHead, Session<'_>) {
    let end = loop {
        match memchr::memmem::find(connection.received(), b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => assert!(connection.receive().await.unwrap() > 0),
        }
    };
    let head = connection.split_head(0, end);
    let framing = check_raw(&head, &LIMITS).unwrap();
    let head = parse_request(&head, framing).unwrap();
    let session = Session::begin(connection, &head, framing);
    (head, session)
}

async fn body(session: &mut Session<'_>) -> Result<Option<Bytes>, RelayError> {
    poll_fn(|cx| session.poll_body(cx)).await
}

async fn whole_body(session: &mut Session<'_>) -> Result<Vec<u8>, RelayError> {
    let mut whole = Vec::new();
    while let Some(piece) = body(session).await? {
        assert!(!piece.is_empty());
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

fn response(status: u16, body: BodySize) -> ResponseHead {
    let mut fields = FieldList::with_capacity(1, 16);
    fields.push(b"X", b"y");
    ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        reason: None,
        fields,
        body,
    }
}

async fn respond(session: &mut Session<'_>, head: ResponseHead, content: &[u8]) {
    session.queue_head(head, false).unwrap();
    let mut left = content;
    while !left.is_empty() {
        let taken = poll_fn(|cx| session.poll_write(cx, left, false))
            .await
            .unwrap();
        assert!(taken > 0);
        left = &left[taken..];
    }
    poll_fn(|cx| session.poll_finish(cx, &mut None))
        .await
        .unwrap();
}

fn sent(caller: &mut DuplexStream) -> String {
    let mut bytes = BytesMut::new();
    while let Some(Ok(read)) = caller.read_buf(&mut bytes).now_or_never() {
        if read == 0 {
            break;
        }
    }
    String::from_utf8(bytes.to_vec()).unwrap()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const GET_10: &[u8] = b"GET / HTTP/1.0\r\nHost: x\r\n\r\n";

/// The response to `request`, and whether the connection can serve another request.
async fn answer(request: &[u8], head: ResponseHead, content: &[u8]) -> (String, bool) {
    let (mut connection, mut caller) = pair(64 * 1024);
    caller.write_all(request).await.unwrap();
    let (_, mut session) = begin(&mut connection).await;
    respond(&mut session, head, content).await;
    (sent(&mut caller), connection.is_reusable())
}

#[tokio::test]
async fn responses_are_framed_for_the_version_of_the_caller() {
    let begin = "HTTP/1.1 200 OK\r\nX: y\r\n";
    for (request, size, content, expected, reusable) in [
        (
            GET,
            BodySize::Known(2),
            &b"ok"[..],
            "Content-Length: 2\r\n\r\nok",
            true,
        ),
        (
            GET,
            BodySize::Known(0),
            b"",
            "Content-Length: 0\r\n\r\n",
            true,
        ),
        (GET, BodySize::Empty, b"", "Content-Length: 0\r\n\r\n", true),
        (
            GET,
            BodySize::Unknown,
            b"0123456789abcdefg",
            "Transfer-Encoding: chunked\r\n\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n",
            true,
        ),
        (
            GET,
            BodySize::Unknown,
            b"",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            true,
        ),
        (
            GET_10,
            BodySize::Known(2),
            b"ok",
            "Content-Length: 2\r\nConnection: close\r\n\r\nok",
            false,
        ),
        (
            GET_10,
            BodySize::Unknown,
            b"ok",
            "Connection: close\r\n\r\nok",
            false,
        ),
        (
            b"GET / HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n",
            BodySize::Known(2),
            b"ok",
            "Content-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
            true,
        ),
        (
            b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
            BodySize::Unknown,
            b"ok",
            "Connection: close\r\n\r\nok",
            false,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n",
            BodySize::Known(2),
            b"ok",
            "Content-Length: 2\r\nConnection: close\r\n\r\nok",
            false,
        ),
        (
            b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
            BodySize::Known(9),
            b"",
            "Content-Length: 9\r\n\r\n",
            true,
        ),
    ] {
        let (found, reused) = answer(request, response(200, size), content).await;
        assert_eq!(found, format!("{begin}{expected}"));
        assert_eq!(reused, reusable, "{found}");
    }
    for (status, line) in [(204, "204 No Content"), (304, "304 Not Modified")] {
        let (found, reused) = answer(GET, response(status, BodySize::Empty), b"").await;
        assert_eq!(found, format!("HTTP/1.1 {line}\r\nX: y\r\n\r\n"));
        assert!(reused);
    }
}

#[tokio::test]
async fn head_content_and_end_are_one_write() {
    let (mut connection, mut caller) = pair(1024);
    caller.write_all(GET).await.unwrap();
    let (_, mut session) = begin(&mut connection).await;
    session
        .queue_head(response(200, BodySize::Unknown), false)
        .unwrap();
    assert_eq!(sent(&mut caller), "");
    let taken = poll_fn(|cx| session.poll_write(cx, b"hello", true)).await;
    assert_eq!(taken.unwrap(), 5);
    assert!(sent(&mut caller).ends_with("chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    assert!(connection.is_reusable());
}

#[tokio::test]
async fn partial_writes_keep_the_framing_intact() {
    let content: Vec<u8> = (0..200_u8).collect();
    for size in [BodySize::Unknown, BodySize::Known(200)] {
        for room in [1, 2, 3, 7, 50] {
            let (mut connection, mut caller) = pair(room);
            let reading = tokio::spawn(async move {
                caller.write_all(GET).await.unwrap();
                let mut all = Vec::new();
                caller.read_to_end(&mut all).await.unwrap();
                all
            });
            let (_, mut session) = begin(&mut connection).await;
            session.queue_head(response(200, size), false).unwrap();
            let mut at = 0;
            while at < content.len() {
                // What is offered grows and shrinks between the calls.
                let offered = content.len().min(at + 30 + at % 20);
                let end = offered == content.len();
                let part = &content[at..offered];
                at += poll_fn(|cx| session.poll_write(cx, part, end))
                    .await
                    .unwrap();
            }
            poll_fn(|cx| session.poll_finish(cx, &mut None))
                .await
                .unwrap();
            assert!(connection.is_reusable());
            drop(connection);
            let all = reading.await.unwrap();
            let begin = 4 + memchr::memmem::find(&all, b"\r\n\r\n").unwrap();
            let mut received = BytesMut::from(&all[begin..]);
            if size == BodySize::Unknown {
                let mut decoder = super::super::decode::BodyDecoder::from(
                    crate::proxy::validate::Framing::Chunked,
                );
                let length = decoder.decode_content(&mut received).unwrap();
                assert!(decoder.is_done());
                assert_eq!(received.len(), length);
            }
            assert_eq!(&received[..], content);
        }
    }
}

#[tokio::test]
async fn content_that_differs_from_its_announcement_is_refused() {
    for (size, content, end) in [
        (BodySize::Known(2), &b"abc"[..], false),
        (BodySize::Known(2), b"a", true),
        (BodySize::Empty, b"a", false),
    ] {
        let (mut connection, mut caller) = pair(1024);
        caller.write_all(GET).await.unwrap();
        let (_, mut session) = begin(&mut connection).await;
        session.queue_head(response(200, size), false).unwrap();
        let written = poll_fn(|cx| session.poll_write(cx, content, end)).await;
        assert_eq!(written.unwrap_err().kind, ErrorKind::Internal);
        assert!(!connection.is_reusable());
    }
}

#[tokio::test]
async fn a_request_body_ends_where_its_framing_says() {
    let next = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";
    for (head, wire) in [
        ("Content-Length: 11", "hello world"),
        (
            "Transfer-Encoding: chunked",
            "5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nT: v\r\n\r\n",
        ),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{wire}{next}");
        for split in 1..request.len() {
            let (mut connection, mut caller) = pair(1024);
            let (first, second) = request.as_bytes().split_at(split);
            caller.write_all(first).await.unwrap();
            let second = second.to_vec();
            let sending = tokio::spawn(async move {
                caller.write_all(&second).await.unwrap();
                caller
            });
            let (head, mut session) = begin(&mut connection).await;
            assert_ne!(head.body, BodySize::Empty);
            assert_eq!(whole_body(&mut session).await.unwrap(), b"hello world");
            assert!(session.is_body_done());
            respond(&mut session, response(200, BodySize::Known(0)), b"").await;
            assert!(connection.is_reusable());
            let (head, session) = begin(&mut connection).await;
            assert_eq!(head.target(), "/next");
            assert!(session.is_body_done());
            let _caller = sending.await.unwrap();
        }
    }
}

#[tokio::test]
async fn broken_bodies_fail_and_end_the_connection() {
    for (wire, kind) in [
        ("Content-Length: 5\r\n\r\nhel", ErrorKind::Closed),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
            ErrorKind::Closed,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\nx\r\n",
            ErrorKind::InvalidMessage,
        ),
    ] {
        let (mut connection, mut caller) = pair(1024);
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\n{wire}");
        caller.write_all(request.as_bytes()).await.unwrap();
        caller.shutdown().await.unwrap();
        let (_, mut session) = begin(&mut connection).await;
        for _ in 0..2 {
            let error = whole_body(&mut session).await.unwrap_err();
            assert_eq!((error.side, error.kind), (Side::Caller, kind), "{wire}");
        }
        respond(&mut session, response(400, BodySize::Known(0)), b"").await;
        assert!(!connection.is_reusable(), "{wire}");
    }
}

#[tokio::test]
async fn large_bodies_arrive_in_few_pieces_without_memory_left_behind() {
    let (mut connection, mut caller) = pair(256 * 1024);
    let sent = vec![b'b'; 200 * 1024];
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        sent.len()
    );
    caller
        .write_all(&[head.as_bytes(), &sent].concat())
        .await
        .unwrap();
    let (_, mut session) = begin(&mut connection).await;
    let (mut pieces, mut received) = (0, 0);
    while let Some(piece) = body(&mut session).await.unwrap() {
        assert!(piece.len() <= 64 * 1024);
        received += piece.len();
        pieces += 1;
    }
    assert_eq!(received, sent.len());
    assert!(pieces <= 12, "{pieces}");
    assert_eq!(connection.received.capacity(), 0);
}

#[tokio::test]
async fn a_caller_that_leaves_is_noticed_and_pipelined_bytes_are_kept() {
    let (mut connection, mut caller) = pair(64 * 1024);
    caller.write_all(&[GET, GET].concat()).await.unwrap();
    let (_, mut session) = begin(&mut connection).await;
    assert!(poll_fn(|cx| session.poll_gone(cx)).now_or_never().is_none());
    caller.write_all(&vec![b'x'; 32 * 1024]).await.unwrap();
    assert!(poll_fn(|cx| session.poll_gone(cx)).now_or_never().is_none());
    assert!(
        connection.received().len() < 3 * 8 * 1024,
        "read-ahead is bounded"
    );

    let (mut connection, mut caller) = pair(1024);
    caller.write_all(GET).await.unwrap();
    let (_, mut session) = begin(&mut connection).await;
    drop(caller);
    poll_fn(|cx| session.poll_gone(cx)).now_or_never().unwrap();
}

#[tokio::test]
async fn bytes_read_while_waiting_belong_to_the_body() {
    let (mut connection, mut caller) = pair(1024);
    caller
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        .await
        .unwrap();
    let (_, mut session) = begin(&mut connection).await;
    caller.write_all(b"lloNEXT").await.unwrap();
    assert!(poll_fn(|cx| session.poll_gone(cx)).now_or_never().is_none());
    assert_eq!(whole_body(&mut session).await.unwrap(), b"hello");
    assert_eq!(connection.received(), b"NEXT");
}

#[tokio::test]
async fn interim_responses_precede_the_final_one_except_in_http10() {
    for (request, interim) in [
        (GET, "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"),
        (GET_10, ""),
    ] {
        let (mut connection, mut caller) = pair(1024);
        caller.write_all(request).await.unwrap();
        let (_, mut session) = begin(&mut connection).await;
        session
            .queue_interim(&response(103, BodySize::Empty))
            .unwrap();
        poll_fn(|cx| session.poll_flush(cx)).await.unwrap();
        assert_eq!(sent(&mut caller), interim);
        assert!(!session.is_answered());
        assert!(
            session
                .queue_interim(&response(101, BodySize::Empty))
                .is_err()
        );
        respond(&mut session, response(200, BodySize::Known(0)), b"").await;
        assert!(session.is_answered());
        assert!(
            session
                .queue_interim(&response(103, BodySize::Empty))
                .is_err()
        );
        assert!(sent(&mut caller).starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test]
async fn after_101_bytes_are_transferred_as_they_are() {
    let (mut connection, mut caller) = pair(1024);
    caller.write_all(UPGRADE).await.unwrap();
    let (_, mut session) = begin(&mut connection).await;
    assert!(session.is_body_done());
    session
        .queue_interim(&response(101, BodySize::Empty))
        .unwrap();
    assert!(!session.is_body_done());
    let taken = poll_fn(|cx| session.poll_write(cx, b"frame", false)).await;
    assert_eq!(taken.unwrap(), 5);
    assert_eq!(
        sent(&mut caller),
        "HTTP/1.1 101 Switching Protocols\r\nX: y\r\n\r\nframe"
    );
    caller.write_all(b"abc").await.unwrap();
    assert_eq!(body(&mut session).await.unwrap().unwrap(), "abc");
    caller.shutdown().await.unwrap();
    assert!(body(&mut session).await.unwrap().is_none());
    assert!(session.is_body_done());
    poll_fn(|cx| session.poll_finish(cx, &mut None))
        .await
        .unwrap();
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn bytes_after_a_refused_upgrade_are_not_taken_for_a_request() {
    for (follows, reusable) in [(&b""[..], true), (GET, false)] {
        let (mut connection, mut caller) = pair(1024);
        caller
            .write_all(&[UPGRADE, follows].concat())
            .await
            .unwrap();
        let (_, mut session) = begin(&mut connection).await;
        respond(&mut session, response(200, BodySize::Known(0)), b"").await;
        assert_eq!(connection.is_reusable(), reusable);
    }
}

#[tokio::test]
async fn an_aborted_response_does_not_look_complete() {
    let (mut connection, mut caller) = pair(1024);
    caller.write_all(GET).await.unwrap();
    let (_, mut session) = begin(&mut connection).await;
    session
        .queue_head(response(200, BodySize::Unknown), false)
        .unwrap();
    poll_fn(|cx| session.poll_write(cx, b"hello", false))
        .await
        .unwrap();
    session.abort();
    assert!(
        poll_fn(|cx| session.poll_finish(cx, &mut None))
            .await
            .is_err()
    );
    assert!(!connection.is_response_complete() && !connection.is_reusable());
    connection
        .close(false, std::time::Duration::from_secs(1))
        .await;
    assert!(sent(&mut caller).ends_with("5\r\nhello\r\n"));
}

#[tokio::test]
async fn a_truncated_response_that_ends_with_the_connection_is_reset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let digest =
        pingora::protocols::SocketDigest::from_raw_fd(std::os::fd::AsRawFd::as_raw_fd(&socket));
    let transport = crate::proxy::transport::Transport::new(socket, digest);
    let mut connection = Connection::new(Box::new(transport));
    caller.write_all(GET_10).await.unwrap();
    let (_, mut session) = begin(&mut connection).await;
    session
        .queue_head(response(200, BodySize::Unknown), false)
        .unwrap();
    poll_fn(|cx| session.poll_write(cx, b"hello", false))
        .await
        .unwrap();
    session.abort();
    connection
        .close(false, std::time::Duration::from_secs(1))
        .await;
    let mut all = Vec::new();
    let error = caller.read_to_end(&mut all).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
