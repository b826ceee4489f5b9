//! The process at the other end of a connection.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::Incoming;

/// The kernel's tables of TCP sockets and their owners, for IPv4 and IPv6 (proc(5)).
const PROC_NET_TCP: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The user id of root.
const ROOT: u32 = 0;

/// The process at the other end of a connection, as far as this machine knows it.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) enum PeerProcess {
    /// A process of this user, connected through a Unix socket.
    Unix(u32),
    /// The process whose TCP socket has these addresses.
    Tcp {
        peer: SocketAddr,
        /// hawkgate's end.
        local: SocketAddr,
    },
}

impl PeerProcess {
    /// Returns the process that opened `incoming`.
    pub(in crate::proxy) fn of(incoming: &Incoming) -> io::Result<Self> {
        Ok(match incoming {
            Incoming::Unix(stream) => Self::Unix(stream.peer_cred()?.uid()),
            Incoming::Tcp(stream, peer) => Self::Tcp {
                peer: *peer,
                local: stream.local_addr()?,
            },
        })
    }

    /// Whether the process is in this network namespace: on this machine, and in none of its
    /// containers with a network of its own. Such a process cannot connect from another address.
    pub(in crate::proxy) fn is_in_this_namespace(self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { peer, .. } => is_own_address(peer.ip().to_canonical()),
        }
    }

    /// Returns the user that owns the process.
    ///
    /// # Errors
    /// If the socket is not on this machine, or has been closed.
    pub(in crate::proxy) async fn uid(self) -> io::Result<u32> {
        match self {
            Self::Unix(uid) => Ok(uid),
            Self::Tcp { peer, local } => {
                let search = move || socket_uid(peer, local);
                tokio::task::spawn_blocking(search)
                    .await
                    .map_err(io::Error::other)?
            }
        }
    }

    /// Checks whether the process may replace credentials: it is root's, or of the user that
    /// hawkgate runs as. `trusts_networks` says whether one in another network namespace may too.
    ///
    /// # Errors
    /// Returns the cause, for the log, if it may not.
    pub(in crate::proxy) async fn may_replace_credentials(
        self,
        trusts_networks: bool,
    ) -> Result<(), String> {
        if trusts_networks && !self.is_in_this_namespace() {
            return Ok(());
        }
        let uid = self
            .uid()
            .await
            .map_err(|cause| format!("the peer's user cannot be determined: {cause}"))?;
        if [ROOT, rustix::process::geteuid().as_raw()].contains(&uid) {
            return Ok(());
        }
        Err(format!(
            "the peer's user {uid} is neither root nor the one that hawkgate runs as"
        ))
    }
}

/// Whether `ip` is an address of this network namespace, to which sockets can be bound. True if that
/// cannot be determined, because then the owner of the socket is looked for.
fn is_own_address(ip: IpAddr) -> bool {
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

/// Returns the owner of the socket at `peer` that is connected to `local`, both on this machine.
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
            // A kernel without IPv6 lacks the second table.
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

/// Returns the owner in one line of the table:
/// `sl local remote st queues timer retrnsmt uid timeout inode …`. A socket that its process has
/// closed is listed with user 0 and inode 0. It no longer has an owner, and must not be mistaken
/// for root's.
fn uid_in_line(line: &str, local: &str, remote: &str) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    if fields.next()? != local || fields.next()? != remote {
        return None;
    }
    let uid = fields.nth(4)?.parse().ok()?;
    let inode: u64 = fields.nth(1)?.parse().ok()?;
    (inode != 0).then_some(uid)
}

/// Formats an address as the kernel does: each 32-bit word in native byte order, in hexadecimal,
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

    #[test]
    fn addresses_of_other_machines_are_not_own_ones() {
        for (ip, own) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("198.51.100.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_own_address(ip.parse().unwrap()), own, "{ip}");
        }
    }

    #[tokio::test]
    async fn root_and_the_own_user_may_replace_credentials_and_networks_only_if_trusted() {
        let own = rustix::process::geteuid().as_raw();
        for uid in [ROOT, own] {
            PeerProcess::Unix(uid)
                .may_replace_credentials(false)
                .await
                .unwrap();
        }
        let other = PeerProcess::Unix(4_000_000_000);
        for trusted in [true, false] {
            let cause = other.may_replace_credentials(trusted).await.unwrap_err();
            assert!(cause.contains("4000000000"), "{cause}");
        }
        let elsewhere = PeerProcess::Tcp {
            peer: "198.51.100.1:1".parse().unwrap(),
            local: "192.0.2.1:1".parse().unwrap(),
        };
        elsewhere.may_replace_credentials(true).await.unwrap();
        let cause = elsewhere.may_replace_credentials(false).await.unwrap_err();
        assert!(cause.contains("cannot be determined"), "{cause}");
    }
}
