//! Access control of a listener: allowed networks, networks of containers, allowed local users and
//! trusted proxies.

use std::net::IpAddr;

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
    pub(super) local_networks: Field<List<IpNet>>,
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
        local_networks,
        users,
        proxies,
        proxy_protocol,
    } = keys;
    check_local_networks(reader, address, &local_networks, &networks, &proxies);
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
    if users.given && !address.is_local() && !local_networks.given {
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
        local_networks: local_networks.optional()?.map(List::into_values),
        users: users
            .optional()?
            .map(|list| list.into_values().into_iter().map(|user| user.0).collect()),
    })
}

/// The shortest prefixes of `local_networks`. A machine's containers do not need more, and a larger
/// network has other machines in it.
const LEAST_PREFIX: (u8, u8) = (8, 32);

/// Checks `local_networks`, whose peers count as programs of this machine.
fn check_local_networks(
    reader: &mut Reader<'_>,
    address: &Address,
    local: &Field<List<IpNet>>,
    networks: &Field<List<IpNet>>,
    proxies: &Field<List<IpNet>>,
) {
    let Some(list) = &local.value else { return };
    if list.is_empty() {
        let remedy = "list the containers' networks, or leave the key out";
        reader.error(&local.at, "is empty: no container could connect", remedy);
    }
    if matches!(address, Address::Unix(_)) {
        let problem = "callers on a Unix socket have no IP address";
        reader.error(&local.at, problem, "use allowed_users, or remove it");
    }
    for (other, problem) in [
        (networks, "already says which networks may connect"),
        (
            proxies,
            "is for containers on this machine, which are behind no proxy",
        ),
    ] {
        if other.given {
            reader.error(&local.at, problem, "remove one of the two");
        }
    }
    for item in &list.items {
        let (least, ip) = match item.value {
            IpNet::V4(network) => (LEAST_PREFIX.0, network.addr().into()),
            IpNet::V6(network) => (LEAST_PREFIX.1, network.addr().into()),
        };
        if item.value.prefix_len() < least {
            let problem = format!("{} has other machines than containers in it", item.value);
            let remedy = "write the network of this machine's containers, like \"172.17.0.0/16\"";
            reader.error(&item.at, problem, remedy);
        } else if !is_private(ip) {
            let problem = format!(
                "{} is not a private network: anyone with an address in it can use the source's credentials",
                item.value
            );
            let remedy = "make sure that it is the network of this machine's containers";
            reader.warn(&item.at, problem, remedy);
        }
    }
}

/// Whether `ip` is in a range for private use (RFC 1918, RFC 4193), for carrier-grade NAT (RFC 6598),
/// link-local or loopback.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && (64..128).contains(&second);
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
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
