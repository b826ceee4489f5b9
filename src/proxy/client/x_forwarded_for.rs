//! Determines the client's address behind trusted proxies.
//!
//! Each proxy appends the address that it was called from, so an entry is only as reliable as
//! the proxies to its right. The list is read from the right, past the trusted proxies, and the
//! first address that is not trusted is the client's. Entries further left could have been
//! forged by the client.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::IpNet;

use crate::header_fields::{HeaderFields, all};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Maximum number of entries examined. A longer chain of trusted proxies counts as malformed.
const MAX_HOPS: usize = 32;

/// Returns the client's address for a connection from `peer`. If `peer` is in one of the
/// `trusted` networks, this is the right-most entry of `X-Forwarded-For` that is not, or the
/// left-most entry if all of them are. It is `peer` itself if `peer` is not trusted, if there is
/// no entry, or if an examined entry is not an address.
pub(in crate::proxy) fn client(
    headers: &dyn HeaderFields,
    peer: IpAddr,
    trusted: &[IpNet],
) -> IpAddr {
    let trusts = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    if !trusts(&peer) {
        return peer;
    }
    // Several field lines form one list, in order (RFC 9110 §5.3).
    let fields: Vec<_> = all(headers, &X_FORWARDED_FOR).collect();
    let fields = fields.into_iter().rev();
    let entries = fields.flat_map(|field| field.rsplit(|b| *b == b','));
    let mut leftmost = peer;
    for (hop, entry) in entries.enumerate() {
        let address = (hop < MAX_HOPS).then(|| address(entry)).flatten();
        match address {
            None => return peer,
            Some(address) if !trusts(&address) => return address,
            Some(address) => leftmost = address,
        }
    }
    leftmost
}

/// Parses an address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let plain = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|a| a.ip());
    let bracketed = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse().ok().map(IpAddr::V6)
    };
    let address = plain.or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    const PROXY: &str = "10.0.0.1";

    fn found(peer: &str, fields: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(X_FORWARDED_FOR, field.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|n| n.parse().unwrap());
        client(&headers, peer.parse().unwrap(), &trusted).to_string()
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        for (fields, expected) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            (&["198.51.100.9, 203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.9, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),
            (
                &["198.51.100.9", "203.0.113.7", "10.9.9.9 , fd00::1"],
                "203.0.113.7",
            ),
            (&["203.0.113.7,10.0.0.2"], "203.0.113.7"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:8443"], "2001:db8::1"),
            (&["203.0.113.7:51234"], "203.0.113.7"),
            (&["::ffff:203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7"),
            // All entries are trusted proxies: the leftmost is the client.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(found(PROXY, fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn x_forwarded_for_of_untrusted_peers_is_ignored() {
        for peer in ["203.0.113.9", "2001:db8::9", "11.0.0.1", "127.0.0.1"] {
            assert_eq!(found(peer, &["198.51.100.9"]), peer);
            assert_eq!(found(peer, &["10.0.0.5"]), peer);
        }
    }

    #[test]
    fn malformed_x_forwarded_for_is_ignored() {
        for fields in [
            &[][..],
            &[""],
            &["unknown"],
            &["203.0.113.7, unknown"],
            &["203.0.113.7,"],
            &["203.0.113.7", ""],
            &["203.0.113.7 198.51.100.9"],
            &["203.0.113.7:x"],
            &["203.0.113.7:99999"],
            &["[203.0.113.7]"],
            &["[2001:db8::1"],
            &["fe80::1%eth0"],
            &["203.0.113.007"],
            &["0xcb007107"],
            &["1.2.3"],
            &["_hidden"],
            &["\"203.0.113.7\""],
        ] {
            assert_eq!(found(PROXY, fields), PROXY, "{fields:?}");
        }
        // Entries to the left of the client's address were sent by the client, and are not
        // examined.
        assert_eq!(found(PROXY, &["junk, 203.0.113.7"]), "203.0.113.7");
    }

    #[test]
    fn the_number_of_hops_is_limited() {
        let chain = |hops: usize| format!("203.0.113.7{}", ", 10.0.0.2".repeat(hops));
        assert_eq!(found(PROXY, &[&chain(MAX_HOPS - 1)]), "203.0.113.7");
        assert_eq!(found(PROXY, &[&chain(MAX_HOPS)]), PROXY);
        assert_eq!(found(PROXY, &[&chain(3000)]), PROXY);
    }
}
