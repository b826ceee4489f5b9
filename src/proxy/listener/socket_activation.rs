//! Listening sockets inherited through systemd's socket activation (sd_listen_fds(3)). The
//! service manager keeps them open across restarts, so that callers briefly wait instead of
//! being refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

use crate::proxy::settings::Address;

/// The sockets that this process has inherited, by address.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
}

impl InheritedSockets {
    /// Takes the sockets described by `LISTEN_FDS` and `LISTEN_PID`, or none if these are not
    /// set or are meant for another process. Removes the variables from the environment, so it
    /// must be called once, before other threads exist.
    ///
    /// # Errors
    /// Returns an error if a descriptor is not a listening stream socket with an address or a
    /// path.
    pub fn from_env() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..passed.len() {
            if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
                listener.set_nonblocking(true)?;
                inherited.tcp.push((listener.local_addr()?, listener));
            } else if let Ok(Some(listener)) = passed.take_unix_listener(index) {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or_else(|| invalid_socket(index))?;
                inherited.unix.push((path.to_owned(), listener));
            } else {
                return Err(invalid_socket(index));
            }
        }
        Ok(inherited)
    }

    /// Takes the socket that listens on exactly this address.
    pub(super) fn take_tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let index = self.tcp.iter().position(|(at, _)| *at == address)?;
        Some(self.tcp.swap_remove(index).1)
    }

    /// Takes the socket that listens at exactly this path.
    pub(super) fn take_unix(&mut self, path: &Path) -> Option<UnixListener> {
        let index = self.unix.iter().position(|(at, _)| at == path)?;
        Some(self.unix.swap_remove(index).1)
    }

    /// Returns the addresses of the sockets that no configured listener uses. A caller that
    /// connected to one would wait indefinitely.
    pub fn unused(&self, configured: &[&Address]) -> Vec<String> {
        let tcp = self.tcp.iter().map(|(address, _)| Address::Tcp(*address));
        let unix = self.unix.iter();
        let unix = unix.map(|(path, _)| Address::Unix(path.clone()));
        tcp.chain(unix)
            .filter(|address| !configured.contains(&address))
            .map(|address| address.to_string())
            .collect()
    }
}

fn invalid_socket(index: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "inherited socket {index} (LISTEN_FDS) is not a listening stream socket with an address or a path"
        ),
    )
}
