//! Header hygiene: what of a request goes upstream, what of an answer comes back.
//!
//! hawkgate owns whatever names a party, a hop or a credential, because the upstream's
//! signature check and its trust depend on it (taskcluster.md §4). Everything else passes
//! as it is. No `Via` is added: upstreams switch compression off when they see one.

mod names;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};

use crate::gateway::route::Upstream;
use crate::secret::SecretString;
use crate::trace::{self, RequestTrace};
use names::Fate;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id taken over from a caller.
const MAX_REQUEST_ID: usize = 64;

/// The fields of a head: pingora's own, which remembers how names were spelled, or a plain
/// map. One set of rules serves both.
pub(super) trait Fields {
    /// All of them.
    fn all(&self) -> &HeaderMap;
    /// Takes out every field called `name`.
    fn take_out(&mut self, name: &HeaderName);
    /// Puts one in the place of all that are called `name`.
    fn put(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    /// Puts one beside those that are called `name`.
    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
}

macro_rules! fields_of_pingoras {
    ($head:ty) => {
        impl Fields for $head {
            fn all(&self) -> &HeaderMap {
                &self.headers
            }
            fn take_out(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }
            fn put(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
                self.insert_header(name, value)
            }
            fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
                self.append_header(name, value).map(drop)
            }
        }
    };
}

fields_of_pingoras!(RequestHeader);
fields_of_pingoras!(ResponseHeader);

impl Fields for HeaderMap {
    fn all(&self) -> &HeaderMap {
        self
    }
    fn take_out(&mut self, name: &HeaderName) {
        self.remove(name);
    }
    fn put(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert(name, value);
        Ok(())
    }
    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append(name, value);
        Ok(())
    }
}

/// Whether a request's head is a handshake for another protocol. pingora leaves `Upgrade`
/// on a WebSocket handshake only, in its own words.
pub(super) fn is_upgrade(head: &RequestHeader) -> bool {
    head.headers.contains_key(header::UPGRADE) && head.version == Version::HTTP_11
}

/// Makes `head`, which is the caller's, or was made of it by this before, one that is
/// hawkgate's own. What is left to do is to sign it. `upgrade` is [`is_upgrade`] of it.
pub(super) fn request(
    head: &mut impl Fields,
    upgrade: bool,
    upstream: &Upstream,
    client: Option<IpAddr>,
    request_id: &str,
) -> Result<()> {
    for name in doomed(head.all(), |name| names::in_request(name, upgrade)) {
        head.take_out(&name);
    }
    join_cookies(head)?;
    head.put(header::HOST, upstream.authority.clone())?;
    let scheme = if upstream.tls { "https" } else { "http" };
    head.put(X_FORWARDED_PROTO, HeaderValue::from_static(scheme))?;
    head.put(X_FORWARDED_PORT, HeaderValue::from(upstream.signed_port))?;
    if let Some(client) = client {
        // One plain address, which every service takes (taskcluster.md §4).
        head.put(X_FORWARDED_FOR, address(client)?)?;
    }
    head.put(X_REQUEST_ID, value(request_id)?)
}

