//! Errors and warnings: the location, the problem and the remedy.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::config::named_file::NamedFile;

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
}

impl ConfigErrors {
    /// Each error as one line, with its location.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.errors.iter().map(|error| match error.line {
            0 => format!("{}: {error}", self.origin),
            line => format!("{}:{line}: {error}", self.origin),
        })
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write_at(f, &self.origin, error.line)?;
            write!(f, "{error}")?;
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

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_at(f, &self.origin, self.diagnostic.line)?;
        write!(f, "warning: {}", self.diagnostic)
    }
}

fn write_at(f: &mut fmt::Formatter<'_>, origin: &str, line: usize) -> fmt::Result {
    match line {
        0 => write!(f, "{origin}: "),
        line => write!(f, "{origin}:{line}: "),
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
