//! What other crates say through `log`.
//!
//! pingora's texts are not passed on: its errors quote the buffer that could not be
//! parsed (`buf: …` in its HTTP/1 reader and body parser), its summaries the path and
//! query. Only where in pingora it happened is told, as "module:line", which its source
//! explains.

use log::{LevelFilter, Log, Metadata, Record};
use tracing::Level;

use super::level::Levels;
use super::sink::Sink;
use super::{LogError, line};
use crate::clock::SharedClock;
use crate::log::settings::LogFormat;

pub(super) struct Bridge {
    sink: Sink,
    format: LogFormat,
    clock: SharedClock,
    levels: Levels,
}

impl Bridge {
    pub(super) fn install(
        sink: Sink,
        format: LogFormat,
        clock: SharedClock,
        levels: Levels,
    ) -> Result<(), LogError> {
        let bridge = Self {
            sink,
            format,
            clock,
            levels,
        };
        log::set_boxed_logger(Box::new(bridge)).map_err(|_| LogError::Again)?;
        log::set_max_level(LevelFilter::Warn);
        Ok(())
    }
}

/// Records at `warn` and `error` alone pass; see [`Levels`].
fn level(level: log::Level) -> Option<(Level, &'static str)> {
    match level {
        log::Level::Error => Some((Level::ERROR, "error")),
        log::Level::Warn => Some((Level::WARN, "warn")),
        _ => None,
    }
}

fn is_pingora(record: &Record<'_>) -> bool {
    let places = [Some(record.target()), record.module_path()];
    places.iter().flatten().any(|p| p.starts_with("pingora"))
}

impl Log for Bridge {
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
                    "pingora reports a problem; its text may quote a request and is withheld",
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

    fn bridged(level: log::Level, target: &str, module: &str, text: &str) -> String {
        let out = Captured::default();
        let bridge = Bridge {
            sink: Sink::start(Box::new(out.clone())).unwrap(),
            format: LogFormat::Json,
            clock: ManualClock::at(UnixMillis(0)),
            levels: "trace,pingora_proxy=trace".parse().unwrap(),
        };
        bridge.log(
            &Record::builder()
                .level(level)
                .target(target)
                .module_path(Some(module))
                .line(Some(7))
                .args(format_args!("{text}"))
                .build(),
        );
        bridge.sink.flush(Duration::from_secs(20));
        out.text()
    }

    #[test]
    fn pingoras_texts_are_withheld() {
        let text = bridged(
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
        let text = bridged(log::Level::Warn, "other", "pingora_core::x", "s3cret");
        assert!(!text.contains("s3cret"), "{text}");
    }

    #[test]
    fn others_are_heard_from_warn_on() {
        assert!(bridged(log::Level::Warn, "rustls", "rustls", "no roots").contains("no roots"));
        assert_eq!(bridged(log::Level::Info, "rustls", "rustls", "x"), "");
        assert_eq!(bridged(log::Level::Trace, "pingora_core", "x", "x"), "");
    }
}
