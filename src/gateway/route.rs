//! Routes and the route table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};

use super::cors::Cors;
use super::host::host_name;
use super::path::{self, Ambiguity};
use super::rate_limit::RateLimiters;
use super::rejection::Rejection;
use super::request_headers::StrippedHeaders;
use super::reserved_path::{is_explicit, reserved_prefix};
use super::rule::Rules;
use super::scopes_refusal::RefusalLog;
use super::session::Session;
use super::upstream_addresses::UpstreamAddresses;
use super::upstream_clock::UpstreamClock;
use super::upstream_retry::UpstreamRetry;
use crate::credential::CachedSource;
use crate::header_fields::HeaderFields;
use crate::token::{Issuer, WorkloadToken};

/// The upstream of a route.
#[derive(Debug)]
pub struct Upstream {
    /// Whether to use TLS.
    pub tls: bool,
    /// Host name or address, in lower case and without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The `Host` header: host, and port unless it is the scheme's default.
    pub authority: HeaderValue,
    /// The port included in the Hawk MAC: the upstream's, unless overridden.
    pub signed_port: u16,
    /// The only CAs to trust, in PEM; `None` trusts the platform's.
    pub ca: Option<Arc<[u8]>>,
    /// Whether to offer HTTP/2 (ALPN, with TLS) or to use it (prior knowledge, without).
    pub http2: bool,
    /// Time limits.
    pub timeouts: UpstreamTimeouts,
    /// The resolved addresses, refreshed in the background and when none can be connected to.
    pub addresses: UpstreamAddresses,
    /// Its clock, learnt from `Date`.
    pub clock: UpstreamClock,
}

/// Time limits for connections to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For establishing TCP, and again for TLS.
    pub connect: Duration,
    /// Between two reads; must cover long polls.
    pub read: Duration,
    /// For one write.
    pub write: Duration,
    /// How long an idle connection stays pooled. Must be shorter than the upstream's own limit
    /// (6 s for Taskcluster's web-server).
    pub idle: Duration,
}

/// The parts of taskcluster-proxy's behaviour that a route emulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compat {
    /// Whether `/<service>/<version>/<path>` is accepted as short for
    /// `/api/<service>/<version>/<path>`.
    pub shortcut: bool,
    /// Whether `POST /bewit` signs this route's URLs.
    pub bewit: bool,
    /// Whether `PUT /credentials` replaces the credentials of this route's source.
    pub credentials: bool,
    /// Whether taskcluster-proxy's `X-Taskcluster-…` headers are added to responses.
    pub headers: bool,
}

/// When an upgraded connection (WebSocket) ends, unless one side closes it earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpgradeExpiry {
    /// When the caller's token expires.
    #[default]
    Token,
    /// It does not end by itself: the token is checked only when the connection is opened.
    None,
}

/// Which requests to a route are refused if a web page sent them
/// ([`super::resource_isolation`]): those that are served without credentials that the
/// sender must know, or with a password that a browser may have stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// None: senders need a token, or the route is open to other machines.
    #[default]
    Off,
    /// Those without `Authorization`, which are sent with the route's workload token.
    WithoutAuthorization,
    /// All.
    Always,
}

impl Isolation {
    /// Whether a request with these fields is one of them.
    pub(super) fn covers(self, headers: &dyn HeaderFields) -> bool {
        match self {
            Self::Off => false,
            Self::WithoutAuthorization => headers.first(&AUTHORIZATION).is_none(),
            Self::Always => true,
        }
    }
}

