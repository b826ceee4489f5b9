//! Converts a route's upstream into the peer that pingora connects to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::protocols::TcpKeepalive;
use pingora::protocols::tls::CaType;
use pingora::tls::load_platform_certs_incl_env_into_store;
use pingora::upstreams::peer::{ALPN, HttpPeer};
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::RootCertStore;

use crate::gateway::route::Upstream;
use crate::network::ProxyEndpoint;
use crate::pem;

/// Detects dead connections during long polls before the read timeout expires.
pub(super) const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_mins(1),
    interval: Duration::from_secs(15),
    count: 3,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
};

/// Why the platform's CA certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the system's CA certificates cannot be loaded ({0}): install the package ca-certificates, or set SSL_CERT_FILE to a file with CA certificates"
)]
pub struct PlatformCaError(String);

/// Checks that the platform's CA certificates can be loaded, because pingora panics if they
/// cannot.
///
/// # Errors
/// Returns an error if there are none, or if one is malformed.
pub fn check_platform_cas() -> Result<(), PlatformCaError> {
    let mut store = RootCertStore::empty();
    load_platform_certs_incl_env_into_store(&mut store).map_err(|error| {
        let cause = error.root_cause().to_string();
        PlatformCaError(cause.trim().to_owned())
    })
}

/// How long an address is tried only after the others when a connection to it has failed.
const UNREACHABLE_FOR: Duration = Duration::from_secs(10);

/// Maximum number of unreachable addresses remembered.
const MAX_UNREACHABLE: usize = 64;

/// Selects upstream addresses and caches CA certificates.
#[derive(Debug, Default)]
pub(super) struct Peers {
    next_index: AtomicUsize,
    /// Unreachable addresses, with the monotonic time until which they are tried last.
    down: ArcSwap<Vec<(SocketAddr, Duration)>>,
    /// CA certificates parsed for pingora. Entries of upstreams that no longer exist are
    /// dropped.
    cas: Mutex<Vec<(Weak<Upstream>, Verified, Ca)>>,
}

/// Whose certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verified {
    Upstream,
    /// The outgoing proxy in front of it.
    Proxy,
}

/// The CA certificates of one upstream.
#[derive(Clone)]
struct Ca {
    certificates: Arc<CaType>,
    /// Separates pooled connections that were verified by different CAs, because the pool's own
    /// key does not include the CA.
    group: u64,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ca({} certificates)", self.certificates.len())
    }
}

impl Peers {
    /// Returns the index in a list of addresses at which the next request starts (round robin).
    pub(super) fn next_start(&self) -> usize {
        self.next_index.fetch_add(1, Ordering::Relaxed)
    }

    /// Chooses the next address for a request that started at index `start` and could not
    /// connect to those in `tried`. Recently unreachable addresses come last.
    pub(super) fn choose(
        &self,
        addresses: &[SocketAddr],
        start: usize,
        tried: &[SocketAddr],
        now: Duration,
    ) -> Option<SocketAddr> {
        let down = self.down.load();
        let is_unreachable = |address: &SocketAddr| {
            down.iter()
                .any(|(other, until)| other == address && *until > now)
        };
        let (end, begin) = addresses.split_at_checked(start % addresses.len().max(1))?;
        let left = || begin.iter().chain(end).filter(|a| !tried.contains(a));
        left()
            .find(|a| !is_unreachable(a))
            .or_else(|| left().next())
            .copied()
    }

    /// Returns the first address of the other family than `address`, unless it is in `tried` or was
    /// recently unreachable.
    pub(super) fn other_family(
        &self,
        addresses: &[SocketAddr],
        address: SocketAddr,
        tried: &[SocketAddr],
        now: Duration,
    ) -> Option<SocketAddr> {
        let mut others = addresses
            .iter()
            .filter(|a| a.is_ipv4() != address.is_ipv4());
        let down = self.down.load();
        let usable = |other: &&SocketAddr| {
            !tried.contains(other) && !down.iter().any(|(a, until)| a == *other && *until > now)
        };
        others.find(usable).copied()
    }

    /// Records that a connection to `address` failed.
    pub(super) fn mark_unreachable(&self, address: SocketAddr, now: Duration) {
        self.down.rcu(|down| {
            let mut down: Vec<_> = down
                .iter()
                .filter(|(other, until)| *other != address && *until > now)
                .take(MAX_UNREACHABLE - 1)
                .copied()
                .collect();
            down.push((address, now.saturating_add(UNREACHABLE_FOR)));
            down
        });
    }

    /// Returns the peer at `address`, with `http1` for HTTP/1.1 whatever the upstream prefers. The
    /// relay keeps the time once a connection is established.
    pub(super) fn peer(
        &self,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        http1: bool,
    ) -> Result<HttpPeer, String> {
        let mut peer = Self::without_cas(upstream, address, upstream.tls, &upstream.host);
        peer.options.alpn = match (upstream.http2, upstream.tls) {
            (true, true) if !http1 => ALPN::H2H1,
            _ => ALPN::H1,
        };
        if upstream.tls
            && let Some(ca) = self.ca(upstream, Verified::Upstream)?
        {
            peer.options.ca = Some(ca.certificates);
            peer.group_key = ca.group;
        }
        Ok(peer)
    }

    /// Returns the outgoing proxy at `address` as a peer. It is verified with the platform's CAs and the
    /// additional ones, not with those of the upstream.
    pub(super) fn proxy_peer(
        &self,
        upstream: &Arc<Upstream>,
        proxy: &ProxyEndpoint,
        address: SocketAddr,
    ) -> Result<HttpPeer, String> {
        let mut peer = Self::without_cas(upstream, address, true, &proxy.host);
        peer.options.alpn = ALPN::H1;
        let ca = self.ca(upstream, Verified::Proxy)?;
        peer.options.ca = ca.map(|ca| ca.certificates);
        Ok(peer)
    }

