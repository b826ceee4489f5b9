//! A valid configuration: every default is filled in, and every reference is resolved.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use url::Url;

use super::diagnostic::quoted;
use super::named_file::NamedFile;
use crate::credential::static_secret::StaticSecretSettings;
use crate::credential::{CacheLimits, Inject};
use crate::gateway::cors::{AllowedOrigins, CorsSettings};
use crate::gateway::forward_auth::ProxyKind;
use crate::gateway::rate_limit::Rate;
use crate::log::settings::Log;
use crate::network::Network;
use crate::proxy::settings::{Address, Limits, Listener};
use crate::remote::settings::{
    Auth0Identity, IntrospectionEndpoint, OauthClient, OidcProviderSettings, PasswordGrant,
    TaskclusterProviderSettings,
};
use crate::remote::shared_store::settings::SharedStoreSettings;
use crate::token::settings::{IntrospectionIssuer, OidcIssuer, SharedSecretIssuer};
use crate::trace::settings::Trace;

use crate::gateway::header_edits::HeaderEdits;
use crate::gateway::host::HostPattern;
use crate::gateway::path_rewrite::PathRewrite;
use crate::gateway::request_headers::StrippedHeaders;
use crate::gateway::route::UpstreamTimeouts;
use crate::gateway::route::{Compat, UpgradeExpiry};
use crate::gateway::rule::Effect;
use crate::gateway::upstream_retry::RetryPolicy;
use crate::secret::SecretRef;
use crate::session::settings::SessionSettings;

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[[issuer]]`, in file order.
    pub issuers: Vec<Issuer>,
    /// `[[source]]`, in file order.
    pub sources: Vec<Source>,
    /// `[[session]]`, in file order.
    pub sessions: Vec<Session>,
    /// `[[route]]`, in file order.
    pub routes: Vec<Route>,
    /// `[[rule]]`, in file order.
    pub rules: Vec<Rule>,
    /// `[login]`, if present.
    pub login: Option<Login>,
    /// `[[forward_auth]]`, in file order. Their listeners are among [`Server::listen`].
    pub forward_auth: Vec<ForwardAuth>,
    /// `[limits]`
    pub limits: Limits,
    /// `limits.token_bytes`.
    pub max_token_bytes: usize,
    /// `limits.rate`, for each client over all routes together; `None` for no limit.
    pub rate: Option<Rate>,
    /// `[cache]`
    pub cache: CacheLimits,
    /// `[log]`
    pub log: Log,
    /// `[network]`, with what the environment says about outgoing proxies.
    pub network: Network,
    /// `[shared]`, if present.
    pub shared: Option<Shared>,
    /// `[trace]`, if present.
    pub trace: Option<Trace>,
    /// Every referenced file, except those that are reread whenever they are used.
    pub files: Vec<NamedFile>,
}

impl Config {
    /// Indices into [`Self::issuers`] of those whose tokens `route` accepts, from bearers or in sessions.
    pub fn issuers_of<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = usize> + 'a {
        let session = route.session.and_then(|index| self.sessions.get(index));
        let issuer = session.and_then(Session::issuer);
        let issuer = issuer.filter(|issuer| !route.issuers.contains(issuer));
        route.issuers.iter().copied().chain(issuer)
    }

    /// The files that `[network]` references, on which every connection to another machine depends.
    pub fn network_files(&self) -> impl Iterator<Item = &Path> {
        let files = self.files.iter().filter(|file| file.table == "[network]");
        files.map(|file| file.path.as_path())
    }

    /// The files that `[shared]` references.
    pub fn shared_files(&self) -> impl Iterator<Item = &Path> {
        let files = self.files.iter().filter(|file| file.table == "[shared]");
        files.map(|file| file.path.as_path())
    }

    /// The files that the table `[[kind]]` with this name references.
    pub fn files_of<'a>(
        &'a self,
        kind: &str,
        name: &str,
    ) -> impl Iterator<Item = &'a Path> + use<'a> {
        let table = format!("{kind} {}", quoted(name));
        self.files
            .iter()
            .filter(move |file| file.table == table)
            .map(|file| file.path.as_path())
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// The listeners for callers, of which there is at least one, and then those of `[[forward_auth]]`.
    pub listen: Vec<Listener>,
    /// The address of the admin listener; `None` if there is none.
    pub admin: Option<Address>,
    /// How long in-flight requests may take to finish after SIGTERM.
    pub drain: Duration,
    /// How long `/readyz` is false before the listeners close.
    pub drain_delay: Duration,
    /// After this time `/startupz` is true even if an issuer's keys could not be fetched.
    pub startup_grace: Duration,
    /// Further host names of this machine; see [`crate::gateway::resource_isolation`].
    pub local_hosts: Vec<String>,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
}

/// `[[issuer]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Issuer {
    /// Unique among issuers.
    pub name: Arc<str>,
    /// The kind with its keys.
    pub kind: IssuerKind,
}

/// `issuer.kind`
#[derive(Clone, Debug, PartialEq)]
pub enum IssuerKind {
    /// Signed JWTs.
    Oidc(Box<OidcIssuer>),
    /// JWTs signed with a shared secret.
    SharedSecret(Box<SharedSecretIssuer>),
    /// Opaque tokens that are introspected at the issuer.
    Introspection(Box<Introspection>),
    /// Opaque tokens that only the route's source checks.
    Delegated,
}

/// An `introspection` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct Introspection {
    /// How its responses are checked.
    pub issuer: IntrospectionIssuer,
    /// The endpoint, and hawkgate's client there.
    pub endpoint: IntrospectionEndpoint,
}

