//! Prepares header fields for forwarding: those of a request to the upstream, and those of a
//! response to the caller.
//!
//! hawkgate itself sets every field that identifies a client, a hop or a credential, because the
//! upstream's signature check and access decisions depend on them (docs/design/taskcluster.md,
//! "Hawk as Taskcluster checks it"). All other fields are forwarded unchanged. No `Via` is
//! added, because some upstreams disable compression when they receive one.

mod cookies;
mod cors;
mod echo;
mod edits;
mod policy;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, Version};

use crate::gateway::OTP;
use crate::gateway::header_edits::HeaderEdits;
use crate::gateway::request_headers::{StrippedHeaders, is_identity};
use crate::gateway::reserved_headers::{is_reserved, reads_as};
use crate::gateway::route::Upstream;
use crate::header_fields::{HeaderFields, all, only};
use crate::session::SetCookie;
use crate::trace::{self, RequestTrace};
pub(super) use cors::{keep_preflight_fields, remove_cors_fields, set_cors_fields};
pub(super) use echo::SentCredentials;
pub(super) use edits::edit;
use policy::HeaderAction;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of a request id accepted from a caller.
const MAX_REQUEST_ID: usize = 64;

/// Why fields cannot be forwarded. Quotes none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidField(pub(super) &'static str);

type Result<T, E = InvalidField> = std::result::Result<T, E>;

/// Write access to the header fields of a message, so that the same rules apply to all types
/// that store them.
pub(super) trait HeaderFieldsMut: HeaderFields {
    /// Keeps only the field lines for which `keep`, called with the lower-case name and the
    /// value, returns true.
    fn retain(&mut self, keep: impl Fn(&str, &[u8]) -> bool) -> Result<()>;
    /// Sets a field, replacing all field lines of the same name.
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    /// Adds a field line, keeping those of the same name.
    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    /// Like [`HeaderFieldsMut::insert`], but validates the value first.
    fn insert_bytes(&mut self, name: HeaderName, bytes: &[u8]) -> Result<()> {
        self.insert(name, value(bytes)?)
    }
}

/// Returns the names of fields for which `keep` rejects at least one value, each with the values
/// to keep.
fn to_remove(
    fields: &HeaderMap,
    keep: impl Fn(&str, &[u8]) -> bool,
) -> Vec<(HeaderName, Vec<HeaderValue>)> {
    let keeps = |name: &HeaderName, value: &HeaderValue| keep(name.as_str(), value.as_bytes());
    let mut to_remove: Vec<(HeaderName, Vec<HeaderValue>)> = Vec::new();
    for (name, value) in fields {
        let listed = to_remove.last().is_some_and(|(last, _)| last == name);
        if !listed && !keeps(name, value) {
            let values = fields.get_all(name).iter();
            let kept = values.filter(|value| keeps(name, value)).cloned();
            to_remove.push((name.clone(), kept.collect()));
        }
    }
    to_remove
}

impl HeaderFieldsMut for HeaderMap {
    fn retain(&mut self, keep: impl Fn(&str, &[u8]) -> bool) -> Result<()> {
        for (name, kept) in to_remove(self, keep) {
            self.remove(&name);
            for value in kept {
                self.append(name.clone(), value);
            }
        }
        Ok(())
    }
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert(name, value);
        Ok(())
    }
    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append(name, value);
        Ok(())
    }
}

/// Whether a request asks to switch to WebSocket, the only upgrade that is forwarded.
pub(super) fn asks_for_upgrade(fields: &impl HeaderFields, version: Version) -> bool {
    version == Version::HTTP_11
        && lists(fields, &header::UPGRADE, b"websocket")
        && lists(fields, &header::CONNECTION, b"upgrade")
}

/// Whether a request says `TE: trailers` (RFC 9110 §10.1.4).
pub(super) fn accepts_trailers(fields: &impl HeaderFields) -> bool {
    lists(fields, &header::TE, b"trailers")
}

/// Returns the valid value of a single `Max-Forwards`, which matters for OPTIONS and TRACE only
/// (RFC 9110 §7.6.2).
pub(super) fn max_forwards(fields: &impl HeaderFields) -> Option<u64> {
    let value = only(fields, &header::MAX_FORWARDS).ok()??;
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    text.parse().ok()
}

/// Whether the list in all fields named `name` has this member, in any case.
fn lists(fields: &impl HeaderFields, name: &HeaderName, member: &[u8]) -> bool {
    all(fields, name)
        .flat_map(|value| value.split(|b| *b == b','))
        .any(|found| found.trim_ascii().eq_ignore_ascii_case(member))
}

