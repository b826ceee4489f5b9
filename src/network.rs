//! How hawkgate reaches other machines: through which outgoing proxies, and which CAs it trusts beside
//! the platform's (`docs/networks.md`).

mod no_proxy;
mod proxy;

use std::path::PathBuf;

pub use no_proxy::{NoProxy, UnusableEntry};
pub use proxy::{OutgoingProxy, ProxyEndpoint, ProxyError, ProxyPassword};

use url::{Host, Url};

/// Names that a proxy for https is looked up under in the environment, in this order.
const HTTPS_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The same for http.
const HTTP_VARIABLES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Outgoing proxies and additional CAs. By default there are none of either.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// The proxy for https URLs; `None` for none.
    pub https: Option<OutgoingProxy>,
    /// The proxy for http URLs; `None` for none.
    pub http: Option<OutgoingProxy>,
    /// The hosts that are reached directly.
    pub no_proxy: NoProxy,
    /// Whether requests to upstreams are sent through the proxies, too.
    pub upstreams: bool,
    /// PEM file with CAs that are trusted in addition to the platform's.
    pub ca: Option<PathBuf>,
}

impl Network {
    /// The proxies that the environment of this process names.
    ///
    /// # Errors
    /// As for [`Network::from_variables`].
    pub fn from_env() -> Result<Self, ProxyError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The proxies that the environment names: for each scheme its own variable before `ALL_PROXY`, and
    /// lower case before upper case. An empty variable counts as absent. As in curl, except that
    /// `HTTP_PROXY` counts in upper case, too: curl ignores it for the sake of CGI programs, which
    /// hawkgate is not.
    ///
    /// # Errors
    /// If a variable that counts is not the URL of an http or https proxy.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let first = |names: &[&'static str]| first(names, &get);
        let proxy = |names: &[&'static str]| {
            first(names)
                .map(|(name, url)| OutgoingProxy::from_variable(name, &url))
                .transpose()
        };
        Ok(Self {
            https: proxy(&HTTPS_VARIABLES)?,
            http: proxy(&HTTP_VARIABLES)?,
            ..Self::no_proxy_from(&get)
        })
    }

    /// No proxies, but the hosts in `NO_PROXY` of this process's environment.
    pub fn no_proxy_from_env() -> Self {
        Self::no_proxy_from(&|name: &str| std::env::var(name).ok())
    }

    /// The entries of `NO_PROXY` in this process's environment that no host equals, and the name of the
    /// variable.
    pub fn unusable_in_no_proxy() -> Vec<(&'static str, UnusableEntry)> {
        let list = first(&NO_PROXY_VARIABLES, &|name: &str| std::env::var(name).ok());
        let Some((name, list)) = list else {
            return Vec::new();
        };
        let (_, unusable) = NoProxy::parse(&list);
        unusable.into_iter().map(|entry| (name, entry)).collect()
    }

    fn no_proxy_from(get: &impl Fn(&str) -> Option<String>) -> Self {
        let list = first(&NO_PROXY_VARIABLES, get);
        Self {
            no_proxy: list.map_or_else(NoProxy::default, |(_, list)| NoProxy::parse(&list).0),
            ..Self::default()
        }
    }

    /// The proxy through which `url` is requested; `None` if it is requested directly.
    ///
    /// Plain http to this machine may carry secrets, because it does not leave it. Such requests are
    /// therefore sent only through a proxy on this machine.
    pub fn proxy_for(&self, url: &Url) -> Option<&OutgoingProxy> {
        let (proxy, plain) = match url.scheme() {
            "https" => (self.https.as_ref()?, false),
            "http" => (self.http.as_ref()?, true),
            _ => return None,
        };
        let leaves = plain && is_loopback(url) && !proxy.is_loopback();
        let direct = leaves || self.no_proxy.matches(&url.host()?);
        (!direct).then_some(proxy)
    }

    /// As [`Network::proxy_for`], for requests to upstreams.
    pub fn upstream_proxy_for(&self, url: &Url) -> Option<&OutgoingProxy> {
        self.proxy_for(url).filter(|_| self.upstreams)
    }

    /// Says in one line which proxies are used, for what and for which hosts not; `None` without any.
    /// Contains neither user names nor passwords.
    pub fn describe(&self) -> Option<String> {
        let used = match (&self.https, &self.http) {
            (None, None) => return None,
            (Some(https), Some(http)) if https == http => https.to_string(),
            (Some(https), Some(http)) => format!("{https} for https, {http} for http"),
            (Some(https), None) => format!("{https} for https, none for http"),
            (None, Some(http)) => format!("{http} for http, none for https"),
        };
        let upstreams = if self.upstreams {
            "also for upstreams"
        } else {
            "not for upstreams"
        };
        let except = match self.no_proxy.to_string() {
            list if list.is_empty() => String::new(),
            list => format!(", not for {list}"),
        };
        Some(format!("outgoing proxy: {used}; {upstreams}{except}"))
    }
}

/// The first of these variables that is not empty, and its value.
fn first(
    names: &[&'static str],
    get: &impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let mut values = names.iter().filter_map(|&name| Some((name, get(name)?)));
    values.find(|(_, value)| !value.trim().is_empty())
}

/// Whether the host of `url` is `localhost`, a subdomain of it, or a loopback address.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests;
