//! Builds the gateway from the configuration: its issuers, sources, rules and routes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::StartError;
use super::components::{Component, Components, IssuerBasis, SourceBasis, reuse_or_build, share};
use super::local_sources::{self, Updatable};
use super::observe::observe;
use crate::clock::SharedClock;
use crate::config::{self, Config, IssuerKind, SourceKind};
use crate::credential::{CacheLimits, CachedSource, CredentialSource, SourceOptions};
use crate::gateway::cors::{Cors, CorsPolicy};
use crate::gateway::login::Login;
use crate::gateway::rate_limit::RateLimiters;
use crate::gateway::resource_isolation::IsolationPolicy;
use crate::gateway::route::{Isolation, Route, RouteTable, Upstream};
use crate::gateway::rule::{Expression, Rule, Rules, header_name};
use crate::gateway::session::SessionTable;
use crate::gateway::upstream_addresses::UpstreamAddresses;
use crate::gateway::{Gateway, RefusalLog, UpstreamClock};
use crate::metrics::Metrics;
use crate::pem;
use crate::proxy::settings::Listener;
use crate::reload::Fingerprints;
use crate::remote::auth0_identity::IdentitySource;
use crate::remote::client_credentials::{ClientCredentialsSettings, ClientCredentialsSource};
use crate::remote::dns;
use crate::remote::http_client::{HttpClient, HttpClientOptions};
use crate::remote::introspection::{HttpIntrospector, introspection_client};
use crate::remote::key_fetcher::key_fetcher;
use crate::remote::oauth::Endpoint;
use crate::remote::password::{MAX_TOKEN_LIFETIME, PasswordSource};
use crate::remote::settings::{IntrospectionEndpoint, OauthClient};
use crate::remote::taskcluster_login::LoginSource;
use crate::remote::taskcluster_oauth::OauthSource;
use crate::remote::token_exchange::{TokenExchangeSettings, TokenExchangeSource};
use crate::token::{Issuer, WorkloadToken};

/// The maximum size of a response from an exchange, in bytes.
const MAX_EXCHANGE_RESPONSE_BYTES: usize = 64 * 1024;

/// Builds gateways that share a clock and a set of metrics.
pub(super) struct Builder<'a> {
    pub(super) clock: &'a SharedClock,
    pub(super) metrics: &'a Metrics,
    pub(super) purpose: Purpose,
}

/// What a gateway is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve requests.
    Serve,
    /// To explain them: no session is renewed at its provider, and its keys may be missing.
    Explain,
}

/// A gateway, and its stateful components, which background tasks keep fresh.
pub(super) struct Built {
    pub(super) gateway: Gateway,
    pub(super) components: Components,
}

