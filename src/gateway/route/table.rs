//! The route table: which route a request matches.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::{Isolation, Mismatch, Route};
use crate::gateway::host::{HostPattern, host_name};
use crate::gateway::path::{self, Ambiguity};
use crate::gateway::reserved_path::{is_explicit, reserved_prefix};

/// All routes, matched by host, path and method.
#[derive(Debug, Default)]
pub struct RouteTable {
    all: Vec<Arc<Route>>,
    by_host: HashMap<Box<str>, Vec<Arc<Route>>>,
    /// The routes for every name below a domain, the longest domain first.
    below_domain: Vec<(HostPattern, Vec<Arc<Route>>)>,
    any_host: Vec<Arc<Route>>,
    /// The weakest isolation of all routes with `bewit = true`; `None` if there are none.
    bewit_isolation: Option<Isolation>,
    /// Whether any route has `cors`.
    have_cors: bool,
    /// Whether any route has `shortcut = true`.
    have_shortcuts: bool,
}

/// Why no route was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No route matches the host, path and method.
    Unmatched,
    /// The path begins like one of hawkgate's own endpoints, and no route is explicitly for it.
    Reserved,
    /// An upstream could read the path as one that matches another route, or as one that no route
    /// accepts.
    Ambiguous(Ambiguity),
}

impl RouteTable {
    /// Sorts `routes` for matching: longer prefixes first, then routes with methods.
    pub fn new(mut routes: Vec<Arc<Route>>) -> Self {
        routes.sort_by_key(|r| (std::cmp::Reverse(r.path.len()), r.methods.is_none()));
        let mut table = Self {
            bewit_isolation: weakest_isolation(&routes),
            have_cors: routes.iter().any(|route| route.cors.is_some()),
            have_shortcuts: routes.iter().any(|route| route.compat.shortcut),
            ..Self::default()
        };
        for route in &routes {
            if route.hosts.is_empty() {
                table.any_host.push(Arc::clone(route));
            }
            for host in &route.hosts {
                table.insert(host, route);
            }
        }
        table
            .below_domain
            .sort_by_key(|(pattern, _)| Reverse(pattern.as_str().len()));
        table.all = routes;
        table
    }

    fn insert(&mut self, host: &HostPattern, route: &Arc<Route>) {
        let route = Arc::clone(route);
        if let Some(name) = host.exact() {
            self.by_host.entry(name.into()).or_default().push(route);
            return;
        }
        let mut known = self.below_domain.iter_mut();
        match known.find(|(domain, _)| domain == host) {
            Some((_, routes)) => routes.push(route),
            None => self.below_domain.push((host.clone(), vec![route])),
        }
    }

    /// The route for a request: routes for its host take precedence over those for every name below
    /// a domain, those for a longer domain over those for a shorter one, and any of these over routes
    /// for any host; then the longest prefix wins. `host` may have a port; `target` is the raw path
    /// and query.
    ///
    /// # Errors
    /// If no route matches. [`NoRoute::Ambiguous`] prevents callers from reaching a path through
    /// a more permissive route by spelling it differently (`/api/%73ecrets` for `/api/secrets`).
    pub fn find(&self, host: &str, target: &str, method: &Method) -> Result<&Arc<Route>, NoRoute> {
        self.find_if(host, target, |route, host, path| {
            route.mismatch(host, path, method).is_none()
        })
    }

    /// Like [`RouteTable::find`], whatever the method is.
    ///
    /// # Errors
    /// As for [`RouteTable::find`].
    pub(in crate::gateway) fn find_for_any_method(
        &self,
        host: &str,
        target: &str,
    ) -> Result<&Arc<Route>, NoRoute> {
        self.find_if(host, target, |route, host, path| {
            let mismatch = route.mismatch(host, path, &Method::OPTIONS);
            matches!(mismatch, None | Some(Mismatch::Method))
        })
    }

