//! `[server]`

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::access::{self, User};
use super::diagnostic::{Location, quoted};
use super::host;
use super::reader::{Field, Reader, Shape, Value, section};
use super::resolved;
use super::units::show_duration;
use super::value::{Choice, Item, List, Nested, text};
use crate::pem;
use crate::proxy::listener;
use crate::proxy::settings::{Address, ClientAuth, Listener, ListenerAccess, ListenerTls};

/// The default mode of a Unix socket.
const SOCKET_MODE: u32 = 0o600;

/// The longest path of a Unix socket on Linux, in bytes.
const MAX_SOCKET_PATH: usize = 107;

section! {
    /// Where hawkgate listens. Changes to this table need a restart, except to local_hosts.
    pub(super) struct Server {
        /// Listeners for callers: "127.0.0.1:8080", "unix:/run/hawkgate.sock" or a table. Host names are
        /// not resolved. With port 0, the system chooses a port.
        listen: List<Listen> = [default "['127.0.0.1:8080']"],
        /// Address of /metrics, /healthz, /startupz and /readyz. It serves no credentials. "none": there is
        /// no such listener.
        admin: Admin = [default "'127.0.0.1:9090'"],
        /// How long in-flight requests may take to finish after SIGTERM; at most 1h.
        drain: Duration = [default "'30s'"],
        /// How long /readyz is false before the listeners close, so that load balancers notice ("5s" on
        /// Kubernetes). At most 5m.
        drain_delay: Duration = [default "'0s'"],
        /// After this time /startupz is true even if an issuer's keys could not be fetched; at most 1h.
        startup_grace: Duration = [default "'60s'"],
        /// Worker threads; 0 for one per core; at most 1024.
        threads: u64 = [default "0"],
        /// Host names, beside localhost and loopback addresses, under which programs on this machine may
        /// use what needs no token: anonymous, workload_token and password routes on local listeners, and
        /// a local admin listener. Other names in Host are refused, so that no web page gets in by DNS
        /// rebinding. Lower case, without ports.
        local_hosts: List<String> = [default "[]"],
    }
}

section! {
    /// A listener with options.
    pub(super) struct ListenTable {
        /// "127.0.0.1:8080" or "unix:/run/hawkgate.sock".
        address: Address = [required],
        /// Serves HTTPS, with HTTP/2 by ALPN. Not for Unix sockets.
        tls: Nested<Tls> = [optional],
        /// Permissions of the Unix socket, in octal.
        mode: Mode = [default "'0600'"],
        /// Serves HTTP/2 without TLS by prior knowledge, and nothing else.
        h2c: bool = [default "false"],
        /// Only callers with an address in one of these networks; any when left out. TCP only.
        allowed_networks: List<IpNet> = [optional],
        /// Networks of containers on this machine, such as a Docker bridge's subnet: only callers in these
        /// and on loopback may connect, and routes with anonymous = true may give them credentials without
        /// a token. TCP only; none when left out.
        local_networks: List<IpNet> = [optional],
        /// Only processes of these local users, by name or numeric ID; any when left out. Loopback, Unix
        /// sockets and listeners with local_networks only; callers in a container have no user here.
        allowed_users: List<User> = [optional],
        /// Networks of trusted proxies in front of hawkgate. For connections from them, the client is the
        /// right-most address in X-Forwarded-For that is in none of these networks. A listener with
        /// proxies does not count as loopback. TCP only.
        trusted_proxies: List<IpNet> = [optional],
        /// Expects each connection to start with a PROXY header, version 1 or 2, before TLS. Connections
        /// without one, and those from outside trusted_proxies, are refused.
        proxy_protocol: bool = [default "false"],
    }
}

section! {
    /// TLS of a listener; its files are reread when they change.
    pub(super) struct Tls {
        /// PEM certificate chain.
        cert: PathBuf = [required],
        /// PEM private key.
        key: PathBuf = [required],
        /// PEM file with CAs; when set, hawkgate requests a client certificate issued by one of them.
        client_ca: PathBuf = [optional],
        /// "required": callers without a certificate cannot connect. "optional": they can.
        client_auth: ClientAuth = [default "'required'"],
    }
}

/// One element of `listen`.
#[derive(Debug)]
pub(super) enum Listen {
    Plain(Address),
    Table(Box<ListenTable>),
}

/// Never equal, so that [`List`] accepts every element: [`Server::resolve`] compares the addresses.
impl PartialEq for Listen {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

impl Value for Listen {
    const SHAPE: Shape = Shape::Either(&Shape::Text, &<Nested<ListenTable>>::SHAPE);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        if matches!(value, DeValue::Table(_)) {
            let table = <Nested<ListenTable>>::read(reader, at, value)?;
            return Some(Self::Table(Box::new(table.0)));
        }
        Address::read(reader, at, value).map(Self::Plain)
    }
}

