//! Which peers may connect: by network, and by the local user that owns the peer's socket. A
//! peer whose user cannot be determined is rejected.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Incoming;
use crate::proxy::settings::ListenerAccess;
use crate::proxy::users::uid_of;

/// Where the kernel lists TCP sockets with their owners, for IPv4 and IPv6 (proc(5)).
const PROC_NET_TCP: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The access rule of one listener.
#[derive(Debug)]
pub(in crate::proxy) struct AccessControl {
    networks: Option<Vec<IpNet>>,
    users: Option<Vec<u32>>,
}

impl AccessControl {
    /// `None` if every peer may connect.
    pub(super) fn new(settings: &ListenerAccess) -> io::Result<Option<Self>> {
        let ListenerAccess {
            networks, users, ..
        } = settings;
        if networks.is_none() && users.is_none() {
            return Ok(None);
        }
        let uid = |user: &String| match uid_of(user)? {
            Some(uid) => Ok(uid),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("allowed_users: unknown user {user:?}"),
            )),
        };
        let users = users.as_ref();
        Ok(Some(Self {
            networks: networks.clone(),
            users: users
                .map(|users| users.iter().map(uid).collect::<io::Result<_>>())
                .transpose()?,
        }))
    }

    /// Checks whether the peer may connect.
    ///
    /// # Errors
    /// With the cause for the log, if it may not.
    pub(in crate::proxy) async fn admit(&self, incoming: &Incoming) -> Result<(), String> {
        if let Some(networks) = &self.networks {
            let peer = incoming.peer();
            if !peer.is_some_and(|ip| networks.iter().any(|network| network.contains(&ip))) {
                return Err("the peer's address is not in allowed_networks".into());
            }
        }
        if let Some(users) = &self.users {
            let uid = peer_uid(incoming)
                .await
                .map_err(|cause| format!("the peer's user cannot be determined: {cause}"))?;
            if !users.contains(&uid) {
                return Err(format!("the peer's user {uid} is not in allowed_users"));
            }
        }
        Ok(())
    }
}

/// The user that owns the peer's end of a connection.
async fn peer_uid(incoming: &Incoming) -> io::Result<u32> {
    match incoming {
        Incoming::Unix(stream) => Ok(stream.peer_cred()?.uid()),
        Incoming::Tcp(stream, peer) => {
            let (local, peer) = (stream.local_addr()?, *peer);
            let search = move || socket_uid(peer, local);
            tokio::task::spawn_blocking(search)
                .await
                .map_err(io::Error::other)?
        }
    }
}

