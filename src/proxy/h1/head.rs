//! Parses and encodes HTTP/1 heads (RFC 9112 §2-§6).

#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, Method, StatusCode, Version, header};

use super::decode::{BodyDecoder, ChunkedState};
use crate::gateway::reserved_headers::is_hop_by_hop;
use crate::header_fields::{Repeated, all, only};
use crate::proxy::head::{BodySize, FieldList, Parsed, RequestHead, ResponseHead, Sent};
use crate::proxy::validate::{Framing, MAX_CONNECTION_OPTIONS, split_target};

/// Maximum size of a response head, in bytes.
pub(super) const MAX_HEAD: usize = 128 * 1024;
/// Maximum number of field lines in a response head.
const MAX_FIELDS: usize = 256;

/// The error for a response that is not valid, unambiguous HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidResponse(pub(super) &'static str);

/// Parses a request head that has passed [`crate::proxy::validate::check_raw`], which determined
/// its `framing`. `None` if it is malformed after all.
pub(super) fn parse_request(head: &Bytes, framing: Framing) -> Option<RequestHead> {
    let end = memchr::memmem::find(head, b"\r\n")?;
    let (line, mut rest) = head.split_at(end);
    let mut words = line.split(|b| *b == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = head.slice_ref(words.next()?);
    let version = match words.next()? {
        b"HTTP/1.0" => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    rest = rest.get(2..)?;
    let mut fields = Parsed::request(rest, FIELDS);
    let (mut begin, mut sized) = (0, false);
    loop {
        let length = memchr::memchr(b'\r', rest)?;
        let (line, after) = rest.split_at(length);
        if line.is_empty() {
            break;
        }
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at(colon);
        let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str().as_bytes());
        sized |= is(&header::CONTENT_LENGTH);
        if !is(&header::TRANSFER_ENCODING) {
            let value = value.get(1..)?;
            let value_begin = begin + colon + 1 + (value.len() - value.trim_ascii_start().len());
            let value_end = value_begin + value.trim_ascii().len();
            fields.push(begin..begin + colon, value_begin..value_end);
        }
        begin += length + 2;
        rest = after.get(2..)?;
    }
    let body = match framing {
        Framing::Chunked => BodySize::Unknown,
        Framing::Length(length) if sized => BodySize::Known(length),
        Framing::Length(_) | Framing::Tunnel => BodySize::Empty,
    };
    let target = split_target(&target, &method);
    let fields = fields.into_list();
    Some(RequestHead::new(method, version, target, fields, body))
}

/// The usual number of field lines.
const FIELDS: usize = 16;

/// A response head, and how its body is read.
pub(super) struct Response {
    pub(super) head: ResponseHead,
    pub(super) body: BodyDecoder,
    /// Whether the connection can be used again.
    pub(super) persistent: bool,
}

/// Parses the head of a response to `method` at the beginning of `received` and removes it.
/// Returns `None` while it is incomplete. `upgrade` says that the request asked for an upgrade.
///
/// # Errors
/// If the head is malformed or too large, or its framing is ambiguous.
pub(super) fn parse_response(
    received: &mut BytesMut,
    method: &Method,
    upgrade: bool,
) -> Result<Option<Response>, InvalidResponse> {
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        received,
        &mut headers,
    );
    let end = match status {
        Ok(httparse::Status::Complete(end)) if end <= MAX_HEAD => end,
        Ok(httparse::Status::Partial) if received.len() < MAX_HEAD => return Ok(None),
        Ok(_) => return Err(InvalidResponse("response head too large")),
        Err(_) => return Err(InvalidResponse("malformed response head")),
    };
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = code.ok_or(InvalidResponse("malformed status code"))?;
    let http11 = parsed.version == Some(1);
    let reason = parsed.reason.unwrap_or_default();
    let custom = !reason.is_empty() && status.canonical_reason() != Some(reason);
    let reason = custom.then(|| reason.as_bytes().into());
    let head = received.get(..end).unwrap_or_default();
    let mut fields = Parsed::response(head, parsed.headers.len());
    for field in parsed.headers.iter() {
        fields.push(place(field.name.as_bytes(), head), place(field.value, head));
    }
    let fields = fields.into_list();
    received.advance(end);
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    if switching && !upgrade {
        return Err(InvalidResponse("101 response without an upgrade request"));
    }
    let mut response = Response {
        persistent: persistent(&fields, http11),
        head: ResponseHead {
            status,
            reason,
            fields,
            body: BodySize::Empty,
        },
        body: BodyDecoder::Length(0),
    };
    response.frame(method, http11)?;
    let options = connection_options(&response.head.fields)?;
    if switching {
        response.body = BodyDecoder::UntilClose;
        response.persistent = false;
    } else {
        remove_connection_fields(&mut response.head.fields, &options);
    }
    Ok(Some(response))
}

