//! Reads the configuration file. Each table is read key by key (`reader::Section`), then resolved into
//! the settings types of the module that uses them; together these make up a [`Config`]. All errors
//! are reported, not only the first.
//!
//! Relative paths in the file are resolved against the file's folder.

mod access;
mod auth0_source;
mod cache;
mod cors;
mod diagnostic;
mod document;
mod foreign;
mod forward_auth;
mod host;
mod http_url;
mod issuer;
mod keys;
mod limits;
mod log;
mod login;
mod named_file;
mod network;
mod oauth_client;
mod oauth_source;
mod print;
mod rate;
mod reader;
mod references;
mod resolved;
mod route;
mod rule;
mod schema;
mod server;
mod session;
mod shared;
mod source;
mod static_source;
mod taskcluster_proxy;
mod trace;
mod units;
mod value;

#[cfg(test)]
mod tests;

pub use diagnostic::{ConfigErrors, Diagnostic, Warning};
pub use keys::{KeyTable, TABLES};
pub use named_file::NamedFile;
pub use print::print;
pub use reader::{Key, Presence, Shape};
pub use resolved::*;
pub use schema::{page as reference_page, schema};
pub use taskcluster_proxy::{ACCESS_TOKEN_VARIABLE, CERTIFICATE_VARIABLE, TaskclusterProxy};

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use diagnostic::Lines;
use reader::{MAX_DIAGNOSTICS, Reader};
use toml::de::DeTable;

/// The largest configuration file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// How to parse a configuration.
#[derive(Clone, Debug)]
pub struct ParseOptions {
    /// Whether to check that the referenced secrets, certificates and keys exist and are valid.
    pub read_secrets: bool,
    /// Whether the outgoing proxies that this process's environment names apply.
    pub environment: bool,
    /// The folder that relative paths are resolved against.
    pub base_dir: PathBuf,
}

/// Reads and validates the file at `path` and every file that it references, and discards warnings.
///
/// # Errors
/// Returns every error in the file.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    check(path).map(|(config, _)| config)
}

/// Like [`load`], but also returns the warnings.
///
/// # Errors
/// Returns every error in the file.
pub fn check(path: &Path) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    read(path, true, None)
}

/// Like [`check`], for reloading: listeners change only at a restart, so features that must not be
/// reachable from other machines are checked against the listeners in `running` as well.
///
/// # Errors
/// Returns every error in the file.
pub fn check_reload(path: &Path, running: &Server) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    read(path, true, Some(running))
}

/// Like [`check`], without reading the referenced files and environment variables, which may not
/// exist on this machine.
///
/// # Errors
/// Returns every error in the file.
pub fn check_without_secrets(path: &Path) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    read(path, false, None)
}

/// Like [`check_without_secrets`], with the outgoing proxies that the environment names: for requests to
/// identity providers from this machine.
///
/// # Errors
/// Returns every error in the file, and an unusable proxy in the environment.
pub fn check_for_requests(path: &Path) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let text = read_text(path)?;
    let options = ParseOptions {
        environment: true,
        ..options_for(path, false)
    };
    parse(&text, &path.display().to_string(), &options)
}

/// Like [`check`] or, if `read_secrets` is false, [`check_without_secrets`], for a configuration that
/// is not in a file, such as standard input. Relative paths in it are resolved against the working
/// directory. Errors and warnings use `origin` as the file's name.
///
/// # Errors
/// Returns every error in the text.
pub fn check_input(
    input: impl Read,
    origin: &str,
    read_secrets: bool,
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let text = read_limited(input).map_err(|unusable| unusable.in_file(origin))?;
    let options = ParseOptions {
        read_secrets,
        environment: read_secrets,
        base_dir: PathBuf::new(),
    };
    parse(&text, origin, &options)
}

fn read(
    path: &Path,
    read_secrets: bool,
    running: Option<&Server>,
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let text = read_text(path)?;
    let options = options_for(path, read_secrets);
    parse_as(&text, &path.display().to_string(), &options, running)
}

/// The options for parsing the file at `path`.
fn options_for(path: &Path, read_secrets: bool) -> ParseOptions {
    ParseOptions {
        read_secrets,
        environment: read_secrets,
        base_dir: path.parent().map(Path::to_path_buf).unwrap_or_default(),
    }
}

fn read_text(path: &Path) -> Result<String, ConfigErrors> {
    let opened = std::fs::File::open(path).map_err(|cause| Unusable::unreadable(&cause));
    opened
        .and_then(read_limited)
        .map_err(|unusable| unusable.in_file(&path.display().to_string()))
}

