//! `hawkgate check`: validates a configuration file.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hawkgate::app;
use hawkgate::clock::SystemClock;
use hawkgate::config::{self, Config, ConfigErrors, Diagnostic, Warning};
use serde_json::{Value, json};

use super::{Check, DEFAULT_CONFIG, OutputFormat, process};

/// What errors and warnings call standard input.
const STDIN: &str = "<stdin>";

pub(super) fn main(args: &Check) -> ExitCode {
    let report = check(&path(args), args.skip_secrets);
    let text = match args.format {
        OutputFormat::Text => report.text(),
        OutputFormat::Json => format!("{:#}\n", report.json()),
    };
    // The exit code is meaningful even if stdout is closed.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(report.verdict.is_err()))
}

/// The file to check: the one named in the arguments, then that of the environment, then the default.
fn path(args: &Check) -> PathBuf {
    let named = args.file.as_ref().or(args.config.as_ref());
    let from_environment = || env::var_os("HAWKGATE_CONFIG").filter(|path| !path.is_empty());
    named
        .cloned()
        .or_else(|| from_environment().map(PathBuf::from))
        .unwrap_or_else(|| DEFAULT_CONFIG.into())
}

/// The result of a check.
struct Report {
    /// The file's name in messages.
    file: String,
    verdict: Result<Counts, Vec<Diagnostic>>,
    /// Known only if the file is valid.
    warnings: Vec<Diagnostic>,
    /// A warning about this machine instead of the file.
    machine: Option<String>,
    /// Which outgoing proxies a valid file uses here, where the environment can name them too.
    outgoing_proxy: Option<String>,
}

/// What a valid file contains.
struct Counts {
    routes: usize,
    issuers: usize,
    sources: usize,
    sessions: usize,
}

/// Judges the file at `path` (`-` for standard input) as `hawkgate run` does, up to the point at which
/// it listens.
fn check(path: &Path, skip_secrets: bool) -> Report {
    let checked = if path == Path::new("-") {
        config::check_input(io::stdin().lock(), STDIN, !skip_secrets)
    } else if skip_secrets {
        config::check_without_secrets(path)
    } else {
        config::check(path)
    };
    match checked {
        Err(ConfigErrors { origin, errors, .. }) => Report::invalid(origin, errors),
        Ok((config, warnings)) => {
            let file = if path == Path::new("-") {
                STDIN.to_owned()
            } else {
                path.display().to_string()
            };
            valid(file, &config, warnings, skip_secrets)
        }
    }
}

/// Checks what only building the parts of hawkgate shows.
fn valid(file: String, config: &Config, warnings: Vec<Warning>, skip_secrets: bool) -> Report {
    let mut warnings: Vec<_> = warnings.into_iter().map(|w| w.diagnostic).collect();
    if !skip_secrets {
        process::install_crypto();
        match app::verify(config, &SystemClock::shared()) {
            Ok(more) => warnings.extend(more.into_iter().map(Diagnostic::whole_file)),
            Err(error) => {
                return Report::invalid(file, vec![Diagnostic::whole_file(error.to_string())]);
            }
        }
    }
    let descriptors =
        process::descriptor_warning(process::hard_descriptor_limit(), config.limits.connections);
    warnings.extend(descriptors.map(Diagnostic::whole_file));
    Report {
        file,
        verdict: Ok(Counts {
            routes: config.routes.len(),
            issuers: config.issuers.len(),
            sources: config.sources.len(),
            sessions: config.sessions.len(),
        }),
        warnings,
        // A valid file cannot work on a machine whose clock is not set.
        machine: SystemClock::shared().now().clock_problem(),
        outgoing_proxy: config.network.describe(),
    }
}

impl Report {
    fn invalid(file: String, errors: Vec<Diagnostic>) -> Self {
        Self {
            file,
            verdict: Err(errors),
            warnings: Vec::new(),
            machine: None,
            outgoing_proxy: None,
        }
    }

    /// One line for each error or warning, and a summary of a valid file.
    fn text(&self) -> String {
        let mut lines: Vec<String> = self
            .warnings
            .iter()
            .map(|warning| format!("{}: warning: {warning}", warning.position(&self.file)))
            .collect();
        lines.extend(self.machine.iter().map(|text| format!("warning: {text}")));
        lines.extend(self.outgoing_proxy.clone());
        match &self.verdict {
            Ok(counts) => lines.push(counts.summary()),
            Err(errors) => lines.extend(
                errors
                    .iter()
                    .map(|error| format!("{}: {error}", error.position(&self.file))),
            ),
        }
        lines.join("\n") + "\n"
    }

    /// The object that docs/operating.md describes.
    fn json(&self) -> Value {
        let all = |diagnostics: &[Diagnostic]| -> Vec<Value> {
            diagnostics.iter().map(|d| d.to_json(&self.file)).collect()
        };
        let machine = self.machine.clone().map(Diagnostic::whole_file);
        let mut warnings = all(&self.warnings);
        warnings.extend(machine.map(|warning| warning.to_json("")));
        let errors = self.verdict.as_ref().err();
        let mut report = json!({
            "valid": errors.is_none(),
            "file": self.file,
            "errors": all(errors.map_or(&[], Vec::as_slice)),
            "warnings": warnings,
        });
        if let Some(outgoing_proxy) = &self.outgoing_proxy {
            report["outgoing_proxy"] = outgoing_proxy.as_str().into();
        }
        report
    }
}

impl Counts {
    fn summary(&self) -> String {
        let mut counts = vec![
            count(self.routes, "route"),
            count(self.issuers, "issuer"),
            count(self.sources, "source"),
        ];
        if self.sessions > 0 {
            counts.push(count(self.sessions, "session"));
        }
        format!("valid: {}", counts.join(", "))
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_are_pluralised() {
        assert_eq!(count(1, "route"), "1 route");
        assert_eq!(count(0, "route"), "0 routes");
    }
}