/// Returns where `part`, which is a part of `head`, is in it.
fn place(part: &[u8], head: &[u8]) -> Range<usize> {
    let begin = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    let end = begin.wrapping_add(part.len());
    if begin <= end && end <= head.len() {
        begin..end
    } else {
        0..0
    }
}

impl Response {
    /// Determines the framing, and rejects what is ambiguous (RFC 9112 §6.3).
    fn frame(&mut self, method: &Method, http11: bool) -> Result<(), InvalidResponse> {
        let fields = &mut self.head.fields;
        let chunked = match only(fields, &header::TRANSFER_ENCODING) {
            Ok(None) => false,
            Ok(Some(coding)) if http11 && coding.eq_ignore_ascii_case(b"chunked") => true,
            Ok(Some(_)) | Err(Repeated) => {
                return Err(InvalidResponse("Transfer-Encoding other than chunked"));
            }
        };
        let length = content_length(fields)?;
        if chunked {
            fields.remove(&header::TRANSFER_ENCODING);
            if length.is_some() {
                fields.remove(&header::CONTENT_LENGTH);
                // Other recipients may frame this response differently, so the connection is not
                // reused (RFC 9112 §6.1).
                self.persistent = false;
            }
        }
        let status = self.head.status;
        // RFC 9110 §8.6.
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            fields.remove(&header::CONTENT_LENGTH);
            // Such a response has no content (RFC 9112 §6.3). An upstream that announces some may
            // send it, and then it would be read as the response to the next request.
            self.persistent &= !chunked && length.unwrap_or(0) == 0;
            return Ok(());
        }
        if let Some(length) = length.filter(|_| !chunked) {
            set_content_length(fields, length);
        }
        if status == StatusCode::NOT_MODIFIED || *method == Method::HEAD {
            return Ok(());
        }
        (self.body, self.head.body) = match length {
            _ if chunked => (
                BodyDecoder::Chunked(ChunkedState::start()),
                BodySize::Unknown,
            ),
            Some(length) => (BodyDecoder::Length(length), BodySize::Known(length)),
            None => {
                self.persistent = false;
                (BodyDecoder::UntilClose, BodySize::Unknown)
            }
        };
        Ok(())
    }
}

/// Sets `Content-Length`, unless it is the only value already. The same value repeated, or in a
/// list, becomes a single value.
pub(super) fn set_content_length(fields: &mut FieldList, length: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(length).as_bytes();
    if only(fields, &header::CONTENT_LENGTH) != Ok(Some(digits)) {
        fields.set(&header::CONTENT_LENGTH, digits);
    }
}

/// Returns the value of `Content-Length`, if the field is present.
fn content_length(fields: &FieldList) -> Result<Option<u64>, InvalidResponse> {
    let mut found = None;
    for value in all(fields, &header::CONTENT_LENGTH) {
        for part in value.split(|b| *b == b',') {
            let part = part.trim_ascii();
            let digits = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(part)
                .ok()
                .filter(|_| digits)
                .and_then(|part| part.parse().ok())
                .ok_or(InvalidResponse("malformed Content-Length"))?;
            if found.replace(length).is_some_and(|other| other != length) {
                return Err(InvalidResponse("conflicting Content-Length values"));
            }
        }
    }
    Ok(found)
}