    /// Whether a route with `shortcut = true` matches the request for `target`, an expanded target.
    pub(in crate::gateway) fn is_behind_shortcut(
        &self,
        host: &str,
        target: &str,
        method: &Method,
    ) -> bool {
        let found = self.find_if(host, target, |route, host, path| {
            route.compat.shortcut && route.mismatch(host, path, method).is_none()
        });
        self.have_shortcuts && found.is_ok()
    }

    fn find_if(
        &self,
        host: &str,
        target: &str,
        matches: impl Fn(&Route, &str, &str) -> bool,
    ) -> Result<&Arc<Route>, NoRoute> {
        let host = host_name(host);
        let raw = path::without_query(target);
        let found = self.lookup(&host, raw, &matches);
        let readings = path::readings(raw).map_err(NoRoute::Ambiguous)?;
        for reading in &readings {
            let other = self.lookup(&host, reading, &matches);
            if found.map(Arc::as_ptr) != other.map(Arc::as_ptr) {
                return Err(NoRoute::Ambiguous(Ambiguity::OtherRoute));
            }
        }
        if let Some(prefix) = reserved_prefix(raw, &readings)
            && !found.is_some_and(|route| is_explicit(&route.path, prefix))
        {
            return Err(NoRoute::Reserved);
        }
        found.ok_or(NoRoute::Unmatched)
    }

    fn lookup(
        &self,
        host: &str,
        path: &str,
        matches: impl Fn(&Route, &str, &str) -> bool,
    ) -> Option<&Arc<Route>> {
        let for_host = self.by_host.get(host).map_or(&[][..], Vec::as_slice);
        let below = self.below_domain.iter();
        let for_domain = below.filter(|(domain, _)| domain.covers(host));
        for_host
            .iter()
            .chain(for_domain.flat_map(|(_, routes)| routes))
            .chain(&self.any_host)
            .find(|route| matches(route, host, path))
    }

    /// Whether any route has `cors`.
    pub(in crate::gateway) fn have_cors(&self) -> bool {
        self.have_cors
    }

    /// Whether any route has `bewit = true`.
    pub fn has_bewit_route(&self) -> bool {
        self.bewit_isolation.is_some()
    }

    /// Which requests to `/bewit` are refused if a web page sent them, whatever they ask for.
    pub(in crate::gateway) fn bewit_isolation(&self) -> Isolation {
        self.bewit_isolation.unwrap_or_default()
    }

    /// Whether any route names this host, which may have a port. A wildcard names none.
    pub(in crate::gateway) fn names_host(&self, host: &str) -> bool {
        self.by_host.contains_key(&*host_name(host))
    }

    /// All routes, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.all.iter()
    }
}

fn weakest_isolation(routes: &[Arc<Route>]) -> Option<Isolation> {
    let bewit = routes.iter().filter(|route| route.compat.bewit);
    bewit.map(|route| route.isolation).min()
}

#[cfg(test)]
mod tests {
    use super::super::tests::route;
    use super::*;

    fn table() -> RouteTable {
        RouteTable::new(
            [
                route("root", None, "/", None),
                route("api", None, "/api", None),
                route("secrets", None, "/api/secrets/", None),
                route(
                    "read",
                    None,
                    "/api/queue/",
                    Some(&[Method::GET, Method::HEAD]),
                ),
                route("hosted", Some("tc.example.com"), "/", None),
            ]
            .map(Arc::new)
            .to_vec(),
        )
    }

    fn found(host: &str, target: &str, method: &Method) -> Result<String, NoRoute> {
        table()
            .find(host, target, method)
            .map(|r| r.name.to_string())
    }

    #[test]
    fn the_longest_path_prefix_wins_at_a_segment_boundary() {
        for (target, expected) in [
            ("/", "root"),
            ("/api", "api"),
            ("/api?x=/api/secrets/", "api"),
            ("/apix", "root"),
            ("/api/secrets", "api"),
            ("/api/secrets/", "secrets"),
            ("/api/secrets/a%2Fb?c", "secrets"),
            ("/api/queue/v1/ping", "read"),
        ] {
            assert_eq!(
                found("x", target, &Method::GET).unwrap(),
                expected,
                "{target}"
            );
        }
        assert_eq!(
            found("x", "/api/queue/v1/ping", &Method::POST).unwrap(),
            "api"
        );
        let lower_case = Method::from_bytes(b"get").unwrap();
        assert_eq!(
            found("x", "/api/queue/v1/ping", &lower_case).unwrap(),
            "read"
        );
    }

