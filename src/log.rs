//! Logs on stderr: one line an event, one access line a request, never a secret.
//!
//! Lines go through a bounded buffer to a thread of their own (`sink`), so that a slow
//! stderr costs lines, never requests. What other crates log is capped at `warn`, and
//! pingora's texts are withheld, because they quote heads and bodies (`bridge`).

mod access;
mod audit;
mod bridge;
mod event;
mod level;
mod line;
mod panic;
mod sample;
pub mod settings;
mod sink;

use std::io::Write;
use std::time::Duration;

use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;

use crate::clock::SharedClock;
use crate::log::settings::LogFormat;
pub use access::AccessLog;
pub use level::{LevelError, Levels};
use sink::Sink;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is not understood.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// The writing thread could not be started.
    #[error("cannot start the log's thread: {0}")]
    Thread(std::io::Error),
    /// Set up twice in one process.
    #[error("logging is set up already")]
    Again,
}

/// The log of this process.
#[derive(Clone, Debug)]
pub struct Logging {
    sink: Sink,
    access: AccessLog,
}

impl Logging {
    /// Sets up the process's log on stderr: events of this crate and, capped, of others;
    /// panics; and the access log.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn install(level: &str, format: LogFormat, clock: SharedClock) -> Result<Self, LogError> {
        Self::install_to(Box::new(std::io::stderr()), level, format, clock)
    }

    /// The same, to another place.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn install_to(
        out: Box<dyn Write + Send>,
        level: &str,
        format: LogFormat,
        clock: SharedClock,
    ) -> Result<Self, LogError> {
        let levels: Levels = level.parse()?;
        let sink = Sink::start(out).map_err(LogError::Thread)?;
        let events = event::Events::new(sink.clone(), format, clock.clone());
        let subscriber =
            tracing_subscriber::registry().with(events.with_filter(levels.targets().clone()));
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Again)?;
        bridge::Bridge::install(sink.clone(), format, clock.clone(), levels.clone())?;
        panic::install(sink.clone(), format, clock);
        let access = AccessLog::to(sink.clone(), format, &levels);
        Ok(Self { sink, access })
    }

    /// Where requests are recorded; access lines are off when the level says so
    /// (`access=off`), audit lines unless it says `audit=info`.
    pub fn access(&self) -> AccessLog {
        self.access.clone()
    }

    /// Lines lost so far because stderr was too slow.
    pub fn dropped(&self) -> u64 {
        self.sink.dropped()
    }

    /// Waits until everything logged so far is written, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        self.sink.flush(limit);
    }
}
