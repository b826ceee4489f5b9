//! `[log]`

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Location, quoted};
use super::reader::{Reader, section};
use super::value::{Choice, Fraction};
use crate::log::settings::{AUDIT_LEVEL, LogFormat};
use crate::suggest::nearest;

/// The target of the audit log, which has a key instead of a level.
const AUDIT: &str = "audit";

section! {
    /// Logging, to stderr.
    pub(super) struct Log {
        /// `json`, one object per line, or `text`, for human readers.
        format: LogFormat = [default "'json'"],
        /// `off`, `error`, `warn`, `info`, `debug` or `trace`, optionally followed by levels for single
        /// modules: `info,hawkgate=debug`. Access lines have the target `access`: `info,access=off`.
        level: String = [default "'info'"],
        /// The fraction of successful requests that get an access line; refusals, errors and replayed
        /// requests are always logged.
        access_sample: Fraction = [default "1.0"],
        /// Writes a line with target `audit` for each request that was granted or refused a credential: the
        /// caller, the credential and the route. These lines contain personal data.
        audit: bool = [default "false"],
    }
}

impl Choice for LogFormat {
    const NAMES: &'static [&'static str] = &["json", "text"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "text" => Some(Self::Text),
            _ => None,
        }
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The `log.format` of a document that may have errors elsewhere, and in which their report is to be
/// written; `None` if the key is absent or invalid.
pub(super) fn written_format(document: &DeTable<'_>) -> Option<LogFormat> {
    let DeValue::Table(log) = document.get("log")?.get_ref() else {
        return None;
    };
    let DeValue::String(name) = log.get("format")?.get_ref() else {
        return None;
    };
    LogFormat::from_name(name)
}

impl Log {
    pub(super) fn resolve(self, reader: &mut Reader<'_>) -> Option<crate::log::settings::Log> {
        let level = self.level.value?;
        for directive in level.split(',') {
            check_directive(reader, &self.level.at, directive.trim());
        }
        let audit = self.audit.value?;
        Some(crate::log::settings::Log {
            format: self.format.value?,
            level: if audit { level + AUDIT_LEVEL } else { level },
            access_sample: self.access_sample.value?.0,
            audit,
        })
    }
}

/// Checks a level, or `module=level`. Stricter than `RUST_LOG`, which treats a mistyped level as the
/// name of a module and enables every level for it.
fn check_directive(reader: &mut Reader<'_>, at: &Location, directive: &str) {
    let (module, level) = match directive.rsplit_once('=') {
        Some((module, level)) => (Some(module), level),
        None => (None, directive),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_:-".contains(&b);
    if let Some(module) = module
        && (module.is_empty() || !module.bytes().all(fits))
    {
        let problem = format!("{} is not a module path", quoted(module));
        reader.error(at, problem, "write it like \"info,hawkgate=debug\"");
    }
    if module == Some(AUDIT) {
        let problem = "cannot set a level for the audit log";
        reader.error(at, problem, "use the key audit instead");
        return;
    }
    if !LEVELS.contains(&level) {
        let alias = match level.to_ascii_lowercase().as_str() {
            "warning" => Some("warn"),
            "err" | "fatal" | "critical" => Some("error"),
            "none" => Some("off"),
            _ => nearest(level, LEVELS),
        };
        let remedy = match alias {
            Some(suggestion) => format!("did you mean {suggestion:?}?"),
            None => format!("write one of {}", LEVELS.join(", ")),
        };
        reader.error(at, format!("{} is not a log level", quoted(level)), remedy);
    }
    let ours = module.is_some_and(|m| m == "hawkgate" || m.starts_with("hawkgate::"));
    if !ours && ["debug", "trace"].contains(&level) {
        let problem = format!(
            "{} makes libraries log the data that they handle",
            quoted(directive)
        );
        reader.warn(at, problem, format!("write \"info,hawkgate={level}\""));
    }
}
