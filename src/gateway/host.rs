//! Names in `Host`.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

/// The name in a `Host` header: without port and trailing dot, in lower case, and IPv6 addresses in
/// their canonical form (RFC 5952). Allocates only if that changes it.
pub fn host_name(host: &str) -> Cow<'_, str> {
    if let Some(rest) = host.strip_prefix('[') {
        let name = rest.split_once(']').map_or(rest, |(name, _)| name);
        return match name.parse::<Ipv6Addr>().map(|address| address.to_string()) {
            Ok(canonical) if canonical != name => Cow::Owned(canonical),
            _ => Cow::Borrowed(name),
        };
    }
    let port = memchr::memchr(b':', host.as_bytes());
    let name = port.and_then(|port| host.get(..port)).unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// A host that a route is for: one name or address, or every name below a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(Box<str>);

impl HostPattern {
    /// `written` is a name in lower case or an address, as [`host_name`] returns it, or a name after
    /// `*.`, which stands for one or more labels.
    pub fn new(written: &str) -> Self {
        Self(written.into())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name or address; `None` if this is a wildcard.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.starts_with('*')).then_some(&*self.0)
    }

    /// Whether `host`, from [`host_name`], is one that this stands for. A wildcard stands for names of
    /// any depth below its domain, as in the Gateway API (`HTTPRoute.hostnames`), nginx and Envoy, but
    /// not for the domain itself.
    pub fn covers(&self, host: &str) -> bool {
        let Some(domain) = self.0.strip_prefix('*') else {
            return *self.0 == *host;
        };
        let labels = host.strip_suffix(domain);
        labels.is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()))
    }
}

/// Whether `name` means this machine for every browser, without DNS. Names below `localhost` are
/// left to DNS by some resolvers. Of the addresses that lead here, browsers send `Sec-Fetch-Site`
/// only to 127.0.0.0/8 and ::1 (<https://w3c.github.io/webappsec-secure-contexts/>, "potentially
/// trustworthy"), so others, such as 0.0.0.0 and ::ffff:127.0.0.1, are not accepted.
pub(super) fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
