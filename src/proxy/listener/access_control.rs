//! Restricts which peers may connect, by network and by the local user that owns the peer's
//! socket. A peer whose user cannot be determined is rejected.

use std::io;

use ipnet::IpNet;

use super::Incoming;
use super::peer_process::PeerProcess;
use crate::proxy::settings::ListenerAccess;
use crate::proxy::users::uid_of;

/// The access restrictions of one listener.
#[derive(Debug)]
pub(in crate::proxy) struct AccessControl {
    networks: Option<Vec<IpNet>>,
    local_networks: Option<Vec<IpNet>>,
    users: Option<Vec<u32>>,
}

impl AccessControl {
    /// Returns `None` if every peer may connect.
    pub(super) fn new(settings: &ListenerAccess) -> io::Result<Option<Self>> {
        let ListenerAccess {
            networks,
            local_networks,
            users,
            ..
        } = settings;
        if networks.is_none() && local_networks.is_none() && users.is_none() {
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
            local_networks: local_networks.clone(),
            users: users
                .map(|users| users.iter().map(uid).collect::<io::Result<_>>())
                .transpose()?,
        }))
    }

    /// Checks whether the peer may connect.
    ///
    /// # Errors
    /// Returns the cause, for the log, if it may not.
    pub(in crate::proxy) async fn admit(&self, incoming: &Incoming) -> Result<(), String> {
        if let Some(networks) = &self.networks {
            let peer = incoming.peer();
            if !peer.is_some_and(|ip| networks.iter().any(|network| network.contains(&ip))) {
                return Err("the peer's address is not in allowed_networks".into());
            }
        }
        let peer = incoming.peer();
        if let Some(networks) = &self.local_networks
            && !peer.is_some_and(|ip| {
                ip.is_loopback() || networks.iter().any(|network| network.contains(&ip))
            })
        {
            return Err("the peer's address is not in local_networks".into());
        }
        if let Some(users) = &self.users {
            let unknown = |cause| format!("the peer's user cannot be determined: {cause}");
            let process = PeerProcess::of(incoming).map_err(unknown)?;
            // The user of a process in a container is not known here, and its network was checked.
            if self.local_networks.is_some() && !process.is_in_this_namespace() {
                return Ok(());
            }
            let uid = process.uid().await.map_err(unknown)?;
            if !users.contains(&uid) {
                return Err(format!("the peer's user {uid} is not in allowed_users"));
            }
        }
        Ok(())
    }

    /// Whether peers in `local_networks` may do whatever any peer may: no user is named.
    pub(in crate::proxy) fn trusts_networks(&self) -> bool {
        self.local_networks.is_some() && self.users.is_none()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    fn access(networks: Option<&[&str]>, users: Option<&[&str]>) -> AccessControl {
        let networks = networks.map(|list| list.iter().map(|n| n.parse().unwrap()).collect());
        let users = users.map(|list| list.iter().map(ToString::to_string).collect());
        let settings = ListenerAccess {
            networks,
            users,
            ..ListenerAccess::default()
        };
        AccessControl::new(&settings).unwrap().unwrap()
    }

    /// The user id of this test's process.
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
    async fn the_uid_of_a_peer_that_closed_is_not_root() {
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

    #[tokio::test]
    async fn users_of_this_machine_are_checked_on_listeners_for_containers_too() {
        let (_caller, incoming) = tcp("127.0.0.1:0").await;
        let confined = |networks: &str, users: Option<&[&str]>| {
            let users = users.map(|list| list.iter().map(ToString::to_string).collect());
            let settings = ListenerAccess {
                local_networks: Some(vec![networks.parse().unwrap()]),
                users,
                ..ListenerAccess::default()
            };
            AccessControl::new(&settings).unwrap().unwrap()
        };
        // Loopback is always included.
        let (bridge, own) = ("172.18.0.0/16", own_uid());
        confined(bridge, None).admit(&incoming).await.unwrap();
        confined(bridge, Some(&[&own]))
            .admit(&incoming)
            .await
            .unwrap();
        // Being in one of the networks is no excuse.
        for networks in [bridge, "127.0.0.0/8"] {
            let other = confined(networks, Some(&["4000000000"]));
            let cause = other.admit(&incoming).await.unwrap_err();
            assert!(cause.contains("allowed_users"), "{cause}");
        }
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
