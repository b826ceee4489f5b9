//! The composition root: builds a running hawkgate from a resolved [`Config`].

mod admin_pages;
mod background;
mod build;
mod components;
mod live;
mod local_sources;
mod observe;
mod sessions;
mod shared_store;

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
use crate::proxy::listener::{BindError, InheritedSockets};
use crate::proxy::server::{BoundServer, ServerHandle, Workers};
use crate::proxy::settings::Address;
use crate::proxy::{self, Budget, Relay};
use crate::reload::{self, Fingerprints, Reloads, Target};
use crate::remote::dns::Resolver;
use admin_pages::Pages;
use background::Resolution;
use build::{Builder, Built, Purpose};
use live::Live;

/// What a run needs in addition to its configuration.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The clock; a manual one in tests.
    pub clock: SharedClock,
    /// The log in which finished requests are recorded.
    pub access_log: AccessLog,
    /// Resolves the names of upstreams; [`SystemResolver`](crate::remote::dns::SystemResolver) outside of tests.
    pub resolver: Arc<dyn Resolver>,
}

/// A running hawkgate. Dropping it does not stop it; see [`Running::drain`].
pub struct Running {
    /// The addresses of the listeners, in the order of the configuration, with the actual
    /// ports.
    pub listeners: Vec<Address>,
    /// The address of the admin listener, with the actual port; `None` if there is none.
    pub admin: Option<Address>,
    callers: ServerHandle,
    operators: Option<ServerHandle>,
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
    /// Something that the configuration refers to is unusable.
    #[error("{0}")]
    Unusable(String),
    /// Metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The operating system cannot start a thread.
    #[error("cannot start worker threads: {0}")]
    Threads(std::io::Error),
}

impl StartError {
    /// The `[[what]]` section called `name` is unusable because of `error`.
    fn unusable(what: &str, name: &str, error: &dyn std::error::Error) -> Self {
        Self::Unusable(format!("{what} {name:?}: {error}"))
    }
}

/// Binds every listener, starts the background tasks and serves.
///
/// # Errors
/// If something cannot be bound or read, in which case nothing keeps running. Unreachable
/// issuers, exchanges and upstreams are not errors.
pub async fn start(config: Config, deps: Deps) -> Result<Running, StartError> {
    start_on(config, deps, InheritedSockets::default()).await
}

/// Like [`start`], using `inherited` sockets for the listeners configured at their addresses.
///
/// # Errors
/// As for [`start`], and if no listener is configured for an inherited socket.
pub async fn start_on(
    config: Config,
    deps: Deps,
    mut inherited: InheritedSockets,
) -> Result<Running, StartError> {
    seed_csprng();
    let Deps {
        clock,
        access_log,
        resolver,
    } = deps;
    if let Some(problem) = clock.now().clock_problem() {
        tracing::error!("{problem}");
    }
    let metrics = Arc::new(Metrics::new(crate::VERSION, crate::REVISION)?);
    let Built {
        gateway,
        components,
    } = build(&config, &clock, &metrics)?;
    for problem in local_sources::expired(&config.sources, clock.now()) {
        tracing::warn!("{problem}");
    }
    let tls = live::tls_fingerprints(&config.server);
    let (listen, limits) = (&config.server.listen, &config.limits);
    reject_unclaimed(&inherited, &config.server)?;
    let callers = BoundServer::bind_with_inherited(listen, limits, &mut inherited).await?;
    let operators = match &config.server.admin {
        Some(address) => Some(admin::bind(address, &mut inherited).await?),
        None => None,
    };
    let recorder = recorder(&metrics, &clock, access_log.clone());
    let gateway = Arc::new(ArcSwap::from_pointee(gateway));
    let limits = Arc::new(ArcSwap::from_pointee(config.limits.clone()));
    let budget = Budget::new(config.limits.replay_memory);
    let threads = worker_threads(config.server.threads);
    let relay = Relay::new(
        Arc::clone(&gateway),
        Arc::clone(&limits),
        Arc::clone(&budget),
        clock.clone(),
        Arc::clone(&recorder),
        threads,
    );
    let pages = Pages::new(&metrics, &gateway, &components, &config.server, &clock);
    let live = Live {
        clock: clock.clone(),
        resolution: Resolution {
            resolver,
            clock: clock.clone(),
        },
        metrics,
        access_log,
        in_flight: relay.in_flight(),
        connections: callers.connection_counts(),
        budget,
        gateway,
        limits,
        pages: Arc::new(pages),
        tls: callers.tls(),
        current: Mutex::default(),
        started: config,
    };
    live.begin(components, tls).await;
    let workers = Workers::pinned(threads).map_err(StartError::Threads)?;
    let admin = operators.as_ref().and_then(|bound| bound.addresses().pop());
    let operators = operators.zip(admin.as_ref()).map(|(bound, address)| {
        let pages = Admin::new(Arc::clone(&live.pages), address, clock.clone());
        // Scrapes and probes are not recorded as requests.
        let recorder = Arc::new(|_: &Outcome| ());
        bound.serve(pages, clock.clone(), recorder, Workers::CurrentRuntime)
    });
    Ok(Running {
        listeners: callers.addresses(),
        admin,
        callers: callers.serve(Arc::new(relay), clock, recorder, workers),
        operators,
        live: Arc::new(live),
    })
}

