//! How a command ends when it does not end well, and how commands speak: results to
//! stdout, everything else to stderr.

use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: the arguments make no sense together.
    Usage(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

pub(super) fn failed<T>(text: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(text.into()))
}

pub(super) fn usage<T>(text: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Usage(text.into()))
}

/// The exit code, after the last words.
pub(super) fn exit(command: &str, end: Result<(), Stop>) -> ExitCode {
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Failed(text)) => {
            tell(&format!("hawkgate {command}: {text}"));
            ExitCode::FAILURE
        }
        Err(Stop::Usage(text)) => {
            tell(&format!(
                "hawkgate {command}: {text}\nSee hawkgate {command} --help"
            ));
            ExitCode::from(2)
        }
    }
}

/// A line for the person, on stderr. Nobody can be told if that is closed.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The result, on stdout.
///
/// # Errors
/// When stdout is closed: then there is no result.
pub(super) fn print(text: &str) -> Result<(), Stop> {
    let mut out = io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush())?;
    Ok(())
}
