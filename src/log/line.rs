//! Builds one log line, field by field, as JSON or text.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::clock::UnixMillis;
use crate::log::settings::LogFormat;

/// Maximum length of a line, in bytes; a longer one is replaced by a short notice.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// A line under construction.
pub(super) enum Line<'a> {
    /// A JSON object with at least one field and without its closing brace.
    Json(&'a mut Vec<u8>),
    /// `name=value` pairs.
    Text(&'a mut Vec<u8>),
}

impl Line<'_> {
    /// Adds a field; `name` must be an identifier. A value that cannot be serialised becomes null;
    /// the values of events always can be.
    pub(super) fn field<T: Serialize + fmt::Display + ?Sized>(&mut self, name: &str, value: &T) {
        match self {
            Self::Json(out) => {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                let begin = out.len();
                if serde_json::to_writer(&mut **out, value).is_err() {
                    out.truncate(begin);
                    out.extend_from_slice(b"null");
                }
            }
            Self::Text(out) => {
                let text = value.to_string();
                let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
                let _ = if !text.is_empty() && text.chars().all(plain) {
                    write!(out, " {name}={text}")
                } else {
                    write!(out, " {name}={text:?}")
                };
            }
        }
    }

    /// As [`Self::field`] for a string, skipping the serialiser if nothing needs escaping.
    #[inline]
    pub(super) fn text(&mut self, name: &str, value: &str) {
        match self {
            Self::Json(out) if needs_no_escaping(value) => {
                // Inlined, so that a name that is a constant is copied without a call.
                out.reserve(name.len() + value.len() + 6);
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":\"");
                out.extend_from_slice(value.as_bytes());
                out.push(b'"');
            }
            _ => self.field(name, value),
        }
    }

    /// As [`Self::field`] for a number.
    #[inline]
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.bare(name, itoa::Buffer::new().format(value).as_bytes(), b"");
    }

    /// Adds a duration in milliseconds with microsecond resolution, capped at `u32::MAX`
    /// microseconds (71 minutes).
    #[inline]
    pub(super) fn millis(&mut self, name: &str, value: Duration) {
        let micros = u32::try_from(value.as_micros()).unwrap_or(u32::MAX);
        let digit = |by: u32| b'0' + u8::try_from(micros / by % 10).unwrap_or(0);
        let fraction = [b'.', digit(100), digit(10), digit(1)];
        // Keep at least one digit: log collectors infer a field's type from its first value.
        let trailing_zeros = fraction.iter().skip(2).rev().take_while(|b| **b == b'0');
        let end = fraction.len() - trailing_zeros.count();
        let fraction = fraction.get(..end).unwrap_or_default();
        let whole = micros / 1000;
        self.bare(name, itoa::Buffer::new().format(whole).as_bytes(), fraction);
    }

    #[inline]
    fn bare(&mut self, name: &str, begin: &[u8], end: &[u8]) {
        let (out, before, after) = match self {
            Self::Json(out) => (out, ",\"", "\":"),
            Self::Text(out) => (out, " ", "="),
        };
        out.reserve(name.len() + begin.len() + end.len() + 4);
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(after.as_bytes());
        out.extend_from_slice(begin);
        out.extend_from_slice(end);
    }

    /// Adds the message.
    pub(super) fn message<T: Serialize + fmt::Display + ?Sized>(&mut self, message: &T) {
        match self {
            Self::Json(_) => self.field("message", message),
            Self::Text(out) => {
                let mut text = Escaped(String::new());
                let _ = write!(text, "{message}");
                let _ = write!(out, " {}", text.0);
            }
        }
    }

    /// Adds a message that replaces one of another crate, and where the original is written in that
    /// crate's source.
    pub(super) fn withheld(&mut self, module: &str, line: Option<u32>) {
        self.message(
            "a library reported a problem; its message is withheld because it may quote a request or a peer",
        );
        let line = line.unwrap_or(0);
        self.field("at", &format_args!("{module}:{line}"));
    }
}

/// Whether `text` needs no escaping in a JSON string (RFC 8259 §7).
fn needs_no_escaping(text: &str) -> bool {
    // No early return, so that the compiler can vectorise the loop.
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    text.bytes().fold(true, |all, byte| all & plain(byte))
}

/// Escapes control characters, so that a value cannot forge a line.
struct Escaped(String);

impl fmt::Write for Escaped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// Builds a line of time, level, target, the fields that `fill` adds, and a newline.
pub(super) fn build(
    format: LogFormat,
    now: UnixMillis,
    level: &str,
    target: &str,
    fill: impl FnOnce(&mut Line<'_>),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(640);
    write_line(&mut out, format, now, level, target, fill);
    if out.len() > MAX_LINE {
        let length = out.len();
        out.clear();
        write_line(&mut out, format, now, level, target, |line| {
            line.message("a log line was too long and was omitted");
            line.field("length", &length);
        });
    }
    out
}

fn write_line(
    out: &mut Vec<u8>,
    format: LogFormat,
    now: UnixMillis,
    level: &str,
    target: &str,
    fill: impl FnOnce(&mut Line<'_>),
) {
    match format {
        LogFormat::Json => {
            // Neither time nor level needs escaping.
            out.extend_from_slice(b"{\"time\":\"");
            now.write_rfc3339(out);
            out.extend_from_slice(b"\",\"level\":\"");
            out.extend_from_slice(level.as_bytes());
            out.push(b'"');
            let mut line = Line::Json(out);
            line.text("target", target);
            fill(&mut line);
            out.push(b'}');
        }
        LogFormat::Text => {
            now.write_rfc3339(out);
            let _ = write!(out, " {level:5} {target}:");
            fill(&mut Line::Text(out));
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: LogFormat, fill: impl FnOnce(&mut Line<'_>)) -> String {
        let line = build(format, UnixMillis(0), "info", "t", fill);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn the_specialised_writers_produce_the_same_output_as_the_general_one() {
        let texts = [
            "", "plain", "a b", "\"", "\\", "\n", "\u{1f}", "\u{7f}", "é…", "</x>",
        ];
        for format in [LogFormat::Json, LogFormat::Text] {
            for text in texts {
                let specialised = written(format, |line| line.text("name", text));
                assert_eq!(
                    specialised,
                    written(format, |line| line.field("name", text))
                );
            }
            for number in [0, 7, 1234, u64::MAX] {
                let specialised = written(format, |line| line.number("name", number));
                assert_eq!(
                    specialised,
                    written(format, |line| line.field("name", &number))
                );
            }
        }
    }

    #[test]
    fn milliseconds_are_exact_and_always_have_a_fraction() {
        for (micros, expected) in [
            (0, "0.0"),
            (1, "0.001"),
            (20, "0.02"),
            (1000, "1.0"),
            (1200, "1.2"),
            (123_456, "123.456"),
            (60_000_050, "60000.05"),
            (u64::MAX, "4294967.295"),
        ] {
            let fill = |line: &mut Line<'_>| line.millis("ms", Duration::from_micros(micros));
            let line = written(LogFormat::Json, fill);
            assert!(line.ends_with(&format!(",\"ms\":{expected}}}\n")), "{line}");
            let line = written(LogFormat::Text, fill);
            assert!(line.ends_with(&format!(" ms={expected}\n")), "{line}");
        }
    }
}