/// `[[source]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Unique among sources.
    pub name: Arc<str>,
    /// The kind's name in the file: `taskcluster-login`, ….
    pub kind_name: &'static str,
    /// The kind with its keys.
    pub kind: SourceKind,
    /// The time limit for one exchange, all attempts together.
    pub timeout: Duration,
    /// The limit of concurrent exchanges.
    pub concurrency: usize,
    /// PEM file with the only CAs trusted for the exchange; the platform's when `None`.
    pub ca: Option<PathBuf>,
    /// The header that carries bearer credentials upstream.
    pub inject: Inject,
}

/// `source.kind`
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Taskcluster's oidcCredentials endpoint.
    TaskclusterLogin {
        /// The endpoint itself.
        url: Url,
    },
    /// web-server's `/login/oauth/credentials`.
    TaskclusterOauth {
        /// The deployment's root URL, without a path.
        root_url: Url,
    },
    /// Named temporary credentials that hawkgate creates.
    TaskclusterMint {
        /// The issuing client.
        client_id: String,
        /// Its access token.
        access_token: SecretRef,
        /// A valid template over claims for the client's name: `"sso/{sub}"`.
        client_name: String,
        /// The scopes that each certificate grants.
        scopes: Vec<String>,
        /// How long each certificate is valid; at most 31 days.
        lifetime: Duration,
    },
    /// One fixed client.
    TaskclusterStatic {
        /// The client.
        client_id: String,
        /// Its access token.
        access_token: SecretRef,
        /// The certificate, for temporary credentials.
        certificate: Option<SecretRef>,
        /// Restricts every request to these scopes; `Some([])` means none.
        authorized_scopes: Option<Vec<String>>,
        /// Whether `PUT /credentials` on the admin listener replaces them. If so, that listener is
        /// loopback or a Unix socket.
        credentials_update: bool,
    },
    /// A token for hawkgate's own OAuth2 client.
    ClientCredentials {
        /// The token endpoint.
        token_url: Url,
        /// hawkgate's client there.
        client: OauthClient,
        /// The `audience` parameter.
        audience: Option<String>,
        /// The `resource` parameter (RFC 8707).
        resource: Option<String>,
        /// The scopes to request; the server's default when empty.
        scopes: Vec<String>,
        /// The `organization` parameter (Auth0).
        organization: Option<String>,
    },
    /// Another token in exchange for the caller's (RFC 8693).
    TokenExchange {
        /// The token endpoint.
        token_url: Url,
        /// hawkgate's client there.
        client: OauthClient,
        /// The `audience` parameter.
        audience: Option<String>,
        /// The `resource` parameter (RFC 8707).
        resource: Option<String>,
        /// The scopes to request; the server's default when empty.
        scopes: Vec<String>,
        /// The type of the new token; the server's default when `None`.
        requested_token_type: Option<String>,
        /// The type of callers' tokens.
        subject_token_type: String,
    },
    /// The user's access token at an identity provider behind Auth0.
    Auth0Identity(Box<Auth0Identity>),
    /// A token obtained with the caller's username and password.
    Password(Box<PasswordGrant>),
    /// One fixed secret.
    Static(StaticSecretSettings),
}

/// `[[session]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// What the sessions themselves depend on.
    pub settings: SessionSettings,
    /// Whom users sign in with.
    pub provider: SessionProvider,
}

impl Session {
    /// Index into [`Config::issuers`] of the issuer that verifies the session's access tokens.
    pub fn issuer(&self) -> Option<usize> {
        match self.provider {
            SessionProvider::Oidc { issuer, .. } => Some(issuer),
            SessionProvider::Taskcluster(_) => None,
        }
    }
}

