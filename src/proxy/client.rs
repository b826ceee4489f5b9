//! Who a request comes from, according to the socket, the PROXY header, the client certificate
//! and, from trusted proxies only, `X-Forwarded-For`.

mod certificate;
mod x_forwarded_for;

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use ipnet::IpNet;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::Session;

use crate::gateway::Head;
use crate::gateway::client_certificate::ClientCertificate;
use crate::header_fields::HeaderFields;
pub(super) use certificate::read as read_certificate;

/// The connected peer, and the client it speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerInfo {
    /// The connected peer's address, or the one in a trusted proxy's PROXY header; `None` on
    /// Unix sockets. IPv4-mapped IPv6 addresses are converted to IPv4.
    pub(super) ip: Option<IpAddr>,
    /// The client's address: the same, unless a trusted proxy names another in
    /// `X-Forwarded-For`.
    pub(super) client: Option<IpAddr>,
    /// Whether the connection is TLS.
    pub(super) tls: bool,
    /// The verified certificate that the peer presented, if any.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

/// What a listener knows of a connection, apart from its socket.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnMetadata {
    /// The networks whose `X-Forwarded-For` is believed.
    pub(super) trusted_proxies: Option<Arc<[IpNet]>>,
    /// The verified certificate that the peer presented, if any.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

impl ConnMetadata {
    /// Wraps the metadata for pingora, which carries it from the connection to each request in
    /// the place meant for an upstream proxy's CONNECT response. `None` if there is none.
    ///
    /// # Errors
    /// pingora's, which do not occur in practice. A connection whose metadata is lost must not
    /// be served.
    pub(super) fn into_digest(self) -> pingora::Result<Option<Arc<ProxyDigest>>> {
        if self.trusted_proxies.is_none() && self.certificate.is_none() {
            return Ok(None);
        }
        let unused = Box::new(ResponseHeader::build(200, Some(0))?);
        let digest = ProxyDigest::new(unused, Some(Box::new(self)));
        Ok(Some(Arc::new(digest)))
    }

    /// The metadata that [`ConnMetadata::into_digest`] stored.
    pub(super) fn from_digest(digest: Option<&Arc<ProxyDigest>>) -> Option<&Self> {
        digest?.user_data.as_ref()?.downcast_ref()
    }
}

impl PeerInfo {
    /// For the caller of `session`.
    pub(super) fn from_session(session: &Session) -> Self {
        let ip = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .map(|address| address.ip().to_canonical());
        let digest = session.digest();
        let metadata =
            digest.and_then(|digest| ConnMetadata::from_digest(digest.proxy_digest.as_ref()));
        let tls = digest.is_some_and(|digest| digest.ssl_digest.is_some());
        Self::new(ip, tls, metadata, &session.req_header().headers)
    }

    /// For a peer connected from `ip`, given the listener's metadata and the fields of the
    /// request.
    pub(super) fn new(
        ip: Option<IpAddr>,
        tls: bool,
        metadata: Option<&ConnMetadata>,
        headers: &dyn HeaderFields,
    ) -> Self {
        let proxies = metadata.and_then(|metadata| metadata.trusted_proxies.as_deref());
        let client = match (ip, proxies) {
            (Some(ip), Some(proxies)) => Some(x_forwarded_for::client(headers, ip, proxies)),
            _ => ip,
        };
        Self {
            ip,
            client,
            tls,
            certificate: metadata.and_then(|metadata| metadata.certificate.clone()),
        }
    }

    /// The head of this peer's request, as the gateway examines it.
    pub(super) fn head<'a>(
        &'a self,
        method: &'a Method,
        host: &'a str,
        target: &'a str,
        headers: &'a dyn HeaderFields,
    ) -> Head<'a> {
        Head {
            method,
            host,
            target,
            headers,
            peer: self.client,
            certificate: self.certificate.as_deref(),
        }
    }
}
