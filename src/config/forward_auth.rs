//! `[[forward_auth]]`

use std::sync::Arc;

use super::diagnostic::quoted;
use super::reader::{Field, Reader, Section, Table, section};
use super::references::{self, Declaration};
use super::resolved::{self, Server, Source, SourceKind};
use super::server::{Listen, resolve_listeners};
use super::value::{Choice, Item, List};
use crate::gateway::forward_auth::ProxyKind;
use crate::proxy::settings::{Address, ClientAuth, Listener};

section! {
    /// Tells another proxy, which forwards requests itself, whether it may and with which credential
    /// (docs/forward-auth.md). Anyone who can connect to `listen` with a valid token gets credentials of
    /// upstreams in the open.
    pub(super) struct ForwardAuth {
        /// Unique among these tables; a metric label.
        name: Arc<str> = [required],
        /// The proxy, which determines the headers that describe the original request: no others are read.
        kind: ProxyKind = [required],
        /// Listeners for this proxy alone, written as in `server.listen`; they serve no routes. A listener
        /// that other machines can reach needs `allowed_networks`, or `tls` with `client_ca`. Changes need a
        /// restart.
        listen: List<Listen> = [required],
        /// Names of the routes whose credentials the proxy may get. Each has issuers and a source, and no
        /// session.
        routes: List<String> = [required],
    }
}

impl Choice for ProxyKind {
    const NAMES: &'static [&'static str] = &["nginx", "traefik", "caddy", "envoy"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "nginx" => Some(Self::Nginx),
            "traefik" => Some(Self::Traefik),
            "caddy" => Some(Self::Caddy),
            "envoy" => Some(Self::Envoy),
            _ => None,
        }
    }
}

/// One valid table, with its listeners.
#[derive(Debug)]
pub(super) struct Resolved {
    settings: resolved::ForwardAuth,
    listen: Vec<Listener>,
}

/// Reads one `[[forward_auth]]`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    routes: &[Declaration<resolved::Route>],
    sources: &[Declaration<Source>],
) -> Declaration<Resolved> {
    let section = ForwardAuth::read(reader, table);
    reader.refuse_unknown(table, &[ForwardAuth::KEYS], |_| None);
    let mut declaration = Declaration::new(&table.at, &section.name, None);
    declaration.value = section.resolve(reader, routes, sources);
    declaration
}

impl ForwardAuth {
    fn resolve(
        self,
        reader: &mut Reader<'_>,
        routes: &[Declaration<resolved::Route>],
        sources: &[Declaration<Source>],
    ) -> Option<Resolved> {
        let routes = find_routes(reader, &self.routes, routes, sources);
        let listen = resolve_listen(reader, self.listen);
        let name = self.name.value?;
        let mut listen = listen?;
        for listener in &mut listen {
            listener.forward_auth = Some(Arc::clone(&name));
        }
        Some(Resolved {
            settings: resolved::ForwardAuth {
                name,
                kind: self.kind.value?,
                routes: routes?,
            },
            listen,
        })
    }
}

fn resolve_listen(reader: &mut Reader<'_>, listen: Field<List<Listen>>) -> Option<Vec<Listener>> {
    let (list, at) = (listen.value?, listen.at);
    if list.is_empty() {
        let problem = "is empty: the proxy could not ask";
        reader.error(&at, problem, "write [\"127.0.0.1:8081\"]");
    }
    let listen = resolve_listeners(reader, list.items)?;
    if let Some(open) = listen.iter().find(|listener| !is_restricted(listener)) {
        let problem = format!(
            "{} would hand out credentials of upstreams to every machine that can connect",
            open.address
        );
        let remedy = "add allowed_networks with the proxy's address, or tls with client_ca, or listen on loopback or a Unix socket";
        reader.error(&at, problem, remedy);
    }
    Some(listen)
}

/// Whether only known proxies, or programs on this machine, can connect.
fn is_restricted(listener: &Listener) -> bool {
    let certificate = listener
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some() && tls.client_auth == ClientAuth::Required);
    listener.address.is_local() || listener.access.networks.is_some() || certificate
}

fn find_routes(
    reader: &mut Reader<'_>,
    names: &Field<List<String>>,
    routes: &[Declaration<resolved::Route>],
    sources: &[Declaration<Source>],
) -> Option<Vec<usize>> {
    let list = names.value.as_ref()?;
    if list.is_empty() {
        let problem = "is empty: every request would be refused";
        reader.error(&names.at, problem, "list the routes that the proxy serves");
    }
    let found: Vec<_> = list
        .items
        .iter()
        .map(|name| find_route(reader, name, routes, sources))
        .collect();
    found.into_iter().collect()
}

fn find_route(
    reader: &mut Reader<'_>,
    name: &Item<String>,
    routes: &[Declaration<resolved::Route>],
    sources: &[Declaration<Source>],
) -> Option<usize> {
    let index = references::find(reader, "route", routes, name)?;
    // Otherwise the route has errors of its own.
    if let Some(route) = &routes.get(index)?.value
        && let Some(problem) = unsuitable(route, sources)
    {
        let problem = format!("route {} {problem}", quoted(&name.value));
        let remedy = "list only routes with issuers and a source, or remove it";
        reader.error(&name.at, problem, remedy);
    }
    Some(index)
}

/// Why no proxy can be told about requests to `route`.
fn unsuitable(route: &resolved::Route, sources: &[Declaration<Source>]) -> Option<&'static str> {
    let source = route.source.and_then(|at| sources.get(at));
    let kind = source.and_then(|source| source.value.as_ref());
    if route.session.is_some() {
        Some("has a session: the proxy does not pass on its cookies and redirects")
    } else if kind.is_some_and(|source| matches!(source.kind, SourceKind::Password(_))) {
        Some("takes passwords: the proxy would send the one-time codes to the upstream")
    } else if route.anonymous {
        Some("is anonymous: anyone who can connect would get the source's credentials")
    } else if route.workload_token.is_some() {
        Some("has a workload token: anyone who can connect would get its credentials")
    } else if route.source.is_none() {
        Some("has no source: there is no credential to hand out")
    } else {
        None
    }
}

/// Refuses listeners whose address is used already.
pub(super) fn check_listeners(
    reader: &mut Reader<'_>,
    all: &[Declaration<Resolved>],
    server: Option<&Server>,
) {
    let mut used: Vec<&Address> = Vec::new();
    if let Some(server) = server {
        used.extend(server.listen.iter().map(|listener| &listener.address));
        used.extend(&server.admin);
    }
    for declaration in all {
        let Some(resolved) = &declaration.value else {
            continue;
        };
        for listener in &resolved.listen {
            if used.iter().any(|other| other.overlaps(&listener.address)) {
                let problem = format!("{} is already used by another listener", listener.address);
                reader.error(&declaration.table, problem, "give listen another port");
            }
        }
        used.extend(resolved.listen.iter().map(|listener| &listener.address));
    }
}

/// The settings and the listeners of all tables; `None` if one of them is invalid.
pub(super) fn resolved(
    all: &[Declaration<Resolved>],
) -> Option<(Vec<resolved::ForwardAuth>, Vec<Listener>)> {
    let valid: Option<Vec<_>> = all.iter().map(|table| table.value.as_ref()).collect();
    let valid = valid?;
    let settings = valid.iter().map(|table| table.settings.clone()).collect();
    let listen = valid.iter().flat_map(|table| table.listen.clone());
    Some((settings, listen.collect()))
}
