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
    use std::sync::Arc;

    use http::Method;

    use super::*;
    use crate::gateway::path;
    use crate::gateway::route::tests::route;
    use crate::gateway::route::{NoRoute, RouteTable};

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

    fn found(routes: &[(&str, Option<&str>, &str)], target: &str) -> Result<String, NoRoute> {
        let routes = routes
            .iter()
            .map(|(name, host, path)| Arc::new(route(name, *host, path, None)));
        let table = RouteTable::new(routes.collect());
        let found = table.find("tc.example.com", target, &Method::PUT);
        found.map(|route| route.name.to_string())
    }

    #[test]
    fn reserved_paths_are_forwarded_by_explicit_routes_only() {
        let any = [("root", None, "/"), ("hosted", Some("tc.example.com"), "/")];
        for routes in [&any[..1], &any] {
            for target in [
                "/credentials?x",
                "/Credentials",
                "/%63redentials",
                "/bewit/x?y",
            ] {
                assert_eq!(found(routes, target), Err(NoRoute::Reserved), "{target}");
            }
            for target in ["//credentials", "/x/../credentials", "/./credentials"] {
                let found = found(routes, target);
                assert!(matches!(found, Err(NoRoute::Ambiguous(_))), "{target}");
            }
        }
        let explicit = [("c", None, "/credentials/"), ("root", None, "/")];
        assert_eq!(found(&explicit, "/credentials/store"), Ok("c".into()));
        for target in ["/credentials", "/bewit"] {
            assert_eq!(found(&explicit, target), Err(NoRoute::Reserved));
        }
    }
}
