//! One line in either format, built field by field.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer as _};

use crate::clock::UnixMillis;
use crate::config::LogFormat;

/// A line longer than this is replaced by a short one that says so.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// A line in the making.
pub(super) enum Line<'a> {
    Json(serde_json::ser::Compound<'a, &'a mut Vec<u8>, serde_json::ser::CompactFormatter>),
    Text(&'a mut Vec<u8>),
}

impl Line<'_> {
    /// Adds a field. Values of events cannot fail to serialise; if one did, the field
    /// would be missing.
    pub(super) fn field<T: Serialize + fmt::Display + ?Sized>(&mut self, name: &str, value: &T) {
        match self {
            Self::Json(map) => {
                let _ = map.serialize_entry(name, value);
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
    let time = now.to_rfc3339();
    match format {
        LogFormat::Json => {
            let mut json = serde_json::Serializer::new(&mut *out);
            if let Ok(map) = json.serialize_map(None) {
                let mut line = Line::Json(map);
                line.field("time", &time);
                line.field("level", level);
                line.field("target", target);
                fill(&mut line);
                if let Line::Json(map) = line {
                    let _ = map.end();
                }
            }
        }
        LogFormat::Text => {
            let _ = write!(out, "{time} {level:5} {target}:");
            fill(&mut Line::Text(out));
        }
    }
    out.push(b'\n');
}
