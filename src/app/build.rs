//! Builds the gateway from the configuration: its issuers, sources, rules and routes.

mod route;
mod shared_store;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::StartError;
use super::components::{Component, Components, IssuerBasis, SourceBasis, reuse_or_build, share};
use super::local_sources::{self, Updatable};
use super::observe::observe;
use super::shared_store::{UsedStore, section};
use route::{build_route, callers, isolation, upstream, upstream_basis};

use crate::clock::SharedClock;
use crate::config::{self, Config, IssuerKind, SourceKind};
use crate::credential::static_secret::StaticSecretSource;
use crate::credential::{CacheLimits, CachedSource, CredentialSource, SourceOptions};
use crate::gateway::Gateway;
use crate::gateway::cors::CorsPolicy;
use crate::gateway::credentials_endpoint::CredentialsEndpoint;
use crate::gateway::forward_auth::ForwardAuth;
use crate::gateway::login::Login;
use crate::gateway::rate_limit::RateLimiters;
use crate::gateway::resource_isolation::IsolationPolicy;
use crate::gateway::route::RouteTable;
use crate::gateway::rule::{Expression, Rule, Rules, header_name};
use crate::gateway::session::SessionTable;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::proxy::settings::Listener;
use crate::reload::Fingerprints;
use crate::remote::auth0_identity::IdentitySource;
use crate::remote::client_credentials::{ClientCredentialsSettings, ClientCredentialsSource};
use crate::remote::http_client::{HttpClient, HttpClientOptions};
use crate::remote::introspection::{HttpIntrospector, introspection_client};
use crate::remote::key_fetcher::key_fetcher;
use crate::remote::oauth::Endpoint;
use crate::remote::password::{MAX_TOKEN_LIFETIME, PasswordSource};
use crate::remote::settings::{IntrospectionEndpoint, OauthClient};
use crate::remote::taskcluster_login::LoginSource;
use crate::remote::taskcluster_oauth::OauthSource;
use crate::remote::token_exchange::{TokenExchangeSettings, TokenExchangeSource};
use crate::shared_store::Fleet;
use crate::token::Issuer;

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
            shared: self.shared(config, fingerprints, previous)?,
            issuers: self.issuers(config, fingerprints, previous)?,
            updatable: local_sources::updatable(&config.sources)?,
            ..Components::default()
        };
        components.sources = self.sources(config, fingerprints, previous, &components)?;
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
        let store = components.used_store();
        components.sessions = self.sessions(config, fingerprints, previous, &issuers, &store)?;
        let sessions = self.gateway_sessions(config, &mut components, previous, common.as_ref())?;
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
            let basis = upstream_basis(&route.upstream, &config.network)?;
            let files = route.upstream.ca.as_deref().into_iter();
            let files = fingerprints.only(files.chain(config.network_files()));
            let upstream = components.upstream(basis, files, previous, upstream)?;
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
            .filter_map(|route| Some((route.session.as_ref()?, route.hosts.as_slice())))
            .collect();
        Ok(Built {
            gateway: Gateway {
                sessions: SessionTable::new(sessions, &hosts),
                routes: RouteTable::new(routes),
                login,
                credentials: credentials_endpoint(config, &components.updatable),
                clock: self.clock.clone(),
                max_token_bytes: config.max_token_bytes,
                rule_headers: rule_headers(&rules),
                forward_auth: config
                    .forward_auth
                    .iter()
                    .map(|asked| forward_auth(asked, config))
                    .collect(),
                isolation: isolation_policy(&config.server),
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
            let files = config.files_of("issuer", &issuer.name);
            let files = fingerprints.only(files.chain(config.network_files()));
            let basis = (
                issuer.clone(),
                config.cache.bounds(),
                config.network.clone(),
            );
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
        components: &Components,
    ) -> Result<Vec<Component<SourceBasis, CachedSource>>, StartError> {
        let component = |source: &config::Source| {
            let files = config.files_of("source", &source.name);
            let files = fingerprints.only(files.chain(config.network_files()));
            let section = section(source);
            // Those that share nothing are kept when the store is replaced. Password sources share counts of
            // failures.
            let shares = section.is_some() || matches!(source.kind, SourceKind::Password(_));
            let store = UsedStore(components.shared().filter(|_| shares).cloned());
            let (cache, network) = (config.cache.clone(), config.network.clone());
            let basis = (source.clone(), cache, network, store.clone());
            reuse_or_build(&previous.sources, basis, files, || {
                let built = self.source(source, config, &components.updatable, store.fleet())?;
                match store.fleet().zip(section) {
                    Some((fleet, section)) => built
                        .sharing(fleet, &section)
                        .map_err(|e| StartError::unusable("source", &source.name, &e)),
                    None => Ok(built),
                }
            })
        };
        config.sources.iter().map(component).collect()
    }

    fn issuer(&self, issuer: &config::Issuer, config: &Config) -> Result<Issuer, StartError> {
        let name = issuer.name.clone();
        match &issuer.kind {
            IssuerKind::Delegated => Ok(Issuer::delegated(name)),
            IssuerKind::Oidc(oidc) => {
                let keys = key_fetcher(oidc, &config.network)
                    .map_err(|e| StartError::unusable("issuer", &name, &e))?;
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
                let client = introspection_client(ca, &config.network)
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
        fleet: Option<&Fleet>,
    ) -> Result<CachedSource, StartError> {
        let failed = |e: &dyn std::error::Error| StartError::unusable("source", &source.name, e);
        let inner = match updatable.iter().find(|(name, _)| *name == source.name) {
            Some((_, updatable)) => Arc::clone(updatable) as Arc<dyn CredentialSource>,
            None => self
                .credential_source(source, &config.network, fleet)
                .map_err(|e| failed(&*e))?,
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
        network: &Network,
        fleet: Option<&Fleet>,
    ) -> Result<Arc<dyn CredentialSource>, Box<dyn std::error::Error>> {
        let clock = self.clock.clone();
        let client = || client(source, network);
        Ok(match &source.kind {
            SourceKind::TaskclusterLogin { url } => {
                Arc::new(LoginSource::new(url.clone(), client()?, clock))
            }
            SourceKind::TaskclusterOauth { root_url } => {
                Arc::new(OauthSource::new(root_url, client()?, clock))
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
                let endpoint = self.endpoint(client()?, token_url, own);
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
                let endpoint = self.endpoint(client()?, token_url, own);
                Arc::new(TokenExchangeSource::new(settings, endpoint))
            }
            SourceKind::Auth0Identity(settings) => {
                let timeout = source.timeout;
                Arc::new(IdentitySource::new(settings, client()?, timeout, clock)?)
            }
            SourceKind::Password(settings) => {
                let source = PasswordSource::new(settings, client()?, clock)?;
                match fleet {
                    Some(fleet) => Arc::new(source.sharing(fleet)?),
                    None => Arc::new(source),
                }
            }
            SourceKind::Static(settings) => Arc::new(StaticSecretSource::new(settings.clone())),
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
    let local = callers(config).all(|l| l.address.is_local());
    match exposed {
        Some(route) if !local => Err(StartError::Unusable(format!(
            "route {:?} accepts passwords, but other machines can connect to it",
            route.name
        ))),
        _ => Ok(()),
    }
}

impl Builder<'_> {
    /// The OAuth2 endpoint that a source calls with hawkgate's own client credentials.
    fn endpoint(&self, client: HttpClient, url: &Url, own: &OauthClient) -> Endpoint {
        Endpoint::new(url.clone(), own.clone(), client, self.clock.clone())
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

fn client(
    source: &config::Source,
    network: &Network,
) -> Result<HttpClient, Box<dyn std::error::Error>> {
    Ok(HttpClient::new(&HttpClientOptions {
        timeout: source.timeout,
        max_bytes: MAX_EXCHANGE_RESPONSE_BYTES,
        ca: source.ca.clone(),
        network: network.clone(),
    })?)
}

/// The endpoint of the route with `credentials = true`, of which there is at most one source.
fn credentials_endpoint(config: &Config, updatable: &[Updatable]) -> Option<CredentialsEndpoint> {
    let route = config
        .routes
        .iter()
        .find(|route| route.compat.credentials)?;
    let named = &config.sources.get(route.source?)?.name;
    let (name, source) = updatable.iter().find(|(name, _)| name == named)?;
    Some(CredentialsEndpoint {
        route: Arc::clone(&route.name),
        name: Arc::clone(name),
        source: Arc::clone(source),
    })
}

/// Which requests without credentials may come from web pages. Containers may use the addresses of
/// this machine, which are not all known.
fn isolation_policy(server: &config::Server) -> IsolationPolicy {
    let containers = |listener: &Listener| listener.access.local_networks.is_some();
    let policy = IsolationPolicy::new(server.local_hosts.clone());
    if server.listen.iter().any(containers) {
        policy.with_addresses()
    } else {
        policy
    }
}

fn forward_auth(written: &config::ForwardAuth, config: &Config) -> Arc<ForwardAuth> {
    let routes = written
        .routes
        .iter()
        .filter_map(|at| config.routes.get(*at));
    Arc::new(ForwardAuth {
        name: written.name.clone(),
        kind: written.kind,
        routes: routes.map(|route| route.name.clone()).collect(),
    })
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
