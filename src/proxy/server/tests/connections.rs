//! Limits of connections, and which connections give way.

use super::http2::{Pki, client, get, h2c, request};
use super::*;
use crate::gateway::reason::Reason;
use crate::proxy::settings::TrustedProxies;

const ATTACKER: [u8; 4] = [127, 0, 0, 2];
const GOOD: [u8; 4] = [127, 0, 0, 3];
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const REFUSED: &[u8] = b"GET /refused HTTP/1.1\r\nHost: a\r\n\r\n";
const WAIT: &[u8] = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";

fn at_most(connections: usize, per_address: Option<usize>) -> Limits {
    Limits {
        connections,
        connections_per_address: per_address,
        ..limits()
    }
}

async fn status(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &[u8]) -> u16 {
    stream.write_all(head).await.unwrap();
    read_response(stream).await.status
}

/// Opens this number of connections, and sends `head` on each.
async fn open(server: &TestServer, source: [u8; 4], number: usize, head: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..number {
        let mut stream = server.connect_from(source, 0).await;
        stream.write_all(head).await.unwrap();
        if head.ends_with(b"\r\n\r\n") {
            read_response(&mut stream).await;
        }
        open.push(stream);
    }
    open
}

/// A caller that opens a connection for each of several requests is served, always.
async fn expect_service(server: &TestServer, source: [u8; 4], index: usize, requests: usize) {
    for _ in 0..requests {
        let mut stream = server.connect_from(source, index).await;
        assert_eq!(status(&mut stream, GET).await, 200);
    }
}

/// Whether the server has closed the connection, or closes it now.
async fn is_closed(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut bytes = Vec::new();
    let _ = within_timeout(stream.read_to_end(&mut bytes)).await;
    true
}

#[tokio::test]
async fn connections_with_refused_requests_keep_nobody_out() {
    for per_address in [Some(0), None] {
        let server = TestServer::start(&[tcp()], &at_most(10, per_address)).await;
        for head in [REFUSED, b"", b"GET / HT"] {
            let attack = open(&server, ATTACKER, 12, head).await;
            // From the same address too.
            for source in [GOOD, ATTACKER] {
                expect_service(&server, source, 0, 12).await;
            }
            drop(attack);
        }
        assert!(server.outcomes().is_empty(), "nobody was refused");
    }
}

#[tokio::test]
async fn idle_connections_of_one_address_leave_room_for_others() {
    let server = TestServer::start(&[tcp()], &at_most(10, None)).await;
    let mut hostile = open(&server, ATTACKER, 20, GET).await;
    let mut good = open(&server, GOOD, 5, GET).await;
    for stream in &mut good {
        assert_eq!(status(stream, GET).await, 200, "still open");
    }
    // At its limit, an address gives up its own connections, the longest idle first.
    let kept = hostile.split_off(15);
    for mut stream in hostile {
        assert!(is_closed(&mut stream).await);
    }
    for mut stream in kept {
        assert_eq!(status(&mut stream, GET).await, 200);
    }
}

#[tokio::test]
async fn an_address_with_busy_connections_only_is_refused() {
    let server = TestServer::start(&[tcp()], &at_most(5, Some(2))).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect_from(ATTACKER, 0).await;
        stream.write_all(WAIT).await.unwrap();
        within_timeout(server.entered.notified()).await;
        busy.push(stream);
    }
    let mut refused = server.connect_from(ATTACKER, 0).await;
    let response = read_responses(&mut refused).await.remove(0);
    assert_eq!(response.status, 503);
    assert_eq!(response.header("x-hawkgate-error"), Some("overloaded"));
    assert!(response.header("retry-after").is_some());
    drop(refused);
    expect_service(&server, GOOD, 0, 3).await;
    for mut stream in busy {
        server.release.notify_one();
        assert_eq!(read_response(&mut stream).await.status, 200);
    }
    within_timeout(server.handle.drain(Duration::ZERO, TEST_TIMEOUT)).await;
    let outcomes = server.outcomes();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].rejection, Some(Reason::Overloaded));
    let cause = outcomes[0].cause.as_deref();
    assert_eq!(cause, Some("limits.connections_per_address is reached"));
}

#[tokio::test]
async fn a_request_is_served_to_its_end_although_room_is_needed() {
    let server = TestServer::start(&[tcp()], &at_most(2, Some(0))).await;
    let mut busy = server.connect_from(ATTACKER, 0).await;
    busy.write_all(WAIT).await.unwrap();
    within_timeout(server.entered.notified()).await;
    let _idle = open(&server, ATTACKER, 1, REFUSED).await;
    expect_service(&server, GOOD, 0, 10).await;
    server.release.notify_one();
    assert_eq!(read_response(&mut busy).await.status, 200);
    assert_eq!(status(&mut busy, GET).await, 200);
}