    #[test]
    fn routes_for_a_host_take_precedence_and_match_any_case_port_and_trailing_dot() {
        for host in ["tc.example.com", "TC.example.COM:8080", "tc.example.com."] {
            assert_eq!(
                found(host, "/api/secrets/x", &Method::GET).unwrap(),
                "hosted"
            );
        }
        assert_eq!(found("[::1]:80", "/", &Method::GET).unwrap(), "root");
        for host in ["[::1]", "[::1]:80", "[0:0:0:0:0:0:0:1]", "[::0001]"] {
            assert_eq!(host_name(host), "::1");
        }
    }

    #[test]
    fn a_name_takes_precedence_over_a_wildcard_and_a_longer_wildcard_over_a_shorter() {
        let hosted = |name, hosts: &[&str], path| {
            let hosts = hosts.iter().map(|host| HostPattern::new(host)).collect();
            Arc::new(Route {
                hosts,
                ..route(name, None, path, None)
            })
        };
        let table = RouteTable::new(vec![
            hosted("any", &[], "/"),
            hosted("short", &["*.example.com"], "/"),
            hosted("deep", &["*.example.com"], "/only-here/"),
            hosted("long", &["*.b.example.com", "c.example.com"], "/x/"),
            hosted("exact", &["a.b.example.com", "example.org"], "/x/y/"),
        ]);
        for (host, target, expected) in [
            ("example.com", "/", "any"),
            ("a.example.com", "/", "short"),
            ("A.Example.COM.:8080", "/", "short"),
            ("x.y.example.com", "/only-here/", "deep"),
            ("c.example.com", "/x/", "long"),
            ("a.b.example.com", "/x/y/z", "exact"),
            ("a.b.example.com", "/x/z", "long"),
            ("a.b.example.com", "/z", "short"),
            ("b.example.com", "/x/", "short"),
            ("example.org", "/x/y/", "exact"),
            ("example.org", "/", "any"),
            ("evilexample.com", "/", "any"),
            (".example.com", "/", "any"),
            ("a..example.com", "/", "any"),
            ("10.0.0.1", "/", "any"),
            ("[::1]", "/", "any"),
        ] {
            let found = table.find(host, target, &Method::GET).unwrap();
            assert_eq!(&*found.name, expected, "{host} {target}");
        }
        assert_eq!(table.iter().count(), 5);
        assert!(table.names_host("c.example.com:1") && !table.names_host("d.example.com"));
    }

    #[test]
    fn a_path_that_matches_another_route_when_decoded_is_ambiguous() {
        for target in [
            "/api/%73ecrets/x",
            "/%61pi/secrets/x",
            "/api//secrets/x",
            "/api%2Fsecrets%2Fx",
            "/api/x%2F..%2Fsecrets/y",
            "/api/%2e%2E/x",
            "/api%5csecrets/x",
        ] {
            let found = found("x", target, &Method::GET);
            assert!(matches!(found, Err(NoRoute::Ambiguous(_))), "{target}");
        }
        for target in [
            "/api/queue/v1/task%2Fx",
            "/api/secrets/a//b",
            "/api/secrets/100%25",
            "/api/%zz",
        ] {
            assert!(found("x", target, &Method::GET).is_ok(), "{target}");
        }
    }

    #[test]
    fn a_request_that_no_route_matches_is_unmatched() {
        let table = RouteTable::new(vec![Arc::new(route("api", None, "/api/", None))]);
        assert_eq!(
            table.find("x", "/", &Method::GET).unwrap_err(),
            NoRoute::Unmatched
        );
        assert_eq!(
            table.find("x", "/api", &Method::GET).unwrap_err(),
            NoRoute::Unmatched
        );
        assert_eq!(table.iter().count(), 1);
    }
}
