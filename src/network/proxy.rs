//! An outgoing proxy: its URL, where it was configured, and hawkgate's credentials there.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::is_loopback;
use crate::secret::{SecretError, SecretRef, SecretString};

/// An http or https proxy. `Display` and `Debug` show neither user name nor password.
#[derive(Clone, PartialEq, Eq)]
pub struct OutgoingProxy {
    /// Without user name, password, path and query.
    url: Url,
    /// Where it was configured: the name of a variable, or `[network] proxy`.
    origin: &'static str,
    credentials: Option<(String, ProxyPassword)>,
}

/// The password of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyPassword {
    /// From the URL in an environment variable.
    Given(SecretString),
    /// Stored elsewhere.
    Stored(SecretRef),
}

/// A proxy as connections need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyEndpoint {
    /// Whether hawkgate speaks TLS with the proxy itself.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The value of `Proxy-Authorization`, if the proxy has credentials.
    pub authorization: Option<SecretString>,
    /// The proxy in messages: its URL without user name and password.
    pub name: String,
}

/// Why a text is not the URL of a proxy. Never quotes the text, which may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin} {problem}; {remedy}")]
pub struct ProxyError {
    /// The variable or key.
    pub origin: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: &'static str,
}

const EXAMPLE: &str = "write it like \"http://proxy.example.com:3128\"";

impl OutgoingProxy {
    /// Parses the value of the environment variable `name`, which may contain a user name and a password.
    /// As in curl, a value without a scheme is an http proxy.
    ///
    /// # Errors
    /// If it is not the URL of an http or https proxy.
    pub fn from_variable(name: &'static str, value: &str) -> Result<Self, ProxyError> {
        Self::parse(name, value.trim())
    }

    /// Parses the key `proxy` of the configuration. A user name and a password in it are refused.
    ///
    /// # Errors
    /// If it is not the URL of an http or https proxy.
    pub fn from_key(value: &str) -> Result<Self, ProxyError> {
        let origin = "[network] proxy";
        let proxy = Self::parse(origin, value)?;
        if proxy.credentials.is_some() {
            return Err(ProxyError {
                origin,
                problem: "contains a user name or password".into(),
                remedy: "use the keys proxy_username and proxy_password = { file = \"…\" }",
            });
        }
        Ok(proxy)
    }

    fn parse(origin: &'static str, text: &str) -> Result<Self, ProxyError> {
        let refused = |problem: String, remedy| ProxyError {
            origin,
            problem,
            remedy,
        };
        let with_scheme = match text.split_once("://") {
            Some(_) => text.to_owned(),
            None => format!("http://{text}"),
        };
        let mut url = Url::parse(&with_scheme)
            .map_err(|cause| refused(format!("is not a URL: {cause}"), EXAMPLE))?;
        match url.scheme() {
            "http" | "https" => {}
            scheme if scheme.starts_with("socks") => {
                let remedy = "use an http or https proxy; an HTTP proxy in front of the SOCKS proxy, such \
                              as privoxy, can forward to it";
                let problem = "is a SOCKS proxy, which is not supported";
                return Err(refused(problem.into(), remedy));
            }
            _ => {
                let problem = "has a scheme other than http and https";
                return Err(refused(problem.into(), EXAMPLE));
            }
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            let problem = "has a path, query or fragment";
            return Err(refused(problem.into(), "remove it"));
        }
        let credentials = credentials_in(&url);
        // Neither fails for a URL with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self {
            url,
            origin,
            credentials,
        })
    }

    /// The same proxy, with credentials for it.
    #[must_use]
    pub fn with_credentials(self, username: String, password: SecretRef) -> Self {
        Self {
            credentials: Some((username, ProxyPassword::Stored(password))),
            ..self
        }
    }

    /// Its URL, without user name and password.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its URL as text, without user name, password and trailing slash.
    pub fn name(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// The value of `Proxy-Authorization` (RFC 7617 §2), if there are credentials. Reads the password.
    ///
    /// # Errors
    /// If the password cannot be read.
    pub fn authorization(&self) -> Result<Option<SecretString>, SecretError> {
        let Some((username, password)) = &self.credentials else {
            return Ok(None);
        };
        let password = match password {
            ProxyPassword::Given(password) => password.clone(),
            ProxyPassword::Stored(secret) => secret.read()?,
        };
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        Ok(Some(SecretString::new(format!("Basic {}", *encoded))))
    }

    /// The proxy as connections need it. Reads the password.
    ///
    /// # Errors
    /// If the password cannot be read.
    pub fn endpoint(&self) -> Result<ProxyEndpoint, SecretError> {
        let host = match self.url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        Ok(ProxyEndpoint {
            tls: self.url.scheme() == "https",
            host,
            port: self.url.port_or_known_default().unwrap_or_default(),
            authorization: self.authorization()?,
            name: self.name().to_owned(),
        })
    }
}

fn credentials_in(url: &Url) -> Option<(String, ProxyPassword)> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let password = SecretString::new(percent_decoded(url.password().unwrap_or_default()));
    let username = percent_decoded(url.username());
    Some((username, ProxyPassword::Given(password)))
}

/// Decodes each `%` that two hexadecimal digits follow (RFC 3986 §2.1).
fn percent_decoded(text: &str) -> String {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.split_at_checked(2).filter(|_| byte == b'%');
        let value = escaped.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            // `from_str_radix` alone would take a sign for a digit.
            let digits = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = value.unwrap_or((byte, after));
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl fmt::Display for OutgoingProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.origin)
    }
}

impl fmt::Debug for OutgoingProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutgoingProxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_hexadecimal_digits_are_decoded() {
        for (text, decoded) in [
            ("a%3Ab", "a:b"),
            ("50%", "50%"),
            ("%2", "%2"),
            ("%+1", "%+1"),
            ("%zz%41", "%zzA"),
        ] {
            assert_eq!(percent_decoded(text), decoded, "{text}");
        }
    }
}
