//! Which requests go where, and what they need.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Method};

use crate::credential::Source;
use crate::token::{BearerToken, Issuer};

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
    /// PEM file with the only CAs trusted here; the platform's when `None`.
    pub ca: Option<std::path::PathBuf>,
    /// Whether HTTP/2 may be (`true` with ALPN over TLS) or is (prior knowledge, plaintext) spoken.
    pub http2: bool,
    /// Time limits.
    pub timeouts: UpstreamTimeouts,
    /// Its addresses, kept fresh in the background; empty until first resolved.
    pub addresses: ArcSwap<Vec<SocketAddr>>,
    /// Milliseconds to add to our clock to get this upstream's, learnt from `Date`.
    pub clock_offset: AtomicI64,
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

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Its configured name.
    pub name: Arc<str>,
    /// Only this host (lower case, no port), or any.
    pub host: Option<String>,
    /// Path prefix, beginning with `/`.
    pub path: String,
    /// Only these methods, or any.
    pub methods: Option<Vec<Method>>,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// Whose tokens are accepted.
    pub issuers: Vec<Arc<Issuer>>,
    /// What they are swapped for; `None` forwards without credentials.
    pub source: Option<Arc<Source>>,
    /// Scopes that the bearer must have.
    pub require_scopes: Vec<String>,
    /// Whether callers need no token (loopback and Unix sockets only).
    pub anonymous: bool,
    /// The token that stands in when the caller sends none.
    pub workload_token: Option<Arc<WorkloadToken>>,
}

/// A token kept in a file by somebody else, re-read in the background when it changes.
#[derive(Debug)]
pub struct WorkloadToken {
    /// The file, for messages.
    pub path: std::path::PathBuf,
    /// What it held last, if it could be read and looked like a token.
    pub current: ArcSwap<Option<BearerToken>>,
}

/// Every route, for look-up by host, path and method.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
}

impl RouteTable {
    /// Orders `routes` for look-up: with a host before without, longer prefixes first.
    pub fn new(mut routes: Vec<Arc<Route>>) -> Self {
        routes.sort_by_key(|r| (r.host.is_none(), std::cmp::Reverse(r.path.len())));
        Self { routes }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }
}
