//! Which requests go where, and what they need.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Method};

use super::path;
use super::rate::Rates;
use super::rejection::Rejection;
use super::rule::Rules;
use crate::credential::CachedSource;
use crate::token::{Issuer, WorkloadToken};

/// Where a route sends its requests.
#[derive(Debug)]
pub struct Upstream {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name, lower case, no brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The `Host` header sent: host, and the port where it is not the scheme's own.
    pub authority: HeaderValue,
    /// The port that the service puts into the MAC; the upstream's, unless overridden.
    pub signed_port: u16,
    /// The only CAs trusted here, in PEM form; the platform's when `None`.
    pub ca: Option<Arc<[u8]>>,
    /// Whether HTTP/2 may be (`true` with ALPN over TLS) or is (prior knowledge, plaintext) spoken.
    pub http2: bool,
    /// Time limits.
    pub timeouts: UpstreamTimeouts,
    /// Its addresses, kept fresh in the background; empty until first resolved.
    pub addresses: ArcSwap<Vec<SocketAddr>>,
    /// Milliseconds to add to our clock to get this upstream's, learnt from `Date`.
    pub clock_offset: AtomicI64,
}

impl Upstream {
    /// Milliseconds to add to our clock to get this upstream's.
    pub fn clock_offset(&self) -> i64 {
        self.clock_offset.load(Ordering::Relaxed)
    }
}

/// Time limits towards an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To establish TCP (and again for TLS).
    pub connect: Duration,
    /// Between two reads; covers long polls.
    pub read: Duration,
    /// For one write.
    pub write: Duration,
    /// How long an idle connection stays pooled. Below the upstream's own (web-server: 6 s).
    pub idle: Duration,
}

/// What taskcluster-proxy does and hawkgate does on demand (taskcluster.md §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compat {
    /// Takes `/<service>/<version>/<path>` for `/api/<service>/<version>/<path>`.
    pub shortcut: bool,
    /// Whether `POST /bewit` signs this route's URLs.
    pub bewit: bool,
    /// Adds the informational headers to answers.
    pub headers: bool,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Its configured name.
    pub name: Arc<str>,
    /// Only this host (lower case, no port), or any.
    pub host: Option<String>,
    /// Path prefix, beginning with `/`; matches whole segments.
    pub path: String,
    /// Only these methods, or any.
    pub methods: Option<Vec<Method>>,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// Whose tokens are accepted.
    pub issuers: Vec<Arc<Issuer>>,
    /// What they are swapped for; `None` forwards without credentials.
    pub source: Option<Arc<CachedSource>>,
    /// Scopes that the bearer must have.
    pub require_scopes: Vec<String>,
    /// Whether callers need no token (loopback and Unix sockets only).
    pub anonymous: bool,
    /// The token that stands in when the caller sends none.
    pub workload_token: Option<Arc<WorkloadToken>>,
    /// Which requests pass; `None` where no rule concerns this route.
    pub rules: Option<Rules>,
    /// How often one client may ask.
    pub rates: Rates,
    /// What of taskcluster-proxy it does.
    pub compat: Compat,
}

impl Route {
    /// Whether the prefix covers `path` (no query) on a segment's boundary: `/api` covers
    /// `/api` and `/api/x` but not `/apix`.
    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(self.path.as_str()).is_some_and(|rest| {
            rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/')
        })
    }

    /// Why it does not take a request; `None` if it does. `host` is a name alone, `path` has
    /// no query.
    pub fn mismatch(&self, host: &str, path: &str, method: &Method) -> Option<Mismatch> {
        if self.host.as_deref().is_some_and(|own| own != host) {
            Some(Mismatch::Host)
        } else if !self.covers(path) {
            Some(Mismatch::Path)
        } else if !self.takes(method) {
            Some(Mismatch::Method)
        } else {
            None
        }
    }

    /// Whether callers bring a username and password, which the source proves.
    pub fn takes_password(&self) -> bool {
        self.source.as_ref().is_some_and(|s| s.takes_password())
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods
            .as_ref()
            .is_none_or(|methods| methods.contains(method))
    }
}

impl Rejection {
    /// As `route` has to say it.
    #[must_use]
    pub fn at(mut self, route: &Route) -> Self {
        self.basic = route.takes_password();
        self
    }
}

/// Which part of a request a route does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It names another host.
    Host,
    /// The path does not begin with its own.
    Path,
    /// It names methods, and this is none of them.
    Method,
}

/// Every route, for look-up by host, path and method.
#[derive(Debug, Default)]
pub struct RouteTable {
    by_host: HashMap<String, Vec<Arc<Route>>>,
    any_host: Vec<Arc<Route>>,
    makes_bewits: bool,
}

