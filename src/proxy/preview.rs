//! Previews for `hawkgate explain`: what would be sent upstream, without sending it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::headers;
use super::validate::{self, HeadLimits};
use crate::gateway::Gateway;
use crate::gateway::header_edits::HeaderEdits;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::request_headers::StrippedHeaders;
use crate::gateway::route::Upstream;
use crate::proxy::settings::Limits;

/// Checks a request target as the server would.
///
/// # Errors
/// Returns the rejection that a caller would receive.
pub fn check_target(method: &Method, target: &str, limits: &Limits) -> Result<(), Rejection> {
    let limits = HeadLimits::from(limits);
    validate::check_target(method, target.as_bytes(), &limits)
}

/// Returns the header fields that hawkgate sets on a request, apart from credentials. `ruling`
/// contains the fields that rules add, and `edits` those of the route.
///
/// # Errors
/// Returns a rejection if a value is not valid in a header field.
pub fn headers(
    upstream: &Upstream,
    peer: Option<IpAddr>,
    gateway: &Gateway,
    edits: &HeaderEdits,
    ruling: &[(HeaderName, HeaderValue)],
) -> Result<Vec<(String, String)>, Rejection> {
    let unusable = |_| Rejection::from(Reason::BadRequest);
    let mut head = HeaderMap::new();
    let stripped = StrippedHeaders::default();
    headers::prepare_request(&mut head, false, &stripped, upstream, peer, "…").map_err(unusable)?;
    headers::edit(&mut head, edits).map_err(unusable)?;
    headers::set_rule_headers(&mut head, &gateway.rule_headers, ruling).map_err(unusable)?;
    let to_strings = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    Ok(head.iter().map(to_strings).collect())
}
