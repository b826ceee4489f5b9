//! Validates the head of a request before it is used in any other way: rejects ambiguous
//! framing, heads over the limits, and targets that two parsers could interpret differently.
//!
//! HTTP/1 heads are checked as bytes, before they are parsed. HTTP/2 heads arrive parsed;
//! `check_http2` applies the same rules to them.

mod fields;
mod head_end;
mod target;
#[cfg(test)]
mod tests;

use http::{Method, Version};

use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::settings::Limits;
use fields::FieldChecker;

pub(super) use head_end::{HeadEndFinder, HeadStatus};
pub(super) use target::hex;
pub(super) use target::split_target;

/// Maximum number of field lines in a head.
pub(super) const MAX_FIELDS: usize = 128;
/// Maximum number of options in all `Connection` fields of a head. Each of them is compared with the
/// name of each field.
pub(super) const MAX_CONNECTION_OPTIONS: usize = 100;
/// Maximum length of a method, in bytes.
const MAX_METHOD: usize = 32;
/// Maximum length of the path logged for a rejected head, in bytes.
const MAX_LOGGED_PATH: usize = 1024;

/// The limits on a request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Maximum size of the whole head, in bytes.
    pub header_bytes: usize,
    /// Maximum length of the request target, in bytes.
    pub url_bytes: usize,
}

impl From<&Limits> for HeadLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            header_bytes: limits.header_bytes,
            url_bytes: limits.url_bytes,
        }
    }
}

/// How the end of an HTTP/1 request body is determined (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The body has this length in bytes; zero if there is no body.
    Length(u64),
    /// The body ends with the last chunk and the trailer section.
    Chunked,
    /// The connection may become a WebSocket, so all further bytes belong to it.
    Tunnel,
}

/// What is logged about a rejected head.
#[derive(Clone, Debug)]
pub(super) struct RejectedHead {
    pub(super) rejection: Rejection,
    /// The method as sent, or `-` if it is not valid.
    pub(super) method: Method,
    /// The path in printable characters, without the query, or `-` if there is none.
    pub(super) path: String,
    pub(super) version: Version,
}

/// Returns a [`Reason::BadRequest`] with its cause.
fn bad_request(cause: &'static str) -> Rejection {
    Rejection::from(Reason::BadRequest).with_cause(cause)
}

/// Checks a complete HTTP/1 head as received, from its first byte to the empty line. Returns the
/// framing of the body.
///
/// # Errors
/// Returns the first fault found. The request must not be processed.
pub(super) fn check_raw(head: &[u8], limits: &HeadLimits) -> Result<Framing, Box<RejectedHead>> {
    let end = memchr::memmem::find(head, b"\r\n").unwrap_or(head.len());
    let (line, rest) = head.split_at(end);
    check_lines(line, rest.get(2..).unwrap_or_default(), limits)
        .map_err(|rejection| Box::new(rejected_head(line, rejection)))
}

/// Describes a rejected head that begins with `line`, which may contain arbitrary bytes.
pub(super) fn rejected_head(line: &[u8], rejection: Rejection) -> RejectedHead {
    let line = line.split(|b| *b == b'\r' || *b == b'\n').next();
    let mut words = line.unwrap_or_default().split(|b| *b == b' ');
    let method = words
        .next()
        .filter(|word| word.len() <= MAX_METHOD)
        .and_then(|word| Method::from_bytes(word).ok())
        .or_else(|| Method::from_bytes(b"-").ok());
    RejectedHead {
        rejection,
        method: method.unwrap_or_default(),
        path: printable_path(words.next().unwrap_or_default()),
        version: if line.is_some_and(|line| line.ends_with(b"HTTP/1.0")) {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        },
    }
}

/// Returns the path of an origin-form target, without query or fragment, in a form suitable for
/// a log line.
fn printable_path(target: &[u8]) -> String {
    if target.first() != Some(&b'/') {
        return "-".to_owned();
    }
    target
        .iter()
        .take_while(|b| !matches!(b, b'?' | b'#'))
        .take(MAX_LOGGED_PATH)
        .map(|b| {
            if b.is_ascii_graphic() {
                char::from(*b)
            } else {
                '.'
            }
        })
        .collect()
}

/// Performs the part of the checks that concerns method and target.
///
/// # Errors
/// Returns the first fault found.
pub(super) fn check_target(
    method: &Method,
    target: &[u8],
    limits: &HeadLimits,
) -> Result<(), Rejection> {
    check_method(method.as_str().as_bytes())?;
    let options = *method == Method::OPTIONS;
    target::check_origin_form(target, options, limits.url_bytes).map(drop)
}