impl Value for Address {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"127.0.0.1:8080\" or \"unix:/path\"")?;
        if let Some(path) = text.strip_prefix("unix:") {
            let path =
                (!path.is_empty() && !path.contains('\0')).then(|| reader.resolve_path(path));
            if let Some(path) = path.filter(|p| p.as_os_str().len() <= MAX_SOCKET_PATH) {
                return Some(Self::Unix(path));
            }
            let problem = format!("{} is not a socket path", quoted(text));
            let remedy =
                format!("write \"unix:/path\", with a path of at most {MAX_SOCKET_PATH} bytes");
            reader.error(at, problem, remedy);
            return None;
        }
        let address = text.parse().ok().map(Self::Tcp);
        if address.is_none() {
            let problem = format!("{} is not an address", quoted(text));
            reader.error(at, problem, address_remedy(text));
        }
        address
    }
}

fn address_remedy(text: &str) -> String {
    let port = |digits: &str| digits.parse::<u16>().ok();
    if let Some(port) = text.strip_prefix(':').and_then(port) {
        return format!("write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for every interface");
    }
    if let Some(port) = port(text).or_else(|| text.strip_prefix("localhost:").and_then(port)) {
        return format!("write \"127.0.0.1:{port}\"");
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => format!("write it with its port: \"{}\"", SocketAddr::new(ip, 8080)),
        Err(_) => "write \"127.0.0.1:8080\" or \"unix:/path\"".into(),
    }
}

/// Where the admin listener is, if there is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Admin(Option<Address>);

/// The value of `admin` without a listener.
const NO_ADMIN: &str = "none";

impl Value for Admin {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        if let DeValue::String(text) = value {
            match text.as_ref() {
                NO_ADMIN => return Some(Self(None)),
                "off" | "false" | "no" | "disabled" => {
                    let problem = format!("{} is not an address", quoted(text));
                    reader.error(at, problem, "write \"none\" for no admin listener");
                    return None;
                }
                _ => {}
            }
        }
        Address::read(reader, at, value).map(|address| Self(Some(address)))
    }
}

/// Permissions of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mode(u32);

impl Value for Mode {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"0600\"")?;
        let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = u32::from_str_radix(text, 8)
            .ok()
            .filter(|m| octal && *m <= 0o777);
        let Some(mode) = mode else {
            let problem = format!("{} is not a file mode", quoted(text));
            reader.error(at, problem, "write four octal digits: \"0600\"");
            return None;
        };
        if mode & 0o600 != 0o600 {
            reader.error(
                at,
                "denies the owner access",
                "let the owner read and write: \"0600\"",
            );
            return None;
        }
        if mode & 0o007 != 0 {
            let problem = "lets every user of this machine connect";
            reader.warn(at, problem, "write \"0600\", or \"0660\" for the group");
        }
        Some(Self(mode))
    }
}

impl Server {
    pub(super) fn resolve(self, reader: &mut Reader<'_>) -> Option<resolved::Server> {
        const HOUR: Duration = Duration::from_hours(1);
        let five_minutes = Duration::from_mins(5);
        reader.check_range(&self.drain, Duration::ZERO, HOUR, show_duration);
        reader.check_range(
            &self.drain_delay,
            Duration::ZERO,
            five_minutes,
            show_duration,
        );
        reader.check_range(&self.startup_grace, Duration::ZERO, HOUR, show_duration);
        reader.check_range(&self.threads, 0, 1024, |n| n.to_string());
        check_local_hosts(reader, &self.local_hosts);
        let listen = self.listen.value.and_then(|list| {
            if list.is_empty() {
                reader.error(
                    &self.listen.at,
                    "is empty: there would be no listener",
                    "write [\"127.0.0.1:8080\"]",
                );
            }
            resolve_listeners(reader, list.items)
        });
        if let Some(Admin(Some(admin))) = &self.admin.value {
            check_socket(reader, &self.admin.at, admin);
        }
        if let (Some(listen), Some(Admin(Some(admin)))) = (&listen, &self.admin.value)
            && let Some(conflict) = listen.iter().find(|l| l.address.overlaps(admin))
        {
            let problem = format!(
                "{admin} is already used by the listener at {}",
                conflict.address
            );
            reader.error(
                &self.admin.at,
                problem,
                "give the admin listener a different port",
            );
        }
        Some(resolved::Server {
            listen: listen?,
            admin: self.admin.value?.0,
            drain: self.drain.value?,
            drain_delay: self.drain_delay.value?,
            startup_grace: self.startup_grace.value?,
            threads: usize::try_from(self.threads.value?).ok()?,
            local_hosts: self.local_hosts.value?.into_values(),
        })
    }
}

