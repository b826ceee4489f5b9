//! `hawkgate check`: validates a configuration file.

use std::io::{self, Write};
use std::process::ExitCode;

use hawkgate::clock::SystemClock;
use hawkgate::config::{self, Config, Warning};

use super::Check;

pub(super) fn main(args: &Check) -> ExitCode {
    let path = &args.config.path;
    let result = if args.skip_secrets {
        config::check_without_secrets(path)
    } else {
        config::check(path)
    };
    let valid = result.is_ok();
    let text = match result {
        Ok((config, warnings)) => clock_warning() + &summary(&config, &warnings),
        Err(errors) => format!("{errors}\n"),
    };
    // The exit code is meaningful even if stdout is closed.
    let _ = io::stdout().write_all(text.as_bytes());
    if valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A file that is valid cannot work on a machine whose clock is not set.
fn clock_warning() -> String {
    let problem = SystemClock::shared().now().clock_problem();
    problem.map_or_else(String::new, |problem| format!("warning: {problem}\n"))
}

fn summary(config: &Config, warnings: &[Warning]) -> String {
    let warnings: Vec<String> = warnings.iter().map(|w| format!("{w}\n")).collect();
    format!(
        "{}valid: {}, {}, {}\n",
        warnings.concat(),
        count(config.routes.len(), "route"),
        count(config.issuers.len(), "issuer"),
        count(config.sources.len(), "source"),
    )
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
