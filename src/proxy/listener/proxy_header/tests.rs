use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

const NEXT: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Returns the result for `bytes`, written in pieces of `piece` bytes, and the bytes left in the
/// socket.
async fn outcome(
    bytes: &[u8],
    piece: usize,
) -> (Result<Option<SocketAddr>, ProxyHeaderError>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let writing = async {
        for piece in bytes.chunks(piece.max(1)) {
            // The other side may have rejected the header and closed.
            if client.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await;
    };
    let reading = async {
        let found = read(&mut server).await;
        let mut rest = Vec::new();
        if found.is_ok() {
            server.read_to_end(&mut rest).await.unwrap();
        }
        (found, rest)
    };
    let (result, ()) = tokio::join!(reading, writing);
    result
}

fn v2(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap();
    v2_with_length(version_and_command, family, length, rest)
}

fn v2_with_length(version_and_command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([version_and_command, family]);
    header.extend(length.to_be_bytes());
    header.extend(rest);
    header
}

fn v4() -> Vec<u8> {
    let mut rest = vec![203, 0, 113, 7, 10, 0, 0, 1];
    rest.extend(51_234_u16.to_be_bytes());
    rest.extend(443_u16.to_be_bytes());
    rest
}

fn v6() -> Vec<u8> {
    let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let mut rest = source.octets().to_vec();
    rest.extend(Ipv6Addr::LOCALHOST.octets());
    rest.extend(51_234_u16.to_be_bytes());
    rest.extend(443_u16.to_be_bytes());
    rest
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\r\n").into_bytes()
}

#[tokio::test]
async fn valid_proxy_headers_are_read_exactly() {
    let four = Some("203.0.113.7:51234".parse().unwrap());
    let six = Some("[2001:db8::7]:51234".parse().unwrap());
    let with_tlvs = |mut rest: Vec<u8>, more: usize| {
        rest.resize(rest.len() + more, 0x55);
        rest
    };
    for (header, expected) in [
        (line("PROXY TCP4 203.0.113.7 10.0.0.1 51234 443"), four),
        (line("PROXY TCP6 2001:db8::7 ::1 51234 443"), six),
        (line("PROXY UNKNOWN"), None),
        (line("PROXY UNKNOWN ffff::1 ffff::2 1 2 and more"), None),
        (line(&format!("PROXY UNKNOWN {}", "x".repeat(91))), None),
        (v2(0x21, 0x11, &v4()), four),
        (v2(0x21, 0x21, &v6()), six),
        (v2(0x21, 0x11, &with_tlvs(v4(), 300)), four),
        (v2(0x21, 0x11, &with_tlvs(v4(), MAX_V2_LENGTH - 12)), four),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &v4()), None),
        (v2(0x20, 0xff, &[1, 2, 3]), None),
        (v2(0x21, 0x00, &[0; 9]), None),
        (v2(0x21, 0x31, &[0; 216]), None),
    ] {
        for piece in [1, 5, 13, usize::MAX] {
            let bytes = [&header[..], NEXT].concat();
            let (found, rest) = outcome(&bytes, piece).await;
            assert_eq!(found.unwrap(), expected, "{header:?} by {piece}");
            assert_eq!(rest, NEXT, "{header:?} by {piece}");
        }
    }
}

