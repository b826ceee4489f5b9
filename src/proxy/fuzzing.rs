//! Entry points for fuzzing: what callers, proxies and upstreams send. See [`crate::fuzzing`].

use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

use std::future::Future;

use http::{HeaderMap, HeaderValue, Method};

use super::h1::fuzzing::decode;
pub use super::h1::fuzzing::{RelayedRequest, RelayedResponse};
use super::validate::{Framing, HeadEndFinder, HeadLimits, HeadStatus, check_raw, rejected_head};
use crate::gateway::reason::Reason;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes: 2048,
    url_bytes: 512,
};

/// A request as hawkgate reads it.
#[derive(Debug)]
pub struct Message<'d> {
    /// From the request line to the empty line.
    pub head: &'d [u8],
    /// What follows the head on the connection.
    pub after_head: &'d [u8],
    /// The content, without framing.
    pub content: Vec<u8>,
    /// What follows the request on the connection.
    pub rest: &'d [u8],
    /// Whether the connection becomes a tunnel after this request.
    pub tunnel: bool,
}

/// Reads pipelined requests up to the first that is refused or incomplete.
pub fn requests(mut data: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    while let Ok(HeadStatus::Complete { start, end }) =
        HeadEndFinder::default().advance(data, &LIMITS)
    {
        let head = &data[start..end];
        let Ok(framing) = check_raw(head, &LIMITS) else {
            break;
        };
        let body = &data[end..];
        let Some((content, length)) = content(framing, body) else {
            break;
        };
        data = &body[length..];
        let tunnel = framing == Framing::Tunnel;
        found.push(Message {
            head,
            after_head: body,
            content,
            rest: data,
            tunnel,
        });
        if tunnel {
            break;
        }
    }
    found
}

/// The content at the beginning of `body`, and the length of its framed form; `None` if it is
/// malformed or incomplete.
fn content(framing: Framing, body: &[u8]) -> Option<(Vec<u8>, usize)> {
    match framing {
        Framing::Tunnel => Some((Vec::new(), 0)),
        Framing::Length(length) => {
            let length = usize::try_from(length).ok()?;
            Some((body.get(..length)?.to_vec(), length))
        }
        Framing::Chunked => {
            let (content, taken, ended) = decode(framing, [body])?;
            ended.then_some((content, taken))
        }
    }
}

/// Finds the end of a head at once and byte by byte, and checks the head.
pub fn raw_head(data: &[u8]) {
    let at_once = HeadEndFinder::default().advance(data, &LIMITS);
    let mut finder = HeadEndFinder::default();
    let mut bytewise = Ok(HeadStatus::Partial);
    for end in 1..=data.len() {
        bytewise = finder.advance(&data[..end], &LIMITS);
        if !matches!(bytewise, Ok(HeadStatus::Partial)) {
            break;
        }
    }
    // Not the reason: a line can be too long before its other fault arrives.
    let at_once = at_once.ok();
    assert_eq!(at_once, bytewise.ok());
    if let Some(HeadStatus::Complete { start, end }) = at_once {
        assert!(data[start..end].ends_with(b"\r\n\r\n"));
        if let Err(rejected) = check_raw(&data[start..end], &LIMITS) {
            let plain = |c: char| c.is_ascii_graphic();
            assert!(rejected.path.chars().all(plain), "{:?}", rejected.path);
        }
    }
    // Also what the search above refuses: the checks do not rely on it.
    if data.len() <= LIMITS.header_bytes
        && let Ok(framing) = check_raw(data, &LIMITS)
    {
        assert_eq!(
            at_once,
            Some(HeadStatus::Complete {
                start: 0,
                end: data.len()
            }),
            "{framing:?}"
        );
    }
    let _ = rejected_head(data, Reason::BadRequest.into());
}

/// Decodes a chunked body at once, byte by byte, and in two pieces: always with the same result.
pub fn chunked(data: &[u8]) {
    let framing = Framing::Chunked;
    let at_once = decode(framing, [data]);
    assert_eq!(at_once, decode(framing, data.chunks(1)));
    let (first, second) = data.split_at(data.len() / 2);
    assert_eq!(at_once, decode(framing, [first, second]));
    if let Some((content, taken, ended)) = at_once {
        assert!(taken <= data.len() && content.len() <= taken);
        assert!(ended || taken == data.len());
    }
}

/// The first request of `data` for the upstream, and as it was received; `None` if it is refused or
/// incomplete.
pub fn relay_request(data: &[u8]) -> Option<(RelayedRequest, Message<'_>)> {
    let sent = requests(data).into_iter().next()?;
    let framing = check_raw(sent.head, &LIMITS).ok()?;
    let relayed = super::h1::fuzzing::request(sent.head, framing, &sent.content);
    Some((relayed.expect("the head was checked"), sent))
}

/// What the caller receives for an upstream's response that arrives in pieces of `piece`
/// bytes and then ends; `None` if the response is refused.
pub fn relay_response(method: &Method, response: &[u8], piece: usize) -> Option<RelayedResponse> {
    super::h1::fuzzing::response(method, response, piece)
}

/// Reads a PROXY header and asserts that nothing after it is consumed. Returns the client's address
/// and the header's length.
pub fn proxy_header(data: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
    let mut stream = data;
    let mut reading = Box::pin(super::listener::read_proxy_header(&mut stream));
    let read = reading
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    drop(reading);
    let Poll::Ready(read) = read else {
        panic!("a slice is always ready");
    };
    let length = data.len() - stream.len();
    let client = read.ok()?;
    let header = &data[..length];
    if header.starts_with(b"PROXY") {
        let line_end = memchr::memchr(b'\n', header);
        assert_eq!(line_end, Some(length - 1));
        assert!(header.ends_with(b"\r\n") && length <= 107);
    } else {
        let variable = usize::from(u16::from_be_bytes([header[14], header[15]]));
        assert_eq!(length, 16 + variable);
    }
    Some((client, length))
}

/// Reads `X-Forwarded-For`, one field line for each line of `data`.
pub fn x_forwarded_for(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(8) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|n| n.parse().unwrap_or_default());
    let found =
        |peer: [u8; 4]| super::client::from_x_forwarded_for(&headers, peer.into(), &trusted);
    let stranger = [203, 0, 113, 9];
    assert_eq!(found(stranger), IpAddr::from(stranger), "untrusted peer");
    let client = found([10, 0, 0, 1]);
    assert_eq!(client, client.to_canonical());
}
