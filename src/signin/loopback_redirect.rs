//! Loopback redirect URIs (RFC 8252 §7.3).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use url::{Host, Url};

/// An http redirect URI on a loopback address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopbackRedirect {
    uri: Url,
    address: SocketAddr,
}

/// The redirect URI is not a usable loopback URI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--redirect-uri {0}: must be http://127.0.0.1[:PORT]/PATH; the host may also be [::1] or localhost"
)]
pub struct LoopbackRedirectError(String);

impl LoopbackRedirect {
    /// Parses a redirect URI. Without a port, any free port is used.
    ///
    /// # Errors
    /// When it is not http on loopback, or has parts other than host, port and path.
    pub fn parse(text: &str) -> Result<Self, LoopbackRedirectError> {
        let invalid = || LoopbackRedirectError(text.to_owned());
        let uri = Url::parse(text).map_err(|_| invalid())?;
        let plain = uri.scheme() == "http"
            && uri.query().is_none()
            && uri.fragment().is_none()
            && uri.username().is_empty()
            && uri.password().is_none();
        let ip: IpAddr = match uri.host() {
            Some(Host::Ipv4(ip)) if ip.is_loopback() => ip.into(),
            Some(Host::Ipv6(ip)) if ip.is_loopback() => ip.into(),
            Some(Host::Domain("localhost")) => Ipv4Addr::LOCALHOST.into(),
            _ => return Err(invalid()),
        };
        if !plain {
            return Err(invalid());
        }
        let address = SocketAddr::new(ip, uri.port().unwrap_or(0));
        Ok(Self { uri, address })
    }

    /// The same URI with this port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        // Fails only for URLs without a host.
        let _ = self.uri.set_port(Some(port));
        self
    }

    /// The address to listen on; port 0 for any free port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The redirect URI, exactly as it is sent to the issuer.
    pub fn uri(&self) -> &Url {
        &self.uri
    }

    /// The path of the URI.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The `Host` header that a browser sends for this URI.
    pub fn host_header(&self) -> String {
        let host = self.uri.host_str().unwrap_or_default();
        // Browsers leave out port 80, and so does `Url`.
        self.uri
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_loopback_uris_are_accepted() {
        for text in [
            "https://127.0.0.1/cb",
            "http://192.0.2.1/cb",
            "http://example.com/cb",
            "http://localhost.example.com/cb",
            "http://127.0.0.1/cb?x",
            "http://127.0.0.1/cb#x",
            "http://u@127.0.0.1/cb",
            "/cb",
        ] {
            assert!(LoopbackRedirect::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_port_can_be_filled_in_after_binding() {
        let any = LoopbackRedirect::parse("http://127.0.0.1/callback").unwrap();
        assert_eq!(any.address().port(), 0);
        let bound = any.with_port(4711);
        assert_eq!(bound.uri().as_str(), "http://127.0.0.1:4711/callback");
        assert_eq!(bound.host_header(), "127.0.0.1:4711");
        let six = LoopbackRedirect::parse("http://[::1]:8080/").unwrap();
        assert_eq!(six.address().to_string(), "[::1]:8080");
        assert_eq!(six.host_header(), "[::1]:8080");
        let named = LoopbackRedirect::parse("http://localhost:9999/cb").unwrap();
        assert_eq!(named.address().to_string(), "127.0.0.1:9999");
        assert_eq!(named.host_header(), "localhost:9999");
    }
}
