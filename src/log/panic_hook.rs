//! Logs panics with their location. A payload formatted at run time may contain secrets
//! (`unwrap` prints the whole error), so only string literals are logged.

use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::time::Duration;

use super::line;
use super::sink::Sink;
use crate::clock::SharedClock;
use crate::log::settings::LogFormat;

/// How long a panic on the main thread waits for a slow stderr.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn install(sink: Sink, format: LogFormat, clock: SharedClock) {
    std::panic::set_hook(Box::new(move |info| {
        sink.push(&describe(info, format, &clock));
        // The process would otherwise exit before the line is written.
        if std::thread::current().name() == Some("main") {
            sink.flush(FLUSH_TIMEOUT);
        }
    }));
}

/// As [`install`], for panics before the log has been set up.
pub(super) fn install_to_stderr(format: LogFormat, clock: SharedClock) {
    std::panic::set_hook(Box::new(move |info| {
        // A failure to write the log cannot be reported anywhere.
        let _ = std::io::stderr().write_all(&describe(info, format, &clock));
    }));
}

fn describe(info: &PanicHookInfo<'_>, format: LogFormat, clock: &SharedClock) -> Vec<u8> {
    line::build(format, clock.now(), "error", "hawkgate::panic", |line| {
        line.message("panic: this is a bug in hawkgate");
        if let Some(location) = info.location() {
            line.field("at", &format_args!("{location}"));
        }
        if let Some(name) = std::thread::current().name() {
            line.field("thread", name);
        }
        if let Some(literal) = info.payload().downcast_ref::<&'static str>() {
            line.field("text", *literal);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use crate::log::sink::tests::Captured;
    use std::panic::{catch_unwind, take_hook};

    #[test]
    fn a_formatted_panic_message_is_not_logged() {
        let out = Captured::default();
        let sink = Sink::start(Box::new(out.clone())).unwrap();
        let clock = ManualClock::at(UnixMillis(0));
        install(sink.clone(), LogFormat::Json, clock);
        let token = String::from("s3cret");
        let formatted = catch_unwind(|| panic!("bad token {token}"));
        let unwrapped = catch_unwind(|| token.parse::<u8>().map_err(|_| &token).unwrap());
        let literal = catch_unwind(|| panic!("a literal text"));
        let _ = take_hook();
        assert!(formatted.is_err() && unwrapped.is_err() && literal.is_err());
        sink.flush(Duration::from_secs(20));
        let text = out.text();
        let panics = text
            .lines()
            .filter(|l| l.contains("src/log/panic_hook.rs:"));
        assert_eq!(panics.count(), 3, "{text}");
        assert!(text.contains("\"text\":\"a literal text\""), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
