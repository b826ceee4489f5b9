//! Draining and aborting.

use super::*;

#[tokio::test]
async fn a_drain_finishes_what_was_begun_and_closes_what_is_idle() {
    let server = TestServer::start_plain().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /idle HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_response(&mut idle).await.status, 200);
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /more HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within_timeout(server.entered.notified()).await;

    let address = server.addresses[0].clone();
    let drained = async {
        server.handle.drain(Duration::ZERO, TEST_TIMEOUT).await;
    };
    let seen = async {
        assert!(read_responses(&mut idle).await.is_empty());
        // The listener is closed by now: accepting has ended before connections are told.
        let Address::Tcp(address) = address else {
            panic!("no TCP listener")
        };
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        server.release.notify_one();
        let responses = read_responses(&mut busy).await;
        assert_eq!(responses.len(), 1, "{responses:?}");
        assert_eq!(responses[0].status, 200);
        assert_eq!(responses[0].header("connection"), Some("close"));
    };
    within_timeout(async { tokio::join!(drained, seen) }).await;
    assert_eq!(server.served(), 2);
    within_timeout(server.handle.drain(TEST_TIMEOUT, TEST_TIMEOUT)).await;
}

#[tokio::test]
async fn a_drain_breaks_off_what_does_not_end() {
    let server = TestServer::start_plain().await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within_timeout(server.entered.notified()).await;
    within_timeout(
        server
            .handle
            .drain(Duration::ZERO, Duration::from_millis(50)),
    )
    .await;
    assert!(within_timeout(busy.read_u8()).await.is_err());
}

#[tokio::test]
async fn an_abort_cuts_a_drain_short() {
    let server = TestServer::start_plain().await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within_timeout(server.entered.notified()).await;
    let ages = Duration::from_hours(1);
    let drain = server.handle.drain(ages, ages);
    within_timeout(async { tokio::join!(drain, async { server.handle.abort() }) }).await;
    assert!(within_timeout(busy.read_u8()).await.is_err());
}

#[tokio::test]
async fn until_the_delay_is_over_everything_is_served_and_sent_elsewhere() {
    let server = TestServer::start_plain().await;
    let ages = Duration::from_hours(1);
    let mut kept = server.connect().await;
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    kept.write_all(get).await.unwrap();
    let before = read_response(&mut kept).await;
    assert_ne!(before.header("connection"), Some("close"));
    let drain = server.handle.drain(ages, TEST_TIMEOUT);
    let use_it = async {
        // A connection that is there, and one that comes now.
        kept.write_all(get).await.unwrap();
        for responses in [read_responses(&mut kept).await, server.exchange(get).await] {
            assert_eq!((responses.len(), responses[0].status), (1, 200));
            assert_eq!(responses[0].header("connection"), Some("close"));
        }
        let responses = server
            .exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(responses[0].status, 200);
        server.handle.abort();
    };
    within_timeout(async { tokio::join!(drain, use_it) }).await;
}
