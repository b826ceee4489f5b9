//! The redirect URI on this machine (RFC 8252 §7.3): where the browser brings the answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use url::{Host, Url};

/// An http redirect URI on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopbackRedirect {
    uri: Url,
    address: SocketAddr,
}

/// Why a redirect URI is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--redirect-uri {0}: must be http://127.0.0.1[:PORT]/PATH, with [::1] or localhost in its place if need be"
)]
pub struct LoopbackRedirectError(String);

impl LoopbackRedirect {
    /// From a redirect URI; without a port, any free one will do.
    ///
    /// # Errors
    /// When it is not http on loopback, or has more than host, port and path.
    pub fn parse(text: &str) -> Result<Self, LoopbackRedirectError> {
        let wrong = || LoopbackRedirectError(text.to_owned());
        let uri = Url::parse(text).map_err(|_| wrong())?;
        let plain = uri.scheme() == "http"
            && uri.query().is_none()
            && uri.fragment().is_none()
            && uri.username().is_empty()
            && uri.password().is_none();
        let ip: IpAddr = match uri.host() {
            Some(Host::Ipv4(ip)) if ip.is_loopback() => ip.into(),
            Some(Host::Ipv6(ip)) if ip.is_loopback() => ip.into(),
            Some(Host::Domain("localhost")) => Ipv4Addr::LOCALHOST.into(),
            _ => return Err(wrong()),
        };
        if !plain {
            return Err(wrong());
        }
        let address = SocketAddr::new(ip, uri.port().unwrap_or(0));
        Ok(Self { uri, address })
    }

    /// The same at `port`.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        // Only a URL without a host has no port to set.
        let _ = self.uri.set_port(Some(port));
        self
    }

    /// Where to listen; port 0 where any will do.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the issuer sends the browser to, to the byte.
    pub fn uri(&self) -> &Url {
        &self.uri
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// What an honest browser sends as `Host`.
    pub fn host_header(&self) -> String {
        let host = self.uri.host_str().unwrap_or_default();
        // The browser leaves the scheme's own port out, and so does the URL.
        self.uri
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_only_a_path() {
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
    fn the_port_is_found_when_listening() {
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
