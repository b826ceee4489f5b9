//! Responses that hawkgate sends before a request is served.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;

use super::headers::X_REQUEST_ID;
use crate::clock::UnixMillis;
use crate::gateway::rejection::ErrorResponse;

/// Encodes an error response as HTTP/1.1, for connections that are closed before they are served. `close`
/// adds `Connection: close`.
pub(super) fn encode_http1(
    response: &ErrorResponse,
    method: &Method,
    now: UnixMillis,
    request_id: Option<&str>,
    close: bool,
) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        response.status.as_str(),
        response.status.canonical_reason().unwrap_or_default()
    );
    // Writing to a String cannot fail.
    for (name, value) in &response.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if let Some(id) = request_id {
        let _ = write!(head, "{X_REQUEST_ID}: {id}\r\n");
    }
    let length = response.body.len();
    let _ = write!(head, "date: {}\r\ncontent-length: {length}\r\n", date(now));
    head.push_str(if close {
        "connection: close\r\n\r\n"
    } else {
        "\r\n"
    });
    if *method != Method::HEAD {
        head.push_str(&response.body);
    }
    head.into_bytes()
}

/// Formats `now` as an HTTP-date (RFC 9110 §5.6.7).
pub(super) fn date(now: UnixMillis) -> String {
    let since = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}