fn check_local_hosts(reader: &mut Reader<'_>, hosts: &Field<List<String>>) {
    const WILDCARD: &str = "list each name";
    for item in hosts.value.iter().flat_map(|list| &list.items) {
        if let Some((problem, remedy)) = host::problem(&item.value, WILDCARD) {
            let problem = format!("{} {problem}", quoted(&item.value));
            reader.error(&item.at, problem, remedy);
        }
    }
}

pub(super) fn resolve_listeners(
    reader: &mut Reader<'_>,
    items: Vec<Item<Listen>>,
) -> Option<Vec<Listener>> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut complete = true;
    for Item { at, value } in items {
        let Some(listener) = resolve_listener(reader, &at, value) else {
            complete = false;
            continue;
        };
        if let Some(conflict) = listeners
            .iter()
            .find(|l| l.address.overlaps(&listener.address))
        {
            let problem = format!(
                "{} is already used by the listener at {}",
                listener.address, conflict.address
            );
            reader.error(&at, problem, "remove one of the two, or change its port");
        }
        let elsewhere = !listener.address.is_local() && listener.access.local_networks.is_none();
        if listener.tls.is_none() && elsewhere {
            let problem = format!(
                "{} accepts bearer tokens in cleartext from other machines",
                listener.address
            );
            reader.warn(&at, problem, "set tls, or listen on 127.0.0.1");
        }
        listeners.push(listener);
    }
    complete.then_some(listeners)
}

fn resolve_listener(reader: &mut Reader<'_>, at: &Location, listen: Listen) -> Option<Listener> {
    let table = match listen {
        Listen::Plain(address) => {
            check_socket(reader, at, &address);
            return Some(Listener {
                address,
                mode: SOCKET_MODE,
                tls: None,
                h2c: false,
                access: ListenerAccess::default(),
                forward_auth: None,
            });
        }
        Listen::Table(table) => table,
    };
    let (address, h2c) = (table.address.value?, table.h2c.value?);
    let unix = matches!(address, Address::Unix(_));
    check_socket(reader, &table.address.at, &address);
    if unix && table.tls.given {
        reader.error(&table.tls.at, "a Unix socket cannot use TLS", "remove it");
    }
    if !unix && table.mode.given {
        reader.error(&table.mode.at, "only a Unix socket has a mode", "remove it");
    }
    if table.tls.given && h2c {
        let problem = "h2c is HTTP/2 without TLS";
        reader.error(
            at,
            problem,
            "remove h2c: with tls, HTTP/2 is negotiated by ALPN",
        );
    }
    let access = access::resolve(
        reader,
        &address,
        access::AccessKeys {
            networks: table.allowed_networks,
            local_networks: table.local_networks,
            users: table.allowed_users,
            proxies: table.trusted_proxies,
            proxy_protocol: table.proxy_protocol,
        },
    );
    let tls = match table.tls.optional()? {
        Some(Nested(tls)) => Some(tls.resolve(reader)?),
        None => None,
    };
    Some(Listener {
        address,
        mode: table.mode.value?.0,
        tls,
        h2c,
        access: access?,
        forward_auth: None,
    })
}

/// Refuses a Unix socket where none can be created.
fn check_socket(reader: &mut Reader<'_>, at: &Location, address: &Address) {
    if let Address::Unix(path) = address {
        let remedy = "choose a path in a folder that exists";
        reader.check_file(at, remedy, || listener::check_socket_path(path));
    }
}

impl Choice for ClientAuth {
    const NAMES: &'static [&'static str] = &["required", "optional"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "required" => Some(Self::Required),
            "optional" => Some(Self::Optional),
            _ => None,
        }
    }
}

impl Tls {
    fn resolve(self, reader: &mut Reader<'_>) -> Option<ListenerTls> {
        let tls = ListenerTls {
            cert: self.cert.value?,
            key: self.key.value?,
            client_ca: self.client_ca.value,
            client_auth: self.client_auth.value?,
        };
        if self.client_auth.given && !self.client_ca.given {
            let problem = "has no effect without client_ca";
            reader.error(&self.client_auth.at, problem, "add client_ca, or remove it");
        }
        let cert = reader.check_file(
            &self.cert.at,
            "use a PEM file with the certificate and those between it and the CA",
            || pem::read_certificates(&tls.cert),
        );
        let key = reader.check_file(
            &self.key.at,
            "use a PEM file with the certificate's private key",
            || pem::read_private_key(&tls.key),
        );
        let ca_is_usable = tls.client_ca.as_ref().is_none_or(|ca| {
            let remedy = "use a PEM file that holds CA certificates and nothing broken";
            let read = reader.check_file(&self.client_ca.at, remedy, || pem::read_cas(ca));
            read.is_some()
        });
        if cert.is_some()
            && key.is_some()
            && ca_is_usable
            && let Err(error) = listener::Tls::load(tls.clone())
        {
            let remedy = "use a key and a certificate that belong together";
            reader.error(&self.key.at, error.to_string(), remedy);
        }
        Some(tls)
    }
}
