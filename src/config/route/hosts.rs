//! `host` of a route: one host or several.

use toml::de::DeValue;

use super::Route;
use crate::config::diagnostic::{Location, quoted};
use crate::config::host;
use crate::config::reader::{Reader, Shape, Value};
use crate::config::value::{Item, List};
use crate::gateway::host::HostPattern;

/// One host, or a list of them.
#[derive(Debug)]
pub(in crate::config) struct Hosts(Vec<Item<String>>);

impl Value for Hosts {
    const SHAPE: Shape = Shape::Either(&Shape::Text, &<List<String>>::SHAPE);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        if let DeValue::Array(_) = value {
            let list = <List<String>>::read(reader, at, value)?;
            if list.is_empty() {
                let problem = "is empty: no request would match";
                let remedy = "list hosts, or leave the key out for any host";
                reader.error(at, problem, remedy);
            }
            return Some(Self(list.items));
        }
        let value = String::read(reader, at, value)?;
        let at = at.clone();
        Some(Self(vec![Item { at, value }]))
    }
}

impl Hosts {
    pub(super) fn into_patterns(self) -> Vec<HostPattern> {
        let written = self.0.into_iter();
        written.map(|item| HostPattern::new(&item.value)).collect()
    }
}

impl Route {
    pub(super) fn check_host(&self, reader: &mut Reader<'_>) {
        for item in self.host.value.iter().flat_map(|hosts| &hosts.0) {
            if let Some((problem, remedy)) = problem(&item.value) {
                reader.error(&item.at, problem, remedy);
            }
        }
    }
}

/// The reason why no request would match `host`, and the remedy.
fn problem(host: &str) -> Option<(&'static str, String)> {
    const WILDCARD: &str = "write it like \"*.example.com\", for every name below a domain";
    if host == "*" {
        let remedy = "leave the key out for any host".to_owned();
        return Some(("is a wildcard for every host", remedy));
    }
    let Some(domain) = host.strip_prefix("*.") else {
        return host::problem(host, WILDCARD);
    };
    if let Some((problem, _)) = host::problem(domain, WILDCARD) {
        let remedy = if domain.bytes().any(|b| b.is_ascii_uppercase()) {
            format!("write {}", quoted(&host.to_ascii_lowercase()))
        } else {
            WILDCARD.to_owned()
        };
        return Some((problem, remedy));
    }
    // The last label of a name is never a number (WHATWG URL, "ends in a number").
    let last = domain.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || domain.contains(':');
    numeric.then(|| {
        let problem = "is a wildcard for an address, which has no names below it";
        (problem, "list the addresses".to_owned())
    })
}
