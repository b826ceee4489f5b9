//! Listening sockets, which are bound once, before any connection is served.

mod access_control;
pub(super) mod peer_process;
mod proxy_header;
mod proxy_trust;
mod socket_activation;
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
pub(super) use access_control::AccessControl;
#[cfg(fuzzing)]
pub(super) use proxy_header::read as read_proxy_header;
pub(super) use proxy_trust::ProxyTrust;
pub use socket_activation::InheritedSockets;
pub use tls::{Tls, Validity};
use unix::SocketFile;
pub use unix::check_socket_path;

/// Maximum number of connections that the kernel queues until they are accepted.
const BACKLOG: u32 = 1024;

/// Why a listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address as configured.
        address: String,
        /// The system's error.
        cause: io::Error,
    },
    /// A TLS file cannot be used.
    #[error("TLS {what} {} {cause}", file.display())]
    Tls {
        /// "certificate", "key" or "client CA".
        what: &'static str,
        /// Its path.
        file: PathBuf,
        /// What is wrong with it. Never quotes its content.
        cause: String,
    },
}

/// A bound listener and the protocol it speaks.
pub(super) struct BoundListener {
    socket: Socket,
    pub(super) address: Address,
    pub(super) protocol: Protocol,
    /// `None` if every peer may connect.
    pub(super) access: Option<Arc<AccessControl>>,
    /// `None` if no proxy is trusted.
    pub(super) proxies: Option<Arc<ProxyTrust>>,
    /// The name of the `[[forward_auth]]` that it serves, instead of routes.
    pub(super) forward_auth: Option<Arc<str>>,
}

/// The protocol of a listener's connections.
#[derive(Clone)]
pub(super) enum Protocol {
    /// HTTP/1.
    Plain,
    /// TLS, with the protocol that ALPN selects.
    Tls(Arc<Tls>),
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the socket file when dropped. `None` if the socket was inherited.
        _file: Option<SocketFile>,
    },
}

/// An accepted connection.
pub(super) enum Incoming {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl BoundListener {
    /// Binds the listener as configured, unless its socket was inherited. The permissions of a
    /// Unix socket are never wider than its mode.
    pub(super) async fn bind(
        listener: &Listener,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, BindError> {
        let protocol = match &listener.tls {
            Some(tls) => Protocol::Tls(Arc::new(Tls::load(tls.clone())?)),
            None if listener.h2c => Protocol::H2c,
            None => Protocol::Plain,
        };
        let unusable = |cause| BindError::Listen {
            address: listener.address.to_string(),
            cause,
        };
        let access = AccessControl::new(&listener.access).map_err(unusable)?;
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
                .map(|settings| Arc::new(ProxyTrust::new(settings))),
            forward_auth: listener.forward_auth.clone(),
        })
    }

    /// Accepts the next connection. Cancel-safe.
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

impl Incoming {
    /// Returns the peer's address, or the one in a trusted proxy's PROXY header; `None` on Unix
    /// sockets.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => Some(peer.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// Converts to pingora's own stream, which TLS and HTTP/2 need.
    pub(super) fn into_stream(self) -> io::Result<L4Stream> {
        let digest = self.digest()?;
        let mut stream: L4Stream = match self {
            Self::Tcp(stream, _) => stream.into(),
            Self::Unix(stream) => stream.into(),
        };
        stream.set_socket_digest(digest);
        Ok(stream)
    }

    /// Converts to a [`Transport`], for HTTP/1.
    pub(super) fn into_transport(self) -> io::Result<Stream> {
        let digest = self.digest()?;
        Ok(match self {
            Self::Tcp(stream, _) => Box::new(Transport::new(stream, digest)),
            Self::Unix(stream) => Box::new(Transport::new(stream, digest)),
        })
    }

    /// Records both addresses now, because they cannot be determined once the socket is closed.
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

    /// Attaches the connection to the current runtime.
    pub(super) fn attach(detached: Detached) -> io::Result<Self> {
        match detached {
            Detached::Tcp(stream, peer) => Ok(Self::Tcp(TcpStream::from_std(stream)?, peer)),
            Detached::Unix(stream) => Ok(Self::Unix(UnixStream::from_std(stream)?)),
        }
    }

    /// Detaches the connection from the runtime that accepted it.
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
