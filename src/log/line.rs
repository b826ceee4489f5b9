//! One line in either format, built field by field.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::clock::UnixMillis;
use crate::log::settings::LogFormat;

/// A line longer than this is replaced by a short one that says so.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// A line in the making.
pub(super) enum Line<'a> {
    /// An object, its last brace missing; at least one field is there.
    Json(&'a mut Vec<u8>),
    Text(&'a mut Vec<u8>),
}

impl Line<'_> {
    /// Adds a field whose name is an identifier. Values of events cannot fail to serialise;
    /// if one did, it would be null.
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

    /// As [`Self::field`], for a text: in JSON at once where nothing in it needs escaping.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        match self {
            Self::Json(out) if is_plain(value) => {
                for part in [",\"", name, "\":\"", value, "\""] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            _ => self.field(name, value),
        }
    }

    /// As [`Self::field`], for a number.
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.bare(name, itoa::Buffer::new().format(value).as_bytes(), b"");
    }

    /// A time in milliseconds, to the microsecond; at most an hour or so, which is more than
    /// any such field says.
    pub(super) fn millis(&mut self, name: &str, value: Duration) {
        let micros = u32::try_from(value.as_micros()).unwrap_or(u32::MAX);
        let digit = |by: u32| b'0' + u8::try_from(micros / by % 10).unwrap_or(0);
        let fraction = [b'.', digit(100), digit(10), digit(1)];
        // With one digit at least: whoever collects logs takes the first value's type for all.
        let needless = fraction.iter().skip(2).rev().take_while(|b| **b == b'0');
        let end = fraction.len() - needless.count();
        let fraction = fraction.get(..end).unwrap_or_default();
        let whole = micros / 1000;
        self.bare(name, itoa::Buffer::new().format(whole).as_bytes(), fraction);
    }

    fn bare(&mut self, name: &str, begin: &[u8], end: &[u8]) {
        let (out, before, after) = match self {
            Self::Json(out) => (out, ",\"", "\":"),
            Self::Text(out) => (out, " ", "="),
        };
        for part in [
            before.as_bytes(),
            name.as_bytes(),
            after.as_bytes(),
            begin,
            end,
        ] {
            out.extend_from_slice(part);
        }
    }

    /// Adds what the line is about.
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
}

/// Whether a JSON string is `text` as it stands (RFC 8259 §7).
fn is_plain(text: &str) -> bool {
    // Without an early end, which a compiler makes many at once of.
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    text.bytes().fold(true, |all, byte| all & plain(byte))
}

/// Text without control characters, so that nothing can forge a line.
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

/// Builds a line with time, level and target, the rest by `fill`, ended by a newline.
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
            line.message("a line was too long and is left out");
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
    fn the_quick_ways_write_what_the_general_one_does() {
        let texts = [
            "", "plain", "a b", "\"", "\\", "\n", "\u{1f}", "\u{7f}", "é…", "</x>",
        ];
        for format in [LogFormat::Json, LogFormat::Text] {
            for text in texts {
                let quick = written(format, |line| line.text("name", text));
                assert_eq!(quick, written(format, |line| line.field("name", text)));
            }
            for number in [0, 7, 1234, u64::MAX] {
                let quick = written(format, |line| line.number("name", number));
                assert_eq!(quick, written(format, |line| line.field("name", &number)));
            }
        }
    }

    #[test]
    fn milliseconds_are_exact_and_never_whole_numbers() {
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
