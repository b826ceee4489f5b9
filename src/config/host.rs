//! Host names and addresses that are compared with `Host`.

use std::net::Ipv6Addr;

use super::diagnostic::quoted;

/// The reason why no `Host` would equal `host`, and the remedy; `None` if one can: a name in lower
/// case or an address, without a port. `wildcard` is the remedy for a wildcard.
pub(super) fn problem(host: &str, wildcard: &str) -> Option<(&'static str, String)> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        let canonical = address.to_string();
        let remedy = format!("write {}", quoted(&canonical));
        return (canonical != host).then_some(("is not in canonical form", remedy));
    }
    let alone = || "write the host alone, without scheme or path".to_owned();
    Some(if host.contains("://") {
        ("is a URL", alone())
    } else if host.contains('/') {
        ("contains a slash", alone())
    } else if host.contains('*') {
        ("has a wildcard", wildcard.to_owned())
    } else if host.contains('[') {
        (
            "has brackets",
            "write the address alone, like \"::1\"".to_owned(),
        )
    } else if let Some((name, _)) = host.split_once(':') {
        ("has a port", format!("write {}", quoted(name)))
    } else if host.bytes().any(|b| b.is_ascii_uppercase()) {
        (
            "has upper-case letters",
            format!("write {}", quoted(&host.to_ascii_lowercase())),
        )
    } else if let Some(name) = host.strip_suffix('.') {
        ("ends with a dot", format!("write {}", quoted(name)))
    } else if !is_host_name(host) {
        (
            "is not a host name",
            "write it like \"tc.example.com\"".to_owned(),
        )
    } else {
        return None;
    })
}

fn is_host_name(host: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    host.len() <= 253
        && host
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && label.bytes().all(fits))
}