/// The provider of a session, by `session.kind`.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionProvider {
    /// An OpenID provider.
    Oidc {
        /// Index into [`Config::issuers`]; of kind `oidc` or `introspection`.
        issuer: usize,
        /// The provider and hawkgate's client there.
        settings: OidcProviderSettings,
    },
    /// A Taskcluster deployment's own OAuth2 server.
    Taskcluster(TaskclusterProviderSettings),
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique among routes.
    pub name: Arc<str>,
    /// The hosts that it is for; any when empty.
    pub hosts: Vec<HostPattern>,
    /// The path prefix, which begins with `/`.
    pub path: String,
    /// Whether the upstream ignores the case of paths.
    pub case_insensitive_path: bool,
    /// Any method except TRACE and CONNECT when `None`.
    pub methods: Option<Vec<Method>>,
    /// How the path is changed that is sent upstream.
    pub rewrite: Option<PathRewrite>,
    /// Where requests go.
    pub upstream: Upstream,
    /// Indices into [`Config::issuers`].
    pub issuers: Vec<usize>,
    /// Index into [`Config::sources`].
    pub source: Option<usize>,
    /// Index into [`Config::sessions`]. If its kind is `taskcluster`, there is no source.
    pub session: Option<usize>,
    /// The caller's headers that are not forwarded.
    pub stripped_headers: StrippedHeaders,
    /// What is changed in requests' headers.
    pub request_headers: HeaderEdits,
    /// What is changed in responses' headers.
    pub response_headers: HeaderEdits,
    /// The scopes that the token must have.
    pub require_scopes: Vec<String>,
    /// Path prefixes whose 401s are the upstream's own.
    pub passes_401: Vec<String>,
    /// Whether requests need no token. If so and there is a source, every listener is loopback or a
    /// Unix socket.
    pub anonymous: bool,
    /// The file with the token to use for requests without one. If set, every listener is loopback or
    /// a Unix socket.
    pub workload_token: Option<PathBuf>,
    /// Which pages of other origins may use the route; `None` without `cors`.
    pub cors: Option<CorsSettings>,
    /// Rate limit of each client on this route; `None` for no limit.
    pub rate: Option<Rate>,
    /// When upgraded connections end.
    pub upgrade_expiry: UpgradeExpiry,
    /// When a request is sent again because the upstream failed.
    pub retry: Option<RetryPolicy>,
    /// The features of taskcluster-proxy that are enabled.
    pub compat: Compat,
}

/// `[[rule]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique among rules.
    pub name: Arc<str>,
    /// A valid CEL expression.
    pub when: String,
    /// The effect when it matches.
    pub effect: Effect,
    /// Restricts the source's credentials to these scopes; `Some([])` means none.
    pub scopes: Option<Vec<String>>,
    /// The headers to set, each with a valid CEL expression for its value.
    pub headers: Vec<(String, String)>,
    /// Indices into [`Config::routes`]; every route when `None`.
    pub routes: Option<Vec<usize>>,
    /// Whether it applies to `[login]`.
    pub login: bool,
}

impl Rule {
    /// Whether the rule applies to the route with this index.
    pub fn applies_to(&self, route: usize) -> bool {
        self.routes
            .as_ref()
            .is_none_or(|routes| routes.contains(&route))
    }
}

/// The upstream of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Whether to use https.
    pub tls: bool,
    /// In lower case, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The port that the service computes the Hawk MAC with; `port` unless overridden.
    pub signed_port: u16,
    /// PEM file with the only CAs trusted for this upstream; the platform's when `None`.
    pub ca: Option<PathBuf>,
    /// Whether to offer HTTP/2.
    pub http2: bool,
    /// Time limits.
    pub timeouts: UpstreamTimeouts,
}

/// `[login]`
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    /// Index into [`Config::sources`]; of kind `taskcluster-mint`.
    pub source: usize,
    /// Indices into [`Config::issuers`]; at least one, none of them delegated.
    pub issuers: Vec<usize>,
    /// The scopes that the token must have.
    pub require_scopes: Vec<String>,
    /// Origins of browser applications; none if `None`.
    pub allowed_origins: Option<AllowedOrigins>,
    /// The longest validity of the credentials; 1 minute to 30 days.
    pub lifetime: Duration,
}

/// `[shared]`
#[derive(Clone, Debug, PartialEq)]
pub struct Shared {
    /// The store.
    pub store: SharedStoreSettings,
    /// The key of the fleet.
    pub key: SecretRef,
    /// The key that is accepted as well while keys are rotated.
    pub previous_key: Option<SecretRef>,
    /// Time limit for each operation; 5 ms to 1 s.
    pub timeout: Duration,
}

/// `[[forward_auth]]`
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardAuth {
    /// Unique among these tables.
    pub name: Arc<str>,
    /// The proxy that asks.
    pub kind: ProxyKind,
    /// Indices into [`Config::routes`]; each has issuers and a source.
    pub routes: Vec<usize>,
}

impl Upstream {
    /// Whether `other` is the same server, whatever its other settings.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}
