//! By what connections are counted.

use std::net::{IpAddr, Ipv4Addr};

/// Where a connection comes from, as far as limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) enum Origin {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The /64 network of an IPv6 address, because one host can usually use all of it.
    V6([u8; 8]),
    /// A Unix socket, whose peers have no address.
    Unix,
    /// A trusted proxy, whose connections carry the requests of many clients.
    TrustedProxy,
}

impl Origin {
    /// Returns the origin of a peer with this address; `None` on Unix sockets. An IPv4-mapped
    /// IPv6 address counts as IPv4.
    pub(in crate::proxy) fn of(peer: Option<IpAddr>) -> Self {
        match peer.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => Self::V4(ip),
            Some(IpAddr::V6(ip)) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
            None => Self::Unix,
        }
    }

    /// Whether `limits.connections_per_address` applies, and whether connections without an
    /// admitted request are closed early.
    pub(super) fn is_address(self) -> bool {
        matches!(self, Self::V4(_) | Self::V6(_))
    }

    /// Whether a connection may be closed to make room for another.
    pub(super) fn is_evictable(self) -> bool {
        self != Self::TrustedProxy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ip: &str) -> Origin {
        Origin::of(Some(ip.parse().unwrap()))
    }

    #[test]
    fn ipv6_addresses_count_by_their_network_and_mapped_ones_as_ipv4() {
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::7"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(Origin::of(None), Origin::Unix);
        assert!(!Origin::Unix.is_address() && Origin::Unix.is_evictable());
    }
}
