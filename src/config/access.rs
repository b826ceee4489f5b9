//! Access control of a listener: allowed networks, allowed local users and trusted proxies.

use ipnet::IpNet;
use toml::de::DeValue;

use super::diagnostic::{Location, quoted};
use super::reader::{Field, Reader, Shape, Value};
use super::value::{List, text};
use crate::proxy::settings::{Address, ListenerAccess, TrustedProxies};
use crate::proxy::users::{PASSWD, uid_of};

impl Value for IpNet {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"10.0.0.0/8\"")?;
        let Ok(network) = text.parse::<Self>() else {
            let problem = format!("{} is not a network", quoted(text));
            let remedy = match text.parse::<std::net::IpAddr>() {
                Ok(ip) => format!("write {}", quoted(&Self::from(ip).to_string())),
                Err(_) => "write it like \"10.0.0.0/8\" or \"fd00::/8\"".into(),
            };
            reader.error(at, problem, remedy);
            return None;
        };
        if network.prefix_len() == 0 {
            reader.error(
                at,
                "covers every address",
                "leave the key out, or write a narrower network",
            );
            return None;
        }
        if network != network.trunc() {
            let problem = "has bits set beyond its prefix";
            reader.error(
                at,
                problem,
                format!("write {}", quoted(&network.trunc().to_string())),
            );
            return None;
        }
        Some(network)
    }
}

/// A user's name or numeric ID.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct User(String);

impl Value for User {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let name = text(reader, at, value, "\"builder\"")?;
        if name.is_empty() || name.bytes().any(|b| b.is_ascii_control() || b == b':') {
            let problem = format!("{} is not a user", quoted(name));
            reader.error(at, problem, "write a user's name or numeric ID");
            return None;
        }
        if reader.reads_files() {
            match uid_of(name) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let problem = format!("{PASSWD} has no user {}", quoted(name));
                    reader.error(
                        at,
                        problem,
                        "write the name of a user of this machine, or a numeric ID",
                    );
                }
                Err(cause) => {
                    let problem = format!("{PASSWD} cannot be read: {cause}");
                    reader.error(at, problem, "write the user's numeric ID");
                }
            }
        }
        Some(Self(name.to_owned()))
    }
}

/// The keys of a listener's table that restrict its peers.
pub(super) struct AccessKeys {
    pub(super) networks: Field<List<IpNet>>,
    pub(super) users: Field<List<User>>,
    pub(super) proxies: Field<List<IpNet>>,
    pub(super) proxy_protocol: Field<bool>,
}

/// Checks the keys of the listener at `address`.
pub(super) fn resolve(
    reader: &mut Reader<'_>,
    address: &Address,
    keys: AccessKeys,
) -> Option<ListenerAccess> {
    let AccessKeys {
        networks,
        users,
        proxies,
        proxy_protocol,
    } = keys;
    let uses_proxy_protocol = proxy_protocol.value == Some(true);
    let empty = "is empty: no caller could connect";
    if networks.value.as_ref().is_some_and(List::is_empty) {
        reader.error(&networks.at, empty, "list networks, or leave the key out");
    }
    if users.value.as_ref().is_some_and(List::is_empty) {
        reader.error(&users.at, empty, "list users, or leave the key out");
    }
    if networks.given && matches!(address, Address::Unix(_)) {
        let problem = "callers on a Unix socket have no IP address";
        reader.error(&networks.at, problem, "use allowed_users, or remove it");
    }
    if users.given && !address.is_local() {
        let problem = "the users of other machines cannot be identified";
        reader.error(
            &users.at,
            problem,
            "listen on loopback or a Unix socket, or remove it",
        );
    }
    if users.given && uses_proxy_protocol {
        let problem =
            "cannot be combined with proxy_protocol: every connection comes from the proxy";
        reader.error(&users.at, problem, "remove one of the two");
    }
    let proxies = resolve_proxies(reader, address, proxies, &proxy_protocol);
    Some(ListenerAccess {
        proxies: proxies?,
        networks: networks.optional()?.map(List::into_values),
        users: users
            .optional()?
            .map(|list| list.into_values().into_iter().map(|user| user.0).collect()),
    })
}

#[allow(clippy::option_option)]
fn resolve_proxies(
    reader: &mut Reader<'_>,
    address: &Address,
    proxies: Field<List<IpNet>>,
    proxy_protocol: &Field<bool>,
) -> Option<Option<TrustedProxies>> {
    let unix = matches!(address, Address::Unix(_));
    for (given, at) in [
        (proxies.given, &proxies.at),
        (proxy_protocol.value? && unix, &proxy_protocol.at),
    ] {
        if given && unix {
            let problem = "callers on a Unix socket have no IP address";
            reader.error(at, problem, "remove it, or listen on TCP");
        }
    }
    if proxies.value.as_ref().is_some_and(List::is_empty) {
        let remedy = "list the proxies' networks, or leave the key out";
        reader.error(&proxies.at, "is empty: no proxy is trusted", remedy);
    }
    if proxy_protocol.value? && !proxies.given && !unix {
        let problem = "without trusted_proxies, any peer could claim any client address";
        let remedy = "add trusted_proxies = [\"10.0.0.0/8\"]";
        reader.error(&proxy_protocol.at, problem, remedy);
    }
    let proxy_protocol = proxy_protocol.value?;
    let networks = proxies.optional()?.map(List::into_values);
    Some(networks.map(|networks| TrustedProxies {
        networks,
        proxy_protocol,
    }))
}