/// Performs the checks of a request line and of `Host` on a request that a proxy asks about.
///
/// # Errors
/// Returns the first fault found.
pub(super) fn check_original(
    method: &Method,
    host: &str,
    target: &str,
    limits: &HeadLimits,
) -> Result<(), Rejection> {
    check_method(method.as_str().as_bytes())?;
    target::check_origin_form(target.as_bytes(), false, limits.url_bytes)?;
    if !fields::is_authority(host.as_bytes()) {
        return Err(bad_request("malformed host of the original request"));
    }
    Ok(())
}

fn check_lines(line: &[u8], rest: &[u8], limits: &HeadLimits) -> Result<Framing, Rejection> {
    let version = check_request_line(line, limits)?;
    let mut fields = FieldChecker::default();
    let mut rest = rest;
    loop {
        let end = memchr::memchr(b'\r', rest).ok_or_else(|| bad_request("the head has no end"))?;
        let (field, after) = rest.split_at(end);
        // A CR that is not followed by LF (RFC 9112 §2.2).
        rest = after
            .strip_prefix(b"\r\n")
            .ok_or_else(|| bad_request("bare CR in the head"))?;
        if field.is_empty() {
            break;
        }
        check_field_line(field, &mut fields)?;
    }
    if !rest.is_empty() {
        return Err(bad_request("data after the end of the head"));
    }
    fields.finish_http1(version)
}

/// Checks a request line, which must be exactly `method SP request-target SP HTTP-version` (RFC
/// 9112 §3).
fn check_request_line(line: &[u8], limits: &HeadLimits) -> Result<Version, Rejection> {
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad_request("malformed request line"));
    };
    check_method(method)?;
    target::check_http1(target, method == b"OPTIONS", limits.url_bytes)?;
    match version {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        _ => Err(bad_request("HTTP version is neither 1.0 nor 1.1")),
    }
}

fn check_method(method: &[u8]) -> Result<(), Rejection> {
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(|b| is_token(*b)) {
        return Err(bad_request("malformed method"));
    }
    if method.eq_ignore_ascii_case(b"TRACE") || method.eq_ignore_ascii_case(b"CONNECT") {
        return Err(Reason::MethodRefused.into());
    }
    Ok(())
}

/// Checks a field line, `field-name ":" OWS field-value OWS` (RFC 9112 §5).
fn check_field_line<'a>(line: &'a [u8], fields: &mut FieldChecker<'a>) -> Result<(), Rejection> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(bad_request("folded field line"));
    }
    let colon =
        memchr::memchr(b':', line).ok_or_else(|| bad_request("field line without a colon"))?;
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(bad_request("malformed field name"));
    }
    let value = value.get(1..).unwrap_or_default();
    let control = |b: u8| (b < 0x20 && b != b'\t') || b == 0x7f;
    // Without an early exit, so that the compiler can vectorize the loop.
    if value.iter().fold(false, |found, b| found | control(*b)) {
        return Err(bad_request("control character in a field value"));
    }
    fields.check(name, value.trim_ascii())
}

/// Whether `byte` is a `tchar` (RFC 9110 §5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Applies the rules for HTTP/1 heads to the head of an HTTP/2 request. Its size is limited by
/// HTTP/2's own `SETTINGS_MAX_HEADER_LIST_SIZE`.
///
/// # Errors
/// Returns the first fault found, as the response to the request.
pub(super) fn check_http2(
    head: &http::request::Parts,
    limits: &HeadLimits,
) -> Result<(), Rejection> {
    check_method(head.method.as_str().as_bytes())?;
    let options = head.method == Method::OPTIONS;
    target::check_origin_form(http2_target(head), options, limits.url_bytes)?;
    let mut fields = FieldChecker::default();
    for (name, value) in &head.headers {
        if is_padded(value.as_bytes()) {
            return Err(bad_request("whitespace around a field value in HTTP/2"));
        }
        fields.check(name.as_str().as_bytes(), value.as_bytes())?;
    }
    fields.finish_http2(head.uri.authority().map(|a| a.as_str().as_bytes()))
}

/// Whether whitespace surrounds a field value, which HTTP/2 does not allow (RFC 9113 §8.2.1).
pub(super) fn is_padded(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.first()) || is_space(value.last())
}

/// Describes a rejected HTTP/2 head.
pub(super) fn rejected_http2(head: &http::request::Parts, rejection: Rejection) -> RejectedHead {
    RejectedHead {
        rejection,
        method: head.method.clone(),
        path: printable_path(http2_target(head)),
        version: Version::HTTP_2,
    }
}

fn http2_target(head: &http::request::Parts) -> &[u8] {
    let target = head.uri.path_and_query();
    target.map_or(b"", |target| target.as_str().as_bytes())
}