impl Builder<'_> {
    /// Builds everything that `config` describes. Opens no connection.
    pub(super) fn build(&self, config: &Config) -> Result<Built, StartError> {
        let fingerprints = Fingerprints::of(config.files.iter().map(|file| file.path.as_path()));
        self.build_on(config, &fingerprints, &Components::default())
    }

    /// Like [`Self::build`], keeping the components of `previous` whose settings are unchanged, with
    /// their keys, caches and addresses. `fingerprints` cover every file that `config` refers to and
    /// were taken before this reads any of them.
    pub(super) fn build_on(
        &self,
        config: &Config,
        fingerprints: &Fingerprints,
        previous: &Components,
    ) -> Result<Built, StartError> {
        reject_exposed_password_routes(config)?;
        let mut components = Components {
            issuers: self.issuers(config, fingerprints, previous)?,
            updatable: local_sources::updatable(&config.sources)?,
            ..Components::default()
        };
        components.sources = self.sources(config, fingerprints, previous, &components.updatable)?;
        components.carry_over_updates(previous);
        let issuers: Vec<_> = components.issuers().cloned().collect();
        let sources: Vec<_> = components.sources().cloned().collect();
        let rules = build_all(&config.rules, rule)?;
        let rules_where = |applies: &dyn Fn(&config::Rule) -> bool| {
            let pairs = config.rules.iter().zip(&rules);
            let selected = pairs.filter(|(written, _)| applies(written));
            Rules::new(selected.map(|(_, rule)| Arc::clone(rule)).collect())
        };
        // Shared by all routes.
        let common = match &config.rate {
            Some(rate) => Some(components.rate(None, *rate, previous, self.clock)?),
            None => None,
        };
        components.sessions = self.sessions(config, fingerprints, previous, &issuers)?;
        let sessions = self.gateway_sessions(config, &mut components, previous, common.as_ref());
        let login = match &config.login {
            Some(login) => {
                let rules = rules_where(&|rule| rule.login);
                let mut login = self.login(login, config, &issuers, rules)?;
                login.rates = RateLimiters::new(common.iter().cloned().collect());
                Some(login)
            }
            None => None,
        };
        let mut routes = Vec::new();
        for (index, route) in config.routes.iter().enumerate() {
            let upstream =
                components.upstream(&route.upstream, fingerprints, previous, upstream)?;
            let own = match &route.rate {
                Some(rate) => {
                    Some(components.rate(Some(&route.name), *rate, previous, self.clock)?)
                }
                None => None,
            };
            let isolation = isolation(route, config);
            let session = route.session.and_then(|at| sessions.get(at)).cloned();
            let mut route = build_route(route, upstream, isolation, &issuers, &sources);
            route.session = session;
            route.rules = rules_where(&|rule| rule.applies_to(index))
                .map(|rules| rules.with_case_insensitive_path(route.case_insensitive_path));
            route.rates = RateLimiters::new(common.iter().cloned().chain(own).collect());
            if let Some(token) = route.workload_token {
                let token = share(
                    &mut components.workload_tokens,
                    &previous.workload_tokens,
                    token,
                );
                route.workload_token = Some(token);
            }
            routes.push(Arc::new(route));
        }
        let hosts: Vec<_> = routes
            .iter()
            .filter_map(|route| Some((route.session.as_ref()?, route.host.as_deref())))
            .collect();
        Ok(Built {
            gateway: Gateway {
                sessions: SessionTable::new(sessions, &hosts),
                routes: RouteTable::new(routes),
                login,
                clock: self.clock.clone(),
                max_token_bytes: config.max_token_bytes,
                rule_headers: rule_headers(&rules),
                isolation: IsolationPolicy::new(config.server.local_hosts.clone()),
                observability: observe(config, self.clock, self.metrics)?,
            },
            components,
        })
    }

    fn issuers(
        &self,
        config: &Config,
        fingerprints: &Fingerprints,
        previous: &Components,
    ) -> Result<Vec<Component<IssuerBasis, Issuer>>, StartError> {
        let component = |issuer: &config::Issuer| {
            let files = fingerprints.only(config.files_of("issuer", &issuer.name));
            let basis = (issuer.clone(), config.cache.bounds());
            reuse_or_build(&previous.issuers, basis, files, || {
                self.issuer(issuer, config)
            })
        };
        config.issuers.iter().map(component).collect()
    }

    fn sources(
        &self,
        config: &Config,
        fingerprints: &Fingerprints,
        previous: &Components,
        updatable: &[Updatable],
    ) -> Result<Vec<Component<SourceBasis, CachedSource>>, StartError> {
        let component = |source: &config::Source| {
            let files = fingerprints.only(config.files_of("source", &source.name));
            let basis = (source.clone(), config.cache.clone());
            reuse_or_build(&previous.sources, basis, files, || {
                self.source(source, config, updatable)
            })
        };
        config.sources.iter().map(component).collect()
    }

    fn issuer(&self, issuer: &config::Issuer, config: &Config) -> Result<Issuer, StartError> {
        let name = issuer.name.clone();
        match &issuer.kind {
            IssuerKind::Delegated => Ok(Issuer::delegated(name)),
            IssuerKind::Oidc(oidc) => {
                let keys =
                    key_fetcher(oidc).map_err(|e| StartError::unusable("issuer", &name, &e))?;
                let clock = self.clock.clone();
                let observer = self.metrics.key_observer(&name);
                let cache_entries = config.cache.bounds();
                Ok(Issuer::oidc(
                    name,
                    oidc,
                    keys,
                    clock,
                    cache_entries,
                    observer,
                ))
            }
            IssuerKind::SharedSecret(secret) => {
                let (clock, cache_entries) = (self.clock.clone(), config.cache.bounds());
                Ok(Issuer::shared_secret(name, secret, clock, cache_entries))
            }
            IssuerKind::Introspection(settings) => {
                let clock = self.clock.clone();
                let IntrospectionEndpoint {
                    url,
                    client: own,
                    ca,
                } = settings.endpoint.clone();
                let client = introspection_client(ca)
                    .map_err(|e| StartError::unusable("issuer", &name, &e))?;
                let endpoint = Endpoint::new(url, own, client, clock.clone());
                let introspector = Arc::new(HttpIntrospector::new(endpoint));
                let observer = self.metrics.introspection_observer(&name);
                let cache_entries = config.cache.bounds();
                Ok(Issuer::introspection(
                    name,
                    &settings.issuer,
                    introspector,
                    clock,
                    cache_entries,
                    observer,
                ))
            }
        }
    }

    fn login(
        &self,
        login: &config::Login,
        config: &Config,
        issuers: &[Arc<Issuer>],
        rules: Option<Rules>,
    ) -> Result<Login, StartError> {
        let source = config
            .sources
            .get(login.source)
            .ok_or_else(|| StartError::Unusable("[login] has no source".into()))?;
        let minter = local_sources::mint(&source.kind, self.clock)
            .map_err(|e| StartError::unusable("source", &source.name, &*e))?;
        Ok(Login {
            issuers: login
                .issuers
                .iter()
                .filter_map(|at| issuers.get(*at))
                .cloned()
                .collect(),
            minter: Arc::new(minter),
            source: Arc::clone(&source.name),
            require_scopes: login.require_scopes.clone(),
            max_token_bytes: config.max_token_bytes,
            rules,
            cors: login
                .allowed_origins
                .clone()
                .map(|origins| Arc::new(CorsPolicy::for_login(origins))),
            lifetime: login.lifetime,
            timeout: source.timeout,
            rates: RateLimiters::default(),
            clock: self.clock.clone(),
        })
    }

    fn source(
        &self,
        source: &config::Source,
        config: &Config,
        updatable: &[Updatable],
    ) -> Result<CachedSource, StartError> {
        let failed = |e: &dyn std::error::Error| StartError::unusable("source", &source.name, e);
        let inner = match updatable.iter().find(|(name, _)| *name == source.name) {
            Some((_, updatable)) => Arc::clone(updatable) as Arc<dyn CredentialSource>,
            None => self.credential_source(source).map_err(|e| failed(&*e))?,
        };
        let metered = self.metrics.meter(&source.name, inner, self.clock.clone());
        let options = SourceOptions {
            limits: limits(source, config),
            timeout: source.timeout,
            concurrency: source.concurrency,
        };
        CachedSource::new(source.name.clone(), metered, options, self.clock.clone())
            .map(|made| made.injecting(source.inject.clone()))
            .map_err(|e| failed(&e))
    }

    fn credential_source(
        &self,
        source: &config::Source,
    ) -> Result<Arc<dyn CredentialSource>, Box<dyn std::error::Error>> {
        let clock = self.clock.clone();
        Ok(match &source.kind {
            SourceKind::TaskclusterLogin { url } => {
                Arc::new(LoginSource::new(url.clone(), client(source)?, clock))
            }
            SourceKind::TaskclusterOauth { root_url } => {
                Arc::new(OauthSource::new(root_url, client(source)?, clock))
            }
            SourceKind::TaskclusterMint { .. } => {
                Arc::new(local_sources::mint(&source.kind, &clock)?)
            }
            SourceKind::TaskclusterStatic { .. } => {
                Arc::new(local_sources::static_source(&source.kind)?)
            }
            SourceKind::ClientCredentials {
                token_url,
                client: own,
                audience,
                resource,
                scopes,
                organization,
            } => {
                let settings = ClientCredentialsSettings {
                    audience: audience.clone(),
                    resource: resource.clone(),
                    scopes: scopes.clone(),
                    organization: organization.clone(),
                };
                let endpoint = self.endpoint(source, token_url, own)?;
                Arc::new(ClientCredentialsSource::new(settings, endpoint))
            }
            SourceKind::TokenExchange {
                token_url,
                client: own,
                audience,
                resource,
                scopes,
                requested_token_type,
                subject_token_type,
            } => {
                let settings = TokenExchangeSettings {
                    audience: audience.clone(),
                    resource: resource.clone(),
                    scopes: scopes.clone(),
                    requested_token_type: requested_token_type.clone(),
                    subject_token_type: subject_token_type.clone(),
                };
                let endpoint = self.endpoint(source, token_url, own)?;
                Arc::new(TokenExchangeSource::new(settings, endpoint))
            }
            SourceKind::Auth0Identity(settings) => {
                let (client, timeout) = (client(source)?, source.timeout);
                Arc::new(IdentitySource::new(settings, client, timeout, clock)?)
            }
            SourceKind::Password(settings) => {
                Arc::new(PasswordSource::new(settings, client(source)?, clock)?)
            }
        })
    }
}

