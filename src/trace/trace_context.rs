//! The headers of W3C Trace Context, Level 1 (<https://www.w3.org/TR/trace-context-1/>).
//! Section numbers below refer to it.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Trace id, parent span id and flags (§3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Vendor-specific trace data (§3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of `00-<trace id>-<parent id>-<flags>`, in bytes.
const LENGTH: usize = 55;
/// The `sampled` flag (§3.2.2.5.1).
const SAMPLED: u8 = 1;
/// Maximum number of list members in a `tracestate` (§3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// A trace id: 16 bytes, not all zero. Displayed as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// A span id: 8 bytes, not all zero. Displayed as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// A random id; `None` if the random number generator fails.
    pub fn random() -> Option<Self> {
        random().map(Self)
    }

    /// Parses 32 lower-case hexadecimal digits, or a UUID such as Taskcluster's services
    /// generate.
    pub fn parse(text: &str) -> Option<Self> {
        let dashes = text.bytes().enumerate().filter(|(_, b)| *b == b'-');
        let uuid = text.len() == 36 && dashes.map(|(at, _)| at).eq([8, 13, 18, 23]);
        if uuid {
            return hex(text.replace('-', "").as_bytes()).map(Self);
        }
        hex(text.as_bytes()).map(Self)
    }

    /// The last 8 bytes as a number. Ratio samplers use only these bytes, so that samplers with the
    /// same ratio make the same decision.
    pub(super) fn low_bits(self) -> u64 {
        let mut low_bits = [0; 8];
        low_bits.copy_from_slice(&self.0[8..]);
        u64::from_be_bytes(low_bits)
    }
}

impl SpanId {
    /// A random id; `None` if the random number generator fails.
    pub fn random() -> Option<Self> {
        random().map(Self)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&digits::<32>(&self.0)).unwrap_or_default())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&digits::<16>(&self.0)).unwrap_or_default())
    }
}

/// The parent span that a caller propagated in `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteParent {
    /// The trace id.
    pub trace: TraceId,
    /// The id of the caller's span.
    pub span: SpanId,
    /// Whether the caller may have recorded the trace.
    pub sampled: bool,
}

impl RemoteParent {
    /// Parses `traceparent` (§3.2); `None` unless there is exactly one well-formed value.
    /// Values of a later version are parsed as version 00, as §4.3 requires.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?.as_bytes();
        if values.next().is_some() {
            return None;
        }
        Self::parse(value)
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(LENGTH)?;
        let [version] = hex::<1>(&head[..2]).or_else(|| (&head[..2] == b"00").then_some([0]))?;
        let complete = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let dashed = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        if !complete || !dashed {
            return None;
        }
        let flags = nibble(head[53])? << 4 | nibble(head[54])?;
        Some(Self {
            trace: TraceId(hex(&head[3..35])?),
            span: SpanId(hex(&head[36..52])?),
            sampled: flags & SAMPLED != 0,
        })
    }
}

/// The `traceparent` value for a request sent within `span`.
pub fn traceparent(trace: TraceId, span: SpanId, sampled: bool) -> Option<HeaderValue> {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    value[3..35].copy_from_slice(&digits::<32>(&trace.0));
    value[36..52].copy_from_slice(&digits::<16>(&span.0));
    if sampled {
        value[54] = b'1';
    }
    HeaderValue::from_bytes(&value).ok()
}

/// Whether `tracestate` is well-formed (§3.3), so that it can be forwarded unchanged.
pub(super) fn tracestate_is_valid(headers: &HeaderMap) -> bool {
    let mut keys: Vec<&[u8]> = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        for member in value.as_bytes().split(|b| *b == b',') {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            let Some(at) = member.iter().position(|b| *b == b'=') else {
                return false;
            };
            let (key, value) = (&member[..at], &member[at + 1..]);
            if !is_key(key) || !is_member_value(value) || keys.contains(&key) {
                return false;
            }
            keys.push(key);
            if keys.len() > MAX_MEMBERS {
                return false;
            }
        }
    }
    true
}