    /// Returns a peer without its CAs.
    fn without_cas(upstream: &Upstream, address: SocketAddr, tls: bool, host: &str) -> HttpPeer {
        // The SNI must never be empty, because pingora then skips all verification.
        let mut peer = HttpPeer::new(address, tls, host.to_owned());
        let timeouts = &upstream.timeouts;
        let options = &mut peer.options;
        options.connection_timeout = Some(timeouts.connect);
        // For both the TCP and the TLS handshake.
        options.total_connection_timeout = Some(timeouts.connect.saturating_mul(2));
        options.tcp_keepalive = Some(TCP_KEEPALIVE);
        peer
    }

    /// Returns the CAs for `upstream`, or for its proxy; `None` for the platform's.
    fn ca(&self, upstream: &Arc<Upstream>, of: Verified) -> Result<Option<Ca>, String> {
        static GROUP: AtomicU64 = AtomicU64::new(1);
        let only = upstream.ca.as_deref().filter(|_| of == Verified::Upstream);
        let additional = upstream.additional_ca.as_deref();
        if only.is_none() && additional.is_none() {
            return Ok(None);
        }
        let mut cas = self.cas.lock().unwrap_or_else(PoisonError::into_inner);
        // The weak pointer keeps the allocation from being reused, so equal pointers mean the
        // same upstream.
        let known = cas.iter().find(|(known, kind, _)| {
            std::ptr::eq(known.as_ptr(), Arc::as_ptr(upstream)) && *kind == of
        });
        if let Some((_, _, ca)) = known {
            return Ok(Some(ca.clone()));
        }
        let unusable = |cause| format!("CAs of {}: {cause}", upstream.host);
        let ca = Ca {
            certificates: certificates(only, additional).map_err(unusable)?,
            group: GROUP.fetch_add(1, Ordering::Relaxed),
        };
        cas.retain(|(known, _, _)| known.strong_count() > 0);
        cas.push((Arc::downgrade(upstream), of, ca.clone()));
        Ok(Some(ca))
    }
}

/// The certificates in `only`, or else the platform's and those in `additional`, for pingora.
fn certificates(only: Option<&[u8]>, additional: Option<&[u8]>) -> Result<Arc<CaType>, String> {
    // pingora panics if it cannot parse one, so that is checked first.
    let certificates = if let Some(only) = only {
        pem::parse_certificates(only)?
    } else {
        let mut all = pem::platform_cas();
        all.extend(pem::parse_certificates(additional.unwrap_or_default())?);
        all
    };
    let certificates = certificates.into_iter();
    let wrapped: Vec<_> = certificates
        .map(|certificate| WrappedX509::new(certificate.to_vec(), parse_x509))
        .collect();
    Ok(wrapped.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (0..count)
            .map(|last| SocketAddr::from(([10, 0, 0, last], 443)))
            .collect()
    }

    /// Returns the order in which a request would try the addresses.
    fn order(peers: &Peers, list: &[SocketAddr], start: usize, now: Duration) -> Vec<u8> {
        let mut tried = Vec::new();
        while let Some(address) = peers.choose(list, start, &tried, now) {
            tried.push(address);
        }
        let number = |address: &SocketAddr| match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => unreachable!(),
        };
        tried.iter().map(number).collect()
    }

    #[test]
    fn addresses_are_tried_round_robin() {
        let peers = Peers::default();
        let list = addresses(3);
        assert_eq!(order(&peers, &list, 0, NOW), [0, 1, 2]);
        assert_eq!(order(&peers, &list, 4, NOW), [1, 2, 0]);
        assert_eq!(order(&peers, &list, usize::MAX, NOW), [0, 1, 2]);
        assert!(order(&peers, &[], 7, NOW).is_empty());
    }

    #[test]
    fn unreachable_addresses_are_tried_last() {
        let peers = Peers::default();
        let list = addresses(3);
        peers.mark_unreachable(list[1], NOW);
        assert_eq!(order(&peers, &list, 1, NOW), [2, 0, 1]);
        assert_eq!(order(&peers, &list, 1, NOW + UNREACHABLE_FOR), [1, 2, 0]);
        // If every address is down, the usual order applies.
        for address in &list {
            peers.mark_unreachable(*address, NOW);
        }
        assert_eq!(order(&peers, &list, 0, NOW), [0, 1, 2]);
    }

    #[test]
    fn the_other_family_is_offered_unless_it_was_tried_or_unreachable() {
        let peers = Peers::default();
        let v4 = addresses(2);
        let v6: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let all = [v6, v4[0], v4[1]];
        let other = |address, tried: &[SocketAddr]| peers.other_family(&all, address, tried, NOW);
        assert_eq!(other(v6, &[]), Some(v4[0]));
        assert_eq!(other(v4[1], &[]), Some(v6));
        assert_eq!(other(v6, &v4[..1]), Some(v4[1]));
        assert_eq!(other(v6, &v4), None);
        peers.mark_unreachable(v6, NOW);
        assert_eq!(other(v4[0], &[]), None);
        assert_eq!(peers.other_family(&v4, v4[0], &[], NOW), None);
    }

    #[test]
    fn remembered_unreachable_addresses_are_bounded() {
        let peers = Peers::default();
        for address in addresses(200) {
            peers.mark_unreachable(address, NOW);
        }
        assert_eq!(peers.down.load().len(), MAX_UNREACHABLE);
    }
}