/// The `[cache]` section, adjusted for passwords: nothing is renewed with a password that the
/// caller has not sent again, and no password is trusted for long.
fn limits(source: &config::Source, config: &Config) -> CacheLimits {
    let mut limits = config.cache.clone();
    if let SourceKind::Password(_) = source.kind {
        limits.refresh_ahead = Duration::ZERO;
        limits.max_age = limits.max_age.min(MAX_TOKEN_LIFETIME);
    }
    limits
}

/// Rejects password routes that other machines can reach. The configuration reader does so
/// too; this also covers a `Config` that was built in another way.
fn reject_exposed_password_routes(config: &Config) -> Result<(), StartError> {
    let exposed = config.routes.iter().find(|route| {
        let source = route.source.and_then(|at| config.sources.get(at));
        source.is_some_and(|s| matches!(s.kind, SourceKind::Password(_)))
    });
    let local = config.server.listen.iter().all(|l| l.address.is_local());
    match exposed {
        Some(route) if !local => Err(StartError::Unusable(format!(
            "route {:?} accepts passwords, but other machines can connect to it",
            route.name
        ))),
        _ => Ok(()),
    }
}

impl Builder<'_> {
    /// The OAuth2 endpoint that `source` calls with hawkgate's own client credentials.
    fn endpoint(
        &self,
        source: &config::Source,
        url: &Url,
        own: &OauthClient,
    ) -> Result<Endpoint, Box<dyn std::error::Error>> {
        let (url, own) = (url.clone(), own.clone());
        Ok(Endpoint::new(url, own, client(source)?, self.clock.clone()))
    }
}

