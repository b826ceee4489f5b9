//! Keeps web pages away from what hawkgate serves to this machine without a token: a resource
//! isolation policy (<https://web.dev/articles/fetch-metadata>) and a check of `Host` against DNS
//! rebinding (`docs/listeners.md`, "Local routes and web pages").
//!
//! A listener on loopback is within reach of every page that a browser on this machine shows. A
//! page can send requests there from its own origin, which `Origin` and `Sec-Fetch-Site` reveal; or
//! let its own name resolve to 127.0.0.1, and then it counts as the same origin for the browser,
//! but its name is in `Host`.

use std::net::IpAddr;

use http::{HeaderName, Method, header};

use super::Head;
use super::cors::Cors;
use super::host::{host_name, is_loopback};
use super::reason::Reason;
use super::rejection::Rejection;
use super::route::Isolation;
use crate::header_fields::only;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");

/// Maximum length of a host name in the log, in bytes; DNS allows no longer ones.
const MAX_LOGGED_HOST: usize = 253;

/// How a request arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Through a Unix socket, to which browsers cannot connect.
    Unix,
    /// Through TCP, without TLS.
    #[default]
    Tcp,
    /// Through TCP, with TLS.
    Tls,
}

/// The policy for requests that [`Isolation`] covers, and for the admin listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IsolationPolicy {
    local_hosts: Vec<String>,
    /// Whether any address of an interface may be in `Host`.
    addresses: bool,
}

impl IsolationPolicy {
    /// `local_hosts` are the host names by which programs may call this machine, beside
    /// `localhost` and loopback addresses; in lower case, without ports and brackets.
    pub fn new(local_hosts: Vec<String>) -> Self {
        Self {
            local_hosts,
            addresses: false,
        }
    }

    /// Accepts every address that an interface can have in `Host`. A page cannot get in by DNS rebinding
    /// with one, because that takes a name. But browsers do not say who sent a simple `GET` to such an
    /// address (no `Sec-Fetch-Site`, see `is_loopback`), so pages can send those, and not read the answers.
    #[must_use]
    pub fn with_addresses(self) -> Self {
        Self {
            addresses: true,
            ..self
        }
    }

    /// Checks a request to a route or one of hawkgate's own endpoints, if `isolation` covers it.
    /// `is_configured` tells whether the configuration names its host in another place. Pages whose
    /// origin the route's `cors` lists may send requests, under a name of this machine like anybody.
    ///
    /// # Errors
    /// As for [`IsolationPolicy::check`].
    pub(super) fn check_route(
        &self,
        isolation: Isolation,
        is_configured: bool,
        cors: Option<&Cors>,
        head: Head<'_>,
    ) -> Result<(), Rejection> {
        if !isolation.covers(head.headers) {
            return Ok(());
        }
        if !is_configured && head.transport != Transport::Unix {
            self.check_host(head.host)?;
        }
        if cors.is_some_and(|cors| cors.lists_origin(head.headers)) {
            return Ok(());
        }
        check_initiator(head)
    }

    /// Checks a request to a local admin listener. Unlike on routes, `Host` may be missing, as it
    /// is in the health checks of HAProxy. Such requests are HTTP/1.0, and no browser sends any.
    ///
    /// # Errors
    /// [`Reason::HostNotAllowed`] if `Host` is not a name of this machine;
    /// [`Reason::CrossSite`] if a web page of another origin sent the request.
    pub fn check(&self, head: Head<'_>) -> Result<(), Rejection> {
        if !head.host.is_empty() && head.transport != Transport::Unix {
            self.check_host(head.host)?;
        }
        check_initiator(head)
    }

    fn check_host(&self, host: &str) -> Result<(), Rejection> {
        let name = host_name(host);
        if is_loopback(&name)
            || self.local_hosts.iter().any(|own| **own == *name)
            || (self.addresses && name.parse().is_ok_and(is_interface_address))
        {
            return Ok(());
        }
        let shown = name.get(..MAX_LOGGED_HOST).unwrap_or(&name);
        Err(Rejection::from(Reason::HostNotAllowed).with_cause(format!(
            "{shown:?} is neither localhost, a loopback address, nor in server.local_hosts"
        )))
    }
}

/// Whether an interface can have this address, unlike 0.0.0.0 and ::ffff:127.0.0.1, which are other ways
/// to loopback.
fn is_interface_address(ip: IpAddr) -> bool {
    !ip.is_unspecified() && ip.to_canonical() == ip
}

/// Refuses a request that a web page of another origin initiated, including navigations from such
/// a page: a GET can have effects as well.
fn check_initiator(head: Head<'_>) -> Result<(), Rejection> {
    match foreign_initiator(head) {
        None => Ok(()),
        Some(cause) => Err(Rejection::from(Reason::CrossSite).with_cause(cause)),
    }
}

/// How the request shows that its initiator is of another origin, if it does. Requests of programs
/// other than browsers have none of these fields.
fn foreign_initiator(head: Head<'_>) -> Option<&'static str> {
    let (site, origin) = (
        only(head.headers, &SEC_FETCH_SITE),
        only(head.headers, &header::ORIGIN),
    );
    // `none` is a navigation by the user, from the address bar for example. `same-site` would
    // include other ports of this machine.
    if !matches!(site, Ok(None | Some(b"same-origin" | b"none"))) {
        return Some("Sec-Fetch-Site is neither same-origin nor none");
    }
    match origin {
        Ok(Some(origin)) if after_own_origin(origin, head) == Some(b"") => None,
        Ok(Some(_)) | Err(_) => Some("Origin is not the origin of this listener"),
        Ok(None) if is_private_network_preflight(head) => {
            Some("a preflight request for private network access")
        }
        // Browsers that send neither of the two with this request.
        Ok(None) if site == Ok(None) && has_foreign_referer(head) => {
            Some("Referer is a page of another origin")
        }
        Ok(None) => None,
    }
}

fn is_private_network_preflight(head: Head<'_>) -> bool {
    *head.method == Method::OPTIONS && head.headers.first(&PRIVATE_NETWORK).is_some()
}

fn has_foreign_referer(head: Head<'_>) -> bool {
    match only(head.headers, &header::REFERER) {
        Ok(None) => false,
        Ok(Some(referer)) => after_own_origin(referer, head).is_none(),
        Err(_) => true,
    }
}

/// What follows the origin of `url` if it is the one that this request was sent to: the same
/// scheme, host and port (RFC 6454 §5).
fn after_own_origin<'u>(url: &'u [u8], head: Head<'_>) -> Option<&'u [u8]> {
    let (scheme, default_port) = match head.transport {
        Transport::Tls => ("https://", ":443"),
        Transport::Unix | Transport::Tcp => ("http://", ":80"),
    };
    let (start, rest) = url.split_at_checked(scheme.len())?;
    let ends = |byte: &u8| matches!(byte, b'/' | b'?' | b'#');
    let end = rest.iter().position(ends).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let without_default = |authority: &'u [u8]| {
        let port = default_port.as_bytes();
        authority.strip_suffix(port).unwrap_or(authority)
    };
    let host = head.host.strip_suffix(default_port).unwrap_or(head.host);
    let same = start.eq_ignore_ascii_case(scheme.as_bytes())
        && without_default(authority).eq_ignore_ascii_case(host.as_bytes());
    same.then_some(after)
}

#[cfg(test)]
mod tests;
