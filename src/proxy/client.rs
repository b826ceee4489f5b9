//! Who a request comes from: what the socket, the PROXY header, the client's certificate
//! and, from trusted proxies only, `X-Forwarded-For` say.

mod certificate;
mod forwarded;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::Session;

use crate::gateway::client_certificate::ClientCertificate;
use crate::header_fields::HeaderFields;
pub(super) use certificate::read as read_certificate;

/// Who is connected, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerInfo {
    /// The connected peer's address, or what a trusted proxy's PROXY header says; none on
    /// Unix sockets. IPv4 even where it came in as mapped IPv6.
    pub(super) ip: Option<IpAddr>,
    /// The client's address: the same, unless a trusted proxy named another in
    /// `X-Forwarded-For`.
    pub(super) client: Option<IpAddr>,
    /// Whether the connection is TLS.
    pub(super) tls: bool,
    /// The verified certificate that the peer presented, if it did.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

/// What a listener knows of a connection, beside its socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// Whose `X-Forwarded-For` counts.
    pub(super) proxies: Option<Arc<[IpNet]>>,
    /// Whom the peer has proved to be.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

impl Origin {
    /// As pingora carries it from the connection to each request: in the place that it has
    /// for what a proxy in front has told. Nothing where there is nothing to tell.
    ///
    /// # Errors
    /// pingora's, which does not happen; whoever gets one must not serve the connection.
    pub(super) fn digest(self) -> pingora::Result<Option<Arc<ProxyDigest>>> {
        if self.proxies.is_none() && self.certificate.is_none() {
            return Ok(None);
        }
        let unused = Box::new(ResponseHeader::build(200, Some(0))?);
        let digest = ProxyDigest::new(unused, Some(Box::new(self)));
        Ok(Some(Arc::new(digest)))
    }

    /// What [`Origin::digest`] put in there.
    pub(super) fn of(digest: Option<&Arc<ProxyDigest>>) -> Option<&Self> {
        digest?.user_data.as_ref()?.downcast_ref()
    }
}

impl PeerInfo {
    /// Of the caller of `session`.
    pub(super) fn of(session: &Session) -> Self {
        let ip = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .map(|address| address.ip().to_canonical());
        let digest = session.digest();
        let origin = digest.and_then(|digest| Origin::of(digest.proxy_digest.as_ref()));
        let tls = digest.is_some_and(|digest| digest.ssl_digest.is_some());
        Self::new(ip, tls, origin, &session.req_header().headers)
    }

    /// Of who is connected from `ip`, with what the listener knows of the connection and
    /// the fields of the request.
    pub(super) fn new(
        ip: Option<IpAddr>,
        tls: bool,
        origin: Option<&Origin>,
        headers: &dyn HeaderFields,
    ) -> Self {
        let proxies = origin.and_then(|origin| origin.proxies.as_deref());
        let client = match (ip, proxies) {
            (Some(ip), Some(proxies)) => Some(forwarded::client(headers, ip, proxies)),
            _ => ip,
        };
        Self {
            ip,
            client,
            tls,
            certificate: origin.and_then(|origin| origin.certificate.clone()),
        }
    }
}
