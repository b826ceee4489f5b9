//! What would go upstream, told without sending it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::headers;
use super::validate::{self, HeadLimits};
use crate::gateway::Gateway;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::route::Upstream;
use crate::proxy::settings::Limits;

/// Whether the target passes what every target must.
///
/// # Errors
/// With the refusal that a caller would get.
pub fn check_target(method: &Method, target: &str, limits: &Limits) -> Result<(), Rejection> {
    let limits = HeadLimits::from(limits);
    validate::check_target(method, target.as_bytes(), &limits)
}

/// The headers that hawkgate sets itself on a request, credentials left out; `own` is what
/// the ruling adds.
///
/// # Errors
/// When no such request can be made.
pub fn headers(
    upstream: &Upstream,
    peer: Option<IpAddr>,
    gateway: &Gateway,
    own: &[(HeaderName, HeaderValue)],
) -> Result<Vec<(String, String)>, Rejection> {
    let unusable = |_| Rejection::from(Reason::BadRequest);
    let mut head = HeaderMap::new();
    headers::request(&mut head, false, upstream, peer, "…").map_err(unusable)?;
    headers::rule_headers(&mut head, &gateway.rule_headers, own).map_err(unusable)?;
    let shown = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    Ok(head.iter().map(shown).collect())
}
