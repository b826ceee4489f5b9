//! Behind proxies: PROXY headers and `X-Forwarded-For`, and whoever pretends to be one.

use super::*;
use crate::gateway::reason::Reason;
use crate::proxy::settings::TrustedProxies;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n";
const WHO: &[u8] = b"GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    header.extend([203, 0, 113, 7, 10, 0, 0, 1, 200, 34, 1, 187]);
    // A TLV that nobody knows.
    header.extend([0xe0, 0, 1, 0x55]);
    header
}

/// The test's own connections come from 127.0.0.1.
fn behind(network: &str, proxy_protocol: bool) -> Listener {
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

fn announced() -> Listener {
    behind("127.0.0.0/8", true)
}

async fn body(rig: &Rig, bytes: &[u8]) -> String {
    let mut replies = rig.exchange(bytes).await;
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0).body
}

/// Sends `bytes`; what comes back until the server closes, if it is no HTTP answer.
async fn closed(rig: &Rig, bytes: &[u8]) -> Vec<u8> {
    let mut stream = rig.connect().await;
    stream.write_all(bytes).await.unwrap();
    let mut back = Vec::new();
    // Reset or closed: both are the end.
    let _ = in_time(stream.read_to_end(&mut back)).await;
    back
}

async fn ended(rig: Rig) -> Vec<Outcome> {
    in_time(rig.serving.drain(Duration::ZERO, PATIENCE)).await;
    rig.outcomes()
}

#[tokio::test]
async fn a_header_says_who_is_connected() {
    for workers in [Workers::Ambient, Workers::pinned(2).unwrap()] {
        let rig = Rig::start_on(&[announced()], &limits(), workers).await;
        let who = "Some(203.0.113.7) Some(203.0.113.7) None";
        for header in [V1.to_vec(), v2()] {
            assert_eq!(body(&rig, &[&header[..], WHO].concat()).await, who);
        }
        let own = "Some(127.0.0.1) Some(127.0.0.1) None";
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(body(&rig, &[local, WHO].concat()).await, own);
        let unknown = b"PROXY UNKNOWN\r\n";
        assert_eq!(body(&rig, &[&unknown[..], WHO].concat()).await, own);
    }
}

#[tokio::test]
async fn a_refused_head_is_logged_with_the_announced_address() {
    let rig = Rig::start(&[announced()], &limits()).await;
    let replies = rig
        .exchange(&[V1, b"GET / HTTP/1.1\r\n\r\n"].concat())
        .await;
    assert_eq!(replies[0].status, 400);
    let outcomes = ended(rig).await;
    assert_eq!(outcomes[0].peer, Some([203, 0, 113, 7].into()));
}

#[tokio::test]
async fn who_is_no_proxy_is_refused_unread_whatever_it_sends() {
    let rig = Rig::start(&[behind("10.0.0.0/8", true)], &limits()).await;
    for bytes in [&[V1, WHO].concat()[..], WHO, b""] {
        let replies = rig.exchange(bytes).await;
        assert_eq!(replies[0].status, 403, "{bytes:?}");
        assert_eq!(
            replies[0].header("x-hawkgate-error"),
            Some("peer_not_allowed")
        );
    }
    assert_eq!(rig.served(), 0);
    for outcome in ended(rig).await {
        assert_eq!(outcome.rejection, Some(Reason::PeerNotAllowed));
        assert_eq!(outcome.peer, Some([127, 0, 0, 1].into()));
        assert!(outcome.cause.unwrap().contains("trusted_proxies"));
    }
}

#[tokio::test]
async fn without_a_whole_header_nothing_is_served_nor_said() {
    let rig = Rig::start(&[announced()], &limits()).await;
    let oversized = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n", WHO].concat();
    let mut bad_length = v2();
    bad_length[15] = 4;
    let cases = [
        WHO.to_vec(),
        oversized,
        [&bad_length[..], WHO].concat(),
        [b"PROXY TCP4 203.0.113.7\r\n", WHO].concat(),
        [b"\r\n", V1, WHO].concat(),
    ];
    for bytes in &cases {
        assert_eq!(closed(&rig, bytes).await, b"", "{bytes:?}");
    }
    assert_eq!(rig.served(), 0);
    let outcomes = ended(rig).await;
    assert_eq!(outcomes.len(), cases.len());
    for outcome in outcomes {
        assert_eq!(outcome.rejection, Some(Reason::BadRequest));
        assert_eq!(outcome.ending, crate::gateway::outcome::Ending::Rejected);
        assert!(outcome.cause.unwrap().starts_with("PROXY header: "));
    }
}

