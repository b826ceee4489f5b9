//! A `tracing` layer that writes each event as a log line. The messages and fields of other crates
//! are withheld, because they may quote what callers and peers sent; where they come from is logged.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::level::is_own_target;
use super::line::{self, Line};
use super::sink::Sink;
use crate::clock::SharedClock;
use crate::log::settings::LogFormat;

/// Writes each event as one line. Spans are ignored: hawkgate creates none.
pub(super) struct EventLayer {
    sink: Sink,
    format: LogFormat,
    clock: SharedClock,
}

impl EventLayer {
    pub(super) fn new(sink: Sink, format: LogFormat, clock: SharedClock) -> Self {
        Self {
            sink,
            format,
            clock,
        }
    }
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let (level, target) = (level(*meta.level()), meta.target());
        let now = self.clock.now();
        let line = line::build(self.format, now, level, target, |line| {
            if is_own_target(target) {
                event.record(&mut Fields(line));
            } else {
                line.withheld(meta.module_path().unwrap_or(target), meta.line());
            }
        });
        self.sink.push(&line);
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

struct Fields<'a, 'b>(&'a mut Line<'b>);

/// The field's name if it needs no escaping, as is the case for all names in this program.
fn name(field: &Field) -> &'static str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if field.name().bytes().all(plain) {
        field.name()
    } else {
        "unprintable"
    }
}

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.message(&format_args!("{value:?}"));
        } else {
            self.0.field(name(field), &format_args!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.message(value);
        } else {
            self.0.field(name(field), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.field(name(field), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.field(name(field), &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.field(name(field), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.field(name(field), &value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use crate::log::level::Levels;
    use crate::log::line::MAX_LINE;
    use crate::log::sink::tests::Captured;

    fn logged(format: LogFormat, level: &str, log: impl FnOnce()) -> String {
        let out = Captured::default();
        let sink = Sink::start(Box::new(out.clone())).unwrap();
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        let levels: Levels = level.parse().unwrap();
        let events = EventLayer::new(sink.clone(), format, clock);
        let subscriber =
            tracing_subscriber::registry().with(events.with_filter(levels.targets().clone()));
        tracing::subscriber::with_default(subscriber, log);
        sink.flush(Duration::from_secs(20));
        out.text()
    }

    #[test]
    fn an_event_is_one_json_line() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info!(issuer = "auth0", keys = 3, stale = true, cause = %"a\nb", "keys\nfetched");
            tracing::debug!("below the level");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00.000Z", "level": "info", "target": "hawkgate::log::tracing_layer::tests",
            "message": "keys\nfetched", "issuer": "auth0", "keys": 3, "stale": true, "cause": "a\nb",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn messages_and_fields_of_other_crates_are_withheld() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::warn!(target: "h2::codec", frame = "s3cret", "received s3cret");
            tracing::warn!(target: "hawkgated", "s3cret");
        });
        assert_eq!(text.lines().count(), 2);
        assert!(
            text.contains("h2::codec") && text.contains("tracing_layer::tests:"),
            "{text}"
        );
        assert!(!text.contains("s3cret"), "{text}");
    }

    #[test]
    fn a_field_name_that_needs_escaping_is_replaced() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info!("a\"b\n" = 1, "said");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["unprintable"], 1);
    }

    #[test]
    fn control_characters_cannot_forge_a_text_line() {
        let text = logged(LogFormat::Text, "info", || {
            tracing::warn!(path = "/a b\nfake", "one\ntwo\u{1b}[31m");
        });
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000Z warn  hawkgate::log::tracing_layer::tests: one\\ntwo\\u{1b}[31m path=\"/a b\\nfake\"\n"
        );
    }

    #[test]
    fn a_line_over_the_size_limit_is_replaced() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info!("{}", "x".repeat(MAX_LINE));
        });
        assert!(text.len() < 300 && text.contains("too long"), "{text}");
    }
}
