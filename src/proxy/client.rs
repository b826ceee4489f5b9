//! Identifies the client of a request, from the socket, the PROXY header, the client certificate
//! and, for trusted proxies only, `X-Forwarded-For`.

mod certificate;
mod x_forwarded_for;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::listener::peer_process::PeerProcess;
use crate::gateway::Head;
use crate::gateway::client_certificate::ClientCertificate;
use crate::gateway::resource_isolation::Transport;
use crate::header_fields::{HeaderFields, all};
pub(super) use certificate::read as read_certificate;
#[cfg(fuzzing)]
pub(super) use x_forwarded_for::client as from_x_forwarded_for;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The connected peer, and the client on whose behalf it sends requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerInfo {
    /// The connected peer's address, or the one in a trusted proxy's PROXY header; `None` on
    /// Unix sockets. IPv4-mapped IPv6 addresses are converted to IPv4.
    pub(super) ip: Option<IpAddr>,
    /// The client's address: the peer's, unless a trusted proxy gives another in
    /// `X-Forwarded-For`.
    pub(super) client: Option<IpAddr>,
    /// The address that the limits on each client count: the client's, unless it is a trusted
    /// proxy's, on whose connections many clients send requests.
    pub(super) accountable: Option<IpAddr>,
    /// Whether the connection uses TLS.
    pub(super) tls: bool,
    /// Whether the client uses https: this connection does, or a trusted proxy says so.
    pub(super) https: bool,
    /// The verified certificate that the peer presented, if any.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

/// What a listener knows about a connection, apart from its socket.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnMetadata {
    /// The networks whose `X-Forwarded-For` is trusted.
    pub(super) trusted_proxies: Option<Arc<[IpNet]>>,
    /// The verified certificate that the peer presented, if any.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// The name of the `[[forward_auth]]` that the listener serves, instead of routes.
    pub(super) forward_auth: Option<Arc<str>>,
    /// The process at the other end; `None` if it closed before that could be found out.
    pub(super) process: Option<PeerProcess>,
    /// Whether the peers in the listener's `local_networks` may do whatever any peer may.
    pub(super) trusts_networks: bool,
}

impl PeerInfo {
    /// Creates the information about a peer connected from `ip`, given the listener's metadata
    /// and the fields of the request.
    pub(super) fn new(
        ip: Option<IpAddr>,
        tls: bool,
        metadata: Option<&ConnMetadata>,
        headers: &dyn HeaderFields,
    ) -> Self {
        let proxies = metadata.and_then(|metadata| metadata.trusted_proxies.as_deref());
        let client = match (ip, proxies) {
            (Some(ip), Some(proxies)) => Some(x_forwarded_for::client(headers, ip, proxies)),
            _ => ip,
        };
        let is_proxy = |ip: &IpAddr| proxies.is_some_and(|p| p.iter().any(|n| n.contains(ip)));
        Self {
            ip,
            client,
            accountable: client.filter(|client| !is_proxy(client)),
            tls,
            https: tls || (ip.is_some_and(|ip| is_proxy(&ip)) && forwards_https(headers)),
            certificate: metadata.and_then(|metadata| metadata.certificate.clone()),
        }
    }

    fn transport(&self) -> Transport {
        match (self.ip, self.tls) {
            (None, _) => Transport::Unix,
            (Some(_), false) => Transport::Tcp,
            (Some(_), true) => Transport::Tls,
        }
    }

    /// Assembles the head of this peer's request for the gateway.
    pub(super) fn head<'a>(
        &'a self,
        method: &'a Method,
        host: &'a str,
        target: &'a str,
        headers: &'a dyn HeaderFields,
    ) -> Head<'a> {
        Head {
            method,
            host,
            target,
            headers,
            peer: self.client,
            transport: self.transport(),
            https: self.https,
            certificate: self.certificate.as_deref(),
        }
    }
}

/// Whether every hop that `X-Forwarded-Proto` lists says https: proxies replace the field or append to
/// it, and the client may have begun it.
fn forwards_https(headers: &dyn HeaderFields) -> bool {
    let name = X_FORWARDED_PROTO;
    let mut schemes = all(headers, &name)
        .flat_map(|value| value.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .peekable();
    schemes.peek().is_some() && schemes.all(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn only_a_trusted_proxy_says_that_the_client_uses_https() {
        let trusted: Arc<[IpNet]> = ["10.0.0.0/8".parse().unwrap()].into();
        let metadata = ConnMetadata {
            trusted_proxies: Some(trusted),
            ..ConnMetadata::default()
        };
        for (peer, fields, expected) in [
            ("10.0.0.1", &["https"][..], true),
            ("10.0.0.1", &["HTTPS, https"], true),
            ("10.0.0.1", &["https", "https"], true),
            ("10.0.0.1", &["http"], false),
            // A client begins the list, and a proxy appends to it.
            ("10.0.0.1", &["https, http"], false),
            ("10.0.0.1", &["http, https"], false),
            ("10.0.0.1", &["https", "http"], false),
            ("10.0.0.1", &[""], false),
            ("10.0.0.1", &["https,"], false),
            ("10.0.0.1", &[], false),
            ("192.0.2.1", &["https"], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(X_FORWARDED_PROTO, field.parse().unwrap());
            }
            let peer: IpAddr = peer.parse().unwrap();
            let found = PeerInfo::new(Some(peer), false, Some(&metadata), &headers);
            assert_eq!(found.https, expected, "{peer} {fields:?}");
            let direct = PeerInfo::new(Some(peer), true, Some(&metadata), &headers);
            assert!(direct.https, "{fields:?}");
            let unknown = PeerInfo::new(Some(peer), false, None, &headers);
            assert!(!unknown.https, "{fields:?}");
        }
    }

    #[test]
    fn limits_count_the_client_behind_a_trusted_proxy_and_never_the_proxy() {
        let trusted: Arc<[IpNet]> = ["10.0.0.0/8".parse().unwrap()].into();
        let metadata = ConnMetadata {
            trusted_proxies: Some(trusted),
            ..ConnMetadata::default()
        };
        for (peer, forwarded, expected) in [
            ("192.0.2.1", None, Some("192.0.2.1")),
            ("192.0.2.1", Some("198.51.100.7"), Some("192.0.2.1")),
            ("10.0.0.1", Some("198.51.100.7"), Some("198.51.100.7")),
            ("10.0.0.1", Some("10.0.0.2"), None),
            ("10.0.0.1", Some("junk"), None),
            ("10.0.0.1", None, None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(forwarded) = forwarded {
                headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            }
            let peer = peer.parse().unwrap();
            let found = PeerInfo::new(Some(peer), false, Some(&metadata), &headers);
            let expected = expected.map(|ip: &str| ip.parse::<IpAddr>().unwrap());
            assert_eq!(found.accountable, expected, "{peer} {forwarded:?}");
        }
        let unix = PeerInfo::new(None, false, None, &HeaderMap::new());
        assert_eq!(unix.accountable, None);
    }
}