/// Turns the caller's head into the one sent upstream, except for the credential. Idempotent,
/// because it is applied once per attempt. `upgrade` is the result of [`asks_for_upgrade`].
pub(super) fn prepare_request(
    head: &mut impl HeaderFieldsMut,
    upgrade: bool,
    stripped: &StrippedHeaders,
    upstream: &Upstream,
    client: Option<IpAddr>,
    request_id: &str,
) -> Result<()> {
    strip(head, |name| policy::request_action(name, upgrade, stripped))?;
    cookies::forward_cookies(head)?;
    if upgrade {
        // The options that concern the caller's own connection are not those of the next hop.
        head.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"))?;
        head.insert(header::UPGRADE, HeaderValue::from_static("websocket"))?;
    }
    head.insert(header::HOST, upstream.authority.clone())?;
    let scheme = if upstream.tls { "https" } else { "http" };
    head.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme))?;
    let mut port = itoa::Buffer::new();
    let port = port.format(upstream.signed_port);
    head.insert_bytes(X_FORWARDED_PORT, port.as_bytes())?;
    if let Some(client) = client {
        // A single address without a port, which every Taskcluster service accepts.
        let mut text = [0; MAX_IP_TEXT];
        head.insert_bytes(X_FORWARDED_FOR, format_ip(client, &mut text))?;
    }
    head.insert_bytes(X_REQUEST_ID, request_id.as_bytes())
}

/// Length of the longest textual IP address, in bytes.
const MAX_IP_TEXT: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();

/// Formats `ip` into `text`.
fn format_ip(ip: IpAddr, text: &mut [u8; MAX_IP_TEXT]) -> &[u8] {
    let mut left = &mut text[..];
    // The buffer is large enough for any address.
    let _ = match ip {
        // Avoids `std::fmt`, because this runs for every request.
        IpAddr::V4(ip) => ip.octets().iter().enumerate().try_for_each(|(at, octet)| {
            left.write_all(if at > 0 { b"." } else { b"" })?;
            left.write_all(itoa::Buffer::new().format(*octet).as_bytes())
        }),
        IpAddr::V6(ip) => write!(left, "{ip}"),
    };
    let end = MAX_IP_TEXT - left.len();
    text.get(..end).unwrap_or_default()
}

/// Converts `text` to a field value.
pub(super) fn value(text: impl AsRef<[u8]>) -> Result<HeaderValue> {
    HeaderValue::from_bytes(text.as_ref()).map_err(|_| InvalidField("invalid header value"))
}

/// Sets the fields that propagate the trace context upstream.
pub(super) fn set_trace_headers(
    head: &mut impl HeaderFieldsMut,
    request: &RequestTrace,
) -> Result<()> {
    for (name, action) in request.headers() {
        match action {
            trace::HeaderAction::Set(value) => head.insert(name, value)?,
            trace::HeaderAction::Remove => head.retain(|field, _| field != name.as_str())?,
            trace::HeaderAction::Keep => {}
        }
    }
    Ok(())
}

/// Removes the caller's fields named `name`, the field in which hawkgate sends its credential, and
/// those that recipients may read as it.
pub(super) fn remove_reserved(head: &mut impl HeaderFieldsMut, name: &HeaderName) -> Result<()> {
    if is_reserved(name.as_str()) && !is_identity(name.as_str()) {
        // Already removed by [`prepare_request`].
        return Ok(());
    }
    let name = name.as_str().as_bytes();
    head.retain(|field, _| !reads_as(field.as_bytes(), name))
}

/// Removes every field of an upstream's response that contains a secret of `sent`, except those
/// that frame the message.
///
/// # Errors
/// If a field that an upgrade depends on contains one.
pub(super) fn remove_echoes(
    head: &mut impl HeaderFieldsMut,
    status: StatusCode,
    sent: &SentCredentials,
) -> Result<()> {
    if sent.is_empty() {
        return Ok(());
    }
    let upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    let shortest = sent.shortest_echo();
    let has_echo = |text: &[u8]| text.len() >= shortest && sent.are_echoed_in(text);
    let echoes = |name: &str, value: &[u8]| has_echo(value) || has_echo(name.as_bytes());
    if upgrade {
        for name in [&header::CONNECTION, &header::UPGRADE] {
            if all(head, name).any(|value| sent.are_echoed_in(value)) {
                return Err(InvalidField("the upgrade echoes the credential"));
            }
        }
    }
    head.retain(|name, value| {
        !echoes(name, value) || policy::response_action(name, upgrade) == HeaderAction::Require
    })
}

/// Removes the caller's fields with names in `reserved`, which only rules may set, and those that
/// recipients may read as one of them. Then sets the fields of `ruling`.
pub(super) fn set_rule_headers(
    head: &mut impl HeaderFieldsMut,
    reserved: &[HeaderName],
    ruling: &[(HeaderName, HeaderValue)],
) -> Result<()> {
    if reserved.is_empty() {
        return Ok(());
    }
    let is_reserved = |name: &str| {
        let same = |reserved: &HeaderName| reads_as(name.as_bytes(), reserved.as_str().as_bytes());
        reserved.iter().any(same)
    };
    head.retain(|name, _| !is_reserved(name))?;
    for (name, value) in ruling {
        head.insert(name.clone(), value.clone())?;
    }
    Ok(())
}

