//! Composition root: from a resolved [`Config`] to a running hawkgate.

mod background;
mod build;
mod live;
mod local;
mod observe;
mod pages;
mod parts;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::clock::SharedClock;
use crate::config::{Config, Server};
use crate::gateway::Gateway;
use crate::gateway::outcome::Outcome;
use crate::log::AccessLog;
use crate::metrics::{Metrics, MetricsError};
use crate::proxy::admin::{self, Admin};
use crate::proxy::listener::{BindError, Inherited};
use crate::proxy::server::{Bound, Serving, Workers};
use crate::proxy::settings::Address;
use crate::proxy::{self, Budget, FastPath, Hooks};
use crate::reload::{self, Reloads, Stamps, Target};
use build::{Builder, Built};
use live::Live;
use pages::Pages;

/// What a run needs besides its configuration.
#[derive(Clone, Debug)]
pub struct Deps {
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
    callers: Serving,
    operators: Serving,
    live: Arc<Live>,
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
pub async fn start(config: Config, surroundings: Deps) -> Result<Running, StartError> {
    start_on(config, surroundings, Inherited::default()).await
}

/// As [`start`], on those of the configured listeners that are `inherited`.
///
/// # Errors
/// As [`start`], and when a socket is inherited that no listener is configured for.
pub async fn start_on(
    config: Config,
    surroundings: Deps,
    mut inherited: Inherited,
) -> Result<Running, StartError> {
    begin_randomness();
    let Deps { clock, access_log } = surroundings;
    let metrics = Arc::new(Metrics::new(crate::VERSION, crate::REVISION)?);
    let builder = Builder {
        clock: &clock,
        metrics: &metrics,
    };
    proxy::check_platform_cas().map_err(|e| StartError::Unusable(e.to_string()))?;
    let Built { gateway, parts } = builder.build(&config)?;
    let tls = live::tls_stamps(&config.server);
    let (listen, limits) = (&config.server.listen, &config.limits);
    refuse_unclaimed(&inherited, &config.server)?;
    let callers = Bound::bind_or_take(listen, limits, &mut inherited).await?;
    let operators = admin::bind(&config.server.admin, &mut inherited).await?;
    let recorder = recorder(&metrics, &clock, access_log.clone());
    let gateway = Arc::new(ArcSwap::from_pointee(gateway));
    let limits = Arc::new(ArcSwap::from_pointee(config.limits.clone()));
    let hooks = Hooks::new(
        Arc::clone(&gateway),
        Arc::clone(&limits),
        Budget::new(config.limits.replay_memory),
        clock.clone(),
        Arc::clone(&recorder),
    );
    let pages = Pages::new(&metrics, &gateway, &parts, &config.server, &clock);
    let live = Live {
        clock: clock.clone(),
        metrics,
        access_log,
        in_flight: hooks.in_flight(),
        gateway,
        limits,
        pages: Arc::new(pages),
        tls: callers.tls(),
        current: Mutex::default(),
        started: config,
    };
    live.begin(parts, tls).await;
    let server = &live.started.server;
    let threads = worker_threads(server.threads);
    let applications = proxy::applications(&hooks, &live.started.limits, threads);
    let workers = Workers::pinned(threads).map_err(StartError::Threads)?;
    let page_server = Admin::new(Arc::clone(&live.pages));
    let admin = operators.addresses().pop();
    Ok(Running {
        listeners: callers.addresses(),
        admin: admin.unwrap_or_else(|| server.admin.clone()),
        callers: callers.through(FastPath::new(hooks, threads)).serve(
            applications,
            clock.clone(),
            recorder,
            workers,
        ),
        // Scrapes and probes are no requests: nobody records them.
        operators: operators.serve(vec![page_server], clock, Arc::new(|_| ()), Workers::Ambient),
        live: Arc::new(live),
    })
}

/// Has the cryptography's random numbers ready before the first request asks for one: gathering
/// what they begin with takes 60 ms of processor time, beside everything else that a start does.
fn begin_randomness() {
    let begin = || {
        let _ = aws_lc_rs::rand::fill(&mut [0]);
    };
    // Without a thread the first request waits for it.
    let _ = std::thread::Builder::new()
        .name("random".into())
        .spawn(begin);
}

/// Connections to a socket that nobody accepts from would hang. Asked before anything is bound:
/// an address that covers it is taken.
fn refuse_unclaimed(inherited: &Inherited, server: &Server) -> Result<(), StartError> {
    let listeners = server.listen.iter().map(|listener| &listener.address);
    let wanted: Vec<_> = listeners.chain([&server.admin]).collect();
    let left = inherited.unclaimed(&wanted);
    if left.is_empty() {
        return Ok(());
    }
    Err(StartError::Unusable(format!(
        "{} passed to this process (LISTEN_FDS), but neither server.listen nor server.admin has it; write it \
         there exactly so",
        left.join(", ")
    )))
}

/// `server.threads`, where 0 is one per core that this process may use.
fn worker_threads(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
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
    /// What decides now; a reload replaces it.
    pub fn gateway(&self) -> Arc<Gateway> {
        self.live.gateway.load_full()
    }

    /// Takes over what the file at `path` says on request and, if `every` is given, whenever
    /// one of the files in `loaded` is found changed, at looks this far apart.
    pub fn reloads(&self, path: PathBuf, loaded: Stamps, every: Option<Duration>) -> Reloads {
        let target = Arc::clone(&self.live) as Arc<dyn Target>;
        reload::start(path, loaded, every, target)
    }

    /// Readiness turns false, then listeners close, in-flight requests finish within
    /// `server.drain`. Returns when all is over; calling it again changes nothing.
    pub async fn drain(&self) {
        self.live.pages.draining.store(true, Ordering::Relaxed);
        let server = &self.live.started.server;
        self.callers.drain(server.drain_delay, server.drain).await;
        let trace = self.live.gateway.load().observability.trace.clone();
        if let Some(trace) = trace {
            trace.flush().await;
        }
        // Last, so that probes see the draining to its end.
        self.operators.drain(Duration::ZERO, Duration::ZERO).await;
    }

    /// Ends at once.
    pub fn abort(&self) {
        self.callers.abort();
        self.operators.abort();
    }
}
