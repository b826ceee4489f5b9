//! A valid configuration: every default filled in, every reference checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use url::Url;

use super::diagnostic::quoted;
use super::named_file::NamedFile;
use crate::credential::{CacheLimits, Inject};
use crate::gateway::rate_limit::Rate;
use crate::log::settings::Log;
use crate::proxy::settings::{Address, Limits, Listener};
use crate::remote::settings::{Auth0Identity, IntrospectionEndpoint, OauthClient, PasswordGrant};
use crate::token::settings::{IntrospectionIssuer, OidcIssuer, SharedSecretIssuer};
use crate::trace::settings::Trace;

use crate::gateway::route::Compat;
use crate::gateway::route::UpstreamTimeouts;
use crate::gateway::rule::Effect;
use crate::secret::SecretRef;

/// A whole valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[[issuer]]`, in file order.
    pub issuers: Vec<Issuer>,
    /// `[[source]]`, in file order.
    pub sources: Vec<Source>,
    /// `[[route]]`, in file order.
    pub routes: Vec<Route>,
    /// `[[rule]]`, in file order.
    pub rules: Vec<Rule>,
    /// `[login]`, if it is there.
    pub login: Option<Login>,
    /// `[limits]`
    pub limits: Limits,
    /// `limits.rate`: for one client on all routes together; unlimited when `None`.
    pub rate: Option<Rate>,
    /// `[cache]`
    pub cache: CacheLimits,
    /// `[log]`
    pub log: Log,
    /// `[trace]`, if it is there.
    pub trace: Option<Trace>,
    /// Every file that it names, except those that are reread whenever they are needed.
    pub files: Vec<NamedFile>,
}

impl Config {
    /// The files that the `[[kind]]` called `name` names.
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
    /// Where callers connect; at least one.
    pub listen: Vec<Listener>,
    /// Where operators connect.
    pub admin: Address,
    /// How long in-flight requests may take to finish after a signal.
    pub drain: Duration,
    /// How long readiness is false before listeners close.
    pub drain_delay: Duration,
    /// After this time `/startupz` is true even if an issuer's keys could not be fetched.
    pub startup_grace: Duration,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
}

/// `[[issuer]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Issuer {
    /// Unique among issuers.
    pub name: Arc<str>,
    /// Its kind with the kind's keys.
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
    /// How its answers are checked.
    pub issuer: IntrospectionIssuer,
    /// Where they come from, and hawkgate's client there.
    pub endpoint: IntrospectionEndpoint,
}

/// `[[source]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Unique among sources.
    pub name: Arc<str>,
    /// Its kind as written: `taskcluster-login`, ….
    pub kind_name: &'static str,
    /// Its kind with the kind's keys.
    pub kind: SourceKind,
    /// For one exchange, all attempts.
    pub timeout: Duration,
    /// Most concurrent exchanges.
    pub concurrency: usize,
    /// PEM file with the only CAs trusted for the exchange; the platform's when `None`.
    pub ca: Option<PathBuf>,
    /// Where bearer credentials go upstream.
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
        /// The deployment's root URL, without path.
        root_url: Url,
    },
    /// Named temporary credentials made here.
    TaskclusterMint {
        /// The issuing client.
        client_id: String,
        /// Its key.
        access_token: SecretRef,
        /// The name's template over claims, checked: `"sso/{sub}"`.
        client_name: String,
        /// What each certificate grants.
        scopes: Vec<String>,
        /// How long each certificate is valid; at most 31 days.
        lifetime: Duration,
    },
    /// One fixed client.
    TaskclusterStatic {
        /// The client.
        client_id: String,
        /// Its key.
        access_token: SecretRef,
        /// For temporary credentials.
        certificate: Option<SecretRef>,
        /// Restricts every request to these scopes; `Some([])` is none.
        authorized_scopes: Option<Vec<String>>,
        /// Whether `PUT /credentials` on the admin listener replaces them. That listener is
        /// loopback or a Unix socket then: checked.
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
        /// The server's default when empty.
        scopes: Vec<String>,
        /// Auth0's organization.
        organization: Option<String>,
    },
    /// Another token for the caller (RFC 8693).
    TokenExchange {
        /// The token endpoint.
        token_url: Url,
        /// hawkgate's client there.
        client: OauthClient,
        /// The `audience` parameter.
        audience: Option<String>,
        /// The `resource` parameter (RFC 8707).
        resource: Option<String>,
        /// The server's default when empty.
        scopes: Vec<String>,
        /// The server's default when `None`.
        requested_token_type: Option<String>,
        /// The type of callers' tokens.
        subject_token_type: String,
    },
    /// The identity provider's own access token of the user.
    Auth0Identity(Box<Auth0Identity>),
    /// A token obtained with the caller's username and password.
    Password(Box<PasswordGrant>),
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique among routes.
    pub name: Arc<str>,
    /// Lower case, no port; any host when `None`.
    pub host: Option<String>,
    /// Prefix, beginning with `/`.
    pub path: String,
    /// Any when `None`.
    pub methods: Option<Vec<Method>>,
    /// Where requests go.
    pub upstream: Upstream,
    /// Indices into [`Config::issuers`].
    pub issuers: Vec<usize>,
    /// Index into [`Config::sources`].
    pub source: Option<usize>,
    /// Scopes that the bearer must have.
    pub require_scopes: Vec<String>,
    /// No token needed. With a source, every listener is loopback or a Unix socket: checked.
    pub anonymous: bool,
    /// The file whose token stands in when the caller sends none. Every listener is loopback
    /// or a Unix socket then: checked.
    pub workload_token: Option<PathBuf>,
    /// Rate limit of each client on this route; unlimited when `None`.
    pub rate: Option<Rate>,
    /// Features of taskcluster-proxy that the route has.
    pub compat: Compat,
}

/// `[[rule]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique among rules.
    pub name: Arc<str>,
    /// A CEL expression that compiles.
    pub when: String,
    /// What happens when it matches.
    pub effect: Effect,
    /// Restricts the source's credentials to these scopes; `Some([])` is none.
    pub scopes: Option<Vec<String>>,
    /// Headers that a rule may set, each with an expression that compiles.
    pub headers: Vec<(String, String)>,
    /// Indices into [`Config::routes`]; every route when `None`.
    pub routes: Option<Vec<usize>>,
    /// Whether it applies to `[login]`.
    pub login: bool,
}

impl Rule {
    /// Whether it applies to the route with this index.
    pub fn concerns(&self, route: usize) -> bool {
        self.routes
            .as_ref()
            .is_none_or(|routes| routes.contains(&route))
    }
}

/// The upstream of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// https.
    pub tls: bool,
    /// Lower case, no brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The port that the service puts into the MAC; `port` unless overridden.
    pub signed_port: u16,
    /// PEM file with the only CAs trusted.
    pub ca: Option<PathBuf>,
    /// Whether HTTP/2 may be spoken upstream.
    pub http2: bool,
    /// Time limits.
    pub timeouts: UpstreamTimeouts,
}

/// `[login]`
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    /// Index into [`Config::sources`] of one of kind `taskcluster-mint`: checked.
    pub source: usize,
    /// Indices into [`Config::issuers`]; at least one, none of them delegated: checked.
    pub issuers: Vec<usize>,
    /// Scopes that the bearer must have.
    pub require_scopes: Vec<String>,
    /// Origins of browser applications, as browsers write them; `*` alone is any.
    pub allowed_origins: Vec<String>,
    /// How long the credentials are valid, at most; 1 minute to 30 days.
    pub lifetime: Duration,
}
