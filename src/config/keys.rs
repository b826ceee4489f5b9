//! The list of every table and its keys, for suggestions, the schema and the tests.

use super::reader::{Key, Section};
use super::{
    cache, forward_auth, issuer, limits, log, login, network, oauth_client, route, rule, server,
    session, shared, source, trace,
};

/// A table of the file.
#[derive(Debug)]
pub struct KeyTable {
    /// `server`, `issuer`, …
    pub name: &'static str,
    /// Whether it is an array of tables, written `[[…]]`.
    pub repeated: bool,
    /// `Some` if these keys are allowed only in tables of this `kind`.
    pub kind: Option<&'static str>,
    /// Its documentation.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// Every table. The entries for kinds follow the entry of the table that they add keys to.
pub const TABLES: &[KeyTable] = &[
    table::<server::Server>("server", false, None),
    table::<issuer::Issuer>("issuer", true, None),
    table::<issuer::Oidc>("issuer", true, Some("oidc")),
    table::<issuer::ClaimNames>("issuer", true, Some("oidc")),
    table::<issuer::SharedSecret>("issuer", true, Some("shared-secret")),
    table::<issuer::ClaimNames>("issuer", true, Some("shared-secret")),
    table::<issuer::IntrospectionKeys>("issuer", true, Some("introspection")),
    table::<issuer::ClaimNames>("issuer", true, Some("introspection")),
    table::<oauth_client::ClientKeys>("issuer", true, Some("introspection")),
    table::<source::Source>("source", true, None),
    of_source(0, 0),
    of_source(1, 0),
    of_source(2, 0),
    of_source(3, 0),
    of_source(4, 0),
    of_source(4, 1),
    of_source(5, 0),
    of_source(5, 1),
    of_source(6, 0),
    of_source(7, 0),
    of_source(7, 1),
    of_source(8, 0),
    table::<session::Session>("session", true, None),
    table::<session::OidcSession>("session", true, Some("oidc")),
    table::<oauth_client::ClientKeys>("session", true, Some("oidc")),
    table::<session::TaskclusterSession>("session", true, Some("taskcluster")),
    table::<route::Route>("route", true, None),
    table::<rule::Rule>("rule", true, None),
    table::<login::Login>("login", false, None),
    table::<forward_auth::ForwardAuth>("forward_auth", true, None),
    table::<limits::Limits>("limits", false, None),
    table::<cache::Cache>("cache", false, None),
    table::<log::Log>("log", false, None),
    table::<network::Network>("network", false, None),
    table::<shared::Shared>("shared", false, None),
    table::<trace::Trace>("trace", false, None),
];

const fn table<S: Section>(
    name: &'static str,
    repeated: bool,
    kind: Option<&'static str>,
) -> KeyTable {
    KeyTable {
        name,
        repeated,
        kind,
        about: S::ABOUT,
        keys: S::KEYS,
    }
}

/// A list of the keys specific to one kind of source.
const fn of_source(index: usize, list: usize) -> KeyTable {
    let (kind, _, about, lists) = source::KINDS[index];
    KeyTable {
        name: "source",
        repeated: true,
        kind: Some(kind),
        about,
        keys: lists[list],
    }
}

/// The headers of the tables that have a key called `name`: `[server]`, `[[source]] or [[session]]`.
pub(super) fn owners(name: &str) -> Option<String> {
    let owns = |table: &&KeyTable| table.keys.iter().any(|key| key.name == name);
    let mut headers: Vec<_> = TABLES.iter().filter(owns).map(header).collect();
    headers.dedup();
    let last = headers.pop()?;
    Some(if headers.is_empty() {
        last
    } else {
        format!("{} or {last}", headers.join(", "))
    })
}

fn header(table: &KeyTable) -> String {
    if table.repeated {
        format!("[[{}]]", table.name)
    } else {
        format!("[{}]", table.name)
    }
}
