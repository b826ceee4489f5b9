//! Every table of the file with its keys: for suggestions, the schema and the tests.

use super::reader::{Key, Section};
use super::{cache, issuer, limits, log, login, route, server, source};

/// A table of the file.
#[derive(Debug)]
pub struct KeyTable {
    /// `server`, `issuer`, …
    pub name: &'static str,
    /// Whether it is written `[[…]]`.
    pub repeated: bool,
    /// For tables whose further keys depend on `kind`: which kind, and these are its own.
    pub kind: Option<&'static str>,
    /// Its documentation.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// Every table; those with a kind follow the one that they add keys to.
pub const TABLES: &[KeyTable] = &[
    table::<server::Server>("server", false, None),
    table::<issuer::Issuer>("issuer", true, None),
    table::<issuer::Oidc>("issuer", true, Some("oidc")),
    table::<source::Source>("source", true, None),
    of_source(0),
    of_source(1),
    of_source(2),
    of_source(3),
    table::<route::Route>("route", true, None),
    table::<login::Login>("login", false, None),
    table::<limits::Limits>("limits", false, None),
    table::<cache::Cache>("cache", false, None),
    table::<log::Log>("log", false, None),
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

const fn of_source(index: usize) -> KeyTable {
    let (kind, _, about, keys) = source::KINDS[index];
    KeyTable {
        name: "source",
        repeated: true,
        kind: Some(kind),
        about,
        keys,
    }
}

/// The table that has a key called `name`, as written: `[server]`, `[[route]]`.
pub(super) fn owner(name: &str) -> Option<String> {
    let table = TABLES
        .iter()
        .find(|table| table.keys.iter().any(|key| key.name == name))?;
    Some(if table.repeated {
        format!("[[{}]]", table.name)
    } else {
        format!("[{}]", table.name)
    })
}
