//! Responses that hawkgate generates itself.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use zeroize::Zeroizing;

use super::headers::X_REQUEST_ID;
use crate::clock::UnixMillis;
use crate::gateway::rejection::{ErrorResponse, Rejection};

/// Request bodies of at most this number of bytes are read to their end after a rejection, so
/// that the connection can be reused.
const MAX_DRAINED_BODY: u64 = 64 * 1024;

/// Encodes an error response as HTTP/1.1, for connections without a pingora session. `close`
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

/// Whether a final response has been started.
pub(super) fn response_started(session: &Session) -> bool {
    session.response_written().is_some_and(|head| {
        !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
    })
}

/// Whether the rest of the request body is so short that reading it costs less than a new
/// connection. After `Expect: 100-continue` the caller may not send a body at all.
pub(super) fn is_body_drainable(session: &mut Session) -> bool {
    if session.is_body_done() {
        return true;
    }
    let headers = &session.req_header().headers;
    let announced = content_length(headers).is_some_and(|length| length <= MAX_DRAINED_BODY);
    announced && !headers.contains_key(header::EXPECT)
}

/// Returns the value of `Content-Length`, if the field is present and a number.
pub(super) fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Sends `rejection`. With `keep`, the connection is kept alive unless much of the body is
/// unread; otherwise it is closed. (The listener then lingers, so that the response is not lost
/// in a reset.)
pub(super) async fn send_rejection(
    session: &mut Session,
    rejection: &Rejection,
    now: UnixMillis,
    request_id: &str,
    keep: bool,
) -> Result<()> {
    if response_started(session) {
        return Ok(());
    }
    let method = session.req_header().method.clone();
    let keep = keep && is_body_drainable(session);
    if keep {
        session.set_close_on_response_before_downstream_finish(false);
    } else {
        session.set_keepalive(None);
    }
    let ErrorResponse {
        status,
        headers,
        body,
    } = rejection.to_response(&method, now);
    write(session, status, headers, Bytes::from(body), request_id).await
}

/// Sends the response of one of hawkgate's own endpoints. The body is wiped from memory after it
/// has been sent. With `close`, the connection is closed, and otherwise kept alive unless much of
/// the request's body is unread.
pub(super) async fn send(
    session: &mut Session,
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Zeroizing<Vec<u8>>,
    request_id: &str,
    close: bool,
) -> Result<()> {
    if !close && is_body_drainable(session) {
        session.set_close_on_response_before_downstream_finish(false);
    } else {
        session.set_keepalive(None);
    }
    write(
        session,
        status,
        headers,
        Bytes::from_owner(body),
        request_id,
    )
    .await
}

async fn write(
    session: &mut Session,
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    request_id: &str,
) -> Result<()> {
    if session.is_process_shutting_down() {
        session.set_keepalive(None);
    }
    let mut head = ResponseHeader::build(status, Some(headers.len() + 4))?;
    for (name, value) in headers {
        // Appended rather than set, because a 401 can have two challenges.
        head.append_header(name, value)?;
    }
    head.insert_header(X_REQUEST_ID, request_id)?;
    let no_content = status == StatusCode::NO_CONTENT;
    if !no_content {
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    }
    let bodiless = no_content || session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(head), bodiless)
        .await?;
    if bodiless {
        return session.finish_body().await;
    }
    session.write_response_body(Some(body), true).await
}
