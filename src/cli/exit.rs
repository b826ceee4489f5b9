//! How a command ends when it does not end well, and how commands speak: results to
//! stdout, everything else to stderr.

use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum CommandError {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: the arguments make no sense together.
    Usage(String),
}

impl<E: std::error::Error> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

pub(super) fn failed<T>(text: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::Failed(text.into()))
}

pub(super) fn usage<T>(text: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::Usage(text.into()))
}

/// The exit code, after the last words.
pub(super) fn exit_code(command: &str, end: Result<(), CommandError>) -> ExitCode {
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Failed(text)) => {
            status(&format!("hawkgate {command}: {text}"));
            ExitCode::FAILURE
        }
        Err(CommandError::Usage(text)) => {
            status(&format!(
                "hawkgate {command}: {text}\nSee hawkgate {command} --help"
            ));
            ExitCode::from(2)
        }
    }
}

/// A line for the person, on stderr. Nobody can be told if that is closed.
pub(super) fn status(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The result, on stdout.
///
/// # Errors
/// When stdout is closed: then there is no result.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush())?;
    Ok(())
}
