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

/// Whether `name` means this machine for every browser, without DNS. Names below `localhost` are
/// left to DNS by some resolvers. Of the addresses that lead here, browsers send `Sec-Fetch-Site`
/// only to 127.0.0.0/8 and ::1 (<https://w3c.github.io/webappsec-secure-contexts/>, "potentially
/// trustworthy"), so others, such as 0.0.0.0 and ::ffff:127.0.0.1, are not accepted.
pub(super) fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
