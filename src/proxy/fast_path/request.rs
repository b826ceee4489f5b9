//! The caller's head: from checked bytes to fields, and to the bytes that go upstream.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Method};

use super::spelling::Spelling;
use crate::proxy::guard::MAX_FIELDS;

/// A request without a body, of whose head nothing concerns the connection.
pub(super) struct RequestHead {
    pub(super) method: Method,
    target: Bytes,
    pub(super) headers: HeaderMap,
    spelling: Spelling,
}

impl RequestHead {
    /// Whether it can be one at all, by its first bytes: no look at the rest is wasted on a
    /// request that has a body.
    pub(super) fn may_begin(head: &[u8]) -> bool {
        [&b"GET /"[..], b"HEAD /", b"DELETE /"]
            .iter()
            .any(|begin| head.starts_with(begin))
    }

    /// Reads a head that [`crate::proxy::guard::check_raw`] has passed. `None` where it asks
    /// for anything beyond one plain exchange: a body, an upgrade, a continue, a connection
    /// to be closed, HTTP/1.0.
    pub(super) fn parse(head: &Bytes) -> Option<Self> {
        let mut room = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        let complete = parsed.parse_with_uninit_headers(head, &mut room).ok()?;
        if complete != httparse::Status::Complete(head.len()) || parsed.version != Some(1) {
            return None;
        }
        let method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
        let target = parsed.path.filter(|target| target.starts_with('/'))?;
        let mut headers = HeaderMap::with_capacity(parsed.headers.len() + ADDED);
        let mut spelling = Spelling::of(head.clone(), parsed.headers.len());
        let base = head.as_ptr() as usize;
        for field in parsed.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            if !is_plain(&name, field.value) {
                return None;
            }
            let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?;
            let start = (field.name.as_ptr() as usize).saturating_sub(base);
            spelling.learn(&name, start..start + field.name.len());
            headers.append(name, value);
        }
        Some(Self {
            method,
            target: head.slice_ref(target.as_bytes()),
            headers,
            spelling,
        })
    }

    /// Path and query as they came. A checked target is ASCII.
    pub(super) fn target(&self) -> &str {
        std::str::from_utf8(&self.target).unwrap_or_default()
    }

    /// The head on the wire, for `target`.
    pub(super) fn to_wire(&self, target: &str) -> BytesMut {
        let mut wire = BytesMut::with_capacity(WIRE);
        for part in [self.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            wire.extend_from_slice(part.as_bytes());
        }
        self.spelling.write(&self.headers, &mut wire);
        wire.extend_from_slice(b"\r\n");
        wire
    }
}

/// Fields that hawkgate may add: room for them, so that the map need not grow.
const ADDED: usize = 8;
/// What most heads fit into.
const WIRE: usize = 1024;

/// Whether a field leaves body and connection alone.
fn is_plain(name: &HeaderName, value: &[u8]) -> bool {
    match *name {
        header::CONTENT_LENGTH
        | header::TRANSFER_ENCODING
        | header::EXPECT
        | header::UPGRADE
        | header::TRAILER => false,
        header::CONNECTION => value.eq_ignore_ascii_case(b"keep-alive"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<RequestHead> {
        RequestHead::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn what_concerns_the_connection_or_has_a_body_is_left_to_others() {
        for field in [
            "Content-Length: 0",
            "content-length: 5",
            "Transfer-Encoding: chunked",
            "Expect: 100-continue",
            "Upgrade: websocket",
            "Upgrade: h2c",
            "Trailer: x",
            "Connection: close",
            "Connection: keep-alive, x-y",
            "Connection: x-y",
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n");
            assert!(parse(&head).is_none(), "{field}");
        }
        assert!(parse("GET / HTTP/1.0\r\nHost: x\r\n\r\n").is_none());
        assert!(parse("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n").is_none());
        assert!(parse("GET / HTTP/1.1\r\nHost: x\r\n").is_none());
        for begin in ["POST /", "GET http", "get /", "GETX /", "OPTIONS *"] {
            assert!(!RequestHead::may_begin(begin.as_bytes()), "{begin}");
        }
    }

    #[test]
    fn names_keep_their_spelling_and_values_their_bytes() {
        let head = parse(
            "GET /a%2Fb?c HTTP/1.1\r\nhOsT: x\r\nX-Two: 1\r\nConnection: Keep-Alive\r\nx-TWO: 2\r\nX-Odd: \u{e9}\t.\r\n\r\n",
        );
        let head = head.unwrap();
        assert_eq!(head.target(), "/a%2Fb?c");
        let wire = head.to_wire("/other");
        let wire = std::str::from_utf8(&wire).unwrap();
        assert!(
            wire.starts_with("GET /other HTTP/1.1\r\nhOsT: x\r\n"),
            "{wire}"
        );
        assert!(wire.contains("\r\nX-Two: 1\r\nx-TWO: 2\r\n"), "{wire}");
        assert!(wire.contains("\r\nX-Odd: \u{e9}\t.\r\n"), "{wire}");
        assert!(wire.ends_with("\r\n\r\n"));
    }
}
