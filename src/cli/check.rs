//! `hawkgate check`

use std::io::{self, Write};
use std::process::ExitCode;

use hawkgate::config::{self, Loaded};
use hawkgate::log::Levels;

use super::Check;

pub(super) fn main(args: &Check) -> ExitCode {
    let path = &args.config.path;
    let result = if args.skip_secrets {
        config::load_without_secrets(path)
    } else {
        config::load(path)
    };
    let valid = result.is_ok();
    let text = match result {
        Ok(loaded) => summary(&loaded),
        Err(errors) => format!("{errors}\n"),
    };
    // Nobody to tell if stdout is closed; the exit code says it all the same.
    let _ = io::stdout().write_all(text.as_bytes());
    if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut text: String = loaded.warnings.iter().map(|w| format!("{w}\n")).collect();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    text.push_str(&format!(
        "valid: {}, {}, {}\n",
        count(config.routes.len(), "route"),
        count(config.issuers.len(), "issuer"),
        count(config.sources.len(), "source"),
    ));
    text
}
