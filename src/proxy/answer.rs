//! hawkgate's own answers on a caller's session.

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

/// A body up to this length is read to its end after a refusal, so that the caller's
/// connection can be used again.
const DRAINED: u64 = 64 * 1024;

/// A refusal as HTTP/1.1 bytes, where there is no session of pingora's; the last answer of
/// its connection if it is to `close`.
pub(super) fn on_wire(
    answer: &ErrorResponse,
    method: &Method,
    now: UnixMillis,
    request_id: Option<&str>,
    close: bool,
) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        answer.status.as_str(),
        answer.status.canonical_reason().unwrap_or_default()
    );
    // Writing to a String cannot fail.
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if let Some(id) = request_id {
        let _ = write!(head, "{X_REQUEST_ID}: {id}\r\n");
    }
    let length = answer.body.len();
    let _ = write!(head, "date: {}\r\ncontent-length: {length}\r\n", date(now));
    head.push_str(if close {
        "connection: close\r\n\r\n"
    } else {
        "\r\n"
    });
    if *method != Method::HEAD {
        head.push_str(&answer.body);
    }
    head.into_bytes()
}

/// `now` as a `Date` says it (RFC 9110 §6.6.1).
pub(super) fn date(now: UnixMillis) -> String {
    let since = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}

/// Whether a final answer went out already.
pub(super) fn answered(session: &Session) -> bool {
    session.response_written().is_some_and(|head| {
        !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
    })
}

/// Whether the body's rest is so short that reading it is cheaper than a new connection.
/// With `Expect: 100-continue` unanswered nobody knows whether it will come at all.
pub(super) fn drainable(session: &mut Session) -> bool {
    if session.is_body_done() {
        return true;
    }
    let headers = &session.req_header().headers;
    let announced = content_length(headers).is_some_and(|length| length <= DRAINED);
    announced && !headers.contains_key(header::EXPECT)
}

/// `Content-Length`, if it is there and a number.
pub(super) fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Sends `rejection`. With `keep` the caller's connection stays open where it safely can;
/// without, or after a long unread body, it is closed. (The listener then reads on for a
/// while, so that the answer is not lost in a reset.)
pub(super) async fn refuse(
    session: &mut Session,
    rejection: &Rejection,
    now: UnixMillis,
    request_id: &str,
    keep: bool,
) -> Result<()> {
    if answered(session) {
        return Ok(());
    }
    let method = session.req_header().method.clone();
    let keep = keep && drainable(session);
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

/// Sends an answer that is no refusal, or more than one. The content is wiped once it is
/// sent.
pub(super) async fn serve(
    session: &mut Session,
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Zeroizing<Vec<u8>>,
    request_id: &str,
) -> Result<()> {
    if drainable(session) {
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
        // A 401 may have two challenges.
        head.append_header(name, value)?;
    }
    head.insert_header(X_REQUEST_ID, request_id)?;
    let nothing = status == StatusCode::NO_CONTENT;
    if !nothing {
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    }
    let bodiless = nothing || session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(head), bodiless)
        .await?;
    if bodiless {
        return session.finish_body().await;
    }
    session.write_response_body(Some(body), true).await
}
