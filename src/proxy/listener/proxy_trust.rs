//! The trusted proxies in front of a listener, and the PROXY header they send.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;

use super::{Incoming, proxy_header};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::settings::TrustedProxies;

/// The trusted proxies of one listener.
#[derive(Debug)]
pub(in crate::proxy) struct ProxyTrust {
    networks: Arc<[IpNet]>,
    /// Whether each connection begins with a PROXY header.
    header: bool,
}

impl ProxyTrust {
    pub(super) fn new(settings: &TrustedProxies) -> Self {
        Self {
            networks: settings.networks.clone().into(),
            header: settings.proxy_protocol,
        }
    }

    /// Returns the networks whose `X-Forwarded-For` is trusted.
    pub(in crate::proxy) fn networks(&self) -> Arc<[IpNet]> {
        Arc::clone(&self.networks)
    }

    /// Whether this is the address of a trusted proxy.
    pub(in crate::proxy) fn trusts(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Reads the PROXY header within `limit`, if the listener expects one. `incoming` then has
    /// the address of the client given in the header. Nothing after the header is read.
    ///
    /// # Errors
    /// Returns a rejection if the peer is not a trusted proxy (before anything is read), or if
    /// the header is late or malformed.
    pub(in crate::proxy) async fn read_proxy_header(
        &self,
        incoming: &mut Incoming,
        limit: Duration,
    ) -> Result<(), Rejection> {
        if !self.header {
            return Ok(());
        }
        if !incoming.peer().is_some_and(|ip| self.trusts(ip)) {
            let cause = "proxy_protocol is on, and the peer is not in trusted_proxies";
            return Err(Rejection::from(Reason::PeerNotAllowed).with_cause(cause));
        }
        // Unix sockets have no address that could be trusted, so they have already been
        // rejected.
        let Incoming::Tcp(stream, peer) = incoming else {
            return Ok(());
        };
        match timeout(limit, proxy_header::read(stream)).await {
            Ok(Ok(source)) => {
                *peer = source.map_or(*peer, canonical);
                Ok(())
            }
            Ok(Err(error)) => {
                let cause = format!("PROXY header: {error}");
                Err(Rejection::from(Reason::BadRequest).with_cause(cause))
            }
            Err(_) => {
                let cause = "PROXY header: not received in time";
                Err(Rejection::from(Reason::HeaderTimeout).with_cause(cause))
            }
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
