//! Reads tables key by key and collects every error; serde would stop at the first.
//!
//! [`section!`] declares a table once: its keys with documentation, type and default. It generates
//! the code that reads the table, and the [`Key`]s for the schema and for suggestions.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::ParseOptions;
use super::diagnostic::{Diagnostic, Lines, Location};
use super::foreign;
use super::resolved::Server;
use crate::config::named_file::NamedFile;
use crate::pem;
use crate::proxy::settings::Listener;
use crate::suggest::nearest;

/// Limits the number of errors collected, and that of warnings.
pub(super) const MAX_DIAGNOSTICS: usize = 1000;

/// A key of a table, with its documentation.
#[derive(Debug)]
pub struct Key {
    /// The key itself.
    pub name: &'static str,
    /// What it means, with units and limits.
    pub doc: &'static str,
    /// Which values are allowed.
    pub shape: Shape,
    /// Whether it is required.
    pub presence: Presence,
}

/// The values that a key allows.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A non-empty string.
    Text,
    /// A value of a token's `typ`, or an empty string.
    TokenType,
    /// A string of 1 to 64 characters from `A-Z a-z 0-9 . _ -`.
    Name,
    /// `true` or `false`.
    Flag,
    /// A whole number, not negative.
    Count,
    /// A number from 0 to 1.
    Fraction,
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
    /// A table with arbitrary keys, each with a value of this shape.
    Map(&'static Shape),
    /// Either of the two.
    Either(&'static Shape, &'static Shape),
}

/// Whether a key is required, and what leaving it out means.
#[derive(Clone, Copy, Debug)]
pub enum Presence {
    /// The key is required.
    Required,
    /// The key's documentation says what leaving it out means.
    Optional,
    /// Leaving the key out means this TOML value.
    Default(&'static str),
}

/// A table whose keys have been read but not yet checked together.
pub(super) trait Section: Sized {
    /// Its documentation.
    const ABOUT: &'static str;
    /// Its keys.
    const KEYS: &'static [Key];
    /// Reads every key in [`Self::KEYS`].
    fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Self;
}

/// A type that can be read from a TOML value.
pub(super) trait Value: Sized {
    /// The values that are allowed, for the schema.
    const SHAPE: Shape;
    /// Reads `value`. Returns `None` if it is invalid, with the error recorded in `reader`.
    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self>;
}

/// A key's value with its location.
#[derive(Debug)]
pub(super) struct Field<T> {
    /// The location of the value, or of the table if the key is absent.
    pub(super) at: Location,
    /// `None` if the value is invalid, or absent without a default.
    pub(super) value: Option<T>,
    /// Whether the file has the key.
    pub(super) given: bool,
}

impl<T> Field<T> {
    /// Whether the key is absent and has no default.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none() && !self.given
    }

    /// Absent (`Some(None)`), present (`Some(Some(_))`), or invalid (`None`).
    #[allow(clippy::option_option)]
    pub(super) fn optional(self) -> Option<Option<T>> {
        match (self.value, self.given) {
            (None, true) => None,
            (value, _) => Some(value),
        }
    }
}

