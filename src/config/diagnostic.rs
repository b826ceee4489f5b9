//! Errors and warnings: the location, the problem and the remedy.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::config::named_file::NamedFile;
use crate::log::settings::LogFormat;

/// An error or warning at one location in the file. Never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line number from 1; 0 when the diagnostic concerns the file as a whole.
    pub line: usize,
    /// Column in characters from 1; 0 when the diagnostic concerns the file as a whole.
    pub column: usize,
    /// The table: `[server]`, `route "taskcluster"`, `route #2`; empty outside tables.
    pub place: String,
    /// The key's path inside the table: `tls.cert`, `issuers[1]`; empty for the table itself.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead; may be empty.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        if !self.key.is_empty() {
            write!(f, "key {:?}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Diagnostic {
    /// A diagnostic that concerns the file as a whole.
    pub(super) fn of_file(problem: String, remedy: &str) -> Self {
        Self {
            line: 0,
            column: 0,
            place: String::new(),
            key: String::new(),
            problem,
            remedy: remedy.to_owned(),
        }
    }

    /// A diagnostic that concerns the file as a whole and says by itself what to do.
    pub fn whole_file(problem: String) -> Self {
        Self::of_file(problem, "")
    }

    /// `file:line`, or the file alone.
    pub fn position(&self, file: &str) -> String {
        match self.line {
            0 => file.to_owned(),
            line => format!("{file}:{line}"),
        }
    }

    /// The members of the diagnostic in `hawkgate check --format json`; `null` for what does not apply.
    pub fn to_json(&self, file: &str) -> serde_json::Value {
        let number = |n: usize| (n > 0).then_some(n);
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        serde_json::json!({
            "file": text(file),
            "line": number(self.line),
            "column": number(self.column),
            "section": text(&self.place),
            "key": text(&self.key),
            "problem": self.problem,
            "remedy": text(&self.remedy),
        })
    }
}

/// Logs a diagnostic, with where it is as fields. Fields that do not apply are left out.
macro_rules! log_diagnostic {
    ($level:ident, $origin:expr, $diagnostic:expr, $message:expr) => {{
        let diagnostic: &Diagnostic = $diagnostic;
        let text = |text| Some(text).filter(|text: &&str| !text.is_empty());
        let number = |n: usize| u64::try_from(n).ok().filter(|n| *n > 0);
        tracing::$level!(
            target: "hawkgate::config",
            file = $origin.as_str(),
            line = number(diagnostic.line),
            section = text(&diagnostic.place),
            key = text(&diagnostic.key),
            "{}",
            $message
        );
    }};
}

/// Every error in a file, sorted by line. `Display` writes one line for each:
/// `conf/hawkgate.toml:12: route "taskcluster": key "upstrem": unknown key; did you mean "upstream"?`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name as passed by the caller.
    pub origin: String,
    /// At least one.
    pub errors: Vec<Diagnostic>,
    /// Every referenced file that is known despite the errors: a change to one may fix an error.
    pub files: Vec<PathBuf>,
    /// The file's `log.format`, if that much of it is valid.
    pub log_format: Option<LogFormat>,
}

impl ConfigErrors {
    /// Logs each error as a line of its own, with the fields `file`, `line`, `section` and `key`.
    pub fn log(&self) {
        for (error, line) in self.errors.iter().zip(self.lines()) {
            log_diagnostic!(error, self.origin, error, line);
        }
    }

    /// Each error as one line, with its location.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let line = |error: &Diagnostic| format!("{}: {error}", error.position(&self.origin));
        self.errors.iter().map(line)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {error}", error.position(&self.origin))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something valid but probably unintended. `Display` writes one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file's name as passed by the caller.
    pub origin: String,
    /// The problem and its location.
    pub diagnostic: Diagnostic,
}

impl Warning {
    /// Logs the warning, as [`ConfigErrors::log`] logs errors.
    pub fn log(&self) {
        log_diagnostic!(warn, self.origin, &self.diagnostic, self);
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.diagnostic.position(&self.origin);
        write!(f, "{at}: warning: {}", self.diagnostic)
    }
}

/// A location in the file that diagnostics refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Location {
    place: String,
    key: String,
    span: Range<usize>,
}

impl Location {
    /// The location of a table as a whole.
    pub(super) fn table(place: impl Into<String>, span: Range<usize>) -> Self {
        Self {
            place: place.into(),
            key: String::new(),
            span,
        }
    }

    /// The location of key `name` inside this table.
    pub(super) fn key(&self, name: &str, span: Range<usize>) -> Self {
        let dot = if self.key.is_empty() { "" } else { "." };
        Self {
            place: self.place.clone(),
            key: format!("{}{dot}{}", self.key, truncated(name)),
            span,
        }
    }

    /// Element `index` of this array.
    pub(super) fn item(&self, index: usize, span: Range<usize>) -> Self {
        Self {
            place: self.place.clone(),
            key: format!("{}[{index}]", self.key),
            span,
        }
    }

    /// The name of the table, if this is a key directly in it: `server`, `route`; otherwise a name that no
    /// table has.
    pub(super) fn table_name(&self) -> &str {
        if !self.key.is_empty() {
            return "-";
        }
        let place = self.place.trim_start_matches('[');
        place.split([' ', ']']).next().unwrap_or_default()
    }

    /// Whether this is where a secret names its environment variable.
    pub(super) fn is_variable_name(&self) -> bool {
        matches!(self.key.rsplit_once('.'), Some((_, "env")))
    }

    /// The byte range in the text. For a missing key, that of its table's header.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// A record that `path` is referenced here.
    pub(super) fn file_reference(&self, path: &Path) -> NamedFile {
        NamedFile {
            table: self.place.clone(),
            key: self.key.clone(),
            path: path.to_owned(),
        }
    }

    /// Creates a diagnostic for this location.
    pub(super) fn diagnostic(
        &self,
        lines: &Lines<'_>,
        problem: String,
        remedy: String,
    ) -> Diagnostic {
        let (line, column) = lines.position(self.span.start);
        Diagnostic {
            line,
            column,
            place: self.place.clone(),
            key: self.key.clone(),
            problem,
            remedy,
        }
    }
}

/// Maps byte offsets in a text to lines and columns.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let after = |(offset, _)| offset + 1;
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(after));
        Self {
            text,
            starts: starts.collect(),
        }
    }

    /// Line and column (in characters), both from 1.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self
            .starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

/// `text` for messages: escaped, in quotes, and truncated after 60 characters.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", truncated(text))
}

fn truncated(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
