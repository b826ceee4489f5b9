//! Reports the service's state to systemd (sd_notify(3)).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// Reports that hawkgate accepts connections.
pub(super) fn ready() {
    notify(&NotifyState::Ready);
}

/// Reports that hawkgate is shutting down.
pub(super) fn stopping() {
    notify(&NotifyState::Stopping);
}

/// Does nothing unless a service manager has set `NOTIFY_SOCKET`. Serving does not depend on
/// it, so a failure is only logged.
fn notify(state: &NotifyState<'_>) {
    let socket = env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let result = match socket.as_bytes() {
        [] => return,
        [b'@', name @ ..] => send_to_abstract_socket(name, state),
        _ => sd_notify::notify(std::slice::from_ref(state)),
    };
    if let Err(error) = result {
        tracing::warn!(%error, %state, "cannot notify the service manager");
    }
}

/// `sd-notify` supports sockets with a path only.
fn send_to_abstract_socket(name: &[u8], state: &NotifyState<'_>) -> io::Result<()> {
    let address = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(state.to_string().as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_socket_receives_the_state() {
        let name = format!("hawkgate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send_to_abstract_socket(name.as_bytes(), &NotifyState::Ready).unwrap();
        let mut buffer = [0; 64];
        let read = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"READY=1");
        drop(manager);
        send_to_abstract_socket(name.as_bytes(), &NotifyState::Ready).unwrap_err();
    }
}