#[tokio::test]
async fn malformed_v1_lines_are_rejected() {
    let long = format!("PROXY UNKNOWN {}", "x".repeat(92));
    for text in [
        "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\r\n",
        "PROXY TCP4 203.0.113.7\r10.0.0.1 51234 443\r\n",
        "PROXY TCP4  203.0.113.7 10.0.0.1 51234 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443 \r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 51234\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1\t51234 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443 1\r\n",
        "PROXY TCP4 203.0.113.007 10.0.0.1 51234 443\r\n",
        "PROXY TCP4 203.0.113 10.0.0.1 51234 443\r\n",
        "PROXY TCP4 203.0.113.7 junk 51234 443\r\n",
        "PROXY TCP4 2001:db8::7 ::1 51234 443\r\n",
        "PROXY TCP6 203.0.113.7 10.0.0.1 51234 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 51234 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 +51234 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 051 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 -1 443\r\n",
        "PROXY tcp4 203.0.113.7 10.0.0.1 51234 443\r\n",
        "PROXY UDP4 203.0.113.7 10.0.0.1 51234 443\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY unknown\r\n",
        "PROXY  UNKNOWN\r\n",
        "PROXY \r\nGET / HTTP/1.1\r\n",
        "PROXYTCP4 203.0.113.7 10.0.0.1 51234 443\r\n",
        "proxy TCP4 203.0.113.7 10.0.0.1 51234 443\r\n",
        " PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &(long + "\r\n"),
        &"PROXY TCP4 ".repeat(40),
        "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443",
        "PROXY TCP4",
        "PROXY",
        "",
    ] {
        for piece in [1, 12, usize::MAX] {
            let (found, _) = outcome(text.as_bytes(), piece).await;
            assert!(found.is_err(), "{text:?} by {piece}: {found:?}");
        }
    }
    let (found, _) = outcome(b"PROXY TCP4 \xff\xfe 10.0.0.1 51234 443\r\n", 99).await;
    assert!(
        matches!(found, Err(ProxyHeaderError::Malformed)),
        "{found:?}"
    );
}

#[tokio::test]
async fn malformed_v2_headers_are_rejected() {
    let huge = vec![0; MAX_V2_LENGTH + 1];
    for (header, what) in [
        (v2(0x11, 0x11, &v4()), "version 1"),
        (v2(0x31, 0x11, &v4()), "version 3"),
        (v2(0x22, 0x11, &v4()), "command 2"),
        (v2(0x2f, 0x11, &v4()), "command 15"),
        (v2(0x21, 0x12, &v4()), "datagrams"),
        (v2(0x21, 0x22, &v6()), "datagrams"),
        (v2(0x21, 0x32, &[0; 216]), "datagrams"),
        (v2(0x21, 0x10, &v4()), "no protocol"),
        (v2(0x21, 0x01, &v4()), "no family"),
        (v2(0x21, 0x41, &v6()), "an unknown family"),
        (v2(0x21, 0x11, &v4()[..11]), "a byte too little"),
        (v2(0x21, 0x21, &v6()[..35]), "a byte too little"),
        (v2(0x21, 0x21, &v4()), "the other family's length"),
        (v2(0x21, 0x11, &[]), "nothing"),
        (v2(0x21, 0x11, &huge), "too large"),
        (v2(0x20, 0x00, &huge), "too much, locally"),
        (v2_with_length(0x21, 0x11, u16::MAX, &v4()), "far too much"),
        (
            v2_with_length(0x21, 0x11, 200, &v4()),
            "less than announced",
        ),
    ] {
        for piece in [1, usize::MAX] {
            let (found, _) = outcome(&header, piece).await;
            assert!(found.is_err(), "{what}: {found:?}");
        }
    }
    // No prefix of a header is a header.
    let whole = v2(0x21, 0x11, &v4());
    for end in 0..whole.len() {
        let (found, _) = outcome(&whole[..end], usize::MAX).await;
        assert!(found.is_err(), "{end}");
    }
}

#[tokio::test]
async fn bytes_after_the_proxy_header_are_not_read() {
    // A second header, sent by a client behind the proxy to spoof its address.
    let second_header = line("PROXY TCP4 198.51.100.9 10.0.0.1 1 2");
    for header in [
        line("PROXY TCP4 203.0.113.7 10.0.0.1 51234 443"),
        v2(0x21, 0x11, &v4()),
    ] {
        let (found, rest) = outcome(&[&header[..], &second_header].concat(), usize::MAX).await;
        assert_eq!(found.unwrap().unwrap().to_string(), "203.0.113.7:51234");
        assert_eq!(rest, second_header);
    }
}

#[test]
fn proxy_header_errors_do_not_quote_the_header() {
    let error = parse_v1(b"PROXY TCP4 secret secret 1 2\r\n").unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}
