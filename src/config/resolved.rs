//! What a valid file means: plain data, every default filled in, every reference checked.

mod auth0;
mod oauth;

pub use auth0::{Auth0Identity, PasswordGrant, Via};
pub use oauth::{AssertionKey, ClientProof, OauthClient};

mod observe;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use url::Url;

pub use crate::credential::Inject;

use super::diagnostic::quoted;
use crate::credential::CacheLimits;
pub use crate::gateway::rate::Rate;
use crate::gateway::route::{Compat, UpstreamTimeouts};
use crate::gateway::rule::Effect;
use crate::secret::SecretRef;

pub use observe::{AUDIT_LEVEL, IncomingTrace, Log, LogFormat, Trace, TraceExport};

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
    /// `[cache]`
    pub cache: CacheLimits,
    /// `[log]`
    pub log: Log,
    /// `[trace]`, if it is there.
    pub trace: Option<Trace>,
    /// Every file that it names, but for those that are read anew anyway.
    pub files: Vec<NamedFile>,
}

/// A file that a configuration names: a secret, keys, a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The table that names it: `[server]`, `source "login"`.
    pub table: String,
    /// The key's path inside the table: `access_token.file`.
    pub key: String,
    /// As the process can open it.
    pub path: PathBuf,
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
    /// After this time `/startupz` is true even if an issuer's keys never came.
    pub startup_grace: Duration,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
}

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// Mode of a Unix socket; 0600 unless set.
    pub mode: u32,
    /// TLS with ALPN h2 and http/1.1, if set.
    pub tls: Option<ListenerTls>,
    /// HTTP/2 without TLS by prior knowledge, and nothing else, on this listener.
    pub h2c: bool,
    /// Who may connect.
    pub access: ListenerAccess,
}

impl Listener {
    /// Whether only this machine (or pod) can send requests here: at a local address, and
    /// no proxy brings them from elsewhere.
    pub fn is_local(&self) -> bool {
        self.address.is_local() && self.access.proxies.is_none()
    }
}

/// Who may connect to a listener, whoever every list that is there names; and who may say
/// for whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerAccess {
    /// Only peers with an address in one of these. TCP only: checked.
    pub networks: Option<Vec<IpNet>>,
    /// Only processes of these users, by name or number. Loopback and Unix sockets only:
    /// checked.
    pub users: Option<Vec<String>>,
    /// Proxies in front. TCP only: checked.
    pub proxies: Option<TrustedProxies>,
}

/// Proxies that are believed what they say of their clients.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedProxies {
    /// Where they connect from; at least one.
    pub networks: Vec<IpNet>,
    /// Whether each connection begins with a PROXY header; others are refused then.
    pub proxy_protocol: bool,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// PEM CAs; when set, callers are asked for a certificate of one.
    pub client_ca: Option<PathBuf>,
    /// Whether they must present one.
    pub client_auth: ClientAuth,
}

/// `tls.client_auth`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Who presents no certificate cannot connect.
    #[default]
    Required,
    /// Who presents none can; one that is presented must be good.
    Optional,
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
    /// JWTs signed with a secret that hawkgate holds too.
    SharedSecret(Box<SharedSecretIssuer>),
    /// Opaque tokens that the issuer is asked about.
    Introspection(Box<IntrospectionIssuer>),
    /// Opaque tokens that the route's source proves.
    Delegated,
}

/// An `oidc` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct OidcIssuer {
    /// The exact `iss`.
    pub url: String,
    /// Where its keys are.
    pub keys: KeyLocation,
    /// PEM file with the only CAs trusted when they are fetched; the platform's when `None`.
    pub ca: Option<PathBuf>,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Accepted algorithms; never HS*, never none.
    pub algorithms: Vec<Algorithm>,
    /// Which rules apply to `typ` and claims.
    pub profile: Profile,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted `client_id`/`azp`, or any.
    pub clients: Option<Vec<String>>,
    /// Accepted `sub` patterns (`*` matches anything, at any place), or any.
    pub subjects: Option<Vec<String>>,
    /// Longest a verified token is remembered.
    pub verified_max_age: Duration,
}

/// A `shared-secret` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedSecretIssuer {
    /// The exact `iss`.
    pub url: String,
    /// The secret; long enough for each of the algorithms.
    pub secret: SecretRef,
    /// How the secret is written.
    pub encoding: SecretEncoding,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Accepted algorithms, all of [`Algorithm::HMAC`].
    pub algorithms: Vec<Algorithm>,
    /// Which rules apply to `typ` and claims.
    pub profile: Profile,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted `client_id`/`azp`, or any.
    pub clients: Option<Vec<String>>,
    /// Accepted `sub` patterns, or any.
    pub subjects: Option<Vec<String>>,
    /// Longest a verified token is remembered.
    pub verified_max_age: Duration,
}

/// `issuer.secret_encoding`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    /// The text's own bytes.
    Text,
    /// base64 in either alphabet, padded or not.
    Base64,
}

