//! Panics as log lines: where, never with what. A payload that was formatted at run time
//! may hold anything (`unwrap` prints the whole error), so only literals are shown.

use std::panic::PanicHookInfo;

use super::line;
use super::sink::Sink;
use crate::clock::SharedClock;
use crate::config::LogFormat;

pub(super) fn install(sink: Sink, format: LogFormat, clock: SharedClock) {
    std::panic::set_hook(Box::new(move |info| {
        sink.push(&describe(info, format, &clock));
    }));
}

fn describe(info: &PanicHookInfo<'_>, format: LogFormat, clock: &SharedClock) -> Vec<u8> {
    line::build(format, clock.now(), "error", "hawkgate::panic", |line| {
        line.message("panic: a fault of the program");
        if let Some(place) = info.location() {
            line.field("at", &format_args!("{place}"));
        }
        if let Some(name) = std::thread::current().name() {
            line.field("thread", name);
        }
        if let Some(literal) = info.payload().downcast_ref::<&'static str>() {
            line.field("text", *literal);
        }
    })
}