/// Parses `text`. Errors and warnings use `origin` as the file's name.
///
/// # Errors
/// Returns every error in the text, sorted by line.
pub fn parse(
    text: &str,
    origin: &str,
    options: &ParseOptions,
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    parse_as(text, origin, options, None)
}

fn parse_as(
    text: &str,
    origin: &str,
    options: &ParseOptions,
    running: Option<&Server>,
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let (document, faults) = DeTable::parse_recoverable(text);
    let failure = |mut errors: Vec<Diagnostic>, files: Vec<NamedFile>| {
        errors.sort_by_key(|error| (error.line, error.column));
        ConfigErrors {
            origin: origin.to_owned(),
            errors,
            files: files.into_iter().map(|file| file.path).collect(),
            log_format: log::written_format(document.get_ref()),
        }
    };
    if !faults.is_empty() {
        let errors = match foreign::syntax(text) {
            Some(error) => vec![error],
            None => syntax_errors(text, &faults),
        };
        return Err(failure(errors, Vec::new()));
    }
    let mut reader = Reader::new(text, options, keys::owners);
    reader.running = running;
    let config = document::read(&mut reader, document.get_ref());
    let Reader {
        mut errors,
        mut warnings,
        mut files,
        ..
    } = reader;
    match config {
        Some(config) if errors.is_empty() => {
            warnings.sort_by_key(|warning| (warning.line, warning.column));
            let origin = origin.to_owned();
            let warning = |diagnostic| Warning {
                origin: origin.clone(),
                diagnostic,
            };
            Ok((config, warnings.into_iter().map(warning).collect()))
        }
        config => {
            if errors.is_empty() {
                errors.push(internal_error());
            }
            files.extend(config.into_iter().flat_map(|config| config.files));
            Err(failure(errors, files))
        }
    }
}

/// Why a configuration cannot even be parsed.
struct Unusable {
    problem: String,
    remedy: &'static str,
}

impl Unusable {
    fn unreadable(cause: &std::io::Error) -> Self {
        let remedy = match cause.kind() {
            ErrorKind::NotFound => {
                "name your file with --config FILE or HAWKGATE_CONFIG; `hawkgate demo --print-config` prints one to \
                 start from, and `hawkgate demo` needs none"
            }
            ErrorKind::PermissionDenied => {
                "let the user that hawkgate runs as read the file, and enter the folders above it"
            }
            ErrorKind::IsADirectory => "name the file in this folder",
            _ => "",
        };
        Self {
            problem: format!("cannot be read: {cause}"),
            remedy,
        }
    }

    fn in_file(self, origin: &str) -> ConfigErrors {
        ConfigErrors {
            origin: origin.to_owned(),
            errors: vec![Diagnostic::of_file(self.problem, self.remedy)],
            files: Vec::new(),
            log_format: None,
        }
    }
}

fn read_limited(input: impl Read) -> Result<String, Unusable> {
    let mut bytes = Vec::new();
    input
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| Unusable::unreadable(&cause))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Unusable {
            problem: "is larger than 1 MiB".into(),
            remedy: "is it hawkgate's configuration?",
        });
    }
    String::from_utf8(bytes).map_err(|_| Unusable {
        problem: "is not UTF-8".into(),
        remedy: "save it as UTF-8",
    })
}

/// Converts the parser's syntax errors. After one, the parser only guesses at the rest of the
/// document, so nothing else is checked, and the last error says so.
fn syntax_errors(text: &str, faults: &[toml::de::Error]) -> Vec<Diagnostic> {
    let lines = Lines::of(text);
    let mut diagnostics: Vec<Diagnostic> = faults
        .iter()
        .take(MAX_DIAGNOSTICS)
        .map(|fault| {
            let (line, column) = lines.position(fault.span().map_or(0, |span| span.start));
            let source = text.lines().nth(line.saturating_sub(1));
            let remedy = source.and_then(foreign::line_remedy);
            Diagnostic {
                line,
                column,
                ..Diagnostic::of_file(
                    format!("TOML syntax: {}", fault.message()),
                    remedy.unwrap_or_default(),
                )
            }
        })
        .collect();
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    if let Some(last) = diagnostics.last_mut() {
        if !last.remedy.is_empty() {
            last.remedy.push_str("; ");
        }
        last.remedy
            .push_str("the rest of the file is checked once its syntax is valid");
    }
    diagnostics
}

/// The error when resolving failed without recording one. That is a bug in hawkgate, and it must
/// not run with part of a configuration.
fn internal_error() -> Diagnostic {
    Diagnostic::of_file(
        "could not be processed, for an unknown reason".into(),
        "this is a bug in hawkgate: please report it",
    )
}
