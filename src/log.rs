//! Logging to stderr: one line per event and one access line per request, never a secret.
//!
//! Lines pass through a bounded buffer to a dedicated writer thread (`sink`), so a slow stderr
//! loses lines but never delays requests. Other crates' records are logged only at `warn` and
//! above, and pingora's messages are withheld because they quote request heads and bodies
//! (`facade`).

mod access;
mod audit;
mod facade;
mod level;
mod line;
mod panic_hook;
mod request_fields;
mod sampler;
pub mod settings;
mod sink;
mod tracing_layer;

use std::io::Write;
use std::time::Duration;

use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;

use crate::clock::SharedClock;
use crate::log::settings::LogFormat;
pub use access::AccessLog;
pub use level::{LevelError, Levels};
use sink::Sink;

/// Why logging could not be initialised.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is not valid.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// The writer thread could not be started.
    #[error("cannot start the log writer thread: {0}")]
    Thread(std::io::Error),
    /// Another logger is installed in this process.
    #[error("logging is already initialised")]
    AlreadyInitialized,
}

/// Reports panics on stderr in this format, as [`Logging::install`] does, until that is called.
pub fn report_panics(format: LogFormat, clock: SharedClock) {
    panic_hook::install_to_stderr(format, clock);
}

/// The process's log.
#[derive(Clone, Debug)]
pub struct Logging {
    sink: Sink,
    access: AccessLog,
}

impl Logging {
    /// Installs the process's log on stderr: events from this crate and, at `warn` and above,
    /// from others; panics; and the access and audit logs.
    ///
    /// # Errors
    /// If the level is invalid, the writer thread cannot be started, or a logger is already
    /// installed.
    pub fn install(level: &str, format: LogFormat, clock: SharedClock) -> Result<Self, LogError> {
        Self::install_to(Box::new(std::io::stderr()), level, format, clock)
    }

    /// As [`Logging::install`], writing to `out` instead of stderr.
    ///
    /// # Errors
    /// As [`Logging::install`].
    pub fn install_to(
        out: Box<dyn Write + Send>,
        level: &str,
        format: LogFormat,
        clock: SharedClock,
    ) -> Result<Self, LogError> {
        let levels: Levels = level.parse()?;
        let sink = Sink::start(out).map_err(LogError::Thread)?;
        let events = tracing_layer::EventLayer::new(sink.clone(), format, clock.clone());
        let subscriber =
            tracing_subscriber::registry().with(events.with_filter(levels.targets().clone()));
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|_| LogError::AlreadyInitialized)?;
        facade::FacadeLogger::install(sink.clone(), format, clock.clone(), levels.clone())?;
        panic_hook::install(sink.clone(), format, clock);
        let access = AccessLog::to(sink.clone(), format, &levels);
        Ok(Self { sink, access })
    }

    /// The log of finished requests. Access lines are on unless the level has `access=off`; audit
    /// lines are off unless it has `audit=info`.
    pub fn access(&self) -> AccessLog {
        self.access.clone()
    }

    /// The number of lines dropped because stderr was too slow.
    pub fn dropped(&self) -> u64 {
        self.sink.dropped()
    }

    /// Waits, for at most `limit`, until everything logged so far has been written.
    pub fn flush(&self, limit: Duration) {
        self.sink.flush(limit);
    }
}