/// Does all that [`start`] does before it binds listeners, and changes nothing: reads every file
/// and variable that `config` names, and builds everything from them. Returns warnings.
///
/// # Errors
/// If [`start`] would fail for any reason but its listeners' addresses.
pub fn verify(config: &Config, clock: &SharedClock) -> Result<Vec<String>, StartError> {
    let metrics = Metrics::new(crate::VERSION, crate::REVISION)?;
    build(config, clock, &metrics)?;
    Ok(local_sources::expired(&config.sources, clock.now()))
}

fn build(config: &Config, clock: &SharedClock, metrics: &Metrics) -> Result<Built, StartError> {
    proxy::check_platform_cas().map_err(|e| StartError::Unusable(e.to_string()))?;
    let purpose = Purpose::Serve;
    Builder {
        clock,
        metrics,
        purpose,
    }
    .build(config)
}

/// Seeds the cryptographic library's random number generator on another thread. Gathering its
/// entropy takes 60 ms of CPU time, which would otherwise delay start-up or the first request.
fn seed_csprng() {
    let seed = || {
        let _ = aws_lc_rs::rand::fill(&mut [0]);
    };
    // If no thread can be started, the first request pays for the seeding.
    let _ = std::thread::Builder::new()
        .name("csprng-seed".into())
        .spawn(seed);
}

/// Rejects inherited sockets without a listener: connections to them would hang. Checked
/// before anything is bound, because binding an address that covers such a socket would fail
/// with a less helpful error.
fn reject_unclaimed(inherited: &InheritedSockets, server: &Server) -> Result<(), StartError> {
    let listeners = server.listen.iter().map(|listener| &listener.address);
    let configured: Vec<_> = listeners.chain(&server.admin).collect();
    let unclaimed = inherited.unused(&configured);
    if unclaimed.is_empty() {
        return Ok(());
    }
    Err(StartError::Unusable(format!(
        "{} was passed to this process (LISTEN_FDS), but is neither in server.listen nor server.admin; add it \
         there, written exactly like this",
        unclaimed.join(", ")
    )))
}

/// The value of `server.threads`; 0 means one for each core available to this process.
fn worker_threads(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// Records every finished request in the metrics and the access log.
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

/// Builds the gateway alone, to explain requests, without listeners and background tasks: keys are
/// fetched when the first token needs them, and the names of upstreams are not resolved. Sessions are
/// not renewed at their providers, and their keys may be missing.
///
/// # Errors
/// If something that the configuration refers to is unusable.
pub fn assemble(config: &Config, clock: &SharedClock) -> Result<Gateway, StartError> {
    let metrics = Metrics::new(crate::VERSION, crate::REVISION)?;
    let built = Builder {
        clock,
        metrics: &metrics,
        purpose: Purpose::Explain,
    }
    .build(config)?;
    Ok(built.gateway)
}

impl Running {
    /// The current gateway, which a reload replaces.
    pub fn gateway(&self) -> Arc<Gateway> {
        self.live.gateway.load_full()
    }

    /// Waits until the names of all upstreams have been resolved, at most a few seconds. Requests
    /// are served meanwhile.
    pub async fn first_resolution(&self) {
        self.live.pages.first_resolution().await;
    }

    /// Reloads the file at `path` on request and, if `every` is given, whenever one of the
    /// files in `loaded` has changed, checking at that interval.
    pub fn reloads(&self, path: PathBuf, loaded: Fingerprints, every: Option<Duration>) -> Reloads {
        let target = Arc::clone(&self.live) as Arc<dyn Target>;
        reload::start(path, loaded, every, target)
    }

    /// Reports not ready, then closes the listeners and lets in-flight requests finish
    /// within `server.drain`. Returns when everything has ended. Calling it again has no effect.
    pub async fn drain(&self) {
        self.live.pages.draining.store(true, Ordering::Relaxed);
        let server = &self.live.started.server;
        self.callers.drain(server.drain_delay, server.drain).await;
        let trace = self.live.gateway.load().observability.trace.clone();
        if let Some(trace) = trace {
            trace.flush().await;
        }
        // Last, so that probes can observe the whole drain.
        if let Some(operators) = &self.operators {
            operators.drain(Duration::ZERO, Duration::ZERO).await;
        }
    }

    /// Ends everything immediately.
    pub fn abort(&self) {
        self.callers.abort();
        if let Some(operators) = &self.operators {
            operators.abort();
        }
    }
}
