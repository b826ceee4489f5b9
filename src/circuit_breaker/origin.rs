//! Who caused a call.

use std::net::{IpAddr, Ipv6Addr};

/// Who caused a call, as far as that is known before the peer has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A caller whose token hawkgate has verified: a keyed hash of issuer and subject.
    Subject([u8; 32]),
    /// The client's address, for a token or password that nobody has verified yet. IPv6 addresses
    /// count by /64, which is what one host gets (RFC 4291 §2.5.4).
    Address(IpAddr),
    /// This machine: a Unix socket, or hawkgate itself.
    Local,
}

impl Origin {
    /// The origin of a request from `peer`; `None` on Unix sockets.
    pub fn of_peer(peer: Option<IpAddr>) -> Self {
        match peer.map(|peer| peer.to_canonical()) {
            None => Self::Local,
            Some(IpAddr::V6(address)) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Self::Address(Ipv6Addr::from_bits(network).into())
            }
            Some(address) => Self::Address(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_count_by_network_and_mapped_ones_as_ipv4() {
        let origin = |text: &str| Origin::of_peer(Some(text.parse().unwrap()));
        assert_eq!(origin("2001:db8:0:1::1"), origin("2001:db8:0:1:ffff::2"));
        assert_ne!(origin("2001:db8:0:1::1"), origin("2001:db8:0:2::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(Origin::of_peer(None), Origin::Local);
    }
}