/// Whether `key` has the form `key` or `tenant@vendor` (§3.3.1.3.1).
fn is_key(key: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/".contains(b);
    let first = |part: &[u8], digit: bool| {
        part.first()
            .is_some_and(|b| b.is_ascii_lowercase() || (digit && b.is_ascii_digit()))
    };
    let mut parts = key.splitn(2, |b| *b == b'@');
    match (parts.next(), parts.next()) {
        (Some(key), None) => first(key, false) && key.len() <= 256 && key.iter().all(plain),
        (Some(tenant), Some(vendor)) => {
            let fits = |part: &[u8], max| part.len() <= max && part.iter().all(plain);
            first(tenant, true) && first(vendor, false) && fits(tenant, 241) && fits(vendor, 14)
        }
        _ => false,
    }
}

/// Whether `value` is valid as a member's value (§3.3.1.3.2); it has already been trimmed.
fn is_member_value(value: &[u8]) -> bool {
    let printable = |b: &u8| (0x20..=0x7e).contains(b) && *b != b'=';
    (1..=256).contains(&value.len()) && value.iter().all(printable)
}

/// Random bytes, not all zero.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    bytes.iter().any(|b| *b != 0).then_some(bytes)
}

/// Decodes exactly `2 * N` lower-case digits; `None` if all bytes are zero.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    bytes.iter().any(|b| *b != 0).then_some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Encodes `bytes` as `N` lower-case digits, two per byte.
fn digits<const N: usize>(bytes: &[u8]) -> [u8; N] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; N];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                name.clone(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn a_traceparent_round_trips() {
        for sampled in [false, true] {
            let (trace, span) = (TraceId::random().unwrap(), SpanId::random().unwrap());
            let value = traceparent(trace, span, sampled).unwrap();
            assert_eq!(
                value.to_str().unwrap(),
                format!("00-{trace}-{span}-0{}", u8::from(sampled))
            );
            let read =
                RemoteParent::from_headers(&headers(&TRACEPARENT, &[value.to_str().unwrap()]));
            let expected = RemoteParent {
                trace,
                span,
                sampled,
            };
            assert_eq!(read, Some(expected));
        }
        assert_ne!(TraceId::random(), TraceId::random());
    }

    #[test]
    fn traceparent_is_parsed_strictly() {
        for (value, sampled) in [
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                Some(true),
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                Some(false),
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe",
                Some(false),
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                Some(true),
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
                Some(true),
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01what",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
                None,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                None,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
                None,
            ),
            (
                "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bé-01",
                None,
            ),
            ("", None),
        ] {
            let parent = RemoteParent::from_headers(&headers(&TRACEPARENT, &[value]));
            assert_eq!(parent.map(|p| p.sampled), sampled, "{value}");
            if let Some(parent) = parent {
                assert_eq!(parent.trace.to_string(), TRACE);
                assert_eq!(parent.span.to_string(), "00f067aa0ba902b7");
            }
        }
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            RemoteParent::from_headers(&headers(&TRACEPARENT, &[good, good])),
            None
        );
    }

    #[test]
    fn tracestate_is_validated_strictly() {
        let long = "a".repeat(256);
        let many = |n: usize| {
            (0..n)
                .map(|i| format!("k{i}=v"))
                .collect::<Vec<_>>()
                .join(",")
        };
        for (values, valid) in [
            (vec!["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], true),
            (vec!["a=1", "b=2"], true),
            (vec!["a=1 , ,b=2,"], true),
            (vec!["0tenant@vendor=a b"], true),
            (vec![&format!("{long}={long}")], true),
            (vec![&many(32)], true),
            (vec![&many(33)], false),
            (vec!["a=1", "a=2"], false),
            (vec!["A=1"], false),
            (vec!["0a=1"], false),
            (vec!["a"], false),
            (vec!["a="], false),
            (vec!["a=b=c"], false),
            (vec!["a@b@c=1"], false),
            (vec!["a=\u{e9}"], false),
            (vec![&format!("a{long}=1")], false),
            (vec![&format!("a=1{long}")], false),
        ] {
            assert_eq!(
                tracestate_is_valid(&headers(&TRACESTATE, &values)),
                valid,
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_trace_id_parses_from_hexadecimal_or_a_uuid() {
        let uuid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
        assert_eq!(TraceId::parse(uuid).unwrap().to_string(), TRACE);
        assert_eq!(TraceId::parse(TRACE).unwrap().to_string(), TRACE);
        for text in [
            "foo/bar",
            "",
            "4bf92f3577b34da6a3ce929d0e0e473é",
            "----------------------------a-------",
        ] {
            assert_eq!(TraceId::parse(text), None, "{text}");
        }
    }
}
