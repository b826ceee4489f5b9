//! Settings of listeners, and the limits on callers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use super::body_rate::MinRate;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The address to listen on.
    pub address: Address,
    /// The file mode of a Unix socket; 0600 by default.
    pub mode: u32,
    /// TLS, which offers h2 and http/1.1 by ALPN, if set.
    pub tls: Option<ListenerTls>,
    /// Whether to serve only HTTP/2 without TLS, by prior knowledge.
    pub h2c: bool,
    /// Which peers may connect.
    pub access: ListenerAccess,
    /// The name of the `[[forward_auth]]` that the listener serves, instead of routes.
    pub forward_auth: Option<Arc<str>>,
}

impl Listener {
    /// Whether requests can come only from this machine (or pod): the address is local, and no
    /// proxy forwards requests from elsewhere.
    pub fn is_local(&self) -> bool {
        self.address.is_local() && self.access.proxies.is_none()
    }

    /// Whether requests can come only from this machine and the containers that `local_networks`
    /// names.
    pub fn is_confined(&self) -> bool {
        let networks = self.access.local_networks.is_some();
        (self.address.is_local() || networks) && self.access.proxies.is_none()
    }
}

/// The peers that may connect to a listener, and the proxies that are trusted to report their
/// clients' addresses. A peer must match both `networks` and `users`, where set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerAccess {
    /// Only peers with an address in one of these. TCP only; `config` enforces this.
    pub networks: Option<Vec<IpNet>>,
    /// Only processes of these users, by name or numeric ID. Loopback addresses, Unix sockets and
    /// listeners with `local_networks` only; `config` enforces this.
    pub users: Option<Vec<String>>,
    /// Networks of this machine's own containers. Only peers in these and on loopback may connect;
    /// `users` applies to those of them that are in no container. TCP only; `config` enforces this.
    pub local_networks: Option<Vec<IpNet>>,
    /// Trusted proxies. TCP only; `config` enforces this.
    pub proxies: Option<TrustedProxies>,
}

/// Proxies that are trusted to report their clients' addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedProxies {
    /// The networks from which they connect; at least one.
    pub networks: Vec<IpNet>,
    /// Whether each connection begins with a PROXY header. If so, other peers are rejected.
    pub proxy_protocol: bool,
}

/// The TLS files of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// The file with the certificate chain, in PEM format.
    pub cert: PathBuf,
    /// The file with the private key, in PEM format.
    pub key: PathBuf,
    /// CA certificates in PEM form. If set, the TLS handshake requests a client certificate issued by
    /// one of them.
    pub client_ca: Option<PathBuf>,
    /// Whether a client certificate is required.
    pub client_auth: ClientAuth,
}

/// The setting `tls.client_auth`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients without a certificate cannot connect.
    #[default]
    Required,
    /// Clients without a certificate can connect, but a certificate that is presented must be
    /// valid.
    Optional,
}

/// The settings in `[limits]`, and limits derived from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Maximum size of a request head, in bytes.
    pub header_bytes: usize,
    /// Maximum length of a request target, in bytes.
    pub url_bytes: usize,
    /// Time limit for receiving a whole request head.
    pub header_timeout: Duration,
    /// Timeout between two reads of a request body, and for each write to a caller.
    pub body_timeout: Duration,
    /// Minimum rate of a request body.
    pub min_body_rate: MinRate,
    /// Time after which an idle connection is closed.
    pub keepalive_timeout: Duration,
    /// The same for a connection on which no request was admitted yet, if it is shorter. Not
    /// configurable; tests shorten it.
    pub unadmitted_keepalive: Duration,
    /// How long to keep reading after the last response on a connection, so that the caller receives
    /// that response (RFC 9112 §9.6). Not configurable; tests shorten it.
    pub linger: Duration,
    /// Limit of open connections.
    pub connections: usize,
    /// Limit of requests in flight.
    pub requests_in_flight: usize,
    /// Limit of requests in flight of each client address; [`usize::MAX`] for no limit.
    pub requests_in_flight_per_address: usize,
    /// Limit of open connections from one IPv4 address or IPv6 /64 network: half of `connections`
    /// if `None`, no limit if 0. Does not apply to trusted proxies and Unix sockets.
    pub connections_per_address: Option<usize>,
    /// Maximum size of a request body, in bytes; no limit if `None`.
    pub body: Option<u64>,
    /// Maximum size of a request body that can be replayed, in bytes.
    pub replay_body: usize,
    /// Limit of memory for replayable bodies, over all requests together, in bytes.
    pub replay_memory: usize,
}

impl Limits {
    /// The value of [`Limits::linger`] outside tests.
    pub const LINGER: Duration = Duration::from_secs(10);
    /// The grace period of [`Limits::min_body_rate`] outside tests; Kestrel's default.
    pub const BODY_RATE_GRACE: Duration = Duration::from_secs(5);
    /// The value of [`Limits::unadmitted_keepalive`] outside tests.
    pub const UNADMITTED_KEEPALIVE: Duration = Duration::from_secs(5);

    /// Returns the limit of open connections from one address; `None` if there is none.
    pub(super) fn per_address(&self) -> Option<usize> {
        match self.connections_per_address {
            None => Some(self.connections.div_ceil(2)),
            Some(0) => None,
            limit => limit,
        }
    }
}

impl Address {
    /// Whether only this machine (or pod) can connect: a loopback address, or a Unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether the two addresses cannot be bound at the same time.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let wildcard = a.ip().is_unspecified() || b.ip().is_unspecified();
                let same = a.ip() == b.ip() || (wildcard && a.is_ipv4() == b.is_ipv4());
                a.port() == b.port() && a.port() != 0 && same
            }
            _ => self == other,
        }
    }
}

/// Formats the address as in the configuration.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