/// The owner of the socket at `peer` that is connected to `local`, both on this machine.
fn socket_uid(peer: SocketAddr, local: SocketAddr) -> io::Result<u32> {
    for table in PROC_NET_TCP {
        let wide = table.ends_with('6');
        let (Some(peer), Some(local)) =
            (proc_net_address(peer, wide), proc_net_address(local, wide))
        else {
            continue;
        };
        let lines = match fs::File::open(table) {
            Ok(file) => BufReader::new(file).lines(),
            // A kernel without IPv6 has no second table.
            Err(e) if wide && e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for line in lines {
            if let Some(uid) = uid_in_line(&line?, &peer, &local) {
                return Ok(uid);
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "its socket is not on this machine, or has been closed",
    ))
}

/// The owner in one line of the table: `sl local remote st queues timer retrnsmt uid timeout
/// inode …`. A socket that its process has closed is listed with user 0 and inode 0, because
/// the kernel keeps no more of it; it has no owner, and must not be taken for root's.
fn uid_in_line(line: &str, local: &str, remote: &str) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    if fields.next()? != local || fields.next()? != remote {
        return None;
    }
    let uid = fields.nth(4)?.parse().ok()?;
    let inode: u64 = fields.nth(1)?.parse().ok()?;
    (inode != 0).then_some(uid)
}

/// An address in the kernel's notation: each 32-bit word in native byte order, in hexadecimal,
/// then the port.
fn proc_net_address(address: SocketAddr, wide: bool) -> Option<String> {
    let octets = match (address.ip(), wide) {
        (IpAddr::V4(ip), false) => ip.octets().to_vec(),
        (IpAddr::V4(ip), true) => ip.to_ipv6_mapped().octets().to_vec(),
        (IpAddr::V6(ip), true) => ip.octets().to_vec(),
        (IpAddr::V6(ip), false) => ip.to_ipv4_mapped()?.octets().to_vec(),
    };
    let mut text = String::with_capacity(37);
    for word in octets.chunks_exact(4) {
        let word = u32::from_ne_bytes(word.try_into().ok()?);
        // Writing to a String cannot fail.
        let _ = write!(text, "{word:08X}");
    }
    let _ = write!(text, ":{:04X}", address.port());
    Some(text)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    const PROC_NET_LINE: &str = "   3: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 81234 1 0000000000000000 20 4 30 10 -1";

    #[test]
    fn proc_net_lines_are_matched_by_both_addresses() {
        assert_eq!(
            uid_in_line(PROC_NET_LINE, "0100007F:1F90", "0100007F:C350"),
            Some(1000)
        );
        assert_eq!(
            uid_in_line(PROC_NET_LINE, "0100007F:C350", "0100007F:1F90"),
            None
        );
        assert_eq!(
            uid_in_line(PROC_NET_LINE, "0100007F:1F90", "0100007F:C351"),
            None
        );
        for broken in ["", "  sl  local_address rem_address", &PROC_NET_LINE[..60]] {
            assert_eq!(uid_in_line(broken, "0100007F:1F90", "0100007F:C350"), None);
        }
    }

    #[test]
    fn a_closed_socket_has_no_owner() {
        let orphan = PROC_NET_LINE.replace("1000        0 81234", "   0        0 0");
        assert_eq!(uid_in_line(&orphan, "0100007F:1F90", "0100007F:C350"), None);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_are_formatted_as_in_proc_net() {
        for (address, narrow, wide) in [
            (
                "127.0.0.1:8080",
                Some("0100007F:1F90"),
                "0000000000000000FFFF00000100007F:1F90",
            ),
            ("[::1]:80", None, "00000000000000000000000001000000:0050"),
            (
                "[::ffff:10.1.2.3]:1",
                Some("0302010A:0001"),
                "0000000000000000FFFF00000302010A:0001",
            ),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(proc_net_address(address, false).as_deref(), narrow);
            assert_eq!(proc_net_address(address, true).as_deref(), Some(wide));
        }
    }

    fn access(networks: Option<&[&str]>, users: Option<&[&str]>) -> AccessControl {
        let networks = networks.map(|list| list.iter().map(|n| n.parse().unwrap()).collect());
        let users = users.map(|list| list.iter().map(ToString::to_string).collect());
        let settings = ListenerAccess {
            networks,
            users,
            proxies: None,
        };
        AccessControl::new(&settings).unwrap().unwrap()
    }

    /// The user that runs this test.
    fn own_uid() -> String {
        rustix::process::getuid().as_raw().to_string()
    }

    async fn tcp(address: &str) -> (TcpStream, Incoming) {
        let listener = TcpListener::bind(address).await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        (caller, Incoming::Tcp(stream, peer))
    }

    #[tokio::test]
    async fn peer_users_are_found_over_loopback_and_unix_sockets() {
        let (_caller, incoming) = tcp("127.0.0.1:0").await;
        let (_other, unix) = UnixStream::pair().unwrap();
        let unix = Incoming::Unix(unix);
        let (local, other) = (own_uid(), "4000000000");
        for incoming in [&incoming, &unix] {
            access(None, Some(&[&local])).admit(incoming).await.unwrap();
            access(None, Some(&[other, &local]))
                .admit(incoming)
                .await
                .unwrap();
            let cause = access(None, Some(&[other])).admit(incoming).await;
            assert!(cause.unwrap_err().contains("allowed_users"));
        }
    }

    #[tokio::test]
    async fn a_peer_that_closed_is_not_taken_for_root() {
        let (caller, incoming) = tcp("127.0.0.1:0").await;
        drop(caller);
        let allow_root = access(None, Some(&["0", &own_uid()]));
        let cause = allow_root.admit(&incoming).await.unwrap_err();
        assert!(cause.contains("cannot be determined"), "{cause}");
    }

    #[tokio::test]
    async fn allowed_networks_apply_to_the_peer_address() {
        let (_caller, incoming) = tcp("127.0.0.1:0").await;
        for (networks, admitted) in [
            (&["127.0.0.0/8"][..], true),
            (&["10.0.0.0/8", "127.0.0.1/32"], true),
            (&["10.0.0.0/8"], false),
            (&["::1/128"], false),
        ] {
            let result = access(Some(networks), None).admit(&incoming).await;
            assert_eq!(result.is_ok(), admitted, "{networks:?}");
        }
        let (_other, unix) = UnixStream::pair().unwrap();
        let (loopback, unix) = (access(Some(&["127.0.0.0/8"]), None), Incoming::Unix(unix));
        assert!(loopback.admit(&unix).await.is_err());
        // Both lists must allow the peer.
        let both = access(Some(&["127.0.0.0/8"]), Some(&["4000000000"]));
        assert!(both.admit(&incoming).await.is_err());
    }

    #[test]
    fn without_lists_there_is_no_access_control_and_unknown_users_are_an_error() {
        assert!(
            AccessControl::new(&ListenerAccess::default())
                .unwrap()
                .is_none()
        );
        let users = Some(vec!["no such user here".into()]);
        let unknown = ListenerAccess {
            users,
            ..ListenerAccess::default()
        };
        assert!(AccessControl::new(&unknown).is_err());
    }
}