#[tokio::test]
async fn connections_close_soon_unless_a_request_is_admitted() {
    let limits = Limits {
        unadmitted_keepalive: Duration::from_millis(20),
        ..limits()
    };
    let server = TestServer::start(&[tcp(), h2c()], &limits).await;
    let mut admitted = server.connect().await;
    assert_eq!(status(&mut admitted, REFUSED).await, 401);
    assert_eq!(status(&mut admitted, GET).await, 200);
    let mut refused = server.connect().await;
    assert_eq!(status(&mut refused, REFUSED).await, 401);
    assert!(is_closed(&mut refused).await);

    let (http2, connection) = h2::client::handshake(server.connect_from(GOOD, 1).await)
        .await
        .unwrap();
    let kept = tokio::spawn(connection);
    let mut http2 = http2.ready().await.unwrap();
    assert_eq!(get(&mut http2, request("http://a/")).await.unwrap().0, 200);
    for path in [Some("/refused"), None] {
        let stream = server.connect_from(ATTACKER, 1).await;
        let (http2, connection) = h2::client::handshake(stream).await.unwrap();
        let ended = tokio::spawn(connection);
        let mut http2 = http2.ready().await.unwrap();
        if let Some(path) = path {
            let refused = get(&mut http2, request(&format!("http://a{path}"))).await;
            assert_eq!(refused.unwrap().0, 401);
        }
        // Ends although the client does not close it; with GOAWAY, so without an error.
        within_timeout(ended).await.unwrap().unwrap();
        drop(http2);
    }
    assert_eq!(status(&mut admitted, GET).await, 200);
    assert_eq!(get(&mut http2, request("http://a/")).await.unwrap().0, 200);
    assert!(!kept.is_finished());
}

#[tokio::test]
async fn refused_requests_in_a_row_end_a_connection() {
    let server = TestServer::start(&[tcp(), h2c()], &limits()).await;
    let mut stream = server.connect().await;
    assert_eq!(status(&mut stream, GET).await, 200);
    for _ in 0..100 {
        stream.write_all(REFUSED).await.unwrap();
    }
    let responses = read_responses(&mut stream).await;
    assert_eq!(responses.len(), 8);
    assert_ne!(responses[6].header("connection"), Some("close"));
    assert_eq!(responses[7].header("connection"), Some("close"));

    let stream = server.connect_from(ATTACKER, 1).await;
    let (http2, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let mut http2 = http2.ready().await.unwrap();
    assert_eq!(get(&mut http2, request("http://a/")).await.unwrap().0, 200);
    for _ in 0..8 {
        let refused = get(&mut http2, request("http://a/refused")).await;
        assert_eq!(refused.unwrap().0, 401);
    }
    within_timeout(ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn half_open_tls_and_http2_connections_keep_nobody_out() {
    let pki = Pki::new();
    let listeners = [tcp(), tls(pki.files()), h2c()];
    let server = TestServer::start(&listeners, &at_most(6, Some(0))).await;
    // A TLS record header, a preface, and a connection that never answers GOAWAY or PING.
    let idle: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (index, bytes) in [
        (1, b"\x16\x03\x01\x02\0".as_slice()),
        (2, b"PRI *"),
        (2, idle),
    ] {
        let mut attack = Vec::new();
        for _ in 0..8 {
            let mut stream = server.connect_from(ATTACKER, index).await;
            stream.write_all(bytes).await.unwrap();
            attack.push(stream);
        }
        expect_service(&server, GOOD, 0, 8).await;
        let mut http2 = client(server.connect_from(GOOD, 2).await).await;
        assert_eq!(get(&mut http2, request("http://a/")).await.unwrap().0, 200);
    }
}

#[tokio::test]
async fn callers_that_keep_sending_after_a_bad_head_keep_nobody_out() {
    let server = TestServer::start(&[tcp()], &at_most(4, Some(0))).await;
    let attack = open(&server, ATTACKER, 6, b"junk\r\n\r\n").await;
    expect_service(&server, GOOD, 0, 8).await;
    drop(attack);
}

#[tokio::test]
async fn with_a_proxy_header_the_clients_address_counts() {
    let behind_proxy = |proxy_protocol| {
        let mut listener = tcp();
        listener.access.proxies = Some(TrustedProxies {
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            proxy_protocol,
        });
        listener
    };
    let listeners = [behind_proxy(true), behind_proxy(false)];
    let server = TestServer::start(&listeners, &at_most(20, Some(2))).await;
    let connect = async |client: &str| {
        let mut stream = server.connect().await;
        let header = format!("PROXY TCP4 {client} 192.0.2.1 1 2\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        stream
    };
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = connect("203.0.113.7").await;
        stream.write_all(WAIT).await.unwrap();
        within_timeout(server.entered.notified()).await;
        busy.push(stream);
    }
    let mut refused = connect("203.0.113.7").await;
    assert_eq!(read_responses(&mut refused).await[0].status, 503);
    for client in ["203.0.113.8", "203.0.113.9"] {
        assert_eq!(status(&mut connect(client).await, GET).await, 200);
    }
    // A trusted proxy itself has no limit, and its connections are kept.
    let mut proxied = Vec::new();
    for _ in 0..5 {
        let mut stream = server.connect_from(GOOD, 1).await;
        assert_eq!(status(&mut stream, REFUSED).await, 401);
        proxied.push(stream);
    }
    for mut stream in proxied {
        assert_eq!(status(&mut stream, GET).await, 200);
    }
    drop(busy);
}
