//! Routes.

mod table;

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};

use super::cors::Cors;
use super::header_edits::HeaderEdits;
use super::host::{HostPattern, host_name};
use super::path;
use super::path_rewrite::PathRewrite;
use super::rate_limit::RateLimiters;
use super::rejection::Rejection;
use super::request_headers::StrippedHeaders;
use super::rule::Rules;
use super::scopes_refusal::RefusalLog;
use super::session::Session;
use super::upstream_addresses::UpstreamAddresses;
use super::upstream_clock::UpstreamClock;
use super::upstream_retry::UpstreamRetry;
use crate::credential::CachedSource;
use crate::header_fields::HeaderFields;
use crate::network::ProxyEndpoint;
use crate::token::{Issuer, WorkloadToken};
pub use table::{NoRoute, RouteTable};

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
    /// CAs to trust beside the platform's, in PEM, if `ca` is `None`.
    pub additional_ca: Option<Arc<[u8]>>,
    /// The outgoing proxy through which it is reached; `addresses` are then the proxy's.
    pub proxy: Option<ProxyEndpoint>,
    /// Whether to offer HTTP/2 (ALPN, with TLS) or to use it (prior knowledge, without).
    pub http2: bool,
    /// Time limits.
    pub timeouts: UpstreamTimeouts,
    /// The resolved addresses, refreshed in the background and when none can be connected to.
    pub addresses: UpstreamAddresses,
    /// Its clock, learnt from `Date`.
    pub clock: UpstreamClock,
}

impl Upstream {
    /// The host and port that connections are opened to: the outgoing proxy's, or its own.
    pub fn next_hop(&self) -> (&str, u16) {
        match &self.proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&self.host, self.port),
        }
    }
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
    /// Matches only these hosts; any if empty.
    pub hosts: Vec<HostPattern>,
    /// Path prefix beginning with `/`; matches whole segments.
    pub path: String,
    /// Whether the upstream ignores the case of paths, so that the prefix matches in any case.
    pub case_insensitive_path: bool,
    /// Matches only these methods; `None` matches any.
    pub methods: Option<Vec<Method>>,
    /// How the path is changed that is sent upstream; `None` if it is sent as received.
    pub rewrite: Option<PathRewrite>,
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
    /// What is changed in the headers that are forwarded upstream.
    pub request_headers: HeaderEdits,
    /// What is changed in the headers of the upstream's responses.
    pub response_headers: HeaderEdits,
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

    /// Whether the route names this host, which may have a port. A wildcard names none: the owner of
    /// any name below its domain may let that resolve to this machine.
    pub(super) fn names_host(&self, host: &str) -> bool {
        let name = host_name(host);
        self.hosts.iter().any(|own| own.exact() == Some(&*name))
    }

    /// Why the route does not match a request; `None` if it does. `host` comes from [`host_name`];
    /// `path` has no query.
    pub fn mismatch(&self, host: &str, path: &str, method: &Method) -> Option<Mismatch> {
        if !self.hosts.is_empty() && !self.hosts.iter().any(|own| own.covers(host)) {
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
            additional_ca: None,
            proxy: None,
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
            hosts: host.into_iter().map(HostPattern::new).collect(),
            path: path.into(),
            case_insensitive_path: false,
            methods: methods.map(<[_]>::to_vec),
            rewrite: None,
            upstream: Arc::new(upstream()),
            issuers: vec![],
            session: None,
            source: None,
            stripped_headers: StrippedHeaders::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
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
}
