//! Sockets to listen at: bound once, before anything is served.

mod access;
mod inherited;
mod proxies;
mod proxy_header;
mod tls;
mod unix;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::transport::Transport;
use crate::proxy::settings::{Address, Listener};
pub(super) use access::Access;
pub use inherited::Inherited;
pub(super) use proxies::Proxies;
pub use tls::Tls;
use unix::SocketFile;

/// Connections that the system keeps waiting to be accepted.
const BACKLOG: u32 = 1024;

/// Why a listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// As configured.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A file for TLS is unusable.
    #[error("TLS {what} {}: {cause}", file.display())]
    Tls {
        /// "certificate", "key" or "client CA".
        what: &'static str,
        /// Which file.
        file: PathBuf,
        /// What is wrong with it; never its content.
        cause: String,
    },
}

/// Where one listener listens and how it is spoken to.
pub(super) struct Endpoint {
    socket: Socket,
    pub(super) address: Address,
    pub(super) protocol: Protocol,
    /// None where anybody may connect.
    pub(super) access: Option<Arc<Access>>,
    /// None where nobody speaks for others.
    pub(super) proxies: Option<Arc<Proxies>>,
}

/// What is spoken on a listener's connections.
#[derive(Clone)]
pub(super) enum Protocol {
    /// HTTP/1.
    Plain,
    /// TLS, then what ALPN says.
    Tls(Arc<Tls>),
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the file when dropped; none where somebody else made it.
        _file: Option<SocketFile>,
    },
}

/// A connection just accepted.
pub(super) enum Incoming {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Endpoint {
    /// Binds as configured, unless the socket was inherited; a Unix socket is never more
    /// open than its mode.
    pub(super) async fn bind(
        listener: &Listener,
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        let protocol = match &listener.tls {
            Some(tls) => Protocol::Tls(Arc::new(Tls::load(tls.clone())?)),
            None if listener.h2c => Protocol::H2c,
            None => Protocol::Plain,
        };
        let unusable = |cause| BindError::Listen {
            address: shown(&listener.address),
            cause,
        };
        let access = Access::new(&listener.access).map_err(unusable)?;
        let bound = match &listener.address {
            Address::Tcp(address) => match inherited.take_tcp(*address) {
                Some(socket) => TcpListener::from_std(socket)
                    .map(|listener| (Socket::Tcp(listener), Address::Tcp(*address))),
                None => bind_tcp(*address),
            },
            Address::Unix(path) => match inherited.take_unix(path) {
                Some(socket) => UnixListener::from_std(socket).map(|listener| (listener, None)),
                None => unix::bind(path, listener.mode)
                    .await
                    .map(|(listener, file)| (listener, Some(file))),
            }
            .map(|(listener, file)| {
                let socket = Socket::Unix {
                    listener,
                    _file: file,
                };
                (socket, Address::Unix(path.clone()))
            }),
        };
        let (socket, address) = bound.map_err(unusable)?;
        Ok(Self {
            socket,
            address,
            protocol,
            access: access.map(Arc::new),
            proxies: listener
                .access
                .proxies
                .as_ref()
                .map(|written| Arc::new(Proxies::new(written))),
        })
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<Incoming> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Incoming::Tcp(stream, peer))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok(Incoming::Unix(stream))
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(Socket, Address)> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let bound = listener.local_addr()?;
    Ok((Socket::Tcp(listener), Address::Tcp(bound)))
}

/// As the configuration writes it.
fn shown(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

impl Incoming {
    /// The caller's address, or what a trusted proxy's PROXY header says; none on Unix
    /// sockets.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => Some(peer.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// As pingora's own transport, which TLS and HTTP/2 are built on.
    pub(super) fn into_stream(self) -> io::Result<L4Stream> {
        let digest = self.digest()?;
        let mut stream: L4Stream = match self {
            Self::Tcp(stream, _) => stream.into(),
            Self::Unix(stream) => stream.into(),
        };
        stream.set_socket_digest(digest);
        Ok(stream)
    }

    /// As it is, for HTTP/1.
    pub(super) fn into_plain(self) -> io::Result<Stream> {
        let digest = self.digest()?;
        Ok(match self {
            Self::Tcp(stream, _) => Box::new(Transport::new(stream, digest)),
            Self::Unix(stream) => Box::new(Transport::new(stream, digest)),
        })
    }

    /// Who is connected. Noted now: a socket that is closed already cannot be asked any more.
    fn digest(&self) -> io::Result<SocketDigest> {
        Ok(match self {
            Self::Tcp(stream, peer) => {
                stream.set_nodelay(true)?;
                let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
                let _ = digest.peer_addr.set(Some(PingoraAddr::Inet(*peer)));
                digest
            }
            Self::Unix(stream) => {
                let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
                let _ = digest.peer_addr.set(None);
                let _ = digest.local_addr.set(None);
                digest
            }
        })
    }

    /// Moved from the runtime that accepted it to the current one.
    pub(super) fn adopt(detached: Detached) -> io::Result<Self> {
        match detached {
            Detached::Tcp(stream, peer) => Ok(Self::Tcp(TcpStream::from_std(stream)?, peer)),
            Detached::Unix(stream) => Ok(Self::Unix(UnixStream::from_std(stream)?)),
        }
    }

    /// Released from the current runtime.
    pub(super) fn detach(self) -> io::Result<Detached> {
        match self {
            Self::Tcp(stream, peer) => Ok(Detached::Tcp(stream.into_std()?, peer)),
            Self::Unix(stream) => Ok(Detached::Unix(stream.into_std()?)),
        }
    }
}

/// A connection that belongs to no runtime.
pub(super) enum Detached {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}
