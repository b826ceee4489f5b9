//! `[network]`

use std::path::PathBuf;

use toml::de::DeValue;

use super::diagnostic::{Location, quoted};
use super::reader::{Field, Reader, Shape, Value, section};
use super::value::text;
use crate::network::{self, NoProxy, OutgoingProxy, ProxyError};
use crate::secret::SecretRef;

section! {
    /// How hawkgate reaches other machines: outgoing proxies, and CAs beside the platform's.
    pub(super) struct Network {
        /// The proxy for hawkgate's own requests (keys, introspection, tokens, exchanges, spans):
        /// "http://proxy.example.com:3128", or https; "none" for no proxy. When left out, that of the
        /// variables HTTPS_PROXY, HTTP_PROXY and ALL_PROXY.
        proxy: ProxyKey = [optional],
        /// Hosts that are reached directly, as in curl: names, which stand for their subdomains, too,
        /// addresses, networks ("10.0.0.0/8"), or "*". When left out, those of the variable NO_PROXY.
        no_proxy: NoProxyKey = [optional],
        /// The user name at `proxy`.
        proxy_username: String = [optional],
        /// The password at `proxy`.
        proxy_password: SecretRef = [optional],
        /// Whether requests to upstreams are sent through the proxy, too.
        proxy_upstreams: bool = [default "false"],
        /// PEM file with CAs that are trusted in addition to the platform's, wherever a section has no
        /// `ca` of its own, which would replace both.
        ca: PathBuf = [optional],
    }
}

/// The value that means no proxy.
const NONE: &str = "none";

/// `proxy`; `None` for none.
#[derive(Debug)]
pub(super) struct ProxyKey(Option<OutgoingProxy>);

impl Value for ProxyKey {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(
            reader,
            at,
            value,
            "\"http://proxy.example.com:3128\" or \"none\"",
        )?;
        if text.is_empty() || text == NONE {
            return Some(Self(None));
        }
        match OutgoingProxy::from_key(text) {
            Ok(proxy) => Some(Self(Some(proxy))),
            Err(ProxyError {
                problem, remedy, ..
            }) => {
                reader.error(at, problem, remedy);
                None
            }
        }
    }
}

/// `no_proxy`: a list in one string, as in the variable, or an array.
#[derive(Debug)]
pub(super) struct NoProxyKey(NoProxy);

impl Value for NoProxyKey {
    const SHAPE: Shape = Shape::Either(&Shape::List(&Shape::Text), &Shape::Text);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let list = match value {
            DeValue::Array(items) => {
                let mut list = String::new();
                for (index, item) in items.iter().enumerate() {
                    let at = at.item(index, item.span());
                    list.push_str(text(reader, &at, item.get_ref(), "\"example.com\"")?);
                    list.push(',');
                }
                list
            }
            DeValue::String(list) => list.to_string(),
            _ => {
                let remedy = "write [\"example.com\", \"10.0.0.0/8\"]";
                reader.error(at, "must be an array of strings, or a string", remedy);
                return None;
            }
        };
        let (parsed, unusable) = NoProxy::parse(&list);
        for unusable in &unusable {
            let problem = format!("{} {}", quoted(&unusable.entry), unusable.problem);
            reader.error(at, problem, &*unusable.remedy);
        }
        unusable.is_empty().then_some(Self(parsed))
    }
}

impl Network {
    /// Each key replaces its variables of the environment, which are not read with `--skip-secrets`.
    pub(super) fn resolve(self, reader: &mut Reader<'_>) -> Option<network::Network> {
        if let Some(ca) = &self.ca.value {
            reader.check_cas(&self.ca.at, ca);
        }
        let environment = match (reader.reads_environment(), self.proxy.given) {
            (false, _) => network::Network::default(),
            (true, false) => environment(reader, &self.proxy.at)?,
            // Its proxies do not matter, even if they are invalid.
            (true, true) => network::Network::no_proxy_from_env(),
        };
        let own = self.proxy.optional()?;
        let credentials = credentials(
            reader,
            self.proxy_username,
            self.proxy_password,
            own.as_ref(),
        )?;
        let (https, http) = match own {
            Some(ProxyKey(proxy)) => {
                let proxy = match (proxy, credentials) {
                    (Some(proxy), Some((username, password))) => {
                        Some(proxy.with_credentials(username, password))
                    }
                    (proxy, _) => proxy,
                };
                (proxy.clone(), proxy)
            }
            None => (environment.https, environment.http),
        };
        if reader.reads_environment() && !self.no_proxy.given && (https.is_some() || http.is_some())
        {
            warn_about_no_proxy(reader, &self.no_proxy.at);
        }
        let no_proxy = self.no_proxy.optional()?.map(|list| list.0);
        Some(network::Network {
            https,
            http,
            no_proxy: no_proxy.unwrap_or(environment.no_proxy),
            upstreams: self.proxy_upstreams.value?,
            ca: self.ca.optional()?,
        })
    }
}

fn environment(reader: &mut Reader<'_>, at: &Location) -> Option<network::Network> {
    match network::Network::from_env() {
        Ok(network) => Some(network),
        Err(error) => {
            let problem = format!(
                "missing, and the environment variable {} {}",
                error.origin, error.problem
            );
            let remedy =
                "correct the variable, or write proxy = \"http://…\", or \"none\" for no proxy";
            reader.error(at, problem, remedy);
            None
        }
    }
}

/// Warns about entries of `NO_PROXY` without effect, of which the user may not be aware.
fn warn_about_no_proxy(reader: &mut Reader<'_>, at: &Location) {
    for (variable, unusable) in network::Network::unusable_in_no_proxy() {
        let entry = quoted(&unusable.entry);
        let problem = format!("missing, and {entry} in {variable} {}", unusable.problem);
        reader.warn(at, problem, unusable.remedy);
    }
}

/// The credentials in the file: none (`Some(None)`), both, or invalid (`None`). `proxy` is the proxy in the
/// file.
#[allow(clippy::option_option)]
fn credentials(
    reader: &mut Reader<'_>,
    username: Field<String>,
    password: Field<SecretRef>,
    proxy: Option<&ProxyKey>,
) -> Option<Option<(String, SecretRef)>> {
    let has_proxy = matches!(proxy, Some(ProxyKey(Some(_))));
    for (at, given) in [
        (&username.at, username.given),
        (&password.at, password.given),
    ] {
        if given && !has_proxy {
            let remedy = "write the proxy's URL in proxy, or remove it; a proxy in an environment variable \
                          has its user name and password in its URL";
            reader.error(at, "has no effect without proxy", remedy);
        }
    }
    if username.given != password.given {
        let at = if username.given {
            &password.at
        } else {
            &username.at
        };
        reader.error(
            at,
            "missing: the proxy's credentials are a user name and a password",
            "add proxy_username and proxy_password",
        );
    }
    if username
        .value
        .as_ref()
        .is_some_and(|name| name.contains(':'))
    {
        let problem = "contains a colon, which would end the user name (RFC 7617 §2)";
        reader.error(&username.at, problem, "use another user");
    }
    Some(username.optional()?.zip(password.optional()?))
}
