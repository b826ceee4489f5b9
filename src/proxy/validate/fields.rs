//! Checks the fields that determine framing, host and credentials.

use http::Version;

use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::reserved_headers::reads_as;

use super::{Framing, MAX_CONNECTION_OPTIONS, MAX_FIELDS, bad_request};

/// The fields that frame a message.
const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

/// The state of the fields checked so far.
#[derive(Debug, Default)]
pub(super) struct FieldChecker<'a> {
    count: usize,
    host: Option<&'a [u8]>,
    authorization: bool,
    content_length: Option<u64>,
    chunked: bool,
    connection_options: usize,
    /// Whether `Upgrade` lists `websocket`.
    websocket: bool,
    /// Whether there are fields that HTTP/2 forbids (RFC 9113 §8.2.2).
    connection_specific: bool,
}

impl<'a> FieldChecker<'a> {
    /// Checks one field line; `value` is without surrounding whitespace.
    pub(super) fn check(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Rejection> {
        self.count += 1;
        if self.count > MAX_FIELDS {
            return Err(
                Rejection::from(Reason::HeaderTooLarge).with_cause("too many header fields")
            );
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        // By length first: most fields are none of these.
        match name.len() {
            4 if is(b"host") => self.host(value),
            6 if is(b"expect") => expect(value),
            7 if is(b"upgrade") => {
                self.connection_specific = true;
                self.websocket |= tokens(value).any(|t| t.eq_ignore_ascii_case(b"websocket"));
                Ok(())
            }
            10 if is(b"connection") => {
                self.connection_specific = true;
                self.connection(value)
            }
            10 if is(b"keep-alive") => {
                self.connection_specific = true;
                Ok(())
            }
            13 if is(b"authorization") => self.authorization(),
            14 if is(b"content-length") => self.content_length(value),
            16 if is(b"proxy-connection") => {
                self.connection_specific = true;
                Ok(())
            }
            17 if is(b"transfer-encoding") => self.transfer_encoding(value),
            // A server that reads `Content_Length` as the real field frames the message differently.
            14 | 17 if FRAMING.iter().any(|known| reads_as(name, known)) => Err(bad_request(
                "a field name that some servers read as framing",
            )),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &'a [u8]) -> Result<(), Rejection> {
        if self.host.replace(value).is_some() {
            return Err(bad_request("repeated Host"));
        }
        if is_authority(value) {
            Ok(())
        } else {
            Err(bad_request("malformed Host"))
        }
    }

    /// Rejects end-to-end fields in `Connection`. The next hop would remove them, and so forward a
    /// request that differs from the one checked here.
    fn connection(&mut self, value: &[u8]) -> Result<(), Rejection> {
        const END_TO_END: [&[u8]; 5] = [
            b"host",
            b"authorization",
            b"content-length",
            b"transfer-encoding",
            b"expect",
        ];
        for option in tokens(value).filter(|option| !option.is_empty()) {
            self.connection_options += 1;
            let is = |field: &&[u8]| option.eq_ignore_ascii_case(field);
            if END_TO_END.iter().any(is) {
                return Err(bad_request("Connection lists an end-to-end field"));
            }
        }
        if self.connection_options > MAX_CONNECTION_OPTIONS {
            return Err(bad_request("too many Connection options"));
        }
        Ok(())
    }

    fn authorization(&mut self) -> Result<(), Rejection> {
        if std::mem::replace(&mut self.authorization, true) {
            return Err(
                Rejection::from(Reason::InvalidAuthorization).with_cause("repeated Authorization")
            );
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Rejection> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value)
            .ok()
            .filter(|_| digits)
            .and_then(|value| value.parse::<u64>().ok())
            // Many recipients count in signed 64-bit integers.
            .filter(|length| *length <= i64::MAX.unsigned_abs())
            .ok_or_else(|| bad_request("malformed Content-Length"))?;
        if self.content_length.replace(length).is_some() {
            return Err(bad_request("repeated Content-Length"));
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Rejection> {
        self.connection_specific = true;
        if std::mem::replace(&mut self.chunked, true) {
            return Err(bad_request("repeated Transfer-Encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(bad_request("Transfer-Encoding other than chunked"));
        }
        Ok(())
    }

    /// Checks an HTTP/1 head as a whole and returns the framing of the body. Only HTTP/1.1 requests
    /// need a Host (RFC 9112 §3.2); without one, only routes without a host match.
    pub(super) fn finish_http1(&self, version: Version) -> Result<Framing, Rejection> {
        if self.host.is_none() && version != Version::HTTP_10 {
            return Err(bad_request("missing Host"));
        }
        if self.chunked && self.content_length.is_some() {
            return Err(bad_request("both Transfer-Encoding and Content-Length"));
        }
        if self.chunked && version != Version::HTTP_11 {
            return Err(bad_request("Transfer-Encoding in HTTP/1.0"));
        }
        let length = self.content_length.unwrap_or(0);
        if self.websocket && version == Version::HTTP_11 {
            if self.chunked || length > 0 {
                return Err(bad_request("WebSocket handshake with a body"));
            }
            return Ok(Framing::Tunnel);
        }
        Ok(if self.chunked {
            Framing::Chunked
        } else {
            Framing::Length(length)
        })
    }

    /// Checks an HTTP/2 head as a whole.
    pub(super) fn finish_http2(&self, authority: Option<&[u8]>) -> Result<(), Rejection> {
        if self.connection_specific {
            return Err(bad_request("connection-specific field in HTTP/2"));
        }
        match (authority, self.host) {
            (None, None) => Err(bad_request("missing :authority and Host")),
            (Some(authority), _) if !is_authority(authority) => {
                Err(bad_request("malformed :authority"))
            }
            (Some(authority), Some(host)) if authority != host => {
                Err(bad_request("Host differs from :authority"))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the members of a comma-separated list (RFC 9110 §5.6.1).
fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// Accepts only `100-continue`, the one expectation that RFC 9110 §10.1.1 defines.
fn expect(value: &[u8]) -> Result<(), Rejection> {
    if value.eq_ignore_ascii_case(b"100-continue") {
        Ok(())
    } else {
        Err(bad_request("Expect other than 100-continue"))
    }
}

/// Whether `value` is `uri-host [ ":" port ]` (RFC 9110 §7.2) with a port of at most 65535 and
/// without percent-encoding or userinfo.
pub(super) fn is_authority(value: &[u8]) -> bool {
    let port_follows = |rest: &[u8]| match rest.split_first() {
        None => true,
        Some((b':', port)) => is_port(port),
        Some(_) => false,
    };
    if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|b| *b == b']') else {
            return false;
        };
        let (address, rest) = literal.split_at(end);
        return std::str::from_utf8(address)
            .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
            && port_follows(rest.get(1..).unwrap_or_default());
    }
    let end = value.iter().position(|b| *b == b':').unwrap_or(value.len());
    let (name, rest) = value.split_at(end);
    let in_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    // One dot at the end is part of the name (RFC 3986 §3.2.2); no label is empty.
    let labels = name.strip_suffix(b".").unwrap_or(name);
    labels.split(|b| *b == b'.').all(|label| !label.is_empty())
        && name.iter().all(in_name)
        && port_follows(rest)
}

fn is_port(digits: &[u8]) -> bool {
    (1..=5).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_validated() {
        for good in [
            "a",
            "tc.example.com",
            "a_b.c:8080",
            "tc.example.com.:8080",
            "a:65535",
            "a:00080",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:443",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:", "a:b", "a:123456", "a:65536", "a:99999", "a:+80", "a b", "u@a", "a/b",
            "a,b", "a%2e", "[::1", "[x]", "[::1]x", "[::1]:", ".", "..", "a..", "a..b", ".a",
            "a:1:2", "a\tb", "\u{e9}", "a?b", "a#b",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
