//! PROXY headers and `X-Forwarded-For`, from trusted proxies and others.

use super::*;
use crate::gateway::reason::Reason;
use crate::proxy::settings::TrustedProxies;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n";
const GET_IDENTITY: &[u8] = b"GET /identity HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    header.extend([203, 0, 113, 7, 10, 0, 0, 1, 200, 34, 1, 187]);
    // An unknown TLV.
    header.extend([0xe0, 0, 1, 0x55]);
    header
}

/// The tests connect from 127.0.0.1.
fn trusting(network: &str, proxy_protocol: bool) -> Listener {
    Listener {
        access: ListenerAccess {
            proxies: Some(TrustedProxies {
                networks: vec![network.parse().unwrap()],
                proxy_protocol,
            }),
            ..ListenerAccess::default()
        },
        ..tcp()
    }
}

fn proxy_protocol() -> Listener {
    trusting("127.0.0.0/8", true)
}

async fn body(server: &TestServer, bytes: &[u8]) -> String {
    let mut responses = server.exchange(bytes).await;
    assert_eq!(responses.len(), 1, "{responses:?}");
    responses.remove(0).body
}

/// Sends `bytes` and returns everything received until the server closes.
async fn read_until_closed(server: &TestServer, bytes: &[u8]) -> Vec<u8> {
    let mut stream = server.connect().await;
    stream.write_all(bytes).await.unwrap();
    let mut back = Vec::new();
    // A reset ends the connection as well.
    let _ = within_timeout(stream.read_to_end(&mut back)).await;
    back
}

async fn drain_and_take_outcomes(server: TestServer) -> Vec<Outcome> {
    within_timeout(server.handle.drain(Duration::ZERO, TEST_TIMEOUT)).await;
    server.outcomes()
}

#[tokio::test]
async fn a_proxy_header_sets_the_peer_address() {
    for workers in [Workers::CurrentRuntime, Workers::pinned(2).unwrap()] {
        let server = TestServer::start_on(&[proxy_protocol()], &limits(), workers).await;
        let identity = "Some(203.0.113.7) Some(203.0.113.7) None";
        for header in [V1.to_vec(), v2()] {
            assert_eq!(
                body(&server, &[&header[..], GET_IDENTITY].concat()).await,
                identity
            );
        }
        let unchanged = "Some(127.0.0.1) Some(127.0.0.1) None";
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(
            body(&server, &[local, GET_IDENTITY].concat()).await,
            unchanged
        );
        let unknown = b"PROXY UNKNOWN\r\n";
        assert_eq!(
            body(&server, &[&unknown[..], GET_IDENTITY].concat()).await,
            unchanged
        );
    }
}

#[tokio::test]
async fn a_rejected_head_is_logged_with_the_address_of_the_proxy_header() {
    let server = TestServer::start(&[proxy_protocol()], &limits()).await;
    let responses = server
        .exchange(&[V1, b"GET / HTTP/1.1\r\n\r\n"].concat())
        .await;
    assert_eq!(responses[0].status, 400);
    let outcomes = drain_and_take_outcomes(server).await;
    assert_eq!(outcomes[0].peer, Some([203, 0, 113, 7].into()));
}

#[tokio::test]
async fn peers_other_than_trusted_proxies_get_a_403_before_anything_is_read() {
    let server = TestServer::start(&[trusting("10.0.0.0/8", true)], &limits()).await;
    for bytes in [&[V1, GET_IDENTITY].concat()[..], GET_IDENTITY, b""] {
        let responses = server.exchange(bytes).await;
        assert_eq!(responses[0].status, 403, "{bytes:?}");
        assert_eq!(
            responses[0].header("x-hawkgate-error"),
            Some("peer_not_allowed")
        );
    }
    assert_eq!(server.served(), 0);
    for outcome in drain_and_take_outcomes(server).await {
        assert_eq!(outcome.rejection, Some(Reason::PeerNotAllowed));
        assert_eq!(outcome.peer, Some([127, 0, 0, 1].into()));
        assert!(outcome.cause.unwrap().contains("trusted_proxies"));
    }
}

#[tokio::test]
async fn connections_without_a_valid_proxy_header_are_closed() {
    let server = TestServer::start(&[proxy_protocol()], &limits()).await;
    let oversized = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n", GET_IDENTITY].concat();
    let mut bad_length = v2();
    bad_length[15] = 4;
    let cases = [
        GET_IDENTITY.to_vec(),
        oversized,
        [&bad_length[..], GET_IDENTITY].concat(),
        [b"PROXY TCP4 203.0.113.7\r\n", GET_IDENTITY].concat(),
        [b"\r\n", V1, GET_IDENTITY].concat(),
    ];
    for bytes in &cases {
        assert_eq!(read_until_closed(&server, bytes).await, b"", "{bytes:?}");
    }
    assert_eq!(server.served(), 0);
    let outcomes = drain_and_take_outcomes(server).await;
    assert_eq!(outcomes.len(), cases.len());
    for outcome in outcomes {
        assert_eq!(outcome.rejection, Some(Reason::BadRequest));
        assert_eq!(outcome.ending, crate::gateway::outcome::Ending::Rejected);
        assert!(outcome.cause.unwrap().starts_with("PROXY header: "));
    }
}

