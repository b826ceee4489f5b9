//! `hawkgate run`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use hawkgate::app::{self, Deps, Running};
use hawkgate::clock::{SharedClock, SystemClock};
use hawkgate::config::{self, Address, Config, LogFormat, Warning};
use hawkgate::log::Logging;
use hawkgate::proxy::listener::Inherited;
use hawkgate::reload::{self, Loaded, Reloads, Stamps, WATCH_INTERVAL};

use super::{Run, notify, process};

/// How long lines may take to reach a slow stderr at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error>;

/// Where a configuration came from, to be read there again.
pub(super) struct Origin {
    path: PathBuf,
    stamps: Stamps,
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
            stamps,
        }) => serve_config(
            (config, warnings),
            Some(Origin {
                path: path.clone(),
                stamps,
                watch: !args.no_watch,
            }),
            args.log_format.map(Into::into),
            SystemClock::shared(),
        ),
        Err(refused) => failed(&refused),
    }
}

/// What the file at `path` means, with every default, as a file.
fn print_config(path: &Path) -> ExitCode {
    match config::print(path) {
        Ok(text) => {
            // Nobody to tell if stdout is closed.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(errors) => failed(&errors),
    }
}

/// Serves a valid configuration until a signal, and says with which exit code to end.
pub(super) fn serve_config(
    (config, warnings): (Config, Vec<Warning>),
    origin: Option<Origin>,
    format: Option<LogFormat>,
    clock: SharedClock,
) -> ExitCode {
    // First of all: it changes the environment, which other threads may read.
    let inherited = match Inherited::from_env() {
        Ok(inherited) => inherited,
        Err(error) => return failed(&error),
    };
    match logging(&config, &warnings, format, &clock) {
        Ok(logging) => {
            let end = serve((config, inherited), origin, &logging, clock);
            if let Err(error) = &end {
                tracing::error!(%error, "hawkgate ends");
            }
            logging.flush(FLUSH_TIMEOUT);
            end.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        Err(problem) => failed(&*problem),
    }
}

/// For as long as there is no log to say it in.
fn failed(problem: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "hawkgate: {problem}");
    ExitCode::FAILURE
}

fn logging(
    config: &Config,
    warnings: &[Warning],
    format: Option<LogFormat>,
    clock: &SharedClock,
) -> Result<Logging, Failure> {
    let format = format.unwrap_or(config.log.format);
    let logging = Logging::install(&config.log.level, format, clock.clone())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(logging)
}

fn serve(
    what: (Config, Inherited),
    origin: Option<Origin>,
    logging: &Logging,
    clock: SharedClock,
) -> Result<(), Failure> {
    if let Err(error) = process::forbid_core_dumps() {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    process::install_crypto();
    let runtime = process::runtime()?;
    let sample = what.0.log.access_sample;
    let deps = Deps {
        clock,
        access_log: logging.access().sampled(sample),
    };
    let end = runtime.block_on(until_signalled(what, origin, deps));
    runtime.shutdown_background();
    end
}

async fn until_signalled(
    (config, inherited): (Config, Inherited),
    origin: Option<Origin>,
    deps: Deps,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let running = app::start_on(config, deps, inherited).await?;
    announce(&running);
    notify::tell("READY=1");
    let reloads = origin.map(|origin| {
        let every = origin.watch.then_some(WATCH_INTERVAL);
        running.reloads(origin.path, origin.stamps, every)
    });
    let first = signals.end(reloads.as_ref()).await;
    drop(reloads);
    notify::tell("STOPPING=1");
    tracing::info!(
        signal = first,
        "draining: no new connections, requests under way finish"
    );
    tokio::select! {
        () = running.drain() => {
            tracing::info!("drained");
            Ok(())
        }
        second = signals.end(None) => {
            running.abort();
            Err(format!("a second signal ({second}): ended at once, without waiting for requests").into())
        }
    }
}

fn announce(running: &Running) {
    for address in &running.listeners {
        tracing::info!(address = shown(address), "listening for callers");
    }
    let (admin, version) = (shown(&running.admin), hawkgate::VERSION);
    tracing::info!(
        admin,
        version,
        "hawkgate is up; metrics and health are at the admin address"
    );
}

fn shown(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// The signals that a run listens to. Made before anything is started, so that none that
/// comes early kills the process.
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

    /// Waits for a signal to end, and passes on those to reload.
    async fn end(&mut self, reloads: Option<&Reloads>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                Some(()) = self.hangup.recv() => {
                    if let Some(reloads) = reloads {
                        reloads.request();
                    } else {
                        tracing::warn!("SIGHUP: there is nothing to reload");
                    }
                }
            }
        }
    }
}
