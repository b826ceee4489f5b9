//! Reads tables key by key and collects every error; serde would stop at the first.
//!
//! [`section!`] declares a table once: its keys with documentation, type and default. From
//! that come the reading, the unknown-key suggestions and [`Key`]s for the schema.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::ParseOptions;
use super::diagnostic::{Diagnostic, Lines, Location, quoted};
use super::resolved::Server;
use crate::config::named_file::NamedFile;
use crate::proxy::settings::Listener;
use crate::suggest::nearest;

/// The most errors, and the most warnings, that are collected.
pub(super) const MAX_FINDINGS: usize = 1000;

/// One key of a table, as documented.
#[derive(Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What it means, with units and limits.
    pub doc: &'static str,
    /// What may be written.
    pub shape: Shape,
    /// Whether it must be there.
    pub presence: Presence,
}

/// What may be written as a value.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A non-empty string.
    Text,
    /// A string of `A-Z a-z 0-9 . _ -`, at most 64.
    Name,
    /// `true` or `false`.
    Flag,
    /// A whole number, not negative.
    Count,
    /// A number from 0 to 1.
    Share,
    /// "30s", "1h30m", "250ms".
    Duration,
    /// "8MiB", "64KiB", "512B".
    Size,
    /// An http or https URL.
    Url,
    /// A file's path, relative to the configuration file's folder.
    File,
    /// `{ file = "…" }` or `{ env = "…" }`.
    Secret,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// An array.
    List(&'static Shape),
    /// A table with these keys.
    Table(&'static [Key]),
    /// A table with keys of any name, each with such a value.
    Map(&'static Shape),
    /// Either of the two.
    Either(&'static Shape, &'static Shape),
}

/// Whether a key must be there, and what it means when it is not.
#[derive(Clone, Copy, Debug)]
pub enum Presence {
    /// Must be written.
    Required,
    /// Its documentation says what leaving it out means.
    Optional,
    /// Means this TOML value when left out.
    Default(&'static str),
}

/// A table whose keys have been read but not yet checked together.
pub(super) trait Section: Sized {
    /// Its documentation.
    const ABOUT: &'static str;
    /// Its keys.
    const KEYS: &'static [Key];
    /// Reads every key of the listing.
    fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self;
}

/// A type that can be read from the right side of `=`.
pub(super) trait Value: Sized {
    /// For the schema.
    const SHAPE: Shape;
    /// `None` when it was refused, with the error in `reader`.
    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self>;
}

/// A key's value with its place.
#[derive(Debug)]
pub(super) struct Field<T> {
    /// The value in the file, or the table when it is not there.
    pub(super) at: Location,
    /// None when absent without default, and when refused.
    pub(super) value: Option<T>,
    /// Whether the file has the key.
    pub(super) given: bool,
}

impl<T> Field<T> {
    /// Not in the file, which is not an error.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none() && !self.given
    }

    /// Absent (`Some(None)`), present (`Some(Some(_))`), or refused (`None`).
    #[allow(clippy::option_option)]
    pub(super) fn optional(self) -> Option<Option<T>> {
        match (self.value, self.given) {
            (None, true) => None,
            (value, _) => Some(value),
        }
    }
}

/// A table with its place.
#[derive(Debug)]
pub(super) struct Table<'t> {
    pub(super) at: Location,
    pub(super) entries: &'t DeTable<'t>,
}

/// Collects the errors and warnings of one file.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    lines: Lines<'a>,
    options: &'a ParseOptions,
    /// The table that has a key of this name, as written in the file.
    owner: fn(&str) -> Option<String>,
    /// The listeners of the running hawkgate, if it is rereading its file.
    pub(super) running: Option<&'a Server>,
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
    /// Every file that the text names.
    pub(super) files: Vec<NamedFile>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        text: &'a str,
        options: &'a ParseOptions,
        owner: fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            lines: Lines::of(text),
            options,
            owner,
            running: None,
            errors: Vec::new(),
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Notes an error; the file is refused at the end.
    pub(super) fn error(
        &mut self,
        at: &Location,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if !self.is_full() {
            let diagnostic = at.diagnostic(&self.lines, problem.into(), remedy.into());
            self.errors.push(diagnostic);
        }
    }

    /// Notes a warning.
    pub(super) fn warn(
        &mut self,
        at: &Location,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.warnings.len() < MAX_FINDINGS {
            let diagnostic = at.diagnostic(&self.lines, problem.into(), remedy.into());
            self.warnings.push(diagnostic);
        }
    }

    /// Whether there are so many errors that no more are noted.
    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_FINDINGS
    }

    /// The line of a location, for messages about another one.
    pub(super) fn line(&self, at: &Location) -> usize {
        self.lines.position(at.span().start).0
    }

    /// Whether to check the files and variables that the file names.
    pub(super) fn reads_files(&self) -> bool {
        self.options.read_secrets
    }

    /// A path as the process can use it.
    pub(super) fn resolve_path(&self, written: &str) -> PathBuf {
        self.options.base_dir.join(written)
    }

    /// Notes that the text names `path` at this place.
    pub(super) fn names_file(&mut self, at: &Location, path: &Path) {
        self.files.push(at.named(path));
    }

    /// The file named at this location is reread whenever it is needed: a change to it does not
    /// need a reload.
    pub(super) fn needs_no_watching(&mut self, at: &Location) {
        self.files.retain(|file| *file != at.named(&file.path));
    }

    /// The listeners now and those after a restart: what must not be reachable from other
    /// machines must hold for both.
    pub(super) fn listening(&self, written: &[Listener]) -> Vec<Listener> {
        let running = self.running.iter().flat_map(|server| &server.listen);
        running.chain(written).cloned().collect()
    }

    /// Reads one key, with its default if the file leaves it out.
    pub(super) fn field<T: Value>(
        &mut self,
        table: &Table<'_>,
        name: &'static str,
        presence: Presence,
    ) -> Field<T> {
        if let Some((key, value)) = table.entries.get_key_value(name) {
            let span = if value.span().is_empty() {
                key.span()
            } else {
                value.span()
            };
            let at = table.at.key(name, span);
            let value = T::read(self, &at, value.get_ref());
            return Field {
                at,
                value,
                given: true,
            };
        }
        let at = table.at.key(name, table.at.span());
        let value = match presence {
            Presence::Optional => None,
            Presence::Required => {
                self.error(
                    &at,
                    "missing",
                    format!("add {name} = {}", example(&T::SHAPE)),
                );
                None
            }
            Presence::Default(toml) => match DeValue::parse(toml) {
                Ok(value) => T::read(self, &at, value.get_ref()),
                Err(fault) => {
                    self.error(
                        &at,
                        format!("hawkgate's own default is not valid TOML: {fault}"),
                        "",
                    );
                    None
                }
            },
        };
        Field {
            at,
            value,
            given: false,
        }
    }

    /// Refuses keys of `table` that are in none of `listings`. `elsewhere` may give a better reason
    /// than the nearest name.
    pub(super) fn refuse_unknown(
        &mut self,
        table: &Table<'_>,
        listings: &[&'static [Key]],
        elsewhere: impl Fn(&str) -> Option<(String, String)>,
    ) {
        let known = || {
            listings
                .iter()
                .flat_map(|keys| keys.iter())
                .map(|key| key.name)
        };
        for key in table.entries.keys() {
            if self.is_full() {
                return;
            }
            let name = key.get_ref().as_ref();
            if known().any(|k| k == name) {
                continue;
            }
            let at = table.at.key(name, key.span());
            if let Some((problem, remedy)) = elsewhere(name) {
                self.error(&at, problem, remedy);
            } else if let Some(meant) = nearest(name, known()) {
                self.error(&at, "unknown key", format!("did you mean {meant:?}?"));
            } else if let Some(owner) = (self.owner)(name) {
                self.error(&at, "unknown key", format!("it is a key of {owner}"));
            } else {
                let all: Vec<_> = known().collect();
                let remedy = format!("the keys here are {}", all.join(", "));
                self.error(&at, "unknown key", remedy);
            }
        }
    }

    /// Refuses a value outside of `min..=max`; `show` formats it.
    pub(super) fn within<T: PartialOrd + Copy>(
        &mut self,
        field: &Field<T>,
        min: T,
        max: T,
        show: fn(T) -> String,
    ) {
        let Some(value) = field.value else { return };
        if value < min {
            let problem = format!("{} is too small", show(value));
            self.error(&field.at, problem, format!("write at least {}", show(min)));
        } else if value > max {
            let problem = format!("{} is too large", show(value));
            self.error(&field.at, problem, format!("write at most {}", show(max)));
        }
    }

    /// If files are checked: refuses one that cannot be read or lacks `marker`.
    pub(super) fn check_file(&mut self, at: &Location, path: &Path, what: &str, marker: &str) {
        if !self.reads_files() {
            return;
        }
        match std::fs::read(path) {
            Err(cause) => {
                let problem = format!("{what} {} cannot be read: {cause}", path.display());
                self.error(at, problem, "name a file that hawkgate can read");
            }
            Ok(content) => {
                if !content
                    .windows(marker.len())
                    .any(|w| w == marker.as_bytes())
                {
                    let problem = format!(
                        "{} is not a {what}: it does not contain {}",
                        path.display(),
                        quoted(marker)
                    );
                    self.error(at, problem, "name a file in the right format");
                }
            }
        }
    }
}