/// A table with its location.
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
    /// Returns the headers of the tables that have a key of the given name, if any.
    owners: fn(&str) -> Option<String>,
    /// The running hawkgate's listeners, during a reload.
    pub(super) running: Option<&'a Server>,
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
    /// Every file that the configuration references.
    pub(super) files: Vec<NamedFile>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        text: &'a str,
        options: &'a ParseOptions,
        owners: fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            lines: Lines::of(text),
            options,
            owners,
            running: None,
            errors: Vec::new(),
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Records an error, which makes the whole file invalid.
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

    /// Records a warning.
    pub(super) fn warn(
        &mut self,
        at: &Location,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.warnings.len() < MAX_DIAGNOSTICS {
            let diagnostic = at.diagnostic(&self.lines, problem.into(), remedy.into());
            self.warnings.push(diagnostic);
        }
    }

    /// Whether the limit of errors is reached.
    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_DIAGNOSTICS
    }

    /// The line of a location, for messages that refer to it.
    pub(super) fn line(&self, at: &Location) -> usize {
        self.lines.position(at.span().start).0
    }

    /// Whether to check referenced files and environment variables.
    pub(super) fn reads_files(&self) -> bool {
        self.options.read_secrets
    }

    /// Whether the outgoing proxies that the environment names apply.
    pub(super) fn reads_environment(&self) -> bool {
        self.options.environment
    }

    /// Resolves a path in the file against the file's folder.
    pub(super) fn resolve_path(&self, written: &str) -> PathBuf {
        self.options.base_dir.join(written)
    }

    /// Records that `path` is referenced at this location.
    pub(super) fn record_file(&mut self, at: &Location, path: &Path) {
        self.files.push(at.file_reference(path));
    }

    /// Removes the file referenced at this location from the files that trigger a reload, because it is
    /// reread whenever it is used.
    pub(super) fn exclude_from_watching(&mut self, at: &Location) {
        self.files
            .retain(|file| *file != at.file_reference(&file.path));
    }

    /// The current listeners, and those after the next restart. Restrictions to this machine apply
    /// to both.
    pub(super) fn all_listeners(&self, written: &[Listener]) -> Vec<Listener> {
        let running = self.running.iter().flat_map(|server| &server.listen);
        // Those of [[forward_auth]] serve none of the routes that are restricted.
        let running = running.filter(|listener| listener.forward_auth.is_none());
        running.chain(written).cloned().collect()
    }

    /// Reads one key, or its default if the key is absent.
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

    /// Refuses keys of `table` that are in none of `listings`. `explain` may return a problem and a
    /// remedy more helpful than a suggestion of the nearest name.
    pub(super) fn refuse_unknown(
        &mut self,
        table: &Table<'_>,
        listings: &[&'static [Key]],
        explain: impl Fn(&str) -> Option<(String, String)>,
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
            if let Some((problem, remedy)) = explain(name) {
                self.error(&at, problem, remedy);
            } else if let Some(suggestion) = nearest(name, known()) {
                self.error(&at, "unknown key", format!("did you mean {suggestion:?}?"));
            } else if let Some(remedy) = foreign::synonym(table.at.table_name(), name) {
                self.error(&at, "unknown key", remedy);
            } else if let Some(owners) = (self.owners)(name) {
                self.error(&at, "unknown key", format!("it is a key of {owners}"));
            } else {
                let all: Vec<_> = known().collect();
                let remedy = format!("the keys here are {}", all.join(", "));
                self.error(&at, "unknown key", remedy);
            }
        }
    }

    /// Refuses a value outside `min..=max`; `show` formats values for the message.
    pub(super) fn check_range<T: PartialOrd + Copy>(
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

    /// Refuses a file of CA certificates that cannot be used, if files are checked at all.
    pub(super) fn check_cas(&mut self, at: &Location, path: &Path) {
        let remedy = "use a PEM file that holds CA certificates and nothing broken";
        self.check_file(at, remedy, || {
            pem::read_cas(path).map_err(|error| format!("CA file {error}"))
        });
    }

    /// Refuses a file that `read` cannot use, if files are checked at all. `read` must be what uses
    /// the file later, so that a valid configuration is one that can be run.
    pub(super) fn check_file<T, E: std::fmt::Display>(
        &mut self,
        at: &Location,
        remedy: &str,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        if !self.reads_files() {
            return None;
        }
        match read() {
            Ok(content) => Some(content),
            Err(problem) => {
                self.error(at, problem.to_string(), remedy);
                None
            }
        }
    }
}

/// An example value, for "missing" errors.
fn example(shape: &Shape) -> String {
    match shape {
        Shape::TokenType => "\"at+jwt\"".into(),
        Shape::Text | Shape::Name => "\"…\"".into(),
        Shape::Flag => "true".into(),
        Shape::Count => "1".into(),
        Shape::Fraction => "0.1".into(),
        Shape::Duration => "\"30s\"".into(),
        Shape::Size => "\"8MiB\"".into(),
        Shape::Url => "\"https://…\"".into(),
        Shape::File => "\"path/to/file\"".into(),
        Shape::Secret => "{ file = \"…\" } or { env = \"…\" }".into(),
        Shape::Choice(names) => {
            let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
            names.join(" or ")
        }
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

/// Declares a table: its documentation, and each key's documentation, type and presence.
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