/// A route.
#[derive(Debug)]
pub struct Route {
    /// The configured name.
    pub name: Arc<str>,
    /// Matches only this host (in lower case, without port); `None` matches any.
    pub host: Option<String>,
    /// Path prefix beginning with `/`; matches whole segments.
    pub path: String,
    /// Whether the upstream ignores the case of paths, so that the prefix matches in any case.
    pub case_insensitive_path: bool,
    /// Matches only these methods; `None` matches any.
    pub methods: Option<Vec<Method>>,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The issuers whose tokens are accepted.
    pub issuers: Vec<Arc<Issuer>>,
    /// The session whose cookie is accepted from callers without `Authorization`.
    pub session: Option<Arc<Session>>,
    /// The source of upstream credentials; `None` forwards requests without any.
    pub source: Option<Arc<CachedSource>>,
    /// The caller's headers that are not forwarded.
    pub stripped_headers: StrippedHeaders,
    /// Scopes that the token must have.
    pub require_scopes: Vec<String>,
    /// Path prefixes whose 401s are the upstream's own; they match whole segments.
    pub passes_401: Vec<String>,
    /// When the refusal of scopes was last logged.
    pub refused_scopes: RefusalLog,
    /// Whether callers need no token. Allowed on loopback and Unix sockets only.
    pub anonymous: bool,
    /// The token used for callers that send none.
    pub workload_token: Option<Arc<WorkloadToken>>,
    /// Which requests are refused if a web page sent them.
    pub isolation: Isolation,
    /// Which pages of other origins may use the route; `None` if that is not configured, and their
    /// requests are like any other.
    pub cors: Option<Cors>,
    /// The rules; `None` if none apply to this route.
    pub rules: Option<Rules>,
    /// The rate limits.
    pub rates: RateLimiters,
    /// The retries of requests that the upstream failed to serve; `None` for none.
    pub retry: Option<UpstreamRetry>,
    /// When upgraded connections end.
    pub upgrade_expiry: UpgradeExpiry,
    /// Optional behaviour of taskcluster-proxy.
    pub compat: Compat,
}

impl Route {
    /// Whether the prefix covers `path` (without query) at a segment boundary: `/api` covers `/api`
    /// and `/api/x` but not `/apix`.
    fn covers(&self, path: &str) -> bool {
        self.has_prefix(&self.path, path)
    }

    /// Whether the route's `passes_401` covers the path of `target`, as sent upstream. Every
    /// reading of the path counts, as for routes: if one is covered, the 401 may be the upstream's
    /// own.
    pub fn passes_401(&self, target: &str) -> bool {
        if self.passes_401.is_empty() {
            return false;
        }
        let raw = path::without_query(target);
        let covered = |path: &str| {
            let mut own = self.passes_401.iter();
            own.any(|own| self.has_prefix(own, path))
        };
        // An ambiguous path is refused before it is sent.
        let readings = path::readings(raw).unwrap_or_default();
        covered(raw) || readings.iter().any(|reading| covered(reading))
    }

    fn has_prefix(&self, prefix: &str, path: &str) -> bool {
        let Some((begin, rest)) = path.as_bytes().split_at_checked(prefix.len()) else {
            return false;
        };
        let matches = if self.case_insensitive_path {
            begin.eq_ignore_ascii_case(prefix.as_bytes())
        } else {
            begin == prefix.as_bytes()
        };
        matches && (rest.is_empty() || prefix.ends_with('/') || rest.starts_with(b"/"))
    }

    /// Why the route does not match a request; `None` if it does. `host` comes from [`host_name`];
    /// `path` has no query.
    pub fn mismatch(&self, host: &str, path: &str, method: &Method) -> Option<Mismatch> {
        if self
            .host
            .as_deref()
            .is_some_and(|expected| expected != host)
        {
            Some(Mismatch::Host)
        } else if !self.covers(path) {
            Some(Mismatch::Path)
        } else if !self.matches_method(method) {
            Some(Mismatch::Method)
        } else {
            None
        }
    }

    /// Whether callers send a username and password, which the source verifies.
    pub fn takes_password(&self) -> bool {
        self.source.as_ref().is_some_and(|s| s.takes_password())
    }

    /// Whether the page that sent a request with these fields may send the user's cookies along, as
    /// the route's `cors` says. A page of the route's own origin is not asked about: browsers send its
    /// cookies in any case.
    pub fn allows_credentials_of(&self, headers: &dyn HeaderFields) -> bool {
        let cors = self.cors.as_ref();
        cors.is_some_and(|cors| cors.allows_credentials(headers))
    }

