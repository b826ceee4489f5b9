//! The paths of endpoints that receive credentials or URLs to sign. What is meant for them never
//! goes upstream unless a route says so: taskcluster-proxy's callers send new credentials to
//! `PUT /credentials` on the port to which they send their requests
//! (`docs/migrating-from-taskcluster-proxy.md`).

/// The path to which new credentials are sent.
pub(super) const CREDENTIALS: &str = "/credentials";
/// The path to which URLs are sent that are to be signed.
pub(super) const BEWIT: &str = "/bewit";

/// How these paths begin. taskcluster-proxy takes every path that begins so.
const PREFIXES: [&str; 2] = [CREDENTIALS, BEWIT];

/// How `path`, or another reading of it, begins if it is reserved. Case does not matter, because
/// some upstreams ignore it.
pub(super) fn reserved_prefix(path: &str, readings: &[String]) -> Option<&'static str> {
    begins_reserved(path).or_else(|| readings.iter().find_map(|reading| begins_reserved(reading)))
}

/// Whether a route with this `path` is explicitly for paths that begin with `prefix`.
pub(super) fn is_explicit(path: &str, prefix: &'static str) -> bool {
    begins_reserved(path) == Some(prefix)
}

fn begins_reserved(path: &str) -> Option<&'static str> {
    PREFIXES.into_iter().find(|prefix| {
        let begin = path.as_bytes().get(..prefix.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::path;

    #[test]
    fn every_spelling_of_a_reserved_path_is_recognised() {
        for path in [
            "/credentials",
            "/credentials/",
            "/credentials/task",
            "/credentialsx",
            "/CREDENTIALS",
            "/%63redentials",
            "/%2563redentials",
            "/credentials;x=y",
            "/bewit",
            "/bewit/x",
            "/bewitx",
            "/Bewit",
            "/b%65wit",
        ] {
            let readings = path::readings(path).unwrap();
            assert!(reserved_prefix(path, &readings).is_some(), "{path}");
        }
        for path in ["/", "/cred", "/api/credentials", "/x/bewit", "/bewi", ""] {
            let readings = path::readings(path).unwrap();
            assert_eq!(reserved_prefix(path, &readings), None, "{path}");
        }
    }

    #[test]
    fn a_route_is_explicit_about_its_own_prefix() {
        assert!(is_explicit("/credentials/store/", "/credentials"));
        assert!(!is_explicit("/", "/credentials"));
        assert!(!is_explicit("/bewit", "/credentials"));
    }
}