#[tokio::test]
async fn a_header_that_trickles_is_given_up() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        ..limits()
    };
    let rig = Rig::start(&[announced()], &limits).await;
    for part in [&b""[..], b"PROXY", b"PROXY TCP4 203.0.113.7 ", &v2()[..20]] {
        assert_eq!(closed(&rig, part).await, b"", "{part:?}");
    }
    for outcome in ended(rig).await {
        assert_eq!(outcome.rejection, Some(Reason::HeaderTimeout));
    }
}

#[tokio::test]
async fn what_follows_the_header_is_a_request_and_no_other_header() {
    let rig = Rig::start(&[announced()], &limits()).await;
    // The client behind the proxy sends a header of its own.
    let lie = b"PROXY TCP4 198.51.100.9 10.0.0.1 1 2\r\n";
    let replies = rig.exchange(&[V1, lie, WHO].concat()).await;
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert_eq!(replies[0].status, 400);
    // And one between two requests, and one inside of a body.
    let first = b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n";
    let replies = rig.exchange(&[V1, first, lie, WHO].concat()).await;
    let statuses: Vec<_> = replies.iter().map(|r| r.status).collect();
    assert_eq!(statuses, [200, 400]);
    let length = lie.len();
    let with_body = format!("POST /who HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let bytes = [V1, with_body.as_bytes(), lie, WHO].concat();
    for reply in rig.exchange(&bytes).await {
        assert_eq!(reply.body, "Some(203.0.113.7) Some(203.0.113.7) None");
    }
    assert_eq!(rig.served(), 3);
}

#[tokio::test]
async fn networks_are_compared_with_the_announced_address() {
    for (network, status) in [("203.0.113.0/24", 200), ("127.0.0.0/8", 403)] {
        let mut listener = announced();
        listener.access.networks = Some(vec![network.parse().unwrap()]);
        let rig = Rig::start(&[listener], &limits()).await;
        let replies = rig.exchange(&[V1, WHO].concat()).await;
        assert_eq!(replies[0].status, status, "{network}");
    }
}

#[tokio::test]
async fn http2_clients_are_announced_too() {
    let listener = Listener {
        h2c: true,
        ..announced()
    };
    let rig = Rig::start(&[listener], &limits()).await;
    let mut stream = rig.connect().await;
    stream.write_all(&v2()).await.unwrap();
    let (mut client, connection) = in_time(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a/who").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = in_time(response).await.unwrap().into_body();
    let text = in_time(body.data()).await.unwrap().unwrap();
    assert_eq!(&text[..], b"Some(203.0.113.7) Some(203.0.113.7) None");
}

fn forwarded(value: &str) -> Vec<u8> {
    format!("GET /who HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {value}\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

#[tokio::test]
async fn forwarded_addresses_count_from_trusted_proxies_alone() {
    let spoofed = forwarded("198.51.100.9, 203.0.113.7");
    let cases = [
        (tcp(), "Some(127.0.0.1)"),
        (behind("10.0.0.0/8", false), "Some(127.0.0.1)"),
        (behind("127.0.0.0/8", false), "Some(203.0.113.7)"),
    ];
    for (listener, client) in cases {
        let rig = Rig::start(&[listener], &limits()).await;
        let who = format!("Some(127.0.0.1) {client} None");
        assert_eq!(body(&rig, &spoofed).await, who);
    }
}

#[tokio::test]
async fn a_client_behind_a_header_cannot_name_another() {
    let rig = Rig::start(&[announced()], &limits()).await;
    let bytes = [V1, &forwarded("198.51.100.9")].concat();
    let who = "Some(203.0.113.7) Some(203.0.113.7) None";
    assert_eq!(body(&rig, &bytes).await, who);
    // But a second proxy behind the first can, if it is trusted.
    let second = b"PROXY TCP4 127.0.0.2 127.0.0.1 1 2\r\n";
    let bytes = [second, &forwarded("198.51.100.9")[..]].concat();
    let who = "Some(127.0.0.2) Some(198.51.100.9) None";
    assert_eq!(body(&rig, &bytes).await, who);
}