/// What a value of this shape looks like, for "missing" errors.
fn example(shape: &Shape) -> String {
    match shape {
        Shape::Text | Shape::Name => "\"…\"".into(),
        Shape::Flag => "true".into(),
        Shape::Count => "1".into(),
        Shape::Share => "0.1".into(),
        Shape::Duration => "\"30s\"".into(),
        Shape::Size => "\"8MiB\"".into(),
        Shape::Url => "\"https://…\"".into(),
        Shape::File => "\"path/of/a/file\"".into(),
        Shape::Secret => "{ file = \"…\" } or { env = \"…\" }".into(),
        Shape::Choice(names) => names.first().map_or_else(String::new, |n| format!("{n:?}")),
        Shape::List(item) => format!("[{}]", example(item)),
        Shape::Table(keys) => {
            let required = keys
                .iter()
                .filter(|k| matches!(k.presence, Presence::Required));
            let parts: Vec<_> = required
                .map(|k| format!("{} = {}", k.name, example(&k.shape)))
                .collect();
            format!("{{ {} }}", parts.join(", "))
        }
        Shape::Map(value) => format!("{{ \"…\" = {} }}", example(value)),
        Shape::Either(first, _) => example(first),
    }
}

/// Declares a table: documentation, keys, types, presence.
macro_rules! section {
    ($(#[doc = $about:literal])+ $vis:vis struct $name:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $type:ty = [$($presence:tt)+]),+ $(,)?
    }) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        $vis struct $name {
            $($(#[doc = $doc])+ pub(super) $key: $crate::config::reader::Field<$type>),+
        }

        impl $crate::config::reader::Section for $name {
            const ABOUT: &'static str = concat!($($about, "\n"),+);
            const KEYS: &'static [$crate::config::reader::Key] = &[$(
                $crate::config::reader::Key {
                    name: stringify!($key),
                    doc: concat!($($doc, "\n"),+),
                    shape: <$type as $crate::config::reader::Value>::SHAPE,
                    presence: $crate::config::reader::section!(@presence $($presence)+),
                }
            ),+];

            fn read(
                reader: &mut $crate::config::reader::Reader<'_>,
                table: &$crate::config::reader::Table<'_>,
            ) -> Self {
                Self {
                    $($key: reader.field(
                        table,
                        stringify!($key),
                        $crate::config::reader::section!(@presence $($presence)+),
                    )),+
                }
            }
        }
    };
    (@presence required) => { $crate::config::reader::Presence::Required };
    (@presence optional) => { $crate::config::reader::Presence::Optional };
    (@presence default $toml:literal) => { $crate::config::reader::Presence::Default($toml) };
}
pub(super) use section;
