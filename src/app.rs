//! Composition root: from a resolved [`Config`] to a running hawkgate.

mod background;
mod build;
mod local;
mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::SharedClock;
use crate::config::{Address, Config};
use crate::gateway::outcome::Outcome;
use crate::gateway::{Gateway, login};
use crate::log::AccessLog;
use crate::metrics::{Metrics, MetricsError, Names, Watched};
use crate::proxy::admin::{self, Admin};
use crate::proxy::listener::BindError;
use crate::proxy::server::{Bound, Serving, Workers};
use crate::proxy::{self, Budget, Hooks};
use background::Background;
use build::{Builder, Built};
use pages::Pages;

/// What a run needs besides its configuration.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The clock; a manual one in tests.
    pub clock: SharedClock,
    /// Where ended requests are recorded.
    pub access_log: AccessLog,
}

/// A running hawkgate. Dropping it does not stop it; see [`Running::drain`].
pub struct Running {
    /// Where callers connect, in the configuration's order, with ports as bound.
    pub listeners: Vec<Address>,
    /// Where operators connect, with the port as bound.
    pub admin: Address,
    /// What decides.
    pub gateway: Arc<Gateway>,
    pages: Arc<Pages>,
    callers: Serving,
    operators: Serving,
    drain_delay: Duration,
    drain: Duration,
    _background: Background,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("listeners", &self.listeners)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// Why hawkgate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A part that the configuration names is unusable.
    #[error("{0}")]
    Unusable(String),
    /// Metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The system gives no thread.
    #[error("cannot start worker threads: {0}")]
    Threads(std::io::Error),
}

/// Binds every listener, starts every background task, serves.
///
/// # Errors
/// When something cannot be bound or read; nothing is left running then. Unreachable
/// issuers, exchanges and upstreams are no error.
pub async fn start(config: Config, surroundings: Surroundings) -> Result<Running, StartError> {
    let Surroundings { clock, access_log } = surroundings;
    let metrics = Arc::new(Metrics::new(crate::VERSION, crate::REVISION)?);
    let built = Builder {
        clock: &clock,
        metrics: &metrics,
    }
    .build(&config)?;
    let callers = Bound::bind(&config.server.listen, &config.limits).await?;
    let operators = admin::bind(&config.server.admin).await?;
    let background = Background::start(&built).await;
    let names = names(&config);
    let mut watched = watch(&built);
    let log = access_log.clone();
    watched.log_lines_dropped(move || log.dropped());
    let gateway = Arc::new(built.gateway);
    let recorder = recorder(&metrics, &clock, access_log);
    let hooks = Hooks::new(
        Arc::new(ArcSwap::new(Arc::clone(&gateway))),
        Arc::new(ArcSwap::from_pointee(config.limits.clone())),
        Budget::new(config.limits.replay_memory),
        clock.clone(),
        Arc::clone(&recorder),
    );
    metrics.configure(&names, in_flight(watched, &hooks), clock.now());
    let pages = Arc::new(Pages {
        metrics,
        gateway: Arc::clone(&gateway),
        issuers: built.issuers,
        updatable: built.updatable,
        grace_ends: clock.steady().saturating_add(config.server.startup_grace),
        clock: clock.clone(),
        started: AtomicBool::new(false),
        draining: AtomicBool::new(false),
    });
    let listeners = callers.addresses();
    let admin = operators
        .addresses()
        .pop()
        .unwrap_or_else(|| config.server.admin.clone());
    let threads = worker_threads(config.server.threads);
    let applications = proxy::applications(&hooks, &config.limits, threads);
    let workers = Workers::pinned(threads).map_err(StartError::Threads)?;
    let page_server = Admin::new(Arc::clone(&pages));
    Ok(Running {
        listeners,
        admin,
        gateway,
        callers: callers.serve(applications, clock.clone(), recorder, workers),
        // Scrapes and probes are no requests: nobody records them.
        operators: operators.serve(vec![page_server], clock, Arc::new(|_| ()), Workers::Ambient),
        pages,
        drain_delay: config.server.drain_delay,
        drain: config.server.drain,
        _background: background,
    })
}

/// `server.threads`, where 0 is one per core that this process may use.
fn worker_threads(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn names(config: &Config) -> Names {
    Names {
        routes: config
            .routes
            .iter()
            .map(|r| r.name.clone())
            .chain(config.login.iter().map(|_| login::LABEL.into()))
            .collect(),
        issuers: config.issuers.iter().map(|i| i.name.clone()).collect(),
        sources: config.sources.iter().map(|s| s.name.clone()).collect(),
    }
}

fn watch(built: &Built) -> Watched {
    let mut watched = Watched::default();
    for source in &built.sources {
        let read = Arc::clone(source);
        watched.cache_entries(source.name(), move || read.entries());
    }
    for issuer in built.issuers.iter().filter(|i| !i.is_delegated()) {
        let read = Arc::clone(issuer);
        watched.jwks_age(issuer.name(), move || read.keys_age());
    }
    watched
}

fn in_flight(mut watched: Watched, hooks: &Hooks) -> Watched {
    let in_flight = hooks.in_flight();
    watched.requests_in_flight(move || in_flight.load(Ordering::Relaxed));
    watched
}

/// Every ended request goes to the metrics and to the access log.
fn recorder(
    metrics: &Arc<Metrics>,
    clock: &SharedClock,
    access_log: AccessLog,
) -> Arc<dyn Fn(&Outcome) + Send + Sync> {
    let (metrics, clock) = (Arc::clone(metrics), clock.clone());
    Arc::new(move |outcome| {
        metrics.record(outcome);
        access_log.record(outcome, clock.now());
    })
}

/// What decides, without anything that listens or goes on in the background: keys are
/// fetched when the first token needs them, names of upstreams are not resolved.
///
/// # Errors
/// When a part that the configuration names is unusable.
pub fn assemble(config: &Config, clock: &SharedClock) -> Result<Gateway, StartError> {
    let metrics = Metrics::new(crate::VERSION, crate::REVISION)?;
    let built = Builder {
        clock,
        metrics: &metrics,
    }
    .build(config)?;
    Ok(built.gateway)
}

impl Running {
    /// Readiness turns false, then listeners close, in-flight requests finish within
    /// `server.drain`. Returns when all is over; calling it again changes nothing.
    pub async fn drain(&self) {
        self.pages.draining.store(true, Ordering::Relaxed);
        self.callers.drain(self.drain_delay, self.drain).await;
        // Last, so that probes see the draining to its end.
        self.operators.drain(Duration::ZERO, Duration::ZERO).await;
    }

    /// Ends at once.
    pub fn abort(&self) {
        self.callers.abort();
        self.operators.abort();
    }
}