/// Why no route is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing takes this host, path and method.
    Unmatched,
    /// Read with its escapes decoded, as an upstream might, the path belongs to another
    /// route than read as it stands, or climbs out of its folder.
    Ambiguous,
}

impl RouteTable {
    /// Orders `routes` for look-up: longer prefixes first, then those that name methods.
    pub fn new(mut routes: Vec<Arc<Route>>) -> Self {
        routes.sort_by_key(|r| (std::cmp::Reverse(r.path.len()), r.methods.is_none()));
        let mut table = Self {
            makes_bewits: routes.iter().any(|route| route.compat.bewit),
            ..Self::default()
        };
        for route in routes {
            match &route.host {
                Some(host) => table.by_host.entry(host.clone()).or_default().push(route),
                None => table.any_host.push(route),
            }
        }
        table
    }

    /// The route for a request: routes that name its host before those that do not, then
    /// the longest prefix. `host` may bear a port; `target` is the raw path and query.
    ///
    /// # Errors
    /// [`NoRoute::Ambiguous`] keeps a caller from reaching a path through a laxer route
    /// by writing it differently (`/api/%73ecrets` for `/api/secrets`).
    pub fn find(&self, host: &str, target: &str, method: &Method) -> Result<&Arc<Route>, NoRoute> {
        let host = host_name(host);
        let raw = path::without_query(target);
        let found = self.look_up(&host, raw, method);
        if let Some(decoded) = path::decoded(raw) {
            let same = match (found, self.look_up(&host, &decoded, method)) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            if !same || path::climbs(&decoded) {
                return Err(NoRoute::Ambiguous);
            }
        }
        found.ok_or(NoRoute::Unmatched)
    }

    fn look_up(&self, host: &str, path: &str, method: &Method) -> Option<&Arc<Route>> {
        let hosted = self.by_host.get(host).map_or(&[][..], Vec::as_slice);
        hosted
            .iter()
            .chain(&self.any_host)
            .find(|route| route.mismatch(host, path, method).is_none())
    }

    /// Whether any route's URLs are signed on demand.
    pub fn makes_bewits(&self) -> bool {
        self.makes_bewits
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_host.values().flatten().chain(&self.any_host)
    }
}

/// The name in a Host header: no port, no final dot, lower case. Allocates only when it
/// has capitals.
pub fn host_name(host: &str) -> std::borrow::Cow<'_, str> {
    let name = if let Some(rest) = host.strip_prefix('[') {
        rest.split_once(']').map_or(rest, |(name, _)| name)
    } else {
        host.split_once(':').map_or(host, |(name, _)| name)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An upstream that is never connected to.
    pub(crate) fn upstream() -> Upstream {
        Upstream {
            tls: true,
            host: "tc.example.com".into(),
            port: 443,
            authority: HeaderValue::from_static("tc.example.com"),
            signed_port: 443,
            ca: None,
            http2: false,
            timeouts: UpstreamTimeouts {
                connect: Duration::from_secs(1),
                read: Duration::from_secs(1),
                write: Duration::from_secs(1),
                idle: Duration::from_secs(1),
            },
            addresses: ArcSwap::default(),
            clock_offset: AtomicI64::new(0),
        }
    }

    pub(in crate::gateway) fn route(
        name: &str,
        host: Option<&str>,
        path: &str,
        methods: Option<&[Method]>,
    ) -> Route {
        Route {
            name: name.into(),
            host: host.map(Into::into),
            path: path.into(),
            methods: methods.map(<[_]>::to_vec),
            upstream: Arc::new(upstream()),
            issuers: vec![],
            source: None,
            require_scopes: vec![],
            anonymous: true,
            workload_token: None,
            rules: None,
            rates: Rates::default(),
            compat: Compat::default(),
        }
    }

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
    fn the_longest_prefix_wins_on_a_segments_boundary() {
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
    }

    #[test]
    fn a_named_host_comes_first_however_it_is_written() {
        for host in ["tc.example.com", "TC.example.COM:8080", "tc.example.com."] {
            assert_eq!(
                found(host, "/api/secrets/x", &Method::GET).unwrap(),
                "hosted"
            );
        }
        assert_eq!(found("[::1]:80", "/", &Method::GET).unwrap(), "root");
    }

    #[test]
    fn a_path_that_could_mean_two_routes_is_refused() {
        for target in [
            "/api/%73ecrets/x",
            "/%61pi/secrets/x",
            "/api//secrets/x",
            "/api%2Fsecrets%2Fx",
            "/api/x%2F..%2Fsecrets/y",
            "/api/%2e%2E/x",
            "/api%5csecrets/x",
        ] {
            assert_eq!(
                found("x", target, &Method::GET),
                Err(NoRoute::Ambiguous),
                "{target}"
            );
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
    fn nothing_matches_nothing() {
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
