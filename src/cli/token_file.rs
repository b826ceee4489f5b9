//! The `--token-file` argument that `login`, `token` and `logout` share, and its default.

use std::path::PathBuf;

use clap::Args;

use hawkgate::private_file::{DirectoryPolicy, PrivateFile};

use super::exit::{CommandError, usage};

#[derive(Args, Debug)]
pub(super) struct TokenFile {
    /// Token file [default: hawkgate/tokens.json in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenFile {
    pub(super) fn file(&self) -> Result<PrivateFile, CommandError> {
        let path = match &self.token_file {
            Some(path) => path.clone(),
            None => state_home()?.join("hawkgate/tokens.json"),
        };
        let path = std::path::absolute(path)?;
        Ok(PrivateFile::new(path, DirectoryPolicy::OwnerOnly))
    }
}

/// `$XDG_STATE_HOME`. The XDG Base Directory Specification says to ignore relative paths.
fn state_home() -> Result<PathBuf, CommandError> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let absolute = |path: &PathBuf| path.is_absolute();
    if let Some(path) = variable("XDG_STATE_HOME").filter(absolute) {
        return Ok(path);
    }
    match variable("HOME").filter(absolute) {
        Some(home) => Ok(home.join(".local/state")),
        None => usage("neither XDG_STATE_HOME nor HOME is set; give --token-file"),
    }
}
