//! The live configuration, and how a reload replaces it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::Mutex;

use super::admin_pages::{AdminState, Pages};
use super::background::{self, Background, Resolution};
use super::build::{Builder, Built, Purpose};
use super::components::Components;
use super::local_sources;
use crate::clock::SharedClock;
use crate::config::{Config, Server};
use crate::gateway::{Gateway, login, session};
use crate::label::Label as _;
use crate::log::AccessLog;
use crate::metrics::{LabelValues, Metrics, ScrapeCallbacks};
use crate::proxy::listener::Tls;
use crate::proxy::settings::{Address, Limits};
use crate::proxy::{Budget, InFlight};
use crate::proxy::{ConnectionCounts, LimitAction, LimitLabel};
use crate::reload::{self, Applied, Fingerprints, ReloadResult, Target};

/// How long a reload waits for the keys and addresses of new issuers and upstreams. After that
/// it takes effect without them.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(10);

/// The state of a run that a reload can replace.
pub(super) struct Live {
    pub(super) clock: SharedClock,
    pub(super) resolution: Resolution,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access_log: AccessLog,
    pub(super) in_flight: InFlight,
    pub(super) connections: ConnectionCounts,
    pub(super) budget: Arc<Budget>,
    /// The configuration at start-up. Keys that need a restart keep its values.
    pub(super) started: Config,
    pub(super) gateway: Arc<ArcSwap<Gateway>>,
    pub(super) limits: Arc<ArcSwap<Limits>>,
    pub(super) pages: Arc<Pages>,
    pub(super) tls: Vec<(Address, Arc<Tls>)>,
    pub(super) current: Mutex<Current>,
}

/// Locked during a whole reload, so that reloads run one at a time.
#[derive(Default)]
pub(super) struct Current {
    pub(super) components: Components,
    pub(super) background: Background,
    /// The fingerprints of the listeners' TLS files when they were last read.
    pub(super) tls: Fingerprints,
}

#[async_trait]
impl Target for Live {
    fn server(&self) -> &Server {
        &self.started.server
    }

    fn files(&self) -> Vec<PathBuf> {
        tls_files(&self.started.server)
            .map(Path::to_path_buf)
            .collect()
    }

    async fn apply(
        &self,
        mut config: Config,
        fingerprints: &Fingerprints,
    ) -> Result<Applied, String> {
        let mut current = self.current.lock().await;
        let restart_needed = reload::restart_needed(&self.started, &config);
        config.server = reload::applicable_server(&self.started.server, &config.server);
        config.log = self.started.log.clone();
        config.limits = reload::applicable(&self.started.limits, &config.limits);
        let builder = Builder {
            clock: &self.clock,
            metrics: &self.metrics,
            purpose: Purpose::Serve,
        };
        let Built {
            gateway,
            components,
        } = builder
            .build_on(&config, fingerprints, &current.components)
            .map_err(|error| error.to_string())?;
        for problem in local_sources::expired(&config.sources, self.clock.now()) {
            tracing::warn!("{problem}");
        }
        let tls = fingerprints.only(tls_files(&self.started.server));
        let mut renewals = Vec::new();
        if tls != current.tls {
            for (_, listener) in &self.tls {
                let prepared = listener
                    .prepare_reload()
                    .map_err(|error| error.to_string())?;
                renewals.push((listener, prepared));
            }
        }
        background::prepare_within(&components, &self.resolution, PREPARE_TIMEOUT).await;

        // From here on nothing can fail or wait, so the switch is atomic.
        let renewed = renewals.len();
        for (listener, prepared) in renewals {
            listener.commit_reload(prepared);
        }
        self.pages.expect_reload();
        self.metrics.configure(
            &names(&config),
            self.scrape_callbacks(&components),
            self.clock.now(),
        );
        components.pass_on_events();
        self.gateway.store(Arc::new(gateway));
        self.in_flight.set_limits(&config.limits);
        self.limits.store(Arc::new(config.limits));
        self.pages
            .state
            .store(Arc::new(AdminState::from(&components)));
        current.background.update(&components, &self.resolution);
        let mut built = components.built();
        built.extend((renewed > 0).then(|| "TLS of the listeners".to_owned()));
        (current.components, current.tls) = (components, tls);
        Ok(Applied {
            built,
            restart_needed,
        })
    }