#[tokio::test]
async fn a_trickled_proxy_header_hits_the_header_timeout() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        ..limits()
    };
    let server = TestServer::start(&[proxy_protocol()], &limits).await;
    for part in [&b""[..], b"PROXY", b"PROXY TCP4 203.0.113.7 ", &v2()[..20]] {
        assert_eq!(read_until_closed(&server, part).await, b"", "{part:?}");
    }
    for outcome in drain_and_take_outcomes(server).await {
        assert_eq!(outcome.rejection, Some(Reason::HeaderTimeout));
    }
}

#[tokio::test]
async fn a_second_proxy_header_is_not_accepted() {
    let server = TestServer::start(&[proxy_protocol()], &limits()).await;
    // The client behind the proxy sends another header.
    let second_header = b"PROXY TCP4 198.51.100.9 10.0.0.1 1 2\r\n";
    let responses = server
        .exchange(&[V1, second_header, GET_IDENTITY].concat())
        .await;
    assert_eq!(responses.len(), 1, "{responses:?}");
    assert_eq!(responses[0].status, 400);
    // Between two requests, and inside a body.
    let first = b"GET /identity HTTP/1.1\r\nHost: a\r\n\r\n";
    let responses = server
        .exchange(&[V1, first, second_header, GET_IDENTITY].concat())
        .await;
    let statuses: Vec<_> = responses.iter().map(|r| r.status).collect();
    assert_eq!(statuses, [200, 400]);
    let length = second_header.len();
    let with_body =
        format!("POST /identity HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let bytes = [V1, with_body.as_bytes(), second_header, GET_IDENTITY].concat();
    for response in server.exchange(&bytes).await {
        assert_eq!(response.body, "Some(203.0.113.7) Some(203.0.113.7) None");
    }
    assert_eq!(server.served(), 3);
}

#[tokio::test]
async fn allowed_networks_apply_to_the_address_of_the_proxy_header() {
    for (network, status) in [("203.0.113.0/24", 200), ("127.0.0.0/8", 403)] {
        let mut listener = proxy_protocol();
        listener.access.networks = Some(vec![network.parse().unwrap()]);
        let server = TestServer::start(&[listener], &limits()).await;
        let responses = server.exchange(&[V1, GET_IDENTITY].concat()).await;
        assert_eq!(responses[0].status, status, "{network}");
    }
}

#[tokio::test]
async fn proxy_headers_are_supported_with_http2() {
    let listener = Listener {
        h2c: true,
        ..proxy_protocol()
    };
    let server = TestServer::start(&[listener], &limits()).await;
    let mut stream = server.connect().await;
    stream.write_all(&v2()).await.unwrap();
    let (mut client, connection) = within_timeout(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a/identity").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = within_timeout(response).await.unwrap().into_body();
    let text = within_timeout(body.data()).await.unwrap().unwrap();
    assert_eq!(&text[..], b"Some(203.0.113.7) Some(203.0.113.7) None");
}

fn forwarded(value: &str) -> Vec<u8> {
    format!(
        "GET /identity HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {value}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn x_forwarded_for_is_trusted_only_from_trusted_proxies() {
    let spoofed = forwarded("198.51.100.9, 203.0.113.7");
    let cases = [
        (tcp(), "Some(127.0.0.1)"),
        (trusting("10.0.0.0/8", false), "Some(127.0.0.1)"),
        (trusting("127.0.0.0/8", false), "Some(203.0.113.7)"),
    ];
    for (listener, client) in cases {
        let server = TestServer::start(&[listener], &limits()).await;
        let identity = format!("Some(127.0.0.1) {client} None");
        assert_eq!(body(&server, &spoofed).await, identity);
    }
}

#[tokio::test]
async fn a_client_named_by_a_proxy_header_cannot_spoof_x_forwarded_for() {
    let server = TestServer::start(&[proxy_protocol()], &limits()).await;
    let bytes = [V1, &forwarded("198.51.100.9")].concat();
    let identity = "Some(203.0.113.7) Some(203.0.113.7) None";
    assert_eq!(body(&server, &bytes).await, identity);
    // A second proxy behind the first can, if it is trusted.
    let second = b"PROXY TCP4 127.0.0.2 127.0.0.1 1 2\r\n";
    let bytes = [second, &forwarded("198.51.100.9")[..]].concat();
    let identity = "Some(127.0.0.2) Some(198.51.100.9) None";
    assert_eq!(body(&server, &bytes).await, identity);
}
