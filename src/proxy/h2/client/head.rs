//! Conversion of heads, and the rules of HTTP/2 for them (RFC 9113 §8.2 and §8.3).

use bytes::Bytes;
use http::response::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};

use super::{internal, invalid};
use crate::header_fields::{HeaderFields, all};
use crate::proxy::error::RelayError;
use crate::proxy::h2::fields;
use crate::proxy::head::{BodySize, FieldList, RequestHead, ResponseHead};
use crate::proxy::validate::is_padded;

/// Converts a request. Its `Host` becomes `:authority`.
pub(super) fn request(
    head: &RequestHead,
    target: &str,
    scheme: Scheme,
) -> Result<Request<()>, RelayError> {
    let unusable = |_| internal("a head that cannot be sent in HTTP/2");
    let host = head.fields.first(&header::HOST);
    let host = host.ok_or_else(|| internal("a request without Host"))?;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(Authority::try_from(host).map_err(|e| unusable(e.into()))?);
    let target = Bytes::copy_from_slice(target.as_bytes());
    let target = PathAndQuery::from_maybe_shared(target);
    uri.path_and_query = Some(target.map_err(|e| unusable(e.into()))?);
    let keep = |name: &str, value: &[u8]| {
        name != "host" && name != "te" && !fields::is_connection_specific(name, value)
    };
    let mut map = head.fields.to_map(keep).map_err(unusable)?;
    if takes_trailers(&head.fields) {
        map.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(secret) = map.get_mut(header::AUTHORIZATION) {
        // Keeps it out of the compression context (RFC 7541 §7.1.3).
        secret.set_sensitive(true);
    }
    frame(&mut map, head);
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|e| unusable(e.into()))?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = map;
    Ok(request)
}

/// Whether the caller accepts trailers. That is all that `TE` can say in HTTP/2.
fn takes_trailers(fields: &FieldList) -> bool {
    all(fields, &header::TE)
        .flat_map(|value| value.split(|b| *b == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Sets the length of the content, where there is one (RFC 9110 §8.6).
fn frame(map: &mut HeaderMap, head: &RequestHead) {
    let has_content = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
    let length = match head.body {
        BodySize::Known(length) => length,
        BodySize::Empty if has_content => 0,
        BodySize::Empty | BodySize::Unknown => {
            map.remove(header::CONTENT_LENGTH);
            return;
        }
    };
    map.insert(header::CONTENT_LENGTH, length.into());
}

/// Converts an interim response. One cannot switch protocols (RFC 9113 §8.6).
pub(super) fn interim(response: &Response<()>) -> Result<ResponseHead, RelayError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(invalid("101 in HTTP/2"));
    }
    check_values(response.headers())?;
    Ok(ResponseHead {
        status: response.status(),
        reason: None,
        fields: fields::list(response.headers(), |name| name != "content-length"),
        body: BodySize::Empty,
    })
}

/// Converts the final response to a request with `method`. `h2` has rejected connection-specific
/// fields, and lengths that are invalid or differ from the content. `ended` says that no content
/// follows.
pub(super) fn response(
    parts: &Parts,
    method: &Method,
    ended: bool,
) -> Result<ResponseHead, RelayError> {
    check_values(&parts.headers)?;
    let status = parts.status;
    let length = content_length(&parts.headers)?;
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *method == Method::HEAD;
    let body = match length {
        _ if bodiless => BodySize::Empty,
        Some(length) => BodySize::Known(length),
        None if ended => BodySize::Known(0),
        None => BodySize::Unknown,
    };
    // RFC 9110 §8.6: no length in a 204. Repeated ones are equal.
    let mut fields = fields::list(&parts.headers, |name| name != "content-length");
    if let Some(length) = length.filter(|_| status != StatusCode::NO_CONTENT) {
        let mut digits = itoa::Buffer::new();
        fields.push(b"content-length", digits.format(length).as_bytes());
    }
    Ok(ResponseHead {
        status,
        reason: None,
        fields,
        body,
    })
}

fn check_values(headers: &HeaderMap) -> Result<(), RelayError> {
    if headers.values().any(|value| is_padded(value.as_bytes())) {
        return Err(invalid("whitespace around a field value in HTTP/2"));
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, RelayError> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let value = value.to_str().ok().and_then(|value| value.parse().ok());
        let length: u64 = value.ok_or_else(|| invalid("malformed Content-Length"))?;
        if found.replace(length).is_some_and(|other| other != length) {
            return Err(invalid("conflicting Content-Length values"));
        }
    }
    Ok(found)
}
