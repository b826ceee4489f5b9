//! One line in either format, built field by field.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use serde::Serialize;

use crate::clock::UnixMillis;
use crate::config::LogFormat;

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
            line.field("target", target);
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
