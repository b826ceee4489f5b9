use std::pin::pin;

use bytes::Bytes;
use futures::FutureExt;
use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;

const STALL: Duration = Duration::from_secs(20);

fn pair() -> (Connection, DuplexStream, Handoff) {
    let (local, caller) = tokio::io::duplex(64 * 1024);
    let handoff = Handoff::default();
    let connection = Connection::http1(Box::new(local), STALL, handoff.clone());
    (connection, caller, handoff)
}

#[tokio::test]
async fn bytes_of_the_next_request_are_not_delivered() {
    let (mut connection, mut caller, _) = pair();
    caller.write_all(b"HEADbodyNEXT").await.unwrap();
    connection.receive().await.unwrap();
    assert_eq!(connection.split_head(0, 4, Framing::Length(4)), "HEAD");
    let mut body = [0; 64];
    assert_eq!(connection.read(&mut body).await.unwrap(), 4);
    assert_eq!(&body[..4], b"body");
    assert!(connection.is_between_requests());
    // A reader that waits for the caller to disconnect receives no bytes of the next request.
    caller.write_all(b"MORE").await.unwrap();
    assert!(connection.read(&mut body).now_or_never().is_none());
    assert_eq!(connection.received(), b"NEXTMORE");
    drop(caller);
    assert_eq!(connection.read(&mut body).await.unwrap(), 0);
}

#[tokio::test]
async fn read_ahead_is_bounded() {
    let (mut connection, mut caller, _) = pair();
    let sending = tokio::spawn(async move {
        // Fails when the connection is dropped.
        while caller.write_all(&[b'x'; 1024]).await.is_ok() {}
    });
    connection.receive().await.unwrap();
    connection.split_head(0, 4, Framing::Length(0));
    let mut body = [0; 64];
    for _ in 0..1000 {
        assert!(connection.read(&mut body).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert!(connection.received().len() < 2 * READ_AHEAD);
    drop(connection);
    sending.await.unwrap();
}

#[tokio::test]
async fn a_body_is_read_exactly_to_its_end() {
    let (mut connection, mut caller, _) = pair();
    let sent = Bytes::from(vec![b'b'; 200 * 1024]);
    let whole = [b"HEAD".as_slice(), &sent, b"NEXT"].concat();
    let sending = tokio::spawn(async move {
        caller.write_all(&whole).await.unwrap();
        caller
    });
    connection.receive().await.unwrap();
    connection.split_head(0, 4, Framing::Length(sent.len() as u64));
    let mut delivered = vec![0; sent.len()];
    connection.read_exact(&mut delivered).await.unwrap();
    assert_eq!(delivered, sent);
    assert!(connection.is_between_requests());
    let _caller = sending.await.unwrap();
    assert!(connection.read(&mut [0; 8]).now_or_never().is_none());
    assert_eq!(connection.received(), b"NEXT");
}

#[tokio::test]
async fn a_tunnel_delivers_all_bytes() {
    let (mut connection, mut caller, _) = pair();
    caller.write_all(b"HEADframe").await.unwrap();
    connection.receive().await.unwrap();
    connection.split_head(0, 4, Framing::Tunnel);
    caller.write_all(b"more").await.unwrap();
    let mut delivered = [0; 9];
    connection.read_exact(&mut delivered).await.unwrap();
    assert_eq!(&delivered, b"framemore");
}

#[tokio::test]
async fn a_response_head_is_coalesced_with_its_body_or_sent_alone() {
    let (mut connection, mut caller, _) = pair();
    let mut buf = [0; 64];
    connection.write_all(b"HEAD").await.unwrap();
    assert!(caller.read(&mut buf).now_or_never().is_none());
    connection.write_all(b"body").await.unwrap();
    let read = caller.read(&mut buf).now_or_never().unwrap().unwrap();
    assert_eq!(&buf[..read], b"HEADbody");
    // Further writes are sent directly.
    connection.write_all(b"more").await.unwrap();
    let read = caller.read(&mut buf).now_or_never().unwrap().unwrap();
    assert_eq!(&buf[..read], b"more");
    connection.flush().await.unwrap();

    connection.write_all(b"HEAD").await.unwrap();
    let mut unused = [0; 8];
    let waiting = connection.read(&mut unused);
    let mut waiting = pin!(waiting);
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("the caller sent nothing"),
        read = caller.read(&mut buf) => assert_eq!(&buf[..read.unwrap()], b"HEAD"),
    }
}

#[tokio::test]
async fn a_write_without_progress_times_out() {
    let (local, _caller) = tokio::io::duplex(16);
    let stall = Duration::from_millis(20);
    let mut connection = Connection::http1(Box::new(local), stall, Handoff::default());
    let failed = async {
        connection.write_all(&vec![b'x'; 64 * 1024]).await?;
        connection.flush().await
    };
    assert_eq!(failed.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_dropped_connection_hands_off_socket_and_unsent_bytes() {
    let (mut connection, mut caller, handoff) = pair();
    caller.write_all(b"HEADpart of").await.unwrap();
    connection.receive().await.unwrap();
    connection.split_head(0, 4, Framing::Length(100));
    connection.write_all(b"response").await.unwrap();
    drop(connection);
    let closed = handoff.take().unwrap();
    assert_eq!(closed.unsent, "response");
    assert!(closed.unread_input);
    assert!(handoff.take().is_none());
}
