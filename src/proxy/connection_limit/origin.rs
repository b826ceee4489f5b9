//! By what connections are counted.

use std::net::IpAddr;

use crate::gateway::rate_limit::client_network;

/// Where a connection comes from, as far as limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) enum Origin {
    /// A [`client_network`].
    Address(IpAddr),
    /// A Unix socket, whose peers have no address.
    Unix,
    /// A trusted proxy, whose connections carry the requests of many clients.
    TrustedProxy,
}

impl Origin {
    /// Returns the origin of a peer with this address; `None` on Unix sockets.
    pub(in crate::proxy) fn of(peer: Option<IpAddr>) -> Self {
        peer.map_or(Self::Unix, |ip| Self::Address(client_network(ip)))
    }

    /// Whether `limits.connections_per_address` applies, and whether connections without an
    /// admitted request are closed early.
    pub(super) fn is_address(self) -> bool {
        matches!(self, Self::Address(_))
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
