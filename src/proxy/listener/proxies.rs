//! Proxies in front of a listener: who they are, and what they say of their clients.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;

use super::{Incoming, proxy_header};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::settings::TrustedProxies;

/// The trust of one listener.
#[derive(Debug)]
pub(in crate::proxy) struct Proxies {
    networks: Arc<[IpNet]>,
    /// Whether each connection begins with a PROXY header.
    header: bool,
}

impl Proxies {
    pub(super) fn new(written: &TrustedProxies) -> Self {
        Self {
            networks: written.networks.clone().into(),
            header: written.proxy_protocol,
        }
    }

    /// Whose `X-Forwarded-For` counts.
    pub(in crate::proxy) fn networks(&self) -> Arc<[IpNet]> {
        Arc::clone(&self.networks)
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Reads the PROXY header, where the listener has one, within `limit`; the connection
    /// is from then on the client's whom it names. Nothing of what follows it is read.
    ///
    /// # Errors
    /// With the refusal: of a peer that is no trusted proxy, before a byte is read, and of
    /// a header that is late or not exactly one.
    pub(in crate::proxy) async fn announced(
        &self,
        incoming: &mut Incoming,
        limit: Duration,
    ) -> Result<(), Rejection> {
        if !self.header {
            return Ok(());
        }
        if !incoming.peer().is_some_and(|ip| self.trusts(ip)) {
            let cause = "the peer is in none of trusted_proxies, and proxy_protocol is on";
            return Err(Rejection::from(Reason::PeerNotAllowed).because(cause));
        }
        // Unix sockets have no address to trust: refused above.
        let Incoming::Tcp(stream, peer) = incoming else {
            return Ok(());
        };
        match timeout(limit, proxy_header::read(stream)).await {
            Ok(Ok(source)) => {
                *peer = source.map_or(*peer, canonical);
                Ok(())
            }
            Ok(Err(fault)) => {
                let cause = format!("PROXY header: {fault}");
                Err(Rejection::from(Reason::BadRequest).because(cause))
            }
            Err(_) => {
                let cause = "PROXY header: it did not come in time";
                Err(Rejection::from(Reason::HeaderTimeout).because(cause))
            }
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
