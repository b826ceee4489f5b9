//! Parses the caller's request head and encodes the one that is sent upstream.

use bytes::{Bytes, BytesMut};
use http::Method;

use crate::proxy::head::FieldList;
use crate::proxy::validate::MAX_FIELDS;

/// The head of a request without a body and without connection-specific fields. Not `Debug`,
/// because it can contain cookies and tokens.
pub(super) struct RequestHead {
    pub(super) method: Method,
    target: Bytes,
    pub(super) fields: FieldList,
}

impl RequestHead {
    /// Whether the first bytes can begin such a request. Avoids parsing heads that will be
    /// declined.
    pub(super) fn is_candidate(head: &[u8]) -> bool {
        [&b"GET /"[..], b"HEAD /", b"DELETE /"]
            .iter()
            .any(|begin| head.starts_with(begin))
    }

    /// Parses a head that has passed [`crate::proxy::validate::check_raw`]. Returns `None` if
    /// the request has a body, requests an upgrade, a 100 Continue or closing the connection, or
    /// is HTTP/1.0.
    pub(super) fn parse(head: &Bytes) -> Option<Self> {
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        let complete = parsed.parse_with_uninit_headers(head, &mut headers).ok()?;
        if complete != httparse::Status::Complete(head.len()) || parsed.version != Some(1) {
            return None;
        }
        let method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
        let target = parsed.path.filter(|target| target.starts_with('/'))?;
        let fields = parsed.headers.iter();
        if !fields
            .clone()
            .all(|f| is_supported(f.name.as_bytes(), f.value))
        {
            return None;
        }
        let fields = fields.map(|f| (f.name.as_bytes(), f.value));
        Some(Self {
            method,
            target: head.slice_ref(target.as_bytes()),
            fields: FieldList::of(fields, head.len()),
        })
    }

    /// Returns path and query as received. A validated target is ASCII.
    pub(super) fn target(&self) -> &str {
        std::str::from_utf8(&self.target).unwrap_or_default()
    }

    /// Encodes the head, with `target` as the request target.
    pub(super) fn encode(&self, target: &str) -> BytesMut {
        let mut wire = BytesMut::with_capacity(HEAD_CAPACITY);
        for part in [self.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            wire.extend_from_slice(part.as_bytes());
        }
        self.fields.encode(&mut wire);
        wire.extend_from_slice(b"\r\n");
        wire
    }
}

/// Capacity into which most heads fit.
const HEAD_CAPACITY: usize = 1024;

/// Whether the fast path supports requests with this field: it concerns neither the body nor the
/// connection.
fn is_supported(name: &[u8], value: &[u8]) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    // By length first: most fields are none of these.
    match name.len() {
        6 => !is("expect"),
        7 => !is("upgrade") && !is("trailer"),
        10 if is("connection") => value.eq_ignore_ascii_case(b"keep-alive"),
        14 => !is("content-length"),
        17 => !is("transfer-encoding"),
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
    fn requests_with_bodies_or_connection_options_are_declined() {
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
            assert!(!RequestHead::is_candidate(begin.as_bytes()), "{begin}");
        }
    }

    #[test]
    fn request_fields_keep_spelling_and_bytes() {
        let head = parse(
            "GET /a%2Fb?c HTTP/1.1\r\nhOsT: x\r\nX-Two: 1\r\nConnection: Keep-Alive\r\nx-TWO: 2\r\nX-Odd: \u{e9}\t.\r\n\r\n",
        );
        let head = head.unwrap();
        assert_eq!(head.target(), "/a%2Fb?c");
        let wire = head.encode("/other");
        let wire = std::str::from_utf8(&wire).unwrap();
        assert!(
            wire.starts_with("GET /other HTTP/1.1\r\nhOsT: x\r\n"),
            "{wire}"
        );
        let order = "\r\nX-Two: 1\r\nConnection: Keep-Alive\r\nx-TWO: 2\r\n";
        assert!(wire.contains(order), "{wire}");
        assert!(wire.contains("\r\nX-Odd: \u{e9}\t.\r\n"), "{wire}");
        assert!(wire.ends_with("\r\n\r\n"));
    }
}