/// Whether the connection persists after this message (RFC 9112 §9.3).
pub(super) fn persistent(fields: &FieldList, http11: bool) -> bool {
    let contains = |option: &[u8]| {
        all(fields, &header::CONNECTION)
            .flat_map(|value| value.split(|b| *b == b','))
            .any(|found| found.trim_ascii().eq_ignore_ascii_case(option))
    };
    !contains(b"close") && (http11 || contains(b"keep-alive"))
}

/// Returns what `Connection` lists, in lower case.
///
/// # Errors
/// If that is too much to be compared with the name of each field.
fn connection_options(fields: &FieldList) -> Result<Vec<Vec<u8>>, InvalidResponse> {
    let options: Vec<Vec<u8>> = all(fields, &header::CONNECTION)
        .flat_map(|value| value.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
        .take(MAX_CONNECTION_OPTIONS + 1)
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    if options.len() > MAX_CONNECTION_OPTIONS {
        return Err(InvalidResponse("too many Connection options"));
    }
    Ok(options)
}

/// Removes the fields that concern only this connection: hop-by-hop fields, and those that
/// `Connection` lists (RFC 9110 §7.6.1).
fn remove_connection_fields(fields: &mut FieldList, options: &[Vec<u8>]) {
    let listed = |name: &str| {
        name != header::CONTENT_LENGTH.as_str()
            && options.iter().any(|option| option == name.as_bytes())
    };
    fields.keep(|name| !is_hop_by_hop(name) && !listed(name));
}

/// Appends a response head.
pub(super) fn encode_response(head: &ResponseHead, wire: &mut BytesMut) {
    wire.extend_from_slice(b"HTTP/1.1 ");
    wire.extend_from_slice(head.status.as_str().as_bytes());
    wire.extend_from_slice(b" ");
    let canonical = || {
        head.status
            .canonical_reason()
            .unwrap_or_default()
            .as_bytes()
    };
    wire.extend_from_slice(head.reason.as_deref().unwrap_or_else(canonical));
    wire.extend_from_slice(b"\r\n");
    head.fields.encode(wire);
    wire.extend_from_slice(b"\r\n");
}

/// Appends a request head for `target`, with the fields that frame its body.
pub(super) fn encode_request(head: &RequestHead, target: &str, wire: &mut BytesMut) {
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        wire.extend_from_slice(part.as_bytes());
    }
    let line = |wire: &mut BytesMut, name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            wire.extend_from_slice(part);
        }
    };
    if !head.fields.contains(&header::HOST)
        && let Some(host) = head.host()
    {
        line(wire, b"Host", host.as_bytes());
    }
    let mut digits = itoa::Buffer::new();
    let mut length = match head.body {
        BodySize::Known(length) => Some(digits.format(length)),
        // A method that gives content a meaning gets a length even if there is none (RFC 9110
        // §8.6).
        BodySize::Empty if anticipates_content(&head.method) => Some("0"),
        BodySize::Empty | BodySize::Unknown => None,
    };
    head.fields.encode_with(wire, |name, _| match name {
        // In its place, and only once.
        "content-length" => match length.take() {
            Some(length) => Sent::With(length.as_bytes()),
            None => Sent::Omitted,
        },
        "transfer-encoding" => Sent::Omitted,
        _ => Sent::AsItIs,
    });
    if let Some(length) = length {
        line(wire, b"Content-Length", length.as_bytes());
    }
    if head.body == BodySize::Unknown {
        line(wire, b"Transfer-Encoding", b"chunked");
    }
    wire.extend_from_slice(b"\r\n");
}

fn anticipates_content(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}