    /// Some servers accept methods in any case (RFC 9110 §9.1 does not), so none gets a request to
    /// a laxer route.
    fn matches_method(&self, method: &Method) -> bool {
        let same = |own: &Method| own.as_str().eq_ignore_ascii_case(method.as_str());
        self.methods
            .as_ref()
            .is_none_or(|methods| methods.iter().any(same))
    }
}

impl Rejection {
    /// Adapts the challenges to `route`.
    #[must_use]
    pub fn for_route(mut self, route: &Route) -> Self {
        self.basic_challenge = route.takes_password();
        self
    }
}

/// The part of a request that a route does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The route is for another host.
    Host,
    /// The path does not have the prefix.
    Path,
    /// The route is for other methods.
    Method,
}

/// All routes, matched by host, path and method.
#[derive(Debug, Default)]
pub struct RouteTable {
    by_host: HashMap<String, Vec<Arc<Route>>>,
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
        for route in routes {
            match &route.host {
                Some(host) => table.by_host.entry(host.clone()).or_default().push(route),
                None => table.any_host.push(route),
            }
        }
        table
    }

    /// The route for a request: routes for its host take precedence over those for any host,
    /// then the longest prefix wins. `host` may have a port; `target` is the raw path and query.
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
    pub(super) fn find_for_any_method(
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
    pub(super) fn is_behind_shortcut(&self, host: &str, target: &str, method: &Method) -> bool {
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
        for_host
            .iter()
            .chain(&self.any_host)
            .find(|route| matches(route, host, path))
    }

    /// Whether any route has `cors`.
    pub(super) fn have_cors(&self) -> bool {
        self.have_cors
    }

    /// Whether any route has `bewit = true`.
    pub fn has_bewit_route(&self) -> bool {
        self.bewit_isolation.is_some()
    }

    /// Which requests to `/bewit` are refused if a web page sent them, whatever they ask for.
    pub(super) fn bewit_isolation(&self) -> Isolation {
        self.bewit_isolation.unwrap_or_default()
    }

    /// Whether any route is for this host, which may have a port.
    pub(super) fn names_host(&self, host: &str) -> bool {
        self.by_host.contains_key(&*host_name(host))
    }

    /// All routes, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_host.values().flatten().chain(&self.any_host)
    }
}

fn weakest_isolation(routes: &[Arc<Route>]) -> Option<Isolation> {
    let bewit = routes.iter().filter(|route| route.compat.bewit);
    bewit.map(|route| route.isolation).min()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::SharedClock;
    use crate::credential::{CacheLimits, CredentialSource, SourceOptions};

    /// An upstream that is never contacted.
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
            addresses: UpstreamAddresses::fixed(Vec::new()),
            clock: UpstreamClock::default(),
        }
    }

    /// A source that caches the credentials that `inner` fetches.
    pub(in crate::gateway) fn source(
        inner: Arc<dyn CredentialSource>,
        clock: SharedClock,
    ) -> Arc<CachedSource> {
        let options = SourceOptions {
            limits: CacheLimits {
                max_entries: 10,
                max_bytes: 1 << 20,
                max_age: Duration::from_hours(1),
                refresh_ahead: Duration::ZERO,
                refusals: Duration::from_secs(10),
            },
            timeout: Duration::from_secs(5),
            concurrency: 4,
        };
        Arc::new(CachedSource::new("test".into(), inner, options, clock).unwrap())
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
            case_insensitive_path: false,
            methods: methods.map(<[_]>::to_vec),
            upstream: Arc::new(upstream()),
            issuers: vec![],
            session: None,
            source: None,
            stripped_headers: StrippedHeaders::default(),
            require_scopes: vec![],
            passes_401: vec![],
            refused_scopes: RefusalLog::default(),
            anonymous: true,
            workload_token: None,
            isolation: Isolation::Off,
            cors: None,
            rules: None,
            rates: RateLimiters::default(),
            retry: None,
            upgrade_expiry: UpgradeExpiry::default(),
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
