//! Draining and aborting.

use super::*;

#[tokio::test]
async fn a_drain_finishes_active_requests_and_closes_idle_connections() {
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
    let observe = async {
        assert!(read_responses(&mut idle).await.is_empty());
        // Accepting ends before idle connections are closed, so the listener closes now.
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
    within_timeout(async { tokio::join!(drained, observe) }).await;
    assert_eq!(server.served(), 2);
    within_timeout(server.handle.drain(TEST_TIMEOUT, TEST_TIMEOUT)).await;
}

#[tokio::test]
async fn a_drain_aborts_requests_at_its_deadline() {
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
async fn an_abort_ends_a_drain_early() {
    let server = TestServer::start_plain().await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within_timeout(server.entered.notified()).await;
    let long = Duration::from_hours(1);
    let drain = server.handle.drain(long, long);
    within_timeout(async { tokio::join!(drain, async { server.handle.abort() }) }).await;
    assert!(within_timeout(busy.read_u8()).await.is_err());
}

#[tokio::test]
async fn during_the_drain_delay_requests_are_served_with_connection_close() {
    let server = TestServer::start_plain().await;
    let long = Duration::from_hours(1);
    let mut existing = server.connect().await;
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    existing.write_all(get).await.unwrap();
    let before = read_response(&mut existing).await;
    assert_ne!(before.header("connection"), Some("close"));
    let drain = server.handle.drain(long, TEST_TIMEOUT);
    let requests = async {
        // An existing connection and a new one.
        existing.write_all(get).await.unwrap();
        for responses in [
            read_responses(&mut existing).await,
            server.exchange(get).await,
        ] {
            assert_eq!((responses.len(), responses[0].status), (1, 200));
            assert_eq!(responses[0].header("connection"), Some("close"));
        }
        let responses = server
            .exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(responses[0].status, 200);
        server.handle.abort();
    };
    within_timeout(async { tokio::join!(drain, requests) }).await;
}
