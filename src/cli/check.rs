//! `hawkgate check`: validates a configuration file.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use hawkgate::app;
use hawkgate::clock::SystemClock;
use hawkgate::config::{self, Config};

use super::{Check, process};

pub(super) fn main(args: &Check) -> ExitCode {
    let result = check(&args.config.path, args.skip_secrets);
    let (text, code) = match result {
        Ok(summary) => (summary, ExitCode::SUCCESS),
        Err(problems) => (problems, ExitCode::FAILURE),
    };
    // The exit code is meaningful even if stdout is closed.
    let _ = io::stdout().write_all(text.as_bytes());
    code
}

/// Judges the file at `path` as `hawkgate run` does, up to the point at which it listens.
fn check(path: &Path, skip_secrets: bool) -> Result<String, String> {
    let checked = if skip_secrets {
        config::check_without_secrets(path)
    } else {
        config::check(path)
    };
    let (config, warnings) = checked.map_err(|errors| format!("{errors}\n"))?;
    let mut lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let file = path.display();
    if !skip_secrets {
        process::install_crypto();
        let more = app::verify(&config, &SystemClock::shared())
            .map_err(|error| format!("{file}: {error}\n"))?;
        lines.extend(more.iter().map(|text| format!("{file}: warning: {text}")));
    }
    lines.extend(config.network.describe());
    let descriptors =
        process::descriptor_warning(process::hard_descriptor_limit(), config.limits.connections);
    lines.extend(descriptors.map(|text| format!("{file}: warning: {text}")));
    // A valid file cannot work on a machine whose clock is not set.
    let clock = SystemClock::shared().now().clock_problem();
    lines.extend(clock.map(|problem| format!("warning: {problem}")));
    lines.push(summary(&config));
    Ok(lines.join("\n") + "\n")
}

fn summary(config: &Config) -> String {
    let mut counts = vec![
        count(config.routes.len(), "route"),
        count(config.issuers.len(), "issuer"),
        count(config.sources.len(), "source"),
    ];
    if !config.sessions.is_empty() {
        counts.push(count(config.sessions.len(), "session"));
    }
    format!("valid: {}", counts.join(", "))
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