fn build_all<C, T>(
    written: &[C],
    build: impl Fn(&C) -> Result<T, StartError>,
) -> Result<Vec<Arc<T>>, StartError> {
    written
        .iter()
        .map(|item| build(item).map(Arc::new))
        .collect()
}

fn client(source: &config::Source) -> Result<HttpClient, Box<dyn std::error::Error>> {
    Ok(HttpClient::new(&HttpClientOptions {
        timeout: source.timeout,
        max_bytes: MAX_EXCHANGE_RESPONSE_BYTES,
        ca: source.ca.clone(),
    })?)
}

fn upstream(written: &config::Upstream) -> Result<Upstream, StartError> {
    let ca = match &written.ca {
        Some(file) => {
            let cas =
                pem::read_cas(file).map_err(|e| StartError::Unusable(format!("CA file {e}")))?;
            Some(cas.pem.as_slice().into())
        }
        None => None,
    };
    let authority = authority(written);
    Ok(Upstream {
        tls: written.tls,
        host: written.host.clone(),
        port: written.port,
        authority: HeaderValue::try_from(&authority).map_err(|_| {
            StartError::Unusable(format!("{authority:?} is not valid in a Host header"))
        })?,
        signed_port: written.signed_port,
        ca,
        http2: written.http2,
        timeouts: written.timeouts,
        addresses: match dns::ip_literal(&written.host, written.port) {
            Some(address) => UpstreamAddresses::fixed(vec![address]),
            None => UpstreamAddresses::unresolved(),
        },
        clock: UpstreamClock::default(),
    })
}

