//! Receives records of other crates through the `log` facade.
//!
//! Their messages are withheld, as in [`super::tracing_layer`]: pingora's errors quote the buffer
//! that could not be parsed (`buf: …` in its HTTP/1 reader and body parser), its summaries quote
//! the path and query, and other crates quote what peers sent. hawkgate itself logs through
//! `tracing` only.

use log::{LevelFilter, Log, Metadata, Record};
use tracing::Level;

use super::level::Levels;
use super::sink::Sink;
use super::{LogError, line};
use crate::clock::SharedClock;
use crate::log::settings::LogFormat;

pub(super) struct FacadeLogger {
    sink: Sink,
    format: LogFormat,
    clock: SharedClock,
    levels: Levels,
}

impl FacadeLogger {
    pub(super) fn install(
        sink: Sink,
        format: LogFormat,
        clock: SharedClock,
        levels: Levels,
    ) -> Result<(), LogError> {
        let facade = Self {
            sink,
            format,
            clock,
            levels,
        };
        log::set_boxed_logger(Box::new(facade)).map_err(|_| LogError::AlreadyInitialized)?;
        log::set_max_level(LevelFilter::Warn);
        Ok(())
    }
}

/// Converts the level of a record that may be logged: only `warn` and `error`; see [`Levels`].
fn level(level: log::Level) -> Option<(Level, &'static str)> {
    match level {
        log::Level::Error => Some((Level::ERROR, "error")),
        log::Level::Warn => Some((Level::WARN, "warn")),
        _ => None,
    }
}

impl Log for FacadeLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        level(metadata.level()).is_some_and(|(level, _)| {
            self.levels
                .targets()
                .would_enable(metadata.target(), &level)
        })
    }

    fn log(&self, record: &Record<'_>) {
        let Some((_, level)) = level(record.level()).filter(|_| self.enabled(record.metadata()))
        else {
            return;
        };
        let now = self.clock.now();
        let line = line::build(self.format, now, level, record.target(), |line| {
            let module = record.module_path().unwrap_or(record.target());
            line.withheld(module, record.line());
        });
        self.sink.push(&line);
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use crate::log::sink::tests::Captured;

    fn logged_via_facade(level: log::Level, target: &str, module: &str, text: &str) -> String {
        let out = Captured::default();
        let facade = FacadeLogger {
            sink: Sink::start(Box::new(out.clone())).unwrap(),
            format: LogFormat::Json,
            clock: ManualClock::at(UnixMillis(0)),
            levels: "trace,pingora_core=trace".parse().unwrap(),
        };
        facade.log(
            &Record::builder()
                .level(level)
                .target(target)
                .module_path(Some(module))
                .line(Some(7))
                .args(format_args!("{text}"))
                .build(),
        );
        facade.sink.flush(Duration::from_secs(20));
        out.text()
    }

    #[test]
    fn messages_of_other_crates_are_withheld() {
        for (target, module) in [
            ("pingora_core", "pingora_core::connectors"),
            ("other", "pingora_core::x"),
            ("rustls", "rustls::client"),
        ] {
            for (level, name) in [(log::Level::Error, "error"), (log::Level::Warn, "warn")] {
                let quoted = "buf: GET /?bewit=c2VjcmV0 Authorization: Bearer s3cret";
                let text = logged_via_facade(level, target, module, quoted);
                let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
                assert_eq!(line["at"], format!("{module}:7"));
                assert_eq!(
                    (&line["level"], &line["target"]),
                    (&name.into(), &target.into())
                );
                assert!(
                    !text.contains("bewit") && !text.contains("s3cret"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn other_crates_are_not_logged_below_warn() {
        assert_eq!(
            logged_via_facade(log::Level::Info, "rustls", "rustls", "x"),
            ""
        );
        assert_eq!(
            logged_via_facade(log::Level::Trace, "pingora_core", "x", "x"),
            ""
        );
    }
}