/// An `introspection` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct IntrospectionIssuer {
    /// The exact `iss`, where an answer has one.
    pub url: String,
    /// The introspection endpoint.
    pub introspection_url: Url,
    /// Who hawkgate is there.
    pub client: OauthClient,
    /// PEM file with the only CAs trusted for the endpoint; the platform's when `None`.
    pub ca: Option<PathBuf>,
    /// What its tokens begin with, if they have something of their own.
    pub token_prefix: Option<String>,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted `client_id`/`azp`, or any.
    pub clients: Option<Vec<String>>,
    /// Accepted `sub` patterns, or any.
    pub subjects: Option<Vec<String>>,
    /// Longest an answer is remembered; at most 60s.
    pub verified_max_age: Duration,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// At the `jwks_uri` of its metadata.
    Discovery,
    /// At this URL.
    Url(Url),
    /// In this file.
    File(PathBuf),
}

/// Signature algorithms by their JOSE names (RFC 7518, RFC 8037, RFC 9864).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    Ed25519,
    /// With a shared secret; never among [`Algorithm::ALL`].
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    /// Every asymmetric algorithm supported: the default list.
    pub const ALL: &'static [Self] = &[
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
        Self::Ed25519,
    ];

    /// Those that need a secret shared with the issuer: for the kind `shared-secret` alone.
    pub const HMAC: &'static [Self] = &[Self::HS256, Self::HS384, Self::HS512];

    /// The size of an HMAC's hash, which is the least that its secret may have, in bytes
    /// (RFC 7518 §3.2); 0 for the others.
    pub const fn hmac_bytes(self) -> usize {
        match self {
            Self::HS256 => 32,
            Self::HS384 => 48,
            Self::HS512 => 64,
            _ => 0,
        }
    }

    /// The JOSE name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }
}

/// `issuer.profile`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 9068 access tokens: `typ` is `at+jwt`.
    Rfc9068,
    /// Auth0 access tokens: `typ` is `JWT`; ID tokens refused.
    Auth0,
    /// Machines' identities: any `typ`; `subjects` required.
    Workload,
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
    /// Exchanges under way at once.
    pub concurrency: usize,
    /// PEM file with the only CAs trusted for the exchange; the platform's when `None`.
    pub ca: Option<PathBuf>,
    /// Where bearer credentials go upstream.
    pub inject: Inject,
}

/// `source.kind`
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// The oidcCredentials endpoint (seed 000).
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
        /// Narrows every call; `Some([])` is no scopes.
        authorized_scopes: Option<Vec<String>>,
        /// Whether `PUT /credentials` on the admin listener replaces them. That listener is
        /// loopback or a Unix socket then: checked.
        credentials_update: bool,
    },
    /// A token of hawkgate's own OAuth2 client.
    ClientCredentials {
        /// The token endpoint.
        token_url: Url,
        /// Who hawkgate is there.
        client: OauthClient,
        /// Whom the token is for.
        audience: Option<String>,
        /// Whom the token is for by RFC 8707.
        resource: Option<String>,
        /// Empty: what the server gives by itself.
        scopes: Vec<String>,
        /// Auth0's organization.
        organization: Option<String>,
    },
    /// Another token of the caller's own (RFC 8693).
    TokenExchange {
        /// The token endpoint.
        token_url: Url,
        /// Who hawkgate is there.
        client: OauthClient,
        /// Whom the token is for.
        audience: Option<String>,
        /// Whom the token is for by RFC 8707.
        resource: Option<String>,
        /// Empty: what the server gives by itself.
        scopes: Vec<String>,
        /// The server's choice when `None`.
        requested_token_type: Option<String>,
        /// What callers' tokens are.
        subject_token_type: String,
    },
    /// The identity provider's own access token of the user (seed 001).
    Auth0Identity(Box<Auth0Identity>),
    /// A token had with the caller's username and password (seed 003).
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
    /// Where to.
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
    /// How often one client may ask on this route; unlimited when `None`.
    pub rate: Option<Rate>,
    /// What taskcluster-proxy does and hawkgate does on demand.
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
    /// Narrows what the source would give; `Some([])` is no scopes.
    pub scopes: Option<Vec<String>>,
    /// Headers that a rule may set, each with an expression that compiles.
    pub headers: Vec<(String, String)>,
    /// Indices into [`Config::routes`]; every route when `None`.
    pub routes: Option<Vec<usize>>,
    /// Whether it concerns `[login]`.
    pub login: bool,
}

impl Rule {
    /// Whether it concerns the route with this index.
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

/// `[limits]`
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Request head, bytes.
    pub header_bytes: usize,
    /// Request target, bytes.
    pub url_bytes: usize,
    /// For the whole head.
    pub header_timeout: Duration,
    /// Between two reads of a request body, and for one write to a caller.
    pub body_timeout: Duration,
    /// An idle caller's connection is closed after this.
    pub keepalive_timeout: Duration,
    /// Open connections.
    pub connections: usize,
    /// Request body, bytes; unlimited when `None`.
    pub body: Option<u64>,
    /// Request bodies up to this many bytes can be replayed.
    pub replay_body: usize,
    /// Bytes kept for replay, all requests together.
    pub replay_memory: usize,
    /// How often one client may ask, all routes together; unlimited when `None`.
    pub rate: Option<Rate>,
}
