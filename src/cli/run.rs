//! `hawkgate run`: runs the proxy until it receives a signal, then drains.

use std::convert::Infallible;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use hawkgate::app::{self, Deps, Running};
use hawkgate::clock::{SharedClock, SystemClock};
use hawkgate::config::{self, Config, Warning};
use hawkgate::log::Logging;
use hawkgate::log::settings::LogFormat;
use hawkgate::proxy::listener::InheritedSockets;
use hawkgate::proxy::settings::Address;
use hawkgate::reload::{self, Fingerprints, Loaded, Reloads, WATCH_INTERVAL};
use hawkgate::remote::dns::SystemResolver;

use super::{Run, notify, process};

/// How long to wait at exit for buffered log lines to reach a slow stderr.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

type BoxError = Box<dyn std::error::Error>;

/// The file that the configuration was read from, for reloading.
pub(super) struct Origin {
    path: PathBuf,
    fingerprints: Fingerprints,
    watch: bool,
}

pub(super) fn main(args: &Run) -> ExitCode {
    let path = &args.config.path;
    if args.print_config {
        return print_config(path);
    }
    match reload::load(path, None) {
        Ok(Loaded {
            config,
            warnings,
            fingerprints,
        }) => serve_config(
            (config, warnings),
            Some(Origin {
                path: path.clone(),
                fingerprints,
                watch: !args.no_watch,
            }),
            args.log_format.map(Into::into),
            SystemClock::shared(),
        ),
        Err(errors) => failed(&errors),
    }
}

/// Prints the configuration at `path` with all defaults filled in.
fn print_config(path: &Path) -> ExitCode {
    match config::print(path) {
        Ok(text) => {
            // A closed stdout is ignored.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(errors) => failed(&errors),
    }
}

/// Serves a valid configuration until a signal arrives.
pub(super) fn serve_config(
    (config, warnings): (Config, Vec<Warning>),
    origin: Option<Origin>,
    format: Option<LogFormat>,
    clock: SharedClock,
) -> ExitCode {
    // Before any thread starts, because it changes the environment.
    let inherited = match InheritedSockets::from_env() {
        Ok(inherited) => inherited,
        Err(error) => return failed(&error),
    };
    match logging(&config, &warnings, format, &clock) {
        Ok(logging) => {
            let result = serve((config, inherited), origin, &logging, clock);
            if let Err(error) = &result {
                tracing::error!(%error, "hawkgate is exiting");
            }
            logging.flush(FLUSH_TIMEOUT);
            result.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        Err(problem) => failed(&*problem),
    }
}

/// Reports an error before logging has been set up.
fn failed(problem: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "hawkgate: {problem}");
    ExitCode::FAILURE
}

fn logging(
    config: &Config,
    warnings: &[Warning],
    format: Option<LogFormat>,
    clock: &SharedClock,
) -> Result<Logging, BoxError> {
    let format = format.unwrap_or(config.log.format);
    let logging = Logging::install(&config.log.level, format, clock.clone())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(logging)
}

fn serve(
    (config, inherited): (Config, InheritedSockets),
    origin: Option<Origin>,
    logging: &Logging,
    clock: SharedClock,
) -> Result<(), BoxError> {
    if let Err(error) = process::forbid_core_dumps() {
        tracing::warn!(%error, "cannot disable core dumps");
    }
    raise_descriptor_limit(config.limits.connections);
    process::install_crypto();
    let runtime = process::runtime()?;
    let sample = config.log.access_sample;
    let deps = Deps {
        clock,
        access_log: logging.access().sampled(sample),
        resolver: Arc::new(SystemResolver),
    };
    let result = runtime.block_on(run_until_signal((config, inherited), origin, deps));
    runtime.shutdown_background();
    result
}

/// Raises the limit of file descriptors, and warns if it does not suffice for this number of
/// connections.
fn raise_descriptor_limit(connections: usize) {
    let limit = process::raise_descriptor_limit().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit of file descriptors to the hard limit");
        process::descriptor_limit()
    });
    if let Some(warning) = process::descriptor_warning(limit, connections) {
        tracing::warn!("{warning}");
    }
}

async fn run_until_signal(
    (config, inherited): (Config, InheritedSockets),
    origin: Option<Origin>,
    deps: Deps,
) -> Result<(), BoxError> {
    let mut signals = Signals::new()?;
    let running = app::start_on(config, deps, inherited).await?;
    log_addresses(&running);
    let reloads = origin.map(|origin| {
        let interval = origin.watch.then_some(WATCH_INTERVAL);
        running.reloads(origin.path, origin.fingerprints, interval)
    });
    let first = tokio::select! {
        first = signals.stop(reloads.as_ref()) => first,
        never = notify_when_ready(&running) => match never {},
    };
    drop(reloads);
    notify::stopping();
    tracing::info!(
        signal = first,
        "draining: accepting no new connections, waiting for requests in progress"
    );
    tokio::select! {
        () = running.drain() => {
            tracing::info!("drained");
            Ok(())
        }
        second = signals.stop(None) => {
            running.abort();
            Err(format!("received a second signal ({second}): stopped without waiting for requests").into())
        }
    }
}

/// Tells the service manager once the names of upstreams have been looked up, as `/readyz` does.
async fn notify_when_ready(running: &Running) -> Infallible {
    running.first_resolution().await;
    notify::ready();
    std::future::pending().await
}

fn log_addresses(running: &Running) {
    for address in &running.listeners {
        tracing::info!(address = format_address(address), "listening for callers");
    }
    let version = hawkgate::VERSION;
    if let Some(admin) = &running.admin {
        tracing::info!(
            admin = format_address(admin),
            version,
            "hawkgate is up; metrics and health checks are on the admin address"
        );
    } else {
        tracing::info!(version, "hawkgate is up, without an admin listener");
    }
}

fn format_address(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// The handled signals. They are registered before anything starts, so that an early signal does
/// not kill the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop. Meanwhile, SIGHUP requests a reload.
    async fn stop(&mut self, reloads: Option<&Reloads>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                Some(()) = self.hangup.recv() => {
                    if let Some(reloads) = reloads {
                        reloads.request();
                    } else {
                        tracing::warn!("ignoring SIGHUP: there is no configuration file to reload");
                    }
                }
            }
        }
    }
}
