//! Settings of listeners, and limits on what callers may use up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// Mode of a Unix socket; 0600 unless set.
    pub mode: u32,
    /// TLS with ALPN h2 and http/1.1, if set.
    pub tls: Option<ListenerTls>,
    /// HTTP/2 without TLS by prior knowledge, and nothing else, on this listener.
    pub h2c: bool,
    /// Who may connect.
    pub access: ListenerAccess,
}

impl Listener {
    /// Whether only this machine (or pod) can send requests here: at a local address, and
    /// no proxy brings them from elsewhere.
    pub fn is_local(&self) -> bool {
        self.address.is_local() && self.access.proxies.is_none()
    }
}

/// Who may connect to a listener, whoever every list that is there names; and who may say
/// for whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerAccess {
    /// Only peers with an address in one of these. TCP only: checked.
    pub networks: Option<Vec<IpNet>>,
    /// Only processes of these users, by name or number. Loopback and Unix sockets only:
    /// checked.
    pub users: Option<Vec<String>>,
    /// Proxies in front. TCP only: checked.
    pub proxies: Option<TrustedProxies>,
}

/// Proxies that are believed what they say of their clients.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedProxies {
    /// Where they connect from; at least one.
    pub networks: Vec<IpNet>,
    /// Whether each connection begins with a PROXY header; others are refused then.
    pub proxy_protocol: bool,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// PEM CAs; when set, callers are asked for a certificate of one.
    pub client_ca: Option<PathBuf>,
    /// Whether they must present one.
    pub client_auth: ClientAuth,
}

/// `tls.client_auth`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Who presents no certificate cannot connect.
    #[default]
    Required,
    /// Who presents none can; one that is presented must be good.
    Optional,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Request head, bytes.
    pub header_bytes: usize,
    /// Request target, bytes.
    pub url_bytes: usize,
    /// For the whole head.
    pub header_timeout: Duration,
    /// Between two reads of a request body, and for one write to a caller.
    pub body_timeout: Duration,
    /// An idle caller's connection is closed after this.
    pub keepalive_timeout: Duration,
    /// Open connections.
    pub connections: usize,
    /// Request body, bytes; unlimited when `None`.
    pub body: Option<u64>,
    /// Request bodies up to this many bytes can be replayed.
    pub replay_body: usize,
    /// Bytes kept for replay, all requests together.
    pub replay_memory: usize,
}

impl Address {
    /// Whether only this machine (or pod) can connect: loopback, or a Unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether both cannot be bound at once.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let every = a.ip().is_unspecified() || b.ip().is_unspecified();
                let same = a.ip() == b.ip() || (every && a.is_ipv4() == b.is_ipv4());
                a.port() == b.port() && a.port() != 0 && same
            }
            _ => self == other,
        }
    }
}

/// As it would be written in the file.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
