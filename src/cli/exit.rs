//! How commands report: errors and exit codes, results on stdout, everything else on stderr.

use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum CommandError {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: an invalid argument or combination of arguments.
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

/// Prints the error, if any, and returns the exit code.
pub(super) fn exit_code(command: &str, result: Result<(), CommandError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Failed(text)) => {
            status(&format!("hawkgate {command}: {text}"));
            ExitCode::FAILURE
        }
        Err(CommandError::Usage(text)) => {
            status(&format!(
                "hawkgate {command}: {text}\nFor more information, try 'hawkgate {command} --help'."
            ));
            ExitCode::from(2)
        }
    }
}

/// Prints a line to stderr for the user. A closed stderr is ignored.
pub(super) fn status(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints the result to stdout.
///
/// # Errors
/// When stdout is closed, because the result is then lost.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush())?;
    Ok(())
}