/// `ip` as a field's value.
fn address(ip: IpAddr) -> Result<HeaderValue> {
    let IpAddr::V4(ip) = ip else {
        return value(ip.to_string());
    };
    // Without the machinery of formatting, as this is done for every request.
    let mut text = Vec::with_capacity("255.255.255.255".len());
    for octet in ip.octets() {
        if !text.is_empty() {
            text.push(b'.');
        }
        text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
    value(text)
}

/// `text` as a field's value.
pub(super) fn value(text: impl AsRef<[u8]>) -> Result<HeaderValue> {
    HeaderValue::from_bytes(text.as_ref())
        .explain_err(ErrorType::InvalidHTTPHeader, |_| "invalid header value")
}

/// Tells the upstream which trace the request belongs to.
pub(super) fn trace_headers(head: &mut impl Fields, request: &RequestTrace) -> Result<()> {
    for (name, fate) in request.headers() {
        match fate {
            trace::Fate::Set(value) => head.put(name, value)?,
            trace::Fate::Remove => head.take_out(&name),
            trace::Fate::Keep => {}
        }
    }
    Ok(())
}

/// Takes out the caller's own copies of `name`, which is where hawkgate's credential goes;
/// also those written with `_`, which some servers take for `-`.
pub(super) fn reserve(head: &mut impl Fields, name: &HeaderName) {
    let is_dash = |byte: u8| matches!(byte, b'-' | b'_');
    let meant = |own: &&HeaderName| {
        let (own, name) = (own.as_str().as_bytes(), name.as_str().as_bytes());
        let mut pairs = own.iter().zip(name);
        own.len() == name.len() && pairs.all(|(a, b)| a == b || (is_dash(*a) && is_dash(*b)))
    };
    let copies: Vec<_> = head.all().keys().filter(meant).cloned().collect();
    for name in copies {
        head.take_out(&name);
    }
}

/// Takes every value with `token` in it out of an upstream's answer. What frames the message
/// stays: no token is a length.
pub(super) fn scrub(
    head: &mut impl Fields,
    status: StatusCode,
    token: &SecretString,
) -> Result<()> {
    let upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    for (name, kept) in echoes(head.all(), token) {
        if names::in_response(name.as_str(), upgrade) == Fate::Needed {
            continue;
        }
        head.take_out(&name);
        for value in kept {
            head.add(name.clone(), value)?;
        }
    }
    Ok(())
}

/// Takes the caller's copies of headers that only rules set out of `head`, also those
/// written with `_` for `-`, and puts in what the ruling says.
pub(super) fn rule_headers(
    head: &mut impl Fields,
    reserved: &[HeaderName],
    own: &[(HeaderName, HeaderValue)],
) -> Result<()> {
    if reserved.is_empty() {
        return Ok(());
    }
    let is_reserved = |name: &HeaderName| {
        let name = name.as_str();
        let dashed = name.contains('_').then(|| name.replace('_', "-"));
        let name = dashed.as_deref().unwrap_or(name);
        reserved.iter().any(|r| r.as_str() == name)
    };
    let copies: Vec<_> = head
        .all()
        .keys()
        .filter(|n| is_reserved(n))
        .cloned()
        .collect();
    for name in copies {
        head.take_out(&name);
    }
    for (name, value) in own {
        head.put(name.clone(), value.clone())?;
    }
    Ok(())
}

/// The same for trailers.
pub(super) fn scrub_trailers(trailers: &mut HeaderMap, token: &SecretString) {
    for (name, kept) in echoes(trailers, token) {
        trailers.remove(&name);
        for value in kept {
            trailers.append(name.clone(), value);
        }
    }
}

/// Headers with `token` in a value, each with its other values. Usually none.
fn echoes(headers: &HeaderMap, token: &SecretString) -> Vec<(HeaderName, Vec<HeaderValue>)> {
    let finder = memchr::memmem::Finder::new(token.expose());
    let has = |value: &HeaderValue| finder.find(value.as_bytes()).is_some();
    headers
        .keys()
        .filter(|name| headers.get_all(*name).iter().any(has))
        .map(|name| {
            let others = headers.get_all(name).iter().filter(|value| !has(value));
            (name.clone(), others.cloned().collect())
        })
        .collect()
}

/// Takes out of an upstream's answer what is not for the caller.
pub(super) fn response(head: &mut impl Fields, status: StatusCode) {
    let upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    for name in doomed(head.all(), |name| names::in_response(name, upgrade)) {
        head.take_out(&name);
    }
}

/// The same for trailers.
pub(super) fn trailers(trailers: &mut HeaderMap) {
    for name in doomed(trailers, |name| names::in_response(name, false)) {
        trailers.remove(&name);
    }
}

/// Which headers have to go: by their own name, or because `Connection` nominates them
/// (RFC 9110 §7.6.1). Usually few, often none.
fn doomed(headers: &HeaderMap, fate: impl Fn(&str) -> Fate) -> Vec<HeaderName> {
    let nominated = |name: &HeaderName| {
        headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .any(|token| {
                token
                    .trim_ascii()
                    .eq_ignore_ascii_case(name.as_str().as_bytes())
            })
    };
    let connection = headers.contains_key(header::CONNECTION);
    headers
        .keys()
        .filter(|name| match fate(name.as_str()) {
            Fate::Goes => true,
            Fate::Stays => connection && nominated(name),
            Fate::Needed => false,
        })
        .cloned()
        .collect()
}

/// HTTP/2 may split a cookie into several fields; HTTP/1.1 servers expect one (RFC 9113
/// §8.2.3).
fn join_cookies(head: &mut impl Fields) -> Result<()> {
    let mut crumbs = head.all().get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return Ok(());
    };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = value(joined)?;
    head.put(header::COOKIE, joined)
}

/// The caller's own request id, if it is a plain one: short, and nothing in it that could
/// do harm in a log.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(X_REQUEST_ID).iter();
    let id = values.next()?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(plain);
    (fits && values.next().is_none()).then_some(id)
}
