use super::*;

mod accepted;
mod api;
mod auth0;
mod examples;
mod hostile;
mod network;
mod refused;
mod sessions;
mod shared;

/// Parses `text` without checking the files that it references.
fn parse_text(text: &str) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: PathBuf::from("/etc/hawkgate"),
    };
    parse(text, "t.toml", &options)
}
