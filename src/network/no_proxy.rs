//! `NO_PROXY`, as curl reads it (<https://curl.se/libcurl/c/CURLOPT_NOPROXY.html>, and curl's
//! `lib/noproxy.c` for what that page leaves open).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use url::Host;

/// The hosts that are reached without a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy {
    /// Whether these are all hosts.
    all: bool,
    /// Names in lower case, without dots at either end; each stands for its subdomains, too.
    names: Vec<String>,
    networks: Vec<IpNet>,
}

/// An entry that no host equals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableEntry {
    /// The entry as written.
    pub entry: String,
    /// What is wrong with it.
    pub problem: &'static str,
    /// What to write instead.
    pub remedy: String,
}

/// What an entry stands for.
enum Entry {
    All,
    Name(String),
    Network(IpNet),
}

impl NoProxy {
    /// Parses a list whose entries are separated by commas or white space. An entry is `*`, a host name,
    /// which stands for its subdomains as well, an address, with or without brackets, or a network in
    /// CIDR notation. Dots at the beginning and the end of a name are ignored. Entries that no host
    /// equals are left out, as in curl, and returned.
    pub fn parse(list: &str) -> (Self, Vec<UnusableEntry>) {
        let (mut parsed, mut unusable) = (Self::default(), Vec::new());
        let separators = |c: char| c == ',' || c.is_ascii_whitespace();
        for entry in list.split(separators).filter(|entry| !entry.is_empty()) {
            match parse_entry(entry) {
                Ok(Entry::All) => parsed.all = true,
                Ok(Entry::Name(name)) => parsed.names.push(name),
                Ok(Entry::Network(network)) => parsed.networks.push(network),
                Err((problem, remedy)) => unusable.push(UnusableEntry {
                    entry: entry.to_owned(),
                    problem,
                    remedy,
                }),
            }
        }
        (parsed, unusable)
    }

    /// Whether `host` is reached without a proxy.
    pub fn matches(&self, host: &Host<&str>) -> bool {
        if self.all {
            return true;
        }
        match host {
            Host::Domain(name) => self.matches_name(name),
            Host::Ipv4(address) => self.matches_address(IpAddr::V4(*address)),
            Host::Ipv6(address) => self.matches_address(IpAddr::V6(*address)),
        }
    }

    fn matches_name(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.names.iter().any(|entry| {
            let rest = name.strip_suffix(entry.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    fn matches_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&address))
    }
}

fn parse_entry(entry: &str) -> Result<Entry, (&'static str, String)> {
    if entry == "*" {
        return Ok(Entry::All);
    }
    let bare = entry.strip_prefix('[').and_then(|e| e.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(entry).parse::<IpAddr>() {
        return Ok(Entry::Network(address.into()));
    }
    // The length may be outside of the brackets or inside.
    let unbracketed = entry.replace(['[', ']'], "");
    if let Ok(network) = unbracketed.parse::<IpNet>() {
        return Ok(Entry::Network(network));
    }
    let name = entry.strip_suffix('.').unwrap_or(entry);
    let name = name.strip_prefix('.').unwrap_or(name);
    match name_problem(name) {
        Some(refused) => Err(refused),
        None => Ok(Entry::Name(name.to_ascii_lowercase())),
    }
}

fn name_problem(name: &str) -> Option<(&'static str, String)> {
    let alone = || "write the host alone".to_owned();
    if name.contains("://") {
        return Some(("is a URL", alone()));
    }
    if name.contains('/') {
        return Some(("is not a network", "write it like 10.0.0.0/8".into()));
    }
    if let Some(domain) = name.strip_prefix("*.") {
        let remedy = format!("write {domain}, which stands for its subdomains, too");
        return Some(("has a wildcard, which matches nothing", remedy));
    }
    if name.contains('*') {
        let remedy = "write a domain, which stands for its subdomains, or * alone for every host";
        return Some(("has a wildcard, which matches nothing", remedy.into()));
    }
    if name.contains(':') {
        let remedy = "write the host alone, which stands for all of its ports";
        return Some(("has a port, which matches nothing", remedy.into()));
    }
    if name.is_empty() {
        return Some(("is not a host", alone()));
    }
    None
}

impl fmt::Display for NoProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all {
            return f.write_str("any host");
        }
        let networks = self.networks.iter().map(|network| {
            if network.prefix_len() == network.max_prefix_len() {
                network.addr().to_string()
            } else {
                network.to_string()
            }
        });
        let entries: Vec<_> = self.names.iter().cloned().chain(networks).collect();
        f.write_str(&entries.join(", "))
    }
}
