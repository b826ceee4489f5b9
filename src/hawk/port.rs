//! Which port a Taskcluster service puts into the MAC.

/// The port that a Taskcluster service puts into the MAC, given the headers that it receives:
/// the first integer in `X-Forwarded-Port`, else 443 if `X-Forwarded-Proto` is exactly `https`,
/// else the port in `Host`, else 80 (`docs/design/taskcluster.md`, "Hawk as Taskcluster checks
/// it"). Join repeated headers with `, `, as Node does.
///
/// `None` if the service would answer 500 or use something that is not a port; such headers
/// must not be sent.
pub fn service_port(
    forwarded_port: Option<&str>,
    forwarded_proto: Option<&str>,
    host: &str,
) -> Option<u16> {
    if let Some(port) = forwarded_port {
        return leading_integer(port);
    }
    let own = port_of(host)?;
    Some(match forwarded_proto {
        Some("https") => 443,
        _ => own,
    })
}

/// Like JavaScript's `parseInt(text, 10)`: optional white space, digits, then anything. Signs
/// are deliberately unsupported: `-5` is not a port, and `+443` does not occur.
fn leading_integer(text: &str) -> Option<u16> {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// The port in `host`, else 80. Taskcluster services answer 500 to IPv6 literals.
fn port_of(host: &str) -> Option<u16> {
    if host.is_empty() || host.starts_with('[') {
        return None;
    }
    match host.split_once(':') {
        None | Some((_, "")) => Some(80),
        Some((_, port)) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_the_port_as_the_service_does() {
        let table = [
            (None, None, "tc.example.com", Some(80)),
            (None, None, "tc.example.com:", Some(80)),
            (None, None, "tc.example.com:8080", Some(8080)),
            (None, Some("https"), "tc.example.com:8080", Some(443)),
            (None, Some("https"), "tc.example.com", Some(443)),
            (None, Some("http"), "tc.example.com:8080", Some(8080)),
            (None, Some("HTTPS"), "tc.example.com", Some(80)),
            (None, Some("https, http"), "tc.example.com", Some(80)),
            (Some("8443"), Some("https"), "tc.example.com:1", Some(8443)),
            (Some("443, 80"), None, "tc.example.com", Some(443)),
            (Some(" 443"), None, "tc.example.com", Some(443)),
            (Some("443junk"), None, "tc.example.com", Some(443)),
            (Some(""), Some("https"), "tc.example.com", None),
            (Some("junk"), Some("https"), "tc.example.com", None),
            (Some("-443"), None, "tc.example.com", None),
            (Some("99999"), None, "tc.example.com", None),
            (None, None, "tc.example.com:99999", None),
            (None, None, "tc.example.com:8o", None),
            (None, None, "[::1]:80", None),
            (None, None, "", None),
        ];
        for (port, proto, host, expected) in table {
            assert_eq!(
                service_port(port, proto, host),
                expected,
                "{port:?} {proto:?} {host:?}"
            );
        }
    }
}
