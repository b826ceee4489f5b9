//! Listening sockets that were there before this process: systemd's socket activation
//! (sd_listen_fds(3)). Whoever made them keeps them open across restarts, so that callers
//! wait for a moment where they would be refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

use crate::proxy::settings::Address;

/// The sockets that this process was started with, by where they listen.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
}

impl Inherited {
    /// Those that `LISTEN_FDS` and `LISTEN_PID` tell of; none where these are not set or
    /// meant for another process. Takes the variables out of the environment: call it once,
    /// before there are other threads.
    ///
    /// # Errors
    /// When one of them is no stream socket that listens at an address or a path.
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
                let path = address.as_pathname().ok_or_else(|| unfit(index))?;
                inherited.unix.push((path.to_owned(), listener));
            } else {
                return Err(unfit(index));
            }
        }
        Ok(inherited)
    }

    /// The one that listens at exactly this address.
    pub(super) fn take_tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let index = self.tcp.iter().position(|(at, _)| *at == address)?;
        Some(self.tcp.swap_remove(index).1)
    }

    /// The one that listens at exactly this path.
    pub(super) fn take_unix(&mut self, path: &Path) -> Option<UnixListener> {
        let index = self.unix.iter().position(|(at, _)| at == path)?;
        Some(self.unix.swap_remove(index).1)
    }

    /// Where those listen that nobody wants. Who connects there would wait for ever.
    pub fn unclaimed(&self, wanted: &[&Address]) -> Vec<String> {
        let tcp = self.tcp.iter().map(|(address, _)| Address::Tcp(*address));
        let unix = self.unix.iter();
        let unix = unix.map(|(path, _)| Address::Unix(path.clone()));
        tcp.chain(unix)
            .filter(|address| !wanted.contains(&address))
            .map(|address| super::shown(&address))
            .collect()
    }
}

fn unfit(index: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "passed socket {index} (LISTEN_FDS): no stream socket listening at an address or a path"
        ),
    )
}
