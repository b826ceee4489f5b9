//! Receives records of other crates through the `log` facade.
//!
//! pingora's messages are withheld, because its errors quote the buffer that could not be parsed
//! (`buf: …` in its HTTP/1 reader and body parser) and its summaries quote the path and query. Only
//! the source location is logged, as `module:line`; look it up in pingora's source.

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

fn is_pingora(record: &Record<'_>) -> bool {
    let sources = [Some(record.target()), record.module_path()];
    sources.iter().flatten().any(|p| p.starts_with("pingora"))
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
            if is_pingora(record) {
                line.message(
                    "pingora reported a problem; its message is withheld because it may quote a request",
                );
                let module = record.module_path().unwrap_or("pingora");
                let number = record.line().unwrap_or(0);
                line.field("at", &format_args!("{module}:{number}"));
            } else {
                line.message(record.args());
            }
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
            levels: "trace,pingora_proxy=trace".parse().unwrap(),
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
    fn pingoras_messages_are_withheld() {
        let text = logged_via_facade(
            log::Level::Error,
            "pingora_proxy",
            "pingora_proxy::proxy_h1",
            "Fail to proxy: buf: GET /?bewit=c2VjcmV0 Authorization: Bearer s3cret",
        );
        assert!(text.contains("pingora_proxy::proxy_h1:7"), "{text}");
        assert!(
            !text.contains("bewit") && !text.contains("s3cret"),
            "{text}"
        );
        let text = logged_via_facade(log::Level::Warn, "other", "pingora_core::x", "s3cret");
        assert!(!text.contains("s3cret"), "{text}");
    }

    #[test]
    fn other_crates_are_logged_at_warn_and_above() {
        assert!(
            logged_via_facade(log::Level::Warn, "rustls", "rustls", "no roots")
                .contains("no roots")
        );
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