/// Like [`remove_echoes`], for trailers, none of which frames the message.
pub(super) fn remove_echoes_from_trailers(
    trailers: &mut HeaderMap,
    sent: &SentCredentials,
) -> Result<()> {
    trailers
        .retain(|name, value| !sent.are_echoed_in(value) && !sent.are_echoed_in(name.as_bytes()))
}

/// Removes the fields of an upstream's response that are not forwarded to the caller.
pub(super) fn sanitize_response(head: &mut impl HeaderFieldsMut, status: StatusCode) -> Result<()> {
    let upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    cookies::remove_own_set_cookies(head)?;
    strip(head, |name| policy::response_action(name, upgrade))
}

/// Adds the `cookies` of a session to the response to a request with one, and keeps shared caches from
/// storing it.
pub(super) fn add_session_cookies(
    head: &mut impl HeaderFieldsMut,
    cookies: &[SetCookie],
) -> Result<()> {
    cookies::add_session_cookies(head, cookies)
}

/// Like [`sanitize_response`], for trailers.
pub(super) fn sanitize_trailers(trailers: &mut HeaderMap) -> Result<()> {
    cookies::remove_own_set_cookies(trailers)?;
    strip(trailers, |name| policy::response_action(name, false))
}

/// What the trailers of a response must not contain.
#[derive(Clone, Copy)]
pub(super) struct WithheldTrailers<'a> {
    /// The credentials that the request was sent with.
    pub(super) sent: &'a SentCredentials,
    /// The changes that the route makes to heads, which trailers must not undo: a recipient may merge
    /// both (RFC 9110 §6.5.1).
    pub(super) edits: Option<&'a HeaderEdits>,
}

/// Returns the trailers of a response that are forwarded, if any.
pub(super) fn response_trailers(
    mut trailers: HeaderMap,
    withheld: WithheldTrailers<'_>,
) -> Option<HeaderMap> {
    sanitize_trailers(&mut trailers).ok()?;
    if let Some(edits) = withheld.edits {
        trailers.retain(|name, _| !edits.changes(name)).ok()?;
    }
    // No trailer frames the message.
    trailers.remove(header::CONTENT_LENGTH);
    trailers.remove(header::TRANSFER_ENCODING);
    remove_echoes_from_trailers(&mut trailers, withheld.sent).ok()?;
    Some(trailers).filter(|trailers| !trailers.is_empty())
}

/// Returns the trailers of a request that are forwarded, if any: none with the name of a field
/// that hawkgate sets or removes in a head, because a recipient may merge both (RFC 9110 §6.5.1).
/// `rules` are the fields that only rules may set, `edits` are those of the route, and `credential`
/// is the field in which hawkgate sends its credential.
pub(super) fn request_trailers(
    mut trailers: HeaderMap,
    stripped: &StrippedHeaders,
    rules: &[HeaderName],
    edits: &HeaderEdits,
    credential: Option<&HeaderName>,
) -> Option<HeaderMap> {
    let reserved = |name: &str| {
        let same = |field: &HeaderName| reads_as(name.as_bytes(), field.as_str().as_bytes());
        // A one-time password is for the source only.
        edits.changes(name) || rules.iter().chain(credential).chain([&OTP]).any(same)
    };
    trailers
        .retain(|name, _| {
            policy::request_action(name, false, stripped) == HeaderAction::Keep && !reserved(name)
        })
        .ok()?;
    Some(trailers).filter(|trailers| !trailers.is_empty())
}

/// Removes fields that are not forwarded because of their name, or because `Connection` lists
/// them (RFC 9110 §7.6.1).
fn strip(head: &mut impl HeaderFieldsMut, action: impl Fn(&str) -> HeaderAction) -> Result<()> {
    let mut nominated = Vec::new();
    for options in all(head, &header::CONNECTION) {
        for option in options.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            // The usual options, which do not name a field that would be forwarded.
            let usual: [&[u8]; 3] = [b"", b"close", b"keep-alive"];
            if usual.iter().any(|usual| option.eq_ignore_ascii_case(usual)) {
                continue;
            }
            nominated.push(option.to_ascii_lowercase());
        }
    }
    head.retain(|name, _| match action(name) {
        HeaderAction::Remove => false,
        HeaderAction::Keep => !nominated.iter().any(|option| option == name.as_bytes()),
        HeaderAction::Require => true,
    })
}

/// Returns the caller's request id, if it is short and safe to log.
pub(super) fn request_id(headers: &dyn HeaderFields) -> Option<&str> {
    let id = only(headers, &X_REQUEST_ID).ok()??;
    let id = std::str::from_utf8(id).ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(plain);
    fits.then_some(id)
}