/// The value of `Host`: with a port only if it is not the scheme's default, as clients send it.
fn authority(upstream: &config::Upstream) -> String {
    let host = if upstream.host.contains(':') {
        format!("[{}]", upstream.host)
    } else {
        upstream.host.clone()
    };
    match (upstream.tls, upstream.port) {
        (true, 443) | (false, 80) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

fn build_route(
    route: &config::Route,
    upstream: Arc<Upstream>,
    isolation: Isolation,
    issuers: &[Arc<Issuer>],
    sources: &[Arc<CachedSource>],
) -> Route {
    let issuers = route.issuers.iter().filter_map(|at| issuers.get(*at));
    let source = route.source.and_then(|at| sources.get(at)).cloned();
    let takes_password = source
        .as_ref()
        .is_some_and(|source| source.takes_password());
    let cors = route
        .cors
        .as_ref()
        .map(|cors| Cors::new(cors, route.methods.as_deref(), takes_password));
    Route {
        name: route.name.clone(),
        host: route.host.clone(),
        path: route.path.clone(),
        case_insensitive_path: route.case_insensitive_path,
        methods: route.methods.clone(),
        upstream,
        issuers: issuers.cloned().collect(),
        session: None,
        source,
        stripped_headers: route.stripped_headers.clone(),
        require_scopes: route.require_scopes.clone(),
        passes_401: route.passes_401.clone(),
        refused_scopes: RefusalLog::default(),
        anonymous: route.anonymous,
        workload_token: route
            .workload_token
            .clone()
            .map(|file| Arc::new(WorkloadToken::new(file))),
        upgrade_expiry: route.upgrade_expiry,
        isolation,
        cors,
        compat: route.compat,
        rules: None,
        rates: RateLimiters::default(),
    }
}

/// Which requests to the route are refused if a web page sent them. A route without tokens and
/// without a source may serve other machines, under names that hawkgate does not know.
fn isolation(route: &config::Route, config: &Config) -> Isolation {
    let kind = route.source.and_then(|at| config.sources.get(at));
    let takes_password = kind.is_some_and(|s| matches!(s.kind, SourceKind::Password(_)));
    let public = route.source.is_none() && !config.server.listen.iter().all(Listener::is_local);
    if takes_password || (route.anonymous && !public) {
        Isolation::Always
    } else if route.workload_token.is_some() {
        Isolation::WithoutAuthorization
    } else {
        Isolation::Off
    }
}

fn rule(written: &config::Rule) -> Result<Rule, StartError> {
    let failed = |e: &dyn std::error::Error| StartError::unusable("rule", &written.name, e);
    let compile = |source: &str| Expression::compile(source).map_err(|e| failed(&e));
    let mut headers = Vec::with_capacity(written.headers.len());
    for (name, value) in &written.headers {
        let name = header_name(name).map_err(|e| failed(&e))?;
        headers.push((name, compile(value)?));
    }
    Ok(Rule {
        name: written.name.clone(),
        when: compile(&written.when)?,
        effect: written.effect,
        scopes: written.scopes.clone().map(Into::into),
        headers,
    })
}

/// The headers that any of `rules` sets, without duplicates.
fn rule_headers(rules: &[Arc<Rule>]) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for (name, _) in rules.iter().flat_map(|rule| &rule.headers) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(tls: bool, host: &str, port: u16) -> config::Upstream {
        let second = Duration::from_secs(1);
        config::Upstream {
            tls,
            host: host.into(),
            port,
            signed_port: port,
            ca: None,
            http2: false,
            timeouts: crate::gateway::route::UpstreamTimeouts {
                connect: second,
                read: second,
                write: second,
                idle: second,
            },
        }
    }

    #[test]
    fn the_host_header_omits_the_default_port() {
        for (tls, host, port, expected) in [
            (true, "tc.example.com", 443, "tc.example.com"),
            (true, "tc.example.com", 80, "tc.example.com:80"),
            (false, "127.0.0.1", 80, "127.0.0.1"),
            (false, "::1", 8080, "[::1]:8080"),
        ] {
            assert_eq!(authority(&written(tls, host, port)), expected);
        }
    }
}
