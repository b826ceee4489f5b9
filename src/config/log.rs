//! `[log]`

use super::diagnostic::{Location, quoted};
use super::reader::{Reader, section};
use super::value::{Choice, Share};
use crate::log::settings::{AUDIT_LEVEL, LogFormat};
use crate::suggest::nearest;

/// The target of the audit log, which has its own key.
const AUDIT: &str = "audit";

section! {
    /// What is logged, to stderr.
    pub(super) struct Log {
        /// `json`, one object per line, or `text`, for people.
        format: LogFormat = [default "'json'"],
        /// `off`, `error`, `warn`, `info`, `debug` or `trace`, and by module after commas:
        /// `info,hawkgate=debug`. The target of access lines is `access`: `info,access=off`.
        level: String = [default "'info'"],
        /// The fraction of successful requests that get an access line; refusals, errors and replayed
        /// requests are always logged.
        access_sample: Share = [default "1.0"],
        /// Writes a line with target `audit` for each request that got a credential or was refused one: who,
        /// which credential, which route. It contains names of people.
        audit: bool = [default "false"],
    }
}

impl Choice for LogFormat {
    const NAMES: &'static [&'static str] = &["json", "text"];

    fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "text" => Some(Self::Text),
            _ => None,
        }
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

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

/// A level, or `module=level`. Stricter than `RUST_LOG`, which takes a mistyped level for the
/// name of a module and logs everything from it.
fn check_directive(reader: &mut Reader<'_>, at: &Location, directive: &str) {
    let (module, level) = match directive.rsplit_once('=') {
        Some((module, level)) => (Some(module), level),
        None => (None, directive),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_:-".contains(&b);
    if let Some(module) = module
        && (module.is_empty() || !module.bytes().all(fits))
    {
        let problem = format!("{} is not a module", quoted(module));
        reader.error(at, problem, "write it like \"info,hawkgate=debug\"");
    }
    if module == Some(AUDIT) {
        let problem = "the audit log has no level";
        reader.error(at, problem, "write audit = true, or remove it");
        return;
    }
    if !LEVELS.contains(&level) {
        let remedy = match nearest(level, LEVELS) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("write one of {}", LEVELS.join(", ")),
        };
        reader.error(at, format!("{} is not a level", quoted(level)), remedy);
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