    fn ended(&self, result: ReloadResult) {
        let success = result == ReloadResult::Success;
        audit_load(success);
        self.metrics.reloaded(success);
    }
}

impl Live {
    /// Starts the background tasks.
    pub(super) async fn begin(&self, components: Components, tls: Fingerprints) {
        components.pass_on_events();
        background::prepare(&components).await;
        let names = names(&self.started);
        self.metrics
            .configure(&names, self.scrape_callbacks(&components), self.clock.now());
        let mut current = self.current.lock().await;
        current.background.update(&components, &self.resolution);
        (current.components, current.tls) = (components, tls);
        audit_load(true);
    }

    /// The values that are read at scrape time.
    fn scrape_callbacks(&self, components: &Components) -> ScrapeCallbacks {
        let mut callbacks = ScrapeCallbacks::default();
        for source in components.sources() {
            let read = Arc::clone(source);
            callbacks.cache_entries(source.name(), move || read.entries());
            let read = Arc::clone(source);
            callbacks.circuit_open("source", source.name(), move || read.is_circuit_open());
        }
        for issuer in components.issuers().filter(|i| i.introspects()) {
            let read = Arc::clone(issuer);
            callbacks.circuit_open("issuer", issuer.name(), move || read.is_circuit_open());
        }
        for issuer in components.issuers().filter(|i| !i.is_delegated()) {
            let read = Arc::clone(issuer);
            callbacks.jwks_age(issuer.name(), move || read.keys_age());
        }
        if let Some(shared) = components.shared() {
            let read = Arc::clone(shared);
            callbacks.shared_up(move || read.is_up());
        }
        let log = self.access_log.clone();
        callbacks.log_lines_dropped(move || log.dropped());
        let in_flight = self.in_flight.clone();
        callbacks.requests_in_flight(move || in_flight.requests() as u64);
        let connections = self.connections.clone();
        callbacks.connections_open(move || connections.open());
        let (used, limit) = (Arc::clone(&self.budget), Arc::clone(&self.budget));
        callbacks.replay_memory(move || used.used() as u64, move || limit.limit() as u64);
        for (address, tls) in &self.tls {
            let tls = Arc::clone(tls);
            callbacks.certificate(&address.to_string(), move || {
                tls.validity().map(|v| [v.not_before, v.not_after])
            });
        }
        for limit in LimitLabel::ALL.iter().copied() {
            for action in LimitAction::ALL.iter().copied() {
                let counts = self.connections.clone();
                let read = move || counts.limited(limit, action);
                callbacks.connections_limited(limit.label(), action.label(), read);
            }
        }
        callbacks
    }
}

/// Records in the audit log whether a new configuration applies from now on.
fn audit_load(success: bool) {
    if success {
        tracing::info!(target: "audit", event = "configuration_loaded", "the configuration is now in effect");
    } else {
        tracing::info!(target: "audit", event = "configuration_refused", "the previous configuration stays in effect");
    }
}

/// The names that are used as metric labels.
fn names(config: &Config) -> LabelValues {
    LabelValues {
        routes: config
            .routes
            .iter()
            .map(|r| r.name.clone())
            .chain(config.login.iter().map(|_| login::LABEL.into()))
            .chain(config.sessions.first().map(|_| session::LABEL.into()))
            .collect(),
        issuers: config.issuers.iter().map(|i| i.name.clone()).collect(),
        sources: config.sources.iter().map(|s| s.name.clone()).collect(),
        sessions: config
            .sessions
            .iter()
            .map(|s| s.settings.name.clone())
            .collect(),
        forward_auth: config.forward_auth.iter().map(|f| f.name.clone()).collect(),
    }
}

/// The TLS files of the listeners.
fn tls_files(server: &Server) -> impl Iterator<Item = &Path> {
    let tls = server.listen.iter().filter_map(|l| l.tls.as_ref());
    tls.flat_map(|tls| [&tls.cert, &tls.key].into_iter().chain(&tls.client_ca))
        .map(PathBuf::as_path)
}

/// The fingerprints of the listeners' TLS files, taken before the files are read.
pub(super) fn tls_fingerprints(server: &Server) -> Fingerprints {
    Fingerprints::of(tls_files(server))
}
