//! The files of the configuration's own tests that `hawkgate check` refuses, and which of them the schema
//! refuses too.

use std::path::PathBuf;

use hawkgate::config::{self, Config, ConfigErrors, ParseOptions, Warning};

#[path = "../../../src/config/tests/refused.rs"]
mod files;

/// For the tests of `files`, which run here too.
fn parse_text(text: &str) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: PathBuf::from("/etc/hawkgate"),
    };
    config::parse(text, "t.toml", &options)
}

/// The errors and the text of each file that is valid TOML.
pub(super) fn files() -> Vec<(String, String)> {
    let cases = files::cases().into_iter();
    cases
        .map(|(_, text, errors)| (errors.replace("t.toml:", ""), text))
        .filter(|(_, text)| text.parse::<toml::Table>().is_ok())
        .collect()
}
