//! `hawkgate run`: runs the proxy until it receives a signal, then drains.

use std::convert::Infallible;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hawkgate::app::{self, Deps, Running};
use hawkgate::clock::{SharedClock, SystemClock};
use hawkgate::config::{self, Config, ConfigErrors, Warning};
use hawkgate::log::settings::LogFormat;
use hawkgate::log::{self, Logging};
use hawkgate::proxy::listener::InheritedSockets;
use hawkgate::proxy::settings::Address;
use hawkgate::reload::{self, Fingerprints, Loaded, Reloads, WATCH_INTERVAL};
use hawkgate::remote::dns::SystemResolver;

use super::signals::{Received, Signals};
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
    let format = args.log_format.map(Into::into);
    // The file, which is not read yet, may ask for text.
    log::report_panics(format.unwrap_or(LogFormat::Json), SystemClock::shared());
    if args.print_config {
        return print_config(path, format);
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
            format,
            SystemClock::shared(),
        ),
        Err(invalid) => refuse(&invalid.errors, format),
    }
}

/// Prints the configuration at `path` with all defaults filled in.
fn print_config(path: &Path, format: Option<LogFormat>) -> ExitCode {
    match config::print(path) {
        Ok(text) => {
            // A closed stdout is ignored.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(errors) => refuse(&errors, format),
    }
}

/// Serves a valid configuration until a signal arrives.
pub(super) fn serve_config(
    (config, warnings): (Config, Vec<Warning>),
    origin: Option<Origin>,
    format: Option<LogFormat>,
    clock: SharedClock,
) -> ExitCode {
    let log_format = format.unwrap_or(config.log.format);
    // Before any thread starts, because it changes the environment.
    let inherited = match InheritedSockets::from_env() {
        Ok(inherited) => inherited,
        Err(error) => return failed(log_format, &error),
    };
    match logging(&config, &warnings, log_format, &clock) {
        Ok(logging) => {
            let result = serve((config, inherited), origin, &logging, clock);
            if let Err(error) = &result {
                tracing::error!(%error, "hawkgate is exiting");
            }
            logging.flush(FLUSH_TIMEOUT);
            result.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        Err(problem) => failed(log_format, &*problem),
    }
}

/// Reports an invalid configuration, in the given format or else that of the file.
fn refuse(errors: &ConfigErrors, format: Option<LogFormat>) -> ExitCode {
    let format = format.or(errors.log_format).unwrap_or(LogFormat::Json);
    report(format, errors, || errors.log())
}

/// Reports an error before logging has been set up.
fn failed(format: LogFormat, problem: &dyn std::error::Error) -> ExitCode {
    report(format, problem, || tracing::error!("{problem}"))
}

/// Reports why hawkgate does not start, before logging has been set up: as plain text, or with `log` if
/// the log would be JSON, so that a collector understands every line.
pub(super) fn report(format: LogFormat, text: &dyn Display, log: impl FnOnce()) -> ExitCode {
    let logging = (format == LogFormat::Json)
        .then(|| Logging::install("info", format, SystemClock::shared()).ok());
    if let Some(logging) = logging.flatten() {
        log();
        logging.flush(FLUSH_TIMEOUT);
    } else {
        let _ = writeln!(std::io::stderr(), "hawkgate: {text}");
    }
    ExitCode::FAILURE
}

fn logging(
    config: &Config,
    warnings: &[Warning],
    format: LogFormat,
    clock: &SharedClock,
) -> Result<Logging, BoxError> {
    let logging = Logging::install(&config.log.level, format, clock.clone())?;
    for warning in warnings {
        warning.log();
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
    if let Some(proxies) = config.network.describe() {
        tracing::info!("{proxies}");
    }
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
    let mut signals = Signals::new(deps.clock.clone())?;
    let running = app::start_on(config, deps, inherited).await?;
    log_addresses(&running);
    let reloads = origin.map(|origin| {
        let interval = origin.watch.then_some(WATCH_INTERVAL);
        running.reloads(origin.path, origin.fingerprints, interval)
    });
    let first = tokio::select! {
        first = stop_or_reload(&mut signals, reloads.as_ref()) => first,
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
        second = stop_or_reload(&mut signals, None) => {
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

/// Waits for a signal to stop. Meanwhile, SIGHUP requests a reload.
async fn stop_or_reload(signals: &mut Signals, reloads: Option<&Reloads>) -> &'static str {
    loop {
        match signals.next().await {
            Received::Stop(name) => return name,
            Received::Reload => match reloads {
                Some(reloads) => reloads.request(),
                None => {
                    tracing::warn!(
                        "ignoring SIGHUP: hawkgate is stopping, or runs without a configuration file"
                    );
                }
            },
        }
    }
}
